"""`Upload`: a file as the body of a request, sent piece by piece by either kind of client.

Invariant: it begins anew with every pass, so that a request can be sent again, and never holds more than a piece in memory.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx

_PIECE = 1 << 18

# Takes the bytes sent so far, and those there are.
OnBytes = Callable[[int, int], object]


class Upload(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A file that is sent.

    Attributes:
        content_type: says what the file is.
    """

    def __init__(self, file: Path, content_type: str, on_bytes: OnBytes | None) -> None:
        self._file, self.content_type, self._on_bytes = file, content_type, on_bytes

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._file.stat().st_size

    def __iter__(self) -> Iterator[bytes]:
        sent, size = 0, self.size
        with self._file.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece
                sent += len(piece)
                self._tell(sent, size)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        sent, size = 0, self.size
        with self._file.open("rb") as file:
            while piece := await asyncio.to_thread(file.read, _PIECE):
                yield piece
                sent += len(piece)
                self._tell(sent, size)

    def _tell(self, sent: int, size: int) -> None:
        if self._on_bytes is not None:
            self._on_bytes(sent, size)
