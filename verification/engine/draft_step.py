"""Drafting, the first half of speculative decoding: grows the trees of all running searches level by level, as the plan says.

Invariant: drafting never takes what a running search needs to finish plainly, and never ends a request. A level is not drafted where too
few slots are spare; a draft model that fails is dropped. Where reading waits for the device, nothing is read: a level is as wide as the
plan expects to need, and what was proposed comes to the host with what the target has selected.
"""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from drafting.beam.model import TreeModel
from drafting.beam.rule import Tolerance, Verification
from drafting.beam.tree import TokenTree
from drafting.errors import MODEL_ERRORS
from drafting.plans.drafters import BeamDrafter, DraftNotFinite, Proposals, TrieDrafter
from drafting.plans.given import Given, sources_of
from drafting.plans.plan import Action, DraftRound, LevelOutcome, Plan
from drafting.plans.raised import Raised
from drafting.plans.running_costs import StepTimes
from drafting.plans.task import DraftedSearch, DraftTask
from drafting.trie.arrays import find_in_array
from drafting.trie.item_trie import ItemTrie
from verification.engine.given import GivenStep
from verification.search import NOTHING, BeamSearch
from verification.slots.engine_slots import EngineSlots
from verification.verifiers.bounded import shares_of
from verification.verifiers.verifier import VerifyResult

logger = logging.getLogger(__name__)


class GroupKey(NamedTuple):
    """What a plan's first decision for a search depends on; attributes as of `DraftRound`."""

    widths: tuple[int, ...]
    depth: int
    nodes: int
    verification: Verification
    given: Given
    offered: Given
    tolerance: Tolerance | None


class RankedProposals(NamedTuple):
    """The proposals for a level of one search, until the target has selected.

    Attributes:
        proposals: those of all searches that were drafted for together.
        row: the row of this search in them.
        levels, bonus: as in `LevelOutcome`.
    """

    proposals: Proposals
    row: int
    levels: int
    bonus: float


@dataclass
class DraftCost:
    """The cost of drafting in one step.

    Attributes:
        tokens, forwards: of the draft.
        failed: whether the draft failed.
        learning: seconds that learning from what it proposed has taken.
        children, parents: as in `StepTimes`.
    """

    tokens: int = 0
    forwards: int = 0
    failed: bool = False
    learning: float = 0.0
    children: int = 0
    parents: int = 0


class DraftStep:
    """Drafts for all running searches at once; `drafter` is None if there is no draft model, or it has failed."""

    def __init__(self, tree: TokenTree, trie: ItemTrie, slots: EngineSlots, draft: TreeModel | None) -> None:
        self._trie = trie
        self._slots = slots
        self._trie_drafter = TrieDrafter(tree, trie)
        self._given = GivenStep(tree, trie, slots)
        self.drafter = BeamDrafter(tree, trie, draft) if draft is not None else None
        self.unread: list[Proposals] = []
        # By search and depth of the level.
        self._proposed: dict[tuple[DraftedSearch, int], RankedProposals] = {}

    def plan(self, searches: Sequence[BeamSearch], plan: Plan, tokens: int) -> list[DraftTask]:
        """Begin a round: which trees grow, and how, decided for all searches of a `GroupKey` together; the forward has `tokens` without."""
        self._proposed.clear()
        self.unread.clear()
        for search in searches:
            search.proposed.clear()
        drafted, sharing = [search for search in searches if search.drafts], len(searches)
        if not plan.drafts or not drafted:
            return []
        tokens += self._given.give(drafted, plan, tokens, sharing)
        groups = defaultdict(list)
        for number, search in enumerate(drafted):
            if search.depth < search.last_depth:
                groups[_group_key(search), 0 if plan.decides_by_group else number].append(search)
        tasks = []
        for (key, _), group in groups.items():
            uncomputed = partial(_mean_uncomputed, group)
            first = DraftRound(**key._asdict(), sharing=sharing, group_size=len(group), tokens=tokens, uncomputed=uncomputed)
            action = plan.action(first, self.drafter is not None)
            if action is Action.STOP:
                given_up = plan.gives_up(first)
                for search in group:
                    search.drafts = not given_up
            else:
                # Each goes on with a round of its own.
                rounds = [first] if len(group) == 1 else [replace(first, uncomputed=partial(_mean_uncomputed, [one])) for one in group]
                tasks += [DraftTask(search, own, action, self._slots.nodes.allocate) for search, own in zip(group, rounds, strict=True)]
        return tasks

    def draft(self, tasks: list[DraftTask], plan: Plan) -> DraftCost:
        """Grow the trees, level by level."""
        cost = DraftCost()
        while tasks:
            grown = self._draft_children([task for task in tasks if task.action is Action.CHILDREN], plan, cost)
            grown += self._draft_beams([task for task in tasks if task.action is Action.BEAM], plan, cost)
            tasks = [task for task in grown if task.round.nodes]
            # Those that have stopped no longer share the cost of drafting.
            sizes = Counter(_group_key(task.search) for task in tasks)
            for task in tasks:
                task.round.group_size = sizes[_group_key(task.search)]
                is_known = task.is_read or task.round.next_depth > task.round.last_depth
                task.round.most_children = None if is_known else task.most_children(self._trie)
                task.action = plan.action(task.round, self.drafter is not None)
        return cost

    def leave(self, search: BeamSearch) -> None:
        """Keep what a search that has ended leaves for the next one of its user."""
        self._given.leave(search)

    def times(self, tokens: int, levels: int, seconds: float, draft_seconds: float, cost: DraftCost) -> StepTimes:
        """The parts of a step of so many seconds, in which the target has computed `tokens`, and `levels` of drafts were verified."""
        last = self._given.take_times()
        target_seconds = seconds - draft_seconds - last.after - cost.learning
        drafting_seconds = draft_seconds - last.before + cost.learning
        times = StepTimes(tokens, target_seconds, cost.forwards, cost.tokens, drafting_seconds, levels, last.searches, last.seconds)
        if cost.forwards or not cost.children:
            # What the draft takes beside its forwards and what children take can't be told apart where both are drafted.
            return times
        return replace(times, draft_seconds=0.0, children=cost.children, parents=cost.parents, children_seconds=drafting_seconds)

    def learn(self, results: Sequence[VerifyResult], plan: Plan, cost: DraftCost) -> None:
        """Tell the plan what the target selected of this step's proposals, all of which have been read, and of what was given."""
        self._given.observe(results, plan)
        started = time.perf_counter()
        self._learn_proposed(results, plan, cost)
        cost.learning = time.perf_counter() - started

    def _learn_proposed(self, results: Sequence[VerifyResult], plan: Plan, cost: DraftCost) -> None:
        if self.drafter is None:
            # There is none, or a later level has failed: those before it are not worth learning from.
            return
        try:
            for proposals in self.unread:
                proposals.check()
        except DraftNotFinite:
            return self._drop(plan, cost)
        drafted = [result for result in results if not result.finished and (result.search, result.depth) in self._proposed]
        outcomes, sampled = [], plan.sample(len(drafted))
        for number, result in enumerate(drafted):
            if number in sampled or result.search.tolerance is not None:
                outcome = self._outcome(result)
                if number in sampled:
                    outcomes.append(outcome)
                if result.search.tolerance is not None:
                    result.search.untaught.append((outcome, result.nodes, result.cum_log_probs))
        for result in results:
            if result.finished:
                outcomes += self._learn_tolerated(result)
        if outcomes:
            plan.learn(outcomes)

    def _outcome(self, result: VerifyResult) -> LevelOutcome:
        """The target's selection among the proposals for a level."""
        proposals, row, levels, bonus = self._proposed[result.search, result.depth]
        assert proposals.nodes is not None
        assert proposals.scores is not None
        proposed, given = proposals.nodes[row], result.search.offered
        covered, held = ({}, {}) if given is None else (given.covers(result.nodes), given.covers(proposed))
        return LevelOutcome(
            depth=result.depth,
            ranks=find_in_array(result.nodes, proposed),
            scores=proposals.scores[row],
            levels=levels,
            verification=result.search.rule.verification,
            covered=covered,
            held=held,
            bonus=bonus,
        )

    def _learn_tolerated(self, result: VerifyResult) -> list[LevelOutcome]:
        """The outcomes of all levels of a search that ends, with its tolerance, whose shares are known only with the list."""
        tolerance, outcomes = result.search.tolerance, []
        if tolerance is None or not result.finite or not len(result.nodes):
            return []
        for outcome, nodes, log_probs in result.search.untaught:
            # From the one where the round began to the last one that is drafted.
            levels = outcome.levels + self._trie.depth - outcome.depth
            shares = shares_of(self._trie, tolerance, nodes, log_probs, outcome.depth, result.cum_log_probs, levels)
            outcomes.append(replace(outcome, tolerance=tolerance, shares=shares))
        return outcomes

    def _draft_children(self, tasks: list[DraftTask], plan: Plan, cost: DraftCost) -> list[DraftTask]:
        """Add all children where slots are spare; return the tasks that have grown."""
        if not tasks:
            return []
        spare, affordable = self._slots.spare_nodes, []
        for task in tasks:
            most = task.most_children(self._trie)
            if most <= spare:
                spare -= most
                affordable.append(task)
        if affordable:
            parents = [(task.round.nodes, task.is_read) for task in affordable]
            self.unread += self._trie_drafter.draft(affordable)
            for task, (count, is_read) in zip(affordable, parents, strict=True):
                task.search.drafted_by.add("children")
                task.round.unranked = True
                if is_read:
                    # Otherwise these are as many as there may be, not as there are.
                    plan.learn_children(task.round, count, task.round.nodes)
            cost.children += 1
            cost.parents += len(affordable)
        return affordable

    def _draft_beams(self, tasks: list[DraftTask], plan: Plan, cost: DraftCost) -> list[DraftTask]:
        """Add what the plan wants of the draft's proposals; return the tasks that have grown."""
        if not tasks or self.drafter is None:
            return []
        wanted = [plan.most_proposals(task.round.widths[task.round.next_depth]) for task in tasks]
        bonuses = [plan.bonus(task.round) for task in tasks]
        raised = self._raised(tasks, bonuses)
        try:
            proposals = self.drafter.propose(tasks, wanted, raised)
        except MODEL_ERRORS:
            self._drop(plan, cost)
            return []
        if proposals.nodes is None:
            self.unread.append(proposals)
        cost.tokens += proposals.tokens
        cost.forwards += 1
        spare = self._slots.spare_nodes
        widths = np.zeros(len(tasks), np.int64)
        for row, task in enumerate(tasks):
            task.search.draft_forwards += 1
            if plan.learns:
                self._proposed[task.search, task.round.next_depth] = RankedProposals(proposals, row, task.round.levels, bonuses[row])
            scores = None if proposals.scores is None else proposals.scores[row]
            most = min(task.most_nodes(self._trie), wanted[row]) if scores is None else int(np.count_nonzero(np.isfinite(scores)))
            new = task.new(proposals.nodes[row]) if plan.learns and proposals.nodes is not None else None
            widths[row] = width = min(plan.width(task.round, scores, new), most, max(spare, 0))
            spare -= width
            if width:
                task.search.drafted_by.add("beam")
        self.drafter.accept(tasks, proposals, widths)
        return [task for task, width in zip(tasks, widths, strict=True) if width]

    def _raised(self, tasks: Sequence[DraftTask], bonuses: Sequence[float]) -> Raised:
        """Prefixes of the tasks' next levels that the target kept when it was last asked for their users."""
        nodes = []
        for task, bonus in zip(tasks, bonuses, strict=True):
            last = NOTHING if task.search.offered is None or not bonus else task.search.offered.nodes.get(Given.LAST, NOTHING)
            depth = task.round.next_depth
            start, end = np.searchsorted(last, self._trie.level_starts[depth : depth + 2])
            nodes.append(last[start:end])
        return Raised(nodes, np.array(bonuses, np.float32))

    def _drop(self, plan: Plan, cost: DraftCost) -> None:
        """Go on without the draft model, while its error is handled."""
        logger.exception("The draft model failed and is dropped; serving goes on without it.")
        assert self.drafter is not None
        self.drafter.close()
        self.drafter, cost.failed = None, True
        plan.lose_draft()


def _group_key(search: DraftedSearch) -> GroupKey:
    offered, verification = sources_of(search.offered), search.rule.verification
    return GroupKey(search.widths, search.depth, len(search.beam), verification, search.given, offered, search.tolerance)


def _mean_uncomputed(searches: Sequence[BeamSearch]) -> float:
    """Tokens that the draft computes for each on average; those that several share are computed once."""
    return len(np.unique(np.concatenate([search.draft_uncomputed for search in searches]))) / len(searches)
