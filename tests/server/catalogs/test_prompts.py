"""Prompts of the API process are those of the engine: same files, same builder, one for each version."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import numpy as np
import pytest

from drafting.catalog.catalog import Catalog
from drafting.errors import PromptError
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.loading import PromptForm, prompt_of
from drafting.prompts.tokenizer import PromptTokenizer
from drafting.prompts.user_state import UserEvent, UserState
from server.catalogs import prompts as catalogs_prompts
from server.catalogs.prompts import CatalogPrompts
from server.catalogs.served import ServedCatalog
from server.catalogs.store import CatalogStore
from server.engine.prompts import PromptSource, write_prompts
from server.engine.supervisor import EngineSupervisor
from server.messages import PromptFiles, Ready
from server.try_again import EngineUnavailable
from tests.models import random_catalog
from tests.prompt_tokenizers import first_word_marked
from tests.server.fake_ready import READY

CATALOG = random_catalog(items=40)
CHAT = "{{ bos_token }}{% for message in messages %}[{{ message.role }}] {{ message.content }}{% endfor %}"
FORMS = {
    "list": prompt_of({"template": "the {history}, then", "separator": ", ", "max_items": 5}),
    "template": prompt_of(
        {"format": "jinja", "template": "{% for item in history %}{{ item.title }} {{ item }}, {% endfor %}{{ user.age | default(1) }}"}
    ),
    "chat": prompt_of({"chat": True, "messages": [{"role": "user", "content": "{{ behaviours.buy | join }}"}], "behaviours": {"buy": {}}}),
}


def engine_builder(form: PromptForm, start_token: int | None = None) -> PromptBuilder:
    tokenizer = first_word_marked(sorted(CATALOG.tokens))
    tokenizer.chat_template = CHAT
    return PromptBuilder(form, PromptTokenizer.of(tokenizer), CATALOG, start_token)


class Engine:
    """What `CatalogPrompts` asks of an engine's supervisor."""

    def __init__(self, prompts: PromptFiles | None) -> None:
        self.ready: Ready | None = None if prompts is None else msgspec.structs.replace(READY, prompts=prompts)

    def unavailable(self) -> EngineUnavailable:
        return EngineUnavailable("It is gone.", 1)


def prompts_of(engine: Engine) -> tuple[CatalogPrompts, ServedCatalog]:
    served = ServedCatalog("v1", "v1#1", Path("none"), CATALOG)
    return CatalogPrompts(cast("CatalogStore", SimpleNamespace(active=served)), cast("EngineSupervisor", engine)), served


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("start_token", [None, 0])
def test_what_is_handed_over_builds_the_same_prompts(tmp_path: Path, form: str, start_token: int | None) -> None:
    theirs = engine_builder(FORMS[form], start_token)
    message = msgspec.msgpack.encode(msgspec.structs.replace(READY, prompts=write_prompts(theirs, tmp_path)))
    files = msgspec.msgpack.decode(message, type=Ready).prompts
    ours = PromptSource(files).builder(CATALOG)
    rng = np.random.default_rng(0)
    for length in (1, 2, 5, 9):
        events = [UserEvent(item, "buy") for item in rng.integers(len(CATALOG), size=length).tolist()]
        user = UserState(events, profile={"age": 7}, user_id="ann")
        assert ours.build(user).tolist() == theirs.build(user).tolist()
    assert (ours.max_tokens, ours.max_items, ours.kinds, ours.reads) == (theirs.max_tokens, theirs.max_items, theirs.kinds, theirs.reads)


def test_special_tokens_that_are_read_as_letters_are_so_in_both_processes(tmp_path: Path) -> None:
    form = prompt_of({"format": "jinja", "template": "</s>{{ history | join }}"})
    digests = set()
    for split in (True, False):
        tokenizer = first_word_marked(sorted(CATALOG.tokens))
        tokenizer.split_special_tokens = split
        files = write_prompts(PromptBuilder(form, PromptTokenizer.of(tokenizer), CATALOG), tmp_path)
        built = PromptSource(files).builder(CATALOG).build([3]).tolist()
        assert built == tokenizer("</s>" + "".join(CATALOG.identifier(3)))["input_ids"]
        assert (tokenizer.eos_token_id in built) is not split
        digests.add(files.digest)
    assert len(digests) == 2


async def test_a_builder_is_made_once_for_all_who_ask_and_again_for_another_engine(tmp_path: Path) -> None:
    engine = Engine(write_prompts(engine_builder(FORMS["list"]), tmp_path))
    prompts, served = prompts_of(engine)
    first, second = await asyncio.gather(prompts.builder(served), prompts.builder(served))
    assert first is second is not None
    # An engine that is started later writes the same.
    engine.ready = msgspec.structs.replace(READY, prompts=write_prompts(engine_builder(FORMS["list"]), tmp_path))
    assert await prompts.builder(served) is first
    engine.ready = msgspec.structs.replace(READY, prompts=write_prompts(engine_builder(FORMS["template"]), tmp_path))
    other = await prompts.builder(served)
    assert other is not None
    assert other.form == FORMS["template"]


async def test_an_engine_that_is_gone_before_its_files_are_read_is_unavailable(tmp_path: Path) -> None:
    engine = Engine(write_prompts(engine_builder(FORMS["list"]), tmp_path))
    prompts, served = prompts_of(engine)
    (tmp_path / "prompt-tokenizer.json").rename(tmp_path / "away")
    with pytest.raises(EngineUnavailable, match="It is gone"):
        await prompts.builder(served)
    (tmp_path / "away").rename(tmp_path / "prompt-tokenizer.json")
    assert await prompts.builder(served) is not None


@pytest.mark.parametrize("error", [PromptError("The template took too long."), RuntimeError("the tokenizer panicked")], ids=repr)
async def test_a_builder_that_could_not_be_made_is_told_of_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    make, failures = PromptSource.builder, [error, error]

    def fail_at_first(source: PromptSource, catalog: Catalog) -> PromptBuilder:
        if failures:
            raise failures.pop()
        return make(source, catalog)

    monkeypatch.setattr(PromptSource, "builder", fail_at_first)
    monkeypatch.setattr(catalogs_prompts, "PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(catalogs_prompts, "LOOK_TICKS", 1)
    prompts, served = prompts_of(Engine(write_prompts(engine_builder(FORMS["template"]), tmp_path)))
    with pytest.raises(EngineUnavailable, match=r"can't make prompts for this version of the catalog now") as refused:
        await asyncio.gather(prompts.builder(served), prompts.builder(served))
    assert refused.value.retry_after_seconds == 1
    with pytest.raises(EngineUnavailable, match=r"can't make prompts"):
        prompts.check()

    async def made() -> bool:
        try:
            return await prompts.builder(served) is not None
        except EngineUnavailable:
            return False

    watch = asyncio.create_task(prompts.watch())
    async with asyncio.timeout(20):
        while len(failures) > 0:
            with pytest.raises(EngineUnavailable, match=r"can't make prompts"):
                prompts.check()
            await asyncio.sleep(0.01)
        while not await made():
            await asyncio.sleep(0.01)
        assert not watch.done()
        # A builder may be had in the very turn of the event loop in which it is made, before its end is noted.
        await asyncio.sleep(0)
        prompts.check()
    watch.cancel()
    assert caplog.messages == ["prompts of version v1 can't be made; it is tried again in 0.1 s"] * 2


@pytest.mark.parametrize("change", ["tokenizer", "form"])
async def test_what_is_not_what_the_engine_wrote_makes_no_prompts(tmp_path: Path, change: str) -> None:
    files = write_prompts(engine_builder(FORMS["list"]), tmp_path)
    if change == "tokenizer":
        path = Path(files.tokenizer)
        path.write_text(path.read_text(encoding="utf-8").replace('"content":"<s>"', '"content":"<S>"'), encoding="utf-8")
    else:
        files = msgspec.structs.replace(files, form={**files.form, "separator": "; "})
    with pytest.raises(PromptError, match="is not what the engine wrote"):
        PromptSource(files)
    prompts, served = prompts_of(Engine(files))
    with pytest.raises(EngineUnavailable, match="can't make prompts"):
        await prompts.builder(served)


async def test_other_versions_do_not_matter_to_the_one_that_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prompts, _ = prompts_of(Engine(write_prompts(engine_builder(FORMS["list"]), tmp_path)))
    monkeypatch.setattr(PromptSource, "builder", lambda *_: (_ for _ in ()).throw(PromptError("The tokenizer lacks a code.")))
    with pytest.raises(EngineUnavailable, match=r"can't make prompts"):
        await prompts.builder(ServedCatalog("v2", "v2#1", Path("none"), CATALOG))
    prompts.check()
    assert caplog.messages == ["prompts of version v2 can't be made"]


async def test_the_builder_of_a_version_is_made_before_that_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, served = prompts_of(Engine(write_prompts(engine_builder(FORMS["list"]), tmp_path)))
    with pytest.raises(TimeoutError):
        await prompts.builder(served, deadline=0.0)
    await prompts.prepare(served)
    assert await prompts.builder(served, deadline=0.0) is not None
    monkeypatch.setattr(PromptSource, "builder", lambda *_: (_ for _ in ()).throw(PromptError("The tokenizer lacks a code.")))
    with pytest.raises(EngineUnavailable, match=r"can't make prompts for version 'v2', so it is not served"):
        await prompts.prepare(ServedCatalog("v2", "v2#1", Path("none"), CATALOG))


async def test_before_there_is_an_engine_no_prompts_are_made() -> None:
    prompts, served = prompts_of(Engine(None))
    await prompts.prepare(served)
    with pytest.raises(EngineUnavailable, match="It is gone"):
        await prompts.builder(served)
