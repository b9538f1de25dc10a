"""The picture of a sweep: latency and throughput over the offered rate.

Invariant: nothing is drawn that is not in the reports.
"""

import math
from pathlib import Path

from benchmarks.figures import panels
from benchmarks.load.sweep import LoadFigures


def save_plot(found: LoadFigures, path: Path) -> None:
    """Write latencies beside rates, with the knee marked in both."""
    runs = found.runs
    offered = [run.offered_rps for run in runs]
    figure, (times, rates) = panels(2, 6)
    latencies = {"p50": [run.p50_ms for run in runs], "p90": [run.p90_ms for run in runs], "p99": [run.p99_ms for run in runs]}
    for label, values in latencies.items():
        times.plot(offered, [math.nan if value is None else value for value in values], marker="o", label=label)
    times.set_ylabel("time of a list from when it was due, ms")
    times.set_yscale("log")
    rates.plot(offered, offered, ":", color="grey", label="offered")
    rates.plot(offered, [run.completed_rps for run in runs], marker="o", label="completed")
    rates.plot(offered, [run.goodput_rps for run in runs], marker="s", label="completed in time")
    rates.plot(offered, [run.refused / run.seconds for run in runs], marker="x", label="refused (429)")
    rates.set_ylabel("requests a second")
    rates.set_ylim(bottom=0)
    for axes in (times, rates):
        axes.set_xlabel("offered, requests a second")
        axes.grid(alpha=0.3)
        if found.knee_rps is not None:
            axes.axvline(found.knee_rps, linestyle="--", color="C3", label=f"knee: {found.knee_rps:g}")
        axes.legend(fontsize="small")
    figure.suptitle(f"{found.date}, {found.machine}", fontsize="small")
    figure.savefig(path)
