"""A slice of the fuzzing: the same requests in every run, and a command that fails when an answer is not documented."""

from pathlib import Path

import pytest

from benchmarks.fuzz import run
from tests.server.forked_server import ForkedServer

# So few that one round has them; `make fuzz` asks thousands.
CASES = 45
SEED = 19


def test_requests_made_from_the_document_get_documented_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "ServerProcess", ForkedServer)
    found = run.fuzz(tmp_path, CASES, SEED, (), "fuzzing")
    assert found.failures == ()
    assert found.cases >= CASES
    assert found.operations > 20
