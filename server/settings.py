"""The settings of the server: one model, filled from flags, then `ATSPEED_*` environment variables, then defaults.

Invariant: everything that a deployment may change is here and nowhere else, so `atspeed serve --help`, the environment and this file
can't disagree.
"""

import importlib.util
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from drafting.beam.rule import Verification
from server.engine.processors import usable_processors
from server.messages import EngineOptions, LogFormat

EngineName = Literal["vllm", "transformers"]


def default_engine() -> EngineName:
    """`vllm` where it is installed, else `transformers`; looks without importing, which would take seconds."""
    return "vllm" if importlib.util.find_spec("vllm") else "transformers"


def default_histories() -> str:
    """An SQLite file in the user's data directory, so that a first run keeps its histories without any service beside it."""
    data_home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return f"sqlite:///{Path(data_home).absolute() / 'atspeed' / 'histories.db'}"


class SettingsError(ValueError):
    """Settings that make no sense; the message is a sentence."""


class Settings(BaseSettings):
    """What `atspeed serve` can be told; each field is also the environment variable `ATSPEED_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="ATSPEED_", extra="forbid", validate_default=False)

    target: Path = Field(description="Directory of the target model.")
    catalog: Path = Field(description="Catalog file: LC-Rec's index JSON or JSONL.")
    catalogs: Path | None = Field(default=None, description="Directory for versions of the catalog; a temporary one by default.")
    codebooks: Path | None = Field(default=None, description="Codebooks that made the catalog's identifiers; they make those of new items.")
    histories: str = Field(default_factory=default_histories, description="URL of the history store.")
    history_timeout_ms: int = Field(default=250, ge=1, description="Longest wait for the history store, milliseconds.")
    history_max_events: int = Field(default=1000, ge=1, description="Newest events kept per user.")
    history_ttl_seconds: int | None = Field(default=None, ge=1, description="Forget a user after so long without an event.")
    engine: EngineName = Field(default_factory=default_engine, description="What runs the target model.")
    draft: Path | None = Field(default=None, description="Directory of a draft model over the target's tokens.")
    plan: str = Field(default="auto", description="What to draft: auto, none, trie, beam:N, beam:NxG (G levels) or beam:N+children.")
    verification: Verification = Field(default=Verification.STRICT, description="How drafts are judged where a request does not say.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(default="auto", description="Precision of the target model.")
    threads: int | None = Field(default=None, ge=1, description="CPU threads of the engine; all that this process may use by default.")
    kv_memory_gib: float = Field(default=0.5, gt=0, description="Memory for keys and values, GiB.")
    tensor_parallel: int = Field(default=1, ge=1, description="Devices that share the model.")
    quantization: Literal["fp8"] | None = Field(
        default=None, description="Quantize the target's weights while loading (vllm on a GPU only)."
    )
    cuda_graphs: bool = Field(default=False, description="Record forwards as CUDA graphs at start (GPU only).")
    max_running: int = Field(default=64, ge=1, description="Requests that may share a forward.")
    max_waiting: int = Field(default=1024, ge=1, description="Requests that may wait beyond those; more are refused with 429.")
    max_tokens_per_step: int = Field(default=4096, ge=1, description="Tokens that may share a forward.")
    max_step_ms: float = Field(default=100, gt=0, description="What a step of the engine may take, milliseconds.")
    timeout_ms: int = Field(default=1000, ge=1, le=60_000, description="A request's deadline if it names none, milliseconds.")
    grace_seconds: float = Field(
        default=20, ge=0, description="How long running requests may take to finish when the server ends, seconds."
    )
    model: str | None = Field(default=None, description="Name of the model in answers; the target directory's by default.")
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Lowest level of the log.")
    otlp_endpoint: str | None = Field(
        default=None, pattern="^https?://", description="OTLP collector that takes traces by HTTP, such as http://collector:4318."
    )
    log_format: LogFormat = Field(default="text", description="Log lines for people, or one JSON object each.")

    @classmethod
    def resolve(cls, **flags: object) -> "Settings":
        """The settings of flags (None means not given), environment and defaults, in this order.

        Raises:
            SettingsError: a value is missing or invalid; the sentence names the flag and the variable.
        """
        given = {name: value for name, value in flags.items() if value is not None}
        try:
            return cls(**given)  # type: ignore[arg-type]
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]) if first["loc"] else "settings"
            where = f"--{name.replace('_', '-')} (or ATSPEED_{name.upper()})"
            if first["type"] == "missing":
                raise SettingsError(f"{where} is missing.") from error
            reason = first["msg"].replace("Input should be", "must be", 1)
            raise SettingsError(f"{where} {reason}, got {first['input']!r}.") from error

    @property
    def model_name(self) -> str:
        """The name of the model in answers."""
        return self.model or self.target.resolve().name

    @property
    def engine_options(self) -> EngineOptions:
        """What the engine process is told."""
        return EngineOptions(
            target=str(self.target.absolute()),
            catalog=str(self.catalog.absolute()),
            host=self.engine,
            draft=str(self.draft.absolute()) if self.draft else None,
            plan=self.plan,
            dtype=self.dtype,
            threads=self.threads or usable_processors(),
            kv_memory_gib=self.kv_memory_gib,
            tensor_parallel=self.tensor_parallel,
            quantization=self.quantization,
            cuda_graphs=self.cuda_graphs,
            max_running=self.max_running,
            max_tokens_per_step=self.max_tokens_per_step,
            max_step_ms=self.max_step_ms,
            log_level=self.log_level,
            log_format=self.log_format,
        )


class FlagSettings(Settings):
    """Settings that the environment has no say in: what a user has set up for a server of their own must not meet the demo's model."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)
