"""Whether a neighbour model was made from the same parts of the same data as what is trained or evaluated beside it.

Reason: `fit` only names the part, such as `train`. With another split, another kind of labels or other data, the part `train` of one model
holds what is held out from the other.
"""

import hashlib
from pathlib import Path

from drafting.alignment.data.hashes import file_hash
from drafting.alignment.data.loading import data_files
from drafting.alignment.data.splits import SplitRule
from drafting.neighbours.model import NeighbourError, NeighbourModel
from drafting.neighbours.source import Source

_GIVEN = "given"


def source_of(data: Path, rule: SplitRule) -> Source:
    """The source of a model that is made from a data directory.

    Raises:
        InteractionError: the directory holds no interactions.
    """
    files = data_files(data)
    digest = hashlib.sha256("\n".join(map(file_hash, files)).encode()).hexdigest()[:16]
    if len(files) > 1:
        return Source(digest, _GIVEN, 1, None)
    return Source(digest, rule.kind, rule.min_items, rule.label_kind)


def check_source(model: NeighbourModel, data: Path, rule: SplitRule) -> None:
    """Check that a model was made from this data, split by this rule.

    Raises:
        NeighbourError: it was not, or does not say.
        InteractionError: the directory holds no interactions.
    """
    here, made = source_of(data, rule), model.source
    if made is None:
        raise NeighbourError(f"The neighbour model does not say what it was made from: {_again(here, model.fit)}.")
    if made.data != here.data:
        raise NeighbourError(
            f"The neighbour model was made from other interactions (hash {made.data}) than {data} holds (hash {here.data}), so it may know "
            f"what is held out here: {_again(here, model.fit)}."
        )
    if made != here:
        raise NeighbourError(
            f"The neighbour model was made with '{_flags(made)}', but here it is '{_flags(here)}', so it may know what is held out here: "
            f"{_again(here, model.fit)}."
        )


def _again(source: Source, fit: str) -> str:
    flags = "" if source.split == _GIVEN else f"{_flags(source)} "
    return f"build it anew with 'atspeed neighbours build {flags}--fit {fit}'"


def _flags(source: Source) -> str:
    """As options of `atspeed neighbours build`."""
    kind = "" if source.label_kind is None else f" --label-kind {source.label_kind}"
    return f"--split {source.split} --min-items {source.min_items}{kind}"
