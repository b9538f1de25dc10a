"""How the workshop's commands end when they can't go on: with a sentence, and with nothing left running."""

import signal
import sys
from importlib.util import find_spec

from server.commands.failure import fail


class ProgramError(RuntimeError):
    """A program that did not start, did not do what was waited for, or did not end; the message holds its log."""


def end_on_sigterm() -> None:
    """Let SIGTERM end this process as an exception does, so that every `with` ends what it has started."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def require(*modules: str) -> None:
    """End the command with a sentence if a module of the extra `bench` is not installed."""
    if missing := [module for module in modules if find_spec(module) is None]:
        fail(f"This needs {' and '.join(missing)}: pip install 'atspeed-server[bench]'.")
