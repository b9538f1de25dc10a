"""The settings of the server: one model, filled from flags, then `ATSPEED_*` environment variables, then defaults.

Invariant: an option's name, type, default, bounds and description stand here and nowhere else. The command line
(`server/commands/options.py`), the environment, the options of the engine process and the chart's schema all follow from these fields, so
they can't disagree.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from drafting.beam.rule import SERVED_BEAM_WIDTH, WIDEST_BEAM, Verification
from drafting.prompts.user_state import STORED_EVENTS
from server.engine_settings import EngineOptions, EngineSettings, LogFormat, LogLevel, Panel

# Largest weight of a neighbour model's logarithms beside log-probabilities.
MOST_WEIGHT = 100


def default_histories() -> str:
    """An SQLite file in the user's data directory, so that a first run keeps its histories without any service beside it."""
    data_home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return f"sqlite:///{Path(data_home).absolute() / 'atspeed' / 'histories.db'}"


class SettingsError(ValueError):
    """Settings that make no sense; the message is a sentence."""


class ConsoleOptions(BaseModel):
    """The settings of one console; they travel as JSON on its command line.

    Attributes:
        url: URL of the server that the console shows.
        remote_images: whether browsers may load the catalog's pictures from other hosts.
        names: names by which browsers may call the console, beside those of its machine; without any, a console that other machines reach
            may be called by every name.
        parent: id of the process that started it, without which it ends.
        tls_cert, tls_key: to serve browsers by HTTPS, as the server beside it is served.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    tls_cert: Path | None = None
    tls_key: Path | None = None
    remote_images: bool = False
    names: tuple[str, ...] = ()
    parent: int | None = None
    log_level: LogLevel = "info"
    log_format: LogFormat = "text"


class Settings(EngineSettings, BaseSettings):
    """The settings of `atspeed serve`; each field is also the environment variable `ATSPEED_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="ATSPEED_", validate_default=False)

    catalogs: Annotated[str | None, Panel.CATALOG] = Field(
        default=None,
        description="Where versions of the catalog are kept: a directory, or an object store that all replicas see (s3://bucket/prefix, "
        "gs://…, az://…, file:///…); a temporary directory by default.",
    )
    catalog_cache: Annotated[Path | None, Panel.CATALOG] = Field(
        default=None, description="Directory for what has been fetched from the object store of --catalogs; a temporary one by default."
    )
    catalog_max_items: Annotated[int, Panel.CATALOG] = Field(
        default=20_000_000, ge=1, description="Items that a version of the catalog may have, those of --catalog aside."
    )
    catalog_max_gib: Annotated[float, Panel.CATALOG] = Field(
        default=4, gt=0, allow_inf_nan=False, description="Size of an uploaded version of the catalog, GiB; larger ones get 413."
    )
    catalog_max_ratio: Annotated[float, Panel.CATALOG] = Field(
        default=200, ge=1, description="Bytes that a byte of a compressed catalog (parquet) may become."
    )
    catalog_build_memory_gib: Annotated[float, Panel.CATALOG] = Field(
        default=4, ge=0.5, allow_inf_nan=False, description="Memory of the process that builds a version or adds items, GiB."
    )
    catalog_build_seconds: Annotated[int, Panel.CATALOG] = Field(
        default=1800, ge=1, description="Longest time of the process that builds a version or adds items, seconds; of processors, too."
    )
    codebooks: Annotated[Path | None, Panel.CATALOG] = Field(
        default=None,
        description="Codebooks that made the catalog's identifiers (.safetensors), to make those of new items; without them, new items "
        "bring their identifiers.",
    )
    neighbours: Annotated[Path | None, Panel.MODEL] = Field(
        default=None, description="Neighbour model (.neighbours.safetensors) to blend lists with, and to draft items; none by default."
    )
    blend: Annotated[float | None, Panel.MODEL] = Field(
        default=None,
        ge=0,
        le=MOST_WEIGHT,
        allow_inf_nan=False,
        description="Weight of the neighbour model in strict lists that say nothing of it; by default they are the model's own.",
    )
    histories: Annotated[str, Panel.HISTORIES] = Field(
        default_factory=default_histories,
        description="History store: memory://, sqlite:///path, redis://…, redis+sentinel://… or redis+cluster://…; by default an SQLite "
        "file in ~/.local/share/atspeed, or in $XDG_DATA_HOME/atspeed.",
    )
    history_timeout_ms: Annotated[int, Panel.HISTORIES] = Field(
        default=250, ge=1, description="Longest wait for the history store, milliseconds."
    )
    history_max_events: Annotated[int, Panel.HISTORIES] = Field(default=STORED_EVENTS, ge=1, description="Newest events kept per user.")
    history_ttl_seconds: Annotated[int | None, Panel.HISTORIES] = Field(
        default=None,
        ge=1,
        description="Forget a user after so many seconds without an event or a new profile; never by default. It reaches users who are "
        "written to from then on, not those stored before.",
    )
    cold_start: Annotated[Literal["popular", "none"], Panel.HISTORIES] = Field(
        default="popular",
        description="What users get of whom nothing is known: the most popular items of the stored histories, or a refusal.",
    )
    cold_start_days: Annotated[float, Panel.HISTORIES] = Field(
        default=30, gt=0, le=36_500, description="Items are popular by the events of so many days; by older ones behind them."
    )
    cold_start_items: Annotated[Path | None, Panel.HISTORIES] = Field(
        default=None,
        description='Popular items in place of those of the histories: JSONL of {"item_id", "count"?}, best first where there is no count.',
    )
    control: Annotated[str | None, Panel.CATALOG] = Field(
        default=None,
        description="Control store, which replicas of this server share: as --histories. By default that Redis; else a file in the "
        "directory of --catalogs, or beside a file of --histories; else this process.",
    )
    control_prefix: Annotated[str, Panel.CATALOG] = Field(
        default="atspeed:control",
        pattern=r"^[^{}\s]{1,200}$",
        description="Beginning of the names of Redis keys of the control store and of the rates of keys: another one for servers of "
        "another model there; no spaces or braces.",
    )
    engine_hang_seconds: Annotated[float, Panel.MODEL] = Field(
        default=30,
        ge=5,
        description="Silence of the engine after which it is killed and another is started, seconds; an idle one is silent for up to one.",
    )
    engine_start_seconds: Annotated[float, Panel.MODEL] = Field(
        default=1800,
        gt=0,
        description="The same while it starts, which takes as long as the model takes to load.",
    )
    beam_width: Annotated[int, Panel.MODEL] = Field(
        default=SERVED_BEAM_WIDTH,
        ge=1,
        le=WIDEST_BEAM,
        description="Prefixes that a strict search keeps where its request names no beam_width, k where that is more, and no more than "
        "--max-beam-width; wider beams find better lists and take longer.",
    )
    verification: Annotated[Verification, Panel.SPECULATION] = Field(
        default=Verification.STRICT, description="How drafts are verified where a request does not say."
    )
    max_waiting: Annotated[int, Panel.MEMORY] = Field(
        default=1024,
        ge=1,
        description="Requests that may wait beyond those that run; more are refused with 429. Those whose stored history is being read "
        "count for one another alone, so for a while there may be twice as many.",
    )
    model: Annotated[str | None, Panel.HTTP] = Field(
        default=None, description="Name of the model in answers; the target directory's by default."
    )
    host: Annotated[str, Panel.HTTP] = Field(default="127.0.0.1", description="Address to listen on.")
    port: Annotated[int, Panel.HTTP] = Field(
        default=8000, ge=0, le=65_535, description="Port to listen on; 0 takes a free one and logs which."
    )
    keys: Annotated[Path | None, Panel.HTTP] = Field(
        default=None,
        description="File of keys (`atspeed keys add`), without one of which there is only health, metrics and documentation; read anew "
        "when it changes. By default there are no keys, and other machines get lists, scores and items of the catalog only.",
    )
    operate_port: Annotated[int | None, Panel.HTTP] = Field(
        default=None,
        ge=0,
        le=65_535,
        description="A further port, and the only one for what the scopes catalog and operate open, and for /metrics; 0 takes a free one "
        "and logs which. By default --port takes all.",
    )
    tls_cert: Annotated[Path | None, Panel.HTTP] = Field(
        default=None, description="Certificate chain (PEM), to serve by HTTPS; read anew when it is replaced. By default HTTP is served."
    )
    tls_key: Annotated[Path | None, Panel.HTTP] = Field(default=None, description="Private key (PEM) of --tls-cert.")
    console: Annotated[bool, Panel.HTTP] = Field(
        default=False, description="Show lists and state in the browser: a console in a process of its own, where /console leads to."
    )
    console_port: Annotated[int, Panel.HTTP] = Field(
        default=8001, ge=0, le=65_535, description="Port of the console; 0 takes a free one and logs which."
    )
    timeout_ms: Annotated[int, Panel.HTTP] = Field(
        default=1000, ge=1, le=60_000, description="A request's deadline if it names none, milliseconds."
    )
    max_connections: Annotated[int, Panel.HTTP] = Field(default=4096, ge=1, description="Connections at once; more are refused with 503.")
    max_connections_per_client: Annotated[int, Panel.HTTP] = Field(
        default=1024, ge=1, description="Connections at once of one address, which behind a proxy is the proxy's."
    )
    max_header_kib: Annotated[int, Panel.HTTP] = Field(default=32, ge=1, le=1024, description="Headers of a request, KiB; more get 431.")
    header_seconds: Annotated[float, Panel.HTTP] = Field(
        default=10, gt=0, le=3600, description="Longest time for a request's headers, seconds; slower ones get 408."
    )
    body_seconds: Annotated[float, Panel.HTTP] = Field(
        default=30,
        gt=0,
        le=3600,
        description="Longest time for a request's body, seconds; slower ones get 408. In uploads of catalogs, for each piece of it.",
    )
    idle_seconds: Annotated[float, Panel.HTTP] = Field(
        default=75,
        gt=0,
        le=3600,
        description="How long a connection without a request is kept, seconds. Longer than a proxy keeps its own (60 as a rule), so that "
        "it never sends a request into one that is being closed.",
    )
    grace_seconds: Annotated[float, Panel.HTTP] = Field(
        default=20, ge=0, description="How long running requests may take to finish after SIGTERM, seconds."
    )
    otlp_endpoint: Annotated[str | None, Panel.LOGS] = Field(
        default=None,
        pattern="^https?://",
        description="OTLP collector that takes traces by HTTP, such as http://collector:4318; no traces by default.",
    )

    @classmethod
    def resolve(cls, **flags: object) -> "Settings":
        """The settings of flags (None means not given), environment and defaults, in this order.

        Raises:
            SettingsError: a value is missing or invalid; the sentence names the flag and the variable.
        """
        given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
        try:
            return cls(**given)
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
    def catalogs_url(self) -> str | None:
        """The object store of the versions' files; None if they lie in a directory."""
        return self.catalogs if self.catalogs is not None and "://" in self.catalogs else None

    @property
    def catalogs_directory(self) -> Path | None:
        """Where this server has the versions' files: in their directory or in its cache; None for one that is gone with it."""
        if self.catalogs_url is not None:
            return self.catalog_cache
        return None if self.catalogs is None else Path(self.catalogs)

    @property
    def control_url(self) -> str:
        """The URL of the control store. Without one, servers that share no more than the user's own histories share no state."""
        if self.control is not None:
            return self.control
        if self.histories.startswith("redis"):
            return self.histories
        if self.catalogs is not None and self.catalogs_url is None:
            return f"sqlite:///{Path(self.catalogs).absolute() / 'control.db'}"
        if self.histories.startswith("sqlite:") and "histories" in self.model_fields_set:
            return f"{self.histories}.control"
        return "memory://" if self.catalog_cache is None else f"sqlite:///{self.catalog_cache.absolute() / 'control.db'}"

    @property
    def engine_options(self) -> EngineOptions:
        """The part of the settings that the engine process needs, with absolute paths."""
        part = self.model_dump(include=set(EngineSettings.model_fields))
        return EngineOptions.model_validate({name: value.absolute() if isinstance(value, Path) else value for name, value in part.items()})


class FlagSettings(Settings):
    """Settings without the environment: what a user has set up for a server of their own must not meet the demo's model."""

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
