"""What of the vLLM host differs on a GPU, as far as it can be run without one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.verification.hosts.test_vllm import needs_vllm

CHECKS = Path(__file__).parent / "vllm_on_gpu_checks.py"


@needs_vllm
def test_the_backend_fits_what_vllm_does_on_a_gpu() -> None:
    # A process of its own: vLLM decides once where it runs. Without conftest.py: this test holds a turn already.
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", str(CHECKS)]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert ended.returncode == 0, ended.stdout + ended.stderr


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
