"""Domain errors after which the same request may succeed later, a branch of the tree of `server.errors`.

TryAgain
  - EngineUnavailable, HistoryUnavailable               what answers is not there at the moment
  - FilesUnavailable                                    likewise the versions' files
      - FileGone
  - ControlUnavailable, ControlLost, ControlEmpty       likewise the control store, or its state
      - ControlFull
  - ControlConflict                                     another replica was first
  - ReplicaBehind, NotReached, NotEverywhere            replicas have not come so far
  - FiltersBusy, SearchesBusy, VersionsBusy, KeyBusy    too much of one kind at a time
  - Overloaded                                          too much at all
      - QueueFull, TooLate, ExplanationsBusy

Invariant: each says after how many seconds a retry makes sense. The message is a sentence for the client, but of `HistoryUnavailable` and
`ControlUnavailable`, which speak to the log.
"""

from server.errors import ServerError


class TryAgain(ServerError):
    """A request that may succeed later.

    Attributes:
        retry_after_seconds: seconds after which a retry may succeed.
    """

    def __init__(self, sentence: str, retry_after_seconds: int = 1) -> None:
        super().__init__(sentence)
        self.retry_after_seconds = retry_after_seconds


class EngineUnavailable(TryAgain):
    """There is no engine at the moment."""


class HistoryUnavailable(TryAgain):
    """The history store can't be reached or can't answer now; the message is one sentence for the log and carries no credentials."""


class ControlUnavailable(TryAgain):
    """The control store can't be reached or can't answer now; the message is one sentence for the log and carries no credentials."""


class ControlFull(ControlUnavailable):
    """The control store answers, and has no room for a change; nothing was written."""


class ControlLost(TryAgain):
    """The control store has lost its state, which this replica still has."""

    def __init__(self) -> None:
        super().__init__("The control store has lost its state, so nothing can be changed: restore it with atspeed control restore.")


class ControlEmpty(TryAgain):
    """The control store has no state, and other replicas had one, so it is not for this one to begin another."""

    def __init__(self, others: int) -> None:
        super().__init__(f"The control store is empty, but {others} other servers have a state: restore it (atspeed control restore).")


class ReplicaBehind(TryAgain):
    """This replica has not done what others have written."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"This server does not do what the others do: {problem}", 2)


class NotReached(TryAgain):
    """A revision that a request asks for, and that this replica has not applied in time."""


class NotEverywhere(TryAgain):
    """A change that is stored, and that not all replicas have done in time."""


class ControlConflict(TryAgain):
    """Another replica has changed the control store meanwhile, so nothing was written."""

    def __init__(self) -> None:
        super().__init__("Another replica has changed the state meanwhile: send the request again.")


class FilesUnavailable(TryAgain):
    """The place of the versions' files can't be reached or can't answer now."""


class FileGone(FilesUnavailable):
    """The place of the versions' files answers, and does not have one that a version needs, or has something else under its name."""


class Overloaded(TryAgain):
    """A request that is refused because of the others.

    Attributes:
        reason: why, as a label of metrics.
    """

    reason: str


class QueueFull(Overloaded):
    """More requests wait than the server is told to hold."""

    reason = "queue-full"


class TooLate(Overloaded):
    """The list would not be ready in time, or would make others late, so it is not begun."""

    reason = "deadline"


class ExplanationsBusy(Overloaded):
    """More lists are being explained than the server explains at a time."""

    reason = "explanations"


class FiltersBusy(TryAgain):
    """More filters are being worked out than the server works on at a time."""


class SearchesBusy(TryAgain):
    """More items are being searched for than the server works on at a time."""


class VersionsBusy(TryAgain):
    """More versions of the catalog are being brought than the server takes on at a time."""


class KeyBusy(TryAgain):
    """More requests of one key than it may have, at a time or in a time."""
