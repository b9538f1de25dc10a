"""moto's S3 as a process of its own, which stops and goes on with what it has, as a line on its input says.

Why a process: moto imports Flask, and in a process that has, vLLM loads no model.
"""

import sys
from itertools import cycle

from moto.server import ThreadedMotoServer


def main() -> None:
    """Serve on the port that the command line names; every line of the input stops or starts it, and is answered by one."""
    for number, turn in enumerate(cycle(("start", "stop"))):
        if number and not sys.stdin.readline():
            return
        if turn == "start":
            server = ThreadedMotoServer("127.0.0.1", int(sys.argv[1]), verbose=False)
            server.start()
            server.get_host_and_port()
        else:
            server.stop()
        print(turn, flush=True)


if __name__ == "__main__":
    main()
