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

from drafting.columns import ForwardPart, RequestColumns, forward_batch
from drafting.drafters import BeamDrafter, DraftTask, TrieDrafter
from drafting.expand import Frontier, Selection, expand_beam
from drafting.plan import FixedPlan, RoundPlan
from drafting.tree import TokenTree, TreeModel
from drafting.trie import ItemTrie
from verification.kv_slots import OutOfSlots, SlotPool
from verification.log_probs import ContinuationTable, node_capacity
from verification.request import BeamRequest, BeamResult, RankedItem, StepReport
from verification.search import BeamSearch, beam_widths
from verification.strict import find_drafted

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]


class SpeculativeBeamEngine:
    """Runs beam searches of many requests on one target model, with or without a draft."""

    def __init__(self, target: TreeModel, trie: ItemTrie, draft: TreeModel | None = None, plan: FixedPlan | None = None) -> None:
        """`trie` and `draft` must live on the target's device, and the draft must have as many slots as the target.

        Raises:
            ValueError: the plan needs a draft model and there is none.
        """
        self._plan = plan or FixedPlan.parse("none")
        if self._plan.needs_draft and draft is None:
            raise ValueError(f"The plan {self._plan.name} needs a draft model.")
        self._target = target
        self._draft = draft
        self._trie = trie
        self._tree = TokenTree(target.total_slots, trie.depth, target.device)
        nodes = min(node_capacity(trie), target.total_slots // 2)
        self._nodes = SlotPool(nodes)
        self._prompts = SlotPool(target.total_slots - nodes, first=nodes)
        self._table = ContinuationTable(trie, nodes, target.device)
        self._trie_drafter = TrieDrafter(self._tree, trie)
        self._beam_drafter = BeamDrafter(self._tree, trie, draft) if draft is not None else None
        self._running: dict[str, BeamSearch] = {}

    @property
    def total_slots(self) -> int:
        """Key/value slots that the target has."""
        return self._prompts.total + self._nodes.total

    @property
    def used_slots(self) -> int:
        """Key/value slots that running requests own."""
        return self._prompts.used + self._nodes.used

    @property
    def running(self) -> int:
        """Requests that the next step will advance."""
        return len(self._running)

    def has_room(self, request: BeamRequest) -> bool:
        """Whether enough slots are free to run the request to its end now."""
        nodes = 1 + sum(beam_widths(request, self._trie)[1:-1])
        return len(request.prompt) - 1 <= self._prompts.free and nodes <= self._spare_nodes()

    def fits(self, request: BeamRequest) -> bool:
        """Whether the request could run on an idle engine at all."""
        nodes = 1 + sum(beam_widths(request, self._trie)[1:-1])
        return len(request.prompt) - 1 <= self._prompts.total and nodes <= self._nodes.total

    def tokens_needed(self, request: BeamRequest) -> int:
        """Tokens that a request adds to its first forward, drafts aside."""
        return len(request.prompt)

    def next_tokens(self) -> int:
        """Tokens that the running requests put into the next forward, drafts aside."""
        return sum(int(np.count_nonzero(~search.columns.scored)) for search in self._running.values())

    def add(self, request: BeamRequest) -> None:
        """Starts a request; the next step computes its prompt.

        Raises:
            OutOfSlots: too few slots are free; ask `has_room` first.
            ValueError: a request with this id is running, or it excludes an item that the catalog does not have.
        """
        if request.request_id in self._running:
            raise ValueError(f"A request with id {request.request_id!r} is already running.")
        if len(excluded := request.excluded_items) and not 0 <= excluded.min() <= excluded.max() < len(self._trie.items):
            raise ValueError(f"A request excludes an item that the catalog of {len(self._trie.items)} items does not have.")
        dead_nodes = self._to_device(self._trie.dead_nodes(request.excluded_items))
        if not self.has_room(request):
            raise OutOfSlots(f"Too few key/value slots are free for request {request.request_id!r}.")
        # The root is a node: what the target says of it must be kept like that of any other.
        slots = np.concatenate([self._prompts.allocate(len(request.prompt) - 1), self._nodes.allocate(1)])
        columns = RequestColumns(slots)
        self._running[request.request_id] = BeamSearch(request, beam_widths(request, self._trie), columns, dead_nodes)
        self._tree.add_prompt(*map(self._to_device, (slots, request.prompt, np.arange(len(slots)))))

    def cancel(self, request_id: str) -> bool:
        """Ends a request without a result and frees its slots; false if no such request runs."""
        search = self._running.pop(request_id, None)
        if search is None:
            return False
        self._prompts.release(search.columns.slots[: search.columns.root])
        self._nodes.release(search.columns.slots[search.columns.root :])
        return True

    def close(self) -> None:
        """Frees the models; the engine cannot step afterwards."""
        self._target.close()
        if self._draft is not None:
            self._draft.close()

    @torch.inference_mode()
    def step(self) -> StepReport:
        """Drafts, runs one forward of the target and advances every running request; without any, does nothing."""
        started = time.perf_counter()
        searches = list(self._running.values())
        if not searches:
            return StepReport((), 0, 0.0)
        self._grow_trees(searches)
        tokens = self._score(searches)
        finished: list[BeamResult] = []
        deciding = searches
        while deciding:
            deciding = self._decide_level(deciding, finished)
        return StepReport(tuple(finished), tokens, time.perf_counter() - started)

    def _grow_trees(self, searches: Sequence[BeamSearch]) -> None:
        """Grows the trees of the requests whose plan says so, level by level, all requests in one forward of the draft per level."""
        spare, tasks = self._spare_nodes(), []
        for search in searches:
            plan = self._plan.for_round(search.depth, search.last_depth)
            most = self._most_nodes(plan, search)
            if plan.levels and most <= spare:
                spare -= most
                task = DraftTask(search.columns, search.beam, search.dead_nodes, plan, self._nodes.allocate)
                tasks.append((search, task))
        before = {search.request.request_id: len(search.columns.slots) for search, _ in tasks}
        for level in range(max((task.plan.levels for _, task in tasks), default=0)):
            tasks = [(search, task) for search, task in tasks if len(task.frontier)]
            by_beam = [(search, task) for search, task in tasks if level < len(task.plan.widths)]
            if by_beam and self._beam_drafter is not None:
                self._beam_drafter.grow([task for _, task in by_beam], [task.plan.widths[level] for _, task in by_beam])
                for search, _ in by_beam:
                    search.draft_forwards += 1
            by_trie = [task for _, task in tasks if task.plan.children and level == len(task.plan.widths)]
            if by_trie:
                self._trie_drafter.grow(by_trie)
        for search, _ in tasks:
            search.drafted_nodes += len(search.columns.slots) - before[search.request.request_id]

    def _most_nodes(self, plan: RoundPlan, search: BeamSearch) -> int:
        """The most nodes that a plan can add."""
        last_width = plan.widths[-1] if plan.widths else len(search.beam)
        depth = search.depth + len(plan.widths)
        most_children = min(last_width * self._trie.max_children[depth], self._trie.level_size(depth + 1)) if plan.children else 0
        return sum(plan.widths) + most_children

    def _spare_nodes(self) -> int:
        """Node slots that no running request may come to need."""
        return self._nodes.free - sum(search.reserved_nodes for search in self._running.values())

    def _score(self, searches: Sequence[BeamSearch]) -> int:
        """Runs the target over everything that it has not computed, and keeps what it says of the nodes. Returns the tokens computed."""
        parts = []
        for search in searches:
            columns = np.flatnonzero(~search.columns.scored)
            parts.append(ForwardPart(search.columns, columns, int(np.count_nonzero(columns >= search.columns.root))))
        batch = forward_batch(self._tree, parts)
        logits = self._target.score(batch)
        frontier = Frontier.of([part.request.slots[part.columns[-part.outputs :]] for part in parts], self._target.device)
        self._table.write(frontier, self._tree.trie_node[frontier.slots], logits, [search.dead_nodes for search in searches])
        for search, part in zip(searches, parts, strict=True):
            search.columns.scored[part.columns] = True
            search.target_forwards += 1
        return len(batch.tokens)

    def _decide_level(self, searches: Sequence[BeamSearch], finished: list[BeamResult]) -> list[BeamSearch]:
        """Takes each search one level down; returns those whose new beam was drafted, so that they can go on without another forward."""
        selection = self._select(searches)
        drafted = [search.drafted_at(search.depth + 1) for search in searches]
        places = find_drafted(selection.nodes, self._trie_nodes(searches, drafted)).cpu().numpy()
        nodes, scores = selection.nodes.cpu().numpy(), selection.scores.cpu().numpy()
        going_on, moved = [], []
        for row, search in enumerate(searches):
            width = int(np.count_nonzero(nodes[row, : search.widths[search.depth + 1]] >= 0))
            if search.depth == search.last_depth or not width:
                finished.append(self._result(search, nodes[row, :width], scores[row, :width]))
                self.cancel(search.request.request_id)
                continue
            missing = np.flatnonzero(places[row, :width] < 0)
            moved.append((row, width, missing))
            search.beam = np.empty(width, np.int64)
            hits = np.flatnonzero(places[row, :width] >= 0)
            search.beam[hits] = drafted[row][places[row, hits]]
            search.beam[missing] = search.columns.append(self._nodes.allocate(len(missing)), search.depth + 1)
            search.depth += 1
            if not len(missing):
                search.accepted_steps += 1
                going_on.append(search)
        if moved:
            self._write_beams(searches, selection, moved)
        return going_on

    def _select(self, searches: Sequence[BeamSearch]) -> Selection:
        """The target's best continuations of each beam, as many as the widest search keeps."""
        frontier = Frontier.of([search.columns.slots[search.beam] for search in searches], self._target.device)
        width = max(self._trie.max_children[search.depth] for search in searches)
        candidates = self._table.read(frontier, self._tree.trie_node[frontier.slots], width)
        kept = max(search.widths[search.depth + 1] for search in searches)
        return expand_beam(candidates, self._tree.score[frontier.slots], frontier, kept)

    def _trie_nodes(self, searches: Sequence[BeamSearch], columns: Sequence[IntArray]) -> Tensor:
        """Where some nodes of each search stand in the trie, `[searches, most]`; -2 pads."""
        counts = np.array([len(row) for row in columns])
        padded = torch.full((len(searches), int(counts.max())), -2, device=self._target.device)
        if counts.any():
            slots = np.concatenate([search.columns.slots[row] for search, row in zip(searches, columns, strict=True)])
            padded[self._to_device(np.arange(counts.max()) < counts[:, None])] = self._tree.trie_node[self._to_device(slots)]
        return padded

    def _write_beams(self, searches: Sequence[BeamSearch], selection: Selection, moved: list[tuple[int, int, IntArray]]) -> None:
        """Writes the target's scores of the new beams, and the nodes in them that no draft had added, into the tree."""
        rows = self._to_device(np.repeat([row for row, _, _ in moved], [width for _, width, _ in moved]))
        ranks = self._to_device(np.concatenate([np.arange(width) for _, width, _ in moved]))
        slots = np.concatenate([searches[row].columns.slots[searches[row].beam] for row, _, _ in moved])
        self._tree.score[self._to_device(slots)] = selection.scores[rows, ranks]
        missing = [(row, ranks) for row, _, ranks in moved if len(ranks)]
        if not missing:
            return
        rows = self._to_device(np.repeat([row for row, _ in missing], [len(ranks) for _, ranks in missing]))
        ranks = self._to_device(np.concatenate([ranks for _, ranks in missing]))
        columns = [searches[row].beam[ranks] for row, ranks in missing]
        slots = np.concatenate([searches[row].columns.slots[places] for (row, _), places in zip(missing, columns, strict=True)])
        trie_nodes = selection.nodes[rows, ranks]
        self._tree.add_nodes(
            self._to_device(slots),
            parents=selection.parents[rows, ranks],
            tokens=self._trie.token[trie_nodes],
            trie_nodes=trie_nodes,
            scores=selection.scores[rows, ranks],
            depths=self._to_device(np.repeat([searches[row].depth for row, _ in missing], [len(ranks) for _, ranks in missing])),
            columns=self._to_device(np.concatenate(columns)),
        )

    def _result(self, search: BeamSearch, leaves: IntArray, scores: FloatArray) -> BeamResult:
        excluded = set(search.request.excluded_items.tolist())
        items = tuple(
            RankedItem(item, score, rank)
            for rank, (leaf, score) in enumerate(zip(leaves.tolist(), scores.tolist(), strict=True), start=1)
            for item in self._trie.items_of(leaf).tolist()
            if item not in excluded
        )
        return BeamResult(search.request.request_id, items, search.usage())

    def _to_device(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._target.device)
