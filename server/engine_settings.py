"""The settings that the engine process needs, and the groups of `--help` that all settings stand in.

Invariant: as in `server/settings.py`, whose settings begin with these.
"""

import importlib.util
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from drafting.beam.rule import MAX_BEAM_WIDTH, WIDEST_BEAM, NormaliseName
from drafting.plans.limits import MOST_ITEMS

EngineName = Literal["vllm", "transformers"]
# Where there can't be as many threads as it was told, OpenMP ends the process without a word.
MOST_THREADS = 1024
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]


class Panel(Enum):
    """The groups of `--help`, in its order; each field is marked with its own."""

    MODEL = "Model"
    CATALOG = "Catalog"
    HISTORIES = "Histories"
    SPECULATION = "Speculation"
    MEMORY = "Memory and batching"
    HTTP = "HTTP"
    LOGS = "Logs and traces"


def default_engine() -> EngineName:
    """`vllm` where it is installed, else `transformers`; looks without importing, which would take seconds."""
    return "vllm" if importlib.util.find_spec("vllm") else "transformers"


class EngineSettings(BaseModel):
    """The settings that the engine process needs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: Annotated[Path, Panel.MODEL] = Field(description="Directory of the target model.")
    base: Annotated[Path | None, Panel.MODEL] = Field(
        default=None, description="Base model of a target that is an adapter; the one that it names by default."
    )
    catalog: Annotated[Path, Panel.CATALOG] = Field(
        description="Catalog file: LC-Rec's index .json, .jsonl, .parquet, MiniOneRec's info .txt, .npy, or a .catalog made of any other "
        "form by `atspeed catalog convert`."
    )
    engine: Annotated[EngineName, Panel.MODEL] = Field(
        default_factory=default_engine, description="What runs the models; vllm by default where it is installed."
    )
    dtype: Annotated[Literal["auto", "float32", "bfloat16", "float16"], Panel.MODEL] = Field(
        default="auto", description="Precision of the models; auto is as they were saved."
    )
    threads: Annotated[int | None, Panel.MODEL] = Field(
        default=None, ge=1, le=MOST_THREADS, description="CPU threads of the engine; all that this process may use by default."
    )
    tensor_parallel: Annotated[int, Panel.MODEL] = Field(default=1, ge=1, description="Devices that share the model (vllm only).")
    quantization: Annotated[Literal["fp8", "int8"] | None, Panel.MODEL] = Field(
        default=None,
        description="Quantize the target's weights while loading (vllm only: fp8 on a GPU, int8 on a CPU); as the checkpoint by default.",
    )
    cuda_graphs: Annotated[bool, Panel.MODEL] = Field(
        default=False, description="Record forwards as CUDA graphs at start, which takes a while (GPU only)."
    )
    verify_model: Annotated[Literal["auto", "always", "never"], Panel.MODEL] = Field(
        default="auto",
        description="Compare the target with transformers' own attention at start; auto reads no large model a second time for it.",
    )
    exact: Annotated[bool, Panel.MODEL] = Field(
        default=False,
        description="Lists that depend neither on batch, cache nor drafts in half precision either; takes longer (transformers only).",
    )
    normalise: Annotated[NormaliseName, Panel.MODEL] = Field(
        default="auto",
        description="What scores are normalised over where a request does not say it: the vocabulary, the tokens that the catalog has at a "
        "level, or the children of a prefix in the catalog; auto is children where the target's generation_config.json says "
        "renormalize_logits, else vocabulary.",
    )
    draft: Annotated[Path | None, Panel.SPECULATION] = Field(
        default=None, description="Directory of a draft model: a small model over the target's tokens; none by default."
    )
    draft_base: Annotated[Path | None, Panel.SPECULATION] = Field(
        default=None, description="Base model of a draft that is an adapter; the one that it names by default."
    )
    plan: Annotated[str, Panel.SPECULATION] = Field(
        default="auto",
        description="What to draft: auto, none, trie, beam:N, beam:NxG (G levels) or beam:N+children, items:M or last, or joins such as "
        "beam:40+items:20+last.",
    )
    draft_items: Annotated[int, Panel.SPECULATION] = Field(
        default=0, ge=0, le=MOST_ITEMS, description="Items of the neighbour model that the plan auto may draft; other plans name theirs."
    )
    kv_memory_gib: Annotated[float, Panel.MEMORY] = Field(
        default=0.5, gt=0, allow_inf_nan=False, description="Memory for keys and values, GiB."
    )
    max_beam_width: Annotated[int, Panel.MEMORY] = Field(
        default=MAX_BEAM_WIDTH,
        ge=1,
        le=WIDEST_BEAM,
        description="Widest beam of a request, and so its longest list, for which memory is set aside; wider ones are refused.",
    )
    max_running: Annotated[int, Panel.MEMORY] = Field(default=64, ge=1, description="Requests that may share a forward.")
    max_tokens_per_step: Annotated[int, Panel.MEMORY] = Field(default=4096, ge=1, description="Tokens that may share a forward.")
    max_step_ms: Annotated[float, Panel.MEMORY] = Field(
        default=100,
        gt=0,
        allow_inf_nan=False,
        description="Longest step of the engine, milliseconds; the tokens that share a forward follow from it.",
    )
    log_level: Annotated[LogLevel, Panel.LOGS] = Field(default="info", description="Lowest level of the log.")
    log_format: Annotated[LogFormat, Panel.LOGS] = Field(default="text", description="Log lines for people, or one JSON object each.")


class EngineOptions(EngineSettings):
    """The settings of one engine process; they travel as JSON on its command line.

    Attributes:
        catalog_handle: of the catalog, by which requests to the engine name it.
        parent: id of the process that started it, without which it ends.
    """

    catalog_handle: str = ""
    parent: int | None = None
