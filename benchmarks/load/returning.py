"""A user who comes back with one more item: how much of the second prompt is computed, and how long the second list takes.

Invariant: one request at a time, each pair of requests by another user, so the first request finds only what all users share in the cache.
"""

import time
from random import Random
from statistics import mean, median

import msgspec

from benchmarks.load.users import FIRST_TIMESTAMP, random_histories
from server.client import AtspeedClient
from server.schemas.usage import UsageAnswer

# Short of the window, so that the one more item drops none at the front.
HISTORY_ITEMS = 15


class Returning(msgspec.Struct, kw_only=True):
    """Figures of users who asked twice.

    Attributes:
        prompt_tokens: mean length of the second prompt.
        first_computed, second_computed: mean prompt tokens that were not cached.
        first_ms, second_ms: median time of a list, as the client sees it.
    """

    users: int
    prompt_tokens: float
    first_computed: float
    second_computed: float
    first_ms: float
    second_ms: float

    @property
    def computed_share(self) -> float:
        """Prompt tokens that the second request computes, of those that the first did."""
        return self.second_computed / self.first_computed


def measure_returning(client: AtspeedClient, items: list[str], users: int, k: int, length: int = HISTORY_ITEMS, seed: int = 1) -> Returning:
    """Let users ask, meet one more item, and ask again, over one connection to the server."""
    random = Random(seed)
    first, second = [], []
    for number, history in enumerate(random_histories(items, users, length, seed)):
        user = f"returning-{seed}-{number}"
        _append(client, user, history, FIRST_TIMESTAMP)
        first.append(_ask(client, user, k))
        _append(client, user, [random.choice(items)], FIRST_TIMESTAMP + length)
        second.append(_ask(client, user, k))
    return Returning(
        users=users,
        prompt_tokens=mean(usage.prompt_tokens for usage, _ in second),
        first_computed=mean(usage.prompt_tokens - usage.cached_tokens for usage, _ in first),
        second_computed=mean(usage.prompt_tokens - usage.cached_tokens for usage, _ in second),
        first_ms=1000 * median(seconds for _, seconds in first),
        second_ms=1000 * median(seconds for _, seconds in second),
    )


def _append(client: AtspeedClient, user: str, items: list[str], timestamp: int) -> None:
    client.append_events(user, [{"item_id": item, "timestamp": timestamp + number} for number, item in enumerate(items)])


def _ask(client: AtspeedClient, user: str, k: int) -> tuple[UsageAnswer, float]:
    started = time.perf_counter()
    answer = client.recommend(user_id=user, k=k, beam_width=k)
    return answer.usage, time.perf_counter() - started
