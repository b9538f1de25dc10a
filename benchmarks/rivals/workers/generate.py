"""transformers' `generate` with `prefix_allowed_tokens_fn`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drafting.model_files import ModelFiles
from verification.evaluation.generate import PrefixTable, generate_beams
from verification.hosts.adapter import load_reference
from verification.hosts.checkpoint import DTYPES


def load(spec: dict[str, Any]) -> Callable[..., list[list[int]]]:
    """Load the target."""
    torch.set_num_threads(spec["threads"])
    identifiers = np.load(spec["identifiers"])
    table = PrefixTable(identifiers)
    model: Any = load_reference(ModelFiles.find(Path(spec["target"])), DTYPES[spec["dtype"]])

    def search(prompt: list[int], k: int) -> list[list[int]]:
        sequences, _ = generate_beams(model, np.array([prompt]), table, k, identifiers.shape[1])
        rows: list[list[int]] = sequences.tolist()
        return rows

    return search
