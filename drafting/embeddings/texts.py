"""Embeddings of items from what is written about them: the title and the attributes.

Invariant: an item's embedding depends on its own text and on all texts together, never on users. Items without words get zeros.

Without a model, texts are bags of words weighted by TF-IDF and reduced by a singular value decomposition (latent semantic analysis). With
the directory of an encoder, such as one of sentence-transformers, an embedding is the mean of the last hidden states of the text's tokens.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from drafting.array_types import FloatArray
from drafting.catalog.item_list import ItemList
from drafting.embeddings.factors import left_factors, unit_rows
from drafting.errors import SetupError, first_line

_TEXTS_AT_ONCE = 32
_MOST_TOKENS = 256
# Longer entries of lists are texts: as one word, no two items would share any.
_MOST_WORDS = 8
# What attributes hold is one word, see `item_texts`; other words are runs of letters and digits.
_WORD = r"(?<!\S)\S+=\S+|[^\W_]+"


class EmbeddingError(SetupError):
    """Items cannot be embedded; the message is a sentence."""


def item_texts(items: ItemList, *, named: bool = True) -> list[str]:
    """What is known of each item, as one text: titles and other texts as they are.

    Args:
        named: write numbers and entries of lists, up to a few words, as `name=value`, so that a bag of words tells a price of 5 from a
            size of 5; an encoder reads plain text better.
    """
    rows: list[list[str]] = [[] for _ in items.names]
    for name, column in sorted(items.attributes.items(), key=lambda each: (each[0] != "title", each[0])):
        for words, value in zip(rows, column, strict=True):
            if isinstance(value, str):
                words.append(value)
            elif value is not None:
                entries = value if isinstance(value, list) else [value]
                words += [_named(name, str(entry)) if named else str(entry) for entry in entries]
    return [" ".join(words) for words in rows]


def _named(name: str, entry: str) -> str:
    """An entry as one word that says of what it is."""
    words = entry.split()
    return entry if len(words) > _MOST_WORDS else f"{'_'.join(name.split())}={'_'.join(words)}"


def from_texts(texts: Sequence[str], dims: int, seed: int = 0) -> FloatArray:
    """Embeddings of unit length by TF-IDF and SVD, `[items, dims]`, fewer dims where there are few words.

    Raises:
        EmbeddingError: no text has a word.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        weights = TfidfVectorizer(token_pattern=_WORD, sublinear_tf=True).fit_transform(texts)
    except ValueError as error:
        raise EmbeddingError("No item has a title or an attribute to embed: give the items' texts, or embed interactions alone.") from error
    return unit_rows(left_factors(csr_array(weights), dims, seed))


def from_encoder(directory: Path, texts: Sequence[str], on_batch: Callable[[int], object] = lambda done: None) -> FloatArray:
    """Embeddings of unit length by the encoder in a model directory, mean-pooled: `[items, hidden]` float32.

    Args:
        on_batch: called with the number of texts that a batch has embedded.

    Raises:
        EmbeddingError: the directory holds no whole model, or no tokenizer, that transformers loads.
    """
    import torch
    from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING, AutoModel, AutoModelForTextEncoding

    from drafting.pretrained import LOADING_ERRORS, load_whole, read_config, read_tokenizer

    try:
        tokenizer: Any = read_tokenizer(directory)
        config = read_config(directory)
        # For a T5, such as Sentence-T5, this class is the encoder alone; AutoModel would make a decoder, too.
        auto: Any = AutoModelForTextEncoding if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING else AutoModel
        model = load_whole(auto, directory, config, local_files_only=True).eval()
    except LOADING_ERRORS as error:
        raise EmbeddingError(f"{directory} holds no encoder of texts with its tokenizer: {first_line(error)}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    # Texts of one length share a batch; the result is in the order of the items.
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    pooled = np.zeros((len(texts), model.config.hidden_size), np.float32)
    for start in range(0, len(order), _TEXTS_AT_ONCE):
        rows = order[start : start + _TEXTS_AT_ONCE]
        batch = tokenizer([texts[row] for row in rows], padding=True, truncation=True, max_length=_MOST_TOKENS, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        pooled[rows] = ((hidden * mask).sum(1) / mask.sum(1).clamp(min=1)).float().numpy()
        on_batch(len(rows))
    pooled[[row for row, text in enumerate(texts) if not text.strip()]] = 0
    return unit_rows(pooled)
