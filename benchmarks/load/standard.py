"""The standard measurement: what batching is worth, how latency grows with load, what overload does.

Every figure comes from real servers in processes of their own, one after the other, on a random model of the benchmark's small shape. Needs
an idle machine.
"""

import json
import tempfile
from pathlib import Path

import msgspec

from benchmarks.load.plot import save_plot
from benchmarks.load.report import LoadReport
from benchmarks.load.returning import Returning, measure_returning
from benchmarks.load.rounds import BUSY_SHARE, Round, measure_rounds, median_ratio
from benchmarks.load.runs import LoadPlan, run_runs
from benchmarks.load.settings import LoadSettings
from benchmarks.load.small_model import make_model, served
from benchmarks.load.sweep import LoadFigures, figures
from drafting.catalog.loading import load_catalog

RETURNING_USERS = 50
# Loads that find out how much a server serves at most: much and little more than it can do, because refusals cost time as well. They are
# requests a second for a server that runs one request at a time, and multiples of what that one served for a server that batches.
ALONE_RATES = (50.0, 100.0)
BATCHED_MULTIPLES = (2.5, 3.0, 3.5, 4.0)
# Loads of the sweep, as shares of the most that is served; the last is the overload that the promises are about, and lasts twice as long.
SHARES = (0.1, 0.3, 0.5, 0.7, 0.85, 1.0, 1.5, 2.0)


class Standard(msgspec.Struct, kw_only=True):
    """The contents of `load.json`.

    Attributes:
        alone_rps: the most lists a second of a server that runs one request at a time, at any rate that it was offered.
        saturation_rps: the same of one that batches, before the sweep, whose rates are shares of it.
        most_rps: the same with the sweep, in which the machine may have been faster.
        rounds: nearly no load against much, several times.
        returning: users who come back with one more item, on an idle server.
        memory_mib: of API and engine process together, before the sweep and after everything.
        slots_used: KV slots in use after everything.
        loop_lag_share_under_10ms: of the looks at the API process's event loop, those that it was less than 10 ms late for.
    """

    alone_rps: float
    saturation_rps: float
    most_rps: float
    rounds: list[Round]
    returning: Returning
    sweep: LoadFigures
    memory_mib: tuple[float, float]
    slots_used: float
    loop_lag_share_under_10ms: float


def measure(folder: Path, seconds: float, users: int, flags: list[str]) -> Standard:
    """Run everything."""

    def load(url: str, *rates: float, times: int = 1) -> list[LoadReport]:
        settings = LoadSettings(rate=rates[0], seconds=times * seconds, warmup_seconds=min(10.0, seconds / 2))
        return run_runs(LoadPlan(url=url, rates=rates, settings=settings, users=users))

    print("one request at a time")
    with served(folder, *flags, "--max-running", "1") as server:
        alone = _most(load(server.url, *ALONE_RATES))
    print("batched")
    with served(folder, *flags) as server:
        with server.api() as api:
            returning = measure_returning(api, list(load_catalog(folder / "catalog.jsonl").item_ids), RETURNING_USERS, 10)
        probes = load(server.url, *(round(multiple * alone, 1) for multiple in BATCHED_MULTIPLES))
        most = _most(probes)
        memory = server.memory_mib()
        *rates, overload = (round(share * most, 1) for share in SHARES)
        runs = [*load(server.url, *rates), *load(server.url, overload, times=2)]
        rounds = measure_rounds(lambda rate: load(server.url, rate)[0], _most([*probes, *runs]))
        looks = server.metric("atspeed_event_loop_lag_seconds_count")
        return Standard(
            alone_rps=alone,
            saturation_rps=most,
            most_rps=_most([*probes, *runs]),
            rounds=rounds,
            returning=returning,
            sweep=figures(runs),
            memory_mib=(round(memory, 1), round(server.memory_mib(), 1)),
            slots_used=server.metric("atspeed_kv_slots_used"),
            loop_lag_share_under_10ms=round(server.metric("atspeed_event_loop_lag_seconds_bucket", le="0.01") / looks, 4),
        )


def _most(reports: list[LoadReport]) -> float:
    return max(report.completed_rps for report in reports)


def summary(found: Standard) -> str:
    """The figures that the project promises, in words."""
    at = dict(zip(SHARES, found.sweep.runs, strict=True))
    back = found.returning
    double = at[2.0]
    saturation = max(found.saturation_rps, *(one.saturation_rps for one in found.rounds))
    ratios = ", ".join(f"{one.busy.p99_ms or 0:.0f} / {one.idle.p50_ms or 0:.0f} = {one.ratio:.1f}" for one in found.rounds)
    return "\n".join(
        [
            f"batching: {found.most_rps:.1f} lists/s against {found.alone_rps:.1f} one at a time: {found.most_rps / found.alone_rps:.1f}x",
            f"{BUSY_SHARE:.0%} load: p99 against the idle p50 {median_ratio(found.rounds):.1f}x, the median of {ratios}",
            f"200% load: goodput {double.goodput_rps:.1f}/s, {double.goodput_rps / saturation:.0%} of the most that was saturation; "
            f"late {double.late}, 504 {double.timed_out}; a refusal's p99 {double.refused_p99_ms or 0:.0f} ms",
            f"one more item: {back.second_computed:.0f} of {back.prompt_tokens:.0f} prompt tokens computed, {back.computed_share:.0%} of "
            f"the first request's; {back.second_ms:.1f} ms against {back.first_ms:.1f} ms",
            f"70% load: {at[0.7].cache_hit_rate or 0:.1%} of lists find something of the user's last prompt, "
            f"{at[0.7].cached_token_share or 0:.0%} of prompt tokens are not computed",
            f"memory {found.memory_mib[0]:.0f} -> {found.memory_mib[1]:.0f} MiB, slots in use afterwards {found.slots_used:.0f}; "
            f"event loop under 10 ms late in {found.loop_lag_share_under_10ms:.1%} of looks",
        ]
    )


def run(out: Path, seconds: float, users: int, flags: list[str]) -> None:
    """Measure, print the summary and write `load.json` and `load.png`."""
    with tempfile.TemporaryDirectory(prefix="atspeed-load-") as name:
        folder = Path(name)
        make_model(folder)
        found = measure(folder, seconds, users, flags)
    print(summary(found))
    (out / "load.json").write_text(json.dumps(msgspec.to_builtins(found), indent=2) + "\n")
    save_plot(found.sweep, out / "load.png")
