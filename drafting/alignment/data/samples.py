"""Training samples: what was known of users as token ids, and labels, batched for a causal language model.

A sample is a prompt as `PromptBuilder` makes it, followed by the identifier of the item to predict. Only the tokens of the answer have
labels. Invariant: the prompt is the one that a request gets for a user of whom the same is known.

Leaving items out: with `left_out` above zero every epoch drops other items of a window, so an item is also predicted from items further
back, and histories differ from epoch to epoch.

Batches are padded on the right without an attention mask: under causal attention no token attends to the padding, and a mask would keep
torch from its fastest attention.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from drafting.alignment.data.interactions import Interactions
from drafting.alignment.data.windows import Windows
from drafting.array_types import IntArray
from drafting.prompts.builder import PromptBuilder

IGNORED_LABEL = -100
_BATCHES_PER_BUCKET_RUN = 50
_MEASURED_SAMPLES = 256

Positions = IntArray
Batch = dict[str, torch.Tensor]


class SampleSet(torch.utils.data.Dataset[Batch]):
    """Samples for one model and catalog, built batch by batch.

    Attributes:
        windows: the stretches of the interactions that they are.
        lengths, bucket_lengths: `[samples]`, number of tokens of each sample with all its items. That is exact for a prompt that is a list
            of identifiers, and an estimate by the number of items for any other.
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
        self._interactions = interactions
        self.windows = windows
        self._builder = builder
        self._identifiers = identifiers
        self._pad_token_id = pad_token_id
        self._left_out = left_out
        self._seed = seed
        self._epoch = 0
        self.lengths: Positions = self._measured_lengths()
        self.bucket_lengths = self.lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch: `input_ids` and `labels`, `[samples, longest]` int64."""
        windows = [self._window(index) for index in indices]
        prompts = self._prompts(indices, [positions for positions, _ in windows])
        length = self._identifiers.shape[1]
        longest = max(map(len, prompts)) + length
        input_ids = np.full((len(indices), longest), self._pad_token_id, np.int64)
        labels = np.full((len(indices), longest), IGNORED_LABEL, np.int64)
        for row, ((positions, scored), prompt) in enumerate(zip(windows, prompts, strict=True)):
            end = len(prompt) + length
            input_ids[row, : len(prompt)] = prompt
            input_ids[row, len(prompt) : end] = self._identifiers[self._interactions.items[positions[-1]]]
            answer = slice(end - scored * length, end)
            labels[row, answer] = input_ids[row, answer]
        return {"input_ids": torch.from_numpy(input_ids), "labels": torch.from_numpy(labels)}

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the items that are left out."""
        self._epoch = epoch

    def _prompts(self, indices: Sequence[int], windows: Sequence[Positions]) -> list[IntArray]:
        """The prompts of samples, given the interactions in them, the one to predict last."""
        owners = self.windows.owners[np.asarray(indices)].tolist()
        states = (self._interactions.state(owner, known[:-1], int(known[-1])) for owner, known in zip(owners, windows, strict=True))
        return [self._builder.build(state) for state in states]

    def _window(self, index: int) -> tuple[Positions, int]:
        """The interactions of a sample in this epoch, the one to predict last, and the number of them at the end with labels."""
        first, last, scored = self.windows.first[index], self.windows.last[index], int(self.windows.scored[index])
        positions = np.arange(first, last + 1)
        if not self._left_out:
            return positions, scored
        # Determined by seed, epoch and sample alone, so that an interrupted run continues with the same samples.
        kept = np.random.default_rng((self._seed, self._epoch, index)).random(len(positions)) >= self._left_out
        # Keep the newest item, which is predicted, and at least one item before it.
        kept[-1] = True
        kept[-2] |= not kept[:-1].any()
        return positions[kept], max(1, min(int(np.count_nonzero(kept[-scored:])), int(np.count_nonzero(kept)) - 1))

    def _measured_lengths(self) -> Positions:
        """The number of tokens of each sample, as a line through those of some."""
        if not len(self.windows.last):
            return np.zeros(0, np.int64)
        known = self.windows.last - self.windows.first
        measured = np.unique(np.linspace(0, len(known) - 1, _MEASURED_SAMPLES).astype(np.int64))
        windows = [np.arange(self.windows.first[index], self.windows.last[index] + 1) for index in measured]
        tokens = [len(prompt) for prompt in self._prompts(measured.tolist(), windows)]
        terms = np.stack([np.ones_like(known), np.minimum(known, self._builder.max_items)], axis=1)
        line = np.linalg.lstsq(terms[measured], np.array(tokens), rcond=None)[0]
        lengths: Positions = np.rint(terms @ line).astype(np.int64) + self._identifiers.shape[1]
        return lengths


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
