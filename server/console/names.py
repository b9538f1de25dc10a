"""`OwnNames`: keeps a console to the names that it is to be found by, as middleware around its app.

Invariant: no page and no WebSocket is served to a browser that calls the console by another name, or to a page from elsewhere.

Reason: a page from anywhere may have its own name lead to this machine once it is loaded (DNS rebinding). It would then do in its reader's
browser all that the console's key is good for, though the console listens on this machine alone.
"""

from collections.abc import Collection
from ipaddress import ip_address

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from drafting.errors import quoted
from server.keys.gate import host_name, names_this_machine


def checked_names(names: Collection[str]) -> tuple[str, ...]:
    """The names that a console is to be found by, as they stand in the header Host.

    Raises:
        ValueError: one is no name of a machine.
    """
    for name in names:
        if not name.strip() or any(mark in name for mark in "/@ *") or (":" in name and not _is_address(name)):
            raise ValueError(f"{name!r} is no name of a machine, such as console.example: leave out scheme, port and path.")
    return tuple(name.lower() for name in names)


class OwnNames:
    """The app of a console for those who call it by one of its names."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        """`names` are those beside the names of this machine."""
        self._app, self._names = app, frozenset(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and (foreign := self._foreign(scope["headers"])) is not None:
            if scope["type"] == "websocket":
                # Before it is accepted, this is an answer 403.
                await send({"type": "websocket.close", "code": 1008})
                return
            await PlainTextResponse(_refusal(foreign), 403, {"X-Content-Type-Options": "nosniff"})(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _foreign(self, headers: Collection[tuple[bytes, bytes]]) -> str | None:
        """A name by which a request calls the console, or from which its page is, that is none of its own; None if there is none."""
        for header, value in headers:
            if header not in (b"host", b"origin"):
                continue
            host = value if header == b"host" else value.partition(b"://")[2]
            if not names_this_machine(host) and host_name(host) not in self._names:
                return host_name(host) or value.decode("latin-1")
        return None


def _refusal(name: str) -> str:
    return (
        f"This console is not for pages of {quoted(name)}: open it by a name of the machine that it runs on, such as localhost. If people "
        "are to find it by another, as behind a proxy, start it with --name and that name."
    )


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
