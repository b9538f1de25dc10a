"""What is restored is what was backed up, or nothing."""

import random

import msgspec
import pytest

from server.control import Position, State
from server.control.backup import pack, unpack
from server.control.records import FORM, WRITTEN_IN, FilterRecord, encode_filter
from server.errors import BackupRefused

MEANING = encode_filter("price < 5")
STATE = State(Position("g", 7, "w"), {"": b"", "filter/naïve 🎬": MEANING, "later/x": bytes(range(256)) * 4})


def test_a_backup_comes_back():
    assert unpack(pack(STATE)) == STATE
    assert unpack(pack(State(STATE.position, {}))) == State(STATE.position, {})


def test_what_replicas_can_not_read_is_not_restored():
    names = msgspec.msgpack.encode(FilterRecord(None, b"none", b"of these"))
    for key, value in (("version/x", b"1" * 10), ("activation/one", b""), ("filter/x", MEANING[:-1]), ("filter/x", names)):
        with pytest.raises(BackupRefused, match=r"^The backup can't be read: .+\.$"):
            unpack(pack(State(STATE.position, {key: value})))


def test_what_a_later_release_has_written_in_a_form_of_its_own_is_not_restored():
    for form in (FORM, FORM + 1):
        file = pack(State(STATE.position, {WRITTEN_IN: msgspec.msgpack.encode(form), "filter/x": MEANING}))
        if form == FORM:
            assert unpack(file).position == STATE.position
        else:
            with pytest.raises(BackupRefused, match="later release"):
                unpack(file)


def test_no_damaged_backup_is_restored():
    file, rng = pack(STATE), random.Random(0)
    damaged = [file[:length] for length in range(0, len(file), 7)] + [file + b"\0"]
    for _ in range(200):
        changed = bytearray(file)
        changed[rng.randrange(len(file))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(changed))
    for each in damaged:
        with pytest.raises(BackupRefused, match=r"^(This is no backup|The backup is damaged) .*\.$"):
            unpack(each)
