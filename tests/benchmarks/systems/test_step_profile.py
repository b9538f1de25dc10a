"""The profile of a step: that what it calls outside the forwards is neither all nor nothing, with and without a draft."""

import re

import pytest
from typer.testing import CliRunner

from benchmarks.cli import app

STEPS = ("steps", "--shape", "tiny", "--engine", "transformers")


@pytest.mark.parametrize("plan", ["none", "beam:6"])
def test_the_share_outside_the_forwards_is_a_part_of_the_step(plan: str) -> None:
    result = CliRunner().invoke(app, [*STEPS, "--plan", plan, "--k", "3,5", "--lists", "3"])
    assert result.exit_code == 0, result.output
    lines = re.findall(r"^\| (\d+) \| ([\d.]+) ms \| ([\d.]+) ms \| (\d+)% \|$", result.stdout, re.MULTILINE)
    assert [int(k) for k, *_ in lines] == [3, 5]
    for _, step, outside, share in lines:
        assert 0 < float(outside) < float(step)
        assert 0 < int(share) < 100


@pytest.mark.parametrize(
    ("flags", "sentence"), [(("--plan", "magic"), "There is no plan 'magic'"), (("--shape", "huge"), "There is no shape 'huge'")]
)
def test_what_cannot_be_profiled_is_a_sentence(flags: tuple[str, str], sentence: str) -> None:
    result = CliRunner().invoke(app, [*STEPS, *flags])
    assert result.exit_code == 1
    assert sentence in result.stderr
