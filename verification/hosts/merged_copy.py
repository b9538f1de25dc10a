"""Merged copies of adapters and their bases, for hosts that load models from files alone.

Invariant: a copy's name holds the hash of base and adapter, and a copy that is there is whole: it is written beside its place, forced to
the disk and moved there with one rename, by one process at a time. A disk that fills up leaves nothing behind.
"""

import logging
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import GenerationConfig, PretrainedConfig

from drafting.alignment.data.hashes import model_hash
from drafting.cache import cache_directory, exclusive, force_to_disk
from drafting.model_files import ModelFiles
from verification.hosts.adapter import load_merged
from verification.hosts.checkpoint import HostError
from verification.hosts.weights import read_headers, weight_files

logger = logging.getLogger(__name__)

PARTIAL = "building-"
# Configuration and the headers of the weights.
SPARE_BYTES = 2**20


def merged_copy(files: ModelFiles, config: PretrainedConfig, dtype: torch.dtype) -> Path:
    """The directory of a merged copy in `ATSPEED_CACHE`, made if it is not there.

    Args:
        config: of the merged model (`load_model_config`).
        dtype: precision in which the model is merged and stored.

    Raises:
        HostError: base and adapter do not belong together, or the disk has no room.
    """
    digest = model_hash(files.directory, files.given_base)
    name = f"{files.directory.resolve().name}-{str(dtype).removeprefix('torch.')}-{digest}"
    folder = cache_directory() / "merged"
    if (folder / name).is_dir():
        return folder / name
    try:
        with exclusive(folder, lambda: logger.info("Another process merges an adapter in %s: waiting for it.", folder)):
            if not (folder / name).is_dir():
                _make(folder, name, files, config, dtype)
    except (OSError, SafetensorError) as error:
        raise HostError(
            f"The merged copy of {files.directory}, which vLLM needs, can't be written to {folder} ({error}): make room there, set "
            "ATSPEED_CACHE to another directory, or serve it with --engine transformers."
        ) from error
    return folder / name


def _make(folder: Path, name: str, files: ModelFiles, config: PretrainedConfig, dtype: torch.dtype) -> None:
    for leftover in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(leftover)
    needed = sum(weight.numel() for weight in read_headers(weight_files(files.weights)).values()) * dtype.itemsize
    # A resized vocabulary, and a head that the adapter unties.
    needed += 2 * config.vocab_size * config.hidden_size * dtype.itemsize + SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise HostError(
            f"The merged copy of {files.directory}, which vLLM needs, takes up to {needed / 2**30:.2f} GiB in {folder}, where "
            f"{free / 2**30:.2f} GiB are free: make room there, set ATSPEED_CACHE to another directory, or serve it with --engine "
            "transformers."
        )
    logger.info("Merging the adapter in %s into a copy of its base, of up to %.2f GiB, in %s.", files.directory, needed / 2**30, folder)
    partial = folder / f"{PARTIAL}{name}"
    try:
        merged = load_merged(files, config, dtype)
        # What the base says of generating texts is read beside it, and transformers does not write all that it reads.
        merged.generation_config = GenerationConfig()
        merged.save_pretrained(partial)
        for path in (*partial.iterdir(), partial):
            force_to_disk(path)
        partial.rename(folder / name)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
