"""Where settings come from, and what is said of bad ones."""

import os
from pathlib import Path

import pytest

from drafting.beam.rule import Verification
from server.engine_settings import EngineOptions, EngineSettings
from server.settings import FlagSettings, Settings, SettingsError


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("ATSPEED_"):
            monkeypatch.delenv(name)


def resolve(**flags: object) -> Settings:
    return Settings.resolve(**({"target": "models/x", "catalog": "c.jsonl"} | flags))


def test_flags_win_over_the_environment_and_that_over_defaults(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ATSPEED_PORT", "9000")
    monkeypatch.setenv("ATSPEED_TIMEOUT_MS", "300")
    settings = resolve(port=9001, timeout_ms=None)
    assert (settings.port, settings.timeout_ms, settings.host) == (9001, 300, "127.0.0.1")


def test_the_engine_options_are_complete():
    settings = resolve(engine="vllm", kv_memory_gib="0.5", dtype="bfloat16", threads=2, draft="models/d")
    options = EngineOptions.model_validate_json(settings.engine_options.model_dump_json())
    assert (options.engine, options.kv_memory_gib, options.dtype, options.threads) == ("vllm", 0.5, "bfloat16", 2)
    assert options.target.is_absolute()
    for name in set(EngineSettings.model_fields) - {"target", "catalog", "draft"}:
        assert getattr(options, name) == getattr(settings, name)


def test_the_planner_plans_unless_another_plan_is_named():
    assert resolve().engine_options.plan == "auto"
    assert resolve(draft="models/d").engine_options.plan == "auto"
    assert resolve(draft="models/d", plan="beam:9+children").engine_options.plan == "beam:9+children"


def test_the_servers_verification_is_strict_unless_named(monkeypatch: pytest.MonkeyPatch):
    assert resolve().verification is Verification.STRICT
    monkeypatch.setenv("ATSPEED_VERIFICATION", "gumbel")
    assert resolve().verification is Verification.GUMBEL
    assert resolve(verification="relaxed").verification is Verification.RELAXED


def test_the_default_engine_is_vllm_only_where_it_is_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert resolve().engine == "transformers"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert resolve().engine == "vllm"


def test_the_default_histories_are_a_file_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert resolve().histories == f"sqlite:///{tmp_path}/atspeed/histories.db"


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "memory://"),
        ({"histories": "memory://"}, "memory://"),
        ({"histories": "sqlite:///data/histories.db"}, "sqlite:///data/histories.db.control"),
        ({"histories": "sqlite:////data/h.db", "catalogs": "s3://films/versions"}, "sqlite:////data/h.db.control"),
        ({"histories": "sqlite:////data/h.db", "catalogs": "/data/versions"}, "sqlite:////data/versions/control.db"),
        ({"histories": "memory://", "catalogs": "/data/versions"}, "sqlite:////data/versions/control.db"),
        ({"histories": "redis://films:6379/0", "catalogs": "/data/versions"}, "redis://films:6379/0"),
        ({"histories": "rediss+sentinel://a,b/films?wait_replicas=1"}, "rediss+sentinel://a,b/films?wait_replicas=1"),
        ({"histories": "redis+cluster://a,b", "control": "redis://c/3"}, "redis://c/3"),
        ({"catalogs": "/data/versions", "control": "memory://"}, "memory://"),
    ],
)
def test_the_control_store_is_where_replicas_meet_already(given: dict[str, str], url: str):
    assert resolve(**given).control_url == url


def test_the_control_store_follows_histories_of_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ATSPEED_HISTORIES", "sqlite:////data/histories.db")
    assert resolve().control_url == "sqlite:////data/histories.db.control"


def test_the_models_name_is_its_directorys_unless_given():
    assert resolve().model_name == "x"
    assert resolve(model="films").model_name == "films"


def test_flag_settings_take_nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    for name, value in {"DRAFT": "/no/draft", "PLAN": "beam:9", "HOST": "0.0.0.0", "THREADS": "many", "CATALOG": "other.jsonl"}.items():
        monkeypatch.setenv(f"ATSPEED_{name}", value)
    settings = FlagSettings.resolve(target="models/x", catalog="c.jsonl", port=9001, engine=None)
    assert (settings.draft, settings.plan, settings.host, settings.threads) == (None, "auto", "127.0.0.1", None)
    assert (settings.catalog, settings.port) == (Path("c.jsonl"), 9001)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"target": None}, "--target (or ATSPEED_TARGET) is missing."),
        ({"port": 99999}, "--port (or ATSPEED_PORT) must be less than or equal to 65535, got 99999."),
        ({"threads": 20000}, "--threads (or ATSPEED_THREADS) must be less than or equal to 1024, got 20000."),
        ({"engine": "abacus"}, "--engine (or ATSPEED_ENGINE) must be 'vllm' or 'transformers', got 'abacus'."),
        (
            {"verification": "lax"},
            "--verification (or ATSPEED_VERIFICATION) must be 'strict', 'gumbel' or 'relaxed', got 'lax'.",
        ),
        ({"kv_memory_gib": 0}, "--kv-memory-gib (or ATSPEED_KV_MEMORY_GIB) must be greater than 0, got 0."),
        ({"engine_hang_seconds": 2}, "--engine-hang-seconds (or ATSPEED_ENGINE_HANG_SECONDS) must be greater than or equal to 5, got 2."),
        *(
            ({name: "inf"}, f"--{name.replace('_', '-')} (or ATSPEED_{name.upper()}) must be a finite number, got 'inf'.")
            for name in ("kv_memory_gib", "max_step_ms", "catalog_max_gib", "catalog_build_memory_gib")
        ),
        (
            {"control_prefix": "{shop}"},
            "--control-prefix (or ATSPEED_CONTROL_PREFIX) String should match pattern '^[^{}\\s]{1,200}$', got '{shop}'.",
        ),
    ],
)
def test_a_bad_setting_gets_one_sentence(flags: dict[str, object], sentence: str):
    with pytest.raises(SettingsError) as raised:
        resolve(**flags)
    assert str(raised.value) == sentence


def test_a_bad_variable_gets_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ATSPEED_MAX_RUNNING", "many")
    with pytest.raises(SettingsError, match=r"--max-running \(or ATSPEED_MAX_RUNNING\) must be a valid integer"):
        resolve()
