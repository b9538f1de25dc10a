"""Models and a plan that follow an acceptance trace, so that random weights behave like the trained models that were recorded.

The forwards are real: host, attention, keys and values, drafting, selection and verification all run as always. Only the contents of
the logits are replaced, after each forward, by the simplest ones that make the engine decide as the trace says. The target is *flat*: every
continuation is equally likely, so its beam is the first prefixes in the catalog's order, at every level. A draft that is flat too agrees
with it, and its best proposals hold the target's beam; where the trace says that m prefixes were missing, the draft *overlooks* the first m
of that level, and everything below is wasted as it was when recorded.

Invariant: with the same script, every machine and every model runs the same rounds; a round that comes out otherwise is an error, never a
silently different measurement.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from benchmarks.systems.trace import ALL, Script, TraceError, TraceRound, TraceRun
from drafting.array_types import BoolArray, FloatArray, IntArray
from drafting.beam.model import TreeBatch, TreeModel
from drafting.beam.rows import Head, Rows
from drafting.device import on_device
from drafting.plans.plan import Action, DraftRound, Plan
from drafting.trie.item_trie import ItemTrie
from drafting.trie.token_set import TokenSet
from verification.result import BeamResult

# What an overlooked continuation loses: more than any sum over levels can win back.
OVERLOOKED = -30.0
# Whole numbers below are exact in bfloat16, so the number of a request is written in two places.
PLACE = 256


@dataclass
class _Actor:
    """One running request and where it stands in its script."""

    script: Script
    rounds: int = 0
    depth: int = 0

    @property
    def round(self) -> TraceRound:
        return self.script[self.rounds]


@dataclass
class Stage:
    """Who follows which script, and what the draft is to overlook in its next forward.

    Attributes:
        actors: the running requests by id, in the order in which the engine runs them.
        asked: the requests in the draft's next forward, in order.
    """

    last_depth: int
    actors: dict[str, _Actor] = field(default_factory=dict)
    asked: list[tuple[_Actor, DraftRound]] = field(default_factory=list)
    _waiting: list[_Actor] = field(default_factory=list)
    _places: list[tuple[DraftRound, _Actor]] = field(default_factory=list)

    def enter(self, request_id: str, script: Script) -> None:
        """A request has been added to the engine."""
        self.actors[request_id] = _Actor(script)

    def clear(self) -> None:
        """Remove all requests, also those with rounds left in their scripts."""
        self.actors.clear()
        self.asked.clear()

    def before_step(self) -> None:
        """The engine is about to draft, for all that are not at their last level, in order."""
        self._waiting = [actor for actor in self.actors.values() if actor.depth < self.last_depth]
        self._places.clear()

    def after_step(self, finished: Sequence[BeamResult]) -> None:
        """Move every script on by a round.

        Raises:
            TraceError: a search has not ended when its script did.
        """
        for actor in self.actors.values():
            actor.depth += actor.round.accepted + 1
            actor.rounds += 1
        expected = {name for name, actor in self.actors.items() if actor.rounds == len(actor.script)}
        if expected != {result.request_id for result in finished}:
            raise TraceError(
                "The searches did not run as the trace says: there were too few key/value slots to draft what it drafted, or the engine's "
                "rules differ from those that were recorded."
            )
        for name in expected:
            del self.actors[name]

    def actor_at(self, state: DraftRound) -> _Actor:
        """Whose round this is: rounds begin in the order of the running requests."""
        for known, actor in self._places:
            if known is state:
                return actor
        if state.levels or not self._waiting or self._waiting[0].depth != state.depth:
            raise TraceError("The engine drafts in another order than the trace can follow.")
        self._places.append((state, self._waiting.pop(0)))
        return self._places[-1][1]


class ScriptedPlan(Plan):
    """Drafts what the trace says was drafted."""

    decides_by_group = False

    def __init__(self, run: TraceRun, stage: Stage) -> None:
        self.name = run.plan
        self._proposals = max(run.proposals, run.k)
        self._stage = stage

    def most_proposals(self, width: int) -> int:
        return self._proposals

    def action(self, state: DraftRound, has_draft: bool) -> Action:
        actor = self._stage.actor_at(state)
        drafted = actor.round.draft
        if state.next_depth > state.last_depth or state.levels >= max(len(drafted), actor.round.accepted):
            return Action.STOP
        # Below all children there is nothing that the draft has rated.
        if state.unranked or (state.levels < len(drafted) and drafted[state.levels] == ALL):
            return Action.CHILDREN
        self._stage.asked.append((actor, state))
        return Action.BEAM

    def width(self, state: DraftRound, scores: FloatArray | None, new: BoolArray | None) -> int:
        told = self._stage.actor_at(state).round
        drafted = told.draft[state.levels] if state.levels < len(told.draft) else 0
        kept = drafted if isinstance(drafted, int) else 0
        if state.levels < told.accepted:
            # Some levels hold thanks to what an earlier round left; here this round has to draft all of them.
            return max(kept, state.widths[state.next_depth])
        if state.levels == told.accepted and scores is not None:
            # Never what is to be overlooked; where scores are not read, there has to be enough else.
            return min(kept, int(np.count_nonzero(scores > scores[0] + OVERLOOKED / 2)))
        return kept


@dataclass(frozen=True)
class _FlatHead:
    """A head that computes what it is asked for, as always, and answers that every token is equally likely."""

    head: Head

    @property
    def vocabulary(self) -> int:
        return self.head.vocabulary

    def logits(self, states: Tensor) -> Tensor:
        return torch.zeros_like(self.head.logits(states))

    def project(self, states: Tensor, tokens: TokenSet) -> Tensor:
        return torch.zeros_like(self.head.project(states, tokens))

    def log_normaliser(self, states: Tensor) -> Tensor:
        return torch.full_like(self.head.log_normaliser(states), math.log(self.vocabulary))


@dataclass(frozen=True)
class _OverlookingHead:
    """A flat head that overlooks tokens; the last columns of its states are the number of the request that a row is of.

    Attributes:
        overlooked: `[requests, vocabulary]` float32, `OVERLOOKED` for the tokens that a request's rows overlook, 0 for others.
    """

    flat: Head
    overlooked: Tensor

    @property
    def vocabulary(self) -> int:
        return self.flat.vocabulary

    def logits(self, states: Tensor) -> Tensor:
        return self.flat.logits(self._own(states)) + self._of_rows(states, self.overlooked)

    def project(self, states: Tensor, tokens: TokenSet) -> Tensor:
        return self.flat.project(self._own(states), tokens) + self._of_rows(states, self.overlooked.index_select(1, tokens.ids))

    def log_normaliser(self, states: Tensor) -> Tensor:
        return self.flat.log_normaliser(self._own(states))

    def _own(self, states: Tensor) -> Tensor:
        return states[:, :-2].contiguous()

    def _of_rows(self, states: Tensor, overlooked: Tensor) -> Tensor:
        return overlooked.index_select(0, states[:, -2].long() * PLACE + states[:, -1].long())


class _ScriptedModel:
    """A model whose forwards are real and whose logits are not."""

    def __init__(self, model: TreeModel) -> None:
        self._model = model
        self.device = model.device
        self.total_slots = model.total_slots
        self.has_encoder = model.has_encoder

    def score(self, batch: TreeBatch) -> Rows:
        rows = self._model.score(batch)
        return Rows(rows.states, _FlatHead(rows.head))

    def close(self) -> None:
        """Leave the model to its maker: an engine closes a draft that fails, and the engine after it drafts with it again."""


class FlatTarget(_ScriptedModel):
    """The target: every continuation is equally likely."""


class OverlookingDraft(_ScriptedModel):
    """The draft: flat but for what its scripts have it overlook."""

    def __init__(self, model: TreeModel, trie: ItemTrie, stage: Stage) -> None:
        super().__init__(model)
        self._stage = stage
        starts, tokens = trie.level_starts, trie.token.cpu().numpy()
        self._level_tokens = [tokens[first:last] for first, last in itertools.pairwise(starts)]

    def score(self, batch: TreeBatch) -> Rows:
        rows, asked = super().score(batch), list(self._stage.asked)
        self._stage.asked.clear()
        tokens = [
            self._level_tokens[state.next_depth][: actor.round.missing if state.levels == actor.round.accepted else 0]
            for actor, state in asked
        ]
        if not any(map(len, tokens)):
            return rows
        overlooked = torch.zeros(len(asked), rows.head.vocabulary, device=self.device)
        requests = np.repeat(np.arange(len(asked)), list(map(len, tokens)))
        overlooked[self._to_device(requests), self._to_device(np.concatenate(tokens))] = OVERLOOKED
        numbers = np.repeat(np.arange(len(asked)), [state.nodes for _, state in asked])
        places = self._to_device(np.stack(np.divmod(numbers, PLACE), 1)).to(rows.states.dtype)
        return Rows(torch.cat([rows.states, places], 1), _OverlookingHead(rows.head, overlooked))

    def _to_device(self, array: IntArray) -> Tensor:
        # Without waiting: what a trained draft proposes is not waited for either.
        return on_device(array, self.device)
