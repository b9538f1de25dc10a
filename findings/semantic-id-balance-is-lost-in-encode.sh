#!/usr/bin/env bash
# semantic-id 0.2.5: balanced k-means balances the fit alone; the identifiers of the same items are as uneven as they like, and change.
#
# Guess: `RQKMeans(implementation="constrained")` gives each of 20 clusters 99 to 101 of 2,000 items, as its documentation says to reduce
#   collisions; and the engine's `unique_ids` gives the same items the same identifiers when it is asked again.
# Seen: `encode` takes the nearest centroid and knows no sizes: clusters of the very items that were fitted hold 47 to 250 of them. A second
#   `unique_ids` of the same items repeats none of 2,000 identifiers, each has one more code, since the store of collisions remembers the
#   first call: a nightly job that encodes the whole catalog with a kept engine gives every item a new identifier, unknown to the model.
#   Unique identifiers have 2 or 3 codes in one catalog.
# Fails if that changes. (Installs PyTorch: some minutes and 6 GB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check semantic-id==0.2.5 torch==2.14.1 k-means-constrained==0.9.1 \
  scikit-learn==1.9.1 numpy==2.4.6
OMP_NUM_THREADS=1 "$work/venv/bin/python" - <<'PY'
import numpy as np
from semantic_id import RQKMeans, SemanticIdEngine

rng = np.random.default_rng(0)
lengths = np.exp(rng.normal(size=(2000, 1)))
items = (rng.normal(size=(2000, 16)) * lengths).astype(np.float32)
engine = SemanticIdEngine(RQKMeans(n_levels=2, n_clusters=20, implementation="constrained", random_state=0, n_init=1)).fit(items)
sizes = np.bincount(engine.encoder.encode(items)[:, 0], minlength=20)
first, second = engine.unique_ids(items), engine.unique_ids(items)
same = sum(one == other for one, other in zip(first, second))
codes = {identifier.count("-") + 1 for identifier in first}
print(f"clusters of the first level hold {sizes.min()} to {sizes.max()} items; equal in a second call: {same}; codes: {codes}")
assert sizes.min() < 60 and sizes.max() > 150, sizes
assert len(set(first)) == 2000 and same == 0 and codes == {2, 3}, (same, codes)
PY
