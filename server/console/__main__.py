"""The console process that `atspeed serve --console` starts: `python -m server.console SOCKET OPTIONS_JSON`.

Invariant: it never outlives its parent, and its priority is low, so that pages take no processor from lists.
"""

import os
import socket
import sys

from server.console.process import run_console
from server.engine.parent import die_with_parent
from server.metrics.logs import configure_logs
from server.settings import ConsoleOptions

NICENESS = 5


def main(descriptor: str, options_json: str) -> int:
    """Serve the console on a socket that the parent has bound."""
    options = ConsoleOptions.model_validate_json(options_json)
    if not die_with_parent(options.parent):
        return 1
    os.nice(NICENESS)
    configure_logs(options.log_level, "console", options.log_format)
    run_console(options, socket.socket(fileno=int(descriptor)))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
