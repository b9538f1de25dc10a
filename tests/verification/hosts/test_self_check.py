"""The self-check at start: right hosts pass it, and each planted fault of attention is found though no list of refusals names it."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.llama import modeling_llama

from tests.models import random_catalog, save_family_model, save_random_model
from tests.verification.engine.test_beam_search import HOSTS
from tests.verification.hosts.test_families import EXPERTS, FULL, WINDOW
from verification.hosts import layers, transformers
from verification.hosts.checkpoint import HostError
from verification.recommender import Recommender

CATALOG = random_catalog(items=120, depth=4, codes=6)
CAP = {"layer_types": FULL, "attn_logit_softcapping": 2.0}


def tree_attention_without(monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Have every layer's attention computed with some of its arguments changed."""
    names = ("query", "key", "value", "cache", "slots", "layouts", "scale", "softcap", "sinks")
    right = transformers.tree_attention
    monkeypatch.setattr(transformers, "tree_attention", lambda *given: right(**change(dict(zip(names, given, strict=True)))))


def no_soft_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    tree_attention_without(monkeypatch, lambda given: given | {"softcap": None})


def no_sinks(monkeypatch: pytest.MonkeyPatch) -> None:
    tree_attention_without(monkeypatch, lambda given: given | {"sinks": None})


def wrong_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    tree_attention_without(monkeypatch, lambda given: given | {"scale": 1.1 * given["scale"]})


def no_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers.MaskRule, "reach", lambda rule, longest, device: None)


def no_biases(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library adds a bias by distance to the scores, and hands it to no other attention function."""
    right = modeling_llama.eager_attention_forward

    def biased(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **options: Any) -> Any:
        positions = torch.arange(mask.shape[-1])
        return right(module, query, key, value, mask + 0.1 * (positions - positions[:, None]), **options)

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", biased)


FAULTS = [
    (no_soft_cap, "gemma2", CAP),
    (no_sinks, "gpt_oss", {**EXPERTS, "layer_types": FULL}),
    (no_biases, "llama", {}),
    (no_windows, "mistral", WINDOW),
    (wrong_scale, "qwen3", {}),
]


def load(folder: Path, **options: Any) -> None:
    Recommender.load(folder, CATALOG, kv_memory_gib=0.05, **options).close()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("fault", "family", "settings"), FAULTS)
def test_a_planted_fault_is_found_with_the_refusals_switched_off(
    fault: Callable[[pytest.MonkeyPatch], None],
    family: str,
    settings: dict[str, Any],
    dtype: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = save_family_model(tmp_path / "model", CATALOG, family, **settings)
    load(folder, dtype=dtype)
    monkeypatch.setattr(layers, "check_options", lambda options, query: None)
    fault(monkeypatch)
    advice = "`atspeed serve --verify-model never` would serve it as it is"
    with pytest.raises(HostError, match=rf"^Lists of this model \({family}\) would be wrong: in the self-check .*; {advice}\.$"):
        load(folder, dtype=dtype)
    load(folder, dtype=dtype, verify="never")


def test_an_encoder_is_found_with_the_refusals_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_family_model(tmp_path / "model", CATALOG, "bert", is_decoder=False)
    monkeypatch.setattr("verification.hosts.checkpoint.ENCODERS", set())
    with pytest.raises(HostError, match="Models of type bert can't be served"):
        load(folder)
    monkeypatch.setattr(layers, "check_options", lambda options, query: None)
    no_windows(monkeypatch)
    with pytest.raises(HostError, match=r"^Lists of this model \(bert\) would be wrong"):
        load(folder)


def test_what_a_forward_asserts_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(host: transformers.TransformersHost, batch: object) -> Tensor:
        raise AssertionError

    folder = save_random_model(tmp_path / "model", CATALOG)
    monkeypatch.setattr(transformers.TransformersHost, "score", failing)
    with pytest.raises(
        HostError,
        match=r"The self-check of the model in .* failed \(AssertionError.*: try the other --engine, where the command has one\.$",
    ):
        load(folder)


@pytest.mark.parametrize("host", HOSTS)
def test_the_difference_is_in_the_log(host: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = save_random_model(tmp_path / "model", CATALOG)
    with caplog.at_level(logging.INFO, "verification.hosts.self_check"):
        load(folder, host=host)
    (record,) = (record for record in caplog.records if record.name == "verification.hosts.self_check")
    assert record.message.startswith("Self-check: log-probabilities differ by ")
    assert float(record.message.split(" by ")[1].split(" ")[0]) < 1e-4


def test_a_second_copy_of_a_large_model_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A large model in half precision is checked as it is served."""
    folder = save_random_model(tmp_path / "model", CATALOG)
    monkeypatch.setattr("verification.hosts.self_check.MOST_BYTES", 1000)
    with caplog.at_level(logging.INFO, "verification.hosts.self_check"):
        load(folder, dtype="bfloat16")
        load(folder, dtype="bfloat16", verify="always")
    limits = [record.message.split("(limit ")[1].split(";")[0] for record in caplog.records if record.message.startswith("Self-check")]
    assert limits == ["0.2", "0.001"]


def test_a_model_is_compared_as_it_is_where_there_is_no_memory_for_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a GPU of which keys and values have taken the most."""

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    folder = save_random_model(tmp_path / "model", CATALOG)
    monkeypatch.setattr(transformers.TransformersHost, "from_model", full)
    with caplog.at_level(logging.INFO, "verification.hosts.self_check"):
        load(folder, dtype="bfloat16")
    told = [record.message for record in caplog.records if record.name == "verification.hosts.self_check"]
    assert told[0] == "Self-check: the model is compared as it is, for there is too little memory for a copy of it in float32."
    assert "(limit 0.2;" in told[1]
    with pytest.raises(HostError, match=r"^The model can't be verified, for there is too little memory .*: lower --kv-memory-gib"):
        load(folder, dtype="bfloat16", verify="always")
    monkeypatch.setattr(transformers.TransformersHost, "score", full)
    with pytest.raises(HostError, match=r"^The self-check of the model in .* failed \(OutOfMemoryError: .*\): lower --kv-memory-gib\.$"):
        load(folder)


def test_it_takes_two_seconds_at_most(tmp_path: Path) -> None:
    """On a model of four million parameters; the processor's time, of which none passes for others; without it is taken beforehand."""
    folder = save_random_model(tmp_path / "model", CATALOG, hidden=256, layers=5, heads=4)
    seconds = []
    for verify in ("never", "auto"):
        started = time.process_time()
        load(folder, verify=verify)
        seconds.append(time.process_time() - started)
    assert seconds[1] - seconds[0] < 2
