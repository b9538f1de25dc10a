"""Who asks: users of whom a few ask often and most seldom, with histories that grow.

Invariant: which users ask, in which order, and what they had met before follows from the seed, so two runs load a server alike.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from random import Random

import msgspec

from benchmarks.endings import BenchmarkError
from drafting.undecodable import UNDECODABLE

FIRST_TIMESTAMP = 1_700_000_000


class HistoriesError(BenchmarkError):
    """A file of histories that can't be used; the message is a sentence."""


class _Line(msgspec.Struct):
    history: list[str]


def read_histories(path: Path) -> list[list[str]]:
    """The histories of a JSONL file of `{"history": [item id, …]}`, other fields passed over.

    Raises:
        HistoriesError: the file can't be read, or has none.
    """
    try:
        lines = [line for line in path.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise HistoriesError(f"{path} can't be read: {error.strerror}.") from error
    decoder = msgspec.json.Decoder(_Line)
    histories = []
    for number, line in enumerate(lines, start=1):
        try:
            histories.append(decoder.decode(line).history)
        except UNDECODABLE as error:
            raise HistoriesError(f"Line {number} of {path} is not a user: {error}.") from error
    histories = [history for history in histories if history]
    if not histories:
        raise HistoriesError(f"{path} has no histories.")
    return histories


def random_histories(items: Sequence[str], users: int, length: int, seed: int) -> list[list[str]]:
    """Histories of random items."""
    random = Random(seed)
    return [random.choices(items, k=length) for _ in range(users)]


class Users:
    """So many users; the n-th asks in proportion to 1 / n**exponent (Zipf)."""

    def __init__(self, users: int, exponent: float, seed: int) -> None:
        self._random = Random(seed)
        self._reach = list(accumulate(1 / rank**exponent for rank in range(1, users + 1)))
        self.names = [f"load-{seed}-{number}" for number in range(users)]

    def draw(self) -> str:
        """The user who asks next."""
        return self.names[bisect_left(self._reach, self._random.random() * self._reach[-1])]
