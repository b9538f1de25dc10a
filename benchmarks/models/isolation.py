"""Run a function in a forked child: what the parent has imported costs nothing again, and a crash or a hang ends the child alone.

Invariant: the parent computes nothing with torch before it forks, because a child does not have the threads of its parent.
"""

import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from drafting.errors import SetupError


@dataclass(frozen=True)
class Ending:
    """How a child came to its end.

    Attributes:
        kind: "answered", "refused" (by a `SetupError`), "traceback" (any other), "crash" or "hang".
        answer: what the function returned, or a sentence.
    """

    kind: str
    answer: object


def in_child(function: Callable[..., object], *arguments: object, seconds: float, log: Path) -> Ending:
    """Call a function in a child process, whose output goes to `log`."""
    context = get_context("fork")
    reader, writer = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(writer, log, function, arguments))
    child.start()
    writer.close()
    try:
        if not reader.poll(seconds):
            return Ending("hang", f"no answer within {seconds:.0f} s")
        ending: Ending = reader.recv()
        return ending
    except EOFError:
        child.join()
        code = child.exitcode or 0
        return Ending("crash", f"ended by {signal.Signals(-code).name}") if code < 0 else Ending("traceback", _last_line(log))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid or 0, signal.SIGKILL)
        child.join()
        reader.close()


def _answer(writer: Connection, log: Path, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    """An error of any other kind leaves its traceback in the log and nothing in the pipe."""
    # A group of its own, so that the processes of a library end with the child.
    os.setsid()
    # Python's own streams, which a caller may have replaced, and those of compiled libraries.
    sys.stdout = sys.stderr = log.open("w", buffering=1)
    for descriptor in (1, 2):
        os.dup2(sys.stderr.fileno(), descriptor)
    try:
        ending = Ending("answered", function(*arguments))
    except SetupError as error:
        ending = Ending("refused", str(error))
    writer.send(ending)


def _last_line(log: Path) -> str:
    """The error at the end of a traceback, with the place where it was raised."""
    text = log.read_text(errors="replace")
    places = re.findall(r'^  File "(?:.*/)?(.+)", (line \d+)', text, re.MULTILINE)
    errors = re.findall(r"^(?=[A-Za-z])[\w.]+(?:Error|Exception|Interrupt|Exit)\b.*$", text, re.MULTILINE)
    if not places or not errors:
        return f"it ended without an answer; see {log.name}"
    return f"{errors[-1]} ({', '.join(places[-1])})"
