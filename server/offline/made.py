"""`Made`: how many lists a run has made, and of how many users it could not."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import msgspec

from drafting.undecodable import UNDECODABLE


class Written(msgspec.Struct):
    """What the line of a user tells of whether there is a list; see `server.offline.lists`."""

    error: str | None = None
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """Lists of some users.

    Attributes:
        lists: users that got one.
        failed: users that got an error in its place.
        example: place and error of one of these; empty if there are none.
    """

    lists: int = 0
    failed: int = 0
    example: str = ""

    @classmethod
    def of(cls, written: Written) -> Self:
        """One user, with a list or without."""
        if written.error is None:
            return cls(1)
        place = f"line {written.line}" if written.file is None else f"line {written.line} of {written.file}"
        return cls(failed=1, example=f"{place}: {written.error}")

    @classmethod
    def of_lines(cls, lines: Iterable[bytes]) -> "Made":
        """What the lines of an earlier run tell; a line that can't be read tells of no error."""
        return sum((cls.of(_read(line)) for line in lines), Made())

    @property
    def users(self) -> int:
        """All users, with a list and without."""
        return self.lists + self.failed

    @property
    def is_nothing(self) -> bool:
        """True if there were users, and none of them got a list."""
        return self.failed > 0 and not self.lists

    def __add__(self, other: "Made") -> "Made":
        return Made(self.lists + other.lists, self.failed + other.failed, self.example or other.example)

    def __str__(self) -> str:
        noun = "user" if self.failed == 1 else "users"
        return f"{self.lists or 'no'} list{'s' * (self.lists != 1)}, {self.failed} {noun} without one, such as {self.example}"


def _read(line: bytes) -> Written:
    try:
        return msgspec.json.decode(line, type=Written)
    except UNDECODABLE:
        return Written()
