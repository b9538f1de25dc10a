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
        instead: the version that was to be served when it was decided, and is left if `reason` says why.
        changes: what is written beside it.
        anyway: what is written also if others have moved on.
        after_engine: True if it is written only once this replica's engine has loaded the version.
    """

    entry: Activation
    instead: str | None
    reason: str
    changes: Changes
    anyway: Changes
    after_engine: bool = False

    @property
    def left(self) -> LeftVersion | None:
        """The version that is left, if one is."""
        return LeftVersion(self.instead, self.entry.at, self.reason) if self.instead and self.reason else None
