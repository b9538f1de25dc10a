"""One running text: what the target writes for a request before its search begins.

Invariant: slots for the longest text that it may become are set aside when it starts, and nodes for the search behind it. So a request that
has started to think never runs out of memory half way.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from drafting.array_types import IntArray
from drafting.beam.tree import SequenceState
from verification.request import BeamRequest, Think, Thought


@dataclass(eq=False)
class RunningThought:
    """The state of one text.

    Attributes:
        request: as of a `BeamSearch`.
        sequence: the prompt and the text so far; made with slots for the longest text.
        cached_tokens, shared_length: as of a `BeamSearch`.
        reserved_nodes: nodes that the search behind the text needs without drafts.
        slots: `[most tokens - 1]` int64, those of the longest text: the last token of the prompt behind it is a node.
        think: how the text is written.
        written: token ids so far.
    """

    request: BeamRequest
    sequence: SequenceState
    cached_tokens: int
    shared_length: int
    reserved_nodes: int
    slots: IntArray = field(init=False)
    think: Think = field(init=False)
    written: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert self.request.think is not None
        self.think = self.request.think
        self.slots = self.sequence.slots
        self.sequence.resize_prompt(len(self.request.prompt))

    def write(self, token: int) -> bool:
        """Take up the token that follows all that is computed; return True if the text has ended with it."""
        self.sequence.computed = self.sequence.length
        self.written.append(token)
        self.sequence.resize_prompt(self.sequence.length + 1)
        return self._is_stopped or self._has_end or len(self.written) == self.think.max_tokens

    def searched(self) -> BeamRequest:
        """The request to search for, once the text has ended: its prompt goes on to where the beams begin."""
        text = self.written[: len(self.written) - (len(self.think.end) if self._has_end else self._is_stopped)]
        thought = Thought(tuple(text), len(self.written), len(self.request.prompt), self.cached_tokens)
        prompt = np.concatenate([self.request.prompt, np.array(text, np.int64), self.think.end, self.think.after])
        return replace(self.request, prompt=prompt, think=None, thought=thought)

    @property
    def _has_end(self) -> bool:
        return self.written[-len(self.think.end) :] == list(self.think.end)

    @property
    def _is_stopped(self) -> bool:
        return self.written[-1] in self.think.stops
