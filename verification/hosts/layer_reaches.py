"""How far back each layer of a causal model attends, by its configuration and what transformers' code of its family reads of that.

Invariant: what transformers leaves unread changes no layer. A config.json may have more than its family knows: a window that was left where
weights were converted to a family without windows, or kinds of layers beside a window that is every layer's.
"""

import sys

from transformers import PretrainedConfig

from verification.hosts.attention import Reach
from verification.hosts.checkpoint import PLAIN_ATTENTION, HostError, model_class

WINDOWS, CHUNKS = "sliding_attention", "chunked_attention"
# What transformers' code of a family imports to mask layers of these kinds.
MASKS = {WINDOWS: "create_sliding_window_causal_mask", CHUNKS: "create_chunked_causal_mask"}


def layer_reaches(config: PretrainedConfig) -> list[Reach | None]:
    """How far back each layer attends; None for everything.

    Raises:
        HostError: the configuration does not say it.
    """
    text = config.get_text_config()
    settings, family = text.to_dict(), model_class(text)
    window, chunk = settings.get("sliding_window"), settings.get("attention_chunk_size")
    if settings.get("use_sliding_window") is False:
        window = None
    reaches = {
        PLAIN_ATTENTION: None,
        WINDOWS: None if window is None else Reach(window),
        CHUNKS: None if chunk is None else Reach(chunk, chunked=True),
    }
    if family is not None:
        code = vars(sys.modules[family.__module__])
        reaches |= {kind: None for kind, mask in MASKS.items() if mask not in code}
    kinds = settings.get("layer_types") if hasattr(type(text), "layer_types") else None
    if kinds is None:
        return [reaches[WINDOWS] or reaches[CHUNKS]] * config.num_hidden_layers
    if any(kind != PLAIN_ATTENTION and reaches[kind] is None for kind in kinds):
        raise HostError(f"The configuration of this model ({config.model_type}) has layers with windows or chunks, but not their size.")
    return [reaches[kind] for kind in kinds]
