"""What vLLM says of a model that it can't load names options of ours, or none."""

import pytest

from verification.hosts.vllm_errors import reason

NO_ROOM = "there is too little memory for it and --kv-memory-gib: "
OTHERWISE = "vLLM cannot run this model (llama) here: "


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            # On a CPU.
            ValueError(
                "Available memory on node 0 (1.5/8.0 GiB) on kv cache allocation is less than requested memory for kv (16.0 GiB). Decrease "
                "--kv-cache-memory-bytes, VLLM_CPU_KVCACHE_SPACE, or reduce CPU memory used by other processes."
            ),
            f'{NO_ROOM}"Available memory on node 0 (1.5/8.0 GiB) on kv cache allocation is less than requested memory for kv (16.0 GiB)."',
        ),
        (
            ValueError(
                "Free memory on device cuda:0 (0.1/79.0 GiB) on startup is less than desired GPU memory utilization (0.001, 0.08 GiB). "
                "Decrease GPU memory utilization or reduce GPU memory used by other processes."
            ),
            f'{NO_ROOM}"Free memory on device cuda:0 (0.1/79.0 GiB) on startup is less than desired GPU memory utilization (0.001, 0.08 '
            'GiB)."',
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 24.00 GiB."), f'{NO_ROOM}"CUDA out of memory. Tried to allocate 24.00 GiB."'),
        (
            ValueError("There is no parameter 'b'. The available parameters are: a, c"),
            f"{OTHERWISE}\"There is no parameter 'b'.\"; try --engine transformers",
        ),
        (AssertionError("no head"), f'{OTHERWISE}"no head"; try --engine transformers'),
        (ImportError("pip install it"), "pip install it"),
    ],
)
def test_a_reason_names_options_of_ours(error: Exception, sentence: str) -> None:
    assert reason(error, "llama") == sentence
