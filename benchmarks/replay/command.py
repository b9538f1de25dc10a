"""`atspeed-bench replay`: what drafting would save on another machine, judged from recorded users."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.endings import require, sentences
from benchmarks.options import CatalogFile, Data, Draft, Lengths, Target, in_a_directory, list_lengths
from server.commands.terminal import fail
from server.commands.values import some_words, whole_numbers
from server.engine.processors import usable_processors

if TYPE_CHECKING:
    from benchmarks.replay.check import CheckRow
    from benchmarks.replay.report import ReplayRow

DEFAULT_PLANS = (
    "none,trie,beam:20,beam:40,beam:60,beam:40x1,beam:40x2,beam:40+children,beam:40x1+children,items:40,last,items:40+last,"
    "beam:40+items:40,beam:40+last,beam:40+items:40+last,auto"
)

replay_app = typer.Typer(help="Replay draft plans on recorded users, for machines that are not at hand.", no_args_is_help=True)


@replay_app.callback()
def replay() -> None:
    """Replay draft plans on recorded users, for machines that are not at hand."""


@replay_app.command()
def record(
    target: Target,
    draft: Draft,
    catalog_file: CatalogFile,
    data: Data,
    out: Annotated[Path, typer.Option(help="Recording to write (.npz).")],
    k: Lengths = "1,3,5,10,20",
    users: Annotated[int, typer.Option(min=1, help="Test users to record, spread evenly over the data.")] = 500,
    neighbours: Annotated[
        Path | None, typer.Option(help="Neighbour model whose items plans may draft; none by default.", exists=True, dir_okay=False)
    ] = None,
) -> None:
    """Record what draft and target say about real users; a tenth of a second and 70 kB each for the paper's Beauty catalog.

    Example: atspeed-bench replay record --target target --draft draft --catalog beauty.index.json --data beauty --out beauty.npz
    """
    from tqdm import tqdm

    from benchmarks.replay.recording import record_recommender
    from benchmarks.systems.histories import held_out_histories
    from drafting.catalog.loading import load_catalog
    from drafting.neighbours.candidates import CatalogNeighbours
    from drafting.neighbours.model import NeighbourModel
    from verification.recommender import Recommender

    ks = list_lengths(k)
    with sentences():
        # Before minutes of work, not after them.
        out.parent.mkdir(parents=True, exist_ok=True)
        catalog = load_catalog(catalog_file)
        histories = held_out_histories(data, catalog, target, users)
        recommender = Recommender.load(target, catalog, draft=draft)
        beside = None if neighbours is None else CatalogNeighbours.of(NeighbourModel.load(neighbours), recommender.catalog)
        with tqdm(total=len(histories), desc="Recording", unit="user") as bar:
            record_recommender(recommender, histories, ks, bar.update, beside).save(out)
        recommender.close()
    typer.echo(f"Wrote {out}: {len(histories)} users, {out.stat().st_size / 2**20:.1f} MiB.")


@replay_app.command()
def run(
    recording: Annotated[Path, typer.Argument(help="What `atspeed-bench replay record` wrote.", exists=True, dir_okay=False)],
    plans: Annotated[str, typer.Option(help="Plans to replay, separated by commas.")] = DEFAULT_PLANS,
    k: Annotated[str | None, typer.Option(help="List lengths, of those recorded.", show_default="all recorded")] = None,
    balance: Annotated[
        str, typer.Option(help="Machines: the tokens that cost a forward of the target as much as its fixed part.")
    ] = "50,300,1000",
    free: Annotated[int, typer.Option(min=0, help="Tokens that a forward of the target has at no cost: some hundred on a GPU.")] = 0,
    draft_share: Annotated[float, typer.Option(min=0, help="Cost of a forward of the draft, as a share of the target's.")] = 0.01,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the rows to this file.", callback=in_a_directory)] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw the speed-ups (.png).", callback=in_a_directory)] = None,
) -> None:
    """Replay plans on machines of given cost curves. A forward costs a + b tokens; about 50 = a/b on two CPU cores, 300 for a 7B on a GPU.

    With --free it costs a for the first tokens, and b for each one beyond.

    Example: atspeed-bench replay run beauty.npz --balance 300 --plans none,trie,beam:40,auto
    """
    require(*(["matplotlib"] if plot else []))
    import json

    from tqdm import tqdm

    from benchmarks.modelled_costs import modelled_costs
    from benchmarks.replay.plot import plot_speedups
    from benchmarks.replay.recording import Recording
    from benchmarks.replay.report import compare_plans
    from drafting.plans.fixed_plan import FixedPlan

    curves = {float(tokens): modelled_costs(float(tokens), draft_share, float(free)) for tokens in whole_numbers("--balance", balance)}
    names = some_words("--plans", plans)
    with sentences():
        for name in names:
            if name != "auto":
                FixedPlan.parse(name)
        recorded = Recording.load(recording)
        ks = whole_numbers("--k", k) if k else list(recorded.beams)
        if missing := sorted(set(ks) - set(recorded.beams)):
            fail(f"{recording} has no lists of {', '.join(map(str, missing))}: it holds k = {', '.join(map(str, recorded.beams))}.")
        with tqdm(total=len(ks) * len(curves) * len(names), desc="Replaying", unit="plan") as bar:
            rows = compare_plans(recorded, ks, names, curves, bar.update)
    _print_rows(rows, recorded.users, draft_share)
    if json_file:
        json_file.write_text(json.dumps([row.as_dict() for row in rows], indent=2) + "\n")
    if plot:
        plot_speedups(rows, plot)


@replay_app.command()
def check(
    target: Target,
    draft: Draft,
    catalog_file: CatalogFile,
    data: Data,
    plans: Annotated[str, typer.Option(help="Plans to check, separated by commas.")] = "none,trie,beam:20,beam:40,auto",
    k: Lengths = "1,5,10,20",
    users: Annotated[int, typer.Option(min=1, help="Test users to time.")] = 100,
    engine: Annotated[str, typer.Option(help="What runs the target: transformers or vllm.")] = "transformers",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores by default.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once; above 1 plans are timed but not predicted.")] = 1,
) -> None:
    """Hold the model against this machine: measure its cost curve, predict each plan's time from it, and time the plan (idle machine).

    Users are asked for the first time, so no plan drafts what a last list held.

    Example: atspeed-bench replay check --target models/target --draft models/draft --catalog beauty.index.json --data beauty
    """
    from tqdm import tqdm

    from benchmarks.replay.check import check_plans
    from benchmarks.systems.histories import held_out_histories
    from drafting.catalog.loading import load_catalog
    from verification.recommender import Recommender

    ks, names = list_lengths(k), some_words("--plans", plans)
    with sentences():
        catalog = load_catalog(catalog_file)
        histories = held_out_histories(data, catalog, target, users)
        cores = threads or usable_processors()
        recommender = Recommender.load(target, catalog, draft=draft, plan="auto", host=engine, threads=cores)
        timed = len(dict.fromkeys(("none", *names)))
        with tqdm(total=2 * len(histories) * len(ks) * timed, desc="Timing", unit="list") as bar:
            rows = check_plans(recommender, histories, ks, names, concurrency, bar.update)
        recommender.close()
    _print_check(rows, concurrency)


def _print_rows(rows: "Sequence[ReplayRow]", users: int, draft_share: float) -> None:
    from server.commands.terminal import print_table

    columns = ("a/b", "k", "plan", "target forwards", "target tokens", "draft forwards", "accepted", "speed-up")
    cells = [
        (
            f"{row.balance:g}",
            str(row.k),
            row.plan,
            f"{row.target_forwards:.2f}",
            f"{row.target_tokens:.0f}",
            f"{row.draft_forwards:.2f}",
            f"{row.accepted_steps:.2f}",
            f"{row.speedup:.2f}",
        )
        for row in sorted(rows, key=lambda row: (row.balance, row.k))
    ]
    print_table(f"{users} users, per request; a forward of the draft costs {draft_share:.0%} of the target's", columns, cells)


def _print_check(rows: "Sequence[CheckRow]", concurrency: int) -> None:
    from server.commands.terminal import print_table

    columns = ("k", "plan", "measured ms", "predicted ms", "predicted / measured", "measured speed-up", "predicted speed-up")
    cells = [
        (
            str(row.k),
            row.plan,
            f"{1e3 * row.measured:.2f}",
            f"{1e3 * row.predicted:.2f}",
            f"{row.predicted / row.measured:.2f}",
            f"{row.measured_speedup:.2f} ± {row.speedup_error:.2f}",
            f"{row.predicted_speedup:.2f}",
        )
        for row in rows
    ]
    print_table(f"Median time of a list, {concurrency} at a time", columns, cells)
