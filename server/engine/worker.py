"""The engine process at work: serves one step after the other until it is told to stop or its parent is gone.

Invariant: a request that can't be built is answered with a sentence and touches no other; a step that fails ends the process, because the
contents of the KV slots are unknown after it, and the parent starts a clean one.
"""

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from drafting.beam.rule import SearchRule
from server.engine.catalogs import EngineCatalogs
from server.engine.channel import Channel
from server.engine.filters import EngineFilters
from server.engine_settings import EngineOptions
from server.messages import (
    Alive,
    Cancel,
    DropCatalog,
    DropFilter,
    FailedList,
    FinishedList,
    ForgetUser,
    FromEngine,
    LoadCatalog,
    PlacesLimit,
    Progress,
    PutFilter,
    Shutdown,
    StepRecord,
    ToEngine,
)
from server.scheduling.budget import StepBudget
from server.scheduling.scheduler import IDLE, ScheduledStep, SpeculativeBeamScheduler
from server.submit import Submit
from verification.blend import Blend
from verification.request import BeamRequest, PromptTokens, ReservedPlaces
from verification.scored import Scored

if TYPE_CHECKING:
    from verification.recommender import Recommender

logger = logging.getLogger(__name__)

IDLE_POLL_MS = 450
LOADING_POLL_MS = 5
REPORT_SECONDS = 0.1
BEAT_SECONDS = 0.5
# Items in the lists of one message: each takes 36 bytes at most, and the parent reads messages of up to 64 MiB. A list may have more items
# than its k, as an identifier may have any number of them.
MOST_ITEMS = 1_000_000


class EngineWorker:
    """The step loop: takes messages from the parent without waiting while something runs, and waits for them when idle."""

    def __init__(self, channel: Channel, source: "Recommender", options: EngineOptions) -> None:
        self._channel = channel
        self._catalogs = EngineCatalogs(options.catalog_handle, source)
        self.budget = StepBudget(options.max_tokens_per_step, options.max_step_ms / 1000, source.target_cost)
        self._scheduler = SpeculativeBeamScheduler(self._catalogs, self.budget, max_running=options.max_running)
        self._decoder = msgspec.msgpack.Decoder(ToEngine)
        self._encoder = msgspec.msgpack.Encoder()
        self._parent = options.parent or os.getppid()
        self._draining = False
        self._stopped = False
        self._has_warned = False
        self._failed: list[FailedList] = []
        # Requests with caps on attributes whose values are not yet known.
        self._held: list[Submit] = []
        self._steps: list[StepRecord] = []
        self._reported = self._stepped = time.monotonic()

    @property
    def places_limit(self) -> PlacesLimit:
        """How many requests may think together."""
        return self._scheduler.places_limit

    def send(self, message: FromEngine) -> None:
        """Send a message to the parent."""
        self._channel.send(self._encoder.encode(message))

    def close(self) -> None:
        """Free the models."""
        self._catalogs.close()

    def drain(self) -> None:
        """End the loop as soon as nothing waits and nothing runs."""
        self._draining = True

    def run(self) -> None:
        """Serve until a shutdown message, until drained, or until the parent is gone."""
        while True:
            idle = not self._scheduler.busy
            cancelled = self._receive()
            if self._stopped:
                return
            for told in self._catalogs.take_loaded():
                self.send(told)
            held, self._held = self._held, []
            for message in held:
                self._submit(message)
            if idle:
                self._stepped = time.monotonic()
            if self._scheduler.busy or self._failed or cancelled:
                self._report(self._scheduler.step())
            elif self._draining and not self._catalogs.loading and not self._held:
                return
            else:
                self._beat()

    def _beat(self) -> None:
        """Show that the loop runs while there is nothing to report."""
        if (now := time.monotonic()) - self._reported > BEAT_SECONDS:
            self.send(Alive("waiting for requests"))
            self._reported = now

    def _receive(self) -> bool:
        """Do what all messages say that are there; true if a request was cancelled."""
        cancelled = False
        for frame in self._frames():
            if self._stopped:
                break
            cancelled |= self._take(self._decoder.decode(frame))
        return cancelled

    def _frames(self) -> list[bytes]:
        """All messages that are there, waiting for one only if there is nothing else to do; without a parent the loop is to end."""
        busy = self._scheduler.busy
        try:
            frames = self._channel.receive(0 if busy else LOADING_POLL_MS if self._catalogs.loading else IDLE_POLL_MS)
        except EOFError:
            self._stopped = True
            return []
        if not frames and not busy:
            # The kernel's death signal is the fast way; this one also works where there is none.
            self._stopped |= os.getppid() != self._parent
        return frames

    def _take(self, message: ToEngine) -> bool:
        """Do what one message says; true if it has cancelled a request."""
        match message:
            case Submit():
                self._submit(message)
            case Cancel(request_id):
                self._held = [held for held in self._held if held.request_id != request_id]
                return self._scheduler.cancel(request_id)
            case ForgetUser(user):
                for held in self._held:
                    held.user = None if held.user == user else held.user
                self._scheduler.forget(user)
            case Shutdown():
                self._stopped = True
            case PutFilter(catalog, name, bits):
                self._catalogs.put_filter(catalog, name, bits)
            case DropFilter(catalog, name):
                self._catalogs.drop_filter(catalog, name)
            case LoadCatalog(handle, path):
                self._catalogs.load(handle, path)
            case DropCatalog(handle):
                self._catalogs.drop(handle)
        return False

    def _submit(self, message: Submit) -> None:
        if message.diversity and not self._catalogs.has_values(message.catalog, message.diversity):
            self._held.append(message)
            return
        try:
            self._scheduler.submit(self._request(message), message.deadline, message.submitted)
        except ValueError as error:
            self._failed.append(FailedList(message.request_id, str(error)))

    def _request(self, message: Submit) -> BeamRequest:
        """What the engine is asked; raises ValueError with a sentence where it can't be."""
        catalog = self._catalogs.get(message.catalog)
        if message.scored is not None:
            items = np.frombuffer(message.scored.items, np.int32).astype(np.int64)
            scored = Scored.of(catalog.source.engine.trie, items)
            return catalog.source.score_request(message.request_id, _prompt(message), scored, message.user, message.normalise)
        return catalog.source.request(
            message.request_id,
            catalog.source.sample(message.history) if message.is_proof else _prompt(message),
            message.k,
            beam_width=None if message.beam_widths else message.beam_width,
            excluded_items=message.excluded,
            rule=SearchRule(message.verification, message.seed, message.temperature),
            cache_key=message.user,
            allowed_items=None if message.filter is None else catalog.filters.find(message.filter),
            reserved=_reserved(message, catalog.filters),
            think=message.think,
            blend=_blend(message, catalog.source),
            beam_widths=message.beam_widths,
            diversity=message.diversity,
            retrieved=np.frombuffer(message.retrieved, np.int32),
            tolerance=message.tolerance,
            normalise=message.normalise,
            explain=message.explain,
        )

    def _report(self, step: ScheduledStep) -> None:
        """Tell the parent what is finished at once; what only the metrics need is sent with it, or every `REPORT_SECONDS`."""
        now = time.monotonic()
        if step.report is not IDLE:
            self._steps.append(StepRecord(replace(step.report, finished=(), failed=()), now, now - self._stepped, step.crowded))
        self._stepped = now
        self._failed += [FailedList(request_id) for request_id in step.timed_out]
        self._failed += [FailedList(request_id, not_finite=True) for request_id in step.report.failed]
        if step.report.failed and not self._has_warned:
            logger.error("The model's scores for a request were not finite (NaN or infinite); only metrics tell of others after it.")
            self._has_warned = True
        news = step.finished or step.placed or self._failed
        if not (news or not self._scheduler.busy or now - self._reported > REPORT_SECONDS):
            return
        graphs = self._catalogs.take_graph_counts()
        first, *more = self._portions(step.finished)
        progress = Progress(
            finished=first,
            failed=self._failed,
            steps=self._steps,
            running=self._scheduler.running,
            waiting=self._scheduler.waiting,
            used_slots=self._catalogs.used_slots,
            cached_slots=self._catalogs.cached_slots,
            graphs_replayed=graphs.replayed,
            graphs_skipped=graphs.skipped,
            placed=step.placed,
        )
        self.send(progress)
        for portion in more:
            empty = {"failed": [], "steps": [], "graphs_replayed": 0, "graphs_skipped": 0, "placed": ()}
            self.send(msgspec.structs.replace(progress, finished=portion, **empty))
        self._failed, self._steps, self._reported = [], [], now

    def _portions(self, finished: Sequence[FinishedList]) -> list[list[FinishedList]]:
        """Finished lists, at least one portion, by what a message holds; a list that none holds has failed."""
        portions: list[list[FinishedList]] = [[]]
        room = MOST_ITEMS
        for each in finished:
            items = len(each.result.items)
            if items > MOST_ITEMS:
                sentence = f"The list would have {items:,} items, more than the {MOST_ITEMS:,} that one may have: ask for a smaller k."
                self._failed.append(FailedList(each.result.request_id, sentence))
                continue
            if items > room:
                portions.append([])
                room = MOST_ITEMS
            portions[-1].append(each)
            room -= items
        return portions


def _prompt(message: Submit) -> PromptTokens:
    return PromptTokens(np.frombuffer(message.prompt, np.int32).astype(np.int64))


def _blend(message: Submit, source: "Recommender") -> Blend | None:
    if (choice := message.blend) is None:
        return None
    items = np.frombuffer(choice.items, np.int32).astype(np.int64)
    return Blend.of(source.engine.trie, items, np.frombuffer(choice.scores, np.float64), choice.weight)


def _reserved(message: Submit, filters: EngineFilters) -> ReservedPlaces | None:
    if (fresh := message.fresh) is None:
        return None
    return ReservedPlaces(fresh.places, filters.find(message.filter, fresh.since))
