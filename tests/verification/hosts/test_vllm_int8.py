"""Weights of 8 bits on the vLLM host's CPU: near the model's own lists, the same alone and in company, or refused in a sentence."""

from pathlib import Path

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
def test_lists_are_the_same_alone_and_in_company_and_near_those_of_the_weights(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "model", CATALOG, layers=2)
    histories = [np.random.default_rng(length).integers(len(CATALOG), size=length).tolist() for length in (1, 2, 4, 7)]

    def served(**options: str) -> list[list[tuple[int, float]]]:
        recommender = Recommender.load(folder, CATALOG, kv_memory_gib=0.05, host="vllm", dtype="bfloat16", **options)
        together = [[(item.item, item.score) for item in result.items] for result in recommender.recommend(histories, 10, 10)]
        alone = [[(item.item, item.score) for item in next(recommender.recommend([history], 10, 10)).items] for history in histories]
        recommender.close()
        if options:
            for one, other in zip(alone, together, strict=True):
                assert [item for item, _ in one] == [item for item, _ in other]
                np.testing.assert_allclose([score for _, score in one], [score for _, score in other], atol=1e-5)
        return alone

    whole, quantized = served(), served(quantization="int8")
    assert quantized != whole, "weights are quantized"
    for ours, theirs in zip(quantized, whole, strict=True):
        scores = dict(ours)
        shared = [(score, scores[item]) for item, score in theirs if item in scores]
        assert len(shared) >= 7
        np.testing.assert_allclose(*zip(*shared, strict=True), atol=0.15)


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
