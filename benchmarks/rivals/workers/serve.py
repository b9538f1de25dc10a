"""The loop of a measured process: load what a worker file loads, answer questions line by line, time nothing but the search.

A question is a line of JSON with a prompt, a list length and what else the worker is to know; an answer has the list and its times.
Invariant: nothing beside the standard library is imported here, since each rival has packages of its own. Whatever a library prints goes to
the standard error stream: the standard output holds answers alone.
"""

import importlib.util
import json
import os
import sys
import time
from typing import Any


def load_worker(path: str) -> Any:
    """A worker file as a module."""
    found = importlib.util.spec_from_file_location("worker", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["worker"] = module
    found.loader.exec_module(module)
    return module


def main() -> None:
    """Serve until the standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    search = load_worker(sys.argv[1]).load(json.loads(sys.argv[2]))
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        prompt, k = question.pop("prompt"), question.pop("k")
        clock, processor = time.perf_counter(), time.process_time()
        found = search(prompt, k, **question)
        seconds = time.perf_counter() - clock, time.process_time() - processor
        print(json.dumps({"seconds": seconds[0], "processor_seconds": seconds[1], "identifiers": found}), file=answers, flush=True)


if __name__ == "__main__":
    main()
