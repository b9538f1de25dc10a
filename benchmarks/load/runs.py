"""Runs against one server: users get their histories, requests are sent at each rate, reports are printed and written."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import uvloop

from benchmarks.load.plot import save_plot
from benchmarks.load.report import LoadReport
from benchmarks.load.run import LoadRun
from benchmarks.load.settings import LoadSettings
from benchmarks.load.sweep import LoadFigures, figures
from benchmarks.load.target import Target, check_url
from benchmarks.load.users import Users, random_histories, read_histories
from benchmarks.time_bar import time_bar

_RANDOM_LENGTH = 20
_COLUMNS = ("offered/s", "in time/s", "p50 ms", "p90 ms", "p99 ms", "429", "its p99", "504", "late", "other", "cached", "own lag p99")
# From this on, what was measured is as much the generator as the server.
_LAG_MS = 20.0


@dataclass(frozen=True, kw_only=True)
class LoadPlan:
    """Runs against one server, one per rate.

    Attributes:
        url: the server.
        rates: requests a second.
        settings: of each run, but for its rate.
        users, zipf: how many users, and how unevenly they ask; see `Users`.
        histories: file of first histories; None for random ones.
        allow_remote: whether the server may be on another machine.
    """

    url: str
    rates: Sequence[float]
    settings: LoadSettings
    users: int
    zipf: float = 1.0
    histories: Path | None = None
    allow_remote: bool = False


def run_plan(plan: LoadPlan, json_file: Path | None, plot: Path | None) -> None:
    """Run and report.

    Raises:
        TargetError, HistoriesError: the server can't be loaded, or the file of histories can't be used.
        OSError: a file can't be written.
    """
    runs = run_runs(plan)
    whole = figures(runs)
    if json_file is not None:
        found: LoadReport | LoadFigures = runs[0] if len(runs) == 1 else whole
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    if plot is not None:
        save_plot(whole, plot)
    if len(runs) > 1:
        knee = "none, the lowest rate is too much already" if whole.knee_rps is None else f"{whole.knee_rps:g} requests a second"
        print(f"knee: {knee}; most lists a second: {whole.saturation_rps:g}")


def run_runs(plan: LoadPlan) -> list[LoadReport]:
    """Run at each rate, one after the other, printing each report as its run ends.

    Raises:
        TargetError, HistoriesError: as they say.
    """
    check_url(plan.url, allow_remote=plan.allow_remote)
    return uvloop.run(_run_all(plan))


async def _run_all(plan: LoadPlan) -> list[LoadReport]:
    target = Target(plan.url)
    try:
        await target.check()
        users = Users(plan.users, plan.zipf, plan.settings.seed)
        if plan.histories is None:
            histories = random_histories(await target.items(), plan.users, _RANDOM_LENGTH, plan.settings.seed)
        else:
            histories = read_histories(plan.histories)
        print(f"giving {plan.users} users their histories …", file=sys.stderr)
        await target.seed(users.names, histories)
        print("  ".join(_COLUMNS))
        runs = []
        for rate in plan.rates:
            settings = replace(plan.settings, rate=rate)
            async with time_bar(f"{rate:g}/s", settings.warmup_seconds + settings.seconds):
                runs.append(await LoadRun(target, users, settings).run())
            _print(runs[-1])
        return runs
    finally:
        await target.close()


def _print(run: LoadReport) -> None:
    other = run.unavailable + run.errors
    shown = (
        *(_number(value) for value in (run.offered_rps, run.goodput_rps, run.p50_ms, run.p90_ms, run.p99_ms)),
        str(run.refused),
        _number(run.refused_p99_ms),
        str(run.timed_out),
        str(run.late),
        str(other),
        "-" if run.cached_token_share is None else f"{run.cached_token_share:.0%}",
        _number(run.generator_lag_p99_ms),
    )
    print("  ".join(text.rjust(len(column)) for text, column in zip(shown, _COLUMNS, strict=True)), flush=True)
    if run.mistakes:
        print(f"unexpected: {run.mistakes}", file=sys.stderr)
    if run.events_lost:
        print(f"{run.events_lost} events that the server has taken are not in its histories.", file=sys.stderr)
    if (run.generator_lag_p99_ms or 0.0) > _LAG_MS:
        print("The generator was late itself: these figures say as much of it as of the server.", file=sys.stderr)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
