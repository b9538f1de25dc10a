"""What the engine says at start of what it has loaded."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from server.engine.loading import faster_precision
from verification.recommender import Recommender
from verification.result import Precision


@pytest.mark.parametrize(
    ("dtype", "device", "instructions", "word"),
    [
        ("float32", "cpu", {"avx512_bf16": True, "amx_bf16": True}, "amx_bf16"),
        ("float32", "cpu", {"bf16": True}, "bf16"),
        ("float32", "cpu", {"avx512_bf16": False}, None),
        ("bfloat16", "cpu", {"amx_bf16": True}, None),
        ("float32", "cuda", {"amx_bf16": True}, None),
    ],
)
def test_a_cpu_that_would_be_faster_in_bfloat16_is_told(
    dtype: str, device: str, instructions: dict[str, bool], word: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    engine = SimpleNamespace(target=SimpleNamespace(device=torch.device(device)))
    told = faster_precision(cast(Recommender, cast(Any, SimpleNamespace(engine=engine, precision=Precision(dtype, True)))))
    assert told is None if word is None else word in str(told)
