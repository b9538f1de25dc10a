"""The engine: speculative decoding with continuous batching, constrained to a catalog. One `step()` advances all running requests.

Invariant: requests share forwards and nothing else. Attention separates them and the same `expand_beam` selects for all, so a list depends
neither on its batch nor on what was drafted (but for a host's rounding: `verification.hosts.exact`). Every end of a request frees all its
slots.
"""

import time
from collections.abc import Iterable, Sequence

import torch

from drafting.array_types import IntArray
from drafting.beam.model import TreeModel
from drafting.beam.rule import MAX_BEAM_WIDTH, Normalisation
from drafting.beam.tree import TokenTree
from drafting.plans.fixed_plan import FixedPlan
from drafting.plans.plan import Plan
from drafting.trie.item_trie import ItemTrie
from verification.engine.blend import BlendStep
from verification.engine.candidates import CandidateTree
from verification.engine.draft_step import DraftStep
from verification.engine.explain import ExplainStep
from verification.engine.finish import FinishStep, FurtherRound
from verification.engine.forward_step import ForwardStep
from verification.engine.open import OpenStep
from verification.engine.reserved import nodes_needed, split_request
from verification.engine.running import RunningSearches
from verification.engine.score import ScoreStep
from verification.engine.think import ThinkStep
from verification.lengths import width_refusal
from verification.request import BeamRequest
from verification.result import BeamResult, StepReport
from verification.search import BeamSearch
from verification.slots.engine_slots import EngineSlots, check_capacity
from verification.slots.pool import CachedPrefix, OutOfSlots
from verification.verifiers.level import ContinuationTable
from verification.verifiers.verifier import Verifier, VerifyResult


class SpeculativeBeamEngine:
    """Runs beam searches of many requests on one target model, with or without a draft.

    Attributes:
        target: the model whose lists these are.
        trie: trie of the catalog.
        plan: draft plan.
        slots: the key/value slots, which all engines on the same models share.
        normalise: what log-probabilities of target and draft are normalised over, where a request does not say it.
        max_beam_width: the widest beam of a request, for which there are slots; wider ones are refused.
    """

    def __init__(
        self,
        target: TreeModel,
        trie: ItemTrie,
        draft: TreeModel | None = None,
        plan: Plan | None = None,
        shared_tokens: IntArray | None = None,
        slots: EngineSlots | None = None,
        normalise: Normalisation = Normalisation.VOCABULARY,
        max_beam_width: int = MAX_BEAM_WIDTH,
        known_tokens: int | None = None,
    ) -> None:
        """`trie` and `draft` must live on the target's device, and the draft must have as many slots; raises as `use_plan`.

        Args:
            shared_tokens: tokens at the beginning of every prompt.
            slots: those of the engine that this one succeeds; None for new ones.
            known_tokens: of so many token ids, from 0 on, target and draft have embeddings; None if the target has logits of these alone.
        """
        self.target, self.trie = target, trie
        self.normalise, self.max_beam_width, self._known_tokens = normalise, max_beam_width, known_tokens
        self.slots = slots = EngineSlots.of(target, trie, max_beam_width, shared_tokens) if slots is None else slots
        self._tree = TokenTree(target.total_slots, trie.depth, target.device)
        self._table = ContinuationTable(trie, slots.nodes, target.device)
        self._drafting = DraftStep(self._tree, trie, slots, draft)
        self._verifier = Verifier(self._tree, trie, self._table, slots)
        self._running = RunningSearches()
        self._thinking = ThinkStep(self._tree, slots, known_tokens)
        candidates = CandidateTree(self._tree, trie, self._table, slots)
        self._blending, self._scoring = BlendStep(candidates), ScoreStep(slots, candidates)
        self._explaining = ExplainStep(trie, self._table, target.device)
        self._opening = OpenStep(self._tree, trie, slots, self._blending, self._explaining, normalise)
        self._forwards = ForwardStep(target, self._tree, trie, self._table, self._thinking)
        self._finishing = FinishStep(trie, self._blending, self._explaining)
        self.use_plan(plan or FixedPlan.parse("none"))

    def successor(self, trie: ItemTrie, plan: Plan) -> "SpeculativeBeamEngine":
        """An engine for another catalog on the same models and slots; raises CatalogTooLarge."""
        check_capacity(trie, self.trie, self.slots.nodes.total, self.max_beam_width)
        engine = SpeculativeBeamEngine(
            self.target,
            trie,
            self.draft,
            slots=self.slots,
            normalise=self.normalise,
            max_beam_width=self.max_beam_width,
            known_tokens=self._known_tokens,
        )
        engine.plan = plan  # A plan whose draft has failed stays, and does without.
        return engine

    def use_plan(self, plan: Plan) -> None:
        """Draft by another plan; raise ValueError if it needs a draft model and there is none."""
        if plan.needs_draft and not self.has_draft:
            raise ValueError(f"The plan {plan.name} needs a draft model.")
        self.plan = plan

    @torch.inference_mode()
    def step(self, scored_nodes: int | None = None, most_nodes: int | None = None) -> StepReport:
        """Advance every running request, if there is one.

        Args:
            scored_nodes: about how many prefixes to compute for requests for scores; None for as many as there is room for.
            most_nodes: the most tree nodes of one request to compute; a wider level goes on in the next step, without drafts.

        Raises:
            EngineSpoilt: an earlier step, of this engine or another on the same models, was interrupted.
        """
        if not self.running:
            return StepReport((), 0, 0.0)
        with self.slots:
            return self._advance(self._running.unfinished(), scored_nodes, most_nodes)

    def _advance(self, searches: Sequence[BeamSearch], scored_nodes: int | None, most_nodes: int | None) -> StepReport:
        started = time.perf_counter()
        pieces = self._running.pieces(most_nodes)
        whole = [search for search in searches if search not in pieces]
        tasks = self._drafting.plan(whole, self.plan, self.next_tokens(most_nodes))
        cost = self._drafting.draft(tasks, self.plan)
        drafted = time.perf_counter()
        scoring = self._scoring.grow(scored_nodes)
        tokens = self._forwards.run([*searches, *scoring], pieces)
        computed = time.perf_counter()
        results = self._verifier.verify(whole, self._drafting.drafter, self._drafting.unread)
        self._explaining.observe(results)
        self._drafting.learn(results, self.plan, cost)
        scores, spoilt_scores = self._scoring.take()
        spoilt = dict.fromkeys([*spoilt_scores, *(result.search.request.request_id for result in results if not result.finite)])
        finished = self._finish([result for result in results if result.search.request.request_id not in spoilt], scores)
        thought_tokens = len(self._thinking)
        failed = self._fail(spoilt) + self._thinking.advance(self._open)
        seconds, draft_seconds = time.perf_counter() - started, drafted - started if self.plan.drafts else 0.0
        self.plan.learn_times(self._drafting.times(tokens, max(self._verifier.levels - 1, 0), seconds, draft_seconds, cost))
        return StepReport(
            finished=finished,
            tokens=tokens,
            seconds=seconds,
            target_seconds=computed - drafted,
            draft_tokens=cost.tokens,
            draft_forwards=cost.forwards,
            draft_seconds=draft_seconds,
            draft_failed=cost.failed,
            accepted=sum(result.accepted for result in results),
            failed=failed,
            thought_tokens=thought_tokens,
            scored_nodes=self._scoring.nodes,
        )

    def _fail(self, request_ids: Iterable[str]) -> tuple[str, ...]:
        """End the requests for which the target's logits were not finite, and keep nothing that they have computed.

        One with drafts begins again without: the drafts may be what has spoilt its forward.
        """
        failed = []
        for request_id in request_ids:
            searches = self._end(request_id, keep=False)
            if any(search.drafted_nodes for search in searches) and self.has_room(searches[0].request):
                self.add(searches[0].request, drafts=False)
            else:
                failed.append(request_id)
        return tuple(failed)

    def _finish(self, results: Sequence[VerifyResult], scores: Sequence[BeamResult]) -> tuple[BeamResult, ...]:
        """End the requests whose searches have come to leaves, but for those that go on in a further round, and those that are scored."""
        finished = list(scores)
        for found in self._finishing.lists(self._running.finish(result for result in results if result.finished)):
            if isinstance(found, FurtherRound):
                self._opening.restart(found.search, found.request)
                self._running.resume(found.search)
            else:
                self._drafting.leave(found.search)
                finished.append(found.result(self.plan.name))
        for result in finished:
            self._end(result.request_id, keep=True)
        return tuple(finished)

    def add(self, request: BeamRequest, drafts: bool = True) -> None:
        """Start a request, with drafts as the plan says or without; the next step computes its prompt.

        Raises:
            OutOfSlots: too few slots are free; ask `has_room` first.
            EngineSpoilt: as `step`.
            ValueError: its id is running, or it names items that the catalog has not, or it is to think and the target has an encoder.
        """
        if any(request.request_id in each for each in (self._running, self._thinking, self._scoring)):
            raise ValueError(f"A request with id {request.request_id!r} is already running.")
        request.check_catalog(len(self.trie.items), self.trie.depth)
        if not self.has_room(request):
            raise OutOfSlots(f"Too few key/value slots are free for request {request.request_id!r}.")
        if request.think is not None and self.target.has_encoder:
            raise ValueError("A model with an encoder can't think before a list: its text would be the decoder's, as the list is.")
        with self.slots:
            if request.think is None:
                self._open(request, drafts=drafts)
            else:
                self._thinking.begin(request, nodes_needed(request, self.trie))

    def _open(self, request: BeamRequest, known: CachedPrefix | None = None, drafts: bool = True) -> None:
        """Begin the searches of a request, whose prompt is `known` from its thinking or else looked up; or its scores."""
        searches = self._opening.open(request, self.plan if drafts else None, known)
        if request.scored is None:
            self._running.add(searches)
        else:
            self._scoring.begin(searches[0], request.scored)

    def cancel(self, request_id: str) -> bool:
        """End a request without a result and free its slots; false if no such request runs."""
        return self._thinking.end(request_id, keep=True) or bool(self._end(request_id, keep=True))

    def _end(self, request_id: str, keep: bool) -> list[BeamSearch]:
        searches = self._running.remove(request_id) or self._scoring.remove(request_id)
        self._opening.close(searches, keep)
        return searches

    @property
    def running(self) -> int:
        """Requests that the next step will advance."""
        return len(self._running) + len(self._thinking) + len(self._scoring)

    @property
    def total_slots(self) -> int:
        """Key/value slots that the target has."""
        return self.slots.total

    @property
    def used_slots(self) -> int:
        """Key/value slots that running requests own."""
        return self.slots.used

    @property
    def cached_slots(self) -> int:
        """Key/value slots in the prefix cache, which requests may take."""
        return self.slots.prefix_cache.held_slots

    def needs(self, request: BeamRequest) -> tuple[int, int]:
        """The most slots that a request takes: of prompts, with the root and without what all requests share, and of nodes."""
        return request.most_tokens - self.slots.prefix_cache.known_to_all(request.prompt), nodes_needed(request, self.trie)

    def has_room(self, request: BeamRequest, ended: Sequence[BeamRequest] = ()) -> bool:
        """True if enough slots are free for the request, or would be if `ended`, which run, had ended and shared none."""
        return self.slots.has_room(self.needs(request), map(self.needs, ended))

    def fits(self, request: BeamRequest) -> bool:
        """True if the request could run on an idle engine."""
        return self.slots.fits(*self.needs(request))

    def refusal(self, request: BeamRequest) -> str | None:
        """Reason why the engine or its plan can't serve the request; None if they can."""
        return width_refusal(request.beam_width, self.max_beam_width) or self.plan.refusal(request.beam_width)

    def tokens_needed(self, request: BeamRequest) -> int:
        """Tokens that a request adds to its first forward, without drafts and candidates to score."""
        prompt = len(request.prompt) - self.slots.prefix_cache.known(request.cache_key, request.prompt)
        return prompt + len(split_request(request)) - 1 + request.blended_nodes

    def next_tokens(self, most_nodes: int | None = None) -> int:
        """Tokens in the next forward, without drafts and candidates to score, if it computes at most so many nodes of a request."""
        return self._running.uncomputed(most_nodes) + self._thinking.uncomputed + self._scoring.uncomputed

    @property
    def draft(self) -> TreeModel | None:
        """The draft model, unless it has failed."""
        return None if self._drafting.drafter is None else self._drafting.drafter.model

    @property
    def has_draft(self) -> bool:
        """True if there is a draft model at work."""
        return self.draft is not None

    def drop_draft(self) -> None:
        """Go on without the draft model, which is closed already."""
        self._drafting.drafter = None
        self.plan.lose_draft()

    def forget(self, cache_key: str) -> None:
        """Forget one key's prompt and what was last found for it; its requests that run leave nothing behind."""
        self.slots.forget(cache_key)

    def forget_histories(self) -> None:
        """Empty the prefix cache, and forget what was found for users; requests that run leave nothing behind."""
        self.slots.forget_all()

    def close(self) -> None:
        """Free the models; the engine cannot step afterwards."""
        self.target.close()
        if self.draft is not None:
            self.draft.close()
