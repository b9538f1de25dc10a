"""The scheduler and the real engine under all that can happen to requests: slots are accounted for exactly, and every list that comes
is the one that the same request gets alone.

The engine is small enough that prompts are evicted, requests wait for slots, and large ones are refused.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from drafting.beam.model import TreeBatch
from drafting.beam.rows import Rows
from drafting.beam.rule import SearchRule, Verification
from drafting.plans.fixed_plan import FixedPlan
from drafting.plans.plan import Plan
from drafting.trie.item_set import ItemSet
from server.scheduling import wide
from server.scheduling.budget import StepBudget
from server.scheduling.scheduler import PlanRefusalError, RequestTooLargeError, SpeculativeBeamScheduler
from tests.lists import alone
from tests.speculation import COSTS, ITEMS, Speculation
from verification.engine.engine import SpeculativeBeamEngine
from verification.hosts.transformers import TransformersHost
from verification.request import BeamRequest, ReservedPlaces, Think
from verification.result import BeamResult
from verification.scored import Scored
from verification.thought import RunningThought

DEPTH = 4
SLOTS = 420
USERS = ("ann", "bob", "cem")
KINDS = 60
TOKENS = 90
MOST_TEXT = 6


class Fallible(TransformersHost):
    """A model that fails when it is told to, once."""

    fails = False

    def score(self, batch: TreeBatch) -> Rows:
        if self.fails:
            self.fails = False
            raise RuntimeError("the device is out of memory")
        return super().score(batch)

    def close(self) -> None:
        """An engine closes a draft that it drops; the next one has it again."""


class Bench:
    """Two models, requests of every kind, and the list that each of them gets alone."""

    def __init__(self, speculation: Speculation, folder: Path) -> None:
        self.speculation = speculation
        self.target = Fallible(folder / "target", slots=SLOTS)
        self.draft = Fallible(folder / "draft", slots=SLOTS)
        self.requests = [self._request(number, np.random.default_rng(number)) for number in range(KINDS)]
        self.alone = [self._alone(request) for request in self.requests]

    def plan(self, number: int) -> Plan:
        """One of the plans; a planner that has learned nothing yet, so that what happens follows from what is drawn."""
        fixed = ("none", "trie", "beam:40", "beam:30+children")
        return FixedPlan.parse(fixed[number]) if number < len(fixed) else self.speculation.planner(DEPTH, COSTS[number - len(fixed)])

    def _request(self, number: int, rng: np.random.Generator) -> BeamRequest:
        sampled = number % 4 == 0
        rule = SearchRule(Verification.GUMBEL, seed=number, temperature=0.7) if sampled else SearchRule()
        (request,) = self.speculation.requests(1, rng, rule)
        # Users come back with histories that begin alike, as they do when an item is added, and now and then with another one.
        history = np.arange(2, 2 + int(rng.integers(1, 30))) % 50 + 1
        prompt = np.concatenate([[1], history + (7 if number % 9 == 0 else 0)])
        if number % 13 == 5:
            prompt = np.ones(SLOTS, np.int64)
        width = 60 if number % 11 == 0 else request.beam_width
        key = None if number % 5 == 0 else str(rng.choice(USERS))
        # Some are two searches to the engine, and one request to the scheduler.
        reserved = ReservedPlaces(int(rng.integers(1, request.k + 1)), ItemSet.of(rng.random(ITEMS) < 0.2)) if number % 4 == 1 else None
        # Texts of any length before lists, greedy and sampled; the models write their end now and then.
        think = Think(int(rng.integers(1, MOST_TEXT + 1)), rng.integers(3, 60, size=1), np.array([4]), frozenset({9}), rule)
        if number % 7 == 3:
            scored = Scored.of(self.speculation.tries[DEPTH], rng.integers(ITEMS, size=int(rng.integers(1, 40))))
            return dataclasses.replace(request, prompt=prompt, k=1, beam_width=1, rule=SearchRule(), cache_key=key, scored=scored)
        return dataclasses.replace(
            request, prompt=prompt, beam_width=width, cache_key=key, reserved=reserved, think=think if number % 3 == 0 else None
        )

    def _alone(self, request: BeamRequest) -> BeamResult | None:
        return None if len(request.prompt) == SLOTS else alone(self.speculation.engine(DEPTH), request)

    def engine(self, plan: Plan) -> SpeculativeBeamEngine:
        self.target.fails = self.draft.fails = False
        shared = np.array([1, 3])
        return SpeculativeBeamEngine(self.target, self.speculation.tries[DEPTH], self.draft, plan, shared)


bench: Bench


@pytest.fixture(scope="module", autouse=True)
def _bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    global bench
    folder = tmp_path_factory.mktemp("speculation")
    bench = Bench(Speculation(folder), folder)
    yield
    del globals()["bench"]


class World:
    """Submissions, steps, cancellations, deadlines, failing drafts and engines that die, drawn from a seed, under every plan."""

    def __init__(self, seed: int, tokens: int = TOKENS) -> None:
        """Steps have so many `tokens`; with fewer than usual, levels are cut."""
        self.rng = np.random.default_rng(seed)
        self.tokens = tokens
        self.now = 100.0
        self.count = 0
        self.alive: dict[str, int] = {}
        self.seen: Counter[str] = Counter()
        self.start()

    def start(self) -> None:
        """A fresh engine under any plan, as after the death of another; whoever was in its hands has been told."""
        self.alive.clear()
        self.engine = bench.engine(bench.plan(int(self.rng.integers(7))))
        self.scheduler = SpeculativeBeamScheduler(self.engine, StepBudget(self.tokens), max_running=5, clock=lambda: self.now)

    def act(self) -> None:
        """One thing that happens."""
        actions = (self.submit, self.step, self.cancel, self.break_draft, self.kill)
        action = actions[self.rng.choice(5, p=[0.42, 0.46, 0.08, 0.02, 0.02])]
        action()

    def submit(self) -> None:
        kind, patience = int(self.rng.integers(KINDS)), float(self.rng.choice([0.5, 3.0, math.inf]))
        request = dataclasses.replace(bench.requests[kind], request_id=str(self.count))
        self.count += 1
        try:
            self.scheduler.submit(request, self.now + patience)
        except RequestTooLargeError:
            assert not self.engine.fits(request)
            self.seen["too large"] += 1
        except PlanRefusalError:
            assert self.engine.plan.refusal(request.beam_width)
            self.seen["refused by the plan"] += 1
        else:
            self.alive[request.request_id] = kind

    def cancel(self) -> None:
        if self.alive:
            request_id = str(self.rng.choice(list(self.alive)))
            del self.alive[request_id]
            assert self.scheduler.cancel(request_id)
            self.seen["cancelled"] += 1

    def step(self) -> None:
        self.now += float(self.rng.choice([0.0, 0.01, 0.02, 0.3]))
        step = self.scheduler.step()
        for request_id in step.timed_out:
            del self.alive[request_id]
            self.seen["timed out"] += 1
        for finished in step.finished:
            self.check_list(finished.result)
        self.seen["crowded"] += step.crowded

    def break_draft(self) -> None:
        bench.draft.fails = True

    def kill(self) -> None:
        if not self.scheduler.running:
            return
        bench.target.fails = True
        # A step in which everybody is too late runs no forward, and nothing fails.
        with suppress(RuntimeError):
            self.step()
        self.seen["killed"] += not bench.target.fails
        self.start()

    def check_list(self, result: BeamResult) -> None:
        alone = bench.alone[self.alive.pop(result.request_id)]
        assert alone is not None
        if alone.scores is not None:
            assert result.scores is not None
            scores = [np.frombuffer(each, np.float32) for each in (result.scores, alone.scores)]
            np.testing.assert_allclose(*scores, atol=1e-4, rtol=0)
            self.seen["scored"] += 1
        assert [(item.item, item.rank) for item in result.items] == [(item.item, item.rank) for item in alone.items]
        np.testing.assert_allclose([item.score for item in result.items], [item.score for item in alone.items], atol=1e-4, rtol=0)
        assert result.usage.cached_tokens < result.usage.prompt_tokens == alone.usage.prompt_tokens
        if result.items:
            forwards = result.usage.target_forwards + result.usage.accepted_steps - result.usage.thought_tokens
            assert forwards == DEPTH or (forwards > DEPTH and self.tokens < TOKENS)
            self.seen["cut"] += forwards > DEPTH
        assert result.thought == alone.thought
        self.seen["finished"] += 1
        self.seen["thought"] += result.thought is not None
        self.seen["cached"] += result.usage.cached_tokens > 0

    def accounts_are_exact(self) -> None:
        engine, searches = self.engine, list(self.engine.slots.owners)
        assert self.scheduler.running == engine.running <= 5
        assert self.scheduler.waiting + self.scheduler.running == len(self.alive)
        assert {search.request.request_id for search in searches} <= set(self.alive)
        assert len({search.request.request_id for search in searches}) == engine.running
        # What a search has computed is its own; what it found may be the cache's and other searches' as well, who all only read it.
        held = [(search, search.slots if isinstance(search, RunningThought) else search.sequence.slots) for search in searches]
        own = [slot for search, slots in held for slot in slots[max(search.shared_length, search.cached_tokens) :].tolist()]
        found = {slot for search, slots in held for slot in slots[search.shared_length : search.cached_tokens].tolist()}
        kept = {slot for entry in engine.slots.prefix_cache._prompts.values() for slot in entry.own_slots.tolist()}
        assert len(own) == len(set(own))
        assert not set(own) & (found | kept)
        assert len((set(own) | found) - kept) == engine.used_slots
        assert engine.used_slots + engine.cached_slots + engine.slots.prompts.free + engine.slots.nodes.free == engine.total_slots == SLOTS

    def finish(self) -> None:
        """Lets everybody who has no deadline come to an end."""
        for _ in range((DEPTH + 1 + MOST_TEXT) * (len(self.alive) + 1) * (TOKENS // self.tokens)):
            self.step()
            self.accounts_are_exact()
        assert not self.alive
        assert self.engine.used_slots == 0
        self.engine.forget_histories()
        assert self.engine.slots.prompts.free + self.engine.slots.prefix_cache.pinned == self.engine.slots.prompts.total


@pytest.mark.parametrize(("seeds", "least"), [(4, 2), pytest.param(12, 5, marks=pytest.mark.exhaustive)])
def test_slots_are_accounted_for_and_lists_are_those_of_requests_alone_whatever_happens(seeds: int, least: int):
    seen: Counter[str] = Counter()
    for seed in range(seeds):
        world = World(seed)
        for _ in range(150):
            world.act()
            world.accounts_are_exact()
        world.finish()
        seen += world.seen
    # A test in which these did not happen would prove nothing.
    kinds = ("finished", "cached", "thought", "scored", "cancelled", "timed out", "crowded", "killed", "refused by the plan", "too large")
    assert {kind: seen[kind] for kind in kinds if seen[kind] < least} == {}
    assert seen["finished"] > 25 * seeds


@pytest.mark.parametrize("seeds", [2, pytest.param(12, marks=pytest.mark.exhaustive)])
def test_so_they_are_where_levels_are_computed_in_pieces(seeds: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wide, "LEAST_PIECE", 4)
    seen: Counter[str] = Counter()
    for seed in range(seeds):
        world = World(seed, TOKENS // 9)
        for _ in range(150):
            world.act()
            world.accounts_are_exact()
        world.finish()
        seen += world.seen
    assert seen["cut"] > 5 * seeds
    assert {kind: seen[kind] for kind in ("cancelled", "timed out", "crowded") if seen[kind] < 2} == {}


def test_requests_of_a_deleted_user_get_their_lists_and_leave_nothing_whether_they_wait_or_run():
    engine = bench.engine(FixedPlan.parse("last"))
    scheduler = SpeculativeBeamScheduler(engine, StepBudget(TOKENS), max_running=1)
    prompt = np.array([1, 3, 5, 7, 9])
    for request_id, user in (("runs", "ann"), ("waits", "ann"), ("other", "bob")):
        scheduler.submit(BeamRequest(request_id, prompt, 4, 4, cache_key=user), math.inf)
    scheduler.step()
    assert (scheduler.running, scheduler.waiting) == (1, 2)
    scheduler.forget("ann")
    lists = {}
    while scheduler.busy:
        lists |= {finished.result.request_id: finished.result for finished in scheduler.step().finished}
    assert len(lists["runs"].items) > 0
    expected = {item.item: pytest.approx(item.score, abs=1e-4) for item in lists["runs"].items}
    assert [{item.item: item.score for item in found.items} for found in lists.values()] == [expected] * 3
    kept = {user: len(engine.slots.last_beams.find(user, engine.trie)) > 0 for user in ("ann", "bob")}
    assert kept == {"ann": False, "bob": True}
    cached = {user: engine.slots.prefix_cache.known(user, prompt) for user in ("ann", "bob")}
    assert cached == {"ann": 2, "bob": 4}, "the beginning of all prompts is nobody's"


def test_a_text_that_no_empty_engine_holds_is_refused_in_a_sentence():
    engine = bench.engine(bench.plan(0))
    scheduler = SpeculativeBeamScheduler(engine, StepBudget(TOKENS))
    think = Think(SLOTS, np.array([3]))
    sentence = (
        r"^This request needs more KV slots than the engine has \(420 in all\): ask for a smaller beam width, or for a shorter history, or"
        " for a shorter text before the list, or give the server more KV memory"
    )
    with pytest.raises(RequestTooLargeError, match=sentence):
        scheduler.submit(BeamRequest("long", np.ones(3, np.int64), 1, 1, think=think), math.inf)
    assert (engine.running, engine.used_slots) == (0, 0)


def test_the_room_that_requests_leave_when_they_end_is_foreseen():
    engine = bench.engine(bench.plan(0))
    running: list[BeamRequest] = []
    while engine.has_room(small := BeamRequest(str(len(running)), np.arange(1, 9), 2, 4)):
        engine.add(small)
        running.append(small)
    large = BeamRequest("large", np.arange(1, 9), 4, 20)
    foreseen = [engine.has_room(large, running[:ended]) for ended in range(len(running) + 1)]
    found = [engine.has_room(large), *(engine.cancel(each.request_id) and engine.has_room(large) for each in running)]
    assert foreseen == found == sorted(found)
    assert set(found) == {False, True}
