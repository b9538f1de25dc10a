"""The API process's end of the socket to one engine process.

Invariant: messages are handed on in the event loop, all of them and in order. ZeroMQ's file descriptor tells of a change once, and any call
on the socket can be the one that takes notice of it, a `send` as well; so the socket itself is asked after each.
"""

import asyncio
from collections.abc import Callable

import msgspec
import zmq

from server.messages import FromEngine, ToEngine

# Plain numbers: an operation on a flag of an enumeration takes longer than the call on the socket.
_EVENTS, _READABLE, _NO_WAIT = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.NOBLOCK)


class EngineChannel:
    """A socket of its own for each engine process: a message can never come from one that is already dead."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", address: str, receive: Callable[[FromEngine], None]) -> None:
        """Listen at `address`, in the running event loop; `receive` is called with each message."""
        self._loop = asyncio.get_running_loop()
        self._receive = receive
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(FromEngine).decode
        self._socket = context.socket(zmq.PAIR)
        self._socket.set_hwm(0)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(address)
        self._loop.add_reader(self._socket.FD, self._drain)

    def close(self) -> None:
        """Stop listening; what has not been sent is lost."""
        self._loop.remove_reader(self._socket.FD)
        self._socket.close()

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
            self._receive(self._decode(self._socket.recv(_NO_WAIT)))
