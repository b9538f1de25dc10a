"""Plans: what shape of tree to draft before a forward of the target.

Invariant: a plan changes what a round costs and how many forwards it may save, never the list. Any plan is therefore a valid answer, none
at all included.
"""

import re
from dataclasses import dataclass

from drafting.errors import SetupError

PLAN_FORM = re.compile(r"none|trie|beam:(?P<width>\d+)(?P<children>\+children)?")


class PlanError(SetupError):
    """A plan that does not exist; the message is a sentence."""


@dataclass(frozen=True)
class RoundPlan:
    """The tree of one round, below the beam that the target has decided.

    Attributes:
        widths: nodes of the draft's beam at each further depth, nearest first.
        children: whether one more level follows that holds all children of the last (of the beam itself if `widths` is empty).
    """

    widths: tuple[int, ...] = ()
    children: bool = False

    @property
    def levels(self) -> int:
        """Further depths that the tree reaches."""
        return len(self.widths) + self.children


NO_DRAFT = RoundPlan()


@dataclass(frozen=True)
class FixedPlan:
    """One shape for every round, for experiments: `none`, `trie`, `beam:N` or `beam:N+children`.

    `trie` drafts all children of the beam; `beam:N` drafts the draft model's beam of width N as deep as nodes are ever scored; with
    `+children` the deepest of these levels holds all children of the one before instead.
    """

    name: str
    width: int = 0
    children: bool = False

    @classmethod
    def parse(cls, text: str) -> "FixedPlan":
        """Reads a plan's name.

        Raises:
            PlanError: there is no such plan.
        """
        match = PLAN_FORM.fullmatch(text)
        if match is None:
            raise PlanError(f"There is no plan {text!r}: choose none, trie, beam:N or beam:N+children, with a number for N.")
        width = int(match["width"] or 0)
        if match["width"] is not None and width < 1:
            raise PlanError("A draft's beam holds at least one node: beam:0 is no plan; none is.")
        return cls(text, width, children=text == "trie" or match["children"] is not None)

    @property
    def needs_draft(self) -> bool:
        """Whether the plan needs a draft model."""
        return self.width > 0

    def for_round(self, depth: int, last_depth: int) -> RoundPlan:
        """The tree to draft below a beam at `depth`, where `last_depth` is the deepest whose nodes are scored."""
        room = last_depth - depth
        if room < 1:
            return NO_DRAFT
        if not self.width:
            return RoundPlan((), self.children)
        return RoundPlan((self.width,) * (room - self.children), self.children)
