"""The lines of a file of data, with their numbers."""

from collections.abc import Iterator
from pathlib import Path

from drafting.errors import InteractionError, check_file


def open_lines(path: Path, subject: str) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, and their numbers from 1.

    Args:
        subject: what is to be read, as a sentence about it begins.

    Raises:
        InteractionError: the file can't be read.
    """
    check_file(path, subject, InteractionError)
    try:
        with path.open("rb") as file:
            yield from ((number, line) for number, line in enumerate(file, start=1) if line.strip())
    except OSError as error:
        raise InteractionError(f"{subject} {path} cannot be read: {error.strerror}.") from error
