# Two commands do all the set-up: `make demo` and `make test`. Python 3.11 or newer and make are all they need.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo serve landscapes diloco test lint types pytest format bench bits gpu-check gpu-rehearsal openapi docs crash \
	simulate clean

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check -qq install --constraint constraints.txt --no-compile
# Keeps the bytecode of all it imports, also where the environment says not to: every later start is spared the compiling.
FIRST_IMPORT := PYTHONDONTWRITEBYTECODE= $(BIN)/python -c
INSTALLED := $(VENV)/.installed
BENCH_INSTALLED := $(VENV)/.installed-bench
GPU_INSTALLED := $(VENV)/.installed-gpu
TORCH_INSTALLED := $(VENV)/.installed-torch

# What the tests may have besides: with EXTRAS=torch those that need PyTorch run as well.
EXTRAS ?=
EXTRAS_INSTALLED := $(EXTRAS:%=$(VENV)/.installed-%)

# The first Python on the path that is new enough and can make a virtual environment; override with PYTHON=…
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Make .venv with the service, the client and what demo and tests need

# Build tools come first, pinned like everything else, so that the two builds need no environment of their own.
# Only what is imported is compiled, not all that is installed: that saves a quarter of the time.
$(INSTALLED): pyproject.toml clients/python/pyproject.toml constraints.txt
	@test -x $(BIN)/python || { python='$(PYTHON)'; \
		test -n "$$python" || { echo 'No Python >= 3.11 with the venv module was found. Install one (Debian, Ubuntu: the' \
			'package python3-venv), or name it: make install PYTHON=/path/to/python3'; exit 1; }; \
		echo "Making $(VENV) with $$("$$python" --version)"; "$$python" -m venv --clear $(VENV); }
	@echo 'Installing into $(VENV) (up to a minute)'
	@$(PIP_INSTALL) hatchling editables
	@$(PIP_INSTALL) --no-build-isolation --editable ./clients/python --editable '.[demo,dev]'
	@$(FIRST_IMPORT) 'import gradledger_server.server, gradledger_server.demo.story, hypothesis, pytest, sklearn.datasets'
	@touch $@

demo: install ## Train a classifier with four workers, kill the service midway, and check the outcome
	@$(BIN)/gradledger demo

serve: install ## Start the service with its own embedded Valkey on http://127.0.0.1:8000
	@$(BIN)/gradledger serve

landscapes: install ## Let every rule walk over five landscapes and draw it in landscapes/ (ARGS=… for the drawing)
	@$(BIN)/python -m examples.landscapes $(ARGS)

diloco: install $(TORCH_INSTALLED) ## Train a transformer with four workers, data parallel and DiLoCo: loss by bytes (ARGS=…)
	@$(BIN)/python -m examples.diloco $(ARGS)

test: lint types pytest ## Check format, lint and types, then run the whole test suite (EXTRAS=torch)

lint: install ## Check format and lint
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: install $(EXTRAS_INSTALLED) ## Check types, strictly
	$(BIN)/mypy

# Two processes, whole files each: a file's servers start once, and no file shares a server with another.
pytest: install $(EXTRAS_INSTALLED) ## Run the tests alone (ARGS=… for pytest)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

format: install ## Format the code and mend what lint can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: install $(BENCH_INSTALLED) ## Measure, beside the limits of this machine (ARGS=… for the benchmarks)
	@$(BIN)/python -m benchmarks $(ARGS)

bits: install ## Compare compiled kernels with NumPy's, bit by bit, on 10^7 elements of each rule (ARGS=…)
	@$(BIN)/python -m benchmarks.bits $(ARGS)

# A Python that has CuPy is used as it is, so that a machine without a network needs nothing but NumPy, CuPy and a GPU.
gpu-check: ## On a machine with a GPU: every kernel's bits and speed, into docs/gpu.md (PYTHON=… one that has CuPy)
	@python='$(PYTHON)'; "$$python" -c 'import cupy, numpy' 2>/dev/null || { \
		$(MAKE) --no-print-directory $(GPU_INSTALLED) && python=$(BIN)/python; } && \
		PYTHONPATH=service:clients/python "$$python" -m benchmarks.gpu $(ARGS)

# What CuPy would launch is compiled for this processor; no figure comes of it, and docs/gpu.md stays as it is.
gpu-rehearsal: install ## gpu-check and the tests that need a GPU, with a stand-in for it (half an hour, needs g++)
	@export PYTHONPATH=$(CURDIR)/tests/kernels/stand_in:$(CURDIR):$(CURDIR)/service:$(CURDIR)/clients/python && \
		$(BIN)/python -m pytest -m gpu --numprocesses 2 && $(BIN)/python -m benchmarks.gpu --quick --elements 1e4

$(GPU_INSTALLED): $(INSTALLED)
	@echo 'Installing CuPy and its CUDA libraries (a few minutes)'
	@$(PIP_INSTALL) --no-build-isolation --editable '.[gpu]'
	@touch $@

$(BENCH_INSTALLED): $(INSTALLED)
	@echo 'Installing what only the benchmarks need'
	@$(PIP_INSTALL) --no-build-isolation --editable '.[bench]'
	@touch $@

$(TORCH_INSTALLED): $(INSTALLED)
	@echo 'Installing PyTorch (a minute or two)'
	@$(PIP_INSTALL) --no-build-isolation --editable '.[torch]'
	@$(FIRST_IMPORT) 'import torch; torch.optim.SGD([torch.zeros(1)])' # which imports half of torch at the first optimizer
	@touch $@

openapi: install ## Write openapi/openapi.json again
	@$(BIN)/gradledger openapi > openapi/openapi.json.new
	@mv openapi/openapi.json.new openapi/openapi.json

docs: install ## Write docs/optimizers.md, docs/schedules.md and docs/settings.md again, from the code
	@$(BIN)/python -m tools.optimizers_page
	@$(BIN)/python -m tools.schedules_page
	@$(BIN)/python -m tools.settings_page

crash: install ## Kill the service and Valkey at random moments, many more times than `make test` does (ROUNDS=200)
	GRADLEDGER_CRASH_ROUNDS=$(or $(ROUNDS),200) $(BIN)/python -m pytest tests/crash --timeout 0

simulate: install ## Live through many simulated worlds of workers and replicas, each from its seed (SEEDS=10000)
	PYTHONPATH=service:clients/python $(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),10000)

clean: ## Remove .venv and everything that was built
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
