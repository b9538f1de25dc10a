"""Hashes of files and models, by which teacher data and drafts name the target that they were made from.

Light to import, because commands compare hashes before they load a training library.
"""

import hashlib
from pathlib import Path


def file_hash(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_hash(model_dir: Path) -> str:
    """The hash of a model's weights, configuration, tokenizer and prompt, sixteen hexadecimal digits."""
    names = ("config.json", "tokenizer.json", "prompt.json")
    files = [*(model_dir / name for name in names), *sorted(model_dir.glob("*.safetensors")), *sorted(model_dir.glob("pytorch_model*.bin"))]
    digest = hashlib.sha256()
    for path in files:
        if path.is_file():
            digest.update(f"{path.name} {file_hash(path)}\n".encode())
    return digest.hexdigest()[:16]
