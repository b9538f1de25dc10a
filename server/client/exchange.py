"""`Exchange`: the requests and answers of one call, whatever sends them.

Each of the two clients asks it for a request, sends that, and gives it what came back; it gets the call's answer, an exception, or a pause
after which it asks for the next request. So deadlines, retries and errors are the same for both clients, and written once.

Invariant: what the server may have begun is sent again only if doing it twice has the effect of doing it once. A pause is never shorter
than the server's `Retry-After`, and no request begins after the deadline.
"""

import math
import time
from dataclasses import dataclass
from typing import Generic
from urllib.parse import quote

import httpx
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pydantic import ValidationError

from server.client.errors import ConnectionFailed, DeadlineExceeded, NotFound, ProblemError, UnexpectedAnswer, problem_error
from server.client.operation import Answer, Operation, Repeat, as_json
from server.client.origin import Origin
from server.client.upload import Upload

CONNECT_SECONDS = 5.0
# Beyond a deadline the server's own word about it may still be on its way.
GRACE_SECONDS = 0.25
# The server has not begun with what it refuses with this status.
_NOT_BEGUN = 429
_WORTH_A_RETRY = (_NOT_BEGUN, 502, 503)
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.LocalProtocolError)
# So begin the types of the server's problems that say that there is no such thing. A gateway without a route, or a port that takes no
# operations, says 404 as well, and has deleted nothing.
_GONE = "urn:atspeed:unknown-"
_PROPAGATOR = TraceContextTextMapPropagator()


@dataclass(frozen=True, slots=True)
class Pause:
    """Time to wait before the next request."""

    seconds: float


class Exchange(Generic[Answer]):
    """One call, from its first request to its answer."""

    def __init__(self, origin: Origin, operation: Operation[Answer]) -> None:
        self._origin, self._operation = origin, operation
        deadline = origin.deadline if operation.timed and operation.deadline is None else operation.deadline
        self._end = None if deadline is None else time.monotonic() + deadline
        self._attempts = 0
        # True once a request without an answer may have been done.
        self._maybe_done = False

    def request(self) -> httpx.Request:
        """The next request.

        Raises:
            DeadlineExceeded: there is no time left for one.
            TypeError, ValueError: its arguments have no JSON, or a name in its path is no text.
        """
        left = self._left()
        if left is not None and left <= 0:
            raise DeadlineExceeded(f"The deadline passed before {self._operation.route} was answered.")
        self._attempts += 1
        method, url = self._operation.method, self._origin.url + self._operation.target
        headers = self._headers()
        wait = self._operation.patience or self._origin.timeout if left is None else left + GRACE_SECONDS
        extensions = {"timeout": {"connect": min(CONNECT_SECONDS, wait), "read": wait, "write": wait, "pool": wait}}
        body = self._operation.body
        if isinstance(body, Upload):
            headers |= {"Content-Type": body.content_type, "Content-Length": str(body.size)}
            return httpx.Request(method, url, headers=headers, stream=body, extensions=extensions)
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = as_json(body(left))
        return httpx.Request(method, url, headers=headers, content=content, extensions=extensions)

    def settle(self, result: httpx.Response | httpx.RequestError) -> Answer | Pause:
        """The call's answer, or a pause before the next request.

        Args:
            result: what came of the request that was made last; the content of a response has been read.

        Raises:
            AtspeedError: the call has failed.
        """
        if isinstance(result, httpx.RequestError):
            return self._after_silence(result)
        if result.is_success:
            return self._read(result)
        error = problem_error(result)
        if self._maybe_done and self._operation.method == "DELETE" and isinstance(error, NotFound) and error.type.startswith(_GONE):
            # An earlier try has done it.
            return self._operation.read(b"")
        if result.status_code not in _WORTH_A_RETRY:
            raise error
        return self._again(error, begun=result.status_code != _NOT_BEGUN, retry_after=error.retry_after or 0.0)

    def _after_silence(self, failure: httpx.RequestError) -> Pause:
        route, url = self._operation.route, self._origin.url
        sent = not isinstance(failure, _NEVER_SENT)
        left = self._left()
        try:
            if left is not None and left <= 0 and isinstance(failure, httpx.TimeoutException):
                raise DeadlineExceeded(f"The deadline passed before {route} was answered.")
            done = "; whether it was done is not known" if sent and self._operation.repeat is Repeat.IF_NOT_BEGUN else ""
            reason = str(failure) or type(failure).__name__
            error = ConnectionFailed(f"{url} gave no answer to {route}{done}: {reason.rstrip('.')}.", sent=sent)
            # Such as a header that HTTP can't carry.
            if isinstance(failure, httpx.LocalProtocolError):
                raise error
            return self._again(error, begun=sent)
        except (ConnectionFailed, DeadlineExceeded) as error:
            raise error from failure

    def _again(self, error: ProblemError | ConnectionFailed, *, begun: bool, retry_after: float = 0.0) -> Pause:
        """The pause before the next request, or the error if there is to be none."""
        self._maybe_done |= begun
        retries = self._origin.retries
        forbidden = self._operation.repeat is Repeat.NEVER or (begun and self._operation.repeat is Repeat.IF_NOT_BEGUN)
        left = self._left()
        pause = retries.pause(self._attempts, retry_after, math.inf if left is None else left)
        if forbidden or self._attempts >= retries.attempts or retry_after > retries.most_seconds or (left is not None and pause >= left):
            raise error
        return Pause(pause)

    def _read(self, response: httpx.Response) -> Answer:
        try:
            return self._operation.read(response.content)
        except ValueError as error:
            mistakes = [each["msg"] for each in error.errors()] if isinstance(error, ValidationError) else [str(error)]
            raise UnexpectedAnswer(
                f"{self._origin.url} answers {self._operation.route} in another form than this client knows: is it an atspeed-server, and "
                f"not newer than this package? {len(mistakes)} mistakes, the first: {mistakes[0]}."
            ) from error

    def _headers(self) -> dict[str, str]:
        headers = self._origin.headers.copy()
        user = self._operation.user
        if user is not None:
            plain = user.isascii() and user.isprintable() and user == user.strip()
            headers["X-User-Id"] = user if plain else quote(user, safe="")
        _PROPAGATOR.inject(headers)
        return headers

    def _left(self) -> float | None:
        return None if self._end is None else self._end - time.monotonic()
