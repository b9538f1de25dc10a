#!/usr/bin/env bash
# STATIC (commit c24f9dc): where fewer identifiers are allowed than beams are wide, the rest of the list is identifiers that do not exist.
#
# Guess: a search that strictly enforces its set of sequences returns the 30 that there are, or marks the other 20 rows of its list.
# Seen: 50 rows, all different; the 30 identifiers and 20 that are in no catalog. A masked path keeps a score of minus infinity and is
#   continued with whatever tokens lie beside its row in the matrix; the search returns tokens without scores, so nothing tells the rows
#   apart. With at least as many identifiers as beams all rows are identifiers. So a catalog that a filter or freshness has made small
#   yields items that do not exist, at the end of the list.
# Fails if that changes. (Installs PyTorch: some minutes and 6 GB. STATIC_SOURCE may name a local copy of the repository.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone --quiet "${STATIC_SOURCE:-https://github.com/youtube/static-constraint-decoding}" "$work/static"
git -C "$work/static" checkout --quiet c24f9dc8b9b8045716fff7ef750a1f0cb31c6f57
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6
OMP_NUM_THREADS=1 PYTHONPATH="$work/static" "$work/venv/bin/python" - <<'PY'
import numpy as np
import torch
from static_decoding.csr_utils import build_static_index
from static_decoding.decoding_pt import RandomModel, sparse_transition_torch

VOCABULARY, BEAMS, DEPTH = 64, 50, 4
CPU = torch.device("cpu")


def search(items: int) -> tuple[set, list]:
    """The identifiers of a catalog of so many, and the rows that a search over a random model returns."""
    identifiers = np.unique(np.random.default_rng(0).integers(VOCABULARY, size=(items, DEPTH)), axis=0).astype(np.int32)
    packed, indptr, most, start, mask, states = build_static_index(identifiers, VOCABULARY)
    arrays = map(torch.from_numpy, (packed, indptr, start, mask, states))
    torch.manual_seed(0)
    found = sparse_transition_torch(RandomModel(VOCABULARY, CPU), 1, BEAMS, BEAMS, 0, DEPTH, VOCABULARY, most, *arrays, CPU)
    return set(map(tuple, identifiers.tolist())), list(map(tuple, found[0].tolist()))


for items in (30, 200):
    known, rows = search(items)
    foreign = [row for row in rows if row not in known]
    print(f"{items} identifiers, {BEAMS} beams: {len(rows)} rows, {len(set(rows))} different, {len(foreign)} in no catalog: {foreign[:2]} ...")
    assert len(known) == items and len(rows) == len(set(rows)) == BEAMS
    assert len(foreign) == max(0, BEAMS - items), foreign
PY
