# `make demo` and `make test` are all that a newcomer needs; both make `.venv` first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := torch==2.13.0+cpu
# One more than processors, for a test often waits. Each worker loads models and servers of its own, so more than four fill the memory.
WORKERS = --numprocesses $(shell $(PYTHON) -c "import os; print(min(os.cpu_count() + 1, 4))")

# What a GPU machine has: any Python with torch, transformers and numpy. Another one may stand before it.
HAS_TORCH := import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)
GPU_PYTHON ?= $(shell for python in $(BIN)/python python3.11 python3 python; do \
	if $$python -c '$(HAS_TORCH)' 2> /dev/null; then echo $$python; exit; fi; done; echo $(PYTHON))
# Where `make bench-gpu` writes its reports, each as it is measured; a part that fails costs no other its own.
INTO ?= build/bench-gpu

.PHONY: help setup demo test test-all lint format hooks serve bench lossless bench-gpu gpu-day truth bench-catalog paper quality load soak fuzz swaps models lock gpu-kernel gpu-wheel-check release-check screenshots services deploy-tools deploy-check fleet-check clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

setup: .venv/ready ## Make .venv with everything pinned (CPU build)

# pip installs one package after the other, so two of it share what is pinned; the third installs what one of them could not, or says why.
# The CPU build of PyTorch is not on the default index everywhere; where it is missing there, PyTorch's own index has it.
# pip would compile its 25,000 files one after the other. Packages matched by RARE are compiled on first import; some files target other
# Python versions, so failures are ignored.
LOCKS := requirements/cpu.lock requirements/console.lock requirements/train.lock requirements/ray.lock requirements/dev.lock
RARE := /(tests?|testing|anthropic|numba|sklearn)/|/transformers/models/(?!auto/|llama/|qwen|t5/)

.venv/ready: pyproject.toml $(LOCKS)
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet --upgrade pip setuptools
	awk '!seen[$$0]++ && !/^(torch|setuptools)==/ { print > (".venv/half" n++ % 2) }' $(LOCKS)
	$(PIP) install --no-deps --no-compile --quiet -r .venv/half0 & \
	{ $(PIP) install --no-deps --no-compile $(TORCH) \
		|| $(PIP) install --no-deps --no-compile --index-url https://download.pytorch.org/whl/cpu $(TORCH); } \
	&& $(PIP) install --no-deps --no-compile --progress-bar on -r .venv/half1; wait
	$(PIP) install --no-deps --no-compile --quiet $(TORCH) $(addprefix -r ,$(LOCKS))
	$(BIN)/python -m compileall -qq -j 0 -x '$(RARE)' .venv/lib || true
	$(PIP) install --no-deps --no-build-isolation --quiet --editable .
	touch $@

demo: setup ## Train a small model on MovieLens-100k and serve it on :8000; ARGS="--port 8010" for another port
	$(BIN)/atspeed demo $(ARGS)

serve: setup ## Serve a model: make serve TARGET=DIR CATALOG=FILE
	$(BIN)/atspeed serve --target "$(TARGET)" --catalog "$(CATALOG)" $(ARGS)

test: setup services ## Run the tests: all, or one of them with ARGS="tests/server/http/test_app.py -k batches"
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

test-all: setup services ## Run the tests and the exhaustive sweeps that `make test` only samples
	$(BIN)/python -m pytest $(WORKERS) --hypothesis-profile=exhaustive -m "exhaustive or not exhaustive" $(ARGS)

services: # What the tests run beside the server; the tests that need what can't be installed say that they were skipped
	@PIP_RETRIES=1 deploy/checks/tools.sh --quick

lint: setup ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## Apply the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

hooks: setup ## Run what `make lint` checks before each commit
	$(BIN)/pre-commit install

bench: setup ## Time this engine against vLLM and transformers (idle machine, a quarter of an hour)
	$(BIN)/atspeed-bench bench $(ARGS)

bench-gpu: ## Time drafting on models of served size (GPU; a CPU runs small ones) in less than ten minutes, with reports in build/bench-gpu: needs no setup
	failed=0; \
	$(GPU_PYTHON) -m benchmarks.gpu.kernel --markdown "$(INTO)/kernel.md" || failed=1; \
	$(GPU_PYTHON) -m benchmarks.gpu.run --minutes 5 --json "$(INTO)/drafting.json" --markdown "$(INTO)/drafting.md" $(ARGS) || failed=1; \
	$(GPU_PYTHON) -m benchmarks.gpu.run --wide --minutes 2 --json "$(INTO)/wide.json" --markdown "$(INTO)/wide.md" || failed=1; \
	exit $$failed

gpu-day: ## Measure a GPU in at most nine minutes, resumable, with a report in build/gpu-day: needs no setup; ARGS=--rehearse tries it anywhere
	$(GPU_PYTHON) -m benchmarks.gpu.day $(ARGS)

truth: ## Train a target and a draft on this device and measure them end to end: ARGS="--data DIR --catalog FILE"
	$(GPU_PYTHON) -m benchmarks.gpu.truth $(ARGS)

lossless: setup ## Count the lists that drafting changes: ARGS="--target DIR --draft DIR --catalog FILE --data DIR"
	$(BIN)/atspeed-bench lossless $(ARGS)

paper: setup ## The paper's tables, data to report (hours; goes on where it was); of other data: make paper DATA=DIR CATALOG=FILE
	$(BIN)/atspeed-bench paper $(if $(DATA),--data "$(DATA)" --catalog "$(CATALOG)") $(ARGS)

quality: setup ## Targets of Beauty, Games and MovieLens beside strong baselines (hours; goes on where it was)
	$(BIN)/atspeed-bench quality $(ARGS)

bench-catalog: setup ## Measure catalogs of 10^4 to 10^7 items (two minutes, 3 GB of memory and 1 GB of disk)
	$(BIN)/atspeed-bench catalog $(ARGS)

load: setup ## Put a server under load, up to twice what it can bear (idle machine, a quarter of an hour)
	$(BIN)/atspeed-bench standard $(ARGS)

swaps: setup ## Replace the catalog ten times a second under load (idle machine, two minutes)
	$(BIN)/atspeed-bench swaps $(ARGS)

soak: setup services ## Half an hour of load with hangs, kills, a full disk and a slow Redis, 45 minutes with proofs; ARGS="--seconds 180 --out /tmp" to try (root)
	$(BIN)/atspeed-bench soak $(ARGS)

fuzz: setup ## Send a server 10,000 requests made from its own OpenAPI document (ten minutes)
	$(BIN)/atspeed-bench fuzz $(ARGS)

models: setup ## Compare every family of transformers with its own constrained generate, on both hosts (an hour, resumable): ARGS="--only 'qwen*'"
	$(BIN)/atspeed-bench models $(ARGS)

screenshots: setup services ## Take the pictures of docs/console.md: an invented catalog, a random model (a minute)
	$(BIN)/python -m tests.server.console.screenshots

deploy-tools: # What the deployment is checked with: Helm, Prometheus, buildah and the like
	deploy/checks/tools.sh

deploy-check: setup deploy-tools ## Run the deployment for real: chart, dashboards, alerts, image, routing, Redis failover (root, half an hour)
	$(BIN)/python -m deploy.checks.chart
	$(BIN)/python -m deploy.checks.monitoring
	$(BIN)/python -m deploy.checks.routing
	$(BIN)/python -m deploy.checks.replicas
	$(BIN)/python -m deploy.checks.failover
	$(BIN)/python -m deploy.checks.container

fleet-check: setup services deploy-tools ## Change filters and catalogs while servers and Redis are killed; 20 seeds, hours on a busy machine; ARGS="--seeds 1 --writes 60" to try
	$(BIN)/python -m deploy.fleet.run $(ARGS)

lock: setup ## Resolve the requirements anew
	$(BIN)/python requirements/lock.py

gpu-kernel: setup ## Compile the kernel for A100, H100 and B200, and expect times on paper: needs no GPU (five minutes)
	TRITON_INTERPRET=0 $(BIN)/python -m benchmarks.gpu.roofline $(ARGS)

gpu-wheel-check: setup ## Hold what the vLLM host relies on against vLLM's CUDA build, read but not installed (a minute, 700 MB)
	$(BIN)/python -m benchmarks.gpu.wheel $(ARGS)

release-check: setup ## Build the wheel, install it by plain pip into an empty environment, serve a list (five minutes, 3 GB)
	nice $(BIN)/python requirements/release_check.py $(ARGS)

clean: ## Remove .venv and caches
	rm -rf .venv .deploy .mypy_cache .ruff_cache .pytest_cache *.egg-info
