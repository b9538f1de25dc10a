"""The expansion's benchmark: all that it times finds the same."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.endings import BenchmarkError
from benchmarks.rivals import masks
from benchmarks.systems.expansion import CODES, LEVELS, expand_now, make_identifiers, run, search
from drafting.trie.item_trie import ItemTrie
from verification.evaluation.generate import PrefixTable


def test_both_formulas_find_the_same_identifiers(capsys: pytest.CaptureFixture[str]) -> None:
    run(3000, 5, 2, None)
    table = capsys.readouterr().out.splitlines()
    assert [row.split("|")[1].strip() for row in table[2:]] == ["now", "log-softmax and keys"]
    assert all(row.count(" ms |") == LEVELS for row in table[2:])


def test_identifiers_are_distinct_and_in_order_and_each_level_has_its_own_tokens() -> None:
    identifiers = make_identifiers(2000)
    assert len(np.unique(identifiers, axis=0)) == len(identifiers) == 2000
    assert np.array_equal(identifiers, identifiers[np.lexsort(identifiers.T[::-1])])
    assert np.array_equal(identifiers // CODES, np.broadcast_to(np.arange(LEVELS), identifiers.shape))


def test_a_checkout_that_is_not_there_is_told(tmp_path) -> None:
    with pytest.raises(BenchmarkError, match="no checkout of STATIC"):
        run(100, 2, 1, tmp_path)


def brute_force(identifiers: np.ndarray, logits: list[torch.Tensor], k: int) -> list[tuple[int, ...]]:
    """A beam search that asks of every prefix what may follow it."""
    follows, beams = PrefixTable(identifiers).next, [((), 0.0)]
    for each in logits:
        rated = [
            ((*prefix, token), score + float(each[row].log_softmax(0)[token]))
            for row, (prefix, score) in enumerate(beams)
            for token in follows[prefix]
        ]
        beams = sorted(rated, key=lambda one: -one[1])[:k]
    return [prefix for prefix, _ in beams]


def test_a_search_finds_what_one_over_all_prefixes_finds() -> None:
    identifiers = make_identifiers(200, 8, shared=True)
    assert len(np.unique(identifiers, axis=0)) == len(identifiers) == 200
    assert identifiers.max() < 8
    torch.manual_seed(0)
    logits = [torch.randn(6 if depth else 1, 8) for depth in range(LEVELS)]
    _, found = search(ItemTrie.build(identifiers), 6, expand_now, logits)
    assert [tuple(row) for row in found.tolist()] == brute_force(identifiers, logits, 6)


@pytest.mark.parametrize("errs", [False, True])
def test_static_is_asked_for_the_same_lists(errs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stood in for by a brute force with its two functions' arguments."""
    monkeypatch.setattr(masks, "BEAMS", 3)
    monkeypatch.setattr(masks, "ROUNDS", 1)

    def index(identifiers: np.ndarray, vocab_size: int) -> tuple[object, ...]:
        return np.sort(identifiers, axis=0) if errs else identifiers, np.zeros(1), vocab_size, *3 * [np.zeros(1)]

    def decode(model, batch, k, wide, start, levels, vocabulary, branches, packed, *rest) -> torch.Tensor:
        assert (batch, k, wide, start, levels, branches, len(rest)) == (1, 3, 3, 0, LEVELS, vocabulary, 5)
        logits = [model(torch.zeros(k if depth else 1, 1))[:, 0] for depth in range(levels)]
        return torch.tensor([brute_force(packed.numpy(), logits, k)])

    for name, function in (("csr_utils", {"build_static_index": index}), ("decoding_pt", {"sparse_transition_torch": decode})):
        monkeypatch.setitem(sys.modules, f"static_decoding.{name}", SimpleNamespace(**function))
    rows = masks.compare(40)
    assert [(row.items, row.depth, row.equal) for row in rows] == [(40, depth, not errs) for depth in range(LEVELS)]
    assert all(row.ours_ms > 0 and row.static_ms > 0 for row in rows)


def test_more_beams_than_the_first_level_has_prefixes_are_told() -> None:
    with pytest.raises(BenchmarkError, match="The first codes of 3 items are 3, too few for 5 beams"):
        run(3, 5, 1, None)
