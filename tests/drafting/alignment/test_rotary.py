"""The rotary base of a saved model, under the names of transformers 4 and 5."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, Gemma3TextConfig, LlamaConfig, PretrainedConfig, T5Config

from drafting.alignment.rotary import name_rotary_base

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}


def saved(folder: Path, config: PretrainedConfig) -> dict[str, Any]:
    config.save_pretrained(folder)
    name_rotary_base(folder)
    contents: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    return contents


@pytest.mark.parametrize("scaling", [{}, LLAMA3], ids=["plain", "scaled"])
def test_both_names_say_the_same(tmp_path: Path, scaling: dict[str, Any]) -> None:
    rotary = {"rope_theta": 500000.0, "rope_type": "default"} | scaling
    contents = saved(tmp_path, LlamaConfig(rope_parameters=dict(rotary), max_position_embeddings=512))
    assert contents["rope_theta"] == 500000.0
    assert contents.get("rope_scaling") == (scaling or None)
    assert AutoConfig.from_pretrained(tmp_path).rope_parameters == rotary


@pytest.mark.parametrize("config", [T5Config(), Gemma3TextConfig()], ids=["no positions", "a base for each kind of layer"])
def test_what_the_older_names_can_not_say_is_left_alone(tmp_path: Path, config: PretrainedConfig) -> None:
    config.save_pretrained(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    name_rotary_base(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before
