"""Teacher forwards: windows with their trees as one forward of a host, in the attention that the model is served with.

Invariant: tokens see what `tree_batch` lets them see, at the same positions. What a layer asks of attention beyond that, such as a window
or a soft cap, is the host's to compute, as it does for the lists; a mask for the model's own code would leave it out.
"""

from dataclasses import dataclass

import numpy as np
import torch

from drafting.alignment.tree_batch import TreeWindows, place_nodes
from drafting.array_types import IntArray
from drafting.beam.model import TreeBatch, build_layout
from drafting.device import on_device
from drafting.trie.arrays import offsets_of, ranges


@dataclass(frozen=True)
class TeacherForward:
    """A forward whose outputs are those of all answers of the windows, window by window, and then those of the nodes.

    Attributes:
        batch: the forward, on the host's device; it writes to the first slots.
        answers: number of answers.
        nodes: `[nodes]`, index of each node in `TreeWindows`.
    """

    batch: TreeBatch
    answers: int
    nodes: IntArray

    @classmethod
    def of(cls, windows: TreeWindows, chosen: IntArray, device: torch.device) -> "TeacherForward":
        """The forward of the `chosen` windows."""
        lengths, answers = np.diff(windows.token_offsets)[chosen], windows.answers[chosen]
        widths = windows.widths(trees=True)[chosen]
        starts = offsets_of(widths)
        nodes = place_nodes(windows, chosen, lengths)
        column = ranges(np.zeros_like(widths), widths)
        depth = windows.node_depth[nodes.index]
        row = starts[nodes.row] + nodes.column
        added = depth > 0
        tokens, positions, visible = np.empty_like(column), column.copy(), column + 1
        tokens[ranges(starts[:-1], lengths)] = windows.tokens[ranges(windows.token_offsets[chosen], lengths)]
        tokens[row[added]] = windows.node_token[nodes.index[added]]
        positions[row[added]] = (nodes.root + depth)[added]
        visible[row[added]] = nodes.root[added] + 1
        deepest = int(depth.max(initial=0))
        ancestors = np.repeat(column[:, None], max(1, deepest), axis=1)
        ancestor = np.arange(len(nodes.index))
        for each in range(deepest):
            ancestors[row[added], each] = nodes.column[ancestor[added]]
            ancestor = nodes.parent[ancestor]
        slots = np.arange(len(column))
        outputs = np.concatenate([ranges(starts[:-1] + lengths - answers - 1, answers), row])
        keys = np.split(slots, starts[1:-1])
        layout = build_layout(keys, widths.tolist(), on_device(visible, device), on_device(ancestors, device))
        batch = TreeBatch(
            tokens=on_device(tokens, device),
            positions=on_device(positions, device),
            slots=on_device(slots, device),
            outputs=on_device(outputs, device),
            attention=(layout,),
        )
        return cls(batch, int(answers.sum()), nodes.index)
