"""Fixed plans: one shape of tree for every round, by name.

Invariant: a name means the same shape for every request, so that measurements of it can be compared; a request for which the shape could
never save a forward is refused instead of being served slowly.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from drafting.array_types import BoolArray, FloatArray
from drafting.beam.rule import WIDEST_BEAM
from drafting.errors import SetupError
from drafting.plans.given import Given
from drafting.plans.limits import MOST_ITEMS
from drafting.plans.plan import Action, DraftRound, Plan

# Parts of a plan, each behind a plus.
PLAN_FORM = re.compile(
    r"(?P<trie>\+trie|\+beam:(?P<width>\d+)(x(?P<levels>\d+))?(?P<children>\+children)?)?(\+items:(?P<items>\d+))?(?P<last>\+last)?"
)


def drafts_items(plan: str) -> bool:
    """True if the plan of a name drafts items of a neighbour model."""
    return "items:" in plan


def refusal_without_server(plan: str) -> str | None:
    """Reason why lists that no server makes can't be by the plan of a name, as a sentence; None if they can.

    Only servers ask a neighbour model: elsewhere nothing would be drafted, yet beams would be as narrow as the plan asks for.
    """
    return f"The plan {plan} drafts items of a neighbour model, as servers alone do: choose another --plan." if drafts_items(plan) else None


class PlanError(SetupError):
    """A plan that does not exist; the message is a sentence."""


@dataclass(frozen=True)
class FixedPlan(Plan):
    """One shape for every round, for experiments: `none`, or one or more parts joined by a plus, in this order.

    `trie` drafts all children of the beam; `beam:N` drafts the draft model's beam of width N as deep as nodes are ever scored, `beam:NxG`
    at most G levels of it; with `+children` the level below, or the deepest that is ever scored, holds all children of the one before.
    `items:M` drafts the prefixes of a retriever's M best items in a search's first forward, and `last` those that its user's last search
    kept or nearly kept.
    """

    name: str
    proposals: int = 0
    most_levels: int | None = None
    children: bool = False
    items: int = 0
    uses_last: bool = False

    @classmethod
    def parse(cls, text: str) -> "FixedPlan":
        """Read a plan's name.

        Raises:
            PlanError: there is no such plan.
        """
        if text == "none":
            return cls(text)
        match = PLAN_FORM.fullmatch(f"+{text}")
        if match is None:
            raise PlanError(
                f"There is no plan {text!r}: choose auto, none, trie, beam:N, beam:NxG or beam:N+children, with numbers for N and G, "
                "items:M or last, or join one of the first with the last two, as in beam:40+items:20+last."
            )
        width, items = int(match["width"] or 0), int(match["items"] or 0)
        if match["width"] is not None and width < 1:
            raise PlanError("A draft's beam holds at least one node: beam:0 is no plan; none is.")
        if width > WIDEST_BEAM:
            raise PlanError(f"A draft's beam holds at most {WIDEST_BEAM} nodes, got {text}.")
        if match["items"] is not None and not 1 <= items <= MOST_ITEMS:
            raise PlanError(f"A plan drafts 1 to {MOST_ITEMS} items of a retriever, got {text}.")
        levels = int(match["levels"]) if match["levels"] else None
        if levels == 0:
            raise PlanError(f"The plan {text} drafts no level: leave its beam out.")
        children = match["trie"] == "+trie" or match["children"] is not None
        return cls(text, width, levels, children, items, match["last"] is not None)

    def check(self, identifier_length: int) -> None:
        """Refuse a plan that is deeper than the catalog's identifiers.

        Raises:
            PlanError: the plan names more levels than are ever scored.
        """
        if self.most_levels is not None and self.most_levels > identifier_length - 1:
            raise PlanError(
                f"The plan {self.name} drafts {self.most_levels} levels, but of identifiers of {identifier_length} tokens only the first "
                f"{identifier_length - 1} are ever drafted."
            )

    def most_proposals(self, width: int) -> int:
        return self.proposals

    @property
    def drafts(self) -> bool:
        return self.needs_draft or self.children or self.items > 0 or self.uses_last

    @property
    def needs_draft(self) -> bool:
        return self.proposals > 0

    @property
    def widest_beam(self) -> int | None:
        if self.uses_last or not self.proposals + self.items or (self.children and not self.proposals):
            return None
        return self.proposals + self.items

    def refusal(self, width: int) -> str | None:
        # Such a draft could never hold a whole beam, so it would cost its forwards and save none.
        if (widest := self.widest_beam) is None or width <= widest:
            return None
        return (
            f"The plan {self.name} drafts fewer prefixes than the {width} that this request keeps: "
            f"ask for at most {widest} (k and beam_width), or serve with a wider plan."
        )

    def given(self, state: DraftRound, offered: Mapping[Given, float]) -> Given:
        wanted = (Given.LAST if self.uses_last else Given.NONE) | (Given.ITEMS if self.items else Given.NONE)
        return max((source for source in offered if source in wanted), key=lambda source: len(source.names), default=Given.NONE)

    def action(self, state: DraftRound, has_draft: bool) -> Action:
        if state.next_depth > state.last_depth:
            return Action.STOP
        if not self.proposals:
            return Action.CHILDREN if self.children and not state.levels else Action.STOP
        deep_enough = state.levels == self.most_levels
        if self.children and not state.unranked and (deep_enough or state.next_depth == state.last_depth):
            return Action.CHILDREN
        return Action.BEAM if has_draft and not deep_enough and not state.unranked else Action.STOP

    def width(self, state: DraftRound, scores: FloatArray | None, new: BoolArray | None) -> int:
        return self.proposals
