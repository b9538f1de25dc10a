"""The output of the demo when its server is ready: films of one user, recommended films, and a command to try.

It asks the running server over HTTP like any client, so what is shown is what is served, and no second model is loaded.
"""

import json
import time
from typing import Any

import httpx
import msgspec

WATCHED = 5
_POLL_SECONDS = 0.1
_ANSWER_SECONDS = 30


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
    """Return when the server at `url` takes requests; wait for ever, because the server ends the program if it cannot start.

    Raises:
        httpx.HTTPStatusError: what answers there is not this server.
    """
    with _client(url) as client:
        while True:
            try:
                answer = client.get("/ready")
            except httpx.TransportError:
                # It does not listen yet.
                pass
            else:
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    answer.raise_for_status()
                    return
            time.sleep(_POLL_SECONDS)


def show(url: str, user: str, k: int) -> str:
    """The text that presents one user's recommendations, asked for now.

    Raises:
        httpx.HTTPError: the server does not answer, or refuses.
    """
    body = {"user_id": user, "k": k, "exclude_history": True}
    with _client(url) as client:
        history = client.get(f"/v1/users/{user}/history").raise_for_status()
        answer = client.post("/v1/recommendations", json=body | {"timeout_ms": 10_000}).raise_for_status()
    watched = msgspec.json.decode(history.content, type=_History).events[-WATCHED:]
    films = msgspec.json.decode(answer.content, type=_List).items
    lines = [f"User {user} watched last:"]
    lines += [f"    {film.name}" for film in watched]
    lines += ["", "and is recommended:"]
    lines += [f"{rank:>3} {film.name}" for rank, film in enumerate(films, start=1)]
    lines += ["", "Ask for yourself, in another terminal:", "", f"    {curl(url, body)}", ""]
    return "\n".join(lines)


def curl(url: str, body: dict[str, Any]) -> str:
    """A command that asks for recommendations, ready to paste."""
    return f"curl -s {url}/v1/recommendations -H 'Content-Type: application/json' -d '{json.dumps(body)}'"


def _client(url: str) -> httpx.Client:
    # The server is on this machine, which no proxy of the user's environment can reach.
    return httpx.Client(base_url=url, timeout=_ANSWER_SECONDS, trust_env=False)
