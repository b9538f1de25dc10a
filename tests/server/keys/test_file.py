"""The file of keys, and how a running server follows it."""

import errno
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from server.commands.app import app
from server.errors import KeyForbids
from server.keys.file import KeysFileError, add_key, change, parse, read_bytes, remove_key
from server.keys.key import PREFIX, Key, KeySet, Scope
from server.keys.keyring import Keyring
from server.metrics.keys import KeyMetrics

ALL = tuple(Scope)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def ring(path: Path, registry: CollectorRegistry) -> Keyring:
    return Keyring(path, KeyMetrics(registry))


def holder(keyring: Keyring, text: str) -> str | None:
    key = keyring.find(text.encode())
    return None if key is None else key.name


def test_a_key_is_found_by_its_whole_text_and_by_no_other(tmp_path: Path, registry: CollectorRegistry):
    texts = {name: add_key(tmp_path / "keys.json", name, ALL) for name in ("shop", "ops", "batch-2")}
    assert len(set(texts.values())) == 3
    keyring = ring(tmp_path / "keys.json", registry)
    for name, text in texts.items():
        assert text.startswith(PREFIX)
        assert holder(keyring, text) == name
        for other in (text[:-1], text + "a", text.swapcase(), text.removeprefix(PREFIX), "", "x" * 100_000):
            assert holder(keyring, other) is None


def test_the_file_holds_no_key_and_a_digest_of_its_own(tmp_path: Path):
    text = add_key(tmp_path / "keys.json", "shop", ALL)
    stored = read_bytes(tmp_path / "keys.json")
    assert text.encode() not in stored
    assert text.removeprefix(PREFIX).encode() not in stored
    others = KeySet(salt="another salt as long".replace(" ", "x"))
    assert parse(stored, tmp_path).digest(text.encode()) != others.digest(text.encode())


def test_a_file_stays_what_it_is_when_keys_come_and_go(tmp_path: Path):
    """Its mode, its other keys, their bounds, and the link that leads to it."""
    real, link = tmp_path / "real.json", tmp_path / "keys.json"
    link.symlink_to(real)
    add_key(link, "shop", [Scope.EVENTS, Scope.RECOMMEND], rate="5/minute", concurrent=2, max_k=20, max_width=50)
    assert real.stat().st_mode & 0o007 == 0
    real.chmod(0o604)
    add_key(link, "ops", ALL)
    with pytest.raises(KeysFileError, match="has a key 'ops' already"):
        add_key(link, "ops", ALL)
    remove_key(link, "ops")
    with pytest.raises(KeysFileError, match="has no key 'ops'"):
        remove_key(link, "ops")
    (shop,) = parse(read_bytes(link), link).keys
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o604
    assert (shop.scopes, shop.rate, shop.concurrent, shop.max_k, shop.max_width) == ((Scope.RECOMMEND, Scope.EVENTS), "5/minute", 2, 20, 50)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["keys.json", "real.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")
def test_a_file_stays_whose_it_is(tmp_path: Path):
    """A server that runs as another user must still be able to read it."""
    file = tmp_path / "keys.json"
    add_key(file, "shop", ALL)
    os.chown(file, 10001, 10002)
    remove_key(file, "shop")
    assert (file.stat().st_uid, file.stat().st_gid) == (10001, 10002)


def test_who_may_not_give_a_file_to_its_group_keeps_it_from_other_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refused(*_: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    file = tmp_path / "keys.json"
    add_key(file, "shop", ALL)
    file.chmod(0o664)
    monkeypatch.setattr(os, "fchown", refused)
    add_key(file, "ops", ALL)
    assert [key.name for key in parse(read_bytes(file), file).keys] == ["shop", "ops"]
    assert file.stat().st_mode & 0o777 == 0o604


def test_of_two_changes_by_two_links_none_is_lost(tmp_path: Path):
    """Links in other directories lead to one file, which is what must be locked."""
    (tmp_path / "real").mkdir()
    links = [tmp_path / name / "keys.json" for name in ("one", "other")]
    for link in links:
        link.parent.mkdir()
        link.symlink_to(tmp_path / "real" / "keys.json")
    adding: list[Future[str]] = []
    with ThreadPoolExecutor(1) as other:

        def beside(keys: KeySet) -> KeySet:
            adding.append(other.submit(add_key, links[1], "ops", ALL))
            with pytest.raises(TimeoutError):
                adding[0].result(timeout=0.2)
            return keys

        change(links[0], beside)
        adding[0].result(timeout=20)
    add_key(links[0], "shop", ALL)
    assert [key.name for key in parse(read_bytes(links[0]), links[0]).keys] == ["ops", "shop"]


def test_bounds_of_a_list(tmp_path: Path):
    key = Key(name="shop", sha256="0" * 64, scopes=ALL, max_k=20, max_width=30)
    key.check(20, 30)
    key.check(20, None)
    for k, width, sentence in ((21, None, "a k of at most 20, got 21"), (20, 31, "a beam_width of at most 30, got 31")):
        with pytest.raises(KeyForbids, match=sentence):
            key.check(k, width)
    assert [key.width(k, 50) for k in (5, 30, 40)] == [30, 30, 40]
    assert Key(name="shop", sha256="0" * 64, scopes=ALL).width(5, 50) == 50
    # No beam is narrower than its list.
    narrow = Key(name="shop", sha256="0" * 64, scopes=ALL, max_width=30)
    narrow.check(30, None)
    with pytest.raises(KeyForbids, match="a k of at most 30, got 31"):
        narrow.check(31, None)


def test_a_hundred_thousand_keys_are_a_file():
    """Of 20 MB; what takes the square of their number would not end."""
    digests = (f"{number:064x}" for number in range(100_000))
    keys = KeySet(salt="0123456789abcdef", keys=tuple(Key(name=f"k{i}", sha256=each, scopes=ALL) for i, each in enumerate(digests)))
    assert parse(msgspec.json.encode(keys), Path("keys.json")) == keys


def one(name: str, **more: object) -> dict[str, object]:
    return {"name": name, "sha256": "0" * 64, "scopes": ["recommend"]} | more


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"salt": "0123456789abcdef", "keys": [',
        "[]",
        '{"keys": []}',
        *(
            msgspec.json.encode({"salt": "0123456789abcdef", "keys": [each]}).decode()
            for each in (
                one("Shop"),
                one("shop\n"),
                one("shop", scopes=[]),
                one("shop", scopes=["everything"]),
                one("shop", sha256="secret-key-in-plain"),
                one("shop", rate="5/fortnight"),
                one("shop", rate="0/second"),
                one("shop", max_k=0),
                one("shop", maxk=5),
            )
        ),
        msgspec.json.encode({"salt": "0123456789abcdef", "keys": [one("a"), one("b", sha256="1" * 64), one("a")]}).decode(),
        '{"salt": "0123456789abcdef", "keys": [{"name": "caf\udce9"}]}',
        # One key, two names: which of them holds would be chance.
        msgspec.json.encode({"salt": "0123456789abcdef", "keys": [one("a"), one("b")]}).decode(),
    ],
)
async def test_a_broken_file_is_refused_at_start_and_changes_nothing_later(
    text: str, tmp_path: Path, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "broken.json").write_text(text, errors="surrogateescape")
    with pytest.raises(KeysFileError, match=r"broken.json is no file of keys \(.+\): make one") as raised:
        ring(tmp_path / "broken.json", registry)
    assert "secret-key" not in str(raised.value)
    kept = add_key(tmp_path / "keys.json", "shop", ALL)
    keyring = ring(tmp_path / "keys.json", registry=CollectorRegistry())
    (tmp_path / "keys.json").write_text(text, errors="surrogateescape")
    await keyring.look()
    await keyring.look()
    assert holder(keyring, kept) == "shop"
    assert "The keys that were read before stay." in caplog.text
    assert "secret-key" not in caplog.text
    assert caplog.text.count("can't be used") == 1


async def test_keys_follow_their_file_however_it_is_replaced(tmp_path: Path, registry: CollectorRegistry):
    """Written in place, renamed, gone for a while, and as Kubernetes does it: the link `..data` leads to another directory."""
    for number in (1, 2, 3):
        (tmp_path / f"..{number}").mkdir()
    texts = {number: add_key(tmp_path / f"..{number}" / "keys.json", f"key-{number}", ALL) for number in (1, 2, 3)}
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "keys.json").symlink_to("..data/keys.json")
    keyring = ring(tmp_path / "keys.json", registry)

    async def known() -> list[int]:
        await keyring.look()
        return [number for number, text in texts.items() if holder(keyring, text)]

    assert await known() == [1]
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    assert await known() == [2]
    assert registry.get_sample_value("atspeed_keys") == 1
    (tmp_path / "..2" / "keys.json").unlink()
    assert await known() == [2]
    assert registry.get_sample_value("atspeed_keys_file_broken") == 1
    (tmp_path / "..2" / "keys.json").write_bytes((tmp_path / "..3" / "keys.json").read_bytes())
    assert await known() == [3]
    assert registry.get_sample_value("atspeed_keys_file_broken") == 0
    remove_key(tmp_path / "..2" / "keys.json", "key-3")
    assert await known() == []
    assert registry.get_sample_value("atspeed_keys") == 0


def test_the_commands_make_list_and_remove_keys(tmp_path: Path):
    file, runner = str(tmp_path / "keys.json"), CliRunner()
    made = runner.invoke(app, ["keys", "add", file, "--name", "shop", "--scope", "recommend", "--scope", "events", "--rate", "9/second"])
    assert made.exit_code == 0, made.output
    text = made.stdout.strip()
    assert holder(ring(tmp_path / "keys.json", CollectorRegistry()), text) == "shop"
    shown = runner.invoke(app, ["keys", "list", file])
    assert {"shop", "recommend", "events", "9/second"} <= set(shown.stdout.replace("│", " ").split())
    assert text not in shown.stdout
    for wrong, sentence in (
        (["add", file, "--name", "shop", "--scope", "users"], "has a key 'shop' already"),
        (["add", file, "--name", "My Shop", "--scope", "users"], "The name of a key is made of"),
        (["add", file, "--name", "b", "--scope", "users", "--rate", "fast"], "A rate is a number in a second, minute, hour or day"),
        (["add", str(tmp_path / "no" / "keys.json"), "--name", "b", "--scope", "users"], "There is no directory"),
        (["remove", file, "--name", "nobody"], "has no key 'nobody'"),
        (["remove", str(tmp_path / "none.json"), "--name", "a"], "can't be read: No such file or directory."),
        (["list", str(tmp_path / "none.json")], "can't be read: No such file or directory."),
    ):
        refused = runner.invoke(app, ["keys", *wrong])
        assert refused.exit_code == 1
        assert sentence in refused.output
    assert runner.invoke(app, ["keys", "remove", file, "--name", "shop"]).exit_code == 0
    assert parse(read_bytes(tmp_path / "keys.json"), tmp_path).keys == ()
