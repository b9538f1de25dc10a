"""What msgspec raises of bytes that it can't decode is one of the errors that readers catch."""

import msgspec
import pytest

from drafting.undecodable import UNDECODABLE

DEEP = 100_000


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b'"\xff"', b'{"\xff": 1}', b"[" * DEEP, b'{"unknown": ' + b"[" * DEEP],
    ids=["empty", "cut off", "text", "name", "nested", "nested deeper"],
)
@pytest.mark.parametrize("wanted", [object, dict[str, int]])
def test_damaged_json_is_undecodable(data: bytes, wanted: type) -> None:
    with pytest.raises(UNDECODABLE):
        msgspec.json.decode(data, type=wanted)


@pytest.mark.parametrize("data", [b"", b"\xa1\xff", b"\x91" * DEEP], ids=["empty", "text", "nested"])
def test_damaged_message_pack_is_undecodable(data: bytes) -> None:
    with pytest.raises(UNDECODABLE):
        msgspec.msgpack.decode(data)
