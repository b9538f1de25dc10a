"""`OutageLog`: what fails at every request, in few lines of the log.

Invariant: the first failure is logged at once, unless the last such line is younger than `LINE_SECONDS`. As long as an outage goes on there
is one line per `LINE_SECONDS`, with a count, and one when it is over. Every failure is counted in one of these lines: failures of an outage
that came too soon after another for a line of its own are counted in the next line. Reason: a line for each request would bury all others
when they matter most.
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
        # When the outage began that goes on, and whether the log has told of it.
        self._since: float | None = None
        self._is_told = False
        # Failures since the last line: of the outage that goes on, and of others, which are over.
        self._unsaid = 0
        self._over = 0

    def failed(self, reason: str) -> None:
        """Note a failure."""
        with self._lock:
            now = self._clock()
            if self._since is None:
                self._since, self._is_told = now, False
            self._unsaid += 1
            if now < self._next_line:
                return
            count = f", {self._unsaid:d} times since the last line" if self._unsaid > 1 else ""
            before = f", and {self._over:d} times before, which was over" if self._over else ""
            logger.warning("%s%s%s: %s", self._subject, count, before, reason)
            self._unsaid, self._over, self._is_told, self._next_line = 0, 0, True, now + LINE_SECONDS

    def answered(self) -> None:
        """Note a success."""
        if self._since is None and not self._over:
            return
        with self._lock:
            now = self._clock()
            if self._since is not None:
                if self._is_told:
                    logger.warning("%s: no longer, after %.1f s and %d more failures", self._subject, now - self._since, self._unsaid)
                else:
                    self._over += self._unsaid
                self._since, self._unsaid = None, 0
            if self._over and now >= self._next_line:
                logger.warning("%s, %d times since the last line, which is over", self._subject, self._over)
                self._over = 0
