"""Answers that the engine owes, each by its name and with a deadline.

Invariant: every wait ends: with the answer, with the engine's end, or with its deadline; so nobody holds a lock for an engine that hangs.
"""

import asyncio

from server.errors import ServerError


class OwedAnswers:
    """The answers that are waited for; None is the good one, an error says what is wrong."""

    def __init__(self) -> None:
        self._owed: dict[str, asyncio.Future[ServerError | None]] = {}

    async def wait(self, name: str, seconds: float) -> None:
        """Wait for an answer.

        Raises:
            ServerError: the answer, if it is not the good one.
            TimeoutError: there was none in so many seconds.
        """
        owed = self._owed[name] = asyncio.get_running_loop().create_future()
        try:
            error = await asyncio.wait_for(owed, seconds)
        finally:
            if self._owed.get(name) is owed:
                del self._owed[name]
        if error is not None:
            raise error

    def settle(self, name: str, error: ServerError | None) -> None:
        """Take an answer; one that nobody waits for any more is no news."""
        owed = self._owed.get(name)
        if owed is not None and not owed.done():
            owed.set_result(error)

    def settle_all(self, error: ServerError) -> None:
        """Tell all who wait that no answer will come."""
        for name in list(self._owed):
            self.settle(name, error)
