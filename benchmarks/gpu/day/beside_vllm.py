"""The part that needs vLLM, and all that a server needs."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from importlib.util import find_spec
from pathlib import Path

from benchmarks.gpu.day.results import Measured
from benchmarks.gpu.day.scale import Scale
from drafting.errors import SetupError

ROOT = Path(__file__).parents[3]


class NotHere(SetupError):
    """Something that a part needs is not on this machine; the message is a sentence."""


def bench_vllm(scale: Scale, done: Collection[str]) -> Iterator[Measured]:
    """Our engine on vLLM and on transformers against vLLM's own beam search: `atspeed-bench bench`.

    Raises:
        NotHere: vLLM, or what the command needs, is not installed.
    """
    if missing := [name for name in ("vllm", "typer", "httpx", "fastapi") if find_spec(name) is None]:
        raise NotHere(f"Not installed: {', '.join(missing)}.")
    if "bench" in done:
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bench.json"
        sizes = (
            f"--shape {scale.bench} --k {scale.k} --requests {scale.searches} --warm-up 1 --concurrency 1 --engines vllm --plans none,trie"
        )
        bench = [sys.executable, "-c", "from benchmarks.cli import main; main()", "bench", *sizes.split(), "--force", "--json", str(file)]
        ended = subprocess.run(bench, cwd=ROOT, check=False, stderr=subprocess.PIPE, text=True)
        if ended.returncode:
            raise NotHere(f"`atspeed-bench bench` has failed: {ended.stderr.strip()[-400:]}")
        yield Measured("bench", json.loads(file.read_text())["rows"])
