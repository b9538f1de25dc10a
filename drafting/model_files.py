"""The directories that the parts of a model lie in: one for a whole model, two for an adapter on its base.

Invariant: what is ambiguous is refused here by the name of the file, so every command means the same model by the same directory.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from drafting.errors import SetupError

CONFIG_FILE = "config.json"
ADAPTER_FILE = "adapter_config.json"
GENERATION_FILE = "generation_config.json"
RENORMALISE = "renormalize_logits"
# Settings of generation of what transformers' constrained beams of one length become otherwise, and the values that change nothing.
NEUTRAL: Mapping[str, object] = {
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty", "guidance_scale"), 1.0),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size"), 0),
    **dict.fromkeys(("bad_words_ids", "sequence_bias", "suppress_tokens", "begin_suppress_tokens", "watermarking_config")),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id")),
}
PROMPT_FILE = "prompt.json"
BASE_SETTING = "base_model_name_or_path"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
# Families with an encoder and a decoder whose positions are relative, so that those of a tree are depths: those that can be served.
ENCODER_DECODERS = {"t5", "mt5", "umt5"}
# Files of all weights of a model, best liked by libraries first; what says which shards hold them instead is called after these.
WHOLE_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
WEIGHTS = (*WHOLE_WEIGHTS, *(f"{name}.index.json" for name in WHOLE_WEIGHTS))


class ModelFilesError(SetupError):
    """It is not clear what model a directory holds; the message is a sentence."""


@dataclass(frozen=True)
class ModelFiles:
    """A model directory, and that of its base if it holds an adapter.

    Attributes:
        directory: of the model or the adapter.
        base: of the adapter's base; None for a whole model.
        given_base: base if the user named it, and so also says that its prompt is the adapter's; otherwise None.
        flag: by which users name the base.
    """

    directory: Path
    base: Path | None = None
    given_base: Path | None = None
    flag: str = "--base"

    @classmethod
    def find(cls, directory: Path, base: Path | None = None, flag: str = "--base") -> "ModelFiles":
        """The parts of the model in `directory`; an adapter lies on `base`, or on the one that its configuration names.

        Raises:
            ModelFilesError: the base is not there, or it is not clear what the directory holds.
        """
        if not (directory / ADAPTER_FILE).exists():
            if base is not None:
                raise ModelFilesError(f"Only adapters have a base, and {directory} has no {ADAPTER_FILE}: leave {flag} out.")
            return cls(directory)
        whole = next((name for name in WEIGHTS if (directory / name).exists()), None)
        if whole is not None:
            raise ModelFilesError(
                f"It is not clear which model {directory} holds: {ADAPTER_FILE} says an adapter, but {whole} lies beside it. Move one of "
                "them to another directory; an adapter that has been merged is no longer needed."
            )
        found = cls(directory, base or _named_base(directory, flag), base, flag)
        found._check_base()
        return found

    def _check_base(self) -> None:
        if not self.weights.is_dir():
            raise ModelFilesError(
                f"The adapter in {self.directory} needs its base model, and {str(self.base)!r} is no directory here: name it as "
                f"{BASE_SETTING} in its {ADAPTER_FILE}, or with {self.flag} where the command has that."
            )
        if (self.weights / ADAPTER_FILE).exists():
            raise ModelFilesError(
                f"The base of the adapter in {self.directory} is itself an adapter, as {self.weights / ADAPTER_FILE} says: merge that one "
                "into its base first (peft's merge_and_unload)."
            )

    @property
    def weights(self) -> Path:
        """The directory of the weights and the configuration, of the base if there is an adapter."""
        return self.base or self.directory

    @property
    def tokenizer(self) -> Path:
        """The directory of the tokenizer: an adapter's own if it has one, which may have more tokens, else the base's."""
        return self.directory if any((self.directory / name).exists() for name in TOKENIZER_FILES) else self.weights

    @property
    def prompt(self) -> Path:
        """The directory of the prompt.

        Raises:
            ModelFilesError: only the base has one, and nobody has said that the adapter was trained with it.
        """
        if (self.directory / PROMPT_FILE).exists() or not (self.weights / PROMPT_FILE).exists():
            return self.directory
        if self.given_base is None:
            raise ModelFilesError(
                f"The adapter in {self.directory} has no {PROMPT_FILE}, and that of its base may not be the prompt that it was trained "
                f"with: write one beside the adapter, or say {self.flag} {self.base}, where the command has that, to take the base's."
            )
        return self.weights

    @cached_property
    def adapter_settings(self) -> dict[str, Any]:
        """What the adapter's configuration says."""
        return _read(self.directory / ADAPTER_FILE, "configuration of an adapter")

    @property
    def renormalises(self) -> bool:
        """Whether the model is to be searched with scores normalised over what is allowed: `renormalize_logits` of its generation
        configuration.

        Raises:
            ModelFilesError: the file is damaged, or says neither yes nor no.
        """
        said = self._generation.get(RENORMALISE)
        if not isinstance(said, bool | None):
            raise ModelFilesError(f"{self.generation_file} must say true or false for {RENORMALISE}, got {said!r}.")
        return bool(said)

    @property
    def penalties(self) -> dict[str, object]:
        """What the same file says that lists of transformers' `generate` would be made with, such as a penalty for repeated tokens.

        Raises:
            ModelFilesError: the file is damaged.
        """
        said = {name: self._generation.get(name) for name in NEUTRAL}
        return {name: value for name, value in said.items() if value not in (None, [], NEUTRAL[name])}

    @property
    def generation_file(self) -> Path | None:
        """The file that says how texts are generated: the adapter's own, else the base's, else the configuration, in which releases of
        transformers before there was such a file left it, and where all later ones look for it then."""
        places = (self.directory / GENERATION_FILE, self.weights / GENERATION_FILE, self.weights / CONFIG_FILE)
        return next((path for path in places if path.exists()), None)

    @cached_property
    def _generation(self) -> dict[str, Any]:
        return {} if self.generation_file is None else _read(self.generation_file, "generation configuration")


def has_weights(directory: Path) -> bool:
    """True if a directory holds weights, so that it is a model and no configuration alone."""
    return any(directory.glob("*.safetensors")) or any(directory.glob("pytorch_model*.bin"))


def weights_twice(directory: Path) -> str | None:
    """A sentence if a directory holds one model in a file and another in shards of the same kind; None if it does not.

    transformers, which saves shards beside the one file of an earlier save, reads that file, and vLLM the shards. Neither reads pickles
    beside safetensors, so what those hold does not matter there.
    """
    for name in WHOLE_WEIGHTS:
        index = f"{name}.index.json"
        present = [(directory / each).exists() for each in (name, index)]
        if all(present):
            return (
                f"The model directory {directory} has its weights twice, in {name} and as {index} says: remove one of them. Where one was "
                f"saved in shards over an earlier one, {name} is the earlier one."
            )
        if any(present):
            break
    return None


def _named_base(directory: Path, flag: str) -> Path:
    name = _read(directory / ADAPTER_FILE, "configuration of an adapter").get(BASE_SETTING)
    if not isinstance(name, str) or not name:
        raise ModelFilesError(
            f"{directory / ADAPTER_FILE} does not name the adapter's base model: name it there as {BASE_SETTING}, or with {flag} where the "
            "command has that."
        )
    beside = directory / name
    return beside if not Path(name).is_dir() and beside.is_dir() else Path(name)


def _read(path: Path, kind: str) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_bytes())
    except (ValueError, OSError) as error:
        raise ModelFilesError(f"{path} is damaged: it is no {kind}.") from error
    if not isinstance(settings, dict):
        raise ModelFilesError(f"{path} is damaged: it is no {kind}.")
    return settings
