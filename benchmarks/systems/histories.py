"""Whose lists are searched in a benchmark: real users where their data is at hand, random histories otherwise.

Invariant: which histories come follows from the data, the split of the target and the count alone, so two runs ask the same questions. It
is the split that the target was trained with, since another one holds out what the target has learnt.
"""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from drafting.alignment.data.loading import load_split
from drafting.alignment.data.record import AUTO, split_kind
from drafting.alignment.data.splits import SplitRule
from drafting.alignment.runs import TRAINING_FILE
from drafting.catalog.catalog import Catalog
from drafting.errors import InteractionError

PAPER_ITEMS = 20


def training_settings(target: Path) -> dict[str, Any]:
    """What a model directory's `training.json` says that it was trained with; nothing where there is none."""
    path = target / TRAINING_FILE
    settings: dict[str, Any] = msgspec.json.decode(path.read_bytes()).get("settings", {}) if path.is_file() else {}
    return settings


def trained_rule(target: Path, data: Path) -> SplitRule:
    """The split that a target was trained with; of one that does not say, the one that the data were prepared for.

    Raises:
        InteractionError: the record of the data is damaged.
    """
    trained = training_settings(target)
    return SplitRule(split_kind(trained.get("split", AUTO), data), trained.get("min_items", 1), trained.get("label_kind"))


def held_out_histories(data: Path, catalog: Catalog, target: Path, count: int | None, length: int = PAPER_ITEMS) -> list[list[int]]:
    """The last `length` items that test users met before their test items, of `count` users spread evenly over the file, or of all.

    Args:
        target: directory of the target that is asked; by its split some users are test users, see `trained_rule`.

    Raises:
        InteractionError: the data is missing or malformed, or has fewer such users; the message is a sentence.
    """
    split = load_split(data, catalog, trained_rule(target, data))
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
