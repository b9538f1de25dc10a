"""The engine's supervisor, on engine processes that have no model and fail in every way there is."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from server.engine import process as engine_process
from server.engine import supervisor as engine_supervisor
from server.engine.heartbeat import Patience
from server.engine.process import EngineProcess, Obstacle
from server.engine.supervisor import EngineStatus
from server.engine_settings import EngineOptions
from server.messages import FromEngine
from server.try_again import EngineUnavailable
from tests.server.engine.fake_engine_client import search, started, submit
from tests.server.engine_process import process_id
from tests.server.fake_ready import READY
from tests.server.fake_worker import UNREADABLE
from tests.waiting import has_ended, until

pytestmark = pytest.mark.usefixtures("fake_worker")

CHANGED = (
    "The catalog file has changed: the server started with version {}, the engine reads {}; "
    "put the old file back, or restart the server to serve the new one."
)


async def test_death_is_told_at_once_and_another_process_takes_over():
    async with started() as (client, failures):
        await until(lambda: client.supervisor.status is EngineStatus.READY)
        first = process_id(client.supervisor)
        waiting = asyncio.create_task(search(client, submit("silence")))
        with pytest.raises(EngineUnavailable, match="died while it worked") as raised:
            await search(client, submit("die"))
        assert raised.value.retry_after_seconds >= 1
        with pytest.raises(EngineUnavailable, match="died while it worked"):
            await waiting
        with pytest.raises(EngineUnavailable, match="being restarted"):
            await search(client, submit("fine"))
        await until(lambda: client.supervisor.status is EngineStatus.READY)
        assert process_id(client.supervisor) != first
        assert (await search(client, submit("fine"))).request_id == "fine"
        assert not failures


async def test_a_start_that_cannot_heal_is_not_tried_again():
    async with started("cannot start") as (client, failures):
        await until(lambda: bool(failures))
        assert failures == ["The model is made of cheese."]
        assert client.supervisor.status is EngineStatus.FAILED


async def test_an_engine_that_never_gets_ready_is_given_up():
    async with started("crashes") as (client, failures):
        await until(lambda: bool(failures))
        assert failures == ["The engine process died 3 times before it was ready; the log above says how."]
        assert client.supervisor.status is EngineStatus.FAILED


async def test_an_engine_with_another_catalog_is_not_asked():
    async with started(catalog_version="v2") as (_, failures):
        await until(lambda: bool(failures))
        assert failures == [CHANGED.format("v2", "v1")]


@pytest.mark.parametrize(
    ("obstacle", "sentence", "logged"),
    [
        ("cannot start", Obstacle("").public, "The model is made of cheese."),
        ("other catalog", CHANGED.format("v1", "v2"), CHANGED.format("v1", "v2")),
    ],
)
async def test_an_engine_that_was_ready_once_is_tried_again_whatever_is_in_the_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, obstacle: str, sentence: str, logged: str
):
    turns = tmp_path / "turns"
    turns.write_text(f"answers\n{obstacle}\n{obstacle}\nanswers")
    async with started(f"turns:{turns}") as (client, failures):
        await until(lambda: client.supervisor.status is EngineStatus.READY)
        with pytest.raises(EngineUnavailable, match="died while it worked"):
            await search(client, submit("die"))
        await until(lambda: bool(failures) or str(client.supervisor.unavailable()) == sentence)
        assert not failures
        assert client.supervisor.status is EngineStatus.RESTARTING
        assert f"the engine can't be restarted yet: {logged}" in caplog.text
        await until(lambda: client.supervisor.status is EngineStatus.READY)
        assert (await search(client, submit("fine"))).request_id == "fine"
        with pytest.raises(EngineUnavailable, match="died while it worked"):
            await search(client, submit("die"))
        assert "being restarted after it died" in str(client.supervisor.unavailable())


async def test_a_machine_that_cannot_start_a_process_now_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    async with started() as (client, failures):
        await until(lambda: client.supervisor.status is EngineStatus.READY)
        with monkeypatch.context() as patch:
            patch.setattr("sys.executable", str(tmp_path / "no-python"))
            with pytest.raises(EngineUnavailable):
                await search(client, submit("die"))
            await until(lambda: bool(failures) or str(client.supervisor.unavailable()) == Obstacle("").public)
        await until(lambda: bool(failures) or client.supervisor.status is EngineStatus.READY)
        assert not failures


async def test_an_engine_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine_process, "STOP_SECONDS", 0.2)
    async with started("deaf") as (client, _):
        await until(lambda: client.supervisor.status is EngineStatus.READY)
        process = process_id(client.supervisor)
    assert process is not None
    assert not psutil.pid_exists(process)


async def test_a_module_that_cannot_be_run_is_a_failure_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("sys.executable", str(tmp_path / "no-python"))
    async with started() as (client, failures):
        await until(lambda: bool(failures))
        assert "The engine process can't be started: " in failures[0]
        assert client.supervisor.status is EngineStatus.FAILED


async def test_an_engine_that_hangs_is_killed_and_everybody_who_waits_is_told(caplog: pytest.LogCaptureFixture):
    # The fake engine never gives a sign of life by itself.
    async with started(patience=Patience(hang=1.5)) as (client, failures):
        await until(lambda: client.supervisor.status is EngineStatus.READY)
        first = process_id(client.supervisor)
        assert first is not None
        psutil.Process(first).suspend()
        waiting = asyncio.create_task(search(client, submit("silence")))
        loading = asyncio.create_task(client.load_catalog("next", Path("next.catalog")))
        await until(lambda: client.supervisor.is_silent)
        with pytest.raises(EngineUnavailable, match="gives no sign of life"):
            await search(client, submit("fine"))
        with pytest.raises(EngineUnavailable, match="hung while it worked on this request"):
            await waiting
        with pytest.raises(EngineUnavailable, match="being restarted after it hung"):
            await loading
        await until(lambda: not psutil.pid_exists(first))
        assert f"the engine process {first} has given no sign of life for 2 s while serving, and is killed" in caplog.text
        await until(lambda: client.supervisor.status is EngineStatus.READY and not client.supervisor.is_silent)
        assert (await search(client, submit("fine"))).request_id == "fine"
        assert not failures


@pytest.mark.parametrize("what", UNREADABLE)
async def test_an_engine_whose_messages_cannot_be_read_is_replaced_with_a_sentence(what: str, caplog: pytest.LogCaptureFixture):
    unhandled: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    async with started() as (client, failures):
        await until(lambda: client.supervisor.status is EngineStatus.READY)
        with pytest.raises(EngineUnavailable, match="died while it worked"):
            await search(client, submit(what))
        assert "has sent a message that can't be read, and is killed: " in caplog.text
        await until(lambda: client.supervisor.status is EngineStatus.READY)
        assert (await search(client, submit("fine"))).request_id == "fine"
        assert not failures
    assert not unhandled


@pytest.mark.parametrize("end", ["die", "stop"])
async def test_what_an_engine_has_started_ends_with_it(end: str):
    async with started() as (client, _):
        await until(lambda: client.supervisor.status is EngineStatus.READY)
        await search(client, submit("spawn"))
        assert process_id(client.supervisor) is not None
        (child,) = psutil.Process(process_id(client.supervisor)).children()
        if end == "die":
            with pytest.raises(EngineUnavailable):
                await search(client, submit("die"))
    await until(lambda: has_ended(child))


class Clock:
    """Seconds that pass where they are added to `now`, and `step` at each look."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def monotonic(self) -> float:
        self.now += self.step
        return self.now


async def test_an_engine_is_overdue_once_it_could_have_loaded_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """That the next one takes as long needs nobody; that engines are ready for moments, and die, does."""
    turns = tmp_path / "turns"
    turns.write_text("answers\nanswers\nanswers\ncannot start")
    monkeypatch.setattr(engine_supervisor, "time", clock := Clock(step=40.0))
    async with started(f"turns:{turns}") as (client, _):
        supervisor = client.supervisor

        def overdue() -> float | None:
            return supervisor._metrics.registry.get_sample_value("atspeed_engine_overdue_seconds")

        async def served_for(seconds: float) -> None:
            await until(lambda: supervisor.status is EngineStatus.READY)
            assert overdue() == 0
            clock.now, clock.step = clock.now + seconds, 0.0
            with pytest.raises(EngineUnavailable, match="died while it worked"):
                await search(client, submit("die"))

        assert overdue() == 0
        await served_for(3600)
        # It took 40 s to load.
        assert overdue() == 0
        clock.now += 39
        assert overdue() == 0
        clock.now += 31
        assert overdue() == 30
        # Those after it load at once.
        await served_for(20)
        assert overdue() == 90
        await served_for(61)
        assert overdue() == 0


async def test_a_fault_of_the_supervisor_itself_ends_the_server(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """It would look alive, and never have an engine again."""

    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake in the code")

    async with started() as (client, failures):
        await until(lambda: client.supervisor.status is EngineStatus.READY)
        monkeypatch.setattr(client.supervisor.watch, "engine_ended", fail)
        with pytest.raises(EngineUnavailable, match="died while it worked"):
            await search(client, submit("die"))
        await until(lambda: bool(failures))
        assert failures == ["The engine process can't be kept running: a mistake in the code."]
        assert client.supervisor.status is EngineStatus.FAILED
        assert "the engine's supervisor failed" in caplog.text
        with pytest.raises(EngineUnavailable, match=r"^The engine can't start\.$"):
            await search(client, submit("fine"))


async def test_a_process_that_was_given_up_does_not_become_ready_by_what_it_had_still_sent(monkeypatch: pytest.MonkeyPatch):
    """It is waited for until it has ended, and its socket is read meanwhile."""

    @asynccontextmanager
    async def start(_module: str, _options: EngineOptions, receive: Callable[[FromEngine], None]) -> AsyncIterator[SimpleNamespace]:
        try:
            yield SimpleNamespace(pid=0, exit_status=asyncio.get_running_loop().create_future(), send=None)
        finally:
            receive(READY)

    monkeypatch.setattr(EngineProcess, "start", start)
    async with started() as (client, _):
        await until(lambda: process_id(client.supervisor) is not None)
        # The server ends while its engine loads.
        await client.supervisor.stop()
        assert (client.supervisor.engine, client.supervisor.ready) == (None, None)
