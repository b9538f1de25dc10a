"""`Unauthorized`: the answer 401 to a request without a key, or with one that the server does not know, before the app hears of it.

Invariant: on a server with keys, no request below `/v1/` reaches the app without a known key, and the answer has the body and the headers
that the app's own would have. It is counted like the app's answers, also if its client has gone, but as `unmatched`, because no route is
looked for. It has no span and no log line.

Reason: a task, the middleware and a router cost several times what the refusal itself does, and a client that tries keys by the hundred
thousand would take that time from clients that have one.
"""

import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import orjson

from server.control.follower import Follower
from server.errors import KeyMissing, KeyUnknown, encodable
from server.http.middleware import CLOSE, NO_SNIFFING, REQUEST_ID, REVISION, UNMATCHED, behind_header, method_of, request_id_of
from server.http.problems import MEDIA_TYPE, Problem, challenge, problem_of
from server.keys.gate import Gate
from server.metrics.registry import Metrics

# Below it, every operation needs a key.
GUARDED = "/v1/"
_STATUS = HTTPStatus.UNAUTHORIZED
_START = b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\n" % (_STATUS, _STATUS.phrase.encode(), MEDIA_TYPE.encode())
Headers = Iterable[tuple[bytes, bytes]]


def _told(problem: Problem) -> tuple[dict[str, Any], bytes]:
    """The members of a problem, and what the header WWW-Authenticate says with it."""
    return problem.members(), challenge(problem.name).encode()


_TOLD = {KeyMissing: _told(problem_of(KeyMissing())), KeyUnknown: _told(problem_of(KeyUnknown()))}


class Unauthorized:
    """The refusals of one server."""

    def __init__(self, gate: Gate, metrics: Metrics, follower: Follower) -> None:
        """`gate` is that of a server with keys."""
        self._gate, self._metrics, self._follower = gate, metrics, follower

    def judge(self, path: str, headers: Headers) -> KeyMissing | KeyUnknown | None:
        """Why a request may not pass to the app; None if it may."""
        if not path.startswith(GUARDED):
            return None
        try:
            self._gate.find(headers)
        except (KeyMissing, KeyUnknown) as error:
            return error
        return None

    def response(self, scope: Any, error: KeyMissing | KeyUnknown, more: Headers, *, keep_alive: bool) -> bytes:
        """The whole response to a refused request, counted.

        Args:
            scope: ASGI's.
            more: further headers.
            keep_alive: whether the connection stays open.
        """
        started = time.perf_counter()
        members, told = _TOLD[type(error)]
        body = orjson.dumps(members | {"instance": encodable(scope["path"])})
        headers = [
            *more,
            (b"content-length", b"%d" % len(body)),
            (b"www-authenticate", told),
            (REQUEST_ID, request_id_of(scope)),
            (REVISION, b"%d" % self._follower.applied.revision),
            *behind_header(self._follower),
            NO_SNIFFING,
            *(() if keep_alive else (CLOSE,)),
        ]
        head = b"".join([_START, *(b"%s: %s\r\n" % header for header in headers), b"\r\n"])
        self._metrics.observe_response(method_of(scope), UNMATCHED, _STATUS, time.perf_counter() - started)
        return head if scope["method"] == "HEAD" else head + body
