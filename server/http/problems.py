"""Errors over HTTP: RFC 9457 problem details, each with one clear sentence.

Invariant: after any error the answer is `application/problem+json`, its `detail` is a sentence for the client, and nothing of the
server's inside (paths, stack traces, credentials) is in it, nor any value of a profile, a context or the like.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from drafting.errors import quoted
from server import errors, try_again
from server.schemas import problems as schemas
from server.schemas.sentences import validation_sentence

MEDIA_TYPE = "application/problem+json"
CLIENT_CLOSED_REQUEST = 499


class ProblemType(NamedTuple):
    """The common part of all problems of one type.

    Attributes:
        status: HTTP status.
        name: the last part of the type's URN.
        title: its summary.
        detail: a sentence in place of the error's own message; None to pass that on.
    """

    status: int
    name: str
    title: str
    detail: str | None = None


PROBLEM_TYPES: dict[type[Exception], ProblemType] = {
    errors.InvalidRequest: ProblemType(422, "invalid-request", "Invalid request"),
    errors.RequestRefused: ProblemType(422, "refused", "Request refused"),
    errors.UnknownItem: ProblemType(422, "unknown-item", "Unknown item"),
    errors.UnknownField: ProblemType(422, "unknown-field", "Unknown field"),
    errors.UnknownFilter: ProblemType(422, "unknown-filter", "Unknown filter"),
    errors.EmptyHistory: ProblemType(422, "invalid-request", "Invalid request"),
    errors.StaleHistory: ProblemType(422, "stale-history", "Stale history"),
    errors.HistoryDamaged: ProblemType(409, "history-damaged", "History damaged"),
    errors.NoItemTimes: ProblemType(422, "no-item-times", "No item times"),
    errors.UserNotFound: ProblemType(404, "unknown-user", "Unknown user"),
    errors.ProfileNotFound: ProblemType(404, "unknown-profile", "Unknown profile"),
    errors.EventNotFound: ProblemType(404, "unknown-event", "Unknown event"),
    errors.FilterNotFound: ProblemType(404, "unknown-filter", "Unknown filter"),
    errors.ItemNotFound: ProblemType(404, "unknown-item", "Unknown item"),
    errors.VersionNotFound: ProblemType(404, "unknown-version", "Unknown version"),
    errors.FilterRefused: ProblemType(422, "filter-expression", "Filter expression"),
    errors.TooManyFilters: ProblemType(422, "too-many-filters", "Too many filters"),
    errors.CatalogRefused: ProblemType(422, "catalog-refused", "Catalog refused"),
    errors.UnknownFile: ProblemType(422, "unknown-file", "Unknown file"),
    errors.UnknownForm: ProblemType(415, "unknown-form", "Unknown form"),
    errors.VersionExists: ProblemType(409, "version-exists", "Version exists"),
    errors.VersionActive: ProblemType(409, "version-active", "Version active"),
    errors.VersionNotServed: ProblemType(409, "version-not-served", "Version not served"),
    errors.NothingToRollBack: ProblemType(409, "nothing-to-roll-back", "Nothing to roll back"),
    errors.UploadCutOff: ProblemType(400, "upload-cut-off", "Upload cut off"),
    errors.StorageFull: ProblemType(507, "storage-full", "Storage full"),
    errors.BackupRefused: ProblemType(422, "backup-refused", "Backup refused"),
    errors.ScoresNotFinite: ProblemType(500, "scores-not-finite", "Scores not finite"),
    errors.ItemsRefused: ProblemType(422, "items-refused", "Items refused"),
    errors.ItemsTaken: ProblemType(409, "items-refused", "Items refused"),
    errors.KeyMissing: ProblemType(401, "key-missing", "Key missing"),
    errors.KeyUnknown: ProblemType(401, "key-unknown", "Key unknown"),
    errors.KeyForbids: ProblemType(403, "key-forbids", "Key forbids"),
    errors.KeysNeeded: ProblemType(403, "keys-needed", "Keys needed"),
    errors.ServedElsewhere: ProblemType(404, "served-elsewhere", "Served elsewhere"),
    try_again.KeyBusy: ProblemType(429, "key-busy", "Key busy"),
    try_again.EngineUnavailable: ProblemType(503, "engine-unavailable", "No engine"),
    try_again.HistoryUnavailable: ProblemType(
        503, "histories-unavailable", "No histories", "The history store can't be reached now; requests with an inline history still work."
    ),
    try_again.ControlUnavailable: ProblemType(
        503, "control-unavailable", "No control store", "The control store can't be reached now, so nothing can be changed; lists go on."
    ),
    try_again.ControlFull: ProblemType(
        507,
        "storage-full",
        "Storage full",
        "The control store has no room for it, or can't be written, so nothing was changed; lists go on.",
    ),
    try_again.ControlLost: ProblemType(503, "control-lost", "Control state lost"),
    try_again.ControlEmpty: ProblemType(503, "control-empty", "Control state missing"),
    try_again.ReplicaBehind: ProblemType(503, "replica-behind", "Replica behind"),
    try_again.NotReached: ProblemType(503, "revision-not-reached", "Revision not reached"),
    try_again.NotEverywhere: ProblemType(503, "not-everywhere", "Not everywhere yet"),
    try_again.ControlConflict: ProblemType(503, "control-conflict", "Changed meanwhile"),
    try_again.FilesUnavailable: ProblemType(503, "files-unavailable", "No files of catalogs"),
    try_again.FileGone: ProblemType(503, "files-unavailable", "No files of catalogs"),
    try_again.QueueFull: ProblemType(429, "queue-full", "Queue full"),
    try_again.FiltersBusy: ProblemType(429, "filters-busy", "Filters busy"),
    try_again.ExplanationsBusy: ProblemType(429, "explanations-busy", "Explanations busy"),
    try_again.SearchesBusy: ProblemType(429, "searches-busy", "Searches busy"),
    try_again.VersionsBusy: ProblemType(429, "versions-busy", "Versions busy"),
    try_again.TooLate: ProblemType(429, "deadline-out-of-reach", "Deadline out of reach"),
    TimeoutError: ProblemType(504, "timed-out", "Timed out", "The answer was not ready within the request's timeout."),
}
_DESCRIPTIONS = {
    400: "The body is not JSON, or the URL is not UTF-8.",
    401: "There is no key, or one that the server does not know.",
    403: "The key is not good for that, or the server has no keys and the request comes from another machine.",
    404: "There is no such user, profile, event, filter, item or version, or this port does not take operations.",
    409: "What is there already does not allow it.",
    408: "The body took too long.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    422: "Something in the request is not acceptable; `detail` says what.",
    500: "The model's scores are not finite, so there is no list.",
    429: "The server has as many requests, filters, searches or versions as it takes on, of all or of this key, or the list would not be "
    "ready in time; see `Retry-After`.",
    503: "The engine, the history store, the control store or that of the catalogs' files is not available, or what others have written "
    "has not come to this server; see `Retry-After`.",
    507: "It can't be stored: the disk is full, or the directory can't be written.",
    504: "The answer was not ready within the timeout.",
}
CONTENT = {MEDIA_TYPE: {"schema": schemas.Problem.model_json_schema()}}
ANY_ERROR: dict[int | str, dict[str, Any]] = {
    "default": {"description": "Any other error: too many connections or headers, or a fault of the server.", "content": CONTENT}
}
RETRY_AFTER = {"Retry-After": {"description": "Seconds after which a retry may succeed.", "schema": {"type": "integer", "minimum": 1}}}
CHALLENGE = {"WWW-Authenticate": {"description": "How to send a key.", "schema": {"type": "string"}}}
_RETRIED = frozenset({429, 503})
# What `problem_of` knows.
FORESEEN = (errors.ServerError, TimeoutError)


class ClientGone(Exception):
    """The client hung up before its answer was ready."""


@dataclass(frozen=True)
class Problem:
    """One problem; without a name it says no more than its HTTP status does.

    Attributes:
        retry_after_seconds: seconds after which a retry may succeed; None if it will not.
    """

    status: int
    detail: str
    name: str | None = None
    title: str | None = None
    retry_after_seconds: int | None = None

    def members(self) -> dict[str, Any]:
        """The members that RFC 9457 gives it, all but the instance."""
        return {
            "type": f"urn:atspeed:{self.name}" if self.name else "about:blank",
            "title": self.title or HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": errors.encodable(self.detail),
        }

    def response(self, request: Request, headers: Mapping[str, str] | None = None) -> Response:
        """The answer to a request that went wrong."""
        body = self.members() | {"instance": errors.encodable(request.scope["path"])}
        retry = {} if self.retry_after_seconds is None else {"Retry-After": str(self.retry_after_seconds)}
        more = retry | ({"WWW-Authenticate": challenge(self.name)} if self.status == HTTPStatus.UNAUTHORIZED else {})
        return Response(orjson.dumps(body), self.status, dict(headers or {}) | more, MEDIA_TYPE)


def challenge(name: str | None) -> str:
    """What RFC 6750 has a server say to a request without a key, and to one with a wrong one."""
    return 'Bearer realm="atspeed"' + (', error="invalid_token"' if name == "key-unknown" else "")


def problem_of(error: Exception) -> Problem:
    """The problem of one of the `FORESEEN` errors."""
    status, name, title, detail = next(PROBLEM_TYPES[kind] for kind in type(error).__mro__ if kind in PROBLEM_TYPES)
    retry_after_seconds = error.retry_after_seconds if isinstance(error, try_again.TryAgain) else None
    return Problem(status, detail or str(error), name, title, retry_after_seconds)


def documented(*statuses: int, answer: type[BaseModel] | None = None) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of a route's error statuses, and of an answer that the route encodes itself.

    Any route can answer 400 and 422, and one that takes a body (415 tells it) 408 and 413.
    """
    entries: dict[int | str, dict[str, Any]] = {} if answer is None else {200: {"model": answer}}
    always = (400, 408, 413, 422) if 415 in statuses else (400, 422)
    problems = {status: {"description": _DESCRIPTIONS[status], "content": CONTENT} for status in sorted({*statuses, *always})}
    for status in _RETRIED & problems.keys():
        problems[status]["headers"] = RETRY_AFTER
    if HTTPStatus.UNAUTHORIZED in problems:
        problems[HTTPStatus.UNAUTHORIZED]["headers"] = CHALLENGE
    return entries | problems


def invalid(error: ValidationError, place: str) -> errors.InvalidRequest:
    """A part of a request that its model does not let pass; `place` names the part."""
    first = error.errors()[0]
    return errors.InvalidRequest(validation_sentence({**first, "loc": (place, *first["loc"])}))


async def _on_validation_error(request: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    if malformed := next((each for each in error.errors() if each["type"] == "json_invalid"), None):
        reason = f"{malformed['ctx']['error']} at character {malformed['loc'][-1]}"
        told = Problem(400, f"The body is not valid JSON: {reason}.", "malformed-json", "Malformed JSON")
    elif isinstance(first.get("input"), bytes):
        # FastAPI leaves a body that is not declared as JSON as it came.
        told = Problem(415, "Send the body as JSON, with the header Content-Type: application/json.")
    else:
        told = problem_of(errors.InvalidRequest(validation_sentence(first)))
    return told.response(request)


async def _on_http_exception(request: Request, error: HTTPException) -> Response:
    path = quoted(request.scope["path"])
    sentences = {
        400: "The body can't be read as JSON.",
        404: f"There is nothing at {path}; see /docs for what there is.",
        405: f"{request.method} is not possible at {path}; see /docs for what is.",
    }
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    return Problem(error.status_code, sentences.get(error.status_code, str(error.detail))).response(request, headers)


def _allowed(request: Request) -> str:
    """The methods of a path, of all routes that match it."""
    found: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches({**request.scope, "method": "GET"})[0] is not Match.NONE:
            found |= route.methods or set()
    return ", ".join(sorted(found | ({"HEAD"} if "GET" in found else set())))


async def _on_foreseen(request: Request, error: Exception) -> Response:
    return problem_of(error).response(request)


async def _on_client_gone(request: Request, _: ClientGone) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def on_unexpected(request: Request, _: Exception) -> Response:
    """The answer to a request that met a fault of the server."""
    return Problem(500, "Something went wrong inside the server; its log says what.").response(request)


# Starlette's type for handlers takes any exception, which no handler of one kind of exception satisfies.
_HANDLERS: dict[type[Exception], Any] = {
    RequestValidationError: _on_validation_error,
    HTTPException: _on_http_exception,
    **dict.fromkeys(FORESEEN, _on_foreseen),
    ClientGone: _on_client_gone,
}
# What `response_to` knows.
ANSWERED = tuple(_HANDLERS)


async def response_to(request: Request, error: Exception) -> Response:
    """The answer to a request that met one of the errors that are `ANSWERED`."""
    response: Response = await next(_HANDLERS[kind] for kind in type(error).__mro__ if kind in _HANDLERS)(request, error)
    return response


def install(app: FastAPI) -> None:
    """Have an app answer every error with a problem."""
    for kind, handler in {**_HANDLERS, Exception: on_unexpected}.items():
        app.add_exception_handler(kind, handler)
