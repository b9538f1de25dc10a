"""Thinking: texts that the target writes for requests before their searches begin (decoding without constraints).

Invariant: a text is a prompt that grows by a token a step, in the forwards that all running requests share. It depends on its own request
alone: the next token is the one with the highest logit of all that target and draft can read, or a draw by noise that depends on nothing
but the seed and the number of tokens before it. When it ends, its request is searched for behind it as behind any other prompt.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from drafting.beam.forward import ForwardPart
from drafting.beam.gumbel import Stream, gumbel_noise
from drafting.beam.rows import Rows
from drafting.beam.rule import SearchRule, Verification
from drafting.beam.tree import TokenTree, to_device
from drafting.device import arange, on_device, on_host
from verification.request import BeamRequest
from verification.slots.engine_slots import EngineSlots
from verification.slots.pool import CachedPrefix
from verification.thought import RunningThought

# Scores that are perturbed at a time: noise is computed in float64, and vocabularies are large.
MOST_SCORES = 1 << 20
# Beyond any token id.
_POSITION = 1 << 32


class ThinkStep:
    """The texts of an engine's requests, by request."""

    def __init__(self, tree: TokenTree, slots: EngineSlots, known_tokens: int | None = None) -> None:
        """`known_tokens`: the first token id that is never written; None if there is none."""
        self._tree = tree
        self._slots = slots
        self._known_tokens = known_tokens
        self._device = tree.token.device
        self._thoughts: dict[str, RunningThought] = {}
        self._tokens = torch.empty(0, dtype=torch.int64, device=self._device)

    def __len__(self) -> int:
        return len(self._thoughts)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._thoughts

    def begin(self, request: BeamRequest, nodes: int) -> None:
        """Begin the text of a request whose search needs so many nodes.

        Raises:
            OutOfSlots: too few slots are free.
        """
        thought = self._slots.open_thought(request, nodes)
        tokens = np.pad(request.prompt, (0, len(thought.slots) - len(request.prompt)))
        self._tree.add_prompt(*to_device([np.stack([thought.slots, tokens])], self._device))
        self._thoughts[request.request_id] = thought

    def end(self, request_id: str, keep: bool) -> bool:
        """End a text without a search and free its slots; false if there is none."""
        thought = self._thoughts.pop(request_id, None)
        if thought is not None:
            self._slots.close([thought], keep)
        return thought is not None

    @property
    def parts(self) -> list[ForwardPart]:
        """All that the next forward computes of the texts; each wants one row of logits."""
        return [ForwardPart.uncomputed(thought.sequence) for thought in self._thoughts.values()]

    @property
    def uncomputed(self) -> int:
        """Tokens of the texts in the next forward."""
        return sum(thought.sequence.uncomputed for thought in self._thoughts.values())

    def choose(self, rows: Rows) -> Rows:
        """Choose the next token of each text by the last rows of a forward, and return the rows before them."""
        if not len(self):
            return rows
        first, thoughts = len(rows) - len(self), self._thoughts.values()
        # A head may be wider than an embedding, of the target or of the draft, and both read what is written.
        logits = rows.between(first, len(rows)).logits()[:, : self._known_tokens]
        self._tokens = next_tokens(logits, [thought.think.rule for thought in thoughts], [len(thought.written) for thought in thoughts])
        return rows.between(0, first)

    def advance(self, begin: Callable[[BeamRequest, CachedPrefix], None]) -> tuple[str, ...]:
        """Write the tokens that were chosen; end the texts that are complete, and those whose logits are not finite.

        Args:
            begin: called with each request whose text is complete, and what is computed of its prompt; begins its search.

        Returns:
            the ids of the others that have ended.
        """
        if not len(self):
            return ()
        found, failed = [], []
        (tokens,) = on_host([self._tokens])
        for token, (request_id, thought) in zip(tokens.tolist(), list(self._thoughts.items()), strict=True):
            if token < 0:
                failed.append(request_id)
                self.end(request_id, keep=False)
            elif thought.write(token):
                del self._thoughts[request_id]
                request = thought.searched()
                found.append((request, self._slots.end_thought(thought, request.prompt)))
        going = [(thought.sequence.slots[-1], thought.written[-1]) for thought in self._thoughts.values()]
        if going:
            slots, written = on_device(np.array(going).T.copy(), self._device).unbind(0)
            self._tree.token.index_copy_(0, slots, written)
        for request, prefix in found:
            begin(request, prefix)
        return tuple(failed)


def next_tokens(logits: Tensor, rules: Sequence[SearchRule], positions: Sequence[int]) -> Tensor:
    """The token that each row's rule chooses, `[rows]` int64; -1 where the logits are not finite.

    Args:
        logits: `[rows, vocabulary]` of any float type; -inf for what is never chosen.
        positions: tokens of each text so far.
    """
    scores = logits.float()
    # Among equal scores the first is the maximum, and a NaN counts as larger than all numbers.
    best, tokens = scores.max(1)
    sampled = np.array([row for row, rule in enumerate(rules) if rule.verification is not Verification.STRICT], np.int64)
    together = max(1, MOST_SCORES // scores.shape[1])
    for rows in np.split(sampled, np.arange(together, len(sampled), together)) if len(sampled) else ():
        seeds = np.array([rules[row].seed for row in rows], np.int64)
        firsts = np.array([positions[row] * _POSITION for row in rows], np.int64)
        temperatures = np.array([rules[row].temperature for row in rows])
        on, seed, first, temperature = (on_device(array, scores.device) for array in (rows, seeds, firsts, temperatures))
        noise = gumbel_noise(seed, first[:, None] + arange(scores.shape[1], scores.device), Stream.TEXT)
        drawn = (scores.index_select(0, on).double() / temperature[:, None] + noise).argmax(1)
        tokens.index_copy_(0, on, drawn)
    return tokens.masked_fill_(~best.isfinite(), -1)
