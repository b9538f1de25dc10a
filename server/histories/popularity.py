"""How popular items are: counted in a sample of the stored histories, or read from a file.

Invariant: a popularity has at most `MOST_ITEMS` items, the most popular first and equal ones in the order of their ids, so servers that
read the same histories order items alike. A user counts once for an item, however often they met it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from drafting.undecodable import UNDECODABLE
from server.histories.base import Event

MOST_ITEMS = 10_000


@dataclass(frozen=True)
class Popularity:
    """Items by popularity.

    Attributes:
        item_ids: ids of the items, the most popular first.
        weights: weight of each of these items, positive and never ascending.
    """

    item_ids: tuple[str, ...]
    weights: tuple[float, ...]

    @classmethod
    def of_histories(cls, histories: Iterable[Sequence[Event]], since: float) -> Self:
        """Count the users that met each item after `since`, seconds since the epoch; those before only decide among equals, and behind."""
        recent, before = Counter[str](), Counter[str]()
        for events in histories:
            met = {event.item_id for event in events if event.timestamp >= since}
            recent.update(met)
            before.update({event.item_id for event in events} - met)
        least = 1 + max(before.values(), default=0)
        return cls._ordered({item: recent[item] + before[item] / least for item in recent.keys() | before.keys()})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file of JSON lines with `item_id` and `count`; without counts, the best item comes first.

        Raises:
            ValueError: the file can't be read or used; the message is a sentence.
        """
        try:
            lines = [line for line in path.read_bytes().splitlines() if line.strip()]
        except OSError as error:
            raise ValueError(f"The list of popular items {path} can't be read: {error.strerror}.") from error
        found: dict[str, float] = {}
        for number, text in enumerate(lines, start=1):
            try:
                line = _decoder.decode(text)
            except UNDECODABLE as error:
                raise ValueError(f"Line {number} of {path} is no item with an item_id and a count: {error}.") from error
            if line.item_id in found:
                raise ValueError(f"Line {number} of {path} names the item {line.item_id!r} again.")
            found[line.item_id] = float(len(lines) + 1 - number) if line.count is None else line.count
        if not found:
            raise ValueError(f"The list of popular items {path} is empty.")
        return cls._ordered(found)

    @classmethod
    def _ordered(cls, weights: dict[str, float]) -> Self:
        best = sorted(weights.items(), key=lambda item: (-item[1], item[0]))[:MOST_ITEMS]
        return cls(tuple(item for item, _ in best), tuple(weight for _, weight in best))


class _Line(msgspec.Struct):
    item_id: str
    count: float | None = msgspec.field(default=None)

    def __post_init__(self) -> None:
        if self.count is not None and not 0 < self.count < float("inf"):
            raise ValueError("count must be a positive number")


_decoder = msgspec.json.Decoder(_Line)
