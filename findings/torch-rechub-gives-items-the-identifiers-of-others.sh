#!/usr/bin/env bash
# torch-rechub 0.9.0: semantic_ids.json, as its own example for TIGER writes it, gives nearly every item the identifier of another item.
#
# Guess: `generate_semantic_ids(data, loader)` returns what its documentation says, the index of an item and its codes, so item i has what the
#   model computes for item i, but for the few collisions that are resolved.
# Seen: codes are numbered in the order in which the loader gives them, and the example (run_rqvae_amazon_books.py, commit 5a73b2e, which
#   its documentation names as the step before training TIGER) passes a loader that shuffles. Of 2,000 items two or three get the
#   identifier that the trained model has for them; with `shuffle=False` it is 97%. The items are ten alike in each of 200 groups: by the
#   model two of a group share their first code in 22% of cases, in the file in under 1%, as any two items do. Collisions are looked for
#   under these numbers, and the codes of items that had none are changed. The rate that is printed is 0.0, nothing fails, and TIGER trains
#   on identifiers that tell nothing of the items, as random ones do.
# Fails if that changes. (Installs PyTorch. RECHUB_SOURCE may name a local copy of the repository.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone --quiet --no-checkout "${RECHUB_SOURCE:-https://github.com/datawhalechina/torch-rechub}" "$work/rechub"
git -C "$work/rechub" checkout --quiet 5a73b2eebc3a670dc64c54971cc06a78ddd55394 -- examples/generative/run_rqvae_amazon_books.py
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch-rechub==0.9.0 torch==2.13.0 numpy==2.4.6 pandas==3.1.1 scikit-learn==1.9.1
cd "$work"
"$work/venv/bin/python" - <<'PY'
import numpy as np

generator = np.random.default_rng(0)
centres = generator.normal(size=(200, 64))
np.save("items.npy", (centres[np.arange(2000) % 200] + 0.8 * generator.normal(size=(2000, 64))).astype("float32"))
PY
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore rechub/examples/generative/run_rqvae_amazon_books.py --data_path items.npy --device cpu \
  --num_workers 0 --layers 64 --epochs 50 --kmeans_iters 20 2> errors | grep '^Collision Rate' || { cat errors; exit 1; }
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
import contextlib
import io
import json

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch_rechub.models.generative.rqvae import RQVAEModel
from torch_rechub.utils.data import EmbDataset

items = EmbDataset("items.npy")
model = RQVAEModel(
    in_dim=64, num_emb_list=[256] * 3, e_dim=32, layers=[64], kmeans_init=True, kmeans_iters=20, sk_epsilons=[0.0] * 3, sk_iters=50
)
model.load_state_dict(torch.load("model_best_collision_rate.pth"))
model.eval()
codes = model.get_indices(torch.from_numpy(items.embeddings)).tolist()
own = [[f"<{level}_{code}>" for level, code in zip("abc", each)] for each in codes]
with open("semantic_ids.json") as file:
    written = [given for _, given in sorted((int(item), given) for item, given in json.load(file).items())]
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    loader = DataLoader(items, batch_size=512, shuffle=False)
    unshuffled = list(model.generate_semantic_ids(items, loader, use_sk=True, device="cpu").values())


def agree(given: list[list[str]]) -> float:
    """How many items have the identifier that the model has for them."""
    return float(np.mean([codes == expected for codes, expected in zip(given, own)]))


def alike(given: list[list[str]]) -> float:
    """How many pairs of items of one group share their first code."""
    first = np.array([codes[0] for codes in given]).reshape(10, 200)
    return float(np.mean([first[i] == first[j] for i in range(10) for j in range(i)]))


print(f"own identifier: {agree(written):.4f} as written, {agree(unshuffled):.4f} without shuffling")
print(f"pairs with one first code in a group: {alike(own):.4f} by the model, {alike(written):.4f} as written, {alike(unshuffled):.4f} unshuffled")
assert len(written) == len(unshuffled) == 2000
assert agree(written) < 0.05 and agree(unshuffled) > 0.9
assert alike(own) > 0.15 and alike(unshuffled) > 0.15 and alike(written) < 0.03
PY
