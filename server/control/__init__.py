"""The control store: what all replicas of a server must agree on, in a store that is chosen by URL.

Invariant: the stores differ in durability and reach, never in results, as those of `server.histories`.
"""

from server.control.base import NOWHERE, ControlStore, Limits, Position, Replica, State, Write

__all__ = ["NOWHERE", "ControlStore", "Limits", "Position", "Replica", "State", "Write", "open_control_store"]


def open_control_store(url: str, limits: Limits | None = None) -> ControlStore:
    """Open the control store of `url`.

    `memory://` ends with this process, and no other process sees it.

    Raises:
        ValueError: the URL can't be used; the message is a sentence without passwords.
    """
    match url.partition("://")[0]:
        case "memory":
            from server.control.memory import MemoryControlStore

            if url != "memory://":
                raise ValueError("A memory control store takes no options: the URL is memory:// and nothing more.")
            return MemoryControlStore(limits or Limits())
        case scheme:
            raise ValueError(f"The control URL's scheme is {scheme!r}: use memory://.")
