"""The profile of a step: that what it calls outside the forwards is neither all nor nothing, with and without a draft."""

import re

import pytest

from benchmarks.systems import step_profile


@pytest.mark.parametrize("plan", ["none", "beam:6"])
def test_the_share_outside_the_forwards_is_a_part_of_the_step(capsys: pytest.CaptureFixture[str], plan: str) -> None:
    assert step_profile.main(["--shape", "tiny", "--host", "transformers", "--plan", plan, "--k", "3,5", "--lists", "3"]) == 0
    lines = re.findall(r"^\| (\d+) \| ([\d.]+) ms \| ([\d.]+) ms \| (\d+)% \|$", capsys.readouterr().out, re.MULTILINE)
    assert [int(k) for k, *_ in lines] == [3, 5]
    for _, step, outside, share in lines:
        assert 0 < float(outside) < float(step)
        assert 0 < int(share) < 100


def test_what_cannot_be_profiled_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert step_profile.main(["--shape", "tiny", "--host", "transformers", "--plan", "magic"]) == 1
    assert "There is no plan 'magic'" in capsys.readouterr().err
