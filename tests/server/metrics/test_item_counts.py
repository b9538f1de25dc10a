"""Items of the newest lists, counted with each list, against all lists counted anew."""

import random
from collections import Counter

import pytest

from server.metrics.item_counts import TOP_SHARE, ItemCounts

WINDOW = 20


def counted_anew(lists: list[list[int]], items: int) -> tuple[int, float]:
    """Distinct items and the share of the most listed ones."""
    counts = Counter(item for each in lists for item in each)
    top = sum(times for _, times in counts.most_common(max(1, int(items * TOP_SHARE))))
    return len(counts), top / counts.total() if counts else 0.0


@pytest.mark.parametrize("items", [1, 50, 1000])
def test_what_is_told_is_what_all_lists_come_to(items: int) -> None:
    rng, counts = random.Random(items), ItemCounts(items, WINDOW)
    lists: list[list[int]] = []
    met: list[list[int]] = []
    for number in range(6 * WINDOW):
        # Few favourites, some items twice in a list, and lists of nothing.
        lists.append([min(int(rng.paretovariate(0.7)), items) - 1 for _ in range(rng.choice([0, 1, 10]))])
        met.append([rng.randrange(items) for _ in range(rng.choice([0, 3]))])
        begun = number // (WINDOW // 2) * (WINDOW // 2) - WINDOW // 2
        known = {item for each in met[max(0, begun) :] for item in each}
        assert counts.observe(lists[-1], met[-1]) == sum(item not in known for item in lists[-1])
        assert (counts.distinct, counts.top_share) == pytest.approx(counted_anew(lists[-WINDOW:], items))


def test_items_that_are_added_are_counted_beside_those_known() -> None:
    counts = ItemCounts(3, WINDOW)
    assert counts.observe([0, 2], [2]) == 1
    counts.extend(5)
    assert counts.observe([2, 4], [4]) == 0
    assert (counts.items, counts.distinct, counts.top_share) == (5, 3, 2 / 4)


class Unreadable:
    """Numbers of items of which only how many they are is known."""

    def __len__(self) -> int:
        return 1_000


def test_telling_reads_no_item(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told follows from the numbers of times that items are listed, however large the catalog is."""
    counts = ItemCounts(1_000, WINDOW)
    for number in range(2 * WINDOW):
        counts.observe([1, 2, 10 + number], [])
    for numbers in ("_times", "_met"):
        monkeypatch.setattr(counts, numbers, Unreadable())
    assert (counts.distinct, counts.top_share) == (WINDOW + 2, (2 * WINDOW + 8) / (3 * WINDOW))
