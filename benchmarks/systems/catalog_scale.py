"""Scaling of the catalog: time to build, memory and time per expansion for 10^4 to 10^7 items.

Invariant: each size is built in one process and loaded in another, so a figure of the loaded catalog holds nothing that building has left
behind; identifiers are uniformly random, which shares the fewest prefixes and so makes the largest trie.
"""

import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import torch
from tqdm import tqdm

from drafting.beam.continuations import RowKinds, continuation_log_probs
from drafting.beam.expand import Frontier, ScoredContinuations, expand_beam
from drafting.beam.rows import Rows
from drafting.beam.rule import Normalisation
from drafting.catalog.artefact import load_artefact, save_artefact
from drafting.catalog.catalog import Catalog
from drafting.catalog.text_column import TextColumn
from drafting.trie.eligibility import BatchEligibility, Eligibility
from drafting.trie.item_set import ItemSet, intersection
from drafting.trie.item_trie import ItemTrie
from drafting.trie.node_mask import MaskBank

CPU = torch.device("cpu")
LEVELS = 4
CODES = 4096
K = 50
EXCLUDED = 100
ELIGIBLE_SHARE = 0.3
REPEATS = 50
FILTERED_SIZE = 10**6
FILTERS = 1000
SHARING = 16
_NAMES_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Built:
    """Time and memory to build one catalog.

    Attributes:
        items, nodes: of the catalog and its trie.
        build_seconds: from columns to a catalog with its index, trie and version.
        write_seconds: to the artefact.
        file_mib: size of the artefact.
        peak_mib: the most memory that the process held.
    """

    items: int
    nodes: int
    build_seconds: float
    write_seconds: float
    file_mib: float
    peak_mib: float


@dataclass(frozen=True)
class Loaded:
    """Memory and times of one loaded catalog.

    Attributes:
        load_seconds: from the artefact to a trie that can be searched.
        empty_mib: memory of the process before, PyTorch and all.
        resident_mib: memory of the process after all that follows.
        plain_ms, masked_ms: by depth of the prefixes, an expansion of K prefixes from logits to the best K, without and with a filter
            and exclusions.
        softmax_ms: what the log-softmax over the vocabulary takes of it.
        mask_ms: to compute the allowed nodes of a filter that allows three items in ten.
        narrow_mask_ms: the same for a filter that leaves five items.
        lookup_us: to find an item by name.
    """

    load_seconds: float
    empty_mib: float
    resident_mib: float
    plain_ms: tuple[float, ...]
    masked_ms: tuple[float, ...]
    softmax_ms: tuple[float, ...]
    mask_ms: float
    narrow_mask_ms: float
    lookup_us: float


def build(items: int, path: Path) -> Built:
    """Build a catalog of random identifiers and write it."""
    rng = np.random.default_rng(items)
    starts = range(0, items, _NAMES_AT_ONCE)
    names = TextColumn.join([TextColumn.of(f"item-{n}" for n in range(start, min(start + _NAMES_AT_ONCE, items))) for start in starts])
    codes = (rng.integers(CODES, size=(items, LEVELS)) + CODES * np.arange(LEVELS)).astype(np.uint16)
    tokens = [f"<{letter}_{code}>" for letter in "abcd" for code in range(CODES)]
    started = time.perf_counter()
    catalog = Catalog.of(names, tokens, codes, {})
    built = time.perf_counter()
    save_artefact(catalog, path)
    written = time.perf_counter()
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Built(items, catalog.trie.nodes, built - started, written - built, path.stat().st_size / 2**20, peak / 2**20)


def load(path: Path) -> Loaded:
    """Load an artefact and time what a search does with it."""
    torch.set_num_threads(1)
    empty = psutil.Process().memory_info().rss
    started = time.perf_counter()
    catalog = load_artefact(path)
    trie = ItemTrie.of(catalog.trie, np.arange(len(catalog.tokens)))
    loaded = time.perf_counter()
    rng = np.random.default_rng(0)
    bank = MaskBank(trie, CPU)
    wide = ItemSet.of(rng.random(len(catalog)) < ELIGIBLE_SHARE)
    narrow = ItemSet.of_items(rng.choice(len(catalog), 5, replace=False), len(catalog))
    first = time.perf_counter()
    mask = bank.acquire(wide)
    second = time.perf_counter()
    bank.acquire(narrow)
    third = time.perf_counter()
    eligibility = Eligibility(trie.excluded_nodes(rng.integers(len(catalog), size=EXCLUDED), mask), CPU, mask)
    allowed = np.unpackbits(bank.bits.rows[mask.row].numpy(), count=trie.nodes, bitorder="little")
    plain: list[float] = []
    masked: list[float] = []
    softmax: list[float] = []
    for depth in range(LEVELS):
        level = np.flatnonzero(allowed[trie.level_starts[depth] : trie.level_starts[depth + 1]]) + trie.level_starts[depth]
        parents = torch.from_numpy(rng.choice(level, min(K, len(level)), replace=False))
        logits = torch.randn(len(parents), len(catalog.tokens))
        eligible = BatchEligibility.of([eligibility], trie.nodes, [len(parents)])
        plain.append(_median_ms(partial(_expand, trie, parents, depth, logits, None)))
        masked.append(_median_ms(partial(_expand, trie, parents, depth, logits, eligible)))
        softmax.append(_median_ms(partial(torch.log_softmax, logits, 1)))
    lookup = 1000 * _median_ms(lambda: catalog.index_of("item-77"))
    resident = psutil.Process().memory_info().rss
    return Loaded(
        loaded - started,
        empty / 2**20,
        resident / 2**20,
        tuple(plain),
        tuple(masked),
        tuple(softmax),
        1000 * (second - first),
        1000 * (third - second),
        lookup,
    )


@dataclass(frozen=True)
class Filtered:
    """Memory and times of many named filters over one catalog.

    Attributes:
        filters: how many.
        sets_mib: memory of their sets.
        masks_mib: memory of the masks after all of them were used once.
        combine_us: to combine two of them and the complement of a third.
        first_ms, again_ms: to take up a request's filter that was not used before, and one that was.
        plain_ms, filtered_ms: an expansion of 16 requests with K prefixes each at depth 1, with no filter and with 16 different ones.
    """

    filters: int
    sets_mib: float
    masks_mib: float
    combine_us: float
    first_ms: float
    again_ms: float
    plain_ms: float
    filtered_ms: float


def measure_filters(path: Path, filters: int) -> Filtered:
    """Use many filters over a loaded catalog, each once."""
    torch.set_num_threads(1)
    catalog = load_artefact(path)
    trie = ItemTrie.of(catalog.trie, np.arange(len(catalog.tokens)))
    rng = np.random.default_rng(0)
    before = psutil.Process().memory_info().rss
    sets = [ItemSet.of(rng.random(len(catalog)) < share) for share in rng.uniform(0.001, 0.5, filters)]
    sets_bytes = psutil.Process().memory_info().rss - before
    bank = MaskBank(trie, CPU)
    seconds = []
    for items in sets:
        started = time.perf_counter()
        bank.release(bank.acquire(items))
        seconds.append(time.perf_counter() - started)
    each = [Eligibility(np.empty(0, np.int64), CPU, bank.acquire(items)) for items in sets[-SHARING:]]
    level = np.arange(trie.level_starts[1], trie.level_starts[2])
    parents = torch.from_numpy(np.concatenate([rng.choice(level, K, replace=False) for _ in each]))
    requests = [np.arange(K) + K * number for number in range(SHARING)]
    logits = torch.randn(len(parents), len(catalog.tokens))
    return Filtered(
        filters,
        sets_bytes / 2**20,
        bank.bits.rows.numel() / 2**20,
        1000 * _median_ms(lambda: intersection([sets[0], sets[1], sets[2].complement])),
        1000 * float(np.median(seconds)),
        _median_ms(lambda: bank.release(bank.acquire(sets[-1]))),
        _median_ms(partial(_expand, trie, parents, 1, logits, None, requests)),
        _median_ms(partial(_expand, trie, parents, 1, logits, BatchEligibility.of(each, trie.nodes, [K] * SHARING), requests)),
    )


def _expand(
    trie: ItemTrie,
    parents: torch.Tensor,
    depth: int,
    logits: torch.Tensor,
    eligible: BatchEligibility | None,
    requests: Sequence[npt.NDArray[np.int64]] | None = None,
) -> None:
    sizes = tuple(map(len, requests)) if requests else (len(parents),)
    frontier = Frontier(torch.arange(len(parents)), parents, sizes, torch.zeros(len(parents)))
    kinds = RowKinds.uniform(len(parents), depth, Normalisation.VOCABULARY)
    log_probs = continuation_log_probs(trie, parents, Rows.of(logits), kinds, trie.max_children[depth], eligible)
    expand_beam(ScoredContinuations(frontier, trie.child_offsets[parents], log_probs), K)


def _median_ms(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return 1000 * float(np.median(seconds))


def run(sizes: Sequence[int]) -> None:
    """Measure every size, each half in a new process."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, context, max_tasks_per_child=1) as processes:
        path = Path(folder) / "synthetic.catalog"
        for size in tqdm(sizes, desc="Measuring", unit="catalog", leave=False, disable=None):
            built = asdict(processes.submit(build, size, path).result())
            print(json.dumps(built | asdict(processes.submit(load, path).result())), flush=True)
            if size == FILTERED_SIZE:
                print(json.dumps(asdict(processes.submit(measure_filters, path, FILTERS).result())), flush=True)
