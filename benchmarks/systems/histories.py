"""Whose lists are searched in a benchmark: real users where their data is at hand, random histories otherwise.

Invariant: the histories follow from the data, the split of the target and the number alone, so two runs ask the same questions. The split
is the one that the target was trained with, because another split holds out interactions that the target has learnt.
"""

from pathlib import Path

import msgspec
import numpy as np

from drafting.alignment.data.fit import FIT_TRAIN
from drafting.alignment.data.loading import load_split
from drafting.alignment.data.record import AUTO, split_kind
from drafting.alignment.data.splits import SplitRule
from drafting.alignment.runs import TRAINING_FILE
from drafting.catalog.catalog import Catalog
from drafting.catalog.loading import load_catalog
from drafting.errors import InteractionError, SetupError
from drafting.undecodable import UNDECODABLE
from server.commands.learnt import refuse_learnt, refuse_learnt_identifiers
from verification.evaluation.users import HeldOut, held_out

PAPER_ITEMS = 20


class Trained(msgspec.Struct, frozen=True):
    """What a target was trained with, as far as that decides who is asked.

    Attributes:
        split, min_items, label_kind: see `SplitRule`; `split` may be auto.
        fit: the parts that it has learnt.
    """

    split: str = AUTO
    min_items: int = 1
    label_kind: str | None = None
    fit: str = FIT_TRAIN

    @classmethod
    def of(cls, target: Path) -> "Trained":
        """As a model directory's `training.json` says; the defaults where there is none.

        Raises:
            SetupError: it is damaged.
        """
        path = target / TRAINING_FILE
        if not path.is_file():
            return cls()
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Record).settings
        except (OSError, *UNDECODABLE) as error:
            raise SetupError(f"{path} does not say how the target was trained: {error}. Train it again, or remove the file.") from error

    def rule(self, data: Path) -> SplitRule:
        """The split of the target; of one that does not say, the one that the data were prepared for.

        Raises:
            InteractionError: the record of the data is damaged, or there is no such split.
        """
        return SplitRule(split_kind(self.split, data), self.min_items, self.label_kind)


class _Record(msgspec.Struct, frozen=True):
    settings: Trained = Trained()


def held_out_histories(data: Path, catalog: Catalog, target: Path, count: int | None, length: int = PAPER_ITEMS) -> list[list[int]]:
    """The last `length` items that test users met before their test items, of `count` users spread evenly over the file, or of all.

    Args:
        target: directory of the target that is asked; by its split some users are test users, see `Trained`.

    Raises:
        SetupError: as `Trained.of`, or the data is missing or malformed, or has fewer such users; the message is a sentence.
    """
    split = load_split(data, catalog, Trained.of(target).rule(data))
    known = split.train.followed_by(split.valid)
    users = np.flatnonzero((split.test.lengths > 0) & (known.lengths > 0))
    count = len(users) if count is None else count
    if len(users) < count or not len(users):
        raise InteractionError(f"{data} has {len(users)} users with a history and test items, but {count} are to be asked.")
    chosen = users[np.linspace(0, len(users) - 1, count).astype(int)]
    return [known.history(user)[-length:].tolist() for user in chosen]


def unlearnt_users(target: Path, catalog_file: Path, data: Path, most: int | None) -> tuple[Catalog, HeldOut]:
    """The catalog, and test users by whom the lists of a target are judged, spread evenly, or all. Where target or identifiers have learnt
    the test part, the command ends, as `atspeed evaluate` does.

    Raises:
        SetupError: as `Trained.of`, or catalog or data can't be used.
    """
    catalog, trained = load_catalog(catalog_file), Trained.of(target)
    rule = trained.rule(data)
    refuse_learnt(target, trained.fit, "test")
    refuse_learnt_identifiers(catalog_file, catalog, data, rule, "test")
    return catalog, held_out(load_split(data, catalog, rule), "test", most)


def random_histories(items: int, count: int, length: int = PAPER_ITEMS) -> list[list[int]]:
    """Histories of random items of a catalog."""
    rng = np.random.default_rng(0)
    return [rng.integers(items, size=length).tolist() for _ in range(count)]
