"""Simulation of routing users to the replica with their cached prompt: cached tokens and latency for 2 to 64 replicas.

Replicas are simulated step by step as the engine runs: all requests that are there share a forward of `a + b * tokens`, as many as fit into
the step, and a list takes one forward per level. Users come back at rates of their own, and half of the time have met another item since.
Users and traffic grow with the replicas, so that each has the same to do.

Invariant: with and without affinity the same users ask at the same times; only who is asked differs. Not simulated: the network, admission,
drafts, and the other programs of a machine.
"""

import json
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.figures import panels
from drafting.lru import LruMap

_MIXER, _MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1


@dataclass(frozen=True)
class World:
    """The simulated system.

    Attributes:
        forward_ms, token_ms: a and b, what a forward costs: a fixed part, and a part per token.
        step_ms: what a step may take.
        levels: tokens of an identifier.
        k: identifiers of a list, which is also the beam's width.
        max_items, min_items: of a long history, how many items the model reads: `drafting.prompt.PromptTemplate`.
        slots: KV slots of a replica that hold earlier prompts.
        users: per replica.
        rate: requests a second, per replica.
        growth: share of requests before which the user has met another item.
        spread: of how often users ask: the sigma of a log-normal distribution.
    """

    forward_ms: float = 6.5
    token_ms: float = 0.126
    step_ms: float = 100.0
    levels: int = 4
    k: int = 10
    max_items: int = 20
    min_items: int = 10
    slots: int = 65_536
    users: int = 2_000
    rate: float = 40.0
    growth: float = 0.5
    spread: float = 1.0
    seconds: float = 120.0
    warmup_seconds: float = 40.0
    seed: int = 0


@dataclass(frozen=True)
class Figures:
    """The result of a simulation.

    Attributes:
        cached: share of prompt tokens that needed no computing.
        hits: share of lists that found their whole prompt.
    """

    replicas: int
    affinity: bool
    cached: float
    hits: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Traffic:
    """Who asks when: parallel arrays, in order of time; `lengths` is how many items the user's history then has."""

    times: NDArray[np.float64]
    users: NDArray[np.int64]
    lengths: NDArray[np.int64]


def make_traffic(world: World, replicas: int) -> Traffic:
    """Requests of all users, seconds from the start."""
    rng = np.random.default_rng((world.seed, replicas))
    users = world.users * replicas
    total = rng.poisson(world.rate * replicas * world.seconds)
    weights = rng.lognormal(sigma=world.spread, size=users)
    asking = rng.choice(users, size=total, p=weights / weights.sum())
    lengths = rng.integers(1, 2 * world.max_items, size=users)
    at_request = np.empty(total, np.int64)
    for number, (user, grown) in enumerate(zip(asking, rng.random(total) < world.growth, strict=True)):
        lengths[user] += grown
        at_request[number] = lengths[user]
    return Traffic(np.sort(rng.uniform(0, world.seconds, total)), asking, at_request)


def window_start(world: World, user: int, length: int) -> int:
    """The first item that the model reads of a history: the one with the smallest hash of those that a window may start at."""
    if length <= world.max_items:
        return 0
    oldest = length - world.max_items
    starts = range(oldest, length - world.min_items + 1)
    return min(starts, key=lambda item: (1_000_003 * user + item) * _MIXER & _MASK)


class PromptCache:
    """The prompts that one replica has computed, the least recently used going first; a history is known by its length."""

    def __init__(self, world: World) -> None:
        self._world = world
        # First item and tokens of each user's last prompt.
        self._prompts: LruMap[int, tuple[int, int]] = LruMap(world.slots, lambda prompt: prompt[1])

    def look_up(self, user: int, length: int) -> tuple[int, int]:
        """(tokens of the prompt, tokens of it that are cached) of a user whose history has `length` items; it is cached from now on."""
        start = window_start(self._world, user, length)
        prompt = self._world.levels * (length - start)
        known_start, known_tokens = self._prompts.get(user) or (0, 0)
        # Where the window has moved, the first token is another, and nothing behind it can be reused.
        cached = known_tokens if known_start == start else 0
        self._prompts.keep(user, (start, prompt))
        # The last token is the root of the search and always computed.
        return prompt, min(cached, prompt - 1)


def replica(world: World, traffic: Traffic, mine: NDArray[np.int64]) -> Iterator[tuple[float, float, int, int]]:
    """Run one replica over its requests; (arrival, latency in seconds, prompt tokens, cached tokens) of each."""
    cache = PromptCache(world)
    budget = max(1.0, (world.step_ms - world.forward_ms) / world.token_ms) if world.token_ms else math.inf
    coming = deque(mine.tolist())
    # Each running request: arrival, levels to go, prompt tokens to compute, prompt, cached.
    running: list[list[float]] = []
    now = 0.0
    while coming or running:
        if not running:
            now = max(now, float(traffic.times[coming[0]]))
        tokens = sum(request[2] or world.k for request in running)
        while coming and traffic.times[coming[0]] <= now and (not running or tokens < budget):
            number = coming.popleft()
            prompt, cached = cache.look_up(int(traffic.users[number]), int(traffic.lengths[number]))
            running.append([float(traffic.times[number]), world.levels, prompt - cached, prompt, cached])
            tokens += prompt - cached
        now += (world.forward_ms + world.token_ms * tokens) / 1000
        for request in running:
            request[1] -= 1
            request[2] = 0
            if not request[1]:
                yield request[0], now - request[0], int(request[3]), int(request[4])
        running = [request for request in running if request[1]]


def simulate(world: World, replicas: int, *, affinity: bool) -> Figures:
    """Run all replicas over the same traffic, each user's requests at one of them or anywhere."""
    traffic = make_traffic(world, replicas)
    rng = np.random.default_rng((world.seed, replicas, 1))
    asked = (
        rng.integers(replicas, size=world.users * replicas)[traffic.users] if affinity else rng.integers(replicas, size=len(traffic.users))
    )
    ends = [end for number in range(replicas) for end in replica(world, traffic, np.flatnonzero(asked == number))]
    arrivals, latencies, prompts, cached = (np.array(column) for column in zip(*ends, strict=True))
    counted = arrivals >= world.warmup_seconds
    whole = cached[counted] >= prompts[counted] - 1
    p50, p99 = np.percentile(1000 * latencies[counted], [50, 99])
    share = float(cached[counted].sum() / prompts[counted].sum())
    return Figures(replicas, affinity, share, float(whole.mean()), float(p50), float(p99))


def plot(found: list[Figures], path: Path) -> None:
    """Cached tokens and latency beside the number of replicas."""
    figure, (shares, times) = panels(2)
    for affinity, name, colour in ((True, "users to their replica", "C0"), (False, "anywhere", "C1")):
        mine = [figures for figures in found if figures.affinity == affinity]
        replicas = [figures.replicas for figures in mine]
        shares.plot(replicas, [100 * figures.cached for figures in mine], "o-", color=colour, label=name)
        times.plot(replicas, [figures.p99_ms for figures in mine], "o-", color=colour, label=f"{name}, p99")
        times.plot(replicas, [figures.p50_ms for figures in mine], "o:", color=colour, label=f"{name}, p50")
    shares.set_ylabel("prompt tokens from the cache, %")
    times.set_ylabel("latency, ms")
    for axes in (shares, times):
        axes.set_xscale("log", base=2)
        axes.set_xticks(replicas, [str(number) for number in replicas])
        axes.set_xlabel("replicas (users and traffic grow with them)")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path)


def make_world(settings: Iterable[str]) -> World:
    """A world from texts `NAME=VALUE`; what is not named is as in `World`.

    Raises:
        ValueError: it has no such field, the value is no number, or there can be no such world; the message is a sentence.
    """
    known = {name: type(default) for name, default in asdict(World()).items()}
    given: dict[str, Any] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in known:
            raise ValueError(f"There is no field {name!r} of the simulated world: choose {', '.join(known)}.")
        try:
            given[name] = known[name](value)
        except ValueError as error:
            raise ValueError(f"{name} takes a number, got {value!r}.") from error
    world = World(**given)
    _check(world)
    return world


def _check(world: World) -> None:
    """Raise ValueError for a world that can't be simulated."""
    holds = {
        "seconds must be above warmup_seconds, within which nothing is counted": 0 <= world.warmup_seconds < world.seconds,
        "min_items must be at least 1, and at most max_items": 1 <= world.min_items <= world.max_items,
        "users, levels, k and slots must be at least 1": min(world.users, world.levels, world.k, world.slots) >= 1,
        "rate must be above 0": 0 < world.rate < math.inf,
        "growth must be a share from 0 to 1": 0 <= world.growth <= 1,
        "forward_ms, token_ms, spread and seed must be at least 0": min(world.forward_ms, world.token_ms, world.spread, world.seed) >= 0,
    }
    for sentence, kept in holds.items():
        if not kept:
            raise ValueError(f"There is no such world: {sentence}.")


def run(out: Path, replicas: Sequence[int], world: World) -> None:
    """Simulate, print a line per setting, and write `scaling.json` and `scaling.png`."""
    found = []
    print("replicas  routing   cached  whole prompts  p50 ms  p99 ms")
    for number in tqdm(replicas, desc="Simulating", unit="size", leave=False, disable=None):
        for affinity in (True, False):
            figures = simulate(world, number, affinity=affinity)
            found.append(figures)
            routing = "affinity" if affinity else "anywhere"
            print(f"{number:8d}  {routing}  {figures.cached:6.1%}  {figures.hits:13.1%}  {figures.p50_ms:6.1f}  {figures.p99_ms:6.1f}")
    text = json.dumps({"world": asdict(world), "figures": [asdict(figures) for figures in found]}, indent=2)
    (out / "scaling.json").write_text(text + "\n")
    plot(found, out / "scaling.png")
