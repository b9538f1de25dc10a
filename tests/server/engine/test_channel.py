"""The socket between the two processes: messages however they come in pieces, and the end of the other process."""

import random
import socket

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
    assert Frames(most=3).cut(framed(b"abc")) == [b"abc"]
    with pytest.raises(MessageTooLong, match="larger than 3 bytes"):
        Frames(most=3).cut(framed(b"abcd")[:4])


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
