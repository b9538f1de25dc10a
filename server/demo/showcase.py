"""The output of the demo when its server is ready: films of one user, recommended films, and a command to try.

It asks the running server over HTTP like any client, so what is shown is what is served, and no second model is loaded.
"""

import json
from typing import Any

from server.client import AtspeedClient
from server.schemas.recommendations import RecommendedItem
from server.schemas.users import StoredEvent

WATCHED = 5
_ANSWER_SECONDS = 10


def wait_until_ready(url: str) -> None:
    """Return when the server at `url` takes requests; wait for ever, because the server ends the program if it cannot start.

    Raises:
        AtspeedError: what answers there is not this server.
    """
    with _client(url) as client:
        client.wait_until_ready(None)


def show(url: str, user: str, k: int) -> str:
    """The text that presents one user's recommendations, asked for now.

    Raises:
        AtspeedError: the server does not answer, or refuses.
    """
    with _client(url) as client:
        watched = client.history(user, limit=WATCHED).events
        films = client.recommend(user_id=user, k=k, exclude_history=True, deadline=_ANSWER_SECONDS).items
    lines = [f"User {user} watched last:"]
    lines += [f"    {_name(film)}" for film in watched]
    lines += ["", "and is recommended:"]
    lines += [f"{rank:>3} {_name(film)}" for rank, film in enumerate(films, start=1)]
    asked = curl(url, {"user_id": user, "k": k, "exclude_history": True})
    lines += ["", "Ask for yourself, in another terminal:", "", f"    {asked}", ""]
    return "\n".join(lines)


def curl(url: str, body: dict[str, Any]) -> str:
    """A command that asks for recommendations, ready to paste."""
    return f"curl -s {url}/v1/recommendations -H 'Content-Type: application/json' -d '{json.dumps(body)}'"


def _name(film: StoredEvent | RecommendedItem) -> str:
    """The title, or the id of a film without one."""
    return film.title or film.item_id


def _client(url: str) -> AtspeedClient:
    # The server is on this machine, which no proxy of the user's environment can reach.
    return AtspeedClient(url, trust_env=False)
