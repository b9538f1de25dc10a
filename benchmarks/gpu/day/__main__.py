"""`make gpu-day`: what a GPU gives, in at most nine minutes, the most important figures first.

Each part runs in a process of its own with a timeout of its own, and results are appended to a file as they come. A part that was ended by
its timeout is continued at the end, if the others have left time. A second run continues the first: what is measured is not measured again.
Needs torch, transformers and numpy only; parts that need more say so.

This process imports no torch. Invariant: whatever a part does (hang, crash, fill the memory), the next one runs, and the report holds all
that was measured.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from benchmarks.gpu.day.parts import PARTS, Part
from benchmarks.gpu.day.report import markdown
from benchmarks.gpu.day.results import AGAIN, FINISHED, Results

ROOT = Path(__file__).parents[3]
# The status of `measure` on a machine on which nothing can be measured.
USELESS = 2
# Nine minutes, without what starting processes and writing the report may take.
SECONDS = 525.0
# With less time left no part gets beyond the start of its process.
LEAST = 15.0
# How a part is told that its timeout has ended.
CUT = "It was ended after"
HOME = {False: Path("build/gpu-day"), True: Path("build/gpu-day-rehearsal")}


def main(arguments: Sequence[str]) -> int:
    """Run the parts that are not finished; the status is 1 if one could not be, or if the results are of another machine."""
    parser = argparse.ArgumentParser(prog="make gpu-day", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rehearse", action="store_true", help="small sizes, on any machine, in a minute")
    parser.add_argument("--into", type=Path, help="folder of the results (default: build/gpu-day, or build/gpu-day-rehearsal)")
    parser.add_argument("--only", choices=PARTS, nargs="+", help="run these parts alone")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all parts together (default: %(default)s)")
    options = parser.parse_args(arguments)
    folder: Path = options.into or HOME[options.rehearse]
    results = Results(folder / "results.jsonl")
    if not _run_all(results, [PARTS[name] for name in options.only or PARTS], options):
        return 1
    report = folder / "gpu.md"
    print(f"\n{report.read_text()}\nWritten to {report}; the results are in {results.path}.")
    return int(any(results.ended(name) != FINISHED for name in options.only or PARTS if name != "vllm"))


def _run_all(results: Results, parts: Sequence[Part], options: argparse.Namespace) -> bool:
    """Run the parts that are not finished; false if nothing can be measured here."""
    deadline = time.monotonic() + options.seconds
    report = results.path.with_name("gpu.md")
    # Found when the others have run.
    cut = (part for part in parts if (results.ended(part.name) or "").startswith(CUT) and deadline - time.monotonic() >= LEAST)
    for part in chain(parts, cut):
        ended, ends = results.ended(part.name), min(deadline, time.monotonic() + part.seconds)
        while ended != FINISHED:
            if (left := ends - time.monotonic()) < LEAST:
                results.end(part.name, "No time was left: run it again.", 0.0)
            elif not _run(part, results, left, options.rehearse):
                return False
            if (ended := results.ended(part.name)) != AGAIN:
                break
        report.parent.mkdir(parents=True, exist_ok=True)
        unfinished = report.with_suffix(".part")
        unfinished.write_text(markdown(results, options.rehearse))
        unfinished.replace(report)
    return True


def _run(part: Part, results: Results, seconds: float, rehearse: bool) -> bool:
    """Run a part to its end or to its timeout; a process that ends without a word is given one. False if nothing can be measured here."""
    command = [sys.executable, "-m", "benchmarks.gpu.day.measure", part.name, str(results.path.resolve()), "--end-with-input"]
    started, before = time.monotonic(), results.ends(part.name)
    # The pipe is the string by which the part hangs: nothing is ever written to it.
    process = subprocess.Popen(
        [*command, *["--rehearse"] * rehearse], cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True, env=os.environ
    )
    try:
        if (status := process.wait(seconds)) == USELESS:
            return False
        how = f"Its process ended with status {status}."
    except subprocess.TimeoutExpired:
        how = f"{CUT} {seconds:.0f} s: run it again."
    finally:
        _kill_group(process)
    if results.ends(part.name) == before:
        results.end(part.name, how, time.monotonic() - started)
    return True


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
