"""`Origin`: a server and how it is asked, which all calls of a client share; `Retries`: how often they are tried."""

import math
import os
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

# The server's longest timeout, and a little for the way.
TIMEOUT_SECONDS = 65.0
READY_SECONDS = 120.0
POLL_SECONDS = 0.1
# A server that is asked whether it is ready has so long to say it.
_PROBE_SECONDS = 1.0
CONNECTIONS = 100
KEY_VARIABLE, KEY_FILE_VARIABLE = "ATSPEED_KEY", "ATSPEED_KEY_FILE"
# An idle connection is dropped before servers and proxies close theirs, which would lose what is sent into it.
_IDLE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and when a call is tried again.

    Attributes:
        attempts: requests that a call may send, the first included; 1 for no retries.
        first_seconds: pause before the second request; it doubles with each one, and a random part of it is left out.
        most_seconds: longest pause, that of chance included; a server that asks for a longer one is not asked again.
    """

    attempts: int = 3
    first_seconds: float = 0.1
    most_seconds: float = 10.0

    def pause(self, attempts: int, retry_after: float, left: float = math.inf) -> float:
        """Seconds to wait after so many attempts, at least `retry_after`.

        All that waited for a server whose engine has died are told the same time. Chance spreads them over half of it, so that they don't
        come back all at once; where a deadline comes first, over half of what the pause without it would leave.

        Args:
            left: seconds before the deadline.
        """
        backoff, room = self.first_seconds * 2.0 ** (attempts - 1), max(self.most_seconds - retry_after, 0.0)
        spread = 0.5 * max(min(retry_after, left - retry_after - backoff), 0.0)
        return retry_after + random.uniform(0.5 * min(backoff, room), min(backoff + spread, room))


RETRIES = Retries()


def bearer(key: str | None = None) -> dict[str, str]:
    """The header that carries a key; by default the key of `ATSPEED_KEY`, or of the file that `ATSPEED_KEY_FILE` names.

    Raises:
        ValueError: the file can't be read.
    """
    if key is None:
        key = os.environ.get(KEY_VARIABLE)
    if key is None and (file := os.environ.get(KEY_FILE_VARIABLE)):
        try:
            key = Path(file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"The key of {file}, which {KEY_FILE_VARIABLE} names, can't be read.") from error
    return {"Authorization": f"Bearer {key}"} if key else {}


class Origin:
    """A server and how it is asked.

    Attributes:
        url: URL of the server, without a slash at its end.
        deadline: seconds for a list, or scores, that name none; None for the server's own timeout.
        timeout: seconds that an answer may take where there is no deadline.
        headers: headers of every request.
    """

    def __init__(
        self, url: str, key: str | None, deadline: float | None, timeout: float, retries: Retries, headers: Mapping[str, str] | None = None
    ) -> None:
        """`key` is None for that of the environment (`bearer`), unless `headers` have an `Authorization`, and empty for none.

        Raises:
            ValueError: it is not the URL of a server, or the file of the key can't be read.
        """
        host = _host(url)
        self.url = url.rstrip("/")
        self.deadline, self.timeout, self.retries = deadline, timeout, retries
        own = {"Host": host, "Accept": "application/json", "User-Agent": "atspeed-client"}
        given = {name.lower() for name in headers or {}}
        self._plain = {name: value for name, value in own.items() if name.lower() not in given} | dict(headers or {})
        self._is_authorized = "authorization" in given
        self.use_key(key)

    def patience(self, end: float) -> float:
        """Seconds for an answer of a server that is waited for until `end` (monotonic seconds), and is asked once more at least."""
        return min(self.timeout, max(end - time.monotonic(), _PROBE_SECONDS))

    @property
    def has_key(self) -> bool:
        """Whether a key is sent."""
        return self._has_key

    def use_key(self, key: str | None) -> None:
        """Send this key from now on; None for that of the environment, empty for none: then the headers go as they were given."""
        carried = {} if key is None and self._is_authorized else bearer(key)
        self._has_key = bool(carried)
        self.headers = {name: value for name, value in self._plain.items() if not carried or name.lower() != "authorization"} | carried


def _host(url: str) -> str:
    """The host of a server's URL, with the port that it names, as requests carry it. Raises ValueError for another URL."""
    with suppress(ValueError, httpx.InvalidURL):
        parts = urlsplit(url)
        # A port that is none is told when it is asked for.
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not (parts.query or parts.fragment):
            return httpx.URL(url).netloc.decode("ascii")
    raise ValueError(f"{url!r} is not the URL of a server, such as http://127.0.0.1:8000.")


def limits(connections: int) -> httpx.Limits:
    """Limits of a pool of so many connections."""
    return httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=_IDLE_SECONDS)
