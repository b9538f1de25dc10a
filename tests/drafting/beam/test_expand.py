"""Beam expansion against a sort over every continuation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from drafting import device
from drafting.beam.continuations import RowKinds, continuation_log_probs
from drafting.beam.expand import Frontier, ScoredContinuations, expand_beam
from drafting.beam.rows import Rows
from drafting.beam.rule import Normalisation
from drafting.device import MANY_STRETCHES, STRETCH, find_nodes, stable_topk
from drafting.trie.eligibility import BatchEligibility, Eligibility
from drafting.trie.item_trie import ItemTrie
from drafting.trie.token_set import TokenSet

VOCABULARY = 12
CPU = torch.device("cpu")


def log_probs_of(
    trie: ItemTrie,
    nodes: torch.Tensor,
    logits: torch.Tensor,
    width: int,
    eligible: BatchEligibility | None,
    over: Normalisation = Normalisation.VOCABULARY,
    depth: int = 0,
) -> torch.Tensor:
    """Of prefixes of one length, from all logits."""
    return continuation_log_probs(trie, nodes, Rows.of(logits), RowKinds.uniform(len(nodes), depth, over), width, eligible)


@st.composite
def cases(draw: st.DrawFn) -> tuple[ItemTrie, int, list[list[int]], torch.Tensor, torch.Tensor, list[torch.Tensor], int]:
    """Requests that stand at one depth of a random trie, with coarse logits so that scores tie often."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    depth = draw(st.integers(1, 4))
    identifiers = rng.integers(VOCABULARY, size=(draw(st.integers(1, 40)), depth))
    trie = ItemTrie.build(identifiers)
    level = draw(st.integers(0, depth - 1))
    nodes = np.arange(trie.level_starts[level], trie.level_starts[level + 1])
    beams = [rng.permutation(nodes)[: rng.integers(1, len(nodes) + 1)].tolist() for _ in range(draw(st.integers(1, 4)))]
    rows = sum(map(len, beams))
    logits = torch.from_numpy(rng.integers(0, 3, (rows, VOCABULARY)).astype(np.float32))
    scores = torch.from_numpy(-rng.integers(0, 3, rows).astype(np.float32))
    barred = [rng.permutation(len(identifiers))[: rng.integers(0, len(identifiers))] for _ in beams]
    excluded = [Eligibility(trie.excluded_nodes(items), CPU) for items in barred]
    return trie, level, beams, logits, scores, excluded, draw(st.integers(1, 15))


@given(cases())
def test_selection_equals_a_stable_sort_of_all_valid_continuations(case) -> None:
    trie, level, beams, logits, scores, excluded, k = case
    flat = [node for beam in beams for node in beam]
    sizes = [len(beam) for beam in beams]
    frontier = Frontier(100 + torch.arange(len(flat)), torch.tensor(flat), tuple(sizes), scores)
    eligible = BatchEligibility.of(excluded, trie.nodes, sizes)
    totals = log_probs_of(trie, torch.tensor(flat), logits, trie.max_children[level], eligible, depth=level) + scores[:, None]
    selection = expand_beam(ScoredContinuations(frontier, trie.child_offsets[torch.tensor(flat)], totals), k)
    starts = np.cumsum(sizes) - sizes
    log_probs = logits.log_softmax(1)
    for request, beam in enumerate(beams):
        expected = []
        for rank, node in enumerate(beam):
            row = int(starts[request]) + rank
            for child in range(int(trie.child_offsets[node]), int(trie.child_offsets[node + 1])):
                if child not in excluded[request].excluded_nodes.tolist():
                    score = float(totals[row, child - int(trie.child_offsets[node])])
                    assert abs(score - float(scores[row] + log_probs[row, trie.token[child]])) < 1e-5
                    expected.append((rank, child, score))
        expected.sort(key=lambda continuation: -continuation[2])
        expected = expected[:k]
        size = len(expected)
        assert selection.parent_slots[request, :size].tolist() == [100 + int(starts[request]) + rank for rank, _, _ in expected]
        assert selection.nodes[request, :size].tolist() == [child for _, child, _ in expected]
        assert selection.cum_log_probs[request, :size].tolist() == [score for _, _, score in expected]
        assert selection.cum_log_probs[request, size:].eq(float("-inf")).all()
        assert selection.nodes[request, size:].eq(-1).all()


@given(st.lists(st.sampled_from([0.0, -0.0, -1.0, -2.5, 3.0, -1e30, float("-inf")]), min_size=1, max_size=30), st.data())
def test_stable_topk_is_a_stable_sort(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values)))
    expected = sorted(range(len(values)), key=lambda place: -values[place])[:k]
    best, indices = stable_topk(torch.tensor([values]), k)
    assert indices[0].tolist() == expected
    assert best[0].equal(torch.tensor(values)[indices[0]])


@given(seed=st.integers(0, 10**6), k=st.integers(1, 6), levels=st.integers(1, 300) | st.just(10**7), missing=st.floats(0, 1))
def test_long_rows_are_sorted_alike(seed: int, k: int, levels: int, missing: float) -> None:
    """Rows long enough to be looked at by stretches, with many equal scores or next to none, few of them finite."""
    rng = np.random.default_rng(seed)
    width = MANY_STRETCHES * k * STRETCH + int(rng.integers(3 * STRETCH))
    scores = torch.from_numpy(rng.integers(levels, size=(2, width)).astype(np.float32) - levels / 2)
    scores[torch.from_numpy(rng.random((2, width)) < missing)] = float("-inf")
    expected = np.argsort(-scores.numpy(), axis=1, kind="stable")[:, :k]
    best, indices = stable_topk(scores, k)
    assert indices.tolist() == expected.tolist()
    assert best.equal(scores.gather(1, indices))


def test_log_probabilities_are_over_the_whole_vocabulary() -> None:
    trie = ItemTrie.build(np.array([[1], [4]]))
    logits = torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(0))
    log_probs = log_probs_of(trie, torch.tensor([0]), logits, 2, None)
    torch.testing.assert_close(log_probs[0], logits.log_softmax(1)[0, [1, 4]])
    assert log_probs.exp().sum() < 1


@pytest.mark.parametrize("over", Normalisation)
@pytest.mark.parametrize("vocabulary", [VOCABULARY, 9000])
def test_rows_of_unlike_depths_and_requests_get_what_they_get_alone(over: Normalisation, vocabulary: int) -> None:
    """All logits there or projected, few or many of them; each kind no wider than its depth, padded for those who read all alike."""
    rng = np.random.default_rng(vocabulary)
    trie = ItemTrie.build(rng.integers(VOCABULARY, size=(60, 3)))
    nodes = torch.from_numpy(np.concatenate([[0], rng.integers(1, trie.level_starts[3], 20), [0]]))
    depths = np.searchsorted(trie.level_starts, nodes.numpy(), side="right") - 1
    logits = torch.from_numpy(rng.normal(size=(len(nodes), vocabulary)).astype(np.float32) * 5)
    eligible = BatchEligibility.of([Eligibility(trie.excluded_nodes([3, 4, 5]), CPU)], trie.nodes, [len(nodes)])
    kinds, width = RowKinds([depths[:9], depths[9:]], [over, Normalisation.VOCABULARY]), max(trie.max_children)
    for rows in (Rows.of(logits), Rows(logits, ProjectedHead(vocabulary))):
        found = continuation_log_probs(trie, nodes, rows, kinds, width, eligible)
        for row, depth in enumerate(depths.tolist()):
            one = BatchEligibility.of([Eligibility(trie.excluded_nodes([3, 4, 5]), CPU)], trie.nodes, [1])
            own = over if row < 9 else Normalisation.VOCABULARY
            alone = log_probs_of(trie, nodes[row : row + 1], logits[row : row + 1], trie.max_children[depth], one, own, depth)
            torch.testing.assert_close(found[row, : alone.shape[1]], alone[0])
            assert found[row, alone.shape[1] :].eq(float("-inf")).all()


def test_rows_of_a_large_vocabulary_are_the_same_to_the_bit_beside_others_of_other_depths() -> None:
    """Also where all logits are there, as of a head that is not taken apart."""
    rng = np.random.default_rng(0)
    trie = ItemTrie.build(rng.integers(VOCABULARY, size=(60, 3)))
    logits, width = torch.from_numpy(rng.normal(size=(40, 9000)).astype(np.float32) * 5), max(trie.max_children)
    kinds = RowKinds([np.tile([0, 1], 20)], [Normalisation.VOCABULARY])
    for rows in (Rows.of(logits), Rows(logits, ProjectedHead(9000))):
        alike = RowKinds.uniform(40, 0, Normalisation.VOCABULARY)
        alone = continuation_log_probs(trie, torch.zeros(40, dtype=torch.int64), rows, alike, width, None)
        beside = continuation_log_probs(trie, torch.tensor([0, 1] * 20), rows, kinds, width, None)
        assert torch.equal(beside[::2], alone[::2])


class ProjectedHead:
    """A head of rows whose states are logits, which it gives away only as it is asked."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        assert self.vocabulary < 9000, "all logits of a large vocabulary"
        return states

    def project(self, states: torch.Tensor, tokens: TokenSet) -> torch.Tensor:
        return states[:, tokens.ids]

    def log_normaliser(self, states: torch.Tensor) -> torch.Tensor:
        return states.logsumexp(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scale", [1.0, 80.0, 1e4])
def test_the_normaliser_of_logits_that_are_there_is_theirs_whatever_their_size(scale: float, dtype: torch.dtype) -> None:
    """Sums of exponentials that are in range, infinite and nothing at all, side by side; NaN and infinity stay what they are."""
    logits = torch.randn(50, 3000, generator=torch.Generator().manual_seed(0)) * scale
    logits[1] -= 200
    logits[2] += 200
    logits[3, 7] = float("nan")
    logits[4, 7] = float("inf")
    logits[5] = float("-inf")
    logits = logits.to(dtype)
    torch.testing.assert_close(Rows.of(logits).log_normaliser(), logits.float().logsumexp(1), equal_nan=True)


def test_a_normaliser_is_in_float32_whatever_type_is_the_default() -> None:
    logits = torch.randn(5, 3000, generator=torch.Generator().manual_seed(0))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = Rows.of(logits).log_normaliser()
    finally:
        torch.set_default_dtype(before)
    torch.testing.assert_close(found, logits.logsumexp(1))


@given(cases(), st.sampled_from([torch.float32, torch.bfloat16]), st.integers(-3, 3))
def test_log_probabilities_over_children_are_those_of_a_softmax_over_them_alone(case, dtype: torch.dtype, power: int) -> None:
    """Whatever is excluded, which only takes scores away; a leaf has none, and an only child's is exactly 0."""
    trie, level, beams, logits, _, excluded, _ = case
    # Of the first level is but the root.
    leaf = trie.nodes - 1 if level else 0
    nodes = torch.tensor([*(node for beam in beams for node in beam), leaf])
    logits = (torch.cat([logits, logits[:1]]) * 10.0**power).to(dtype)
    sizes, width = [*map(len, beams), 1], trie.max_children[level]
    eligible = BatchEligibility.of([*excluded, excluded[0]], trie.nodes, sizes)
    everything = log_probs_of(trie, nodes, logits, width, None, Normalisation.CHILDREN, level)
    for row, node in enumerate(nodes.tolist()):
        tokens = trie.token[int(trie.child_offsets[node]) : int(trie.child_offsets[node + 1])]
        torch.testing.assert_close(everything[row, : len(tokens)], logits[row, tokens].float().log_softmax(0))
        assert everything[row, len(tokens) :].eq(float("-inf")).all()
        if len(tokens) == 1:
            assert everything[row, 0] == 0
    left = log_probs_of(trie, nodes, logits, width, eligible, Normalisation.CHILDREN, level)
    whole = log_probs_of(trie, nodes, logits, width, eligible, depth=level)
    assert torch.equal(left.isinf(), whole.isinf()), "what may be entered is the same"
    assert torch.equal(left, torch.where(left.isinf(), left, everything))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("token", [1, 4, 9])
def test_over_children_only_what_is_read_makes_a_row_nan(token: int, value: float) -> None:
    """Also where the first child is excluded; a token of no child is nobody's business."""
    trie = ItemTrie.build(np.array([[1], [4]]))
    excluded = [Eligibility(trie.excluded_nodes([0]), CPU), Eligibility(trie.excluded_nodes([1]), CPU)]
    logits = torch.randn(2, VOCABULARY, generator=torch.Generator().manual_seed(0))
    logits[0, token] = value
    eligible = BatchEligibility.of(excluded, trie.nodes, [1, 1])
    log_probs = log_probs_of(trie, torch.tensor([0, 0]), logits, 2, eligible, Normalisation.CHILDREN)
    assert log_probs[0].isnan().tolist() == [token != 9] * 2
    assert log_probs[1, 0].isfinite()
    assert log_probs[1, 1] == float("-inf")


def test_carriers_check_their_shapes() -> None:
    with pytest.raises(ValueError, match="share rows"):
        ScoredContinuations(Frontier(torch.zeros(2), torch.zeros(2), (2,), torch.zeros(2)), torch.zeros(3), torch.zeros(2, 2))


def test_nodes_are_found_where_they_stand_and_what_pads_is_found_nowhere() -> None:
    indices = find_nodes(torch.tensor([[5, 7, -1], [9, 2, 4]]), torch.tensor([[7, 5, -2], [4, 9, 8]]))
    assert indices.tolist() == [[1, 0, -1], [1, -1, 0]]
    assert find_nodes(torch.tensor([[5]]), torch.empty(1, 0, dtype=torch.int64)).tolist() == [[-1]]


def test_many_nodes_are_found_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """By sorting or by comparing: the first of equal ones, and never what pads."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        rows, k, count = rng.integers(1, 5), rng.integers(1, 20), rng.integers(1, 40)
        wanted, among = rng.integers(-1, 30, size=(rows, k)), rng.integers(0, 30, size=(rows, count))
        among[:, count // 2 :] = np.where(rng.random(among[:, count // 2 :].shape) < 0.5, -2, among[:, count // 2 :])
        pairs = zip(wanted.tolist(), among.tolist(), strict=True)
        expected = [[row.index(node) if node in row else -1 for node in asked] for asked, row in pairs]
        for many in (0, 10**9):
            monkeypatch.setattr(device, "MANY_PAIRS", many)
            assert find_nodes(torch.from_numpy(wanted), torch.from_numpy(among)).tolist() == expected


@pytest.mark.parametrize(
    ("token", "value", "finite"),
    [
        *((token, value, False) for token in (1, 4, 9) for value in (float("nan"), float("inf"))),
        *((token, float("-inf"), False) for token in (1, 4)),
        # Nothing reads it, and it adds nothing to what is read.
        (9, float("-inf"), True),
    ],
)
def test_a_row_that_is_not_finite_is_nan_from_its_first_column_on(token: int, value: float, finite: bool) -> None:
    """Also where the first child is excluded; our own masks make no row so, nor another row."""
    trie = ItemTrie.build(np.array([[1], [4]]))
    excluded = [Eligibility(trie.excluded_nodes([0]), CPU), Eligibility(trie.excluded_nodes([1]), CPU)]
    logits = torch.randn(2, VOCABULARY, generator=torch.Generator().manual_seed(0))
    logits[0, token] = value
    eligible = BatchEligibility.of(excluded, trie.nodes, [1, 1])
    log_probs = log_probs_of(trie, torch.tensor([0, 0]), logits, 2, eligible)
    assert log_probs[0].isnan().tolist() == [not finite] * 2
    assert log_probs[1, 0].isfinite()
    assert log_probs[1, 1] == float("-inf")
