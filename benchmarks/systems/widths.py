"""What a beam width gives and costs on one model: quality of the lists, latency of one request at a time, and throughput of full batches.

Invariant: all widths are asked for the same users and the same exclusions. One request at a time, the widths take turns on the same user,
in random order; throughput is measured last, width by width, so a machine that changes its speed should be measured again.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.endings import BenchmarkError
from benchmarks.markdown import markdown_table
from benchmarks.systems.histories import unlearnt_users
from drafting.beam.rule import MAX_BEAM_WIDTH
from verification.evaluation.baselines.ranking import quality_of
from verification.evaluation.report import Quality, Spread
from verification.evaluation.searching import NO_PLAN, WARM_UP, Beam, Mode, search_all
from verification.evaluation.users import HeldOut
from verification.recommender import Recommender

HEADS = ("beam width", "Recall", "NDCG", "ms, one at a time", "p99", "lists a second, full batches")
PLAIN = Mode("", "plain", NO_PLAN)


@dataclass(frozen=True)
class WidthRow:
    """One beam width.

    Attributes:
        ms: milliseconds of one request at a time.
        lists: lists per second in full batches.
    """

    width: int
    quality: Quality
    ms: Spread
    lists: float

    @property
    def cells(self) -> tuple[str, ...]:
        """The row of a table."""
        recall, ndcg = (
            f"{value:.4f} ± {error:.4f}"
            for value, error in ((self.quality.recall, self.quality.recall_error), (self.quality.ndcg, self.quality.ndcg_error))
        )
        return str(self.width), recall, ndcg, f"{self.ms.mean:.1f}", f"{self.ms.p99:.1f}", f"{self.lists:.0f}"


def measure(recommender: Recommender, users: HeldOut, widths: Sequence[int], k: int, timed: int) -> list[WidthRow]:
    """Search the lists of users with every width, what they have met left out."""
    asked = users.spread(timed)
    # The first users warm up, and are asked again.
    warm_up = len(asked[:WARM_UP])
    asked = asked[:WARM_UP] + asked
    seconds: dict[int, list[float]] = {width: [] for width in widths}
    rng = np.random.default_rng(0)
    recommender.engine.use_plan(NO_PLAN)
    for user, state in zip(asked, users.states(asked), strict=True):
        # In random order: what a wide beam leaves in the processor's caches is felt by the one behind it.
        for width in rng.permutation(list(seconds)).tolist():
            started = time.perf_counter()
            list(recommender.recommend([state], k, width, [users.histories[user]]))
            seconds[width].append(time.perf_counter() - started)
    rows = []
    with tqdm(total=len(widths) * len(users), desc="full batches", unit="list") as bar:
        for width in widths:
            recommender.engine.forget_histories()
            started = time.perf_counter()
            found = search_all(recommender, PLAIN, users.states(), k, Beam(width), bar.update, users.histories)
            lists = len(users) / (time.perf_counter() - started)
            rows.append(WidthRow(width, quality_of(users, found.lists, k), Spread.of(1e3 * np.array(seconds[width][warm_up:])), lists))
    return rows


def run(
    target: Path, catalog_file: Path, data: Path, widths: Sequence[int], k: int, most_users: int | None, timed: int, threads: int, host: str
) -> str:
    """The table of a target's widths, those below k left out; the command may end as in `unlearnt_users`.

    Raises:
        BenchmarkError, SetupError: no width is left, or models, catalog and data can't be used together.
    """
    if not (enough := [width for width in widths if width >= k]):
        raise BenchmarkError(f"A list of {k} takes a beam of at least {k}: give wider --widths, or a smaller --k.")
    catalog, users = unlearnt_users(target, catalog_file, data, most_users)
    widest = max(MAX_BEAM_WIDTH, *enough)
    with closing(Recommender.load(target, catalog, host=host, threads=threads, max_beam_width=widest)) as recommender:
        rows = measure(recommender, users, enough, k, timed)
    return markdown_table(HEADS, [row.cells for row in rows])
