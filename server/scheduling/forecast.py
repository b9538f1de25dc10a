"""Forecasts: when what is asked of the engine will be ready, by its speed and by what it has taken on.

Invariant: what is foreseen follows the rules by which the engine process works: its order, its kinds of requests, and what each has of a
step (`order`, `kinds`, `wide` and `places` in this room). It is allowed to be off by `CAUTION`, always to the disadvantage of the one who
asks, because a refusal at once is worth more to a client than a list that is late.
"""

from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter

from server.messages import Ready
from server.scheduling.kinds import Kind, is_scored_at_once
from server.scheduling.pending import PendingRequest
from server.scheduling.places import PlacesForecast
from server.scheduling.rate import EngineRate
from server.scheduling.shares import Shares, lists_until
from server.scheduling.wide import is_wide, level_nodes

# Queues drain in steps, users' histories differ, and machines are now faster, now slower: what is predicted must fit with this to spare. It
# costs no throughput as long as a queue remains.
CAUTION = 1.4
# By kind of requests, for the kinds that have a limit of places.
Places = dict[Kind, PlacesForecast]


class Forecast:
    """Forecasts for one engine process; seconds count from now.

    Attributes:
        rate: speed of the engine, as it is known so far.
    """

    def __init__(self, ready: Ready) -> None:
        """`ready` is what the engine has said of itself."""
        self.rate = EngineRate(ready)
        self._limit, self._end_tokens, self._step_tokens = ready.places, ready.end_tokens, ready.step_tokens

    def foresee(self, request: PendingRequest, items: int | None = None) -> None:
        """Work out what a request will need, with a history of so many items where that is not in it yet."""
        submit = request.submit
        request.work, request.text = self.rate.work(submit, items), self.rate.text_tokens(submit)
        request.is_wide = is_wide(level_nodes(submit.beam_width, has_reserved=submit.fresh is not None), self._step_tokens)
        request.scored = self.rate.scored_tokens(submit)
        if is_scored_at_once(request.scored, self._step_tokens):
            # It waits for no other candidates, as a list of so many tokens would not.
            request.work, request.scored = request.work + request.scored, 0
        request.slots = self.rate.prompt_tokens(submit, items) + submit.think + self._end_tokens if submit.think else 0

    def wait_seconds(self, queue: Sequence[PendingRequest]) -> float:
        """Seconds until the engine has finished a queue, or, if that is later, until the last that needs a place has it."""
        work = self.rate.queue_seconds(sum(request.work + request.text + request.scored for request in queue))
        placed = [request for request in queue if request.kind]
        places = self.places(placed)
        for request in placed:
            self.wait_steps(places, request)
        began = max(of_kind.began for of_kind in places.values())
        return max(work, began * self.rate.step_seconds)

    def has_places(self, requests: Sequence[PendingRequest]) -> bool:
        """Whether any of the requests may have to wait for a place of its kind."""
        return not self._limit.requests or any(request.kind for request in requests)

    def places(self, queue: Sequence[PendingRequest]) -> Places:
        """The places of each kind, as far as requests of a queue have them already."""
        places = {kind: PlacesForecast(self._limit) for kind in (Kind.TEXT, Kind.CAPPED)}
        for other in queue:
            if other.has_place:
                self._take_place(places, other)
        return places

    def wait_steps(self, places: Places, request: PendingRequest) -> float:
        """The steps until a request gets a place of its kind, which it takes; 0 for one that needs none, or has it."""
        # Where only one request runs at a time, a list waits for those of each kind, too.
        needs_none = request.has_place if request.kind else self._limit.requests
        return 0.0 if needs_none else self._take_place(places, request)

    def _take_place(self, places: Places, request: PendingRequest) -> float:
        """Give a request the next place of its kind; return the steps until it has it."""
        kind = request.kind if self._limit.requests else Kind.TEXT
        assert kind is not None
        return places[kind].take(self.rate.steps(request.submit, request.text) if request.kind else 0.0, request.slots)

    def new_seconds(self, ahead: int, wait: float, request: PendingRequest, is_idle: bool) -> float:
        """Seconds until the list of a request that is not in the queue yet will be ready.

        Args:
            ahead: tokens that the engine works off before those of the request, or beside them.
            wait: steps until the request gets a place of its kind.
            is_idle: True if the engine has nothing to do yet, though others are in the queue.
        """
        own, text = request.work + request.text + request.scored, request.text
        alone = self.rate.alone_seconds(request.submit, own, text)
        if is_idle:
            # Others' histories are being read, and the engine has nothing to do: what the steps of a crowd took says nothing here.
            return alone + CAUTION * (self.rate.queue_seconds(ahead) + wait * self.rate.idle_step_seconds)
        step = self.rate.step_seconds
        own_steps = max(alone, self.rate.shared_seconds(request.submit, text))
        return max(self.drain_seconds(ahead + own), step + CAUTION * wait * step + own_steps)

    def queued_seconds(self, until: int, wait: float, other: PendingRequest) -> float:
        """Seconds until the list of a request in the queue will be ready.

        Args:
            until: tokens that the engine works off until then, those of the request included.
            wait: steps until the request gets a place of its kind.
        """
        if not (wait or other.kind):
            return self.drain_seconds(until)
        step = self.rate.step_seconds
        return max(self.drain_seconds(until), step + CAUTION * wait * step + self.rate.shared_seconds(other.submit, other.text))

    def drain_seconds(self, work: int) -> float:
        """Seconds until `work` tokens are worked off, behind the step that runs now."""
        return self.rate.step_seconds + CAUTION * self.rate.queue_seconds(work)


class Insertion:
    """One more request in the queue: when it would be ready, and whom it would make late."""

    def __init__(self, forecast: Forecast, request: PendingRequest, queue: Sequence[PendingRequest]) -> None:
        """`queue` is in the order in which it is taken up."""
        self._forecast, self._request, self._queue = forecast, request, queue
        self._first_behind = bisect_right(queue, request.due, key=attrgetter("due"))
        self._work = Shares.of(queue)
        self._by_kind = forecast.has_places((request, *queue))
        self._places = forecast.places(queue) if self._by_kind else {}
        # Those that go first wait equally long with the request and without it, so each takes its place once, for both.
        first = queue[: self._first_behind] if self._by_kind else ()
        self._waits_ahead = [forecast.wait_steps(self._places, other) for other in first]
        # The places once those that go first have theirs: `_places` without the request, these with it.
        self._places_with_it = {kind: taken.copy() for kind, taken in self._places.items()}
        self._wait = forecast.wait_steps(self._places_with_it, request)

    @property
    def ready_seconds(self) -> float:
        """Seconds until what the request asks for is ready, behind all that goes first; 0 if there is nothing else."""
        request, queue, ahead = self._request, self._queue, self._work
        if not queue:
            return 0.0
        if not request.scored and self._first_behind < len(queue):
            ahead = Shares.of(queue[: self._first_behind]).beside(self._work.scored)
        before_it = ahead.until(request) - request.work - request.scored
        texts = sum(other.text for other in queue[: self._first_behind]) if request.text else 0
        return self._forecast.new_seconds(before_it + texts, self._wait, request, all(other.unread for other in queue))

    def late_seconds(self, now: float) -> float:
        """Seconds until a queued list is ready that the request makes late, though it would be in time without it; 0 if there is none."""
        request, whole = self._request, self._work
        scored, scored_with_it = whole.scored, whole.scored + request.scored
        all_with_it = whole.all + request.work + request.scored
        all_ready = now + self._forecast.drain_seconds(all_with_it)
        if not self._by_kind and all(other.submit.deadline >= all_ready for other in self._queue):
            # In most queues nobody waits for a place, and then all lists are ready by then, whatever their order is.
            return 0.0
        # Tokens of narrow lists and of wide ones up to each entry of the queue, its own included, without the request and with it.
        lanes, lanes_with_it = [0, 0], [0, 0]
        for place, other in enumerate(self._queue):
            is_behind = place >= self._first_behind
            if place == self._first_behind:
                lanes_with_it[request.is_wide] += request.work
            lanes[other.is_wide] += other.work
            lanes_with_it[other.is_wide] += other.work
            # Scores are later because of every list, and lists because of scores, wherever they stand in the queue.
            if not (is_behind or other.scored or (request.scored and not other.text)):
                continue
            wait, wait_with_it = self._waits(place)
            deadline = other.submit.deadline
            if deadline >= all_ready and not (wait_with_it or other.kind):
                continue
            if other.scored:
                until, until_with_it = whole.all, all_with_it
            else:
                own, others = other.is_wide, not other.is_wide
                until = lists_until(lanes[own], lanes[others], scored) + other.text
                until_with_it = lists_until(lanes_with_it[own], lanes_with_it[others], scored_with_it) + other.text
                if other.text:
                    until_with_it += request.text
            seconds_with_it = self._forecast.queued_seconds(until_with_it, wait_with_it, other)
            if now + self._forecast.queued_seconds(until, wait, other) <= deadline < now + seconds_with_it:
                return seconds_with_it
        return 0.0

    def _waits(self, place: int) -> tuple[float, float]:
        """Steps until another gets its place, without the request and with it; those behind are asked for once each, in their order."""
        if not self._by_kind:
            return 0.0, 0.0
        if place < self._first_behind:
            return self._waits_ahead[place], self._waits_ahead[place]
        other = self._queue[place]
        return self._forecast.wait_steps(self._places, other), self._forecast.wait_steps(self._places_with_it, other)
