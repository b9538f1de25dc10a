"""`make gpu-kernel`: the kernel compiled for GPUs that are not at hand, and on paper how long forwards take at best on an H100.

Needs no GPU. Expectations are the larger of two times: that of moving all bytes and that of all arithmetic, at the shares of the device's
peaks below. Invariant: bytes are those that this implementation moves (masks and partial sums of attention among them), so that the
measured time over the expected one says how well it runs, not how well it could be designed; what a perfect one would move is beside it.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from benchmarks.gpu.compiled import COLUMNS, compile_all
from benchmarks.markdown import markdown_table, replace_part
from benchmarks.systems.shapes import SHAPES, ModelShape
from verification.hosts.checkpoint import DTYPES
from verification.hosts.tree_kernel import STRETCH_COLUMNS

PAGE = Path(__file__).parents[2] / "docs/gpu.md"
# An H100 SXM's memory and dense bfloat16 arithmetic a second, and the shares of them that good kernels reach.
BYTES, FLOPS = 3.35e12, 989e12
SHARE_OF_BYTES, SHARE_OF_FLOPS = 0.8, 0.6
SUM_BYTES = 4
CASES_HEAD = ("case", "batch", "forward", "tokens", "GB moved", "TFLOP", "ms", "of it attention", "attention moves", "at least")


@dataclass(frozen=True)
class Work:
    """Bytes that a forward moves, and operations that it computes.

    Attributes:
        moved: bytes.
        computed: floating-point operations.
    """

    moved: float
    computed: float

    def __add__(self, other: "Work") -> "Work":
        return Work(self.moved + other.moved, self.computed + other.computed)

    @property
    def milliseconds(self) -> float:
        """On an H100."""
        return 1e3 * max(self.moved / (BYTES * SHARE_OF_BYTES), self.computed / (FLOPS * SHARE_OF_FLOPS))


@dataclass(frozen=True)
class Forward:
    """One forward of a model.

    Attributes:
        tokens: computed for each request.
        known: tokens of each request whose keys and values are read.
        outputs: of these tokens, how many get logits, in each request.
    """

    name: str
    tokens: int
    known: int
    outputs: int


@dataclass(frozen=True)
class Case:
    """A list, in its forwards: the prompt, then a forward for each further level."""

    name: str
    shape: str
    batch: int
    prompt: int
    nodes: tuple[int, ...]

    @property
    def forwards(self) -> list[Forward]:
        """The prompt's, and one for each group of nodes."""
        before = [self.prompt + sum(self.nodes[:index]) for index in range(len(self.nodes))]
        levels = [
            Forward(f"nodes {number}", count, known, count)
            for number, (count, known) in enumerate(zip(self.nodes, before, strict=True), start=1)
        ]
        return [Forward("prompt", self.prompt, 0, 1), *levels]


CASES = (
    *(Case("Qwen3-1.7B, 1,000 tokens, width 256", "qwen3-1.7b", batch, 1000, (256, 256)) for batch in (1, 8)),
    Case("Qwen3-1.7B, 2,465 tokens, width 50", "qwen3-1.7b", 1, 2465, (50, 50)),
    Case("Qwen3-1.7B, 5,000 tokens, width 50", "qwen3-1.7b", 8, 5000, (50, 50)),
    Case("7B, 104 tokens, K = 20, plain", "llama-7b", 1, 104, (20, 20, 20)),
    Case("7B, 104 tokens, three levels of 40 drafted", "llama-7b", 1, 104, (120,)),
)


def attention(shape: ModelShape, batch: int, forward: Forward) -> tuple[Work, float]:
    """The kernel's work in all layers, and the bytes that no implementation could leave out."""
    size = shape.head_size or shape.hidden // shape.heads
    width = DTYPES[shape.dtype].itemsize
    tokens, columns = batch * forward.tokens, forward.known + forward.tokens
    # No token sees the stretches after its own.
    seen = sum(ceil((column + 1) / STRETCH_COLUMNS) for column in range(forward.known, columns))
    keys = 2 * batch * columns * shape.key_value_heads * size * width
    asked = 2 * tokens * shape.heads * size * width
    # The mask is a byte for each token and column, read by the programs of each key/value head. Sums of the stretches that
    # a token sees are written and read, and where there are several stretches, once more when they have been merged.
    masks = tokens * columns * shape.key_value_heads
    merged = forward.tokens if columns > STRETCH_COLUMNS else 0
    sums = 2 * batch * (seen + merged) * shape.heads * size * SUM_BYTES
    computed = 4 * tokens * columns * shape.heads * size
    return Work(shape.layers * (keys + asked + masks + sums), shape.layers * computed), shape.layers * (keys + asked)


def linear(shape: ModelShape, batch: int, forward: Forward, codes: int) -> Work:
    """The work of all matrices: weights are read once, of the embeddings only the rows of the tokens."""
    width = DTYPES[shape.dtype].itemsize
    vocabulary = shape.words + codes
    head = vocabulary * shape.hidden
    layers = shape.weight_bytes(vocabulary) / width - 2 * head
    tokens, outputs = batch * forward.tokens, batch * forward.outputs
    moved = (layers + head) * width + outputs * vocabulary * width
    return Work(moved, 2 * (layers * tokens + head * outputs))


def rows(cases: Sequence[Case]) -> list[tuple[object, ...]]:
    """A line for each forward and one for the list that they make."""
    lines: list[tuple[object, ...]] = []
    for case in cases:
        shape, codes = SHAPES[case.shape].target, SHAPES[case.shape].catalog.codes
        milliseconds = 0.0
        for forward in case.forwards:
            attending, least = attention(shape, case.batch, forward)
            whole = [attending, linear(shape, case.batch, forward, codes)]
            both = whole[0] + whole[1]
            # Layers take turns: neither waits for the other's limit.
            taken = sum(work.milliseconds for work in whole)
            milliseconds += taken
            share = f"{attending.milliseconds:.2f}"
            figures = (f"{both.moved / 1e9:.1f}", f"{both.computed / 1e12:.2f}", f"{taken:.2f}", share)
            moves = (f"{attending.moved / 1e9:.2f} GB", f"{least / 1e9:.2f} GB")
            lines.append((case.name, case.batch, forward.name, case.batch * forward.tokens, *figures, *moves))
        lines.append((case.name, case.batch, "**the lists**", "", "", "", f"**{milliseconds:.1f}**", "", "", ""))
    return lines


def main(arguments: Sequence[str]) -> int:
    """Print both tables; the status is 1 if the kernel would not start on a device."""
    parser = argparse.ArgumentParser(prog="make gpu-kernel", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the tables into docs/gpu.md")
    options = parser.parse_args(arguments)
    kernels = list(compile_all())
    compiled = markdown_table(COLUMNS, (kernel.cells() for kernel in kernels))
    paper = markdown_table(CASES_HEAD, rows(CASES))
    print(compiled, paper, sep="\n\n")
    if options.write:
        replace_part(PAGE, "compiled", compiled)
        replace_part(PAGE, "roofline", paper)
    return int(any(kernel.programs == 0 for kernel in kernels))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
