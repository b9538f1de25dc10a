"""Embeddings of a data directory's items: from its interactions, from the items' texts, or from both.

Invariant: nothing of the parts that `Sources.fit` leaves out is read into an embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from drafting.alignment.data.fit import FIT_TRAIN, learnt_part
from drafting.alignment.data.interactions import Split
from drafting.alignment.data.loading import load_split
from drafting.alignment.data.splits import SplitRule
from drafting.array_types import FloatArray
from drafting.catalog.builder import catalog_of
from drafting.catalog.item_list import ItemList
from drafting.embeddings.interactions import from_interactions
from drafting.embeddings.mixing import mixed
from drafting.embeddings.texts import from_encoder, from_texts, item_texts


@dataclass(frozen=True)
class Sources:
    """How items are embedded.

    Attributes:
        dims: dimensions of what interactions say, and of what words say; an encoder has its own.
        text_weight: share of the text, from 0 (interactions alone) to 1 (text alone).
        encoder: directory of a model that reads the texts; None for TF-IDF.
        seed: of the decompositions.
        fit: parts of the split whose interactions count (`drafting.alignment.data.fit`).
    """

    dims: int = 64
    text_weight: float = 0.3
    encoder: Path | None = None
    seed: int = 0
    fit: str = FIT_TRAIN


def split_of(data: Path, items: ItemList, rule: SplitRule | None = None) -> Split:
    """The parts of a data directory, of items that have no identifiers yet: by their place in the list.

    Raises:
        InteractionError: data is missing or malformed, or names an item that is not in the list.
        CatalogError: two items of the list have one id.
    """
    return load_split(data, catalog_of([(name, (f"<item_{row}>",)) for row, name in enumerate(items.names)]), rule)


def embed_items(split: Split, items: ItemList, sources: Sources, on_batch: Callable[[int], object] = lambda done: None) -> FloatArray:
    """Embeddings `[items, dims]` float32; zeros for an item that nothing is known of.

    Args:
        on_batch: called with the number of texts that an encoder has read.

    Raises:
        EmbeddingError: there are no texts, or the encoder cannot be loaded, where they have a share.
    """
    weight, encoder = sources.text_weight, sources.encoder
    if weight == 0:
        return _behaviour(split, items, sources)
    texts = item_texts(items, named=encoder is None)
    text = from_texts(texts, sources.dims, sources.seed) if encoder is None else from_encoder(encoder, texts, on_batch)
    if weight == 1:
        return text
    return mixed(_behaviour(split, items, sources), text, weight)


def _behaviour(split: Split, items: ItemList, sources: Sources) -> FloatArray:
    return from_interactions(learnt_part(split, sources.fit), len(items.names), sources.dims, sources.seed)
