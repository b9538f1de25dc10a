"""Files in an object store, which is moto's S3 or a directory: broken downloads, stores that are away, how much memory a file takes."""

import asyncio
import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import obstore
import pytest
from obstore.store import ObjectStore as Store
from obstore.store import from_url

from drafting.catalog.artefact import digest_name, load_artefact, save_artefact
from server.catalogs import files as files_module
from server.catalogs import object_files
from server.catalogs.files import VersionFiles, open_objects
from server.catalogs.object_files import ObjectFiles, StoredFile
from server.catalogs.tidying import tidy, uncache
from server.errors import UnknownFile
from server.http.problems import problem_of
from server.try_again import FileGone, FilesUnavailable
from tests.server.catalogs.shop import ONE, TWO
from tests.services import ObjectStore, free_port

TWO_HOURS = 7200
# Of a fleet that is older than all files.
BEGAN = 0.0


@pytest.fixture(scope="module")
def object_store() -> Iterator[ObjectStore]:
    server = ObjectStore()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def environment(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(files_module, "FIRST_PAUSE_SECONDS", 0.001)


@pytest.fixture(params=["s3", "file"])
def url(request: pytest.FixtureRequest, object_store: ObjectStore, tmp_path: Path) -> str:
    (tmp_path / "store").mkdir()
    if request.param == "file":
        return f"file://{tmp_path}/store"
    return f"{object_store.bucket(f'bucket-{os.urandom(4).hex()}')}/some/prefix"


def replica(folder: Path, url: str) -> VersionFiles:
    """The files as a server with an empty cache sees them."""
    cache = folder / f"cache-{os.urandom(4).hex()}"
    cache.mkdir()
    return VersionFiles(cache, open_objects(url))


def publish(files: VersionFiles) -> str:
    unfinished = files.unfinished()
    digest = save_artefact(ONE, unfinished)
    files.publish(unfinished, digest)
    return digest


async def fetch(files: VersionFiles, digest: str) -> Path:
    return await files.local(digest_name(digest), digest, "one")


async def test_what_one_replica_publishes_every_other_has(tmp_path: Path, url: str) -> None:
    first, second = replica(tmp_path, url), replica(tmp_path, url)
    digest = publish(first)
    path = await fetch(second, digest)
    assert path.parent == second.directory
    assert load_artefact(path, check=True).version == ONE.version
    assert path.read_bytes() == (first.directory / path.name).read_bytes()
    assert [each.name for each in second.directory.iterdir()] == [path.name]


async def test_a_file_is_fetched_once(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = replica(tmp_path, url)
    digest = publish(replica(tmp_path, url))
    await fetch(files, digest)
    monkeypatch.setattr(ObjectFiles, "get", None)
    assert (await fetch(files, digest)).exists()


def test_the_same_contents_are_stored_once(tmp_path: Path, url: str) -> None:
    digest = publish(replica(tmp_path, url))
    before = obstore.head(from_url(url), digest_name(digest))
    publish(replica(tmp_path, url))
    assert obstore.head(from_url(url), digest_name(digest)) == before


def test_of_two_that_store_at_the_same_time_none_replaces_the_other(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = publish(replica(tmp_path, url))
    before = obstore.head(from_url(url), digest_name(digest))
    # Each has looked before the other wrote.
    monkeypatch.setattr(ObjectFiles, "_find", lambda *_: None)
    publish(replica(tmp_path, url))
    assert obstore.head(from_url(url), digest_name(digest)) == before


def test_an_old_file_that_is_published_again_is_young(tmp_path: Path) -> None:
    """So that nobody removes it before the version that it was published for is known."""
    url = f"file://{tmp_path}"
    digest = publish(replica(tmp_path, url))
    stored = tmp_path / digest_name(digest)
    make_old(stored)
    publish(replica(tmp_path, url))
    assert time.time() - stored.stat().st_mtime < TWO_HOURS / 2


def make_old(path: Path, seconds: float = TWO_HOURS) -> None:
    old = time.time() - seconds
    os.utime(path, (old, old))


def test_what_no_version_needs_goes_after_an_hour_and_what_the_store_has_lost_comes_back(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    first, second = replica(tmp_path, f"file://{store}"), replica(tmp_path, f"file://{store}")
    kept = digest_name(publish(first))
    half = second.unfinished()
    for folder in (store, first.directory, second.directory):
        for name in ("sha256-old.catalog", "sha256-young.catalog", "somebodys.catalog", "items.parquet"):
            (folder / name).write_bytes(b"")
            make_old(folder / name, 0 if "young" in name else TWO_HOURS)
        half.write_bytes(b"")
        make_old(half, 12 * TWO_HOURS + 1)
    make_old(store / kept)
    make_old(first.directory / kept)
    tidy(second, {kept}, BEGAN)
    tidy(first, {kept}, BEGAN)
    others = {"sha256-young.catalog", "somebodys.catalog", "items.parquet"}
    assert names(store) == names(first.directory) == others | {kept}
    assert names(second.directory) == others
    (store / kept).unlink()
    tidy(second, {kept}, BEGAN)
    assert kept not in names(store)
    tidy(first, {kept}, BEGAN)
    assert kept in names(store)


async def test_what_was_not_used_for_an_hour_leaves_the_cache_and_not_the_store(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    files = replica(tmp_path, f"file://{store}")
    digest = publish(files)
    cached, stored = files.directory / digest_name(digest), store / digest_name(digest)
    make_old(cached)
    uncache(files, ())
    assert cached.exists()
    assert await fetch(files, digest) == cached
    uncache(files, {cached.name})
    assert cached.exists()
    make_old(cached)
    stored.rename(store / "elsewhere")
    uncache(files, {cached.name})
    assert cached.exists()
    (store / "elsewhere").rename(stored)
    uncache(files, {cached.name, "brought.catalog", "sha256-nowhere.catalog"})
    assert not cached.exists()
    assert (await fetch(files, digest)).read_bytes() == stored.read_bytes()


def test_what_came_before_a_fleet_began_is_not_its_to_remove(tmp_path: Path) -> None:
    """A fleet that has lost its control store may be restored from a backup, which names its files."""
    files = replica(tmp_path, f"file://{tmp_path}")
    file = digest_name(publish(files))
    make_old(tmp_path / file, TWO_HOURS)
    tidy(files, (), time.time() - TWO_HOURS + 60)
    assert (tmp_path / file).exists()
    tidy(files, (), time.time() - TWO_HOURS - 60)
    assert not (tmp_path / file).exists()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_that_became_young_since_it_was_listed_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another replica has just published the same contents for a new version."""
    files = replica(tmp_path, f"file://{tmp_path}")
    stored = tmp_path / digest_name(publish(files))
    make_old(stored)
    list_files = ObjectFiles.files

    def list_and_renew(self: ObjectFiles) -> list[StoredFile]:
        found = list_files(self)
        make_old(stored, 0)
        return found

    monkeypatch.setattr(ObjectFiles, "files", list_and_renew)
    tidy(files, (), BEGAN)
    assert stored.exists()


class BrokenStore:
    """Reads of pieces that go wrong in turn, as `faults` says, and right afterwards."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, faults: list[str]) -> None:
        self.faults = faults
        self._random = random.Random(4)
        self._read = obstore.get_range
        monkeypatch.setattr(obstore, "get_range", self)

    def __call__(self, store: Store, path: str, *, start: int, end: int) -> bytes:
        piece = bytearray(self._read(store, path, start=start, end=end))
        match self.faults.pop(0) if self.faults else "":
            case "cut":
                del piece[self._random.randrange(len(piece)) :]
            case "changed":
                piece[self._random.randrange(len(piece))] ^= 1 << self._random.randrange(8)
            case "gone":
                raise obstore.exceptions.GenericError("connection reset")
        return bytes(piece)


@pytest.mark.parametrize("seed", range(8))
async def test_a_broken_download_is_repeated_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, object_store: ObjectStore
) -> None:
    monkeypatch.setattr(object_files, "PIECE", 1000)
    url = object_store.bucket(f"broken-{seed}")
    digest, files = publish(replica(tmp_path, url)), replica(tmp_path, url)
    pick = random.Random(seed)
    BrokenStore(monkeypatch, pick.choices(["cut", "changed", "gone"], k=pick.randrange(1, files_module.FETCHES)))
    assert load_artefact(await fetch(files, digest), check=True).version == ONE.version
    assert len(list(files.directory.iterdir())) == 1


@pytest.mark.parametrize(
    ("fault", "reason"), [("cut", "what comes is damaged"), ("changed", "what comes is damaged"), ("gone", "can't be reached now")]
)
async def test_what_comes_broken_every_time_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, fault: str, reason: str
) -> None:
    digest, files = publish(replica(tmp_path, url)), replica(tmp_path, url)
    broken = BrokenStore(monkeypatch, [fault] * files_module.FETCHES)
    with pytest.raises(FilesUnavailable, match=f"of version 'one' can't be fetched: .*{reason}"):
        await fetch(files, digest)
    assert list(files.directory.iterdir()) == []
    assert broken.faults == []
    assert (await fetch(files, digest)).exists()


async def test_a_fetch_ends_with_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """The process waits for its threads, and would be killed where a file of gigabytes takes longer than it has to end."""
    digest, files = publish(replica(tmp_path, url)), replica(tmp_path, url)
    monkeypatch.setattr(object_files, "PIECE", 100)
    read, read_from = obstore.get_range, list[int]()

    def read_and_end(store: Store, path: str, *, start: int, end: int) -> bytes:
        read_from.append(start)
        files.close()
        return bytes(read(store, path, start=start, end=end))

    monkeypatch.setattr(obstore, "get_range", read_and_end)
    with pytest.raises(FilesUnavailable, match="the server is shutting down"):
        await fetch(files, digest)
    assert read_from == [0]
    assert list(files.directory.iterdir()) == []


async def test_a_file_with_other_contents_than_its_name_says_is_refused(tmp_path: Path, url: str) -> None:
    files = replica(tmp_path, url)
    other = tmp_path / "other.catalog"
    digest = "0" * 64
    save_artefact(TWO, other)
    obstore.put(from_url(url), digest_name(digest), other)
    with pytest.raises(FileGone, match="damaged"):
        await fetch(files, digest)


async def test_a_file_that_is_not_there_is_missed_by_the_name_of_its_version(tmp_path: Path, url: str) -> None:
    with pytest.raises(FileGone, match="of version 'one' can't be fetched: the object store does not have it"):
        await fetch(replica(tmp_path, url), "0" * 64)


async def test_a_full_cache_is_told_from_a_store_that_is_away(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    digest, files = publish(replica(tmp_path, url)), replica(tmp_path, url)
    files.directory.rmdir()
    with pytest.raises(FilesUnavailable, match="this server's cache can't be written: No such file"):
        await fetch(files, digest)


async def test_a_store_that_is_away_refuses_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    files = replica(tmp_path, "s3://bucket")
    unfinished = files.unfinished()
    digest = save_artefact(ONE, unfinished)
    with pytest.raises(FilesUnavailable) as error:
        files.publish(unfinished, digest)
    problem = problem_of(error.value)
    assert (problem.status, problem.retry_after_seconds) == (503, 5)
    assert problem.detail == "The catalog can't be stored: the object store can't be reached now."
    assert list(files.directory.iterdir()) == [unfinished]


def test_a_bucket_that_is_not_there_and_http_that_is_not_allowed_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(FilesUnavailable, match="no such bucket"):
        publish(replica(tmp_path, "s3://nowhere"))
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with caplog.at_level(logging.WARNING), pytest.raises(FilesUnavailable, match="can't be reached"):
        publish(replica(tmp_path, "s3://nowhere"))
    assert "AWS_ALLOW_HTTP=true" in caplog.text


class Refusing(BaseHTTPRequestHandler):
    """Denies everything, as S3 does to a key that has no rights; its answer is for nobody but the log."""

    def do_HEAD(self) -> None:
        self.send_error(403)

    def log_message(self, *_: object) -> None:
        pass


def test_credentials_that_are_refused_are_told_from_a_store_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(FilesUnavailable) as error:
            publish(replica(tmp_path, "s3://bucket"))
        server.shutdown()
    assert str(error.value) == "The catalog can't be stored: the object store refuses the server's credentials."


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("ftp://host/catalogs", "The URL of an object store begins with s3://, gs://, az://, file://; got ftp://host/catalogs."),
        (
            "s3:///catalogs",
            "The object store s3:///catalogs can't be used: Generic URL error: Unable to recognise URL \"s3:///cat",
        ),
        ("file:///nowhere/at/all", "The object store file:///nowhere/at/all can't be used: "),
        ("s3://key:secret@bucket", "has neither user nor options"),
        ("s3://bucket?region=eu", "has neither user nor options"),
        ("az://container/prefix", "The object store az://container/prefix can't be used: .* Account must be specified."),
    ],
)
def test_a_url_that_makes_no_sense_is_refused_at_start(url: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        open_objects(url)


async def test_a_bucket_takes_the_files_that_versions_are_made_of(tmp_path: Path, url: str) -> None:
    """`PUT /v1/catalogs/{version}` with the name of a file."""
    obstore.put(from_url(url), "nightly/items.jsonl", b"contents")
    files = replica(tmp_path, url)
    async with files.source("nightly/items.jsonl") as path:
        assert (path.suffix, path.read_bytes()) == (".jsonl", b"contents")
    assert list(files.directory.iterdir()) == []
    for name in ("nightly", "nightly/other.jsonl", "../store/x", "a\0b", "", "/"):
        with pytest.raises(UnknownFile):
            await files.source(name).__aenter__()


async def test_a_version_that_others_serve_does_not_wait_for_a_file_that_another_is_made_of(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That may be large, and take long."""
    digest, files = publish(replica(tmp_path, url)), replica(tmp_path, url)
    obstore.put(from_url(url), "nightly/items.jsonl", b"contents")
    get, begun, goes_on = ObjectFiles.get, threading.Event(), threading.Event()

    def slow_get(self: ObjectFiles, name: str, path: Path) -> None:
        if name == "nightly/items.jsonl":
            begun.set()
            goes_on.wait(60)
        get(self, name, path)

    async def read() -> bytes:
        async with files.source("nightly/items.jsonl") as path:
            return path.read_bytes()

    monkeypatch.setattr(ObjectFiles, "get", slow_get)
    reading = asyncio.create_task(read())
    try:
        async with asyncio.timeout(20):
            await asyncio.to_thread(begun.wait, 20)
            assert (await fetch(files, digest)).exists()
        assert not reading.done()
    finally:
        goes_on.set()
    assert await reading == b"contents"


MEMORY = """
import sys
from pathlib import Path
from server.catalogs.object_files import ObjectFiles
def most_kib():
    # Not ru_maxrss, which a new process has from the one that started it.
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
    return int(line.split()[1])
files = ObjectFiles(sys.argv[1])
before = most_kib()
files.put(Path(sys.argv[2]), "large.catalog")
files.get("large.catalog", Path(sys.argv[3]))
print((most_kib() - before) >> 10)
"""


def test_a_large_file_does_not_pass_through_memory_whole(tmp_path: Path) -> None:
    large, copy = tmp_path / "large", tmp_path / "copy"
    with large.open("wb") as file:
        file.truncate(200 << 20)
    (tmp_path / "store").mkdir()
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, f"file://{tmp_path}/store", large, copy], capture_output=True, text=True, check=True, timeout=120
    )
    assert copy.stat().st_size == 200 << 20
    assert int(run.stdout) < 120
