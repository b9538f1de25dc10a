"""The console's pages do their job in a browser against a real server."""

import json
import re
from pathlib import Path
from typing import Any

import psutil
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from drafting.catalog.catalog import Catalog
from server.console.lists.why import OTHERS
from server.http.console import MODULE
from tests.server.console.conftest import PATIENCE_MS, USERS
from tests.server.server_process import ServerProcess

ITEMS = ".items:not(.plain) > li"
CELLS = "body => [...body.rows].map(row => [...row.cells].map(cell => cell.textContent))"
# Pages, and what is there when they are.
PAGES = [("/?user=ann", ITEMS), ("/why?user=ann", "svg.tree"), ("/operate", ".tile"), ("/items?item=item-3", ".facts")]


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
    expect(page.get_by_label("Leave out Title 3")).to_be_focused()
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
    page.goto('/?ask={"user_id":"ann","filter":{"not":["few"]}}')
    expect_list(page, titles(with_console, user_id="ann", filter={"not": ["few"]}))
    choose(page, "Filter", "few (40)")
    expect_list(page, titles(with_console, user_id="ann", filter="few"))
    page.goto('/?ask={"history":["item-3","item-15","item-92"],"filter":"few"}&user=ann')
    expect_list(page, filtered)
    page.get_by_role("button", name="Undo").click()
    expect_list(page, titles(with_console, user_id="ann", filter="few"))


def test_picked_items_are_scored_for_the_history_that_is_shown(page: Page, with_console: ServerProcess):
    def rows(**whom: Any) -> list[list[str]]:
        body = {"items": ["item-7", "item-92"]} | whom
        items = with_console.client.post("/v1/scores", json=body).json()["items"]
        lines = sorted(items, key=lambda item: item["rank"])
        return [[str(each["rank"]), each["item_id"].replace("item-", "Title "), each["item_id"], f"{each['score']:.2f}"] for each in lines]

    page.goto("/?user=ann")
    for number in (92, 7):
        page.get_by_label("Score an item").fill(f"item-{number}")
        page.get_by_label(f"Score Title {number}", exact=True).click()
        expect(page.get_by_label("Scores", exact=True).locator("td", has_text=f"item-{number}")).to_be_visible()
    body = page.locator("table[aria-label=Scores] tbody")
    assert body.evaluate(CELLS) == rows(user_id="ann")
    page.get_by_label("Leave out Title 14").click()
    changed = rows(history=["item-3", "item-15"])
    expect(body.locator("tr").first).to_contain_text(changed[0][3])
    assert body.evaluate(CELLS) == changed != rows(user_id="ann")


def test_what_the_server_refuses_is_told_in_its_own_words(page: Page, with_console: ServerProcess):
    page.goto('/?ask={"user_id":"ann","filter":"nothing"}')
    expect(page.get_by_role("alert")).to_have_text(with_console.recommend(user_id="ann", filter="nothing").json()["detail"])
    page.goto('/?ask={"user_id":"ann","diversity":{"attribute":"title","at_most":1}}')
    expect_list(page, titles(with_console, user_id="ann"))
    expect(page.get_by_label("Most items of a value")).to_have_value("title=1")
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Most items of a value").fill("title=1, shelf=2")
    asked = [{"attribute": "title", "at_most": 1}, {"attribute": "shelf", "at_most": 2}]
    expect(page.get_by_role("alert")).to_have_text(with_console.recommend(user_id="ann", diversity=asked).json()["detail"])
    page.goto('/?ask={"user_id":"ann","k":10,"tolerance":{"items":1}}')
    expect_list(page, titles(with_console, user_id="ann", tolerance={"items": 1}))
    page.get_by_text("More", exact=True).click()
    expect(page.get_by_label("Others at most")).to_have_value("1")
    page.get_by_label("Others at most").fill("10")
    expect(page.get_by_role("alert")).to_have_text(with_console.recommend(user_id="ann", tolerance={"items": 10}).json()["detail"])


def test_the_tree_has_the_engines_own_numbers(page: Page, with_console: ServerProcess):
    body = {"user_id": "ann", "k": 5, "beam_width": 8}
    page.goto(f"/?ask={json.dumps(body)}")
    page.get_by_role("link", name="Why this list?").click()
    answer = with_console.client.post("/v1/recommendations:explain", json=body | {"others": OTHERS}).json()
    levels = answer["explanation"]["levels"]
    expect(page.locator(".tree .node")).to_have_count(
        sum(len({path[depth] for path in answer["explanation"]["paths"]}) for depth in range(3))
    )
    page.get_by_role("button", name="The beam").click()
    expect(page.locator(".tree .node:not(.cut)")).to_have_count(sum(node["in_beam"] for level in levels for node in level["nodes"]))
    page.get_by_role("button", name="And what was cut").click()
    expect(page.locator(".tree .node")).to_have_count(sum(len(level["nodes"]) for level in levels))

    expect(page.locator("table[aria-label=Prefixes] tbody tr")).to_have_count(sum(len(level["nodes"]) for level in levels))
    shown = page.locator("table[aria-label=Prefixes] tbody").evaluate(CELLS)
    told = [(level["depth"], node) for level in levels for node in level["nodes"]]
    assert [(depth, token, rank) for depth, token, _, _, rank, *_ in shown] == [
        (str(depth), node["token"], str(node.get("rank", "cut"))) for depth, node in told
    ]
    assert [float(row[3]) for row in shown] == pytest.approx([node["log_prob"] for _, node in told], abs=2e-3)

    # Two lists beside each other: the one that was kept, and another.
    page.get_by_role("button", name="Keep this list").click()
    choose(page, "Filter", "few")
    lists = page.get_by_role("list", name="Recommended items")
    filtered = with_console.recommend(**body, filter="few").json()["items"]
    expect(lists.nth(1).locator(".title")).to_have_text([item["title"] for item in filtered])
    expect(lists.nth(0).locator(".title")).to_have_text([item["title"] for item in answer["items"]])


def test_an_operator_sees_figures_and_changes_what_is_served(page: Page, with_console: ServerProcess, catalog: Catalog, catalog_file: Path):
    api = with_console.client
    first = api.get("/v1/catalog").json()["version"]
    upload = {"content": catalog_file.read_bytes(), "headers": {"Content-Type": "application/x-ndjson"}}
    api.put("/v1/catalogs/second", **upload).raise_for_status()
    page.goto("/operate")
    count = f"{with_console.metric('atspeed_plan_decisions_total'):,.0f}"
    expect(page.get_by_role("table", name="Latency of lists").get_by_role("row", name="lists")).to_contain_text(count)

    page.get_by_role("button", name="Activate second").click()
    page.get_by_role("dialog").get_by_role("button", name="Activate").click()
    expect(page.get_by_text("Version second is served.")).to_be_visible()
    assert api.get("/v1/catalogs").json()["active"] == "second"
    # The versions are shown anew, and with them an empty comparison.
    expect(page.get_by_role("button", name=f"Activate {first}")).to_be_visible()
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("0 added")).to_be_visible()
    page.get_by_role("button", name="Roll back").click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("button", name="Activate second")).to_be_visible()
    assert api.get("/v1/catalogs").json()["active"] == first

    filters = page.get_by_role("region", name="Filters")
    filters.get_by_label("Name").fill("most")
    filters.get_by_label("Expression").fill('title != "Title 3"')
    page.keyboard.press("Enter")
    expect(filters.get_by_text(f"{len(catalog) - 1} of {len(catalog)} items")).to_be_visible()
    filters.get_by_label("A sample of the filter most").click()
    expect(filters.get_by_text(re.compile(r"^(Title \d+, )+Title \d+$"))).to_be_visible()
    filters.get_by_label("Expression").fill("title !")
    page.keyboard.press("Enter")
    refused = api.put("/v1/catalog/filters/most", json={"expression": "title !"}).json()["detail"]
    expect(page.get_by_text(refused)).to_be_visible()

    events = page.get_by_role("region", name="Events of a user")
    events.get_by_label("User id").fill("bob")
    page.keyboard.press("Enter")
    events.get_by_label("Item id").fill("item-35")
    page.keyboard.press("Enter")
    expect(events.locator(".title").first).to_have_text("Title 35")
    assert [event["item_id"] for event in api.get("/v1/users/bob/history").json()["events"]] == [*USERS["bob"], "item-35"]
    events.get_by_label("Delete Title 35").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(events.get_by_text("Title 35")).to_have_count(0)
    assert [event["item_id"] for event in api.get("/v1/users/bob/history").json()["events"]] == USERS["bob"]


def test_an_item_is_found_with_its_neighbours_and_its_places_in_lists(page: Page, with_console: ServerProcess):
    best = with_console.recommend(user_id="ann", k=50).json()["items"]
    item = best[6]
    page.goto("/items")
    page.get_by_label("Title or id").fill(item["item_id"])
    page.get_by_role("region", name="Find").get_by_role("button", name=item["title"], exact=True).click()
    expect(page.get_by_role("heading", name=item["title"])).to_be_visible()
    alike = with_console.client.get(f"/v1/catalog/like/{item['item_id']}").json()["alike"]
    neighbours = page.get_by_role("region", name="Neighbours in the trie")
    for group in alike:
        if group["count"]:
            expect(neighbours.get_by_text("They share " + " ".join(group["shared"]), exact=False).first).to_be_visible()
    expect(neighbours.get_by_role("button")).to_have_text([each["title"] for group in alike for each in group["items"][:12]])

    page.get_by_label("User ids").fill("ann, bob")
    page.keyboard.press("Enter")
    places = page.get_by_role("region", name="In lists of users").get_by_role("listitem")
    expect(places.first).to_contain_text(str(item["rank"]))
    ranks = {each["item_id"]: each["rank"] for each in with_console.recommend(user_id="bob", k=50).json()["items"]}
    expect(places.last).to_contain_text(str(ranks.get(item["item_id"], "not among the first 50")))


def test_a_form_says_what_it_lacks(page: Page):
    for address, label, button in (("/", "User id", "Show"), ("/operate", "Name", "Name it"), ("/items?item=item-3", "User ids", "Look")):
        page.goto(address)
        page.get_by_role("button", name=button, exact=True).first.click()
        field = page.get_by_label(label).first
        expect(field).to_be_focused()
        assert field.evaluate("field => field.validity.valueMissing")


def test_a_request_is_copied_where_the_page_has_no_clipboard(page: Page):
    """As of every console that is called by HTTP and another name than its machine's own."""
    page.add_init_script("Object.defineProperty(Navigator.prototype, 'clipboard', {get: () => undefined})")
    page.goto("/?user=ann")
    page.get_by_text("As curl, as Python").click()
    page.get_by_role("button", name="Copy curl").click()
    expect(page.get_by_text(re.compile("^(Copied|It is selected)"))).to_be_visible()
    shown = page.get_by_role("region", name="curl", exact=True)
    assert page.evaluate("getSelection().toString()") == shown.inner_text()


def test_dark_stays_dark(page: Page, with_console: ServerProcess):
    page.goto("/")
    # It is there before the rest of the page, which begins with what the browser has chosen.
    expect(page.get_by_role("status")).to_contain_text("catalog")
    page.get_by_label("Light or dark").click()
    expect(page.locator("body.body--dark")).to_be_attached()
    # Whatever comes to the page afterwards.
    page.get_by_label("User id").fill("ann")
    page.keyboard.press("Enter")
    expect_list(page, titles(with_console, user_id="ann"))
    expect(page.locator("body.body--dark")).to_be_attached(timeout=5000)
    page.reload()
    expect(page.locator("body.body--dark")).to_be_attached()


@pytest.mark.parametrize(("address", "shown"), PAGES)
def test_everyone_can_read_it(page: Page, address: str, shown: str):
    """In light and dark, by screen readers, and on a telephone."""
    page.set_viewport_size({"width": 360, "height": 640})
    page.goto(address)
    expect(page.locator(shown).first).to_be_visible()
    expect(page).to_have_title(f"{page.locator('h1').inner_text()} · atspeed console")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for _ in range(2):
        violations = Axe().run(page).response["violations"]
        assert [found["id"] for found in violations if found["impact"] in ("serious", "critical")] == []
        page.get_by_label("Light or dark").click()


def test_a_console_that_dies_changes_no_list_and_comes_back(page: Page, with_console: ServerProcess):
    page.goto("/?user=ann")
    expect_list(page, titles(with_console, user_id="ann"))
    first = console_process(with_console)
    first.kill()
    assert titles(with_console, user_id="ann") == titles(with_console, history=USERS["ann"])
    with_console.wait_for(lambda: not first.is_running())
    # The old page loads itself again when it can.
    another = page.context.new_page()
    another.goto("/?user=ann")
    expect_list(another, titles(with_console, user_id="ann"))
    assert console_process(with_console) != first


def console_process(server: ServerProcess) -> psutil.Process:
    (process,) = (child for child in psutil.Process(server.process.pid).children() if MODULE in child.cmdline())
    return process


def test_a_key_is_asked_for_and_stays_in_its_tab(browser: Browser, with_console: ServerProcess):
    context = browser.new_context(base_url=str(with_console.client.get("/console").headers["location"]))
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto("/operate")
    page.get_by_label("Key").last.fill("atspeed_wrong")
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_role("alert")).to_have_text("The server does not know this key.")
    page.get_by_label("Key").last.fill(with_console.client.headers["Authorization"].removeprefix("Bearer "))
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_role("heading", name="Versions of the catalog")).to_be_visible()
    page.goto("/items")
    expect(page.get_by_text("Choose an item.")).to_be_visible()
    other = context.new_page()
    other.goto("/items")
    expect(other.get_by_text("The server asks for a key.")).to_be_visible()
    page.get_by_role("button", name="Another key").click()
    expect(page.get_by_text("The server asks for a key.")).to_be_visible()
    context.close()


def test_nobody_sees_whom_others_asked_for(page: Page, browser: Browser, with_console: ServerProcess, lists_key: str):
    ann = {"name": "User ann", "exact": True}
    page.goto("/?user=ann")
    expect(page.get_by_role("button", **ann)).to_be_visible()
    # The tab hears of whom to keep after it has heard of the button.
    page.wait_for_function("sessionStorage.getItem('atspeed-users') !== null")
    page.goto("/operate")
    expect(page.get_by_role("button", **ann)).to_be_visible()
    page.goto("/items?item=item-3")
    expect(page.get_by_label("User ids")).to_have_value("ann")

    context = browser.new_context(base_url=page.url)
    context.set_default_timeout(PATIENCE_MS)
    context.add_init_script(f"sessionStorage.setItem('atspeed-key', '{lists_key}')")
    other = context.new_page()
    other.goto("/items?item=item-3")
    expect(other.get_by_label("User ids")).to_have_value("")
    # With a key for lists alone there are lists, and a sentence in the place of the history.
    other.goto("/?user=bob")
    expect_list(other, titles(with_console, user_id="bob"))
    expect(other.get_by_text("This needs a key with the scope users")).to_be_visible()
    expect(other.get_by_role("button", name="User bob", exact=True)).to_be_visible()
    expect(other.get_by_role("button", **ann)).to_have_count(0)
    context.close()

    page.goto("/?user=nobody")
    expect(page.get_by_role("heading", name="popular items")).to_be_visible()
    expect(page.get_by_role("button", **ann)).to_be_visible()
    expect(page.get_by_role("button", name="User nobody")).to_have_count(0)
