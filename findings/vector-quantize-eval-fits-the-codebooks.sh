#!/usr/bin/env bash
# vector-quantize-pytorch 1.32.0: ResidualVQ(kmeans_init=True) in eval mode fits its codebooks on the first batch that it is given, without
# a word, and keeps them: identifiers then depend on which batch came first.
#
# Guess: in eval mode, and under no_grad, a forward reads codebooks and changes none; one that was never fitted raises or gives codes of its
#   random start, the same whichever batch comes first.
# Seen: the first forward of an eval module changes its buffers (codebooks, and the flag that they were fitted). Items encoded in two
#   batches of 256 get other codes than the same items encoded as the second batch first: after loading a checkpoint that was saved before
#   the first training step, or building the module anew and forgetting to load, nothing tells that semantic ids are not the model's.
#   After one forward in training mode, eval forwards change nothing and do not depend on the batch.
# Fails if that changes. (Installs PyTorch: some minutes and 6 GB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check vector-quantize-pytorch==1.32.0 torch==2.14.1 numpy==2.4.6
OMP_NUM_THREADS=1 "$work/venv/bin/python" - <<'PY'
import torch
from vector_quantize_pytorch import ResidualVQ

torch.manual_seed(0)
ITEMS = torch.randn(512, 16)


def fresh() -> ResidualVQ:
    torch.manual_seed(1)
    return ResidualVQ(dim=16, codebook_size=32, num_quantizers=3, kmeans_init=True).eval()


def changed(module: ResidualVQ, batch: torch.Tensor) -> list[str]:
    """Names of the buffers that a forward changes."""
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with torch.no_grad():
        module(batch)
    return [name for name, value in module.state_dict().items() if not torch.equal(value, before[name])]


def codes(module: ResidualVQ, *batches: int) -> torch.Tensor:
    """Codes of all items `[512, 3]`, encoded 256 at a time in this order."""
    found = torch.empty(512, 3, dtype=torch.long)
    with torch.no_grad():
        for batch in batches:
            rows = slice(256 * batch, 256 * batch + 256)
            found[rows] = module(ITEMS[rows])[1]
    return found


module = fresh()
first, second = changed(module, ITEMS[:256]), changed(module, ITEMS[256:])
differing = (codes(fresh(), 0, 1) != codes(fresh(), 1, 0)).any(-1).sum().item()
trained = fresh().train()
trained(ITEMS)
trained.eval()
quiet = changed(trained, ITEMS[:10])
steady = torch.equal(codes(trained, 0, 1), codes(trained, 1, 0))
print(f"buffers changed by the first eval forward: {len(first)}, by the second: {len(second)}; after training: {len(quiet)}")
print(f"items whose codes depend on which batch came first: {differing} of 512; after training none: {steady}")
assert any(name.endswith("embed") for name in first) and not second and not quiet and steady
assert differing > 256
PY
