"""Domain errors that are reported to clients, in one tree.

ServerError
  - InvalidRequest, RequestRefused                    the request makes no sense, or the engine can't do it
  - UnknownItem, UnknownField, UnknownFilter          it names what the catalog does not have
  - NothingKnown                                      nothing that the catalog has is known of the user
      - UserNotFound, EmptyHistory, StaleHistory
  - HistoryDamaged, NoItemTimes                       the history or the catalog can't be used for it
  - ProfileNotFound, EventNotFound                    what it asks for is not there
  - FilterNotFound, ItemNotFound, VersionNotFound
  - FilterRefused, TooManyFilters                     a named filter that can't be
  - CatalogRefused, UnknownFile, UnknownForm          a version of the catalog that can't be
  - VersionExists, VersionActive, VersionNotServed,   the versions that are there do not allow it
    NothingToRollBack
  - UploadCutOff, BackupRefused, StorageFull          what was sent is cut off or damaged, a disk that is full
  - ScoresNotFinite                                   the model fails on it
  - ItemsRefused                                      new items that can't be
      - ItemsTaken
  - KeyMissing, KeyUnknown                            nobody knows who asks
  - KeyForbids, KeysNeeded, ServedElsewhere           who asks may not do that, or not on this port
  - TryAgain                                          it may succeed later (`server.try_again`)

Invariant: the message is a sentence for the client and names nothing of the server's inside. No error knows an HTTP status
(`server.http.problems` has them): services don't know who calls them.
"""

from pathlib import Path

from drafting.errors import quoted


def encodable(text: str) -> str:
    """The text with escapes in place of what UTF-8 can't carry: JSON may bring half of a surrogate pair, and sentences quote it."""
    return text.encode("utf-8", "backslashreplace").decode()


def without_folders(sentence: str, *paths: Path | None) -> str:
    """The sentence with files and directories by their own names alone: where the server keeps them is not for clients."""
    # A path of one part, or of none as `.`, says no more than a name. What lies in another of them comes first.
    known = [path for path in paths if path is not None and len(path.parts) > 1]
    for path in sorted(known, key=lambda path: len(path.parts), reverse=True):
        sentence = sentence.replace(str(path), path.name)
    return sentence


class ServerError(Exception):
    """Base of all errors of the server."""


class InvalidRequest(ServerError):
    """Parts of the request contradict each other."""


class RequestRefused(ServerError):
    """The engine can't do this request."""


class UnknownItem(ServerError):
    """A field of the request names an item that the catalog does not have."""


class UnknownField(ServerError):
    """The request names an attribute that the catalog does not have."""


class UnknownFilter(ServerError):
    """The request names a filter that does not exist."""


class HistoryDamaged(ServerError):
    """What is stored for a user can't be read."""

    def __init__(self, user_id: str) -> None:
        super().__init__(
            f"What is stored for user {quoted(user_id)} is damaged and can't be read: delete the user and send the events again, or bring "
            "the history with the request."
        )


class NoItemTimes(ServerError):
    """Fresh items are wanted of a catalog that does not say how old its items are."""


class NothingKnown(ServerError):
    """A list is wanted for a user of whom nothing is known that it could follow from.

    Attributes:
        reason: why, as a label of metrics.
    """

    reason: str


class EmptyHistory(NothingKnown):
    """The request brings a history without items."""

    reason = "empty-history"

    def __init__(self) -> None:
        super().__init__("The history is empty: recommendations need at least one item.")


class StaleHistory(NothingKnown):
    """No item of the history, stored or brought, is in the catalog."""

    reason = "stale-history"


class UserNotFound(NothingKnown):
    """A user without events."""

    reason = "unknown-user"

    def __init__(self, user_id: str) -> None:
        super().__init__(f"There is no user {quoted(user_id)}: no events are stored for that id.")


class ProfileNotFound(ServerError):
    """A user without a profile."""

    def __init__(self, user_id: str) -> None:
        super().__init__(f"No profile is stored for user {quoted(user_id)}.")


class EventNotFound(ServerError):
    """No stored event of a user is one that is to be deleted."""

    def __init__(self, user_id: str) -> None:
        super().__init__(f"User {quoted(user_id)} has no such event.")


class FilterNotFound(ServerError):
    """A filter that does not exist."""


class ItemNotFound(ServerError):
    """An item that the catalog does not have, as the subject of a request."""


class VersionNotFound(ServerError):
    """A version of the catalog that does not exist."""


class FilterRefused(ServerError):
    """An expression that can't be used for the catalog."""


class TooManyFilters(ServerError):
    """No room for another named filter."""


class CatalogRefused(ServerError):
    """A catalog that can't be served."""


class UnknownFile(ServerError):
    """A file that is not in the server's directory of catalogs."""


class UnknownForm(ServerError):
    """A catalog of a content type that the server does not read."""


class VersionExists(ServerError):
    """A name that a version has already; versions do not change."""


class VersionActive(ServerError):
    """A version that can't be removed because it is served."""


class VersionNotServed(ServerError):
    """A version that was to be left, and that is not served any more."""


class NothingToRollBack(ServerError):
    """No other version has been served before this one."""


class UploadCutOff(ServerError):
    """An upload that ended before it was complete."""


class StorageFull(ServerError):
    """A version, or a change of what is served, that can't be stored: the disk is full, or the directory can't be written."""


class BackupRefused(ServerError):
    """A file that is no backup of the control state, or is damaged."""


class ScoresNotFinite(ServerError):
    """A list that can't be made, because of what the model says."""

    def __init__(self) -> None:
        super().__init__("The model's scores after this history were not finite (NaN or infinite), so there is no list.")


class ItemsRefused(ServerError):
    """New items that have no place in the catalog."""


class ItemsTaken(ItemsRefused):
    """New items that claim what belongs to other items."""


class KeyMissing(ServerError):
    """A request without a key to a server that asks for one."""

    def __init__(self) -> None:
        super().__init__("This server asks for a key: send it in the header Authorization, as Bearer and the key.")


class KeyUnknown(ServerError):
    """A key that the server does not have."""

    def __init__(self) -> None:
        super().__init__("This server does not know the key that the header Authorization brings.")


class KeyForbids(ServerError):
    """More than the request's key is good for."""


class KeysNeeded(ServerError):
    """More than other machines may do on a server without keys."""

    def __init__(self) -> None:
        super().__init__(
            "This server has no keys, so from other machines, and through proxies, it only takes requests for lists, scores and items of "
            "the catalog; whoever runs it can give keys for the rest: atspeed serve --keys FILE."
        )


class ServedElsewhere(ServerError):
    """An operation on a port that does not take operations."""

    def __init__(self) -> None:
        super().__init__("This port does not take operations: the server has another one for them.")
