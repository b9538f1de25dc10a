"""Starting the engine process: which command, in which environment, and what to say when it can't be."""

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from server.settings import EngineOptions


@dataclass(frozen=True)
class Obstacle:
    """Why an engine process can't serve: a sentence for the log, which may name files, and one for clients, which must not."""

    sentence: str
    public: str = "The engine died and can't be started again yet; the server keeps trying, and its log says what is in the way."


async def spawn_engine(module: str, address: str, options: EngineOptions) -> asyncio.subprocess.Process:
    """A process that runs `module` and will connect to `address`.

    Raises:
        OSError: the machine can't start a process now.
    """
    # The child must find this package wherever the server was started from, and must not take a directory there for it (-P).
    package_root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        module,
        address,
        options.model_dump_json(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=sys.stderr,
        env=os.environ | {"PYTHONPATH": path},
    )
