"""Where tables lie: one file, or a directory of part files as Spark writes it.

Invariant: what a file is, is told by its first bytes and never by its name, so `part-00000` and `reviews.json.gz` are read alike; in a
directory, names say which files are data at all, and folders called `key=value` are columns.
"""

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from drafting.errors import InteractionError, check_file

_DATA_ENDINGS = {".csv", ".tsv", ".txt", ".dat", ".data", ".json", ".jsonl", ".ndjson", ".parquet", ".pq", ".inter", ".item", ".user"}
_PACKED_ENDINGS = {".gz", ".bz2", ".xz", ".zst"}
_OPENERS: Mapping[bytes, Callable[[IO[bytes]], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_ZSTANDARD, _ZIP, _PARQUET = b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"PAR1"
_NOTHING = "__HIVE_DEFAULT_PARTITION__"
BOM = b"\xef\xbb\xbf"
_HEAD_BYTES = 1 << 16
_PIECE_BYTES = 1 << 20
# What reading a damaged or packed file may raise.
UNREADABLE = (OSError, EOFError, lzma.LZMAError, zlib.error)


class Format(Enum):
    """Forms of a table."""

    DELIMITED = "delimited text"
    JSON = "JSON"
    PARQUET = "parquet"


@dataclass(frozen=True)
class Source:
    """A file of a table.

    Attributes:
        constants: columns whose value is the same for all its rows, from the names of its folders.
    """

    path: Path
    format: Format
    constants: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Sources:
    """All files of a table, in the order of their paths, and the names of those that are left out: they are called otherwise, or empty."""

    files: tuple[Source, ...]
    left_out: tuple[str, ...] = ()


def find_sources(path: Path) -> Sources:
    """The files of a table: `path` itself, or those of the directory `path`.

    Raises:
        InteractionError: there is no data, or files of different forms.
    """
    if not path.is_dir():
        return Sources((Source(path, format_of(path)),))
    found = [each for each in sorted(path.rglob("*")) if each.is_file() and not _hidden(each.relative_to(path))]
    data = [each for each in found if _is_data(each)]
    if not data:
        raise InteractionError(f"The directory {path} holds no data: it needs files such as .csv, .tsv, .jsonl, .parquet, or part-….")
    # Spark and others write an empty part where one has no rows.
    full = [each for each in data if head_of(each).strip()]
    if not full:
        raise InteractionError(f"All files of the directory {path} are empty.")
    files = tuple(Source(each, format_of(each), _constants(each.relative_to(path))) for each in full)
    other = next((each for each in files if each.format is not files[0].format), None)
    if other is not None:
        raise InteractionError(
            f"The directory {path} holds {files[0].format.value} ({files[0].path.name}) and {other.format.value} ({other.path.name}): "
            "name the file or folder that is meant."
        )
    kept = set(full)
    return Sources(files, tuple(each.name for each in found if each not in kept))


def format_of(path: Path) -> Format:
    """The form of a file, by its first bytes.

    Raises:
        InteractionError: it can't be read, is empty, or a zip archive.
    """
    check_file(path, "The file", InteractionError)
    first = head_of(path)
    if not first.strip():
        raise InteractionError(f"{path} is empty.")
    if first.startswith(_ZIP):
        raise InteractionError(f"{path} is a zip archive: unpack it, and give the directory.")
    if first.startswith(_PARQUET):
        return Format.PARQUET
    return Format.JSON if first.lstrip()[:1] in (b"{", b"[") else Format.DELIMITED


def head_of(path: Path) -> bytes:
    """The first bytes of a file, unpacked, without a byte order mark.

    Raises:
        InteractionError: it can't be read.
    """
    try:
        with opened(path) as file:
            return file.read(_HEAD_BYTES).removeprefix(BOM)
    except UNREADABLE as error:
        raise InteractionError(f"{path} cannot be unpacked: {error}.") from error


def are_utf8(paths: Iterable[Path]) -> bool:
    """Whether files are surely UTF-8: all that stands in them is, and it is not ASCII alone, which other encodings share.

    Raises:
        InteractionError: a file can't be read.
    """
    sure = False
    for path in paths:
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            with opened(path) as file:
                while piece := file.read(_PIECE_BYTES):
                    decoder.decode(piece)
                    sure = sure or not piece.isascii()
                decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
        except UNREADABLE as error:
            raise InteractionError(f"{path} cannot be unpacked: {error}.") from error
    return sure


def opened(path: Path, raw: IO[bytes] | None = None) -> IO[bytes]:
    """The file's bytes, unpacked if it is packed (gzip, bzip2, xz, zstandard).

    Args:
        raw: the opened file, where a caller wants to see how far it is read.

    Raises:
        InteractionError: it can't be opened.
    """
    try:
        raw = raw or path.open("rb")
        first = raw.read(8)
        raw.seek(0)
    except OSError as error:
        raise InteractionError(f"{path} cannot be read: {error.strerror}.") from error
    if first.startswith(_ZSTANDARD):
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd"))
    unpacked: IO[bytes] = next((opener(raw) for magic, opener in _OPENERS.items() if first.startswith(magic)), raw)
    return unpacked


def _hidden(path: Path) -> bool:
    """Whether a name on the way says that it is no data, as `_SUCCESS` and `.part-00000.crc` do."""
    return any(part.startswith((".", "_")) for part in path.parts)


def _is_data(path: Path) -> bool:
    stem = path.with_suffix("") if path.suffix in _PACKED_ENDINGS else path
    return stem.suffix.lower() in _DATA_ENDINGS or path.name.startswith("part-")


def _constants(path: Path) -> dict[str, str | None]:
    pairs = (part.partition("=") for part in path.parts[:-1] if "=" in part)
    return {name: None if value == _NOTHING else unquote(value) for name, _, value in pairs}
