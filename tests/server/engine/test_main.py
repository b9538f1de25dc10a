"""An engine process that cannot serve tells its parent why, in one sentence, and ends.

What the parent makes of it is tested with a real server (`tests/server/http/test_server.py`): its last line is the sentence.
"""

import gc
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import msgspec
import pytest
import torch

from drafting.catalog.catalog import Catalog
from server.engine.main import main, serve
from server.engine_settings import EngineOptions
from server.messages import Alive, FromEngine, StartFailure
from server.settings import FlagSettings
from tests.models import random_catalog, save_random_model, save_tokenizer
from tests.server.http.test_not_finite import damage_item
from tests.verification.engine.test_beam_search import HOSTS
from verification.hosts.transformers import TransformersHost


class Parent:
    """The end of the socket that an engine writes to."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, message: bytes) -> None:
        self.sent.append(message)


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """Loading switches the garbage collector off."""
    yield
    gc.enable()


def sentence_of(**flags: object) -> str:
    parent = Parent()
    status = serve(parent, FlagSettings(**({"engine": "transformers", "threads": 1} | flags)).engine_options)
    *before, failure = [msgspec.msgpack.decode(message, type=FromEngine) for message in parent.sent]
    assert all(isinstance(message, Alive) for message in before)
    assert isinstance(failure, StartFailure)
    assert status == 1
    return failure.sentence


def test_a_tokenizer_that_lacks_a_token_of_the_catalog(catalog: Catalog, catalog_file: Path, tmp_path: Path):
    target = save_random_model(tmp_path / "model", catalog, hidden=32, layers=1)
    save_tokenizer(catalog, target, leave_out=("<b_3>",))
    sentence = sentence_of(target=target, catalog=catalog_file)
    assert sentence.startswith("The model's tokenizer has no token '<b_3>', which the identifier of item 'item-")


def test_a_draft_with_another_vocabulary(model_dir: Path, catalog_file: Path, tmp_path: Path):
    draft = save_random_model(tmp_path / "draft", random_catalog(codes=5), hidden=32, layers=1)
    sentence = sentence_of(target=model_dir, catalog=catalog_file, draft=draft)
    assert sentence.startswith(f"The draft in {draft} has another vocabulary than the target in ")


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        ("beam:many", "There is no plan 'beam:many': choose auto, none, trie, beam:N"),
        ("beam:9", "The plan beam:9 needs a draft model: name its directory, or choose none or trie."),
    ],
)
def test_a_plan_that_makes_no_sense(model_dir: Path, catalog_file: Path, plan: str, expected: str):
    assert sentence_of(target=model_dir, catalog=catalog_file, plan=plan).startswith(expected)


def test_a_plan_deeper_than_the_catalog(model_dir: Path, catalog_file: Path):
    sentence = sentence_of(target=model_dir, catalog=catalog_file, draft=model_dir, plan="beam:9x3")
    assert sentence == "The plan beam:9x3 drafts 3 levels, but of identifiers of 3 tokens only the first 2 are ever drafted."


@pytest.mark.parametrize("plan", ["none", "auto"])
@pytest.mark.parametrize("gib", [0.0000002, 0.000001, 0.000002])
def test_too_little_memory_for_keys_and_values(model_dir: Path, catalog_file: Path, gib: float, plan: str):
    """For a list, and for the shortest forward that calibration measures before it."""
    sentence = sentence_of(target=model_dir, catalog=catalog_file, kv_memory_gib=gib, plan=plan)
    assert sentence.startswith("The memory for keys and values holds only ")
    assert sentence.endswith(": raise --kv-memory-gib.")


@pytest.mark.parametrize("host", HOSTS)
def test_memory_for_no_key_and_value(model_dir: Path, catalog_file: Path, host: str):
    sentence = sentence_of(target=model_dir, catalog=catalog_file, kv_memory_gib=1e-9, engine=host)
    assert sentence.startswith("1e-09 GiB hold no key/value slot of this model: it needs at least ")
    assert sentence.endswith(" bytes; raise --kv-memory-gib.")


# On vLLM, which takes seconds, the plan whose calibration meets such scores first.
@pytest.mark.parametrize(
    ("host", "plan"), [("transformers", "none"), ("transformers", "auto"), pytest.param("vllm", "auto", marks=HOSTS[1].marks)]
)
def test_a_model_that_goes_wrong_on_its_first_list(
    model_dir: Path, catalog: Catalog, catalog_file: Path, tmp_path: Path, host: str, plan: str
):
    target = damage_item(model_dir, tmp_path / "model", catalog, item=0)
    sentence = sentence_of(target=target, catalog=catalog_file, engine=host, plan=plan)
    assert sentence.startswith(
        "The model's scores are not finite (NaN or infinite) after a history of 'item-0', the first item of the catalog"
    )


def test_an_engine_whose_parent_has_died_meanwhile_ends_at_once(monkeypatch: pytest.MonkeyPatch):
    # The process of the tests asks the kernel for nothing.
    monkeypatch.setattr("server.engine.parent.ctypes", Mock())
    options = EngineOptions(target="", catalog="", parent=2**22 + 1)
    assert main(["ipc:///nowhere", options.model_dump_json()]) == 1


def full(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_no_memory_for_the_model_with_keys_and_values(model_dir: Path, catalog_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(TransformersHost, "_host", full)
    sentence = sentence_of(target=model_dir, catalog=catalog_file)
    assert sentence.startswith(f"The model in {model_dir} cannot be loaded: there is too little memory for it and --kv-memory-gib: ")


@pytest.mark.parametrize("plan", ["none", "auto"])
def test_no_memory_for_a_forward_beside_them(model_dir: Path, catalog_file: Path, plan: str, monkeypatch: pytest.MonkeyPatch):
    """In the first list, and in the calibration before it."""
    monkeypatch.setattr(TransformersHost, "score", full)
    sentence = sentence_of(target=model_dir, catalog=catalog_file, plan=plan, verify_model="never")
    assert sentence.startswith("There is too little memory for the models, their keys and values, and what forwards take beside these: ")


def test_no_memory_for_the_calibration_of_another_plan_than_the_planner(
    model_dir: Path, catalog_file: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its prompts are longer than that of the first list, which comes before it."""
    monkeypatch.setattr("verification.recommender.measure_target", full)
    sentence = sentence_of(target=model_dir, catalog=catalog_file, plan="none", verify_model="never")
    assert sentence.startswith("There is too little memory for the models, their keys and values, and what forwards take beside these: ")
