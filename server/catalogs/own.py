"""`Own`: what a replica has decided by itself, until that is written to the control store.

Invariant: it is written as a whole. Once others have moved on, it is given up, except for what holds whatever they serve (`anyway`).
"""

from dataclasses import dataclass

from server.control.records import Activation, Changes, LeftVersion


@dataclass(frozen=True)
class Own:
    """The version that this replica serves by its own decision.

    Attributes:
        entry: the activation.
        instead: the version that was to be served when it was decided (None before any was), and those that this replica has served since
            and left before it could write that.
        left: those of them that are left.
        changes: what is written beside it.
        anyway: what is written also if others have moved on.
        after_engine: True if it is written only once this replica's engine has loaded the version.
    """

    entry: Activation
    instead: tuple[str | None, ...]
    left: tuple[LeftVersion, ...]
    changes: Changes
    anyway: Changes
    after_engine: bool = False
