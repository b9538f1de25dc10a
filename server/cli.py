"""The entry of the command `atspeed`.

Invariant: it imports what the commands are made of only where an interruption is awaited, so Ctrl-C ends with a status in that second, too.
"""

import os
import signal
import sys

# Exit status of a process that SIGINT has ended, as shells count it.
_INTERRUPTED = 130
# As the system numbers it; Python has no object of it where it is closed.
_STANDARD_ERROR = 2
# Seconds between two states of a progress bar in a log, which keeps each of them.
_LOG_SECONDS = "10"


def main() -> None:
    """Entry point of the `atspeed` script."""
    if not os.isatty(_STANDARD_ERROR):
        # Read where tqdm is imported.
        os.environ.setdefault("TQDM_MININTERVAL", _LOG_SECONDS)
    if os.getpid() == 1:
        # Of a container. The kernel keeps from its first process whatever signal has no handler, and Python has one for Ctrl-C alone.
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        from server.engine.processors import bound_linear_algebra

        bound_linear_algebra()
        from server.commands.app import app

        app()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
