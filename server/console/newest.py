"""`Newest`: which of several answers a place of a page is to show.

Invariant: a place shows the answer to what was asked last, whichever answer comes last, so nothing of one user stands under the name of
another.
"""

from collections.abc import Callable


class Newest:
    """The questions of one place of a page."""

    def __init__(self) -> None:
        self._asked = 0

    def ask(self) -> Callable[[], bool]:
        """Begin a question; the result tells, whenever it is called, whether no other has begun since."""
        self._asked += 1
        mine = self._asked
        return lambda: mine == self._asked
