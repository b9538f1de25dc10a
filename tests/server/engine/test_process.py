"""One engine process and the socket to it: messages in both directions at once, and an end that nobody waits for."""

import asyncio

import msgspec
import psutil
import pytest

from server.engine.channel import MOST_BYTES, framed
from server.engine.process import EngineProcess
from server.engine_settings import EngineOptions
from server.messages import FailedList, FromEngine, Progress
from server.submit import Submit

MODULE = "tests.server.echo_worker"
OPTIONS = EngineOptions(target="", catalog="")
MESSAGES = 3000


class Received:
    """What came from a process, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._changed = asyncio.Event()

    def __call__(self, message: FromEngine) -> None:
        assert isinstance(message, Progress)
        self.names += [failed.request_id for failed in message.failed]
        self._changed.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.names) < count:
                self._changed.clear()
                await self._changed.wait()


def submit(name: str) -> Submit:
    return Submit(name, [0], 1, 1, [], 0.0, 0.0)


async def test_messages_that_cross_all_arrive_in_order():
    received = Received()
    async with EngineProcess.start(MODULE, OPTIONS, received) as engine:
        await received.until(1)
        for number in range(MESSAGES):
            engine.send(submit(str(number)))
            if number % 7 == 0:
                await asyncio.sleep(0)
        await received.until(MESSAGES + 1)
        # One at a time: the socket tells of each only once, and a message may come while the next is being sent.
        for number in range(MESSAGES, MESSAGES + 300):
            engine.send(submit(str(number)))
            await received.until(number + 2)
    assert received.names == ["ready", *map(str, range(MESSAGES + 300))]


async def test_a_process_is_gone_with_its_context_and_ends_by_itself_when_asked():
    received = Received()
    async with EngineProcess.start(MODULE, OPTIONS, received) as engine:
        await received.until(1)
        await engine.stop()
        assert await engine.exit_status == 0
    async with EngineProcess.start(MODULE, OPTIONS, received) as engine:
        assert psutil.pid_exists(engine.pid)
    assert not psutil.pid_exists(engine.pid)
    assert await engine.exit_status == -9


async def test_messages_to_a_process_that_has_died_are_dropped():
    received = Received()
    async with EngineProcess.start(MODULE, OPTIONS, received) as engine:
        await received.until(1)
        psutil.Process(engine.pid).kill()
        await engine.exit_status
        for number in range(100):
            engine.send(submit(str(number)))
            await asyncio.sleep(0)
    assert received.names == ["ready"]


@pytest.mark.parametrize("bad", [framed(b"\xc1\x00\xff"), (MOST_BYTES + 1).to_bytes(4, "big")], ids=["garbled", "oversized"])
async def test_what_came_before_a_message_that_can_not_be_read_counts_and_nothing_after_it(bad: bytes, caplog: pytest.LogCaptureFixture):
    def good(name: str) -> bytes:
        return framed(msgspec.msgpack.encode(Progress([], [FailedList(name)], [], running=0, waiting=0, used_slots=0)))

    received = Received()
    async with EngineProcess.start(MODULE, OPTIONS, received) as engine:
        await received.until(1)
        # The process answers these as well, into a socket that nobody reads any more.
        for number in range(100):
            engine.send(submit(str(number)))
        engine.data_received(good("before") + bad + good("after"))
        assert await engine.exit_status == -9
        await asyncio.sleep(0.05)
    assert received.names == ["ready", "before"]
    assert caplog.text.count("that can't be read, and is killed") == 1
