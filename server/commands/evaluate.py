"""`atspeed evaluate`: how good lists are, how many steps drafts save, and how much time."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from drafting.alignment.data.fit import FIT_TRAIN, has_learnt
from drafting.beam.rule import LONGEST_LIST, Verification
from drafting.errors import SetupError
from server.commands.evaluation_report import ReportDirectory
from server.commands.evaluation_table import print_report
from server.commands.learnt import refuse_learnt, refuse_learnt_identifiers, warn_of_baselines
from server.commands.options import setting, takes_struct
from server.commands.terminal import fail, failing_on
from server.commands.train.running import Threads
from server.commands.values import chosen, whole_numbers, words
from server.engine.processors import bound_linear_algebra, let_waiting_threads_sleep, usable_processors
from server.settings import MOST_WEIGHT
from verification.evaluation.settings import BASELINES, CLOSED_FORMS, EvaluationSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from drafting.alignment.data.interactions import Split
    from drafting.alignment.data.splits import SplitRule

_WEIGHTS = "0.25,0.5,1,2,4,8"
_ONE_WEIGHT = " Or pass --blend one weight, which two models of the part train have chosen."


@takes_struct(EvaluationSettings, without=["ks", "modes", "most_users", "host", "baselines", "blend", "beam_widths", "threads"])
def evaluate(
    settings: EvaluationSettings,
    catalog: Annotated[Path, setting("catalog", exists=True, dir_okay=False)],
    data: Annotated[Path, typer.Option(help="Interactions, split as for the training.", exists=True, file_okay=False)],
    target: Annotated[
        Path | None,
        typer.Option(help="Directory of the target model.", exists=True, file_okay=False, show_default="none, for the baselines alone"),
    ] = None,
    base: Annotated[Path | None, setting("base", exists=True, file_okay=False)] = None,
    draft: Annotated[list[Path] | None, typer.Option(help="Directory of a draft; may be given several times.")] = None,
    draft_base: Annotated[Path | None, setting("draft_base", exists=True, file_okay=False)] = None,
    k: Annotated[str, typer.Option(help="List lengths, separated by commas.")] = "1,3,5,10,20",
    beam_widths: Annotated[
        str,
        typer.Option(
            help="Prefixes that a strict search keeps at each level but the last, such as 16,64,200, in place of --beam-width. "
            "With a draft, none above the plan's: pass --plan beam:200.",
            metavar="N,N,…",
            show_default="none",
        ),
    ] = "",
    modes: Annotated[str, typer.Option(help="Ways of verifying drafts: strict, relaxed, gumbel.")] = "strict",
    baselines: Annotated[
        str, typer.Option(help=f"Baselines in the same table, separated by commas: {', '.join(BASELINES)}; or none.")
    ] = ",".join(CLOSED_FORMS),
    neighbours: Annotated[
        Path | None,
        typer.Option(help="Neighbour model for a row of blended lists, made with a --fit that leaves out the labels.", dir_okay=False),
    ] = None,
    blend: Annotated[
        str | None,
        typer.Option(
            help="Its weights, separated by commas. Of several, validation users choose, so neither models nor identifiers may have learnt "
            "what they met.",
            show_default=_WEIGHTS,
        ),
    ] = None,
    users: Annotated[int | None, typer.Option(help="Ask about this many users, spread evenly.", min=1, show_default="all")] = None,
    split: Annotated[str | None, typer.Option(help="Of a stream of interactions.", show_default="the target's")] = None,
    min_items: Annotated[int | None, typer.Option(help="Leave out shorter users.", min=1, show_default="the target's")] = None,
    label_kind: Annotated[str | None, typer.Option(help="Kind of interactions to predict.", show_default="the target's")] = None,
    engine: Annotated[str, setting("engine", help="What runs the models.")] = "transformers",
    threads: Threads = None,
    report: Annotated[Path | None, typer.Option(help="Directory for report.json, report.md and the plots.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the report that REPORT holds.")] = False,
) -> None:
    """Evaluate a target and its drafts on held-out users, or baselines alone.

    Example: atspeed evaluate --target models/beauty --draft models/beauty-draft --catalog beauty.index.json --data data/beauty --report out
    """
    bound_linear_algebra(threads)
    from drafting.alignment.data.loading import data_hashes, load_split
    from drafting.alignment.runs import training_record
    from drafting.catalog.loading import load_catalog
    from drafting.neighbours.candidates import CatalogNeighbours
    from drafting.neighbours.model import NeighbourModel
    from drafting.neighbours.source_check import check_source
    from drafting.plans.fixed_plan import refusal_without_server

    if blend is not None and neighbours is None:
        fail("--blend weighs a neighbour model: name its file with --neighbours, or leave --blend out.")
    weights = () if neighbours is None else _weights(_WEIGHTS if blend is None else blend)
    directory = None if report is None else ReportDirectory(report)
    if directory is not None:
        directory.check(overwrite=overwrite)
    if settings.part not in ("test", "valid"):
        fail(f"There is no part {settings.part!r}: choose test or valid.")
    if refusal := refusal_without_server(settings.plan):
        fail(refusal)
    lengths = sorted(whole_numbers("--k", k, LONGEST_LIST))
    rules = tuple(map(Verification, chosen("kind of verification", modes, list(Verification))))
    if not draft and (rules, settings.plan) != ((Verification.STRICT,), EvaluationSettings().plan):
        fail("--plan and --modes are for drafts: name one with --draft, or leave them out.")
    if draft_base is not None and not draft:
        fail("--draft-base is the base of --draft: name that, too, or leave --draft-base out.")
    compared = tuple(chosen("baseline", baselines, BASELINES, or_none=True))
    networks = not set(compared) <= set(CLOSED_FORMS)
    if settings.networks > 1 and not networks:
        neural = " or ".join(name for name in BASELINES if name not in CLOSED_FORMS)
        fail(f"--networks is for neural baselines: name {neural} with --baselines, or leave --networks out.")
    widths = _widths(beam_widths, lengths[-1]) if beam_widths else ()
    if target is None and settings.exhaustive:
        fail("The whole catalog is ranked by a target: name it with --target, or leave --exhaustive out.")
    if target is None and (draft or neighbours or not compared):
        fail("Drafts and neighbour models are evaluated beside a target, and baselines alone if there are some: name it with --target.")
    with failing_on(SetupError):
        record = {} if target is None else training_record(target)
        trained = record.get("settings", {})
        fit = trained.get("fit", FIT_TRAIN)
        if target is not None:
            refuse_learnt(target, fit, settings.part)
        rule = _rule(data, trained, split, min_items, label_kind)
        if (learnt := record.get("data", {}).get("sha256")) and learnt != data_hashes(data):
            typer.echo(f"The target has learnt other interactions than {data} holds: it may know what is held out here.", err=True)
        if compared and "split" in trained:
            warn_of_baselines(fit, settings.part)
        items = load_catalog(catalog)
        if target is not None:
            refuse_learnt_identifiers(catalog, items, data, rule, settings.part)
        held_out = load_split(data, items, rule)
        if not settings.keep_seen:
            _tell_met_labels(held_out, settings.part)
        beside = None if neighbours is None else CatalogNeighbours.of(NeighbourModel.load(neighbours), items)
        if target is not None and neighbours is not None and beside is not None:
            refuse_learnt(neighbours, beside.model.fit, settings.part)
            check_source(beside.model, data, rule)
            if len(weights) > 1 and settings.part != "valid":
                for path, learnt in ((target, fit), (neighbours, beside.model.fit)):
                    refuse_learnt(path, learnt, "valid", _ONE_WEIGHT)
                refuse_learnt_identifiers(catalog, items, data, rule, "valid", _ONE_WEIGHT)
    drafts = {} if target is None else _drafts(draft or [], target, base, rule, settings.part)
    if networks and (target is None or not settings.timed):
        # They train for long, beside other work; and what is timed is not slowed down.
        let_waiting_threads_sleep()
    typer.echo("Loading the libraries …" if target is None else "Loading the models …")
    try:
        from server.engine.loading import memory_told
        from verification.evaluation.run import evaluate as run
        from verification.evaluation.run import evaluate_baselines
    except ImportError as error:
        fail(f"Evaluation needs the extra 'train' ({error}): pip install 'atspeed-server[train]'.")
    settings = msgspec.structs.replace(
        settings,
        ks=tuple(lengths),
        modes=rules,
        baselines=compared,
        beam_widths=widths,
        blend=weights,
        most_users=users,
        host=engine,
        threads=threads or (None if "OMP_NUM_THREADS" in os.environ else usable_processors()),
    )
    if directory is not None:
        directory.begin(networks=networks)
    unfinished = None if directory is None else directory.unfinished
    with failing_on(ValueError):
        if target is None:
            found = evaluate_baselines(items, held_out, settings, unfinished)
        else:
            with memory_told():
                found = run(target, drafts, items, held_out, settings, base, beside, unfinished, draft_base)
    print_report(found)
    if directory is not None:
        directory.write(found)


def _rule(data: Path, trained: "Mapping[str, Any]", split: str | None, min_items: int | None, label_kind: str | None) -> "SplitRule":
    """The rule by which DATA is split: what is asked, and for the rest the target's; the command ends if the target was trained by another
    one, so that it may have learnt what is held out.

    Args:
        trained: settings of the target's training; empty if they are not known.

    Raises:
        SetupError: the data have no such split.
    """
    from drafting.alignment.data.record import AUTO, split_kind
    from drafting.alignment.data.splits import SplitRule

    kind = label_kind or trained.get("label_kind")
    asked = SplitRule(split_kind(split or trained.get("split", AUTO), data), min_items or trained.get("min_items", 1), kind)
    if "split" not in trained:
        return asked
    learnt = SplitRule(trained["split"], trained.get("min_items", 1), trained.get("label_kind"))
    if asked != learnt:
        fail(f"The target was trained with '{_flags(learnt)}', and may have learnt what other splits hold out: leave these flags out here.")
    return asked


def _flags(rule: "SplitRule") -> str:
    """The flags that split data by a rule."""
    of_kind = "" if rule.label_kind is None else f" --label-kind {rule.label_kind}"
    return f"--split {rule.kind} --min-items {rule.min_items}{of_kind}"


def _tell_met_labels(held_out: "Split", part: str) -> None:
    """Warn if most labels are items that lists leave out."""
    from drafting.alignment.data.met_labels import met_labels

    if (met := met_labels(held_out, part)).are_most:
        typer.echo(
            f"{met} labels of the part {part} are items that their users had met before, which lists leave out, so that none can hold "
            "them: pass --keep-seen if such items are to be predicted.",
            err=True,
        )


def _widths(text: str, longest: int) -> tuple[int, ...]:
    """Widths of levels for lists of up to `longest`."""
    # It imports numpy, which `--help` and a typing mistake need not wait for.
    from verification.lengths import check_lengths

    widths = tuple(whole_numbers("--beam-widths", text, repeats=True))
    with failing_on(ValueError):
        check_lengths(longest, max(widths), widths)
    return widths


def _weights(text: str) -> tuple[float, ...]:
    try:
        weights = tuple(map(float, words(text)))
    except ValueError:
        weights = ()
    if not weights or not all(0 < weight <= MOST_WEIGHT for weight in weights):
        fail(f"--blend takes numbers above 0 and up to {MOST_WEIGHT}, separated by commas, got {text!r}.")
    return tuple(sorted(set(weights)))


def _drafts(paths: list[Path], target: Path, base: Path | None, rule: "SplitRule", part: str) -> dict[str, Path]:
    """The drafts by name, with a word about those that learnt from another target, or maybe what a part of the data, split by `rule`, holds
    out."""
    from drafting.alignment.data.hashes import model_hash
    from drafting.alignment.data.splits import SplitRule
    from drafting.alignment.runs import training_record

    names = [path.resolve().name for path in paths]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        fail(f"Two drafts are called {doubled!r}: their directories need different names, which the table shows them by.")
    with failing_on(SetupError):
        here = model_hash(target, base)
        records = {path: training_record(path) for path in paths}
    for path, record in records.items():
        # A T5 is no pupil of its target, but trained as one.
        teacher = record.get("teacher", record)
        if (taught := teacher.get("target", here)) != here:
            typer.echo(f"The draft {path} was taught by another target (hash {taught}, this one is {here}): expect it to guess badly.")
        made = teacher.get("settings", {})
        if "split" in made:
            learnt, fit = SplitRule(made["split"], made.get("min_items", 1), made.get("label_kind")), made.get("fit", FIT_TRAIN)
            if learnt != rule or has_learnt(fit, part):
                typer.echo(
                    f"The draft {path} has learnt with '{_flags(learnt)} --fit {fit}', and maybe what is held out here: expect it to guess "
                    "worse for others than these users.",
                    err=True,
                )
    return dict(zip(names, paths, strict=True))
