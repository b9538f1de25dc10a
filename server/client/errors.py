"""What calls of the client raise, in one tree.

AtspeedError
  - ProblemError                    the server has refused or failed: `status`, `type`, `title`, `detail`
      - Refused                     400, 405, 413, 415, 422 and the like: the same request is refused again
      - Denied                      401, 403: no key, a wrong one, or one that is not good for that
      - NotFound                    404: no such user, profile, filter, item or version
      - Conflict                    409: what is there already does not allow it
      - Overloaded                  429: refused because of the others; `retry_after`
      - Unavailable                 502, 503: no engine, no history store, or nothing behind the gateway; `retry_after`
      - TimedOut                    504: the answer was not ready in time (a `DeadlineExceeded` as well)
      - ServerFault                 all other of 500 and above
  - UnexpectedAnswer                what answers there is not this server, or one of another version
  - ConnectionFailed                no answer: not connected, or the connection broke; `sent` says whether it may have been done
  - DeadlineExceeded                the call's deadline has passed

Invariant: whatever httpx or the server says becomes one of these, and the message is a sentence. Arguments that can't be written as JSON,
and names in a path that are no text, are a `TypeError` or `ValueError`, because no server was asked.
"""

import httpx
from pydantic import ValidationError

from server.client.retry_after import seconds_to_wait
from server.schemas.problems import ProblemMembers

_MOST_CHARACTERS = 300


class AtspeedError(Exception):
    """Base of all errors of the client."""


class UnexpectedAnswer(AtspeedError):
    """An answer that is none of this API."""


class ConnectionFailed(AtspeedError):
    """No answer came.

    Attributes:
        sent: False if the server has certainly not begun; True if it may have done what was asked.
    """

    def __init__(self, sentence: str, sent: bool = True) -> None:
        super().__init__(sentence)
        self.sent = sent


class DeadlineExceeded(AtspeedError):
    """The deadline passed before an answer came."""


class ProblemError(AtspeedError):
    """The server's problem details (RFC 9457).

    Attributes:
        status: HTTP status.
        type: a URN that stays the same for errors of one kind, such as `urn:atspeed:unknown-item`; `about:blank` where `status` says all.
        title: its summary.
        detail: a sentence for the person who sent the request; also the exception's message.
        retry_after: seconds after which another try may succeed; None if the server does not say.
        request_id: the `X-Request-Id` of the answer, which the server's log has too.
    """

    def __init__(self, status: int, type: str, title: str, detail: str, retry_after: float | None, request_id: str | None) -> None:
        # Pools of processes make it anew of its arguments.
        super().__init__(status, type, title, detail, retry_after, request_id)
        self.status, self.type, self.title, self.detail = status, type, title, detail
        self.retry_after, self.request_id = retry_after, request_id

    def __str__(self) -> str:
        return self.detail


class Refused(ProblemError):
    """The request can't be done as it is."""


class Denied(ProblemError):
    """The server or a gateway does not let the request pass: no key, a wrong one, or one that is not good for that."""


class NotFound(ProblemError):
    """What is asked for is not there."""


class Conflict(ProblemError):
    """What is there already does not allow it."""


class Overloaded(ProblemError):
    """The server has as much to do as it takes on, or the list would come too late."""


class Unavailable(ProblemError):
    """The server, its engine or its history store is away."""


class TimedOut(ProblemError, DeadlineExceeded):
    """The server had no answer within its time."""


class ServerFault(ProblemError):
    """Something is wrong with the server."""


_BY_STATUS: dict[int, type[ProblemError]] = {
    401: Denied,
    403: Denied,
    404: NotFound,
    409: Conflict,
    429: Overloaded,
    502: Unavailable,
    503: Unavailable,
    504: TimedOut,
}


def problem_error(response: httpx.Response) -> ProblemError:
    """The error of an answer that says that something went wrong."""
    status, headers, problem = response.status_code, response.headers, _members(response)
    kind = _BY_STATUS.get(status, ServerFault if status >= 500 else Refused)
    wait = seconds_to_wait(headers.get("retry-after"))
    return kind(status, problem.type, problem.title, problem.detail, wait, headers.get("x-request-id"))


def _members(response: httpx.Response) -> ProblemMembers:
    """The problem of an answer; what a gateway says in a form of its own becomes one."""
    try:
        return ProblemMembers.model_validate_json(response.content)
    except ValidationError:
        status = response.status_code
        title = httpx.codes.get_reason_phrase(status) or "Unknown status"
        said = " ".join(response.text.split())[:_MOST_CHARACTERS]
        detail = f"{response.request.url.host} answers {status} {title}, and not in this API's form: {said or 'it says nothing'}."
        return ProblemMembers(type="about:blank", title=title, status=status, detail=detail)
