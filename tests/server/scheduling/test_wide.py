"""Wide requests beside narrow ones: simulated, with the scheduler and admission themselves and a clock of its own."""

import asyncio
import itertools
import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from drafting.plans.costs import CostCurve
from drafting.trie.item_set import ItemSet
from server.messages import FailedList, Progress, StepRecord
from server.scheduling.admission import Admission
from server.scheduling.budget import StepBudget
from server.scheduling.forecast import Forecast
from server.scheduling.kinds import Kind, kinds_of
from server.scheduling.pending import PendingRequest
from server.scheduling.scheduler import SpeculativeBeamScheduler
from server.scheduling.wide import LEAST_PIECE, is_wide, level_tokens, piece_nodes
from server.submit import FreshPlaces, Submit
from server.try_again import TooLate
from tests.server.fake_engine import STEPS, FakeEngine, level_nodes, make_request
from tests.server.fake_ready import READY
from verification.request import BeamRequest, ReservedPlaces
from verification.result import StepReport

CURVE = CostCurve(0.004, 0.0001)
STEP_TOKENS = 1000
PROMPT, NARROW, WIDE = 81, 10, 1000
FRESH = ReservedPlaces(1, ItemSet.of(np.ones(1, bool)))


class Simulation:
    """Clients that ask again as soon as they have a list, wide ones with `reserved` places; a step takes what its tokens cost."""

    def __init__(
        self, timeout: float = math.inf, tokens: int = STEP_TOKENS, slots: int = 100_000, reserved: ReservedPlaces | None = None
    ) -> None:
        self.now, self.timeout, self._reserved = 0.0, timeout, reserved
        self.engine = FakeEngine(slots)
        self.budget = StepBudget(tokens)
        self.scheduler = SpeculativeBeamScheduler(self.engine, self.budget, clock=lambda: self.now)
        self.admission = Admission(1000)
        cost = {"forward_seconds": CURVE.fixed, "token_seconds": CURVE.per_token, "step_tokens": self.budget.tokens}
        self.admission.open(msgspec.structs.replace(READY, identifier_length=STEPS, **cost))
        self.seconds: dict[int, list[float]] = {}
        self.refused: list[int] = []
        self.late: list[int] = []
        self._widths: dict[str, int] = {}
        self._asked: dict[str, float] = {}
        self._numbers = itertools.count()

    def ask(self, width: int) -> None:
        name = str(next(self._numbers))
        submit = Submit(name, [0] * (PROMPT // STEPS), 1, width, [], self.now + self.timeout, self.now, prompt=bytes(4 * PROMPT))
        if self.timeout < math.inf:
            try:
                pending: PendingRequest = self.admission.admit(submit, self.now, len(submit.history))
            except TooLate:
                self.refused.append(width)
                return
            # Without a loop nobody waits for the list; whether it came in time is told by the scheduler.
            pending.result = asyncio.Future(loop=LOOP)
        self._widths[name], self._asked[name] = width, self.now
        reserved = self._reserved if width >= WIDE else None
        request = BeamRequest(name, np.zeros(PROMPT, np.int64), 1, width, reserved=reserved)
        self.scheduler.submit(request, submit.deadline, self.now)

    def run(self, seconds: float, again: bool = True) -> None:
        end = self.now + seconds
        while self.now < end and self.scheduler.busy:
            before = len(self.engine.forwards)
            step = self.scheduler.step()
            tokens = sum(self.engine.forwards[before:])
            taken = CURVE.seconds(tokens)
            self.now += taken
            self.late += [self._widths[name] for name in step.timed_out]
            if self.timeout < math.inf:
                failed = [FailedList(name) for name in step.timed_out]
                record = StepRecord(step.report, self.now, taken, step.crowded)
                self.admission.deliver(Progress(list(step.finished), failed, [record], 0, 0, 0))
            for finished in step.finished:
                name = finished.result.request_id
                self.seconds.setdefault(self._widths[name], []).append(self.now - self._asked[name])
                if again:
                    self.ask(self._widths[name])

    def p99(self, width: int) -> float:
        return float(np.percentile(self.seconds[width], 99))


class Timed(FakeEngine):
    """Takes what its tokens cost."""

    def step(self, *, scored_nodes: int | None = None, most_nodes: int | None = None) -> StepReport:
        report = super().step(scored_nodes=scored_nodes, most_nodes=most_nodes)
        return replace(report, seconds=CURVE.seconds(report.tokens))


LOOP = asyncio.new_event_loop()


@pytest.mark.parametrize(("narrow", "reserved"), [(50, None), (12, None), (50, FRESH)])
def test_nobody_starves_and_narrow_ones_wait_at_most_three_times_as_long(narrow: int, reserved: ReservedPlaces | None) -> None:
    """Eight clients of width 1,000 beside 50 of width 10, all asking on and on; slots are for a wide one and so many narrow ones."""
    searches = 1 if reserved is None else 2
    slots = (PROMPT + searches * WIDE * (STEPS - 1)) + narrow * (PROMPT + NARROW * (STEPS - 1))
    alone, together, only_wide = (Simulation(slots=slots, reserved=reserved) for _ in range(3))
    for number in range(50):
        alone.ask(NARROW)
        together.ask(NARROW)
        if number < 8:
            together.ask(WIDE)
            only_wide.ask(WIDE)
    for each in (alone, together, only_wide):
        each.run(30)
    assert together.p99(NARROW) <= 3 * alone.p99(NARROW)
    assert len(together.seconds[NARROW]) >= len(alone.seconds[NARROW]) / 3
    assert together.p99(WIDE) <= 3 * only_wide.p99(WIDE)
    longest = max(together.engine.forwards)
    assert longest <= 2 * together.budget.tokens, "no step is filled by one request"
    assert max(only_wide.engine.forwards) < 2 * WIDE
    for each in (alone, together, only_wide):
        each.run(1000, again=False)
        assert each.engine.used_slots == each.scheduler.running == each.scheduler.waiting == len(each.engine.cut) == 0


def test_narrow_ones_join_a_wide_one_whose_pieces_are_longer_than_a_step() -> None:
    """On a machine so slow that a step has fewer tokens than any piece."""
    simulation = Simulation(tokens=180)
    simulation.ask(WIDE)
    for _ in range(2):
        simulation.scheduler.step()
    assert "0" in simulation.engine.cut
    simulation.ask(NARROW)
    simulation.scheduler.step()
    assert simulation.engine.added == ["0", "1"]
    assert simulation.engine.forwards[-1] == LEAST_PIECE + PROMPT


def test_a_level_puts_no_more_into_a_step_than_its_piece() -> None:
    prompt = np.zeros(PROMPT, np.int64)
    for tokens, width, reserved in itertools.product((1, 180, STEP_TOKENS, 4096), (NARROW, LEAST_PIECE, WIDE, 4 * WIDE), (None, FRESH)):
        request = BeamRequest("a", prompt, 1, width, reserved=reserved)
        assert level_tokens(request, tokens) == min(level_nodes(request), piece_nodes(tokens))


@pytest.mark.parametrize(("width", "is_fresh"), [(250, True), (251, True), (500, False), (501, False)])
def test_engine_and_api_agree_on_who_is_wide(width: int, is_fresh: bool) -> None:
    """Whose level is cut: reserved places double it."""
    request = BeamRequest("a", np.zeros(PROMPT, np.int64), 1, width, reserved=FRESH if is_fresh else None)
    submit = Submit("a", [0], 1, width, [], math.inf, 0.0, fresh=FreshPlaces(0, 1) if is_fresh else None)
    pending, expected = PendingRequest(submit, 0), level_nodes(request) > piece_nodes(STEP_TOKENS)
    Forecast(msgspec.structs.replace(READY, step_tokens=STEP_TOKENS)).foresee(pending)
    assert pending.is_wide == expected == (Kind.WIDE in kinds_of(request, STEP_TOKENS))


def test_wide_ones_run_one_by_one_and_are_overtaken_by_narrow_ones_alone() -> None:
    simulation = Simulation()
    for width in (WIDE, WIDE + 1, WIDE + 2, NARROW):
        simulation.ask(width)
    simulation.scheduler.step()
    assert simulation.engine.added == ["0", "3"]
    simulation.run(100, again=False)
    assert simulation.engine.added == ["0", "3", "1", "2"]


def test_a_wide_one_alone_teaches_the_budget_no_slowness() -> None:
    """Its levels are given whole steps, and so they are judged."""
    budget = StepBudget(4096, 0.1, CURVE)
    scheduler = SpeculativeBeamScheduler(Timed(100_000), budget, clock=lambda: 0.0)
    before = budget.tokens
    for number in range(20):
        scheduler.submit(BeamRequest(str(number), np.zeros(PROMPT, np.int64), 1, WIDE), math.inf)
        while scheduler.busy:
            scheduler.step()
    assert WIDE > before > piece_nodes(before)
    assert budget.tokens == before


@pytest.mark.parametrize("ends", ["cancel", "deadline"])
def test_a_wide_request_that_ends_between_two_pieces_leaves_nothing(ends: str) -> None:
    simulation = Simulation()
    simulation.ask(WIDE)
    simulation.ask(NARROW)
    for _ in range(2):
        simulation.scheduler.step()
    assert "0" in simulation.engine.cut
    if ends == "cancel":
        assert simulation.scheduler.cancel("0")
    else:
        simulation.scheduler._running[0].deadline = simulation.now
        assert simulation.scheduler.step().timed_out == ("0",)
    simulation.ask(WIDE + 1)
    simulation.run(100, again=False)
    assert len(simulation.seconds[WIDE + 1]) == 1
    assert simulation.engine.used_slots == 0


def test_admission_lets_narrow_ones_in_behind_wide_ones_that_they_overtake() -> None:
    """Those that are let in are in time, and of the narrow ones a queue of wide ones keeps none out."""
    simulation = Simulation(timeout=2.5)
    for _ in range(8):
        simulation.ask(WIDE)
    for _ in range(20):
        simulation.ask(NARROW)
    assert NARROW not in simulation.refused
    simulation.run(20, again=False)
    assert not simulation.late
    assert len(simulation.seconds[NARROW]) == 20


def test_beams_of_usual_width_are_never_cut() -> None:
    for tokens in (1, 100, 4096):
        assert not is_wide(LEAST_PIECE, tokens)
        assert piece_nodes(tokens) >= LEAST_PIECE
        assert piece_nodes(tokens, is_alone=True) >= piece_nodes(tokens)
    assert is_wide(LEAST_PIECE + 1, 2 * LEAST_PIECE)
    assert not is_wide(2000, 4096)
    assert make_request("a").beam_width < LEAST_PIECE
