"""The vLLM host with vLLM's platform saying that it is none of a CPU; run by `test_vllm_on_gpu.py` in a process of its own."""

from typing import Any

import pytest
import torch
from torch import Tensor
from vllm.platforms import current_platform

from drafting.beam.model import AttentionLayout, build_layout
from verification.hosts.attention import tree_attention

type(current_platform).is_cpu = lambda self: False  # type: ignore[method-assign]

from vllm.platforms.interface import DeviceCapability
from vllm.v1.attention.backend import AttentionType
from vllm.v1.attention.backends.triton_attn import TritonAttentionImpl
from vllm.v1.attention.backends.utils import get_supported_kv_cache_layouts
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheTensor, create_kv_cache_views

from verification.hosts.vllm_attention import BLOCK_SIZE, LayerForward, TreeAttention, TreeAttentionBackend

HEADS, KEY_VALUE_HEADS, BLOCKS = 4, 2, 3


class Layer:
    """What vLLM hands over of a layer."""

    kv_sharing_target_layer_name = None

    def __init__(self, value_size: int) -> None:
        self.head_size_v = value_size


def made_as_vllm_makes_it(size: int, **others: Any) -> TreeAttention:
    return TreeAttention(HEADS, size, 0.3, KEY_VALUE_HEADS, None, None, "auto", None, AttentionType.DECODER, None, **others)


def views(size: int, value_size: int) -> list[Tensor]:
    """The keys and values of two layers, as vLLM lays them out for this backend."""
    spec = FullAttentionSpec(
        block_size=BLOCK_SIZE, num_kv_heads=KEY_VALUE_HEADS, head_size=size, head_size_v=value_size, dtype=torch.float32
    )
    page = spec.page_size_bytes
    tensor = KVCacheTensor(size=2 * BLOCKS * page, layers=["0", "1"], layer_stride=BLOCKS * page, block_stride=page)
    layout = get_supported_kv_cache_layouts([TreeAttentionBackend])[0]
    return create_kv_cache_views(torch.zeros(tensor.size, dtype=torch.int8), spec, BLOCKS, layout, tensor)


def tree() -> tuple[Tensor, AttentionLayout]:
    """A prompt of 40 tokens in any slots, and two nodes."""
    own = torch.randperm(BLOCKS * BLOCK_SIZE, generator=torch.Generator().manual_seed(0))[:42]
    visible = torch.tensor([*range(1, 41), 40, 40])
    ancestors = torch.tensor([*([column] * 2 for column in range(40)), [40, 40], [41, 41]])
    return own, build_layout([own.numpy()], [42], visible, ancestors)


def test_it_stands_on_the_backend_of_gpus() -> None:
    assert issubclass(TreeAttention, TritonAttentionImpl)


@pytest.mark.parametrize("size", [8, 16, 24, 64, 128, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_vllm_takes_it_for_heads_of_any_size(size: int, dtype: torch.dtype) -> None:
    reasons = TreeAttentionBackend.validate_configuration(
        head_size=size,
        dtype=dtype,
        kv_cache_dtype="auto",
        block_size=BLOCK_SIZE,
        use_mla=False,
        has_sink=True,
        use_sparse=False,
        use_mm_prefix=False,
        use_per_head_quant_scales=False,
        device_capability=DeviceCapability(9, 0),
        attn_type=AttentionType.DECODER,
        has_sliding_window=True,
    )
    assert not reasons


@pytest.mark.parametrize(("size", "value_size"), [(16, 16), (32, 24)])
def test_a_layer_attends_in_the_memory_that_vllm_gives_it(size: int, value_size: int) -> None:
    slots, layout = tree()
    generator = torch.Generator().manual_seed(size)
    shapes = [(HEADS, size), (KEY_VALUE_HEADS, size), (KEY_VALUE_HEADS, value_size)]
    query, key, value = (torch.randn(len(slots), *shape, generator=generator) for shape in shapes)
    cache = torch.zeros(BLOCKS * BLOCK_SIZE, KEY_VALUE_HEADS, size + value_size)
    expected = tree_attention(query, key, value, cache, slots, [layout], 0.3)
    first, second = views(size, value_size)
    output = torch.full((len(slots), HEADS, value_size), torch.nan)
    attention = made_as_vllm_makes_it(size, sinks=None, use_alibi_sqrt=False, chunk_lookback=-1)
    attention.forward(Layer(value_size), query, key, value, first, LayerForward(slots, [layout]), output=output)
    torch.testing.assert_close(output, expected)
    assert not second.any(), "the memory of another layer"


def test_warm_up_needs_nothing_of_the_platform() -> None:
    output = torch.full((5, HEADS, 16), torch.nan)
    query = torch.randn(5, HEADS, 16)
    for metadata in (None, object()):
        assert not made_as_vllm_makes_it(16).forward(Layer(16), query, query, query, torch.zeros(0), metadata, output).any()
    assert TreeAttentionBackend.forward_includes_kv_cache_update, "vLLM writes no keys and values itself"
