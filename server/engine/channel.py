"""The Unix socket between the API process and an engine process: `Frames` tells messages on it apart, and `Channel` is the end of a
process without an event loop.

Invariant: messages arrive whole and in order; each follows its length. The API process never waits to send: its event loop keeps what does
not fit into the socket. The engine waits until its message fits, never for long, as that loop reads whatever else it does.
"""

import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

# The engine divides what would be larger.
MOST_BYTES = 2**26
_LENGTH_BYTES = 4
_READ_BYTES = 2**18
# Long enough for a last sentence, short enough not to hang on a parent that stands still.
_LAST_SECONDS = 1.0


class MessageTooLong(ValueError):
    """A message that is longer than any should be; the error says so."""


def framed(message: bytes) -> bytes:
    """A message with its length before it."""
    return len(message).to_bytes(_LENGTH_BYTES, "big") + message


class Frames:
    """Cuts messages out of what is read."""

    def __init__(self, most: int | None = None) -> None:
        """`most` is the longest message in bytes; None for any."""
        self._most = most
        self._read = bytearray()

    def cut(self, data: bytes) -> Iterator[bytes]:
        """The messages that end in `data`, which was read next, one by one.

        Raises:
            MessageTooLong: the next one is.
        """
        read = self._read
        read += data
        while len(read) >= _LENGTH_BYTES:
            length = int.from_bytes(read[:_LENGTH_BYTES], "big")
            if self._most is not None and length > self._most:
                raise MessageTooLong(f"it is larger than {self._most} bytes")
            end = _LENGTH_BYTES + length
            if len(read) < end:
                return
            message = bytes(read[_LENGTH_BYTES:end])
            del read[:end]
            yield message


class Channel:
    """One end of the socket."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._frames = Frames()
        self._poll = select.poll()
        self._poll.register(connected, select.POLLIN)

    @classmethod
    def connect(cls, address: str) -> Self:
        """The end of a process that was told where the other one listens. Raises OSError."""
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(address)
        return cls(connected)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()

    def send(self, message: bytes) -> None:
        """Send a message; to a process that is gone, which `receive` tells, it is dropped."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(framed(message))

    def finish(self) -> None:
        """Say that nothing more comes, and wait a second at most until the other process has read all and closes its end.

        If this end were closed at once, a message from there would fail, and with it the reading of what was sent before.
        """
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            self._socket.settimeout(_LAST_SECONDS)
            while self._socket.recv(_READ_BYTES):
                pass

    def receive(self, milliseconds: int | None = None) -> list[bytes]:
        """All messages that are there, or, if there are none, after having waited for the first; None waits as long as it takes.

        Raises:
            EOFError: the other process has closed its end, or is gone.
        """
        if milliseconds != 0 and not self._poll.poll(milliseconds):
            return []
        messages: list[bytes] = []
        data = bytes(_READ_BYTES)
        while len(data) == _READ_BYTES:
            try:
                data = self._socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError
            messages += self._frames.cut(data)
        return messages
