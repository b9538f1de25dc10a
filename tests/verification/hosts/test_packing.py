"""Packed weights: the same products, and only where there are such."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drafting.model_files import ModelFiles
from tests.models import random_catalog, save_random_model
from tests.t5_models import save_t5_model
from tests.verification.hosts.test_decoder_layers import LONGEST, SERVED, SLOTS, log_probs, made
from verification.hosts import packing
from verification.hosts.adapter import load_reference
from verification.hosts.loading import load_host
from verification.hosts.packing import PackedProduct
from verification.hosts.self_check import ROUNDING, compare
from verification.hosts.transformers import TransformersHost

HAS_PACKED = PackedProduct.of(torch.ones(512, 512), None) is not None
needs_packed = pytest.mark.skipif(not HAS_PACKED, reason="PyTorch has no packed products here")


@pytest.fixture(autouse=True)
def small_weights_are_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(packing.FEWEST_WEIGHTS, torch.float32, 1)


def weights(size: int = 24) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(40, size, generator=generator), torch.randn(40, generator=generator)


@needs_packed
@pytest.mark.parametrize("rows", [0, 1, 3, 17, 200])
@pytest.mark.parametrize("has_bias", [False, True])
def test_products_are_those_of_the_weights(rows: int, has_bias: bool) -> None:
    """Of rows side by side, and of rows that lie within wider ones."""
    weight, bias = weights()
    packed = PackedProduct.of(weight.t().contiguous().t(), bias if has_bias else None)
    assert packed is not None
    wide = torch.randn(rows, 50, generator=torch.Generator().manual_seed(1))
    hidden = torch.randn(rows, 40, generator=torch.Generator().manual_seed(2))
    for given in (wide[:, 3:27], wide[:, 3:27].contiguous()):
        expected = F.linear(given, weight, bias if has_bias else None)
        torch.testing.assert_close(packed(given), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(packed.added(hidden.clone(), given), hidden + expected, atol=1e-5, rtol=1e-5)


@needs_packed
def test_what_is_added_to_may_lie_within_wider_rows() -> None:
    weight, _ = weights()
    packed = PackedProduct.of(weight, None)
    assert packed is not None
    rows, wide = torch.ones(5, 24), torch.randn(5, 90, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(packed.added(wide[:, 7:47], rows), wide[:, 7:47] + rows @ weight.t(), atol=1e-5, rtol=1e-5)


def test_there_is_code_for_few_numbers_of_rows() -> None:
    rooms = [packing.room(rows) for rows in range(1025)]
    assert all(rows <= found <= rows * 9 / 8 + 1 for rows, found in enumerate(rooms))
    assert rooms[0] == 0
    assert [rooms[rows] for rows in (10, 20, 80)] == [10, 20, 80]
    assert len(set(rooms)) < 60


def test_products_that_are_others_or_that_there_are_none_of_are_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, bias = weights()
    with monkeypatch.context() as patched:
        patched.setitem(packing.FEWEST_WEIGHTS, torch.float32, weight.numel() + 1)
        assert PackedProduct.of(weight, None) is None
    assert PackedProduct.of(weight.double(), None) is None
    assert PackedProduct.of(weight.to("meta"), None) is None
    # A number that is none spoils each product, and says nothing about the others.
    assert PackedProduct.of(weight, bias.index_fill(0, torch.tensor([3]), float("nan"))) is None
    for broken in ("__call__", "added"):
        with monkeypatch.context() as patched:
            patched.setattr(packing.PackedProduct, broken, lambda product, *given: given[0].new_zeros(3, 40))
            assert PackedProduct.of(weight, bias) is None

    def missing(*_: object) -> Tensor:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")

    monkeypatch.setattr(packing.PackedProduct, "__call__", missing)
    assert PackedProduct.of(weight, bias) is None


@needs_packed
@pytest.mark.parametrize("name", SERVED)
def test_packed_layers_give_what_they_gave_and_modules_hold_nothing(name: str) -> None:
    family, settings = SERVED[name]
    host = TransformersHost.from_model(made(family, **settings), SLOTS)
    expected = log_probs(host)
    embeddings = host.model.get_input_embeddings().weight.clone()  # type: ignore[operator, union-attr]
    host.pack()
    torch.testing.assert_close(log_probs(host), expected, atol=1e-4, rtol=0)
    head = host.model.get_output_embeddings()
    assert all(not module.weight.numel() for module in host.model.modules() if isinstance(module, nn.Linear) and module is not head)
    assert torch.equal(host.model.get_input_embeddings().weight, embeddings)  # type: ignore[arg-type, union-attr]


def test_packed_layers_in_half_precision_give_what_they_gave_but_for_rounding() -> None:
    host = TransformersHost.from_model(made("qwen3", torch.bfloat16), SLOTS)
    expected = log_probs(host)
    host.pack()
    assert float((log_probs(host) - expected).square().mean().sqrt()) < ROUNDING[torch.bfloat16]


def test_layers_whose_products_can_not_be_packed_keep_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    family, settings = SERVED["llama, all biases"]
    host = TransformersHost.from_model(made(family, **settings), SLOTS)
    expected = log_probs(host)
    monkeypatch.setattr(PackedProduct, "of", lambda weight, bias: None)
    host.pack()
    torch.testing.assert_close(log_probs(host), expected, atol=1e-5, rtol=0)
    assert all(module.weight.numel() for module in host.model.modules() if isinstance(module, nn.Linear))


@needs_packed
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("kind", ["causal", "t5"])
def test_what_is_served_is_packed_and_checked_but_for_what_is_to_be_exact(kind: str, exact: bool, tmp_path: Path) -> None:
    target = {"causal": save_random_model, "t5": save_t5_model}[kind](tmp_path / "target", random_catalog(30))
    host = load_host("transformers", target, dtype="float32", slots=400, exact=exact)
    assert isinstance(host, TransformersHost)
    head = host.model.get_output_embeddings()
    linear = [module for module in host.model.modules() if isinstance(module, nn.Linear) and module is not head]
    assert linear
    assert all((module.weight.numel() > 0) is exact for module in linear)
    compare(host, load_reference(ModelFiles.find(target), torch.float32), LONGEST)
    host.close()
