"""Losses over the children of each prefix, against loops over all tokens, and what a target learns by them."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, GenerationConfig, PreTrainedModel

import drafting.alignment.children
import drafting.alignment.training
from drafting.alignment.children import ChildrenLogProbs
from drafting.alignment.children_loss import ChildrenLoss
from drafting.alignment.data.samples import IGNORED_LABEL
from drafting.alignment.data.splits import SplitRule
from drafting.alignment.progress import ProgressBar
from drafting.alignment.settings import ListQuality, TargetSettings, TrainingError
from drafting.alignment.target import train_target
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from drafting.neighbours.build import neighbour_model
from drafting.neighbours.source_check import source_of
from tests.models import TINY_CONFIG

ITEMS = 40
FIRST, VOCABULARY, START = 3, 40, 0


@pytest.fixture(scope="module")
def identifiers() -> np.ndarray:
    """Three levels, of 4, 6 and up to 20 tokens; some items share an identifier, and some prefixes have a single child, the last of the
    first level among them: right behind it the next level begins."""
    rng = np.random.default_rng(0)
    codes = np.column_stack([rng.integers(4, size=ITEMS), 4 + rng.integers(6, size=ITEMS), 10 + rng.integers(20, size=ITEMS)])
    codes[1] = codes[0]
    tokens = FIRST + rng.permutation(30)
    last = tokens[:4].argmax()
    codes[np.flatnonzero(codes[:, 0] == last)[1:], 0] = (last + 1) % 4
    return tokens[codes]


def model_of(config: dict[str, Any]) -> PreTrainedModel:
    torch.manual_seed(0)
    made = AutoConfig.for_model(**(TINY_CONFIG | {"vocab_size": VOCABULARY} | config))
    kind = AutoModelForSeq2SeqLM if made.is_encoder_decoder else AutoModelForCausalLM
    model: PreTrainedModel = kind.from_config(made)
    with torch.no_grad():
        model.get_output_embeddings().weight.normal_()
    return model.eval()


T5 = {
    "model_type": "t5", "d_model": 16, "d_ff": 32, "d_kv": 8, "num_heads": 2, "num_layers": 1, "decoder_start_token_id": START,
    "tie_word_embeddings": True, "pad_token_id": START,
}  # fmt: skip
MODELS = {
    "llama": {},
    "tied": {"tie_word_embeddings": True},
    # Divides its logits behind the head.
    "granite": {"model_type": "granite", "logits_scaling": 3.0},
    # Caps its logits behind the head.
    "gemma2": {"model_type": "gemma2", "head_dim": 8, "final_logit_softcapping": 2.0},
    # A bias in the head.
    "phi": {"model_type": "phi"},
    "t5": T5,
}


def batch_of(identifiers: np.ndarray, has_decoder: bool) -> dict[str, torch.Tensor]:
    """Two histories of three and four items, with labels on the last two and three."""
    if has_decoder:
        # Every item is a label, those too behind whose prefix the next level begins.
        prompts = torch.from_numpy(np.roll(identifiers, 1, axis=0))
        return {"input_ids": prompts, "attention_mask": torch.ones_like(prompts), "labels": torch.from_numpy(identifiers)}
    ids, labels = np.full((2, 13), 1), np.full((2, 13), IGNORED_LABEL)
    for row, (items, scored) in enumerate([([4, 9, 3], 2), ([7, 2, 1, 30], 3)]):
        end = 1 + 3 * len(items)
        ids[row, 1:end] = identifiers[items].reshape(-1)
        labels[row, end - 3 * scored : end] = ids[row, end - 3 * scored : end]
    return {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}


def expected_loss(model: PreTrainedModel, batch: dict[str, torch.Tensor], identifiers: np.ndarray, smoothing: float) -> torch.Tensor:
    """The loss as a loop over labels, from the model's own logits over the vocabulary."""
    if model.config.is_encoder_decoder:
        logits, labels = model(**batch).logits, batch["labels"]
    else:
        logits, labels = model(input_ids=batch["input_ids"]).logits[:, :-1], batch["labels"][:, 1:]
    losses = []
    for row in range(len(labels)):
        for level, place in enumerate(torch.nonzero(labels[row] != IGNORED_LABEL)[:, 0].tolist()):
            level %= 3
            prefix = labels[row, place - level : place].tolist()
            children = sorted({int(one[level]) for one in identifiers if one[:level].tolist() == prefix})
            log_probs = logits[row, place, children].float().log_softmax(-1)
            true = log_probs[children.index(int(labels[row, place]))]
            losses.append(-(1 - smoothing) * true - smoothing * log_probs.mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("gathered", [0, 100])
@pytest.mark.parametrize("kind", MODELS)
def test_the_loss_and_its_gradients_are_those_of_a_loop(
    identifiers: np.ndarray, kind: str, gathered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafting.alignment.children, "_GATHERED", gathered)
    model = model_of(MODELS[kind])
    has_decoder = model.config.is_encoder_decoder
    batch, head = batch_of(identifiers, has_decoder), model.get_output_embeddings()
    loss = ChildrenLoss(ChildrenLogProbs(model, identifiers, START if has_decoder else None), smoothing=0.2)
    expected = expected_loss(model, batch, identifiers, 0.2)
    (wanted,) = torch.autograd.grad(expected, [head.weight])
    found = loss(model, batch)
    (gradient,) = torch.autograd.grad(found, [head.weight])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, wanted)
    assert expected.item() > 0.5
    # The model is as before.
    torch.testing.assert_close(expected_loss(model, batch, identifiers, 0.2), expected)


def test_tokens_that_the_trie_excludes_have_no_gradient(identifiers: np.ndarray) -> None:
    model = model_of({})
    batch, head = batch_of(identifiers, has_decoder=False), model.get_output_embeddings()
    ChildrenLoss(ChildrenLogProbs(model, identifiers), smoothing=0.1)(model, batch).backward()
    labels = batch["labels"][:, 1:]
    answers = labels[labels != IGNORED_LABEL].view(-1, 3).tolist()
    allowed = {int(one[level]) for one in identifiers for answer in answers for level in range(3) if one[:level].tolist() == answer[:level]}
    moved = set(torch.nonzero(head.weight.grad.abs().sum(1))[:, 0].tolist())
    assert moved <= allowed
    assert len(moved) > len({token for answer in answers for token in answer})


QUICK = TargetSettings(
    epochs=4, batch_size=50, learning_rate=1e-2, subsequences=True, checkpoint_steps=3, normalise="children", dropout=0.1
)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return catalog_of([(str(item), [f"<a_{item // 4}>", f"<b_{item}>"]) for item in range(12)])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users who always go five items further."""
    folder = tmp_path_factory.mktemp("data")
    lines = [{"user": user, "item": (user + 5 * time) % 12, "timestamp": time} for user in range(60) for time in range(6)]
    (folder / "interactions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.json").write_text(json.dumps(TINY_CONFIG))
    return folder


@pytest.mark.parametrize(("rank", "tied"), [(0, False), (4, False), (4, True)])
def test_the_model_says_what_it_is_to_be_searched_with(tmp_path: Path, data: Path, catalog: Catalog, rank: int, tied: bool) -> None:
    base = tmp_path / "config.json"
    base.write_text(json.dumps(TINY_CONFIG | {"tie_word_embeddings": tied}))
    settings = msgspec.structs.replace(QUICK, lora_rank=rank, epochs=8)
    metrics = train_target(data, catalog, str(base), tmp_path / "children", settings=settings)
    assert GenerationConfig.from_pretrained(tmp_path / "children").renormalize_logits is True
    assert metrics.valid_loss is not None
    # Guessing the three and four codes of a level would cost 1.24, over the vocabulary of 18 tokens 2.89.
    assert metrics.valid_loss < 1.0
    again = msgspec.structs.replace(QUICK, normalise="vocabulary", epochs=0.5)
    train_target(data, catalog, str(tmp_path / "children"), tmp_path / "vocabulary", settings=again)
    assert not GenerationConfig.from_pretrained(tmp_path / "vocabulary").renormalize_logits


def test_half_precision_learns_on_cpus_as_well(tmp_path: Path, data: Path, catalog: Catalog) -> None:
    settings = msgspec.structs.replace(QUICK, precision="bfloat16", epochs=8)
    metrics = train_target(data, catalog, str(data / "config.json"), tmp_path / "out", settings=settings)
    assert metrics.valid_loss is not None
    assert metrics.valid_loss < 1.0, "guessing the three and four codes of a level would cost 1.24"
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {part.dtype for part in weights.values()} == {torch.float32}
    # Rounded products make another model than exact ones.
    train_target(data, catalog, str(data / "config.json"), tmp_path / "exact", settings=msgspec.structs.replace(QUICK, epochs=8))
    exact = load_file(tmp_path / "exact" / "model.safetensors")
    assert not torch.equal(exact["lm_head.weight"], weights["lm_head.weight"])


class Interrupted(ProgressBar):
    """Stands for a user who presses Ctrl-C at the fifth step, two behind the checkpoint."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 4:
            raise KeyboardInterrupt


def test_an_interrupted_run_ends_as_if_it_had_not_been(
    tmp_path: Path, data: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With items left out, and with soft labels."""
    settings = msgspec.structs.replace(QUICK, validate_users=9, left_out=0.3)
    weights = np.random.default_rng(0).random((12, 12)).astype(np.float32)
    source = source_of(data, SplitRule())
    neighbours = neighbour_model(weights, map(str, range(12)), kind="knn", decay=0.5, window=5, fit="train", source=source)

    def train(out: Path) -> float | None:
        quality = ListQuality(10, 9, 0.5, 0.5)
        inputs = data, catalog, str(data / "config.json"), out
        return train_target(*inputs, settings=settings, validate=lambda *_: quality, neighbours=neighbours).valid_loss

    whole = train(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(drafting.alignment.training, "ProgressBar", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "out")
    assert train(tmp_path / "out") == pytest.approx(whole)
    expected = load_file(tmp_path / "whole" / "model.safetensors")
    for name, part in load_file(tmp_path / "out" / "model.safetensors").items():
        torch.testing.assert_close(part, expected[name])


def test_what_nothing_is_normalised_over_is_refused() -> None:
    with pytest.raises(TrainingError, match="choose vocabulary or children"):
        TargetSettings(normalise="items")
