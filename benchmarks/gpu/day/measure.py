"""One part of a day, in a process of its own: `python -m benchmarks.gpu.day.measure PART FILE`.

Invariant: the process and all that it has started end when the one that started it does, however that ends: nothing goes on using the
device while the next run measures. A file holds the results of one machine.
"""

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.gpu.day.parts import PARTS
from benchmarks.gpu.day.results import FINISHED, Results
from benchmarks.gpu.day.scale import Scale, scale_of
from benchmarks.gpu.report import machine
from benchmarks.gpu.timing import failure
from drafting.errors import SetupError

# The status of a machine on which nothing can be measured.
USELESS = 2


def main(arguments: Sequence[str]) -> int:
    """Measure what is missing of a part; the status is 1 if it can't be had, which the results then say, and 2 if no part can be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.day.measure", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("file", type=Path, help="where results are appended")
    parser.add_argument("--rehearse", action="store_true", help="small sizes")
    parser.add_argument("--end-with-input", action="store_true", help="end when standard input does")
    options = parser.parse_args(arguments)
    if options.end_with_input:
        threading.Thread(target=_end_with_input, daemon=True).start()
    results = Results(options.file)
    try:
        scale = scale_of(options.rehearse)
        _check_machine(results, scale)
    except SetupError as error:
        print(error, file=sys.stderr)
        return USELESS
    return _measure(options.part, results, scale)


def _measure(part: str, results: Results, scale: Scale) -> int:
    module, _, name = PARTS[part].measure.partition(":")
    started = time.monotonic()
    try:
        measure = getattr(import_module(f"benchmarks.gpu.day.{module}"), name)
        for measured in measure(scale, results.cases(part)):
            results.add(part, measured)
            print(f"{part}: {measured.case}, {time.monotonic() - started:.1f} s.", flush=True)
    except SetupError as error:
        results.end(part, str(error), time.monotonic() - started)
        print(f"{part}: {error}", flush=True)
        return 1
    # Whatever a device that nobody has tried yet throws (no memory, no kernel for it, a compiler's errors, a library that is not there) is
    # a result, and the next part goes on.
    except Exception as error:
        results.end(part, f"Failed: {failure(error)}", time.monotonic() - started)
        raise
    results.end(part, FINISHED, time.monotonic() - started)
    return 0


def _check_machine(results: Results, scale: Scale) -> None:
    known = [row["device"] for measured in results.measured("device") for row in measured.rows]
    if known and known[0] != (here := machine(scale.device)):
        raise SetupError(f"{results.path} is of another machine ({known[0]}) than this one ({here}): name another folder by --into.")


def _end_with_input() -> None:
    # Past Python's buffers, whose lock would be held at the end of the process.
    while os.read(0, 1):
        pass
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
