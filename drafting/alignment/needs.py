"""Objectives of drafts, and what each needs of the teacher data.

Invariant: this table is the one list of objectives; settings, losses, training and benchmarks read it. Light to import, like the settings.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Needs:
    """The parts of the teacher data that an objective needs.

    Attributes:
        answers: the teacher's distributions at the users' items.
        trees: the teacher's lists, and its distributions at their prefixes.
    """

    answers: bool = False
    trees: bool = False


NEEDS = {
    "sft": Needs(),
    "wordkd": Needs(answers=True),
    "tvdkd": Needs(answers=True),
    "seqkd": Needs(trees=True),
    "atspeed-s": Needs(trees=True),
    "atspeed-r": Needs(answers=True, trees=True),
    "atspeed-c": Needs(trees=True),
}
OBJECTIVES = tuple(NEEDS)
WITHOUT_LISTS = tuple(name for name, needs in NEEDS.items() if not needs.trees)
