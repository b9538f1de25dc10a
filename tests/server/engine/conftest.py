"""Engine processes that have no model and do as the request ids and their target say."""

from collections.abc import Callable

import pytest

from server.engine import supervisor as engine_supervisor


@pytest.fixture
def fake_worker(run_as_engine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    run_as_engine("tests.server.fake_worker")
    # Pauses that would grow from death to death.
    for name in ("FIRST_BACKOFF_SECONDS", "LONGEST_BACKOFF_SECONDS"):
        monkeypatch.setattr(engine_supervisor, name, 0.05)
