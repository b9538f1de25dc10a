"""The report of a soak.

Invariant: a promise counts as kept only if there was something to keep: acknowledged events, versions, items and activations, every kind of
fault that this machine allows, and processes that lived long enough for their memory to be compared.
"""

from collections.abc import Mapping

import msgspec

from benchmarks.soak.answers import Answers
from benchmarks.soak.faults import Fault
from benchmarks.soak.memory import MOST_GROWTH, Growth, IdlePoint

BIN_SECONDS = 5
_GROUPS = {"200": "answered", "201": "answered", "204": "answered", "429": "refused", "503": "unavailable", "504": "late"}
_SILENCES = ("hung_up", "api_down", "unanswered")


class SoakReport(msgspec.Struct, kw_only=True):
    """Figures of a soak: how much was done, how it was answered, and what was wrong.

    Attributes:
        seconds: planned length of all phases together.
        rate: requests of users a second.
        disk: the small disk, or why none was filled.
        api_starts: API processes that were started, the first one among them.
        answers: of each operation how often which status came, or none and why.
        events_acknowledged, versions_acknowledged, items_acknowledged, activations_acknowledged: what the ledgers hold.
        users_forgotten: acknowledged deletions.
        slots_used, waiting: the most at any idle point.
        api_growth, engine_growth: None where no process lived long enough.
        timeline: counts of outcomes in every `BIN_SECONDS`, without what was asked for proofs.
        broken: of each broken promise the sentences, and how often each was found.
    """

    date: str
    machine: str
    seconds: float
    rate: float
    seed: int
    engine_hang_seconds: float
    disk: str
    api_starts: int
    requests: int
    answers: dict[str, dict[str, int]]
    events_acknowledged: int
    users_forgotten: int
    versions_acknowledged: int
    items_acknowledged: int
    activations_acknowledged: int
    slots_used: float
    waiting: float
    faults: list[Fault]
    idle_points: list[IdlePoint]
    api_growth: Growth | None
    engine_growth: Growth | None
    timeline: list[dict[str, int]]
    broken: dict[str, dict[str, int]]

    def sentences(self) -> list[str]:
        """The promises that were not kept."""
        found = [
            f"{kind}: {sentence}{f' ({count} times)' if count > 1 else ''}"
            for kind, counts in self.broken.items()
            for sentence, count in counts.items()
        ]
        if self.slots_used or self.waiting:
            found.append(f"{self.slots_used:.0f} key/value slots were in use and {self.waiting:.0f} requests waited while nothing ran.")
        for name, growth in (("API process", self.api_growth), ("engine", self.engine_growth)):
            if growth is None:
                found.append(f"No {name} lived long enough for its memory to be compared: soak for longer.")
            elif growth.share > MOST_GROWTH:
                found.append(f"The {name} grew by {growth.share:.1%}, from {growth.from_mib:.1f} to {growth.most_mib:.1f} MiB.")
        proved = {
            "events": self.events_acknowledged,
            "versions": self.versions_acknowledged,
            "items": self.items_acknowledged,
            "activations": self.activations_acknowledged,
        }
        return found + [f"No {name} were acknowledged, so nothing was proved of them." for name, count in proved.items() if not count]

    def summary(self) -> str:
        """The figures in words."""
        kinds = sorted({fault.kind for fault in self.faults})
        slowest = {kind: max(fault.seconds for fault in self.faults if fault.kind == kind) for kind in kinds}
        counted = {kind: sum(fault.kind == kind for fault in self.faults) for kind in kinds}
        memory = "; ".join(
            f"{name} {growth.from_mib:.1f} MiB, at most {growth.most_mib:.1f} ({growth.share:+.2%}, {growth.points} idle points)"
            for name, growth in (("API process", self.api_growth), ("engine", self.engine_growth))
            if growth is not None
        )
        return "\n".join(
            [
                f"{self.requests} requests; " + ", ".join(f"{kind} {counted[kind]} times (at most {slowest[kind]} s)" for kind in kinds),
                f"acknowledged: {self.events_acknowledged} events, {self.versions_acknowledged} versions, {self.items_acknowledged} items, "
                f"{self.activations_acknowledged} activations, {self.users_forgotten} deletions of users",
                f"memory: {memory}",
                f"disk: {self.disk}",
            ]
        )


def make_timeline(answers: Answers) -> list[dict[str, int]]:
    """Outcomes by `BIN_SECONDS`, in the groups that are drawn."""
    bins = [dict[str, int]() for _ in range(max(answers.by_second, default=-1) // BIN_SECONDS + 1)]
    for second, counts in answers.by_second.items():
        for name, count in counts.items():
            group = name if name in _SILENCES else _GROUPS.get(name, "other")
            bins[second // BIN_SECONDS][group] = bins[second // BIN_SECONDS].get(group, 0) + count
    return bins


def plain(counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Counts as JSON has them, in the order of their names."""
    return {name: dict(sorted(inner.items())) for name, inner in sorted(counts.items())}
