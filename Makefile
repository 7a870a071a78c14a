# One virtual environment, .venv, with exactly the versions of constraints.txt. `make help` lists the targets.
#
# pip's own settings apply. On a Linux machine without a GPU, point pip (PIP_FIND_LINKS or PIP_INDEX_URL) at
# PyTorch's CPU builds, or the CUDA libraries of the default build (several GB) come along.

PYTHON ?= python3
VENV_FLAGS ?=
WORKERS ?= 2
ASSETS ?= whisper-base smollm2-135m-instruct

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.DEFAULT_GOAL := help
.PHONY: help venv test demo lint assets clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(READY)  ## create .venv and install the package into it

# The stamp makes a second run instant; a change to what is installed makes it run again.
$(READY): setup.py pyproject.toml constraints.txt nemo_speechllm/package_info.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
		{ echo "error: '$(PYTHON)' must be Python 3.11 or 3.12; name one with: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV_FLAGS) $(VENV)
	$(BIN)/pip install -c constraints.txt torch==2.13.0
	$(BIN)/pip install -c constraints.txt -e .[dev]
	@touch $@

# One thread a worker: more only make the workers fight for the cores.
test: $(READY)  ## run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

demo: $(READY)  ## fine-tune on real speech and transcribe with the result
	$(BIN)/python examples/demo.py

lint: $(READY)  ## check format and style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

assets: $(READY)  ## fetch the pretrained weights into the cache and print their folders
	$(BIN)/python -c 'import sys; from nemo_speechllm.assets import resolve; print(*map(resolve, sys.argv[1:]), sep="\n")' $(ASSETS)

# runs/ stays: it holds trained models.
clean:  ## remove .venv and caches
	rm -rf $(VENV) *.egg-info build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
