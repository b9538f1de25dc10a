"""Lists after prompts of published formats are those of transformers' constrained `generate`, on both hosts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, LlamaConfig, T5Config

from drafting.prompts.tokenizer_files import save_tokenizer
from drafting.trie.item_trie import ItemTrie
from tests.oracles import generate_lists
from tests.prompt_formats import FORMATS, Format, oracle_ids, some_users
from tests.verification.engine.test_beam_search import HOSTS, as_pairs
from verification.engine.engine import SpeculativeBeamEngine
from verification.evaluation.generate import PrefixTable
from verification.hosts.served_model import ServedModel
from verification.recommender import Recommender

CAUSAL = [name for name, prompt in FORMATS.items() if not prompt.has_encoder]
VOCABULARY, LONGEST, K = 640, 1024, 5


def save(folder: Path, prompt: Format, model: Any) -> Path:
    """A model directory of this format, with the weights of a model whose vocabulary is large enough for all."""
    model.save_pretrained(folder)
    save_tokenizer(prompt.tokenizer(prompt.catalog.tokens), folder)
    (folder / "prompt.json").write_bytes(msgspec.json.encode(prompt.contents | {"max_tokens": LONGEST}))
    return folder


def spread(model: Any) -> Any:
    """With larger weights scores spread as those of a trained model do."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3.0)
    return model.eval()


@pytest.fixture(scope="module")
def causal() -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    tokens = {"vocab_size": VOCABULARY, "max_position_embeddings": 2 * LONGEST, "eos_token_id": None, "pad_token_id": 0}
    return spread(AutoModelForCausalLM.from_config(LlamaConfig(**shape, **tokens)))


@pytest.fixture(scope="module", params=HOSTS)
def loaded(request: pytest.FixtureRequest, causal: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recommender]:
    folder = save(tmp_path_factory.mktemp("first"), FORMATS[CAUSAL[0]], causal)
    recommender = Recommender.load(folder, FORMATS[CAUSAL[0]].catalog, host=request.param, kv_memory_gib=0.1, verify="never")
    yield recommender
    recommender.close()


def with_another_prompt(loaded: Recommender, folder: Path, prompt: Format) -> Recommender:
    """The loaded model with the tokenizer, the prompt and the catalog of a format."""
    served = ServedModel(folder)
    fitted = served.fit(prompt.catalog)
    target = loaded.engine.target
    trie = ItemTrie.of(fitted.catalog.trie, fitted.token_ids, target.device)
    engine = SpeculativeBeamEngine(target, trie, shared_tokens=fitted.prompts.shared_tokens)
    return Recommender(fitted.catalog, fitted.prompts, engine, folder.name, served, "", loaded.precision)


def assert_lists_of_generate(recommender: Recommender, prompt: Format, model: Any, start: list[int]) -> None:
    """Twice each, so that the second reads the cached prompt of the first."""
    catalog, users = recommender.catalog, some_users(len(recommender.catalog), 4)
    tokenizer = prompt.tokenizer(prompt.catalog.tokens)
    identifiers = catalog.token_ids(tokenizer.get_vocab())
    table = PrefixTable(identifiers)
    for user in users:
        ids = np.array(oracle_ids(prompt.contents, prompt.catalog, user, tokenizer) + start)
        (theirs,) = generate_lists(model, [ids], table, K, catalog.identifier_length)
        for number in range(2):
            (result,) = recommender.search([recommender.request(f"{number}", user, K, K, cache_key="user")])
            ours = as_pairs(result, identifiers)
            assert [identifier for identifier, _ in ours] == [identifier for identifier, _ in theirs]
            np.testing.assert_allclose([score for _, score in ours], [score for _, score in theirs], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", CAUSAL)
def test_lists_equal_generate(loaded: Recommender, causal: Any, name: str, tmp_path: Path) -> None:
    prompt = FORMATS[name]
    recommender = with_another_prompt(loaded, save(tmp_path / "model", prompt, causal), prompt)
    assert_lists_of_generate(recommender, prompt, causal, [])
    assert recommender.engine.used_slots == 0


def test_letter_on_t5(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_heads": 4, "num_layers": 2, "vocab_size": VOCABULARY}
    config = T5Config(**shape, decoder_start_token_id=0, eos_token_id=None, pad_token_id=0)
    model = spread(AutoModelForSeq2SeqLM.from_config(config))
    prompt = FORMATS["letter"]
    recommender = Recommender.load(save(tmp_path / "model", prompt, model), prompt.catalog, kv_memory_gib=0.1)
    assert_lists_of_generate(recommender, prompt, model, [0])
    recommender.close()
