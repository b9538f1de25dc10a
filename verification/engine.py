"""The engine: one `step()` scores the current prefixes of every running request in one forward and extends each beam by one level.

Invariant: requests share forwards and nothing else. Rows of different beam width, depth and prompt length lie side by side in one batch,
the mask keeps them apart, and the same `expand_beam` selects for all of them, so a request's list does not depend on its company. Whatever
ends a request gives all its slots back.
"""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from drafting.expand import NEGATIVE_INFINITY, Selection, continuations, dead_keys, expand_beam
from drafting.tree import TokenTree, TreeBatch, TreeModel
from drafting.trie import ItemTrie
from verification.attention import build_layout
from verification.kv_slots import SlotPool
from verification.request import BeamRequest, BeamResult, RankedItem, StepReport, Usage
from verification.search import BeamSearch, beam_widths

IntArray = npt.NDArray[np.int64]


class SpeculativeBeamEngine:
    """Runs beam searches of many requests on one target model."""

    def __init__(self, target: TreeModel, trie: ItemTrie) -> None:
        """`trie` must live on the target's device."""
        self._target = target
        self._trie = trie
        self._tree = TokenTree(target.total_slots, trie.depth, target.device)
        self._pool = SlotPool(target.total_slots)
        self._running: dict[str, BeamSearch] = {}

    @property
    def total_slots(self) -> int:
        """Key/value slots that the target has."""
        return self._pool.total

    @property
    def free_slots(self) -> int:
        """Key/value slots that no request owns."""
        return self._pool.free

    @property
    def used_slots(self) -> int:
        """Key/value slots that running requests own."""
        return self._pool.used

    @property
    def running(self) -> int:
        """Requests that the next step will advance."""
        return len(self._running)

    def slots_needed(self, request: BeamRequest) -> int:
        """Slots that a request owns while it runs: its prompt and every beam but the last level's."""
        return len(request.prompt) + sum(beam_widths(request, self._trie)[1:-1])

    def tokens_needed(self, request: BeamRequest) -> int:
        """Tokens that a request adds to its first forward."""
        return len(request.prompt)

    def next_tokens(self) -> int:
        """Tokens that the running requests put into the next forward."""
        return sum(len(search.forward_columns) for search in self._running.values())

    def add(self, request: BeamRequest) -> None:
        """Starts a request; the next step computes its prompt.

        Raises:
            OutOfSlots: too few slots are free; ask `slots_needed` first.
            ValueError: a request with this id is running.
        """
        if request.request_id in self._running:
            raise ValueError(f"A request with id {request.request_id!r} is already running.")
        slots = self._pool.allocate(self.slots_needed(request))
        self._running[request.request_id] = BeamSearch.start(request, self._trie, slots, self._target.device)
        prompt_columns = np.arange(len(request.prompt))
        self._tree.add_prompt(*map(self._to_device, (slots[prompt_columns], request.prompt, prompt_columns)))

    def cancel(self, request_id: str) -> bool:
        """Ends a request without a result and frees its slots; false if no such request runs."""
        search = self._running.pop(request_id, None)
        if search is None:
            return False
        self._pool.release(search.slots)
        return True

    @torch.inference_mode()
    def step(self) -> StepReport:
        """Advances every running request by one level; without any, does nothing."""
        started = time.perf_counter()
        searches = list(self._running.values())
        if not searches:
            return StepReport((), 0, 0.0)
        batch = self._batch(searches)
        selection = self._select(searches, self._target.score(batch))
        self._extend([(row, search) for row, search in enumerate(searches) if not search.is_last_level], selection)
        finished = self._finish([(row, search) for row, search in enumerate(searches) if search.is_last_level], selection)
        for search in searches:
            search.depth += 1
        return StepReport(finished, len(batch.tokens), time.perf_counter() - started)

    def _batch(self, searches: list[BeamSearch]) -> TreeBatch:
        """The forward that scores the prompt or the beam of every request."""
        columns = [search.forward_columns for search in searches]
        counts = [len(row) for row in columns]
        column = np.concatenate(columns)
        prompt_lengths = np.repeat([search.prompt_length for search in searches], counts)
        depths = np.repeat([search.depth for search in searches], counts)
        slots = self._slots(searches, columns)
        outputs = [np.arange(end - len(search.beam_columns), end) for end, search in zip(np.cumsum(counts), searches, strict=True)]
        return TreeBatch(
            tokens=self._tree.token[slots],
            positions=self._to_device(np.where(depths > 0, prompt_lengths + depths - 1, column)),
            slots=slots,
            outputs=self._to_device(np.concatenate(outputs)),
            attention=build_layout(
                keys=[search.filled_slots for search in searches],
                query_counts=counts,
                visible=self._to_device(np.where(depths > 0, prompt_lengths, column + 1)),
                ancestors=self._tree.ancestors[slots],
            ),
        )

    def _select(self, searches: list[BeamSearch], logits: Tensor) -> Selection:
        """The best continuations of each request's beam, as many as the widest request keeps; their parents are slots."""
        sizes = [len(search.beam_columns) for search in searches]
        beam_slots = self._slots(searches, [search.beam_columns for search in searches])
        candidates = continuations(
            self._trie,
            parents=self._tree.trie_node[beam_slots],
            logits=logits,
            width=max(self._trie.max_children[search.depth] for search in searches),
            requests=self._to_device(np.repeat(np.arange(len(searches)), sizes)),
            dead=dead_keys([search.dead_nodes for search in searches], self._trie),
        )
        rows = np.full((len(searches), max(sizes)), -1, np.int64)
        rows[np.arange(rows.shape[1]) < np.array(sizes)[:, None]] = np.arange(sum(sizes))
        rows_on_device = self._to_device(rows)
        kept = max(search.widths[search.depth + 1] for search in searches)
        selection = expand_beam(candidates, self._tree.score[beam_slots], rows_on_device, kept)
        return replace(selection, parents=beam_slots[rows_on_device.gather(1, selection.parents)])

    def _extend(self, rows: list[tuple[int, BeamSearch]], selection: Selection) -> None:
        """Writes the next beam of the requests that go on into the tree."""
        if not rows:
            return
        searches = [search for _, search in rows]
        columns = [search.next_columns for search in searches]
        counts = [len(row) for row in columns]
        request = self._to_device(np.repeat([row for row, _ in rows], counts))
        rank = self._to_device(np.concatenate([np.arange(count) for count in counts]))
        trie_nodes = selection.nodes[request, rank]
        self._tree.add_nodes(
            self._slots(searches, columns),
            parents=selection.parents[request, rank],
            tokens=self._trie.token[trie_nodes],
            trie_nodes=trie_nodes,
            scores=selection.scores[request, rank],
            depths=self._to_device(np.repeat([search.depth + 1 for search in searches], counts)),
            columns=self._to_device(np.concatenate(columns)),
        )

    def _finish(self, rows: list[tuple[int, BeamSearch]], selection: Selection) -> tuple[BeamResult, ...]:
        """Reads the lists of the requests that are done, the step's only wait for the device, and frees their slots."""
        if not rows:
            return ()
        nodes, scores = selection.nodes.cpu().numpy(), selection.scores.cpu().numpy()
        for _, search in rows:
            self.cancel(search.request.request_id)
        return tuple(self._result(search, nodes[row, : search.widths[-1]], scores[row, : search.widths[-1]]) for row, search in rows)

    def _result(self, search: BeamSearch, leaves: IntArray, scores: npt.NDArray[np.float32]) -> BeamResult:
        excluded = set(search.request.excluded_items.tolist())
        items = tuple(
            RankedItem(item, score, rank)
            for rank, (leaf, score) in enumerate(zip(leaves.tolist(), scores.tolist(), strict=True), start=1)
            if score > NEGATIVE_INFINITY
            for item in self._trie.items_of(leaf).tolist()
            if item not in excluded
        )
        return BeamResult(search.request.request_id, items, Usage(prompt_tokens=search.prompt_length, target_forwards=search.depth + 1))

    def _slots(self, searches: list[BeamSearch], columns: list[IntArray]) -> Tensor:
        """The slots behind some columns of each request, in one row."""
        return self._to_device(np.concatenate([search.slots[row] for search, row in zip(searches, columns, strict=True)]))

    def _to_device(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._target.device)
