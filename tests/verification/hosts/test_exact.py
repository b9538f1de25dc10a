"""`--exact`: in half precision, a list is the same to the last bit alone, in company, after a cached prompt and with drafts."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from drafting.beam.rule import STRICT, SearchRule, Verification
from drafting.plans.fixed_plan import FixedPlan
from drafting.prompts.template import PromptTemplate
from drafting.prompts.thinking import ThinkTemplate
from tests.models import random_catalog, save_family_model, save_random_model
from tests.t5_models import save_t5_model
from verification.hosts import exact
from verification.hosts.checkpoint import HostError
from verification.hosts.exact import ROWS, make_exact
from verification.hosts.transformers import TransformersHost
from verification.recommender import Recommender
from verification.result import BeamResult, Precision

CATALOG = random_catalog(items=400, depth=4, codes=12)
# Families whose attention, activations or layers take other ways than Llama's.
GEMMA = {"sliding_window": 7, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 20.0}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma2": ("bfloat16", GEMMA),
    "gpt2": ("bfloat16", {}),
    "t5": ("bfloat16", {"d_model": 128, "d_kv": 32}),
    "mt5": ("bfloat16", {"d_model": 128, "d_kv": 32, "feed_forward_proj": "gated-gelu"}),
    # Few numbers in a row, so that many of them stand at the end of a tensor, where PyTorch computes this activation in another way.
    # Products of nine outputs depend on a row's place on some CPUs, and the proof refuses them there.
    "llama": ("float32", {"intermediate_size": 12}),
}
HALVES = [torch.bfloat16, torch.float16]


def scored(results: Iterable[BeamResult]) -> list[list[tuple[int, float]]]:
    return [[(item.item, item.score) for item in result.items] for result in results]


def every_way(recommender: Recommender, histories: list[list[int]], k: int) -> dict[str, list[list[tuple[int, float]]]]:
    """The lists of all histories with their scores, each time computed in other forwards."""
    found = {}
    for plan in ("none", "trie", "beam:20"):
        recommender.engine.use_plan(FixedPlan.parse(plan))
        found[f"alone, {plan}"] = [*scored(result for history in histories for result in recommender.recommend([history], k, k))]
        found[f"in company, {plan}"] = scored(recommender.recommend(histories, k, k))
    for name, shown in (("before", [history[:-1] or history for history in histories]), ("after a cached prompt", histories)):
        requests = [recommender.request(f"{name} {user}", history, k, k, cache_key=f"{user}") for user, history in enumerate(shown)]
        results = [answer for answer in recommender.search(requests) if isinstance(answer, BeamResult)]
        if shown is histories:
            assert sum(result.usage.cached_tokens for result in results) > 200
            found[name] = scored(results)
    return found


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_list_is_the_same_to_the_last_bit_however_it_is_computed(dtype: torch.dtype, tmp_path: Path) -> None:
    target = save_random_model(tmp_path / "target", CATALOG, hidden=128, layers=2, dtype=dtype)
    draft = save_random_model(tmp_path / "draft", CATALOG, hidden=32, layers=1, dtype=dtype)
    recommender = Recommender.load(target, CATALOG, draft=draft, plan="beam:20", kv_memory_gib=0.02, exact=True)
    rng = np.random.default_rng(0)
    histories = [rng.integers(len(CATALOG), size=length).tolist() for length in rng.integers(1, 20, size=16)]
    found = every_way(recommender, histories, 10)
    recommender.close()
    assert recommender.precision == Precision(str(dtype).removeprefix("torch."), is_exact=True)
    expected = found.pop("alone, none")
    assert {name: lists == expected for name, lists in found.items()} == dict.fromkeys(found, True)


def test_wide_beams_are_the_same_to_the_last_bit_in_company_and_with_drafts(tmp_path: Path) -> None:
    """So wide that on a CPU prompt and ancestors are attended to apart, in some forwards and not in others."""
    target = save_random_model(tmp_path / "target", CATALOG, hidden=32, layers=1, dtype=torch.bfloat16)
    recommender = Recommender.load(target, CATALOG, kv_memory_gib=0.02, exact=True)
    histories = [[1, 2, 3], list(range(20))]
    alone = [*scored(result for history in histories for result in recommender.recommend([history], 90, 90))]
    found = {"in company": scored(recommender.recommend([*histories, [5]], 90, 90))[:2]}
    recommender.engine.use_plan(FixedPlan.parse("trie"))
    found["drafted"] = scored(recommender.recommend(histories, 90, 90))
    recommender.close()
    assert {name: lists == alone for name, lists in found.items()} == dict.fromkeys(found, True)


@pytest.mark.parametrize("family", FAMILIES)
def test_families_are_proved_at_start_and_their_lists_are_the_same(family: str, tmp_path: Path) -> None:
    dtype, settings = FAMILIES[family]
    if family in ("t5", "mt5"):
        folder = save_t5_model(tmp_path / "model", CATALOG, family, **settings)
    else:
        folder = save_family_model(tmp_path / "model", CATALOG, family, **settings)
    recommender = Recommender.load(folder, CATALOG, dtype=dtype, plan="trie", kv_memory_gib=0.02, exact=True)
    rng = np.random.default_rng(0)
    histories = [rng.integers(len(CATALOG), size=length).tolist() for length in range(1, 17)]
    alone = [*scored(result for history in histories for result in recommender.recommend([history], 10))]
    together = scored(recommender.recommend(histories, 10))
    recommender.close()
    assert together == alone


def test_exact_lists_are_those_of_the_model(tmp_path: Path) -> None:
    """In float32 there is no noise that could hide a mistake."""
    folder = save_family_model(tmp_path / "model", CATALOG, "gemma2", **GEMMA)
    lists = []
    for is_exact in (False, True):
        recommender = Recommender.load(folder, CATALOG, dtype="float32", kv_memory_gib=0.02, exact=is_exact)
        lists.append(list(recommender.recommend([[1, 2, 3], [4], [5, 6]], 10)))
        recommender.close()
        assert recommender.precision == Precision("float32", is_exact=True)
    for plain, exactly in zip(*lists, strict=True):
        assert [item.item for item in exactly.items] == [item.item for item in plain.items]
        assert [item.score for item in exactly.items] == pytest.approx([item.score for item in plain.items], abs=1e-4)


def test_half_precision_is_not_exact_by_itself(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "model", CATALOG, hidden=32, layers=1, dtype=torch.bfloat16)
    recommender = Recommender.load(folder, CATALOG, kv_memory_gib=0.02)
    recommender.close()
    assert recommender.precision == Precision("bfloat16", is_exact=False)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize(("size", "outputs"), [(64, 129), (256, 512), (320, 75)])
def test_a_row_in_blocks_depends_neither_on_its_place_nor_on_the_others(dtype: torch.dtype, size: int, outputs: int) -> None:
    """What the invariant rests on, on this machine: else `_prove` would refuse every model here."""
    torch.manual_seed(0)
    linear, rows = nn.Linear(size, outputs, bias=False, dtype=dtype), torch.randn(3 * ROWS, size).to(dtype)
    with torch.inference_mode():
        expected = exact._in_blocks(linear, rows)
        for shift in (1, 7, ROWS - 1):
            assert torch.equal(exact._in_blocks(linear, rows.roll(shift, 0)), expected.roll(shift, 0))
        for count in (1, 5, ROWS, ROWS + 1):
            others = torch.cat([torch.randn(count, size).to(dtype), rows[:count]])
            assert torch.equal(exact._in_blocks(linear, others)[count:], expected[:count])


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("activation", [nn.GELU(), nn.SiLU(), nn.GELU(approximate="tanh")], ids=str)
def test_half_numbers_are_activated_alike_wherever_they_stand(activation: nn.Module, dtype: torch.dtype) -> None:
    """PyTorch's own GELU does not: between -5.2 and -5 it gives -0.0 or something else, by the place in the tensor."""
    numbers = torch.linspace(-6, 6, 3000).to(dtype)
    together = exact._in_float64(activation, numbers)
    # Rows of three numbers are all end.
    apart = torch.cat([exact._in_float64(activation, part) for part in numbers.split(3)])
    assert torch.equal(apart, together)


class Sociable(nn.Module):
    """A layer that lets a token feel a little of the other tokens of its forward."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, states: Tensor) -> Tensor:
        return self.norm(states) + 0.01 * states.mean(1, keepdim=True)


def test_a_model_whose_tokens_depend_on_their_company_is_refused_at_start(tmp_path: Path) -> None:
    host = TransformersHost(save_random_model(tmp_path / "model", CATALOG, dtype=torch.bfloat16), kv_memory_gib=0.02)
    host.model.set_submodule("model.norm", Sociable(host.model.get_submodule("model.norm")))
    with pytest.raises(HostError, match=r"^Lists of this model \(llama\) would depend on the other requests even with --exact"):
        make_exact(host, 64)


def test_on_a_gpu_norms_take_blocks_of_one_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of heads among them; what adds up a row there is a matter of the tensor's shape."""
    folder = save_random_model(tmp_path / "model", CATALOG, family="qwen3", dtype=torch.bfloat16)
    host, seen, own = TransformersHost(folder, kv_memory_gib=0.02), set(), Qwen3RMSNorm.forward

    def forward(norm: nn.Module, states: Tensor) -> Tensor:
        seen.add(tuple(states.shape[:-1]))
        return own(norm, states)

    monkeypatch.setattr(Qwen3RMSNorm, "forward", forward)
    monkeypatch.setattr(exact, "is_async", lambda device: True)
    make_exact(host, 64)
    assert seen == {(ROWS,)}


@pytest.mark.parametrize("on_gpu", [False, True])
def test_norms_with_weights_for_each_head_are_refused_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_gpu: bool) -> None:
    """A block of rows has more heads than one token."""
    host = TransformersHost(save_family_model(tmp_path / "model", CATALOG, "cohere", use_qk_norm=True), kv_memory_gib=0.02)
    monkeypatch.setattr(exact, "is_async", lambda device: on_gpu)
    with pytest.raises(HostError, match=r"^Models of type cohere can't be served with --exact: what layers of type CohereLayerNorm"):
        make_exact(host, 64)


def test_experts_are_refused_in_a_sentence(tmp_path: Path) -> None:
    """How many rows an expert multiplies is a matter of the other requests."""
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
    folder = save_family_model(tmp_path / "model", CATALOG, "mixtral", **experts)
    with pytest.raises(HostError, match=r"^Models of type mixtral can't be served with --exact: what layers of type Mixtral"):
        Recommender.load(folder, CATALOG, kv_memory_gib=0.02, exact=True)


def test_the_vllm_host_refuses_before_weights_are_read(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "model", CATALOG, layers=1)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(HostError, match=r"^The vLLM host can't make lists exact: serve with --engine transformers, or without --exact\.$"):
        Recommender.load(folder, CATALOG, host="vllm", exact=True)


def test_a_text_before_a_list_is_the_same_too(tmp_path: Path) -> None:
    """Greedy and sampled: another text would mean another list."""
    target = save_random_model(tmp_path / "target", CATALOG, hidden=128, layers=2, dtype=torch.bfloat16)
    draft = save_random_model(tmp_path / "draft", CATALOG, hidden=32, layers=1, dtype=torch.bfloat16)
    PromptTemplate(think=ThinkTemplate("<a_0>", 12)).save(target)
    recommender = Recommender.load(target, CATALOG, draft=draft, plan="beam:20", kv_memory_gib=0.02, exact=True)
    rng = np.random.default_rng(0)
    histories = [rng.integers(len(CATALOG), size=length).tolist() for length in rng.integers(1, 20, size=12)]
    for rule in (STRICT, SearchRule(Verification.GUMBEL, seed=3)):
        together = list(recommender.recommend(histories, 10, rule=rule, think=12))
        alone = [
            result
            for number, history in enumerate(histories)
            for result in recommender.recommend([history], 10, rule=rule.numbered(number), think=12)
        ]
        assert [result.thought for result in alone] == [result.thought for result in together]
        assert scored(alone) == scored(together)
        assert len({result.thought for result in alone}) > 6
    recommender.close()
