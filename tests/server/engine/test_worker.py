"""The engine process's step loop, run in this process on an engine without a model."""

import os
import socket
import threading
import time
from collections.abc import Iterator

import msgspec
import pytest

from drafting.beam.rule import SearchRule, Verification
from drafting.catalog.attributes import AttributeColumn
from drafting.catalog.item_values import ItemValues
from drafting.errors import SetupError
from drafting.plans.fixed_plan import FixedPlan
from server.engine import catalogs, worker
from server.engine.catalogs import EngineCatalogs
from server.engine.channel import MOST_BYTES, Channel
from server.engine.main import warm_up
from server.engine.worker import EngineWorker
from server.engine_settings import EngineOptions
from server.messages import Cancel, FailedList, ForgetUser, FromEngine, PlacesLimit, Progress, Shutdown, ToEngine
from server.submit import Submit
from tests.models import random_catalog
from tests.server.fake_engine import STEPS, FakeEngine, FakeSource
from verification.result import RankedItem, StepReport, Usage

OPTIONS = EngineOptions(target="", catalog="", max_running=2)
CATALOG = random_catalog(items=20)


class Bench:
    """A worker and the parent's end of its socket."""

    def __init__(self) -> None:
        self.parent, self.channel = map(Channel, socket.socketpair())
        self.engine = FakeEngine()
        self.worker = EngineWorker(self.channel, FakeSource(CATALOG, self.engine), OPTIONS)

    def send(self, *messages: ToEngine) -> None:
        for message in messages:
            self.parent.send(msgspec.msgpack.encode(message))

    def run_until_idle(self) -> list[Progress]:
        self.worker.drain()
        self.worker.run()
        return [msgspec.msgpack.decode(frame, type=FromEngine) for frame in self.parent.receive(0)]


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    with bench.parent, bench.channel:
        yield bench


def submit(
    request_id: str, history: list[int] | None = None, *, k: int = 2, excluded: list[int] | None = None, deadline: float = 60
) -> Submit:
    now = time.monotonic()
    return Submit(request_id, [1, 2, 3] if history is None else history, k, k, excluded or [], now + deadline, now, is_proof=True)


def test_lists_come_back_with_their_cost_and_every_step_is_reported(bench: Bench):
    bench.send(submit("a"), submit("b", [4]), submit("c"))
    messages = bench.run_until_idle()
    finished = {entry.result.request_id: entry for message in messages for entry in message.finished}
    assert set(finished) == {"a", "b", "c"}
    assert finished["a"].result.items == (RankedItem(0, 0.0, 1), RankedItem(1, -1.0, 2))
    usage = finished["b"].result.usage
    assert usage == Usage(1, 0, STEPS, 2, drafted_nodes=9, used_by={"beam": 4}, accepted_depths=(1, 2), plan="auto:beam")
    assert usage.accepted_steps == 2
    assert finished["c"].queue_seconds >= 0
    steps = [step for message in messages for step in message.steps]
    assert [step.report for step in steps] == [StepReport((), tokens, 0.001, 0.0005, 3, 1, 0.0002) for tokens in bench.engine.forwards]
    assert all(step.elapsed_seconds > 0 for step in steps)
    # Two of the three may run at a time.
    assert [step.crowded for step in steps] == [True] * STEPS + [False] * STEPS
    assert len(steps) == 2 * STEPS
    assert (messages[-1].running, messages[-1].waiting, messages[-1].used_slots) == (0, 0, 0)


def test_values_of_an_attribute_are_worked_out_beside_the_steps_of_others(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    def wait(column: AttributeColumn) -> ItemValues:
        while len(bench.engine.forwards) < STEPS:
            time.sleep(0.001)
        return column.item_values

    monkeypatch.setattr(catalogs, "_values_of", wait)
    capped = [msgspec.structs.replace(submit(name), diversity={"title": 1}) for name in ("a", "b")]
    unknown = msgspec.structs.replace(submit("c"), diversity={"shelf": 1})
    bench.send(*capped, unknown, submit("d"), Cancel("b"))
    messages = bench.run_until_idle()
    assert [entry.result.request_id for message in messages for entry in message.finished] == ["d", "a"]
    (failed,) = (failure for message in messages for failure in message.failed)
    assert failed == FailedList("c", "The catalog has no attribute 'shelf', by which a list could be diverse.")


def test_a_drained_loop_leaves_no_request_whose_values_became_known_at_the_end(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    loading, looks, known = EngineCatalogs.loading, 0, threading.Event()

    def wait(column: AttributeColumn) -> ItemValues:
        known.wait()
        return column.item_values

    def look(self: EngineCatalogs) -> bool:
        # The first look is behind the wait for messages, the second before the end.
        nonlocal looks
        looks += 1
        if looks == 2:
            known.set()
            while loading.__get__(self):
                time.sleep(0.001)
        return loading.__get__(self)

    monkeypatch.setattr(catalogs, "_values_of", wait)
    monkeypatch.setattr(EngineCatalogs, "loading", property(look))
    bench.send(msgspec.structs.replace(submit("a"), diversity={"title": 1}))
    assert [entry.result.request_id for message in bench.run_until_idle() for entry in message.finished] == ["a"]


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (submit("bad", []), "at least one token"),
        # No sample user's list for a request that is no proof, whatever its history.
        (msgspec.structs.replace(submit("bad"), is_proof=False), "at least one token"),
        (submit("bad", k=0), "1 <= k"),
        (submit("bad", [20]), "does not have"),
        (submit("bad", [-1]), "does not have"),
        (submit("bad", excluded=[999]), "does not have"),
        (submit("bad", list(range(20)) * 10), "KV slots"),
        (submit("bad", k=6), "The plan beam:5 drafts fewer prefixes than the 6 that this request keeps"),
        (msgspec.structs.replace(submit("bad"), seed=-1), "A seed is a whole number"),
        (msgspec.structs.replace(submit("bad"), temperature=0.0), "A temperature lies between"),
    ],
)
def test_a_request_that_cannot_be_built_fails_alone(bench: Bench, bad: Submit, sentence: str):
    bench.engine.plan = FixedPlan.parse("beam:5")
    bench.send(submit("good"), bad)
    messages = bench.run_until_idle()
    (failed,) = [entry for message in messages for entry in message.failed]
    assert failed.request_id == "bad"
    assert failed.sentence is not None
    assert sentence in failed.sentence
    assert [entry.result.request_id for message in messages for entry in message.finished] == ["good"]


def test_a_request_whose_scores_are_not_finite_fails_alone(bench: Bench, caplog: pytest.LogCaptureFixture):
    bench.engine.not_finite = {"bad", "worse"}
    bench.send(submit("good"), submit("bad"), submit("worse"), submit("better"))
    messages = bench.run_until_idle()
    failed = [entry for message in messages for entry in message.failed]
    assert sorted((entry.request_id, entry.sentence, entry.not_finite) for entry in failed) == [("bad", None, True), ("worse", None, True)]
    assert {entry.result.request_id for message in messages for entry in message.finished} == {"good", "better"}
    assert (messages[-1].running, messages[-1].waiting, messages[-1].used_slots) == (0, 0, 0)
    assert caplog.text.count("not finite") == 1


def test_a_request_is_searched_by_the_rule_that_it_names(bench: Bench):
    relaxed = msgspec.structs.replace(submit("a"), verification=Verification.RELAXED, seed=2**63 - 1, temperature=0.5)
    bench.send(relaxed, submit("b"))
    messages = bench.run_until_idle()
    assert bench.engine.rules == {"a": SearchRule(Verification.RELAXED, 2**63 - 1, 0.5), "b": SearchRule()}
    told = {entry.result.request_id: entry.result.rule.verification for message in messages for entry in message.finished}
    assert told == {"a": Verification.RELAXED, "b": Verification.STRICT}


def test_lists_that_one_message_can_not_hold_are_told_in_several(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker, "MOST_ITEMS", 5)
    bench.worker = EngineWorker(bench.channel, FakeSource(CATALOG, bench.engine), OPTIONS.model_copy(update={"max_running": 5}))
    bench.send(submit("a", k=3), submit("b", k=2), submit("c", k=6), submit("d", k=5), submit("e", k=1))
    messages = bench.run_until_idle()
    told = [[entry.result.request_id for entry in message.finished] for message in messages if message.finished]
    assert told == [["a", "b"], ["d"], ["e"]]
    sentence = "The list would have 6 items, more than the 5 that one may have: ask for a smaller k."
    assert [entry for message in messages for entry in message.failed] == [FailedList("c", sentence)]
    assert sum(len(message.steps) for message in messages) == STEPS


def test_a_message_of_as_many_items_as_it_may_hold_is_read():
    item = msgspec.msgpack.encode(RankedItem(2**31 - 1, -1.23456789, 2**31 - 1))
    assert worker.MOST_ITEMS * len(item) < MOST_BYTES / 1.5


def test_a_passed_deadline_is_a_failure_without_a_sentence(bench: Bench):
    bench.send(submit("late", deadline=-1))
    (message,) = bench.run_until_idle()
    assert [(entry.request_id, entry.sentence) for entry in message.failed] == [("late", None)]


def test_a_cancelled_request_leaves_no_trace(bench: Bench):
    bench.send(submit("a"), Cancel("a"), Cancel("unknown"))
    (message,) = bench.run_until_idle()
    assert not message.finished
    assert not message.failed
    assert not bench.engine.added


def test_a_user_is_forgotten_while_others_run_and_while_none_does(bench: Bench):
    bench.send(submit("a"), ForgetUser("ann"))
    bench.run_until_idle()
    bench.send(ForgetUser("bob"))
    bench.run_until_idle()
    assert bench.engine.forgotten == ["ann", "bob"]


def test_a_user_is_forgotten_whose_requests_wait_for_a_step_or_for_values(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    def wait(column: AttributeColumn) -> ItemValues:
        while len(bench.engine.forwards) < STEPS:
            time.sleep(0.001)
        return column.item_values

    def asked(name: str, user: str, **options: dict[str, int]) -> Submit:
        return msgspec.structs.replace(submit(name), user=user, **options)

    monkeypatch.setattr(catalogs, "_values_of", wait)
    bench.send(asked("a", "ann", diversity={"title": 1}), asked("b", "bob", diversity={"title": 1}), asked("c", "ann"), ForgetUser("ann"))
    bench.send(asked("d", "ann"))
    bench.run_until_idle()
    assert bench.engine.keys == {"a": None, "b": "bob", "c": None, "d": "ann"}


def test_shutdown_ends_the_loop_at_once(bench: Bench):
    bench.send(submit("a"), Shutdown())
    bench.worker.run()
    assert not bench.engine.forwards


def test_the_loop_ends_with_the_other_end_of_its_socket_whatever_is_under_way(bench: Bench):
    with bench.parent:
        bench.send(submit("a"))
    bench.worker.run()
    assert len(bench.engine.forwards) < STEPS


@pytest.mark.timeout(60)
def test_the_loop_ends_with_its_parent_where_somebody_else_holds_that_end(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker, "IDLE_POLL_MS", 1)
    parent = os.getppid()
    monkeypatch.setattr(os, "getppid", lambda: parent + 1)
    bench.worker.run()
    assert bench.parent.receive(0) == []


def test_a_failing_step_ends_the_process(bench: Bench):
    bench.engine.broken = True
    bench.send(submit("a"))
    with pytest.raises(RuntimeError, match="the kernel failed"):
        bench.worker.run()


def test_an_engine_too_small_for_one_list_gets_one_sentence():
    with pytest.raises(SetupError, match=r"^The memory for keys and values holds only 5 tokens, .*: raise --kv-memory-gib\.$"):
        warm_up(FakeSource(CATALOG), FakeEngine(total_slots=5))


def test_warming_up_leaves_the_engine_empty():
    engine = FakeEngine()
    engine.plan = FixedPlan.parse("beam:5")
    warm_up(FakeSource(CATALOG), engine)
    assert len(engine.forwards) == STEPS
    assert engine.used_slots == 0


def test_the_parent_is_told_at_once_which_requests_have_begun_to_think(bench: Bench):
    assert bench.worker.places_limit == PlacesLimit(1, 25)
    bench.send(*(msgspec.structs.replace(submit(name), think=5) for name in ("a", "b")), submit("c"))
    messages = bench.run_until_idle()
    assert [message.placed for message in messages if message.placed] == [("a",), ("b",)]
    assert [len(message.steps) for message in messages[:2]] == [1, STEPS - 1]
