"""What a target's directory says that lists are not made by is told when it is loaded."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from drafting.beam.rule import Normalisation
from drafting.model_files import NEUTRAL, ModelFiles
from tests.models import random_catalog, save_random_model
from tests.oracles import generate_lists
from tests.verification.engine.test_beam_search import as_pairs, assert_same
from verification.evaluation.generate import PrefixTable
from verification.hosts.checkpoint import load_tokenizer
from verification.hosts.served_model import ServedModel
from verification.recommender import Recommender

CATALOG = random_catalog(items=60, depth=3, codes=6)
HISTORY = [1, 2, 3]
K = 6
PENALTIES = {
    **{"repetition_penalty": 1.4, "encoder_repetition_penalty": 1.2, "guidance_scale": 1.5, "no_repeat_ngram_size": 1},
    **{"encoder_no_repeat_ngram_size": 1, "bad_words_ids": [[7]], "sequence_bias": [[[6], -9.0]], "suppress_tokens": [5]},
    **{"begin_suppress_tokens": [4], "forced_bos_token_id": 3, "forced_eos_token_id": 3, "watermarking_config": {"bias": 4.0}},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("model"), CATALOG, layers=1)


def say(model: Path, settings: dict[str, object]) -> None:
    (model / "generation_config.json").write_text(json.dumps(settings))


def test_penalties_are_told_and_neither_lists_nor_what_they_are_compared_with_has_them(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert PENALTIES.keys() == NEUTRAL.keys()
    say(model, {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "suppress_tokens": [], "temperature": 0.7})
    recommender = Recommender.load(model, CATALOG, kv_memory_gib=0.01)
    assert "generation_config.json" not in caplog.text
    (result,) = recommender.recommend([HISTORY], K, K)
    recommender.close()
    identifiers = CATALOG.token_ids(load_tokenizer(model).get_vocab())
    for name, value in PENALTIES.items():
        say(model, {name: value})
        peer = AutoModelForCausalLM.from_pretrained(model).eval()
        (theirs,) = generate_lists(peer, [recommender.prompts.build(HISTORY)], PrefixTable(identifiers), K, 3)
        assert_same(as_pairs(result, identifiers), theirs)
        assert ModelFiles(model).penalties == {name: value}
        caplog.clear()
        ServedModel(model).warn(CATALOG)
        assert f"{name} {json.dumps(value)}" in caplog.text


def test_where_no_file_says_how_texts_are_generated_its_config_does_as_for_transformers(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As earlier releases of transformers saved models."""
    folder = tmp_path / "earlier"
    shutil.copytree(model, folder)
    (folder / "generation_config.json").unlink()
    said = {"no_repeat_ngram_size": 3, "renormalize_logits": True}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | said))
    theirs = AutoModelForCausalLM.from_pretrained(folder).generation_config
    assert (theirs.no_repeat_ngram_size, theirs.renormalize_logits) == (3, True)
    served = ServedModel(folder)
    assert served.normalisation("auto") is Normalisation.CHILDREN
    served.warn(CATALOG)
    assert "config.json says no_repeat_ngram_size 3, which" in caplog.text
    say(folder, {})
    assert ModelFiles(folder).penalties == {}
    assert ServedModel(folder).normalisation("auto") is Normalisation.VOCABULARY


def test_code_of_its_own_is_told(model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A script that trusts it has its lists; here they are those of the class that transformers has for the type."""
    folder = tmp_path / "own"
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("training.json"))
    contents = json.loads((folder / "config.json").read_text())
    for brought, told in ({"AutoConfig": "own.Config"}, False), ({"AutoModelForCausalLM": "own.Model"}, True):
        (folder / "config.json").write_text(json.dumps(contents | {"auto_map": brought}))
        ServedModel(folder).warn(CATALOG)
        assert ("code of its own for the model (auto_map), which is never run: lists are those of transf" in caplog.text) is told
    caplog.clear()
    (folder / "training.json").write_text("{}")
    ServedModel(folder).warn(CATALOG)
    assert "auto_map" not in caplog.text


def test_a_target_of_another_catalog_is_told(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    served = ServedModel(model)
    for version, told in ((CATALOG.version, False), ("another", True)):
        (model / "training.json").write_text(json.dumps({"catalog": {"version": version}}))
        served.warn(CATALOG)
        assert ("was trained for another catalog (version another" in caplog.text) is told
    (model / "training.json").write_text('{"epochs": 3}')
    served.warn(CATALOG)
