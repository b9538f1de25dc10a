"""One server with its console and one browser, for all tests of the pages; each test has a page of its own.

Invariant: the browser reaches nothing but this machine. What a page asks of another host is refused, and fails the test.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from nicegui import Client, core, ui
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from server.keys.file import add_key
from server.keys.key import Scope
from tests.server.forked_server import ForkedServer
from tests.server.server_process import ServerProcess

CHROMIUM = shutil.which("chromium")
PATIENCE_MS = 60_000
# Other workers take the processors for as long.
expect.set_options(timeout=PATIENCE_MS)
# Where there is no GPU, Chromium would have one computed by the processor, and draw by that.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-software-rasterizer"]
USERS = {"ann": ["item-3", "item-14", "item-15"], "bob": ["item-92", "item-65"]}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's file of keys."""
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def lists_key(keys: Path) -> str:
    """A key that is good for lists alone."""
    return add_key(keys, "lists", [Scope.RECOMMEND])


@pytest.fixture(scope="module")
def with_console(model_flags: list[str], keys: Path, lists_key: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with keys, users, a filter and a console; its client has a key."""
    folder = tmp_path_factory.mktemp("with-console")
    text = add_key(keys, "people", list(Scope))
    flags = ["--keys", str(keys), "--histories", "memory://", "--timeout-ms", "20000", "--plan", "auto"]
    flags += ["--console", "--console-port", "0"]
    with ForkedServer(folder, *model_flags, *flags) as server:
        server.wait_until_ready().client.headers["Authorization"] = f"Bearer {text}"
        for user, items in USERS.items():
            events = [{"item_id": item, "timestamp": 1_700_000_000 + place} for place, item in enumerate(items)]
            server.client.post(f"/v1/users/{user}/events", json={"events": events}).raise_for_status()
        server.client.put("/v1/catalog/filters/few", json={"items": [f"item-{each}" for each in range(40)]}).raise_for_status()
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium. It is closed with the file: while it runs, no test of this process can have an event loop."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: make services does that.")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, with_console: ServerProcess) -> Iterator[Page]:
    """A page of the console, found as people find it."""
    context = browser.new_context(base_url=str(with_console.client.get("/console").headers["location"]))
    context.set_default_timeout(PATIENCE_MS)
    foreign: list[str] = []

    def guard(route: Route) -> None:
        if urlsplit(route.request.url).hostname == "127.0.0.1":
            route.continue_()
        else:
            foreign.append(route.request.url)
            route.abort()

    context.route("**/*", guard)
    key = with_console.client.headers["Authorization"].removeprefix("Bearer ")
    context.add_init_script(f"sessionStorage.setItem('atspeed-key', '{key}')")
    shown = context.new_page()
    broken: list[str] = []
    shown.on("pageerror", lambda error: broken.append(str(error)))
    yield shown
    context.close()
    assert (foreign, broken) == ([], [])


@pytest.fixture
async def shown(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    """A page that nobody looks at."""
    monkeypatch.setattr(core, "loop", asyncio.get_running_loop())
    client = Client(ui.page(""))
    yield client
    client.delete()
