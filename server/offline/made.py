"""`Made`: how many lists a run has made, and of how many users it could not."""

from dataclasses import dataclass


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
