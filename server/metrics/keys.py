"""Prometheus metrics of keys: who asks, what is refused, and whether their file can be read.

Invariant: a key is named by the name of its holder, never by anything that the key itself can be told from.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from prometheus_client import CollectorRegistry, Gauge

from server.errors import KeyForbids
from server.metrics.counter import LoopCounter
from server.metrics.outages import OutageLog

# Why a request without a key that is known is not let in.
UNKNOWN = ("missing", "unknown", "elsewhere")
# Without a request that has a rate nobody asks the Redis, and nobody knows whether it answers.
RATES_SECONDS = 60.0


class KeyMetrics:
    """Metrics of keys."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic) -> None:
        counter, gauge = partial(LoopCounter, registry=registry), partial(Gauge, registry=registry)
        self._file = OutageLog("the file of keys can't be used")
        self.requests = counter("atspeed_key_requests_total", "Requests that were let in, by the name of the key.", ["key"])
        self.forbidden = counter(
            "atspeed_key_refusals_total", "Requests with a key that were refused, by its name and the reason.", ["key", "reason"]
        )
        self.keyless = counter(
            "atspeed_keyless_refusals_total",
            "Requests refused because they had no key, one that is not known, or come from another machine to a server without keys.",
            ["reason"],
        )
        self.known = gauge("atspeed_keys", "Keys that the server knows.")
        self.file_broken = gauge("atspeed_keys_file_broken", "1 while the file of keys can't be used and the keys before it hold, else 0.")
        gauge(
            "atspeed_key_rates_local",
            "1 where a request of the last minute found that the Redis of the rates does not answer, and none since that it does, else 0: "
            "each replica holds them by itself.",
        ).set_function(lambda: clock() - self._away_at < RATES_SECONDS)
        self._clock, self._away_at = clock, -math.inf
        self._rates = OutageLog("the rates of keys are not held over all replicas")
        for reason in UNKNOWN:
            self.keyless.begin(reason)

    @contextmanager
    def sized(self, name: str) -> Iterator[None]:
        """Count what a key is refused because it is larger than the key may ask for."""
        try:
            yield
        except KeyForbids:
            self.forbidden.inc(1, name, "size")
            raise

    def read(self, keys: int) -> None:
        """Note that the file was read, with so many keys."""
        self.known.set(keys)
        self.file_broken.set(0)
        self._file.answered()

    def rates_answered(self) -> None:
        """Note that the Redis of the rates answers."""
        self._away_at = -math.inf
        self._rates.answered()

    def rates_away(self, sentence: str) -> None:
        """Note that the Redis of the rates does not answer."""
        self._away_at = self._clock()
        self._rates.failed(sentence)

    def broken(self, sentence: str) -> None:
        """Note that the file can't be used."""
        self.file_broken.set(1)
        self._file.failed(sentence)
