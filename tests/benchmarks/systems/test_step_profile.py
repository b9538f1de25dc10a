"""The profile of a step: that what it calls outside the forwards is neither all nor nothing, with and without a draft."""

import itertools
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.systems import step_profile
from drafting.beam.rows import Rows
from drafting.trie.token_set import TokenSet

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


def test_heads_are_a_part_of_the_forwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked of them, and of some of the rows."""
    ticks = itertools.count()
    monkeypatch.setattr(step_profile, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    logits, cpu = torch.arange(10.0).view(2, 5), torch.device("cpu")
    model = SimpleNamespace(device=cpu, total_slots=1, has_encoder=False, score=lambda batch: Rows.of(logits))
    timed = step_profile.TimedModel(model)
    rows = timed.score(None)
    assert timed.seconds == 1
    assert rows.take(torch.tensor([1])).project(TokenSet(np.array([1, 3]), cpu)).tolist() == [[6, 8]]
    assert timed.seconds == 2
    torch.testing.assert_close(rows.log_normaliser(), rows.logits().logsumexp(1))
    assert timed.seconds == 4


@pytest.mark.parametrize(
    ("flags", "sentence"), [(("--plan", "magic"), "There is no plan 'magic'"), (("--shape", "huge"), "There is no shape 'huge'")]
)
def test_what_cannot_be_profiled_is_a_sentence(flags: tuple[str, str], sentence: str) -> None:
    result = CliRunner().invoke(app, [*STEPS, *flags])
    assert result.exit_code == 1
    assert sentence in result.stderr
