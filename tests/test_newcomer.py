"""The README's way from a CSV to a list, followed literally: every command of its block, then a request over HTTP."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.server.forked_server import ForkedServer, start_atspeed
from tests.test_docs import FENCE, README, ROOT

USERS, ITEMS, STEPS = 24, 16, 8


def commands() -> list[list[str]]:
    """The commands of the block that begins with `atspeed prepare`."""
    (block,) = (text for _, text in FENCE.findall(README.read_text()) if text.startswith("atspeed prepare "))
    return [shlex.split(line) for line in block.splitlines()]


def write_shop(folder: Path) -> None:
    """Users who walk through the items in order, with milliseconds and names of columns as a shop may have them."""
    rng = np.random.default_rng(0)
    rows = [f"c{user},sku-{(start + step) % ITEMS},{1_700_000_000_000 + 1000 * step},view" for user in range(USERS)
            for start in [int(rng.integers(ITEMS))] for step in range(STEPS)]  # fmt: skip
    rng.shuffle(rows)
    (folder / "interactions.csv").write_text("customer_id,product_id,created_at,event\n" + "\n".join(rows) + "\n")
    items = [f'sku-{item},"Thing, the {item}th",{item * 1.5},kitchen|garden' for item in range(ITEMS)]
    (folder / "items.csv").write_text("product_id,name,price,categories\n" + "\n".join(items) + "\n")


def test_five_commands_of_the_readme_lead_from_a_csv_to_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shop(tmp_path)
    # Nothing of the user's is touched, and a small machine is spared, and waited for.
    settings = {
        "ATSPEED_ENGINE": "transformers",
        "ATSPEED_THREADS": "1",
        "ATSPEED_KV_MEMORY_GIB": "0.05",
        "ATSPEED_HISTORY_TIMEOUT_MS": "5000",
    }
    for name, value in (settings | {"PYTHONPATH": str(ROOT), "XDG_DATA_HOME": str(tmp_path / "home")}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (_, *preparing), *making, serving = commands()
    assert [command[0] for command in making] == ["atspeed"] * 3
    # A program of its own; the others are forked from a process that has imported the model libraries.
    subprocess.run([sys.executable, "-m", "server.cli", *preparing], check=True)
    for _, *arguments in making:
        assert start_atspeed(arguments, log := tmp_path / "making.log").wait(240) == 0, f"{shlex.join(arguments)}:\n{log.read_text()}"
    line = json.loads((tmp_path / "mine/items.jsonl").read_text().splitlines()[2])
    assert line == {"item_id": "sku-10", "title": "Thing, the 10th", "price": 15.0, "categories": ["kitchen", "garden"]}

    assert serving[:2] == ["atspeed", "serve"]
    with ForkedServer(tmp_path, *serving[2:], "--plan", "auto") as server:
        client = server.wait_until_ready().client
        expression = {"expression": 'price < 20 and categories has "garden"'}
        client.put("/v1/catalog/filters/cheap", json=expression).raise_for_status()
        body = {"user_id": "c3", "k": 5, "exclude_history": True, "filter": "cheap", "timeout_ms": 20_000}
        answer = client.post("/v1/recommendations", json=body)
        shown = client.get("/v1/users/c3/history")
    assert shown.status_code == 200, shown.text
    history = shown.json()["events"]
    assert answer.status_code == 200, answer.text
    seen = [event["item_id"] for event in history]
    assert len(seen) == STEPS
    assert {event["kind"] for event in history} == {"view"}
    found = answer.json()["items"]
    prices = {f"sku-{item}": item * 1.5 for item in range(ITEMS)}
    eligible = {item for item, price in prices.items() if price < 20} - set(seen)
    assert {item["item_id"] for item in found} <= eligible
    assert len(found) == min(5, len(eligible))
    assert all(item["title"].startswith("Thing, the") for item in found)
