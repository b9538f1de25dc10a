#!/usr/bin/env bash
# Where no registry can be reached: a stand-in for docker.io/library/python:3.11-slim-bookworm, made of Debian's own packages.
# What it proves is the Dockerfile, not the base: Debian's Python instead of the official image's, at the same place. Needs root and buildah.
set -euo pipefail
NAME=docker.io/library/python:3.11-slim-bookworm
STORE=${1:?usage: base_image.sh STORE_DIRECTORY}
BUILDAH=(buildah --root "$STORE/root" --runroot "$STORE/run" --storage-driver vfs)
"${BUILDAH[@]}" inspect --type image "$NAME" >/dev/null 2>&1 && exit 0
mkdir -p "$STORE"
TREE=$(mktemp -d "$STORE/base.XXXX")
trap 'rm -rf "$TREE"' EXIT
debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates bookworm "$TREE" >/dev/null
rm -rf "$TREE"/var/cache/apt/archives/*.deb "$TREE"/var/lib/apt/lists/* "$TREE"/usr/share/{doc,man,locale}
ln -sf /usr/bin/python3.11 "$TREE/usr/local/bin/python3"
ln -sf /usr/bin/python3.11 "$TREE/usr/local/bin/python"
container=$("${BUILDAH[@]}" from scratch)
"${BUILDAH[@]}" add --quiet "$container" "$TREE" / >/dev/null
"${BUILDAH[@]}" config --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin --cmd python3 "$container"
"${BUILDAH[@]}" commit --format docker --rm "$container" "$NAME" >/dev/null
