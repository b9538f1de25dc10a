"""The Triton kernel against attention in float64, on shapes at random; run by `test_tree_kernel.py` in Triton's interpreter.

Every case has one dimension at its limit, the others as large as the time allows that an interpreter takes. Not in bfloat16: the
interpreter takes its bits for an integer.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
import pytest
import torch

from tests.verification.hosts.tree_kernel_checks import on_cpu, ragged, with_a_window_and_biases
from verification.hosts import tree_kernel
from verification.hosts.attention import tree_attention

CASES = 16
# Blocks of rows and columns, which take the interpreter some milliseconds each; those of float32 are smaller.
MOST_BLOCKS = {torch.float16: 1500, torch.float32: 6000}
LIMITS = ("heads", "head_size", "nodes", "prompt")


@dataclass(frozen=True)
class Shape:
    """Requests and heads; of each prompt, all but a few tokens are known before."""

    heads: int
    key_value_heads: int
    head_size: int
    prompts: list[int]
    nodes: list[int]
    new: list[int]
    dtype: torch.dtype
    capped: bool
    viewed: bool

    @property
    def blocks(self) -> int:
        """What the interpreter has to do."""
        constants = tree_kernel.kernel_constants(self.dtype, self.heads, self.key_value_heads, self.head_size, self.head_size)
        queries = max(added + new for added, new in zip(self.nodes, self.new, strict=True))
        columns = max(prompt + added for prompt, added in zip(self.prompts, self.nodes, strict=True))
        rows = ceil(queries * constants["GROUP"] / constants["ROWS"])
        return len(self.prompts) * self.key_value_heads * rows * ceil(columns / constants["COLUMNS"])


def shape_at_random(number: int) -> Shape:
    """The shape of a case, drawn again until it is small enough."""
    rng, limit = np.random.default_rng(number), LIMITS[number % len(LIMITS)]
    while True:
        requests = int(rng.integers(1, 5))
        heads = 64 if limit == "heads" else round(64 ** rng.uniform())
        groups = [group for group in range(1, heads + 1) if heads % group == 0]
        # Sizes of small and of large heads are drawn alike.
        head_size = 256 if limit == "head_size" else int(2 ** rng.uniform(5, 8)) // 8 * 8
        prompts, nodes = (np.exp(rng.uniform(0, np.log(most), requests)).astype(int) for most in (5000, 1000))
        if limit == "nodes":
            nodes[0] = 1000
        if limit == "prompt":
            prompts[0] = 5000
        new = [int(rng.integers(1, min(prompt, 40) + 1)) for prompt in prompts]
        shape = Shape(
            heads=heads,
            key_value_heads=heads // int(rng.choice(groups)),
            head_size=head_size,
            prompts=prompts.tolist(),
            nodes=nodes.tolist(),
            new=new,
            dtype=(torch.float16, torch.float32)[number // len(LIMITS) % 2],
            capped=bool(rng.random() < 0.3),
            viewed=bool(rng.random() < 0.3),
        )
        if shape.blocks <= MOST_BLOCKS[shape.dtype]:
            return shape


def test_the_limits_are_reached() -> None:
    shapes = [shape_at_random(number) for number in range(CASES)]
    assert max(shape.heads for shape in shapes) == 64
    assert {shape.head_size for shape in shapes} >= {32, 256}
    assert max(max(shape.prompts) for shape in shapes) == 5000
    assert max(max(shape.nodes) for shape in shapes) == 1000
    assert max(len(shape.prompts) for shape in shapes) > 1


@pytest.mark.parametrize("number", range(CASES))
def test_it_equals_attention_in_float64(number: int) -> None:
    shape = shape_at_random(number)
    slot_count = sum(shape.prompts) + sum(shape.nodes)
    cached = [prompt - new for prompt, new in zip(shape.prompts, shape.new, strict=True)]
    slots, layout = ragged(shape.prompts, shape.nodes, cached, number, slot_count)
    if shape.viewed:
        layout = with_a_window_and_biases(layout, shape.heads)
    generator = torch.Generator().manual_seed(number)
    query = torch.randn(len(slots), shape.heads, shape.head_size, generator=generator).to(shape.dtype)
    cache = torch.randn(slot_count, shape.key_value_heads, 2 * shape.head_size, generator=generator).to(shape.dtype)
    softcap, sinks = (1.5, torch.randn(shape.heads, generator=generator)) if shape.capped else (None, None)
    scale = shape.head_size**-0.5
    expected = tree_attention(query.double(), None, None, cache, slots, [on_cpu(layout)], scale, softcap, sinks)
    attended = tree_kernel.attend(query, cache, layout, scale, softcap, sinks)
    tolerance = 1e-5 if shape.dtype is torch.float32 else 4e-3
    torch.testing.assert_close(attended.double(), expected, atol=tolerance, rtol=tolerance)
