"""Refusals and warnings where a model, a file or identifiers were made from the interactions that lists are judged by, or baselines from
more."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from drafting.alignment.data.fit import FIT_TRAIN, FIT_VALID, has_learnt
from server.commands.terminal import fail

if TYPE_CHECKING:
    from drafting.alignment.data.splits import SplitRule
    from drafting.catalog.catalog import Catalog


def refuse_learnt(path: Path, fit: str, part: str, instead: str = "") -> None:
    """End the command if a model or a file has learnt the labels of a part."""
    if has_learnt(fit, part):
        fail(
            f"{path} has learnt the part {part} (--fit {fit}), so figures there would say nothing: give one that was made alike with "
            f"--fit {FIT_VALID if part == 'test' else FIT_TRAIN}.{instead}"
        )


def warn_of_baselines(fit: str, part: str) -> None:
    """Say that a target is compared with baselines that have learnt more: all before the labels of a part."""
    if part == "test" and fit == FIT_TRAIN:
        typer.echo(
            f"The target has learnt the part train alone, and the baselines learn the part valid, too: give a target of --fit {FIT_VALID} "
            "to compare them, or ask about the users of --part valid.",
            err=True,
        )


def refuse_learnt_identifiers(path: Path, catalog: "Catalog", data: Path, rule: "SplitRule", part: str, instead: str = "") -> None:
    """End the command if the identifiers of a catalog know the labels of a part; say so where it is only possible.

    Args:
        instead: what else can be done than what is said of the catalog.

    Raises:
        SetupError: what they know can't be read.
    """
    from drafting.embeddings.learnt import doubt_of

    if (doubt := doubt_of(path, catalog, data, rule, part)) is None:
        return
    if doubt.sure:
        fail(f"{doubt.sentence}{instead}")
    typer.echo(doubt.sentence, err=True)


def warn_of_learnt_identifiers(path: Path, catalog: "Catalog", data: Path, rule: "SplitRule", parts: Iterable[str]) -> None:
    """Say that lists of a model which is about to be trained can't be judged by one of the parts.

    Raises:
        SetupError: as `refuse_learnt_identifiers`.
    """
    from drafting.embeddings.learnt import doubt_of

    doubts = (doubt_of(path, catalog, data, rule, part) for part in parts)
    if (doubt := next((each for each in doubts if each is not None), None)) is not None:
        typer.echo(doubt.sentence, err=True)
