"""`atspeed-bench rivals` with our own engine, the grammar that vLLM is given, and a comparison with STATIC that fails."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.rivals import models, process, run, static, turns
from benchmarks.rivals.environment import RivalError
from benchmarks.rivals.run import Report
from benchmarks.rivals.turns import Row
from tests.server.forked_server import ForkedScript
from verification.evaluation.generate import PrefixTable

runner = CliRunner()


def test_ours_is_measured_and_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ATSPEED_CACHE", str(tmp_path))
    monkeypatch.setattr(turns, "SETTLE_SECONDS", 0)
    # Of this interpreter's own: what it has imported is not imported anew for each.
    monkeypatch.setattr(process, "subprocess", SimpleNamespace(Popen=ForkedScript, PIPE=subprocess.PIPE))
    written, table = tmp_path / "rows.json", tmp_path / "rows.md"
    common = ["rivals", "--only", "atspeed,transformers,beamsd", "--shape", "tiny", "--lists", "2", "--warm-up", "1", "--items", "3"]
    flags = [
        "--form",
        "atspeed/transformers",
        "--form",
        "atspeed/transformers, N = 40",
        "--form",
        "transformers",
        "--json",
        str(written),
        "--markdown",
        str(table),
    ]
    result = runner.invoke(app, [*common, *flags, "--k", "4,50"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    report = json.loads(written.read_text())
    assert [(row["entrant"], row["k"], row["complete"], row["equal"]) for row in report["rows"]] == [
        ("atspeed/transformers", 4, 2, 2),
        ("atspeed/transformers, N = 40", 4, 2, 2),
        ("transformers", 4, 2, 2),
        ("atspeed/transformers", 50, 2, 2),
        ("transformers", 50, 2, 2),
    ]
    assert "| atspeed/transformers, N = 40 | speculative, 40 drafts a level |" in table.read_text()
    # As if the run had ended after the first length: what was measured is kept, the other is measured.
    marked = [row | {"p50_ms": 12345.0} for row in report["rows"] if row["k"] == 4]
    written.write_text(json.dumps(report | {"rows": marked, "busy": {"4": 0.0}}))
    runner.invoke(app, [*common, *flags, "--k", "4,50"], catch_exceptions=False)
    again = json.loads(written.read_text())["rows"]
    assert [(row["k"], row["p50_ms"] == 12345.0) for row in again] == [(4, True)] * 3 + [(50, False)] * 2


def test_a_comparison_with_static_that_fails_costs_a_sentence_and_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    row = Row("transformers", "plain", 10, 1.0, 2.0, 1.0, 3, 3, 10, None, None, 0)
    conditions = {"models": "tiny", "machine": "one", "date": "today", "lists": 3, "warm_up": 1, "items": 2, "threads": 1}
    monkeypatch.setattr(run, "measure", lambda *_: Report(conditions, [row], {10: 0.0}, []))
    monkeypatch.setattr(models, "random_models", lambda *_: None)

    def fail(*_: object) -> None:
        raise RivalError("The comparison with STATIC ended with status 1: see its message above.")

    monkeypatch.setattr(static, "measure_masks", fail)
    monkeypatch.setenv("ATSPEED_CACHE", str(tmp_path))
    result = runner.invoke(app, ["rivals", "--k", "10", "--markdown", str(tmp_path / "rows.md")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert result.stderr.strip().endswith("The comparison with STATIC ended with status 1: see its message above.")
    written = (tmp_path / "rows.md").read_text()
    assert "| transformers | plain |" in written
    assert written.endswith("\n\nThe comparison with STATIC ended with status 1: see its message above.\n")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--only", "atspeed,nobody"], "there is no rival 'nobody'"),
        (["--shape", "huge"], "there is no shape 'huge'"),
        (["--catalog", __file__], "--target, --draft and --catalog go together."),
        (["--source", "somebody=/x"], "there is no rival 'somebody'"),
        (["--source", "beamsd"], "--source takes a rival and the path of its repository, such as beamsd=../beamsd."),
        (["--only", "ctranslate2", "--form", "ctranslate2"], "there is no form 'ctranslate2': choose among ctranslate2, float32; "),
        (["--only", "static", "--form", "vllm"], "there is no form 'vllm': choose among those of other rivals."),
    ],
)
def test_mistakes_are_sentences(flags: list[str], sentence: str):
    result = runner.invoke(app, ["rivals", *flags], env={"COLUMNS": "300"})
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_the_grammar_of_the_trie_is_that_of_the_catalog(monkeypatch: pytest.MonkeyPatch):
    for name in ("vllm", "vllm.sampling_params"):
        module = ModuleType(name)
        module.LLM = module.BeamSearchParams = module.StructuredOutputsParams = None  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "benchmarks.rivals.workers.vllm_beams", raising=False)
    from benchmarks.rivals.workers.vllm_beams import trie_grammar

    identifiers = np.unique(np.random.default_rng(0).integers(4, size=(40, 3)) + np.array([0, 10, 20]), axis=0)
    rules = dict(line.split(" ::= ") for line in trie_grammar(identifiers).splitlines())
    assert len(rules) < len(PrefixTable(identifiers).next)

    def spell(name: str) -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = []
        for choice in rules[name].split(" | "):
            token, _, rest = choice.partition(" ")
            ends = spell(rest) if rest else [()]
            found += [(int(token.removeprefix("Token(").removesuffix(")")), *end) for end in ends]
        return found

    (root,) = [rules.pop("root")]
    assert sorted(spell(root)) == sorted(map(tuple, identifiers.tolist()))


def test_beams_share_their_prompt_and_lists_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Blocks of the prefix cache had more tokens than the prompts, so no beam found its own there."""
    told: list[object] = []

    class Engine:
        def __init__(self, model: str, **settings: object) -> None:
            told.append(settings["block_size"])

        def beam_search(self, prompts: list[dict[str, list[int]]], params: object, use_tqdm: bool) -> list[SimpleNamespace]:
            told.append("searched")
            return [SimpleNamespace(sequences=[SimpleNamespace(tokens=[*prompt["prompt_token_ids"], 3, 14])]) for prompt in prompts]

        def reset_prefix_cache(self) -> None:
            told.append("forgot")

    for name in ("vllm", "vllm.sampling_params"):
        module = ModuleType(name)
        module.LLM, module.BeamSearchParams, module.StructuredOutputsParams = Engine, dict, dict  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    for variable in ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_LOGGING_LEVEL"):
        monkeypatch.setenv(variable, "")
    monkeypatch.delitem(sys.modules, "benchmarks.rivals.workers.vllm_beams", raising=False)
    from benchmarks.rivals.workers.vllm_beams import load

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    np.save(tmp_path / "identifiers.npy", np.array([[3, 14]]))
    given = {"threads": 1, "target": "model", "dtype": "float32", "logprobs": "raw_logprobs", "constrained": False}
    search = load(given | {"identifiers": str(tmp_path / "identifiers.npy")})
    assert [search([1, 2], k) for k in (1, 2)] == [[[3, 14]]] * 2
    assert told == [32, *["searched", "forgot"] * 2]


def test_rows_of_other_models_are_not_gone_on_with(tmp_path: Path):
    """Targets are often called the same."""

    def conditions(name: str) -> dict[str, object]:
        folder = tmp_path / name
        given = models.given_models(folder / "target", folder / "draft", folder / "catalog.jsonl", tmp_path / "cache")
        return run.measure(given, [], run.Settings((), 1, 1, 1, 1, {}), tmp_path, None, print).conditions

    for name in ("one", "other"):
        for part in ("target", "draft"):
            (tmp_path / name / part).mkdir(parents=True)
            (tmp_path / name / part / "config.json").write_text("{}")
        (tmp_path / name / "catalog.jsonl").write_text("")
    assert conditions("one") == conditions("one")
    assert conditions("one")["models"] == conditions("other")["models"] == "target"
    assert conditions("one") != conditions("other")
    before = conditions("one")
    os.utime(tmp_path / "one" / "draft" / "config.json", ns=(0, 0))
    assert conditions("one") != before
