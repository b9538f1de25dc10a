"""A fuzzing run: starts a server of its own, and schemathesis against it until there were enough cases.

Invariant: the engine that was asked first is also the one that is asked last, so an engine process that died on the way fails the run.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.endings import BenchmarkError
from benchmarks.fuzz.world import write_world
from benchmarks.server_process import ServerProcess, local_client
from server.engine.parent import child_environment

CONFIG = Path(__file__).parent / "schemathesis.toml"
REPORT = "schemathesis.json"


@dataclass(frozen=True)
class FuzzFigures:
    """What came of all rounds.

    Attributes:
        cases: requests that were made and checked.
        operations: operations of the document, each of which was asked.
        seeds: of the rounds.
        failures: of each round that found any, what it found by kind and operation; the requests are in the output.
    """

    cases: int
    operations: int
    seeds: tuple[int, ...]
    failures: tuple[str, ...]


def fuzz(folder: Path, cases: int, seed: int, flags: tuple[str, ...], *phases: str) -> FuzzFigures:
    """Ask a server of the folder's own, round after round with the next seed, until there were so many cases.

    Args:
        phases: of schemathesis, `examples`, `coverage` and `fuzzing` by default.

    Raises:
        ProgramError: the server did not start.
        BenchmarkError: schemathesis could not run.
    """
    write_world(folder)
    options = {"target": "model", "catalog": "catalog.jsonl", "catalogs": "versions", "codebooks": "codebooks.safetensors"}
    paths = [text for name, file in options.items() for text in (f"--{name}", str(folder / file))]
    histories, engine_flags = ("--histories", f"sqlite:///{folder}/histories.db"), ("--engine", "transformers", "--threads", "1")
    with ServerProcess(folder, *paths, *histories, *engine_flags, *flags) as server:
        server.wait_until_ready()
        engine = server.engine
        with local_client() as client:
            operations = sum(map(len, client.get(f"{server.url}/openapi.json").json()["paths"].values()))
        done, seeds, failures = 0, list[int](), list[str]()
        while done < cases and not failures:
            seeds.append(seed + len(seeds))
            each = max(1, -(-(cases - done) // operations))
            found = _round(folder, server.url, seeds[-1], each, phases or ("examples", "coverage", "fuzzing"))
            done += found["test_cases"]["generated"]
            failures += [f"{entry['title']} ({entry['code']}): {', '.join(entry['operations'])}" for entry in found["failures"]]
            failures += [str(error) for error in found["errors"]]
        if not engine.is_running():
            failures.append("The engine died.")
    return FuzzFigures(done, operations, tuple(seeds), tuple(failures))


def _round(folder: Path, url: str, seed: int, each: int, phases: tuple[str, ...]) -> dict[str, Any]:
    """One run of schemathesis; its JSON report."""
    report = folder / REPORT
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", f"{url}/openapi.json"]
    options = {"--max-examples": str(each), "--seed": str(seed), "--phases": ",".join(phases), "--report": "json"}
    arguments = [text for option, value in options.items() for text in (option, value)]
    # It keeps what it has found in the directory where it runs; this module's package is found from any.
    subprocess.run([*command, *arguments, "--report-json-path", str(report)], cwd=folder, env=child_environment(), check=False)
    if not report.exists():
        raise BenchmarkError("schemathesis could not run; its message stands above.")
    return dict(json.loads(report.read_text()))
