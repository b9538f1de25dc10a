"""The command line is made of the settings: nothing is spelt twice, and what is given arrives."""

import os
from pathlib import Path
from types import NoneType
from typing import Annotated, Any

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from drafting.alignment.settings import DraftSettings, TargetSettings, TeacherSettings, TrainingError
from server.commands.app import app
from server.commands.options import default, setting, takes_settings
from server.engine_settings import Panel
from server.settings import Settings

runner = CliRunner()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ATSPEED_")]:
        monkeypatch.delenv(name)


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def test_serve_has_one_option_for_every_setting_with_its_help_default_and_variable():
    (serve,) = [command for command in typer.main.get_command(app).commands.values() if command.name == "serve"]
    options: dict[str, Any] = {option.name: option for option in serve.params if option.name != "help"}
    assert set(options) == set(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        option = options[name]
        assert option.opts == [flag(name)]
        assert field.description is not None
        assert option.help.startswith(field.description)
        assert option.envvar == f"ATSPEED_{name.upper()}"
        assert option.default is None
        assert not option.required
        assert option.rich_help_panel in [panel.value for panel in Panel]
        shown = default(name)
        if isinstance(shown, bool):
            assert option.show_default == f"no-{flag(name)[2:]}"
        else:
            assert option.show_default == (False if isinstance(shown, NoneType) or callable(shown) else str(shown))


def test_help_is_grouped_in_the_order_of_the_panels():
    shown = runner.invoke(app, ["serve", "--help"], env={"COLUMNS": "160"}).stdout
    places = [shown.index(f" {panel.value} ─") for panel in Panel]
    assert places == sorted(places)
    for words in ("auto|float32|bfloat16|float16", "strict|gumbel|relaxed", "Directory of the target model. Required."):
        assert words in shown


@pytest.fixture
def resolved() -> tuple[typer.Typer, list[Any]]:
    """A command with its own option and some settings, and what it got."""
    got: list[Any] = []
    small = typer.Typer()

    @small.command()
    @takes_settings("target", "catalog", "threads", "cuda_graphs", "plan", "engine")
    def command(settings: Settings, times: Annotated[int, typer.Option()] = 1) -> None:
        """A command."""
        got.extend((settings, times))

    return small, got


def test_flags_variables_and_defaults_reach_the_command(resolved: tuple[typer.Typer, list[Any]]):
    small, got = resolved
    variables = {"ATSPEED_THREADS": "3", "ATSPEED_PLAN": "trie", "ATSPEED_PORT": "9000"}
    flags = ["--target", "t", "--catalog", "c", "--plan", "none", "--cuda-graphs", "--times", "2"]
    assert runner.invoke(small, flags, env=variables, catch_exceptions=False).exit_code == 0
    settings, times = got
    assert (settings.target, settings.plan, settings.threads, settings.cuda_graphs, times) == (Path("t"), "none", 3, True, 2)
    # A setting without an option still comes from the environment.
    assert (settings.port, settings.kv_memory_gib) == (9000, default("kv_memory_gib"))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--target", "t"], "--catalog (or ATSPEED_CATALOG) is missing."),
        (
            ["--target", "t", "--catalog", "c", "--threads", "0"],
            "--threads (or ATSPEED_THREADS) must be greater than or equal to 1, got 0.",
        ),
        (
            ["--target", "t", "--catalog", "c", "--engine", "abacus"],
            "--engine (or ATSPEED_ENGINE) must be 'vllm' or 'transformers', got 'abacus'.",
        ),
    ],
)
def test_a_bad_value_gets_the_sentence_of_the_settings(resolved: tuple[typer.Typer, list[Any]], flags: list[str], sentence: str):
    small, got = resolved
    result = runner.invoke(small, flags)
    assert (result.exit_code, result.stderr.strip(), got) == (1, sentence, [])


def test_a_command_may_say_something_else_of_a_setting():
    option = setting("engine", help="What measures.", min=2)
    assert (option.help, option.metavar, option.min, option.envvar) == ("What measures.", "vllm|transformers", 2, None)


@pytest.mark.parametrize("command", ["target", "teacher", "draft"])
def test_training_has_an_option_for_every_field_of_its_settings(command: str):
    struct, own = {
        "target": (TargetSettings, {"lora_rank", "add_tokens"}),
        "teacher": (TeacherSettings, {"subsequences"}),
        "draft": (DraftSettings, set()),
    }[command]
    (train,) = [group for group in typer.main.get_command(app).commands.values() if group.name == "train"]
    options = {option.name: option for option in train.commands[command].params}
    for field in msgspec.structs.fields(struct):
        if field.name not in own:
            assert options[field.name].default == field.default
            assert options[field.name].help.endswith(".")


@pytest.mark.parametrize(
    ("command", "flag", "value"),
    [
        ("evaluate", "--beam-width", "5001"),
        ("evaluate", "--temperature", "nan"),
        ("evaluate", "--temperature", "0"),
        ("evaluate", "--seed", "-1"),
        ("evaluate", "--seed", str(2**63)),
        ("evaluate", "--threads", "0"),
        ("evaluate", "--threads", "1025"),
        ("train target", "--seed", "-1"),
        ("train draft", "--seed", str(2**32)),
        ("train target", "--threads", "1025"),
        ("catalog build", "--seed", str(2**32)),
        ("catalog compare", "--seed", str(2**32)),
    ],
)
def test_numbers_that_no_run_can_take_are_refused_at_once(command: str, flag: str, value: str):
    refused = runner.invoke(app, [*command.split(), flag, value], env={"COLUMNS": "200"})
    assert refused.exit_code == 2
    assert f"Invalid value for '{flag}'" in refused.output


def test_a_seed_that_no_generator_takes_is_refused_in_python_too():
    for seed in (-1, 2**32):
        with pytest.raises(TrainingError, match=f"seed must be from 0 to 4294967295, got {seed}"):
            TargetSettings(seed=seed)
