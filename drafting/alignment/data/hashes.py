"""Hashes of files and models, by which teacher data and drafts name the target that they were made from.

Light to import, because commands compare hashes before they load a training library.
"""

import hashlib
import json
from pathlib import Path

from drafting.model_files import ADAPTER_FILE, BASE_SETTING, ModelFiles

PARTS = ("config.json", "tokenizer.json", "prompt.json")


def file_hash(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_hash(model_dir: Path, base: Path | None = None, flag: str = "--base") -> str:
    """The hash of a model's weights, configuration, tokenizer and prompt, sixteen hexadecimal digits.

    An adapter's covers its base too, wherever that lies; `base` and `flag` are as for `ModelFiles.find`.

    Raises:
        ModelFilesError: it is not clear which model it is.
    """
    files = ModelFiles.find(model_dir, base, flag)
    digest = hashlib.sha256()
    _add_files(digest, files.weights, PARTS, ("*.safetensors", "pytorch_model*.bin"))
    if files.base is not None:
        settings = {name: value for name, value in files.adapter_settings.items() if name != BASE_SETTING}
        digest.update(f"{ADAPTER_FILE} {json.dumps(settings, sort_keys=True)}\n".encode())
        _add_files(digest, files.directory, PARTS[1:], ("adapter_model.*",))
    return digest.hexdigest()[:16]


def _add_files(digest: "hashlib._Hash", folder: Path, names: tuple[str, ...], patterns: tuple[str, ...]) -> None:
    for path in [*(folder / name for name in names), *(path for pattern in patterns for path in sorted(folder.glob(pattern)))]:
        if path.is_file():
            digest.update(f"{path.name} {file_hash(path)}\n".encode())
