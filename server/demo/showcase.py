"""What the demo shows once its server answers: one user's films, the films recommended, and a command to try.

It asks the running server over HTTP like any client, so what is shown is what is served, and no second model is loaded.
"""

import json
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from typing import Any

import msgspec

WATCHED = 5
_POLL_SECONDS = 0.1
_ANSWER_SECONDS = 30
# The server is on this machine, which no proxy of the user's environment can reach.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Film(msgspec.Struct):
    """A film as the server names it."""

    item_id: str
    title: str | None = None

    @property
    def name(self) -> str:
        """The title, or the id of a film without one."""
        return self.title or self.item_id


class _History(msgspec.Struct):
    events: list[Film]


class _List(msgspec.Struct):
    items: list[Film]


def wait_until_ready(url: str) -> None:
    """Returns when the server at `url` takes requests; waits for ever, because the server ends the program if it cannot start.

    Raises:
        urllib.error.HTTPError: what answers there is not this server.
    """
    while True:
        try:
            with _OPENER.open(f"{url}/ready", timeout=_ANSWER_SECONDS):
                return
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
        except OSError:
            # It does not listen yet.
            pass
        time.sleep(_POLL_SECONDS)


def show(url: str, user: str, k: int) -> str:
    """The text that presents one user's recommendations, asked for now.

    Raises:
        OSError: the server does not answer.
    """
    watched = msgspec.json.decode(_ask(f"{url}/v1/users/{user}/history"), type=_History).events[-WATCHED:]
    body = {"user_id": user, "k": k, "exclude_history": True}
    films = msgspec.json.decode(_ask(f"{url}/v1/recommendations", body | {"timeout_ms": 10_000}), type=_List).items
    lines = [f"User {user} watched last:"]
    lines += [f"    {film.name}" for film in watched]
    lines += ["", "and is recommended:"]
    lines += [f"{rank:>3} {film.name}" for rank, film in enumerate(films, start=1)]
    lines += ["", "Ask for yourself, in another terminal:", "", f"    {curl(url, body)}", ""]
    return "\n".join(lines)


def curl(url: str, body: dict[str, Any]) -> str:
    """A command that asks for recommendations, ready to paste."""
    return f"curl -s {url}/v1/recommendations -H 'Content-Type: application/json' -d '{json.dumps(body)}'"


def _ask(url: str, body: dict[str, Any] | None = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with _OPENER.open(request, timeout=_ANSWER_SECONDS) as answer:
        contents: bytes = answer.read()
    return contents
