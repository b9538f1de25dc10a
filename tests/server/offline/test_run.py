"""What a run over a file goes on for: only lists that follow from the same settings may share a file."""

import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from drafting.beam.rule import SearchRule
from drafting.catalog.attributes import AttributeColumn
from drafting.catalog.catalog import Catalog
from drafting.model_files import ModelFilesError
from drafting.prompts.template import PromptTemplate
from drafting.prompts.thinking import ThinkTemplate
from server.offline import run
from server.offline.cluster import Cluster
from server.offline.in_parts import PartTask
from server.offline.lists import ListMaker, OfflineError, blending_of
from server.offline.made import Made
from server.offline.prints import OtherModel
from server.offline.purpose import purpose_of
from server.offline.questions import Defaults
from server.offline.run import Output, recommend_one, recommend_users
from server.offline.user_files import UserPlace
from server.offline.users import Row
from server.settings import FlagSettings, Settings
from tests.capping import check_caps
from tests.models import random_catalog, save_random_model
from tests.server.http.test_blend import neighbour_model
from verification.recommender import Recommender

CATALOG = random_catalog(items=5)
DEFAULTS = Defaults(10, None, [], False)


def test_every_setting_that_lists_follow_from_is_in_the_purpose(tmp_path: Path):
    users = tmp_path / "users.jsonl"
    users.write_text("{}")
    base, draft = tmp_path / "base", tmp_path / "draft"

    def purpose(seed: int = 1, drawn: bool = True, **options: Any) -> str:
        settings = FlagSettings(**{"target": tmp_path / "target", "catalog": users, "engine": "transformers"} | options)
        return purpose_of(
            settings, CATALOG, replace(DEFAULTS, rule=SearchRule(seed=seed), seed_is_drawn=drawn), UserPlace.of(str(users)).files()
        )

    others: list[dict[str, Any]] = [
        {"target": base},
        {"base": base},
        {"draft_base": base},
        {"draft": base},
        {"draft": draft, "base": base},
        {"draft": draft, "draft_base": base},
        {"engine": "vllm"},
        {"dtype": "bfloat16"},
        {"dtype": "bfloat16", "exact": True},
        {"quantization": "fp8"},
        {"normalise": "children"},
        {"plan": "trie"},
        {"kv_memory_gib": 2.0},
        {"max_beam_width": 300},
        {"neighbours": users, "blend": 0.5},
        {"neighbours": users, "blend": 0.6},
        {"seed": 1, "drawn": False},
        {"seed": 2, "drawn": False},
    ]
    assert len({purpose(), *(purpose(**other) for other in others)}) == 1 + len(others)
    same: list[dict[str, Any]] = [{"seed": 2}, {"log_level": "debug"}, {"verify_model": "never"}]
    assert {purpose(**other) for other in same} == {purpose()}


def test_a_model_that_is_trained_anew_in_its_place_is_another_purpose(tmp_path: Path):
    target, base, draft = (tmp_path / name for name in ("target", "base", "draft"))
    for folder in (target, base, draft):
        folder.mkdir()
    (target / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    settings = FlagSettings(target=target, draft=draft, catalog=tmp_path, engine="transformers")
    purposes = [purpose_of(settings, CATALOG, DEFAULTS, [])]
    for folder in (target, base, draft):
        weights = folder / "adapter_model.safetensors"
        weights.write_bytes(b"one")
        purposes.append(purpose_of(settings, CATALOG, DEFAULTS, []))
        status = weights.stat()
        weights.write_bytes(b"two")
        os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        purposes.append(purpose_of(settings, CATALOG, DEFAULTS, []))
        assert purpose_of(settings, CATALOG, DEFAULTS, []) == purposes[-1]
    assert len({*purposes}) == len(purposes) == 7


def test_the_base_of_a_draft_that_has_moved_is_asked_for_by_the_drafts_own_option(tmp_path: Path):
    """It is looked for before any model is loaded."""
    target, draft = tmp_path / "target", tmp_path / "draft"
    for folder in (target, draft):
        folder.mkdir()
    (draft / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "nowhere"}))
    settings = FlagSettings(target=target, draft=draft, catalog=tmp_path, engine="transformers")
    with pytest.raises(ModelFilesError, match=", or with --draft-base"):
        purpose_of(settings, CATALOG, DEFAULTS, [])


class Echo(ListMaker):
    """Lists that are the lines of their users, without a model; Ctrl-C where a line is `stop`."""

    def __init__(self, settings: Settings, defaults: Defaults, catalog: Catalog) -> None:
        self.defaults = defaults

    def lines(self, rows: Iterable[Row]) -> Iterator[bytes]:
        for row in rows:
            assert isinstance(row.text, bytes)
            if row.text.strip() == b"stop":
                raise KeyboardInterrupt
            yield row.text.strip()

    def close(self) -> None:
        pass


@pytest.fixture
def echo_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FlagSettings:
    monkeypatch.setattr(run, "ListMaker", Echo)
    monkeypatch.setattr(run, "configure_logs", lambda level, process: None)
    CATALOG.save(tmp_path / "catalog.jsonl")
    return FlagSettings(target=tmp_path, catalog=tmp_path / "catalog.jsonl", engine="transformers")


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_another_pipe_never_goes_on_with_the_lists_of_one(tmp_path: Path, echo_settings: FlagSettings, ending: str):
    pipe, lists = tmp_path / "pipe", tmp_path / f"lists.{ending}"
    os.mkfifo(pipe)

    def recommend(*lines: str) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(pipe.write_text, "".join(f"{line}\n" for line in lines))
            recommend_users(echo_settings, DEFAULTS, str(pipe), Output(str(lists)))

    with pytest.raises(OfflineError, match=r"^Interrupted\. What comes from or goes to a pipe can only be begun anew\.$"):
        recommend('{"user_id": "ann"}', '{"user_id": "bob"}', "stop")
    recommend('{"user_id": "cid"}', '{"user_id": "dan"}', '{"user_id": "eve"}')
    rows = pq.read_table(lists).to_pylist() if ending == "parquet" else [*map(json.loads, lists.read_text().splitlines())]
    assert [row["user_id"] for row in rows] == ["cid", "dan", "eve"]
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "catalog.jsonl", lists.name}


def test_errors_of_an_interrupted_run_count_in_the_one_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, echo_settings: FlagSettings
):
    users, lists = tmp_path / "users.jsonl", tmp_path / "lists" / "lists.jsonl"
    lists.parent.mkdir()
    users.write_text('{"error": "none.", "line": 1}\nstop\n')
    with pytest.raises(OfflineError, match=r"^Interrupted\."):
        recommend_users(echo_settings, DEFAULTS, str(users), Output(str(lists)))
    monkeypatch.setattr(Echo, "lines", lambda maker, rows: (b'{"error": "none."}' for _ in rows))
    monkeypatch.setattr(Echo, "made", Made(0, 1, "line 2: none."))
    sentence = r"lists\.jsonl has only errors: no lists, 2 users without one, such as line 1: none\.$"
    with pytest.raises(OfflineError, match=sentence):
        recommend_users(echo_settings, DEFAULTS, str(users), Output(str(lists)))


@pytest.mark.parametrize(
    ("users", "output"),
    [
        ("users", "users/lists.jsonl"),
        ("users", "users/lists.txt"),  # of which lists.txt.part.json is the state
        ("users", "link"),
        ("users", "users/"),
        ("users/*", "users/lists.parquet"),
        ("users/part-*.jsonl", "users/"),
        ("*/*.jsonl", "lists/"),
    ],
)
def test_lists_are_never_written_among_the_users(tmp_path: Path, echo_settings: FlagSettings, users: str, output: str):
    folder = tmp_path / "users"
    folder.mkdir()
    (folder / "part-000000.jsonl").write_text("{}\n")
    (tmp_path / "link").symlink_to(folder / "lists.jsonl")
    with pytest.raises(OfflineError, match="would be taken for users"):
        recommend_users(echo_settings, DEFAULTS, str(tmp_path / users), Output(f"{tmp_path}/{output}"))
    assert [*folder.iterdir()] == [folder / "part-000000.jsonl"]


@pytest.mark.parametrize(
    ("users", "output"),
    [
        ("users/a.jsonl", "users/lists.jsonl"),
        ("users/*.jsonl", "users/lists.parquet"),
        ("users", "users2.jsonl"),
        ("users", "users/lists/l.jsonl"),
    ],
)
def test_lists_may_be_written_where_no_users_are_looked_for(tmp_path: Path, echo_settings: FlagSettings, users: str, output: str):
    (tmp_path / "users" / "lists").mkdir(parents=True)
    (tmp_path / "users" / "a.jsonl").write_text('{"user_id": "ann"}\n')
    for _ in range(2):
        recommend_users(echo_settings, DEFAULTS, str(tmp_path / users), Output(f"{tmp_path}/{output}"))
        assert (tmp_path / output).stat().st_size


@pytest.mark.parametrize(("longest", "ending"), [("users", ""), ("output", ""), ("output", "/")])
def test_a_place_that_can_not_be_looked_for_is_told_in_a_sentence(tmp_path: Path, echo_settings: FlagSettings, longest: str, ending: str):
    """As below a directory that this user may not enter; a name that is too long can't be looked for by anybody."""
    (tmp_path / "users.jsonl").write_text("{}\n")
    places = {"users": str(tmp_path / "users.jsonl"), "output": str(tmp_path / "lists.jsonl"), longest: f"{tmp_path}/{300 * 'x'}{ending}"}
    with pytest.raises(OfflineError, match=r"x{300} can't be looked for: File name too long\.$"):
        recommend_users(echo_settings, DEFAULTS, places["users"], Output(places["output"]))


def test_a_directory_that_is_not_there_is_told_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, echo_settings: FlagSettings
):
    monkeypatch.setattr(run, "ListMaker", None)
    (tmp_path / "users.jsonl").write_text("{}\n")
    with pytest.raises(OfflineError, match=r"^There is no directory .*/none to write lists\.jsonl to\.$"):
        recommend_users(echo_settings, DEFAULTS, str(tmp_path / "users.jsonl"), Output(str(tmp_path / "none" / "lists.jsonl")))


def test_workers_get_paths_that_hold_wherever_they_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tasks: list[PartTask] = []
    monkeypatch.setattr(run, "make_parts", lambda task, blocks, purpose, cluster: tasks.append(task))
    monkeypatch.chdir(tmp_path)
    CATALOG.save(Path("catalog.jsonl"))
    neighbour_model(["item-0", "item-1"]).save(Path("neighbours"))
    Path("users.jsonl").write_text("{}\n")
    named = {name: Path(name) for name in ("target", "base", "draft", "draft_base", "neighbours")}
    settings = FlagSettings(catalog=Path("catalog.jsonl"), engine="transformers", blend=0.5, **named)
    for name in ("target", "base", "draft", "draft_base"):
        with pytest.raises(OtherModel, match=rf"^There is no model at {tmp_path}/{name} here: the models of all workers are compared"):
            recommend_users(settings, DEFAULTS, "users.jsonl", Output("lists", cluster=Cluster("auto")))
        Path(name).mkdir()
        Path(name, "config.json").write_text("{}")
    recommend_users(settings, DEFAULTS, "users.jsonl", Output("lists", cluster=Cluster("auto")))
    (task,) = tasks
    places = [getattr(task.settings, name) for name in (*named, "catalog")] + [Path(task.place), Path(task.files[0].folder)]
    assert places == [*(tmp_path / name for name in named), tmp_path / "catalog.jsonl", tmp_path / "lists", tmp_path]


def test_lists_of_a_file_come_with_the_texts_before_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    catalog = random_catalog()
    folder = save_random_model(tmp_path / "model", catalog, hidden=32, layers=1, seed=2)
    PromptTemplate(max_items=5, think=ThinkTemplate("<c_7>", 20)).save(folder)
    catalog.save(tmp_path / "catalog.jsonl")
    users, lists = tmp_path / "users.jsonl", tmp_path / "lists.jsonl"
    users.write_text('{"history": ["item-3", "item-14"]}\n{"history": ["item-5"]}\n')
    settings = FlagSettings(target=folder, catalog=tmp_path / "catalog.jsonl", engine="transformers", kv_memory_gib=0.01, threads=1)
    recommend_users(settings, replace(DEFAULTS, think=20), str(users), Output(str(lists)))
    recommend_one(settings, replace(DEFAULTS, think=20), ["item-3", "item-14"], None, as_json=False)
    recommender = Recommender.load(folder, catalog, kv_memory_gib=0.01)
    expected = list(recommender.recommend([[3, 14], [5]], 10, think=20))
    found = list(map(json.loads, lists.read_text().splitlines()))
    assert [line["thought"] for line in found] == [recommender.text(result.thought or ()) for result in expected]
    assert [[item["item_id"] for item in line["items"]] for line in found] == [
        [f"item-{item.item}" for item in result.items] for result in expected
    ]
    assert capsys.readouterr().out.splitlines()[0] == found[0]["thought"] != ""
    with pytest.raises(
        OfflineError, match=r"refused\.jsonl has only errors: no lists, 2 users without one, such as line 1: The text before"
    ):
        recommend_users(settings, replace(DEFAULTS, think=21), str(users), Output(str(tmp_path / "refused.jsonl")))
    refused = json.loads((tmp_path / "refused.jsonl").read_text().splitlines()[0])
    assert refused["error"] == "The text before a list has 1 to 20 tokens, as prompt.json says, not 21."
    recommender.close()


def test_blended_lists_of_a_file(tmp_path: Path):
    """Each line is ranked by its blend score and says where it comes from; a weight of 0 gives the model's own lists."""
    shelves = ["left" if item % 3 else "right" for item in range(200)]
    catalog = random_catalog()
    catalog = replace(catalog, attributes={**catalog.attributes, "shelf": AttributeColumn.of_values(shelves)})
    folder = save_random_model(tmp_path / "model", catalog, hidden=32, layers=1, seed=2)
    catalog.save(tmp_path / "catalog.jsonl")
    neighbour_model([f"item-{i}" for i in range(len(catalog))]).save(tmp_path / "neighbours")
    users, lists = tmp_path / "users.jsonl", tmp_path / "lists.jsonl"
    users.write_text('{"history": ["item-3", "item-14"]}\n{"history": ["item-5"], "exclude": ["item-7"]}\n')
    named = {"target": folder, "catalog": tmp_path / "catalog.jsonl", "engine": "transformers", "plan": "none"}
    found = {}
    for weight in (0.0, 2.0, None):
        chosen = {} if weight is None else {"neighbours": tmp_path / "neighbours", "blend": weight}
        settings = FlagSettings(**named, verify_model="never", kv_memory_gib=0.01, threads=1, **chosen)
        recommend_users(settings, replace(DEFAULTS, exclude_history=True), str(users), Output(str(lists)))
        found[weight] = [json.loads(line) for line in lists.read_text().splitlines()]
    ids = {weight: [[item["item_id"] for item in line["items"]] for line in lines] for weight, lines in found.items()}
    assert ids[0.0] == ids[None] != ids[2.0]
    assert all("source" not in item for line in found[0.0] for item in line["items"])
    for line, barred in zip(found[2.0], ({"item-3", "item-14"}, {"item-5", "item-7"}), strict=True):
        scores = [item["blend_score"] for item in line["items"]]
        assert scores == sorted(scores, reverse=True)
        assert "neighbours" in {item["source"] for item in line["items"]}
        assert not barred & {item["item_id"] for item in line["items"]}
        assert 30 < line["usage"]["candidates"] <= 100
    recommend_users(settings, replace(DEFAULTS, diversity={"shelf": 4}), str(users), Output(str(tmp_path / "capped.jsonl")))
    for line in map(json.loads, (tmp_path / "capped.jsonl").read_text().splitlines()):
        check_caps([int(item["item_id"].removeprefix("item-")) for item in line["items"]], {"shelf": shelves}, {"shelf": 4})
        assert 4 < len(line["items"]) <= 8
    with pytest.raises(OfflineError, match="The catalog has no attribute 'aisle'"):
        recommend_users(settings, replace(DEFAULTS, diversity={"aisle": 4}), str(users), Output(str(tmp_path / "none.jsonl")))


def test_blends_that_make_no_sense(tmp_path: Path):
    catalog = random_catalog(items=5)
    neighbour_model(["item-0", "item-1"]).save(tmp_path / "neighbours")
    for options, sentence in (
        ({}, "Say how much the neighbour model weighs: --blend 0.5, or leave --neighbours out."),
        (
            {"blend": 1.0, "verification": "gumbel"},
            "Only strict lists can be blended: leave --neighbours out",
        ),
        ({"blend": 1.0, "plan": "beam:40+items:20"}, "drafts items of a neighbour model, as servers alone do: choose another --plan."),
    ):
        settings = FlagSettings(target=tmp_path, catalog=tmp_path, neighbours=tmp_path / "neighbours", **options)
        with pytest.raises(OfflineError, match=sentence):
            blending_of(settings, catalog)
