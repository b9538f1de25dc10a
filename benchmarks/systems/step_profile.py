"""The cost of a step outside the models' forwards: `atspeed-bench steps`.

Invariant: every step of every list is counted, the prompt's as well as the later ones, one request at a time and nothing cached; so the
share that is printed is the share of what a user waits for. Models and catalog are random ones of a named shape: time depends on neither.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from benchmarks.endings import BenchmarkError
from benchmarks.markdown import markdown_head, markdown_row
from benchmarks.systems.shapes import SHAPES, make_catalog, make_checkpoint
from drafting.beam.model import TreeBatch, TreeModel
from drafting.beam.rows import Head, Rows
from drafting.trie.token_set import TokenSet
from verification.engine.engine import SpeculativeBeamEngine
from verification.recommender import Recommender
from verification.request import BeamRequest

WARM_UP = 20
T = TypeVar("T")


class TimedModel:
    """A model that notes how long its forwards take, heads included, and is the head of their rows.

    Attributes:
        seconds: in all forwards so far.
    """

    _head: Head

    def __init__(self, model: TreeModel) -> None:
        self._model = model
        self.device, self.total_slots, self.has_encoder = model.device, model.total_slots, model.has_encoder
        self.seconds = 0.0

    def score(self, batch: TreeBatch) -> Rows:
        """As the model's."""
        rows = self._timed(self._model.score, batch)
        self._head = rows.head
        return Rows(rows.states, self)

    @property
    def vocabulary(self) -> int:
        """As the head's."""
        return self._head.vocabulary

    def logits(self, states: Tensor) -> Tensor:
        """As the head's."""
        return self._timed(self._head.logits, states)

    def project(self, states: Tensor, tokens: TokenSet) -> Tensor:
        """As the head's."""
        return self._timed(self._head.project, states, tokens)

    def log_normaliser(self, states: Tensor) -> Tensor:
        """As the head's."""
        return self._timed(self._head.log_normaliser, states)

    def _timed(self, work: Callable[..., T], *given: Any) -> T:
        started = time.perf_counter()
        answer = work(*given)
        self.seconds += time.perf_counter() - started
        return answer

    def close(self) -> None:
        """As the model's."""
        self._model.close()


@dataclass(frozen=True)
class StepProfile:
    """The steps of some lists.

    Attributes:
        k: identifiers of a list.
        step_ms, outside_ms: median over the steps after a list's first: the whole step, and what of it is in no forward.
        share: of the time of all steps, what is in no forward.
    """

    k: int
    step_ms: float
    outside_ms: float
    share: float


def profile(recommender: Recommender, prompts: Sequence[npt.NDArray[np.int64]], ks: Sequence[int]) -> Iterator[StepProfile]:
    """Search a list after each prompt for each k, the first few uncounted."""
    plain = recommender.engine
    target, draft = TimedModel(plain.target), None if plain.draft is None else TimedModel(plain.draft)
    models = [target] if draft is None else [target, draft]
    engine = SpeculativeBeamEngine(target, plain.trie, draft, plain.plan)
    for k in ks:
        first: list[tuple[float, float]] = []
        later: list[tuple[float, float]] = []
        for number, prompt in enumerate(prompts):
            engine.add(BeamRequest("profile", prompt, k, k))
            steps = []
            while engine.running:
                before = sum(model.seconds for model in models)
                seconds = engine.step().seconds
                steps.append((seconds, seconds - sum(model.seconds for model in models) + before))
            if number >= WARM_UP:
                first.append(steps[0])
                later += steps[1:]
        whole, outside = np.array(first + later).sum(0)
        step, rest = 1e3 * np.median(np.array(later or first), axis=0)
        yield StepProfile(k, float(step), float(rest), float(outside / whole))


def run(shape_name: str, engine: str, plan: str, ks: Sequence[int], lists: int, items: int, threads: int | None) -> None:
    """Print one line per list length, as a Markdown table.

    Raises:
        BenchmarkError, SetupError: there is no such shape, engine or plan.
    """
    if shape_name not in SHAPES:
        raise BenchmarkError(f"There is no shape {shape_name!r}: choose {', '.join(SHAPES)}.")
    shape = SHAPES[shape_name]
    catalog = make_catalog(shape)
    with tempfile.TemporaryDirectory() as name:
        target, draft = Path(name) / "target", Path(name) / "draft"
        make_checkpoint(target, shape.target, catalog)
        make_checkpoint(draft, shape.draft, catalog)
        used = None if plan in ("none", "trie") else draft
        recommender = Recommender.load(target, catalog, draft=used, plan=plan, host=engine, threads=threads, kv_memory_gib=0.5)
    rng = np.random.default_rng(0)
    prompts = [recommender.prompts.build(rng.integers(len(catalog), size=items).tolist()) for _ in range(WARM_UP + lists)]
    print(*markdown_head(("K", f"step, {engine}, plan {plan}", "outside the forwards", "share of all steps")), sep="\n")
    for found in profile(recommender, prompts, ks):
        print(markdown_row((found.k, f"{found.step_ms:.2f} ms", f"{found.outside_ms:.2f} ms", f"{found.share:.0%}")), flush=True)
    recommender.close()
