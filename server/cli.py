"""The entry of the command `atspeed`.

Invariant: it imports what the commands are made of only where an interruption is awaited, so Ctrl-C ends with a status in that second, too.
"""

import sys

# Exit status of a process that SIGINT has ended, as shells count it.
_INTERRUPTED = 130


def main() -> None:
    """Entry point of the `atspeed` script."""
    try:
        from server.commands.app import app

        app()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
