"""The pictures of docs/console.md: a server with an invented catalog and a random model, and its console in a browser.

Invariant: nothing in them is anybody's data. The catalog is made up here, and so are the users.

Run:  make screenshots
"""

import itertools
import json
import random
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from drafting.catalog.loading import load_catalog
from tests.models import save_random_model
from tests.server.console.conftest import CHROMIUM, PATIENCE_MS
from tests.server.server_process import ROOT, ServerProcess

FOLDER = ROOT / "docs" / "images"
WIDTH, HEIGHT = 1280, 860
MOST_BYTES = 150_000
ITEMS = 400
WORDS = (
    ("Silent", "Second", "Glass", "Northern", "Paper", "Golden", "Last", "Hollow", "Winter", "Distant", "Borrowed", "Quiet"),
    ("Harbour", "Garden", "Letter", "Orchard", "Signal", "Summer", "Lighthouse", "River", "Machine", "Island", "Carnival", "Mirror"),
)
GENRES = ("Comedy", "Crime", "Documentary", "Drama", "Mystery", "Romance", "Science fiction", "War")
USERS = {"ada": 7, "bruno": 11, "chloe": 3}


def invented_films(path: Path, seed: int = 5) -> Path:
    """A catalog of films that there are not."""
    chance = np.random.default_rng(seed)
    pairs = list(itertools.product(*WORDS))
    names = [name for first, second in pairs for name in (f"The {first} {second}", f"{first} {second}s", f"{second} of {first} Days")]
    lines = []
    for number, name in enumerate(chance.permutation(names)[:ITEMS], start=1):
        year = int(chance.integers(1962, 2026))
        item = {
            "item_id": f"{number}",
            "identifier": [f"<{'abc'[level]}_{chance.integers(24)}>" for level in range(3)],
            "title": f"{name} ({year})",
            "attributes": {"year": year, "genres": sorted(chance.choice(GENRES, 2, replace=False).tolist())},
        }
        lines.append(json.dumps(item))
    path.write_text("\n".join(lines) + "\n")
    return path


def prepare(server: ServerProcess, catalog: Path) -> None:
    """Users, filters and a second version, as an operator would bring them."""
    dice = random.Random(1)
    for user, number in USERS.items():
        films = [f"{dice.randint(1, ITEMS)}" for _ in range(number)]
        events = [{"item_id": film, "timestamp": 1_795_000_000 + 86_400 * day, "kind": "watch"} for day, film in enumerate(films)]
        server.client.post(f"/v1/users/{user}/events", json={"events": events}).raise_for_status()
    for name, expression in (("comedies", 'genres has "Comedy"'), ("since 2000", "year >= 2000")):
        server.client.put(f"/v1/catalog/filters/{name}", json={"expression": expression}).raise_for_status()
    for version, lines in (("2026-11-28", catalog.read_text().splitlines()[:-6]), ("2026-11-29", catalog.read_text().splitlines())):
        content = "\n".join(lines).encode()
        server.client.put(f"/v1/catalogs/{version}", content=content, headers={"Content-Type": "application/x-ndjson"}).raise_for_status()
        server.client.post(f"/v1/catalogs/{version}/activate", json={"by": "nightly import"}).raise_for_status()


def traffic(server: ServerProcess, end: threading.Event) -> None:
    """Lists for everyone, now more and now fewer."""
    dice = random.Random(2)
    while not end.wait(dice.choice((0.02, 0.1, 0.4))):
        server.recommend(user_id=dice.choice(list(USERS)), k=dice.choice((5, 10, 20)))


def try_it(page: Page) -> None:
    """A list that has changed with the history."""
    page.goto("/?user=ada")
    page.get_by_label("Add ").first.wait_for()
    page.get_by_label("Add ").nth(2).click()
    page.locator(".is-new").first.wait_for()


def why(page: Page) -> None:
    """The tree of a list, with one way stressed."""
    page.goto('/why?ask={"user_id":"ada","k":8,"beam_width":14}&user=ada')
    page.locator("svg.tree").wait_for()
    page.get_by_role("region", name="The list").get_by_role("button").first.click()
    page.locator(".node.chosen").first.wait_for()
    page.get_by_role("button", name="The beam").click()
    page.wait_for_timeout(3_000)


def operate(page: Page) -> None:
    """Figures under a little load."""
    page.goto("/operate")
    page.locator(".spark").wait_for()
    page.wait_for_timeout(15_000)


def items(page: Page) -> None:
    """An item, its neighbours, and its places in lists."""
    page.goto("/items?item=12")
    page.get_by_label("User ids").fill(", ".join(USERS))
    page.get_by_role("button", name="Look").click()
    page.locator(".bars li").first.wait_for()


def main() -> None:
    """Write all pictures, half of them dark."""
    if CHROMIUM is None:
        sys.exit("Chromium is not installed: make services does that.")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        catalog = invented_films(Path(folder) / "films.jsonl")
        model = save_random_model(Path(folder) / "films", load_catalog(catalog), hidden=64, layers=2, max_items=20, max_positions=512)
        flags = ["--target", str(model), "--catalog", str(catalog), "--histories", "memory://", "--timeout-ms", "20000"]
        with ServerProcess(Path(folder), *flags, "--console", "--console-port", "0") as server, sync_playwright() as playwright:
            prepare(server.wait_until_ready(), catalog)
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            for show, scheme in ((try_it, "light"), (why, "light"), (operate, "dark"), (items, "light")):
                context = browser.new_context(
                    base_url=str(server.client.get("/console").headers["location"]),
                    viewport={"width": WIDTH, "height": HEIGHT},
                    color_scheme=scheme,
                )
                context.set_default_timeout(PATIENCE_MS)
                page, end = context.new_page(), threading.Event()
                load = threading.Thread(target=traffic, args=(server, end))
                if show is operate:
                    load.start()
                show(page)
                end.set()
                if show is operate:
                    load.join()
                page.mouse.move(0, 0)
                path = FOLDER / f"console-{show.__name__.replace('_', '-')}.png"
                page.screenshot(path=path, animations="disabled")
                # A page has few colours, and a picture of few colours is a third as large.
                Image.open(path).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
                    path, optimize=True
                )
                context.close()
                print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")
                if path.stat().st_size > MOST_BYTES:
                    sys.exit(f"{path.name} is larger than {MOST_BYTES:,} bytes.")
            browser.close()


if __name__ == "__main__":
    main()
