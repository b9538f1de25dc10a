"""`Rates`: how often each key may ask, held over all replicas that share a Redis.

A rate is a sliding window of two counters (the library `limits`), so it costs the same whatever the rate is, and the end of a window lets
no second burst through. A replica without a Redis, or whose Redis does not answer, holds rates by itself: then the fleet lets through the
rate once for each of its replicas, and no request fails for it.

Invariant: a request waits for the Redis no longer than `PATIENCE_SECONDS`, and while it is away only one in `AWAY_SECONDS` does.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from functools import lru_cache

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from server.errors import KeyForbids
from server.keys.key import Key
from server.metrics.keys import KeyMetrics
from server.try_again import KeyBusy

PATIENCE_SECONDS = 0.1
AWAY_SECONDS = 1.0
_CONNECTIONS = 32


class RatesUnavailable(Exception):
    """The Redis of the rates does not answer; the message is a sentence."""


class Rates:
    """The rates of all keys."""

    def __init__(self, url: str, metrics: KeyMetrics, key_prefix: str = "atspeed:control") -> None:
        """
        Args:
            url: URL of the Redis that replicas share; with any other URL, rates are this replica's own.
            key_prefix: beginning of every Redis key.

        Raises:
            ValueError: the URL can't be used.
        """
        self._metrics = metrics
        self._own = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._fleet: SlidingWindowCounterRateLimiter | None = None
        self._is_away = False
        self._asked_again_at = 0.0
        if url.startswith("redis"):
            # Importing redis-py takes a tenth of a second.
            from server.keys.redis_rates import RedisRates
            from server.redis.access import RedisAccess

            self._redis = RedisAccess(url, PATIENCE_SECONDS, _CONNECTIONS, "the rates of keys", RatesUnavailable)
            storage: Storage = RedisRates(self._redis.client, key_prefix)
            self._fleet = SlidingWindowCounterRateLimiter(storage)

    async def take(self, key: Key, count: int = 1) -> None:
        """Count requests of a key, all of them or none.

        Raises:
            KeyBusy: it may not have so many now.
            KeyForbids: it may never have so many at once.
        """
        if key.rate is None:
            return
        rate = _rate(key.rate)
        with self._metrics.sized(key.name):
            if count > rate.amount:
                raise KeyForbids(f"The key {key.name!r} may ask for {key.rate}, and these are more lists at once.")
        if not await self._ask(lambda limiter: limiter.hit(rate, key.name, cost=count)):
            raise self._busy(key, rate, count)

    async def check(self, key: Key) -> None:
        """Raise KeyBusy if a key may not have even one request now; count none."""
        if key.rate is None:
            return
        rate = _rate(key.rate)
        if not await self._ask(lambda limiter: limiter.test(rate, key.name)):
            raise self._busy(key, rate, 1)

    async def close(self) -> None:
        """Close the connections."""
        if self._fleet is not None:
            await self._redis.close()

    def _busy(self, key: Key, rate: RateLimitItem, count: int) -> KeyBusy:
        self._metrics.forbidden.inc(1, key.name, "rate")
        wait = math.ceil(count * rate.get_expiry() / rate.amount)
        return KeyBusy(f"The key {key.name!r} may ask for no more than {key.rate}.", max(1, wait))

    async def _ask(self, question: Callable[[SlidingWindowCounterRateLimiter], Awaitable[bool]]) -> bool:
        now = asyncio.get_running_loop().time()
        if self._fleet is not None and now >= self._asked_again_at:
            if self._is_away:
                # This request looks whether it is back; the others go on meanwhile.
                self._asked_again_at = now + AWAY_SECONDS
            try:
                async with self._redis.reach():
                    passed = await question(self._fleet)
                self._is_away = False
                self._metrics.rates_answered()
                self._asked_again_at = 0.0
                return passed
            except RatesUnavailable as error:
                self._is_away = True
                self._asked_again_at = now + AWAY_SECONDS
                self._metrics.rates_away(f"{error} Each replica holds the rates by itself.")
        return await question(self._own)


@lru_cache(1024)
def _rate(text: str) -> RateLimitItem:
    return parse(text)
