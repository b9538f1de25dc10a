"""CTranslate2's beam search, which knows no catalog: what a forward in C++ can cost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from transformers import AutoTokenizer


def _name_an_end(path: Path) -> None:
    """Name a token that ends texts: without one the model can't be loaded. Identifiers have a fixed length, so it is never written."""
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"eos_token": config["eos_token"] or config["unk_token"]}))


def load(spec: dict[str, Any]) -> Callable[..., list[list[int]]]:
    """Convert the target once, and load it in the precision asked for."""
    depth = np.load(spec["identifiers"]).shape[1]
    converted = Path(spec["work"]) / "ctranslate2"
    if not (converted / "model.bin").is_file():
        ctranslate2.converters.TransformersConverter(spec["target"]).convert(str(converted), force=True)
        _name_an_end(converted / "config.json")
    generator = ctranslate2.Generator(
        str(converted), device="cpu", compute_type=spec["dtype"], inter_threads=1, intra_threads=spec["threads"]
    )
    tokenizer = AutoTokenizer.from_pretrained(spec["target"])

    def search(prompt: list[int], k: int) -> list[list[int]]:
        (result,) = generator.generate_batch(
            [tokenizer.convert_ids_to_tokens(prompt)],
            beam_size=k,
            num_hypotheses=k,
            min_length=depth,
            max_length=depth,
            include_prompt_in_result=False,
        )
        return [list(map(int, found)) for found in result.sequences_ids]

    return search
