"""Dropout of any base while it trains: of the embeddings and of what each layer adds to the residual stream.

Invariant: neither the weights nor the configuration change, so nothing of it is in the saved model, and a model in evaluation mode computes
as before.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


def add_dropout(model: PreTrainedModel, share: float) -> None:
    """Let `model` drop `share` of its hidden numbers while it trains.

    A model with dropouts of its own, such as T5, gets them set to `share`. Most causal models have none but that of attention: in these,
    embeddings are dropped from, and the outputs of each layer's blocks (attention, and what follows it).
    """
    own: list[Any] = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    functional: list[Any] = [module for module in model.modules() if isinstance(vars(module).get("dropout"), float)]
    for module in own:
        module.p = share
    for module in functional:
        module.dropout = share
    if own or functional:
        return
    hook = _hook(share, model.config.get_text_config().hidden_size)
    model.get_input_embeddings().register_forward_hook(hook)
    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            for block in layer.children():
                if "norm" not in type(block).__name__.lower():
                    block.register_forward_hook(hook)


def _hook(share: float, width: int) -> Callable[[nn.Module, Any, Any], Any]:
    """A forward hook that drops from the first output, if that is a row of hidden numbers."""

    def drop(module: nn.Module, inputs: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        if not (module.training and isinstance(hidden, torch.Tensor) and hidden.shape[-1] == width):
            return output
        dropped = nn.functional.dropout(hidden, share)
        return (dropped, *output[1:]) if isinstance(output, tuple) else dropped

    return drop
