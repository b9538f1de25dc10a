"""The base class of errors in the user's input, such as a wrong file or parts that do not belong together; what sentences quote of it; and
what libraries raise.

Invariant: the message of a `SetupError` is one sentence that names the mistake and can be printed as it is.
"""

import stat
import traceback
from pathlib import Path

# What a library of models raises when it is handed what it does not expect, or its device is full or lost.
MODEL_ERRORS = (RuntimeError, ImportError, AttributeError, TypeError, KeyError, ValueError, IndexError, AssertionError)
_QUOTED_CHARACTERS = 60


class SetupError(ValueError):
    """An input cannot be used; the message is a sentence."""


class PromptError(SetupError):
    """A prompt cannot be built."""


class InteractionError(SetupError):
    """Interaction data cannot be used; the message is a sentence that names the place."""


def check_file(path: Path, subject: str, error: type[SetupError]) -> None:
    """Refuse what is there and is no file, before it is opened: a pipe would keep its reader waiting, for ever if nobody writes.

    Args:
        subject: what is to be read, as a sentence about it begins.
        error: class to raise.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        # Opening it tells why.
        return
    if not stat.S_ISREG(mode):
        raise error(f"{subject} {path} cannot be read: it is not a regular file.")


def quoted(text: str) -> str:
    """A piece of what was given, cut to a length that a sentence can carry."""
    return repr(text if len(text) <= _QUOTED_CHARACTERS else f"{text[:_QUOTED_CHARACTERS]}…")


def first_line(error: BaseException) -> str:
    """The first line of a library's error message, with the next one behind a colon; of one that is empty what was asserted, or the name of
    its class."""
    if lines := [line.strip() for line in str(error).strip().splitlines()]:
        return " ".join(lines[:2] if lines[0].endswith(":") else lines[:1])
    frames = traceback.extract_tb(error.__traceback__)
    asserted = frames[-1].line if frames and isinstance(error, AssertionError) else None
    return (asserted or type(error).__name__).removeprefix("assert ")
