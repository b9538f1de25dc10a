"""Whatever was measured, an idle engine is tried, and requests one after the other bring the forecast back to the truth."""

from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.messages import FinishedList, Progress, Ready, StepRecord
from server.scheduling.admission import Admission
from server.scheduling.rate import EngineRate
from server.submit import TOKEN_BYTES, Submit
from server.try_again import Overloaded, QueueFull, TooLate
from tests.server.fake_ready import READY
from verification.result import BeamResult, StepReport, Usage

LENGTH = 4
# Requests one after the other until the forecast is believed again, and how far off it may be then.
ENOUGH = 6
FACTOR = 4.0

speeds = st.floats(-6, 1).map(lambda exponent: 10.0**exponent)
durations = st.floats(-6, 3).map(lambda exponent: 10.0**exponent)


@dataclass
class SimulatedEngine:
    """Makes lists of an engine whose steps take `fixed + per_token * tokens` seconds, one request at a time.

    Attributes:
        now: its clock.
    """

    fixed: float
    per_token: float
    now: float = 0.0

    def sizes(self, request: Submit) -> list[int]:
        """Tokens of its steps: the prompt, then the beams of each level."""
        return [len(request.history) * LENGTH + 1] + [request.beam_width] * (LENGTH - 1)

    def seconds(self, request: Submit) -> float:
        return sum(self.fixed + self.per_token * tokens for tokens in self.sizes(request))

    def make(self, request: Submit) -> Progress:
        steps = []
        for tokens in self.sizes(request):
            seconds = self.fixed + self.per_token * tokens
            self.now += seconds
            steps.append(StepRecord(StepReport((), tokens=tokens, seconds=seconds), self.now, seconds))
        usage = Usage(len(request.history) * LENGTH + 1, target_forwards=LENGTH)
        finished = FinishedList(BeamResult(request.request_id, (), usage), 0.0, self.seconds(request))
        return Progress([finished], [], steps, running=0, waiting=0, used_slots=0)


def request(name: str, engine: SimulatedEngine, timeout: float, items: int = 10) -> Submit:
    return Submit(name, list(range(items)), 10, 10, [], engine.now + timeout, engine.now)


def is_let_in(admission: Admission, submit: Submit, now: float) -> bool:
    try:
        admission.leave(admission.admit(submit, now, len(submit.history)))
    except TooLate:
        return False
    return True


def patience(engine: SimulatedEngine, share: float) -> float:
    """A timeout that is a share of what the engine takes for one request."""
    return share * engine.seconds(request("", engine, 0.0))


measured = st.builds(
    lambda fixed, per_token, step_tokens: msgspec.structs.replace(
        READY, identifier_length=LENGTH, forward_seconds=fixed, token_seconds=per_token, step_tokens=step_tokens
    ),
    durations,
    durations,
    st.integers(1, 4096),
)
crowds = st.lists(st.tuples(durations, st.integers(1, 4096), st.booleans()), max_size=30)


@given(measured, speeds, speeds, crowds)
def test_an_idle_engine_takes_what_it_can_keep_and_requests_one_by_one_correct_what_is_believed(
    ready: Ready, fixed: float, per_token: float, crowd: list[tuple[float, int, bool]]
):
    engine, admission = SimulatedEngine(fixed, per_token), Admission(100)
    admission.open(ready)
    past = [StepRecord(StepReport((), tokens, seconds), 0.0, seconds, crowded) for seconds, tokens, crowded in crowd]
    admission.deliver(Progress([], [], past, running=0, waiting=0, used_slots=0))
    for number in range(ENOUGH):
        submit = request(str(number), engine, patience(engine, 1.01))
        pending = admission.admit(submit, engine.now, len(submit.history))
        admission.deliver(engine.make(pending.submit))
    # The engine has just begun one when the next asks.
    first = admission.admit(request("first", engine, 1e9), engine.now, 10)
    assert is_let_in(admission, request("next", engine, patience(engine, FACTOR)), engine.now)
    assert not is_let_in(admission, request("hasty", engine, patience(engine, 1 / FACTOR)), engine.now)
    admission.leave(first)
    assert admission.wait_seconds == 0


def test_a_measurement_that_was_slow_once_costs_no_request_under_the_default_timeout():
    # A forward that takes longer than the longest step makes a budget of one token.
    ready = msgspec.structs.replace(READY, identifier_length=LENGTH, forward_seconds=0.3, token_seconds=0.001, step_tokens=1)
    engine, admission = SimulatedEngine(0.004, 0.0002), Admission(100)
    admission.open(ready)
    for number in range(10):
        submit = request(str(number), engine, 1.0)
        admission.admit(submit, engine.now, 10)
        admission.deliver(engine.make(submit))


def test_a_step_in_which_the_machine_stood_still_is_forgotten_after_two_requests():
    engine, admission = SimulatedEngine(0.004, 0.0002), Admission(100)
    admission.open(READY)
    stood_still = StepRecord(StepReport((), 100, 60.0), 0.0, 60.0, crowded=True)
    admission.deliver(Progress([], [], [stood_still], running=0, waiting=0, used_slots=0))
    for number in range(2):
        admission.deliver(engine.make(request(str(number), engine, 1.0)))
    admission.enter(admission.admit(request("first", engine, 1.0), engine.now, 10))
    assert is_let_in(admission, request("second", engine, 0.5), engine.now)


@pytest.mark.parametrize(("most", "refusal"), [(1, QueueFull), (2, TooLate)])
def test_a_refusal_never_asks_for_more_patience_than_a_minute(most: int, refusal: type[Overloaded]):
    engine, admission = SimulatedEngine(1.0, 1.0), Admission(most)
    admission.open(msgspec.structs.replace(READY, forward_seconds=1e9, token_seconds=1e9))
    admission.admit(request("first", engine, 1.0), 0.0, 10)
    with pytest.raises(refusal) as refused:
        admission.admit(request("second", engine, 1.0), 0.0, 10)
    assert refused.value.retry_after_seconds == 60


def test_a_prompt_counts_with_its_own_tokens():
    """Whatever its history has; and before it is built, with as many beside those of its history as other prompts had."""
    rate = EngineRate(msgspec.structs.replace(READY, identifier_length=LENGTH))
    beams = 10 * (LENGTH - 1)
    unread = Submit("a", [], 10, 10, [], 9.0, 0.0)
    empty = msgspec.structs.replace(unread, prompt=bytes(TOKEN_BYTES * 500))
    built = msgspec.structs.replace(empty, history=[0])
    assert rate.work(built) == rate.work(empty) == 500 + beams
    assert rate.work(unread, 5) == 5 * LENGTH + 1 + beams
    for _ in range(200):
        rate.learn_list(FinishedList(BeamResult("a", (), Usage(500, target_forwards=LENGTH)), 0.0, 0.1), built)
    assert rate.work(unread, 5) == 500 + 4 * LENGTH + beams
    assert rate.queue_seconds(1.0) == EngineRate(READY).queue_seconds(1.0)


def test_lists_with_caps_are_foreseen_to_take_the_rounds_that_such_lists_took_lately():
    rate = EngineRate(msgspec.structs.replace(READY, identifier_length=LENGTH))
    plain = Submit("a", [], 10, 10, [], 9.0, 0.0, prompt=bytes(TOKEN_BYTES * 50))
    capped = msgspec.structs.replace(plain, diversity={"brand": 1})
    for rounds in (20, 1):
        usage = Usage(50, target_forwards=rounds * LENGTH, rounds=rounds)
        for _ in range(8):
            rate.learn_list(FinishedList(BeamResult("a", (), usage), 0.0, 0.1), capped)
        assert rate.work(capped) == 50 + rounds * 10 * (LENGTH - 1)
        assert rate.steps(capped, 0) == pytest.approx(rounds * LENGTH)
        # Of other lists nothing changes.
        assert rate.work(plain) == 50 + 10 * (LENGTH - 1)
        assert rate.steps(plain, 0) == pytest.approx(LENGTH)
        assert rate.queue_seconds(1.0) == EngineRate(READY).queue_seconds(1.0)


def test_rounds_of_narrow_lists_with_caps_are_not_foreseen_of_wide_ones():
    """Twenty rounds of ten prefixes, and one of a thousand, by turns; and lists of a size that was not seen yet are as the others."""
    rate = EngineRate(msgspec.structs.replace(READY, identifier_length=LENGTH))
    narrow = Submit("a", [], 10, 10, [], 9.0, 0.0, prompt=bytes(TOKEN_BYTES * 50), diversity={"brand": 1})
    wide, long = (msgspec.structs.replace(narrow, beam_width=1000, k=k) for k in (10, 1000))

    def learn(request: Submit, rounds: int) -> None:
        usage = Usage(50, target_forwards=rounds * LENGTH, rounds=rounds)
        rate.learn_list(FinishedList(BeamResult("a", (), usage), 0.0, 0.1), request)

    for _ in range(8):
        learn(narrow, 20)
        learn(wide, 1)
    assert rate.work(narrow) == 50 + 20 * 10 * (LENGTH - 1)
    assert rate.work(wide) == 50 + 1000 * (LENGTH - 1)
    assert (rate.steps(narrow, 0), rate.steps(wide, 0)) == pytest.approx((20 * LENGTH, LENGTH))
    assert rate.steps(long, 0) == pytest.approx((20 + 1) / 2 * LENGTH)
    # One odd list is not all that is known of its size.
    learn(long, 100)
    assert rate.steps(long, 0) == pytest.approx((10.5 + 100) / 2 * LENGTH)
