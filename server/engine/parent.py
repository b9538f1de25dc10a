"""Python processes that a server starts beside itself: what they find in their environment, and that they end with it.

Invariant: a child imports this project's packages wherever the server was started from, and what the user's PYTHONPATH adds to them; and
it never outlives its parent, even one that is killed.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_ROOT = Path(__file__).parents[2]


def child_environment(**more: str) -> dict[str, str]:
    """This process's environment for a child, which finds this project's packages first; `more` replaces variables."""
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **more}


def die_with_parent(parent: int | None = None) -> bool:
    """Ask the kernel to kill this process when its parent dies.

    Args:
        parent: number of the process that has started this one; None if it is not known.

    Returns:
        False if that one has gone already, which the kernel will not tell: this process is to end by itself.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have died while this process was importing its modules, before it could ask for that.
    return parent in (None, os.getppid())
