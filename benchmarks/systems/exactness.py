"""Which lists depend on how they are computed (alone, with others, after a cached prompt, with drafts) in each precision; what they cost.

Invariant: all precisions answer the same users, and where they are timed they take turns at each user, so that a drifting machine drifts
for all. A list differs if an item or the order differs.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tqdm import tqdm

from benchmarks.rotation import in_turn
from benchmarks.systems.comparison import compare
from benchmarks.systems.histories import held_out_histories, random_histories
from drafting.catalog.loading import load_catalog
from drafting.plans.fixed_plan import FixedPlan
from verification.recommender import Recommender
from verification.result import BeamResult

# Name, precision, and whether with `--exact`.
SETTINGS = (("float32", "float32", False), ("bfloat16", "bfloat16", False), ("bfloat16 --exact", "bfloat16", True))
WARM_UP = 5


@dataclass(frozen=True)
class Difference:
    """The lists of one way of computing them against those computed alone and plainly.

    Attributes:
        differ: lists that differ.
        others: those of them that hold other items.
        ties: those that differ only in the order of equal scores (closer than 1e-5).
    """

    differ: int
    others: int
    ties: int


def difference(alone: Sequence[BeamResult], found: Sequence[BeamResult]) -> Difference:
    """Compare lists with those that were computed alone."""
    counts = compare(alone, found)
    others = sum(_items(one) != _items(other) for one, other in zip(alone, found, strict=True))
    return Difference(counts.ties + counts.different, others, counts.ties)


def _items(result: BeamResult) -> set[int]:
    return {item.item for item in result.items}


def every_way(recommender: Recommender, histories: Sequence[list[int]], k: int, plans: Sequence[str]) -> dict[str, list[BeamResult]]:
    """The lists of all histories in company, each after a cached prompt, and with drafts."""
    use = recommender.engine.use_plan
    use(FixedPlan.parse("none"))
    found = {"in company": list(recommender.recommend(histories, k, k)), "cached prompt": []}
    for user, history in enumerate(histories):
        before, now = (recommender.request(str(user), shown, k, k, cache_key=str(user)) for shown in (history[:-1] or history, history))
        list(recommender.search([before]))
        found["cached prompt"] += [answer for answer in recommender.search([now]) if isinstance(answer, BeamResult)]
    recommender.engine.forget_histories()
    for plan in plans:
        use(FixedPlan.parse(plan))
        found[plan] = list(recommender.recommend(histories, k, k))
    use(FixedPlan.parse("none"))
    return found


def time_alone(
    recommenders: Sequence[Recommender], histories: Sequence[list[int]], k: int, progress: Callable[[], object]
) -> tuple[list[list[BeamResult]], list[float]]:
    """The lists of all histories one by one, the recommenders in turn, and the median seconds of each."""
    lists: list[list[BeamResult]] = [[] for _ in recommenders]
    seconds: list[list[float]] = [[] for _ in recommenders]
    for user, history in enumerate([*histories[:WARM_UP], *histories]):
        for number in in_turn(range(len(recommenders)), user):
            started = time.perf_counter()
            (found,) = recommenders[number].recommend([history], k, k)
            if user >= min(WARM_UP, len(histories)):
                seconds[number].append(time.perf_counter() - started)
                lists[number].append(found)
        progress()
    return lists, [median(taken) for taken in seconds]


def run(
    target: Path, draft: Path | None, catalog_file: Path, data: Path | None, k: int, users: int, threads: int, kv_memory_gib: float = 0.5
) -> int:
    """Print a line per precision; return how many lists differ that are said to be exact, equal scores aside.

    Raises:
        SetupError: models, catalog and data can't be used together.
    """
    catalog, wrong = load_catalog(catalog_file), 0
    histories = held_out_histories(data, catalog, target, users) if data else random_histories(len(catalog), users)
    plans = ["trie"] if draft is None else ["trie", "beam:40"]
    recommenders = [
        Recommender.load(target, catalog, draft=draft, dtype=dtype, threads=threads, kv_memory_gib=kv_memory_gib, exact=exact)
        for _, dtype, exact in SETTINGS
    ]
    with tqdm(total=len(histories), desc="Searching", unit="user", leave=False, disable=None) as bar:
        lists, seconds = time_alone(recommenders, histories, k, bar.update)
    for (name, _, _), recommender, alone, taken in zip(SETTINGS, recommenders, lists, seconds, strict=True):
        found = {way: difference(alone, results) for way, results in every_way(recommender, histories, k, plans).items()}
        if recommender.precision.is_exact:
            wrong += sum(each.differ - each.ties for each in found.values())
        said = ", ".join(f"{way} {each.differ} ({each.others} with other items)" for way, each in found.items())
        ratio = taken / seconds[1]
        print(f"{name}: {1e3 * taken:.1f} ms a list alone ({ratio:.2f}x); of {len(alone)} lists differ: {said}", flush=True)
        recommender.close()
    return wrong
