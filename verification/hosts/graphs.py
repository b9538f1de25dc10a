"""CUDA graphs: forwards recorded once per bucket of shapes and then replayed, with one launch instead of hundreds.

A bucket is a number of requests, of queries per request and of columns. Smaller forwards are padded to a bucket: the outputs of padding
rows are not used, and their keys and values go to a spare slot.

Invariant: a graph changes how kernels are launched, not what a row attends to: no row attends to the padding. A forward that fits no bucket
runs without a graph; every forward counts as replayed or skipped. A model is refused if one of its forwards cannot be recorded, because the
state of the device after a failed recording is undefined.
"""

import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from drafting.beam.model import AttentionLayout, TreeBatch, TreeModel
from drafting.beam.rows import Head, Rows
from drafting.device import arange
from drafting.errors import first_line
from verification.hosts.checkpoint import HostError

logger = logging.getLogger(__name__)

# Close enough that padding costs less than reading the weights of the model.
QUERIES = (1, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
# With more tokens the kernels take longer than their launches, and a graph saves nothing.
MOST_TOKENS = 512
# Masked blocks of columns cost almost nothing, so few sizes suffice.
FEWEST_COLUMNS = 256
# Columns for the tree of a request in addition to its prompt.
NODES = 256

Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Bucket:
    """The shapes of one graph: number of requests, queries per request and columns per request."""

    requests: int
    queries: int
    columns: int

    @property
    def tokens(self) -> int:
        """Number of rows of the forward."""
        return self.requests * self.queries


@dataclass(frozen=True)
class GraphCounts:
    """Numbers of forwards that were replayed from a graph, and of those that fitted no graph."""

    replayed: int = 0
    skipped: int = 0


def make_buckets(most_requests: int, most_columns: int) -> list[Bucket]:
    """The buckets for up to `most_requests` requests of up to `most_columns` columns, largest first."""
    requests = [1 << power for power in range(max(most_requests - 1, 0).bit_length() + 1)]
    columns = [FEWEST_COLUMNS]
    while columns[-1] < most_columns:
        columns.append(2 * columns[-1])
    found = [Bucket(many, queries, wide) for many in requests for queries in QUERIES for wide in columns if many * queries <= MOST_TOKENS]
    return sorted(found, key=lambda bucket: (bucket.tokens, bucket.columns), reverse=True)


class CudaRecorder:
    """Records CUDA graphs; all graphs share one memory pool, because only one runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        # One stream for all graphs, because libraries keep memory for every stream.
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, run: Run) -> Run:
        """Record `run` and return a function that replays it and returns its output tensor.

        Raises:
            RuntimeError: `run` does something that cannot be recorded, such as waiting for the device.
        """
        with torch.cuda.device(self._device):
            before = torch.cuda.current_stream()
            self._stream.wait_stream(before)
            # The outer block restores the stream even if the end of a failed recording fails too.
            with torch.cuda.stream(self._stream):
                # The first runs compile kernels and set up libraries, which a recording must not do.
                for _ in range(2):
                    run()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                    output = run()
            before.wait_stream(self._stream)

        def replay() -> Tensor:
            with torch.cuda.device(self._device):
                graph.replay()
            return output

        return replay


class _Outputs:
    """One tensor for the states of all graphs of a model, overwritten by each replay; the head runs outside of graphs.

    Otherwise every recording would keep its own, which are gigabytes in total where states are the logits of a large vocabulary.
    """

    def __init__(self) -> None:
        self._kept: Rows | None = None

    @property
    def head(self) -> Head:
        """The head of the model; a forward must have been taken."""
        assert self._kept is not None
        return self._kept.head

    def take(self, rows: Rows) -> Tensor:
        """Copy the states of a forward and return the copy; the first forward must be the largest, and run unrecorded."""
        if self._kept is None:
            self._kept = Rows(torch.empty_like(rows.states), rows.head)
        return self._kept.states[: len(rows)].copy_(rows.states)


class GraphedModel:
    """A `TreeModel` that replays a CUDA graph if a forward fits one."""

    def __init__(self, model: TreeModel, buckets: Sequence[Bucket], record: Callable[[Run], Run]) -> None:
        """Record one graph for each bucket.

        Args:
            buckets: the buckets, largest first, because the others reuse its memory.
            record: function that records a forward and returns its replay; see `CudaRecorder`.

        Raises:
            RuntimeError: a forward cannot be recorded.
        """
        self.device, self.has_encoder = model.device, model.has_encoder
        # The last slot is the spare slot for padding.
        self.total_slots = model.total_slots - 1
        self._model = model
        self._replayed = self._skipped = 0
        started, outputs = time.perf_counter(), _Outputs()
        self._graphs = {
            bucket: _Graph(model, bucket, self.total_slots, outputs, record)
            for bucket in tqdm(buckets, desc="Recording CUDA graphs", unit="graph", disable=None)
        }
        self._requests = sorted({bucket.requests for bucket in self._graphs})
        self._queries = sorted({bucket.queries for bucket in self._graphs})
        self._columns = sorted({bucket.columns for bucket in self._graphs})
        logger.info("%d CUDA graphs recorded in %.1f s.", len(self._graphs), time.perf_counter() - started)

    @torch.inference_mode()
    def score(self, batch: TreeBatch) -> Rows:
        """Run one forward; see `TreeModel`."""
        graph = self._graph_for(batch)
        if graph is None:
            self._skipped += 1
            return self._model.score(batch)
        self._replayed += 1
        return graph.score(batch)

    def take_counts(self) -> GraphCounts:
        """Return the counts since the last call and reset them."""
        counts = GraphCounts(self._replayed, self._skipped)
        self._replayed = self._skipped = 0
        return counts

    def close(self) -> None:
        """Free the graphs and the model."""
        self._graphs.clear()
        self._model.close()

    def _graph_for(self, batch: TreeBatch) -> "_Graph | None":
        """The smallest graph that the forward fits, its layouts below each other; None if there is none."""
        requests = sum(len(layout.queries) for layout in batch.attention)
        queries = max(layout.queries.shape[1] for layout in batch.attention)
        columns = max(layout.keys.shape[1] for layout in batch.attention)
        sizes = ((self._requests, requests), (self._queries, queries), (self._columns, columns))
        fitting = [ladder[step] for ladder, size in sizes if (step := bisect_left(ladder, size)) < len(ladder)]
        return self._graphs.get(Bucket(*fitting)) if len(fitting) == len(sizes) else None


def graphed(model: TreeModel, most_requests: int, longest: int) -> GraphedModel:
    """Record CUDA graphs for up to `most_requests` requests whose prompts with an identifier have up to `longest` tokens.

    Raises:
        HostError: the model has an encoder, does not run on a GPU, or cannot be recorded.
    """
    if model.has_encoder:
        raise HostError("CUDA graphs are recorded of models without an encoder: serve this one without.")
    if model.device.type != "cuda":
        raise HostError(f"CUDA graphs need a GPU, and the model runs on a device of type {model.device.type}: serve it without.")
    try:
        return GraphedModel(model, make_buckets(most_requests, longest + NODES), CudaRecorder(model.device))
    except torch.OutOfMemoryError as error:
        raise HostError("The device has no memory left for CUDA graphs: give keys and values less, or serve without.") from error
    except RuntimeError as error:
        # The context is the original error; the end of a failed recording fails too.
        reason = first_line(error.__context__ or error)
        raise HostError(f"Forwards of this model cannot be recorded as CUDA graphs, serve it without: {reason}") from error


class _Graph:
    """The graph of one bucket, and its input tensors."""

    def __init__(self, model: TreeModel, bucket: Bucket, spare_slot: int, outputs: _Outputs, record: Callable[[Run], Run]) -> None:
        self._model = model
        self._outputs = outputs
        self._bucket = bucket
        device = model.device
        # Token, position and slot of a padding row.
        self._empty_row = torch.tensor([[0], [0], [spare_slot]], device=device)
        self._rows = self._empty_row.repeat(1, bucket.tokens)
        self._order = arange(bucket.tokens, device)
        self._keys = torch.full((bucket.requests, bucket.columns), spare_slot, dtype=torch.int64, device=device)
        # A row without unmasked columns would be NaN, and write NaN to the spare slot.
        self._first_column = arange(bucket.columns, device) == 0
        self._mask = self._first_column.repeat(bucket.requests, 1, bucket.queries, 1)
        with torch.inference_mode():
            self._replay = record(self._forward)

    def score(self, batch: TreeBatch) -> Rows:
        """Copy a forward to the inputs, replay, and select the requested rows."""
        self._mask.copy_(self._first_column)
        rows, first = torch.empty_like(batch.slots), 0
        for layout in batch.attention:
            (requests, queries), columns = layout.queries.shape, layout.keys.shape[1]
            own = layout.indices.div(queries, rounding_mode="floor").mul_(self._bucket.queries - queries).add_(layout.indices)
            rows.index_copy_(0, layout.tokens, own.add_(first * self._bucket.queries))
            last = first + requests
            self._keys[first:last] = layout.keys[:, :1]
            self._keys[first:last, :columns] = layout.keys
            self._mask[first:last, :, :queries, :columns] = layout.mask
            first = last
        self._rows.copy_(self._empty_row)
        self._rows.index_copy_(1, rows, torch.stack((batch.tokens, batch.positions, batch.slots)))
        # The selection is a copy: the next replay overwrites the output.
        return Rows(self._replay(), self._outputs.head).take(batch.at_outputs(rows))

    def _forward(self) -> Tensor:
        tokens, positions, slots = self._rows.unbind(0)
        queries = self._order.view(self._bucket.requests, self._bucket.queries)
        layout = AttentionLayout(queries, self._order, self._keys, self._mask, self._order)
        return self._outputs.take(self._model.score(TreeBatch(tokens, positions, slots, None, (layout,))))
