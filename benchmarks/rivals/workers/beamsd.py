"""The AtSpeed authors' BeamSD: beam search with tree attention, and their speculative one, under transformers 4.44.

Only `atspeed.beamsd` is used: their other file synchronises with CUDA around each part to time it. `atspeed` is their package here, found
by the path of their repository.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from atspeed.beamsd import beam_search_by_SD, beam_search_by_TreeAttn
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM


def load_llama(folder: str) -> Any:
    """A Llama that a later transformers has written: the same weights, and a configuration in this version's words."""
    config = json.loads((Path(folder) / "config.json").read_text())
    rope = config.pop("rope_parameters", None) or {}
    config["torch_dtype"] = config.pop("dtype", "float32")
    config["rope_theta"] = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    # What was trained may say that it has none, as training had not; their functions read it.
    config["use_cache"] = True
    model = LlamaForCausalLM(LlamaConfig.from_dict(config)).eval()
    weights = load_file(Path(folder) / "model.safetensors")
    if config.get("tie_word_embeddings"):
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights)
    # `generate` prepares this, and their functions read it without.
    model.generation_config._eos_token_tensor = None
    return model


def load(spec: dict[str, Any]) -> Callable[..., list[list[int]]]:
    """Load target and draft."""
    torch.set_num_threads(spec["threads"])
    identifiers = np.load(spec["identifiers"])
    depth = identifiers.shape[1]
    follows: dict[tuple[int, ...], set[int]] = {}
    for row in map(tuple, identifiers.tolist()):
        for position, token in enumerate(row):
            follows.setdefault(row[:position], set()).add(token)
    allowed = {prefix: sorted(tokens) for prefix, tokens in follows.items()}
    target, draft = load_llama(spec["target"]), load_llama(spec["draft"])

    def search(prompt: list[int], k: int, drafts: int) -> list[list[int]]:
        length = len(prompt)
        inputs = {"input_ids": torch.tensor([prompt])}

        def after(_: int, tokens: torch.Tensor) -> list[int]:
            return allowed.get(tuple(tokens[length:].tolist()), [])

        with torch.inference_mode():
            if drafts:
                made = beam_search_by_SD(target, draft, inputs, depth, depth - 1, k, drafts, prefix_allowed_tokens_fn=after)
            else:
                made = beam_search_by_TreeAttn(target, inputs, depth, k, prefix_allowed_tokens_fn=after)
        found: list[list[int]] = made["beam_sequences"][:, length:].tolist()
        return found

    return search
