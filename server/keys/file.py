"""The file of keys: read as a whole, replaced as a whole.

Invariant: whoever reads the file finds the keys before or after a change, never a part of them, and of two changes at a time none is lost.
"""

import fcntl
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from drafting.undecodable import UNDECODABLE
from server.keys.key import Key, KeySet, Scope, new_key, new_salt

# A hundred thousand keys; what is larger is another file.
_MOST_BYTES = 32 * 2**20
_NEW_MODE = 0o640


class KeysFileError(ValueError):
    """A file of keys that can't be used; the message is a sentence."""


def read_bytes(path: Path) -> bytes:
    """The bytes of a file of keys. Raises KeysFileError."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise KeysFileError(f"The keys of {path} can't be read: {error.strerror}.") from error
    if len(data) > _MOST_BYTES:
        raise KeysFileError(f"{path} is larger than {_MOST_BYTES // 2**20} MiB: is it a file of keys?")
    return data


def parse(data: bytes, path: Path) -> KeySet:
    """The keys that a file holds. Raises KeysFileError, whose sentence quotes nothing of the file."""
    try:
        return msgspec.json.decode(data, type=KeySet)
    except UNDECODABLE as error:
        # It says what was expected and where, and no value; without the error itself, which holds the file's text.
        reason = str(error) if isinstance(error, msgspec.ValidationError) else "it is no JSON"
    raise KeysFileError(f"{path} is no file of keys ({reason}): make one with `atspeed keys add`.")


def change(path: Path, alter: Callable[[KeySet], KeySet]) -> None:
    """Replace a file of keys by what `alter` makes of it; one that is not there begins empty.

    Raises:
        KeysFileError: it can't be read or written; it is as before.
    """
    # A link stays one: what it leads to is replaced, and locked, whichever way leads there.
    real = path.resolve()
    try:
        folder = os.open(real.parent, os.O_RDONLY)
    except OSError as error:
        raise KeysFileError(f"There is no directory {real.parent} for the keys.") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        there = real.stat() if real.exists() else None
        keys = alter(KeySet(salt=new_salt()) if there is None else parse(read_bytes(real), path))
        _replace(real, keys, there)
    except OSError as error:
        raise KeysFileError(f"The keys of {path} can't be written: {error.strerror}.") from error
    finally:
        os.close(folder)


def add_key(path: Path, name: str, scopes: Collection[Scope], **bounds: Any) -> str:
    """Make a key, put its digest into a file, and return it; it is nowhere else.

    Args:
        bounds: fields of `Key`; those that are left out do not bind.

    Raises:
        KeysFileError: the name is taken, or the file can't be used.
    """
    text = new_key()

    def with_key(keys: KeySet) -> KeySet:
        if any(key.name == name for key in keys.keys):
            raise KeysFileError(f"{path} has a key {name!r} already: remove it first, or choose another name.")
        ordered = tuple(scope for scope in Scope if scope in scopes)
        return KeySet(salt=keys.salt, keys=(*keys.keys, Key(name=name, sha256=keys.digest(text.encode()).hex(), scopes=ordered, **bounds)))

    change(path, with_key)
    return text


def remove_key(path: Path, name: str) -> None:
    """Take a key out of a file.

    Raises:
        KeysFileError: there is none of this name, or the file can't be used.
    """

    def without_key(keys: KeySet) -> KeySet:
        left = tuple(key for key in keys.keys if key.name != name)
        if len(left) == len(keys.keys):
            raise KeysFileError(f"{path} has no key {name!r}.")
        return KeySet(salt=keys.salt, keys=left)

    read_bytes(path)
    change(path, without_key)


def _replace(path: Path, keys: KeySet, there: os.stat_result | None) -> None:
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            os.fchmod(file.fileno(), _NEW_MODE if there is None else _give(file.fileno(), there))
            file.write(msgspec.json.format(msgspec.json.encode(keys), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _give(descriptor: int, there: os.stat_result) -> int:
    """Give a file to whom the one before it belongs: a server that runs as another user must still be able to read it.

    Returns:
        The mode that it shall have: that of the one before it, without what that let its group do if another group has it now.
    """
    # Only root may give files away; to a group that one is in, anybody.
    for owner in (there.st_uid, -1):
        with suppress(PermissionError):
            os.fchown(descriptor, owner, there.st_gid)
            return there.st_mode & 0o777
    return there.st_mode & 0o707
