"""The versions of the catalog that the server acknowledged, their items, the activations and the named filters.

Invariant: one operator changes versions, one thing after the other, so what the server should have is known exactly: an acknowledged
change has happened, one that was answered with an error has not, and only one that got no answer may have. That one is settled by what the
server shows next, which must be one of the two. A server may serve an earlier version of its own accord only if it says that it has left
the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.soak.catalog_lines import group_of

# Versions that the server keeps of those that posts of items make of one version (docs/catalogs.md).
KEPT_VERSIONS = 10
_ITEMS_MARK = ".items-"

Items = frozenset[str]


@dataclass
class OpenChange:
    """A change whose answer never came.

    Attributes:
        brings: items that a new version would have; None if it brings no version.
        name: version that it would bring, activate or remove; None if the server chooses the name.
        removes: True if it removes that version.
        activates: True if it serves that version.
    """

    name: str | None
    brings: Items | None = None
    removes: bool = False
    activates: bool = False


@dataclass
class VersionLedger:
    """The versions, activations and filters that the server should have, by what it has acknowledged.

    Attributes:
        start: name of the version that the server is started with, which is a file outside its directory.
        active: name of the version that is served.
        versions: items of each version.
        superfluous: the same of those that the server need not keep any more; a full disk may keep it from forgetting them.
        activations: acknowledged entries of the history of activations, oldest first.
        filters: expressions by name; they live as long as the server.
        open: the change without an answer, if there is one.
        acknowledged_versions, acknowledged_items: how many the server has said that it has.
    """

    start: str
    active: str
    versions: dict[str, Items]
    superfluous: dict[str, Items] = field(default_factory=dict)
    activations: list[Mapping[str, Any]] = field(default_factory=list)
    filters: dict[str, str] = field(default_factory=dict)
    open: OpenChange | None = None
    acknowledged_items: int = 0
    acknowledged_versions: int = 0

    def add_version(self, name: str, items: Items) -> None:
        """Note a version that was brought."""
        self.versions[name] = items
        self.acknowledged_versions += 1

    def add_items(self, answer: Mapping[str, Any], items: Sequence[str]) -> None:
        """Note items that were posted, and the version that has them."""
        self.versions[answer["version"]] = self.versions[self.active] | frozenset(items)
        self.acknowledged_versions += 1
        self.acknowledged_items += len(items)
        self.activate(answer)
        self._drop_superfluous(answer["version"])

    def activate(self, answer: Mapping[str, Any]) -> None:
        """Note an activation."""
        self.active = answer["version"]
        if self.active in self.superfluous:
            self.versions[self.active] = self.superfluous.pop(self.active)
        self.activations.append({key: answer[key] for key in ("version", "by", "at")})

    def remove(self, name: str) -> None:
        """Note that a version was deleted."""
        del self.versions[name]

    def settle(self, shown: Mapping[str, Any]) -> str | None:
        """Take over what has become of the open change; a sentence if the server shows what it can't have made of it.

        Args:
            shown: the answer of `GET /v1/catalogs`.
        """
        change, self.open = self.open, None
        if change is not None:
            versions = set(shown["versions"])
            if change.brings is not None:
                for name in versions - set(self.versions) - set(self.superfluous) if change.name is None else versions & {change.name}:
                    self.versions[name] = change.brings
                    self._drop_superfluous(name)
                    if change.activates and shown["active"] == name:
                        self.active = name
            elif change.removes and change.name not in versions:
                self.versions.pop(change.name or "", None)
            elif change.activates and shown["active"] != self.active and change.name in (None, shown["active"]):
                self.active = shown["active"]
        return self.complaint(shown)

    def complaint(self, shown: Mapping[str, Any]) -> str | None:
        """The first difference between what the server shows and what it has acknowledged, as a sentence."""
        known = {*self.versions, *self.superfluous, self.start}
        lost, invented = self.lost_versions(shown), sorted(set(shown["versions"]) - known)
        self.follow(shown)
        if lost:
            return f"The server has lost the versions {', '.join(lost)}."
        if invented:
            return f"The server shows the versions {', '.join(invented)}, which nobody brought or which were deleted."
        if shown["active"] != self.active:
            return f"The server serves {shown['active']}, though {self.active} was activated last."
        if lost_activations := self.lost_activations(shown):
            return f"The server's history lacks {lost_activations} acknowledged activations, or has them in another order."
        return None

    def follow(self, shown: Mapping[str, Any]) -> None:
        """Take over that the server has left the version that was active, if it says so."""
        left = {each["version"] for each in shown.get("left", ())}
        if self.active in left and shown["active"] in self.versions:
            self.active = shown["active"]

    def lost_versions(self, shown: Mapping[str, Any]) -> list[str]:
        """Acknowledged versions that the server does not show."""
        return sorted(set(self.versions) - set(shown["versions"]) - {self.start})

    def lost_activations(self, shown: Mapping[str, Any]) -> int:
        """Acknowledged activations that the server's history does not show in their order."""
        rest = iter(shown["history"])
        return sum(not any(entry == known for entry in rest) for known in self.activations)

    def passing(self, expression: str) -> int:
        """How many items of the active version a filter by group lets through."""
        group = int(expression.rpartition(" ")[2])
        return sum(group_of(item) == group for item in self.versions[self.active])

    def _drop_superfluous(self, newest: str) -> None:
        for name in superfluous(newest, self.versions):
            self.superfluous[name] = self.versions.pop(name)


def superfluous(newest: str, versions: Mapping[str, Items]) -> list[str]:
    """The versions that a post of items makes the server forget: all but the newest that such posts have made of the same version."""
    stem, mark, _ = newest.partition(_ITEMS_MARK)
    made = [name for name in versions if mark and name.startswith(stem + mark)]
    return sorted(made, key=lambda name: int(name.rpartition("-")[2]))[:-KEPT_VERSIONS]
