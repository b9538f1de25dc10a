"""What the documentation says exists: paths, links, make targets, commands and their options; and the README's Python runs."""

import importlib.util
import json
import re
import shlex
from itertools import chain
from pathlib import Path

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from benchmarks.cli import app as bench_app
from server.commands.app import app
from server.http.app import build_api
from server.metrics.registry import Metrics
from server.schemas.recommendations import RecommendationRequest
from tests.models import random_catalog, save_random_model
from tests.server.http.test_app import Bench

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
HISTORY = ROOT / "CHANGELOG.md"  # speaks of names as they were
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for page in chain(ROOT.glob("*.md"), ROOT.glob("docs/**/*.md"), ROOT.glob("deploy/**/*.md"))
    if page != HISTORY
)
LONGEST_README = 120
FOLDERS = r"(?:server|verification|drafting|benchmarks|tests|docs|deploy|docker|requirements)"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMANDS = {"atspeed": typer.main.get_command(app), "atspeed-bench": typer.main.get_command(bench_app)}


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def code_of(page: str) -> list[str]:
    """The page's code: lines of its blocks, continued ones joined, and what stands between backticks."""
    text = text_of(page)
    blocks = [block for _, block in FENCE.findall(text)]
    lines = chain.from_iterable(block.replace("\\\n", " ").splitlines() for block in blocks)
    spans = re.findall(r"`([^`]+)`", FENCE.sub("", text))
    return [" ".join(piece.split()) for piece in chain(lines, spans)]


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_architecture_names_every_room() -> None:
    named = set(code_of("docs/architecture.md"))
    for floor in ("drafting", "verification", "server"):
        rooms = {path.parent.name for path in (ROOT / floor).glob("*/__init__.py")}
        assert {f"{floor}/{room}" for room in rooms} <= named
        assert {path.name for path in (ROOT / floor).glob("[!_]*.py")} <= named
    assert {path.parent.name for path in (ROOT / "benchmarks").glob("*/__init__.py")} <= named


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= LONGEST_README


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text_of(page))):
        if target.startswith("http"):
            continue
        place, _, anchor = target.partition("#")
        path = ((ROOT / page).parent / place).resolve() if place else ROOT / page
        assert path.exists(), f"{page} links to {target}"
        assert not anchor or anchor in anchors(path), f"{page} links to {target}, and there is no such heading"


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page: str) -> None:
    for piece in code_of(page):
        for path in re.findall(rf"(?<![\w./-]){FOLDERS}/[\w./-]*\w", piece):
            assert (ROOT / path).exists(), f"{page} names {path}"


@pytest.mark.parametrize("page", PAGES)
def test_names_stand_in_the_files_that_are_said_to_have_them(page: str) -> None:
    """As in "`Plan` of `drafting/plans/plan.py`" and "`load_catalog` (`drafting/catalog/loading.py`)"."""
    for name, path in re.findall(rf"`(\w+)`(?: of | in | \()`({FOLDERS}/[\w./-]*\.py)`", text_of(page)):
        assert re.search(rf"\b{name}\b", (ROOT / path).read_text()), f"{page} says that {name} is in {path}"


@pytest.mark.parametrize("page", PAGES)
def test_modules_exist(page: str) -> None:
    for piece in code_of(page):
        for module in re.findall(rf"-m ({FOLDERS}(?:\.\w+)+)", piece):
            assert importlib.util.find_spec(module), f"{page} runs {module}"


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for piece in code_of(page):
        for words in re.findall(r"(?:^|[;&] )make((?: [a-z][a-z-]*)+)", piece.split("#")[0].rstrip()):
            assert set(words.split()) <= targets, f"{page} says make{words}"


def check_command(words: list[str]) -> None:
    """Follow a command line through the commands' tree: every command and every option must be there."""
    command: TyperCommand | TyperGroup = COMMANDS[words[0]]
    for word in words[1:]:
        if word in ("--", "#"):
            return
        if isinstance(command, TyperGroup) and re.fullmatch(r"[a-z][a-z-]*", word):
            assert word in command.commands, f"there is no command {word}"
            command = command.commands[word]
        elif re.fullmatch(r"--[a-z][a-z-]*", word):
            options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
            assert word in options | {"--help"}, f"there is no option {word}"


def test_the_readme_names_every_command() -> None:
    named = {word for piece in code_of("README.md") for word in piece.split()}
    for command in COMMANDS.values():
        assert isinstance(command, TyperGroup)
        assert set(command.commands) <= named


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_their_options_exist(page: str) -> None:
    for piece in code_of(page):
        if re.match(r"atspeed(-bench)? [a-z]", piece):
            try:
                check_command(shlex.split(piece, comments=True))
            except AssertionError as error:
                raise AssertionError(f"{page}: `{piece}`: {error}") from None


def test_the_api_page_names_every_operation_and_no_other() -> None:
    """Its table writes them as `GET PUT /v1/…`, with the whole path."""
    named = set()
    for piece in code_of("docs/api.md"):
        if operations := re.fullmatch(r"((?:[A-Z]+ )+)(/[\w/{}:]+)", piece):
            named |= {(method, operations[2]) for method in operations[1].split()}
    paths = build_api(Bench().services).openapi()["paths"]
    assert named == {(method.upper(), path) for path, methods in paths.items() for method in methods}


def test_the_api_page_names_every_field_of_a_request_for_a_list() -> None:
    section = text_of("docs/api.md").partition("\n## Recommendations\n")[2].partition("\n## ")[0]
    first_cells = re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE)
    assert {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)} == set(RecommendationRequest.model_fields)


def test_the_page_of_metrics_names_every_metric_and_no_other() -> None:
    named = set(re.findall(r"`(atspeed_\w+)`", text_of("docs/observability.md")))
    assert named == {family.name + "_total" * (family.type == "counter") for family in Metrics().registry.collect()}


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    catalog = random_catalog(items=120)
    save_random_model(tmp_path / "model", catalog, layers=1)
    lines = [{"item_id": catalog.item_ids[item], "identifier": catalog.identifier(item)} for item in range(len(catalog))]
    (tmp_path / "catalog.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.chdir(tmp_path)

    (example,) = (block for language, block in FENCE.findall(README.read_text()) if language == "python")
    exec(compile(example, str(README), "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 2
