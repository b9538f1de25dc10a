"""Lists that a low precision changes: how many differ between plain and drafted search, and whether each of them is a tie.

In bfloat16 the same prefix scores a little differently in forwards of different shapes, so the order of prefixes that are close is a matter
of chance, in plain beam search as well. *Noise* is what is seen of it: how far the scores of one item lie apart in the two lists of a user.
A list that differs is a tie if any two items in another order score within twice the largest noise of each other, and if each item that is
missing had, at some level, a prefix within as much of the last that the beam kept. Invariant: a difference that noise cannot
explain is counted as one, whatever the precision.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from benchmarks.systems.closed_loop import closed_loop
from benchmarks.systems.histories import held_out_histories
from drafting.array_types import DoubleArray
from drafting.catalog.loading import load_catalog
from drafting.plans.fixed_plan import FixedPlan
from drafting.trie.item_trie import ItemTrie
from verification.hosts.checkpoint import load_tokenizer
from verification.recommender import Recommender
from verification.result import BeamResult

NONE = FixedPlan.parse("none")


@dataclass(frozen=True)
class PrecisionCount:
    """The comparison of the lists of two searches.

    Attributes:
        noise: nats between the two scores of an item that both lists of a user hold, sorted.
        equal, ties, different: lists.
        margin: the largest distance in nats that a tie had to bridge.
    """

    noise: DoubleArray
    equal: int
    ties: int
    different: int
    margin: float

    def __str__(self) -> str:
        lists = self.equal + self.ties + self.different
        median, most, largest = np.quantile(self.noise, [0.5, 0.99, 1.0])
        return (
            f"{self.equal} of {lists} lists equal, {self.ties} differ in ties, {self.different} differ; an item's two scores lie "
            f"{median:.2g} nats apart (median; 99%: {most:.2g}, largest {largest:.2g}), the widest tie bridges {self.margin:.2g}"
        )


def count(plain: Sequence[BeamResult], drafted: Sequence[BeamResult], margins: Sequence[float]) -> PrecisionCount:
    """Compare the lists of some users.

    Args:
        margins: per user, what noise must bridge for the lists to differ as they do; see `margin_of`. 0 where they are equal.
    """
    noise = np.sort(np.concatenate([_noise(one, other) for one, other in zip(plain, drafted, strict=True)]))
    differs = [_items(one) != _items(other) for one, other in zip(plain, drafted, strict=True)]
    explained = [margin <= 2 * noise[-1] for margin in margins]
    ties = [margin for margin, differing, tie in zip(margins, differs, explained, strict=True) if differing and tie]
    return PrecisionCount(noise, len(differs) - sum(differs), len(ties), sum(differs) - len(ties), max(ties, default=0.0))


def margin_of(plain: BeamResult, drafted: BeamResult, beams: Sequence[BeamResult]) -> float:
    """The difference of scores, in nats, that numerical noise must exceed for two lists of a user to differ as they do.

    Args:
        beams: the plain search's beam at each level, as the list of all items below each prefix.
    """
    ranks = {item.item: rank for rank, item in enumerate(drafted.items)}
    both = [item for item in plain.items if item.item in ranks]
    scores, rank = np.array([item.score for item in both]), np.array([ranks[item.item] for item in both])
    swapped = np.triu(rank[:, None] > rank[None, :])
    gaps: DoubleArray = np.abs(scores[:, None] - scores[None, :])[swapped]
    missing = [_distance_to_the_bar(item.item, beams) for item in plain.items if item.item not in ranks]
    return max([*gaps.tolist(), *missing], default=0.0)


def _distance_to_the_bar(item: int, beams: Sequence[BeamResult]) -> float:
    """The margin of an item: the smallest difference, over its levels, between its prefix and the last prefix that the beam kept."""
    distances = []
    for beam in beams:
        scores = {found.item: found.score for found in beam.items}
        # An item that is not below this beam has been dropped by plain search itself, in another batch.
        distances.append(scores[item] - beam.items[-1].score if item in scores else 0.0)
    return min(distances)


def _items(result: BeamResult) -> list[int]:
    return [item.item for item in result.items]


def _noise(one: BeamResult, other: BeamResult) -> DoubleArray:
    scores = {item.item: item.score for item in other.items}
    return np.array([abs(item.score - scores[item.item]) for item in one.items if item.item in scores])


def compare_precision(
    recommender: Recommender, identifiers: npt.NDArray[np.int64], histories: Sequence[list[int]], k: int, plan: str
) -> PrecisionCount:
    """Search every history plainly and with drafts, and those whose lists differ once more, level by level.

    Args:
        identifiers: `[items, length]`, the catalog's as token ids.
    """
    engine = recommender.engine
    found = {}
    for name in ("none", plan):
        engine.use_plan(FixedPlan.parse(name))
        found[name] = list(recommender.recommend(histories, k, k))
    plain, drafted = found["none"], found[plan]
    differing = [user for user, (one, other) in enumerate(zip(plain, drafted, strict=True)) if _items(one) != _items(other)]
    beams: dict[int, list[BeamResult]] = {user: [] for user in differing}
    for depth in range(1, identifiers.shape[1] + 1):
        level = engine.successor(ItemTrie.build(identifiers[:, :depth], engine.target.device), NONE)
        for user in differing:
            request = recommender.request(str(user), histories[user], k, k)
            (answer,) = closed_loop(level, [request], 1, 1)
            beams[user].append(answer.result)
    margins = [margin_of(plain[user], drafted[user], beams[user]) if user in beams else 0.0 for user in range(len(plain))]
    return count(plain, drafted, margins)


def run(target: Path, draft: Path, catalog_file: Path, data: Path, dtypes: Sequence[str], ks: Sequence[int], plan: str, users: int) -> int:
    """Print one line per precision and k; return how many lists differ in more than ties.

    Raises:
        SetupError: models, catalog and data can't be used together.
    """
    catalog, different = load_catalog(catalog_file), 0
    histories = held_out_histories(data, catalog, target, users)
    bar = tqdm(total=len(dtypes) * len(ks), desc="Searching", unit="length", leave=False, disable=None)
    for dtype in dtypes:
        recommender = Recommender.load(target, catalog, draft=draft, plan=plan, dtype=dtype)
        identifiers = recommender.catalog.token_ids(load_tokenizer(target).get_vocab())
        for k in ks:
            found = compare_precision(recommender, identifiers, histories, k, plan)
            different += found.different
            bar.update()
            print(f"{dtype} k={k} {plan}: {found}.", flush=True)
        recommender.close()
    bar.close()
    return different
