"""Acceptance traces: what was drafted and what held, round by round, in real searches of trained models.

Whether a draft holds depends on what the models have learned; what a forward costs does not. So a trace of small trained models lets a
machine that has none time how models of any size would have run. Invariant: a trace holds numbers of nodes and levels only, nothing of the
users, items or scores that it came from.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from drafting.errors import SetupError
from drafting.trie.item_trie import ItemTrie

ALL = "all"
AUTO_FORM = re.compile(r"auto@([1-9]\d*)")


class TraceError(SetupError):
    """A trace that cannot be read or followed; the message is a sentence."""


@dataclass(frozen=True)
class TraceRound:
    """One forward of the target in one search, and the drafting before it.

    Attributes:
        draft: per level, how many of the draft's proposals were kept (0: it was asked for nothing), or "all" for all children.
        accepted: levels decided without a forward of their own.
        missing: at the level that ended the round, how many of the target's prefixes had not been drafted; 0 where the search had come to
            its last scored level.
        nodes: tree nodes in the forward, the root among them.
    """

    draft: tuple[int | str, ...]
    accepted: int
    missing: int
    nodes: int


Script = tuple[TraceRound, ...]


@dataclass(frozen=True)
class TraceRun:
    """Searches of one plan and list length.

    Attributes:
        proposals: continuations that the plan has the draft rank at each level.
        requests: one row of rounds per search.
    """

    plan: str
    k: int
    proposals: int
    requests: tuple[Script, ...]


@dataclass(frozen=True)
class Trace:
    """Recorded runs.

    Attributes:
        source: what was recorded, in words.
        depth: tokens per identifier.
    """

    source: str
    depth: int
    runs: tuple[TraceRun, ...]

    def find(self, plan: str, k: int) -> TraceRun | None:
        """The run of a plan and list length, if it was recorded."""
        return next((run for run in self.runs if (run.plan, run.k) == (plan, k)), None)

    @property
    def plans(self) -> list[str]:
        """The plans recorded, in order."""
        return list(dict.fromkeys(run.plan for run in self.runs))

    def save(self, path: Path) -> None:
        """Write JSON with one run a line."""
        head = json.dumps({"source": self.source, "depth": self.depth})[1:-1]
        runs = (json.dumps(asdict(run), separators=(",", ":")) for run in self.runs)
        path.write_text("{" + head + ', "runs": [\n' + ",\n".join(runs) + "\n]}\n")

    @classmethod
    def load(cls, path: Path) -> "Trace":
        """Read what `save` wrote.

        Raises:
            TraceError: the file is missing or no trace.
        """
        try:
            content = json.loads(path.read_bytes())
            runs = tuple(TraceRun(run["plan"], run["k"], run["proposals"], _scripts(run["requests"])) for run in content["runs"])
            return cls(content["source"], content["depth"], runs)
        except OSError as error:
            raise TraceError(f"The trace {path} cannot be read: {error.strerror}.") from error
        except (ValueError, TypeError, KeyError) as error:
            raise TraceError(f"{path} is not an acceptance trace: {error!r}.") from error


def balance_of(plan: str) -> int | None:
    """The B of a plan `auto@B`; None for any other plan."""
    match = AUTO_FORM.fullmatch(plan)
    return int(match[1]) if match else None


def plain_run(k: int, trie: ItemTrie) -> TraceRun:
    """Plain beam search, which needs no trace: nothing is drafted, nothing can fail to hold."""
    last = trie.depth - 1
    widths = [min(k, trie.level_size(depth)) for depth in range(trie.depth)]
    return TraceRun("none", k, 0, (tuple(TraceRound((), 0, k * (depth < last), width) for depth, width in enumerate(widths)),))


def trie_run(k: int, trie: ItemTrie) -> TraceRun:
    """The plan `trie`, which needs no trace either: what is drafted always holds.

    How many children there are is counted where the beams of a flat target lie, at the first prefixes of each level.
    """
    script, last = [], trie.depth - 1
    for depth in range(0, trie.depth, 2):
        width = min(k, trie.level_size(depth))
        if depth == last:
            script.append(TraceRound((), 0, 0, width))
            continue
        first, bounds = trie.level_starts[depth], trie.first_child
        children = int(bounds[first + width] - bounds[first])
        script.append(TraceRound((ALL,), 1, k * (depth + 1 < last), width + children))
    return TraceRun("trie", k, 0, (tuple(script),))


def _scripts(requests: Sequence[Sequence[dict[str, list[int | str] | int]]]) -> tuple[Script, ...]:
    return tuple(tuple(_round(**fields) for fields in rounds) for rounds in requests)  # type: ignore[arg-type]


def _round(draft: list[int | str], accepted: int, missing: int, nodes: int) -> TraceRound:
    return TraceRound(tuple(draft), accepted, missing, nodes)
