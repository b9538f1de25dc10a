"""What the server counts and times, for Prometheus.

Invariant: every name starts with `atspeed_` and ends in its base unit, every label has few values (routes are templates, never paths with
a user in them), and the registry is the server's own, so that two servers in one test process do not add up.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from server.errors import HistoryUnavailable
from server.messages import Progress, Ready
from server.metrics.lists import HealthMetrics
from server.metrics.speculation import SpeculationMetrics
from verification.request import Usage

# Each series would otherwise come with a second one that holds when it was made, which no query of ours reads.
disable_created_metrics()  # type: ignore[no-untyped-call]

LATENCY_BUCKETS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5)
COUNT_BUCKETS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)
TOKEN_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000, 8000)


class Metrics:
    """All metrics of one server."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(namespace="atspeed", registry=registry)
        self.request_latency = Histogram(
            "atspeed_request_latency_seconds",
            "Time from a request's first byte to its answer.",
            ["route", "status"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.http_responses = Counter("atspeed_http_responses_total", "HTTP answers.", ["method", "route", "status"], registry=registry)
        self.queue = Histogram("atspeed_queue_seconds", "Time a request waited for the engine.", buckets=LATENCY_BUCKETS, registry=registry)
        self.engine = Histogram("atspeed_engine_seconds", "Time a request spent in the engine.", buckets=LATENCY_BUCKETS, registry=registry)
        self.target_forwards = Histogram(
            "atspeed_target_forwards_per_request", "Forwards of the target model per request.", buckets=COUNT_BUCKETS, registry=registry
        )
        self.draft_forwards = Histogram(
            "atspeed_draft_forwards_per_request", "Forwards of the draft model per request.", buckets=COUNT_BUCKETS, registry=registry
        )
        self.prompt_tokens = Counter("atspeed_prompt_tokens_total", "Prompt tokens of finished requests.", registry=registry)
        self.cached_tokens = Counter("atspeed_cached_tokens_total", "Prompt tokens that needed no computing.", registry=registry)
        self.cache_lookups = Counter(
            "atspeed_cache_lookups_total", "Finished lists, by whether some of their prompt was cached.", ["outcome"], registry=registry
        )
        for outcome in ("hit", "miss"):
            self.cache_lookups.labels(outcome)
        self.speculation = SpeculationMetrics(registry)
        self.health = HealthMetrics(registry)
        self.forward_tokens = Histogram(
            "atspeed_forward_tokens", "Tokens in a forward of the target model.", buckets=TOKEN_BUCKETS, registry=registry
        )
        self.step = Histogram("atspeed_step_seconds", "Time of an engine step.", buckets=LATENCY_BUCKETS, registry=registry)
        self.running = Gauge("atspeed_running_requests", "Requests in the engine.", registry=registry)
        self.waiting = Gauge("atspeed_waiting_requests", "Requests waiting for the engine.", registry=registry)
        self.loop_lag = Histogram(
            "atspeed_event_loop_lag_seconds",
            "How late the API process's event loop comes back to what is due.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.expected_wait = Gauge(
            "atspeed_expected_wait_seconds", "How long the engine is expected to be busy with the requests that it has.", registry=registry
        )
        self.refused = Counter(
            "atspeed_refused_requests_total", "Requests refused at once, so that others keep their deadline.", ["reason"], registry=registry
        )
        for reason in ("deadline", "queue-full"):
            self.refused.labels(reason)
        self.kv_slots_used = Gauge("atspeed_kv_slots_used", "KV slots in use, one per token.", registry=registry)
        self.kv_slots_cached = Gauge(
            "atspeed_kv_slots_cached", "KV slots that hold prompts of earlier requests, given up when they are needed.", registry=registry
        )
        self.kv_slots = Gauge("atspeed_kv_slots", "KV slots of the engine, one per token.", registry=registry)
        self.engine_up = Gauge("atspeed_engine_up", "1 while the engine serves, else 0.", registry=registry)
        self.engine_restarts = Counter(
            "atspeed_engine_restarts_total", "Engine processes started to replace a dead one.", registry=registry
        )
        self.history_latency = Histogram(
            "atspeed_history_latency_seconds",
            "Time of a history store operation.",
            ["operation"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.history_errors = Counter(
            "atspeed_history_errors_total", "History store operations that failed.", ["operation"], registry=registry
        )
        # A rate over a counter that isn't there until the first error would miss that error.
        for operation in ("append", "read", "delete", "ping"):
            self.history_errors.labels(operation)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def observe_response(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts one HTTP answer."""
        self.request_latency.labels(route, str(status)).observe(seconds)
        self.http_responses.labels(method, route, str(status)).inc()

    def observe_progress(self, progress: Progress) -> None:
        """Takes over what the engine reports."""
        for step in progress.steps:
            self.forward_tokens.observe(step.report.tokens)
            self.step.observe(step.report.seconds)
            self.speculation.observe_step(step.report)
        for finished in progress.finished:
            self.queue.observe(finished.queue_seconds)
            self.engine.observe(finished.engine_seconds)
            self._observe_usage(finished.result.usage)
            self.speculation.observe_list(finished.result)
        self.running.set(progress.running)
        self.waiting.set(progress.waiting)
        self.kv_slots_used.set(progress.used_slots)
        self.kv_slots_cached.set(progress.cached_slots)
        self.speculation.observe_graphs(progress.graphs_replayed, progress.graphs_skipped)

    def observe_ready(self, ready: Ready, *, has_draft: bool) -> None:
        """Notes that an engine serves; one that was given a draft and has none has dropped it on its way here."""
        self.engine_up.set(1)
        self.kv_slots.set(ready.total_slots)
        self.speculation.observe_ready(ready.drafts, has_draft)

    def observe_engine_gone(self) -> None:
        """Notes that nothing runs any more, because nothing is there to run it."""
        for gauge in (
            self.engine_up,
            self.speculation.draft_up,
            self.running,
            self.waiting,
            self.expected_wait,
            self.kv_slots_used,
            self.kv_slots_cached,
        ):
            gauge.set(0)

    @contextmanager
    def history_operation(self, operation: str) -> Iterator[None]:
        """Times an operation of the history store and counts it if it fails."""
        started = time.perf_counter()
        try:
            yield
        except HistoryUnavailable:
            self.history_errors.labels(operation).inc()
            raise
        finally:
            self.history_latency.labels(operation).observe(time.perf_counter() - started)

    def _observe_usage(self, usage: Usage) -> None:
        self.target_forwards.observe(usage.target_forwards)
        self.draft_forwards.observe(usage.draft_forwards)
        self.prompt_tokens.inc(usage.prompt_tokens)
        self.cached_tokens.inc(usage.cached_tokens)
        self.cache_lookups.labels("hit" if usage.cached_tokens else "miss").inc()
