"""How the vLLM host starts, and what is told of a start that fails."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from tests.models import save_random_model
from tests.verification.hosts.test_vllm import CATALOG, needs_vllm
from verification.hosts.checkpoint import HostError, slot_bytes
from verification.recommender import Recommender


@needs_vllm
def test_memory_is_what_the_host_is_told_whatever_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, vLLM takes a variable of its own for the memory of keys and values before what it is told."""
    from verification.hosts import vllm as module

    seen = []

    def start(arguments: Any) -> None:
        seen.append(arguments.create_engine_config().cache_config.kv_cache_memory_bytes)
        raise ValueError("It is enough to know how it would start")

    monkeypatch.setattr(module.LLMEngine, "from_engine_args", start)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "3")
    folder = save_random_model(tmp_path / "model", CATALOG)
    with pytest.raises(HostError, match="It is enough to know how it would start"):
        module.VllmHost(folder, kv_memory_gib=0.05)
    assert seen == [int(0.05 * 2**30)] * 2
    assert os.environ["VLLM_CPU_KVCACHE_SPACE"] == "3"


@needs_vllm
def test_after_a_start_vllm_asks_for_memory_as_by_itself() -> None:
    """A notebook may use vLLM for something else, too, whose scheduler runs."""
    from verification.hosts import vllm_start as module

    own = module.kv_cache_utils._check_enough_kv_cache_memory
    with module.starting():
        assert module.kv_cache_utils._check_enough_kv_cache_memory is module.check_memory
    assert module.kv_cache_utils._check_enough_kv_cache_memory is own
    with pytest.raises(HostError), module.starting():
        raise HostError("No room")
    assert module.kv_cache_utils._check_enough_kv_cache_memory is own


@needs_vllm
def test_it_starts_with_memory_for_less_than_the_longest_prompt(tmp_path: Path) -> None:
    """As the transformers host does: the engine knows what a list takes, and refuses those that are too long."""
    from verification.hosts.vllm_attention import BLOCK_SIZE
    from verification.hosts.vllm_start import check_memory

    folder = save_random_model(tmp_path / "model", CATALOG)
    memory = 2 * BLOCK_SIZE * slot_bytes(AutoConfig.from_pretrained(folder), torch.float32)
    recommender = Recommender.load(folder, CATALOG, host="vllm", kv_memory_gib=memory / 2**30, verify="never")
    assert recommender.prompts.max_tokens > recommender.engine.total_slots == 2 * BLOCK_SIZE
    recommender.close()
    check_memory(0)
    with pytest.raises(
        HostError, match=r"^The memory for keys and values holds not even 32 tokens of this model: raise --kv-memory-gib\.$"
    ):
        check_memory(-1)


@needs_vllm
def test_a_device_whose_process_does_not_start_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of that, vLLM raises the class of all errors; its other code is tried, as after any other error."""
    from verification.hosts import vllm as module

    tried = []

    def start(arguments: Any) -> None:
        tried.append(arguments.model_impl)
        raise Exception("WorkerProc initialization failed due to an exception in a background process.")

    monkeypatch.setattr(module.LLMEngine, "from_engine_args", start)
    folder = save_random_model(tmp_path / "model", CATALOG)
    with pytest.raises(HostError) as refused:
        module.VllmHost(folder, kv_memory_gib=0.05, tensor_parallel=2)
    assert tried == ["auto", "transformers"]
    assert str(refused.value) == "A process of --tensor-parallel did not start: vLLM's error in the log says why."


@needs_vllm
def test_a_build_for_gpus_that_sees_none_is_refused_for_that() -> None:
    from vllm.platforms import current_platform
    from vllm.platforms.interface import UnspecifiedPlatform

    from verification.hosts.vllm_attention import check_platform

    check_platform(current_platform)
    with pytest.raises(HostError, match=r"no GPU can be seen here: .* or use --engine transformers\.$"):
        check_platform(UnspecifiedPlatform())


@needs_vllm
def test_another_version_is_refused_with_what_serves_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where vLLM is installed for something else, it is the engine by default, and nobody has asked for it."""
    from verification.hosts import vllm_attention

    monkeypatch.setattr(vllm_attention, "version", lambda package: "0.1.0+cpu")
    with pytest.raises(HostError, match=r"^vllm-cpu 0\.1\.0\+cpu is installed, .*: install that version, or use --engine transformers\.$"):
        vllm_attention.check_version()


@needs_vllm
def test_processes_that_have_loaded_a_model_end_with_a_start_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM keeps them where what comes after fails, and its other code would find their devices full. Others are let alone."""
    from verification.hosts import vllm as module

    context = multiprocessing.get_context("fork")
    workers, other = [], context.Process(target=signal.pause, name="other", daemon=True)

    def start(arguments: Any) -> None:
        assert not any(worker.is_alive() for worker in workers)
        workers.append(context.Process(target=signal.pause, name="VllmWorker-0", daemon=True))
        workers[-1].start()
        if other.pid is None:
            other.start()
        raise ValueError("No room for keys and values")

    monkeypatch.setattr(module.LLMEngine, "from_engine_args", start)
    folder = save_random_model(tmp_path / "model", CATALOG)
    with pytest.raises(HostError, match="No room for keys and values"):
        module.VllmHost(folder, kv_memory_gib=0.05, tensor_parallel=2)
    assert [worker.is_alive() for worker in workers] == [False, False]
    assert other.is_alive()
    other.kill()
    other.join()
