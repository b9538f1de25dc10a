"""Work on catalogs in a background process.

Invariant: its priority is low, so that millions of items are read, sorted and checked without taking an interpreter or much of a processor
from those who serve; its memory and its time are limited; and its memory is gone when it ends. Cancelling the wait for it ends it, and
so does the end of the server, however that comes.
"""

import asyncio
import gc
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from server.engine.parent import child_environment, die_with_parent
from server.errors import ServerError

NICENESS = 10
OUT_OF_MEMORY = 77
Order = TypeVar("Order")
Answer = TypeVar("Answer")


class ProcessLimits(msgspec.Struct, frozen=True):
    """What a background process may take.

    Attributes:
        memory_gib: memory, without files that are mapped.
        seconds: time of the processors, and by the clock.
    """

    memory_gib: float
    seconds: int


async def run_in_background(
    module: str, order: msgspec.Struct, answer: type[Answer], limits: ProcessLimits, refused: type[ServerError]
) -> Answer:
    """Run a module that calls `answer_order`, and return its answer.

    Raises:
        ServerError: `refused`, if the process takes too much or ends without an answer.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        module,
        json.dumps(msgspec.to_builtins(limits)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=child_environment(),
    )
    try:
        async with asyncio.timeout(limits.seconds):
            output, _ = await process.communicate(_encode(order))
    except TimeoutError as error:
        raise refused(_too_long(limits)) from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise refused(_reason(process.returncode, limits))
    return msgspec.convert(json.loads(output), answer)


def answer_order(order: type[Order], work: Callable[[Order], msgspec.Struct]) -> None:
    """Limit this process, read an order, write what comes of it, and end."""
    die_with_parent()
    os.nice(NICENESS)
    # Where the machine's memory ends before this limit, the kernel shall end this process and not the engine (in Kubernetes it ends all).
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    limits = msgspec.convert(json.loads(sys.argv[1]), ProcessLimits)
    memory = int(limits.memory_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.seconds, limits.seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The model libraries and a catalog are millions of objects that all stay: a look through them that is due every 700 finds nothing.
    gc.set_threshold(100_000)
    try:
        sys.stdout.buffer.write(_encode(work(msgspec.convert(json.load(sys.stdin), order))))
    except MemoryError:
        # Whatever else happens here may need memory too.
        os._exit(OUT_OF_MEMORY)
    sys.stdout.flush()
    # The kernel takes all at once; object by object it would take a second more.
    os._exit(0)


def _reason(status: int, limits: ProcessLimits) -> str:
    if status == OUT_OF_MEMORY:
        return f"It takes more than the {limits.memory_gib:g} GiB of memory that this server allows for it (--catalog-build-memory-gib)."
    if status in (-signal.SIGXCPU, -signal.SIGKILL):
        return _too_long(limits) if status == -signal.SIGXCPU else "The process that works on it was killed, for lack of memory perhaps."
    return "The process that works on it died, for lack of memory perhaps."


def _too_long(limits: ProcessLimits) -> str:
    return f"It takes longer than the {limits.seconds:,} s that this server allows for it (--catalog-build-seconds)."


def _encode(message: msgspec.Struct) -> bytes:
    # JSON in ASCII: texts from clients may hold halves of surrogate pairs, which UTF-8 can't carry.
    return json.dumps(msgspec.to_builtins(message)).encode()
