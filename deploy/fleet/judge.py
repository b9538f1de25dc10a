"""Whether the fleet has held what it must hold: complaints about what clients have seen, beside the history of the control store.

Invariants that are judged: an acknowledged change is at its revision in the history, and so there at the end or superseded by a later one;
new items are on top of what was active; no name of a version was given twice; all replicas show the last state; a list is of a version
that was active within a second before its request or until its end, or within the time for which its server says that it could not know,
and does what its filter meant at the revision that it tells. But for a few seconds, that time is explained by what was done to that server,
and by when Redis was not whole, as nothing can be confirmed then.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.soak.catalog_lines import group_of
from deploy.fleet.faults import Fault
from deploy.fleet.history import History, meaning
from deploy.fleet.redis import Span
from deploy.fleet.traffic import Seen

LATE_SECONDS = 1.0
# Until servers have asked a Redis that is whole again; on a crowded machine as long with nothing else to explain it.
ASK_SECONDS = 10.0


@dataclass
class Shown:
    """The state that one replica shows at the end: filters by name with their expression and their number of items."""

    revision: int
    active: str
    versions: frozenset[str]
    filters: dict[str, tuple[str, int]] = field(default_factory=dict)


def passes(item: str, what: str | frozenset[str]) -> bool:
    """Whether a filter lets an item through."""
    return item in what if isinstance(what, frozenset) else group_of(item) == int(what.rpartition(" ")[2])


def change_complaints(history: History, changes: Sequence[Seen]) -> Iterator[str]:
    """Acknowledged changes that are not in the history, or not as they were acknowledged."""
    names: set[str] = set()
    for seen in changes:
        if not seen.is_done:
            continue
        what = f"{seen.kind} {seen.name or (seen.answer or {}).get('version', '')} acknowledged as revision {seen.revision}"
        if not history.knows(seen.revision):
            yield f"{what} is lost: the history ends at {history.last}."
        elif not _is_there(history, seen):
            yield f"{what} is lost: that revision does not have it."
        elif seen.kind == "upload":
            if seen.name in names:
                yield f"{what}, and so was another one of that name."
            names.add(seen.name)
            if history.items(seen.name) != seen.what:
                yield f"{what} has other items than were sent."
        elif seen.kind == "items":
            brought = history.brought(seen.answer["version"])
            assert brought is not None
            assert isinstance(seen.what, frozenset)
            expected = history.items(history.at(brought - 1).active or "") | seen.what
            if history.items(seen.answer["version"]) != expected:
                yield f"{what} is not what was active and the new items."


def _is_there(history: History, seen: Seen) -> bool:
    record = history.at(seen.revision)
    match seen.kind:
        case "put":
            return meaning(record.filters.get(seen.name)) == seen.what
        case "drop":
            return seen.name not in record.filters
        case "upload":
            return seen.name in record.versions
        case "activate":
            return record.active == seen.name
        case _:
            version = seen.answer["version"]
            return bool(record.active == version and (seen.kind == "rollback" or history.brought(version) is not None))


def end_complaints(history: History, shown: dict[str, Shown]) -> Iterator[str]:
    """Replicas that do not show the last state."""
    last = history.at(history.last)
    items = history.items(last.active or "")
    filters = {}
    for name, value in last.filters.items():
        what = meaning(value)
        assert what is not None
        filters[name] = (what if isinstance(what, str) else "", sum(passes(item, what) for item in items))
    expected = Shown(history.last, last.active or "", frozenset(last.versions), filters)
    for address, each in shown.items():
        if each != expected:
            yield f"{address} shows {each}, and the control store holds {expected}."


def list_complaints(history: History, lists: Sequence[Seen], faults: Sequence[Fault], broken: Sequence[Span]) -> Iterator[str]:
    """Lists that should not have been given; Redis was not whole in `broken`."""
    for seen in lists:
        if not seen.is_done:
            continue
        version, items = seen.answer["catalog_version"], [line["item_id"] for line in seen.answer["items"]]
        where = f"A list of {version} by {seen.replica}, revision {seen.revision},"
        late = lateness(history, seen)
        if late is None:
            yield f"{where} is of a version that was not active before its end."
        elif late > max(LATE_SECONDS, seen.behind):
            yield f"{where} is of a version that was not active any more for {late:.2f} s when it was asked for."
        elif not history.items(version).issuperset(items):
            yield f"{where} has items that the version does not have."
        if (unexplained := unexplained_seconds(seen, faults, broken)) > (ASK_SECONDS if faults or broken else 0.0):
            yield f"{where} says that it may be {seen.behind:.2f} s late, of which nothing explains {unexplained:.2f} s."
        if seen.name:
            told = history.meanings(seen.name, seen.revision, history.until(seen.ended))
            if not any(what is not None and all(passes(item, what) for item in items) for what in told):
                yield f"{where} breaks what {seen.name} meant."


def unexplained_seconds(seen: Seen, faults: Sequence[Fault], broken: Sequence[Span]) -> float:
    """How much of the time for which the server of a list says that it could not know what others wrote it was not harmed itself, Redis was
    whole, and both had been for as long as asking takes."""
    spans = [Span(fault.begun, fault.ended or seen.ended) for fault in faults if fault.whom == seen.replica]
    unexplained, reached = 0.0, seen.ended - seen.behind
    for span in sorted([*spans, *broken], key=lambda span: span.begun):
        unexplained += max(0.0, min(span.begun, seen.ended) - reached)
        reached = max(reached, min(span.ended + ASK_SECONDS, seen.ended))
    return unexplained + seen.ended - reached


def lateness(history: History, seen: Seen) -> float | None:
    """For how many seconds the version of a list was not active any more when it was asked for; None if it was not before its end."""
    spans = [span for span in history.active if span.version == seen.answer["catalog_version"] and span.since <= seen.ended]
    return max(0.0, seen.begun - max(span.until for span in spans)) if spans else None
