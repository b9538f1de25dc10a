"""A user who comes back with one more item: what is computed of the second prompt, and how long the second list takes.

Invariant: one request at a time, each pair by another user, so that the first finds nothing cached but what everybody shares.
"""

import json
import time
import urllib.request
from random import Random
from statistics import mean, median
from typing import Any

import msgspec

from benchmarks.load.users import FIRST_TIMESTAMP, random_histories

# Short of the window, so that the one more item drops none at the front.
HISTORY_ITEMS = 15


class Returning(msgspec.Struct, kw_only=True):
    """Of users who asked twice.

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


def measure_returning(url: str, items: list[str], users: int, k: int, length: int = HISTORY_ITEMS, seed: int = 1) -> Returning:
    """Lets users ask, meet one more item, and ask again."""
    random = Random(seed)
    first, second = [], []
    for number, history in enumerate(random_histories(items, users, length, seed)):
        user = f"returning-{seed}-{number}"
        _append(url, user, history, FIRST_TIMESTAMP)
        first.append(_ask(url, user, k))
        _append(url, user, [random.choice(items)], FIRST_TIMESTAMP + length)
        second.append(_ask(url, user, k))
    return Returning(
        users=users,
        prompt_tokens=mean(usage["prompt_tokens"] for usage, _ in second),
        first_computed=mean(usage["prompt_tokens"] - usage["cached_tokens"] for usage, _ in first),
        second_computed=mean(usage["prompt_tokens"] - usage["cached_tokens"] for usage, _ in second),
        first_ms=1000 * median(seconds for _, seconds in first),
        second_ms=1000 * median(seconds for _, seconds in second),
    )


def _append(url: str, user: str, items: list[str], timestamp: int) -> None:
    events = [{"item_id": item, "timestamp": timestamp + number} for number, item in enumerate(items)]
    _post(f"{url}/v1/users/{user}/events", {"events": events})


def _ask(url: str, user: str, k: int) -> tuple[dict[str, Any], float]:
    started = time.perf_counter()
    answer = _post(f"{url}/v1/recommendations", {"user_id": user, "k": k})
    return answer["usage"], time.perf_counter() - started


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        found: dict[str, Any] = json.load(answer)
    return found
