"""A backup of the control state: one file, made of what a replica holds, that any replica can restore.

Invariant: what is read is what was written, and what replicas can follow: a file that is cut off, damaged or something else is refused,
before anything is restored.
"""

import hashlib
import zlib

import msgspec

from drafting.undecodable import UNDECODABLE
from server.control.base import Position, State
from server.control.records import FORM, decoded
from server.errors import BackupRefused

_BEGINNING = b"atspeed control backup 1\n"
_DIGEST_BYTES = hashlib.sha256().digest_size


class _Content(msgspec.Struct, array_like=True):
    position: Position
    values: dict[str, bytes]


_decoder = msgspec.msgpack.Decoder(_Content)


def pack(state: State) -> bytes:
    """The file of a state."""
    content = msgspec.msgpack.encode(_Content(state.position, dict(state.values)))
    return _BEGINNING + hashlib.sha256(content).digest() + content


def unpack(file: bytes) -> State:
    """The state of a file.

    Raises:
        BackupRefused: it is damaged, or none of `pack`.
    """
    if not file.startswith(_BEGINNING):
        raise BackupRefused(
            "This is no backup of a control store, or one of another release: such a file is made by atspeed control backup."
        )
    start = len(_BEGINNING) + _DIGEST_BYTES
    content = file[start:]
    if hashlib.sha256(content).digest() != file[len(_BEGINNING) : start]:
        raise BackupRefused("The backup is damaged or cut off: nothing was restored.")
    try:
        told = _decoder.decode(content)
        # Replicas could follow nothing that they can't read.
        if decoded(told.values).form > FORM:
            raise BackupRefused("The backup is of a later release of the server: restore it with that one.")
    except (*UNDECODABLE, ValueError, zlib.error) as error:
        raise BackupRefused(f"The backup can't be read: {error}.") from error
    return State(told.position, told.values)
