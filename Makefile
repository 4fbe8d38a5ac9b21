# The two commands: `make train` and `make test`.  CONTRIBUTING.md lists the others.

PYTHON ?= python3
BACKEND ?= auto
VENV := .venv
BIN := $(VENV)/bin
CXX ?= g++

.PHONY: train test lint format bench sanitize sanitize-quick doctor clean

# ---- environments: a stamp file per set of extras, renewed when pyproject.toml changes --------------

INSTALLED := $(VENV)/installed-numpy
ifneq ($(BACKEND),numpy)
INSTALLED := $(VENV)/installed-torch
endif
SOURCES := $(wildcard csrc/*.h csrc/cpu/* csrc/cuda/*) setup.py minicnn/backends/build.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "minicnn needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	    { echo "Python's venv module is missing; install it, on Debian with: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed-numpy: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/installed-torch: pyproject.toml $(SOURCES) | $(BIN)/python
	@command -v $(CXX) >/dev/null || \
	    { echo "No C++ compiler; install one, on Debian with: apt-get install g++ (or use BACKEND=numpy)" >&2; exit 1; }
	$(BIN)/python -c 'import torch, ninja, setuptools' 2>/dev/null || $(BIN)/pip install --quiet "setuptools>=77" ninja torch
	$(BIN)/pip install --quiet --no-build-isolation --editable ".[torch]"
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed-torch
	$(BIN)/pip install --quiet --no-build-isolation --editable ".[torch,datasets,dev]"
	@touch $@

# ---- what people call --------------------------------------------------------------------------------

train: $(INSTALLED)
	$(BIN)/python -m minicnn.train --backend $(BACKEND) --epochs 6 --out runs/make-train --overwrite

test: lint
	$(BIN)/pytest -n 2 --dist loadfile

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/check_sources.py
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')

sanitize:
	$(MAKE) -C tests/csrc -j 2

# CI's short form: no ThreadSanitizer
sanitize-quick:
	$(MAKE) -C tests/csrc -j 2 asan compile

bench: $(VENV)/installed-dev
	$(BIN)/pytest benchmarks --benchmark-json=benchmarks/results/latest.json

doctor: $(INSTALLED)
	$(BIN)/python -m minicnn.doctor

clean:
	rm -rf $(VENV) build dist *.egg-info minicnn/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
