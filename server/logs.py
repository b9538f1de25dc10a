"""The log: one readable line per event on standard error, the same in both processes."""

import logging
import os
import sys


def configure_logs(level: str, process: str) -> None:
    """Sends all logs of this process to standard error.

    Args:
        level: the lowest level shown, such as `INFO`.
        process: which process speaks, such as `api` or `engine`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)-7s {process}[{os.getpid()}] %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
