"""The head of a trained T5 that is not its embeddings, under the name that transformers 4 knows.

transformers 5 calls every T5 tied, writes `scale_decoder_outputs` beside that, and takes the weights of a file for what they are.
transformers 4, and readers that were made for its files, read the two as one: where `tie_word_embeddings` is true the embeddings stand in
for the head, and what it reads is scaled. Invariant: transformers 5 reads what it has written, since to it false only means "do not scale".
"""

from pathlib import Path

from safetensors import safe_open

from drafting.alignment.model_config import read_config, write_config

HEAD = "lm_head.weight"


def name_own_head(folder: Path) -> None:
    """Write into the `config.json` of a model directory that its head is its own.

    Another family, a head that is the embeddings, and one whose input is scaled, which transformers 4 can't have, stay as they are.
    """
    config = read_config(folder)
    scaled = {"t5": config.get("scale_decoder_outputs", True), "mt5": False}.get(config["model_type"], True)
    if scaled or not any(HEAD in _names(file) for file in folder.glob("model*.safetensors")):
        return
    write_config(folder, config | {"tie_word_embeddings": False})


def _names(file: Path) -> set[str]:
    """The names of the weights in a file."""
    with safe_open(file, "numpy") as weights:
        return set(weights.keys())
