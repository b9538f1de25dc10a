"""A TIGER on one's own data: trained from scratch, it learns a pattern, and is served with `generate`'s lists."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from drafting.alignment.bases import PRESETS, BaseError, load_base
from drafting.alignment.settings import TargetSettings
from drafting.alignment.target import train_target
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from drafting.errors import SetupError
from drafting.plans.fixed_plan import FixedPlan
from drafting.prompts.loading import load_prompt, prompt_of
from drafting.prompts.template import PromptTemplate
from drafting.prompts.user_state import UserEvent, UserState
from tests.oracles import generate_lists
from tests.t5_models import START, save_t5_model
from tests.verification.engine.test_beam_search import as_pairs, assert_same
from verification.evaluation.generate import PrefixTable
from verification.recommender import Recommender

ITEMS = 40
STEP = 7
USERS = 80
K = 10
TINY = {"model_type": "t5", "d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4, "num_layers": 1, "dropout_rate": 0.0}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """Identifiers of three codes, the last of which tells twins apart."""
    return catalog_of([(str(item), [f"<a_{item // 8}>", f"<b_{item // 2 % 4}>", f"<c_{item % 2}>"]) for item in range(ITEMS)])


@pytest.fixture(scope="module")
def tiger(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small TIGER that was trained on users who always go STEP items further."""
    folder = tmp_path_factory.mktemp("tiger")
    with (folder / "interactions.jsonl").open("w") as file:
        for user in range(USERS):
            for time in range(4 + user % 5):
                file.write(json.dumps({"user": user, "item": (user + time * STEP) % ITEMS, "timestamp": time}) + "\n")
    (folder / "config.json").write_text(json.dumps(TINY))
    settings = TargetSettings(epochs=20, batch_size=40, learning_rate=1e-2, subsequences=True)
    template = PromptTemplate(max_items=2, min_items=2, add_bos=False)
    metrics = train_target(folder, catalog, str(folder / "config.json"), folder / "out", settings=settings, template=template)
    # Every item but the first of each user, each in a sample of its own.
    assert metrics.samples == USERS + sum(user % 5 for user in range(USERS))
    assert metrics.valid_loss is not None
    assert metrics.valid_loss < 0.1
    return folder / "out"


def test_two_hundred_lists_of_a_trained_tiger_equal_generate(tiger: Path, catalog: Catalog) -> None:
    recommender = Recommender.load(tiger, catalog, kv_memory_gib=0.01)
    identifiers = recommender.catalog.token_ids(AutoTokenizer.from_pretrained(tiger).get_vocab())
    model = AutoModelForSeq2SeqLM.from_pretrained(tiger).eval()
    rng = np.random.default_rng(0)
    starts = rng.integers(ITEMS, size=(5, 20)).tolist()
    patterns = [[(first + time * STEP) % ITEMS for time in range(length)] for length, row in enumerate(starts, start=1) for first in row]
    histories = patterns + [rng.integers(ITEMS, size=1 + number // 20).tolist() for number in range(100)]
    prompts = [recommender.prompts.build(history) for history in histories]
    table = PrefixTable(identifiers)
    expected = [
        found
        for start in range(0, len(prompts), 20)
        for found in generate_lists(model, prompts[start : start + 20], table, K, catalog.identifier_length)
    ]
    assert len(expected) == 200
    for plan in ("none", "trie"):
        recommender.engine.use_plan(FixedPlan.parse(plan))
        results = list(recommender.recommend(histories, K, K))
        for result, theirs in zip(results, expected, strict=True):
            assert_same(as_pairs(result, identifiers), theirs)
        hits = [result.items[0].item == (history[-1] + STEP) % ITEMS for result, history in zip(results, patterns, strict=False)]
        assert np.mean(hits) > 0.95
    recommender.close()


def test_user_tokens_tell_users_apart(catalog: Catalog, tmp_path: Path) -> None:
    """TIGER's `<user_N>`: users differ in how far they go, which one item alone says nothing of."""
    with (tmp_path / "interactions.jsonl").open("w") as file:
        for user in range(USERS):
            for time in range(5):
                file.write(json.dumps({"user": user, "item": (user // 2 + time * (1 + user % 2)) % ITEMS, "timestamp": time}) + "\n")
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    form = prompt_of(
        {"format": "jinja", "template": "<user_{{ user_id | int % 2 }}>{{ history | join }}", "history": {"max_items": 1, "min_items": 1}}
    )
    settings = TargetSettings(epochs=20, batch_size=40, learning_rate=1e-2, subsequences=True, add_tokens=("<user_{0..1}>",))
    out = tmp_path / "out"
    metrics = train_target(tmp_path, catalog, str(tmp_path / "config.json"), out, settings=settings, template=form)
    assert metrics.valid_loss is not None
    assert metrics.valid_loss < 0.15
    recommender = Recommender.load(out, catalog, kv_memory_gib=0.01)
    users = [UserState([UserEvent(first)], user_id=str(user)) for user in range(4) for first in range(20)]
    lists = [result.items[0].item for result in recommender.recommend(users, 1)]
    recommender.close()
    hits = [found == state.events[0].item + 1 + int(state.user_id or 0) % 2 for found, state in zip(lists, users, strict=True)]
    assert np.mean(hits) > 0.9
    assert json.loads((out / "training.json").read_text())["settings"]["add_tokens"] == ["<user_{0..1}>"]
    assert load_prompt(out) == form


def test_text_that_a_scratch_tokenizer_has_no_tokens_for_is_refused_before_the_first_step(catalog: Catalog, tmp_path: Path) -> None:
    lines = [{"user": user, "item": item, "timestamp": item} for user in range(3) for item in range(5)]
    (tmp_path / "interactions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "config.json").write_text(json.dumps(TINY))

    def refusal(*tokens: str) -> str:
        form = prompt_of({"format": "jinja", "template": "<user_{{ user_id }}>{{ history | join }}"})
        settings = TargetSettings(add_tokens=tokens)
        with pytest.raises(SetupError) as refused:
            train_target(tmp_path, catalog, str(tmp_path / "config.json"), tmp_path / "out", settings=settings, template=form)
        return str(refused.value)

    assert "The prompt of user '0' has text that a model from scratch has no tokens for" in refusal()
    assert "The prompt of user '2' has text" in refusal("<user_{0..1}>")
    assert refusal(" <user>").startswith("' <user>' can't be added as a token")
    assert refusal("<user_{3..1}>").startswith("'<user_{3..1}>' can't be added as tokens: its numbers go up")
    assert not (tmp_path / "out").exists()


def test_the_preset_has_the_papers_shape(catalog: Catalog) -> None:
    base = load_base("t5-scratch", catalog, PromptTemplate(add_bos=False))
    assert base.start_token == base.tokenizer.pad_token_id
    assert base.model.config.num_decoder_layers == PRESETS["t5-scratch"]["num_layers"] == 4
    assert 4.2e6 < base.model.num_parameters() < 4.6e6


BART = {
    "model_type": "bart",
    "d_model": 8,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
}


@pytest.mark.parametrize("weights", [False, True])
def test_a_base_that_could_not_be_served_is_refused_before_it_is_trained(catalog: Catalog, tmp_path: Path, weights: bool) -> None:
    def refusal(settings: dict[str, object]) -> str:
        (tmp_path / "config.json").write_text(json.dumps(settings))
        with pytest.raises(BaseError) as refused:
            load_base(str(tmp_path), catalog, PromptTemplate(add_bos=False))
        return str(refused.value)

    if weights:
        (tmp_path / "model.safetensors").write_bytes(b"which are not looked at")
        sentence = "does not say how the decoder's text begins: add its decoder_start_token_id."
        assert refusal(TINY | {"decoder_start_token_id": None}).endswith(sentence)
    assert "(bart) is an encoder-decoder model, of which T5, mT5 and umT5 can be served" in refusal(BART)


def test_a_base_that_is_an_encoder_alone_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    """As Sentence-T5: transformers would make a decoder of random numbers."""
    folder = save_t5_model(tmp_path, catalog, num_layers=1, num_decoder_layers=1)
    weights = load_file(folder / "model.safetensors")
    encoder = {name: weight for name, weight in weights.items() if not name.startswith("decoder.")}
    save_file(encoder, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BaseError, match=r"cannot be loaded: its weights are not .* are missing, 'decoder\.block\.0\."):
        load_base(str(folder), catalog, PromptTemplate(add_bos=False))


def test_a_base_whose_two_files_begin_the_decoder_otherwise_is_refused_before_it_is_trained(catalog: Catalog, tmp_path: Path) -> None:
    """A server refuses the model that would be saved."""
    folder = save_t5_model(tmp_path, catalog, num_layers=1, num_decoder_layers=1)
    assert load_base(str(folder), catalog, PromptTemplate(add_bos=False)).start_token == START
    (folder / "generation_config.json").write_text(json.dumps({"decoder_start_token_id": START + 1}))
    with pytest.raises(BaseError, match=r"begins with 0 by its config\.json, and with 1 by generation_config\.json: make them alike\."):
        load_base(str(folder), catalog, PromptTemplate(add_bos=False))
