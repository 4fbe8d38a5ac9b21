# The two main commands are `make train` and `make test`.  CONTRIBUTING.md lists the others.

PYTHON ?= python3
BACKEND ?= auto
# TORCH=cpu takes PyTorch's build without CUDA, where the index of packages has one.
TORCH ?=
VENV := .venv
BIN := $(VENV)/bin
CXX ?= g++
CUDA_PROOFS := $(addprefix tests/test_cuda_,emulation.py sanitizers.py module.py)
CUDA_ORDERS := tests/test_ops.py tests/test_rules.py tests/test_fuse.py
ORDERS ?= reversed 7
CUDA_ARCHITECTURES ?= 80 90
# pytest-benchmark warns of xdist, and a warning is an error.
PARALLEL_PYTEST := $(BIN)/pytest -n 2 -p no:benchmark
EMULATED := MINICNN_CUDA_EMULATION=1 MINICNN_TEST_BACKENDS=cuda

# Where setup.py finds a CUDA toolkit it builds the CUDA module, which takes minutes.  Here it does not, so that
# `make train` and `make test` begin at once; the module is then built on first use.  FORCE_CUDA=1 builds it
# at installation.
export FORCE_CUDA ?= 0

.PHONY: train test suite test-cuda cuda-report cuda-report-quick cuda-counts gpu lint format docs notebooks bench bench-quick figures lockstep reliability mutants mutants-quick torch-extension wheels wheels-check sanitize sanitize-quick doctor clean

# ---- environments: a stamp file for each set of extras, renewed when pyproject.toml changes ---------

INSTALLED := $(VENV)/installed-numpy
ifneq ($(BACKEND),numpy)
INSTALLED := $(VENV)/installed-torch
endif
SOURCES := $(wildcard csrc/*.h csrc/*/*.* csrc/*/*/*.*) setup.py \
    $(addprefix minicnn/backends/,compiler.py cuda_build.py levels.py module_file.py programs.py torch_package.py)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "minicnn needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	    { echo "Python's venv module is missing; install it, on Debian with: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed-numpy: pyproject.toml | $(BIN)/python
	@$(BIN)/python scripts/install.py numpy
	@touch $@

# This does not compile: `make train` compiles when it begins, and shows how far it is.
$(VENV)/installed-torch: pyproject.toml | $(BIN)/python
	@command -v $(firstword $(CXX)) >/dev/null || \
	    { echo "No C++ compiler; install one, on Debian with: apt-get install g++ (or use BACKEND=numpy)" >&2; exit 1; }
	@$(BIN)/python scripts/install.py torch$(TORCH:%=-%)
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed-torch $(SOURCES)
	$(BIN)/pip install --quiet --no-build-isolation --editable ".[torch,datasets,dev,docs]"
	@touch $@ $(VENV)/installed-torch

$(VENV)/installed-wheels: $(VENV)/installed-dev
	$(BIN)/pip install --quiet --no-build-isolation --editable ".[torch,datasets,dev,docs,wheels]"
	@touch $@

$(VENV)/installed-peers: $(VENV)/installed-dev
	$(BIN)/pip install --quiet --no-build-isolation --editable ".[torch,datasets,dev,docs,peers]"
	@touch $@

# ---- the commands ------------------------------------------------------------------------------------

EPOCHS ?= 6
train: $(INSTALLED)
	$(BIN)/python -m minicnn.train --backend $(BACKEND) --epochs $(EPOCHS) --out runs/make-train --overwrite
	@echo "Next: open runs/make-train/report.html, then train on your own images: . $(BIN)/activate, and docs/tutorial.md"

test: lint
	$(MAKE) suite

suite: $(VENV)/installed-dev
	$(PARALLEL_PYTEST) --dist loadfile $(CUDA_PROOFS:%=--ignore %)

# The cuda backend on a machine without a GPU.  First the suite on the emulated module; then some of it again
# with the threads of a block in other orders; then the tests that the emulation and the sanitizers find the
# mistakes that they should, and those of the module that nvcc builds.
test-cuda: $(VENV)/installed-dev
	$(EMULATED) $(PARALLEL_PYTEST) -k cuda tests $(CUDA_PROOFS:%=--ignore %)
	for order in $(ORDERS); do \
	    $(EMULATED) MINICNN_CUDA_ORDER=$$order $(PARALLEL_PYTEST) -k cuda $(CUDA_ORDERS) || exit 1; done
	$(PARALLEL_PYTEST) --dist loadgroup $(CUDA_PROOFS)

cuda-report: $(VENV)/installed-dev
	$(BIN)/python scripts/cuda_report.py --check --arch $(CUDA_ARCHITECTURES)

# The short form for CI: the module, for the one architecture in TORCH_CUDA_ARCH_LIST.  test-cuda then finds it built.
cuda-report-quick: $(VENV)/installed-dev
	$(BIN)/python scripts/cuda_report.py --check --module

# Sectors, bank conflicts and parted lanes of examples/cuda_counts, as docs/counts.md shows them.
cuda-counts: $(VENV)/installed-dev
	$(BIN)/python scripts/cuda_counts.py | tee benchmarks/results/cuda_counts.txt

gpu: $(VENV)/installed-dev
	$(BIN)/python scripts/gpu.py

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

# Builds the template of a PyTorch extension by itself, and runs what its users run.
torch-extension: $(VENV)/installed-dev
	$(BIN)/pip install --no-deps --no-build-isolation --upgrade --target build/torch-extension examples/torch_extension
	cd examples/torch_extension && PYTHONPATH=$(CURDIR)/build/torch-extension $(abspath $(BIN))/pytest -c pyproject.toml
	cd examples/torch_extension && PYTHONPATH=$(CURDIR)/build/torch-extension $(abspath $(BIN))/python benchmark.py

# A wheel for this Python and this torch, with the CPU's kernels for several levels of x86-64: build/wheels.
wheels: $(VENV)/installed-wheels
	$(BIN)/python scripts/wheels.py

# Installs that wheel in an empty environment and verifies each level; CHECK="--other-torch VERSION --save".
wheels-check: $(VENV)/installed-wheels
	$(BIN)/python scripts/wheels.py --check $(CHECK)

sanitize:
	$(MAKE) -C tests/csrc -j 2

# Plants bugs one at a time in a copy of the sources; the tests must notice every one.
mutants: $(VENV)/installed-dev
	$(BIN)/python -m scripts.mutants --save benchmarks/results/mutants.json

mutants-quick: $(VENV)/installed-dev
	$(BIN)/python -m scripts.mutants --quick

# The short form for CI, without ThreadSanitizer.
sanitize-quick:
	$(MAKE) -C tests/csrc -j 2 asan compile

bench: $(VENV)/installed-dev
	@mkdir -p build
	for threads in 2 1; do \
	    $(BIN)/pytest benchmarks --threads $$threads --benchmark-json=build/bench-$$threads.json || exit 1; done

# A few groups only: small nets and their operations, without torch.compile.
bench-quick: $(VENV)/installed-dev
	@mkdir -p build
	$(BIN)/pytest benchmarks -k "not compile and (lenet or (simple_cnn and 128))" --benchmark-json=build/bench.json

# Measures everything that docs/benchmarks.md and docs/fused.md show, except whole trainings.  Each script can
# also be run by itself.
figures: $(VENV)/installed-peers
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/steps.py --threads 1 --no-compile \
	    --rows "minicnn cpp" "torch eager" "torch channels-last" "ONNX Runtime" OpenVINO
	for script in ladder roofline numpy_steps memory fold fusion threads untuned augment; do \
	    $(BIN)/python benchmarks/$$script.py || exit 1; done
	$(BIN)/python benchmarks/report.py

lockstep: $(VENV)/installed-dev
	$(BIN)/python scripts/lockstep.py

# Kills and resumes 100 runs, then reads 100,000 damaged files.
reliability: $(VENV)/installed-dev
	$(BIN)/python scripts/kill_resume.py --save
	$(BIN)/python scripts/fail_resume.py --save
	$(BIN)/python scripts/kill_workers.py --times 10 --save
	$(BIN)/python scripts/fuzz_readers.py --save

# Runs every notebook from top to bottom, with NumPy.
notebooks: $(VENV)/installed-dev
	for notebook in notebooks/*.py; do MPLBACKEND=agg $(BIN)/python $$notebook || exit 1; done

# mkdocs.yml makes every warning an error, dead links included.  Do not add --quiet: it drops warnings before they
# are counted.  The variable silences Material's notice that its support ends in May 2027.
# The live page's kernels are compiled again where they are outdated and emscripten is installed.
docs: $(VENV)/installed-dev
	@$(BIN)/python scripts/site/wasm.py --check || ! command -v em++ >/dev/null || $(BIN)/python scripts/site/wasm.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "open build/site/index.html; its search needs a server: $(BIN)/python -m http.server -d build/site"

doctor: $(INSTALLED)
	$(BIN)/python -m minicnn.doctor

clean:
	rm -rf $(VENV) build dist *.egg-info minicnn/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
