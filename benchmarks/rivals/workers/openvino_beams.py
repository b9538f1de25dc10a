"""OpenVINO GenAI's beam search, which knows no catalog: what a compiled forward can cost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai
from openvino_tokenizers import convert_tokenizer
from transformers import AutoTokenizer


def export(target: str, folder: Path, are_weights_int8: bool) -> None:
    """Write the target in OpenVINO's form, with the tokenizer that a pipeline wants although it is given tokens."""
    from optimum.intel import OVModelForCausalLM

    OVModelForCausalLM.from_pretrained(target, export=True, compile=False, load_in_8bit=are_weights_int8).save_pretrained(folder)
    parts = convert_tokenizer(AutoTokenizer.from_pretrained(target), with_detokenizer=True)
    for part, name in zip(parts, ("openvino_tokenizer", "openvino_detokenizer"), strict=True):
        openvino.save_model(part, folder / f"{name}.xml")


def load(spec: dict[str, Any]) -> Callable[..., list[list[int]]]:
    """Export the target once for each precision of weights, and compile it."""
    depth = np.load(spec["identifiers"]).shape[1]
    are_weights_int8 = spec["dtype"] == "int8"
    folder = Path(spec["work"]) / ("openvino-int8" if are_weights_int8 else "openvino")
    if not (folder / "openvino_detokenizer.xml").is_file():
        export(spec["target"], folder, are_weights_int8)
    precision = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}[spec["dtype"]]
    pipeline = openvino_genai.LLMPipeline(
        str(folder), "CPU", INFERENCE_PRECISION_HINT=precision, INFERENCE_NUM_THREADS=spec["threads"], NUM_STREAMS=1
    )
    vocabulary = json.loads((Path(spec["target"]) / "config.json").read_text())["vocab_size"]

    def search(prompt: list[int], k: int) -> list[list[int]]:
        config = openvino_genai.GenerationConfig(
            num_beams=k, num_return_sequences=k, max_new_tokens=depth, min_new_tokens=depth, ignore_eos=True, eos_token_id=vocabulary
        )
        found = pipeline.generate(openvino.Tensor(np.array([prompt], np.int64)), config)
        return [list(map(int, tokens)) for tokens in found.tokens]

    return search
