"""Who may do what: every operation of the OpenAPI document, by every scope; and what other machines may do without keys."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.routing import BaseRoute, Mount, Route

from server.http.app import build_api, build_app
from server.http.strict_route import strict_route
from server.keys.file import add_key
from server.keys.gate import is_local
from server.keys.key import Scope
from server.keys.keyring import Keyring
from server.keys.rates import Rates
from server.metrics.tracing import Tracing
from tests.server.http.test_app import Bench
from tests.server.server_process import assert_problem

# On purpose: what probes, load balancers, Prometheus and readers of the documentation ask.
OPEN = {"GET /health", "GET /ready", "GET /version", "GET /metrics"}
OPEN_PAGES = {"/", "/docs", "/redoc", "/openapi.json", "/docs/icon"}
METHODS = ("get", "put", "post", "delete", "patch")
MISSING = "This server asks for a key: send it in the header Authorization, as Bearer and the key."
UNKNOWN = "This server does not know the key that the header Authorization brings."


class Locked(Bench):
    """A bench whose server has keys: one for every set of scopes of at most two, and one for all."""

    def __init__(self, folder: Path, **bounds: Any) -> None:
        super().__init__()
        file = folder / "keys.json"
        sets = [*combinations(Scope, 1), *combinations(Scope, 2), tuple(Scope)]
        self.texts = {scopes: add_key(file, "-".join(each.value for each in scopes), scopes, **bounds) for scopes in sets}
        vars(self.services)["keys"] = Keyring(file, self.metrics.keys)
        vars(self.services)["rates"] = Rates("memory://", self.metrics.keys)
        vars(self.services).pop("gate", None)
        transport = httpx.ASGITransport(build_app(self.services), raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://shop.example")

    async def ask(self, operation: str, text: str | None) -> httpx.Response:
        method, path = operation.split(" ")
        url = path.format(user_id="nobody", name="nothing", version="none", item_id="none")
        return await self.client.request(method, url, headers={} if text is None else {"Authorization": f"Bearer {text}"})

    def counted(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def locked(tmp_path: Path) -> Locked:
    return Locked(tmp_path)


def operations(api: FastAPI) -> dict[str, list[dict[str, list[str]]] | None]:
    """What each operation of the document says of keys."""
    paths: Mapping[str, Mapping[str, Any]] = api.openapi()["paths"]
    return {
        f"{method.upper()} {path}": each.get("security")
        for path, methods in paths.items()
        for method, each in methods.items()
        if method in METHODS
    }


async def test_every_operation_has_one_scope_and_no_other_opens_it(locked: Locked):
    api = build_api(locked.services)
    assert api.openapi()["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    used = set()
    for operation, security in operations(api).items():
        if security is None:
            assert operation in OPEN
            assert (await locked.ask(operation, None)).status_code not in (401, 403)
            continue
        ((needed,),) = (each["key"] for each in security)
        used.add(needed)
        # Unknown keys are refused below this path alone, before the app hears of them.
        assert operation.partition(" ")[2].startswith("/v1/")
        assert_problem_of(await locked.ask(operation, None), 401, MISSING)
        assert_problem_of(await locked.ask(operation, "x"), 401, UNKNOWN)
        for scopes, text in locked.texts.items():
            status = (await locked.ask(operation, text)).status_code
            assert status != 401, operation
            assert (status == 403) == (needed not in [scope.value for scope in scopes]), (operation, scopes)
    assert used == {scope.value for scope in Scope}


def assert_problem_of(response: httpx.Response, status: int, sentence: str) -> None:
    assert_problem(response, status, sentence)
    challenge = 'Bearer realm="atspeed"' + (', error="invalid_token"' if sentence == UNKNOWN else "")
    assert response.headers["www-authenticate"] == challenge


def routes(all_routes: list[BaseRoute]) -> Iterator[str]:
    for route in all_routes:
        assert isinstance(route, Route | Mount)
        yield route.path


def test_nothing_is_served_beside_the_document_but_its_pages(locked: Locked):
    api = build_api(locked.services)
    assert set(routes(list(api.routes))) - set(api.openapi()["paths"]) - OPEN_PAGES == {
        path for path in routes(list(api.routes)) if path.startswith("/v1/users/{user_id:user}") or path.endswith("{item_id:path}")
    }


def test_an_operation_that_says_nothing_of_scopes_is_not_built(locked: Locked):
    router = APIRouter(route_class=strict_route(locked.services.gate))

    async def careless() -> None:
        """Says nothing."""

    with pytest.raises(TypeError, match="put @needs on careless"):
        router.add_api_route("/v1/careless", careless)


async def test_a_port_of_operations_is_the_only_one_that_takes_them(tmp_path: Path):
    """The document tells which they are: the scopes catalog and operate, and metrics."""
    locked = Locked(tmp_path)
    vars(locked.services)["operate_port"] = 8002
    vars(locked.services).pop("gate", None)
    app = build_app(locked.services)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    text = locked.texts[tuple(Scope)]
    for port in (80, 8002):
        locked.client = httpx.AsyncClient(transport=transport, base_url=f"http://shop.example:{port}")
        for operation, security in operations(build_api(locked.services)).items():
            operates = operation == "GET /metrics" or (security and security[0]["key"][0] in ("catalog", "operate"))
            answer = await locked.ask(operation, text)
            elsewhere = answer.status_code == 404 and answer.json()["type"] == "urn:atspeed:served-elsewhere"
            assert elsewhere == bool(operates and port == 80), operation


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER  {} "])
async def test_the_scheme_is_bearer_in_any_case(locked: Locked, form: str):
    for text, status in ((locked.texts[(Scope.RECOMMEND,)], 200), ("x", 401)):
        answer = await locked.client.get("/v1/catalog", headers={"Authorization": form.format(text)})
        assert answer.status_code == status
    basic = await locked.client.get("/v1/catalog", headers={"Authorization": "Basic eDp5"})
    assert_problem_of(basic, 401, MISSING)


async def test_a_key_that_lacks_a_scope_is_told_which_and_all_is_counted(locked: Locked):
    text = locked.texts[(Scope.RECOMMEND, Scope.EVENTS)]
    sentence = "This needs a key with the scope users; the key 'recommend-events' has events, recommend."
    assert_problem(await locked.ask("GET /v1/users/{user_id}/history", text), 403, sentence)
    await locked.ask("GET /v1/catalog", text)
    await locked.ask("GET /v1/catalog", None)
    await locked.ask("GET /v1/catalog", "wrong")
    assert locked.counted("atspeed_key_requests_total", key="recommend-events") == 1
    assert locked.counted("atspeed_key_refusals_total", key="recommend-events", reason="scope") == 1
    assert [locked.counted("atspeed_keyless_refusals_total", reason=reason) for reason in ("missing", "unknown")] == [1, 1]


async def test_largest_lists_and_requests_at_a_time_are_the_keys(tmp_path: Path):
    locked = Locked(tmp_path, max_k=2, max_width=4, concurrent=2)
    locked.client.headers["Authorization"] = f"Bearer {locked.texts[(Scope.RECOMMEND,)]}"
    assert_problem(await locked.recommend(k=3), 403, "The key 'recommend' may ask for a k of at most 2, got 3.")
    assert_problem(await locked.recommend(k=2, beam_width=5), 403, "The key 'recommend' may ask for a beam_width of at most 4, got 5.")
    entries = [{"history": ["item-1"], "k": k} for k in (1, 3)]
    batch = (await locked.client.post("/v1/recommendations:batch", json={"requests": entries})).json()["results"]
    assert [entry["status"] for entry in batch] == [200, 403]
    explained = await locked.client.post("/v1/recommendations:explain", json=entries[1])
    assert explained.status_code == 403
    assert locked.counted("atspeed_key_refusals_total", key="recommend", reason="size") == 4
    assert (await locked.recommend(k=2)).status_code == 200
    assert [submit.beam_width for submit in locked.engine.asked] == [4, 4]

    released = asyncio.Event()
    search = locked.engine.search

    async def slow(request: Any) -> Any:
        await released.wait()
        return await search(request)

    vars(locked.engine)["search"] = slow
    running = [asyncio.create_task(locked.recommend(k=1)) for _ in range(2)]
    for _ in range(20):
        await asyncio.sleep(0)
    refused = await locked.recommend(k=1)
    assert_problem(refused, 429, "The key 'recommend' has 2 requests running, as many as it may have at a time.")
    assert refused.headers["retry-after"] == "1"
    released.set()
    assert [answer.status_code for answer in await asyncio.gather(*running)] == [200, 200]
    assert (await locked.recommend(k=1)).status_code == 200


async def test_who_may_not_ask_waits_for_no_revision(locked: Locked):
    far = {"X-Min-Revision": "1000000"}
    events = {"Authorization": f"Bearer {locked.texts[(Scope.EVENTS,)]}"}
    for headers, status in (({}, 401), ({"Authorization": "Bearer atspeed_wrong"}, 401), (events, 403)):
        assert (await locked.client.get("/v1/catalogs", headers=far | headers)).status_code == status
    assert (await locked.client.get("/ready", headers=far)).status_code == 200


async def test_widths_of_levels_and_items_to_score_are_bounded_too(tmp_path: Path):
    locked = Locked(tmp_path, max_width=4, max_scored=3)
    locked.client.headers["Authorization"] = f"Bearer {locked.texts[(Scope.RECOMMEND,)]}"
    assert_problem(
        await locked.recommend(k=2, beam_widths=[2, 5]), 403, "The key 'recommend' may ask for a beam_width of at most 4, got 5."
    )
    assert_problem(await locked.recommend(k=5), 403, "The key 'recommend' may ask for a k of at most 4, got 5.")
    scored = [await locked.client.post("/v1/scores", json={"history": ["item-1"], "items": ["item-2"] * items}) for items in (3, 4)]
    assert scored[0].status_code == 200
    assert_problem(scored[1], 403, "The key 'recommend' may ask for the scores of at most 3 items, got 4.")
    assert locked.counted("atspeed_key_refusals_total", key="recommend", reason="size") == 3


async def test_a_batch_counts_by_its_lists_and_a_refusal_says_when_to_come_again(tmp_path: Path):
    locked = Locked(tmp_path, rate="4/minute")
    locked.client.headers["Authorization"] = f"Bearer {locked.texts[(Scope.RECOMMEND,)]}"

    async def ask_for(lists: int) -> httpx.Response:
        return await locked.client.post("/v1/recommendations:batch", json={"requests": [{"history": ["item-1"], "k": 1}] * lists})

    assert (await ask_for(3)).status_code == 200
    refused = await ask_for(3)
    assert_problem(refused, 429, "The key 'recommend' may ask for no more than 4/minute.")
    assert refused.headers["retry-after"] == "45"
    # Of a batch that is refused nothing has been counted; one that can't be read counts as a request like any other.
    assert (await ask_for(0)).status_code == 422
    for again in (locked.recommend(), ask_for(0), ask_for(1)):
        assert_problem(await again, 429, "The key 'recommend' may ask for no more than 4/minute.")
    assert locked.counted("atspeed_key_refusals_total", key="recommend", reason="rate") == 4
    locked.client.headers["Authorization"] = f"Bearer {locked.texts[(Scope.RECOMMEND, Scope.USERS)]}"
    for lists in (6, 5):
        # Not 429, which clients would repeat for ever.
        assert_problem(await ask_for(lists), 403, "The key 'recommend-users' may ask for 4/minute, and these are more lists at once.")
    assert locked.counted("atspeed_key_refusals_total", key="recommend-users", reason="size") == 2
    locked.client.headers["Authorization"] = f"Bearer {locked.texts[(Scope.RECOMMEND, Scope.EVENTS)]}"
    assert (await ask_for(4)).status_code == 200


async def test_what_a_used_up_key_brings_is_not_read(tmp_path: Path):
    """Requests that count by their body, too."""
    locked = Locked(tmp_path, rate="4/minute")
    locked.client.headers["Authorization"] = f"Bearer {locked.texts[(Scope.RECOMMEND,)]}"

    async def body() -> AsyncIterator[bytes]:
        pytest.fail("The body is read.")
        yield b""

    for _ in range(4):
        assert (await locked.recommend()).status_code == 200
    for path in ("/v1/recommendations:batch", "/v1/scores", "/v1/recommendations"):
        answer = await locked.client.post(path, content=body(), headers={"content-type": "application/json"})
        assert_problem(answer, 429, "The key 'recommend' may ask for no more than 4/minute.")
        assert answer.headers["retry-after"] == "15"
    assert locked.counted("atspeed_key_refusals_total", key="recommend", reason="rate") == 3


async def test_a_key_is_in_nothing_that_the_server_says_or_keeps(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Answers, logs, metrics and traces of requests that pass, that lack something, and that go wrong."""
    caplog.set_level("DEBUG")
    spans = InMemorySpanExporter()
    locked = Locked(tmp_path, rate="40/minute", max_k=5)
    vars(locked.services)["tracing"] = Tracing(SimpleSpanProcessor(spans))
    transport = httpx.ASGITransport(build_app(locked.services), raise_app_exceptions=False)
    held, wrong = locked.texts[(Scope.RECOMMEND,)], "atspeed_" + "Zz9" * 14
    said = []
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as client:
        for text in (held, wrong, held[:-1]):
            headers = {"Authorization": f"Bearer {text}"}
            for k, error in ((1, None), (9, None), (1, RuntimeError("broken"))):
                locked.engine.error = error
                said.append(await client.post("/v1/recommendations", json={"history": ["item-1"], "k": k}, headers=headers))
            for path in ("/v1/users/a/history", "/v1/catalog?key=1", "/nowhere", "/v1/catalog"):
                said.append(await client.get(path, headers=headers))
        said.append(await client.get("/metrics"))
    assert {answer.status_code for answer in said} == {200, 401, 403, 404, 422, 500}
    (tmp_path / "keys.json").write_text("{" + held)
    assert locked.services.keys is not None
    await locked.services.keys.look()
    traced = "".join(span.to_json() for span in spans.get_finished_spans())
    assert "/v1/recommendations" in traced
    everything = "".join([caplog.text, traced, *(answer.text + str(answer.headers.raw) for answer in said)])
    assert "'recommend'" in everything
    for secret in (held, wrong, held[:-1]):
        # httpx, which the test asks with, may log as it likes, but does not log headers.
        assert secret.removeprefix("atspeed_")[:12] not in everything


async def test_scores_count_by_hundreds_of_items(tmp_path: Path):
    locked = Locked(tmp_path, rate="4/minute")
    locked.client.headers["Authorization"] = f"Bearer {locked.texts[(Scope.RECOMMEND,)]}"

    async def ask_for(items: int) -> httpx.Response:
        return await locked.client.post("/v1/scores", json={"history": ["item-1"], "items": ["item-2"] * items})

    assert [(await ask_for(items)).status_code for items in (100, 201)] == [200, 200]
    assert_problem(await ask_for(1), 429, "The key 'recommend' may ask for no more than 4/minute.")
    locked.client.headers["Authorization"] = f"Bearer {locked.texts[(Scope.RECOMMEND, Scope.USERS)]}"
    for items in (1000, 401):
        assert_problem(await ask_for(items), 403, "The key 'recommend-users' may ask for 4/minute, and these are more lists at once.")
    locked.client.headers["Authorization"] = f"Bearer {locked.texts[(Scope.RECOMMEND, Scope.EVENTS)]}"
    assert (await ask_for(400)).status_code == 200


ELSEWHERE = (
    "This server has no keys, so from other machines, and through proxies, it only takes requests for lists, scores and items of the "
    "catalog; whoever runs it can give keys for the rest: atspeed serve --keys FILE."
)


LOCAL = [
    ("127.0.0.1", "127.0.0.1:8000"),
    ("127.8.7.6", "localhost"),
    ("::1", "[::1]:8000"),
    ("::ffff:127.0.0.1", "LOCALHOST:80"),
]
FOREIGN = [
    ("10.0.0.7", "localhost"),
    ("::ffff:10.0.0.7", "localhost"),
    ("testclient", "localhost"),
    (None, "localhost"),
    # A proxy on this machine that passes names on, and a page that a browser here has loaded under a name that leads here.
    ("127.0.0.1", "shop.example"),
    ("127.0.0.1", "localhost.evil.example"),
    ("127.0.0.1", "127.0.0.1.evil.example"),
]
PROXIES = ["x-forwarded-for", "x-forwarded-host", "forwarded", "via", "x-real-ip", "x-envoy-external-address"]


def test_this_machine_is_told_by_the_connection_the_name_and_what_proxies_add():
    for peer, host in LOCAL:
        assert is_local(peer, [(b"accept", b"*/*"), (b"host", host.encode())]), (peer, host)
    for peer, host in FOREIGN:
        assert not is_local(peer, [(b"host", host.encode())]), (peer, host)
    for origin, local in (("http://localhost:3000", True), ("https://[::1]", True), ("https://evil.example", False), ("null", False)):
        assert is_local("127.0.0.1", [(b"host", b"localhost"), (b"origin", origin.encode())]) is local, origin
    for name in PROXIES:
        assert not is_local("127.0.0.1", [(b"host", b"localhost"), (name.encode(), b"127.0.0.1")]), name


@pytest.mark.parametrize(
    ("told", "local"),
    [
        ({"sec-fetch-site": "cross-site", "sec-fetch-dest": "image"}, False),
        ({"sec-fetch-site": "cross-site", "sec-fetch-dest": "object"}, False),
        ({"sec-fetch-site": "cross-site", "sec-fetch-dest": "empty"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "cross-site", "sec-fetch-dest": "document"}, True),
        ({"sec-fetch-site": "cross-site", "sec-fetch-dest": "empty", "origin": "http://127.0.0.1:3000"}, True),
        ({"sec-fetch-site": "cross-site", "sec-fetch-dest": "document", "origin": "https://evil.example"}, False),
        ({"sec-fetch-site": "same-site", "sec-fetch-dest": "image"}, True),
        ({"sec-fetch-site": "same-origin", "sec-fetch-dest": "empty"}, True),
        ({"sec-fetch-site": "none", "sec-fetch-dest": "document"}, True),
    ],
)
def test_a_page_from_elsewhere_is_not_this_machine_where_its_browser_names_no_origin(told: dict[str, str], local: bool):
    headers = [(b"host", b"localhost"), *((name.encode(), value.encode()) for name, value in told.items())]
    assert is_local("127.0.0.1", headers) is local


@pytest.mark.parametrize(("peer", "local"), [("127.0.0.1", True), ("10.0.0.7", False)])
async def test_without_keys_other_machines_get_lists_only(peer: str, local: bool):
    bench = Bench()
    transport = httpx.ASGITransport(build_app(bench.services), raise_app_exceptions=False, client=(peer, 1))
    if local:
        assert set(operations(build_api(bench.services)).values()) == {None}
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as asking:
        listed = await asking.post("/v1/recommendations", json={"history": ["item-1"], "k": 1})
        assert listed.status_code == 200
        for path in ("/health", "/ready", "/metrics", "/docs", "/v1/catalog", "/v1/catalog/items"):
            assert (await asking.get(path)).status_code == 200
        for method, path in (
            ("POST", "/v1/users/a/events"),
            ("GET", "/v1/users/a/history"),
            ("DELETE", "/v1/users/a"),
            ("GET", "/v1/catalogs"),
            ("PUT", "/v1/catalogs/a"),
            ("PUT", "/v1/catalog/filters/a"),
            ("POST", "/v1/catalog/items"),
        ):
            answer = await asking.request(method, path)
            assert (answer.status_code == 403) != local, path
            if not local:
                assert_problem(answer, 403, ELSEWHERE)
    refused = bench.metrics.registry.get_sample_value("atspeed_keyless_refusals_total", {"reason": "elsewhere"})
    assert refused == (0 if local else 7)
