"""Layouts of public data sets that are recognised by themselves: MovieLens, Amazon's reviews, RecBole's atomic files.

Invariant: a layout is told by names of files and by what stands in the first line, and says no more than the caller could with flags.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from drafting.errors import InteractionError
from drafting.preparation.columns import ITEM, TIME, USER, VALUE
from drafting.preparation.json_rows import field_names
from drafting.preparation.shapes import GENRES_OF_100K
from drafting.preparation.sources import Format, format_of, head_of
from drafting.preparation.tables import PLAIN, TextOptions

_RATING_NAMES = ("user_id", "item_id", "rating", "timestamp")
_AMAZON_USER = re.compile(rb"A[0-9A-Z]{11,20}|#oc-[0-9A-Z]+")
_AMAZON_ITEM = re.compile(rb"[0-9A-Z]{10}")


@dataclass(frozen=True)
class Part:
    """A table of a layout, and how its text is written."""

    path: Path
    options: TextOptions = PLAIN


@dataclass(frozen=True)
class Layout:
    """A data set of a known form.

    Attributes:
        name: what it is.
        roles: by role, the column of the interactions.
    """

    name: str
    interactions: Part
    items: Part | None = None
    users: Part | None = None
    roles: dict[str, str] = field(default_factory=dict)


def found_layout(path: Path) -> Layout | None:
    """The layout of a file, or of the files in a directory; None if it is none of the known ones.

    Raises:
        InteractionError: a file can't be read, or a directory holds several data sets.
    """
    for find in (_movielens_100k, _movielens_dat, _movielens_csv, _recbole, _amazon_reviews, _amazon_ratings):
        layout = find(path)
        if layout is not None:
            return layout
    return None


def _movielens_100k(path: Path) -> Layout | None:
    ratings = path / "u.data" if path.is_dir() else path
    if ratings.name != "u.data" or not ratings.is_file():
        return None
    films = ("movie_id", "title", "release_date", "video_release_date", "imdb_url", *GENRES_OF_100K)
    return Layout(
        "MovieLens 100k",
        Part(ratings, TextOptions(_RATING_NAMES, "\t", quotes=False)),
        _beside(ratings, "u.item", TextOptions(films, "|", quotes=False, encoding="latin-1")),
        _beside(ratings, "u.user", TextOptions(("user_id", "age", "gender", "occupation", "zip_code"), "|", quotes=False)),
    )


def _movielens_dat(path: Path) -> Layout | None:
    ratings = path / "ratings.dat" if path.is_dir() else path
    if ratings.name != "ratings.dat" or not ratings.is_file() or b"::" not in _first_line(ratings):
        return None
    return Layout(
        "MovieLens in .dat files (1M, 10M)",
        Part(ratings, TextOptions(_RATING_NAMES, "::", quotes=False)),
        _beside(ratings, "movies.dat", TextOptions(("movie_id", "title", "genres"), "::", quotes=False, encoding="latin-1")),
        _beside(ratings, "users.dat", TextOptions(("user_id", "gender", "age", "occupation", "zip_code"), "::", quotes=False)),
    )


def _movielens_csv(path: Path) -> Layout | None:
    ratings = path / "ratings.csv" if path.is_dir() else path
    if ratings.name != "ratings.csv" or not ratings.is_file() or _first_line(ratings).strip() != b"userId,movieId,rating,timestamp":
        return None
    return Layout("MovieLens in .csv files (20M, 25M, latest)", Part(ratings), _beside(ratings, "movies.csv", PLAIN))


def _recbole(path: Path) -> Layout | None:
    found = sorted(path.glob("*.inter")) if path.is_dir() else [path] if path.suffix == ".inter" else []
    if len(found) > 1:
        raise InteractionError(f"{path} holds {found[0].name} and {found[1].name}: name the one that is meant.")
    if not found or b":token" not in _first_line(found[0]):
        return None
    options, stem = TextOptions(delimiter="\t", quotes=False), found[0].stem
    items, users = _beside(found[0], f"{stem}.item", options), _beside(found[0], f"{stem}.user", options)
    return Layout("RecBole's atomic files", Part(found[0], options), items, users)


def _amazon_reviews(path: Path) -> Layout | None:
    if path.is_dir():
        files = [each for each in sorted(path.iterdir()) if re.search(r"\.jsonl?(\.gz)?$", each.name)]
        reviews = [each for each in files if not each.name.startswith("meta_")]
        if len(files) == len(reviews) or len(reviews) != 1:
            return None
        path = reviews[0]
    if not path.is_file() or format_of(path) is not Format.JSON:
        return None
    names = field_names(path)
    if {"reviewerID", "asin", "unixReviewTime"} <= set(names):
        name, roles = "Amazon's reviews of 2014 or 2018", ("reviewerID", "asin", "overall", "unixReviewTime")
    elif {"user_id", "parent_asin", "timestamp"} <= set(names):
        name, roles = "Amazon's reviews of 2023", ("user_id", "parent_asin", "rating", "timestamp")
    else:
        return None
    said = {role: column for role, column in zip((USER, ITEM, VALUE, TIME), roles, strict=True) if column in names}
    category = re.sub(r"\.jsonl?(\.gz)?$|\.gz$", "", path.name).removeprefix("reviews_")
    stems = [f"meta_{category}", f"meta_{re.sub(r'_[0-9]+$', '', category)}"]
    metas = (path.with_name(f"{stem}{ending}") for stem in stems for ending in (".json.gz", ".jsonl.gz", ".json", ".jsonl"))
    meta = next((each for each in metas if each.is_file()), None)
    return Layout(name, Part(path), None if meta is None else Part(meta), roles=said)


def _amazon_ratings(path: Path) -> Layout | None:
    """Ratings alone, which have no header; the data of 2014 begins with the user, that of 2018 with the item."""
    if not path.is_file() or format_of(path) is not Format.DELIMITED:
        return None
    values = _first_line(path).strip().split(b",")
    if len(values) != 4 or not re.fullmatch(rb"[1-5]\.0", values[2]) or not re.fullmatch(rb"\d{9,10}", values[3]):
        return None
    for names, (user, item) in ((("user", "item"), values[:2]), (("item", "user"), values[1::-1])):
        if _AMAZON_USER.fullmatch(user) and _AMAZON_ITEM.fullmatch(item):
            return Layout("Amazon's ratings without a header", Part(path, TextOptions((*names, "rating", "timestamp"), ",")))
    return None


def _beside(path: Path, name: str, options: TextOptions) -> Part | None:
    """The table of a name in the same folder, if there is one."""
    other = path.with_name(name)
    return Part(other, options) if other.is_file() else None


def _first_line(path: Path) -> bytes:
    return head_of(path).partition(b"\n")[0]
