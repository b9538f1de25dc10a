"""What is asked of a preparation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from drafting.alignment.data.record import LEAVE_ONE_OUT
from drafting.alignment.data.splits import SPLITS
from drafting.errors import InteractionError
from drafting.preparation.tables import PLAIN, TextOptions
from drafting.preparation.times import AUTO, check_form

ALL, FIRST, LAST = "all", "first", "last"
REPEATS = (ALL, FIRST, LAST)


@dataclass(frozen=True)
class PrepareSettings:
    """What is asked of a preparation.

    Attributes:
        source: the interactions: a file, or a directory.
        items, users: what is known of them, of the same forms.
        columns: by role, the column of the interactions that the caller names.
        item_key, user_key: the columns of the names in `items` and `users`; None to find them.
        title: the column of titles in `items`; None to find it.
        item_columns, user_columns: what is kept of them; empty for all.
        keep: further columns of interactions, kept as attributes.
        repeats: which interactions of a user with the same item stay: all, the first or the last.
        bad_lines: share of lines that may be bad.
    """

    source: Path
    out: Path
    items: Path | None = None
    users: Path | None = None
    columns: Mapping[str, str | None] = field(default_factory=dict)
    text: TextOptions = PLAIN
    item_key: str | None = None
    user_key: str | None = None
    title: str | None = None
    item_columns: tuple[str, ...] = ()
    user_columns: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    time_unit: str = AUTO
    time_format: str | None = None
    min_rating: float | None = None
    core: int = 1
    repeats: str = ALL
    split: str = LEAVE_ONE_OUT
    bad_lines: float = 0.01
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.core < 1:
            raise InteractionError(f"--core must be at least 1, got {self.core}.")
        if self.repeats not in REPEATS:
            raise InteractionError(f"--repeats takes {', '.join(REPEATS)}, got {self.repeats!r}.")
        if self.split not in SPLITS:
            raise InteractionError(f"There is no split {self.split!r}: choose {' or '.join(SPLITS)}.")
        if self.time_format is not None:
            check_form(self.time_format)
        if not 0 <= self.bad_lines <= 1:
            raise InteractionError(f"--bad-lines is a share from 0 to 1, got {self.bad_lines:g}.")
