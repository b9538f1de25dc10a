#!/usr/bin/env bash
# voyager 2.2.3: an index by inner product finds next to nothing when vectors come in random order, and most when they come by length.
#
# Guess: an HNSW index of 5,000 item vectors of 32 dimensions has about the same recall whichever order they are added in; InnerProduct is
#   turned into a nearest-neighbour search by a transform that keeps the order, as the documentation says, so it is no harder than the others.
# Seen: vectors as matrix factorisation gives them, of different lengths (log-normal, sigma 0.7): the ten greatest inner products are found
#   with a recall of about 0.06 in random order, 0.8 in order of length (either way), with the same settings. With ten times the default
#   width of search (`query_ef=100`) 0.2 against 1.0. Distances that are returned are right, so nothing tells. The transform needs the
#   greatest length, of which an index that grows knows only what came before, so neighbours are chosen by another measure at every new
#   maximum. Euclidean search in the same data, in random order, has 0.9 with `query_ef=100`. Who builds the candidates of a two-tower
#   recommender this way loses nearly all of them, unless items are sorted by length before they are added.
# Fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check voyager==2.2.3 numpy==2.4.6
OPENBLAS_NUM_THREADS=1 "$work/venv/bin/python" - <<'PY'
import numpy as np
import voyager

rng = np.random.default_rng(0)
items = rng.normal(size=(5_000, 32)) * np.exp(0.7 * rng.normal(size=(5_000, 1)))
items, users = items.astype(np.float32), rng.normal(size=(200, 32)).astype(np.float32)
products = users @ items.T
distances = (items**2).sum(1) - 2 * products  # squared, less what is the same for all items of a user
lengths = np.linalg.norm(items, axis=1)
ORDERS = {"random": rng.permutation(len(items)), "shortest first": np.argsort(lengths), "longest first": np.argsort(-lengths)}


def recall(space: voyager.Space, order: np.ndarray, best: np.ndarray, width: int) -> float:
    """The part of the ten best items of a user that an index filled in this order finds."""
    index = voyager.Index(space, num_dimensions=items.shape[1], random_seed=1)
    index.add_items(items[order], order.tolist(), num_threads=1)
    found, costs = index.query(users, 10, num_threads=1, query_ef=width)
    if space == voyager.Space.InnerProduct:
        assert np.allclose(costs, 1 - np.take_along_axis(products, found.astype(int), 1), atol=1e-3)
    return float(np.mean([len({*row} & {*other}) / 10 for row, other in zip(found.tolist(), best.tolist())]))


seen = {}
for space, best in ((voyager.Space.InnerProduct, np.argsort(-products)[:, :10]), (voyager.Space.Euclidean, np.argsort(distances)[:, :10])):
    for name, order in ORDERS.items():
        seen[space.name, name] = [round(recall(space, order, best, width), 2) for width in (10, 100)]
        print(f"{space.name}, {name}: recall at 10 {seen[space.name, name]} with query_ef 10 and 100")
assert seen["InnerProduct", "random"][0] < 0.15 and seen["InnerProduct", "random"][1] < 0.4
assert all(seen["InnerProduct", f"{which} first"][0] > 0.6 and seen["InnerProduct", f"{which} first"][1] > 0.95 for which in ("shortest", "longest"))
assert seen["Euclidean", "random"][1] > 0.8
PY
