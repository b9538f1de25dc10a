"""The README's way from a CSV to a list, followed literally: every command of its block, then a request over HTTP."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np

from benchmarks.server_process import Program
from tests.services import free_port
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


def test_five_commands_of_the_readme_lead_from_a_csv_to_a_list(tmp_path: Path) -> None:
    write_shop(tmp_path)
    port = free_port()
    # Nothing of the user's is touched, and a small machine is spared.
    settings = {"PORT": str(port), "ENGINE": "transformers", "THREADS": "1", "KV_MEMORY_GIB": "0.05"}
    environment = os.environ | {f"ATSPEED_{name}": value for name, value in settings.items()}
    environment |= {"PYTHONPATH": str(ROOT), "XDG_DATA_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    *making, serving = commands()
    assert len(making) == 4
    for command in making:
        assert command[0] == "atspeed"
        done = subprocess.run(
            [sys.executable, "-m", "server.cli", *command[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{shlex.join(command)}:\n{done.stdout}\n{done.stderr}"
    line = json.loads((tmp_path / "mine/items.jsonl").read_text().splitlines()[2])
    assert line == {"item_id": "sku-10", "title": "Thing, the 10th", "price": 15.0, "categories": ["kitchen", "garden"]}

    url = f"http://127.0.0.1:{port}"
    start = ["env", "-C", str(tmp_path), *(f"{name}={value}" for name, value in environment.items())]
    program = Program([*start, sys.executable, "-m", "server.cli", *serving[1:]], tmp_path / "serve.log", f"{url}/ready")
    with program, httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        expression = {"expression": 'price < 20 and categories has "garden"'}
        client.put("/v1/catalog/filters/cheap", json=expression).raise_for_status()
        body = {"user_id": "c3", "k": 5, "exclude_history": True, "filter": "cheap", "timeout_ms": 20_000}
        answer = client.post("/v1/recommendations", json=body)
        history = client.get("/v1/users/c3/history").json()["events"]
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
