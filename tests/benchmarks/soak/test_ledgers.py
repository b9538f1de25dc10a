"""The ledgers against servers that lose, invent and reorder."""

from typing import Any

import pytest

from benchmarks.soak.event_ledger import EventLedger, lost_events
from benchmarks.soak.version_ledger import KEPT_VERSIONS, OpenChange, VersionLedger, superfluous

FIRST, SECOND = {"event_id": "1", "item_id": "a", "timestamp": 1.0}, {"event_id": "2", "item_id": "b", "timestamp": 2.0}


@pytest.fixture
def events() -> EventLedger:
    """One acknowledged event, and one that was sent and not acknowledged."""
    ledger = EventLedger()
    ledger.send("user", [FIRST, SECOND])
    ledger.acknowledge("user", [FIRST])
    return ledger


def test_an_acknowledged_event_that_is_not_shown_is_lost_and_another_need_not_be(events: EventLedger):
    assert events.acknowledged == 1
    assert lost_events(events.due("user"), []) == 1
    assert lost_events(events.due("user"), [FIRST]) == 0
    assert events.complaint("user", [FIRST]) is events.complaint("user", [FIRST, SECOND]) is None


@pytest.mark.parametrize(
    ("shown", "complaint"),
    [
        ([SECOND, FIRST], "is not in the order of its timestamps"),
        ([FIRST, FIRST], "shows an event twice"),
        ([FIRST | {"item_id": "c"}], "shows an event 1 that was never sent so"),
        ([FIRST | {"timestamp": 1.5}], "shows an event 1 that was never sent so"),
        ([FIRST | {"event_id": "3"}], "shows an event 3 that was never sent so"),
        ([{"item_id": "a", "timestamp": 1.0}], "shows an event None that was never sent so"),
    ],
)
def test_what_a_history_shows_and_nobody_sent_is_found(events: EventLedger, shown: list[dict[str, Any]], complaint: str):
    told = events.complaint("user", shown)
    assert told is not None
    assert complaint in told


def test_a_user_who_was_deleted_stays_away(events: EventLedger):
    events.forget("user")
    assert events.due("user") == frozenset()
    assert events.complaint("user", []) is None
    assert events.complaint("user", [FIRST]) == "The history of user shows 1 events after it was deleted."


def activation(version: str, at: float) -> dict[str, Any]:
    return {"version": version, "by": "soak", "at": at}


@pytest.fixture
def versions() -> VersionLedger:
    """The version of the start, a second one that is served."""
    ledger = VersionLedger("start", "start", {"start": frozenset({"x-0"})})
    ledger.add_version("v1", frozenset({"x-0", "x-1"}))
    ledger.activate(activation("v1", 5.0))
    return ledger


def shown(active: str = "v1", names: tuple[str, ...] = ("start", "v1"), *history: dict[str, Any]) -> dict[str, Any]:
    return {"active": active, "versions": list(names), "history": list(history) or [activation("start", 1.0), activation("v1", 5.0)]}


def test_what_was_acknowledged_passes(versions: VersionLedger):
    assert versions.complaint(shown()) is None
    # The start's own file need not be in the server's directory.
    assert versions.complaint(shown(names=("v1",))) is None


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (shown("start", ("start",)), "The server has lost the versions v1."),
        (shown(names=("start", "v1", "v2")), "The server shows the versions v2, which nobody brought or which were deleted."),
        (shown("start"), "The server serves start, though v1 was activated last."),
        (
            shown("v1", ("v1",), activation("v1", 4.0)),
            "The server's history lacks 1 acknowledged activations, or has them in another order.",
        ),
    ],
)
def test_what_was_lost_or_invented_is_found(versions: VersionLedger, wrong: dict[str, Any], complaint: str):
    assert versions.complaint(wrong) == complaint


def test_a_change_without_an_answer_may_have_happened_or_not(versions: VersionLedger):
    versions.open = OpenChange("v2", brings=frozenset({"x-2"}))
    assert versions.settle(shown()) is None
    assert "v2" not in versions.versions
    versions.open = OpenChange("v2", brings=frozenset({"x-2"}))
    assert versions.settle(shown(names=("start", "v1", "v2"))) is None
    assert versions.versions["v2"] == {"x-2"}
    versions.open = OpenChange("v2", activates=True)
    assert versions.settle(shown("v2", ("start", "v1", "v2"))) is None
    assert versions.active == "v2"
    versions.open = OpenChange("v1", removes=True)
    assert versions.settle(shown("v2", ("start", "v2"))) is None
    assert "v1" not in versions.versions


def test_a_change_without_an_answer_excuses_no_other(versions: VersionLedger):
    versions.open = OpenChange("v1", activates=True)
    assert versions.settle(shown("start")) == "The server serves start, though v1 was activated last."
    versions.open = OpenChange("v2", brings=frozenset({"x-2"}))
    assert versions.settle(shown(names=("start", "v1", "v3"))) == (
        "The server shows the versions v3, which nobody brought or which were deleted."
    )


def test_posted_items_make_a_version_of_the_one_that_is_served(versions: VersionLedger):
    for number in range(1, KEPT_VERSIONS + 3):
        versions.add_items(activation(f"v1.items-{number}", 5.0 + number), [f"new-{number}"])
    assert versions.acknowledged_items == KEPT_VERSIONS + 2
    assert versions.versions[versions.active] >= {"x-0", "x-1", "new-1", f"new-{KEPT_VERSIONS + 2}"}
    # As the server does, the ledger drops all but the newest ten that were made of one version.
    assert sorted(versions.versions) == sorted(["start", "v1", *(f"v1.items-{number}" for number in range(3, KEPT_VERSIONS + 3))])
    assert superfluous("v1", versions.versions) == []
    # A full disk may keep the server from it, and one of those may be served again.
    names = ("v1", "v1.items-1", *(f"v1.items-{number}" for number in range(3, KEPT_VERSIONS + 3)))
    assert versions.complaint(shown(versions.active, names, *versions.activations)) is None
    versions.activate(activation("v1.items-1", 99.0))
    assert versions.versions["v1.items-1"] == {"x-0", "x-1", "new-1"}


def test_a_server_that_leaves_a_version_must_say_so(versions: VersionLedger):
    assert versions.complaint(shown("start")) == "The server serves start, though v1 was activated last."
    left = shown("start") | {"left": [{"version": "v1", "at": 6.0, "reason": "Two engines died with it."}]}
    assert versions.complaint(left) is None
    assert versions.active == "start"
