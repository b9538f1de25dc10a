"""STATIC's constrained step against our expansion: from logits to the next beam, on the same trie, over the same logits, in one process.

STATIC's harness is driven as it is: its model is one that returns the logits that were made before and notes the time, so a step is what
passes between two calls. Ours is what the engine does with the rows of a forward. Both normalise over the vocabulary. The two take turns,
and the identifiers that they find are compared.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.systems.expansion import expand_now, search
from drafting.array_types import IntArray
from drafting.trie.item_trie import ItemTrie

DEPTH = 4
CODES = 4096
BEAMS = 50
ROUNDS = 40
WARM_UP = 5


@dataclass(frozen=True)
class MaskRow:
    """One step; times are medians.

    Attributes:
        items: of the catalog.
        depth: codes of the prefixes that are continued.
        equal: whether both found the same identifiers, to the order, in every round.
    """

    items: int
    depth: int
    ours_ms: float
    static_ms: float
    equal: bool


def make_identifiers(items: int, seed: int = 0) -> IntArray:
    """Distinct identifiers `[items, DEPTH]`, sorted; all levels share their codes, as STATIC's do."""
    rng = np.random.default_rng(seed)
    keys = np.empty(0, np.int64)
    while len(keys) < items:
        keys = np.unique(np.concatenate([keys, rng.integers(CODES**DEPTH, size=items - len(keys))]))
    return np.stack([keys // CODES ** (DEPTH - 1 - level) % CODES for level in range(DEPTH)], axis=1)


class _Scripted(torch.nn.Module):
    """A model that says what was written down, and when it was asked."""

    def __init__(self, logits: Sequence[Tensor]) -> None:
        super().__init__()
        self._logits = logits
        self.asked: list[float] = []
        self.told: list[float] = []

    def forward(self, _: Tensor) -> Tensor:
        self.asked.append(time.perf_counter())
        logits = self._logits[len(self.told)]
        self.told.append(time.perf_counter())
        return logits


def static_search(identifiers: IntArray) -> Callable[[Sequence[Tensor]], tuple[list[float], list[list[int]]]]:
    """STATIC's search: seconds of each step, and the identifiers found."""
    index = importlib.import_module("static_decoding.csr_utils").build_static_index
    decode: Any = importlib.import_module("static_decoding.decoding_pt").sparse_transition_torch
    cpu = torch.device("cpu")
    packed, indptr, most, start, dense, states = index(identifiers.astype(np.int32), CODES)
    arrays = [torch.from_numpy(each) for each in (packed, indptr, start, dense, states)]

    def run(logits: Sequence[Tensor]) -> tuple[list[float], list[list[int]]]:
        model = _Scripted([logits[0][:, None, :], *(each[:, None, :] for each in logits[1:])])
        found = decode(model, 1, BEAMS, BEAMS, 0, DEPTH, CODES, most, *arrays, cpu)
        ends = [*model.asked[1:], time.perf_counter()]
        return [end - begin for begin, end in zip(model.told, ends, strict=True)], found[0].tolist()

    return run


def our_search(identifiers: IntArray) -> Callable[[Sequence[Tensor]], tuple[list[float], list[list[int]]]]:
    """Our expansion, level by level: seconds of each step, and the identifiers found."""
    trie = ItemTrie.build(identifiers)

    @torch.inference_mode()
    def run(logits: Sequence[Tensor]) -> tuple[list[float], list[list[int]]]:
        seconds, tokens = search(trie, BEAMS, expand_now, logits, time.perf_counter)
        return seconds, tokens.tolist()

    return run


def compare(items: int) -> list[MaskRow]:
    """Time both at each depth of a catalog of so many items."""
    identifiers = make_identifiers(items)
    ours, static = our_search(identifiers), static_search(identifiers)
    torch.manual_seed(0)
    times: dict[str, list[list[float]]] = {"ours": [], "static": []}
    equal = True
    for number in range(WARM_UP + ROUNDS):
        logits = [torch.randn(1 if depth == 0 else BEAMS, CODES) for depth in range(DEPTH)]
        turns = [("ours", ours), ("static", static)]
        found = {}
        for name, find in turns if number % 2 else reversed(turns):
            seconds, found[name] = find(logits)
            if number >= WARM_UP:
                times[name].append(seconds)
        equal = equal and found["ours"] == found["static"]
    medians = {name: 1e3 * np.median(seconds, axis=0) for name, seconds in times.items()}
    return [MaskRow(items, depth, float(medians["ours"][depth]), float(medians["static"][depth]), equal) for depth in range(DEPTH)]


def main() -> None:
    """Print a row of JSON for each depth of each catalog."""
    threads, *sizes = sys.argv[1:]
    torch.set_num_threads(int(threads))
    for items in sizes:
        for row in compare(int(items)):
            print(json.dumps(asdict(row)), flush=True)


if __name__ == "__main__":
    main()
