"""Every error of the server has its problem, and only the HTTP room knows of HTTP statuses."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server import errors, try_again
from server.http.problems import PROBLEM_TYPES, problem_of

SERVER = Path(errors.__file__).parent
HISTORIES = "The history store can't be reached now; requests with an inline history still work."
CONTROL = "The control store can't be reached now, so nothing can be changed; lists go on."
EXPECTED = {
    "InvalidRequest": (422, "invalid-request", "Invalid request"),
    "RequestRefused": (422, "refused", "Request refused"),
    "UnknownItem": (422, "unknown-item", "Unknown item"),
    "UnknownField": (422, "unknown-field", "Unknown field"),
    "UnknownFilter": (422, "unknown-filter", "Unknown filter"),
    "EmptyHistory": (422, "invalid-request", "Invalid request"),
    "StaleHistory": (422, "stale-history", "Stale history"),
    "HistoryDamaged": (409, "history-damaged", "History damaged"),
    "NoItemTimes": (422, "no-item-times", "No item times"),
    "UserNotFound": (404, "unknown-user", "Unknown user"),
    "ProfileNotFound": (404, "unknown-profile", "Unknown profile"),
    "EventNotFound": (404, "unknown-event", "Unknown event"),
    "ItemNotFound": (404, "unknown-item", "Unknown item"),
    "FilterNotFound": (404, "unknown-filter", "Unknown filter"),
    "VersionNotFound": (404, "unknown-version", "Unknown version"),
    "FilterRefused": (422, "filter-expression", "Filter expression"),
    "TooManyFilters": (422, "too-many-filters", "Too many filters"),
    "CatalogRefused": (422, "catalog-refused", "Catalog refused"),
    "UnknownFile": (422, "unknown-file", "Unknown file"),
    "UnknownForm": (415, "unknown-form", "Unknown form"),
    "VersionExists": (409, "version-exists", "Version exists"),
    "VersionActive": (409, "version-active", "Version active"),
    "VersionNotServed": (409, "version-not-served", "Version not served"),
    "NothingToRollBack": (409, "nothing-to-roll-back", "Nothing to roll back"),
    "UploadCutOff": (400, "upload-cut-off", "Upload cut off"),
    "StorageFull": (507, "storage-full", "Storage full"),
    "ItemsRefused": (422, "items-refused", "Items refused"),
    "ItemsTaken": (409, "items-refused", "Items refused"),
    "EngineUnavailable": (503, "engine-unavailable", "No engine"),
    "HistoryUnavailable": (503, "histories-unavailable", "No histories"),
    "ControlUnavailable": (503, "control-unavailable", "No control store"),
    "ControlFull": (507, "storage-full", "Storage full"),
    "ControlLost": (503, "control-lost", "Control state lost"),
    "ControlConflict": (503, "control-conflict", "Changed meanwhile"),
    "ControlEmpty": (503, "control-empty", "Control state missing"),
    "ReplicaBehind": (503, "replica-behind", "Replica behind"),
    "NotReached": (503, "revision-not-reached", "Revision not reached"),
    "NotEverywhere": (503, "not-everywhere", "Not everywhere yet"),
    "KeyMissing": (401, "key-missing", "Key missing"),
    "KeyUnknown": (401, "key-unknown", "Key unknown"),
    "KeyForbids": (403, "key-forbids", "Key forbids"),
    "KeysNeeded": (403, "keys-needed", "Keys needed"),
    "ServedElsewhere": (404, "served-elsewhere", "Served elsewhere"),
    "KeyBusy": (429, "key-busy", "Key busy"),
    "FilesUnavailable": (503, "files-unavailable", "No files of catalogs"),
    "FileGone": (503, "files-unavailable", "No files of catalogs"),
    "BackupRefused": (422, "backup-refused", "Backup refused"),
    "FiltersBusy": (429, "filters-busy", "Filters busy"),
    "SearchesBusy": (429, "searches-busy", "Searches busy"),
    "VersionsBusy": (429, "versions-busy", "Versions busy"),
    "ScoresNotFinite": (500, "scores-not-finite", "Scores not finite"),
    "QueueFull": (429, "queue-full", "Queue full"),
    "ExplanationsBusy": (429, "explanations-busy", "Explanations busy"),
    "TooLate": (429, "deadline-out-of-reach", "Deadline out of reach"),
    "TimeoutError": (504, "timed-out", "Timed out"),
}
BASES = {errors.ServerError, try_again.TryAgain, try_again.Overloaded, errors.NothingKnown}


def tree(kind: type[errors.ServerError]) -> Iterator[type[errors.ServerError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


def test_every_error_has_the_problem_that_clients_know() -> None:
    assert {kind.__name__: tuple(known)[:3] for kind, known in PROBLEM_TYPES.items()} == EXPECTED
    assert {*tree(errors.ServerError)} - BASES == {*PROBLEM_TYPES} - {TimeoutError}
    assert all(kind.__name__ in str(sys.modules[kind.__module__].__doc__) for kind in tree(errors.ServerError))


@pytest.mark.parametrize(
    ("error", "detail", "retry_after_seconds"),
    [
        (errors.UnknownItem("It is unknown."), "It is unknown.", None),
        (errors.UserNotFound("x" * 99), f"There is no user '{'x' * 60}…': no events are stored for that id.", None),
        (errors.ItemsTaken("It is taken."), "It is taken.", None),
        (try_again.QueueFull("It is crowded.", 3), "It is crowded.", 3),
        (try_again.HistoryUnavailable("Redis at 10.0.0.1 is away."), HISTORIES, 1),
        (try_again.ControlUnavailable("Redis at 10.0.0.1 is away."), CONTROL, 1),
        (TimeoutError("in a socket"), "The answer was not ready within the request's timeout.", None),
    ],
)
def test_a_problem_tells_the_errors_sentence_and_nothing_of_the_inside(
    error: Exception, detail: str, retry_after_seconds: int | None
) -> None:
    told = problem_of(error)
    assert (told.status, told.name, told.title) == EXPECTED[type(error).__name__]
    assert (told.detail, told.retry_after_seconds) == (detail, retry_after_seconds)


@pytest.mark.parametrize(
    "room",
    [
        "errors.py",
        "try_again.py",
        "catalogs",
        "lists",
        "engine",
        "scheduling",
        "histories",
        "control",
        "keys",
        "redis",
        "messages.py",
        "submit.py",
        "services.py",
    ],
)
def test_services_know_no_http_status(room: str) -> None:
    statuses = {known.status for known in PROBLEM_TYPES.values()}
    place = SERVER / room
    paths = [place] if place.is_file() else sorted(place.rglob("*.py"))
    assert paths, f"server has no {room}"
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Constant) and node.value in statuses), f"{path}:{node.lineno} names an HTTP status"
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            origin = node.module if isinstance(node, ast.ImportFrom) else None
            for name in [origin or "", *names]:
                assert name.partition(".")[0] not in {"http", "fastapi", "starlette", "HTTPStatus"}, f"{path} imports {name}"


def test_a_sentence_names_files_without_where_they_lie() -> None:
    sentence = "The draft in /srv/models/shop-draft is of the base in /srv/models/shop/base, and not of models/shop. Build it anew."
    paths = Path("/srv/models/shop"), Path("/srv/models/shop-draft"), Path("/srv/models/shop/base"), Path("models/shop"), Path(), None
    told = "The draft in shop-draft is of the base in base, and not of shop. Build it anew."
    assert errors.without_folders(sentence, *paths) == told
