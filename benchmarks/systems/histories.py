"""Whose lists are searched in a benchmark: real users where their data is at hand, random histories otherwise.

Invariant: which histories come follows from the data and the count alone, so two runs ask the same questions.
"""

from pathlib import Path

import numpy as np

from drafting.alignment.data.loading import load_split
from drafting.catalog.catalog import Catalog
from drafting.errors import InteractionError

PAPER_ITEMS = 20


def held_out_histories(data: Path, catalog: Catalog, count: int | None, length: int = PAPER_ITEMS) -> list[list[int]]:
    """The last `length` items that test users met before their test items, of `count` users spread evenly over the file, or of all.

    Raises:
        InteractionError: the data is missing or malformed, or has fewer such users; the message is a sentence.
    """
    split = load_split(data, catalog)
    known = split.train.followed_by(split.valid)
    users = np.flatnonzero((split.test.lengths > 0) & (known.lengths > 0))
    count = len(users) if count is None else count
    if len(users) < count or not len(users):
        raise InteractionError(f"{data} has {len(users)} users with a history and test items, but {count} are to be asked.")
    chosen = users[np.linspace(0, len(users) - 1, count).astype(int)]
    return [known.history(user)[-length:].tolist() for user in chosen]


def random_histories(items: int, count: int, length: int = PAPER_ITEMS) -> list[list[int]]:
    """Histories of random items of a catalog."""
    rng = np.random.default_rng(0)
    return [rng.integers(items, size=length).tolist() for _ in range(count)]
