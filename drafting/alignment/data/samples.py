"""Training samples: histories as token ids and labels, batched for a causal language model.

A sample is a prompt as `PromptBuilder` makes it, followed by the identifier of the item to predict. Only the tokens of the answer have
labels.

Packing: if the prompt is nothing but the identifiers, the sequence for a user's newest item contains the sequences for all earlier items,
and under a causal mask each token attends to the same tokens as in its own sequence. One window with labels on every item but the first
is therefore the samples of all its prefixes in one forward.

Leaving items out: with `left_out` above zero every epoch drops other items of a window, so an item is also predicted from items further
back, and histories differ from epoch to epoch.

Batches are padded on the right without an attention mask: under causal attention no token attends to the padding, and a mask would keep
torch from its fastest attention.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from drafting.alignment.data.interactions import Interactions
from drafting.array_types import IntArray
from drafting.prompts.builder import PromptBuilder

IGNORED_LABEL = -100
_BATCHES_PER_BUCKET_RUN = 50

Positions = IntArray


@dataclass(frozen=True)
class Windows:
    """The ranges of interactions that are samples; all arrays are `[samples]`, positions in `Interactions.items`.

    Attributes:
        first: position of the oldest item of the prompt.
        last: position of the newest item to predict.
        scored: number of items up to `last` that have labels; 1 unless packed.
    """

    first: Positions
    last: Positions
    scored: Positions


def newest_windows(interactions: Interactions, max_items: int) -> Windows:
    """One window per user with two items or more: the last item, given those before it."""
    users = np.flatnonzero(interactions.lengths >= 2)
    return windows_of(interactions, interactions.offsets[users + 1] - 1, users, max_items)


def prefix_windows(interactions: Interactions, max_items: int) -> Windows:
    """One window per item that is not the first of its user: the item, given those before it."""
    owners = np.repeat(np.arange(len(interactions.users)), interactions.lengths)
    targets = np.flatnonzero(np.arange(len(interactions)) > interactions.offsets[owners])
    return windows_of(interactions, targets, owners[targets], max_items)


def next_windows(history: Interactions, later: Interactions, max_items: int) -> tuple[Interactions, Windows]:
    """The first item of `later`, given `history`, for users with both; returns the joined interactions and their windows."""
    joined = history.followed_by(later)
    users = np.flatnonzero((history.lengths > 0) & (later.lengths > 0))
    return joined, windows_of(joined, joined.offsets[users] + history.lengths[users], users, max_items)


def windows_of(interactions: Interactions, targets: Positions, owners: Positions, max_items: int) -> Windows:
    """One window per position in `targets`, with up to `max_items` items of its user (`owners`) before it."""
    return Windows(np.maximum(interactions.offsets[owners], targets - max_items), targets, np.ones_like(targets))


def packed_windows(interactions: Interactions, max_items: int, stride: int) -> Windows:
    """Windows that score every item that is not its user's first exactly once.

    The first window of a user has up to `max_items + 1` items and scores all but the first. Each further window moves on by `stride` items
    and scores these, so they are predicted from at least `max_items - stride + 1` items; `stride = 1` gives every item its full prompt.
    """
    rest = np.maximum(interactions.lengths - 1 - max_items, 0)
    windows = np.where(interactions.lengths >= 2, 1 + -(-rest // stride), 0)
    owners = np.repeat(np.arange(len(windows)), windows)
    number = np.arange(len(owners)) - np.repeat(np.cumsum(windows) - windows, windows)
    start, newest = interactions.offsets[owners], interactions.offsets[owners + 1] - 1
    last = np.minimum(start + max_items + number * stride, newest)
    first = np.maximum(start, last - max_items)
    scored_before = np.where(number > 0, start + max_items + (number - 1) * stride, start)
    return Windows(first, last, last - scored_before)


Batch = dict[str, torch.Tensor]


class SampleSet(torch.utils.data.Dataset[Batch]):
    """Samples for one model and catalog, built batch by batch.

    Attributes:
        lengths, bucket_lengths: `[samples]`, number of tokens of each sample; an upper bound if items are left out.
    """

    def __init__(
        self,
        interactions: Interactions,
        windows: Windows,
        builder: PromptBuilder,
        identifiers: IntArray,
        pad_token_id: int,
        *,
        left_out: float = 0.0,
        seed: int = 0,
    ) -> None:
        """
        Args:
            identifiers: `[items, length]`, the catalog's identifiers as the model's token ids.
            left_out: share of a window's items that an epoch leaves out, in [0, 1).
            seed: seed of the choice of these items.
        """
        self._items = interactions.items
        self._windows = windows
        self._builder = builder
        self._identifiers = identifiers
        self._pad_token_id = pad_token_id
        self._left_out = left_out
        self._seed = seed
        self._epoch = 0
        one, two = (len(builder.build([0] * items)) for items in (1, 2)) if builder.max_items > 1 else (0, 0)
        self.lengths: Positions = (windows.last - windows.first - 1) * (two - one) + len(builder.build([0])) + identifiers.shape[1]
        self.bucket_lengths = self.lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch: `input_ids` and `labels`, `[samples, longest]` int64."""
        windows = [self._window(index) for index in indices]
        prompts = [self._builder.build(items[:-1].tolist()) for items, _ in windows]
        length = self._identifiers.shape[1]
        longest = max(map(len, prompts)) + length
        input_ids = np.full((len(indices), longest), self._pad_token_id, np.int64)
        labels = np.full((len(indices), longest), IGNORED_LABEL, np.int64)
        for row, ((items, scored), prompt) in enumerate(zip(windows, prompts, strict=True)):
            end = len(prompt) + length
            input_ids[row, : len(prompt)] = prompt
            input_ids[row, len(prompt) : end] = self._identifiers[items[-1]]
            answer = slice(end - scored * length, end)
            labels[row, answer] = input_ids[row, answer]
        return {"input_ids": torch.from_numpy(input_ids), "labels": torch.from_numpy(labels)}

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the items that are left out."""
        self._epoch = epoch

    def _window(self, index: int) -> tuple[npt.NDArray[np.int32], int]:
        """The items of a sample in this epoch, the one to predict last, and the number of items at the end with labels."""
        first, last, scored = self._windows.first[index], self._windows.last[index], int(self._windows.scored[index])
        items = self._items[first : last + 1]
        if not self._left_out:
            return items, scored
        # Determined by seed, epoch and sample alone, so that an interrupted run continues with the same samples.
        kept = np.random.default_rng((self._seed, self._epoch, index)).random(len(items)) >= self._left_out
        # Keep the newest item, which is predicted, and at least one item before it.
        kept[-1] = True
        kept[-2] |= not kept[:-1].any()
        return items[kept], max(1, min(int(np.count_nonzero(kept[-scored:])), int(np.count_nonzero(kept)) - 1))


class LengthBucketSampler(torch.utils.data.Sampler[int]):
    """A seeded random order in which neighbours have similar lengths, so that batches have little padding.

    Samples are shuffled, sorted by length within runs of some batches, and then the batches are shuffled. The order depends only on the
    seed and the epoch, so that an interrupted run can continue.
    """

    def __init__(self, lengths: Positions, batch_size: int, seed: int, on_epoch: Callable[[int], None] = lambda epoch: None) -> None:
        """
        Args:
            on_epoch: called with each epoch, for samples that differ between epochs.
        """
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._on_epoch = on_epoch
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the order; called by the trainer."""
        self._epoch = epoch
        self._on_epoch(epoch)

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self._seed, self._epoch))
        order = random.permutation(len(self._lengths))
        run = self._batch_size * _BATCHES_PER_BUCKET_RUN
        runs = [part[np.argsort(self._lengths[part], kind="stable")] for part in np.split(order, range(run, len(order), run))]
        order = np.concatenate(runs)
        whole = len(order) - len(order) % self._batch_size
        batches = order[:whole].reshape(-1, self._batch_size)
        # The incomplete batch stays last, because it would shift all later batches across the borders of the runs.
        yield from random.permutation(batches).reshape(-1).tolist()
        yield from order[whole:].tolist()
