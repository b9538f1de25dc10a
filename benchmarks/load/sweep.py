"""Several runs at rising rates, and what they say together.

Invariant: the knee is a rate that was run: the highest one at which the server kept up, and at all lower ones too.
"""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from benchmarks.load.report import LoadReport


class LoadFigures(msgspec.Struct, kw_only=True):
    """The output of `atspeed-bench load --json` for several runs.

    Attributes:
        knee_rps: the rate of the knee; None if the server did not keep up at the lowest.
        saturation_rps: the most lists a second that any run got.
    """

    date: str
    machine: str
    knee_rps: float | None
    saturation_rps: float
    runs: list[LoadReport]


def figures(runs: Sequence[LoadReport]) -> LoadFigures:
    """The runs in the order of their rates, with what follows from them."""
    ordered = sorted(runs, key=lambda run: run.rate)
    return LoadFigures(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}",
        knee_rps=knee(ordered),
        saturation_rps=max(run.completed_rps for run in ordered),
        runs=list(ordered),
    )


def knee(ordered: Sequence[LoadReport]) -> float | None:
    """The highest rate up to which the server kept up, of runs in the order of their rates."""
    highest = None
    for run in ordered:
        if not run.keeps_up:
            break
        highest = run.rate
    return highest
