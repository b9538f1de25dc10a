"""One engine process, from its start to its end, and the socket to it.

Invariant: messages are handed on in the event loop, all of them and in order. And nothing is left of a process that has ended: what it has
started is killed with it, and its temporary files lie in a directory of its own.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import msgspec

from drafting.undecodable import UNDECODABLE
from server.engine.channel import MOST_BYTES, Frames, MessageTooLong, framed
from server.engine.directory import own_directory
from server.engine.parent import child_environment
from server.engine_settings import EngineOptions
from server.messages import FromEngine, Shutdown, ToEngine

logger = logging.getLogger(__name__)

STOP_SECONDS = 5.0


@dataclass(frozen=True)
class Obstacle:
    """Why an engine process can't serve: a sentence for the log, which may name files, and one for clients, which must not.

    Attributes:
        is_catalog: True if the reason is the catalog that it was to load.
    """

    sentence: str
    public: str = "The engine died and can't be started again yet; the server keeps trying, and its log says what is in the way."
    is_catalog: bool = False


class EngineProcess(asyncio.Protocol):
    """A process with a socket of its own: a message can never come from one that is already dead."""

    def __init__(self, process: asyncio.subprocess.Process, receive: Callable[[FromEngine], None]) -> None:
        """`receive` is called with each message."""
        self._receive = receive
        self._transport: asyncio.Transport | None = None
        self._frames = Frames(MOST_BYTES)
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(FromEngine).decode
        self.pid = process.pid
        self.exit_status = asyncio.create_task(process.wait())

    @classmethod
    @asynccontextmanager
    async def start(cls, module: str, options: EngineOptions, receive: Callable[[FromEngine], None]) -> AsyncIterator["EngineProcess"]:
        """Run `module` in a process that is gone when the context ends.

        Raises:
            OSError: the machine can't start a process now.
        """
        options = options.model_copy(update={"parent": os.getpid()})
        with own_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address := f"{directory}/engine")
            listener.listen(1)
            process = await asyncio.create_subprocess_exec(
                # Of the directory where the server was started, nothing is taken for this package (-P).
                *(sys.executable, "-P", "-m", module, address, options.model_dump_json()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sys.stderr,
                env=child_environment(TMPDIR=str(directory)),
                # A group of its own, to be killed with all that it has started.
                start_new_session=True,
            )
            engine = cls(process, receive)
            try:
                # What it sends before this is kept in the socket.
                server = await asyncio.get_running_loop().create_unix_server(lambda: engine, sock=listener)
                try:
                    yield engine
                finally:
                    server.close()
            finally:
                engine.kill()
                await engine.exit_status
                if engine._transport is not None:
                    engine._transport.abort()

    def kill(self) -> None:
        """End the process and all that it has started, now, even if it is stopped."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """Ask a process that listens to end, and wait a little until it is gone."""
        self.send(Shutdown())
        await asyncio.wait({self.exit_status}, timeout=STOP_SECONDS)

    def send(self, message: ToEngine) -> None:
        """Send a message, in order, without waiting: to an engine that has just died it would never get through, and is dropped."""
        if self._transport is not None:
            self._transport.write(framed(self._encode(message)))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._frames.cut(data):
                self._receive(self._decode(frame))
        except (MessageTooLong, *UNDECODABLE) as error:
            logger.error("the engine process %d has sent a message that can't be read, and is killed: %s", self.pid, error)
            self.kill()
            if self._transport is not None:
                # Where the next message begins is not known any more.
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
