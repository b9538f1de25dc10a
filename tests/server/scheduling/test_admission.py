"""Who is let in: what would be late, or would make others late, is refused; and what the engine reports changes the forecast."""

import math
import random

import msgspec
import pytest

from server.messages import FinishedList, PlacesLimit, Progress, Ready, StepRecord
from server.scheduling.admission import Admission
from server.scheduling.forecast import CAUTION
from server.scheduling.kinds import SCORES_SHARE
from server.scheduling.order import AGEING_SECONDS
from server.scheduling.pending import PendingRequest
from server.submit import ScoreChoice, Submit
from server.try_again import EngineUnavailable, QueueFull, TooLate
from tests.server.fake_ready import READY
from verification.result import BeamResult, StepReport, Usage

# A token takes a millisecond in a full step, and nothing else takes any time: what a test expects can be worked out by head.
SIMPLE = msgspec.structs.replace(READY, identifier_length=4, forward_seconds=0.0, token_seconds=0.001)


def submit(name: str, seconds: float, *, items: int = 10, k: int = 10, now: float = 0.0) -> Submit:
    """A request of 4 * 10 + 3 * 10 + 1 = 71 tokens, but for a test that says otherwise."""
    return Submit(name, list(range(items)), k, k, [], now + seconds, now)


def opened(ready: Ready = SIMPLE, most: int = 10_000) -> Admission:
    admission = Admission(most)
    admission.open(ready)
    return admission


def stored(name: str, seconds: float) -> Submit:
    """A request for a stored user, whose history is not read yet."""
    return Submit(name, [], 10, 10, [], seconds, 0.0, user="u")


def progress_of(request: Submit) -> Progress:
    """The engine's word that a request is finished, at the cost that was foreseen."""
    usage = Usage(len(request.history) * 4 + 1, target_forwards=4)
    return Progress([FinishedList(BeamResult(request.request_id, (), usage), 0.0, 0.1)], [], [], running=0, waiting=0, used_slots=0)


def let_in(admission: Admission, request: Submit, now: float = 0.0) -> bool:
    try:
        admission.admit(request, now, len(request.history))
    except TooLate:
        return False
    return True


def enter(admission: Admission, request: Submit) -> PendingRequest:
    """Without asking."""
    pending = PendingRequest(request, admission.forecast.rate.work(request))
    admission.enter(pending)
    return pending


def steps(*, tokens: int, seconds: float, crowded: bool, count: int = 100) -> Progress:
    step = StepRecord(StepReport((), tokens=tokens, seconds=seconds), ended=0.0, elapsed_seconds=seconds, crowded=crowded)
    return Progress([], [], [step] * count, running=1, waiting=0, used_slots=0)


def test_an_idle_engine_tries_whatever_it_is_foreseen_to_take():
    assert let_in(opened(), submit("in time", 0.072))
    assert let_in(opened(), submit("too soon, as far as is known", 0.001))
    with pytest.raises(TooLate, match=r"but its timeout has already passed"):
        opened().admit(submit("past", -0.001), 0.0, 10)


def test_the_queue_ahead_counts_with_caution():
    admission = opened()
    for number in range(9):
        assert let_in(admission, submit(str(number), 10.0))
    assert admission.wait_seconds == pytest.approx(9 * 0.071)
    assert not let_in(admission, submit("late", 10.0, items=100_000))
    assert let_in(admission, submit("last", 10 * 0.071 * CAUTION + 10))


def test_a_refusal_says_why_and_when_to_come_back():
    admission = opened()
    for number in range(100):
        enter(admission, submit(str(number), 1.0))
    sentence = r"^The list would be ready in about 10040 ms, but only 3000 ms are left until its timeout; so it was not begun\.$"
    with pytest.raises(TooLate, match=sentence) as refusal:
        admission.admit(submit("late", 3.0), 0.0, 10)
    assert refusal.value.retry_after_seconds == 8
    with pytest.raises(TooLate, match=r"but its timeout has already passed"):
        admission.admit(submit("past", -1.0), 0.0, 10)


def test_an_urgent_request_passes_those_that_have_time_but_not_at_their_cost():
    admission = opened()
    for number in range(10):
        assert let_in(admission, submit(str(number), 1.1))
    assert let_in(admission, submit("urgent", 0.2))
    with pytest.raises(TooLate, match=r"^The list would make others late that the server has already taken on; so"):
        admission.admit(submit("urgent, and one too many", 0.3), 0.0, 10)


def test_one_that_is_late_anyway_does_not_keep_others_out():
    admission = opened()
    enter(admission, submit("hopeless", 0.05, items=100))
    assert let_in(admission, submit("urgent", 0.045, items=1, k=1))


def test_an_endless_deadline_ages():
    admission = opened()
    assert let_in(admission, submit("patient", math.inf, items=1000, k=1))
    assert not let_in(admission, submit("behind the patient one", AGEING_SECONDS + 0.5))
    assert let_in(admission, submit("before it", 1.0))


def test_what_has_left_is_forgotten():
    admission = opened()
    entered = [enter(admission, submit(str(number), random.Random(number).uniform(1, 9))) for number in range(50)]
    for number in [*range(50), 7]:
        admission.leave(entered[number])
    assert admission.wait_seconds == 0
    assert let_in(admission, submit("alone", 0.072))


def test_a_crowded_engine_tells_how_fast_it_is_and_a_half_empty_one_only_if_it_is_faster():
    admission = opened()
    enter(admission, submit("a", 9.0))
    first = admission.wait_seconds
    admission.deliver(steps(tokens=10, seconds=0.1, crowded=False))
    assert admission.wait_seconds == first
    admission.deliver(steps(tokens=100, seconds=0.3, crowded=True))
    assert admission.wait_seconds == pytest.approx(3 * first, rel=0.01)
    admission.deliver(steps(tokens=100, seconds=0.05, crowded=False))
    assert admission.wait_seconds == pytest.approx(first / 2, rel=0.5)


def test_an_engine_that_was_slow_while_full_is_found_to_be_fast_again_by_half_empty_steps():
    ready = msgspec.structs.replace(READY, identifier_length=4, forward_seconds=0.01, token_seconds=0.001, step_tokens=100)
    admission = opened(ready)
    enter(admission, submit("a", 9.0))
    first = admission.wait_seconds
    admission.deliver(steps(tokens=100, seconds=0.55, crowded=True))
    assert admission.wait_seconds == pytest.approx(5 * first, rel=0.01)
    half_empty = 0.01 + 10 * 0.001
    admission.deliver(steps(tokens=10, seconds=2 * half_empty, crowded=False, count=1000))
    assert admission.wait_seconds == pytest.approx(2 * first, rel=0.01)
    admission.deliver(steps(tokens=10, seconds=4 * half_empty, crowded=False, count=1000))
    assert admission.wait_seconds == pytest.approx(2 * first, rel=0.01)
    # Faster than the curve by its fixed part is what a machine with free tokens always is when it is half empty.
    admission.deliver(steps(tokens=10, seconds=0.8 * half_empty, crowded=False, count=1000))
    assert admission.wait_seconds == pytest.approx(first, rel=0.01)


def test_prompts_that_need_no_computing_make_the_queue_shorter():
    admission = opened()
    enter(admission, submit("stays", 9.0))
    first = admission.wait_seconds
    for number in range(200):
        request = submit(str(number), 9.0)
        enter(admission, request)
        done = FinishedList(BeamResult(request.request_id, (), Usage(41, 38, 4)), 0.0, 0.1)
        admission.deliver(Progress([done], [], [], running=1, waiting=0, used_slots=0))
    assert admission.wait_seconds == pytest.approx(first * 33 / 71, rel=0.01)


def test_steps_that_have_become_long_do_not_keep_an_idle_engine_from_trying():
    admission = opened()
    admission.deliver(steps(tokens=1000, seconds=1.0, crowded=True))
    assert let_in(admission, submit("first", 0.1))
    assert not let_in(admission, submit("second", 3.0))
    assert let_in(admission, submit("patient", 6.0))


async def test_a_request_counts_for_others_like_it_while_its_history_is_read_and_is_not_asked_again():
    admission = opened()
    reading = admission.admit(stored("reading", 0.06), 0.0)
    # Nothing is known of stored histories yet: the most that the model reads, and that there are more, is 6 items.
    assert reading.work == 4 * 6 + 3 * 10 + 1
    assert admission.wait_seconds == 0
    with pytest.raises(TooLate):
        admission.admit(stored("behind it", 0.1), 0.0)
    assert admission.admit(stored("has time", 0.14), 0.0).work == reading.work
    reading.submit.history = list(range(10))
    result = admission.hand_over(reading)
    assert admission.wait_seconds == pytest.approx(0.071)
    admission.deliver(progress_of(reading.submit))
    assert result.done()
    assert admission.wait_seconds == 0
    admission.leave(reading)


def test_histories_that_are_slow_to_read_keep_no_idle_engine_from_requests_that_bring_theirs():
    admission = opened(most=100)
    # Steps were long in the crowd before; now the store hangs, and the engine has nothing to do.
    admission.deliver(steps(tokens=1000, seconds=1.0, crowded=True))
    admission.deliver(steps(tokens=1000, seconds=1.0, crowded=False))
    for number in range(100):
        admission.enter(PendingRequest(stored(str(number), 9.0), 55, unread=True))
    with pytest.raises(QueueFull):
        admission.admit(stored("one more", 9.0), 0.0)
    assert let_in(admission, submit("inline", 0.1))


async def test_unread_histories_are_foreseen_to_be_as_long_as_others_were():
    admission = opened()
    for number in range(200):
        request = admission.admit(stored(str(number), 9.0), 0.0)
        request.submit.history = list(range(10))
        admission.hand_over(request)
        admission.deliver(progress_of(request.submit))
    assert admission.admit(stored("next", 9.0), 0.0).work == 71


async def test_a_request_whose_engine_is_gone_before_its_history_is_read_is_told_so():
    admission = opened()
    reading, waiting = (admission.admit(stored(name, 9.0), 0.0) for name in ("reading", "waiting"))
    result = admission.hand_over(waiting)
    admission.abandon("The engine is gone.", 3)
    with pytest.raises(EngineUnavailable, match="is gone"):
        await result
    with pytest.raises(EngineUnavailable, match="is gone"):
        admission.hand_over(reading)
    assert admission.wait_seconds == 0


def thinking(name: str, seconds: float, most: int) -> Submit:
    return msgspec.structs.replace(submit(name, seconds), think=most)


def test_a_text_before_a_list_takes_a_forward_for_each_token():
    """A step of 10 ms and 71 tokens of 1 ms for a list; 200 more of both for a text of 200."""
    admission = opened(msgspec.structs.replace(SIMPLE, forward_seconds=0.01, step_tokens=1_000_000))
    enter(admission, submit("running", 60.0))
    own, step = 0.071, 0.01
    assert let_in(admission, submit("list", step + 4 * step + own + 0.001 + CAUTION * own))
    assert not let_in(admission, thinking("too soon", step + 203 * step + own + 0.2, 200))
    assert let_in(admission, thinking("in time", step + 204 * step + CAUTION * (4 * own + 0.2), 200))
    assert admission.wait_seconds == pytest.approx(3 * own + 0.2, rel=0.01)


def test_texts_that_end_early_are_foreseen_to():
    admission = opened()
    most = 1000
    assert admission.forecast.rate.text_tokens(thinking("first", 1.0, most)) == most
    for number in range(100):
        request = thinking("short", 1.0, most)
        # The first few count for more than what was believed before any.
        assert number < 4 or admission.forecast.rate.text_tokens(request) < 0.3 * most
        usage = Usage(41, target_forwards=104, thought_tokens=100)
        admission.forecast.rate.learn_list(FinishedList(BeamResult("short", (), usage), 0.0, 0.1), request)
    assert admission.forecast.rate.text_tokens(request) == pytest.approx(100, rel=0.1)
    # What a list itself takes is as it was.
    assert admission.forecast.rate.alone_seconds(request, 0, 0) == 0
    assert admission.forecast.rate._round_forwards == pytest.approx(4)
    assert admission.forecast.rate._tokens_per_work == pytest.approx(1, rel=0.25)
    assert admission.forecast.rate.work(submit("plain", 1.0)) == 71


def test_a_list_without_a_text_does_not_wait_for_texts_and_a_text_does():
    """Texts are written beside the lists of others."""
    admission = opened()
    for number in range(5):
        enter_thinking(admission, thinking(str(number), 60.0, 1000))
    assert admission.wait_seconds == pytest.approx(5 * 1.071)
    assert let_in(admission, submit("list", 6 * 0.071 * CAUTION + 0.001, now=0.0))
    assert not let_in(admission, thinking("text", 4 * 1.071 * CAUTION, 1000))


def test_the_wait_for_a_place_to_think_is_expected_too():
    """Two places, and texts of 200 tokens: of five, the last begins when two have ended one after the other, in steps of 100 ms."""
    limit = PlacesLimit(2, 10_000)
    ready = msgspec.structs.replace(SIMPLE, forward_seconds=0.1, step_tokens=1_000_000, places=limit)
    admission, waits = opened(ready), []
    enter(admission, submit("list", 60.0))
    for number in range(5):
        enter_thinking(admission, thinking(str(number), 60.0, 200))
        waits.append(admission.wait_seconds)
    work = [0.071 + count * 0.271 for count in (1, 2)]
    assert waits == pytest.approx([*work, 20.4, 20.4, 40.8], rel=0.01)
    # Two of them think, and are through with half of their texts.
    for request in admission._queue[1:3]:
        request.has_place, request.text = True, 100
    assert admission.wait_seconds == pytest.approx(10.4 + 20.4, rel=0.01)


def test_a_list_that_would_make_a_text_late_is_refused():
    admission = opened()
    enter_thinking(admission, thinking("text", 1.071 * CAUTION + 0.01, 1000))
    with pytest.raises(TooLate, match="make others late"):
        admission.admit(submit("urgent", 0.3), 0.0, 10)


def enter_thinking(admission: Admission, request: Submit) -> None:
    admission.enter(PendingRequest(request, admission.forecast.rate.work(request), admission.forecast.rate.text_tokens(request)))


def scores(name: str, seconds: float, prefixes: int) -> Submit:
    """A request of 71 - 30 tokens and so many candidates' prefixes."""
    return msgspec.structs.replace(submit(name, seconds, k=1), scored=ScoreChoice(b"", prefixes))


def test_scores_are_foreseen_to_take_their_candidates():
    admission = opened()
    enter(admission, submit("list", 9.0))
    # 71 of the list, 41 of its own prompt and the candidates.
    assert not let_in(admission, scores("too many", 1.0, 700))
    assert let_in(admission, scores("as many as fit", 1.0, 500))
    assert admission.wait_seconds == pytest.approx(0.071 + 0.041 + 0.5)


def test_lists_don_t_wait_for_candidates_but_for_their_part_of_each_step():
    """Ten seconds of candidates, and a list of 71 tokens beside them takes a third longer than alone, whoever is due first."""
    for seconds in (1.0, 60.0):
        admission = opened()
        admission.enter(foreseen(admission, scores("scores", seconds, 10_000)))
        beside = 71 + 71 // (SCORES_SHARE - 1)
        assert not let_in(admission, submit("too soon", CAUTION * 0.001 * beside - 0.001))
        assert let_in(admission, submit("in time", CAUTION * 0.001 * beside + 0.001))


def test_a_list_that_would_make_scores_late_is_refused():
    """They have what lists leave, so those that stand in front of it in the queue are later, too."""
    admission = opened()
    assert let_in(admission, scores("scores", 1.0, 600))
    assert let_in(admission, submit("first", 5.0, k=10))
    assert not let_in(admission, submit("second", 5.0, k=10))


def test_scores_of_few_items_are_foreseen_as_a_list_beside_those_of_many():
    """Four times twenty seconds of candidates: a small request has its prompt and its candidates behind a third of these at most."""
    admission = opened()
    for number in range(4):
        admission.enter(foreseen(admission, scores(f"large {number}", 60.0, 20_000)))
    work = 41 + 10
    beside = CAUTION * 0.001 * (work + work // (SCORES_SHARE - 1))
    assert not let_in(admission, scores("too soon", beside - 0.001, 10))
    assert let_in(admission, scores("in time", beside + 0.001, 10))
    assert not let_in(admission, scores("large", 1.0, 500))


def test_what_was_computed_for_few_items_is_not_taken_for_that_of_many():
    admission = opened()
    large, small = foreseen(admission, scores("large", 60.0, 1000)), foreseen(admission, scores("small", 60.0, 10))
    for request in (large, small):
        admission.enter(request)
    step = StepRecord(StepReport((), tokens=51, seconds=0.1, scored_nodes=210), ended=0.0, elapsed_seconds=0.1)
    ended = FinishedList(BeamResult("small", (), Usage(41, target_forwards=1, candidates=3), scores=b""), 0.0, 0.1)
    admission.deliver(Progress([ended], [], [step], running=1, waiting=0, used_slots=0))
    assert (large.scored, small.scored) == (800, 0)


def test_scores_that_would_make_a_list_late_are_refused():
    admission = opened()
    assert let_in(admission, submit("list", CAUTION * 0.071 + 0.005))
    assert not let_in(admission, scores("scores", 60.0, 10_000))
    assert let_in(admission, scores("few", 60.0, 1))


def test_what_scores_cost_is_learned_as_what_lists_cost():
    """Half of the tokens are found in the cache; how many forwards lists take is not learned from scores."""
    admission = opened()
    request = scores("scores", 9.0, 59)
    for _ in range(200):
        usage = Usage(41, cached_tokens=41, target_forwards=100, candidates=70)
        admission.forecast.rate.learn_list(FinishedList(BeamResult("scores", (), usage, scores=b""), 0.0, 0.1), request)
    assert admission.forecast.rate.queue_seconds(100) == pytest.approx(0.059, rel=0.01)
    assert admission.forecast.rate.steps(request, 0) == 4


def test_candidates_that_are_scored_are_foreseen_no_more():
    """Else a list would be refused for the sake of scores that are nearly done."""
    admission = opened()
    request = foreseen(admission, scores("scores", 5.0, 3000))
    admission.enter(request)
    admission.enter(foreseen(admission, scores("next", 9.0, 400)))
    step = StepRecord(StepReport((), tokens=700, seconds=0.7, scored_nodes=700), ended=0.0, elapsed_seconds=0.7)
    before = admission.wait_seconds
    admission.deliver(Progress([], [], [step] * 4, running=2, waiting=0, used_slots=0))
    assert request.scored == 200
    assert admission.wait_seconds == pytest.approx(before - 2.8)
    admission.deliver(Progress([], [], [step], running=2, waiting=0, used_slots=0))
    assert [each.scored for each in admission._queue] == [1, 1]


def foreseen(admission: Admission, request: Submit) -> PendingRequest:
    pending = PendingRequest(request, 0)
    admission.forecast.foresee(pending)
    return pending


def capped(name: str, seconds: float) -> Submit:
    return msgspec.structs.replace(submit(name, seconds), diversity={"brand": 1})


def test_scores_behind_lists_with_caps_are_refused_if_these_would_be_late():
    """One place, two lists of four steps of 20 ms: the second waits for the first, in time alone, but not beside scores."""
    step, work = 0.02, 2 * 0.071
    ready = msgspec.structs.replace(SIMPLE, forward_seconds=step, step_tokens=100_000, places=PlacesLimit(1, 10_000))
    alone, beside = (step + CAUTION * share * work for share in (1, SCORES_SHARE / (SCORES_SHARE - 1)))
    assert step + CAUTION * 4 * step + 4 * step < alone
    for deadline, is_let_in in ((beside - 0.02, False), (beside + 0.02, True)):
        admission = opened(ready)
        enter(admission, capped("first", 0.2))
        enter(admission, capped("second", deadline))
        assert let_in(admission, scores("scores", 60.0, 10_000)) is is_let_in
