"""`Faults`: kills and stops of replicas and of the Redis master, one after the other, by a seed.

Invariant: when `end` returns, all that was stopped goes on and all that was killed is started again. Redis is harmed only when its master
has both replicas, and one replica of the server at a time, as one thing at a time breaks in a room.
"""

import random
import threading
import time
from dataclasses import dataclass

from deploy.fleet.redis import RedisTrio
from deploy.fleet.replicas import READY_SECONDS, Fleet, Replica

PAUSE_SECONDS = (1.0, 4.0)
STOP_SECONDS = (0.3, 4.0)
DOWN_SECONDS = (0.0, 2.0)


@dataclass
class Fault:
    """One fault: its kind, what it was done to, and when it began and ended, seconds since 1970."""

    kind: str
    whom: str
    begun: float
    ended: float = 0.0


class Faults:
    """Harms a fleet and its Redis.

    Attributes:
        faults: what was done, in order.
        complaints: what did not come back.
    """

    def __init__(self, fleet: Fleet, redis: RedisTrio, seed: str) -> None:
        self.faults: list[Fault] = []
        self.complaints: list[str] = []
        self._fleet, self._redis = fleet, redis
        self._rng = random.Random(f"{seed}/faults")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """End, and return when all is whole."""
        self._over.set()
        self._thread.join()
        for replica in self._fleet.replicas:
            self._settle(replica)
        if not self._redis.wait_until_whole():
            self.complaints.append("Redis does not become whole again.")

    def _run(self) -> None:
        while not self._over.wait(self._rng.uniform(*PAUSE_SECONDS)):
            kind = self._rng.choice(["replica killed", "replica stopped", "master killed", "master stopped"])
            if kind.startswith("replica"):
                self._harm_replica(kind, self._rng.choice(self._fleet.replicas))
            else:
                self._harm_master(kind)

    def _harm_replica(self, kind: str, replica: Replica) -> None:
        fault = self._note(kind, replica.address)
        if kind == "replica killed":
            replica.kill()
            time.sleep(self._rng.uniform(*DOWN_SECONDS))
            replica.start()
            self._settle(replica)
        else:
            replica.stop()
            time.sleep(self._rng.uniform(*STOP_SECONDS))
            replica.resume()
        fault.ended = time.time()

    def _harm_master(self, kind: str) -> None:
        if not self._redis.wait_until_whole():
            self.complaints.append("Redis does not become whole again.")
            return
        master = self._redis.master()
        fault = self._note(kind, f"127.0.0.1:{master.port}")
        if kind == "master killed":
            master.kill()
            time.sleep(self._rng.uniform(*DOWN_SECONDS))
            master.start()
        else:
            master.pause()
            time.sleep(self._rng.uniform(*STOP_SECONDS))
            master.resume()
        fault.ended = time.time()

    def _note(self, kind: str, whom: str) -> Fault:
        self.faults.append(Fault(kind, whom, time.time()))
        return self.faults[-1]

    def _settle(self, replica: Replica) -> None:
        began = time.monotonic()
        while not replica.is_ready:
            if replica.process.poll() is not None or time.monotonic() - began > READY_SECONDS:
                self.complaints.append(f"A replica does not get ready again: {replica.log_file}.")
                return
            time.sleep(0.2)
