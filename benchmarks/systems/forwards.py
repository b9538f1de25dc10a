"""What a list costs compared with the bare forwards of its tokens: our hosts, `generate` and transformers' own forwards in turns.

Invariant: a bare forward reads as many tokens as the search computes at that level, with nothing before them and no cache: the least that
transformers' modelling code needs for this model. The prompt's forward makes logits of its last token only, the others of all tokens.
"""

import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.markdown import markdown_table
from benchmarks.rotation import in_turn
from benchmarks.systems.histories import random_histories
from benchmarks.systems.interleaved import SETTLE_SECONDS, SystemProcess
from benchmarks.systems.prompt_builder import prompt_builder
from benchmarks.systems.question import Outcome, Question, System, SystemSpec
from benchmarks.systems.shapes import SHAPES, make_catalog, make_checkpoint
from benchmarks.systems.systems import make_system
from drafting.catalog.loading import load_catalog
from drafting.model_files import ModelFiles
from verification.hosts.adapter import load_reference
from verification.hosts.checkpoint import load_config

BARE, GENERATE = "bare forwards", "transformers"
HEADS = ("beam width", "system", "ms", "times the bare forwards", "generate takes so many times as long", "lists equal to generate's")
WARM_UP = 2


class BareForwards:
    """Transformers' forwards of the tokens of plain searches."""

    def __init__(self, spec: SystemSpec) -> None:
        torch.set_num_threads(spec.threads)
        catalog = load_catalog(spec.catalog)
        self._prompts = prompt_builder(spec.target, catalog)
        self._level_sizes = [catalog.trie.level_size(depth) for depth in range(1, catalog.identifier_length)]
        self._model: Any = load_reference(ModelFiles.find(spec.target), load_config(spec.target).dtype)

    def search(self, question: Question) -> list[Outcome]:
        return [self._read(len(self._prompts.build(history)), question.k) for history in question.histories]

    @torch.inference_mode()
    def _read(self, prompt: int, k: int) -> Outcome:
        levels = [prompt, *(min(k, size) for size in self._level_sizes)]
        started = time.perf_counter()
        for number, tokens in enumerate(levels):
            self._model(input_ids=torch.zeros(1, tokens, dtype=torch.int64), use_cache=False, logits_to_keep=0 if number else 1)
        return Outcome(time.perf_counter() - started, [], len(levels), sum(levels))


def make(spec: SystemSpec) -> System:
    """Load what `spec` names, bare forwards among it."""
    return BareForwards(spec) if spec.name == BARE else make_system(spec)


def run(shape: str, widths: Sequence[int], requests: int, generated: int, threads: int) -> str:
    """The table of a shape's random model, lists as long as their beams are wide.

    Args:
        requests: timed histories.
        generated: how many of them `generate` is asked, too.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, catalog = Path(name), make_catalog(SHAPES[shape])
        catalog.save(folder / "catalog.jsonl")
        make_checkpoint(folder / "target", SHAPES[shape].target, catalog)
        hosts = ["atspeed/transformers", *(["atspeed/vllm"] if find_spec("vllm") else [])]
        names = [*hosts, BARE, *([GENERATE] if generated else [])]
        systems = []
        try:
            for each in names:
                systems.append(SystemProcess(SystemSpec(each, folder / "target", folder / "catalog.jsonl", threads), make))
                systems[-1].wait_ready()
            histories = random_histories(len(catalog), requests + WARM_UP)
            rows = [row for width in widths for row in _rows(width, systems, histories, generated)]
        finally:
            for system in systems:
                system.close()
    return markdown_table(HEADS, rows)


def _rows(width: int, systems: Sequence[SystemProcess], histories: Sequence[list[int]], generated: int) -> list[tuple[str, ...]]:
    """Ask all systems by turns and return a row for each."""
    outcomes: dict[str, list[Outcome]] = {system.name: [] for system in systems}
    for turn, history in enumerate(tqdm(histories, desc=f"width {width}")):
        for system in in_turn(systems, turn):
            if system.name == GENERATE and turn >= WARM_UP + generated:
                continue
            time.sleep(SETTLE_SECONDS)
            outcomes[system.name] += system.search(Question([history], width))
    ms = {name: 1e3 * float(np.median([outcome.seconds for outcome in found[WARM_UP:]])) for name, found in outcomes.items()}
    return [
        (
            str(width),
            name,
            f"{ms[name]:.1f}",
            f"{ms[name] / ms[BARE]:.2f}",
            f"{ms[GENERATE] / ms[name]:.1f}" if GENERATE in ms else "",
            "" if name in (BARE, GENERATE) else _equal(outcomes[name], outcomes.get(GENERATE, [])),
        )
        for name in ms
    ]


def _equal(ours: Sequence[Outcome], expected: Sequence[Outcome]) -> str:
    equal = sum(own.identifiers == right.identifiers for own, right in zip(ours, expected, strict=False))
    return f"{equal}/{len(expected)}"
