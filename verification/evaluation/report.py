"""What an evaluation found, as it is printed, plotted and kept as JSON.

Invariant: every figure names what it was got by: the mode, the draft, the list length, and over how many users.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

PLAIN = "plain"


class Spread(msgspec.Struct, frozen=True):
    """How something is distributed over users."""

    mean: float
    p50: float
    p99: float

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> "Spread":
        """The spread of some values, at least one."""
        return cls(float(np.mean(values)), float(np.percentile(values, 50)), float(np.percentile(values, 99)))


class Quality(msgspec.Struct, frozen=True):
    """How good lists are, as means over users.

    Attributes:
        recall, ndcg: over all users.
        warm_recall: over the users with a label that anybody has met before.
    """

    recall: float
    ndcg: float
    warm_recall: float


class Timing(msgspec.Struct, frozen=True):
    """How long a list takes, one request at a time, over the users that were timed.

    Attributes:
        ms: of this mode.
        speedup: how many times faster than plain beam search by this engine, by the mean over the same users.
        generate_speedup: than transformers' `generate` on a subset of them; None where it was not run.
    """

    ms: Spread
    speedup: float
    generate_speedup: float | None


class ModeRow(msgspec.Struct, frozen=True):
    """One way of searching at one list length.

    Attributes:
        draft: the draft's name; empty for plain beam search.
        mode: `plain`, or how drafts are verified.
        accepted_steps: AS@K, levels accepted from the draft per request.
        target_forwards: per request.
        drafted_nodes: per request, on average.
        lists_equal: how many users' lists are plain beam search's, to the order.
        timing: WS@K; None where nobody was timed.
    """

    draft: str
    mode: str
    k: int
    quality: Quality
    accepted_steps: Spread
    target_forwards: Spread
    drafted_nodes: float
    lists_equal: int
    timing: Timing | None = None


class BaselineRow(msgspec.Struct, frozen=True):
    """One baseline at one list length."""

    name: str
    k: int
    quality: Quality


class Report(msgspec.Struct, frozen=True):
    """Everything that an evaluation found.

    Attributes:
        setting: target, catalog, plan, users and machine, by name.
        users: how many were asked about.
        warm_users: how many of them have a warm label.
        generate_ms: transformers' `generate` by list length, where it was run.
        generate_equal: by list length, for how many of its users it found plain beam search's list.
    """

    setting: dict[str, Any]
    users: int
    warm_users: int
    rows: list[ModeRow]
    baselines: list[BaselineRow]
    generate_ms: dict[int, Spread]
    generate_equal: dict[int, int]

    def encode(self) -> bytes:
        """The report as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def join_reports(reports: Sequence[Report]) -> Report:
    """Reports of different drafts on the same users as one: plain beam search, which all of them have, comes from the first."""
    first, *others = reports
    rows = [*first.rows, *(row for report in others for row in report.rows if row.draft)]
    drafts = {name: draft for report in reports for name, draft in report.setting["drafts"].items()}
    return msgspec.structs.replace(first, rows=rows, setting=first.setting | {"drafts": drafts})
