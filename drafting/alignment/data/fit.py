"""What a model may have learnt: the training part of a split, the validation part too, or everything.

Light to import: settings, commands and the API process read these names before, or without, a training library.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drafting.alignment.data.interactions import Interactions, Split

FIT_TRAIN, FIT_VALID, FIT_ALL = "train", "train+valid", "all"
FITS = (FIT_TRAIN, FIT_VALID, FIT_ALL)


def has_learnt(fit: str, part: str) -> bool:
    """Whether a model has learnt what is held out in a part, "valid" or "test"."""
    return fit == FIT_ALL or (fit == FIT_VALID and part == "valid")


def learnt_part(split: "Split", fit: str) -> "Interactions":
    """The interactions that a model learns from, which is what `fit` names of the split."""
    if fit == FIT_TRAIN:
        return split.train
    known = split.train.followed_by(split.valid)
    return known if fit == FIT_VALID else known.followed_by(split.test)
