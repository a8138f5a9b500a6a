# Everything for a fresh machine with Python 3.11 or later and make. `make` lists the targets.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.bench-installed
BROWSER_STAMP := $(VENV)/.browser-installed
WORKERS ?= 2
# The first Python here that is new enough and can make a virtual environment with pip in it.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
COMPILE = $(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 \
	--no-header --no-emit-index-url --no-emit-find-links $(UPGRADE)

.DEFAULT_GOAL := help
.PHONY: help venv run demo test test-browser check-deploy simulate canaries mutation torture fuzz openapi check format \
	lock bench-packages bench bench-quick wheel clean

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: $(STAMP) ## Set up .venv with everything the lock names

run: $(STAMP) ## Start the service, walk one loan's life through it, and stay up to be tried
	$(BIN)/ledgerd demo

demo: $(STAMP) ## The same, and end; succeeds when all went as it should
	$(BIN)/ledgerd demo --exit

test: $(STAMP) ## Run all tests (ARGS="-k money" for some, WORKERS=0 in one process)
	$(BIN)/pytest --numprocesses $(WORKERS) $(ARGS)

simulate: $(STAMP) ## Live SEEDS=1000 simulated lives of the service, from seed FIRST=0 on, each twice
	$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),1000) --first $(or $(FIRST),0)

canaries: $(STAMP) ## Give a copy of the code one fault after another: each must be noticed
	$(BIN)/python -m tests.canaries $(ARGS)

mutation: $(STAMP) ## Change the rules and logins place by place: tests must notice (SAMPLE=20 SEED=1)
	$(BIN)/python -m tests.mutation --sample $(or $(SAMPLE),0) --seed $(or $(SEED),1) $(ARGS)

torture: $(STAMP) ## Crash, cut power, simulate, fuzz and damage for MINUTES=60; needs a C compiler
	$(BIN)/python -m tests.torture --minutes $(or $(MINUTES),60) --seed $(or $(SEED),1)

fuzz: $(STAMP) ## Feed whatever strangers send to its readers for some minutes (MINUTES=10)
	$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),10)

openapi: $(STAMP) ## Write the document of the API anew: its examples, and docs/openapi.json
	$(BIN)/python -m tests.http.examples

check: $(STAMP) ## Check format, lint, types, the direction of imports, and tidiness
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest --quiet tests/test_tidy.py

format: $(STAMP) ## Format the code, and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(STAMP) ## Pin requirements/*.in with hashes (UPGRADE=--upgrade for newer versions)
	$(COMPILE) requirements/run.in --output-file requirements/run.txt
	$(COMPILE) requirements/dev.in --output-file requirements/dev.txt
	$(COMPILE) requirements/build.in --output-file requirements/build.txt
	$(COMPILE) requirements/bench.in --output-file requirements/bench.txt
	$(COMPILE) requirements/browser.in --output-file requirements/browser.txt

test-browser: $(BROWSER_STAMP) ## Use the console with a real Chromium, and keep pictures in build/screenshots
	$(BIN)/python -m tests.browser.requisites
	$(BIN)/pytest --override-ini addopts=-ra tests/browser $(ARGS)

check-deploy: $(STAMP) ## Ask a real Prometheus every query of the dashboard and the alerts
	$(BIN)/python -m tests.deploy

bench-packages: $(BENCH_STAMP) ## Install what the benchmarks need besides: Python's packages and Debian's
	$(BIN)/python -m bench.requisites

bench: $(BENCH_STAMP) ## Measure everything within the hour, over peers (ARGS="B7 B9" for some of it)
	$(BIN)/python -m bench $(ARGS)

bench-quick: $(STAMP) ## Measure the main loads in under three minutes
	$(BIN)/python -m bench --quick $(ARGS)

wheel: $(STAMP) ## Build the wheel that docs/runbook.md installs, into dist/
	@$(BIN)/python -m pip wheel --quiet --no-index --no-deps --no-build-isolation --wheel-dir dist .

clean: ## Remove what checks and builds leave behind; .venv and data stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
	find ledgerd tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): requirements/dev.txt pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
		echo "ledgerd needs Python 3.11 or later with its venv module (Debian: apt install python3-venv)." >&2; \
		echo "If it has another name here: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing what requirements/dev.txt names into $(VENV) (a minute or so, once)"
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# For the benchmarks' peers and plots alone; constrained by dev.txt, so that both live in one environment.
$(BROWSER_STAMP): requirements/browser.txt $(STAMP)
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements/browser.txt
	@touch $@

$(BENCH_STAMP): requirements/bench.txt $(STAMP)
	@echo "Installing what requirements/bench.txt names into $(VENV) (half a minute or so, once)"
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements/bench.txt
	@touch $@
