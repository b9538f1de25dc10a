"""The weights of a model directory: which files hold them, and whether they are those of its configuration.

Invariant: the files that `weight_files` returns are all that either host reads. Hosts choose files by rules of their own and fill what is
missing with other numbers, so whatever they could choose or fill differently is refused here by name, from headers alone, but for the names
of quantized weights.
"""

import json
import logging
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from drafting.errors import first_line
from drafting.model_files import weights_twice
from drafting.pretrained import LOADING_ERRORS
from verification.hosts.checkpoint import DTYPES, HostError, has_encoder, load_config, model_class, refusal

# A name's suffix, the stem of its library, and its files beside the weights that no library reads.
SAFETENSORS = (".safetensors", "model")
PICKLES = (".bin", "pytorch_model")
OF_TRAINERS = ("training_args.bin", "optimizer.bin", "scheduler.bin", "scaler.bin")
OTHER_WEIGHTS = ("*.pth", "*.pt", "*.ckpt", "*.gguf", "*.h5", "*.msgpack")
# Constants that older releases saved with the weights, and newer ones make themselves.
CONSTANTS = re.compile(r"(^|\.)(masked_bias|inv_freq|position_ids)$")
COMPARED_ROWS = 4096
# Rows of one weight, and those of another that they are compared with.
Places = tuple[slice, slice]
# As safetensors names them; the others, of whole and of quantized numbers, are all alike here.
STORED = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def weight_files(model_dir: Path) -> list[Path]:
    """The files of a model's weights, sorted.

    Raises:
        HostError: there are none, or others beside them that a host could read instead.
    """
    for suffix, stem in (SAFETENSORS, PICKLES):
        # Libraries prefer safetensors, and read no pickle beside them.
        if present := sorted(path for path in model_dir.glob(f"*{suffix}") if path.name not in OF_TRAINERS):
            return _chosen(model_dir, present, stem + suffix)
    others = sorted(path.name for pattern in OTHER_WEIGHTS for path in model_dir.glob(pattern))
    found = f": {others[0]} is of another kind; write the model with transformers' save_pretrained" if others else ""
    raise HostError(f"The model directory {model_dir} has no weights: no .safetensors and no pytorch_model.bin file is in it{found}.")


def _chosen(model_dir: Path, present: list[Path], name: str) -> list[Path]:
    """The files of a kind that its one file or its index names; all that are present must be among them."""
    whole, index = model_dir / name, model_dir / f"{name}.index.json"
    if whole not in present and not index.exists():
        kind = "is of another kind; write the model with transformers' save_pretrained"
        raise HostError(f"The model directory {model_dir} has neither {name} nor {index.name}: {present[0].name} {kind}.")
    if twice := weights_twice(model_dir):
        raise HostError(twice)
    chosen = [whole] if whole in present else _indexed(index)
    if others := sorted(set(present) - set(chosen)):
        raise HostError(
            f"It is not clear which weights {model_dir} holds: {others[0].name} lies beside {chosen[0].name}, and not every host would "
            "leave it out. Move it to another directory."
        )
    return chosen


def _indexed(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        files = [index.parent / name for name in names]
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise HostError(f"{index} is damaged: it does not say which files hold the weights.") from error
    for path in files:
        if path.parent != index.parent or not path.is_file():
            raise HostError(f"The weights of {index.parent} are not complete: {index.name} names {path.name}, which is not there.")
    return files


def read_headers(files: list[Path]) -> dict[str, Tensor]:
    """The weights by name, without their values: tensors on the meta device.

    Raises:
        HostError: a file is damaged, or two hold a weight of the same name.
    """
    found: dict[str, Path] = {}
    weights: dict[str, Tensor] = {}
    for path in files:
        header = _header(path) if path.suffix == ".safetensors" else _pickled(path)
        for name in header:
            if name in found:
                raise HostError(f"The weight {name!r} is both in {found[name]} and in {path}: only one of them can be right.")
            found[name] = path
        weights |= header
    return weights


def stored_dtype(model_dir: Path) -> torch.dtype | None:
    """The precision that most of a model's numbers are stored in; None if it is none that a model is served in.

    Raises:
        HostError: as `weight_files` and `read_headers`.
    """
    numbers: Counter[torch.dtype] = Counter()
    for weight in read_headers(weight_files(model_dir)).values():
        numbers[weight.dtype] += weight.numel()
    return max(DTYPES.values() & numbers.keys(), key=numbers.__getitem__, default=None)


def _header(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            slices = {name: file.get_slice(name) for name in names}
            return {
                name: torch.empty(part.get_shape(), dtype=STORED.get(part.get_dtype(), torch.uint8), device="meta")
                for name, part in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise HostError(f"The weights in {path} cannot be loaded: the file is damaged or cut off ({error}).") from error


def _pickled(path: Path, device: str = "meta") -> dict[str, Tensor]:
    """The tensors of a pickle; one of anything else, which could run any code, is refused."""
    is_zip = zipfile.is_zipfile(path)
    try:
        compressed = is_zip and _is_compressed(path)
        weights = torch.load(path, map_location=device, weights_only=True, mmap=is_zip)
    except (RuntimeError, ValueError, TypeError, AttributeError, EOFError, UnpicklingError, zipfile.BadZipFile) as error:
        raise HostError(
            f"The weights in {path} cannot be loaded: the file is damaged or cut off, or a pickle that holds more than tensors, which is "
            "never run; save the model as safetensors."
        ) from error
    if compressed:
        raise HostError(
            f"The weights in {path} are compressed, and libraries that map such a file take its compressed bytes for weights: save the "
            "model as safetensors."
        )
    if not isinstance(weights, dict):
        raise HostError(f"The weights in {path} cannot be loaded: the file holds no table of tensors, but a {type(weights).__name__}.")
    return weights


def _is_compressed(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())


def check_names(model_dir: Path) -> None:
    """Compare the weights with the model of the configuration: all are there, in its shapes, and no others.

    Quantized weights have names of their method, which are not compared: transformers tells its host what is missing, vLLM does not.

    Raises:
        HostError: they differ; the sentence names the file or the directory and a weight.
    """
    config = load_config(model_dir)
    family = model_class(config)
    files = weight_files(model_dir)
    weights = read_headers(files)
    if family is None or config.to_dict().get("quantization_config") is not None:
        return
    try:
        with _quiet():
            model, loading = family.from_pretrained(
                None,
                config=config,
                state_dict=dict(weights),
                dtype=torch.float32,
                attn_implementation="eager",
                device_map={"": "meta"},
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except LOADING_ERRORS as error:
        raise refusal(error, first_line(error), config, model_dir) from error
    where = f"The weights in {model_dir} are not those of its config.json"
    if missing := sorted(loading["missing_keys"]):
        raise HostError(f"{where}: {len(missing)} are missing, {missing[0]!r} among them.")
    if wrong := sorted(loading["mismatched_keys"]):
        name, found, wanted = wrong[0]
        raise HostError(f"{where}: {name!r} is of shape {list(found)}, but that of the configuration is {list(wanted)}.")
    constants = {name for name, _ in model.named_buffers()}
    if unknown := sorted(name for name in loading["unexpected_keys"] if name not in constants and not CONSTANTS.search(name)):
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise HostError(f"{where}: its model has no {unknown[0]!r}{more}, and lists would be made without them.")
    if not has_encoder(config):
        # T5's configurations always say tied, and its one host keeps a head of its own.
        _check_tied(model, weights, files)


def _check_tied(model: PreTrainedModel, weights: dict[str, Tensor], files: list[Path]) -> None:
    """Weights that the configuration ties must be the same, where they are all there, and hosts read one by the name of the first."""
    for name, source in model.all_tied_weights_keys.items():
        base = source.removeprefix(f"{model.base_model_prefix}.")
        stored = source if source in weights else base
        if name not in weights or name == source:
            continue
        if stored not in weights:
            raise HostError(
                f"The weights in {files[0].parent} lack {source!r}, and not every host takes {name!r} in its place, to which the "
                "config.json ties it: save the model with transformers' save_pretrained."
            )
        path, everything = file_of(name, files), pieces(len(weights[name]))
        if weights[name].shape != weights[stored].shape or not equal_rows(path, name, file_of(stored, files), stored, everything):
            raise HostError(
                f"{files[0].parent / 'config.json'} ties {name!r} to {stored!r}, but {path} holds another one of its own: "
                'set "tie_word_embeddings" to false if the model was trained with it, or remove it.'
            )


def file_of(name: str, files: list[Path]) -> Path:
    """The one of these files that holds a weight."""
    return next(path for path in files if name in read_headers([path]))


def pieces(rows: int) -> list[Places]:
    """All rows of two weights that have so many."""
    places = [slice(start, start + COMPARED_ROWS) for start in range(0, rows, COMPARED_ROWS)]
    return list(zip(places, places, strict=True))


def equal_rows(path: Path, name: str, other_path: Path, other: str, places: Iterable[Places]) -> bool:
    """True if the rows of two weights are equal in the precision of the first one; they are read in pieces, up to the first that differ."""
    with _opened(path, name) as ours, _opened(other_path, other) as theirs:
        pairs = ((ours[place], theirs[other_place]) for place, other_place in places)
        return all(torch.equal(rows, other_rows.to(rows.dtype)) for rows, other_rows in pairs)


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Any]:
    """A weight that is read where it is sliced."""
    if path.suffix != ".safetensors":
        yield _pickled(path, "cpu")[name]
        return
    with safe_open(path, framework="pt") as file:
        yield file.get_slice(name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own report of what differs, and without its bar."""
    reports, bar = logging.getLogger("transformers.modeling_utils"), transformers_logging.is_progress_bar_enabled()
    was_disabled, reports.disabled = reports.disabled, True
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        reports.disabled = was_disabled
        if bar:
            transformers_logging.enable_progress_bar()
