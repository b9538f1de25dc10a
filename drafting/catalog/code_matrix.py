"""Catalogs from matrices of codes: GRID's tensors (`.pt`, a digit a row) and TIGER's arrays (`.npy`, an item a row).

Invariant: which side of a matrix the items are on is never guessed, and its shape is compared with the limits before any value is looked
at. Until then arrays and torch's usual files are only mapped; old or compressed torch files are read whole, which the limits of a file's
size and ratio bound. A torch file is read as data alone (`weights_only`), so none of its code runs.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from tokenize import TokenError
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from drafting.array_types import IntArray
from drafting.catalog.attributes import present_texts
from drafting.catalog.builder import MOST_EXACT, CatalogBuilder
from drafting.catalog.catalog import MAX_LENGTH, Catalog, CatalogError
from drafting.catalog.forms import TORCH_SUFFIXES
from drafting.catalog.item_list import ItemList
from drafting.catalog.limits import ReadLimits
from drafting.catalog.reading import Reading
from drafting.catalog.text_column import TextColumn
from drafting.errors import first_line

ItemsIn = Literal["rows", "columns"]
_ROWS_AT_ONCE = 1 << 18
_UNREADABLE = (
    *(RuntimeError, ValueError, TypeError, AttributeError, LookupError, EOFError, OSError, OverflowError),
    *(UnpicklingError, TokenError, zipfile.BadZipFile),
)


@dataclass(frozen=True)
class MatrixItems:
    """How to read the items of a matrix, where the file does not say it.

    Attributes:
        side: the side of the matrix that they are on; None where its shape tells.
        named: their ids in order; None for their numbers, from 0.
    """

    side: ItemsIn | None = None
    named: ItemList | None = None


def read_matrix(path: Path, reading: Reading, items: MatrixItems) -> Catalog:
    """Read a catalog from a matrix of whole numbers; see `load_catalog`.

    Raises:
        CatalogError: the file is damaged, too large or no such matrix, or it does not tell which side the items are on.
    """
    stored = _torch_matrix(path, reading.limits) if path.suffix in TORCH_SUFFIXES else load_array(path)
    if len(stored.shape) != 2:
        raise CatalogError(f"{path} holds an array of {len(stored.shape)} dimensions: a catalog is a matrix of items and digits.")
    side = items.side or _side(path, tuple(stored.shape))
    rows = stored if side == "rows" else stored.T
    reading.limits.check_items(len(rows))
    if items.named is not None and len(items.named.names) != len(rows):
        raise CatalogError(f"{path} has {len(rows):,} items in its {side}, but {len(items.named.names):,} are listed: each needs its own.")
    reading.on_form(f"a matrix of codes {list(stored.shape)} with an item in each of its {side}{_names_of(items.named)}")
    builder = CatalogBuilder(reading.limits)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        codes = _whole_numbers(rows[start : start + _ROWS_AT_ONCE], path)
        numbers = range(start, start + len(codes))
        names = [str(number) for number in numbers] if items.named is None else items.named.names[start : numbers.stop]
        known = {} if items.named is None else items.named.attributes_of(slice(start, numbers.stop))
        attributes = {name: present_texts(values) for name, values in known.items()}
        builder.add_columns(TextColumn.of(names), builder.codes_of_numbers(codes, reading.pattern), attributes)
        reading.on_items(len(codes))
    return builder.catalog()


def _names_of(named: ItemList | None) -> str:
    return ", called by their number, from 0" if named is None else ""


def _side(path: Path, shape: tuple[int, ...]) -> ItemsIn:
    """The side of a matrix that is too long to be the digits of identifiers."""
    in_rows, in_columns = (1 <= digits <= MAX_LENGTH for digits in shape[::-1])
    if in_rows and in_columns:
        raise CatalogError(
            f"{path} is a matrix of codes {list(shape)}, and its items may stand in its rows or in its columns: say which with "
            "--items-in rows or --items-in columns of `atspeed catalog convert`."
        )
    if in_rows or in_columns:
        return "rows" if in_rows else "columns"
    raise CatalogError(
        f"{path} is a matrix {list(shape)}, but identifiers have 1 to {MAX_LENGTH} digits: if it holds embeddings, `atspeed catalog build` "
        "makes identifiers from them."
    )


def load_array(path: Path, subject: str = "The catalog") -> npt.NDArray[Any]:
    """Map the array of a .npy file.

    Args:
        subject: how a sentence about the file begins.

    Raises:
        CatalogError: it holds something else, or is damaged.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except _UNREADABLE as error:
        raise CatalogError(f"{subject} {path} is not a .npy array: {first_line(error)}") from error
    if not isinstance(array, np.ndarray):
        # numpy goes by the first bytes, not by the name.
        array.close()
        raise CatalogError(f"{subject} {path} is not a .npy array, but a zip file, such as .npz: save the one array with np.save.")
    return array


def _torch_matrix(path: Path, limits: ReadLimits) -> npt.NDArray[Any]:
    """The tensor of a torch file as an array."""
    import torch

    is_plain_zip = False
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
            limits.check_ratio(sum(entry.file_size for entry in entries), path.stat().st_size)
            # A mapped file that is compressed would give its compressed bytes for values.
            is_plain_zip = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        tensor = torch.load(path, map_location="cpu", weights_only=True, mmap=is_plain_zip)
    except CatalogError:
        raise
    except _UNREADABLE as error:
        raise CatalogError(
            f"The catalog {path} cannot be read: the file is damaged or cut off, or a pickle that holds more than tensors, which is never "
            "run."
        ) from error
    if not isinstance(tensor, torch.Tensor):
        keys = f" with {', '.join(map(str, list(tensor)[:5]))}" if isinstance(tensor, dict) else ""
        raise CatalogError(f"The catalog {path} holds a {type(tensor).__name__}{keys} and not one tensor of codes: save that alone.")
    try:
        # Without a copy: a tensor may say that it has more values than are stored.
        array: npt.NDArray[Any] = tensor.detach().numpy()
    except (TypeError, RuntimeError) as error:
        raise CatalogError(f"The catalog {path} holds a tensor of the kind {tensor.dtype}, {tensor.layout}: save it as int64.") from error
    return array


def _whole_numbers(codes: npt.NDArray[Any], path: Path) -> IntArray:
    """Codes as int64."""
    if codes.dtype.kind not in "iuf":
        raise CatalogError(f"The catalog {path} holds values of type {codes.dtype}: it needs whole numbers.")
    wrong = ~((codes >= 0) & (codes <= MOST_EXACT) & (codes == np.floor(codes)))
    if wrong.any():
        raise CatalogError(f"{path} has the code {codes[wrong][0]}, which is not a whole number from 0 to 2^53.")
    return codes.astype(np.int64)
