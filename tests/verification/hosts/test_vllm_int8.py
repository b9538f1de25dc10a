"""Weights of 8 bits on the vLLM host's CPU: near the model's own lists, the same alone and in company, or refused in a sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models import random_catalog, save_random_model
from tests.verification.hosts.test_vllm import needs_vllm
from verification.hosts.checkpoint import HostError
from verification.hosts.head import LinearHead, Treatment
from verification.recommender import Recommender

CATALOG = random_catalog(items=120, depth=3, codes=8)


def has_instructions() -> bool:
    """Whether int8 is served here."""
    return any(torch.cpu.get_capabilities().get(name) for name in ("amx_int8", "avx512_vnni"))


needs_int8 = pytest.mark.skipif(torch.cuda.is_available() or not has_instructions(), reason="needs a CPU with products of integers")


@needs_vllm
@needs_int8
def test_lists_are_the_same_alone_and_in_company_and_near_those_of_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from verification.hosts.vllm_int8 import Int8Product

    folder = save_random_model(tmp_path / "model", CATALOG, layers=2)
    histories = [np.random.default_rng(length).integers(len(CATALOG), size=length).tolist() for length in (1, 2, 4, 7)]
    products: set[int] = set()
    multiply = Int8Product.__call__

    def noted(product: Int8Product, states: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        products.add(id(product))
        return multiply(product, states, bias)

    def lists(recommender: Recommender, asked: list[list[int]]) -> list[list[tuple[int, float]]]:
        return [[(item.item, item.score) for item in result.items] for result in recommender.recommend(asked, 10, 10)]

    monkeypatch.setattr(Int8Product, "__call__", noted)
    # The reference is transformers' bfloat16: to start vLLM once more would take most of the test's time.
    whole = lists(Recommender.load(folder, CATALOG, kv_memory_gib=0.05, dtype="bfloat16", verify="never"), histories)
    assert not products
    recommender = Recommender.load(folder, CATALOG, kv_memory_gib=0.05, host="vllm", dtype="bfloat16", quantization="int8")
    together = lists(recommender, histories)
    alone = [lists(recommender, [history])[0] for history in histories]
    recommender.close()
    assert len(products) == 2 * 4 + 1, "four products in each of two layers, and the sum over the vocabulary"
    for one, other, theirs in zip(alone, together, whole, strict=True):
        assert [item for item, _ in one] == [item for item, _ in other]
        np.testing.assert_allclose([score for _, score in one], [score for _, score in other], atol=1e-5)
        scores = dict(one)
        shared = [(score, scores[item]) for item, score in theirs if item in scores]
        assert len(shared) >= 7
        np.testing.assert_allclose(*zip(*shared, strict=True), atol=0.15)


@needs_vllm
@needs_int8
@pytest.mark.parametrize("outputs", [32, 48, 77])
@pytest.mark.parametrize("has_amx", [True, False])
def test_rows_of_a_batch_of_sequences_are_multiplied_whatever_number_of_outputs_there_is(
    has_amx: bool, outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verification.hosts.vllm_int8 import Int8Product

    if not has_amx:
        monkeypatch.setattr("vllm.model_executor.kernels.linear.scaled_mm.cpu.check_cpu_sgl_kernel", lambda *_: False)
    torch.manual_seed(0)
    layer: Any = torch.nn.Module()
    layer.weight = torch.nn.Parameter(torch.randn(outputs, 64).bfloat16(), requires_grad=False)
    layer.bias = bias = torch.randn(outputs).bfloat16()
    weight, states = layer.weight.float(), torch.randn(2, 5, 64).bfloat16()
    product = Int8Product(layer)
    found = product(states, layer.bias)
    torch.testing.assert_close(found.float(), states.float() @ weight.T + bias.float(), atol=0.5, rtol=0)
    assert torch.equal(found[1], product(states[1], layer.bias))


@needs_vllm
@needs_int8
def test_the_normaliser_of_integers_is_near_the_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    from verification.hosts.vllm_int8 import Int8Head

    monkeypatch.setattr("verification.hosts.vllm_int8.SUMMED_TOKENS", 192)
    torch.manual_seed(0)
    # The last block is no multiple of what a kernel computes at once.
    weight, bias, states = torch.randn(500, 64) / 4, torch.randn(500), torch.randn(9, 64)
    weight[7] = 0
    plain = LinearHead(weight, bias, 500, Treatment(0.5))
    quantized = Int8Head(weight.bfloat16(), bias.bfloat16(), 500, Treatment(0.5))
    found = quantized.log_normaliser(states.bfloat16())
    torch.testing.assert_close(found, plain.log_normaliser(states), atol=0.02, rtol=0)
    assert torch.equal(found[3:4], quantized.log_normaliser(states[3:4].bfloat16()))


@needs_vllm
@pytest.mark.parametrize(
    ("dtype", "on_cpu", "instructions", "words"),
    [
        (torch.float32, True, {"avx512_vnni": True}, "add --dtype bfloat16"),
        (torch.bfloat16, True, {"avx512_bf16": True}, "no instructions for int8"),
        (torch.bfloat16, False, {}, "use --quantization fp8"),
    ],
)
def test_what_has_no_kernel_is_refused(
    dtype: torch.dtype, on_cpu: bool, instructions: dict[str, bool], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verification.hosts.vllm_int8 import check_int8

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    with pytest.raises(HostError, match=words):
        check_int8(dtype, on_cpu)
