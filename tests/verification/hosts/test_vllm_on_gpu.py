"""What of the vLLM host differs on a GPU, as far as it can be run without one."""

import gc
import multiprocessing
import os
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.verification.hosts.test_vllm import needs_vllm

CHECKS = Path(__file__).parent / "vllm_on_gpu_checks.py"
# Of all checks, which take a few.
MOST_SECONDS = 120


@needs_vllm
def test_the_backend_fits_what_vllm_does_on_a_gpu(tmp_path: Path) -> None:
    host = import_module("verification.hosts.vllm_attention")
    # A process of its own, for the host decides once where it runs, and a fork, for vLLM's import takes longer than all checks.
    process = multiprocessing.get_context("fork").Process(target=check, args=(said := tmp_path / "said", host.FUSED_ON_CPU))
    process.start()
    process.join(MOST_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
    assert process.exitcode == 0, said.read_text()


def check(said: Path, fused: str) -> None:
    """Run the checks with a host that is imported anew; without conftest.py, for the test holds a turn already."""
    gc.freeze()
    # vLLM takes an implementation of a name once.
    for operation in vars(import_module("vllm.ir").ops).values():
        getattr(operation, "impls", {}).pop(fused, None)
    with said.open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        for name in [name for name in sys.modules if name.startswith("verification.hosts.vllm")]:
            del sys.modules[name]
        status = pytest.main(["--noconftest", "-p", "no:cacheprovider", str(CHECKS)])
        sys.stdout.flush()
        os._exit(status)


@needs_vllm
def test_quantizing_while_loading_scales_by_the_token() -> None:
    """By "fp8" alone, vLLM scales what goes into experts by the whole forward."""
    base = pytest.importorskip("vllm.model_executor.layers.quantization.online.fp8")
    from vllm.config.quantization import resolve_quantization_config
    from vllm.model_executor.layers.quantization.online.base import _ONLINE_LINEAR_METHODS, _ONLINE_MOE_METHODS

    from verification.hosts.vllm import QUANTIZATIONS

    chosen = resolve_quantization_config(QUANTIZATIONS["fp8"], None)
    assert _ONLINE_LINEAR_METHODS[chosen.linear.weight].activation_quant_key == base.kFp8DynamicTokenSym
    assert _ONLINE_MOE_METHODS[chosen.moe.weight].per_act_token_quant
