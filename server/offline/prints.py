"""Prints of a model's files, by which workers on other machines tell whether they have the model that a run began with.

A print is a file's size and a digest: of the whole of a small file (configuration, tokenizer, prompt), and of 64 pieces of 4 KiB, evenly
spread, of a larger one (weights). So the files of a model that was trained anew have other prints, a copy has the same ones whenever it was
made, and a model of any size costs some hundred short reads. Weights that differ in few places may have one print.
"""

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path

from drafting.errors import SetupError
from server.offline.purpose import directories_of
from server.settings import Settings

# What else lies in the directory, such as a README, makes no other model.
_ENDINGS = (".safetensors", ".bin", ".json", ".model", ".txt", ".jinja")
_PIECES, _PIECE = 64, 4096
_SMALL = _PIECES * _PIECE


class OtherModel(SetupError):
    """A model's files that are others than those that a run began with, or that can't be read; the message is a sentence."""


def prints_of(settings: Settings) -> dict[str, str]:
    """The print of each file of the models, and of the neighbour model, by its path.

    Raises:
        ModelFilesError: an adapter's base is not there.
        OtherModel: a file can't be read.
    """
    return {str(path): _print(path) for path in sorted({*_files(settings)})}


def check_here(settings: Settings) -> None:
    """Refuse to begin a run of workers on other machines where the files that theirs are compared with are missing.

    Raises:
        ModelFilesError: an adapter's base is not there.
        OtherModel: a model is not there.
    """
    for directory in directories_of(settings):
        if directory is not None and not any(directory.glob("*")):
            raise OtherModel(
                f"There is no model at {directory} here: the models of all workers are compared with that of the machine that begins."
            )


def check_prints(began: Mapping[str, str], settings: Settings) -> None:
    """Refuse a model with other files than those that a run began with.

    Raises:
        ModelFilesError, OtherModel: also as `prints_of`.
    """
    there = prints_of(settings)
    for path in sorted(began.keys() | there.keys()):
        if began.get(path) != there.get(path):
            problem = "is not there" if path not in there else "is none of those" if path not in began else "is not the one"
            raise OtherModel(f"{path} {problem} that the run began with: all workers need the same model.")


def _files(settings: Settings) -> Iterator[Path]:
    if settings.neighbours is not None:
        yield settings.neighbours
    for directory in directories_of(settings):
        if directory is not None:
            yield from (path for path in directory.glob("*") if path.suffix in _ENDINGS and path.is_file())


def _print(path: Path) -> str:
    digest = blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            last = size - _PIECE
            for place in [last * piece // (_PIECES - 1) for piece in range(_PIECES)] if size > _SMALL else [0]:
                file.seek(place)
                digest.update(file.read(_PIECE if size > _SMALL else _SMALL))
    except OSError as error:
        raise OtherModel(f"{path} can't be read: {error.strerror}.") from error
    return f"{size} {digest.hexdigest()}"
