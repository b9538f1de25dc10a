"""The whole server as one more system of a benchmark: what HTTP, the queue and the history store add to the engine's time.

Invariant: the server that is measured is the one that users start, in processes of its own, asked over a real connection by user id. A
request is timed from its first byte sent to the last byte received: what httpx takes to build it is the client's own.
"""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from benchmarks.endings import ProgramError
from benchmarks.server_process import ServerProcess
from benchmarks.systems.interleaved import SystemFailedError
from benchmarks.systems.question import Outcome, Question, SystemSpec
from drafting.catalog.loading import load_catalog


class HttpSystem:
    """`atspeed serve` with an SQLite history store.

    Attributes:
        overhead_seconds: of every search, its time minus what the engine took.
    """

    def __init__(self, spec: SystemSpec, folder: Path) -> None:
        """`spec` is that of the engine inside the server; `folder` takes the histories and the log."""
        self.name = "atspeed/http"
        self.overhead_seconds: list[float] = []
        self._catalog = load_catalog(spec.catalog)
        self._vocabulary = Tokenizer.from_file(str(spec.target / "tokenizer.json")).get_vocab()
        self._known: set[str] = set()
        flags = {"target": spec.target, "catalog": spec.catalog, "engine": spec.name.rpartition("/")[2], "threads": spec.threads}
        flags |= {"timeout-ms": 60_000, "plan": spec.plans[0], "histories": f"sqlite:///{(folder / 'histories.db').absolute()}"}
        flags |= {"draft": spec.draft} if spec.draft else {}
        self._server = ServerProcess(folder, *(part for flag, value in flags.items() for part in (f"--{flag}", str(value))))
        self._server.start()

    def wait_ready(self) -> None:
        """Wait until the server answers.

        Raises:
            SystemFailedError: it ended, or took too long.
        """
        try:
            self._server.wait_until_ready()
        except ProgramError as error:
            raise SystemFailedError(f"The server did not become ready. {error}") from error

    def search(self, question: Question) -> list[Outcome]:
        """Ask for users' lists one after another."""
        return [self._search(history, question.k) for history in question.histories]

    def _search(self, history: list[int], k: int) -> Outcome:
        """Ask for one user's list; the user's events are stored beforehand, outside the time."""
        # The server remembers the prompts of its users: for every list length there is another user.
        user = "-".join(map(str, (k, *history)))
        if user not in self._known:
            events = [{"item_id": self._catalog.item_ids[item], "timestamp": number} for number, item in enumerate(history)]
            self._post(f"/v1/users/{user}/events", {"events": events})
            self._known.add(user)
        seconds, answer = self._post("/v1/recommendations", {"user_id": user, "k": k, "beam_width": k})
        self.overhead_seconds.append(seconds - answer["timing_ms"]["engine"] / 1e3)
        first = {item["rank"]: item["identifier"] for item in reversed(answer["items"])}
        identifiers = [tuple(self._vocabulary[token] for token in first[rank]) for rank in sorted(first)]
        return Outcome(seconds, identifiers, answer["usage"]["target_forwards"])

    def _post(self, path: str, body: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        response = self._server.client.post(path, json=body)
        answer: dict[str, Any] = response.json()
        if response.is_error:
            raise SystemFailedError(f"The server refused POST {path}: {answer.get('detail', response.status_code)}")
        return response.elapsed.total_seconds(), answer

    def close(self) -> None:
        """Stop the server."""
        self._server.close()
