"""The loss of a target that learns from a neighbour model, against loops, and what a target learns by it."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from transformers import AutoModelForCausalLM, AutoTokenizer

from drafting.alignment.data.samples import IGNORED_LABEL
from drafting.alignment.neighbour_loss import TEMPERATURE, NeighbourLoss
from drafting.alignment.settings import TargetSettings, TrainingError
from drafting.alignment.target import train_target
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from drafting.neighbours.build import neighbour_model
from drafting.neighbours.candidates import CatalogNeighbours
from drafting.neighbours.model import NeighbourModel
from drafting.prompts.template import PromptTemplate
from tests.models import TINY_CONFIG

ITEMS, PAD, BOS = 12, 7, 8


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return catalog_of([(str(item), [f"<a_{item // 4}>", f"<b_{item % 4}>"]) for item in range(ITEMS)])


@pytest.fixture(scope="module")
def identifiers() -> np.ndarray:
    """Token ids of the catalog: a_0 to a_2, then b_0 to b_3."""
    return np.array([[item // 4, 3 + item % 4] for item in range(ITEMS)])


def neighbours_of(weights: np.ndarray, fit: str = "train", decay: float = 0.5) -> NeighbourModel:
    names = [str(item) for item in range(ITEMS)]
    return neighbour_model(csr_array(weights.astype(np.float32)), names, kind="knn", decay=decay, window=5, fit=fit)


class Fixed(torch.nn.Module):
    """A model with the same logits for every batch."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits)


def test_the_loss_is_that_of_the_candidates_spread_over_the_codes(catalog: Catalog, identifiers: np.ndarray) -> None:
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
    batch = {"input_ids": torch.from_numpy(input_ids), "labels": torch.from_numpy(labels)}

    hard, soft, count = 0.0, 0.0, 0
    log_probs = model.logits.detach().log_softmax(-1).numpy()
    for row, (history, last) in enumerate(zip(histories, scored, strict=True)):
        for place in range(len(history) - last, len(history)):
            before, true = history[:place], history[place]
            scores = sum(0.5**age * weights[item] for age, item in enumerate(reversed(before)))
            candidates = [item for item in range(ITEMS) if scores[item] > 0 and item not in before]
            shares = np.exp(np.array([scores[item] for item in candidates]) / TEMPERATURE)
            for share, item in zip(shares / shares.sum(), candidates, strict=True):
                soft -= share * log_probs[row, 2 * place, identifiers[item, 0]]
                if identifiers[item, 0] == identifiers[true, 0]:
                    soft -= share * log_probs[row, 2 * place + 1, identifiers[item, 1]]
            hard -= sum(log_probs[row, 2 * place + level, identifiers[true, level]] for level in range(2))
            count += 2
    for share in (0.3, 1.0):
        loss = NeighbourLoss(CatalogNeighbours.of(neighbours_of(weights), catalog), identifiers, share)(model, batch)
        assert loss.item() == pytest.approx(((1 - share) * hard + share * soft) / count, rel=1e-4)
    loss.backward()
    assert torch.isfinite(model.logits.grad).all()


def test_without_candidates_the_true_items_are_learnt_alone(catalog: Catalog, identifiers: np.ndarray) -> None:
    input_ids = torch.from_numpy(identifiers[[1, 2]].reshape(1, -1))
    model = Fixed(torch.randn(1, 4, PAD + 1, generator=torch.Generator().manual_seed(0)))
    elsewhere = np.zeros((ITEMS, ITEMS))
    elsewhere[8, 9] = 1
    loss = NeighbourLoss(CatalogNeighbours.of(neighbours_of(elsewhere), catalog), identifiers, 0.5)
    labels = input_ids.clone()
    labels[:, :2] = IGNORED_LABEL
    expected = torch.nn.functional.cross_entropy(model.logits[0, 1:3], labels[0, 2:])
    assert loss(model, {"input_ids": input_ids, "labels": labels}).item() == pytest.approx(0.5 * expected.item(), rel=1e-5)


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
    neighbours = neighbours_of(np.eye(ITEMS)[(np.arange(ITEMS) + 1) % ITEMS], decay=0.01)
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


@pytest.mark.parametrize(
    ("fit", "settings", "template", "sentence"),
    [
        ("all", QUICK, None, "was made from all, but the target learns train"),
        ("train", QUICK, PromptTemplate("{history} ->"), "lists of identifiers alone"),
        ("train+valid", TargetSettings(fit="train+valid", validate_users=5), None, "no epoch can be judged"),
    ],
)
def test_what_does_not_fit_is_refused(
    data: Path, catalog: Catalog, fit: str, settings: TargetSettings, template: PromptTemplate | None, sentence: str
) -> None:
    neighbours = neighbours_of(np.eye(ITEMS), fit)
    with pytest.raises(TrainingError, match=sentence):
        train_target(
            data, catalog, str(data / "config.json"), data / "model", settings=settings, template=template, neighbours=neighbours,
            validate=lambda model, split: pytest.fail("nothing is trained"),
        )  # fmt: skip
    assert not (data / "model").exists()


def test_a_share_is_above_zero_and_at_most_one() -> None:
    for share in (0.0, -0.1, 1.5):
        with pytest.raises(TrainingError, match="neighbour_share"):
            TargetSettings(neighbour_share=share)
