"""Adapters of LoRA and its kin (DoRA, rsLoRA) on their base model, merged by peft.

Invariant: a merged model is the one that peft makes of the same two directories; an adapter that peft would apply only in part, or that
can't be merged, is refused.
"""

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from drafting.alignment.own_head import has_own_head, resize_embeddings
from drafting.errors import first_line
from drafting.model_files import ADAPTER_FILE, ModelFiles
from drafting.pretrained import LOADING_ERRORS
from verification.hosts.checkpoint import HostError, auto_class, load_config
from verification.hosts.weights import Places, equal_rows, file_of, pieces, read_headers, stored_dtype, weight_files

logger = logging.getLogger(__name__)

ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model."
# peft's own modules in the names of weights, beside or around the base's.
WRAPPERS = re.compile(r"\.(base_layer|token_adapter|modules_to_save|original_module)\b")
# The base's own weights among those of an adapter that has another number of tokens.
OF_BASE = re.compile(r"\.(base_layer|original_module)\.weight$")
# Settings of adapters that do not become part of the base's weights.
UNMERGED = {"alora_invocation_tokens": "is applied to a part of each text", "layer_replication": "repeats layers of its base"}


def load_model_config(files: ModelFiles) -> PretrainedConfig:
    """The configuration of a model, with the precision of its weights, and with an adapter's number of tokens if it has one.

    Raises:
        HostError: as `load_config`, or the adapter can't be merged.
    """
    config = load_config(files.weights)
    config.dtype = config.dtype or stored_dtype(files.weights)
    if files.base is None:
        return config
    merged = deepcopy(config)
    merged.vocab_size = _vocabulary_size(files, config)
    return merged


def load_reference(files: ModelFiles, dtype: torch.dtype) -> PreTrainedModel:
    """Load a model, its adapter merged if it has one, with transformers' own attention.

    Raises:
        HostError: as `load_merged`, or transformers does not load it.
    """
    config = load_model_config(files)
    if files.base is not None:
        return load_merged(files, config, dtype).eval()
    try:
        model: PreTrainedModel = auto_class(config).from_pretrained(files.directory, config=config, dtype=dtype, trust_remote_code=False)
    except LOADING_ERRORS as error:
        raise HostError(f"The model in {files.directory} cannot be loaded by transformers: {first_line(error)}") from error
    return model.eval()


def load_merged(files: ModelFiles, config: PretrainedConfig, dtype: torch.dtype, attention: str | None = None) -> PreTrainedModel:
    """Load the base and merge the adapter into it.

    Args:
        config: of the merged model (`load_model_config`).
        attention: attention of the model, as transformers names it.

    Raises:
        HostError: peft is not installed, or base and adapter do not belong together.
    """
    try:
        from peft import PeftConfig, PeftModel
    except ImportError as error:
        raise HostError(f"Serving an adapter needs peft ({first_line(error)}): pip install 'atspeed-server[train]'.") from error
    try:
        settings = {"dtype": dtype, "attn_implementation": attention, "trust_remote_code": False}
        model = auto_class(config).from_pretrained(files.weights, config=load_config(files.weights), **settings)
        if config.vocab_size != model.config.vocab_size:
            # The numbers of the new rows are the adapter's, which brings them all.
            resize_embeddings(model, config.vocab_size, mean_resizing=False)
        tied = _tied_weights(model)
        wrapped = PeftModel(model, PeftConfig.from_pretrained(files.directory))
        loaded = wrapped.load_adapter(str(files.directory), "default")
    except LOADING_ERRORS as error:
        raise HostError(
            f"The adapter in {files.directory} cannot be merged into its base in {files.weights}: {first_line(error)}"
        ) from error
    # Of a resized base, peft also saves whole embeddings a second time under the names of its own modules.
    unknown = [name for name in loaded.unexpected_keys if not WRAPPERS.search(name)]
    if differing := sorted([*loaded.missing_keys, *unknown]):
        raise HostError(
            f"The adapter in {files.directory} does not belong to its {ADAPTER_FILE} and the base in {files.weights}: {differing[0]!r} is "
            f"missing in its weights or has no place in the model, as {len(differing) - 1} others."
        )
    _separate(wrapped, tied)
    merged: PreTrainedModel = wrapped.merge_and_unload()
    _tie_equal(merged, tied.values())
    return merged


def warn_if_untrained(files: ModelFiles) -> None:
    """Warn if all that an adapter holds of trained tokens, embeddings and head is exactly its base's; what differs ends the reading."""
    if files.base is None:
        return
    path, shards, settings = _adapter_weights(files), weight_files(files.weights), files.adapter_settings
    adapter, base = read_headers([path]), _of_tokens(read_headers(shards), load_config(files.weights))
    of_base = [(file_of(name, shards), name, weight.shape) for name, weight in base.items()]
    of_base += [(path, name, weight.shape) for name, weight in adapter.items() if OF_BASE.search(name)]
    shapes = {shape for *_, shape in of_base}
    trained = {name: found for name, weight in adapter.items() if (found := _trained_places(name, weight, settings, shapes))}
    equal = (
        any(equal_rows(path, name, where, other, places) for places in found for where, other, _ in of_base)
        for name, found in trained.items()
    )
    if trained and all(equal):
        logger.warning(
            "The adapter in %s holds %s exactly as its base in %s does, which no training leaves: most likely it was combined of others "
            "with peft's add_weighted_adapter, which leaves out what they had learnt there; serve one of these, or average the models that "
            "they make when merged.",
            files.directory,
            ", ".join(WRAPPERS.sub("", name.removeprefix(PREFIX)) for name in sorted(trained)),
            files.weights,
        )


def _trained_places(name: str, weight: Tensor, settings: Mapping[str, Any], shapes: Collection[torch.Size]) -> list[list[Places]]:
    """Which rows of the base's are to be compared with those of an adapter's weight, by each list of tokens that these may be of; none if
    the weight is not of tokens, or was not trained as it is.

    Args:
        shapes: of the base's weights with a row for each token.
    """
    module, _, part = name.rpartition(".")
    if part == "trainable_tokens_delta":
        chosen = settings.get("trainable_token_indices") or []
        lists = [tokens for tokens in (list(chosen.values()) if isinstance(chosen, dict) else [chosen]) if len(tokens) == len(weight)]
        return [[(slice(row, row + 1), slice(token, token + 1)) for row, token in enumerate(tokens)] for tokens in lists]
    # Embeddings may also be in the file untrained, as peft's save_embedding_layers says.
    is_trained = part == "weight" and module.endswith(tuple(settings.get("modules_to_save") or ()))
    return [pieces(len(weight))] if is_trained and weight.shape in shapes else []


def _tied_weights(model: PreTrainedModel) -> dict[Tensor, list[str]]:
    """The names of each weight that has several: of a T5 those of its head and of the embeddings of encoder and decoder."""
    names: dict[Tensor, list[str]] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        names.setdefault(weight, []).append(name)
    return {weight: group for weight, group in names.items() if len(group) > 1}


def _separate(model: nn.Module, tied: Collection[Tensor]) -> None:
    """Give each module with one of these weights a copy of its own: peft merges in place, and what it adds for one is not the others'."""
    found: set[nn.Module | Tensor] = set()
    for name, _ in list(model.named_parameters(remove_duplicate=False)):
        weight, (where, _, attribute) = model.get_parameter(name), name.rpartition(".")
        module = model.get_submodule(where)
        if weight in found:
            if module in found:
                # Resized embeddings of a T5 are one module under several names.
                module = deepcopy(module)
                model.set_submodule(where, module)
            setattr(module, attribute, nn.Parameter(weight.detach().clone(), requires_grad=False))
        elif weight in tied:
            found |= {weight, module}


def _tie_equal(model: PreTrainedModel, tied: Iterable[list[str]]) -> None:
    """Tie again what is still equal, and say in the configuration whether the head is tied, which peft has settled before."""
    for group in tied:
        kept: list[nn.Parameter] = []
        for name in group:
            weight = model.get_parameter(name)
            same = next((other for other in kept if torch.equal(other, weight)), None)
            if same is None:
                kept.append(weight)
            else:
                where, _, attribute = name.rpartition(".")
                setattr(model.get_submodule(where), attribute, same)
    if model.get_output_embeddings() is not None:
        model.config.tie_word_embeddings = not has_own_head(model)


def _vocabulary_size(files: ModelFiles, config: PretrainedConfig) -> int:
    """The number of tokens of the merged model, by the adapter's weights: those of the base, or all that a resized one has."""
    settings, where = files.adapter_settings, f"The adapter in {files.directory}"
    if (kind := settings.get("peft_type")) != "LORA":
        raise HostError(f"{where} is of the kind {kind}: only LoRA, DoRA and rsLoRA can be served; merge it into its base yourself.")
    if config.to_dict().get("quantization_config") is not None:
        raise HostError(
            f"{where} can't be merged into the quantized base in {files.weights}: name the base in full precision with {files.flag}."
        )
    for setting, reason in UNMERGED.items():
        if settings.get(setting):
            raise HostError(f"{where} can't be merged, because it {reason} ({setting} in its {ADAPTER_FILE}).")
    weights = read_headers([_adapter_weights(files)])
    adapter = {WRAPPERS.sub("", name.removeprefix(PREFIX)): weight for name, weight in weights.items()}
    of_tokens = _of_tokens(read_headers(weight_files(files.weights)), config).keys()
    sizes = {size for name, weight in adapter.items() if (size := _tokens(name, weight, of_tokens)) is not None} - {config.vocab_size}
    if not sizes:
        return int(config.vocab_size)
    if len(sizes) > 1 or not of_tokens <= set(adapter):
        raise HostError(
            f"{where} was trained with another number of tokens than its base in {files.weights} has ({config.vocab_size}), but does not "
            "hold all of their embeddings: save it with peft's save_embedding_layers=True."
        )
    return sizes.pop()


def _adapter_weights(files: ModelFiles) -> Path:
    """The file of an adapter's weights."""
    paths = [path for name in ADAPTER_WEIGHTS if (path := files.directory / name).is_file()]
    if not paths:
        raise HostError(f"The adapter in {files.directory} has no weights: no {' and no '.join(ADAPTER_WEIGHTS)} is in it.")
    return paths[0]


def _of_tokens(base: Mapping[str, Tensor], config: PretrainedConfig) -> dict[str, Tensor]:
    """Those of a base's weights that have a row for each token."""
    return {name: weight for name, weight in base.items() if weight.ndim == 2 and len(weight) == config.vocab_size}


def _tokens(name: str, weight: Tensor, of_tokens: Collection[str]) -> int | None:
    """The number of tokens by the shape of an adapter's weight; None if it has no row for each token."""
    module, _, part = name.partition(".lora_")
    if name in of_tokens:
        return len(weight)
    if f"{module}.weight" not in of_tokens:
        return None
    return {"embedding_A": weight.shape[-1], "B.weight": len(weight)}.get(part)
