"""What a step costs outside the models' forwards: `python -m benchmarks.systems.step_profile`.

Invariant: every step of every list is counted, the prompt's as well as the later ones, one request at a time and nothing cached; so the
share that is printed is the share of what a user waits for. Models and catalog are random ones of a named shape: time depends on neither.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from benchmarks.systems.shapes import SHAPES, make_catalog, make_checkpoint
from drafting.beam.model import TreeBatch, TreeModel
from drafting.errors import SetupError
from verification.engine.engine import SpeculativeBeamEngine
from verification.recommender import Recommender
from verification.request import BeamRequest

WARM_UP = 20


class TimedModel:
    """A model that notes how long its forwards take.

    Attributes:
        seconds: in all forwards so far.
    """

    def __init__(self, model: TreeModel) -> None:
        self._model = model
        self.device, self.total_slots = model.device, model.total_slots
        self.seconds = 0.0

    def score(self, batch: TreeBatch) -> Tensor:
        """As the model's."""
        started = time.perf_counter()
        logits = self._model.score(batch)
        self.seconds += time.perf_counter() - started
        return logits

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
    """Searches a list after each prompt for each k, the first few uncounted."""
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


def main(arguments: Sequence[str]) -> int:
    """Prints one line per list length, as a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.systems.step_profile", description="Time steps outside the forwards.")
    parser.add_argument("--shape", default="small", choices=sorted(SHAPES), help="target, draft and catalog (default: %(default)s)")
    parser.add_argument("--host", default="vllm", help="vllm or transformers (default: %(default)s)")
    parser.add_argument("--plan", default="none", help="what is drafted (default: %(default)s)")
    parser.add_argument("--k", default="1,10,20", help="list lengths, separated by commas (default: %(default)s)")
    parser.add_argument("--lists", type=int, default=100, help="lists per length (default: %(default)s)")
    parser.add_argument("--items", type=int, default=20, help="items per history (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads; all by default")
    options = parser.parse_args(arguments)
    shape = SHAPES[options.shape]
    catalog = make_catalog(shape)
    with tempfile.TemporaryDirectory() as name:
        target, draft = Path(name) / "target", Path(name) / "draft"
        make_checkpoint(target, shape.target, catalog)
        make_checkpoint(draft, shape.draft, catalog)
        try:
            recommender = Recommender.load(
                target,
                catalog,
                draft=None if options.plan in ("none", "trie") else draft,
                plan=options.plan,
                host=options.host,
                threads=options.threads,
                kv_memory_gib=0.5,
            )
        except SetupError as error:
            print(error, file=sys.stderr)
            return 1
    rng = np.random.default_rng(0)
    prompts = [recommender.prompts.build(rng.integers(len(catalog), size=options.items).tolist()) for _ in range(WARM_UP + options.lists)]
    print(f"| K | step, {options.host}, plan {options.plan} | outside the forwards | share of all steps |\n|---|---|---|---|")
    for found in profile(recommender, prompts, [int(k) for k in options.k.split(",")]):
        print(f"| {found.k} | {found.step_ms:.2f} ms | {found.outside_ms:.2f} ms | {found.share:.0%} |", flush=True)
    recommender.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
