"""What rows of known tables of items and users say, under the names that catalogs and filters use: `title`, `year`, `genres`, …

Invariant: a shape is chosen by the names of a table's columns, so a table that is named with `--items` is read like one that was found.
"""

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from drafting.preparation.columns import TITLE, guessed, plain
from drafting.preparation.facts import Facts, Shape, as_they_stand
from drafting.preparation.numbers import number_of

_GENRES = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical Mystery Romance Sci-Fi "
    "Thriller War Western"
)
# The flags of MovieLens 100k, in its order.
GENRES_OF_100K = tuple(_GENRES.split())
_YEAR = re.compile(r"\((\d{4})\)\s*$")
_AMAZON = ("title", "brand", "store", "main_category", "categories", "category", "price")
# As of the day on which the table was made, so they count reviews that are held out.
_AMAZON_COUNTS = ("average_rating", "rating_number")
_AMAZON_FACTS = ("brand", "main_category", "categories", "price", *_AMAZON_COUNTS)
_MOVIELENS_FACTS = ("year", "genres")
_RENAMED = {"class": "genres", "genre": "genres", "release_year": "year"}


@dataclass(frozen=True)
class TableShape:
    """How rows of a table are read.

    Attributes:
        make: makes what is known of a row; None for all its columns as they are.
        columns: those that it takes; none for all.
        facts: names of what it makes of them beside the title, where it takes certain ones.
        title: the column of titles of a table whose rows are taken as they stand; None for other tables.
        has_types: whether it tells numbers and lists from texts by itself.
        counts: facts that are kept only where they are chosen, because they are made of interactions, held out ones among them.
    """

    make: Shape | None = None
    columns: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    title: str | None = None
    has_types: bool = True
    counts: tuple[str, ...] = ()

    def kept(self, chosen: Sequence[str], names: Sequence[str]) -> "TableShape":
        """The shape that keeps the title and the chosen facts; all but the counts where none is chosen.

        Args:
            names: of the columns but the key. Those that are chosen are kept as they stand where `facts` has no such name.
        """
        if not chosen:
            return replace(self, columns=tuple(name for name in self.columns if name not in self.counts))
        named = {TITLE, *chosen}
        there = [name for name in chosen if self.facts and name in names]
        more = [name for name in there if name not in (TITLE, *self.facts)]

        def make(row: Mapping[str, Any]) -> Facts:
            facts = self.make(row) if self.make else as_they_stand(row)
            return {name: row[name] for name in more} | {name: value for name, value in facts.items() if name in named}

        columns = (*self.columns, *there) if self.has_types else (*chosen, *([self.title] if self.title else []))
        return replace(self, make=make, columns=tuple(dict.fromkeys(columns)))


def found_shape(names: Sequence[str], key: str, title: str | None, *, has_more: bool) -> TableShape:
    """How rows of a table are read, by the names of its columns.

    Args:
        key: the column of the names of items or users.
        title: the column of titles that the caller names.
        has_more: whether rows may have columns that are not among `names`; what they lack is None then.
    """
    if title is None and key in ("asin", "parent_asin"):
        columns = tuple(name for name in (*_AMAZON, *_AMAZON_COUNTS) if has_more or name in names)
        return TableShape(_amazon, columns, _AMAZON_FACTS, counts=_AMAZON_COUNTS)
    if title is None and set(GENRES_OF_100K) < set(names):
        return TableShape(_movielens_100k, ("title", "release_date", *GENRES_OF_100K), _MOVIELENS_FACTS)
    if title is None and {"title", "genres"} < set(names) and plain(key) == "movieid" and len(names) == 3:
        return TableShape(_movielens, ("title", "genres"), _MOVIELENS_FACTS)
    if any(re.search(r":(token|float)(_seq)?$", name) for name in names):
        return TableShape(partial(_recbole, title))
    title = title or guessed([name for name in names if name != key], TITLE)
    return TableShape(None if title in (None, TITLE) else partial(_renamed, title), title=title, has_types=False)


def _renamed(title: str, row: Mapping[str, Any]) -> Facts:
    """A row as it stands, with the title under its name."""
    return {TITLE: row[title]} | {name: value for name, value in as_they_stand(row).items() if name not in (title, TITLE)}


def _movielens(row: Mapping[str, Any]) -> Facts:
    # Tables of other makes under the same names, such as parquet, hold lists.
    found = row["genres"] if isinstance(row["genres"], list) else str(row["genres"] or "").split("|")
    return {**_with_year(row["title"]), "genres": [genre for genre in found if genre and genre != "(no genres listed)"]}


def _movielens_100k(row: Mapping[str, Any]) -> Facts:
    facts = _with_year(row["title"])
    date = (row["release_date"] or "").rpartition("-")[2]
    if "year" not in facts and date.isdigit():
        facts["year"] = int(date)
    return {**facts, "genres": [genre for genre in GENRES_OF_100K[1:] if row[genre] == "1"]}


def _with_year(title: Any) -> Facts:
    """A title, and the year at its end."""
    found = _YEAR.search(title if isinstance(title, str) else "")
    return {TITLE: title, **({"year": int(found[1])} if found else {})}


def _amazon(row: Mapping[str, Any]) -> Facts:
    facts: Facts = {TITLE: _clean(row.get("title")), "brand": _clean(row.get("brand") or row.get("store"))}
    if row.get("main_category"):
        facts["main_category"] = _clean(row["main_category"])
    categories = row.get("categories") or row.get("category")
    if isinstance(categories, list | tuple) and categories:
        # In the data of 2014 an item is in several trees of categories.
        path = categories[0] if isinstance(categories[0], list | tuple) else categories
        facts["categories"] = list(dict.fromkeys(text for each in path if (text := _clean(each))))
    price = re.fullmatch(r"\$?\s*([\d,]+(\.\d+)?)", str(row.get("price") or ""))
    if price:
        facts["price"] = float(price[1].replace(",", ""))
    facts |= {name: row[name] for name in _AMAZON_COUNTS if row.get(name) is not None}
    return facts


def _clean(text: Any) -> str | None:
    """A text without HTML's escapes; None for what is none, or a piece of a page."""
    if not isinstance(text, str) or "getTime()" in text or "<span" in text:
        return None
    return " ".join(html.unescape(text).split()) or None


def _recbole(title: str | None, row: Mapping[str, Any]) -> Facts:
    """Values by the types in the names of their columns; the first column is the key."""
    names = list(row)[1:]
    title = title or guessed(names, TITLE)
    facts: Facts = {}
    for name in names:
        text, kind = (row[name] or "").strip(), name.partition(":")[2]
        short = name.partition(":")[0]
        if name == title:
            facts[TITLE] = text
        elif text:
            facts[_RENAMED.get(short, short)] = _typed(text, kind, number=short in ("year", "release_year"))
    year = facts.get("year")
    if "movie_title" in {name.partition(":")[0] for name in names} and facts.get(TITLE) and isinstance(year, int):
        facts[TITLE] = f"{facts[TITLE]} ({year})"
    return facts


def _typed(text: str, kind: str, *, number: bool) -> Any:
    parse: Callable[[str], Any] = _number if kind.startswith("float") or (number and text.isdigit()) else str
    if kind.endswith("_seq"):
        return [parse(part) for part in re.split(r"[ ,]+" if kind.startswith("float") else r" +", text)]
    return parse(text)


def _number(text: str) -> int | float | str:
    try:
        return number_of(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text
