"""The files of this project that one request meets: `atspeed-bench journey`.

Starts a real server on the benchmark's small random model, asks for a list of a stored user until everything is warm, and once more with
both processes recording which files run a function (`benchmarks/journey_hook/sitecustomize.py`). Prints the files and their number.
"""

import json
import os
import signal
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.load.small_model import make_model, served

_HOOK = Path(__file__).parent / "journey_hook"
_WARM_REQUESTS = 3
# Longer than the engine keeps reports back.
_SETTLE_SECONDS = 0.5


def journey(folder: Path, *flags: str) -> list[str]:
    """The distinct files of one `POST /v1/recommendations`, through both processes, by name."""
    make_model(folder)
    found = folder / "journey"
    found.mkdir()
    os.environ["ATSPEED_JOURNEY"] = str(found)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_HOOK), os.environ.get("PYTHONPATH")]))
    with served(folder, *flags) as server, server.api() as api:
        items = [json.loads(line)["item_id"] for line in (folder / "catalog.jsonl").read_text().splitlines()[:30]]
        api.append_events("traveller", [{"item_id": item} for item in items])
        for _ in range(_WARM_REQUESTS):
            api.recommend(user_id="traveller", k=10)
        processes = [psutil.Process(server.process.pid), server.engine]
        _toggle(processes)
        api.recommend(user_id="traveller", k=10)
        time.sleep(_SETTLE_SECONDS)
        _toggle(processes)
        time.sleep(_SETTLE_SECONDS)
    return sorted({name for file in found.iterdir() for name in file.read_text().splitlines()})


def _toggle(processes: "list[psutil.Process]") -> None:
    for process in processes:
        process.send_signal(signal.SIGUSR1)
    time.sleep(_SETTLE_SECONDS)


def run(flags: list[str]) -> None:
    """Print the files and their number."""
    with tempfile.TemporaryDirectory(prefix="atspeed-journey-") as folder:
        files = journey(Path(folder), *flags)
    print("\n".join(files))
    print(f"{len(files)} files")
