"""The Triton kernel: right in Triton's interpreter, and taken by its compiler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

CHECKS = Path(__file__).parent / "tree_kernel_checks.py"

COMPILE = """
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from verification.hosts import tree_kernel as module

kernel = module._attend_stretch
for softcap, biased in ((None, False), (50.0, True)):
    constants = module.kernel_constants(torch.bfloat16, 32, 8, 128, 128, softcap, biased)
    pointers = dict(query="*bf16", cache="*bf16", keys="*i64", mask="*u8", queries="*i64", sums="*fp32", norms="*fp32", scale="fp32")
    pointers |= dict(biases="*fp32") if biased else {}
    constants |= {} if biased else dict(biases=None)
    options = dict(num_warps=constants.pop("num_warps"))
    signature = {name: pointers.get(name, "constexpr" if name in constants else "i32") for name in kernel.arg_names}
    source = ASTSource(kernel, signature, constants)
    print("wgmma" in triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"])
"""


def run(*command: str, **environment: str) -> str:
    """Triton decides once per process how kernels are run."""
    ended = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=os.environ | environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_it_equals_the_pytorch_version() -> None:
    interpreted = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    # Without conftest.py: tests there wait for their turn, and this one holds a turn already.
    run("-m", "pytest", "-q", "--noconftest", str(CHECKS), **interpreted)


def test_it_compiles_for_a_data_centre_gpu() -> None:
    """Triton's interpreter takes what its compiler refuses; the compiler needs no device."""
    assert run("-c", COMPILE, TRITON_INTERPRET="0").split() == ["True", "True"], "the tensor cores are used"
