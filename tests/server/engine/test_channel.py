"""The socket between the two processes: messages however they come in pieces, and the end of the other process."""

import asyncio
import random
import socket
import threading

import pytest

from server.engine.channel import Channel, Frames, MessageTooLong, framed


@pytest.mark.parametrize("seed", range(5))
def test_messages_are_whole_and_in_order_wherever_the_stream_is_cut(seed: int):
    rng = random.Random(seed)
    messages = [rng.randbytes(rng.choice((0, 1, 3, 4, 5, 300))) for _ in range(40)]
    stream = b"".join(map(framed, messages))
    frames, found, begin = Frames(), [], 0
    while begin < len(stream):
        end = begin + rng.choice((1, 2, 7, 500))
        found += frames.cut(stream[begin:end])
        begin = end
    assert found == messages


def test_a_message_that_is_too_long_is_refused_by_its_length_alone():
    found = Frames(most=3).cut(framed(b"abc") + framed(b"abcd")[:4])
    assert next(found) == b"abc"
    with pytest.raises(MessageTooLong, match="larger than 3 bytes"):
        next(found)


def test_a_channel_reads_what_is_there_and_tells_when_the_other_end_is_gone():
    here, there = map(Channel, socket.socketpair())
    with here:
        with there:
            assert here.receive(0) == []
            there.send(b"a")
            there.send(b"b" * 2**16)
            assert here.receive() == [b"a", b"b" * 2**16]
            there.send(b"last")
        assert here.receive() == [b"last"]
        with pytest.raises(EOFError):
            here.receive()
        # To a process that is gone, which is noticed when something is read.
        here.send(b"lost")


async def test_what_was_sent_last_is_read_by_a_process_that_is_just_writing():
    here, there = socket.socketpair()
    read = bytearray()

    class Reader(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            read.extend(data)

    transport, _ = await asyncio.get_running_loop().create_unix_connection(Reader, sock=here)
    with Channel(there) as channel:
        channel.send(b"last")
        ending = threading.Thread(target=channel.finish)
        ending.start()
        # Both before the event loop has read anything.
        transport.write(framed(b"one"))
        transport.write(framed(b"two"))
        await asyncio.to_thread(ending.join)
    assert bytes(read) == framed(b"last")
    assert transport.is_closing(), "the other process has said that nothing more comes"
