# Everything that a person runs. Needs Python 3.11 or newer and make; the rest is set up in $(VENV).
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.DEFAULT_GOAL := help
.PHONY: help setup up test soak bench lint format secrets python clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## make the virtual environment with the pinned packages

$(INSTALLED): pyproject.toml constraints.txt | python
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the pinned packages into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(INSTALLED)

up: $(INSTALLED) ## start everything on 127.0.0.1:8420 with a sample site; Ctrl-C stops it
	@exec $(BIN)/berth up

# The packages that make and check a TypeScript client. Without a lock file: exact versions, and nothing of it is ours.
CLIENTS := tests/api/clients
$(CLIENTS)/node_modules/.installed: $(CLIENTS)/package.json $(INSTALLED)
	@echo "installing the packages of $(CLIENTS)"
	@$(BIN)/npm install --prefix $(CLIENTS) --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

test: $(INSTALLED) $(CLIENTS)/node_modules/.installed ## the whole test suite
	@$(BIN)/python -m pytest -n 2

soak: $(INSTALLED) ## kill anything at any time for MINUTES (default 30), and look at everything after each
	@$(BIN)/python -m tests.survival --minutes $(or $(MINUTES),30)

# The runner of OpenStack Placement, which is not ours: measured in the same sitting where it is there.
PEER ?= $(wildcard ../shared/peers/placement)

bench: $(INSTALLED) ## the benchmarks, as a table and bench/results/latest.json
	@$(BIN)/python -m bench $(if $(PEER),--peer $(PEER))

lint: $(INSTALLED) ## style, format, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(INSTALLED) ## put the code into the project's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

secrets: python ## passwords and the first admin's token for docker compose, in deploy/secrets
	@$(PYTHON) deploy/make_secrets.py

python:
	@test -n "$(PYTHON)" || { echo "Berth needs Python 3.11 or newer; none was found. Set PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Berth needs Python 3.11 or newer; $(PYTHON) is older. Set PYTHON=/path/to/python3"; exit 1; }

clean: ## remove the virtual environment and caches (not the data in .berth)
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
