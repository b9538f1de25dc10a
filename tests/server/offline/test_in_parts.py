"""Folders of lists, by this process and by workers of a real Ray cluster: the lists of one run to one file, each once."""

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drafting.beam.rule import SearchRule, Verification
from drafting.catalog.loading import load_catalog
from server.offline import cluster, in_parts
from server.offline.cluster import Cluster, Needs
from server.offline.folder import FolderError
from server.offline.in_parts import PartMaker, PartTask, make_parts
from server.offline.lists import OfflineError
from server.offline.made import Made
from server.offline.parts import Form, Parts
from server.offline.prints import OtherModel, prints_of
from server.offline.questions import Defaults
from server.offline.run import Output, recommend_users
from server.offline.user_files import UserPlace
from server.offline.users import Block, plan_blocks, read_rows
from server.settings import FlagSettings
from tests.models import random_catalog, save_random_model
from tests.services import ObjectStore

DEFAULTS = Defaults(5, None, [], False, SearchRule(Verification.GUMBEL, seed=3))
USERS = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, users as JSONL and as parquet, and the lists that one run to one file makes."""
    folder = tmp_path_factory.mktemp("parts")
    catalog = random_catalog()
    save_random_model(folder / "model", catalog, hidden=32, layers=1, seed=2)
    catalog.save(folder / "catalog.jsonl")
    users = [{"user_id": f"u{i}", "history": [catalog.item_ids[i], catalog.item_ids[i + 9]]} for i in range(USERS)]
    users[40]["history"] = ["none"]
    (folder / "users.jsonl").write_text("".join(json.dumps(user) + "\n" for user in users))
    pq.write_table(pa.Table.from_pylist(users), folder / "users.parquet", row_group_size=50)
    recommend_users(settings_of(folder), DEFAULTS, str(folder / "users.jsonl"), Output(str(folder / "lists.jsonl")))
    return folder


def settings_of(folder: Path) -> FlagSettings:
    more = {"kv_memory_gib": 0.01, "threads": 1, "verify_model": "never", "plan": "none"}
    return FlagSettings(target=folder / "model", catalog=folder / "catalog.jsonl", engine="transformers", verification="gumbel", **more)


def joined(place: Path) -> list[bytes]:
    return lists_of(b"".join(path.read_bytes() for path in sorted(place.glob("part-*.jsonl"))))


def lists_of(lines: bytes) -> list[bytes]:
    """The lines but for what a list has cost, which others of its batch share."""
    return [re.sub(rb',"usage":\{[^}]*\}', b"", line) for line in lines.splitlines()]


def expected(folder: Path) -> list[bytes]:
    return lists_of((folder / "lists.jsonl").read_bytes())


def test_parts_are_the_lists_of_one_file_and_only_missing_ones_are_made(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    output = Output(f"{tmp_path}/lists/", "jsonl", 25)
    recommend_users(settings_of(folder), DEFAULTS, str(folder / "users.parquet"), output)
    lists = expected(folder)
    assert joined(tmp_path / "lists") == lists
    told = "119 lists, 1 user without one, such as line 41: The catalog has no item 'none', which history names.\n"
    assert capsys.readouterr().err.endswith(told)
    assert json.loads(lists[0])["items"][-1]["rank"] == 5
    assert json.loads(lists[40]) == {
        "line": 41,
        "user_id": "u40",
        "error": "The catalog has no item 'none', which history names.",
    }
    (tmp_path / "lists" / "part-000002.jsonl").unlink()
    (tmp_path / "lists" / "part-000004.jsonl").write_bytes(b"")
    (tmp_path / "lists" / ".unfinished-1234").write_bytes(b"half")
    made: list[int] = []
    make = in_parts.PartMaker.make
    monkeypatch.setattr(in_parts.PartMaker, "make", lambda maker, block: made.append(block.part) or make(maker, block))
    # A seed that was drawn is that of the first run.
    recommend_users(settings_of(folder), DEFAULTS, str(folder / "users.parquet"), output)
    assert made == [2, 4]
    assert joined(tmp_path / "lists") == lists
    assert {path.name for path in (tmp_path / "lists").iterdir()} == {
        "_atspeed.json",
        "_SUCCESS",
        *(f"part-{part:06}.jsonl" for part in range(5)),
    }
    assert "going on after 75 users of an earlier run" in capsys.readouterr().err
    with pytest.raises(OfflineError, match="holds lists of another run"):
        recommend_users(settings_of(folder), replace(DEFAULTS, k=4), str(folder / "users.parquet"), output)
    assert joined(tmp_path / "lists") == lists


def test_parts_that_workers_have_written_elsewhere_are_missed(folder: Path, tmp_path: Path):
    """As where each node has a directory of its own under one path."""

    class Elsewhere:
        def make(self, task: PartTask, blocks: Sequence[Block]) -> Iterator[Made]:
            yield from (Made(block.users) for block in blocks)

    files = UserPlace.of(str(folder / "users.jsonl")).files()
    task = PartTask(settings_of(folder), DEFAULTS, tuple(files), str(tmp_path / "lists"), "jsonl", "any", {})
    with pytest.raises(OfflineError, match=r"^3 of 3 parts were made, and are not in .*lists: choose an --output that all workers see\.$"):
        make_parts(task, list(plan_blocks(files, 50)), "a test", Elsewhere())
    assert not (tmp_path / "lists" / "_SUCCESS").exists()


def test_a_run_in_which_no_user_gets_a_list_fails(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    users = tmp_path / "users.jsonl"
    users.write_text('{"history": ["none"]}\n' * 3)
    sentence = r"has only errors: no lists, 3 users without one, such as line 1: The catalog has no item 'none'"
    with pytest.raises(OfflineError, match=rf"lists\.jsonl {sentence}"):
        recommend_users(settings_of(folder), DEFAULTS, str(users), Output(str(tmp_path / "lists.jsonl")))
    # A scheduler gives the same command again.
    for _ in range(2):
        with pytest.raises(OfflineError, match=rf"lists {sentence}"):
            recommend_users(settings_of(folder), DEFAULTS, str(users), Output(f"{tmp_path}/lists/", part_users=2))
    assert sorted(path.name for path in (tmp_path / "lists").iterdir()) == ["_atspeed.json", "part-000000.jsonl", "part-000001.jsonl"]
    users.write_text('{"history": ["none"]}\n' + json.dumps({"history": list(random_catalog().item_ids[:2])}))
    recommend_users(settings_of(folder), DEFAULTS, str(users), Output(str(tmp_path / "lists.jsonl")))
    assert "1 list, 1 user without one, such as line 1: The catalog has no item 'none', which history names.\n" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize("last", ["error", "list"])
def test_a_run_that_goes_on_counts_what_the_earlier_one_made(tmp_path: Path, capsys: pytest.CaptureFixture[str], form: Form, last: str):
    class Workers:
        """Lines of errors; Ctrl-C after one part."""

        def make(self, task: PartTask, blocks: Sequence[Block]) -> Iterator[Made]:
            block = blocks[0]
            error = None if block.part == 1 and last == "list" else "none."
            line = json.dumps({"line": block.part + 1} | ({"error": error} if error else {"items": []})).encode()
            Parts(task.place, task.form).write(block.part, [line])
            yield Made.of_lines([line])
            if len(blocks) > 1:
                raise KeyboardInterrupt

    blocks = [Block(part, 0, 0, 1, part, part, 1) for part in range(2)]
    settings = FlagSettings(target=tmp_path, catalog=tmp_path / "catalog.jsonl", engine="transformers")
    task = PartTask(settings, DEFAULTS, (), str(tmp_path / "lists"), form, "any", {})

    def make() -> None:
        make_parts(task, blocks, "a test", Workers())

    with pytest.raises(OfflineError, match="Interrupted"):
        make()
    # A scheduler gives the same command once more.
    for _ in range(2):
        if last == "list":
            make()
        else:
            sentence = (
                r"lists has only errors: no lists, 2 users without one, such as line 1: none\. Choose another --output, or empty it\.$"
            )
            with pytest.raises(OfflineError, match=sentence):
                make()
    assert (tmp_path / "lists" / "_SUCCESS").exists() == (last == "list")
    if last == "list":
        assert "1 list, 1 user without one, such as line 1: none.\n" in capsys.readouterr().err


def test_a_folder_of_another_run_is_refused_with_what_can_be_done(tmp_path: Path):
    """A run that has made no list may have ended at a wrong option, or load its model still."""
    parts = Parts(f"{tmp_path}/lists", "jsonl")
    parts.begin("one", 3)
    sentence = r"lists was begun by a run of other .*, which has made no list yet: .*, or remove _atspeed\.json there if that run"
    with pytest.raises(OfflineError, match=sentence):
        parts.begin("another", 3)
    Parts(f"{tmp_path}/lists", "parquet").write(0, [b"{}"])
    with pytest.raises(OfflineError, match=r"lists holds lists of another run, of other .*: choose another --output, or empty it\.$"):
        parts.begin("another", 3)
    assert parts.begin("one", 4) == 3


def test_a_worker_with_another_model_makes_no_parts(folder: Path, tmp_path: Path):
    """Such as one of the same shape that was trained anew on one node of a cluster."""
    shutil.copytree(folder / "model", tmp_path / "model")
    settings = settings_of(folder).model_copy(update={"target": tmp_path / "model"})
    files = UserPlace.of(str(folder / "users.jsonl")).files()
    (block,) = plan_blocks(files, 1000)
    version = load_catalog(folder / "catalog.jsonl").version
    task = PartTask(settings, DEFAULTS, tuple(files), str(tmp_path / "lists"), "jsonl", version, prints_of(settings))
    # A copy has other times, and what is no part of the model does not matter.
    for path in (tmp_path / "model").iterdir():
        os.utime(path, (1, 1))
    (tmp_path / "model" / "README.md").write_text("A model.")
    with closing(PartMaker(task)) as maker:
        next(maker.make(block))
    save_random_model(tmp_path / "model", random_catalog(), hidden=32, layers=1, seed=3)
    with pytest.raises(OtherModel, match=r"model\.safetensors is not the one that the run began with"):
        PartMaker(task)


def test_a_worker_says_that_a_copy_of_the_users_is_not_what_the_run_began_with(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    users = tmp_path / "users.jsonl"
    shutil.copy(folder / "users.jsonl", users)
    files = UserPlace.of(str(users)).files()
    (block,) = plan_blocks(files, 1000)
    # As on another node.
    os.utime(users, (1, 1))

    class Maker:
        def __init__(self, task: PartTask) -> None:
            pass

        def make(self, block: Block) -> Iterator[Made]:
            yield from (Made(1) for _ in read_rows(files, block))

    monkeypatch.setattr(cluster, "PartMaker", Maker)
    monkeypatch.setattr(cluster, "configure_logs", lambda level, process: None)
    task = PartTask(settings_of(folder), DEFAULTS, tuple(files), str(tmp_path / "lists"), "jsonl", "any", {})
    problem = cluster.Worker(task)(asdict(block))["problem"]
    assert re.match(r"A worker on .* can't go on: .*users\.jsonl has changed since the run began: ", problem)
    assert problem.endswith(" All workers must see the very files of --input: copies of them will not do.")


def test_lists_as_tables(folder: Path, tmp_path: Path):
    lists = list(map(json.loads, expected(folder)))
    recommend_users(settings_of(folder), DEFAULTS, str(folder / "users.jsonl"), Output(str(tmp_path / "lists.parquet")))
    recommend_users(settings_of(folder), DEFAULTS, str(folder / "users.parquet"), Output(f"{tmp_path}/lists/", part_users=50))
    for place in (tmp_path / "lists.parquet", tmp_path / "lists"):
        rows = pq.read_table(place).to_pylist()
        assert rows[0]["usage"]["target_forwards"] > 0
        assert [present(row | {"usage": None}) for row in rows] == lists
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lists", "lists.parquet"]


def present(value: object) -> object:
    if isinstance(value, dict):
        return {name: present(each) for name, each in value.items() if each is not None}
    return [present(each) for each in value] if isinstance(value, list) else value


def test_users_and_lists_in_an_object_store(folder: Path, monkeypatch: pytest.MonkeyPatch):
    import obstore
    from obstore.store import from_url

    store = ObjectStore()
    try:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        bucket = store.bucket("shop")
        objects = from_url(bucket)
        obstore.put(objects, "users/a.parquet", folder / "users.parquet")
        obstore.put(objects, "users/deep/b.parquet", b"")
        for place in (f"{bucket}/users", f"{bucket}/users/", f"{bucket}/users/*.parquet", f"{bucket}/*/*.parquet"):
            assert [file.name.rpartition("/")[2] for file in UserPlace.of(place).files()] == ["a.parquet"]
        with pytest.raises(OfflineError, match="would be taken for users"):
            recommend_users(settings_of(folder), DEFAULTS, f"{bucket}/users", Output(f"{bucket}/users/", "parquet"))
        recommend_users(settings_of(folder), DEFAULTS, f"{bucket}/users/*.parquet", Output(f"{bucket}/lists", "jsonl", 70))
        parts = [bytes(obstore.get(objects, f"lists/part-00000{part}.jsonl").bytes()) for part in range(2)]
        assert lists_of(b"".join(parts)) == expected(folder)
        obstore.head(objects, "lists/_SUCCESS")
        with pytest.raises(OfflineError, match="holds lists of another run"):
            recommend_users(settings_of(folder), DEFAULTS, f"{bucket}/users", Output(f"{bucket}/lists", "jsonl", 71))
        (file,) = UserPlace.of(f"{bucket}/users").files()
        assert file.range(0, 4) == b"PAR1"
        obstore.put(objects, "users/a.parquet", bytes(reversed((folder / "users.parquet").read_bytes())))
        with pytest.raises(FolderError, match=rf"^{bucket}/users/a.parquet has changed since the run began"):
            file.range(0, 4)
    finally:
        store.close()


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    pytest.importorskip("ray.data", reason="needs the extra `ray`")
    ray = cluster._import_ray()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", _memory=8 << 30)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("ray")
def test_workers_on_ray_make_the_lists_of_one_process_also_when_one_is_killed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    output = Output(str(tmp_path / "lists"), part_users=10, cluster=Cluster("auto", 2))
    killed: list[int] = []

    def kill_one() -> None:
        """Kill a worker while it has a model."""
        workers = [process for process in psutil.Process().children(recursive=True) if "MapWorker" in " ".join(process.cmdline())]
        workers[0].kill()
        killed.append(workers[0].pid)

    updates = Cluster.make

    def make(workers: Cluster, *task: object) -> Iterator[Made]:
        for made in updates(workers, *task):
            if not killed:
                kill_one()
            yield made

    monkeypatch.setattr(Cluster, "make", make)
    recommend_users(settings_of(folder), DEFAULTS, str(folder / "users.jsonl"), output)
    assert killed
    assert joined(tmp_path / "lists") == expected(folder)
    assert (tmp_path / "lists" / "_SUCCESS").exists()


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (Output(cluster=Cluster("auto")), "Lists that Ray makes go to a folder"),
        (Output("{folder}/lists.jsonl", cluster=Cluster("auto")), "lists.jsonl is a file: choose another --output"),
        (Output("{folder}/lists", cluster=Cluster("127.0.0.1:1")), "No Ray cluster answers at 127.0.0.1:1"),
        (Output("{folder}/lists2", cluster=Cluster("nonsense")), "No Ray cluster answers at nonsense"),
    ],
)
def test_runs_on_ray_that_can_not_be_made(folder: Path, output: Output, sentence: str, monkeypatch: pytest.MonkeyPatch):
    # Nobody asks Ray before an address answers.
    no_ray = SimpleNamespace(is_initialized=lambda: False, exceptions=SimpleNamespace(RayError=KeyError))
    monkeypatch.setattr(cluster, "_import_ray", lambda: no_ray)
    place = None if output.place is None else output.place.format(folder=folder)
    with pytest.raises(OfflineError, match=sentence):
        recommend_users(settings_of(folder), DEFAULTS, str(folder / "users.jsonl"), replace(output, place=place))


def test_how_many_workers_a_cluster_has_room_for(folder: Path):
    settings = settings_of(folder).model_copy(update={"threads": None, "kv_memory_gib": 2.0})
    gib = 1 << 30
    nodes = [{"CPU": 16.0, "memory": 100.0 * gib}, {"CPU": 9.0, "memory": 7.0 * gib}, {"CPU": 3.0, "memory": 100.0 * gib}]
    needs = cluster.needs_of(settings, nodes)
    assert (needs.cores, needs.gpus) == (4, 0)
    assert 3 * gib < needs.memory < 3.1 * gib
    assert [needs.fits(node) for node in nodes] == [4, 2, 0]
    assert cluster.needs_of(settings, [{"CPU": 2.0, "memory": 8.0 * gib}]).cores == 2
    with_gpus = [{"CPU": 16.0, "memory": 100.0 * gib, "GPU": 2.0}, {"CPU": 9.0, "memory": 7.0 * gib}]
    assert cluster.needs_of(settings, with_gpus).gpus == 1
    assert [Needs(1, 1, gib).fits(node) for node in with_gpus] == [2, 0]
    shared = cluster.needs_of(settings.model_copy(update={"tensor_parallel": 2}), with_gpus)
    assert (shared.gpus, [shared.fits(node) for node in with_gpus]) == (2, [1, 0])
    assert str(Needs(2, 0, 3 * gib)) == "2 cores and 3.0 GiB of memory"


def test_a_worker_takes_the_memory_of_all_weights_that_it_loads(folder: Path, tmp_path: Path):
    """Those of the base that an adapter names among them, and pickled ones."""
    nodes = [{"CPU": 4.0, "memory": float(1 << 34)}]
    whole, weights = settings_of(folder), (folder / "model" / "model.safetensors").stat().st_size
    adapter, pickled = tmp_path / "adapter", tmp_path / "pickled"
    for directory in (adapter, pickled):
        directory.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder / "model")}))
    (pickled / "pytorch_model.bin").write_bytes(bytes(weights))
    settings = [whole, *(whole.model_copy(update={"target": directory}) for directory in (adapter, pickled))]
    assert len({cluster.needs_of(each, nodes) for each in settings}) == 1
    both = cluster.needs_of(whole.model_copy(update={"draft": folder / "model"}), nodes)
    assert both.memory - cluster.needs_of(whole, nodes).memory in (int(1.25 * weights), int(1.25 * weights) + 1)
