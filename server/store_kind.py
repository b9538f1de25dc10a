"""The kinds of stores that a URL may name, for histories and for the control store alike."""

from typing import Literal
from urllib.parse import urlsplit

Kind = Literal["memory", "sqlite", "redis"]

_REDIS = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")


def kind_of(url: str, name: str) -> Kind:
    """The kind of the store that a URL names.

    Args:
        name: what sentences call the store: history or control.

    Raises:
        ValueError: there is no such kind; the message is a sentence without passwords.
    """
    scheme = url.partition("://")[0]
    if scheme in _REDIS:
        return "redis"
    match scheme:
        case "sqlite":
            return "sqlite"
        case "memory" if url == "memory://":
            return "memory"
        case "memory":
            raise ValueError(f"A memory {name} store takes no options: the URL is memory:// and nothing more.")
        case _:
            raise ValueError(
                f"The {name} URL's scheme is {urlsplit(url).scheme or 'missing'!r}: use memory://, sqlite:///path, redis://, "
                "redis+sentinel:// or redis+cluster://, the last three with rediss for TLS."
            )
