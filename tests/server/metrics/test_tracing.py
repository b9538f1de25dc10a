"""Traces: which spans a request leaves, under whose trace, and that a server without a collector leaves none."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from server.errors import UserNotFound
from server.messages import FinishedList, Progress, StepRecord
from server.metrics import tracing as tracing_module
from server.metrics.tracing import Tracing, end_request, traceparent
from server.scheduling.admission import Admission
from server.submit import Submit
from tests.server.fake_ready import READY
from tests.server.forked_server import ForkedServer
from verification.result import BeamResult, StepReport, Usage

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
RESULT = BeamResult("a", (), Usage(10, 4, 2, drafted_nodes=12, accepted_depths=(1,), plan="beam:5"))


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> Iterator[Tracing]:
    tracing = Tracing(SimpleSpanProcessor(exporter))
    yield tracing
    tracing.close()


def test_a_request_goes_on_with_its_clients_trace(tracing: Tracing, exporter: InMemorySpanExporter):
    with tracing.request("POST", "/v1/recommendations", {"traceparent": PARENT}, "request-7") as span:
        assert tracing.recording
        named = traceparent(span)
        with tracing.part("history"):
            pass
        end_request(span, "POST", "/v1/recommendations", 503)
    history, server = exporter.get_finished_spans()
    assert (server.name, history.name) == ("POST /v1/recommendations", "history")
    assert f"{server.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{server.parent.span_id:016x}" == PARENT.split("-")[2]
    assert history.parent.span_id == server.context.span_id
    assert named == f"00-{server.context.trace_id:032x}-{server.context.span_id:016x}-01"
    assert server.attributes["atspeed.request_id"] == "request-7"
    assert server.attributes["http.response.status_code"] == 503
    assert server.status.status_code is trace.StatusCode.ERROR


def test_a_trace_that_the_client_does_not_keep_is_not_recorded(tracing: Tracing, exporter: InMemorySpanExporter):
    with tracing.request("POST", "/v1/recommendations", {"traceparent": UNSAMPLED}, "r"):
        assert not tracing.recording
    assert exporter.get_finished_spans() == ()


def test_probes_and_scrapes_are_not_traced(tracing: Tracing, exporter: InMemorySpanExporter):
    with tracing.request("GET", "/metrics", {}, "r") as span:
        assert traceparent(span) is None
    assert exporter.get_finished_spans() == ()


def test_of_an_error_a_span_says_the_class_alone(tracing: Tracing, exporter: InMemorySpanExporter):
    with suppress(KeyError), tracing.request("POST", "/v1/recommendations", {}, "r") as span:
        with suppress(UserNotFound), tracing.part("history"):
            raise UserNotFound("user-secret")
        end_request(span, "POST", "/v1/recommendations", 500)
        raise KeyError("user-secret")
    history, server = exporter.get_finished_spans()
    assert (history.status.status_code, history.status.description) == (trace.StatusCode.ERROR, "UserNotFound")
    assert (server.status.status_code, server.status.description) == (trace.StatusCode.ERROR, "KeyError")
    assert "user-secret" not in history.to_json() + server.to_json()


def test_the_engines_steps_lie_in_the_engines_span(tracing: Tracing, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch):
    now = 1000.0
    clock = SimpleNamespace(monotonic=lambda: now, monotonic_ns=lambda: int(now * 1e9), time_ns=time.time_ns)
    monkeypatch.setattr(tracing_module, "time", clock)
    begun = now - 0.05
    reports = (StepReport((), 9, 0.03, 0.02, draft_seconds=0.01), StepReport((), 9, 0.015, 0.015))
    steps = [StepRecord(report, begun + ended, report.seconds) for report, ended in zip(reports, (0.03, 0.045), strict=True)]
    with tracing.request("POST", "/v1/recommendations", {}, "r"):
        tracing.record_engine(FinishedList(RESULT, 0.02, 0.05), steps)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    names = [span.name for span in exporter.get_finished_spans()]
    assert sorted(names) == ["POST", "draft", "engine", "queue", "verify", "verify"]
    engine, queue, draft = spans["engine"], spans["queue"], spans["draft"]
    assert queue.end_time == engine.start_time
    assert (queue.end_time - queue.start_time) == pytest.approx(0.02e9, rel=0.01)
    assert (draft.end_time - draft.start_time) == pytest.approx(0.01e9, rel=0.01)
    for span in exporter.get_finished_spans():
        if span.name in ("draft", "verify"):
            assert span.parent.span_id == engine.context.span_id
            assert engine.start_time - 1e3 <= span.start_time <= span.end_time <= engine.end_time
    assert (engine.attributes["atspeed.plan"], engine.attributes["atspeed.accepted_steps"]) == ("beam:5", 1)


def test_without_a_collector_nothing_is_recorded():
    tracing = Tracing.to(None)
    with tracing.request("POST", "/v1/recommendations", {"traceparent": PARENT}, "r") as span, tracing.part("history"):
        assert not tracing.recording
        assert traceparent(span) is None
        tracing.record_engine(FinishedList(RESULT, 0.02, 0.05))
    tracing.close()


def test_a_collector_that_says_nothing_is_not_waited_for_at_the_end(monkeypatch: pytest.MonkeyPatch):
    says, heard = threading.Event(), threading.Event()

    class Silent(SpanProcessor):
        def shutdown(self) -> None:
            says.wait(60)
            heard.set()

    monkeypatch.setattr(tracing_module, "CLOSE_SECONDS", 0.0)
    Tracing(Silent()).close()
    assert not heard.is_set()
    says.set()
    assert heard.wait(60)


async def test_a_request_gets_the_steps_since_it_was_taken_up():
    admission = Admission(10)
    admission.open(READY)
    wanted = admission.admit(Submit("wanted", [0], 1, 1, [], 60.0, 0.0), 0.0, traced=True)
    other = admission.admit(Submit("other", [0], 1, 1, [], 60.0, 0.0), 0.0)
    lists = [admission.hand_over(request) for request in (wanted, other)]
    report = StepReport((), 9, seconds=0.01, target_seconds=0.006, draft_seconds=0.002)
    steps = [StepRecord(report, ended, 0.01) for ended in (0.5, 1.0, 2.0, 3.0)]
    done = [FinishedList(BeamResult(name, (), Usage(1, 0, 1)), 0.1, 1.5) for name in ("wanted", "other")]
    admission.deliver(Progress([], [], steps[:2], running=2, waiting=0, used_slots=0))
    admission.deliver(Progress(done, [], steps[2:], running=0, waiting=0, used_slots=0))
    assert [future.result() for future in lists] == done
    assert wanted.own_steps(done[0]) == steps[2:]
    assert other.own_steps(done[1]) == []


class Collector:
    """A collector that keeps the spans it is sent."""

    def __init__(self) -> None:
        self.spans: list = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
                outer.spans += [span for group in sent.resource_spans for scope in group.scope_spans for span in scope.spans]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


def test_a_real_server_sends_its_spans_before_it_ends(model_flags, model_dir, tmp_path):
    collector = Collector()
    draft = ("--draft", str(model_dir), "--plan", "beam:8+children")
    flags = (*model_flags, *draft, "--histories", "memory://", "--timeout-ms", "20000", "--otlp-endpoint", collector.url)
    with ForkedServer(tmp_path, *flags) as server:
        server.wait_until_ready()
        server.client.post("/v1/users/user-secret/events", json={"events": [{"item_id": "item-17"}]})
        server.client.put("/v1/users/user-secret/profile", json={"name": "known-secret"})
        body = {"user_id": "user-secret", "k": 3, "context": {"query": "known-secret"}}
        answer = server.client.post("/v1/recommendations", json=body, headers={"traceparent": PARENT, "x-request-id": "request-7"})
        assert answer.status_code == 200
        # Whom nobody knows gets a list of popular items.
        assert server.client.post("/v1/recommendations", json={"user_id": "nobody-secret"}).status_code == 200
    collector.server.shutdown()
    mine = {span.name: span for span in collector.spans if span.trace_id.hex() == PARENT.split("-")[1]}
    assert set(mine) == {"POST /v1/recommendations", "history", "queue", "engine", "draft", "verify"}
    assert answer.headers["traceparent"].split("-")[1:3] == [PARENT.split("-")[1], mine["POST /v1/recommendations"].span_id.hex()]
    assert answer.headers["x-request-id"] == "request-7"
    assert mine["engine"].parent_span_id == mine["POST /v1/recommendations"].span_id
    said = str(collector.spans)
    assert "UserNotFound" in said
    assert not [each for each in ("item-17", "user-secret", "known-secret", "nobody-secret") if each in said]
