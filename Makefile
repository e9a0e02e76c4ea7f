# Two commands that need nothing but Python (3.11 to 3.13) and make: `make demo` and `make test`.
# Each makes its own virtual environment in .venv; a second run reuses it.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
TORCH_INSTALLED := $(VENV)/.installed-torch

.PHONY: demo test lint clean

demo: $(INSTALLED)
	rm -rf build/demo
	$(RUN) -m m2l_jax.demo --output=build/demo

test: $(TORCH_INSTALLED)
	$(RUN) -m pytest

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/shellcheck launch/*.sh launch/*.sbatch .ci/run

clean:
	rm -rf $(VENV) build

$(INSTALLED): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "error: Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --requirement requirements.txt
	$(RUN) -m pip install --quiet --editable '.[dev]' --constraint requirements.txt
	touch $@

# For the tests only: the PyTorch package that the numbers are compared with.
$(TORCH_INSTALLED): $(INSTALLED)
	$(RUN) -m pip install --quiet --editable '.[dev,torch]' --constraint requirements.txt
	touch $@
