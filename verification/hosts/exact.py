"""Exact lists in half precision (`--exact`): a token's scores don't depend on what shares its forward, what is cached or what was drafted.

Matrix products of different shapes add in different orders, and half precision shows it. Invariant: every linear layer multiplies blocks of
`ROWS` rows, the last one padded, so all products of a layer have one shape, in which a row's result depends neither on its place nor on the
other rows.

What can't have one shape is computed in float64 and rounded: attention, whose columns depend on the request, and activations, which
libraries compute differently at the end of a tensor. The order of a sum changes about the 50th bit of a float64, so that its rounding to
bfloat16 differs once in 10^13 numbers. On a GPU norms take blocks, too: there the number of rows decides how many threads add up a row. The
head is computed in float32, as the normaliser always is. All of it is tried at start, on the loaded model.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from drafting.beam.model import TreeModel
from drafting.beam.tree import TokenTree
from drafting.device import is_async
from verification.hosts.checkpoint import HostError
from verification.hosts.self_check import DEPTH, FORWARDS, ask, make_questions
from verification.hosts.transformers import TransformersHost

# As few as hold a plain search's beams: a block costs the same however many of its rows are padding.
ROWS = 32
# Modules whose rows are looked up, not multiplied.
TABLES = (nn.Embedding,)
ACTIVATIONS = ("torch.nn.modules.activation", "transformers.activations")

Compute = Callable[[Tensor], Tensor]


def make_exact(host: TreeModel, longest: int) -> None:
    """Make the log-probabilities of a transformers host's model exact, in place.

    Args:
        longest: maximum number of tokens of a sequence.

    Raises:
        HostError: this model can't be made exact; the message is a sentence.
    """
    if not isinstance(host, TransformersHost):
        raise TypeError(f"Only transformers hosts can be made exact, got a {type(host).__name__}.")
    model = host.model
    head = model.get_output_embeddings()
    for module in list(model.modules()):
        if type(module) in (nn.Linear, Conv1D):
            _compute(module, partial(_in_blocks, partial(_in_float32, module.forward) if module is head else module.forward))
        elif type(module).__module__ in ACTIVATIONS:
            _compute(module, partial(_in_float64, module.forward))
        elif is_async(host.device) and _is_norm(module):
            _compute(module, partial(_in_blocks, module.forward))
        elif not isinstance(module, TABLES) and any(weight.ndim > 1 for weight in module.parameters(recurse=False)):
            raise HostError(
                f"Models of type {model.config.model_type} can't be served with --exact: what layers of type {type(module).__name__} "
                "multiply depends on the other requests. Serve it without, in float32 if you can."
            )
    if head is not None:
        for name, weight in list(head.named_parameters(recurse=False)):
            # A head that is tied to the embeddings has weights of its own from here on.
            head.register_parameter(name, nn.Parameter(weight.float(), requires_grad=False))
    if head is not None and host.head is not None:
        host.head = replace(host.head, weight=head.weight, bias=head.bias, block_rows=ROWS)
    host.compute_by_modules()
    _prove(host, longest)


def _is_norm(module: nn.Module) -> bool:
    """True if a module is a norm of rows, of which each family has a class of its own. Where heads have weights each, it is none."""
    is_of_rows = all(weight.ndim == 1 for weight in module.parameters())
    return type(module).__name__.endswith("Norm") and is_of_rows and not any(module.children())


def _compute(module: nn.Module, forward: Compute) -> None:
    """Give a module another forward. It stays the same module, because modelling code also reads its weights."""
    module.__dict__["forward"] = forward


def _in_blocks(forward: Compute, states: Tensor) -> Tensor:
    """`forward` on blocks of `ROWS` rows; `[..., size]`."""
    rows = states.flatten(0, -2)
    blocks = F.pad(rows, (0, 0, 0, -len(rows) % ROWS)).view(-1, ROWS, rows.shape[1]).unbind(0)
    computed = torch.cat([forward(block) for block in blocks])
    return computed[: len(rows)].view(*states.shape[:-1], computed.shape[1])


def _in_float32(forward: Compute, states: Tensor) -> Tensor:
    return forward(states.float())


def _in_float64(forward: Compute, states: Tensor) -> Tensor:
    return forward(states.double()).to(states.dtype)


@torch.inference_mode()
def _prove(host: TransformersHost, longest: int) -> None:
    """Compare, to the last bit, token trees in company and bit by bit with the same alone in one forward.

    Raises:
        HostError: they differ.
    """
    tree = TokenTree(host.total_slots, DEPTH, host.device)
    questions = make_questions(host, tree, longest, host.vocabulary_size)
    if not questions:
        return
    in_company = ask(host, tree, questions, FORWARDS)
    alone = ask(host, tree, questions, [[(number, 0, DEPTH)] for number in range(len(questions))])
    # Scores that are not finite are no matter of company.
    if not all(torch.equal(one.nan_to_num(), other.nan_to_num()) for one, other in zip(in_company, alone, strict=True)):
        raise HostError(
            f"Lists of this model ({host.model.config.model_type}) would depend on the other requests even with --exact, on this machine: "
            "serve it without, in float32 if you can."
        )
