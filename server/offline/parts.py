"""A folder of lists: a part for each block of users, here or in an object store.

Invariant: a part is there whole or not at all, under a name that follows from its block alone. So a block that is made twice, by a worker
that was taken for dead or by a second run, is there once, and a run that goes on makes what is missing and nothing else. `_SUCCESS` is
there when all parts are; what begins with `_` is no data to readers of such folders (Spark, Ray, pyarrow).
"""

import io
from collections.abc import Collection, Iterable, Iterator
from typing import Literal, NoReturn

import msgspec
from msgspec.structs import replace

from drafting.undecodable import UNDECODABLE
from server.offline.folder import FolderFile, open_file
from server.offline.lists import OfflineError
from server.offline.made import Made
from server.offline.output import RunState
from server.offline.places import open_folder
from server.offline.tables import read_written, write_table

Form = Literal["jsonl", "parquet"]
_STATE, _SUCCESS = "_atspeed.json", "_SUCCESS"


def names_of_parts(form: Form) -> tuple[str, ...]:
    """The names of files in a folder of lists, those of the first part among them."""
    return _STATE, _SUCCESS, _name(0, form)


def _name(part: int, form: Form) -> str:
    return f"part-{part:06}.{form}"


class Parts:
    """The parts of one run."""

    def __init__(self, place: str, form: Form) -> None:
        """
        Raises:
            FolderError: it is no URL of a store.
        """
        self._folder = open_folder(place)
        self._form = form
        self._state = RunState("", 0)

    def begin(self, purpose: str, seed: int) -> int:
        """Begin a run, or go on with one of the same purpose; return its seed.

        Raises:
            OfflineError: the folder holds the lists of another run, or of one that made none.
            FolderError: the folder can't be read or written.
        """
        known = self._folder.find(_STATE)
        try:
            state = None if known is None else msgspec.json.decode(self._folder.range(known, 0, known.size), type=RunState)
        except UNDECODABLE:
            state = RunState("", 0)
        if state is None and not self.done():
            self._state = RunState(purpose, seed)
            self._folder.write(_STATE, msgspec.json.encode(self._state))
            return seed
        if state is None or state.purpose != purpose:
            if all(file.name == _STATE for file in self._folder.files()):
                # As where its model could not be loaded; nobody knows here whether it still runs.
                raise OfflineError(
                    f"{self._folder.place} was begun by a run of other users, models or options, which has made no list yet: choose "
                    f"another --output, or remove {_STATE} there if that run is over."
                )
            raise OfflineError(
                f"{self._folder.place} holds lists of another run, of other users, models or options: choose another --output, or empty it."
            )
        if state.failure:
            raise OfflineError(state.failure)
        self._state = state
        return state.seed

    def done(self) -> set[int]:
        """The numbers of the parts that are there.

        Raises:
            FolderError: the folder can't be read.
        """
        return {number for number, _ in self._files()}

    def made(self, parts: Collection[int]) -> Made:
        """What the users of these parts got, as far as they are there.

        Raises:
            FolderError, TableError: one can't be read.
        """
        return sum((self._made(file) for number, file in self._files() if number in parts), Made())

    @property
    def is_over(self) -> bool:
        """True if a run has ended with all parts.

        Raises:
            FolderError: the folder can't be read.
        """
        return self._folder.find(_SUCCESS) is not None

    def _files(self) -> Iterator[tuple[int, FolderFile]]:
        for file in self._folder.files():
            stem, _, ending = file.name.partition(".")
            number = stem.removeprefix("part-")
            # What a machine has lost at a power cut is a file without contents.
            if file.size and ending == self._form and stem.startswith("part-") and number.isdigit():
                yield int(number), file

    def _made(self, file: FolderFile) -> Made:
        with open_file(self._folder, file) as part:
            if self._form == "parquet":
                return sum(map(Made.of, read_written(part, f"{self._folder.place}/{file.name}")), Made())
            return Made.of_lines(part)

    def write(self, part: int, lines: Iterable[bytes]) -> None:
        """Write a part.

        Raises:
            FolderError: it can't be written.
        """
        contents = io.BytesIO()
        if self._form == "parquet":
            write_table(lines, contents)
        else:
            contents.writelines(line + b"\n" for line in lines)
        self._folder.write(_name(part, self._form), contents.getvalue())

    def fail(self, made: str) -> NoReturn:
        """End a run that has made no list; `made` says why. The same command, given again, ends in the same way.

        Raises:
            OfflineError: always.
            FolderError: the folder can't be written.
        """
        failure = f"{self._folder.place} has only errors: {made.rstrip('.')}. Choose another --output, or empty it."
        self._folder.write(_STATE, msgspec.json.encode(replace(self._state, failure=failure)))
        raise OfflineError(failure)

    def finish(self) -> None:
        """Say that all parts are there.

        Raises:
            FolderError: the folder can't be written.
        """
        self._folder.tidy()
        self._folder.write(_SUCCESS, b"")
