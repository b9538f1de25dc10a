"""The end of a benchmark command that fails: a sentence, and no process left running."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from drafting.errors import SetupError
from server.commands.terminal import fail

# Options of `atspeed serve` that sentences of the engine name.
OF_SERVERS = ("--kv-memory-gib", "--max-beam-width")


class BenchmarkError(Exception):
    """A measurement is not possible; the message is a sentence."""


class ProgramError(BenchmarkError):
    """A program that did not start, did not do what was waited for, or did not end; the message holds its log."""


def end_on_sigterm() -> None:
    """Let SIGTERM end this process as an exception does, so that every `with` ends what it has started."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def require(*modules: str) -> None:
    """End the command with a sentence if a module of the extra `bench` is not installed."""
    if missing := [module for module in modules if find_spec(module) is None]:
        fail(f"This needs {' and '.join(missing)}: pip install 'atspeed-server[bench]'.")


@contextmanager
def sentences() -> Iterator[None]:
    """End the command with the message of an error that has one for the user."""
    try:
        yield
    except BenchmarkError as error:
        fail(str(error))
    except SetupError as error:
        there_is_none = " (`atspeed-bench` has no such option: measure less at a time, or a smaller model.)"
        fail(f"{error}{there_is_none if any(option in str(error) for option in OF_SERVERS) else ''}")
    except OSError as error:
        # A file that was named can't be written; whatever is read says so in an error of its own.
        if error.filename is None:
            raise
        fail(f"{error.filename} can't be written: {error.strerror}.")
