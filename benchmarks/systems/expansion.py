"""Time of a beam's expansion level by level: this project's, the formula it had before, and STATIC's where it is given.

Invariant: all search the same random catalog with the same logits, one after the other in each round, on one thread; and they find the same
identifiers, or there is an error. A level's time is what the processor spends from the model's logits to the next beam, normalisation over
the vocabulary included; so other work on the machine disturbs it little.
"""

import importlib
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.endings import BenchmarkError
from benchmarks.markdown import markdown_table
from drafting.array_types import IntArray
from drafting.beam.continuations import RowKinds, continuation_log_probs
from drafting.beam.expand import Frontier, ScoredContinuations, expand_beam
from drafting.beam.rows import Rows
from drafting.beam.rule import Normalisation
from drafting.device import MANY_STRETCHES, STRETCH
from drafting.trie.item_trie import ItemTrie

LEVELS = 4
CODES = 4096
WARM_UP = 5
# Seconds of each level, and the tokens of the identifiers found, best first, `[beams, levels]`.
Search = Callable[[Sequence[Tensor]], tuple[list[float], Tensor]]
Expansion = Callable[[ItemTrie, int, Frontier, Tensor, int], tuple[Tensor, Tensor]]


def make_identifiers(items: int, codes: int = CODES, *, shared: bool = False) -> IntArray:
    """`[items, levels]` distinct random token ids in order; each level has tokens of its own, unless all are to share theirs."""
    rng, keys = np.random.default_rng(items), np.empty(0, np.int64)
    while len(keys) < items:
        keys = np.unique(np.concatenate([keys, rng.integers(codes**LEVELS, size=items - len(keys))]))
    identifiers = np.stack([keys // codes**power % codes for power in range(LEVELS)[::-1]], axis=1)
    return identifiers if shared else identifiers + codes * np.arange(LEVELS)


def expand_now(trie: ItemTrie, depth: int, frontier: Frontier, logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Nodes and scores of the next beam, `[k]` each, as the engine finds them."""
    nodes = frontier.trie_nodes
    kinds = RowKinds.uniform(len(nodes), depth, Normalisation.VOCABULARY)
    log_probs = continuation_log_probs(trie, nodes, Rows.of(logits), kinds, trie.max_children[depth], None)
    first_child = trie.child_offsets.index_select(0, nodes)
    selection = expand_beam(ScoredContinuations(frontier, first_child, frontier.cum_log_probs[:, None] + log_probs), k)
    return selection.nodes[0], selection.cum_log_probs[0]


def expand_before(trie: ItemTrie, depth: int, frontier: Frontier, logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The same by a log-softmax over the vocabulary and a key of 64 bits for each continuation."""
    width = trie.max_children[depth]
    first, end = trie.children(frontier.trie_nodes)
    tokens = trie.token.unfold(0, width, 1).index_select(0, first)
    log_probs = logits.float().log_softmax(1).gather(1, tokens).add_(trie.padding_mask(first, end, width))
    scores = (frontier.cum_log_probs[:, None] + log_probs).view(1, -1)
    if scores.shape[1] < MANY_STRETCHES * k * STRETCH:
        places = _by_keys(scores, k)
    else:
        padded = torch.nn.functional.pad(scores, (0, -scores.shape[1] % STRETCH), value=float("-inf")).view(1, -1, STRETCH)
        stretches = _by_keys(padded.amax(2), k).sort(1).values
        best = padded.gather(1, stretches[:, :, None].expand(-1, -1, STRETCH)).flatten(1)
        places = (stretches[:, :, None] * STRETCH + torch.arange(STRETCH)).flatten(1).gather(1, _by_keys(best, k))
    found = scores.gather(1, places)
    nodes = first.take(places.div(width, rounding_mode="floor")).add_(places.remainder(width))
    return nodes.masked_fill_(found == float("-inf"), -1)[0], found[0]


def _by_keys(scores: Tensor, k: int) -> Tensor:
    bits = (scores + 0.0).view(torch.int32)
    ordered = (bits >> 31).bitwise_and_(0x7FFFFFFF).bitwise_xor_(bits)
    return torch.arange(scores.shape[1]).sub(ordered, alpha=1 << 32).topk(k, dim=1, largest=False).indices


def search(trie: ItemTrie, k: int, expand: Expansion, logits: Sequence[Tensor]) -> tuple[list[float], Tensor]:
    """A beam search; see `Search`."""
    nodes, cum_log_probs, seconds = torch.zeros(1, dtype=torch.int64), torch.zeros(1), []
    for depth, given in enumerate(logits):
        started = time.process_time()
        frontier = Frontier(torch.arange(len(nodes)), nodes, (len(nodes),), cum_log_probs)
        nodes, cum_log_probs = expand(trie, depth, frontier, given[: len(nodes)], k)
        seconds.append(time.process_time() - started)
    paths = [nodes.numpy()]
    for depth in range(trie.depth, 1, -1):
        paths.append(trie.parents(paths[-1], depth))
    return seconds, trie.token[torch.from_numpy(np.stack(paths[::-1], axis=1))]


def add_static(checkout: Path) -> None:
    """Put a checkout of github.com/youtube/static-constraint-decoding on the path.

    Raises:
        BenchmarkError: it is not there.
    """
    if not (checkout / "static_decoding" / "decoding_pt.py").exists():
        raise BenchmarkError(f"There is no checkout of STATIC in {checkout}: static_decoding/decoding_pt.py is missing.")
    sys.path.insert(0, str(checkout))


def static_search(identifiers: IntArray, k: int, vocabulary: int) -> Search:
    """STATIC's PyTorch decoder over the same identifiers; its packages are on the path."""
    decoding: Any = importlib.import_module("static_decoding.decoding_pt")
    index: Any = importlib.import_module("static_decoding.csr_utils").build_static_index(identifiers, vocab_size=vocabulary)
    packed, indptr, branches, start_mask, dense_mask, dense_states = (
        torch.from_numpy(part) if isinstance(part, np.ndarray) else part for part in index
    )
    rest = branches, packed, indptr, start_mask, dense_mask, dense_states, torch.device("cpu")

    def run(logits: Sequence[Tensor]) -> tuple[list[float], Tensor]:
        given, began, ended = iter(logits), [], []

        def model(tokens: Tensor) -> Tensor:
            """Logits for as many rows as there are tokens; in between, STATIC expands."""
            ended.append(time.process_time())
            answer = next(given)[: len(tokens), None]
            began.append(time.process_time())
            return answer

        tokens: Tensor = decoding.sparse_transition_torch(model, 1, k, k, 0, LEVELS, vocabulary, *rest)
        ended.append(time.process_time())
        return [end - begin for begin, end in zip(began, ended[1:], strict=True)], tokens[0].long()

    return run


@torch.inference_mode()
def run(items: int, beams: int, rounds: int, static: Path | None) -> None:
    """Print milliseconds of the processor for each level as a Markdown table, medians over rounds.

    Raises:
        BenchmarkError: the catalog has too few items for the beams, or STATIC is not there, or finds other identifiers.
    """
    torch.set_num_threads(1)
    identifiers = make_identifiers(items)
    trie = ItemTrie.build(identifiers)
    if beams > (most := trie.level_size(1)):
        raise BenchmarkError(
            f"The first codes of {items} items are {most}, too few for {beams} beams: give more --items, or fewer --beams."
        )
    searches: dict[str, Search] = {
        "now": partial(search, trie, beams, expand_now),
        "log-softmax and keys": partial(search, trie, beams, expand_before),
    }
    if static is not None:
        add_static(static)
        searches["STATIC"] = static_search(identifiers, beams, LEVELS * CODES)
    seconds: dict[str, list[list[float]]] = {name: [] for name in searches}
    torch.manual_seed(0)
    for number in tqdm(range(WARM_UP + rounds), desc="Expanding", unit="round", leave=False, disable=None):
        logits = [torch.randn(beams if depth else 1, LEVELS * CODES) for depth in range(LEVELS)]
        found = {}
        # The first one to read logits and nodes has them less near than the others.
        for name in sorted(searches, key=lambda name: (list(searches).index(name) + number) % len(searches)):
            levels, found[name] = searches[name](logits)
            if number >= WARM_UP:
                seconds[name].append(levels)
        if any(not tokens.equal(found["now"]) for tokens in found.values()):
            raise BenchmarkError("The searches find other identifiers.")
    heads = (f"{len(identifiers)} items, {beams} beams", *(f"depth {depth}" for depth in range(LEVELS)))
    rows = [(name, *(f"{1e3 * value:.3f} ms" for value in np.median(each, axis=0))) for name, each in seconds.items()]
    print(markdown_table(heads, rows))
