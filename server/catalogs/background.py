"""Work on catalogs in a background process.

Invariant: its priority is low, so that millions of items are read, sorted and checked without taking an interpreter or much of a processor
from those who serve; and its memory is gone when it ends. Cancelling the wait for it ends it, and so does the end of the server, however
that comes.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from server.engine.parent import die_with_parent
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
        output, _ = await process.communicate(_encode(order))
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        raise died
    return msgspec.convert(json.loads(output), answer)


def answer_order(order: type[Order], work: Callable[[Order], msgspec.Struct]) -> None:
    """Lower the priority of this process, read an order and write what comes of it."""
    die_with_parent()
    os.nice(NICENESS)
    sys.stdout.buffer.write(_encode(work(msgspec.convert(json.load(sys.stdin), order))))


def _encode(message: msgspec.Struct) -> bytes:
    # JSON in ASCII: texts from clients may hold halves of surrogate pairs, which UTF-8 can't carry.
    return json.dumps(msgspec.to_builtins(message)).encode()
