"""A slice of the fuzzing: the same requests in every run, and a command that fails when an answer is not documented."""

from pathlib import Path

from benchmarks.fuzz.run import fuzz

# So few that one round has them; `make fuzz` asks thousands.
CASES = 45
SEED = 19


def test_requests_made_from_the_document_get_documented_answers(tmp_path: Path):
    found = fuzz(tmp_path, CASES, SEED, (), "fuzzing")
    assert found.failures == ()
    assert found.cases >= CASES
    assert found.operations > 20
