"""The Triton kernel: right in Triton's interpreter, and taken by its compiler."""

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

from drafting.beam.model import build_whole
from verification.hosts.checkpoint import HostError

pytest.importorskip("triton")

CHECKS = Path(__file__).parent / "tree_kernel_checks.py"

SWEEP = CHECKS.with_name("tree_kernel_sweep.py")
COMPILE = """
import torch
from benchmarks.gpu.compiled import compile_kernel
from verification.hosts.tree_kernel import _attend_stretch, _merge_stretches

for biased in (False, True):
    kernel = compile_kernel(90, torch.bfloat16, 128, biased)
    print(kernel.uses_tensor_cores, kernel.spilled, kernel.programs)
for kernel in (_attend_stretch, _merge_stretches):
    print(*(one.name for one in kernel.params if not (one.is_constexpr or one.do_not_specialize)))
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


@pytest.fixture(scope="module")
def compiled() -> list[str]:
    """What Triton's compiler says: its interpreter takes what it refuses. It needs no device."""
    return run("-c", COMPILE, TRITON_INTERPRET="0").splitlines()


def test_it_compiles_for_a_data_centre_gpu(compiled: list[str]) -> None:
    assert compiled[:2] == ["True 0 1"] * 2, "tensor cores are used, no register is spilled, a multiprocessor has room"


def test_no_size_of_a_batch_makes_another_kernel(compiled: list[str]) -> None:
    """Triton compiles a kernel for each kind of each argument that is left to it: of these, only what the model's shape decides."""
    strides = "query_token_stride query_head_stride slot_stride sum_stretch_stride"
    assert compiled[2] == f"query cache keys mask biases queries sums norms scale {strides}"
    assert compiled[3] == "sums norms sum_stretch_stride"


def test_a_kernel_that_can_not_be_made_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton and the compilers that it runs raise what no loader of models expects; what the device raises stays as it is."""
    from triton.runtime.errors import OutOfResources

    from verification.hosts import tree_kernel

    layout, query, cache = build_whole(np.arange(4), 2, torch.device("cpu")), torch.zeros(2, 2, 16), torch.zeros(4, 2, 32)

    def attend(error: Exception) -> None:
        def launch(*args: object, **constants: object) -> None:
            raise error

        monkeypatch.setattr(tree_kernel, "_attend_stretch", defaultdict(lambda: launch))
        tree_kernel.attend(query, cache, layout, 1.0)

    for error, told in (
        (OutOfResources(300_000, 232_448, "shared memory"), "OutOfResources: out of resource: shared memory, Required: 300000"),
        (
            subprocess.CalledProcessError(1, ["gcc", "driver.c"]),
            "CalledProcessError: Command .*: it needs a C compiler",
        ),
        (RuntimeError("Failed to find C compiler. Please specify via CC."), "RuntimeError: Failed to find C compiler"),
    ):
        with pytest.raises(HostError, match=rf"Triton can't make the kernel of tree attention here \({told}"):
            attend(error)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        attend(RuntimeError("CUDA error: an illegal memory access was encountered"))


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.skipif(torch.cuda.is_available(), reason="what a GPU runs is swept by the GPU's own runs")
def test_shapes_at_random_equal_the_reference() -> None:
    run("-m", "pytest", "-q", "--noconftest", str(SWEEP), TRITON_INTERPRET="1")
