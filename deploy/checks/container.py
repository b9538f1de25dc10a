"""The CPU image, built from the real Dockerfile and run as the chart runs it: without rights, on a read-only root. The demo answers through
it, SIGTERM lets running requests finish, and the chart's Deployment serves in podman.

Run as root:  python -m deploy.checks.container
"""

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

import typer
import yaml

from benchmarks.server_process import free_port
from deploy.checks.chart import render
from deploy.checks.findings import Findings
from deploy.checks.processes import answers, ask, wait_until
from deploy.checks.tools import ROOT, tool
from server.client import AtspeedClient, AtspeedError, Recommendation
from server.demo.preparation import Demo, DemoSettings

STORE = ROOT / ".deploy" / "images"
CACHE = ROOT / ".deploy" / "demo"
IMAGE = "localhost/atspeed-server:cpu"
USER = "42"
READY_SECONDS = 120.0
GRACE_SECONDS = 10
# Inside another container there is neither systemd nor, often, a limit that may be raised.
PODMAN = ["--root", f"{STORE}/root", "--runroot", f"{STORE}/run", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]
LIMITS = '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'


def podman(*arguments: object) -> str:
    """The output of a podman command. Raises SystemExit with the output if the command fails."""
    command = [tool("podman"), *PODMAN, "--runtime", "/usr/sbin/runc", *(str(argument) for argument in arguments)]
    (STORE / "containers.conf").write_text(LIMITS)
    environment = os.environ | {"CONTAINERS_CONF": str(STORE / "containers.conf")}
    said = subprocess.run(command, capture_output=True, text=True, env=environment)
    if said.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{said.stdout}{said.stderr}")
    # What a container has written to its standard error comes on podman's.
    return said.stdout.strip() if arguments[0] != "logs" else said.stdout + said.stderr


def ready_or_gone(name: str, port: int) -> bool:
    """True if the server in a container answers, or the container has ended."""
    return answers(f"http://127.0.0.1:{port}/ready") or podman("container", "inspect", "--format", "{{.State.Running}}", name) == "false"


def prepared_demo() -> Demo:
    """The demo, made if it is not there."""
    demo = Demo.of(CACHE, DemoSettings())
    if not demo.complete:
        command = [sys.executable, "-m", "server.cli", "demo", "--prepare-only"]
        subprocess.run(command, check=True, env=os.environ | {"ATSPEED_CACHE": str(CACHE)})
    return demo


@contextmanager
def container(demo: Demo, port: int) -> Iterator[str]:
    """The server of the demo in a container, ready; its histories are a copy in a volume of its own."""
    settings = {"TARGET": "/models/movielens-target", "CATALOG": "/models/catalog.jsonl", "PORT": port, "THREADS": 1}
    settings |= {"HISTORIES": "memory://", "GRACE_SECONDS": GRACE_SECONDS, "LOG_FORMAT": "json", "HOST": "127.0.0.1"}
    environment = [part for name, value in settings.items() for part in ("--env", f"ATSPEED_{name}={value}")]
    options = ["--detach", "--network", "host", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", *environment]
    name = podman("run", *options, "--volume", f"{demo.folder}:/models:ro", IMAGE)
    try:
        if wait_until(lambda: ready_or_gone(name, port), READY_SECONDS) is None or not answers(f"http://127.0.0.1:{port}/ready"):
            raise SystemExit(f"The server in the container does not get ready:\n{podman('logs', name)}")
        yield name
    finally:
        podman("rm", "--force", "--time", "0", name)


def check_image(findings: Findings) -> None:
    """Check size, user and labels of the image."""
    (image,) = json.loads(podman("image", "inspect", IMAGE))
    print(f"      size: {image['Size'] / 1e6:,.0f} MB")
    config: dict[str, Any] = image["Config"]
    findings.check(config["User"] == "10001:10001", f"its user is {config['User']}")
    findings.check("org.opencontainers.image.version" in config["Labels"], "it has OCI labels")
    findings.check(bool(image.get("Healthcheck") or config.get("Healthcheck")), "it has a health check")
    compilers = podman("run", "--rm", "--entrypoint", "sh", IMAGE, "-c", "command -v cc gcc g++ clang make ld || true")
    findings.check(not compilers, f"it has no compiler {compilers}".rstrip())


def check_running(demo: Demo, findings: Findings) -> None:
    """Rights, an answer of the demo, and a drain."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with container(demo, port) as name:
        findings.check(podman("exec", name, "id", "-u") == "10001", "it runs as user 10001")
        written = podman("exec", name, "sh", "-c", "touch /opt/atspeed/x 2>&1 || true")
        findings.check("Read-only" in written or "Permission" in written, f"its root is read-only: {written}")
        with AtspeedClient(url, deadline=20, trust_env=False) as client:
            films = [line.item_id for line in client.items(limit=5).items]
            client.append_events(USER, [{"item_id": film} for film in films])
            check_list(client, "the demo answers through it", findings, user_id=USER, k=3, exclude_history=True)
            findings.check(podman("healthcheck", "run", name) == "", "its health check passes")
            check_drain(client, name, films, findings)


def check_list(client: AtspeedClient, what: str, findings: Findings, **fields: Unpack[Recommendation]) -> None:
    """A list comes, and is shown."""
    try:
        found = ", ".join(item.title or item.item_id for item in client.recommend(**fields).items)
    except AtspeedError as error:
        findings.check(False, f"{what}: {error}")
    else:
        findings.check(True, f"{what}: {found}")


def check_drain(client: AtspeedClient, name: str, films: list[str], findings: Findings) -> None:
    """Requests that run when SIGTERM comes are answered, and the process ends by itself."""
    statuses: list[int] = []

    def ask_for_many() -> None:
        statuses.extend(result.status for result in client.recommend_many([{"history": films, "k": 100}] * 16).results)

    asking = threading.Thread(target=ask_for_many)
    asking.start()
    time.sleep(0.15)
    started = time.monotonic()
    podman("stop", "--time", GRACE_SECONDS + 15, name)
    seconds = time.monotonic() - started
    asking.join()
    (state,) = json.loads(podman("container", "inspect", name))
    code = state["State"]["ExitCode"]
    good = statuses == [200] * 16 and code == 0
    findings.check(good, f"SIGTERM: {statuses.count(200)} of 16 running lists were answered, exit status {code} after {seconds:.1f} s")


def unname_ports(server: dict[str, Any], port: int) -> None:
    """Leave a container's port to its probes, by number: podman refuses to publish ports of a pod in the host's network."""
    del server["ports"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        server[probe]["httpGet"]["port"] = port


def as_config_map(secret: dict[str, Any], pod: dict[str, Any]) -> dict[str, Any]:
    """A Secret as a ConfigMap that the pod mounts in its place: podman 4.3 mounts the values of a Secret without decoding them."""
    name = secret["metadata"]["name"]
    for volume in pod["volumes"]:
        if volume.get("secret", {}).get("secretName") == name:
            told = volume.pop("secret")
            volume["configMap"] = {"name": told.pop("secretName"), **told}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": decoded(secret)}


def decoded(secret: dict[str, Any]) -> dict[str, str]:
    """The values of a Secret by their keys."""
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def check_deployment(demo: Demo, findings: Findings) -> None:
    """The chart's own Deployment and Secret, played by podman, recommend to who has a key of the Secret, and to nobody else."""
    port = free_port()
    values = {
        "image": {"repository": "localhost/atspeed-server", "tag": "cpu", "pullPolicy": "Never"},
        "hostNetwork": True,
        "containerPort": port,
        "settings": {"engine": "transformers", "threads": 1, "log_format": "json"},
        "model": {"target": "movielens-target", "volume": {"kind": "hostPath", "hostPath": {"path": str(demo.folder)}}},
        "histories": {"mode": "memory"},
        "networkPolicy": {"enabled": False},
        "replicaCount": 1,
    }
    folder = STORE / "play"
    folder.mkdir(exist_ok=True)
    (folder / "values.yaml").write_text(yaml.safe_dump(values))
    objects = [part for part in yaml.safe_load_all(render(folder / "values.yaml").stdout) if part]
    manifest = folder / "manifest.yaml"
    (deployment,), (secret,) = ([part for part in objects if part["kind"] == kind] for kind in ("Deployment", "Secret"))
    pod = deployment["spec"]["template"]["spec"]
    unname_ports(pod["containers"][0], port)
    manifest.write_text(yaml.safe_dump_all([as_config_map(secret, pod), deployment]))
    try:
        podman("kube", "play", manifest)
        url = f"http://127.0.0.1:{port}"
        if wait_until(lambda: answers(f"{url}/ready"), READY_SECONDS) is None:
            print(podman("logs", f"{deployment['metadata']['name']}-pod-0-server"))
            findings.check(False, "podman kube play: the Deployment does not get ready")
            return
        findings.check(ask(f"{url}/v1/catalog").status_code == 401, "podman kube play: the Deployment asks for a key")
        with AtspeedClient(url, key=decoded(secret)["clients"], deadline=20, trust_env=False) as client:
            film = client.items(limit=1).items[0].item_id
            check_list(client, "podman kube play: the Deployment recommends", findings, history=[film], k=3)
    finally:
        podman("kube", "down", manifest)


def main() -> None:
    """Build the CPU image, run it, and check that it serves; takes no options (root, minutes)."""
    findings = Findings()
    started = time.monotonic()
    subprocess.run([Path(__file__).with_name("image.sh"), str(STORE), "cpu"], check=True, stdout=subprocess.DEVNULL)
    print(f"      built in {time.monotonic() - started:.0f} s", flush=True)
    check_image(findings)
    demo = prepared_demo()
    check_running(demo, findings)
    check_deployment(demo, findings)
    findings.end()


if __name__ == "__main__":
    typer.run(main)
