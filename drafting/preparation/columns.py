"""Which column is which: users, items, times and what else, by what the caller says or by the names that the field uses.

Invariant: a guess is told in a sentence, and where several columns bear names of one kind, the first of the list below wins.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drafting.errors import InteractionError

USER, ITEM, TIME, VALUE, KIND, TITLE = "user", "item", "time", "rating", "kind", "title"
# Said in place of a column, where none is to be guessed.
NO_COLUMN = "none"
# So many names of columns stand in a sentence at most.
_MOST_TOLD = 100
# Names without signs between words, in small letters; the surer ones come first.
NAMES: Mapping[str, str] = {
    USER: "user userid uid useridx reviewerid customer customerid clientid visitorid memberid accountid profileid buyerid readerid "
    "playerid listenerid personid authorid usersk username sessionid session",
    ITEM: "item itemid iid itemidx parentasin asin productid product movieid movie filmid film sku articleid article bookid book isbn "
    "trackid track songid song artistid artist videoid video newsid gameid game appid businessid venueid poi poiid placeid recipeid "
    "courseid jobid adid postid contentid content goodsid goods",
    TIME: "timestamp time ts datetime eventtime eventtimestamp unixreviewtime unixtime createdat created ratedat ratingtime "
    "ratingtimestamp playedat clicktime viewedat orderdate purchasedate eventdate timestampms timems reviewdate tdat date day reviewtime",
    VALUE: "rating ratings score stars overall reviewrating ratingscore bookrating value weight playcount plays count",
    KIND: "kind event eventtype action actiontype behavior behaviour behaviortype behaviourtype interactiontype activity",
    TITLE: "title name itemname itemtitle movietitle producttitle productname prodname booktitle songtitle trackname filmtitle gamename",
}


@dataclass(frozen=True)
class Roles:
    """The columns of interactions; None where there is none."""

    user: str
    item: str
    time: str | None = None
    value: str | None = None
    kind: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all columns that are read for them."""
        return tuple(name for name in (self.user, self.item, self.time, self.value, self.kind) if name is not None)


def plain(name: str) -> str:
    """A column's name without case, signs and RecBole's type."""
    return re.sub(r"[^a-z0-9]", "", name.partition(":")[0].lower())


def guessed(names: Iterable[str], role: str) -> str | None:
    """The column that bears the surest name of a role."""
    by_plain = {plain(name): name for name in reversed(list(names))}
    return next((by_plain[name] for name in NAMES[role].split() if name in by_plain), None)


def shown_names(names: Sequence[str]) -> str:
    """The names of columns for a sentence; the first of very many, as an object has them that holds a field for each item."""
    more = len(names) - _MOST_TOLD
    return ", ".join(names[:_MOST_TOLD]) + (f" and {more:,} more" if more > 0 else "")


def found_roles(path: Path, names: Sequence[str], said: Mapping[str, str | None]) -> Roles:
    """The roles of the columns of interactions.

    Args:
        said: by role, the column that the caller names, or `NO_COLUMN`.

    Raises:
        InteractionError: a column that is named is not there, or there are none of users or items.
    """
    chosen: dict[str, str | None] = {}
    for role in (USER, ITEM, TIME, VALUE, KIND):
        name = said.get(role)
        if name == NO_COLUMN and name not in names and role not in (USER, ITEM):
            chosen[role] = None
            continue
        if name is not None and name not in names:
            raise InteractionError(f"{path} has no column {name!r}: it has {shown_names(names)}.")
        free = [each for each in names if each not in {*chosen.values(), *said.values()}]
        chosen[role] = name or guessed(free, role)
    user, item = chosen[USER], chosen[ITEM]
    if user is None or item is None:
        missing = USER if user is None else ITEM
        raise InteractionError(
            f"Which column of {path} says the {missing}? Name it with --{missing}: {shown_names(names)}."
            + _hint(names, "if the file has no header, name its columns with --columns user,item,…")
        )
    return Roles(user, item, chosen[TIME], chosen[VALUE], chosen[KIND])


def key_column(path: Path, names: Sequence[str], said: str | None, role: str, other: str) -> str:
    """The column of items (or users) in a table of what is known of them.

    Args:
        said: the column that the caller names.
        other: the column that they stand in among the interactions.

    Raises:
        InteractionError: there is no such column.
    """
    if said is not None and said not in names:
        raise InteractionError(f"{path} has no column {said!r}: it has {shown_names(names)}.")
    same = next((name for name in names if plain(name) == plain(other)), None)
    found = said or same or guessed(names, role) or next((name for name in names if plain(name) == "id"), None)
    if found is None:
        hint = _hint(names, "the file needs a line with the names of its columns before it.")
        raise InteractionError(f"Which column of {path} says the {role}? Name it with --{role}-key: {shown_names(names)}.{hint}")
    return found


def _hint(names: Sequence[str], headless: str) -> str:
    """Advice where the names look like values, or are too many to be columns.

    Args:
        headless: of the names of a first line.
    """
    if len(names) > _MOST_TOLD:
        return " If these are users or items, write a line for each of them, with its id in a column like any other."
    if not any(re.fullmatch(r"-?\d+(\.\d+)?", name) for name in names):
        return ""
    return f" That first line looks like data: {headless}"
