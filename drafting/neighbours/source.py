"""The data that a neighbour model was made from, kept in its file, so that a target does not learn held-out interactions through it."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Source:
    """The interactions, and how they were split into parts.

    Attributes:
        data: hash of the files of interactions.
        split, min_items, label_kind: as of `SplitRule`; `given`, 1 and None for data that is split already.
    """

    data: str
    split: str
    min_items: int
    label_kind: str | None

    def encode(self) -> str:
        """As a text, for the header of a file."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def decode(cls, text: str) -> "Source":
        """Read a text that `encode` has made.

        Raises:
            ValueError, TypeError: it is something else.
        """
        return cls(**json.loads(text))
