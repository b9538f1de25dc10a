"""What the client sends, when it sends it again, and what it makes of answers: against a server that is a function."""

import json
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from drafting.beam.rule import Verification
from server.client import (
    AtspeedError,
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    Denied,
    NotFound,
    Overloaded,
    ProblemError,
    Refused,
    Retries,
    ServerFault,
    TimedOut,
    Unavailable,
    UnexpectedAnswer,
)
from server.client.retry_after import seconds_to_wait
from server.http.problems import Problem
from server.schemas.choices import FilterBody
from server.schemas.given import GivenEvent
from tests.server.client.faces import FACES, Face, mocked

AT_ONCE = Retries(attempts=3, first_seconds=0.0)
STATUS = {"status": "ready", "engine": "ready"}
EVENTS = {"user_id": "42", "received": 1, "stored": 1}


def problem(status: int, retry_after: str | None = None, name: str = "so-it-is") -> httpx.Response:
    headers = {"X-Request-Id": "r-1"} | ({} if retry_after is None else {"Retry-After": retry_after})
    return httpx.Response(status, json=Problem(status, "So it is.", name, "So").members(), headers=headers)


class Server:
    """Answers as a script says, and keeps what it was asked."""

    def __init__(self, *script: httpx.Response | type[httpx.TransportError]) -> None:
        self.script = list(script)
        self.requests: list[httpx.Request] = []
        self.bodies: list[Any] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.headers.get("content-type") == "application/json":
            self.bodies.append(json.loads(request.content))
        else:
            request.read()
        step = self.script.pop(0)
        if isinstance(step, httpx.Response):
            return httpx.Response(step.status_code, headers=step.headers, content=step.content)
        raise step("It is scripted.")


@pytest.fixture(params=FACES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def face_of(kind: str) -> Iterator[Any]:
    faces: list[Face] = []

    def make(server: Server, **options: Any) -> Face:
        faces.append(mocked(kind, server, **({"retries": AT_ONCE} | options)))
        return faces[-1]

    yield make
    for face in faces:
        face.close()


def ok(body: Any = STATUS) -> httpx.Response:
    return httpx.Response(200, json=body)


ERRORS = {
    Refused: (400, 405, 413, 415, 422),
    Denied: (401, 403),
    NotFound: (404,),
    Conflict: (409,),
    Overloaded: (429,),
    Unavailable: (502, 503),
    TimedOut: (504,),
    ServerFault: (500, 507),
}


@pytest.mark.parametrize("error", ERRORS)
def test_a_problem_is_an_exception_that_says_all_of_it(face_of: Any, error: type[ProblemError]):
    for status in ERRORS[error]:
        with pytest.raises(error) as raised:
            face_of(Server(problem(status, "7"))).call("ready")
        told = raised.value
        assert type(told) is error
        assert (told.status, told.type, told.title, told.detail) == (status, "urn:atspeed:so-it-is", "So", "So it is.")
        assert (str(told), told.retry_after, told.request_id) == ("So it is.", 7.0, "r-1")


def test_a_problem_of_time_is_a_missed_deadline_too(face_of: Any):
    with pytest.raises(DeadlineExceeded):
        face_of(Server(problem(504))).call("ready")


def test_what_a_gateway_says_in_its_own_words_is_a_problem(face_of: Any):
    with pytest.raises(Unavailable) as raised:
        face_of(Server(httpx.Response(502, html="<h1>502\n Bad Gateway</h1>"))).call("ready")
    assert str(raised.value) == "server answers 502 Bad Gateway, and not in this API's form: <h1>502 Bad Gateway</h1>."
    assert (raised.value.type, raised.value.title) == ("about:blank", "Bad Gateway")


def test_an_answer_that_is_none_of_this_api_is_told(face_of: Any):
    for answer in (httpx.Response(200, text="Welcome!"), ok({"status": "ready"}), ok([1])):
        with pytest.raises(UnexpectedAnswer, match="is it an atspeed-server"):
            face_of(Server(answer)).call("ready")


def test_what_answers_everything_has_done_nothing(face_of: Any):
    """Such as the page of a shop, at a URL that is not the server's."""
    welcome = httpx.Response(200, html="<h1>Welcome!</h1>")
    for method, *arguments in (("forget_user", "42"), ("put_profile", "42", {}), ("forget_filter", "few")):
        with pytest.raises(UnexpectedAnswer, match=r"is it an atspeed-server.* it has content, and should have none"):
            face_of(Server(welcome)).call(method, *arguments)
        assert face_of(Server(httpx.Response(204))).call(method, *arguments) is None
    with pytest.raises(UnexpectedAnswer, match="is it an atspeed-server"):
        face_of(Server(httpx.Response(200, content=b"\xff"))).call("metrics")


def test_an_answer_may_have_more_than_this_client_knows(face_of: Any):
    assert face_of(Server(ok(STATUS | {"mood": "fine"}))).call("ready").status == "ready"


def test_what_is_safe_is_tried_again(face_of: Any):
    for failure in (problem(429), problem(502), problem(503), httpx.ConnectError, httpx.ReadError, httpx.ReadTimeout):
        server = Server(failure, failure, ok({"filters": []}))
        assert face_of(server).call("filters").filters == []
        assert len(server.requests) == 3


def test_after_the_last_try_the_error_of_it_is_raised(face_of: Any):
    server = Server(*[problem(503)] * 9)
    with pytest.raises(Unavailable):
        face_of(server).call("filters")
    assert len(server.requests) == 3
    server = Server(*[httpx.ReadError] * 9)
    with pytest.raises(ConnectionFailed, match=r"^http://server gave no answer to GET /v1/catalog/filters: It is scripted\.$"):
        face_of(server, retries=Retries(attempts=1)).call("filters")
    assert len(server.requests) == 1


def test_what_would_be_the_same_again_is_not_tried_again(face_of: Any):
    for status in (400, 401, 404, 409, 422, 500, 504, 507):
        server = Server(problem(status), ok())
        with pytest.raises(ProblemError):
            face_of(server).call("filters")
        assert len(server.requests) == 1


UNSAFE: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("append_events", ("42", [{"item_id": "a"}]), {}),
    ("append_events", ("42", [{"item_id": "a", "event_id": "1"}, {"item_id": "a"}]), {}),
    ("roll_back", (), {}),
    ("activate", ("v1",), {"by": "a test"}),
    ("add_items", ([{"item_id": "a", "identifier": ["<a>"]}],), {}),
    ("put_catalog", ("v1", "file"), {}),
]


@pytest.mark.parametrize(("method", "args", "kwargs"), UNSAFE)
def test_what_may_have_been_done_and_is_not_safe_to_repeat_is_not_repeated(face_of: Any, method: str, args: Any, kwargs: Any):
    for failure in (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadTimeout, problem(503)):
        server = Server(failure, ok())
        with pytest.raises((ConnectionFailed, Unavailable)) as raised:
            face_of(server).call(method, *args, **kwargs)
        assert len(server.requests) == 1
        if isinstance(raised.value, ConnectionFailed):
            assert raised.value.sent
            assert "whether it was done is not known" in str(raised.value)


def test_what_was_not_begun_is_always_safe(face_of: Any):
    for failure in (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, problem(429)):
        server = Server(failure, ok(EVENTS))
        assert face_of(server).call("append_events", "42", [{"item_id": "a"}]).stored == 1
        assert len(server.requests) == 2


def test_an_address_that_is_no_servers_is_refused_at_once(kind: str):
    malformed = ("http://a:80a", "http://a:99999", "http://a\nb", "http://[::1")
    for url in ("127.0.0.1:8000", "ftp://server", "http://", "server", "http://server?x=1", *malformed):
        with pytest.raises(ValueError, match="is not the URL of a server, such as"):
            Face(kind, url)


def test_a_header_that_http_can_not_carry_is_not_tried_again(face_of: Any):
    server = Server(httpx.LocalProtocolError, ok())
    with pytest.raises(ConnectionFailed) as raised:
        face_of(server).call("filters")
    assert not raised.value.sent
    assert len(server.requests) == 1


def test_a_server_may_stand_below_a_path(kind: str):
    server = Server(ok({"filters": []}))
    with Face(kind, "http://server/shop/", transport=httpx.MockTransport(server)) as face:
        face.call("filters")
    assert server.requests[0].url.path == "/shop/v1/catalog/filters"


def test_a_probe_asks_once(face_of: Any):
    for method in ("health", "ready"):
        server = Server(problem(503), ok())
        with pytest.raises(Unavailable):
            face_of(server).call(method)
        assert len(server.requests) == 1


def test_waiting_for_a_server_ends_when_it_is_ready_or_time_is_up(face_of: Any, monkeypatch: pytest.MonkeyPatch):
    sleeps = Sleeps(monkeypatch)
    server = Server(httpx.ConnectError, problem(503), httpx.Response(504, text="upstream request timeout"), ok())
    face_of(server).call("wait_until_ready")
    assert len(server.requests) == 4
    assert sleeps.seconds == [0.1, 0.1, 0.1]
    with pytest.raises(Unavailable):
        face_of(Server(problem(503))).call("wait_until_ready", 0)
    with pytest.raises(NotFound):
        face_of(Server(problem(404))).call("wait_until_ready")


def test_waiting_for_a_server_that_accepts_and_hangs_is_no_longer_than_was_asked_for(face_of: Any, monkeypatch: pytest.MonkeyPatch):
    Sleeps(monkeypatch)
    for seconds, least, most in ((5.0, 1.0, 5.0), (0.0, 1.0, 1.0), (None, 65.0, 65.0), (1000.0, 65.0, 65.0)):
        server = Server(httpx.ReadTimeout, ok())
        if seconds == 0.0:
            with pytest.raises(ConnectionFailed):
                face_of(server).call("wait_until_ready", seconds)
        else:
            face_of(server).call("wait_until_ready", seconds)
        assert all(least <= request.extensions["timeout"]["read"] <= most for request in server.requests)


def test_a_deletion_whose_answer_was_lost_has_been_done(face_of: Any):
    gone = problem(404, name="unknown-user")
    face_of(Server(httpx.ReadError, gone)).call("forget_user", "42")
    for script in ([gone], [httpx.ConnectError, gone], [problem(429), gone]):
        with pytest.raises(NotFound):
            face_of(Server(*script)).call("forget_user", "42")


def test_a_deletion_that_comes_to_another_server_at_its_second_try_has_not_been_done(face_of: Any):
    """Such as a gateway whose route has gone, or a port that takes no operations."""
    for answer in (httpx.Response(404, text="default backend - 404"), problem(404, name="served-elsewhere")):
        for failure in (problem(503), httpx.Response(502), httpx.ReadError):
            with pytest.raises(NotFound):
                face_of(Server(failure, answer)).call("forget_user", "42")


class Sleeps:
    """Counts pauses in place of taking them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds: list[float] = []
        monkeypatch.setattr("server.client.client.time.sleep", self.seconds.append)

        async def sleep(seconds: float) -> None:
            self.seconds.append(seconds)

        monkeypatch.setattr("server.client.async_client.asyncio.sleep", sleep)


def test_pauses_double_and_are_no_shorter_than_the_server_asks(face_of: Any, monkeypatch: pytest.MonkeyPatch):
    sleeps = Sleeps(monkeypatch)
    script = [problem(503), httpx.ReadError, problem(429, "3"), problem(503, "0"), ok({"filters": []})]
    face_of(Server(*script), retries=Retries(attempts=5, first_seconds=0.2, most_seconds=5)).call("filters")
    bounds = [(0.1, 0.2), (0.2, 0.4), (3.4, 5.0), (0.8, 1.6)]
    assert all(low <= pause <= high for pause, (low, high) in zip(sleeps.seconds, bounds, strict=True)), sleeps.seconds


def test_chance_spreads_pauses_over_what_the_server_asks_for_and_not_beyond_the_longest():
    retries = Retries(first_seconds=0.1, most_seconds=10)
    pauses = sorted(retries.pause(1, 4.0) for _ in range(200))
    assert 4.05 <= pauses[0] < 4.5
    assert 5.5 < pauses[-1] <= 6.1
    assert all(9.0 <= retries.pause(1, 9.0) <= 10.0 for _ in range(100))
    assert all(5.0 <= retries.pause(20, 0.0) <= 10.0 for _ in range(100))
    assert retries.pause(5, 10.0) == 10.0


@pytest.mark.parametrize("left", [1.101, 1.5, 3.0])
def test_no_chance_makes_a_pause_longer_than_what_a_deadline_leaves(left: float):
    retries = Retries(first_seconds=0.1, most_seconds=10)
    pauses = [retries.pause(1, 1.0, left) for _ in range(200)]
    # And there is time for an answer behind it.
    assert all(1.05 <= pause <= 1.1 + 0.5 * (left - 1.1) for pause in pauses)
    assert max(pauses) - min(pauses) > 0.02


def test_a_server_that_asks_for_too_long_a_pause_is_not_asked_again(face_of: Any, monkeypatch: pytest.MonkeyPatch):
    sleeps = Sleeps(monkeypatch)
    with pytest.raises(Unavailable) as raised:
        face_of(Server(problem(503, "3600"), ok())).call("filters")
    assert raised.value.retry_after == 3600
    assert not sleeps.seconds


def test_retry_after_may_be_a_date_or_nonsense():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    told = seconds_to_wait(soon)
    assert told is not None
    assert 90 < told <= 100
    assert seconds_to_wait("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert seconds_to_wait("-5") == 0.0
    assert [seconds_to_wait(header) for header in (None, "", "soon", "nan", "inf")] == [None] * 5


LIST = {
    "id": "rec-1",
    "model": "m",
    "catalog_version": "v",
    "precision": "float32",
    "exact": True,
    "verification": "strict",
    "items": [],
    "usage": dict.fromkeys(("prompt_tokens", "cached_tokens", "target_forwards", "draft_forwards", "accepted_steps", "drafted_nodes"), 0)
    | {"plan": "none"},
    "timing_ms": dict.fromkeys(("history", "queue", "engine", "total"), 0.0),
}


class Clock:
    """Time passes only in pauses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("server.client.exchange.time.monotonic", lambda: self.now)

        def sleep(seconds: float) -> None:
            self.now += seconds

        async def sleep_async(seconds: float) -> None:
            self.now += seconds

        monkeypatch.setattr("server.client.client.time.sleep", sleep)
        monkeypatch.setattr("server.client.async_client.asyncio.sleep", sleep_async)


def test_a_deadline_is_told_to_the_server_and_counts_over_tries(face_of: Any, monkeypatch: pytest.MonkeyPatch):
    Clock(monkeypatch)
    monkeypatch.setattr("server.client.origin.random.uniform", lambda soonest, latest: soonest)
    server = Server(problem(503, "2"), ok(LIST))
    face_of(server).call("recommend", user_id="42", deadline=5)
    assert [body["timeout_ms"] for body in server.bodies] == [5000, 3000]
    waits = [request.extensions["timeout"] for request in server.requests]
    assert [wait["read"] for wait in waits] == [5.25, 3.25]
    # There is no time for another try.
    server = Server(problem(429, "2"), ok(LIST))
    with pytest.raises(Overloaded):
        face_of(server, deadline=1.5).call("recommend", user_id="42")
    assert server.bodies == [{"user_id": "42", "timeout_ms": 1500}]


def test_the_servers_timeout_is_what_is_left_within_its_limits(face_of: Any, monkeypatch: pytest.MonkeyPatch):
    Clock(monkeypatch)
    cases = [(None, None, None), (None, 70, 70), (0.5, None, 500), (0.5, 70, 70), (0.5, 900, 500), (500, None, 60_000), (1e-6, None, 1)]
    for deadline, asked, told in cases:
        fields = {} if asked is None else {"timeout_ms": asked}
        server = Server(ok(LIST), ok({"results": [], "succeeded": 0, "failed": 0}))
        face = face_of(server)
        face.call("recommend", user_id="42", deadline=deadline, **fields)
        face.call("recommend_many", [{"user_id": "42"} | fields], deadline=deadline)
        assert server.bodies[0].get("timeout_ms") == told
        assert server.bodies[1]["requests"][0].get("timeout_ms") == told


def test_a_clients_deadline_is_for_lists_alone(face_of: Any, monkeypatch: pytest.MonkeyPatch):
    Clock(monkeypatch)
    server = Server(ok({"filters": []}), ok({"version": "v", "by": "me", "at": 1.0}))
    face = face_of(server, deadline=0.1, timeout=9)
    face.call("filters")
    face.call("activate", "v", by="me")
    assert [request.extensions["timeout"]["read"] for request in server.requests] == [9, 3600]


def test_a_deadline_that_has_passed_is_told(face_of: Any, monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch)

    def slow(request: httpx.Request) -> httpx.Response:
        clock.now += request.extensions["timeout"]["read"]
        raise httpx.ReadTimeout("")

    with pytest.raises(DeadlineExceeded, match="passed before POST /v1/recommendations was answered") as raised:
        face_of(slow).call("recommend", user_id="42", deadline=0.5)
    assert isinstance(raised.value.__cause__, httpx.ReadTimeout)
    server = Server(ok(LIST))
    with pytest.raises(DeadlineExceeded):
        face_of(server).call("recommend", user_id="42", deadline=0)
    assert not server.requests


def test_every_request_has_the_key_and_names_its_user_for_proxies(face_of: Any):
    server = Server(*[ok({"user_id": "42", "events": []})] * 3, ok(LIST), ok({"filters": []}))
    face = face_of(server, key="secret")
    for user in ("42", "anna b.", "ü\n"):
        face.call("history", user)
    face.call("recommend", user_id="42")
    face.call("filters")
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer secret"}
    assert {request.headers["host"] for request in server.requests} == {"server"}
    assert [request.headers.get("x-user-id") for request in server.requests] == ["42", "anna b.", "%C3%BC%0A", "42", None]
    assert all("traceparent" not in request.headers for request in server.requests)


@pytest.mark.parametrize("name", ["Authorization", "authorization"])
def test_headers_of_the_caller_are_sent_and_a_key_that_is_given_before_them(face_of: Any, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv("ATSPEED_KEY", "of the environment")
    server = Server(*[ok({"filters": []})] * 3)
    face = face_of(server, headers={name: "Basic c2hvcA==", "user-agent": "shop"})
    face.call("filters")
    for key in ("secret", ""):
        face.call("use_key", key)
        face.call("filters")
    sent = [request.headers.get_list("authorization") for request in server.requests]
    assert sent == [["Basic c2hvcA=="], ["Bearer secret"], ["Basic c2hvcA=="]]
    assert [request.headers.get_list("user-agent") for request in server.requests] == [["shop"]] * 3


def test_an_id_that_is_a_number_is_refused_in_a_sentence(face_of: Any):
    """By the server in a body, and here in a path, where it would be taken for a text."""
    server = Server(problem(422), problem(422))
    for user in (42, np.int64(42)):
        with pytest.raises(Refused):
            face_of(server).call("recommend", user_id=user)
    assert server.bodies == [{"user_id": 42}] * 2
    assert all("x-user-id" not in request.headers for request in server.requests)
    for method, *arguments in (("history",), ("append_events", [{"item_id": "a"}]), ("forget_user",)):
        with pytest.raises(TypeError, match="An id or a name in a path is a text, not 42"):
            face_of(server).call(method, 42, *arguments)


def test_a_trace_goes_on(face_of: Any):
    span = NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1)))
    server = Server(ok({"filters": []}))
    with trace.use_span(span):
        face_of(server).call("filters")
    assert server.requests[0].headers["traceparent"] == f"00-{0xABC:032x}-{0xDEF:016x}-01"


def test_a_name_stays_one_part_of_the_path(face_of: Any):
    for user in ("a/b", ".", "..", "ä ☃", "a?b#c", "a%2Fb", "..a"):
        server = Server(ok({"user_id": user, "events": []}))
        face_of(server).call("history", user, limit=3)
        (request,) = server.requests
        assert request.url.path == f"/v1/users/{user}/history"
        assert request.url.raw_path.decode().count("/") == 4
        assert request.url.query == b"limit=3"


def test_values_of_models_numpy_and_clocks_become_json(face_of: Any):
    when = datetime(2026, 11, 29, tzinfo=UTC)
    server = Server(ok(LIST), ok(EVENTS))
    face = face_of(server)
    face.call(
        "recommend",
        history=("a",),
        k=np.int64(3),
        filter=FilterBody.model_validate({"not": ["adult"]}),
        verification=Verification.GUMBEL,
        context={"vector": np.array([0.5, 1.0])},
    )
    face.call("append_events", "42", [{"item_id": "a", "timestamp": when}])
    assert server.bodies[0] == {
        "history": ["a"],
        "k": 3,
        "filter": {"not": ["adult"]},
        "verification": "gumbel",
        "context": {"vector": [0.5, 1.0]},
    }
    assert server.bodies[1] == {"events": [{"item_id": "a", "timestamp": "2026-11-29T00:00:00+00:00"}]}


def test_what_has_no_json_is_refused_here(face_of: Any):
    server = Server()
    for value in (float("nan"), {1, 2}, "\ud800", object()):
        with pytest.raises((TypeError, ValueError)):
            face_of(server).call("append_events", "42", [{"item_id": "a", "value": value}])
    assert not server.requests


def test_what_is_no_event_is_judged_by_the_server(face_of: Any):
    event = {"item_id": "50", "event_id": "a"}
    for events, sent in ((["50"], ["50"]), (event, event), ([GivenEvent(item_id="50")], [{"item_id": "50"}])):
        server = Server(problem(422))
        with pytest.raises(Refused):
            face_of(server).call("append_events", "42", events)
        assert server.bodies == [{"events": sent}]


@pytest.mark.parametrize("histories", [{"42": ["50"]}, ["42"], [{"42": ["50"]}], [("42", "50")], [("42", {"item_id": "50"})]])
def test_what_is_no_history_is_refused_here(face_of: Any, histories: Any):
    """Of the text 42 user 4 would have met item 2."""
    server = Server()
    with pytest.raises(TypeError, match=r"A history is a user's id and a list of their events, as `dict\.items\(\)` gives them, .*42"):
        face_of(server).call("append_histories", histories)
    assert not server.requests


def test_a_load_has_workers(face_of: Any):
    with pytest.raises(ValueError, match=r"^at_once must be at least 1, got 0\.$"):
        face_of(Server()).call("append_histories", [("42", ["50"])], at_once=0)


def test_an_upload_is_sent_in_pieces_and_anew_with_every_try(face_of: Any, tmp_path: Path):
    file = tmp_path / "catalog.parquet"
    file.write_bytes(bytes(700_000))
    built = {"version": "v", "content": "c", "items": 1, "identifiers": 1, "identifier_length": 1}
    server = Server(problem(429), httpx.Response(201, json=built))
    sent: list[tuple[int, int]] = []
    face_of(server).call("upload_catalog", "v", file, on_bytes=lambda *bytes_sent: sent.append(bytes_sent))
    assert [len(request.content) for request in server.requests] == [700_000, 700_000]
    for request in server.requests:
        assert request.headers["content-length"] == "700000"
        assert "transfer-encoding" not in request.headers
        assert request.headers["content-type"] == "application/vnd.apache.parquet"
    assert sent == [(262_144, 700_000), (524_288, 700_000), (700_000, 700_000)] * 2


def test_an_upload_of_an_unknown_form_is_refused_here(face_of: Any, tmp_path: Path):
    with pytest.raises(ValueError, match=r"catalog\.xls has none of the suffixes \.jsonl, .* name its content_type"):
        face_of(Server()).call("upload_catalog", "v", tmp_path / "catalog.xls")


def test_every_error_is_in_the_one_tree_and_goes_through_a_pool_of_processes(face_of: Any):
    for error in (ConnectionFailed, DeadlineExceeded, UnexpectedAnswer, ProblemError):
        assert issubclass(error, AtspeedError)
    for failure in (problem(503, "7"), problem(504), httpx.ConnectError, ok([])):
        with pytest.raises(AtspeedError) as raised:
            face_of(Server(failure), retries=Retries(attempts=1)).call("filters")
        copied = pickle.loads(pickle.dumps(raised.value))
        assert (type(copied), str(copied), vars(copied)) == (type(raised.value), str(raised.value), vars(raised.value))
