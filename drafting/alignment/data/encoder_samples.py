"""Training samples of encoder-decoder models: the encoder reads the prompt, the decoder writes the identifier of the item to predict.

Invariant: the encoder reads what it will read while serving: the prompt without its last token, which begins the decoder's text. Each
sample is a prompt of its own: what an encoder makes of a token depends on all later ones, so no sequence contains the samples of its parts.
"""

from collections.abc import Sequence

import numpy as np
import torch

from drafting.alignment.data.samples import Batch, SampleSet
from drafting.device import pad_stack


class EncoderSampleSet(SampleSet):
    """Samples for one encoder-decoder model and catalog, built batch by batch; each of its windows scores one item."""

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch: `input_ids` and `attention_mask`, `[samples, longest]` int64, and `labels`, `[samples, identifier length]` int64; and
        its soft labels, row by row.
        """
        windows = [self._window(index)[0] for index in indices]
        prompts = [self._prompt(index, positions)[:-1] for index, positions in zip(indices, windows, strict=True)]
        answers = np.array([positions[-1] for positions in windows])
        labels = self._identifiers[self._interactions.items[answers]]
        return {
            "input_ids": torch.from_numpy(pad_stack(prompts, self._pad_token_id)),
            "attention_mask": torch.from_numpy(pad_stack([np.ones_like(prompt) for prompt in prompts], 0)),
            "labels": torch.from_numpy(labels),
        } | self._soft_part([answers])
