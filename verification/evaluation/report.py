"""The report of an evaluation, as it is printed, plotted and stored as JSON.

Invariant: every figure is stored with its mode, draft, list length and number of users.
"""

from collections.abc import Sequence
from statistics import mean
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

PLAIN = "plain"


class Spread(msgspec.Struct, frozen=True):
    """The distribution of a quantity over users."""

    mean: float
    p50: float
    p99: float

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> "Spread":
        """The distribution of one or more values."""
        return cls(float(np.mean(values)), float(np.percentile(values, 50)), float(np.percentile(values, 99)))


class Quality(msgspec.Struct, frozen=True):
    """Quality of lists, as means over users.

    Attributes:
        recall, ndcg: means over all users.
        warm_recall: mean recall over users with a label that occurs in the known interactions.
        recall_error, ndcg_error: standard errors of the means over all users; 0 in reports of versions that did not say.
    """

    recall: float
    ndcg: float
    warm_recall: float
    recall_error: float = 0.0
    ndcg_error: float = 0.0

    @classmethod
    def mean(cls, several: Sequence["Quality"]) -> "Quality":
        """The means of every figure, the errors over users among them."""
        return cls(*(mean(figures) for figures in zip(*map(msgspec.structs.astuple, several), strict=True)))


class Timing(msgspec.Struct, frozen=True):
    """Latency of lists, one request at a time, over the timed users.

    Attributes:
        ms: milliseconds per list.
        speedup: mean time of this engine's plain beam search over mean time of this mode, on the same users.
        generate_speedup: mean time of transformers' `generate` over mean time of this mode, on a subset of the users; None if not run.
    """

    ms: Spread
    speedup: float
    generate_speedup: float | None


class ModeRow(msgspec.Struct, frozen=True):
    """One search mode at one list length.

    Attributes:
        draft: name of the draft; empty for plain beam search.
        mode: `plain`, or the verification mode.
        accepted_steps: AS@K, levels accepted from the draft per request.
        target_forwards: forwards of the target per request.
        drafted_nodes: mean number of drafted nodes per request.
        lists_equal: number of users whose list equals that of plain beam search, order included.
        timing: latency and speed-up (WS@K); None if no users were timed.
        beam_width: prefixes that the search kept, at most; 0 in reports of versions that did not say.
        beam_widths: those of each level but the last, where they are not `beam_width` at all.
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
    beam_width: int = 0
    beam_widths: tuple[int, ...] = ()

    @property
    def beam(self) -> str:
        """Prefixes that the search kept, in words."""
        return ", ".join(map(str, self.beam_widths or (self.beam_width,)))


class BaselineRow(msgspec.Struct, frozen=True):
    """One baseline at one list length.

    Attributes:
        quality: means over seeds, where there are several.
        chosen: the settings that the validation part chose, as a text; empty where there are none.
        seeds: of each seed, where there are several.
    """

    name: str
    k: int
    quality: Quality
    chosen: str = ""
    seeds: list[Quality] = []


class Exhaustive(msgspec.Struct, frozen=True):
    """The target's ranking of the whole catalog, which no beam has cut.

    Attributes:
        quality: of its first items, by list length.
        rank: place of each user's best held-out item among all items.
        ndcg: mean NDCG of the whole ranking.
        auc: mean area under the ROC curve.
    """

    quality: dict[int, Quality]
    rank: Spread
    ndcg: float
    auc: float


class Report(msgspec.Struct, frozen=True):
    """All results of an evaluation.

    Attributes:
        setting: target, catalog, plan, users and machine, by name.
        users: number of users.
        warm_users: number of users with a label that occurs in the known interactions.
        generate_ms: milliseconds per list of transformers' `generate`, by list length, where it was run.
        generate_equal: number of users for whom `generate` and plain beam search found the same list, by list length.
        exhaustive: the ranking of the whole catalog, where it was asked for.
        left_out: why a baseline could not be made, or `generate` not search with the target, as a sentence, by its name.
    """

    setting: dict[str, Any]
    users: int
    warm_users: int
    rows: list[ModeRow]
    baselines: list[BaselineRow]
    generate_ms: dict[int, Spread]
    generate_equal: dict[int, int]
    left_out: dict[str, str] = {}
    exhaustive: Exhaustive | None = None

    def encode(self) -> bytes:
        """The report as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"
