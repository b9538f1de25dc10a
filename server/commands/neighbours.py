"""`atspeed neighbours`: the neighbour model that is served beside a target, made from interactions in closed form."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drafting.alignment.data.fit import FIT_ALL, FITS, learnt_part
from server.commands.options import setting
from server.commands.terminal import check_out, fail, print_table
from server.commands.train.running import Threads
from server.engine.processors import bound_linear_algebra

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verification.evaluation.baselines.closed_forms import Tried
    from verification.evaluation.users import HeldOut

KINDS = ("best", "ease", "knn")
neighbours_app = typer.Typer(help="Make a neighbour model: for each item, the items that follow from it.", no_args_is_help=True)


@neighbours_app.callback()
def neighbours() -> None:
    """Make a neighbour model: for each item, the items that follow from it."""


@neighbours_app.command()
def build(
    data: Annotated[Path, typer.Option(help="Interactions, split as for the training.", exists=True, file_okay=False)],
    catalog: Annotated[Path, setting("catalog", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option(help="The model to write, ending in .neighbours.safetensors.")],
    kind: Annotated[
        str, typer.Option(help="EASE, item-kNN, or the one that is better on the validation part.", metavar="|".join(KINDS))
    ] = "best",
    fit: Annotated[
        str,
        typer.Option(
            help="What the final model learns from: all for serving; train+valid to be evaluated on the test part, train on the other.",
            metavar="|".join(FITS),
        ),
    ] = FIT_ALL,
    kept: Annotated[int, typer.Option(help="Neighbours kept of each item.", min=1)] = 200,
    window: Annotated[int, typer.Option(help="How many of the newest items of a history count.", min=1)] = 50,
    split: Annotated[str, typer.Option(help="How DATA is split, if it is one stream; auto as it was prepared for.")] = "auto",
    min_items: Annotated[int, typer.Option(help="Leave out shorter users.", min=1)] = 1,
    label_kind: Annotated[str | None, typer.Option(help="Kind of interactions to predict.", show_default="all")] = None,
    keep_seen: Annotated[
        bool, typer.Option("--keep-seen", help="Keep what users have met in the lists that settings are chosen by, as for `evaluate`.")
    ] = False,
    threads: Threads = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Choose a neighbour model's settings by users of the validation part (10,000 at most, spread evenly), make the model, and write it.

    Example: atspeed neighbours build --data data/beauty --catalog beauty.index.json --out beauty.neighbours.safetensors
    """
    bound_linear_algebra(threads)
    _check(out, kind, fit, overwrite)
    try:
        from drafting.alignment.data.loading import load_split
        from drafting.alignment.data.met_labels import check_labels_are_new
        from drafting.alignment.data.record import split_kind
        from drafting.alignment.data.splits import SplitRule
        from drafting.catalog.loading import load_catalog
        from drafting.errors import SetupError
        from drafting.neighbours.build import neighbour_model
        from drafting.neighbours.knn import NoRoomError
        from drafting.neighbours.source_check import source_of
        from verification.evaluation.baselines.closed_forms import best_of
        from verification.evaluation.users import CHOOSING_USERS, held_out
    except ImportError as error:
        fail(f"Making a neighbour model needs the extra 'train' ({error}): pip install 'atspeed-server[train]'.")
    try:
        items = load_catalog(catalog)
        rule = SplitRule(split_kind(split, data), min_items, label_kind)
        parts = load_split(data, items, rule)
        if not keep_seen:
            check_labels_are_new(parts)
        users = held_out(parts, "valid", CHOOSING_USERS)
        tried = _try_all(users, len(items), _kinds(kind, len(items)), kept, window, keep_seen)
        best = best_of(tried)
        _print(tried, best, len(users), keep_seen)
        typer.echo(f"Making the model: {best.settings.kind}, {best.settings}, from {fit} …")
        weights = best.settings.weights(learnt_part(parts, fit), len(items), kept)
        kind, decay, source = best.settings.kind, best.settings.decay, source_of(data, rule)
        model = neighbour_model(weights, items.item_ids, kind=kind, decay=decay, window=window, kept=kept, fit=fit, source=source)
        model.save(out)
    except NoRoomError as error:
        fail(f"{error} Or keep fewer neighbours of each item than --kept {kept}.")
    except SetupError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{out} cannot be written: {error.strerror}.")
    typer.echo(f"Wrote {out}: {len(model.weights):,} neighbours of {len(items):,} items, {out.stat().st_size / 1e6:.1f} MB.")


def _check(out: Path, kind: str, fit: str, overwrite: bool) -> None:
    from drafting.neighbours.model import SUFFIX

    if not out.name.endswith(SUFFIX):
        fail(f"{out} must end in {SUFFIX}, by which it is known.")
    check_out(out, overwrite=overwrite)
    for flag, value, choices in (("--kind", kind, KINDS), ("--fit", fit, FITS)):
        if value not in choices:
            fail(f"{flag} takes {', '.join(choices)}, got {value!r}.")


def _kinds(kind: str, items: int) -> list[str]:
    """The kinds to try; EASE only where its matrix has room."""
    from drafting.neighbours.build import ease_bytes, ease_refusal

    if kind == "knn":
        return ["knn"]
    refusal = ease_refusal(items)
    if refusal is None:
        typer.echo(f"EASE inverts a matrix of {items:,} x {items:,} items, which takes {ease_bytes(items) / 2**30:.1f} GiB of memory.")
        return ["ease"] if kind == "ease" else ["knn", "ease"]
    if kind == "ease":
        fail(f"{refusal}: pass --kind knn.")
    typer.echo(f"{refusal}, so only item-kNN is tried.")
    return ["knn"]


def _try_all(users: "HeldOut", items: int, kinds: "Sequence[str]", kept: int, window: int, keep_seen: bool) -> "list[Tried]":
    """Try all settings on validation users, with matrices cut down as they are served."""
    from tqdm import tqdm

    from verification.evaluation.baselines.closed_forms import CANDIDATES_AT, DECAYS, STRENGTHS, try_settings

    tried = []
    with tqdm(total=sum(len(STRENGTHS[kind]) for kind in kinds) * len(DECAYS), desc="choosing settings", unit="setting") as bar:
        for kind in kinds:
            for each in try_settings(users, items, kind, kept, window=window, at=CANDIDATES_AT, keep_seen=keep_seen):
                tried.append(each)
                bar.update()
    return tried


def _print(tried: "Sequence[Tried]", best: "Tried", users: int, keep_seen: bool) -> None:
    from verification.evaluation.baselines.closed_forms import CANDIDATES_AT as AT

    rows = [
        [each.settings.kind, str(each.settings), f"{each.quality.recall:.4f}", f"{each.quality.ndcg:.4f}", "chosen" * (each is best)]
        for each in tried
    ]
    title = f"{users:,} users of the validation part, seen items {'kept' if keep_seen else 'left out'}"
    heads = ("kind", "settings", f"Recall@{AT}", f"NDCG@{AT}", "")
    print_table(title, heads, rows, left=("kind", "settings", ""))
