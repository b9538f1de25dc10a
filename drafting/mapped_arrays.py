"""Files of arrays that are memory-mapped instead of read: catalogs and neighbour models.

Invariant: a file under its final name is complete. It is written under another name and renamed, so a process never maps half a file, and
replacing a file does not change what a running process has mapped. The format is safetensors: a JSON header and raw arrays.
"""

import errno
import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import save_file

from drafting.cache import force_to_disk
from drafting.errors import SetupError

PART_SUFFIX = ".part"
# What reading a file raises that is cut off, damaged or something else.
_NOT_ARRAYS = (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, struct.error)
_HEADER_LENGTH = struct.Struct("<Q")

Arrays = Mapping[str, npt.NDArray[Any]]


def save_arrays(arrays: Arrays, header: Mapping[str, str], path: Path) -> None:
    """Write arrays by name, and texts about them.

    Raises:
        OSError: the file cannot be written; what was there before is still there.
    """
    building = path.with_name(path.name + PART_SUFFIX)
    try:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, building, dict(header))
        force_to_disk(building)
        building.replace(path)
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error)) from error
    finally:
        building.unlink(missing_ok=True)


def map_arrays(path: Path) -> tuple[dict[str, str], dict[str, npt.NDArray[Any]]]:
    """Map what `save_arrays` wrote: the texts and the arrays; the operating system reads pages when they are used.

    What it raises of a file that is cut off, damaged or something else, `reading` makes a sentence of.
    """
    # Copy on write, because PyTorch warns about read-only memory; nothing writes to it.
    data = np.memmap(path, np.uint8, mode="c")
    (length,) = _HEADER_LENGTH.unpack(data[: _HEADER_LENGTH.size].tobytes())
    start = _HEADER_LENGTH.size + length
    entries = json.loads(data[_HEADER_LENGTH.size : start].tobytes())
    header = entries.pop("__metadata__", {})
    plain = data.view(np.ndarray)
    arrays = {
        name: plain[start + first : start + last].view(_dtype(entry["dtype"])).reshape(entry["shape"])
        for name, entry in entries.items()
        for first, last in [entry["data_offsets"]]
    }
    return header, arrays


@contextmanager
def reading(path: Path, subject: str, kind: str, again: str, error: type[SetupError]) -> Iterator[None]:
    """Make sentences of what goes wrong while a file is mapped and its arrays are put together; sentences pass.

    Args:
        subject: what is read, as a sentence about it begins.
        kind: what the file should be.
        again: how it is made anew.
        error: class to raise.
    """
    try:
        yield
    except SetupError:
        raise
    except OSError as failed:
        raise error(f"{subject} {path} cannot be read: {failed.strerror}.") from failed
    except _NOT_ARRAYS as failed:
        raise error(f"{path} is no {kind}, or is cut off: {again}.") from failed


def digest_of(header: Mapping[str, str], arrays: Arrays) -> str:
    """SHA-256 of texts and of all arrays, wherever they lie in the file."""
    digest = hashlib.sha256(json.dumps(sorted(header.items())).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _dtype(name: str) -> np.dtype[Any]:
    """The dtype that safetensors calls `name`, such as U16 or I64."""
    return np.dtype(f"<{name[0].lower()}{int(name[1:]) // 8}")
