"""One engine process, from its start to its end, and the socket to it.

Invariant: messages are handed on in the event loop, all of them and in order. ZeroMQ's file descriptor tells of a change once, and any call
on the socket can be the one that takes notice of it, a `send` as well; so the socket itself is asked after each. And nothing is left of a
process that has ended: what it has started is killed with it, and its temporary files lie in a directory of its own.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import zmq

from server.engine.directory import own_directory
from server.engine_settings import EngineOptions
from server.messages import FromEngine, Shutdown, ToEngine

logger = logging.getLogger(__name__)

STOP_SECONDS = 5.0
# The engine divides what would be larger.
MOST_BYTES = 2**26
# Plain numbers: an operation on a flag of an enumeration takes longer than the call on the socket.
_EVENTS, _READABLE, _NO_WAIT = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.NOBLOCK)


@dataclass(frozen=True)
class Obstacle:
    """Why an engine process can't serve: a sentence for the log, which may name files, and one for clients, which must not.

    Attributes:
        is_catalog: True if the reason is the catalog that it was to load.
    """

    sentence: str
    public: str = "The engine died and can't be started again yet; the server keeps trying, and its log says what is in the way."
    is_catalog: bool = False


class EngineProcess:
    """A process with a socket of its own: a message can never come from one that is already dead."""

    def __init__(self, process: asyncio.subprocess.Process, socket: "zmq.Socket[bytes]", receive: Callable[[FromEngine], None]) -> None:
        """`receive` is called with each message."""
        self._process = process
        self._socket = socket
        self._receive = receive
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(FromEngine).decode
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(socket.FD, self._drain)
        self.pid = process.pid
        self.exit_status = asyncio.create_task(process.wait())

    @classmethod
    @asynccontextmanager
    async def start(cls, module: str, options: EngineOptions, receive: Callable[[FromEngine], None]) -> AsyncIterator["EngineProcess"]:
        """Run `module` in a process that is gone when the context ends.

        Raises:
            OSError, zmq.ZMQError: the machine can't start a process now.
        """
        # The child must find this package wherever the server was started from, and must not take a directory there for it (-P).
        path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
        options = options.model_copy(update={"parent": os.getpid()})
        with own_directory() as directory, zmq.Context() as context, context.socket(zmq.PAIR) as socket:
            socket.set_hwm(0)
            socket.setsockopt(zmq.LINGER, 0)
            socket.bind(address := f"ipc://{directory}/engine")
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", module, address, options.model_dump_json()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sys.stderr,
                env=os.environ | {"PYTHONPATH": path, "TMPDIR": str(directory)},
                # A group of its own, to be killed with all that it has started.
                start_new_session=True,
            )
            engine = cls(process, socket, receive)
            try:
                yield engine
            finally:
                engine.kill()
                await engine.exit_status
                engine._loop.remove_reader(socket.FD)

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
        try:
            self._socket.send(self._encode(message), _NO_WAIT)
        except zmq.Again:
            return
        if self._readable():
            self._loop.call_soon(self._drain)

    def _readable(self) -> bool:
        return not self._socket.closed and int(self._socket.getsockopt(_EVENTS)) & _READABLE != 0

    def _drain(self) -> None:
        while self._readable():
            frame = self._socket.recv(_NO_WAIT)
            try:
                if len(frame) > MOST_BYTES:
                    raise msgspec.ValidationError(f"it is larger than {MOST_BYTES} bytes")
                message = self._decode(frame)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                logger.error("the engine process %d has sent a message that can't be read, and is killed: %s", self.pid, error)
                return self.kill()
            self._receive(message)
