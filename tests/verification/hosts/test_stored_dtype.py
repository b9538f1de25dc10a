"""The precision of a checkpoint whose configuration names none: that of its weights."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from drafting.model_files import ModelFiles
from tests.models import random_catalog, save_random_model
from verification.hosts.adapter import load_model_config
from verification.hosts.checkpoint import resolve_dtype

CATALOG = random_catalog(items=30, depth=2, codes=5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("kind", ["safetensors", "pickle"])
def test_it_is_that_of_most_numbers(tmp_path: Path, dtype: torch.dtype, kind: str) -> None:
    model = save_random_model(tmp_path / "model", CATALOG, layers=1)
    settings = json.loads((model / "config.json").read_bytes())
    (model / "config.json").write_text(
        json.dumps({name: value for name, value in settings.items() if name not in {"dtype", "torch_dtype"}})
    )
    path = model / "model.safetensors"
    # Norms are often kept in full precision.
    weights = {name: weight if weight.ndim == 1 else weight.to(dtype) for name, weight in load_file(path).items()}
    path.unlink()
    if kind == "safetensors":
        save_file(weights, path, {"format": "pt"})
    else:
        torch.save(weights, model / "pytorch_model.bin")
    assert resolve_dtype(load_model_config(ModelFiles.find(model)), "auto") == dtype
