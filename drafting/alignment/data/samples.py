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
from tqdm import tqdm

from drafting.alignment.data.interactions import Interactions
from drafting.alignment.data.reach import Reach
from drafting.alignment.data.soft_labels import SoftLabels
from drafting.alignment.data.windows import Positions, Windows
from drafting.array_types import IntArray
from drafting.errors import PromptError
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.template import PromptTemplate

IGNORED_LABEL = -100
_BATCHES_PER_BUCKET_RUN = 50
_MEASURED_SAMPLES = 256
_SOON_READ = 10_000

Batch = dict[str, torch.Tensor]


class SampleSet(torch.utils.data.Dataset[Batch]):
    """Samples for one model and catalog, built batch by batch.

    Attributes:
        windows: the stretches of the interactions that they are.
        lengths, bucket_lengths: `[samples]`, number of tokens of each sample with all its items.
    """

    def __init__(
        self,
        interactions: Interactions,
        windows: Windows,
        builder: PromptBuilder,
        identifiers: IntArray,
        pad_token_id: int,
        *,
        unknown_token: int | None = None,
        left_out: float = 0.0,
        seed: int = 0,
        soft: SoftLabels | None = None,
    ) -> None:
        """
        Args:
            identifiers: `[items, length]`, the catalog's identifiers as the model's token ids.
            unknown_token: the token of text that the tokenizer has no tokens for, if prompts must not hold any.
            left_out: share of a window's items that an epoch leaves out, in [0, 1).
            seed: seed of the choice of these items.
            soft: further labels of the interactions that are predicted.

        Raises:
            InteractionError: the prompt lists events of a kind that no interaction is of.
            PromptError: the prompt of a sample can't be built, holds no token, or text without tokens.
        """
        self._interactions = interactions
        self.windows = windows
        self._reach = Reach(interactions, builder.form.kinds)
        self._builder = builder
        self._unknown_token = unknown_token
        self._identifiers = identifiers
        self._pad_token_id = pad_token_id
        self._left_out = left_out
        self._seed = seed
        self._soft = soft
        self._epoch = 0
        self.lengths: IntArray = self._measured_lengths()
        self.bucket_lengths = self.lengths

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def all_labels(self) -> int:
        """The number of tokens that are predicted, with all items."""
        found: int = self.windows.scored.sum().item() * self._identifiers.shape[1]
        return found

    @property
    def labels(self) -> float:
        """The number of tokens that an epoch predicts, the expected one where items are left out."""
        scored, left_out = self.windows.scored, self._left_out
        before = self.windows.last - self.windows.first + 1 - scored
        # The newest item is always predicted, and the first that is left never: one of these where nothing before them is left.
        first = left_out**before * (1 - left_out ** (scored - 1))
        found: float = (1 + (scored - 1) * (1 - left_out) - first).sum().item() * self._identifiers.shape[1]
        return found

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch: `input_ids` and `labels`, `[samples, longest]` int64; and its soft labels, row by row."""
        windows = [self._window(index) for index in indices]
        prompts = [self._prompt(index, positions) for index, (positions, _) in zip(indices, windows, strict=True)]
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
        batch = {"input_ids": torch.from_numpy(input_ids), "labels": torch.from_numpy(labels)}
        return batch | self._soft_part([positions[-scored:] for positions, scored in windows])

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the items that are left out."""
        self._epoch = epoch

    def _soft_part(self, answers: Sequence[Positions]) -> Batch:
        """The soft labels of a batch, of the interactions that each sample predicts; nothing if there are none."""
        return {} if self._soft is None else self._soft.of(np.concatenate(answers))

    def _prompt(self, index: int, positions: Positions) -> IntArray:
        """The prompt of a sample, given the interactions in it, the one to predict last."""
        user, asked = int(self.windows.owners[index]), int(positions[-1])
        try:
            prompt = self._builder.build(self._interactions.state(user, positions[:-1], asked))
        except PromptError as error:
            raise PromptError(f"No prompt can be made for user {self._interactions.users[user]!r} of the data: {error}") from error
        if self._unknown_token is not None and (prompt == self._unknown_token).any():
            raise PromptError(
                f"The prompt of user {self._interactions.users[user]!r} has text that a model from scratch has no tokens for: it knows the "
                "catalog's codes and added tokens alone, and no space between them. Add what is missing, or start from a base model."
            )
        return prompt

    def _whole_prompt(self, index: int) -> IntArray:
        """The prompt of a sample with all its items, which a server must not refuse."""
        prompt = self._prompt(index, self._positions(index))
        if self._builder.is_nothing(prompt):
            raise PromptError(
                f"The prompt of user {self._interactions.users[int(self.windows.owners[index])]!r} of the data holds nothing for the model "
                "to read, as prompt.json writes nothing of what is known of this user. Write a text there that stands in every prompt, or "
                "leave such users out."
            )
        return prompt

    def _positions(self, index: int) -> Positions:
        """The interactions of a sample, the one to predict last."""
        first, last = int(self.windows.first[index]), int(self.windows.last[index])
        return np.append(self._reach.known(int(self.windows.owners[index]), first, last), last)

    def _window(self, index: int) -> tuple[Positions, int]:
        """The interactions of a sample in this epoch, the one to predict last, and the number of them at the end with labels."""
        positions, scored = self._positions(index), int(self.windows.scored[index])
        if not self._left_out or len(positions) == 1:
            return positions, scored
        # Determined by seed, epoch and sample alone, so that an interrupted run continues with the same samples.
        kept = np.random.default_rng((self._seed, self._epoch, index)).random(len(positions)) >= self._left_out
        # Keep the newest item, which is predicted, and at least one item before it.
        kept[-1] = True
        kept[-2] |= not kept[:-1].any()
        return positions[kept], max(1, min(int(np.count_nonzero(kept[-scored:])), int(np.count_nonzero(kept)) - 1))

    def _measured_lengths(self) -> IntArray:
        """Tokens of each sample: a linear fit through a few built prompts for templates of identifiers, otherwise each prompt is built."""
        samples = len(self.windows.last)
        if not samples:
            return np.zeros(0, np.int64)
        measured = np.arange(samples)
        if isinstance(self._builder.form, PromptTemplate):
            measured = np.unique(np.linspace(0, samples - 1, _MEASURED_SAMPLES).astype(np.int64))
        bar = tqdm(measured.tolist(), desc="reading prompts", unit="prompt", disable=len(measured) < _SOON_READ)
        tokens = np.array([len(self._whole_prompt(index)) for index in bar])
        if len(measured) < samples:
            known = np.minimum(self.windows.last - self.windows.first, self._builder.max_items)
            terms = np.stack([np.ones_like(known), known], axis=1)
            tokens = np.rint(terms @ np.linalg.lstsq(terms[measured], tokens, rcond=None)[0]).astype(np.int64)
        lengths: IntArray = tokens + self._identifiers.shape[1]
        return lengths


class LengthBucketSampler(torch.utils.data.Sampler[int]):
    """A seeded random order in which neighbours have similar lengths, so that batches have little padding.

    Samples are shuffled, sorted by length within runs of some batches, and then the batches are shuffled. The order depends only on the
    seed and the epoch, so that an interrupted run can continue.
    """

    def __init__(self, lengths: IntArray, batch_size: int, seed: int, on_epoch: Callable[[int], None] = lambda epoch: None) -> None:
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
