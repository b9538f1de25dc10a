"""Work on catalogs in a background process.

Invariant: its priority is low, so that millions of items are read, sorted and checked without taking an interpreter or much of a processor
from those who serve; and its memory is gone when it ends. Cancelling the wait for it ends it.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from server.errors import ServerError

NICENESS = 10
Order = TypeVar("Order")
Answer = TypeVar("Answer")


async def run_in_background(module: str, order: msgspec.Struct, answer: type[Answer], died: ServerError) -> Answer:
    """Run a module that calls `answer_order`, and return its answer.

    Raises:
        ServerError: `died`, if the process ends without an answer.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        output, _ = await process.communicate(msgspec.msgpack.encode(order))
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        raise died
    return msgspec.msgpack.decode(output, type=answer)


def answer_order(order: type[Order], work: Callable[[Order], msgspec.Struct]) -> None:
    """Lower the priority of this process, read an order and write what comes of it."""
    os.nice(NICENESS)
    answer = work(msgspec.msgpack.decode(sys.stdin.buffer.read(), type=order))
    sys.stdout.buffer.write(msgspec.msgpack.encode(answer))
