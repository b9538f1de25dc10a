"""A linear head: logits of some tokens from the rows of its weights that are theirs, and the normaliser block by block.

Invariant: what a family does with its logits after the head is found by handing its own code logits that are known. It is taken over only
if one scale and one soft cap give the same for all tokens; any other model keeps making all its logits.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from drafting.beam.rows import log_of_sums
from drafting.device import is_async
from drafting.errors import MODEL_ERRORS
from drafting.trie.token_set import TokenSet
from verification.hosts.layers import TOKENS, probe_inputs, probed
from verification.hosts.packing import PackedProduct

# Logits by which the treatment is found, and by how much, of the largest, it may differ.
WIDEST = 60.0
TOLERANCE = 1e-5
SMALL, LARGE = 1e-3, 1e9
# Tokens and rows of whose logits the exponentials are summed at a time: so many stay in a processor's cache while they are.
SUMMED_TOKENS, SUMMED_ROWS = 4096, 512
# The same of an asynchronous device, where launches cost more than caches save. With the product in half precision, 192 MiB
# are there at a time, and some 640 for a host that is exact.
ASYNC_TOKENS, ASYNC_ROWS = 32768, 1024
# The longest part of a head that is packed: all of a small one, and each block of a large one, but not that again as a whole.
MOST_PACKED = 8192


@dataclass(frozen=True)
class Treatment:
    """The family's change to logits after the head: times `scale`, and softly capped."""

    scale: float = 1.0
    cap: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """Float32 logits as the model gives them; may write to them."""
        if self.scale != 1.0:
            logits = logits.mul_(self.scale)
        return logits if self.cap is None else logits.div_(self.cap).tanh_().mul_(self.cap)

    @classmethod
    def found(cls, treat: Callable[[Tensor], Tensor], vocabulary: int, device: torch.device) -> "Treatment | None":
        """The treatment that does what `treat` does to logits `[rows, vocabulary]`; None if there is none.

        Some families divide where others multiply, or cap before they scale: all of that is one scale and one cap.
        """
        made = torch.Generator().manual_seed(0)
        given = ((torch.rand(2, vocabulary, generator=made) * 2 - 1) * WIDEST).to(device)
        treated = treat(given.clone())
        if treated.shape != given.shape:
            return None
        if torch.equal(treated.float(), given):
            return cls()
        ends = torch.full_like(given, SMALL)
        ends[1] = LARGE
        small, large = treat(ends)[:, 0].float().tolist()
        one = cls(small / SMALL, large if large < small / SMALL * LARGE / 2 else None)
        same = torch.allclose(one(given), treated.float(), rtol=TOLERANCE, atol=TOLERANCE * float(treated.abs().max()))
        return one if same else None


@dataclass(frozen=True, eq=False)
class HeadPart:
    """The rows of some tokens.

    Attributes:
        weight: `[tokens, size]`.
        bias: `[tokens]`, or None.
    """

    weight: Tensor
    bias: Tensor | None

    @cached_property
    def product(self) -> Callable[[Tensor], Tensor]:
        """Multiplies states, `[rows, size]`; a small part is packed, which on a CPU is a copy of it."""
        packed = PackedProduct.of(self.weight, self.bias) if len(self.weight) <= MOST_PACKED else None
        return packed or partial(F.linear, weight=self.weight, bias=self.bias)


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A head that multiplies by weights.

    Attributes:
        weight: `[vocabulary or more, size]`; what is more is padding.
        bias: `[vocabulary or more]`, or None.
        vocabulary: tokens that the model knows, or this part of it.
        treatment: what becomes of the logits.
        block_rows: rows of each product, the last ones padded, in float32; None for all in one, in the weights' precision. See
            `verification.hosts.exact`.
    """

    weight: Tensor
    bias: Tensor | None
    vocabulary: int
    treatment: Treatment
    block_rows: int | None = None
    _gathered: "WeakKeyDictionary[TokenSet, HeadPart]" = field(default_factory=WeakKeyDictionary, init=False)
    _parts: dict[tuple[int, int], HeadPart] = field(default_factory=dict, init=False)

    def logits(self, states: Tensor) -> Tensor:
        """As `Head.logits`."""
        return self._multiply(states, self._part(0, self.vocabulary))

    def project(self, states: Tensor, tokens: TokenSet) -> Tensor:
        """As `Head.project`; weights are copied, once, where the tokens are no range."""
        if tokens not in self._gathered:
            rows = tokens.ids if (first := tokens.first) is None else slice(first, first + len(tokens))
            self._gathered[tokens] = HeadPart(self.weight[rows], None if self.bias is None else self.bias[rows])
        return self._multiply(states, self._gathered[tokens])

    def log_normaliser(self, states: Tensor) -> Tensor:
        """As `Head.log_normaliser`."""
        normaliser, rows = (self._careful_normaliser, ASYNC_ROWS) if is_async(states.device) else (self._normaliser, SUMMED_ROWS)
        return torch.cat([normaliser(part) for part in torch.split(states, rows)])

    def _normaliser(self, states: Tensor) -> Tensor:
        sums = self._sums(states)
        for logits in self._blocks(states):
            sums += logits.exp_().sum(1)
            del logits
        return log_of_sums(sums, lambda rows: self._careful_normaliser(states.index_select(0, rows)))

    def _careful_normaliser(self, states: Tensor) -> Tensor:
        """The same, with the largest logit of each block taken off before exponentials are made."""
        total = self._sums(states).log_()
        for logits in self._blocks(states):
            # In place, where `logsumexp` would make two more. A block of nothing but -inf adds nothing; what is no number stays none.
            highest = logits.amax(1).clamp_(min=torch.finfo(torch.float32).min)
            total = torch.logaddexp(total, logits.sub_(highest[:, None]).exp_().sum(1).log_().add_(highest))
            # This block's memory is free before the next one is made.
            del logits
        return total.float()

    def _sums(self, states: Tensor) -> Tensor:
        """`[rows]` zeros. Sums over other numbers of rows may add in another order, which float64 does not show."""
        return torch.zeros(len(states), dtype=torch.float32 if self.block_rows is None else torch.float64, device=states.device)

    def _blocks(self, states: Tensor) -> Iterator[Tensor]:
        """The logits of one block of tokens after the other, of the type of sums, to be written to."""
        step = ASYNC_TOKENS if is_async(states.device) else SUMMED_TOKENS
        for first in range(0, self.vocabulary, step):
            part = self._part(first, min(first + step, self.vocabulary))
            yield self._multiply(states, part) if self.block_rows is None else self._multiply(states, part).double()

    def _part(self, first: int, last: int) -> HeadPart:
        """The tokens from `first` up to `last`, of which there are few pairs."""
        if (first, last) not in self._parts:
            self._parts[first, last] = HeadPart(self.weight[first:last], None if self.bias is None else self.bias[first:last])
        return self._parts[first, last]

    def _multiply(self, states: Tensor, part: HeadPart) -> Tensor:
        """`[rows, tokens]` float32."""
        if self.block_rows is None:
            return self.treatment(part.product(states).float())
        padded = F.pad(states.float(), (0, 0, 0, -len(states) % self.block_rows)).view(-1, self.block_rows, states.shape[1])
        products = torch.cat([F.linear(block, part.weight, part.bias) for block in padded.unbind(0)])[: len(states)]
        return products if self.treatment == Treatment() else self.treatment(products.double()).float()


def plain_head(head: nn.Module | None, treatment: Treatment) -> LinearHead | None:
    """A module's weights as a head; None if they are no plain numbers, or something else computes with them."""
    if type(head) is not nn.Linear or type(head.weight) is not nn.Parameter or not head.weight.is_floating_point():
        return None
    # Detached, because rows may be projected where gradients are recorded.
    bias = None if head.bias is None else head.bias.detach()
    return LinearHead(head.weight.detach(), bias, len(head.weight), treatment)


class KeptStates:
    """In place of a head's own forward: keeps what it is given, `[1, rows, size]`, and answers with logits of no token.

    Attributes:
        states: `[rows, size]` of the last call.
        calls: number of calls.
    """

    states: Tensor

    def __init__(self, answer: Tensor | None = None) -> None:
        """`answer`: `[rows, vocabulary]` to answer with instead."""
        self._answer = answer
        self.calls = 0

    def __call__(self, states: Tensor) -> Tensor:
        self.states = states[0]
        self.calls += 1
        return states.new_empty(*states.shape[:-1], 0) if self._answer is None else self._answer[None]


@torch.inference_mode()
def find_head(model: PreTrainedModel) -> LinearHead | None:
    """The head of a causal model, whose family's own code says what becomes of its logits; None if that is not linear with a treatment."""
    module = model.get_output_embeddings()
    head = plain_head(module, Treatment())
    if head is None or module is None:
        return None
    rows = torch.tensor([0, TOKENS - 1], device=model.device)

    def treat(logits: Tensor | None) -> Tensor:
        """The logits that the model returns for the first and the last token where its head gives `logits`."""
        kept = KeptStates(logits)
        with in_place_of(module, kept), probed(model):
            treated: Tensor = model(**probe_inputs(model), use_cache=False, logits_to_keep=rows).logits
        if kept.calls != 1 or kept.states.shape != (len(rows), head.weight.shape[1]) or treated.shape[:2] != (1, len(rows)):
            raise ValueError("The head is called otherwise.")
        return treated[0]

    try:
        treatment = Treatment.found(treat, head.vocabulary, model.device)
        return None if treatment is None or treat(None).shape[1] else replace(head, treatment=treatment)
    except MODEL_ERRORS:
        return None


@contextmanager
def in_place_of(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Give a module another forward while the context lasts."""
    own = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = own
