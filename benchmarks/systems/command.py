"""`atspeed-bench bench`: this engine with and without drafts, against vLLM and transformers, on one checkpoint."""

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.endings import require, sentences
from benchmarks.options import ITEMS_ALONE, in_a_directory
from drafting.beam.rule import MAX_BEAM_WIDTH
from server.commands.terminal import fail
from server.commands.values import chosen, some_words, whole_numbers
from server.engine.processors import usable_processors

if TYPE_CHECKING:
    from benchmarks.systems.question import SystemSpec

PLANS = "none,trie,auto"
DRAFT_PLANS = "none,trie,beam:40,beam:40+children,auto"


def bench(
    target: Annotated[Path | None, typer.Option(help="Model directory; without one, random models of --shape are made.")] = None,
    catalog: Annotated[Path | None, typer.Option(help="Catalog of the model, needed with --target.")] = None,
    draft: Annotated[Path | None, typer.Option(help="Directory of a draft model over the target's tokens.")] = None,
    data: Annotated[
        Path | None, typer.Option(help=f"Interactions: the target's test users are asked {ITEMS_ALONE}. By default random histories.")
    ] = None,
    shape: Annotated[
        str, typer.Option(help="Random target, draft and catalog: small (3.7M and 0.1M parameters), tiny, tiger (a T5) or larger.")
    ] = "small",
    k: Annotated[str, typer.Option(help="List lengths, separated by commas.")] = "1,3,5,10,20",
    plans: Annotated[
        str | None,
        typer.Option(
            help="What our engine drafts, separated by commas; none comes first.", show_default=f"{DRAFT_PLANS}; without a draft {PLANS}"
        ),
    ] = None,
    engines: Annotated[
        str, typer.Option(help="What runs our target: vllm, transformers or both, separated by commas.")
    ] = "vllm,transformers",
    concurrency: Annotated[str, typer.Option(help="Requests at once in our engine, separated by commas.")] = "1,8",
    requests: Annotated[int, typer.Option(min=1, help="Timed requests per system and list length.")] = 30,
    warm_up: Annotated[int, typer.Option(min=0, help="Requests before those.")] = 3,
    items: Annotated[int, typer.Option(min=1, help="Items per history: 20 items of 4 tokens make a prompt of 80.")] = 20,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads per system; all cores by default.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the rows to this file.", callback=in_a_directory)] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Also write the rows as Markdown tables to this file.", callback=in_a_directory)
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw the times to this PNG file.", callback=in_a_directory)] = None,
    record_trace: Annotated[
        Path | None,
        typer.Option(
            help="Time nothing; write which drafts held to this file, for `make bench-gpu`. Here a plan may also be "
            "auto@B: the planner of a machine where a forward's fixed part costs as much as B tokens.",
            callback=in_a_directory,
        ),
    ] = None,
    force: Annotated[bool, typer.Option(help="Measure although the machine is busy.")] = False,
) -> None:
    """Time beam search with and without drafts against vLLM's and transformers' on one checkpoint, interleaved, on an idle machine."""
    if (target is None) != (catalog is None):
        raise typer.BadParameter("--target and --catalog go together.")
    if target is None and draft is not None:
        raise typer.BadParameter("--draft needs --target: without one, a random draft is made beside the random target.")
    require("httpx", *(["matplotlib"] if plot else []))
    # The server that is measured, too, has room for no wider beams.
    ks, concurrencies = whole_numbers("--k", k, MAX_BEAM_WIDTH), whole_numbers("--concurrency", concurrency)
    plan_names = _plans(plans, ks, target is None or draft is not None, recorded=record_trace is not None)
    hosts = _hosts(engines)
    if record_trace is None and not force:
        _refuse_busy_machine()
    from benchmarks.systems.markdown import tables
    from benchmarks.systems.plot import save_plot
    from benchmarks.systems.question import SystemSpec
    from benchmarks.systems.run import Run, measure, save, show

    with sentences(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cores = threads or usable_processors()
        if target is None or catalog is None:
            target, draft, catalog = _random_models(shape, folder)
        models = SystemSpec("atspeed/transformers", target, catalog, cores, draft, plan_names)
        histories = _histories(models, data, requests + warm_up, items)
        if record_trace is not None:
            whose = f"{requests} test users of {data.resolve().name}" if data else f"{requests} random histories"
            _record(models, histories, ks, warm_up, whose, record_trace)
            return
        report = measure(Run(models, hosts, histories, ks, concurrencies, warm_up, folder))
    show(report)
    if json_file is not None:
        save(report, json_file)
    if markdown is not None:
        markdown.write_text(tables(report.rows))
    if plot is not None:
        save_plot(report.rows, plot)


def _hosts(text: str) -> list[str]:
    """The hosts to measure; vLLM only where it is installed."""
    names = chosen("engine", text, ("vllm", "transformers"))
    there = [name for name in names if name != "vllm" or find_spec("vllm")]
    if not there:
        fail("vLLM is not installed: install the extra 'cpu' or 'gpu', or use --engines transformers.")
    return there


def _plans(text: str | None, ks: list[int], has_draft: bool, recorded: bool) -> tuple[str, ...]:
    """The plans to measure, plain search first: it is what the others are compared with."""
    from benchmarks.systems.question import AUTO, PLAIN
    from benchmarks.systems.trace import balance_of
    from drafting.plans.fixed_plan import FixedPlan, PlanError

    names = some_words("--plans", (DRAFT_PLANS if has_draft else PLANS) if text is None else text)
    for name in names:
        if name == AUTO or (recorded and balance_of(name)):
            continue
        try:
            plan = FixedPlan.parse(name)
        except PlanError as error:
            raise typer.BadParameter(str(error)) from error
        if plan.needs_draft and not has_draft:
            raise typer.BadParameter(f"the plan {name} needs a draft model: give --draft.")
        if refusal := plan.refusal(max(ks)):
            raise typer.BadParameter(refusal)
    return tuple(dict.fromkeys([PLAIN, *names]))


def _refuse_busy_machine() -> None:
    from benchmarks.systems.interleaved import BUSY_SHARE, busy_share

    busy = busy_share()
    if busy > BUSY_SHARE:
        fail(f"Other work takes {busy:.0%} of this machine: timings would mean nothing. Wait, or use --force.")


def _random_models(name: str, folder: Path) -> tuple[Path, Path, Path]:
    """Make a target, a draft and a catalog in a folder."""
    from benchmarks.systems.shapes import SHAPES, make_catalog, make_checkpoint

    if name not in SHAPES:
        raise typer.BadParameter(f"there is no shape {name!r}: choose {', '.join(SHAPES)}.")
    made = make_catalog(SHAPES[name])
    target, draft, catalog = folder / "target", folder / "draft", folder / "catalog.jsonl"
    made.save(catalog)
    make_checkpoint(target, SHAPES[name].target, made)
    make_checkpoint(draft, SHAPES[name].draft, made, seed=1)
    return target, draft, catalog


def _histories(models: "SystemSpec", data: Path | None, count: int, length: int) -> list[list[int]]:
    from benchmarks.systems.histories import held_out_histories, random_histories
    from drafting.catalog.loading import load_catalog

    catalog = load_catalog(models.catalog)
    return held_out_histories(data, catalog, models.target, count, length) if data else random_histories(len(catalog), count, length)


def _record(models: "SystemSpec", histories: list[list[int]], ks: list[int], warm_up: int, whose: str, path: Path) -> None:
    from tqdm import tqdm

    from benchmarks.systems.question import AUTO, PLAIN
    from benchmarks.systems.recording import record
    from drafting.catalog.loading import load_catalog
    from verification.recommender import Recommender

    plan = AUTO if AUTO in models.plans else PLAIN
    recommender = Recommender.load(models.target, load_catalog(models.catalog), draft=models.draft, plan=plan, threads=models.threads)
    source = f"{whose}, {len(recommender.catalog)} items, target {models.target.resolve().name}"
    source += f" with draft {models.draft.resolve().name}" if models.draft else ""
    with tqdm(total=len(models.plans) * len(ks) * len(histories), desc="Recording", unit="request", miniters=10) as bar:
        trace = record(recommender, histories, models.plans, ks, bar.update, source=source, warm_up=warm_up)
    trace.save(path)
