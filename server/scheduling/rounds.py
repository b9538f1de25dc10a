"""`CappedRounds`: how many searches lists with caps are foreseen to take, one after the other.

Invariant: rounds are foreseen by lists of the same size, as soon as there are enough of these. Reason: wide beams find many items in a
round, so they take few rounds where narrow ones take many. A mean over both would be far too high for the wide lists, whose rounds are the
expensive ones.
"""

from collections import deque

from server.submit import Submit

# So many of the newest lists with caps tell how many rounds the next ones take.
_LISTS = 8


class CappedRounds:
    """The rounds of the newest lists with caps, by size: their places and the beam width, each to a power of two."""

    def __init__(self) -> None:
        self._newest: deque[float] = deque([1.0], maxlen=_LISTS)
        self._by_size: dict[tuple[int, int], deque[float]] = {}

    def learn(self, request: Submit, rounds: int) -> None:
        """Take over what a list has taken."""
        # What was believed counts as one list, so that the first of a size is not all that is known of it.
        of_size = self._by_size.setdefault(_size(request), deque([self.expected(request)], maxlen=_LISTS))
        for newest in (of_size, self._newest):
            newest.append(rounds)

    def expected(self, request: Submit) -> float:
        """The mean of the newest lists of the request's size; of any size, where there was none of it yet."""
        newest = self._by_size.get(_size(request), self._newest)
        return sum(newest) / len(newest)


def _size(request: Submit) -> tuple[int, int]:
    return request.k.bit_length(), request.beam_width.bit_length()
