"""The judge of `make fleet-check`: nothing to say of what is right, and a complaint of each kind of slip."""

from pathlib import Path

import msgspec
import pytest

from deploy.fleet.faults import Fault
from deploy.fleet.history import History
from deploy.fleet.judge import Shown, change_complaints, end_complaints, list_complaints
from deploy.fleet.redis import Span
from deploy.fleet.report import write_report
from deploy.fleet.traffic import Seen
from deploy.fleet.trial import Outcome
from drafting.catalog.artefact import save_artefact
from drafting.catalog.builder import catalog_of
from drafting.catalog.text_column import TextColumn
from server.control import Position, State, Write
from server.control.records import ACTIVATION, FILTER, Activation, VersionRecord, encode_filter, version_added

A, B, C = (frozenset(f"item-{number}" for number in range(count)) for count in (8, 6, 7))
"""Items of `start`, of `v1`, and of `v1` with one added."""


def active(number: int, version: str) -> dict[str, bytes | None]:
    return {f"{ACTIVATION}{number:010d}": msgspec.msgpack.encode(Activation(version, "a test", 0.0))}


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    """Revision 1: `group = 1`; 2: `v1`; 3: it is active from 103 on, or 103.5; 4: the filter names items; 5: `v1.items-5` from 105 on."""
    folder = tmp_path_factory.mktemp("catalogs")
    for name, items in (("v1", B), ("v1.items-5", C)):
        save_artefact(catalog_of({item: [f"<a_{item[5:]}>"] for item in sorted(items)}), folder / f"{name}.catalog")
    changes = [
        {f"{FILTER}few": encode_filter("group = 1")},
        version_added("v1", VersionRecord("v1.catalog", 0.0)),
        active(2, "v1"),
        {f"{FILTER}few": encode_filter(TextColumn.of(["item-2", "item-3"]))},
        version_added("v1.items-5", VersionRecord("v1.items-5.catalog", 0.0)) | active(3, "v1.items-5"),
    ]
    writes = [Write(Position("g", number, f"w{number}"), 100.0 + number, "a", change) for number, change in enumerate(changes, 1)]
    values = version_added("start", VersionRecord("/start", 0.0)) | active(1, "start")
    first = State(Position("g", 0, "w0"), {key: value for key, value in values.items() if value is not None})
    return History(first, writes, {f"w{number}": 100.5 + number for number in range(1, 6)}, folder, ("start", A))


def test_the_table_of_seeds_takes_the_place_of_the_first_one_of_the_page(tmp_path: Path):
    outcome = Outcome(
        seed=7,
        seconds=1.4,
        acknowledged=1,
        refused=2,
        open=3,
        revisions=4,
        lists=5,
        failed=6,
        latest=0.5,
        behind=8,
        faults={},
        complaints=[],
    )
    page = tmp_path / "fleet.md"
    write_report(page, [outcome])
    first = page.read_text()
    page.write_text(f"{first}\nText.\n\n| another |\n|---|\n")
    write_report(page, [outcome, msgspec.structs.replace(outcome, seed=8)])
    head, rule, one, two, *rest = page.read_text().removeprefix("# A fleet under faults\n\n").split("\n")
    assert first.split("\n")[2:5] == [head, rule, one]
    assert one.startswith("| 7 | 1 | 2 | 3 | 4 | 5 | 6 | 8 | 0.50 s | 0 |")
    assert two == one.replace("| 7 |", "| 8 |")
    assert rest == ["", "Text.", "", "| another |", "|---|", ""]


def listed(version: str, begun: float, revision: int, items: list[int], name: str = "", behind: float = 0.0) -> Seen:
    answer = {"catalog_version": version, "items": [{"item_id": f"item-{item}"} for item in items]}
    return Seen(kind="list", name=name, begun=begun, ended=begun + 0.1, status=200, revision=revision, behind=behind, answer=answer)


def change(kind: str, revision: int, name: str = "", what: str | frozenset[str] = "", version: str = "") -> Seen:
    return Seen(kind=kind, name=name, what=what, status=200, revision=revision, answer={"version": version})


RIGHT = [
    change("put", 1, "few", "group = 1"),
    change("upload", 2, "v1", B),
    change("activate", 3, "v1"),
    change("put", 4, "few", frozenset(["item-2", "item-3"])),
    change("items", 5, what=frozenset(["item-6"]), version="v1.items-5"),
]
WRONG = {
    "is lost: the history ends at 5": change("drop", 6, "few"),
    "is lost: that revision does not have it": change("put", 4, "few", "group = 1"),
    "and so was another one of that name": change("upload", 3, "v1", B),
    "has other items than were sent": change("upload", 2, "v1", A),
    "is not what was active and the new items": change("items", 5, what=frozenset(["item-5"]), version="v1.items-5"),
}


def test_what_is_in_the_history_is_right(history: History):
    assert not list(change_complaints(history, RIGHT))
    refused = Seen(kind="put", name="few", what="group = 3", status=503)
    assert not list(change_complaints(history, [refused]))


@pytest.mark.parametrize("sentence", WRONG)
def test_changes_that_are_not_in_the_history_are_found(history: History, sentence: str):
    before = RIGHT if "another" in sentence else []
    (complaint,) = change_complaints(history, [*before, WRONG[sentence]])
    assert sentence in complaint


def test_a_replica_that_shows_another_state_is_found(history: History):
    right = Shown(5, "v1.items-5", frozenset(["start", "v1", "v1.items-5"]), {"few": ("", 2)})
    others = [Shown(4, right.active, right.versions, right.filters), Shown(5, "v1", right.versions, right.filters)]
    others += [Shown(5, right.active, right.versions - {"v1"}, right.filters), Shown(5, right.active, right.versions, {"few": ("", 3)})]
    assert not list(end_complaints(history, {"one": right}))
    assert len(list(end_complaints(history, dict(enumerate([right, *others]))))) == len(others)


@pytest.mark.parametrize(
    ("seen", "sentence"),
    [
        (listed("start", 104.4, 2, [7]), None),
        (listed("start", 104.6, 2, [7]), "was not active any more for 1.10 s"),
        (listed("start", 106.4, 2, [7], behind=3.0), None),
        (listed("start", 106.4, 2, [7], behind=2.8), "was not active any more for 2.90 s"),
        (listed("v1", 102.8, 2, [5]), "was not active before its end"),
        (listed("v1", 102.95, 2, [5]), None),
        (listed("v1", 104.0, 3, [6]), "has items that the version does not have"),
        (listed("v1", 103.6, 3, [1, 5], "few"), None),
        (listed("v1", 103.6, 3, [2], "few"), "breaks what few meant"),
        # The request began before the filter changed, and ended after it.
        (listed("v1", 103.95, 3, [2], "few"), None),
        (listed("v1", 103.95, 3, [1, 2], "few"), "breaks what few meant"),
        (listed("start", 100.0, 0, [1], "few"), "breaks what few meant"),
    ],
)
def test_lists_of_the_wrong_version_items_or_filter_are_complained_of(history: History, seen: Seen, sentence: str | None):
    complaints = list(list_complaints(history, [seen], [], [Span(100.0, 106.0)]))
    assert [sentence in each for each in complaints if sentence is not None] == [True] * (sentence is not None)
    assert len(complaints) == (sentence is not None)


@pytest.mark.parametrize(
    ("faults", "broken", "unexplained"),
    [
        ([], [], 60.0),
        ([Fault("replica stopped", "another", 160.0, 170.0), Fault("master killed", "redis", 160.0, 161.0)], [], 60.0),
        ([Fault("replica killed", "one", 160.0, 170.0)], [], 40.0),
        # Each is followed by ten seconds; those of two that follow each other count once.
        ([Fault("replica stopped", "one", 158.0, 160.0)], [Span(165.0, 168.0)], 40.0),
        ([], [Span(150.0, 152.0), Span(170.0, 172.0)], 36.0),
        # What was over long before the time for which the server could not know explains nothing of it; the last one has not ended.
        ([Fault("replica stopped", "one", 195.0)], [Span(90.0, 100.0)], 55.0),
        ([], [Span(139.0, 150.0), Span(155.0, 175.0), Span(182.0, 186.0)], 4.0),
        ([], [Span(139.0, 150.0), Span(155.0, 175.0), Span(182.0, 190.0)], 0.0),
        # A server that waits for processors asks a little later.
        ([], [Span(149.0, 195.0)], 9.0),
        ([], [Span(151.0, 195.0)], 11.0),
    ],
)
def test_next_to_nothing_is_unexplained_of_how_late_a_server_says_that_it_may_be(
    history: History, faults: list[Fault], broken: list[Span], unexplained: float
):
    seen = listed("v1.items-5", 199.9, 5, [1], behind=60.0)
    seen.replica, seen.ended = "one", 200.0
    complaints = list(list_complaints(history, [seen], faults, broken))
    assert [f"nothing explains {unexplained:.2f} s" in each for each in complaints] == [True] * (unexplained > 10.0)


def test_where_nothing_happened_no_server_says_that_it_may_be_late(history: History):
    assert len(list(list_complaints(history, [listed("v1.items-5", 199.9, 5, [1], behind=1.1)], [], []))) == 1
    assert not list(list_complaints(history, [listed("v1.items-5", 199.9, 5, [1])], [], []))
