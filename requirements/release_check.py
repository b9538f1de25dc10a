"""Check a release as a user meets it: the built wheel, installed by plain pip, serves a list.

The wheel is built from a copy of the files that git knows, installed with its extra `cpu` into an empty virtual environment, dependencies
resolved by pip, and run from an empty directory without the repository on the path: it makes a small random model and a catalog, serves
them with each engine, and answers requests. Needs about 3 GB of disk and, beside the download of 1 GB, five minutes.

Run:  python requirements/release_check.py [--folder DIR]      (DIR is kept; without it a temporary one is removed)
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
FLOORS = ("drafting", "verification", "server")
# Where the CPU build of PyTorch is found if the default index does not have it.
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
STARTUP_S = 180.0
STOP_S = 30.0
# The check is not about speed: on a busy machine a list may take long.
TIMEOUT_MS = 60_000
LIST = 5

MAKE_FILES = """
import json, sys
from pathlib import Path
import server
assert Path(server.__file__).is_relative_to(sys.prefix), f"{server.__file__} is not the installed package"
from benchmarks.systems.shapes import SHAPES, make_catalog, make_checkpoint
catalog = make_catalog(SHAPES["tiny"])
make_checkpoint(Path("model"), SHAPES["tiny"].target, catalog)
index = {catalog.item_ids[item]: catalog.identifier(item) for item in range(len(catalog))}
Path("catalog.json").write_text(json.dumps(index))
"""


def say(sentence: str) -> None:
    """Print a step with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {sentence}", flush=True)


def build_wheel(folder: Path) -> Path:
    """Build the wheel into `dist/` from a copy of the files that git knows, so that nothing else can get into it."""
    source = folder / "source"
    names = subprocess.run(
        ["git", "ls-files", "-z", *FLOORS, "benchmarks", "*.toml", "README.md", "LICENSE"], cwd=REPOSITORY, capture_output=True, check=True
    )
    for name in filter(None, names.stdout.decode().split("\0")):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, target)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", REPOSITORY / "dist", source], check=True)
    wheel = max((REPOSITORY / "dist").glob("atspeed_server-*.whl"), key=lambda path: path.stat().st_mtime)
    with zipfile.ZipFile(wheel) as archive:
        missing = {f"{floor}/py.typed" for floor in FLOORS} - set(archive.namelist())
    if missing:
        raise SystemExit(f"{wheel.name} lacks {', '.join(sorted(missing))}.")
    return wheel


def install(wheel: Path, environment: Path) -> Path:
    """Make an empty virtual environment and install the wheel with its extra `cpu`; returns its folder of programs."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
    programs = environment / "bin"
    command: list[str | Path] = [programs / "python", "-m", "pip", "install", "--quiet", f"{wheel}[cpu]"]
    if subprocess.run(command).returncode:
        say(f"The default index does not have all of it: trying again with {TORCH_INDEX} beside it.")
        subprocess.run([*command, "--extra-index-url", TORCH_INDEX], check=True)
    return programs


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def ask(url: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    """GET, or POST if there is a body; returns the status and the answer's JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def is_ready(url: str) -> bool:
    """Whether the server answers that it is ready."""
    try:
        return ask(f"{url}/ready")[0] == 200
    except OSError:
        return False


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Wait for a condition; a process that ends first, or no time left, is an error."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            raise SystemExit(f"The server ended with status {process.returncode} before it was ready.")
        if time.monotonic() > end:
            raise SystemExit(f"The server was not ready within {seconds:.0f} s.")
        time.sleep(0.5)


def serve_a_list(programs: Path, folder: Path, environ: dict[str, str], engine: str) -> None:
    """Start the server in the folder, ask for a list, stop it."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    options = ["--target", "model", "--catalog", "catalog.json", "--histories", "memory://", "--engine", engine, "--port", str(port)]
    process = subprocess.Popen([programs / "atspeed", "serve", *options, "--kv-memory-gib", "0.1"], cwd=folder, env=environ)
    try:
        started = time.monotonic()
        wait_for(lambda: is_ready(url), process, STARTUP_S)
        items = json.loads((folder / "catalog.json").read_text())
        status, answer = ask(f"{url}/v1/recommendations", {"history": list(items)[:3], "k": LIST, "timeout_ms": TIMEOUT_MS})
        if status != 200:
            raise SystemExit(f"{engine}: the server answered {status}: {answer}")
        names = [item["item_id"] for item in answer["items"]]
        if len(names) < LIST or not set(names) <= set(items):
            raise SystemExit(f"{engine}: these are not {LIST} items of the catalog: {names}")
        process.send_signal(signal.SIGTERM)
        if process.wait(STOP_S):
            raise SystemExit(f"{engine}: the server ended with status {process.returncode} after SIGTERM.")
        say(f"{engine}: 200 with {', '.join(names)}, {time.monotonic() - started:.0f} s from start to stop.")
    finally:
        process.kill()


def check(folder: Path) -> None:
    """Build, install, make a model, serve."""
    wheel = build_wheel(folder)
    say(f"Built {wheel.name}, {wheel.stat().st_size / 1024:.0f} KiB. Installing it with its extra `cpu` ...")
    programs = install(wheel, folder / "environment")
    say("Installed.")
    empty = folder / "empty"
    empty.mkdir()
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ATSPEED_"))}
    subprocess.run([programs / "python", "-c", MAKE_FILES], cwd=empty, env=environ, check=True)
    for engine in ("vllm", "transformers"):
        serve_a_list(programs, empty, environ, engine)
    subprocess.run([programs / "atspeed-bench", "--help"], cwd=empty, env=environ, check=True, stdout=subprocess.DEVNULL)
    say("The release serves.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="an empty or missing folder to work in, which is kept")
    folder = parser.parse_args().folder
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        check(folder.resolve())
    else:
        with tempfile.TemporaryDirectory(prefix="atspeed-release-") as temporary:
            check(Path(temporary))


if __name__ == "__main__":
    main()
