"""`atspeed serve`: the HTTP server."""

from pathlib import Path
from typing import Annotated

import typer

from server.commands.failure import fail
from server.settings import Settings, SettingsError


def serve(
    target: Annotated[Path | None, typer.Option(help="Directory of the target model.", envvar="ATSPEED_TARGET")] = None,
    catalog: Annotated[
        Path | None,
        typer.Option(help="Catalog file: LC-Rec's index .json, or JSONL made by `atspeed catalog build`.", envvar="ATSPEED_CATALOG"),
    ] = None,
    catalogs: Annotated[
        Path | None,
        typer.Option(help="Directory for versions of the catalog.", envvar="ATSPEED_CATALOGS", show_default="a temporary one"),
    ] = None,
    codebooks: Annotated[
        Path | None,
        typer.Option(
            help="Codebooks that made the catalog's identifiers (.safetensors); they make those of new items.",
            envvar="ATSPEED_CODEBOOKS",
            show_default="none: new items bring their identifiers",
        ),
    ] = None,
    histories: Annotated[
        str | None,
        typer.Option(
            help="History store: memory://, sqlite:///path, redis://…, redis+sentinel://… or redis+cluster://….",
            envvar="ATSPEED_HISTORIES",
            show_default="an SQLite file in ~/.local/share/atspeed",
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="What runs the model: vllm or transformers.", envvar="ATSPEED_ENGINE", show_default="vllm if it is installed"),
    ] = None,
    draft: Annotated[
        Path | None,
        typer.Option(
            help="Directory of a draft model: a small model over the target's tokens.", envvar="ATSPEED_DRAFT", show_default="none"
        ),
    ] = None,
    plan: Annotated[
        str | None,
        typer.Option(
            help="What to draft: auto, none, trie, beam:N, beam:NxG (G levels) or beam:N+children.",
            envvar="ATSPEED_PLAN",
            show_default="auto",
        ),
    ] = None,
    verification: Annotated[
        str | None,
        typer.Option(
            help="How drafts are judged where a request does not say: strict, gumbel or relaxed.",
            envvar="ATSPEED_VERIFICATION",
            show_default="strict",
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Precision: auto, float32, bfloat16 or float16.", envvar="ATSPEED_DTYPE", show_default="auto: as the model was saved"
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", envvar="ATSPEED_HOST", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one and says which.", envvar="ATSPEED_PORT", show_default="8000")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of the engine.", envvar="ATSPEED_THREADS", show_default="all that this process may use")
    ] = None,
    kv_memory_gib: Annotated[
        float | None, typer.Option(help="Memory for keys and values, GiB.", envvar="ATSPEED_KV_MEMORY_GIB", show_default="0.5")
    ] = None,
    tensor_parallel: Annotated[
        int | None, typer.Option(help="Devices that share the model (vllm only).", envvar="ATSPEED_TENSOR_PARALLEL", show_default="1")
    ] = None,
    quantization: Annotated[
        str | None,
        typer.Option(
            help="Quantize the target's weights while loading: fp8 (vllm on a GPU only).",
            envvar="ATSPEED_QUANTIZATION",
            show_default="as the checkpoint says",
        ),
    ] = None,
    cuda_graphs: Annotated[
        bool | None,
        typer.Option(
            "--cuda-graphs/--no-cuda-graphs",
            help="Record forwards as CUDA graphs at start, which takes a while; GPU only.",
            envvar="ATSPEED_CUDA_GRAPHS",
            show_default="no-cuda-graphs",
        ),
    ] = None,
    max_running: Annotated[
        int | None, typer.Option(help="Requests that may share a forward.", envvar="ATSPEED_MAX_RUNNING", show_default="64")
    ] = None,
    max_waiting: Annotated[
        int | None,
        typer.Option(help="Requests that may wait; more are refused with 429.", envvar="ATSPEED_MAX_WAITING", show_default="1024"),
    ] = None,
    max_tokens_per_step: Annotated[
        int | None, typer.Option(help="Tokens that may share a forward.", envvar="ATSPEED_MAX_TOKENS_PER_STEP", show_default="4096")
    ] = None,
    max_step_ms: Annotated[
        float | None,
        typer.Option(
            help="What a step of the engine may take; the tokens that share one follow from it.",
            envvar="ATSPEED_MAX_STEP_MS",
            show_default="100",
        ),
    ] = None,
    timeout_ms: Annotated[
        int | None, typer.Option(help="A request's deadline if it names none.", envvar="ATSPEED_TIMEOUT_MS", show_default="1000")
    ] = None,
    history_timeout_ms: Annotated[
        int | None, typer.Option(help="Longest wait for the history store.", envvar="ATSPEED_HISTORY_TIMEOUT_MS", show_default="250")
    ] = None,
    history_max_events: Annotated[
        int | None, typer.Option(help="Newest events kept per user.", envvar="ATSPEED_HISTORY_MAX_EVENTS", show_default="1000")
    ] = None,
    history_ttl_seconds: Annotated[
        int | None,
        typer.Option(help="Forget a user after so long without an event.", envvar="ATSPEED_HISTORY_TTL_SECONDS", show_default="never"),
    ] = None,
    grace_seconds: Annotated[
        float | None,
        typer.Option(help="How long running requests may take to finish after SIGTERM.", envvar="ATSPEED_GRACE_SECONDS", show_default="20"),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name of the model in answers.", envvar="ATSPEED_MODEL", show_default="the target directory's name")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error.", envvar="ATSPEED_LOG_LEVEL", show_default="info")
    ] = None,
    otlp_endpoint: Annotated[
        str | None,
        typer.Option(
            help="OTLP collector that takes traces by HTTP: http://collector:4318.",
            envvar="ATSPEED_OTLP_ENDPOINT",
            show_default="no traces",
        ),
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(help="text or json (one object a line).", envvar="ATSPEED_LOG_FORMAT", show_default="text")
    ] = None,
) -> None:
    """Serve recommendations over HTTP.

    Example: atspeed serve --target models/beauty --catalog beauty.index.json --histories redis://localhost:6379/0

    Every flag is also an environment variable. The API is described at /docs once the server runs.
    """
    try:
        settings = Settings.resolve(
            target=target,
            catalog=catalog,
            catalogs=catalogs,
            codebooks=codebooks,
            histories=histories,
            engine=engine,
            draft=draft,
            plan=plan,
            verification=verification,
            dtype=dtype,
            host=host,
            port=port,
            threads=threads,
            kv_memory_gib=kv_memory_gib,
            tensor_parallel=tensor_parallel,
            quantization=quantization,
            cuda_graphs=cuda_graphs,
            max_running=max_running,
            max_waiting=max_waiting,
            max_tokens_per_step=max_tokens_per_step,
            max_step_ms=max_step_ms,
            timeout_ms=timeout_ms,
            history_timeout_ms=history_timeout_ms,
            history_max_events=history_max_events,
            history_ttl_seconds=history_ttl_seconds,
            grace_seconds=grace_seconds,
            model=model,
            log_level=log_level,
            otlp_endpoint=otlp_endpoint,
            log_format=log_format,
        )
    except SettingsError as error:
        fail(str(error))
    # FastAPI and uvicorn take half a second to import, which `atspeed --help` need not pay.
    from server.http.server import run_server

    if sentence := run_server(settings):
        fail(sentence)
