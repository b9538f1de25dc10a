"""An adapter whose trained tokens, embeddings or head are exactly its base's is told of when it is loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models import save_random_model
from tests.verification.hosts.test_adapter import CATALOG, save_adapter, weights
from verification.hosts.checkpoint import load_config
from verification.hosts.served_model import ServedModel

peft = pytest.importorskip("peft")

TOKENS = [3, 17, 20]
KINDS: dict[str, dict[str, Any]] = {
    "single tokens": {"trainable_token_indices": TOKENS},
    "single tokens in the head, too": {"trainable_token_indices": {"embed_tokens": TOKENS, "lm_head": TOKENS[:2]}},
    "modules to save": {"modules_to_save": ["embed_tokens", "lm_head"]},
}


def told(adapter: Path, caplog: pytest.LogCaptureFixture) -> str:
    """What is said of trained weights that are the base's."""
    caplog.clear()
    ServedModel(adapter).warn(CATALOG)
    return "\n".join(record.message for record in caplog.records if record.name == "verification.hosts.adapter")


def save_combined(model: Any, folder: Path, **options: Any) -> Path:
    """All of an adapter and nothing of another one, which has no tokens of its own, as peft combines them."""
    model.add_adapter("plain", peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"]))
    model.add_weighted_adapter(["default", "plain"], [1.0, 0.0], "combined", combination_type="cat")
    model.save_pretrained(folder, selected_adapters=["combined"], **options)
    return folder / "combined"


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("added", [0, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_what_peft_leaves_out_of_combined_adapters_is_told(
    tmp_path: Path, kind: str, added: int, tied: bool, caplog: pytest.LogCaptureFixture
) -> None:
    base = save_random_model(tmp_path / "base", CATALOG, layers=1, tied=tied)
    tokens = load_config(base).vocab_size + added if added else None
    model = save_adapter(base, tmp_path / "adapter", tokens=tokens, **KINDS[kind])
    assert told(tmp_path / "adapter", caplog) == ""
    combined = save_combined(model, tmp_path)
    assert f"The adapter in {combined} holds " in told(combined, caplog)


def test_it_is_told_what_is_the_bases_in_whatever_precision_and_format(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = save_random_model(tmp_path / "base", CATALOG, layers=1)
    model = save_adapter(base, tmp_path / "adapter", **KINDS["modules to save"])
    combined = save_combined(model, tmp_path)
    weights(lambda found: {name: weight.bfloat16() for name, weight in found.items()})(combined)
    sentence = (
        f"The adapter in {combined} holds lm_head.weight, model.embed_tokens.weight exactly as its base in {base} does, which no training "
        "leaves: most likely it was combined of others with peft's add_weighted_adapter, which leaves out what they had learnt there; "
        "serve one of these, or average the models that they make when merged."
    )
    assert told(combined, caplog) == sentence
    (combined / "adapter_model.safetensors").unlink()
    model.save_pretrained(tmp_path, selected_adapters=["combined"], safe_serialization=False)
    assert told(combined, caplog) == sentence


def one_row_more(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """With another last row of the head."""
    found["base_model.model.lm_head.weight"][-1, -1] += 1
    return found


def test_an_adapter_of_which_one_row_was_trained_is_not_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = save_random_model(tmp_path / "base", CATALOG, layers=1)
    combined = save_combined(save_adapter(base, tmp_path / "adapter", **KINDS["modules to save"]), tmp_path)
    weights(one_row_more)(combined)
    assert told(combined, caplog) == ""


@pytest.mark.parametrize("modules", [["q_proj"], ["q_proj", "embed_tokens", "lm_head"]], ids=["no embeddings", "LoRA of embeddings"])
def test_embeddings_that_are_only_saved_are_not_told_of(tmp_path: Path, modules: list[str], caplog: pytest.LogCaptureFixture) -> None:
    base = save_random_model(tmp_path / "base", CATALOG, layers=1)
    model = save_adapter(base, tmp_path / "adapter", target_modules=modules)
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    assert told(tmp_path / "adapter", caplog) == ""
