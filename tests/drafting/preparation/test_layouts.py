"""Public data sets are recognised by themselves: the same films in MovieLens' and RecBole's layouts, the same products in Amazon's."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drafting.errors import InteractionError
from drafting.preparation.layouts import found_layout
from drafting.preparation.shapes import GENRES_OF_100K
from tests.drafting.preparation.preparing import made, written

RATINGS = [(1, 2, 5, 978300760), (1, 1, 3, 978302109), (10, 2, 4, 978301968)]
TRIPLES = [("1", "2", 978300760.0), ("1", "1", 978302109.0), ("10", "2", 978301968.0)]
TOY = {"item_id": "1", "title": "Toy Story (1995)", "year": 1995, "genres": ["Animation", "Children's", "Comedy"]}
MISERABLES = {"item_id": "2", "title": 'Misérables: the "film", Les (1998)', "year": 1998, "genres": ["Drama"]}


def table(sign: str, rows: list[tuple[Any, ...]], header: str = "") -> str:
    return header + "".join(sign.join(map(str, row)) + "\n" for row in rows)


def movielens_100k(folder: Path) -> None:
    written(folder / "u.data", table("\t", RATINGS))
    films = [(int(film["item_id"]), film["title"], f"01-Jan-{film['year']}", "", "x") for film in (TOY, MISERABLES)]
    flags = [tuple(int(genre in film["genres"]) for genre in GENRES_OF_100K) for film in (TOY, MISERABLES)]
    written(folder / "u.item", table("|", [(*film, *flag) for film, flag in zip(films, flags, strict=True)]).encode("latin-1"))
    written(folder / "u.user", "1|24|M|technician|85711\n10|53|F|other|94043\n")
    written(folder / "u.genre", "unknown|0\n")
    written(folder / "README", "about")


def movielens_1m(folder: Path) -> None:
    written(folder / "ratings.dat", table("::", RATINGS))
    films = [(film["item_id"], film["title"], "|".join(film["genres"])) for film in (TOY, MISERABLES)]
    written(folder / "movies.dat", table("::", films).encode("latin-1"))
    written(folder / "users.dat", "1::F::1::10::48067\n10::M::56::16::70072\n")


def movielens_10m(folder: Path) -> None:
    movielens_1m(folder)
    films = [(film["item_id"], film["title"], "|".join(film["genres"])) for film in (TOY, MISERABLES)]
    written(folder / "movies.dat", table("::", films))
    (folder / "users.dat").unlink()


def movielens_25m(folder: Path) -> None:
    written(folder / "ratings.csv", table(",", RATINGS, "userId,movieId,rating,timestamp\n"))
    written(
        folder / "movies.csv",
        "movieId,title,genres\n1,Toy Story (1995),Animation|Children's|Comedy\n"
        '2,"Misérables: the ""film"", Les (1998)",Drama\n3,Nothing,(no genres listed)\n',
    )
    written(folder / "tags.csv", "userId,movieId,tag,timestamp\n")


def recbole(folder: Path) -> None:
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    written(folder / "ml.inter", table("\t", RATINGS, header))
    films = [(film["item_id"], film["title"][:-7], film["year"], " ".join(film["genres"])) for film in (TOY, MISERABLES)]
    written(folder / "ml.item", table("\t", films, "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"))
    written(folder / "ml.user", "user_id:token\tage:token\tlikes:float_seq\tx:float\n1\t24\t1 2.5\t3\n10\t\t\t\n")


@pytest.mark.parametrize(
    ("write", "name", "profile"),
    [
        (movielens_100k, "MovieLens 100k", {"age": 24, "gender": "M", "occupation": "technician", "zip_code": 85711}),
        (movielens_1m, "MovieLens in .dat", {"gender": "F", "age": 1, "occupation": 10, "zip_code": 48067}),
        (movielens_10m, "MovieLens in .dat", None),
        (movielens_25m, "MovieLens in .csv", None),
        (recbole, "RecBole's atomic files", {"age": "24", "likes": [1, 2.5], "x": 3}),
    ],
)
@pytest.mark.parametrize("named", ["directory", "file"])
def test_data_sets_of_films_are_known_by_their_files(
    tmp_path: Path, write: Callable[[Path], None], name: str, profile: dict[str, Any] | None, named: str
) -> None:
    folder = tmp_path / "films"
    write(folder)
    ratings = next(folder / each for each in ("u.data", "ratings.dat", "ratings.csv", "ml.inter") if (folder / each).is_file())
    found = made(tmp_path, folder if named == "directory" else ratings)
    assert f" is {name}" in found.told.splitlines()[0]
    assert found.triples == TRIPLES
    assert [row["value"] for row in found.rows] == [5.0, 3.0, 4.0]
    assert found.items == [TOY, MISERABLES]
    assert found.record["time_unit"] == "seconds"
    if profile is None:
        assert not (found.folder / "profiles.jsonl").exists()
    else:
        assert found.profiles[0] == {"user": "1", **profile}


REVIEWS = [("A2SUAM1J3GNN3B", "0000013714", 5.0, 1252800000), ("A14VAT5EAX3D9S", "B00004Y2UT", 3.0, 1252800100)]
PRODUCTS = [("0000013714", "Rock & Roll", 12.99), ("B00004Y2UT", "Strings", None), ("B000000001", "Unmet", 1.0)]


def amazon_2014(folder: Path) -> Path:
    lines = [
        {"reviewerID": user, "asin": item, "reviewerName": "J", "helpful": [2, 3], "reviewText": "a\nb", "overall": rating, "summary": "s",
         "unixReviewTime": time, "reviewTime": "09 13, 2009"}
        for user, item, rating, time in REVIEWS
    ]  # fmt: skip
    products = [
        {"asin": item, "title": title.replace("&", "&amp;"), "categories": [["Music", "Drums"], ["Toys"]], "brand": "Bo's", "imUrl": "x"}
        | ({} if price is None else {"price": price})
        for item, title, price in PRODUCTS
    ]
    written(folder / "meta_Music.json.gz", gzip.compress("".join(f"{product!r}\n" for product in products).encode()))
    return written(folder / "reviews_Music_5.json.gz", gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))


def amazon_2018(folder: Path) -> Path:
    lines = [
        {"overall": rating, "verified": True, "reviewTime": "09 1, 2016", "reviewerID": user, "asin": item, "style": {"Size:": " L"},
         "unixReviewTime": time}
        for user, item, rating, time in REVIEWS
    ]  # fmt: skip
    products = [
        {
            "category": ["Music", "Drums"],
            "description": [""],
            "title": title,
            "brand": "Bo's",
            "price": f"${price}" if price else "",
            "asin": item,
        }
        for item, title, price in PRODUCTS
    ]
    written(folder / "meta_Music.json", "".join(json.dumps(product) + "\n" for product in products))
    return written(folder / "Music_5.json", "".join(json.dumps(line) + "\n" for line in lines))


def amazon_2023(folder: Path) -> Path:
    lines = [
        {"rating": rating, "title": "Great", "text": "x", "images": [], "asin": "B0VARIANT0", "parent_asin": item, "user_id": user,
         "timestamp": 1000 * time, "helpful_vote": 0, "verified_purchase": True}
        for user, item, rating, time in REVIEWS
    ]  # fmt: skip
    products = [
        {"title": title, "store": "Bo's", "categories": ["Music", "Drums"], "price": price, "features": [], "details": {"x": 1},
         "parent_asin": item, "average_rating": 4.5, "rating_number": 7}
        for item, title, price in PRODUCTS
    ]  # fmt: skip
    written(folder / "meta_Music.jsonl", "".join(json.dumps(product) + "\n" for product in products))
    return written(folder / "Music.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(("write", "name"), [(amazon_2014, "2014 or 2018"), (amazon_2018, "2014 or 2018"), (amazon_2023, "2023")])
@pytest.mark.parametrize("named", ["directory", "file"])
def test_amazons_reviews_are_read_with_their_products(tmp_path: Path, write: Callable[[Path], Path], name: str, named: str) -> None:
    reviews = write(tmp_path / "amazon")
    found = made(tmp_path, reviews if named == "file" else reviews.parent)
    assert f" is Amazon's reviews of {name}, with meta_Music.json" in found.told.splitlines()[0]
    assert sorted(found.triples) == sorted((user, item, float(time)) for user, item, _, time in REVIEWS)
    assert sorted(row["value"] for row in found.rows) == [3.0, 5.0]
    common = {"brand": "Bo's", "categories": ["Music", "Drums"]}
    assert found.items == [
        {"item_id": "0000013714", "title": "Rock & Roll", **common, "price": 12.99},
        {"item_id": "B00004Y2UT", "title": "Strings", **common},
    ]
    assert found.summary.span == ("2009-09-13", "2009-09-13")


def test_what_counts_reviews_that_are_held_out_is_kept_only_where_it_is_chosen(tmp_path: Path) -> None:
    reviews = amazon_2023(tmp_path / "amazon")
    found = made(tmp_path, reviews)
    assert "Of meta_Music.jsonl, average_rating, rating_number are left out: they count what is held out, too" in found.told
    assert not {"average_rating", "rating_number"} & set(found.items[0])
    chosen = made(tmp_path, reviews, item_columns=("rating_number",))
    assert chosen.items[0] == {"item_id": "0000013714", "title": "Rock & Roll", "rating_number": 7}
    made_of = made(tmp_path, reviews, item_columns=("store",))
    assert made_of.items[0] == {"item_id": "0000013714", "title": "Rock & Roll", "store": "Bo's"}
    assert "No item has" not in made_of.told


def test_what_a_known_table_leaves_out_is_told_and_can_be_chosen(tmp_path: Path) -> None:
    """A table of one's own whose ids are Amazon's is read as Amazon's."""
    items = written(tmp_path / "items.csv", "asin,title,color,price\nx,X,red,$5\n")
    data = written(tmp_path / "data.csv", "user,asin\na,x\n")
    found = made(tmp_path, data, items=items)
    assert found.items == [{"item_id": "x", "title": "X", "price": 5.0}]
    assert "Left out of items.csv: color (--item-columns keeps what it names)." in found.told
    chosen = made(tmp_path, data, items=items, item_columns=("color", "isle"))
    assert chosen.items == [{"item_id": "x", "title": "X", "color": "red"}]
    assert "No item has isle, which --item-columns names." in chosen.told
    lines = [
        {"asin": f"x{number}", "title": f"X{number}"} | ({"color": "red", "price": "$5"} if number == 250 else {}) for number in range(300)
    ]
    late = written(tmp_path / "late", "".join(f"{json.dumps(line)}\n" for line in lines))
    data = written(tmp_path / "data.csv", "user,asin\na,x250\n")
    assert made(tmp_path, data, items=late).items == [{"item_id": "x250", "title": "X250", "price": 5.0}]
    kept = made(tmp_path, data, items=late, item_columns=("color", "price"))
    assert kept.items == [{"item_id": "x250", "title": "X250", "color": "red", "price": 5.0}]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["2014", "2018"])
def test_amazons_ratings_without_a_header(tmp_path: Path, order: tuple[int, int]) -> None:
    rows = [(*(review[place] for place in order), *review[2:]) for review in REVIEWS]
    found = made(tmp_path, written(tmp_path / "ratings_Music.csv", table(",", rows)))
    assert sorted(found.triples) == sorted((user, item, float(time)) for user, item, _, time in REVIEWS)


def test_a_table_that_is_named_is_read_like_one_that_was_found(tmp_path: Path) -> None:
    movielens_1m(tmp_path / "films")
    ratings = written(tmp_path / "mine.csv", "user,movieId\n1,1\n")
    movielens_25m(tmp_path / "csv")
    assert made(tmp_path, ratings, items=tmp_path / "csv/movies.csv").items == [TOY]
    films = pa.table({"movieId": ["1"], "title": [TOY["title"]], "genres": [TOY["genres"]]})
    pq.write_table(films, tmp_path / "movies.parquet")
    assert made(tmp_path, ratings, items=tmp_path / "movies.parquet").items == [TOY]
    amazon_2014(tmp_path / "amazon")
    bought = written(tmp_path / "bought.csv", "user,product\na,B00004Y2UT\n")
    assert made(tmp_path, bought, items=tmp_path / "amazon/meta_Music.json.gz").items[0]["brand"] == "Bo's"


def test_what_is_no_layout_is_none_and_several_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "a/ratings.csv", "user,movie\n1,2\n")
    written(tmp_path / "a/ratings.dat", "user,movie\n1,2\n")
    written(tmp_path / "a/x.json", '{"user": 1, "item": 2}\n')
    for path in (tmp_path / "a", *(tmp_path / "a").iterdir()):
        assert found_layout(path) is None
    for name in ("one.inter", "two.inter"):
        written(tmp_path / "b" / name, "user_id:token\titem_id:token\n1\t2\n")
    with pytest.raises(InteractionError, match=r"holds one.inter and two.inter: name the one that is meant"):
        found_layout(tmp_path / "b")
