"""The engine: one `step()` drafts for every running request, scores all their new tokens in one forward of the target, and moves each beam
as many levels down as the scored nodes allow.

Invariant: requests share forwards and nothing else. Rows of different beam width, depth, plan and prompt length lie side by side in one
batch, the mask keeps them apart, and the same `expand_beam` selects for all of them, so a request's list depends neither on its company nor
on what was drafted. Whatever ends a request gives all its slots back.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from drafting.beam.sequence import ForwardPart, SequenceState, forward_batch
from drafting.beam.tree import TokenTree, TreeModel
from drafting.device import concat, on_device
from drafting.plans.plan import FixedPlan, Plan, StepTimes
from drafting.trie.eligibility import BatchEligibility, Eligibility
from drafting.trie.item_trie import ItemTrie
from drafting.trie.node_mask import MaskBank
from verification.engine.draft_step import DraftStep
from verification.engine.reserved import ReservedSearches, nodes_needed, reserved_request
from verification.request import BeamRequest, BeamResult, RankedItem, StepReport
from verification.search import BeamSearch, beam_widths
from verification.slots.pool import OutOfSlots
from verification.slots.prefix_cache import CachedPrefix
from verification.slots.shared import EngineSlots
from verification.verifiers.continuation_table import CatalogTooLarge, ContinuationTable, node_capacity, table_fits
from verification.verifiers.verifier import FinishedSearch, Verifier

IntArray = npt.NDArray[np.int64]


class SpeculativeBeamEngine:
    """Runs beam searches of many requests on one target model, with or without a draft.

    Attributes:
        target: the model whose lists these are.
        trie: of the catalog.
        plan: what is drafted.
    """

    def __init__(
        self,
        target: TreeModel,
        trie: ItemTrie,
        draft: TreeModel | None = None,
        plan: Plan | None = None,
        shared_tokens: IntArray | None = None,
        slots: EngineSlots | None = None,
    ) -> None:
        """`trie` and `draft` must live on the target's device, and the draft must have as many slots as the target.

        Args:
            shared_tokens: what every prompt begins with.
            slots: shared with the engines of other catalogs on the same models; slots of its own by default.

        Raises:
            ValueError: the plan needs a draft model and there is none.
        """
        self.target = target
        self.trie = trie
        self._tree = TokenTree(target.total_slots, trie.depth, target.device)
        if slots is None:
            slots = EngineSlots(target.total_slots, min(node_capacity(trie), target.total_slots // 2), shared_tokens)
        self._slots = slots
        self._nodes, self._prompts, self._prefix_cache = slots.nodes, slots.prompts, slots.prefix_cache
        self._table = ContinuationTable(trie, self._nodes.total, target.device)
        self._drafting = DraftStep(self._tree, trie, self._nodes, draft)
        self._verifier = Verifier(self._tree, trie, self._table, self._nodes)
        self._masks = MaskBank(trie.arrays, target.device)
        self._running: dict[str, BeamSearch] = {}
        self._reserved = ReservedSearches()
        self.use_plan(plan or FixedPlan.parse("none"))

    def successor(self, trie: ItemTrie, plan: Plan) -> "SpeculativeBeamEngine":
        """An engine for another catalog on the same models and slots, beside this one.

        Raises:
            CatalogTooLarge: its continuations need more memory than is set aside while a model serves.
        """
        if not table_fits(trie, self._nodes.total):
            raise CatalogTooLarge(
                "The catalog needs more memory for continuations than this engine can still give: start a server with it."
            )
        return SpeculativeBeamEngine(self.target, trie, self.draft, plan, slots=self._slots)

    def use_plan(self, plan: Plan) -> None:
        """Drafts by another plan from the next step on.

        Raises:
            ValueError: the plan needs a draft model and there is none.
        """
        if plan.needs_draft and not self.has_draft:
            raise ValueError(f"The plan {plan.name} needs a draft model.")
        self.plan = plan

    @property
    def draft(self) -> TreeModel | None:
        """The draft model at work; None if none was given, or it has failed."""
        return self._drafting.beam_drafter.model if self._drafting.beam_drafter is not None else None

    @property
    def has_draft(self) -> bool:
        """Whether a draft model is at work."""
        return self._drafting.beam_drafter is not None

    @property
    def total_slots(self) -> int:
        """Key/value slots that the target has."""
        return self._prompts.total + self._nodes.total

    @property
    def used_slots(self) -> int:
        """Key/value slots that running requests own."""
        return self._prompts.used + self._nodes.used - self._prefix_cache.slots

    @property
    def running(self) -> int:
        """Requests that the next step will advance."""
        return len(self._running)

    @property
    def cached_slots(self) -> int:
        """Key/value slots that hold prompts of earlier requests; they are given up as soon as a request needs them."""
        return self._prefix_cache.slots

    def has_room(self, request: BeamRequest) -> bool:
        """Whether enough slots are free to run the request to its end now."""
        room = self._prompts.free + self._prefix_cache.evictable
        return len(request.prompt) - 1 <= room and nodes_needed(request, self.trie) <= self._slots.spare_nodes

    def fits(self, request: BeamRequest) -> bool:
        """Whether the request could run on an idle engine at all."""
        room = self._prompts.total - self._prefix_cache.pinned
        return len(request.prompt) - 1 <= room and nodes_needed(request, self.trie) <= self._nodes.total

    def refusal(self, request: BeamRequest) -> str | None:
        """Why the plan can't serve the request, as a sentence; None if it can."""
        return self.plan.refusal(request.beam_width)

    def tokens_needed(self, request: BeamRequest) -> int:
        """Tokens that a request adds to its first forward, drafts aside."""
        return len(request.prompt) - self._prefix_cache.known(request.cache_key, request.prompt) + (request.reserved is not None)

    def next_tokens(self) -> int:
        """Tokens that the running requests put into the next forward, drafts aside."""
        return sum(len(search.columns) - search.columns.scored for search in self._reserved.unfinished(self._running.values()))

    def add(self, request: BeamRequest) -> None:
        """Starts a request; the next step computes its prompt.

        One with reserved places is two searches to the engine, but one request to everybody else.

        Raises:
            OutOfSlots: too few slots are free; ask `has_room` first.
            ValueError: a request with this id is running, or it excludes an item that the catalog does not have.
        """
        if request.request_id in self._running:
            raise ValueError(f"A request with id {request.request_id!r} is already running.")
        if len(excluded := request.excluded_items) and not 0 <= excluded.min() <= excluded.max() < self.trie.items:
            raise ValueError(f"A request excludes an item that the catalog of {self.trie.items} items does not have.")
        filters = (request.allowed_items, None if request.reserved is None else request.reserved.items)
        if any(items is not None and items.catalog_items != self.trie.items for items in filters):
            raise ValueError(f"A request's filter is of another catalog than this one of {self.trie.items} items.")
        if not self.has_room(request):
            raise OutOfSlots(f"Too few key/value slots are free for request {request.request_id!r}.")
        known = self._prefix_cache.take(request.cache_key, request.prompt)
        new = len(request.prompt) - 1 - len(known)
        self._prefix_cache.make_room(new)
        # The root is a node: what the target says of it must be kept like that of any other.
        slots = np.concatenate([known.slots, self._prompts.allocate(new), self._nodes.allocate(1)])
        columns = SequenceState(slots)
        columns.scored = len(known)
        columns.drafted[: len(known)] = known.drafted
        search = self._begin(request, columns, cached_tokens=len(known), shared_length=known.shared_length)
        self._running[request.request_id] = search
        self._tree.add_prompt(*map(self._to_device, (slots, request.prompt, np.arange(len(slots)))))
        if (second := reserved_request(request)) is not None:
            self._reserved.open(search, self._accompany(second, search, known))

    def _begin(self, request: BeamRequest, columns: SequenceState, cached_tokens: int, shared_length: int) -> BeamSearch:
        widths, eligibility = beam_widths(request, self.trie), self._eligibility(request)
        search = BeamSearch(request, widths, columns, eligibility, cached_tokens=cached_tokens, shared_length=shared_length)
        self._slots.searches[request.request_id] = search
        return search

    def _accompany(self, request: BeamRequest, search: BeamSearch, known: CachedPrefix) -> BeamSearch:
        """Begins a second search over the prompt of one that has just begun; only its root is its own."""
        root = search.columns.root
        slots = np.append(search.columns.slots[:root], self._nodes.allocate(1))
        columns = SequenceState(slots)
        # The first search computes the prompt in the same forward, in which keys are written before they are read.
        columns.scored = root
        columns.drafted[: len(known)] = known.drafted
        self._tree.add_prompt(*map(self._to_device, (slots[root:], request.prompt[root:], np.array([root]))))
        return self._begin(request, columns, cached_tokens=root, shared_length=root)

    def cancel(self, request_id: str) -> bool:
        """Ends a request without a result and frees its slots; false if no such request runs."""
        search = self._running.pop(request_id, None)
        if search is None:
            return False
        if (second := self._reserved.close(request_id)) is not None:
            self._release_nodes(second)
        self._release_nodes(search)
        columns, request = search.columns, search.request
        # What a request that never took part in a forward has not computed is worth nothing to the next one.
        computed = columns.root if columns.scored > columns.root else search.cached_tokens
        self._prompts.release(columns.slots[computed : columns.root])
        prompt = CachedPrefix(request.prompt[:computed], columns.slots[:computed], columns.drafted[:computed], search.shared_length)
        self._prefix_cache.keep(request.cache_key, prompt)
        return True

    def _release_nodes(self, search: BeamSearch) -> None:
        del self._slots.searches[search.request.request_id]
        if search.eligibility.mask is not None:
            self._masks.release(search.eligibility.mask)
        self._nodes.release(search.columns.slots[search.columns.root :])

    def drop_draft(self) -> None:
        """Goes on without the draft model, which somebody else has closed."""
        self._drafting.beam_drafter = None

    def forget_histories(self) -> None:
        """Gives up every prompt that is kept for later."""
        self._prefix_cache.clear()

    def close(self) -> None:
        """Frees the models; the engine cannot step afterwards."""
        self.target.close()
        if self._drafting.beam_drafter is not None:
            self._drafting.beam_drafter.close()

    @torch.inference_mode()
    def step(self) -> StepReport:
        """Drafts, runs one forward of the target and advances every running request; without any, does nothing."""
        started = time.perf_counter()
        searches = self._reserved.unfinished(self._running.values())
        if not searches:
            return StepReport((), 0, 0.0)
        growth = self._drafting.grow(searches, self.plan, lambda: self._slots.spare_nodes)
        scoring = time.perf_counter()
        tokens = self._score(searches)
        scored = time.perf_counter()
        finished, decisions = self._verifier.verify(searches, self._drafting.beam_drafter)
        if self.plan.learns and (outcomes := self._drafting.outcomes(decisions)):
            self.plan.learn(outcomes)
        results = tuple(self._result(search) for search in self._reserved.join(finished))
        seconds = time.perf_counter() - started
        self.plan.learn_times(StepTimes(tokens, seconds - growth.seconds, growth.forwards, growth.tokens, growth.seconds))
        return StepReport(
            finished=results,
            tokens=tokens,
            seconds=seconds,
            target_seconds=scored - scoring,
            draft_tokens=growth.tokens,
            draft_forwards=growth.forwards,
            draft_seconds=growth.seconds,
            draft_failed=growth.failed,
            accepted=sum(decision.accepted for decision in decisions),
        )

    def _score(self, searches: Sequence[BeamSearch]) -> int:
        """Runs the target over everything that it has not computed, and keeps what it says of the nodes. Returns the tokens computed."""
        parts = [ForwardPart(columns, columns.unscored, columns.unscored_nodes) for columns in (search.columns for search in searches)]
        batch = forward_batch(self._tree, parts)
        logits = self.target.score(batch)
        trie_nodes = self._to_device(concat([part.trie_nodes for part in parts]))
        eligibility = [search.eligibility for search in searches]
        eligible = BatchEligibility.of(eligibility, self.trie.nodes, [part.outputs for part in parts])
        self._table.write(batch.at_outputs(batch.slots), trie_nodes, logits, eligible)
        for search, part in zip(searches, parts, strict=True):
            search.columns.scored += len(part.columns)
            search.target_forwards += 1
        return len(batch.tokens)

    def _result(self, finished: FinishedSearch) -> BeamResult:
        """Ends a search with its list."""
        request = finished.search.request
        self.cancel(request.request_id)
        excluded = set(request.excluded_items.tolist())
        items = tuple(
            RankedItem(item, score, rank)
            for rank, (leaf, score) in enumerate(zip(finished.leaves.tolist(), finished.log_probs.tolist(), strict=True), start=1)
            for item in self.trie.items_of(leaf).tolist()
            if item not in excluded and (request.allowed_items is None or item in request.allowed_items)
        )
        return BeamResult(request.request_id, items, finished.search.usage(self.plan.name), request.rule)

    def _eligibility(self, request: BeamRequest) -> Eligibility:
        mask = None if request.allowed_items is None else self._masks.acquire(request.allowed_items)
        return Eligibility(self.trie.excluded_nodes(request.excluded_items, mask), self.target.device, mask)

    def _to_device(self, array: npt.NDArray[Any]) -> Tensor:
        return on_device(array, self.target.device)
