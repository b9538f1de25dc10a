"""The metrics of the server, for Prometheus: what requests and steps cost, and what speculation costs and saves.

Invariant: every name starts with `atspeed_` and ends in its base unit, every label has few values, and the registry is the server's own, so
that two servers in one test process do not add up. Routes are templates, never paths with a user in them; `plan` is what was drafted for
a list under the one plan that the server runs (a fixed plan's name, or `auto:` and what the planner made of it), `verification` is one of
three, `depth` is at most an identifier's length.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from server.errors import HistoryDamaged
from server.messages import FinishedList, Progress, Ready
from server.metrics.control import ControlMetrics
from server.metrics.counter import LoopCounter
from server.metrics.histogram import LoopHistogram
from server.metrics.keys import KeyMetrics
from server.metrics.lists import HealthMetrics
from server.metrics.outages import OutageLog
from server.ticks import TICK_SECONDS, until_tick
from server.try_again import HistoryUnavailable
from verification.result import StepReport

# Each series would otherwise come with a second one that holds when it was made, which no query of ours reads.
disable_created_metrics()  # type: ignore[no-untyped-call]

LATENCY_BUCKETS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5)
# A draft's level takes a fraction of a millisecond on a small machine already.
STEP_BUCKETS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)
COUNT_BUCKETS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)
TOKEN_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000, 8000)
_KINDS = ("plan", "verification")
DAMAGES = ("file", "history", "event")
HISTORY_OPERATIONS = ("append", "read", "put", "delete", "sample")
# Missed looks of the event loop that are counted at most: it may have stood still for a day, with its machine.
_MOST_MISSED = 600


class _Load(NamedTuple):
    """Requests and KV slots of the engine, by its last report."""

    running: int = 0
    waiting: int = 0
    used_slots: int = 0
    cached_slots: int = 0


class Metrics:
    """All metrics of one server."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._outages = {operation: OutageLog(f"the history store can't {operation}") for operation in HISTORY_OPERATIONS}
        self._damage = {found: OutageLog("stored histories are damaged") for found in DAMAGES}
        ProcessCollector(namespace="atspeed", registry=registry)
        self.health = HealthMetrics(registry)
        self.control = ControlMetrics(registry)
        self.keys = KeyMetrics(registry)
        counter, gauge = partial(LoopCounter, registry=registry), partial(Gauge, registry=registry)
        latency = partial(LoopHistogram, registry=registry, buckets=LATENCY_BUCKETS)
        step_time = partial(LoopHistogram, registry=registry, buckets=STEP_BUCKETS)
        count = partial(LoopHistogram, registry=registry, buckets=COUNT_BUCKETS)
        tokens = partial(LoopHistogram, registry=registry, buckets=TOKEN_BUCKETS)

        self.request_latency = latency(
            "atspeed_request_latency_seconds", "Time from the headers of a request to its response.", ["route", "status"]
        )
        self.http_responses = counter("atspeed_http_responses_total", "HTTP responses.", ["method", "route", "status"])
        self.refused = counter("atspeed_refused_requests_total", "Requests refused on arrival because of load.", ["reason"])
        self.ready = gauge("atspeed_ready", "1 while the server takes requests, as /ready says it, else 0.")
        self.open_connections = gauge("atspeed_open_connections", "Connections of clients.")
        self.refused_connections = counter(
            "atspeed_refused_connections_total", "Connections ended with an answer to no complete request, by the limit.", ["reason"]
        )
        self.loop_lag = latency("atspeed_event_loop_lag_seconds", "Lag of the event loop of the API process.")
        self.history_latency = latency("atspeed_history_latency_seconds", "Duration of operations of the history store.", ["operation"])
        # Any thread may meet it.
        self.history_damage = Counter(
            "atspeed_history_damage_total",
            "Damage met in the history store: by the check of its file at start, in a user's history, or in an event that was passed over.",
            ["found"],
            registry=registry,
        )
        for found in DAMAGES:
            self.history_damage.labels(found)
        self.history_errors = counter("atspeed_history_errors_total", "Failed operations of the history store.", ["operation"])

        self.engine_up = gauge("atspeed_engine_up", "1 while the engine is serving, else 0.")
        self.engine_restarts = counter("atspeed_engine_restarts_total", "Engine processes started to replace one that died or hung.")
        self.engine_overdue = gauge(
            "atspeed_engine_overdue_seconds",
            "Time without an engine that lasts, beyond what the last one took to load; 0 while one serves, and before the first.",
        )
        self.engine_hangs = counter("atspeed_engine_hangs_total", "Engine processes killed because they gave no sign of life.")
        self.engine_silence = gauge("atspeed_engine_silence_seconds", "Time since the last sign of life of the engine.")
        self.running = gauge("atspeed_running_requests", "Requests running in the engine.")
        self.waiting = gauge("atspeed_waiting_requests", "Requests waiting for the engine.")
        self.expected_wait = gauge("atspeed_expected_wait_seconds", "Expected time until the engine has finished the requests that it has.")
        self.kv_slots = gauge("atspeed_kv_slots", "KV slots of the engine, one per token.")
        self.kv_slots_used = gauge("atspeed_kv_slots_used", "KV slots in use, one per token.")
        self.kv_slots_cached = gauge(
            "atspeed_kv_slots_cached", "KV slots that hold prompts of earlier requests (prefix cache); evicted when slots are needed."
        )

        # Prometheus asks for it seldom, beside the reports of the engine.
        self._load = _Load()
        self.running.set_function(lambda: self._load.running)
        self.waiting.set_function(lambda: self._load.waiting)
        self.kv_slots_used.set_function(lambda: self._load.used_slots)
        self.kv_slots_cached.set_function(lambda: self._load.cached_slots)

        self.queue = latency("atspeed_queue_seconds", "Time a request waited in the queue of the engine.")
        self.engine = latency("atspeed_engine_seconds", "Time a request spent in the engine.")
        self.prompt_tokens = counter("atspeed_prompt_tokens_total", "Prompt tokens of finished requests.")
        self.cached_tokens = counter("atspeed_cached_tokens_total", "Prompt tokens found by prefix caching, which were not computed again.")
        self.cache_lookups = counter(
            "atspeed_cache_lookups_total",
            "Finished lists, by whether prefix caching found part of the prompt (hit) or nothing (miss).",
            ["outcome"],
        )
        self.thought_tokens = counter(
            "atspeed_thought_tokens_total",
            "Tokens of text that the target model wrote before lists, those of unfinished requests included.",
        )
        self.forwards_per_request = count(
            "atspeed_target_forwards_per_request", "Forwards of the target model per request, those that wrote text before its list aside."
        )
        self.draft_forwards_per_request = count("atspeed_draft_forwards_per_request", "Forwards of the draft model per request.")
        self.decisions = counter("atspeed_plan_decisions_total", "Finished lists, by draft plan and verification.", _KINDS)
        self.target_forwards = counter(
            "atspeed_target_forwards_total",
            "Forwards of the target model, summed over finished lists, those that wrote text before them aside; a forward of several lists "
            "counts once for each.",
            _KINDS,
        )
        self.accepted_steps = counter(
            "atspeed_accepted_steps_total",
            "Levels of lists that the target accepted from a draft; each saves the list one forward.",
            [*_KINDS, "depth"],
        )
        self.not_finite = counter(
            "atspeed_not_finite_lists_total",
            "Lists that could not be made, because the scores of the target model were not finite (NaN or infinite).",
        )
        self.scored_nodes = counter("atspeed_scored_nodes_total", "Prefixes that the target model computed for requests for scores.")
        self.drafted_nodes = counter("atspeed_drafted_nodes_total", "Tree nodes added by drafts.")
        self.used_nodes = counter(
            "atspeed_used_nodes_total", "Drafted nodes that the target's beams used, by what drafted them.", ("source",)
        )
        self.wasted_nodes = counter("atspeed_wasted_nodes_total", "Drafted nodes that no beam of the target used.")

        self.step = latency("atspeed_step_seconds", "Duration of an engine step.")
        self.forward_tokens = tokens("atspeed_forward_tokens", "Tokens in a forward of the target model.")
        self.target_seconds = step_time("atspeed_target_seconds", "Time of the target's forward in a step.")
        self.draft_seconds = step_time("atspeed_draft_seconds", "Time of drafting in a step, with the forwards of the draft model.")
        self.draft_tokens = counter("atspeed_draft_tokens_total", "Tokens in forwards of the draft model.")
        self.draft_forwards = counter("atspeed_draft_forwards_total", "Forwards of the draft model.")
        self.draft_up = gauge("atspeed_draft_up", "1 while a draft model is in use, else 0.")
        self.drafts_dropped = counter("atspeed_drafts_dropped_total", "Draft models dropped because they failed.")
        self.graph_forwards = counter(
            "atspeed_graph_forwards_total",
            "Forwards of models with CUDA graphs, by whether a graph was replayed or none fitted (skipped).",
            ["outcome"],
        )
        for metric, values in (
            (self.history_errors, HISTORY_OPERATIONS),
            (self.cache_lookups, ("hit", "miss")),
            (self.refused, ("deadline", "queue-full", "explanations")),
            (self.refused_connections, ("connections", "client", "header-size", "header-time", "malformed")),
        ):
            for value in values:
                metric.begin(value)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    async def watch_loop(self) -> None:
        """Measure the lag of the event loop from the inside, until cancelled; all that keeps the loop busy shows."""
        loop = asyncio.get_running_loop()
        while True:
            expected = loop.time() + (left := until_tick())
            await asyncio.sleep(left)
            self.observe_lag(max(0.0, loop.time() - expected))

    def observe_lag(self, seconds: float) -> None:
        """Count by how much the loop came late to a look, and to each of those that it missed meanwhile.

        A loop that stands still for seconds would else be one late look among hundreds in time, and all requests of these seconds none.
        """
        for missed in range(min(int(seconds / TICK_SECONDS), _MOST_MISSED) + 1):
            self.loop_lag.observe(seconds - missed * TICK_SECONDS)

    def observe_response(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one HTTP answer."""
        text = str(status)
        self.request_latency.observe(seconds, route, text)
        self.http_responses.inc(1, method, route, text)

    def observe_progress(self, progress: Progress) -> None:
        """Take over what the engine reports."""
        self._observe_steps([step.report for step in progress.steps])
        for finished in progress.finished:
            self._observe_list(finished)
        self.not_finite.inc(sum(failed.not_finite for failed in progress.failed))
        self._load = _Load(progress.running, progress.waiting, progress.used_slots, progress.cached_slots)
        if progress.graphs_replayed or progress.graphs_skipped:
            self.graph_forwards.inc(progress.graphs_replayed, "replayed")
            self.graph_forwards.inc(progress.graphs_skipped, "skipped")

    def observe_ready(self, ready: Ready, *, has_draft: bool) -> None:
        """Note that an engine serves; one that was given a draft and has none has dropped it on its way here."""
        self.engine_up.set(1)
        self.kv_slots.set(ready.total_slots)
        self.draft_up.set(ready.drafts)
        self.drafts_dropped.inc(has_draft and not ready.drafts)

    def observe_engine_gone(self) -> None:
        """Note that nothing runs any more, because there is no engine."""
        self._load = _Load()
        for gauge in (self.engine_up, self.engine_silence, self.draft_up):
            gauge.set(0)

    @contextmanager
    def history_operation(self, operation: str) -> Iterator[None]:
        """Time an operation of the history store, and count it and say so if it fails."""
        started = time.perf_counter()
        try:
            yield
            self._outages[operation].answered()
        except HistoryUnavailable as error:
            self.history_errors.inc(1, operation)
            self._outages[operation].failed(str(error))
            raise
        except HistoryDamaged:
            self.observe_damage("history", "The history of a user can't be read; that user's requests are refused.")
            raise
        finally:
            self.history_latency.observe(time.perf_counter() - started, operation)

    def observe_damage(self, found: str, sentence: str) -> None:
        """Count damage of stored histories and say so, in any thread; `found` is `file`, `history` or `event`."""
        self.history_damage.labels(found).inc()
        self._damage[found].failed(sentence)

    def _observe_steps(self, reports: Sequence[StepReport]) -> None:
        for report in reports:
            self.forward_tokens.observe(report.tokens)
            self.step.observe(report.seconds)
            self.target_seconds.observe(report.target_seconds)
            self.draft_seconds.observe(report.draft_seconds)
            self.thought_tokens.inc(report.thought_tokens)
            self.scored_nodes.inc(report.scored_nodes)
            self.draft_tokens.inc(report.draft_tokens)
            self.draft_forwards.inc(report.draft_forwards)
            if report.draft_failed:
                self.draft_up.set(0)
                self.drafts_dropped.inc()

    def _observe_list(self, finished: FinishedList) -> None:
        usage, kind = finished.result.usage, (finished.result.usage.plan, finished.result.rule.verification.value)
        self.queue.observe(finished.queue_seconds)
        self.engine.observe(finished.engine_seconds)
        self.prompt_tokens.inc(usage.prompt_tokens)
        self.cached_tokens.inc(usage.cached_tokens)
        self.cache_lookups.inc(1, "hit" if usage.cached_tokens else "miss")
        if finished.result.scores is not None:
            # It has no plan, and as many forwards as the budgets of steps make of its candidates.
            return
        self.forwards_per_request.observe(forwards := usage.target_forwards - usage.thought_tokens)
        self.draft_forwards_per_request.observe(usage.draft_forwards)
        self.decisions.inc(1, *kind)
        self.target_forwards.inc(forwards, *kind)
        for depth in usage.accepted_depths:
            self.accepted_steps.inc(1, *kind, str(depth))
        self.drafted_nodes.inc(usage.drafted_nodes)
        self.wasted_nodes.inc(usage.drafted_nodes - usage.used_nodes)
        for source, nodes in usage.used_by.items():
            self.used_nodes.inc(nodes, source)
