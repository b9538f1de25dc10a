"""What a prepared data directory holds, in figures.

Invariant: the shares are those of the split that is recorded, so that they say what a model will be judged by.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from drafting.alignment.data.interactions import Interactions, Split
from drafting.alignment.data.splits import SplitRule
from drafting.preparation.events import Events
from drafting.trie.arrays import offsets_of


@dataclass(frozen=True)
class Summary:
    """The figures.

    Attributes:
        median_history, longest_history: interactions of a user.
        span: the first and the last day; None where times are an order and nothing more.
        titled: number of items with a title.
        test_labels: interactions to be judged by: those of the test part whose users have others before it.
        unseen: share of them whose items are not in the training part; 0 without labels.
        repeats: number of them that their user had met before, so that no list without seen items can hold them.
        newcomers: number of users of the test part with nothing before it, by whom nobody is judged.
    """

    users: int
    items: int
    interactions: int
    median_history: float
    longest_history: int
    span: tuple[str, str] | None
    titled: int
    test_labels: int
    unseen: float
    repeats: int
    newcomers: int

    @classmethod
    def of(cls, events: Events, split: str, titled: int) -> "Summary":
        """The figures of interactions that are sorted by user and time, all of whose names are met.

        Raises:
            InteractionError: they can't be split so.
        """
        lengths = np.bincount(events.users, minlength=len(events.user_names))
        interactions = Interactions(tuple(events.user_names), offsets_of(lengths), events.items, events.times)
        parts = SplitRule(split)(interactions)
        trained = np.zeros(len(events.item_names), np.bool_)
        trained[parts.train.items] = True
        span = (_day(float(events.times.min())), _day(float(events.times.max()))) if events.dated else None
        has_history = (parts.train.lengths + parts.valid.lengths) > 0
        judged = parts.test.items[has_history[parts.test.owners]]
        labels = len(judged)
        unseen = float(np.mean(~trained[judged])) if labels else 0.0
        newcomers = int(np.count_nonzero(~has_history & (parts.test.lengths > 0)))
        counts = len(events.user_names), len(events.item_names), len(events)
        return cls(*counts, float(np.median(lengths)), int(lengths.max()), span, titled, labels, unseen, _repeats(parts), newcomers)

    def rows(self, split: str) -> list[tuple[str, str]]:
        """The figures as cells of a table."""
        cells = [
            ("users", f"{self.users:,}"),
            ("items", f"{self.items:,}, {self.titled:,} with a title"),
            ("interactions", f"{self.interactions:,}"),
            ("history of a user", f"{self.median_history:g} in the middle, {self.longest_history:,} at most"),
            ("time", "an order, no dates" if self.span is None else f"{self.span[0]} to {self.span[1]}"),
            ("split", split),
            ("test labels", f"{self.test_labels:,}, {self.unseen:.1%} of items that are not in the training part"),
        ]
        if self.newcomers:
            cells.append(("without a history", f"{self.newcomers:,} users of the test part, who are not among these"))
        if self.repeats:
            share = f"{self.repeats:,} of these ({self.repeats / self.test_labels:.1%})"
            cells.append(("met before", f"{share}: lists leave them out, unless `evaluate --keep-seen`; `--repeats first` has none"))
        return cells


def _repeats(parts: Split) -> int:
    known = parts.train.followed_by(parts.valid)
    size = 1 + max(int(part.items.max(initial=0)) for part in (known, parts.test))
    met, asked = (part.owners * size + part.items for part in (known, parts.test))
    return int(np.isin(asked, met).sum())


def _day(seconds: float) -> str:
    if abs(seconds) > 1e15:
        # Beyond the calendars of libraries.
        return f"{seconds:.0e} s"
    return str(np.datetime64(int(seconds // 86_400), "D")) if abs(seconds) > 1e11 else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
