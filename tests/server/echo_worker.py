"""An engine process that answers every request at once, run as one; told to end, it does."""

import sys

import msgspec

from server.engine.channel import Channel
from server.messages import FailedList, Progress, Shutdown
from server.submit import Submit
from tests.server.engine_end import messages_of


def main(address: str, _: str) -> int:
    with Channel.connect(address) as channel:
        channel.send(msgspec.msgpack.encode(_progress("ready")))
        for message in messages_of(channel):
            if isinstance(message, Shutdown):
                break
            if isinstance(message, Submit):
                channel.send(msgspec.msgpack.encode(_progress(message.request_id)))
    return 0


def _progress(name: str) -> Progress:
    return Progress([], [FailedList(name, None)], [], running=0, waiting=0, used_slots=0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
