"""Samples: where the loss is, by hand; that packing changes no loss; that batches are whole and in a reproducible order."""

from collections import Counter

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from drafting.alignment.bases import scratch_tokenizer
from drafting.alignment.course import Course
from drafting.alignment.data.interactions import Interactions
from drafting.alignment.data.samples import (
    IGNORED_LABEL,
    LengthBucketSampler,
    SampleSet,
)
from drafting.alignment.data.soft_labels import SoftLabels
from drafting.alignment.data.windows import Windows, newest_windows, next_windows, packed_windows, prefix_windows
from drafting.catalog.builder import catalog_of
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.template import PromptTemplate
from drafting.prompts.tokenizer import PromptTokenizer
from tests.interactions import interactions

PAD, BOS, UNK = 0, 1, 2
ITEMS = 4
CATALOG = catalog_of([(str(item), [f"<a_{item % 2}>", f"<b_{item}>"]) for item in range(ITEMS)])
TOKENIZER = scratch_tokenizer(CATALOG.tokens)
IDS = CATALOG.token_ids(TOKENIZER.get_vocab())


def random_interactions(users: int, longest: int) -> Interactions:
    rng = np.random.default_rng(0)
    return interactions(*[rng.integers(ITEMS, size=rng.integers(0, longest + 1)).tolist() for _ in range(users)])


def samples(
    history: Interactions,
    windows: Windows,
    max_items: int = 3,
    template: PromptTemplate | None = None,
    left_out: float = 0.0,
    soft: SoftLabels | None = None,
) -> SampleSet:
    builder = PromptBuilder(template or PromptTemplate(max_items=max_items), PromptTokenizer.of(TOKENIZER), CATALOG)
    return SampleSet(history, windows, builder, IDS, PAD, left_out=left_out, soft=soft)


def test_labels_of_the_newest_item_by_hand() -> None:
    history = interactions([0, 1, 2], [3], [], [2, 3])
    batch = samples(history, newest_windows(history, 3)).__getitems__([0, 1])
    items = {item: IDS[item].tolist() for item in range(ITEMS)}
    assert batch["input_ids"].tolist() == [[BOS, *items[0], *items[1], *items[2]], [BOS, *items[2], *items[3], PAD, PAD]]
    assert batch["labels"].tolist() == [
        [IGNORED_LABEL] * 5 + items[2],
        [IGNORED_LABEL] * 3 + items[3] + [IGNORED_LABEL] * 2,
    ]


def test_labels_of_a_packed_window_by_hand() -> None:
    history = interactions([0, 1, 2])
    batch = samples(history, packed_windows(history, 3, 1))[0]
    items = {item: IDS[item].tolist() for item in range(ITEMS)}
    assert batch["input_ids"].tolist() == [[BOS, *items[0], *items[1], *items[2]]]
    assert batch["labels"].tolist() == [[IGNORED_LABEL] * 3 + items[1] + items[2]]


def test_a_prompt_with_words_is_never_in_the_loss() -> None:
    history = interactions([0, 1, 2])
    template = PromptTemplate(template="<a_0>{history}<b_3>", separator="<a_1>", max_items=3)
    batch = samples(history, prefix_windows(history, 3), template=template).__getitems__([0, 1])
    words = TOKENIZER.get_vocab()
    before, between, after = words["<a_0>"], words["<a_1>"], words["<b_3>"]
    items = {item: IDS[item].tolist() for item in range(ITEMS)}
    assert batch["input_ids"].tolist()[0][:7] == [BOS, before, *items[0], after, *items[1]]
    assert batch["labels"].tolist()[0] == [IGNORED_LABEL] * 5 + items[1] + [IGNORED_LABEL] * 3
    assert batch["input_ids"].tolist()[1] == [BOS, before, *items[0], between, *items[1], after, *items[2]]
    assert not template.is_bare


@pytest.mark.parametrize("template", [None, PromptTemplate(template="<a_0>{history}", max_items=4)])
def test_soft_labels_are_those_of_the_interactions_that_are_predicted(template: PromptTemplate | None) -> None:
    """Each interaction's only soft label is its own item, so these must be the identifiers that the labels spell."""
    history = random_interactions(users=20, longest=17)
    windows = packed_windows(history, 6, 2) if template is None else prefix_windows(history, 4)
    positions = windows.predicted
    # All items but a user's first.
    assert len(positions) == np.maximum(history.lengths - 1, 0).sum()
    soft = SoftLabels(positions, history.items[positions, None], np.ones((len(positions), 1), np.float32))
    sample_set = samples(history, windows, 6, template, left_out=0.4, soft=soft)
    for epoch in range(2):
        sample_set.set_epoch(epoch)
        batch = sample_set.__getitems__([*range(len(sample_set))][::-1])
        spelt = batch["labels"][batch["labels"] != IGNORED_LABEL].view(-1, 2)
        assert spelt.tolist() == IDS[batch["soft_items"][:, 0]].tolist()
        assert len(spelt) == len(batch["soft_shares"]) > len(sample_set) - 1


def test_nothing_is_asked_of_items_that_are_only_read() -> None:
    history = interactions([0, 1, 2], [3], [], [2, 3, 1])
    assert newest_windows(history, 2).predicted.tolist() == [2, 6]
    assert packed_windows(history, 2, 1).predicted.tolist() == [1, 2, 5, 6]


def test_only_the_bare_prompt_packs() -> None:
    assert PromptTemplate().is_bare
    assert not PromptTemplate(separator=", ").is_bare
    assert not PromptTemplate(template="Seen: {history}").is_bare


def test_prompts_hold_the_newest_items_only() -> None:
    history = interactions([0, 1, 2, 3, 0])
    batch = samples(history, newest_windows(history, 2), max_items=2)[0]
    assert batch["input_ids"].tolist() == [[BOS, *IDS[2], *IDS[3], *IDS[0]]]


def test_a_sample_of_a_long_history_is_the_prompt_of_a_request() -> None:
    """Requests know one item more than prompts show, and so find out which of the old ones are left out."""
    history = random_interactions(users=20, longest=17)
    sample_set = samples(history, prefix_windows(history, 6 + 1), max_items=6)
    builder = PromptBuilder(PromptTemplate(max_items=6), PromptTokenizer.of(TOKENIZER), CATALOG)
    shorter = 0
    for index, (owner, last) in enumerate(zip(sample_set.windows.owners.tolist(), sample_set.windows.last.tolist(), strict=True)):
        known = history.items[history.offsets[owner] : last].tolist()
        served = builder.build(known).tolist()
        assert sample_set[index]["input_ids"][0].tolist() == [*served, *IDS[history.items[last]]]
        shorter += len(known) > 6 and len(served) < 1 + 2 * 6
    assert shorter > 20


def test_the_next_item_of_a_later_part() -> None:
    joined, windows = next_windows(interactions([0, 1], [2], []), interactions([2, 3], [], [1]), 3)
    assert samples(joined, windows)[0]["input_ids"].tolist() == [[BOS, *IDS[0], *IDS[1], *IDS[2]]]
    assert len(windows.last) == 1, "users without a history or without a later item make no sample"


@pytest.mark.parametrize("stride", [1, 2, 3, 7])
@pytest.mark.parametrize("max_items", [1, 4])
def test_packed_windows_score_every_item_but_the_first_once(stride: int, max_items: int) -> None:
    history = random_interactions(users=60, longest=17)
    windows = packed_windows(history, max_items, stride)
    scored = Counter(
        position
        for last, count in zip(windows.last.tolist(), windows.scored.tolist(), strict=True)
        for position in range(last - count + 1, last + 1)
    )
    expected = prefix_windows(history, max_items)
    assert scored == Counter(expected.last.tolist())
    assert (windows.last - windows.first <= max_items).all()
    assert (windows.last - windows.first >= windows.scored).all()
    owners = np.searchsorted(history.offsets, windows.last, side="right")
    assert (windows.first >= history.offsets[owners - 1]).all(), "a window never reaches into another user's history"


def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(TOKENIZER), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, pad_token_id=PAD
    )
    return LlamaForCausalLM(config).eval()


def total_loss(llama: LlamaForCausalLM, batch: dict[str, torch.Tensor]) -> float:
    """The sum over all labels."""
    with torch.no_grad():
        return float(llama(**batch).loss) * int((batch["labels"][:, 1:] != IGNORED_LABEL).sum())


@pytest.mark.parametrize(("longest", "stride"), [(6, 5), (17, 1)])
def test_packed_windows_lose_what_all_prefixes_lose(longest: int, stride: int) -> None:
    # Histories that fit the prompt need one window; longer ones need a stride of 1 to give every item its full prompt.
    history = random_interactions(users=40, longest=longest)
    packed = samples(history, packed_windows(history, 5, stride), max_items=5)
    prefixes = samples(history, prefix_windows(history, 5), max_items=5)
    assert len(packed) <= len(prefixes)
    llama = model()
    one_by_one = sum(total_loss(llama, prefixes[index]) for index in range(len(prefixes)))
    whole = packed.__getitems__(range(len(packed)))
    assert total_loss(llama, whole) == pytest.approx(one_by_one, rel=1e-5)
    assert packed.labels == prefixes.labels == int((whole["labels"] != IGNORED_LABEL).sum())


def test_padding_changes_no_loss() -> None:
    history = interactions([0, 1], [0, 1, 2, 3], [3, 2, 1])
    sample_set = samples(history, newest_windows(history, 3))
    llama = model()
    alone = sum(total_loss(llama, sample_set[index]) for index in range(3))
    assert total_loss(llama, sample_set.__getitems__([0, 1, 2])) == pytest.approx(alone, rel=1e-5)


def test_lengths_are_known_without_building() -> None:
    history = random_interactions(users=30, longest=9)
    for template in (PromptTemplate(max_items=4), PromptTemplate(template="<a_0>{history}", separator="<b_1>", max_items=4)):
        sample_set = samples(history, prefix_windows(history, 4), template=template)
        built = [sample_set[index]["input_ids"].shape[1] for index in range(len(sample_set))]
        assert sample_set.lengths.tolist() == built
    single = samples(history, prefix_windows(history, 1), max_items=1)
    assert {single[index]["input_ids"].shape[1] for index in range(len(single))} == set(single.lengths.tolist())


def test_bucketed_order_is_a_reproducible_permutation_with_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, size=1003)
    sampler = LengthBucketSampler(lengths, batch_size=16, seed=5)
    first = list(sampler)
    assert sorted(first) == list(range(1003))
    assert list(sampler) == first
    sampler.set_epoch(1)
    second = list(sampler)
    assert sorted(second) == list(range(1003))
    assert second != first
    assert list(LengthBucketSampler(lengths, batch_size=16, seed=6)) != first

    def padded(order: list[int]) -> int:
        return sum(int(lengths[order[row : row + 16]].max()) * len(order[row : row + 16]) for row in range(0, len(order), 16))

    assert padded(first) < 1.1 * lengths.sum()
    assert padded(list(range(1003))) > 1.5 * lengths.sum()


def test_what_is_left_out_changes_with_the_epoch_and_with_nothing_else() -> None:
    history = interactions(*[list(range(ITEMS)) * 3 for _ in range(40)])
    windows = packed_windows(history, 11, 5)
    sample_set = samples(history, windows, max_items=11, left_out=0.4)

    def epoch(number: int) -> list[list[int]]:
        sample_set.set_epoch(number)
        return [sample_set[index]["input_ids"][0].tolist() for index in range(len(sample_set))]

    first, second = epoch(0), epoch(1)
    assert first == epoch(0) != second
    assert len({tuple(tokens) for tokens in first}) > 30
    kept = sum(len(tokens) - 1 for tokens in first) / (sample_set.lengths - 1).sum()
    assert 0.55 < kept < 0.75  # the newest item always stays


@pytest.mark.parametrize("left_out", [0.0, 0.2, 0.5])
def test_an_epoch_predicts_its_share_of_the_labels(left_out: float) -> None:
    """So that the loss of a run can be told in nats per token of an answer, whatever is left out."""
    history = random_interactions(users=600, longest=9)
    sample_set = samples(history, packed_windows(history, 5, 2), max_items=5, left_out=left_out)
    size = 8
    course = Course(labels=sample_set.all_labels / -(-len(sample_set) // size))
    weights = []
    for epoch in range(2):
        sample_set.set_epoch(epoch)
        for start in range(0, len(sample_set), size):
            batch = sample_set.__getitems__(range(start, min(len(sample_set), start + size)))
            weights.append(course.weighted(torch.ones(()), batch).item())
    share = sample_set.labels / sample_set.all_labels
    assert (share == 1) is (left_out == 0)
    assert np.mean(weights) == pytest.approx(share, abs=0.01 if left_out else 1e-6)


@pytest.mark.parametrize("left_out", [0.3, 0.99])
def test_what_is_left_of_a_window_keeps_its_order_and_its_newest_item(left_out: float) -> None:
    history = random_interactions(users=50, longest=9)
    windows = packed_windows(history, 4, 2)
    sample_set = samples(history, windows, max_items=4, left_out=left_out)
    for index in range(len(sample_set)):
        batch = sample_set[index]
        items = batch["input_ids"][0, 1:].view(-1, 2).tolist()
        whole = IDS[history.items[windows.first[index] : windows.last[index] + 1]].tolist()
        assert len(items) >= 2
        assert items[-1] == whole[-1]
        rest = iter(whole)
        assert all(item in rest for item in items)
        scored = int((batch["labels"][0] != IGNORED_LABEL).sum()) // 2
        assert 1 <= scored <= min(len(items) - 1, windows.scored[index])
