"""The record of a data directory, `prepare.json`, which `atspeed prepare` writes.

Light to import: commands read the split that a directory was prepared for before they load a library.
"""

from pathlib import Path

import msgspec

from drafting.errors import InteractionError
from drafting.undecodable import UNDECODABLE

AUTO = "auto"
LEAVE_ONE_OUT, GLOBAL_TIME = "leave-one-out", "global-time"
RECORD_FILE = "prepare.json"
ITEMS_FILE = "items.jsonl"


class Prepared(msgspec.Struct, frozen=True):
    """The parts of the record that other commands read.

    Attributes:
        split: the split that the directory was prepared for.
    """

    split: str | None = None


def prepared(directory: Path) -> Prepared:
    """The record of a data directory; an empty one if the directory was made by hand.

    Raises:
        InteractionError: the record is damaged.
    """
    path = directory / RECORD_FILE
    if not path.is_file():
        return Prepared()
    try:
        return msgspec.json.decode(path.read_bytes(), type=Prepared)
    except (OSError, *UNDECODABLE) as error:
        raise InteractionError(f"{path} cannot be read: {error}. Prepare the data again, or remove the file.") from error


def split_kind(said: str, directory: Path) -> str:
    """The split that is said, or for `auto` the one that a data directory was prepared for, leave-one-out by default.

    Raises:
        InteractionError: the record is damaged.
    """
    return said if said != AUTO else prepared(directory).split or LEAVE_ONE_OUT
