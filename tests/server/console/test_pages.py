"""The console's pages do their job in a browser against a real server."""

from typing import Any

import psutil
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from server.http.console import MODULE
from tests.server.console.conftest import USERS
from tests.server.server_process import ServerProcess

PAGES = ["/?user=ann"]
ITEMS = ".items:not(.plain) > li"


def titles(server: ServerProcess, **body: Any) -> list[str]:
    """The titles of a list, as the server tells anybody."""
    return [item["title"] for item in server.recommend(k=10, **body).json()["items"]]


def expect_list(page: Page, expected: list[str]) -> None:
    expect(page.locator(f"{ITEMS} .title")).to_have_text(expected)


def choose(page: Page, label: str, option: str) -> None:
    page.get_by_role("combobox", name=label).click()
    page.get_by_role("option", name=option).click()


def test_the_server_leads_to_its_console(with_console: ServerProcess):
    assert with_console.client.get("/").headers["location"] == "/console"
    place = with_console.client.get("/console").headers["location"]
    assert f"the console is at {place.removesuffix(chr(47))}\n" in with_console.log


def test_a_list_follows_the_user_the_history_and_the_request(page: Page, with_console: ServerProcess):
    page.goto("/")
    page.get_by_label("User id").fill("ann")
    page.keyboard.press("Enter")
    first = titles(with_console, user_id="ann")
    expect_list(page, first)
    expect(page.locator(".badge.new")).to_have_count(0)

    page.get_by_label("Leave out Title 14").click()
    second = titles(with_console, history=["item-3", "item-15"])
    assert second != first
    expect_list(page, second)
    expect(page.locator(".is-new")).to_have_count(len(set(second) - set(first)))

    page.get_by_label("Add an item").fill("item-92")
    page.get_by_label("Add Title 92 to the history").click()
    expect_list(page, titles(with_console, history=["item-3", "item-15", "item-92"]))

    choose(page, "Filter", "few")
    filtered = titles(with_console, history=["item-3", "item-15", "item-92"], filter="few")
    expect_list(page, filtered)
    assert all(int(title.removeprefix("Title ")) < 40 for title in filtered)

    # The address says all of it.
    page.reload()
    expect_list(page, filtered)
    page.get_by_role("button", name="Undo").click()
    expect_list(page, titles(with_console, user_id="ann", filter="few"))


def test_what_the_server_refuses_is_told_in_its_own_words(page: Page, with_console: ServerProcess):
    page.goto('/?ask={"user_id":"ann","filter":"nothing"}')
    expect(page.get_by_role("alert")).to_have_text(with_console.recommend(user_id="ann", filter="nothing").json()["detail"])


def test_dark_stays_dark(page: Page):
    page.goto("/")
    page.get_by_label("Light or dark").click()
    expect(page.locator("body.body--dark")).to_be_attached()
    page.reload()
    expect(page.locator("body.body--dark")).to_be_attached()


@pytest.mark.parametrize("address", PAGES)
def test_everyone_can_read_it(page: Page, address: str):
    """In light and dark, by screen readers, and on a telephone."""
    page.set_viewport_size({"width": 360, "height": 640})
    page.goto(address)
    expect(page.locator(ITEMS).first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for _ in range(2):
        violations = Axe().run(page).response["violations"]
        assert [found["id"] for found in violations if found["impact"] in ("serious", "critical")] == []
        page.get_by_label("Light or dark").click()


def test_a_console_that_dies_changes_no_list_and_comes_back(page: Page, with_console: ServerProcess):
    page.goto("/?user=bob")
    expect_list(page, titles(with_console, user_id="bob"))
    first = console_process(with_console)
    first.kill()
    assert titles(with_console, user_id="bob") == titles(with_console, history=USERS["bob"])
    with_console.wait_for(lambda: not first.is_running())
    page.goto("/?user=bob")
    expect_list(page, titles(with_console, user_id="bob"))
    assert console_process(with_console) != first


def console_process(server: ServerProcess) -> psutil.Process:
    (process,) = (child for child in psutil.Process(server.process.pid).children() if MODULE in child.cmdline())
    return process
