"""Requests that think, or have caps, wait for a place, and admission foresees it: simulated, with the scheduler and a clock of its own."""

import asyncio
import math
import random
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from server.messages import FailedList, FinishedList, Progress, StepRecord
from server.scheduling.admission import Admission
from server.scheduling.budget import StepBudget
from server.scheduling.forecast import CAUTION
from server.scheduling.scheduler import ScheduledStep, SpeculativeBeamScheduler
from server.submit import Submit
from server.try_again import TooLate
from tests.capping import caps_of
from tests.server.fake_engine import STEPS, FakeEngine
from tests.server.fake_ready import READY
from verification.request import BeamRequest, Think
from verification.result import BeamResult, StepReport, Usage

STEP = 0.01
ROUNDS = 7
DIVERSITY = {"brand": 1}
CAPS = caps_of({"brand": [1, 2]}, DIVERSITY)
LISTS = {"identifier_length": STEPS, "forward_seconds": STEP, "token_seconds": 1e-9, "step_tokens": 1_000_000}


class Texts(FakeEngine):
    """Writes as many tokens of each text as its request allows; lists with caps take `ROUNDS` rounds."""

    def steps_needed(self, request: BeamRequest) -> int:
        return STEPS * (ROUNDS if request.caps else 1) + (0 if request.think is None else request.think.max_tokens)

    def slots_needed(self, request: BeamRequest) -> int:
        return request.most_tokens + request.beam_width * (STEPS - 1)

    def step(self, *, scored_nodes: int | None = None, most_nodes: int | None = None) -> StepReport:
        requests = {request_id: request for request_id, (request, _) in self.running.items()}
        report = super().step(most_nodes=most_nodes)
        return replace(report, finished=tuple(self._told(result, requests[result.request_id]) for result in report.finished))

    def _told(self, result: BeamResult, request: BeamRequest) -> BeamResult:
        forwards, text = self.steps_needed(request), 0 if request.think is None else request.think.max_tokens
        rounds = ROUNDS if request.caps else 1
        return replace(result, usage=Usage(result.usage.prompt_tokens, 0, forwards, thought_tokens=text, rounds=rounds))


class Simulation:
    """Admission, the scheduler and an engine whose steps take `STEP` seconds each."""

    def __init__(self, max_running: int, total_slots: int = 100_000) -> None:
        self.now = 0.0
        self.engine = Texts(total_slots)
        self.scheduler = SpeculativeBeamScheduler(self.engine, StepBudget(100_000), max_running=max_running, clock=lambda: self.now)
        self.admission = Admission(10_000)
        self.admission.open(msgspec.structs.replace(READY, **LISTS, places=self.scheduler.places_limit, end_tokens=1))
        self.asked: dict[str, asyncio.Future[object]] = {}
        self.refused: list[str] = []

    def know_rounds(self) -> None:
        """As if many lists with caps had been made."""
        submit = Submit("", [0] * 4, 1, 1, [], 0.0, 0.0, prompt=bytes(4 * 12), diversity=DIVERSITY)
        usage = Usage(12, target_forwards=STEPS * ROUNDS, rounds=ROUNDS)
        for _ in range(200):
            self.admission.forecast.rate.learn_list(FinishedList(BeamResult("", (), usage), 0.0, 0.1), submit)

    def ask(self, name: str, seconds: float, text: int = 0, prompt: int = 12, *, capped: bool = False) -> None:
        diversity, caps = (DIVERSITY, CAPS) if capped else ({}, ())
        submit = Submit(name, [0] * 4, 1, 1, [], self.now + seconds, self.now, think=text, prompt=bytes(4 * prompt), diversity=diversity)
        try:
            pending = self.admission.admit(submit, self.now, 4)
        except TooLate:
            self.refused.append(name)
            return
        self.asked[name] = self.admission.hand_over(pending)
        think = Think(text, np.array([1])) if text else None
        self.scheduler.submit(
            BeamRequest(name, np.zeros(prompt, np.int64), 1, 1, think=think, caps=caps), submit.deadline, submit.submitted
        )

    def step(self) -> None:
        self.now += STEP
        step: ScheduledStep = self.scheduler.step()
        failed = [FailedList(request_id) for request_id in step.timed_out]
        steps = [StepRecord(step.report, self.now, STEP, step.crowded)]
        self.admission.deliver(Progress(list(step.finished), failed, steps, 0, 0, 0, placed=step.placed))

    def finish(self) -> list[str]:
        """Go on to the end; return the names of those that were let in and late."""
        while self.scheduler.busy:
            self.step()
        assert all(result.done() for result in self.asked.values())
        return [name for name, result in self.asked.items() if result.exception() is not None]


async def test_of_a_crowd_that_thinks_those_are_refused_that_no_place_is_foreseen_for():
    """Two of 60 at a time, 0.23 s each: 26 would be done within 3 s, and with `CAUTION` a few less."""
    simulation = Simulation(max_running=4)
    for number in range(60):
        simulation.ask(f"text {number}", 3.0, text=20)
    assert simulation.finish() == []
    assert 16 <= len(simulation.asked) <= 26
    assert len(simulation.refused) == 60 - len(simulation.asked)


async def test_of_a_crowd_with_caps_those_are_refused_that_no_place_is_foreseen_for():
    """Two of 60 at a time, `ROUNDS` rounds each, or 0.21 s: 28 would be done within 3 s, and with `CAUTION` a few less."""
    simulation = Simulation(max_running=4)
    simulation.know_rounds()
    for number in range(60):
        simulation.ask(f"capped {number}", 3.0, capped=True)
    simulation.step()
    simulation.ask("list", CAUTION * (2 + STEPS) * STEP)
    simulation.ask("text", CAUTION * (22 + STEPS) * STEP, text=20)
    assert simulation.finish() == []
    assert {"list", "text"} < simulation.asked.keys()
    assert 16 <= len(simulation.asked) - 2 <= 28


async def test_of_few_slots_fewer_texts_are_foreseen_to_be_written_at_a_time():
    """A quarter of the slots holds four texts of 120 tokens and what is before them, where 32 may think."""
    simulation = Simulation(max_running=64, total_slots=4 * 4 * 140)
    for number in range(40):
        simulation.ask(f"text {number}", 3.0, text=120)
    assert simulation.finish() == []
    assert 4 <= len(simulation.asked) <= 8


@pytest.mark.parametrize("seed", range(10))
async def test_whatever_comes_none_that_was_let_in_is_late(seed: int):
    """Lists, with caps or without, and texts of all lengths, some urgent, at random; more than can be done."""
    draw = random.Random(seed)
    simulation = Simulation(max_running=draw.choice([1, 2, 4]), total_slots=draw.choice([400, 4000]))
    simulation.know_rounds()
    for number in range(120):
        text = draw.choice([0, draw.randint(1, 60)])
        capped = draw.random() < 0.2
        seconds = (STEPS * (ROUNDS if capped else 1) + 2 + text) * STEP + draw.uniform(0.1, 3.0)
        simulation.ask(f"{number}", seconds, text, draw.randint(1, 30), capped=capped)
        for _ in range(draw.randint(0, 12)):
            simulation.step()
    assert simulation.finish() == []
    assert simulation.refused
    assert len(simulation.asked) > 20


async def test_an_urgent_one_waits_for_a_place_as_all_do():
    simulation = Simulation(max_running=1)
    simulation.ask("long", 9.0, text=100)
    simulation.step()
    simulation.ask("urgent", 0.9, text=5)
    assert simulation.refused == ["urgent"]
    for _ in range(60):
        simulation.step()
    simulation.ask("a little later", 0.9, text=5)
    assert simulation.finish() == []
    assert set(simulation.asked) == {"long", "a little later"}


async def test_one_that_would_keep_another_from_its_place_for_too_long_is_refused():
    simulation = Simulation(max_running=1)
    simulation.ask("running", 9.0, text=20)
    simulation.step()
    simulation.ask("waiting", 1.0, text=30)
    simulation.ask("would go first", 0.95, text=30)
    assert simulation.refused == ["would go first"]
    simulation.ask("goes first", 0.8, text=1)
    assert simulation.finish() == []
    assert set(simulation.asked) == {"running", "waiting", "goes first"}


async def test_lists_without_a_text_wait_for_no_place():
    simulation = Simulation(max_running=4)
    for number in range(10):
        simulation.ask(f"text {number}", math.inf, text=100)
    simulation.step()
    simulation.ask("list", CAUTION * (2 + STEPS) * STEP)
    assert not simulation.refused
    assert simulation.finish() == []
