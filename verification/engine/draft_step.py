"""One round's drafting: grows the trees of all running requests, level by level, as the plan says.

Invariant: drafting never takes what a running request needs to finish plainly, and never ends a request. A level for which too few slots
are spare is not drafted; a draft model that fails is dropped, and serving goes on without it.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from drafting.beam.expand import find_nodes
from drafting.beam.tree import TokenTree, TreeModel
from drafting.device import pad_stack
from drafting.plans.drafters import BeamDrafter, DraftTask, TrieDrafter
from drafting.plans.plan import Action, DraftRound, LevelOutcome, Plan
from drafting.trie.item_trie import ItemTrie
from verification.search import BeamSearch
from verification.slots.pool import SlotPool
from verification.verifiers.verifier import LevelDecision

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DraftCost:
    """What drafting cost in one step."""

    tokens: int = 0
    forwards: int = 0
    seconds: float = 0.0
    failed: bool = False

    def plus(self, other: "DraftCost") -> "DraftCost":
        """The sum of two parts of a step."""
        return DraftCost(
            self.tokens + other.tokens, self.forwards + other.forwards, self.seconds + other.seconds, self.failed or other.failed
        )


@dataclass(frozen=True)
class _Proposed:
    """What the draft proposed for one level of one search, kept until the target has chosen."""

    nodes: IntArray
    scores: FloatArray
    levels: int


Growing = list[tuple[BeamSearch, DraftTask]]
# Widths, depth, nodes and verification.
Standing = tuple[tuple[int, ...], int, int, str]


class DraftStep:
    """Drafts for all running requests at once."""

    def __init__(self, tree: TokenTree, trie: ItemTrie, nodes: SlotPool, draft: TreeModel | None) -> None:
        self._trie = trie
        self._nodes = nodes
        self._trie_drafter = TrieDrafter(tree, trie)
        self.beam_drafter = BeamDrafter(tree, trie, draft) if draft is not None else None
        self._proposed: dict[tuple[str, int], _Proposed] = {}

    def grow(self, searches: Sequence[BeamSearch], plan: Plan, spare: Callable[[], int]) -> DraftCost:
        """Drafts one round.

        Args:
            spare: how many node slots no running request may come to need.
        """
        self._proposed.clear()
        if not plan.drafts:
            return DraftCost()
        started = time.perf_counter()
        growing, actions = self._begin(searches, plan)
        cost, everyone = DraftCost(), growing
        while growing:
            wide = [pair for pair, action in zip(growing, actions, strict=True) if action is Action.CHILDREN]
            deep = [pair for pair, action in zip(growing, actions, strict=True) if action is Action.BEAM]
            grown = self._grow_children(wide, plan, spare()) if wide else []
            if deep and self.beam_drafter is not None:
                kept, level = self._grow_beams(deep, self.beam_drafter, plan, spare())
                grown, cost = grown + kept, cost.plus(level)
            growing = [(search, task) for search, task in grown if task.round.nodes]
            _count_company(growing)
            actions = [plan.action(task.round, self.beam_drafter is not None) for _, task in growing]
        for search, task in everyone:
            search.drafted_nodes += task.round.drafted
        return replace(cost, seconds=time.perf_counter() - started)

    def outcomes(self, decisions: Sequence[LevelDecision]) -> list[LevelOutcome]:
        """What became of this step's proposals at the levels that the target has decided."""
        if not self._proposed:
            return []
        judged = [
            (decision, proposed)
            for decision in decisions
            if (proposed := self._proposed.get((decision.search.request.request_id, decision.depth))) is not None
        ]
        if not judged:
            return []
        chosen = torch.from_numpy(pad_stack([decision.nodes for decision, _ in judged], -1))
        ranks = find_nodes(chosen, torch.from_numpy(np.stack([proposed.nodes for _, proposed in judged]))).numpy()
        return [
            LevelOutcome(
                decision.depth,
                row[: len(decision.nodes)],
                proposed.scores,
                decision.search.request.rule.verification,
                proposed.levels,
            )
            for (decision, proposed), row in zip(judged, ranks, strict=True)
        ]

    def _begin(self, searches: Sequence[BeamSearch], plan: Plan) -> tuple[Growing, list[Action]]:
        """Those requests whose trees are to grow, and how.

        Requests that stand alike are decided on together: what they share is worth to each what it is worth to all.
        """
        sharing, tokens = len(searches), sum(len(search.columns) - search.columns.scored for search in searches)
        alike: dict[tuple[Standing, int], list[BeamSearch]] = {}
        for number, search in enumerate(searches):
            if search.depth < search.last_depth:
                alike.setdefault((_standing(search), 0 if plan.decides_by_group else number), []).append(search)
        growing: Growing = []
        actions: list[Action] = []
        for group in alike.values():
            widths, depth, nodes, verification = _standing(group[0])
            place = DraftRound(widths, depth, nodes, sharing, len(group), tokens, verification, partial(_mean_uncomputed, group))
            action = plan.action(place, self.beam_drafter is not None)
            if action is not Action.STOP:
                # Each goes on with a round of its own, which begins as that of the group.
                places = (
                    [place] if len(group) == 1 else [replace(place, uncomputed=partial(_mean_uncomputed, [search])) for search in group]
                )
                growing += [(search, self._task(search, own)) for search, own in zip(group, places, strict=True)]
                actions += [action] * len(group)
        return growing, actions

    def _task(self, search: BeamSearch, state: DraftRound) -> DraftTask:
        rule = search.request.rule
        return DraftTask(search.columns, search.beam, search.ancestors, search.eligibility, rule, state, self._nodes.allocate)

    def _grow_children(self, growing: Growing, plan: Plan, spare: int) -> Growing:
        affordable = []
        for search, task in growing:
            depth = task.round.next_depth
            most = min(task.round.nodes * self._trie.max_children[depth - 1], self._trie.level_size(depth))
            if most <= spare:
                spare -= most
                affordable.append((search, task))
        if not affordable:
            return []
        before = [task.round.nodes for _, task in affordable]
        self._trie_drafter.grow([task for _, task in affordable])
        for (search, task), parents in zip(affordable, before, strict=True):
            search.drafted_by.add("children")
            task.round.unranked = True
            plan.learn_children(task.round, parents, task.round.nodes)
        return affordable

    def _grow_beams(self, growing: Growing, drafter: BeamDrafter, plan: Plan, spare: int) -> tuple[Growing, DraftCost]:
        """Asks the draft for every request's next level and keeps what the plan wants of it; returns the requests that have grown."""
        tasks = [task for _, task in growing]
        try:
            proposals = drafter.propose(tasks, plan.proposals)
        except RuntimeError:
            logger.exception("The draft model failed and is dropped; serving goes on without it.")
            drafter.close()
            self.beam_drafter = None
            return [], DraftCost(failed=True)
        kept: Growing = []
        widths = np.zeros(len(growing), np.int64)
        for row, (search, task) in enumerate(growing):
            search.draft_forwards += 1
            scores = proposals.scores[row]
            if plan.learns:
                key = (search.request.request_id, task.round.next_depth)
                self._proposed[key] = _Proposed(proposals.nodes[row], scores, task.round.levels)
            widths[row] = width = min(plan.width(task.round, scores), int(np.count_nonzero(np.isfinite(scores))), max(spare, 0))
            spare -= width
            if width:
                search.drafted_by.add("beam")
                kept.append((search, task))
        drafter.keep(tasks, proposals, widths)
        return kept, DraftCost(tokens=proposals.tokens, forwards=1)


def _standing(search: BeamSearch) -> Standing:
    """What a plan's first decision in a round depends on."""
    return search.widths, search.depth, len(search.beam), search.request.rule.verification


def _count_company(growing: Growing) -> None:
    """Those who have stopped no longer share what drafting costs."""
    alike = Counter(_standing(search) for search, _ in growing)
    for search, task in growing:
        task.round.group_size = alike[_standing(search)]


def _mean_uncomputed(searches: Sequence[BeamSearch]) -> float:
    """How many tokens before a search's beam the draft has not computed, on average."""
    uncomputed = 0
    for search in searches:
        columns, ancestors = search.columns, search.ancestors
        uncomputed += columns.root - int(np.count_nonzero(columns.drafted[: columns.root]))
        uncomputed += len(ancestors) - int(np.count_nonzero(columns.drafted[ancestors]))
    return uncomputed / len(searches)
