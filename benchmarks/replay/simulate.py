"""Replays one recorded search under a plan: which nodes are drafted, what is accepted, and which forwards that takes.

Invariant: a replay makes the same forwards, of the same tokens, as the engine makes for the same request, plan and models. It shares with
the engine the plans and the arithmetic of tries, and nothing else, so each can be checked against the other. A replay asks the plan about
every round. The engine also asks whether a search is to be left out, given up, or begun without its last list; so under `auto` the forwards
are the same only while drafting pays.
"""

from dataclasses import dataclass, field

import numpy as np

from benchmarks.replay.recording import Recording
from drafting.array_types import FloatArray, IntArray
from drafting.plans.given import Given, GivenOutcome, GivenPrefixes, outcomes_of, sources_of
from drafting.plans.plan import Action, DraftRound, LevelOutcome, Plan
from drafting.trie.arrays import children_of, find_in_array


@dataclass
class Replayed:
    """The forwards of one search.

    Attributes:
        target: tokens of each forward of the target.
        draft: tokens of each forward of the draft.
        children: how often all children of a level were drafted.
        accepted: levels accepted from drafts.
        drafted: nodes that were drafted.
        used: how many of them the target's beam came to hold.
    """

    target: list[int] = field(default_factory=list)
    draft: list[int] = field(default_factory=list)
    children: int = 0
    accepted: int = 0
    drafted: int = 0
    used: int = 0


@dataclass
class _Search:
    """The state of a search: the sets of trie nodes that each model has computed, and where the target's beam stands."""

    user: int
    k: int
    widths: tuple[int, ...]
    uncomputed: int
    depth: int = 0
    beam: IntArray = field(default_factory=lambda: np.zeros(1, np.int64))
    scores: FloatArray = field(default_factory=lambda: np.zeros(1, np.float32))
    above: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    offered: GivenPrefixes | None = None
    given: Given = Given.NONE
    covered: dict[Given, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Told:
    """The draft's proposals for a level: trie nodes and scores with bonus `[proposals]`, the levels before it in the round, the bonus."""

    nodes: IntArray
    scores: FloatArray
    levels: int
    bonus: float


class Replay:
    """Replays searches of one recording."""

    def __init__(self, recording: Recording, sharing: int = 1) -> None:
        """`sharing` is how many requests plans are told share a forward, all of which are taken to be in the same state."""
        self._recording = recording
        self._sharing = sharing
        inner = recording.level_starts[-2]
        # Whether each node is in the target's memory, and in the draft's, for the search at hand.
        self._scored = np.zeros(inner, bool)
        self._drafted = np.zeros(inner, bool)

    def search(self, user: int, k: int, plan: Plan, has_draft: bool = True) -> Replayed:
        """Replay one user's search for k items."""
        recording, done = self._recording, Replayed()
        sizes = np.diff(recording.level_starts)
        widths = tuple(int(min(k, size)) for size in sizes)
        search = _Search(user, k, widths, int(recording.prompt_lengths[user]))
        self._scored[:] = False
        self._drafted[:] = False
        last_depth = len(widths) - 2
        prompt = int(recording.prompt_lengths[user])
        waiting = self._give(search, prompt, plan, done)
        while True:
            grown, proposed, draft_forwards = self._grow(search, prompt + waiting, plan, has_draft, done)
            done.draft += draft_forwards
            done.drafted += grown
            done.target.append(prompt + waiting + grown)
            prompt, outcomes, told_given = 0, [], list[GivenOutcome]()
            while search.depth < last_depth:
                missing = self._descend(search, done)
                if search.offered is not None:
                    told_given += outcomes_of(search.offered, search.beam, search.depth, search.covered)
                if (told := proposed.get(search.depth)) is not None:
                    outcomes.append(_outcome(search, told))
                if missing:
                    break
            else:
                missing = 0
            if plan.learns:
                plan.learn_given(told_given)
                plan.learn(outcomes)
            if not missing:
                return done
            waiting = missing

    def _give(self, search: _Search, tokens: int, plan: Plan, done: Replayed) -> int:
        """Put what the plan takes of given drafts into the tree; return the number of nodes."""
        search.offered = self._recording.given(search.user, search.k, plan.items, plan.uses_last)
        if search.offered is None or len(search.widths) <= 2:
            return 0
        state = DraftRound(search.widths, 0, 1, self._sharing, 1, self._sharing * tokens, offered=sources_of(search.offered))
        search.given = plan.given(state, search.offered.sizes)
        nodes = search.offered.nodes.get(search.given, np.empty(0, np.int64))
        self._scored[nodes] = True
        done.drafted += len(nodes)
        return len(nodes)

    def _descend(self, search: _Search, done: Replayed) -> int:
        """Take the target's beam one level down; return how many of its nodes had not been drafted."""
        beams = self._recording.beams[search.k]
        if search.depth:
            search.above = np.concatenate([search.above, search.beam])
        nodes = beams.nodes[search.user, search.depth]
        search.scores = beams.log_probs[search.user, search.depth][nodes >= 0]
        search.beam = nodes[nodes >= 0]
        search.depth += 1
        missing = int(np.count_nonzero(~self._scored[search.beam]))
        self._scored[search.beam] = True
        done.used += len(search.beam) - missing
        done.accepted += not missing
        return missing

    def _grow(self, search: _Search, tokens: int, plan: Plan, has_draft: bool, done: Replayed) -> tuple[int, dict[int, _Told], list[int]]:
        """Draft one round on top of `tokens`; return the nodes added, the draft's proposals by depth, and its forwards' tokens."""
        uncomputed = search.uncomputed - (search.depth == 0 < search.uncomputed) + int(np.count_nonzero(~self._drafted[search.above]))
        proposed, forwards = dict[int, _Told](), list[int]()
        sharing = self._sharing
        state = DraftRound(
            search.widths,
            search.depth,
            len(search.beam),
            sharing,
            sharing,
            sharing * tokens,
            uncomputed=lambda: 0 if forwards else uncomputed,
            given=search.given,
            offered=sources_of(search.offered),
        )
        frontier, scores = search.beam, search.scores
        if search.depth >= state.last_depth:
            return 0, proposed, forwards
        while (action := plan.action(state, has_draft)) is not Action.STOP:
            nodes, rows = children_of(self._recording.first_child, frontier)
            if action is Action.BEAM:
                past = search.above[~self._drafted[search.above]]
                forwards.append(uncomputed + len(frontier) if not forwards else len(past) + len(frontier))
                search.uncomputed = 0
                self._drafted[past] = self._drafted[frontier] = True
                totals = scores[rows] + self._recording.draft[search.user, nodes]
                most = plan.most_proposals(search.widths[state.next_depth])
                best = np.argsort(-totals, kind="stable")[:most]
                nodes, totals = nodes[best], totals[best]
                ranking, bonus = totals, plan.bonus(state)
                if bonus and search.offered is not None:
                    ranking = totals + np.float32(bonus) * search.offered.covers(nodes)[Given.LAST]
                    order = np.argsort(-ranking, kind="stable")
                    nodes, totals, ranking = nodes[order], totals[order], ranking[order]
                padded = np.full(most, -np.inf, np.float32)
                padded[: len(totals)] = ranking
                proposed[state.next_depth] = _Told(nodes, padded, state.levels, bonus)
                new = np.zeros(most, bool)
                new[: len(nodes)] = ~self._scored[nodes]
                kept = min(plan.width(state, padded, new), len(nodes))
                if not kept:
                    break
                nodes, scores = nodes[:kept], totals[:kept]
            state.drafted += int(np.count_nonzero(~self._scored[nodes]))
            self._scored[nodes] = True
            state.levels += 1
            state.nodes = len(nodes)
            if action is Action.CHILDREN:
                done.children += 1
                state.unranked = True
                plan.learn_children(state, len(frontier), len(nodes))
            frontier = nodes
        return state.drafted, proposed, forwards


def _outcome(search: _Search, told: _Told) -> LevelOutcome:
    ranks = find_in_array(search.beam, told.nodes)
    if search.offered is None:
        return LevelOutcome(search.depth, ranks, told.scores, told.levels)
    nodes = np.full(len(told.scores), -1)
    nodes[: len(told.nodes)] = told.nodes
    covered, held = search.offered.covers(search.beam), search.offered.covers(nodes)
    return LevelOutcome(search.depth, ranks, told.scores, told.levels, covered=covered, held=held, bonus=told.bonus)
