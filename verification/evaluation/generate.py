"""Constrained decoding by transformers' `generate`: the reference for lists.

Invariant: this file uses none of the project's search code, because a reference must be independent of what it is compared with.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from copy import copy
from functools import cached_property
from typing import Any

import torch
from transformers.generation.logits_process import LogitNormalization, LogitsProcessorList, PrefixConstrainedLogitsProcessor

from drafting.array_types import IntArray
from drafting.model_files import NEUTRAL


class PrefixTable:
    """Allowed next tokens of every prefix, as a dictionary for `prefix_allowed_tokens_fn`."""

    def __init__(self, identifiers: IntArray) -> None:
        self._identifiers = list(map(tuple, identifiers.tolist()))
        follows: dict[tuple[int, ...], set[int]] = {}
        for row in self._identifiers:
            for depth, token in enumerate(row):
                follows.setdefault(row[:depth], set()).add(token)
        self.next: Mapping[tuple[int, ...], list[int]] = {prefix: sorted(tokens) for prefix, tokens in follows.items()}
        self._children = self.next

    def without(self, items: Collection[int]) -> "PrefixTable":
        """The table without these rows of `identifiers`: a token is allowed that leads to another one."""
        gone = Counter(self._prefixes(set(items)))
        empty = {prefix for prefix, count in gone.items() if count == self._holders[prefix]}
        fewer = {
            prefix: [token for token in self.next[prefix] if (*prefix, token) not in empty] for prefix in {each[:-1] for each in empty}
        }
        table = copy(self)
        table.next = {**self.next, **fewer}
        return table

    @cached_property
    def _holders(self) -> Counter[tuple[int, ...]]:
        """The number of items behind each prefix."""
        return Counter(self._prefixes(range(len(self._identifiers))))

    def _prefixes(self, items: Collection[int]) -> Iterator[tuple[int, ...]]:
        for item in items:
            row = self._identifiers[item]
            yield from (row[:depth] for depth in range(1, len(row) + 1))

    @cached_property
    def _by_level(self) -> list[list[int]]:
        """The tokens at each depth."""
        return [sorted(set(tokens)) for tokens in zip(*self._identifiers, strict=True)]

    def constraint(self, prompt_length: int, k: int, renormalise: bool, by_level: bool = False) -> dict[str, Any]:
        """The arguments of `generate` for prompts of `prompt_length` tokens and k beams; see `generate_beams`."""

        def after(table: Mapping[tuple[int, ...], list[int]]) -> Callable[[int, torch.Tensor], list[int]]:
            return lambda _, tokens: table[tuple(tokens[prompt_length:].tolist())]

        if by_level:
            # Masked before the softmax: the tokens of the level alone have a share, and of these the children may follow.
            level = PrefixConstrainedLogitsProcessor(lambda _, tokens: self._by_level[len(tokens) - prompt_length], k)
            left = PrefixConstrainedLogitsProcessor(after(self.next), k)
            return {"logits_processor": LogitsProcessorList([level, LogitNormalization(), left]), "renormalize_logits": False}
        if not renormalise or self.next is self._children:
            return {"prefix_allowed_tokens_fn": after(self.next), "renormalize_logits": renormalise}
        # `generate` would renormalise over what is left of the children, and its own constraint gives way to another of the same class.
        children, left = (PrefixConstrainedLogitsProcessor(after(table), k) for table in (self._children, self.next))
        return {"logits_processor": LogitsProcessorList([children, LogitNormalization(), left]), "renormalize_logits": False}


@torch.inference_mode()
def generate_beams(
    model: Any, prompts: IntArray, table: PrefixTable, k: int, depth: int, renormalise: bool = False, by_level: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run constrained beam search by transformers.

    Args:
        prompts: `[prompts, tokens]`.
        renormalise: normalise log-probabilities over all children of a prefix, also those that `without` has taken out, instead of over the
            vocabulary. What the model's own generation configuration says, of this or of penalties, is left aside.
        by_level: normalise them over all tokens at the prefix's level.

    Returns:
        identifiers `[prompts * k, depth]`, best first, and their cumulative log-probabilities `[prompts * k]`.
    """
    tokens = torch.from_numpy(prompts).to(model.device)
    given = tokens.shape[1]
    if model.config.is_encoder_decoder:
        # The encoder reads all but the last token, with which the decoder's text begins.
        tokens, given = tokens[:, :-1], 1
    output = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        num_beams=k,
        num_return_sequences=k,
        max_new_tokens=depth,
        do_sample=False,
        length_penalty=0.0,
        **NEUTRAL,
        **table.constraint(given, k, renormalise, by_level),
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=k == 1,
    )
    identifiers = output.sequences[:, given:]
    if k > 1:
        return identifiers, output.sequences_scores
    # For k = 1 transformers decodes greedily and sums nothing up.
    log_probs = torch.stack(output.scores, 1) if renormalise or by_level else torch.stack(output.logits, 1).float().log_softmax(-1)
    return identifiers, log_probs.gather(2, identifiers[:, :, None]).sum((1, 2))
