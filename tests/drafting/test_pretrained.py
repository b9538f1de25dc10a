"""Files of a model's directory as transformers reads them: none of their code runs, and what is damaged is told in a sentence."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForTextEncoding, BertConfig

from drafting.pretrained import SENTENCEPIECE_FILES, UnreadableError, load_whole, read_config, read_tokenizer
from drafting.prompts.tokenizer_files import save_tokenizer
from tests.models import random_catalog, save_family_model, save_random_model

CATALOG = random_catalog(items=30, depth=2, codes=5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("model"), CATALOG, layers=1, hidden=16)


def copied(model: Path, folder: Path, name: str, change: Callable[[Any], Any]) -> Path:
    """A directory with the configurations and the tokenizer of a model, one file of which is changed."""
    folder.mkdir()
    for path in model.glob("*.json"):
        contents = json.loads(path.read_bytes())
        (folder / path.name).write_text(json.dumps(change(contents) if path.name == name else contents))
    return folder


OWN: dict[str, tuple[Callable[[Path], object], str, dict[str, Any]]] = {
    "configuration": (read_config, "config.json", {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}),
    "tokenizer": (
        read_tokenizer,
        "tokenizer_config.json",
        {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}},
    ),
}


@pytest.mark.parametrize("part", OWN)
def test_code_of_its_own_is_refused_and_nobody_is_asked(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    read, name, settings = OWN[part]
    folder = copied(model, tmp_path / "own", name, lambda contents: contents | settings)
    (folder / "own.py").write_text(f"open({str(tmp_path / 'it ran')!r}, 'w').close()\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(UnreadableError, match="contains custom code"):
        read(folder)
    assert sys.stdin.read() == "y\n"
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize("brought", [{"AutoTokenizer": ["own.Own", None]}, ["own.Own", None]], ids=["by class", "older"])
def test_a_tokenizers_own_code_that_is_passed_over_is_told(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, brought: object
) -> None:
    """What training saves is a tokenizer of transformers, and its own code is not beside it."""
    folder = copied(model, tmp_path / "own", "tokenizer_config.json", lambda contents: contents | {"auto_map": brought})
    tokenizer = read_tokenizer(folder)
    told = f"{folder / 'tokenizer_config.json'} names code of its own for the tokenizer (auto_map), which is never run"
    assert caplog.text.count(told) == 1
    caplog.clear()
    save_tokenizer(tokenizer, tmp_path / "saved")
    assert read_tokenizer(tmp_path / "saved").get_vocab() == tokenizer.get_vocab()
    assert "auto_map" not in (tmp_path / "saved" / "tokenizer_config.json").read_text()
    assert not caplog.text


@pytest.mark.parametrize(
    ("auto", "brought", "is_told"),
    [
        (AutoModelForCausalLM, "AutoModelForCausalLM", True),
        (AutoModelForCausalLM, "AutoConfig", False),
        (AutoModel, "AutoModel", True),
        (AutoModelForTextEncoding, "AutoModel", True),
    ],
)
def test_a_models_own_code_that_is_passed_over_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, auto: Any, brought: str, is_told: bool
) -> None:
    """As of a base for training, or an encoder of texts, which is loaded by a class that has no code of its own."""
    shape = {"vocab_size": 9, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    auto.from_config(BertConfig(**shape, is_decoder=auto is AutoModelForCausalLM)).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"auto_map": {brought: "own.Own"}}))
    load_whole(auto, tmp_path, read_config(tmp_path))
    assert ("config.json names code of its own for the model (auto_map), which is never run" in caplog.text) is is_told


DAMAGED: dict[str, tuple[Callable[[Path], object], str, Callable[[Any], Any], str]] = {
    "a later tokenizer": (
        read_tokenizer,
        "tokenizer.json",
        lambda file: file | {"pre_tokenizer": {"type": "Later"}},
        "PreTokenizerUntagged",
    ),
    "a list for a tokenizer": (read_tokenizer, "tokenizer.json", lambda file: [], ""),
    "a list of its settings": (read_tokenizer, "tokenizer_config.json", lambda file: [], ""),
    "a number in quotes": (read_config, "config.json", lambda file: file | {"hidden_size": "64"}, "expected int, got str"),
    "no length": (read_config, "config.json", lambda file: file | {"max_position_embeddings": None}, "expected int, got NoneType"),
    "heads": (
        read_config,
        "config.json",
        lambda file: file | {"num_attention_heads": 3},
        "is not a multiple of the number of attention heads",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_told_in_a_sentence(model: Path, tmp_path: Path, damage: str) -> None:
    read, name, change, told = DAMAGED[damage]
    with pytest.raises(UnreadableError) as refused:
        read(copied(model, tmp_path / "damaged", name, change))
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_no_damage_stays_what_it_is(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class OtherError(Exception):
        pass

    def fail(*_: object, **__: object) -> None:
        raise OtherError

    monkeypatch.setattr("drafting.pretrained.PreTrainedTokenizerFast.from_pretrained", fail)
    with pytest.raises(OtherError):
        read_tokenizer(model)


def test_mistrals_own_format_beside_a_tokenizer_is_not_read(tmp_path: Path) -> None:
    pytest.importorskip("mistral_common")
    folder = save_family_model(tmp_path / "model", CATALOG, "mistral", num_hidden_layers=1)
    (folder / "tekken.json").write_text("{}")
    assert set(CATALOG.tokens) <= set(read_tokenizer(folder).get_vocab())


@pytest.mark.parametrize("name", SENTENCEPIECE_FILES)
def test_a_tokenizer_of_sentencepiece_without_that_package(name: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers asks for tiktoken then, which would not read it."""
    folder = copied(model, tmp_path / "model", "", lambda contents: contents)
    (folder / name).write_bytes(b"pieces")
    monkeypatch.setattr("drafting.pretrained.find_spec", lambda _: None)
    assert set(CATALOG.tokens) <= set(read_tokenizer(folder).get_vocab())
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UnreadableError, match=f"^it is in {name}, which needs .*: pip install sentencepiece$"):
        read_tokenizer(folder)
