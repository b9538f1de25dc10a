"""The compose file and the Dockerfile: valid, hardened, and naming only files and settings that there are."""

import json
import re
import ssl
import subprocess
import sys
import threading
import tomllib
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.checks.tools import DASHBOARDS, ROOT, find_tool
from server.client.origin import KEY_FILE_VARIABLE
from server.settings import Settings
from tests.services import make_certificate

DOCKER = ROOT / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
SPECIFICATION = ROOT / ".deploy" / "compose_spec.json"


def missing(tool: str) -> str:
    return f"{tool} is not installed (deploy/checks/tools.sh installs it)"


@pytest.mark.skipif(not SPECIFICATION.is_file(), reason=missing("the schema of compose files"))
def test_the_compose_file_fits_its_specification():
    # The schema is of a time when a compose file could not name its project.
    jsonschema.validate({key: value for key, value in COMPOSE.items() if key != "name"}, json.loads(SPECIFICATION.read_text()))


@pytest.mark.skipif(None in map(find_tool, ("podman", "podman-compose")), reason=missing("podman-compose, or podman"))
def test_a_compose_program_reads_it():
    said = subprocess.run([find_tool("podman-compose"), "-f", DOCKER / "compose.yaml", "config"], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert set(yaml.safe_load(said.stdout)["services"]) == set(COMPOSE["services"])


@pytest.mark.skipif(find_tool("hadolint") is None, reason=missing("hadolint"))
def test_hadolint_has_no_complaint():
    said = subprocess.run([find_tool("hadolint"), DOCKER / "Dockerfile"], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout


@pytest.mark.parametrize("tls", [False, True])
def test_the_health_check_speaks_as_the_server_does(tls: bool, tmp_path: Path):
    """A container that is asked by HTTP while it serves HTTPS is unhealthy for ever."""
    certificate, key = make_certificate(tmp_path)
    (tmp_path / "health").touch()
    with HTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path)) as server:
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        answering = threading.Thread(target=server.handle_request)
        answering.start()
        environment = {"ATSPEED_PORT": str(server.server_port)} | ({"ATSPEED_TLS_CERT": str(certificate)} if tls else {})
        _, *arguments = json.loads(re.search(r"^HEALTHCHECK .*\\\n +CMD (.+)$", DOCKERFILE, re.MULTILINE)[1])
        said = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
        answering.join()
    assert said.returncode == 0, said.stderr


def test_every_service_is_hardened():
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_files_and_settings_that_are_named_exist():
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (DOCKER / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume
        for name in service.get("environment", {}):
            assert name.startswith("GF_") or name == KEY_FILE_VARIABLE or name.removeprefix("ATSPEED_").lower() in Settings.model_fields, (
                name
            )


def test_a_container_is_given_the_time_that_its_drain_takes():
    server = COMPOSE["services"]["server"]
    assert float(server["stop_grace_period"].removesuffix("s")) >= float(server["environment"]["ATSPEED_GRACE_SECONDS"]) + 10


def test_what_prepares_the_demo_is_stopped_by_a_signal_that_it_hears():
    """A script, which has no handler for SIGTERM as the commands have: it would work on until it is killed."""
    prepare = COMPOSE["services"]["prepare"]
    assert prepare["entrypoint"][0] == "python"
    assert prepare["stop_signal"] == "SIGINT"


def test_grafana_finds_its_dashboards_and_its_source():
    (source,) = yaml.safe_load((DOCKER / "grafana" / "datasource.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((DOCKER / "grafana" / "dashboards.yml").read_text())["providers"]
    assert source["isDefault"]
    assert source["type"] == "prometheus"
    mounts = dict(volume.split(":")[:2] for volume in COMPOSE["services"]["grafana"]["volumes"])
    assert (DOCKER / "../deploy/helm/atspeed/files/dashboards").resolve() == DASHBOARDS
    assert mounts["../deploy/helm/atspeed/files/dashboards"] == provider["options"]["path"]


def test_images_install_from_locks_that_there_are_and_run_without_rights():
    for lock in re.findall(r"requirements/\w+\.lock", DOCKERFILE):
        assert (ROOT / lock).is_file()
    assert set(re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE)) >= {"cpu", "gpu", "demo"}
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE)[-1] == "10001:10001"


def test_code_is_copied_behind_all_that_locks_install():
    """Else each change of the code would have it all installed anew."""
    with_code: set[str] = set()
    for stage in re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]:
        first, *lines = stage.splitlines()
        base, name = first.split(" AS ")
        for line in lines:
            assert not (line.startswith("RUN ") and "requirements/" in line and {base, name} & with_code), (name, line)
            if line == "COPY --from=source / ./":
                with_code.add(name)
        if base in with_code:
            with_code.add(name)
    assert with_code == {"build-cpu", "build-demo", "build-gpu"}


def test_what_is_built_from_is_what_the_docker_ignore_lets_in():
    copied = {path for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for path in line.split()[:-1]}
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert {path.rstrip("/") for path in copied} == {line[1:] for line in ignore if line.startswith("!")}


@pytest.mark.parametrize("lock", ["cpu", "gpu", "serve"])
def test_a_lock_has_what_the_server_imports(lock: str):
    """The images install without dependencies, so a package that a lock lacks is only missed when the server starts."""
    pins = dict(line.split("==") for line in (ROOT / "requirements" / f"{lock}.lock").read_text().split())
    for text in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        need = Requirement(text)
        assert need.specifier.contains(pins.get(canonicalize_name(need.name), "0")), text
