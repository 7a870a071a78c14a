# One virtual environment, .venv, with exactly the versions of constraints.txt; two more, made anew each time, show what
# pip takes by itself: .venv-latest and .venv-wheel. `make help` lists the targets.
#
# pip's own settings apply. On a Linux machine without a GPU, point pip (PIP_FIND_LINKS or PIP_INDEX_URL) at
# PyTorch's CPU builds, or the CUDA libraries of the default build (several GB) come along. All three have the same torch.

PYTHON ?= python3
VENV_FLAGS ?=
WORKERS ?= 2
ASSETS ?= whisper-base smollm2-135m-instruct
TESTS ?=
SOAK ?=

# Read by PyTorch's threads as they start: one that waits leaves its core to other processes.
export OMP_WAIT_POLICY ?= PASSIVE

TORCH := torch==2.13.0
VENV := .venv
LATEST := .venv-latest
WHEEL := .venv-wheel
BIN := $(VENV)/bin
READY := $(VENV)/ready

# 3.11.4 is the first 3.11 whose TarFile.extract takes `filter`, by which a .nemo is unpacked.
define CHECK_PYTHON
@$(PYTHON) -c 'import sys; sys.exit(not (3, 11, 4) <= sys.version_info < (3, 13))' || \
	{ echo "error: '$(PYTHON)' must be Python 3.11 (from 3.11.4 on) or 3.12; name one with: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
endef

.DEFAULT_GOAL := help
.PHONY: help venv test test-latest test-wheel test-page soak demo lint docs assets clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(READY)  ## create .venv and install the package into it

# The stamp makes a second run instant; a change to what is installed makes it run again.
$(READY): setup.py pyproject.toml constraints.txt nemo_speechllm/package_info.py
	$(CHECK_PYTHON)
	$(PYTHON) -m venv $(VENV_FLAGS) $(VENV)
	$(BIN)/pip install -c constraints.txt $(TORCH)
	$(BIN)/pip install -c constraints.txt -e .[dev]
	@touch $@

# One thread a worker: more only make the workers fight for the cores.
test: $(READY)  ## run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) $(TESTS)

test-page: $(READY)  ## try the server's page in a headless Chromium, which must be installed
	$(BIN)/pip install playwright==1.65.2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/serving/test_page.py

test-latest:  ## run all tests with the newest versions that setup.py allows
	$(CHECK_PYTHON)
	rm -rf $(LATEST)
	$(PYTHON) -m venv $(LATEST)
	$(LATEST)/bin/pip install $(TORCH)
	$(LATEST)/bin/pip install --upgrade --upgrade-strategy eager $(TORCH) -e .[test]
	OMP_NUM_THREADS=1 $(LATEST)/bin/python -m pytest -n $(WORKERS) $(TESTS)

# Without constraints.txt and outside this folder, as for someone who has the wheel and nothing else.
test-wheel:  ## install the wheel into an empty environment and do what its description says
	$(CHECK_PYTHON)
	rm -rf $(WHEEL) build dist
	$(PYTHON) -m venv $(WHEEL)
	$(WHEEL)/bin/pip wheel --no-deps --wheel-dir dist .
	$(WHEEL)/bin/pip install $(TORCH)
	$(WHEEL)/bin/pip install dist/*.whl
	$(WHEEL)/bin/pip check
	$(WHEEL)/bin/python -I tests/wheel.py

soak: $(READY)  ## try hundreds of fuzzed manifests, hostile checkpoints and kills; SOAK="kills:kills=3" for a part
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak $(SOAK)

demo: $(READY)  ## fine-tune on real speech and transcribe with the result
	$(BIN)/python examples/demo.py

lint: $(READY)  ## check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(READY)  ## make a site of the pages in site/; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

assets: $(READY)  ## fetch the pretrained weights into the cache and print their folders
	$(BIN)/python -c 'import sys; from nemo_speechllm.assets import resolve; print(*map(resolve, sys.argv[1:]), sep="\n")' $(ASSETS)

# runs/ stays: it holds trained models.
clean:  ## remove .venv and caches
	rm -rf $(VENV) $(LATEST) $(WHEEL) *.egg-info build dist site .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
