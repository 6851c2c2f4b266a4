# The two commands of the README are `make demo` and `make test`; everything lives in $(VENV).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Where there is no NVIDIA GPU, torch is installed from here: builds for processors, 4 GB smaller.
# `make TORCH_INDEX= demo` takes the builds of the package index.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.DELETE_ON_ERROR:
.PHONY: help demo test slow lint check docs coverage bench sbom package clean

help:
	@echo "make demo   install, then train and report on phantoms, in dxseg-demo/"
	@echo "make test   install with the test tools, then run the tests"
	@echo "make slow   the tests that make test leaves out"
	@echo "make lint   ruff, mypy, who may import whom, insecure calls"
	@echo "make check  lint, then test"
	@echo "make docs   the documentation as a site, in build/site/; a warning is an error"
	@echo "make coverage  the tests, and which lines and branches they miss"
	@echo "make bench  every benchmark, as a table of ratios; adds a line to benchmarks/history.jsonl"
	@echo "make sbom   what is installed in $(VENV), as CycloneDX, in build/sbom.json"
	@echo "make package  source archive and wheel in dist/, tried where the checkout is not"
	@echo "make clean  remove $(VENV) and caches; runs and datasets stay"

demo: $(VENV)/.installed-demo
	$(BIN)/dxseg demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow -n auto --dist loadfile

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive src examples

docs: $(VENV)/.installed-dev
	$(BIN)/mkdocs build --strict

coverage: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile --cov --cov-report=term --cov-report=html:build/coverage

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/run.py --history benchmarks/history.jsonl

sbom: $(VENV)/.installed-dev $(VENV)/sbom/bin/cyclonedx-py
	mkdir -p build
	$(VENV)/sbom/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml \
	  --mc-type application --output-reproducible --output-file build/sbom.json
	$(BIN)/python .ci/sbom_version.py build/sbom.json

package: $(VENV)/.installed-dev
	.ci/package $(BIN)/python dist

check: lint
	$(MAKE) test

# Debian and Ubuntu keep `ensurepip` in a package of its own; where it is absent, the system's pip
# puts pip into the environment.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "dxseg needs Python 3.11 or later, but $(PYTHON) is not; try: make PYTHON=python3.11 ..."; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --without-pip $(VENV) \
	  && $(PYTHON) -m pip --python $(BIN)/python install pip; } || { \
	  rm -rf $(VENV); echo "no virtual environment; try: apt install python3-venv"; exit 1; }

# Only Linux: elsewhere the package index has builds for processors. What is installed stays. Other
# places that pip is configured to look in are left out: torch and torchvision must be of one kind.
$(VENV)/.installed-torch: | $(BIN)/python
	@if $(BIN)/python -c 'import torch, torchvision' 2>/dev/null; then :; \
	elif [ -n "$(TORCH_INDEX)" ] && [ "$$(uname -s)" = Linux ] && ! nvidia-smi >/dev/null 2>&1; then \
	  echo "no NVIDIA GPU: torch for processors from $(TORCH_INDEX)"; \
	  env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL PIP_CONFIG_FILE=/dev/null \
	    $(BIN)/python -m pip install --index-url "$(TORCH_INDEX)" --timeout 15 --retries 1 torch torchvision \
	    && $(BIN)/python -c 'import torch, torchvision' || { \
	    echo "$(TORCH_INDEX) cannot be used; torch comes from the package index"; \
	    $(BIN)/python -m pip uninstall --quiet --yes torch torchvision 2>/dev/null || true; }; \
	fi
	@touch $@

$(VENV)/.installed-demo: pyproject.toml | $(VENV)/.installed-torch
	$(BIN)/python -m pip install -e .
	touch $@

# The same environment with more in it, so it serves the demo too.
$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.installed-torch
	$(BIN)/python -m pip install -e '.[dev]'
	touch $(VENV)/.installed-demo $@

# An environment of its own: beside MONAI, its grammar of addresses would be compiled at every start
# of a process that trains, for 1 to 2 seconds; and the bill does not list what wrote it.
$(VENV)/sbom/bin/cyclonedx-py: | $(BIN)/python
	$(BIN)/python -m venv --without-pip $(VENV)/sbom
	$(BIN)/python -m pip --python $(VENV)/sbom/bin/python install 'cyclonedx-bom>=4.5'

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage*
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
