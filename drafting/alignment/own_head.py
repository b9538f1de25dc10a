"""The head of a T5 that is not its embeddings: kept where tokens are added, and saved under the name that transformers 4 knows.

Two questions are mixed up here: whether head and embeddings are one, and whether what the head reads is scaled. transformers 5 calls every
T5 tied, writes `scale_decoder_outputs` for the second question, and takes the weights of a file for what they are. transformers 4, and
readers that were made for its files, take `tie_word_embeddings` for the answer to both: where it is true, the embeddings replace the head,
and what is read is scaled. Invariant: transformers 5 reads what it has written, since to it false only means "do not scale".
"""

from pathlib import Path

from safetensors import safe_open
from transformers import PreTrainedModel

from drafting.alignment.model_config import read_config, write_config

HEAD = "lm_head.weight"


def has_own_head(model: PreTrainedModel) -> bool:
    """True if a model has a head that is not its embeddings."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    return head is not None and head.weight is not embeddings.weight


def resize_embeddings(model: PreTrainedModel, tokens: int, *, mean_resizing: bool = True) -> None:
    """Give a model rows for so many tokens, in its embeddings and in its head; one of its own stays that.

    Args:
        mean_resizing: as for transformers' `resize_token_embeddings`.
    """
    tied = model.config.tie_word_embeddings
    # Resizing ties what the configuration calls tied, also where the weights were not.
    model.config.tie_word_embeddings = tied and not has_own_head(model)
    model.resize_token_embeddings(tokens, mean_resizing=mean_resizing)
    model.config.tie_word_embeddings = tied


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
