"""Whom one more request would make late: the same by sums that run along the queue as by the work before each entry, counted anew."""

import random
from collections.abc import Sequence

import msgspec
import pytest

from server.messages import PlacesLimit
from server.scheduling import forecast, shares
from server.scheduling.admission import Admission
from server.scheduling.forecast import Forecast, Insertion
from server.scheduling.pending import PendingRequest
from server.scheduling.shares import Shares
from server.submit import ScoreChoice, Submit
from tests.server.fake_ready import READY

STEP_TOKENS = 600
WIDE, NARROW = 400, 10


def made_late(of: Forecast, request: PendingRequest, queue: Sequence[PendingRequest], now: float) -> float:
    """`Insertion.late_seconds`, entry by entry."""
    first_behind = sum(other.due <= request.due for other in queue)
    scored = sum(other.scored for other in queue)
    by_kind = of.has_places((request, *queue))
    places, places_with_it = (of.places(queue) if by_kind else {} for _ in range(2))
    everything = Shares.of([*queue, request])
    for place, other in enumerate(queue):
        if by_kind and place == first_behind:
            of.wait_steps(places_with_it, request)
        waits = [of.wait_steps(each, other) if by_kind else 0.0 for each in (places, places_with_it)]
        is_behind = place >= first_behind
        before = list(queue[:place])
        if other.scored:
            tokens = [everything.all - request.work - request.scored, everything.all]
        else:
            with_it = [*before, request] if is_behind else before
            tokens = [
                Shares.of(before).beside(scored).until(other) + other.text,
                Shares.of(with_it).beside(scored + request.scored).until(other) + other.text + (request.text if other.text else 0),
            ]
        if not (is_behind or other.scored or (request.scored and not other.text)):
            continue
        without, after = (of.queued_seconds(until, wait, other) for until, wait in zip(tokens, waits, strict=True))
        if now + without <= other.submit.deadline < now + after:
            return after
    return 0.0


def drawn(rng: random.Random, of: Forecast, name: str, kinds: Sequence[str]) -> PendingRequest:
    kind, items = rng.choice(kinds), rng.randrange(1, 20)
    width, deadline = WIDE if kind == "wide" else NARROW, rng.choice([*(rng.uniform(1, 3) for _ in range(9)), 60.0])
    submit = Submit(name, list(range(items)), 1, width, [], deadline, rng.random())
    if kind == "scores":
        submit = msgspec.structs.replace(submit, beam_width=1, scored=ScoreChoice(b"", rng.choice([5, 500, 3000])))
    elif kind == "text":
        submit = msgspec.structs.replace(submit, think=rng.randrange(1, 40))
    elif kind == "capped":
        submit = msgspec.structs.replace(submit, diversity={"brand": 1})
    request = PendingRequest(submit, 0)
    of.foresee(request)
    return request


@pytest.mark.parametrize("kinds", [("narrow",), ("narrow", "wide", "scores"), ("narrow", "narrow", "wide", "scores", "text", "capped")])
@pytest.mark.parametrize("places", [0, 2])
def test_whom_a_request_makes_late_is_what_each_entry_comes_to(kinds: Sequence[str], places: int) -> None:
    limit = PlacesLimit(places, 1000)
    ready = msgspec.structs.replace(READY, forward_seconds=0.004, token_seconds=0.001, step_tokens=STEP_TOKENS, places=limit)
    rng, late = random.Random(places), 0
    for _ in range(150):
        of = Forecast(ready)
        queue = sorted((drawn(rng, of, str(number), kinds) for number in range(rng.randrange(10, 30))), key=lambda each: each.due)
        request, now = drawn(rng, of, "one more", kinds), rng.random()
        expected = made_late(of, request, queue, now)
        assert Insertion(of, request, queue).late_seconds(now) == expected
        late += expected > 0
    assert 10 < late < 140, "some are late, and some are not"


def test_a_long_queue_of_mixed_deadlines_is_summed_up_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    admission, made = Admission(1000), []

    class Counted(Shares):
        def __init__(self, *tokens: int) -> None:
            made.append(tokens)
            super().__init__(*tokens)

    for module in (forecast, shares):
        monkeypatch.setattr(module, "Shares", Counted)
    admission.open(READY)
    for number in range(500):
        request = PendingRequest(Submit(str(number), [1], 10, 10, [], 1.0 if number == 250 else 600.0, 0.0), 0)
        admission.forecast.foresee(request)
        admission.enter(request)
    admission.admit(Submit("one more", [1], 10, 10, [], 500.0, 0.0), 0.0, 1)
    assert len(made) < 10
