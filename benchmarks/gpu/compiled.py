"""The tree attention kernel compiled for GPUs that are not at hand, with what it takes of them: registers, spills and shared memory.

Invariant: it is compiled as it is launched, with the block sizes of `kernel_constants` and the alignments that Triton finds in tensors of
PyTorch; without these, it would be other code.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from verification.hosts.tree_kernel import _attend_stretch, kernel_constants

# Compute capability: name, most bytes of shared memory of a program, those of a multiprocessor.
DEVICES = {80: ("A100", 166_912, 167_936), 90: ("H100", 232_448, 233_472), 100: ("B200", 232_448, 233_472)}
REGISTERS = 65_536
WARP = 32
HEAD_SIZES = (64, 128, 256)
POINTERS = {"keys": "*i64", "mask": "*u8", "queries": "*i64", "sums": "*fp32", "norms": "*fp32", "biases": "*fp32"}
NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
STRIDES = ("query_token_stride", "query_head_stride", "slot_stride", "sum_stretch_stride")
COLUMNS = ("device", "dtype", "head", "layer", "rows x columns", "warps", "registers", "spilled bytes", "shared KiB", "programs at a time")


@dataclass(frozen=True)
class CompiledKernel:
    """The kernel for one device and shape.

    Attributes:
        capability: compute capability of the device, such as 90.
        registers: of a thread.
        spilled: bytes that a thread stores because registers do not suffice.
        shared: bytes of shared memory of a program.
        uses_tensor_cores: whether products run on them.
    """

    capability: int
    dtype: torch.dtype
    head_size: int
    biased: bool
    rows: int
    columns: int
    warps: int
    registers: int
    spilled: int
    shared: int
    uses_tensor_cores: bool

    @property
    def programs(self) -> int:
        """Programs that a multiprocessor runs at a time; 0 if it can't run one."""
        _, most, of_all = DEVICES[self.capability]
        by_registers = REGISTERS // (self.registers * self.warps * WARP)
        return 0 if self.shared > most else min(by_registers, of_all // max(self.shared, 1))

    def cells(self) -> tuple[object, ...]:
        """The row of the table."""
        layer = "soft cap, biases" if self.biased else "plain"
        place = (DEVICES[self.capability][0], NAMES[self.dtype], self.head_size, layer)
        return (
            *place,
            f"{self.rows} x {self.columns}",
            self.warps,
            self.registers,
            self.spilled,
            f"{self.shared / 1024:.0f}",
            self.programs,
        )


def compile_kernel(capability: int, dtype: torch.dtype, head_size: int, biased: bool = False) -> CompiledKernel:
    """Compile the kernel for grouped-query attention of 32 heads and 8 key/value heads; with a soft cap too if `biased`."""
    constants = kernel_constants(dtype, 32, 8, head_size, head_size, 50.0 if biased else None, biased)
    warps = constants.pop("num_warps")
    pointers = POINTERS | dict.fromkeys(("query", "cache"), f"*{NAMES[dtype]}")
    if not biased:
        del pointers["biases"]
        constants["biases"] = None
    names = _attend_stretch.arg_names
    types = pointers | {"scale": "fp32"} | dict.fromkeys(constants, "constexpr")
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in (*pointers, *STRIDES)}
    source = ASTSource(_attend_stretch, {name: types.get(name, "i32") for name in names}, constants, aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, WARP), options={"num_warps": warps})
    said = _assemble(compiled.asm["ptx"], capability)
    registers, spilled = (max(map(int, re.findall(pattern, said))) for pattern in (r"Used (\d+) registers", r"(\d+) bytes spill stores"))
    return CompiledKernel(
        capability,
        dtype,
        head_size,
        biased,
        constants["ROWS"],
        constants["COLUMNS"],
        warps,
        registers,
        spilled,
        compiled.metadata.shared,
        re.search(r"\b(wgmma|tcgen05|mma)\.", compiled.asm["ptx"]) is not None,
    )


def compile_all() -> Iterator[CompiledKernel]:
    """Compile the kernel for every device and size of heads, in half precision (float16 takes what bfloat16 does) and float32."""
    for capability in DEVICES:
        for dtype in (torch.bfloat16, torch.float32):
            yield from (compile_kernel(capability, dtype, size) for size in HEAD_SIZES)
        yield compile_kernel(capability, torch.bfloat16, 128, biased=True)


def _assemble(ptx: str, capability: int) -> str:
    """The report of NVIDIA's assembler, which comes with Triton, on the code that it makes: registers, spills, shared memory."""
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "kernel.ptx"
        code.write_text(ptx)
        name = f"sm_{capability}a" if capability >= 90 else f"sm_{capability}"
        command = [get_ptxas(capability).path, "-v", f"--gpu-name={name}", str(code), "-o", f"{folder}/kernel.cubin"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr
