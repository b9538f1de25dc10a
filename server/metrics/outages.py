"""`OutageLog`: what fails at every request, in few lines of the log.

Invariant: the first failure is a line at once; as long as it goes on there is one line for each `LINE_SECONDS`, with a count, and one when
it is over. Reason: a line a request would bury all others when they matter most.
"""

import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

LINE_SECONDS = 30.0


class OutageLog:
    """The log of one thing that can fail, from any thread; `subject` says what fails, as the beginning of a line."""

    def __init__(self, subject: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._subject = subject
        self._clock = clock
        self._lock = threading.Lock()
        self._next_line = float("-inf")
        self._unsaid = 0
        # When the outage began that the log has told of and not yet ended.
        self._since: float | None = None

    def failed(self, reason: str) -> None:
        """Note a failure."""
        with self._lock:
            now = self._clock()
            self._unsaid += 1
            if now < self._next_line:
                return
            if self._unsaid > 1:
                logger.warning("%s, %d times since the last line: %s", self._subject, self._unsaid, reason)
            else:
                logger.warning("%s: %s", self._subject, reason)
            self._unsaid, self._next_line = 0, now + LINE_SECONDS
            if self._since is None:
                self._since = now

    def answered(self) -> None:
        """Note a success."""
        if self._since is None:
            return
        with self._lock:
            if self._since is not None:
                seconds = self._clock() - self._since
                logger.warning("%s: no longer, after %.1f s and %d more failures", self._subject, seconds, self._unsaid)
                self._since, self._unsaid = None, 0
