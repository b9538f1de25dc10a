"""Embeddings of items: what is alike by interactions, by texts and by both, on data whose structure is known."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_array
from transformers import BertConfig, BertModel, BertTokenizerFast, T5Config, T5EncoderModel, T5ForConditionalGeneration

from drafting.alignment.data.interactions import Interactions, Split
from drafting.array_types import FloatArray
from drafting.catalog.codebooks import residual_kmeans
from drafting.catalog.item_list import ItemList
from drafting.embeddings.factors import left_factors, unit_rows
from drafting.embeddings.interactions import L2, co_occurrence, from_interactions
from drafting.embeddings.mixing import completed, mixed
from drafting.embeddings.sources import Sources, embed_items, split_of
from drafting.embeddings.texts import EmbeddingError, from_encoder, from_texts, item_texts
from drafting.errors import InteractionError
from drafting.neighbours.build import ease
from drafting.prompts.tokenizer_files import save_tokenizer
from tests.format_tokenizers import t5
from tests.interactions import interactions

GROUPS, MEMBERS = 4, 10
ITEMS = GROUPS * MEMBERS
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "lamp", "novel"]
SMALL_BERT = BertConfig(vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)


@pytest.fixture(scope="module")
def grouped() -> Interactions:
    """Users who stay in one of four groups of items but for one visit elsewhere."""
    rng = np.random.default_rng(0)
    histories = []
    for user in range(200):
        history = (user % GROUPS) * MEMBERS + rng.integers(MEMBERS, size=7)
        history[rng.integers(7)] = rng.integers(ITEMS)
        histories.append(history.tolist())
    return interactions(*histories)


def purity(embeddings: FloatArray, group: np.ndarray) -> float:
    """The share of items whose cluster is mostly of their group."""
    codes = residual_kmeans(embeddings, levels=1, codes_per_level=GROUPS).codes[:, 0]
    return float(sum(np.bincount(group[codes == code]).max() for code in np.unique(codes)) / len(group))


GROUP = np.repeat(np.arange(GROUPS), MEMBERS)


def test_co_occurrence_counts_pairs_of_one_user_by_their_distance() -> None:
    counts = co_occurrence(interactions([0, 1, 2, 0], [1, 2], [3], []), 5, window=3).toarray()
    expected = np.zeros((5, 5))
    for first, second, weight in [(0, 1, 1.0), (1, 2, 1.0), (2, 0, 1.0), (0, 2, 0.5), (1, 0, 0.5), (1, 2, 1.0)]:
        expected[first, second] += weight
        expected[second, first] += weight
    np.testing.assert_allclose(counts, expected)


@pytest.mark.parametrize("refusal", [None, "EASE would invert a matrix of all items"])
def test_items_that_the_same_users_meet_fall_into_one_cluster(
    grouped: Interactions, refusal: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drafting.embeddings.interactions.ease_refusal", lambda items: refusal)
    embeddings = from_interactions(grouped, ITEMS, 8)
    assert embeddings.shape == (ITEMS, 8)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    assert purity(embeddings, GROUP) == 1.0


def test_the_same_seed_gives_the_same_embeddings(grouped: Interactions) -> None:
    np.testing.assert_array_equal(from_interactions(grouped, ITEMS, 8, seed=3), from_interactions(grouped, ITEMS, 8, seed=3))


def test_without_order_items_are_as_alike_as_what_speaks_for_them(grouped: Interactions) -> None:
    """With all dims the products of the factors are those of a symmetric root of EASE's largest weights."""
    weights = np.maximum(ease(grouped, ITEMS, L2), 0).T
    left, values, _ = np.linalg.svd(weights)
    expected = (left * values) @ left.T
    lengths = np.sqrt(expected.diagonal())
    embeddings = from_interactions(grouped, ITEMS, ITEMS)
    np.testing.assert_allclose(embeddings @ embeddings.T, expected / np.outer(lengths, lengths), atol=1e-3)


@pytest.mark.parametrize("dims", [8, 2 * ITEMS])
def test_an_item_that_nobody_met_is_zero_wherever_it_stands(grouped: Interactions, dims: int) -> None:
    """Among the first as well, where a decomposition leaves rounding errors."""
    unmet = [1, 4, ITEMS + 1]
    met = np.delete(np.arange(ITEMS + 3), unmet).astype(np.int32)
    embeddings = from_interactions(replace(grouped, items=met[grouped.items]), ITEMS + 3, dims)
    assert not embeddings[unmet].any()
    assert embeddings[met].any(axis=1).all()


def test_factors_approximate_the_products_of_rows_as_well_as_their_rank_allows() -> None:
    dense = np.random.default_rng(1).normal(size=(30, 12))
    factors = left_factors(csr_array(dense), 5, seed=0)
    values = np.linalg.svd(dense, compute_uv=False)
    assert factors.shape == (30, 5)
    np.testing.assert_allclose((factors * factors).sum(), (values[:5] ** 2).sum(), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(factors, axis=0), values[:5], rtol=1e-5)
    everything = left_factors(csr_array(dense), 40, seed=0)
    np.testing.assert_allclose(everything @ everything.T, dense @ dense.T, atol=1e-4)


def test_a_row_that_no_kept_direction_reaches_is_zero() -> None:
    """It is at right angles to all others, which say more."""
    dense = np.zeros((31, 13))
    dense[0, 0], dense[1:, 1:] = 0.01, np.random.default_rng(1).normal(size=(30, 12))
    factors, others = left_factors(csr_array(dense), 5, seed=0), left_factors(csr_array(dense[1:, 1:]), 5, seed=0)
    assert not factors[0].any()
    np.testing.assert_allclose(factors[1:] @ factors[1:].T, others @ others.T, atol=1e-4)


@pytest.mark.parametrize("dims", [5, 40])
def test_factors_of_nothing_are_zeros(dims: int) -> None:
    for matrix in (csr_array((30, 12)), csr_array((np.zeros(2), ([0, 1], [1, 0])), shape=(30, 12))):
        factors = left_factors(matrix, dims, seed=0)
        assert (factors.shape, factors.dtype, factors.any()) == ((30, min(dims, 12)), np.float32, False)


def test_texts_of_one_kind_are_alike_and_a_title_without_words_is_zero() -> None:
    titles = [f"{noun} {row}" for row, noun in enumerate(np.repeat(["lamp", "chair", "novel", "kettle"], MEMBERS))]
    embeddings = from_texts([*titles, "", "!"], 8)
    assert purity(embeddings[:ITEMS], GROUP) == 1.0
    assert not embeddings[ITEMS:].any()
    assert not from_texts(["", *titles], 8)[0].any(), "among the first a decomposition leaves rounding errors"


def test_texts_hold_titles_first_and_name_numbers_and_entries_of_lists() -> None:
    items = ItemList(["a", "b"], {"genres": [["war", "black and white"], None], "price": [5, None], "title": ["Das Boot", None]})
    assert item_texts(items) == ["Das Boot genres=war genres=black_and_white price=5", ""]
    assert item_texts(items, named=False) == ["Das Boot war black and white 5", ""]


def test_items_that_share_an_attribute_alone_are_alike() -> None:
    items = ItemList([str(row) for row in range(ITEMS)], {"genres": [[f"kind {group}"] for group in GROUP.tolist()]})
    assert purity(from_texts(item_texts(items), 8), GROUP) == 1.0


def test_attributes_are_one_word_each_and_long_entries_are_texts() -> None:
    prices = ItemList(["a", "b", "c"], {"price": [5, None, 5], "shelf life": [None, 5, None]})
    price, shelf_life, other = from_texts(item_texts(prices), 8)
    assert price @ other == pytest.approx(1.0)
    assert price @ shelf_life == pytest.approx(0.0, abs=1e-6), "they share a number, and it is of something else"
    told = [f"This kettle boils {litres} litres of water in {minutes} minutes" for litres, minutes in ((1, 3), (2, 4), (1, 3))]
    notes = ItemList(["a", "b", "c"], {"notes": [[text] for text in told]})
    assert item_texts(notes) == told
    assert from_texts(item_texts(notes), 8)[0] @ from_texts(item_texts(notes), 8)[1] > 0.3


def test_no_words_at_all_are_refused_in_a_sentence() -> None:
    with pytest.raises(EmbeddingError, match="No item has a title or an attribute to embed"):
        from_texts(["", "!"], 8)


def test_the_likeness_of_mixed_embeddings_is_the_weighted_mean() -> None:
    rng = np.random.default_rng(2)
    behaviour, text = (unit_rows(rng.normal(size=(6, dims)).astype(np.float32)) for dims in (4, 7))
    both = mixed(behaviour, text, 0.25)
    np.testing.assert_allclose(both @ both.T, 0.75 * behaviour @ behaviour.T + 0.25 * text @ text.T, atol=1e-6)


def test_an_item_without_interactions_is_completed_by_those_with_texts_like_its_own() -> None:
    known = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 0]]
    known[4] = 0
    other = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1]], np.float32)
    filled = completed(known, other)
    np.testing.assert_array_equal(filled[:4], known[:4])
    np.testing.assert_allclose(filled[4], [0, 1, 0], atol=1e-6)
    assert not completed(known, np.zeros_like(other))[4].any()


def test_what_is_completed_does_not_depend_on_how_many_rows_fit_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    known, other = (unit_rows(rng.normal(size=(60, dims)).astype(np.float32)) for dims in (4, 7))
    known[::2] = 0
    together = completed(known, other)
    assert together.any(axis=1).all()
    # Fewer cells than there are items are a row each.
    for cells in (1, 100):
        monkeypatch.setattr("drafting.embeddings.mixing._CELLS", cells)
        np.testing.assert_allclose(completed(known, other), together, atol=1e-6)


def test_held_out_interactions_change_nothing(grouped: Interactions) -> None:
    items = ItemList([str(row) for row in range(ITEMS)])
    rng = np.random.default_rng(5)
    nobody = interactions(*[[] for _ in grouped.users])
    later = interactions(*[rng.integers(ITEMS, size=3).tolist() for _ in grouped.users])
    alone, with_parts = (embed_items(Split(grouped, part, part), items, Sources(dims=8, text_weight=0)) for part in (nobody, later))
    np.testing.assert_array_equal(alone, with_parts)
    known = embed_items(Split(grouped, nobody, later), items, Sources(dims=8, text_weight=0, fit="all"))
    np.testing.assert_array_equal(known, from_interactions(grouped.followed_by(later), ITEMS, 8))


def test_a_directory_is_read_by_the_ids_of_the_list(tmp_path: Path) -> None:
    rows = [("u", "b", 1), ("u", "a", 2), ("u", "c", 3)]
    (tmp_path / "interactions.jsonl").write_text(
        "".join(f'{{"user": "{user}", "item": "{item}", "timestamp": {time}}}\n' for user, item, time in rows)
    )
    split = split_of(tmp_path, ItemList(["c", "b", "a"]))
    assert [part.items.tolist() for part in (split.train, split.valid, split.test)] == [[1], [2], [0]]
    with pytest.raises(InteractionError, match="item 'a'"):
        split_of(tmp_path, ItemList(["c", "b"]))


def test_an_encoder_pools_the_tokens_of_a_text_and_no_padding(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    torch.manual_seed(0)
    BertModel(SMALL_BERT).save_pretrained(tmp_path)
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    seen: list[int] = []
    together = from_encoder(tmp_path, ["red lamp", "novel", "", "red red red lamp"], seen.append)
    assert together.shape == (4, 16)
    assert sum(seen) == 4
    assert not together[2].any()
    model = BertModel.from_pretrained(tmp_path)
    for row, tokens in {0: [2, 5, 6, 3], 1: [2, 7, 3], 3: [2, 5, 5, 5, 6, 3]}.items():
        with torch.inference_mode():
            mean = model(torch.tensor([tokens])).last_hidden_state[0].mean(0).numpy()
        np.testing.assert_allclose(together[row], mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.parametrize("kind", [T5EncoderModel, T5ForConditionalGeneration])
def test_of_a_t5_the_encoder_embeds(tmp_path: Path, kind: Any) -> None:
    """Sentence-T5, with which TIGER embeds its items, is an encoder alone; AutoModel makes a decoder, too, which asks for a text."""
    tokenizer = t5([])
    torch.manual_seed(0)
    config = T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    model = kind(config).eval()
    model.save_pretrained(tmp_path)
    save_tokenizer(tokenizer, tmp_path)
    texts = ["A tent for two", "a lamp"]
    for found, text in zip(from_encoder(tmp_path, texts), texts, strict=True):
        with torch.inference_mode():
            states = model.encoder(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state[0]
        mean = states.mean(0).numpy()
        np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=1e-5)


def test_a_directory_without_an_encoder_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingError, match="holds no encoder"):
        from_encoder(tmp_path, ["red lamp"])


def test_an_encoder_without_some_of_its_weights_is_refused(tmp_path: Path) -> None:
    """As one that code of its own makes, with other layers: transformers would fill them with random numbers. Nobody reads a pooler."""
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    BertModel(SMALL_BERT, add_pooling_layer=False).save_pretrained(tmp_path)
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    assert from_encoder(tmp_path, ["red lamp"]).any()
    weights = load_file(tmp_path / "model.safetensors")
    del weights["embeddings.position_embeddings.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(EmbeddingError, match=r"holds no encoder .* 1 are missing, 'embeddings\.position_embeddings\.weight' among them"):
        from_encoder(tmp_path, ["red lamp"])
