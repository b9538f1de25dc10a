"""Records which project files run a function: Python imports this module at the start of every process that has its folder on the path.

A first SIGUSR1 begins the recording, a second one writes the files' names to `$ATSPEED_JOURNEY/<process id>`. A function that was entered
before and only goes on does not count, so loops that run on a clock of their own are left out unless they call something.
"""

import inspect
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

_ROOT = Path(__file__).parents[2]
_FLOORS = tuple(f"{_ROOT / floor}{os.sep}" for floor in ("server", "verification", "drafting"))
_RESUMABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_seen: set[str] = set()
_recording = False


def _note(frame: FrameType, event: str, _: object) -> None:
    # A generator or coroutine is called on its first line; whatever lies behind it is a resumption.
    if _recording and event == "call":
        code = frame.f_code
        if not code.co_flags & _RESUMABLE or frame.f_lineno == code.co_firstlineno:
            _seen.add(code.co_filename)


def _toggle(_number: int, _frame: FrameType | None) -> None:
    global _recording
    _recording = not _recording
    sys.setprofile(_note if _recording else None)
    if not _recording:
        files = sorted(name.removeprefix(f"{_ROOT}{os.sep}") for name in _seen if name.startswith(_FLOORS))
        (Path(os.environ["ATSPEED_JOURNEY"]) / str(os.getpid())).write_text("\n".join(files))


if "ATSPEED_JOURNEY" in os.environ:
    threading.setprofile(_note)
    signal.signal(signal.SIGUSR1, _toggle)
