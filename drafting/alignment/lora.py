"""LoRA fine-tuning of a large base, with peft.

Invariant: embeddings and head are trained whole. The tokens of identifiers are new to a base model, so their rows start as random numbers;
training only LoRA adapters would leave them so.
"""

import torch
from transformers import PreTrainedModel

from drafting.alignment.settings import TargetSettings, TrainingError

PROJECTIONS = ["q_proj", "v_proj"]


def add_lora(model: PreTrainedModel, settings: TargetSettings) -> torch.nn.Module:
    """Wrap a model so that only LoRA adapters, embeddings and head are trained.

    Raises:
        TrainingError: peft is not installed, or the model does not have these projections.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise TrainingError(f"LoRA needs peft ({error}): pip install 'atspeed-server[train]'.") from error
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if not set(PROJECTIONS) <= names:
        raise TrainingError(f"LoRA adds to {' and '.join(PROJECTIONS)}, which a {model.config.model_type} model does not have.")
    whole = [_name_of(model, model.get_input_embeddings())]
    tied = model.config.tie_word_embeddings
    if not tied:
        whole.append(_name_of(model, model.get_output_embeddings()))
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules=PROJECTIONS,
        modules_to_save=whole,
        ensure_weight_tying=tied,
        task_type="CAUSAL_LM",
    )
    wrapped: torch.nn.Module = get_peft_model(model, config)
    return wrapped


def merged(model: torch.nn.Module) -> PreTrainedModel:
    """The plain model with the LoRA adapters merged into its weights."""
    return model.merge_and_unload()  # type: ignore[operator]


def _name_of(model: PreTrainedModel, module: torch.nn.Module) -> str:
    """The last part of a module's name, by which peft finds it."""
    full_name: str = next(name for name, found in model.named_modules() if found is module)
    return full_name.rpartition(".")[2]
