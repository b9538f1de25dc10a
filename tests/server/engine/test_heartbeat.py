"""When silence is a hang, on a clock of the test's own; and what waits for an answer does not wait for ever."""

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.answers import OwedAnswers
from server.engine.heartbeat import LOOK_SECONDS, MOST_PATIENCE, Heartbeat, Patience, watch
from server.errors import CatalogRefused
from server.messages import Alive, FromEngine, Progress
from server.try_again import EngineUnavailable
from tests.server.fake_ready import READY

PATIENCE = Patience(hang=30.0, start=600.0)
PROGRESS = Progress([], [], [], running=0, waiting=0, used_slots=0)


def silent(heartbeat: Heartbeat, seconds: float) -> Heartbeat:
    """Look at it as often as is done in earnest."""
    for _ in range(round(seconds / LOOK_SECONDS)):
        heartbeat.look(heartbeat.looked + LOOK_SECONDS)
    return heartbeat


def serving(longest_step: float = 0.1) -> Heartbeat:
    heartbeat = Heartbeat(PATIENCE, 1000.0)
    heartbeat.heard(msgspec.structs.replace(READY, longest_step_seconds=longest_step))
    return heartbeat


def test_an_engine_that_serves_is_suspect_first_and_hung_then():
    heartbeat = serving()
    assert not silent(heartbeat, 8).suspect
    assert silent(heartbeat, 2).suspect
    assert not silent(heartbeat, 20).hung
    assert silent(heartbeat, 1).hung
    assert heartbeat.sentence == "has given no sign of life for 31 s while serving"


@pytest.mark.parametrize("message", [Alive("waiting for requests"), PROGRESS])
def test_any_message_is_a_sign_of_life(message: FromEngine):
    heartbeat = silent(serving(), 29)
    heartbeat.heard(message)
    assert not heartbeat.suspect
    assert not silent(heartbeat, 29).hung


def test_a_start_may_take_longer_and_says_where_it_stands():
    heartbeat = Heartbeat(PATIENCE, 0.0)
    heartbeat.heard(Alive("loading the model"))
    assert not silent(heartbeat, 599).hung
    assert silent(heartbeat, 2).hung
    assert heartbeat.sentence == "has given no sign of life for 601 s while loading the model"


@pytest.mark.parametrize(("longest_step", "bound"), [(5.0, 30.0), (20.0, 80.0), (1e6, MOST_PATIENCE * 30.0)])
def test_a_long_step_is_no_hang_but_a_measurement_that_was_off_does_not_hide_one(longest_step: float, bound: float):
    heartbeat = serving(longest_step)
    assert not silent(heartbeat, bound - 1).hung
    assert silent(heartbeat, 2).hung


@given(st.floats(1.0, 1e6))
def test_the_own_absence_is_not_taken_for_a_silence(seconds: float):
    heartbeat = serving()
    heartbeat.look(heartbeat.looked + seconds)
    assert heartbeat.silence <= 2 * LOOK_SECONDS
    assert not heartbeat.suspect


async def test_the_watch_ends_with_the_hang_or_with_what_else_it_waits_for():
    seen: list[float] = []
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    # Any silence is a hang: how soon the first look comes depends on the ticks.
    heartbeat = Heartbeat(Patience(start=0.0), asyncio.get_running_loop().time())
    assert await watch(heartbeat, {never}, seen.append)
    assert seen == [heartbeat.silence]
    never.set_result(None)
    assert not await watch(heartbeat, {never}, seen.append)


async def test_every_wait_for_an_answer_ends():
    owed = OwedAnswers()
    with pytest.raises(TimeoutError):
        await owed.wait("slow", 0.01)
    owed.settle("slow", None)
    waiting = [asyncio.create_task(owed.wait(name, 60)) for name in ("good", "bad", "gone")]
    await asyncio.sleep(0)
    owed.settle("good", None)
    owed.settle("bad", CatalogRefused("It is bad."))
    owed.settle("unknown", None)
    owed.settle_all(EngineUnavailable("It is gone."))
    await waiting[0]
    with pytest.raises(CatalogRefused, match="bad"):
        await waiting[1]
    with pytest.raises(EngineUnavailable, match="gone"):
        await waiting[2]
