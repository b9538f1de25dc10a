"""Soft labels from a neighbour model and the loss on them, against loops, and what a target learns by them."""

import json
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from transformers import AutoModelForCausalLM, AutoTokenizer

import drafting.alignment.neighbour_labels
from drafting.alignment.children import ChildrenLogProbs
from drafting.alignment.children_loss import ChildrenLoss
from drafting.alignment.data.samples import IGNORED_LABEL
from drafting.alignment.data.splits import SplitRule
from drafting.alignment.neighbour_labels import TEMPERATURE, neighbour_labels
from drafting.alignment.settings import TargetSettings, TrainingError
from drafting.alignment.smoothing import SmoothedLoss
from drafting.alignment.soft_loss import SoftTokens
from drafting.alignment.target import train_target
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from drafting.neighbours.build import neighbour_model
from drafting.neighbours.candidates import CatalogNeighbours
from drafting.neighbours.model import NeighbourError, NeighbourModel
from drafting.neighbours.source import Source
from drafting.neighbours.source_check import source_of
from drafting.prompts.template import PromptTemplate
from tests.interactions import interactions
from tests.models import TINY_CONFIG

ITEMS, PAD, BOS = 12, 7, 8


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return catalog_of([(str(item), [f"<a_{item // 4}>", f"<b_{item % 4}>"]) for item in range(ITEMS)])


@pytest.fixture(scope="module")
def identifiers() -> np.ndarray:
    """Token ids of the catalog: a_0 to a_2, then b_0 to b_3."""
    return np.array([[item // 4, 3 + item % 4] for item in range(ITEMS)])


def neighbours_of(weights: np.ndarray, fit: str = "train", decay: float = 0.5, source: Source | None = None) -> NeighbourModel:
    names = [str(item) for item in range(ITEMS)]
    return neighbour_model(csr_array(weights.astype(np.float32)), names, kind="knn", decay=decay, window=5, fit=fit, source=source)


class Fixed(torch.nn.Module):
    """A model with the same logits for every batch, and for its head the identity on them."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(logits)
        self.head = torch.nn.Linear(logits.shape[-1], logits.shape[-1], bias=False)
        self.head.weight = torch.nn.Parameter(torch.eye(logits.shape[-1], dtype=logits.dtype))

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.head

    def forward(self, **inputs: torch.Tensor) -> SimpleNamespace:
        assert "soft_items" not in inputs
        return SimpleNamespace(logits=self.head(self.logits))


def expected_labels(weights: np.ndarray, before: list[int], window: int = 5) -> dict[int, float]:
    """The candidates after a history and their shares."""
    scores = sum(0.5**age * weights[item] for age, item in enumerate(reversed(before)) if age < window)
    candidates = [item for item in range(ITEMS) if before and scores[item] > 0 and item not in before]
    shares = np.exp(np.array([scores[item] for item in candidates]) / TEMPERATURE)
    return dict(zip(candidates, shares / shares.sum(), strict=True))


@pytest.mark.parametrize("cells", [1, 40, 1 << 22])
def test_soft_labels_are_the_candidates_after_each_history(catalog: Catalog, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of one interaction, of a few, and of all; histories are longer than the window, and a user may have none."""
    monkeypatch.setattr(drafting.alignment.neighbour_labels, "_CELLS", cells)
    rng = np.random.default_rng(2)
    weights = rng.random((ITEMS, ITEMS)) * (rng.random((ITEMS, ITEMS)) < 0.4)
    weights[3], weights[0] = 0, 0
    histories = [[3, 0, 5, 6, 3, 1, 2, 8, 7], [0], [], [9, 2, 9]]
    neighbours, met = CatalogNeighbours.of(neighbours_of(weights), catalog), interactions(*histories)
    labels = neighbour_labels(neighbours, met, np.arange(len(met)))
    some = np.array([1, 4, 9, 12])
    fewer = neighbour_labels(neighbours, met, some)
    assert len(fewer.items) == len(fewer.shares) == len(some)
    for one, other in zip(fewer.of(some[::-1]).values(), labels.of(some[::-1]).values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    expected = [expected_labels(weights, history[:place]) for history in histories for place in range(len(history))]
    assert [len(each) for each in expected][:2] == [0, 0]
    assert max(map(len, expected)) > 5
    for items, shares, wanted in zip(labels.items.tolist(), labels.shares.tolist(), expected, strict=True):
        assert {item: share for item, share in zip(items, shares, strict=True) if share} == pytest.approx(wanted, rel=1e-4)


def test_items_that_a_catalog_does_not_have_are_passed_over(identifiers: np.ndarray) -> None:
    """The catalog has other numbers for its items, lacks one that the model knows, and has one that it does not know."""
    names = [str(item) for item in (7, 3, 99, 5, 1)]
    catalog = catalog_of([(name, ["<a_0>", f"<b_{row}>"]) for row, name in enumerate(names)])
    weights = np.zeros((ITEMS, ITEMS))
    weights[7, [1, 5, 6]] = 0.3, 0.2, 0.9
    weights[3, 5] = 0.5
    labels = neighbour_labels(CatalogNeighbours.of(neighbours_of(weights), catalog), interactions([0, 1, 2, 4]), np.arange(4))
    found = [
        {names[item]: share for item, share in zip(*each, strict=True) if share}
        for each in zip(labels.items.tolist(), labels.shares.tolist(), strict=True)
    ]
    after_7 = np.exp(np.array([0.3, 0.2]) / TEMPERATURE)
    after_3 = np.exp(np.array([0.15, 0.5 + 0.1]) / TEMPERATURE)
    assert found[0] == {}
    assert found[1] == pytest.approx(dict(zip("15", after_7 / after_7.sum(), strict=True)), rel=1e-4)
    assert found[2] == found[3] == pytest.approx(dict(zip("15", after_3 / after_3.sum(), strict=True)), rel=1e-4)


@pytest.mark.parametrize("children", [False, True])
def test_the_loss_is_that_of_the_candidates_spread_over_the_codes(catalog: Catalog, identifiers: np.ndarray, children: bool) -> None:
    rng = np.random.default_rng(0)
    weights = rng.random((ITEMS, ITEMS)) * (rng.random((ITEMS, ITEMS)) < 0.6)
    histories, scored = [[0, 5, 6, 3], [9, 2, 9]], [2, 2]
    input_ids, labels = np.full((2, 9), PAD), np.full((2, 9), IGNORED_LABEL)
    for row, (history, last) in enumerate(zip(histories, scored, strict=True)):
        tokens = identifiers[history].reshape(-1)
        input_ids[row, 0] = BOS
        input_ids[row, 1 : len(tokens) + 1] = tokens
        labels[row, len(tokens) + 1 - 2 * last : len(tokens) + 1] = tokens[len(tokens) - 2 * last :]
    model = Fixed(torch.from_numpy(rng.normal(size=(2, 9, BOS + 1))))
    met = interactions(*histories)
    soft = neighbour_labels(CatalogNeighbours.of(neighbours_of(weights), catalog), met, np.arange(len(met)))
    batch = {"input_ids": torch.from_numpy(input_ids), "labels": torch.from_numpy(labels)} | soft.of(np.array([2, 3, 5, 6]))

    hard, taught, count = 0.0, 0.0, 0
    logits = model.logits.detach()
    if children:
        # Each level has all codes of the other: what does not count may be anything.
        levels = torch.full((2, 9, BOS + 1), -torch.inf, dtype=logits.dtype)
        levels[:, 0::2, :3], levels[:, 1::2, 3:7] = logits[:, 0::2, :3], logits[:, 1::2, 3:7]
        logits = levels
    log_probs = logits.log_softmax(-1).numpy()
    for row, (history, last) in enumerate(zip(histories, scored, strict=True)):
        for place in range(len(history) - last, len(history)):
            true = history[place]
            for item, share in expected_labels(weights, history[:place]).items():
                taught -= share * log_probs[row, 2 * place, identifiers[item, 0]]
                if identifiers[item, 0] == identifiers[true, 0]:
                    taught -= share * log_probs[row, 2 * place + 1, identifiers[item, 1]]
            hard -= sum(log_probs[row, 2 * place + level, identifiers[true, level]] for level in range(2))
            count += 2
    tokens = SoftTokens(identifiers)
    for share in (0.3, 1.0):
        if children:
            loss = ChildrenLoss(ChildrenLogProbs(model, identifiers), soft=tokens, soft_share=share)(model, batch)
        else:
            loss = SmoothedLoss(has_decoder=False, soft=tokens, soft_share=share)(model, batch)
        assert loss.item() == pytest.approx(((1 - share) * hard + share * taught) / count, rel=1e-4)
    loss.backward()
    assert torch.isfinite(model.logits.grad).all()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Users who always go five items further."""
    lines = (
        json.dumps({"user": user, "item": (user + time * 5) % ITEMS, "timestamp": time}) + "\n" for user in range(60) for time in range(6)
    )
    (tmp_path / "interactions.jsonl").write_text("".join(lines))
    (tmp_path / "config.json").write_text(json.dumps(TINY_CONFIG))
    return tmp_path


QUICK = TargetSettings(epochs=8, batch_size=8, learning_rate=1e-2, subsequences=True, neighbour_share=1.0)


def test_a_target_learns_what_the_neighbour_model_says_and_not_what_users_did(data: Path, catalog: Catalog) -> None:
    neighbours = neighbours_of(np.eye(ITEMS)[(np.arange(ITEMS) + 1) % ITEMS], decay=0.01, source=source_of(data, SplitRule()))
    train_target(data, catalog, str(data / "config.json"), data / "model", settings=QUICK, neighbours=neighbours)
    record = json.loads((data / "model" / "training.json").read_text())
    assert record["neighbours"] == {"kind": "knn", "fit": "train", "digest": neighbours.digest}
    model, tokenizer = AutoModelForCausalLM.from_pretrained(data / "model"), AutoTokenizer.from_pretrained(data / "model")
    tokens = catalog.token_ids(tokenizer.get_vocab())
    with torch.inference_mode():
        prompts = np.column_stack([np.full(ITEMS, tokenizer.bos_token_id), tokens])
        logits = model(torch.from_numpy(prompts)).logits[:, -1]
    following = tokens[(np.arange(ITEMS) + 1) % ITEMS, 0]
    # What users did leads to another first code from every item.
    assert (logits.argmax(-1).numpy() == following).mean() > 0.75


T5 = {"model_type": "t5", "d_model": 16, "d_ff": 32, "d_kv": 8, "num_heads": 2, "num_layers": 1}


@pytest.mark.parametrize(
    ("config", "template", "normalise"),
    [(TINY_CONFIG, PromptTemplate(template="<a_0>{history}", max_items=3), "children"), (T5, PromptTemplate(max_items=3), "vocabulary")],
)
def test_prompts_with_words_and_encoder_decoders_learn_it_too(
    data: Path, catalog: Catalog, config: dict[str, object], template: PromptTemplate, normalise: str
) -> None:
    (data / "config.json").write_text(json.dumps(config))
    neighbours = neighbours_of(np.eye(ITEMS)[(np.arange(ITEMS) + 1) % ITEMS], decay=0.01, source=source_of(data, SplitRule()))
    settings = msgspec.structs.replace(QUICK, epochs=2, batch_size=32, learning_rate=3e-2, normalise=normalise)
    inputs = data, catalog, str(data / "config.json"), data / "model"
    losses = [train_target(*inputs, settings=settings, template=template, neighbours=taught, overwrite=True).train_loss
        for taught in (neighbours_of(np.ones((ITEMS, ITEMS)), source=neighbours.source), neighbours)]  # fmt: skip
    # What can be foretold is learnt better than candidates that are all alike.
    assert losses[1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("fit", "settings", "sentence"),
    [
        ("all", QUICK, "was made from all, but the target learns train"),
        ("train+valid", TargetSettings(fit="train+valid", validate_users=5), "no epoch can be judged"),
    ],
)
def test_what_does_not_fit_is_refused(data: Path, catalog: Catalog, fit: str, settings: TargetSettings, sentence: str) -> None:
    neighbours = neighbours_of(np.eye(ITEMS), fit)
    with pytest.raises(TrainingError, match=sentence):
        train_target(
            data, catalog, str(data / "config.json"), data / "model", settings=settings, neighbours=neighbours,
            validate=lambda model, split: pytest.fail("nothing is trained"),
        )  # fmt: skip
    assert not (data / "model").exists()


@pytest.mark.parametrize(
    ("rule", "settings", "sentence"),
    [
        (None, QUICK, "does not say what it was made from: build it anew with .* --split leave-one-out --min-items 1 --fit train'"),
        (SplitRule("global-time"), QUICK, "'--split global-time --min-items 1', but here it is '--split leave-one-out --min-items 1'"),
        (SplitRule(), msgspec.structs.replace(QUICK, split="global-time"), "build it anew with .* --split global-time"),
        (SplitRule(min_items=2), QUICK, "--min-items 2', but here"),
        (SplitRule(label_kind="buy"), QUICK, "--label-kind buy', but here"),
    ],
)
def test_a_neighbour_model_of_another_split_is_refused(
    data: Path, catalog: Catalog, rule: SplitRule | None, settings: TargetSettings, sentence: str
) -> None:
    """Its part `train` holds items that are held out here, or may."""
    neighbours = neighbours_of(np.eye(ITEMS), source=None if rule is None else source_of(data, rule))
    with pytest.raises(NeighbourError, match=sentence):
        train_target(data, catalog, str(data / "config.json"), data / "model", settings=settings, neighbours=neighbours)
    assert not (data / "model").exists()


def test_a_neighbour_model_of_other_interactions_is_refused(data: Path, catalog: Catalog) -> None:
    neighbours = neighbours_of(np.eye(ITEMS), source=source_of(data, SplitRule()))
    with (data / "interactions.jsonl").open("a") as file:
        file.write('{"user": 0, "item": 0, "timestamp": 99}\n')
    with pytest.raises(NeighbourError, match="was made from other interactions"):
        train_target(data, catalog, str(data / "config.json"), data / "model", settings=QUICK, neighbours=neighbours)


def test_a_share_is_above_zero_and_at_most_one() -> None:
    for share in (0.0, -0.1, 1.5):
        with pytest.raises(TrainingError, match="neighbour_share"):
            TargetSettings(neighbour_share=share)
