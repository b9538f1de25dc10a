"""What is written out of a T5's layers equals what transformers' modules compute."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import T5Config
from transformers.models.t5.modeling_t5 import T5LayerFF, T5LayerNorm

from verification.hosts.encoder_decoder_layers import Dense, Projection, lay_out
from verification.hosts.norm import Norm

ROWS = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", ["relu", "gated-gelu"])
def test_the_dense_part_is_that_of_transformers(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    layer: Any = T5LayerFF(T5Config(d_model=16, d_ff=24, feed_forward_proj=kind)).eval().to(dtype)
    if dtype == torch.float16:
        layer.DenseReluDense.wo.float()
    expected = copy.deepcopy(layer)(ROWS.to(dtype))
    torch.testing.assert_close(Dense(layer).added(ROWS.to(dtype, copy=True)), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_norm_is_that_of_transformers(dtype: torch.dtype) -> None:
    norm = T5LayerNorm(16).to(dtype)
    norm.weight.data.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(2))
    for rows in (ROWS.to(dtype), 1e-4 * ROWS, 100 * ROWS):
        torch.testing.assert_close(Norm(norm)(rows), norm(rows))


def test_a_module_that_computes_in_another_way_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make_exact` gives modules of a loaded model another forward."""
    linear = nn.Linear(16, 16, bias=False)
    projection, weight = Projection(lay_out(linear)), linear.weight.detach().clone()
    torch.testing.assert_close(projection(ROWS), ROWS @ weight.T)
    torch.testing.assert_close(projection.added(ROWS.clone(), ROWS), ROWS + ROWS @ weight.T)

    def forward(rows: Tensor) -> Tensor:
        return rows + 1

    monkeypatch.setattr(linear, "forward", forward)
    projection.leave_to_module()
    assert torch.equal(projection(ROWS), ROWS + 1)
    assert torch.equal(projection.added(ROWS.clone(), ROWS), ROWS + (ROWS + 1))
