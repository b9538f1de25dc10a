"""From the token trees of running requests to one forward over all of them (continuous batching).

Invariant: a forward is planned on the host alone, and never reads from the device. With an encoder, a prompt is read as a whole or not at
all: its tokens all attend to each other, so a part of it that is known is of no use.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from drafting.array_types import IntArray
from drafting.beam.model import AttentionLayout, EncoderBatch, TreeBatch, build_layouts, build_whole
from drafting.beam.tree import SequenceState, TokenTree, to_device
from drafting.device import arange, on_device, pad_stack


@dataclass(frozen=True)
class ForwardPart:
    """The tokens `indices` of one request in a forward, of which the last `outputs` want next-token logits."""

    sequence: SequenceState
    indices: IntArray
    outputs: int

    @classmethod
    def uncomputed(cls, sequence: SequenceState, most_nodes: int | None = None) -> "ForwardPart":
        """All that the target has not computed, of the nodes only the first `most_nodes`; with logits for tree nodes, the root included."""
        first, end = max(sequence.computed, sequence.root), sequence.length
        if most_nodes is not None:
            end = min(end, first + most_nodes)
        return cls(sequence, np.arange(sequence.computed, end), end - first)

    @property
    def keys(self) -> IntArray:
        """Slots of the sequence up to the last of these tokens: none of them attends to what lies behind, which may hold anything."""
        return self.sequence.slots[: int(self.indices.max()) + 1]

    @property
    def prompt_tokens(self) -> int:
        """Number of these tokens that are the prompt's; they come first."""
        return int(np.count_nonzero(self.indices < self.sequence.prompt_length))

    @property
    def output_depths(self) -> IntArray:
        """`[outputs]` int64, the depths of the tokens after which logits are wanted."""
        return self.sequence.depths[self.indices[len(self.indices) - self.outputs :]]

    @property
    def encoder_slots(self) -> IntArray:
        """Slots of the tokens that an encoder reads: the prompt without its last token, or none."""
        return self.sequence.slots[self.indices[self.indices < self.sequence.root]]

    @property
    def decoder_part(self) -> "ForwardPart":
        """The part without the tokens that an encoder reads."""
        return ForwardPart(self.sequence, self.indices[self.indices >= self.sequence.root], self.outputs)


def forward_batch(tree: TokenTree, parts: Sequence[ForwardPart], has_encoder: bool = False) -> TreeBatch:
    """Join the parts of all requests into one forward of a model with or without an encoder."""
    if has_encoder:
        return _encoder_decoder_batch(tree, parts)
    device = tree.token.device
    counts = [len(part.indices) for part in parts]
    outputs = [part.outputs for part in parts]
    positions, visible, slots = to_device([part.sequence.forward_fields(part.indices) for part in parts], device)
    return TreeBatch(
        tokens=tree.token.index_select(0, slots),
        positions=positions,
        slots=slots,
        outputs=None if outputs == counts else _last_rows(counts, outputs, device),
        attention=build_layouts(
            [part.keys for part in parts],
            counts,
            visible,
            _ancestors(tree, parts, slots),
            [part.sequence.prompt_length for part in parts],
            [part.prompt_tokens for part in parts],
        ),
    )


def _encoder_decoder_batch(tree: TokenTree, parts: Sequence[ForwardPart]) -> TreeBatch:
    """In self-attention the columns of a request begin with its root; cross-attention has columns of its own, for the prompt before it."""
    device = tree.token.device
    roots = [part.sequence.root for part in parts]
    encoded = [part.encoder_slots for part in parts if part.indices[0] < part.sequence.root]
    decoded = [part.decoder_part for part in parts]
    counts, outputs = [len(part.indices) for part in decoded], [part.outputs for part in decoded]
    positions, visible, slots = to_device([part.sequence.forward_fields(part.indices) for part in decoded], device)
    first = on_device(np.repeat(roots, counts), device)
    own = [part.keys[root:] for part, root in zip(parts, roots, strict=True)]
    prompts = [part.sequence.slots[:root] for part, root in zip(parts, roots, strict=True)]
    return TreeBatch(
        tokens=tree.token.index_select(0, slots),
        positions=positions,
        slots=slots,
        outputs=None if outputs == counts else _last_rows(counts, outputs, device),
        attention=build_layouts(
            own,
            counts,
            visible - first,
            _ancestors(tree, parts, slots) - first[:, None],
            [1] * len(parts),
            [part.prompt_tokens for part in decoded],
        ),
        encoder=_encoder_batch(tree, encoded, _prompt_layouts(prompts, counts, first)),
    )


def _prompt_layouts(prompts: Sequence[IntArray], counts: Sequence[int], first: Tensor) -> tuple[AttentionLayout, ...]:
    """Lay out cross-attention, in which all tokens of a request attend to all that its encoder reads.

    Args:
        prompts: `[columns]` per request, the slots of what its encoder reads.
        counts: tokens of each request.
        first: `[tokens]` int64, the number of columns that each token attends to.
    """
    if len(prompts) == 1:
        return (build_whole(prompts[0], counts[0], first.device),)
    return build_layouts(prompts, counts, first, torch.zeros_like(first)[:, None], [len(prompt) for prompt in prompts], counts)


def _encoder_batch(tree: TokenTree, encoded: Sequence[IntArray], attention: tuple[AttentionLayout, ...]) -> EncoderBatch:
    device = tree.token.device
    if not encoded:
        none = arange(0, device)
        return EncoderBatch(none[:, None], none, none, attention)
    padded, slots = pad_stack(encoded, -1), on_device(np.concatenate(encoded), device)
    indices = on_device(np.flatnonzero(padded >= 0), device)
    return EncoderBatch(tree.token[on_device(np.maximum(padded, 0), device)], indices, slots, attention)


def _ancestors(tree: TokenTree, parts: Sequence[ForwardPart], slots: Tensor) -> Tensor:
    """`[tokens, deepest]`, the ancestors of tokens down to the deepest level of any of the requests."""
    return tree.ancestors.index_select(0, slots)[:, : max(1, *(part.sequence.deepest for part in parts))]


def _last_rows(counts: Sequence[int], wanted: Sequence[int], device: torch.device) -> Tensor:
    """Indices of the last `wanted` rows of each part, in a forward whose parts have `counts` rows."""
    if len(counts) == 1:
        return arange(counts[0], device)[counts[0] - wanted[0] :]
    rows = [np.arange(end - last, end) for end, last in zip(np.cumsum(counts), wanted, strict=True)]
    return on_device(np.concatenate(rows), device)
