"""Timing scripted searches: a target and a draft of a shape, made on the device, run as an acceptance trace says.

Invariant: a turn is timed with the device idle before and after it, all plans take turns on the same models, and every plan runs the same
recorded users.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.gpu.scripted_models import FlatTarget, OverlookingDraft, ScriptedPlan, Stage
from benchmarks.gpu.timing import Timing, failure
from benchmarks.systems.shapes import ModelShape, Shape, make_identifiers, make_model
from benchmarks.systems.trace import Script, TraceError, TraceRun
from drafting.array_types import IntArray
from drafting.beam.rule import STRICT, SearchRule
from drafting.plans.costs import ForwardCosts
from drafting.trie.item_trie import ItemTrie
from verification.engine.calibration import measure_costs
from verification.engine.engine import SpeculativeBeamEngine
from verification.hosts.graphs import GraphCounts, GraphedModel, graphed
from verification.hosts.transformers import ATTENTION, TransformersHost
from verification.request import BeamRequest
from verification.result import Usage
from verification.slots.engine_slots import node_capacity

logger = logging.getLogger(__name__)

# As few turns say which plan is faster; the p99 of fewer than these is but their slowest.
FEWEST_TURNS = 8
FEWEST_FOR_P99 = 20
# Drafts of a trace may be wider, but then not all of a large batch may find room.
WIDEST_DRAFT = 64


@dataclass(frozen=True)
class Case:
    """One timed case: the number of concurrent requests and the length of their prompts."""

    prompt: int
    batch: int
    k: int

    def __str__(self) -> str:
        return f"prompt {self.prompt}, batch {self.batch}, k {self.k}"


@dataclass(frozen=True)
class _Turn:
    """One batch: its time, each request's time, and what they cost."""

    seconds: float
    request_seconds: list[float]
    usages: list[Usage]
    tokens: int
    recorded_tokens: int


class ScriptedEngine:
    """An engine on random models of a shape, which follows scripts.

    Attributes:
        trie: its catalog's.
        notes: sentences on what makes its times others than those of the models that are served.
    """

    def __init__(self, name: str, shape: Shape, cases: Sequence[Case], device: torch.device, graphs: bool = False) -> None:
        """Make the models, and room for the largest of the cases; with `graphs`, record their forwards as CUDA graphs.

        Raises:
            HostError: CUDA graphs are wanted and can't be had.
        """
        self.name = name
        self._device = device
        identifiers = make_identifiers(shape.catalog)
        offsets = np.cumsum([shape.target.words, *shape.catalog.codes_per_level[:-1]])
        self._identifiers: IntArray = identifiers + offsets
        self.trie = ItemTrie.build(self._identifiers, device)
        slots = slots_needed(self.trie, cases)
        vocabulary = shape.target.words + shape.catalog.codes
        longest = max(case.prompt for case in cases) + self.trie.depth
        if graphs:
            # The one that takes what padding writes.
            slots += 1
        hosts = [_host(model, vocabulary, longest, slots, device) for model in (shape.target, shape.draft)]
        self.notes = [
            f"{name}: the {model} was computed by transformers' own layers, which take longer than those of this host."
            for model, host in zip(("target", "draft"), hosts, strict=True)
            if host.decoder is None
        ]
        most_requests = max(case.batch for case in cases)
        target, draft = (graphed(host, most_requests, longest) if graphs else host for host in hosts)
        self._models = target, draft
        self._graphs = [model for model in self._models if isinstance(model, GraphedModel)]
        self._stage = Stage(last_depth=self.trie.depth - 1)
        self._target, self._draft = FlatTarget(target), OverlookingDraft(draft, self.trie, self._stage)
        self._engine = self._new_engine()

    def time(
        self, case: Case, runs: Sequence[TraceRun], requests: int, rule: SearchRule = STRICT, turns: int = FEWEST_TURNS
    ) -> tuple[list[Timing], list[str]]:
        """Time all runs of one case, plain beam search first, `requests` searches each or more to fill so many batches.

        Args:
            turns: the fewest batches of each run.
            rule: by which lists are made. One that samples has random beams, so that only plans whose drafts hold for any beam can follow
                their scripts: none and trie.

        Returns:
            a line for each run, and sentences about those that failed; no line if plain beam search is among these.
        """
        timed: dict[str, list[_Turn]] = {run.plan: [] for run in runs}
        lost: dict[str, str] = {}
        count = max(-(-requests // case.batch), turns)
        # The first turn of all warms up and is not counted.
        for number in (0, *range(count)):
            for run in runs:
                if run.plan in lost:
                    continue
                try:
                    self._engine.use_plan(ScriptedPlan(run, self._stage))
                    timed[run.plan].append(self._turn(case, list(_scripts(run, case.batch, number, count)), rule))
                except TraceError as error:
                    lost[run.plan] = f"{self.name}, {case}, plan {run.plan} is left out. {error}"
                except torch.OutOfMemoryError:
                    lost[run.plan] = f"{self.name}, {case}, plan {run.plan} is left out: the device ran out of memory."
                # A device that nobody has tried yet may throw anything, as a compiler's errors; all else that it can do is worth knowing.
                except Exception as error:
                    lost[run.plan] = f"{self.name}, {case}, plan {run.plan} is left out. {failure(error)}"
                    logger.exception(lost[run.plan])
                if run.plan in lost:
                    # A device that is of no more use to this process says so here: no case is done by that.
                    self._synchronize()
                    # The other plans go on, with slots that nobody owns.
                    self._engine = self._new_engine()
        if runs[0].plan in lost:
            return [], list(lost.values())
        plain = float(np.median([turn.seconds for turn in timed[runs[0].plan][1:]]))
        timings = [self._timing(case, run.plan, timed[run.plan][1:], plain) for run in runs if run.plan not in lost]
        return timings, list(lost.values())

    def costs(self, prompt: int) -> ForwardCosts:
        """The costs of forwards of target and draft, measured like the planner does."""
        costs = measure_costs(self._engine, prompt)
        if not self._engine.has_draft:
            # It has failed there. Plans that it fails for in their turn are told so.
            self._engine = self._new_engine()
        return costs

    def graph_counts(self) -> list[GraphCounts]:
        """Forwards of target and draft that graphs replayed or did not fit, since this was last asked; empty without graphs."""
        return [model.take_counts() for model in self._graphs]

    def close(self) -> None:
        """Free the models."""
        for model in self._models:
            model.close()

    def _new_engine(self) -> SpeculativeBeamEngine:
        return SpeculativeBeamEngine(self._target, self.trie, self._draft)

    def _turn(self, case: Case, scripts: Sequence[Script], rule: SearchRule) -> _Turn:
        """Run one batch to its end; also when it fails, no request stays in the engine."""
        prompts = [self._prompt(case.prompt, number) for number in range(len(scripts))]
        usages: list[Usage] = []
        times: list[float] = []
        tokens = 0
        self._synchronize()
        started = time.perf_counter()
        try:
            for number, (prompt, script) in enumerate(zip(prompts, scripts, strict=True)):
                self._engine.add(BeamRequest(str(number), prompt, case.k, case.k, rule=rule))
                self._stage.enter(str(number), script)
            while self._engine.running:
                self._stage.before_step()
                report = self._engine.step()
                self._synchronize()
                if report.draft_failed:
                    raise TraceError("The draft failed, as the log tells, and what it would have drafted is missing.")
                tokens += report.tokens
                times += [time.perf_counter() - started] * len(report.finished)
                usages += [result.usage for result in report.finished]
                self._stage.after_step(report.finished)
        finally:
            for number in range(len(scripts)):
                self._engine.cancel(str(number))
            self._stage.clear()
        recorded = sum(case.prompt - 1 + sum(step.nodes for step in script) for script in scripts)
        return _Turn(times[-1], times, usages, tokens, recorded)

    def _timing(self, case: Case, plan: str, turns: Sequence[_Turn], plain_seconds: float) -> Timing:
        seconds = np.array([turn.seconds for turn in turns])
        usages = [usage for turn in turns for usage in turn.usages]
        return Timing(
            shape=self.name,
            prompt=case.prompt,
            batch=case.batch,
            k=case.k,
            plan=plan,
            turns=len(turns),
            batch_p50_ms=1e3 * float(np.median(seconds)),
            batch_p99_ms=1e3 * float(np.percentile(seconds, 99)) if len(turns) >= FEWEST_FOR_P99 else None,
            request_ms=1e3 * float(np.mean([second for turn in turns for second in turn.request_seconds])),
            target_forwards=float(np.mean([usage.target_forwards for usage in usages])),
            draft_forwards=float(np.mean([usage.draft_forwards for usage in usages])),
            target_tokens=sum(turn.tokens for turn in turns) / len(usages),
            recorded_tokens=sum(turn.recorded_tokens for turn in turns) / len(usages),
            speed_up=plain_seconds / float(np.median(seconds)),
        )

    def _prompt(self, tokens: int, seed: int) -> IntArray:
        """Identifiers of random items, cut to length."""
        rng = np.random.default_rng(seed)
        items = rng.integers(len(self._identifiers), size=-(-tokens // self.trie.depth))
        prompt: IntArray = self._identifiers[items].reshape(-1)[:tokens]
        return prompt

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _scripts(run: TraceRun, batch: int, turn: int, turns: int) -> Iterator[Script]:
    """The scripts of one turn's requests: recorded users spread evenly, the same ones for every plan."""
    for number in range(turn * batch, (turn + 1) * batch):
        yield run.requests[number * len(run.requests) // (turns * batch)]


def _host(shape: ModelShape, vocabulary: int, longest: int, slots: int, device: torch.device) -> TransformersHost:
    return TransformersHost.from_model(make_model(shape, vocabulary, longest, device, attn_implementation=ATTENTION), slots)


def slots_needed(trie: ItemTrie, cases: Sequence[Case]) -> int:
    """Key/value slots for the largest case: the engine takes half of them for tree nodes, but never more than its tables hold."""
    return 2 * max(max(case.batch * case.prompt, min(case.batch * _most_nodes(trie, case.k), node_capacity(trie))) for case in cases)


def room_for(trie: ItemTrie, case: Case) -> bool:
    """True if the engine has nodes for all searches of a case at once, without drafts."""
    widths = [min(case.k, trie.level_size(depth)) for depth in range(trie.depth)]
    return case.batch * sum(widths) <= node_capacity(trie)


def _most_nodes(trie: ItemTrie, k: int) -> int:
    """Nodes of one search: its own beams, a first level of all there are, drafted beams, and a last level of all their children."""
    inner = trie.depth - 1
    children = min(max(WIDEST_DRAFT, k) * trie.max_children[inner - 1], trie.level_size(inner))
    return 1 + inner * (k + WIDEST_DRAFT) + trie.level_size(1) + children
