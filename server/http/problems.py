"""Errors over HTTP: RFC 9457 problem details, each with one clear sentence.

Invariant: whatever goes wrong, the answer is `application/problem+json`, its `detail` is a sentence for the person who sent the request,
and nothing of the server's inside (paths, stack traces, credentials) is in it.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from server.histories import HistoryUnavailable
from server.refusals import EngineUnavailable, QueueFullError, RequestRefusedError, TooLateError, TryAgainError

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
CLIENT_CLOSED_REQUEST = 499
_SHOWN_CHARACTERS = 60


class ProblemError(Exception):
    """An error that is answered as it is.

    Attributes:
        status: HTTP status.
        kind: the last part of the problem's type, the same for all problems of this kind.
        title: what problems of this kind have in common.
        detail: a sentence about this one.
    """

    def __init__(self, status: int, kind: str, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.title = title
        self.detail = detail


def unknown_item(item_id: str, field: str) -> ProblemError:
    """An item that the catalog does not have."""
    return ProblemError(422, "unknown-item", "Unknown item", f"The catalog has no item {quoted(item_id)}, which {field} names.")


def unknown_user(user_id: str) -> ProblemError:
    """A user without events."""
    return ProblemError(404, "unknown-user", "Unknown user", f"There is no user {quoted(user_id)}: no events are stored for that id.")


class ClientGone(Exception):
    """The client hung up before its answer was ready."""


def problem(
    request: Request,
    status: int,
    detail: str,
    *,
    kind: str | None = None,
    title: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer to a request that went wrong; without a kind it says no more than its HTTP status does."""
    body = {
        "type": f"urn:atspeed:{kind}" if kind else "about:blank",
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": encodable(detail),
        "instance": encodable(request.url.path),
    }
    return Response(orjson.dumps(body), status, dict(headers or {}), MEDIA_TYPE)


def encodable(text: str) -> str:
    """The text with what UTF-8 can't carry written as an escape: JSON may bring half of a surrogate pair, and sentences quote it."""
    return text.encode("utf-8", "backslashreplace").decode()


def quoted(text: str) -> str:
    """A piece of the request, cut to a length that a sentence can carry."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")


def validation_sentence(error: Mapping[str, Any]) -> str:
    """One sentence for one of pydantic's errors on a request."""
    place, *path = error["loc"]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    message = str(error["msg"])
    match error["type"]:
        case "sentence":
            return message
        case "missing" if not path:
            return "The request has no body: send a JSON object."
        case "missing":
            return f"The field {field!r} is missing."
        case "string_unicode":
            return f"{field or f'The {place}'} holds text that UTF-8 can't carry: {quoted(str(error['input']))}."
        case "extra_forbidden":
            return f"There is no field {quoted(field)}."
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"{field or f'The {place}'} must be a JSON object."
    subject, verb, rule = message.partition(" should ")
    if not verb:
        return f"{field or place}: {message}."
    rule = f"{field or place} must {rule.replace(' after validation', '')}"
    given = error.get("input")
    shown = "true" if given is True else "false" if given is False else "null" if given is None else given
    return f"{rule}, got {shown}." if subject == "Input" and isinstance(shown, str | int | float) and len(str(shown)) < 30 else f"{rule}."


def _malformed(errors: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return next((error for error in errors if error["type"] == "json_invalid"), None)


async def _on_validation_error(request: Request, error: RequestValidationError) -> Response:
    errors = error.errors()
    if malformed := _malformed(errors):
        reason = f"{malformed['ctx']['error']} at character {malformed['loc'][-1]}"
        return problem(request, 400, f"The body is not valid JSON: {reason}.", kind="malformed-json", title="Malformed JSON")
    sends_json = "json" in request.headers.get("content-type", "")
    if errors[0]["type"] == "model_attributes_type" and len(errors[0]["loc"]) == 1 and not sends_json:
        return problem(request, 415, "Send the body as JSON, with the header Content-Type: application/json.")
    return problem(request, 422, validation_sentence(errors[0]), kind="invalid-request", title="Invalid request")


async def _on_http_exception(request: Request, error: HTTPException) -> Response:
    detail = str(error.detail)
    if error.status_code == 404:
        detail = f"There is nothing at {quoted(request.url.path)}; see /docs for what there is."
    elif error.status_code == 405:
        detail = f"{request.method} is not possible at {quoted(request.url.path)}; see /docs for what is."
    elif error.status_code == 400:
        detail = "The body can't be read as JSON."
    return problem(request, error.status_code, detail, headers=error.headers)


@dataclass(frozen=True)
class Complaint:
    """What a client is told of an error that is no fault of the server's code.

    Attributes:
        retry_after_seconds: when asking again is worth a try; None if it is not.
    """

    status: int
    kind: str
    title: str
    detail: str
    retry_after_seconds: int | None = None


# What `complaint` knows.
FORESEEN = (ProblemError, TryAgainError, HistoryUnavailable, RequestRefusedError, TimeoutError)


def complaint(error: Exception) -> Complaint:
    """What to tell of one of the `FORESEEN` errors."""
    match error:
        case ProblemError():
            return Complaint(error.status, error.kind, error.title, error.detail)
        case EngineUnavailable():
            return Complaint(503, "engine-unavailable", "No engine", str(error), error.retry_after_seconds)
        case QueueFullError():
            return Complaint(429, "queue-full", "Queue full", str(error), error.retry_after_seconds)
        case TooLateError():
            return Complaint(429, "deadline-out-of-reach", "Deadline out of reach", str(error), error.retry_after_seconds)
        case HistoryUnavailable():
            logger.warning("%s", error)
            detail = "The history store can't be reached now; requests with an inline history still work."
            return Complaint(503, "histories-unavailable", "No histories", detail, 1)
        case RequestRefusedError():
            return Complaint(422, "refused", "Request refused", str(error))
        case TimeoutError():
            return Complaint(504, "timed-out", "Timed out", "The answer was not ready within the request's timeout.")
    raise error


async def _on_foreseen(request: Request, error: Exception) -> Response:
    told = complaint(error)
    headers = {} if told.retry_after_seconds is None else {"Retry-After": str(told.retry_after_seconds)}
    return problem(request, told.status, told.detail, kind=told.kind, title=told.title, headers=headers)


async def _on_client_gone(request: Request, _: ClientGone) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _on_unexpected(request: Request, _: Exception) -> Response:
    return problem(request, 500, "Something went wrong inside the server; its log says what.")


def install(app: FastAPI) -> None:
    """Makes an app answer every error with a problem."""
    # Starlette's type for handlers takes any exception, which no handler of one kind of exception satisfies.
    handlers: dict[type[Exception], Any] = {
        RequestValidationError: _on_validation_error,
        HTTPException: _on_http_exception,
        **dict.fromkeys(FORESEEN, _on_foreseen),
        ClientGone: _on_client_gone,
        Exception: _on_unexpected,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
