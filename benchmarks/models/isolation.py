"""Run a function in a forked child: what the parent has imported costs nothing again, and a crash or a hang ends the child alone.

Invariant: the parent computes nothing with torch before it forks, because a child does not have the threads of its parent.
"""

import os
import signal
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
    with log.open("wb") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    try:
        ending = Ending("answered", function(*arguments))
    except SetupError as error:
        ending = Ending("refused", str(error))
    writer.send(ending)


def _last_line(log: Path) -> str:
    """The error at the end of a traceback, with the place where it was raised."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()] or ["no output"]
    places = [line for line in lines if line.startswith("File ")]
    errors = [line for line in lines if not line.startswith("During ") and "Error" in line.split(":")[0]]
    return f"{errors[-1] if errors else lines[-1]} ({places[-1]})" if places else lines[-1]
