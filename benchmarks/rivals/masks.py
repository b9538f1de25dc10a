"""STATIC's constrained step against our expansion: from logits to the next beam, on the same trie, over the same logits, in one process.

Invariant: both are asked as `atspeed-bench expansion` asks them, but for catalogs whose levels share their tokens, as STATIC's do. They
take turns, and the identifiers that they find are compared.
"""

import json
import sys
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch

from benchmarks.systems.expansion import CODES, LEVELS, WARM_UP, Search, expand_now, make_identifiers, search, static_search
from drafting.trie.item_trie import ItemTrie

BEAMS = 50
ROUNDS = 40


@dataclass(frozen=True)
class MaskRow:
    """One step; times are medians of what the processor spends.

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


@torch.inference_mode()
def compare(items: int) -> list[MaskRow]:
    """Time both at each depth of a catalog of so many items."""
    identifiers = make_identifiers(items, shared=True)
    searches: dict[str, Search] = {
        "ours": partial(search, ItemTrie.build(identifiers), BEAMS, expand_now),
        "static": static_search(identifiers, BEAMS, CODES),
    }
    torch.manual_seed(0)
    times: dict[str, list[list[float]]] = {name: [] for name in searches}
    equal = True
    for number in range(WARM_UP + ROUNDS):
        logits = [torch.randn(BEAMS if depth else 1, CODES) for depth in range(LEVELS)]
        found = {}
        for name in sorted(searches, reverse=bool(number % 2)):
            seconds, found[name] = searches[name](logits)
            if number >= WARM_UP:
                times[name].append(seconds)
        equal = equal and found["ours"].equal(found["static"])
    medians = {name: 1e3 * np.median(seconds, axis=0) for name, seconds in times.items()}
    return [MaskRow(items, depth, float(medians["ours"][depth]), float(medians["static"][depth]), equal) for depth in range(LEVELS)]


def main() -> None:
    """Print a row of JSON for each depth of each catalog."""
    threads, *sizes = sys.argv[1:]
    torch.set_num_threads(int(threads))
    for items in sizes:
        for row in compare(int(items)):
            print(json.dumps(asdict(row)), flush=True)


if __name__ == "__main__":
    main()
