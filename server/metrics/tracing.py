"""Traces: a span per request with those of its parts below it, sent by OTLP where an endpoint is set.

Invariant: without an endpoint nothing is recorded and the SDK is not even imported. With one, a span says which route, status and request
id, how much was drafted and accepted, and nothing of what a user met. An error is recorded by its class only, because its sentence may name
users. A request that comes with a `traceparent` continues that trace, and its answer names the span in a `traceparent` of its own. Reason:
a slow list is explained by where its time went (history, queue, each draft and forward), and its sender has nothing but the answer to find
that by.

Which traces are kept is decided by the SDK: `OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME`, `OTEL_EXPORTER_OTLP_HEADERS` and the like hold.
"""

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from server.messages import FinishedList, StepRecord

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

TRACED_PATHS = "/v1/"
# For what has not been sent at the end.
CLOSE_SECONDS = 3.0
_SCOPE = "atspeed"
_PROPAGATOR = TraceContextTextMapPropagator()


class Tracing:
    """Makes spans, or pretends to.

    Attributes:
        on: True if there are spans.
    """

    def __init__(self, processor: "SpanProcessor | None" = None) -> None:
        """`processor` is what finished spans go to; without one there are none."""
        self.on = processor is not None
        self._provider = _provider(processor) if processor is not None else None
        self._tracer = self._provider.get_tracer(_SCOPE) if self._provider is not None else trace.NoOpTracer()

    @classmethod
    def to(cls, endpoint: str | None) -> "Tracing":
        """Send traces to an OTLP collector that speaks HTTP, such as `http://collector:4318`; none for None."""
        if endpoint is None:
            return cls()
        # Half a second of imports that a server without traces need not pay.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        return cls(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))

    @property
    def recording(self) -> bool:
        """True if the current request is traced."""
        return trace.get_current_span().is_recording()

    @contextmanager
    def request(self, method: str, path: str, headers: Mapping[str, str], request_id: str) -> Iterator[Span]:
        """The span of an HTTP exchange, under the one that the client names in its headers."""
        if self._provider is None or not path.startswith(TRACED_PATHS):
            yield trace.INVALID_SPAN
            return
        attributes = {"http.request.method": method, "atspeed.request_id": request_id}
        parent = _PROPAGATOR.extract(headers)
        with _current(self._tracer.start_span(method, parent, SpanKind.SERVER, attributes)) as span:
            yield span

    def part(self, name: str) -> AbstractContextManager[object]:
        """A span of a part of the request that is being answered."""
        return _current(self._tracer.start_span(name))

    def record_engine(self, finished: FinishedList, steps: Sequence[StepRecord] = ()) -> None:
        """Make spans of what the engine did for a list that has just come: the queue, then the draft and the verification of its steps."""
        if not self.recording:
            return
        to_epoch = time.time_ns() - time.monotonic_ns()
        now = time.monotonic()
        begun = now - finished.engine_seconds
        self._span("queue", begun - finished.queue_seconds, begun, to_epoch)
        usage = finished.result.usage
        attributes: dict[str, str | int] = {
            "atspeed.plan": usage.plan,
            "atspeed.target_forwards": usage.target_forwards,
            "atspeed.drafted_nodes": usage.drafted_nodes,
            "atspeed.accepted_steps": usage.accepted_steps,
            "atspeed.prompt_tokens": usage.prompt_tokens,
            "atspeed.cached_tokens": usage.cached_tokens,
            "atspeed.candidates": usage.candidates,
        }
        engine = self._tracer.start_span("engine", attributes=attributes, start_time=_nanoseconds(begun, to_epoch))
        with _current(engine, ends=False):
            for step in steps:
                started = step.ended - step.report.seconds
                drafted = started + step.report.draft_seconds
                if step.report.draft_seconds:
                    self._span("draft", started, drafted, to_epoch)
                self._span("verify", drafted, drafted + step.report.target_seconds, to_epoch)
        engine.end(_nanoseconds(now, to_epoch))

    def close(self) -> None:
        """Send what has not been sent, if the collector takes it within `CLOSE_SECONDS`."""
        if self._provider is not None:
            # The SDK waits half a minute for one that says nothing, which would be longer than a server may take to end.
            closing = threading.Thread(target=self._provider.shutdown, name="tracing", daemon=True)
            closing.start()
            closing.join(CLOSE_SECONDS)

    def _span(self, name: str, start: float, end: float, to_epoch: int) -> None:
        self._tracer.start_span(name, start_time=_nanoseconds(start, to_epoch)).end(_nanoseconds(end, to_epoch))


def traceparent(span: Span) -> str | None:
    """The `traceparent` header of a span; None for one that is not traced."""
    if not span.get_span_context().is_valid:
        return None
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, trace.set_span_in_context(span))
    return carrier["traceparent"]


def end_request(span: Span, method: str, route: str, status: int) -> None:
    """Add to the span of a request what is known when it has been answered."""
    span.update_name(f"{method} {route}")
    span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(StatusCode.ERROR)


@contextmanager
def _current(span: Span, *, ends: bool = True) -> Iterator[Span]:
    """Have a span be the current one; it ends with that if it `ends`, and says of an error that leaves it no more than its class."""
    with trace.use_span(span, end_on_exit=ends, record_exception=False, set_status_on_exception=False):
        try:
            yield span
        except Exception as error:
            span.set_status(StatusCode.ERROR, type(error).__name__)
            raise


def _provider(processor: "SpanProcessor") -> "TracerProvider":
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    name = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": "atspeed"}
    provider = TracerProvider(resource=Resource.create(name), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider


def _nanoseconds(monotonic: float, to_epoch: int) -> int:
    return round(monotonic * 1e9) + to_epoch
