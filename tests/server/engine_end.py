"""The engine's end of the socket, as engine processes without a model read it."""

from collections.abc import Iterator
from contextlib import suppress

import msgspec

from server.engine.channel import Channel
from server.messages import ToEngine


def messages_of(channel: Channel) -> Iterator[ToEngine]:
    """Messages one by one, until the API process is gone."""
    with suppress(EOFError):
        while True:
            for frame in channel.receive():
                yield msgspec.msgpack.decode(frame, type=ToEngine)
