"""The transformers host: any causal LM that transformers loads, with tree attention in every layer.

Invariant: the modelling code of transformers is unchanged; only the attention function (by transformers' registry) and the key/value memory
are replaced. Families that `verification.hosts.decoder_layers` writes out take its way, with the same attention and weights, and keep
transformers' modules for what is held against them. This host is the reference for all others, and needs only torch and transformers.
"""

import math
import sys
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PretrainedConfig, PreTrainedModel

from drafting.beam.model import AttentionLayout, TreeBatch
from drafting.beam.rows import Rows
from drafting.errors import first_line
from drafting.model_files import ModelFiles
from drafting.pretrained import LOADING_ERRORS
from verification.hosts.adapter import load_merged, load_model_config
from verification.hosts.attention import LayerLayouts, View, tree_attention
from verification.hosts.checkpoint import (
    HostError,
    auto_class,
    has_encoder,
    lacks_memory,
    model_class,
    refusal,
    resolve_dtype,
    slot_count,
)
from verification.hosts.decoder_layers import DecoderLayers
from verification.hosts.head import KeptStates, LinearHead, find_head, in_place_of
from verification.hosts.layers import Layer, during, probe_layers
from verification.hosts.packing import Packable, pack
from verification.hosts.quantization import check_quantization
from verification.hosts.weights import check_names

ATTENTION = "atspeed_tree"


@dataclass(frozen=True)
class TreeForward:
    """One forward, as its layers need it.

    Attributes:
        batch: the forward.
        caches: per layer, `[slots, key/value heads, key size + value size]`.
        indices: the index of each attention layer.
        layouts: per layer, the columns that its queries may attend to.
        is_exact: True if attention is to be computed in float64.
    """

    batch: TreeBatch
    caches: list[Tensor]
    indices: dict[nn.Module, int]
    layouts: list[Sequence[AttentionLayout]]
    is_exact: bool

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, softcap: float | None = None, sinks: Tensor | None = None
    ) -> Tensor:
        """`tree_attention` of a layer, by its index."""
        if self.is_exact:
            query = query.double()
        cache, layouts = self.caches[layer], self.layouts[layer]
        return tree_attention(query, key, value, cache, self.batch.written, layouts, scale, softcap, sinks).to(value.dtype)


# The forward that runs; an argument of the model would not reach the layers of every family.
FORWARD: ContextVar[TreeForward] = ContextVar("FORWARD")


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **checked: Any,
) -> tuple[Tensor, None]:
    """`tree_attention` with the signature of transformers' attention functions; tensors are `[1, heads, tokens, head size]`.

    What else a layer passes has been checked by `probe_layers` to have no effect.
    """
    forward = FORWARD.get()
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    attended = forward.attend(forward.indices[module], query, key, value, scale, softcap, s_aux)
    return attended[None], None


# Without a mask function of its own, transformers builds no mask for this attention and does not read the positions back from the device.
AttentionInterface.register(ATTENTION, _attend)


class TransformersHost:
    """A model in this process, loaded by transformers.

    Attributes:
        model: the model, whose attention function is `attention`.
        attention: name of the attention function in transformers' registry.
        is_exact: True if attention is computed in float64; see `verification.hosts.exact`.
        head: None if the model makes all its logits itself.
        decoder: the layers that compute in place of the model's own; None where these do.
    """

    model: PreTrainedModel
    is_exact: bool
    head: LinearHead | None
    decoder: DecoderLayers | None = None
    attention = ATTENTION
    has_encoder = False

    def __init__(
        self,
        model_dir: Path,
        *,
        base: Path | None = None,
        dtype: str = "auto",
        kv_memory_gib: float = 0.5,
        slots: int | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """
        Args:
            base: base model of an adapter; by default the one that its configuration names.
            dtype: "auto" (dtype of the checkpoint), "float32", "bfloat16" or "float16".
            kv_memory_gib: memory for keys and values, which determines the number of slots.
            slots: number of slots, instead of `kv_memory_gib`; a draft needs as many as its target.
            device: device of the model; by default a GPU if there is one.

        Raises:
            HostError: this host cannot serve the model.
        """
        files = ModelFiles.find(model_dir, base)
        config = load_model_config(files)
        _check_backend(config, model_dir)
        check_quantization(config, files.weights)
        check_names(files.weights)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        precision = resolve_dtype(config, dtype)
        if files.base is not None:
            model = load_merged(files, config, precision, self.attention)
        else:
            try:
                settings = {"dtype": precision, "attn_implementation": self.attention, "trust_remote_code": False}
                model, loading = auto_class(config).from_pretrained(model_dir, config=config, output_loading_info=True, **settings)
                model = model.to(self.device)
            except LOADING_ERRORS as error:
                raise refusal(error, _reason(error), config, model_dir) from error
            _check_loaded(loading["missing_keys"], model_dir)
        if (chosen := model.config._attn_implementation) != self.attention:
            raise HostError(f"transformers gives the model in {model_dir} ({config.model_type}) attention of its own choice: {chosen}.")
        try:
            self._host(model.to(self.device), slots, kv_memory_gib)
        except RuntimeError as error:
            raise refusal(error, _reason(error), config, model_dir) from error

    @classmethod
    def from_model(cls, model: PreTrainedModel, slots: int) -> "TransformersHost":
        """Host a model of this process, made with this host's attention function, on its device."""
        host = cls.__new__(cls)
        host.device = model.device
        host._host(model, slots, 0.0)
        return host

    def _host(self, model: PreTrainedModel, slots: int | None, kv_memory_gib: float) -> None:
        self.model = model.eval()
        self.is_exact = False
        for module in model.modules():
            if isinstance(module, PreTrainedModel):
                # It would read tokens of every forward from the device, and warn of padding; a forward has none.
                module.__dict__["warn_if_padding_and_no_attention_mask"] = _say_nothing
        layers = probe_layers(model)
        self._indices = {module: index for index, module in enumerate(layers)}
        self._caches = allocate(layers.values(), model.dtype, slots, kv_memory_gib, self.device)
        self.head = find_head(model)
        self.decoder = None if self.head is None else DecoderLayers.of(model, list(layers))
        self.vocabulary_size = int(model.config.vocab_size)
        self.total_slots = len(self._caches[0])
        self._layouts = LayerLayouts([View(layer.reach) for layer in layers.values()], self.total_slots, self.device)

    @torch.inference_mode()
    def score(self, batch: TreeBatch) -> Rows:
        """Run one forward; see `TreeModel`."""
        forward = TreeForward(batch, self._caches, self._indices, self._layouts.of(batch), self.is_exact)
        if self.decoder is not None and self.head is not None:
            return Rows(self.decoder.states(batch, forward.attend), self.head)
        with during(FORWARD, forward):
            if self.head is None:
                return Rows.of(self._logits(batch)[0])
            kept = KeptStates()
            with in_place_of(self.model.get_output_embeddings(), kept):
                self._logits(batch)
        return Rows(kept.states, self.head)

    def _logits(self, batch: TreeBatch) -> Tensor:
        """`[1, outputs, vocabulary]`, what transformers' own code answers."""
        logits: Tensor = self.model(
            input_ids=batch.tokens[None],
            position_ids=batch.positions[None],
            use_cache=False,
            # For transformers, 0 means all of them.
            logits_to_keep=0 if batch.outputs is None else batch.outputs,
        ).logits
        return logits

    def compute_by_modules(self) -> None:
        """From here on, let the model's modules make all products, of which some have been given another forward, and compute attention in
        float64: see `verification.hosts.exact`."""
        self.is_exact, self.decoder = True, None

    def pack(self) -> None:
        """Lay the weights of the layers out as products on this CPU read them fastest, if they are written out: see
        `verification.hosts.packing`. The model's own code can't compute afterwards."""
        pack(self.model, self._projections)

    @property
    def _projections(self) -> Sequence[Packable]:
        """The products with weights of layers that are written out."""
        return () if self.decoder is None else self.decoder.projections

    def close(self) -> None:
        """Free the key/value memory; the host cannot score afterwards."""
        self._caches.clear()


def _say_nothing(*_: object) -> None: ...


def _reason(error: Exception) -> str:
    """Why a model can't be loaded, as the end of a sentence."""
    said = first_line(error)
    return f'there is too little memory for it and --kv-memory-gib: "{said}"' if lacks_memory(error) else said


def _check_backend(config: PretrainedConfig, model_dir: Path) -> None:
    """Refuse families that transformers has no causal model of, or whose code does not look attention functions up."""
    family = model_class(config)
    if family is None:
        raise HostError(f"The model in {model_dir} ({config.model_type}) is no causal language model of transformers.")
    if not has_encoder(config) and not hasattr(sys.modules[family.__module__], "ALL_ATTENTION_FUNCTIONS"):
        raise HostError(f"The model in {model_dir} ({config.model_type}) has attention of its own that cannot be exchanged.")


def _check_loaded(missing: set[str], model_dir: Path) -> None:
    """Refuse missing weights, which transformers fills with random numbers."""
    if missing:
        raise HostError(
            f"The weights in {model_dir} are not those of its config.json: {len(missing)} are missing, {min(missing)!r} among them."
        )


def allocate(layers: Iterable[Layer], dtype: torch.dtype, slots: int | None, gib: float, device: torch.device) -> list[Tensor]:
    """One zeroed tensor `[slots, key/value heads, key size + value size]` per layer; masked slots must hold finite numbers too."""
    shapes = [layer.shape for layer in layers]
    slots = slots or slot_count(sum(map(math.prod, shapes)) * dtype.itemsize, gib)
    return [torch.zeros(slots, *shape, dtype=dtype, device=device) for shape in shapes]
