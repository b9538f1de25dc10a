"""What the baselines of an evaluation learn from, and how their settings are chosen: the one argument of all that make them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from drafting.alignment.data.interactions import Split
from drafting.errors import InteractionError
from verification.evaluation.settings import BASELINES
from verification.evaluation.users import CHOOSING_USERS, HeldOut, held_out


@dataclass(frozen=True, eq=False)
class BaselineTask:
    """The data of all baselines, and the options of their making.

    Attributes:
        users: of a part of `split`; what they know is what baselines learn from.
        items: number of items in the catalog.
        keep_seen: keep what users have met, in the lists that are compared and in those that settings are chosen by.
        networks: seeds of each neural baseline.
        folder: where networks are kept while they learn, so that an interrupted task goes on there; None for nowhere.
        on_step: called with what is being done, as a text.
    """

    split: Split
    users: HeldOut
    items: int
    keep_seen: bool = False
    networks: int = 1
    folder: Path | None = None
    on_step: Callable[[str], None] = lambda _: None

    @cached_property
    def validation(self) -> HeldOut | None:
        """Users of the validation part, `CHOOSING_USERS` at most; None where it has none that a baseline could be chosen by."""
        try:
            return held_out(self.split, "valid", CHOOSING_USERS)
        except InteractionError:
            return None

    def shown(self, settings: object) -> str:
        """Settings of a baseline as a text, which says so where there were no validation users to choose them."""
        return str(settings) if self.validation is not None else f"{settings}, by default"

    def tell(self, name: str, what: str) -> None:
        """Say what is being done for the baseline of this name, a key of `BASELINES`."""
        self.on_step(f"{BASELINES[name]}, {what}")
