"""A start of vLLM: what it is told otherwise than by itself, and what it leaves behind where it fails.

Invariant: when it is over, the environment and vLLM's own functions are as they were: a notebook may use vLLM for something else, too.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children

from verification.hosts.checkpoint import HostError
from verification.hosts.vllm_attention import BLOCK_SIZE

# Variable that says how much memory keys and values get. On a CPU, vLLM prefers it to what it is told.
SPACE = "VLLM_CPU_KVCACHE_SPACE"

from vllm.v1.core import kv_cache_utils


def check_memory(left: int, *asked: object) -> None:
    """In place of vLLM's question whether a text of the most tokens fits, which only its scheduler, that never runs, would need to know.

    Args:
        left: bytes for keys and values beside one block of slots.

    Raises:
        HostError: not even one block fits.
    """
    if left < 0:
        raise HostError(f"The memory for keys and values holds not even {BLOCK_SIZE} tokens of this model: raise --kv-memory-gib.")


@contextmanager
def starting() -> Iterator[None]:
    """Start vLLM in here.

    Raises:
        HostError: the process of a device did not start; all other errors of vLLM stay as they are.
    """
    before, space, check = set(active_children()), os.environ.pop(SPACE, None), kv_cache_utils._check_enough_kv_cache_memory
    # By itself vLLM refuses, in words about options of its own, what is enough for most lists.
    kv_cache_utils._check_enough_kv_cache_memory = check_memory
    try:
        yield
    except Exception as error:
        # vLLM keeps the processes of devices that have loaded a model, until this one ends, if only what comes after fails.
        for process in set(active_children()) - before:
            if process.name.startswith("VllmWorker"):
                process.kill()
                process.join()
        # vLLM raises this very class where the process of a device does not start, and writes its error to the log.
        if type(error) is not Exception:
            raise
        raise HostError("A process of --tensor-parallel did not start: vLLM's error in the log says why.") from error
    finally:
        kv_cache_utils._check_enough_kv_cache_memory = check
        if space is not None:
            os.environ[SPACE] = space
