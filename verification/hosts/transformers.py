"""The transformers host: any causal LM that transformers loads, with tree attention in every layer.

Invariant: the modelling code of transformers is unchanged; only the attention function (by transformers' registry) and the key/value memory
are replaced. This host is the reference for all others, and needs only torch and transformers.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from drafting.beam.model import TreeBatch
from drafting.errors import first_line
from verification.hosts.attention import tree_attention
from verification.hosts.checkpoint import LOADING_ERRORS, HostError, load_config, refusal, resolve_dtype, slot_count, slot_shape

ATTENTION = "atspeed_tree"


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    scaling: float,
    tree_batch: TreeBatch,
    tree_caches: list[Tensor],
    **unused: Any,
) -> tuple[Tensor, None]:
    """`tree_attention` with the signature of transformers' attention functions; tensors are `[1, heads, tokens, head size]`."""
    layer: int = module.layer_idx  # type: ignore[assignment]
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    attended = tree_attention(query, key, value, tree_caches[layer], tree_batch.slots, tree_batch.attention, scaling)
    return attended[None], None


# Without a mask function of its own, transformers builds no mask for this attention and does not read the positions back from the device.
AttentionInterface.register(ATTENTION, _attend)


class TransformersHost:
    """A model in this process, loaded by transformers."""

    def __init__(
        self,
        model_dir: Path,
        *,
        dtype: str = "auto",
        kv_memory_gib: float = 0.5,
        slots: int | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """
        Args:
            dtype: "auto" (dtype of the checkpoint), "float32", "bfloat16" or "float16".
            kv_memory_gib: memory for keys and values, which determines the number of slots.
            slots: number of slots, instead of `kv_memory_gib`; a draft needs as many as its target.
            device: device of the model; by default a GPU if there is one.

        Raises:
            HostError: this host cannot serve the model.
        """
        config = load_config(model_dir)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        precision = resolve_dtype(config, dtype)
        try:
            model, loading = AutoModelForCausalLM.from_pretrained(
                model_dir, dtype=precision, attn_implementation=ATTENTION, output_loading_info=True
            )
        except LOADING_ERRORS as error:
            raise refusal(error, first_line(error), config, model_dir) from error
        _check_loaded(model, loading["missing_keys"], model_dir)
        try:
            self._host(model.to(self.device), slots, kv_memory_gib)
        except RuntimeError as error:
            raise refusal(error, first_line(error), config, model_dir) from error

    @classmethod
    def from_model(cls, model: PreTrainedModel, slots: int) -> "TransformersHost":
        """Host a model of this process, made with `attn_implementation=ATTENTION`, on its device."""
        host = cls.__new__(cls)
        host.device = model.device
        host._host(model, slots, 0.0)
        return host

    def _host(self, model: PreTrainedModel, slots: int | None, kv_memory_gib: float) -> None:
        self._model = model.eval()
        self._caches = _allocate(model.config, model.dtype, slots, kv_memory_gib, self.device)
        self.vocabulary_size = int(model.config.vocab_size)
        self.total_slots = len(self._caches[0])

    @torch.inference_mode()
    def score(self, batch: TreeBatch) -> Tensor:
        """Run one forward; return logits `[outputs, vocabulary]` (see `TreeModel`)."""
        logits: Tensor = self._model(
            input_ids=batch.tokens[None],
            position_ids=batch.positions[None],
            use_cache=False,
            # For transformers, 0 means all of them.
            logits_to_keep=0 if batch.outputs is None else batch.outputs,
            tree_batch=batch,
            tree_caches=self._caches,
        ).logits
        return logits[0]

    def close(self) -> None:
        """Free the key/value memory; the host cannot score afterwards."""
        self._caches.clear()


def _check_loaded(model: PreTrainedModel, missing: set[str], model_dir: Path) -> None:
    """Refuse missing weights, which transformers fills with random numbers, and models that ignore the attention function."""
    if missing:
        raise HostError(
            f"The weights in {model_dir} are not those of its config.json: {len(missing)} are missing, {min(missing)!r} among them."
        )
    if not model._supports_attention_backend:
        raise HostError(f"The model in {model_dir} ({model.config.model_type}) has attention of its own that cannot be exchanged.")


def _allocate(config: PretrainedConfig, dtype: torch.dtype, slots: int | None, gib: float, device: torch.device) -> list[Tensor]:
    """One zeroed tensor `[slots, key/value heads, 2 * head size]` per layer; masked slots must hold finite numbers too."""
    slots = slots or slot_count(config, dtype, gib)
    return [torch.zeros(slots, *slot_shape(config), dtype=dtype, device=device) for _ in range(config.num_hidden_layers)]
