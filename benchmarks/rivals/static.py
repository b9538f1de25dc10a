"""The comparison with STATIC, run in a process of its own: catalogs may take gigabytes, and its repository is on the path."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from benchmarks.rivals.entrants import STATIC
from benchmarks.rivals.environment import Environment, RivalError, prepare
from benchmarks.rivals.masks import MaskRow
from benchmarks.systems.expansion import LEVELS


def measure_masks(sizes: Sequence[int], threads: int, cache: Path, source: str | None, path: Path | None) -> list[MaskRow]:
    """Time a step of each depth for catalogs of these sizes, and add the rows to the JSON in `path`.

    Raises:
        RivalError: the repository can't be fetched, or the process ended before the last row.
    """
    prepared = prepare("static", Environment(repository=STATIC), cache, source, tqdm.write)
    command = [sys.executable, "-m", "benchmarks.rivals.masks", str(threads), *map(str, sizes)]
    environment = os.environ | dict(prepared.variables) | {"OMP_NUM_THREADS": str(threads)}
    rows = []
    bar = tqdm(total=LEVELS * len(sizes), desc="STATIC", unit="step")
    with bar, subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout or ():
            rows.append(MaskRow(**json.loads(line)))
            bar.update()
    if process.returncode:
        raise RivalError(f"The comparison with STATIC ended with status {process.returncode}: see its message above.")
    if path is not None:
        told = json.loads(path.read_bytes()) if path.is_file() else {}
        path.write_text(json.dumps(told | {"masks": [asdict(row) for row in rows]}, indent=2) + "\n")
    return rows
