"""What the layers of a transformers model ask of attention, found by a forward at start that computes none.

Invariant: a layer is served only if everything that it hands to its attention function is named here and computed by
`verification.hosts.attention`; all else is refused in a sentence, with the model's type and the feature. What a layer attends to is taken
from the mask that transformers would give it, so windows and chunks are found wherever a family keeps them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from drafting.errors import MODEL_ERRORS, first_line
from verification.hosts.attention import HAS_TRITON, Reach
from verification.hosts.checkpoint import HostError

T = TypeVar("T")
# Name of the attention function of the probe in transformers' registry.
PROBE = "atspeed_probe"
COMPUTED = {"scaling", "softcap", "s_aux"}
# Arguments that change nothing in a forward over a tree: what they say is in the mask, in the keys, or is for other kernels.
WITHOUT_EFFECT = {"sliding_window", "position_ids", "deterministic", "use_cache", "logits_to_keep", "cache_position"}
FEATURES = {"position_bias": "biases by position", "is_causal": "attention in both directions", "dropout": "dropout"}
TOKENS = 3


@dataclass(frozen=True)
class Layer:
    """One attention layer.

    Attributes:
        shape: key/value heads and the size of a key with its value: the shape of a key/value slot.
        reach: how far back it attends; None for everything.
    """

    shape: tuple[int, int]
    reach: Reach | None


@dataclass
class Probe:
    """The attention layers of a model, in the order in which a forward calls them, and why one of them can't be served."""

    longest: int
    layers: dict[nn.Module, Layer] = field(default_factory=dict)

    def add(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: object, options: dict[str, Any]) -> None:
        """Check one call of an attention function; tensors are `[1, heads, tokens, head size]`.

        Raises:
            HostError: it asks for what tree attention does not compute; the message is the feature.
        """
        check_options(options, query)
        if module in self.layers:
            raise HostError("one attention layer that is called several times in a forward")
        if isinstance(mask, Tensor):
            raise HostError("masks of its own")
        if query.shape[2] != TOKENS or key.shape[2] != TOKENS or value.shape[2] != TOKENS or key.shape[3] != query.shape[3]:
            raise HostError("attention between other tokens than those of the sequence")
        if key.shape[1] != value.shape[1] or query.shape[1] % key.shape[1]:
            raise HostError("heads of keys and values that do not belong together")
        if query.is_cuda and HAS_TRITON and key.shape[3] != value.shape[3]:
            raise HostError("keys and values of different sizes, which need the CPU")
        reach = mask.reach(self.longest, query.device) if isinstance(mask, MaskRule) else None
        self.layers[module] = Layer((key.shape[1], key.shape[3] + value.shape[3]), reach)


@dataclass(frozen=True)
class MaskRule:
    """The rule of a mask, in place of the mask."""

    allows: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    local_size: int | None

    def reach(self, longest: int, device: torch.device) -> Reach | None:
        """How far back the rule allows to attend; the rows of some positions up to `longest` are compared.

        Args:
            device: the model's, on which some rules keep tensors of their own.

        Raises:
            HostError: it is no causal rule of a known kind; the message is the feature.
        """
        size = self.local_size
        known = [None] if size is None else [None, Reach(size), Reach(size, chunked=True)]
        around = () if size is None else (size - 1, size, size + 1, 2 * size - 1, 2 * size)
        rows = sorted({0, 1, longest // 2, longest, *(row for row in around if row <= longest)})
        fitting = [reach for reach in known if all(torch.equal(self._row(row, device), _expected(row, reach)) for row in rows)]
        if not fitting:
            raise HostError("a mask that is neither causal, nor a window, nor chunks")
        return fitting[0]

    def _row(self, position: int, device: torch.device) -> Tensor:
        zero, query, keys = (torch.from_numpy(array).to(device) for array in (np.array(0), np.array(position), np.arange(position + 2)))
        return torch.as_tensor(self.allows(zero, zero, query, keys)).expand(position + 2).cpu()


def _expected(position: int, reach: Reach | None) -> Tensor:
    keys = torch.arange(position + 2)
    causal = keys <= position
    return causal if reach is None else causal & reach.allows(torch.tensor(position), keys)


def check_options(options: dict[str, Any], query: Tensor) -> None:
    """Refuse arguments of an attention function that tree attention neither computes nor may ignore; the message is the feature."""
    for name, value in options.items():
        neutral = value is None or value is False or (name == "dropout" and value == 0)
        if name == "is_causal":
            neutral = value is not False
        if not neutral and name not in COMPUTED | WITHOUT_EFFECT:
            raise HostError(FEATURES.get(name, f"the argument {name!r} of its attention, which is not known here"))
    scaling, softcap, sinks = (options.get(name) for name in ("scaling", "softcap", "s_aux"))
    if not all(number is None or isinstance(number, (int, float)) for number in (scaling, softcap)):
        raise HostError("a scale or a soft cap that is not a number")
    if softcap is not None and softcap <= 0:
        raise HostError("a soft cap that is not positive")
    if sinks is not None and sinks.shape != (query.shape[1],):
        raise HostError("attention sinks that are not one for each head")


def _record(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: object, **options: Any) -> tuple[Tensor, None]:
    RECORD.get().add(module, query, key, value, attention_mask, options)
    return value.new_zeros(1, query.shape[2], query.shape[1], value.shape[3]), None


def _mask_rule(*, mask_function: Callable[..., Tensor], local_size: int | None = None, **unused: Any) -> MaskRule:
    return MaskRule(mask_function, local_size)


# The record of the forward that runs.
RECORD: ContextVar[Probe] = ContextVar("RECORD")
AttentionInterface.register(PROBE, _record)
AttentionMaskInterface.register(PROBE, _mask_rule)


@contextmanager
def during(variable: ContextVar[T], value: T) -> Iterator[None]:
    """Give a variable a value in this thread, while the context lasts."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


@contextmanager
def attention_of(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Run a model with another attention function of transformers' registry."""
    # Encoder and decoder have configurations of their own, which the model does not pass it on to.
    before = [(module, module.config._attn_implementation) for module in model.modules() if isinstance(module, PreTrainedModel)]
    for module, _ in before:
        module.set_attn_implementation(name)
    try:
        yield
    finally:
        for module, own in before:
            module.set_attn_implementation(own)


@contextmanager
def probed(model: PreTrainedModel) -> Iterator[Probe]:
    """Run a model with attention that computes nothing, and record what its layers hand to it."""
    probe = Probe(longest=model.config.get_text_config().max_position_embeddings)
    with attention_of(model, PROBE), during(RECORD, probe):
        yield probe


def probe_inputs(model: PreTrainedModel) -> dict[str, Tensor]:
    """A text of `TOKENS` tokens."""
    tokens = torch.zeros(1, TOKENS, dtype=torch.int64, device=model.device)
    return {"input_ids": tokens, "position_ids": torch.arange(TOKENS, device=model.device)[None]}


@torch.inference_mode()
def probe_layers(model: PreTrainedModel) -> dict[nn.Module, Layer]:
    """The attention layers of a model.

    Raises:
        HostError: tree attention can't serve it; the message is a sentence.
    """
    config, kind = model.config.get_text_config(), model.config.model_type
    try:
        with probed(model) as probe:
            model(**probe_inputs(model), use_cache=False, logits_to_keep=0)
    except HostError as error:
        raise HostError(f"Models of type {kind} can't be served as this one is set up: it has {error}.") from error
    except MODEL_ERRORS as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise HostError(f"Models of type {kind} can't be served: their attention can't be exchanged ({reason}).") from error
    found, expected = len(probe.layers), config.num_hidden_layers
    if found != expected:
        raise HostError(
            f"Models of type {kind} can't be served as this one is set up: {found} of its {expected} layers have attention that can be "
            "exchanged."
        )
    return probe.layers
