#!/usr/bin/env bash
# Builds an image from the real Dockerfile. Usage: image.sh STORE_DIRECTORY TARGET; the image is atspeed-server:TARGET in that store.
# Where a registry can be reached, buildah pulls the base; where none can, base_image.sh makes a stand-in for it first.
set -euo pipefail
cd "$(dirname "$0")/../.."
STORE=${1:?} TARGET=${2:?}
mkdir -p "$STORE"
BUILDAH=(buildah --root "$STORE/root" --runroot "$STORE/run" --storage-driver vfs)
BASE=docker.io/library/python:3.11-slim-bookworm
"${BUILDAH[@]}" inspect --type image "$BASE" >/dev/null 2>&1 || "${BUILDAH[@]}" pull --quiet "$BASE" >/dev/null 2>&1 || deploy/checks/base_image.sh "$STORE"
# What pip is configured with here holds in the build as well: certificates, and a folder of wheels if there is one.
mounts=(--volume /etc/ssl/certs:/etc/ssl/certs:ro)
[ -d "${PIP_FIND_LINKS:-}" ] && mounts+=(--volume "$PIP_FIND_LINKS:$PIP_FIND_LINKS:ro")
arguments=()
for name in PIP_CERT PIP_FIND_LINKS; do
	[ -n "${!name:-}" ] && arguments+=(--build-arg "$name=${!name}")
done
"${BUILDAH[@]}" bud --isolation chroot --pull-never --format docker "${mounts[@]}" "${arguments[@]}" \
	--build-arg "REVISION=$(git rev-parse HEAD)" \
	--file docker/Dockerfile --target "$TARGET" --tag "atspeed-server:$TARGET" .
