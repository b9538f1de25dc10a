"""Clients that ask a fleet for lists all the while, and what becomes of each."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from deploy.fleet.replicas import Fleet
from deploy.fleet.traffic import KEPT_ITEMS, K

PAUSE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Asked:
    """A list that was asked for.

    Attributes:
        begun: by the monotonic clock.
        seconds: until the answer.
        status: 0 if none came.
        said: what an answer that is no list says.
    """

    begun: float
    seconds: float
    status: int
    said: str = ""


@contextmanager
def asked(fleet: Fleet, clients: int = 1) -> Iterator[list[Asked]]:
    """Ask for lists of any replica; what is yielded grows."""
    over, lists = threading.Event(), list[Asked]()

    def ask(number: int) -> None:
        rng = random.Random(number)
        with fleet.client() as client:
            while not over.wait(PAUSE_SECONDS):
                body = {"history": rng.sample(fleet.lines.names[:KEPT_ITEMS], 3), "k": K}
                begun, status = time.monotonic(), 0
                try:
                    answer = client.post("/v1/recommendations", json=body, headers={"X-User-Id": str(rng.random())})
                    status, said = answer.status_code, "" if answer.is_success else answer.text
                except httpx.TransportError as error:
                    said = repr(error)
                lists.append(Asked(begun, time.monotonic() - begun, status, said))

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in asking:
        thread.start()
    try:
        yield lists
    finally:
        over.set()
        for thread in asking:
            thread.join()
