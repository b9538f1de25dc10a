"""Recordings: what draft and target said about real users, kept so that any plan can be replayed without a model.

Invariant: a recording answers every question that a plan may ask. The draft's log-probabilities are kept for *all* inner nodes of the trie,
so whatever a plan drafts is there; of the target only the beams of a plain search are needed, because a strict search follows them whatever
is drafted.
"""

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.replay.prefixes import PrefixScorer
from drafting.array_types import FloatArray, IntArray
from drafting.beam.model import TreeModel
from drafting.beam.rule import Normalisation
from drafting.cache import whole_file
from drafting.errors import SetupError
from drafting.neighbours.candidates import CatalogNeighbours
from drafting.plans.given import GivenPrefixes
from drafting.plans.limits import MOST_ITEMS
from drafting.trie.item_trie import ItemTrie
from verification.recommender import Recommender
from verification.search import FEWEST_KEPT, KEPT_SHARE

MOST_NODES = 200_000


class RecordingError(SetupError):
    """A recording that cannot be made or read; the message is a sentence."""


@dataclass(frozen=True)
class TargetBeams:
    """The beams of plain searches of one width.

    Attributes:
        nodes: `[users, inner levels, k]` int64 trie nodes of depth 1, 2, …, best first; -1 pads.
        log_probs: `[users, inner levels, k]` float32.
    """

    nodes: IntArray
    log_probs: FloatArray


@dataclass(frozen=True)
class Recording:
    """The recorded beams and scores of users.

    Attributes:
        prompt_lengths: `[users]` int64 tokens.
        first_child: `[inner nodes + 1]` int64, the trie; inner nodes are those above the leaves.
        level_starts: first node of each depth, leaves and end included.
        draft: `[users, inner nodes]` float32, log-probability of each node given its parent; 0 for the root.
        items: `[users, items, inner levels]` int64, the trie nodes on the way to a retriever's items, best first; -1 pads.
        beams: the target's, by k.
        last: by k, `[users, inner levels, most]` int64, what a search kept and nearly kept before the user's newest item; -1 pads.
    """

    prompt_lengths: IntArray
    first_child: IntArray
    level_starts: IntArray
    draft: FloatArray
    items: IntArray
    beams: dict[int, TargetBeams]
    last: dict[int, IntArray]

    @property
    def users(self) -> int:
        """Number of recorded users."""
        return len(self.prompt_lengths)

    def given(self, user: int, k: int, items: int, uses_last: bool) -> GivenPrefixes | None:
        """What is given for a user's search, as `verification.engine.given` has it."""
        last = np.unique(self.last[k][user]) if uses_last else np.empty(0, np.int64)
        retrieved = np.unique(self.items[user, :items])
        last, retrieved = last[last >= 0], retrieved[retrieved >= 0]
        return GivenPrefixes.of(last, retrieved) if len(last) or len(retrieved) else None

    def save(self, path: Path) -> None:
        """Write the recording as a compressed `.npz`, whole or not at all."""
        arrays = {
            "prompt_lengths": self.prompt_lengths,
            "first_child": self.first_child,
            "level_starts": self.level_starts,
            "draft": self.draft,
            "items": self.items,
        }
        for k, beams in self.beams.items():
            arrays |= {f"nodes_{k}": beams.nodes, f"log_probs_{k}": beams.log_probs, f"last_{k}": self.last[k]}
        with whole_file(path) as building, building.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> "Recording":
        """Read what `save` wrote.

        Raises:
            RecordingError: the file is not a recording.
        """
        try:
            with np.load(path) as arrays:
                ks = sorted(int(name.removeprefix("nodes_")) for name in arrays if name.startswith("nodes_"))
                return cls(
                    arrays["prompt_lengths"],
                    arrays["first_child"],
                    arrays["level_starts"],
                    arrays["draft"],
                    arrays["items"],
                    {k: TargetBeams(arrays[f"nodes_{k}"], arrays[f"log_probs_{k}"]) for k in ks},
                    {k: arrays[f"last_{k}"] for k in ks},
                )
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise RecordingError(f"{path} is not a recording made by `atspeed-bench replay record`: {error}.") from error


def record(
    target: TreeModel,
    draft: TreeModel,
    trie: ItemTrie,
    prompts: Sequence[IntArray],
    ks: Sequence[int],
    progress: Callable[[], None] = lambda: None,
    before: Sequence[IntArray | None] | None = None,
    retrieved: Sequence[IntArray] | None = None,
    normalise: Normalisation = Normalisation.VOCABULARY,
) -> Recording:
    """Record one search per prompt and k, and the draft's log-probabilities of the whole trie.

    Args:
        before: the prompts that users had when they were last asked for; None for a user who was not.
        retrieved: `[items]` catalog indices of a retriever's best items for each, best first.
        normalise: what log-probabilities are normalised over.
        progress: called after each prompt.

    Raises:
        RecordingError: the trie is too large to ask the draft about all of it.
    """
    inner = trie.level_starts[-2]
    if inner > MOST_NODES:
        raise RecordingError(f"The catalog's trie has {inner:,} inner nodes; a recording holds at most {MOST_NODES:,} per user.")
    levels = trie.depth - 1
    draft_log_probs = np.zeros((len(prompts), inner), np.float32)
    nodes = {k: np.full((len(prompts), levels, k), -1, np.int64) for k in ks}
    log_probs = {k: np.full((len(prompts), levels, k), -np.inf, np.float32) for k in ks}
    last = {k: np.full((len(prompts), levels, max(FEWEST_KEPT, KEPT_SHARE * k)), -1, np.int64) for k in ks}
    items = np.full((len(prompts), MOST_ITEMS if retrieved else 0, levels), -1, np.int64)
    drafting, targeting = (PrefixScorer(model, trie, normalise) for model in (draft, target))
    for user, prompt in enumerate(prompts):
        if before is not None and (asked := before[user]) is not None:
            for k in ks:
                last[k][user] = targeting.beams(asked, [k], last[k].shape[2])[k][0]
        if retrieved is not None:
            paths = trie.paths(trie.leaf_of_item[retrieved[user][:MOST_ITEMS]].astype(np.int64))[:, :-1]
            items[user, : len(paths)] = paths
        draft_log_probs[user] = drafting.whole_trie(prompt)
        for k, (beam, scores) in targeting.beams(prompt, ks).items():
            nodes[k][user], log_probs[k][user] = beam, scores
        progress()
    return Recording(
        prompt_lengths=np.array([len(prompt) for prompt in prompts]),
        first_child=trie.child_offsets[: inner + 1].cpu().numpy(),
        level_starts=np.array(trie.level_starts),
        draft=draft_log_probs,
        items=items,
        beams={k: TargetBeams(nodes[k], log_probs[k]) for k in ks},
        last=last,
    )


def record_recommender(
    recommender: Recommender,
    histories: Sequence[list[int]],
    ks: Sequence[int],
    progress: Callable[[], None] = lambda: None,
    neighbours: CatalogNeighbours | None = None,
    *,
    asked_before: bool = True,
) -> Recording:
    """Record histories with a recommender's own models and prompts; its engine must be idle.

    Args:
        neighbours: the retriever; None for none.
        asked_before: whether users were asked for before their newest items, where they have more than one.

    Raises:
        RecordingError: it has no draft, or its trie is too large.
    """
    engine = recommender.engine
    if engine.draft is None:
        raise RecordingError("A recording needs a draft model.")
    prompts = [recommender.prompts.build(history) for history in histories]
    before = [recommender.prompts.build(history[:-1]) if asked_before and len(history) > 1 else None for history in histories]
    retrieved = None if neighbours is None else [neighbours.candidates(history, MOST_ITEMS)[0] for history in histories]
    return record(engine.target, engine.draft, engine.trie, prompts, ks, progress, before, retrieved, engine.normalise)
