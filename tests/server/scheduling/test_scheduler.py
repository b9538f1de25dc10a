"""The scheduler's rules one by one, then all of them under random submissions, cancellations, deadlines and steps."""

import dataclasses
import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from drafting.plans.fixed_plan import FixedPlan
from drafting.trie.item_set import ItemSet
from server.scheduling.budget import StepBudget
from server.scheduling.kinds import SCORES_SHARE, SCORES_TOGETHER, is_scored_at_once
from server.scheduling.order import AGEING_SECONDS, due
from server.scheduling.scheduler import IDLE, OVERTAKEN_SECONDS, PlanRefusalError, RequestTooLargeError, SpeculativeBeamScheduler
from server.scheduling.wide import shared_budget
from tests.capping import caps_of
from tests.models import random_catalog
from tests.server.fake_engine import STEPS, FakeEngine, make_request, result
from verification.blend import Blend
from verification.request import BeamRequest, ReservedPlaces, Think
from verification.result import StepReport
from verification.scored import Scored

WIDE = random_catalog(items=200, depth=4, codes=8)
THINK = Think(5, np.array([1]))
CAPS = caps_of({"brand": [1, 2]}, {"brand": 1})
LONG = pytest.mark.parametrize("long", [{"think": THINK}, {"caps": CAPS}], ids=["thinks", "capped"])


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def scheduler_of(engine: FakeEngine, *, tokens: int = 4096, max_running: int = 64, clock: Clock | None = None) -> SpeculativeBeamScheduler:
    return SpeculativeBeamScheduler(engine, StepBudget(tokens), max_running=max_running, clock=clock or Clock())


def test_a_request_runs_to_its_list_and_its_times_are_told_apart():
    clock, engine = Clock(), FakeEngine()
    scheduler = scheduler_of(engine, clock=clock)
    scheduler.submit(make_request("a"), math.inf)
    clock.now += 2
    assert not scheduler.step().finished
    clock.now += 1
    scheduler.step()
    (finished,) = scheduler.step().finished
    assert finished.result.request_id == "a"
    assert (finished.queue_seconds, finished.engine_seconds) == (2, 1)
    assert not scheduler.busy
    assert engine.used_slots == 0


def test_a_new_request_joins_the_next_step():
    engine = FakeEngine()
    scheduler = scheduler_of(engine)
    scheduler.submit(make_request("a", tokens=4, k=2), math.inf)
    scheduler.step()
    scheduler.submit(make_request("b", tokens=5), math.inf)
    scheduler.step()
    assert engine.forwards == [4, 2 + 5]


class Slow(FakeEngine):
    """One request takes many steps."""

    def steps_needed(self, request: BeamRequest) -> int:
        return 40 if request.request_id == "slow" else STEPS


@pytest.mark.parametrize("held", [60, 30])
def test_lists_overtake_a_request_that_waits_for_slots_until_only_they_keep_it_from_running(held: int):
    """However many come, it runs as soon as those end that run when they alone are in its way; whoever takes more steps waits behind it."""
    engine = Slow(total_slots=100)
    scheduler = scheduler_of(engine)
    scheduler.submit(make_request("slow", held - 2, k=1), math.inf)
    scheduler.step()
    scheduler.submit(make_request("large", 88, k=1), math.inf)
    scheduler.submit(dataclasses.replace(make_request("text", 2, k=1), think=THINK), math.inf)
    ends, begun = {}, {}
    for step in range(60):
        scheduler.submit(make_request(f"small {step}", 8, k=1), math.inf)
        ends |= {finished.result.request_id: step for finished in scheduler.step().finished}
        begun |= {name: step for name in engine.added if name not in begun}
    assert [name for name in ends if name.startswith("small")][:35] == [f"small {step}" for step in range(35)]
    assert ends["slow"] < begun["large"] <= ends["slow"] + STEPS
    assert begun["text"] >= begun["large"]


def test_nobody_overtakes_a_request_for_long():
    """The slow one is still in its way then, and the small ones wait for both."""
    clock, engine = Clock(), Slow(total_slots=100)
    scheduler = scheduler_of(engine, clock=clock)
    scheduler.submit(make_request("slow", 58, k=1), math.inf)
    scheduler.step()
    scheduler.submit(make_request("large", 88, k=1), math.inf)
    for step in range(80):
        scheduler.submit(make_request(f"small {step}", 8, k=1), math.inf)
        scheduler.step()
        clock.now += OVERTAKEN_SECONDS / 8
    assert engine.added[1:10] == [*(f"small {step}" for step in range(8)), "large"]


def test_nobody_overtakes_a_request_that_only_waits_for_those_that_have_overtaken_it():
    engine = FakeEngine(total_slots=39)
    scheduler = scheduler_of(engine)
    scheduler.submit(make_request("a", 18, k=1), math.inf)
    scheduler.step()
    for name, tokens in (("large", 28), ("small 0", 8)):
        scheduler.submit(make_request(name, tokens, k=1), math.inf)
    scheduler.step()
    assert engine.added == ["a", "small 0"]
    # From now on the large one would fit, had the small one not overtaken it.
    scheduler.step()
    scheduler.submit(make_request("small 1", 8, k=1), math.inf)
    scheduler.step()
    assert engine.added == ["a", "small 0"]
    scheduler.step()
    assert engine.added == ["a", "small 0", "large"]


def test_the_token_budget_holds_but_for_a_request_that_is_alone():
    engine = FakeEngine(total_slots=1000)
    scheduler = scheduler_of(engine, tokens=10)
    for name, tokens in (("a", 6), ("b", 6), ("larger than the budget", 50)):
        scheduler.submit(make_request(name, tokens, k=2), math.inf)
    while scheduler.busy:
        scheduler.step()
    assert engine.forwards == [6, 2 + 6, 2 + 2, 2, 50, 2, 2]


@pytest.mark.parametrize("tokens", [200, 1000])
def test_no_step_is_larger_than_the_budget_but_that_of_a_request_alone(tokens: int):
    """Whether prompts are cached, so that only beams count, or long, and however wide beams are; of wide ones half a level may be more."""
    rng, engine = random.Random(tokens), FakeEngine(total_slots=1_000_000)
    scheduler = scheduler_of(engine, tokens=tokens)
    most = shared_budget(tokens)
    for number in range(400):
        prompt, width = rng.choice([1, 1, 80]), rng.choice([10, 50, 100, 100, 256])
        if number % 50 == 49:
            width = 1000
        scheduler.submit(BeamRequest(str(number), np.zeros(prompt, np.int64), 1, width), math.inf)
        if number % 40 == 0:
            scheduler.step()
    shared, together = [], 0
    while scheduler.busy:
        step = scheduler.step()
        if (running := scheduler.running + len(step.finished)) > 1:
            shared.append(engine.forwards[-1])
            together = max(together, running)
    assert max(shared) <= most
    assert max(shared) > 0.9 * tokens
    assert together > tokens // 100


def test_cached_prompts_of_narrow_beams_are_taken_up_as_many_as_fit():
    engine = FakeEngine(total_slots=1_000_000)
    scheduler = scheduler_of(engine, tokens=960)
    for number in range(200):
        scheduler.submit(BeamRequest(str(number), np.zeros(80, np.int64), 1, 10), math.inf)
    scheduler.step()
    assert engine.forwards == [12 * 80]
    scheduler.step()
    assert engine.forwards[1] == 12 * 10 + 10 * 80, "beams that run leave the rest to prompts"


class Writing(FakeEngine):
    """Writes texts, a token in each step, and has no lists behind them."""

    def steps_needed(self, request: BeamRequest) -> int:
        return STEPS if request.think is None else request.think.max_tokens

    def _tokens(self, request: BeamRequest, done: int, most_nodes: int | None) -> int:
        return 1 if done and request.think is not None else super()._tokens(request, done, most_nodes)


def test_a_text_keeps_no_list_waiting_for_the_sake_of_its_own():
    engine = Writing(total_slots=10_000)
    scheduler = scheduler_of(engine, tokens=300)
    scheduler.submit(dataclasses.replace(make_request("text", k=250), think=THINK), math.inf)
    scheduler.step()
    scheduler.submit(make_request("list", k=100), math.inf)
    scheduler.step()
    assert engine.added == ["text", "list"]


class Scoring(FakeEngine):
    """Takes as many prefixes of candidates as it is told to, for all requests for scores in turn; lists are as they were."""

    def __init__(self) -> None:
        super().__init__(total_slots=10_000)
        self.left: dict[str, int] = {}
        self.scored: list[int] = []

    def add(self, request: BeamRequest) -> None:
        super().add(request)
        if request.scored is not None:
            self.left[request.request_id] = request.scored.prefixes

    def cancel(self, request_id: str) -> bool:
        self.left.pop(request_id, None)
        return super().cancel(request_id)

    def steps_needed(self, request: BeamRequest) -> int:
        return STEPS if request.scored is None else 1_000_000

    def _tokens(self, request: BeamRequest, done: int, most_nodes: int | None) -> int:
        return 0 if done and request.scored is not None else super()._tokens(request, done, most_nodes)

    def step(self, *, scored_nodes: int | None = None, most_nodes: int | None = None) -> StepReport:
        report, scored, ended = super().step(most_nodes=most_nodes), 0, []
        assert scored_nodes is not None
        for name, left in list(self.left.items()):
            taken = min(left, scored_nodes - scored)
            scored += taken
            self.left[name] -= taken
            if not self.left[name]:
                ended.append(result(self.running[name][0]))
                self.cancel(name)
        self.scored.append(scored)
        return dataclasses.replace(report, finished=(*report.finished, *ended), scored_nodes=scored)


def score_request(name: str, items: int, tokens: int = 4) -> BeamRequest:
    scored = Scored.of(WIDE.trie, np.arange(items))
    return dataclasses.replace(make_request(name, tokens, k=1), scored=scored)


def test_scores_have_a_part_of_each_step_and_lists_the_rest():
    """A list that comes while ten steps' worth of candidates are scored joins the next step, and takes as long as alone."""
    engine = Scoring()
    scheduler = scheduler_of(engine, tokens=80)
    scheduler.submit(score_request("scores", 200), math.inf)
    scheduler.step()
    assert engine.scored == [80 // SCORES_SHARE]
    for name, tokens in (("list", 50), ("next list", 50), ("larger than what scores leave", 70)):
        scheduler.submit(make_request(name, tokens=tokens, k=2), math.inf)
    ended = {}
    for number in range(1000):
        if not scheduler.busy:
            break
        for finished in scheduler.step().finished:
            ended[finished.result.request_id] = number
    # Alone, they would take no fewer steps, for the budget holds only one of their prompts a step.
    assert [ended[name] for name in ("list", "next list", "larger than what scores leave")] == [2, 3, 6]
    assert sum(engine.scored) == Scored.of(WIDE.trie, np.arange(200)).prefixes
    assert set(engine.scored[:-1]) == {20}
    assert all(tokens + scored <= 80 or tokens == 70 for tokens, scored in zip(engine.forwards, engine.scored, strict=True))


def test_few_requests_for_scores_run_at_a_time_and_hold_up_no_list():
    engine = Scoring()
    scheduler = scheduler_of(engine, tokens=80)
    for number in range(3 * SCORES_TOGETHER):
        scheduler.submit(score_request(f"scores {number}", 100), math.inf)
    scheduler.submit(make_request("list"), math.inf)
    scheduler.step()
    assert engine.added == [*(f"scores {number}" for number in range(SCORES_TOGETHER)), "list"]
    while scheduler.busy:
        scheduler.step()
        assert sum(request.scored is not None for request, _ in engine.running.values()) <= SCORES_TOGETHER
    assert [name for name in engine.added if name != "list"] == [f"scores {number}" for number in range(3 * SCORES_TOGETHER)]


def test_scores_of_few_items_wait_for_none_of_many():
    """Four large requests have their places, and more wait for them: a small one goes first, and ends in the step that it joins."""
    engine = Scoring()
    scheduler = scheduler_of(engine, tokens=400)
    for number in range(SCORES_TOGETHER + 1):
        scheduler.submit(score_request(f"large {number}", 180), math.inf)
    scheduler.step()
    small = score_request("small", 5)
    assert small.scored is not None
    assert is_scored_at_once(small.scored.prefixes, 400)
    scheduler.submit(small, math.inf)
    scheduler.step()
    assert engine.added == [*(f"large {number}" for number in range(SCORES_TOGETHER)), "small"]


def test_scores_that_are_late_or_cancelled_leave_the_engine():
    clock, engine = Clock(), Scoring()
    scheduler = scheduler_of(engine, tokens=8, clock=clock)
    scheduler.submit(score_request("late", 100), clock.now + 1)
    scheduler.submit(score_request("cancelled", 100), math.inf)
    scheduler.step()
    clock.now += 2
    assert scheduler.cancel("cancelled")
    assert scheduler.step().timed_out == ("late",)
    assert not scheduler.busy
    assert not engine.running


def test_a_request_that_can_never_fit_is_refused_with_a_sentence():
    scheduler = scheduler_of(FakeEngine(total_slots=10))
    with pytest.raises(RequestTooLargeError, match=r"needs more KV slots than the engine has \(10 in all\): ask for a smaller beam width"):
        scheduler.submit(make_request("a", tokens=10), math.inf)
    assert not scheduler.busy


def test_a_refusal_names_all_that_takes_room():
    trie = random_catalog(items=50).trie
    reserved, blend = ReservedPlaces(1, ItemSet.of(np.ones(50, bool))), Blend.of(trie, np.arange(9), np.ones(9), 1.0)
    request = dataclasses.replace(make_request("a", tokens=10), reserved=reserved, blend=blend)
    sentence = (
        "a smaller beam width, or for a shorter history, or for a list without places for fresh items, or for fewer candidates to blend "
        "with, or give the server"
    )
    with pytest.raises(RequestTooLargeError, match=sentence):
        scheduler_of(FakeEngine(total_slots=10)).submit(request, math.inf)


def test_a_refusal_of_scores_names_their_items():
    with pytest.raises(RequestTooLargeError, match=": ask for scores of fewer items, or for a shorter history, or give the server"):
        scheduler_of(FakeEngine(total_slots=10)).submit(score_request("a", 9, tokens=11), math.inf)


def test_a_request_that_the_plan_cannot_serve_is_refused_with_a_sentence():
    engine = FakeEngine()
    engine.plan = FixedPlan.parse("beam:5+children")
    scheduler = scheduler_of(engine)
    with pytest.raises(PlanRefusalError, match=r"^The plan beam:5\+children drafts fewer prefixes than the 6 that this request keeps"):
        scheduler.submit(make_request("wide", k=6), math.inf)
    assert not scheduler.busy
    scheduler.submit(make_request("narrow", k=5), math.inf)


def test_an_id_can_be_used_again_only_when_it_is_free():
    scheduler = scheduler_of(FakeEngine())
    scheduler.submit(make_request("a"), math.inf)
    with pytest.raises(ValueError, match="already in use"):
        scheduler.submit(make_request("a"), math.inf)
    scheduler.step()
    with pytest.raises(ValueError, match="already in use"):
        scheduler.submit(make_request("a"), math.inf)
    assert scheduler.cancel("a")
    scheduler.submit(make_request("a"), math.inf)


def test_a_passed_deadline_ends_waiting_and_running_requests():
    clock, engine = Clock(), FakeEngine()
    scheduler = scheduler_of(engine, max_running=1, clock=clock)
    scheduler.submit(make_request("runs"), 101.0)
    scheduler.submit(make_request("waits"), 101.0)
    scheduler.submit(make_request("has time"), math.inf)
    scheduler.step()
    clock.now = 101.0
    assert set(scheduler.step().timed_out) == {"runs", "waits"}
    assert list(engine.running) == ["has time"]


def test_cancelling_frees_the_slots_and_says_whether_there_was_something():
    engine = FakeEngine()
    scheduler = scheduler_of(engine, max_running=1)
    scheduler.submit(make_request("runs"), math.inf)
    scheduler.submit(make_request("waits"), math.inf)
    scheduler.step()
    assert scheduler.cancel("runs")
    assert scheduler.cancel("waits")
    assert not scheduler.cancel("runs")
    assert engine.used_slots == 0
    assert scheduler.step().report is IDLE


def test_the_earliest_deadline_runs_first_and_equal_ones_in_the_order_of_their_arrival():
    engine = FakeEngine()
    scheduler = scheduler_of(engine, max_running=1)
    for name, patience in (("a", 0.9), ("b", 0.5), ("c", 0.9), ("d", 0.1)):
        scheduler.submit(make_request(name), 100.0 + patience)
    while scheduler.busy:
        scheduler.step()
    assert engine.added == ["d", "b", "a", "c"]


def test_a_request_that_has_waited_long_is_overtaken_by_nobody_who_comes_later():
    clock, engine = Clock(), FakeEngine()
    scheduler = scheduler_of(engine, max_running=1, clock=clock)
    scheduler.submit(make_request("patient"), math.inf)
    number = 0
    while "patient" not in engine.added:
        scheduler.submit(make_request(f"urgent {number}"), clock.now + 0.5)
        number += 1
        scheduler.step()
        clock.now += 0.1
    assert clock.now - 100.0 < AGEING_SECONDS + 0.5


def test_cancelled_requests_leave_the_queue_whatever_stands_before_them():
    scheduler = scheduler_of(FakeEngine(), max_running=1)
    scheduler.submit(make_request("first"), 100.1)
    for number in range(1000):
        scheduler.submit(make_request(str(number)), 101.0)
        scheduler.cancel(str(number))
    assert scheduler.waiting == 1
    assert len(scheduler._waiting) == 1


def test_a_step_in_which_somebody_must_wait_is_crowded():
    scheduler = scheduler_of(FakeEngine(), max_running=1)
    scheduler.submit(make_request("a"), math.inf)
    assert not scheduler.step().crowded
    scheduler.submit(make_request("b"), math.inf)
    assert scheduler.step().crowded


# So few that prompts must wait for them, and as many as the beams of four requests have.
TOKENS = 40


class SchedulerMachine(RuleBasedStateMachine):
    """Whatever happens, every request ends exactly once, requests are taken up by when they are due, and every slot is accounted for.

    The first in the queue is overtaken only while it waits for slots that it would have to wait for anyway, and not for long; after that it
    is begun within the steps of a list.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.engine = FakeEngine(total_slots=60)
        self.scheduler = scheduler_of(self.engine, tokens=TOKENS, max_running=4, clock=self.clock)
        self.alive: list[str] = []
        self.submitted: dict[str, tuple[float, int]] = {}
        self.arrivals: dict[str, float] = {}
        self.ended: set[str] = set()
        self.slots: dict[str, int] = {}
        self.overtook: set[str] = set()
        self.awaited: tuple[str, int] = "", 0

    def end(self, request_id: str) -> None:
        assert request_id not in self.ended
        self.ended.add(request_id)
        self.alive.remove(request_id)

    @rule(tokens=st.integers(1, 60), k=st.integers(1, TOKENS // 4), patience=st.sampled_from([0.3, 1.0, 5.0, math.inf]))
    def submit(self, tokens: int, k: int, patience: float) -> None:
        request = make_request(str(len(self.submitted)), tokens, k)
        deadline = self.clock.now + patience
        if not self.engine.fits(request):
            with pytest.raises(RequestTooLargeError):
                self.scheduler.submit(request, deadline)
            return
        self.scheduler.submit(request, deadline)
        self.arrivals[request.request_id] = self.clock.now
        self.slots[request.request_id] = self.engine.slots_needed(request)
        self.submitted[request.request_id] = due(deadline, self.clock.now), len(self.submitted)
        self.alive.append(request.request_id)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        request_id = data.draw(st.sampled_from([*self.alive, "nobody"]))
        assert self.scheduler.cancel(request_id) == (request_id != "nobody")
        if request_id != "nobody":
            self.end(request_id)

    @rule(seconds=st.floats(0.1, 2.0))
    def step(self, seconds: float) -> None:
        self.clock.now += seconds
        running = dict(self.engine.running)
        waiting, taken = set(self.alive) - set(running), len(self.engine.added)
        step = self.scheduler.step()
        for request_id in step.timed_out:
            self.end(request_id)
        for finished in step.finished:
            self.end(finished.result.request_id)
        if len(self.engine.running) + len(step.finished) > 1:
            assert step.report.tokens <= TOKENS
        in_order = {name for name in running if name not in self.overtook and name not in step.timed_out}
        self.check_order(waiting - set(step.timed_out), self.engine.added[taken:], in_order)

    def check_order(self, waiting: set[str], taken: list[str], in_order: set[str]) -> None:
        """Who was taken up was the first of those who waited, or overtook it as long as those that ran `in_order` left it too few slots."""
        for request_id in taken:
            first, *others = sorted(waiting, key=self.submitted.__getitem__)
            if request_id == first:
                in_order.add(request_id)
            else:
                assert request_id == others[0]
                assert not self.has_room(first, in_order)
                assert self.clock.now - self.arrivals[first] < OVERTAKEN_SECONDS
                self.overtook.add(request_id)
            waiting.remove(request_id)
            assert all(self.arrivals[request_id] <= self.arrivals[other] + AGEING_SECONDS for other in waiting)
        first = min(waiting, key=self.submitted.__getitem__, default="")
        could_run = bool(first) and self.has_room(first, in_order)
        self.awaited = first, (self.awaited[1] if first == self.awaited[0] else 0) + could_run
        assert self.awaited[1] <= STEPS

    def has_room(self, request_id: str, running: set[str]) -> bool:
        """Whether a request would have enough slots beside some others."""
        return sum(self.slots[name] for name in (request_id, *running)) <= self.engine.total_slots

    @invariant()
    def accounts_are_exact(self) -> None:
        assert self.scheduler.waiting + self.scheduler.running == len(self.alive)
        assert set(self.engine.running) <= set(self.alive)
        assert self.scheduler.running == len(self.engine.running) <= 4
        assert self.engine.used_slots <= self.engine.total_slots

    def teardown(self) -> None:
        for _ in range(STEPS * (len(self.alive) + 1)):
            step = self.scheduler.step()
            for finished in step.finished:
                self.end(finished.result.request_id)
        assert all(request_id in self.ended for request_id in self.submitted)
        assert self.engine.used_slots == 0


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(stateful_step_count=30)


def test_a_crowd_of_requests_of_all_sizes_is_taken_up_in_order_but_for_those_that_delay_nobody():
    rng, machine = random.Random(0), SchedulerMachine()
    for _ in range(1500):
        while len(machine.alive) < 10:
            machine.submit(tokens=rng.choice([1, 5, 20, 35]), k=rng.choice([1, 2, 10]), patience=math.inf)
        machine.step(seconds=0.03)
        machine.accounts_are_exact()
    machine.teardown()
    assert len(machine.overtook) > 100


@LONG
def test_requests_that_think_or_have_caps_are_at_most_half_of_those_that_run(long: dict[str, Any]):
    """The others don't wait for them to end, and leave them their half: one that waits for it begins as soon as another has ended."""
    engine = FakeEngine(total_slots=1000)
    scheduler = scheduler_of(engine, max_running=4)
    for number in range(4):
        scheduler.submit(dataclasses.replace(make_request(f"long {number}"), **long), math.inf)
    for number in range(9):
        scheduler.submit(make_request(f"plain {number}"), math.inf)
    scheduler.step()
    assert engine.added == ["long 0", "long 1", "plain 0", "plain 1"]
    for _ in range(STEPS):
        scheduler.step()
    assert engine.added[4:] == ["long 2", "long 3", "plain 2", "plain 3"]
    while scheduler.busy:
        scheduler.step()
    assert sorted(engine.added[8:]) == [f"plain {number}" for number in range(4, 9)]


@LONG
def test_a_wide_request_that_thinks_or_has_caps_is_overtaken_by_none_of_either_kind(long: dict[str, Any]):
    """Otherwise those of its other kind would take its place while a wide one runs, and wide ones while those run, for ever."""
    engine = FakeEngine(total_slots=10_000)
    scheduler = scheduler_of(engine, tokens=600, max_running=4)

    def submit(name: str, width: int, **kind: Any) -> None:
        scheduler.submit(dataclasses.replace(make_request(name, k=width), **kind), math.inf)

    submit("long 0", 2, **long)
    scheduler.step()
    submit("wide 0", 500)
    submit("both", 500, **long)
    submit("long 1", 2, **long)
    submit("wide 1", 500)
    submit("plain", 2)
    scheduler.step()
    assert engine.added == ["long 0", "wide 0", "plain"]
    while scheduler.busy:
        scheduler.step()
    assert engine.added[3:] == ["both", "long 1", "wide 1"]


def test_a_long_queue_of_one_kind_is_not_judged_entry_by_entry(monkeypatch: pytest.MonkeyPatch):
    """What runs is looked through for the first of a kind that waits; the others wait behind it, whatever they need."""
    engine, judged = FakeEngine(total_slots=10_000), []
    scheduler = scheduler_of(engine, max_running=4)
    may_run = scheduler._may_run
    monkeypatch.setattr(scheduler, "_may_run", lambda *asked: judged.append(asked) or may_run(*asked))
    for number in range(100):
        scheduler.submit(dataclasses.replace(make_request(f"text {number}"), think=Think(5, np.array([1]))), math.inf)
    scheduler.step()
    assert len(engine.added) == 2
    assert len(judged) == 3


def test_texts_before_lists_with_caps_leave_others_with_caps_their_places():
    engine = FakeEngine(total_slots=1000)
    scheduler = scheduler_of(engine, max_running=4)
    for number in range(3):
        scheduler.submit(dataclasses.replace(make_request(f"text {number}"), think=THINK, caps=CAPS), math.inf)
    scheduler.submit(dataclasses.replace(make_request("capped"), caps=CAPS), math.inf)
    scheduler.step()
    assert engine.added == ["text 0", "text 1", "capped"]


@LONG
def test_where_one_runs_at_a_time_it_may_think_or_have_caps(long: dict[str, Any]):
    engine = FakeEngine()
    scheduler = scheduler_of(engine, max_running=1)
    scheduler.submit(dataclasses.replace(make_request("long"), **long), math.inf)
    scheduler.step()
    assert engine.added == ["long"]


def test_requests_that_think_leave_three_quarters_of_the_slots():
    """One may have more, alone; a large one is not overtaken by a small one that thinks, too."""
    engine = FakeEngine(total_slots=160)
    scheduler = scheduler_of(engine, max_running=40)
    for name, tokens in (("first", 15), ("large", 60), ("small", 1)):
        scheduler.submit(dataclasses.replace(make_request(name), think=Think(tokens, np.array([1]))), math.inf)
    scheduler.submit(make_request("plain"), math.inf)
    scheduler.step()
    assert engine.added == ["first", "plain"]
    for _ in range(STEPS):
        scheduler.step()
    assert engine.added == ["first", "plain", "large"]
    while scheduler.busy:
        scheduler.step()
    assert engine.added == ["first", "plain", "large", "small"]
