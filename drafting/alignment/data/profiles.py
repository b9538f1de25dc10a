"""What is known of users for good, from `profiles.jsonl` or `profiles.parquet` beside the interactions.

Invariant: a user has at most one profile, and what is missing in it is absent.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from drafting.alignment.data.arrow_values import add_values
from drafting.alignment.data.columns import Column, TableBuilder, row_values
from drafting.alignment.data.lines import open_lines
from drafting.catalog.parquet import checked_batches, name_texts, open_parquet
from drafting.errors import InteractionError
from drafting.prompts.user_state import Value
from drafting.undecodable import UNDECODABLE

PROFILE_FILES = ("profiles.jsonl", "profiles.parquet")
USER = "user"


@dataclass(frozen=True, eq=False)
class Profiles(Mapping[str, Mapping[str, Value]]):
    """The profiles of users, by user; each is made when it is asked for.

    Attributes:
        rows: the row of each user in the columns.
        columns: by the names of what is known.
    """

    rows: Mapping[str, int]
    columns: Mapping[str, Column]

    def __getitem__(self, user: str) -> dict[str, Value]:
        return row_values(self.columns, self.rows[user])

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, user: str) -> dict[str, Value]:
        """What is known of a user; nothing of one without a profile."""
        return self[user] if user in self.rows else {}


def load_profiles(path: Path) -> Profiles:
    """Read profiles: lines, or rows, of `user` and whatever else is known of them.

    Raises:
        InteractionError: the file is malformed, or has a user twice.
    """
    rows: dict[str, int] = {}
    table = TableBuilder()
    read = _read_parquet if path.suffix == ".parquet" else _read_lines
    read(path, rows, table)
    return Profiles(rows, table.columns(len(rows)))


def _read_lines(path: Path, rows: dict[str, int], table: TableBuilder) -> None:
    decoder = msgspec.json.Decoder(dict[str, Value | None])
    for number, line in open_lines(path, "The profiles"):
        try:
            profile = decoder.decode(line)
            user = profile.pop(USER, None)
            if not isinstance(user, str | int):
                raise InteractionError(f"it needs a text or a whole number as its {USER!r}")
            row = _new_row(str(user), rows)
            for name, value in profile.items():
                table[name].add(row, value)
        except (*UNDECODABLE, InteractionError) as error:
            raise InteractionError(f"Line {number} of {path} is not a profile: {str(error).rstrip('.')}.") from error


def _read_parquet(path: Path, rows: dict[str, int], table: TableBuilder) -> None:
    with open_parquet(path, "profiles", InteractionError) as file:
        names = file.schema_arrow.names
        if USER not in names:
            raise InteractionError(f"{path} has no column {USER!r}: it needs one, beside those of what is known.")
        for batch in checked_batches(file):
            if batch.column(USER).null_count:
                raise InteractionError(f"{path} has profiles without a user.")
            first = len(rows)
            for user in name_texts(batch.column(USER), path, USER, InteractionError).to_pylist():
                _new_row(user, rows)
            for name in names:
                if name != USER:
                    add_values(table[name], first, batch.column(name))


def _new_row(user: str, rows: dict[str, int]) -> int:
    if user in rows:
        raise InteractionError(f"the user {user!r} has two profiles")
    rows[user] = len(rows)
    return rows[user]
