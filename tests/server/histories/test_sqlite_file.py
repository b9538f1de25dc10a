"""What the SQLite file keeps to itself, refuses, and says where a disk has damaged it."""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from server.errors import HistoryDamaged
from server.histories import Event, HistoryStore, StoredUser, open_history_store
from server.histories.sqlite import SqliteHistoryStore
from server.try_again import HistoryUnavailable


def permissions(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def test_the_files_belong_to_their_owner_alone_from_their_creation_on(tmp_path: Path):
    before = os.umask(0)
    try:
        store = open_history_store(f"sqlite:///{tmp_path}/histories.db")
        await store.append("ann", [Event("a", 1.0)])
        assert {file.name: permissions(file) for file in tmp_path.iterdir()} == dict.fromkeys(
            ["histories.db", "histories.db-shm", "histories.db-wal"], 0o600
        )
        await store.close()
    finally:
        os.umask(before)


async def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path):
    path = tmp_path / "histories.db"
    path.touch(0o666)
    path.chmod(0o664)
    store = open_history_store(f"sqlite:///{path}")
    assert permissions(path) == 0o600
    await store.close()


async def test_events_and_profile_are_read_in_one_statement(tmp_path: Path):
    store = open_history_store(f"sqlite:///{tmp_path}/histories.db")
    await store.append("ann", [Event("a", 1.0)])
    await store.put_profile("ann", {"age": 34})
    statements: list[str] = []
    for connection in store._connections:
        connection.set_trace_callback(statements.append)
    assert await store.read_user("ann") == StoredUser([Event("a", 1.0)], {"age": 34})
    # A length says beforehand whether it is read at once.
    assert len([statement for statement in statements if "SELECT ifnull(length(history), 0)" not in statement]) == 1
    await store.close()


async def test_a_profile_has_a_checksum_and_is_deleted_from_the_file(tmp_path: Path):
    path = tmp_path / "histories.db"
    store = open_history_store(f"sqlite:///{path}")
    await store.put_profile("bob", {"country": "bob-country"})
    await store.close()
    damage(path, b"bob-country", lambda page: page.replace(b"bob-country", b"bub-country", 1))
    store = open_history_store(f"sqlite:///{path}")
    for operation in (store.read_user("bob"), store.put_profile("bob", {}), store.delete_profile("bob"), store.read_user("bob", 0)):
        with pytest.raises(HistoryDamaged):
            await operation
    assert await store.delete("bob") is True
    await store.put_profile("bob", {"age": 1})
    assert await store.read_user("bob") == StoredUser([], {"age": 1})
    assert await store.delete_profile("bob") is True
    await store.close()
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT count(*) FROM histories").fetchall() == [(0,)]
    other.close()


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("PRAGMA user_version = 2", "its format is 2, and this release writes 3"),
        ("CREATE TABLE a (b)", "it holds tables of something else"),
    ],
)
async def test_a_file_of_another_format_is_refused_and_left_as_it_was(tmp_path: Path, statement: str, reason: str):
    path = tmp_path / "histories.db"
    with sqlite3.connect(path) as other:
        other.execute(statement)
        before = other.execute("SELECT * FROM sqlite_master").fetchall()
    for _ in range(2):
        with pytest.raises(ValueError, match=f"cannot be opened: {reason}"):
            open_history_store(f"sqlite:///{path}")
    assert other.execute("SELECT * FROM sqlite_master").fetchall() == before
    other.close()


@pytest.fixture
async def filled(tmp_path: Path) -> Path:
    """A closed file with the histories of three users, each of some pages."""
    store = open_history_store(f"sqlite:///{tmp_path}/histories.db")
    for user in ("ann", "bob", "carl"):
        await store.append(user, [Event(f"{user}-item-{number}" + "x" * 50, float(number)) for number in range(200)])
    await store.close()
    return tmp_path / "histories.db"


def damage(path: Path, mark: bytes, change: Callable[[bytes], bytes]) -> None:
    """Change the page of the file that has `mark`."""
    content = path.read_bytes()
    start = content.index(mark) // 4096 * 4096
    path.write_bytes(content[:start] + change(content[start : start + 4096]) + content[start + 4096 :])


DAMAGES: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("one letter", lambda page: page.replace(b"bob-item-100", b"bob-item-900", 1)),
    ("one bit", lambda page: page[:2000] + bytes([page[2000] ^ 1]) + page[2001:]),
    ("zeros", lambda page: bytes(4096)),
    ("noise", lambda page: bytes(range(256)) * 16),
]


async def assert_bob_alone_is_damaged(store: HistoryStore) -> None:
    for operation in (store.read("bob"), store.read("bob", 1), store.append("bob", [Event("new", 1e3)])):
        with pytest.raises(HistoryDamaged, match=r"^What is stored for user 'bob' is damaged"):
            await operation
    for user in ("ann", "carl"):
        assert len(await store.read(user)) == 200
        assert await store.append(user, [Event("new", 1e3)]) == 1


@pytest.mark.parametrize("change", [change for _, change in DAMAGES], ids=[name for name, _ in DAMAGES])
async def test_a_damaged_history_is_never_shortened_and_those_of_others_are_whole(filled: Path, change: Callable[[bytes], bytes]):
    damage(filled, b"bob-item-100", change)
    store = open_history_store(f"sqlite:///{filled}")
    await assert_bob_alone_is_damaged(store)
    # What the client is told to do works, however little is left of the row.
    assert await store.delete("bob") is True
    assert await store.read("bob") == []
    assert await store.delete("bob") is False
    assert await store.append("bob", [Event("new", 1e3, "id")]) == 1
    assert await store.append("bob", [Event("new", 1e3, "id")]) == 0
    assert await store.read("bob") == [Event("new", 1e3, "id")]
    await store.close()


@pytest.mark.parametrize("change", [change for _, change in DAMAGES], ids=[name for name, _ in DAMAGES])
async def test_a_damaged_history_that_expires_costs_no_other_user(tmp_path: Path, change: Callable[[bytes], bytes]):
    path = tmp_path / "histories.db"
    store = open_history_store(f"sqlite:///{path}", ttl_seconds=0.2)
    await store.append("bob", [Event(f"bob-item-{number}" + "x" * 50, float(number)) for number in range(200)])
    await store.close()
    damage(path, b"bob-item-100", change)
    await asyncio.sleep(0.3)
    store = open_history_store(f"sqlite:///{path}", ttl_seconds=30)
    assert await store.append("ann", [Event("a", 1.0)]) == 1
    assert await store.read("bob") == []
    # Who comes again is stored behind what can't be deleted.
    assert await store.append_many({"bob": [Event("new", 1e3)], "carl": [Event("a", 1.0)]}) == 2
    assert await store.read("bob") == [Event("new", 1e3)]
    await store.close()


@pytest.mark.parametrize("change", [change for _, change in DAMAGES], ids=[name for name, _ in DAMAGES])
async def test_a_damaged_history_that_expires_keeps_no_other_user_in_the_file(
    tmp_path: Path, change: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
):
    path, now = tmp_path / "histories.db", time.time()
    store = open_history_store(f"sqlite:///{path}", ttl_seconds=60)
    await store.append("bob", [Event(f"bob-item-{number}" + "x" * 50, float(number)) for number in range(200)])
    await store.append_many({f"user {number}": [Event("a", 1.0)] for number in range(300)})
    await store.close()
    damage(path, b"bob-item-100", change)
    monkeypatch.setattr(time, "time", lambda: now + 100)
    store = open_history_store(f"sqlite:///{path}", ttl_seconds=60)
    assert isinstance(store, SqliteHistoryStore)
    statements: list[str] = []
    store._writer.set_trace_callback(statements.append)
    await looked_through(store)
    # What stays is not tried again at each look.
    statements.clear()
    await looked_through(store)
    assert not any(statement.startswith("DELETE") for statement in statements)
    await store.close()
    with sqlite3.connect(path) as other:
        assert {user for (user,) in other.execute("SELECT user_id FROM histories")} <= {"bob"}
    other.close()


async def looked_through(store: SqliteHistoryStore) -> None:
    """Have all who can be forgotten leave the file."""
    while await asyncio.wrap_future(store._writing.submit(store._tidying.look, time.monotonic() + 5)):
        pass


async def test_a_history_under_another_users_name_is_damaged(filled: Path):
    with sqlite3.connect(filled) as other:
        other.execute("UPDATE histories SET (checksum, history) = (SELECT checksum, history FROM histories WHERE user_id = 'ann')"
                      " WHERE user_id = 'bob'")  # fmt: skip
    other.close()
    store = open_history_store(f"sqlite:///{filled}")
    await assert_bob_alone_is_damaged(store)
    assert await store.delete("bob") is True
    assert await store.append("bob", [Event("new", 1e3)]) == 1
    await store.close()


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        ("history", "CAST(x'e262' AS TEXT)", 2),
        ("history", "NULL", 2),
        ("checksum", "CAST(x'e262' AS TEXT)", 2),
        ("user_id", "CAST(x'e262' AS TEXT)", 2),
        ("user_id", "x'62'", 2),
        ("expires_at", "'b'", 3),
    ],
)
async def test_a_value_of_another_type_costs_its_user_alone(filled: Path, column: str, value: str, shown: int):
    """A bit of the head of a row makes a text of bytes or of a number, and most such texts are no UTF-8; zeros in it make no value."""
    with sqlite3.connect(filled) as other:
        # What changes the file otherwise asks for no constraint.
        other.execute("PRAGMA writable_schema = ON")
        other.execute("UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '') WHERE name = 'histories'")
    other.close()
    with sqlite3.connect(filled) as other:
        other.execute(f"UPDATE histories SET {column} = {value} WHERE user_id = 'bob'")
    other.close()
    store = open_history_store(f"sqlite:///{filled}")
    assert len(await store.sample(10, 1)) == shown
    if column in ("history", "checksum"):
        await assert_bob_alone_is_damaged(store)
    assert await store.delete("bob") is (column != "user_id")
    assert await store.read("bob") == []
    await store.close()


async def found_at_start(path: Path) -> list[tuple[str, str]]:
    """What the check of a file says until it has ended."""
    reports: list[tuple[str, str]] = []
    store = open_history_store(f"sqlite:///{path}", on_damage=lambda *report: reports.append(report))
    await asyncio.wrap_future(store._checking.submit(bool))
    await store.close()
    return reports


async def test_the_check_at_start_says_what_does_not_fit_together(filled: Path):
    assert await found_at_start(filled) == []
    # The page of the index of users, which only a check ever misses a row in.
    damage(filled, b"carl\x03", lambda page: page[:3] + b"\x00\x02" + page[5:])
    ((found, sentence),) = await found_at_start(filled)
    assert found == "file"
    assert sentence.startswith(f"The history file {filled} is damaged (")
    assert sentence.endswith("): what can't be read is refused; bring back a copy of the file.")


async def test_a_store_can_be_closed_while_its_file_is_checked(filled: Path):
    for _ in range(20):
        reports: list[tuple[str, str]] = []
        store = open_history_store(f"sqlite:///{filled}", on_damage=lambda *report, reports=reports: reports.append(report))
        await store.close()
        assert reports == []


async def test_reads_do_not_wait_for_writers_here_or_elsewhere(tmp_path: Path):
    path = tmp_path / "histories.db"
    store = open_history_store(f"sqlite:///{path}", timeout_seconds=20)
    await store.append("ann", [Event("a", 1.0)])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    appends = [asyncio.create_task(store.append("ann", [Event("b", 2.0)])) for _ in range(50)]
    await asyncio.sleep(0.05)
    for _ in range(100):
        assert await store.read("ann") == [Event("a", 1.0)]
    assert not any(append.done() for append in appends)
    other.execute("COMMIT")
    other.close()
    assert await asyncio.gather(*appends) == [1] * 50
    await store.close()


async def test_users_whose_lives_are_limited_are_looked_for_without_a_lock(tmp_path: Path):
    path = tmp_path / "histories.db"
    store = open_history_store(f"sqlite:///{path}", ttl_seconds=1000, timeout_seconds=0.05)
    await store.append_many({str(user): [Event("a", 1.0)] for user in range(200)})
    await store.close()
    store = open_history_store(f"sqlite:///{path}", ttl_seconds=3000, timeout_seconds=0.05)
    await store.append("175", [Event("b", 2.0)])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    # None of them would be kept longer, so another's writes may go on.
    assert await store.limit_lives([].append, [].append) == 0
    other.execute("COMMIT")
    other.close()
    await store.close()
    store = open_history_store(f"sqlite:///{path}", ttl_seconds=2000)
    statements: list[str] = []
    store._writer.set_trace_callback(statements.append)
    assert await store.limit_lives([].append, [].append) == 1
    (update,) = (statement for statement in statements if statement.startswith("UPDATE"))
    assert "WHERE rowid > 150 AND rowid <= 200 AND" in update
    await store.close()


async def test_appends_behind_a_writer_elsewhere_give_up_together(tmp_path: Path):
    path = tmp_path / "histories.db"
    store = open_history_store(f"sqlite:///{path}", timeout_seconds=0.3)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    # One after the other they would take a minute.
    async with asyncio.timeout(15):
        answers = await asyncio.gather(*(store.append("ann", [Event("a", 1.0)]) for _ in range(200)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {HistoryUnavailable}
    other.close()
    assert await store.append("ann", [Event("a", 1.0)]) == 1
    await store.close()


async def test_a_server_starts_while_a_writer_elsewhere_holds_the_file(tmp_path: Path):
    path = tmp_path / "histories.db"
    store = open_history_store(f"sqlite:///{path}")
    await store.append("ann", [Event("a", 1.0)])
    await store.close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store = open_history_store(f"sqlite:///{path}", timeout_seconds=0.1)
    assert await store.read("ann") == [Event("a", 1.0)]
    await store.close()
    other.close()
