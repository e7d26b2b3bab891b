# `make help` lists what there is. Nothing needs more than Python 3.11+, make and git.

# The system's own Python first: distributions build it with profile-guided optimisation, and the
# daemon then needs a quarter less CPU (docs/performance.md). `make PYTHON=python3.13 run` overrides.
PYTHON ?= $(shell for p in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PREFIX ?= /usr/local

MINUTES ?= 10
SEED ?= 0

.DEFAULT_GOAL := help
.PHONY: help run install test check faults mutants stress fuzz bench soak docs-settings events-types npm example screenshots clean install-systemd deb

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-15s %s\n", $$1, $$2}'

run: $(VENV)/installed ## Start the daemon with demo events and an embedded Valkey, on 127.0.0.1:8000
	@$(BIN)/broker serve --dev

install: $(VENV)/installed ## Make .venv with the broker in it

# Compiled once, whatever the environment says: a daemon that compiles itself starts in three times the time.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/installed-test check ## Run every test (they bring their own Redis)
	@tests/browser/install $(BIN)/python
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

check: $(VENV)/installed-test ## Types and lint
	$(BIN)/ruff check --config conf/ruff.toml broker tests
	$(BIN)/ruff format --check --config conf/ruff.toml broker tests
	$(BIN)/mypy

faults: $(VENV)/installed-test ## Try every promise of docs/reliability.md at full size, and measure; ROW=5 SEED=7 for one again
	@$(BIN)/python -m tests.faults --json dist/faults.json --seed $(SEED) $(addprefix --row ,$(ROW))

mutants: $(VENV)/installed-test ## Put deliberate bugs into a copy, and see that the fault suite finds each
	$(BIN)/python -m tests.faults.mutants

stress: $(VENV)/installed-test ## Play every scenario of tests/stress on three daemons at once; SEED=7 for one run again
	@$(BIN)/python -m tests.stress $(if $(filter-out 0,$(SEED)),--seed $(SEED))

fuzz: $(VENV)/installed-fuzz ## Try bad inputs for MINUTES=10 on everything that reads them, without sockets, and keep what is new
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES) --workers 2

bench: $(VENV)/installed-test ## Measure this machine: CPU and deliveries a second, WebSocket and SSE
	$(BIN)/python -m tests.bench

soak: $(VENV)/installed-test ## Live with a daemon for MINUTES=10, then see that nothing is left over
	$(BIN)/python -m tests.soak --minutes $(MINUTES) $(if $(filter-out 0,$(SEED)),--seed $(SEED))

events-types: $(VENV)/installed ## Write broker/browser/events.d.ts anew from the event classes
	$(BIN)/python -m broker.events.typescript > broker/browser/events.d.ts

docs-settings: $(VENV)/installed ## Write conf/broker.toml and the table in docs/settings.md anew from the code
	$(BIN)/broker config defaults > conf/broker.toml
	sed -i.old '/generated: broker config table/q' docs/settings.md && rm -f docs/settings.md.old
	$(BIN)/broker config table >> docs/settings.md

npm: $(VENV)/installed ## Make the npm package @broker/client, in dist/, of what the daemon serves at /client/
	@echo "TypeScript writes the declarations; it comes from npm (Node 20 or newer), into tests/browser/node_modules"
	@tests/browser/install --packages
	@$(BIN)/python conf/npm/package.py --output dist

example: $(VENV)/installed ## Run docs/examples/dashboard, a React app, beside `make run`
	@$(BIN)/python docs/examples/dashboard/run.py

screenshots: $(VENV)/installed ## Take docs/images/ anew: the console and the example app
	@tests/browser/install $(BIN)/python
	@$(BIN)/python -m tests.browser.screenshots

install-systemd: $(VENV)/installed ## Install the daemon and its units: PREFIX=/usr/local; DESTDIR= for a folder in place of /
	@$(BIN)/python conf/debian/package.py install --destdir "$(DESTDIR)" --prefix "$(PREFIX)"

deb: $(VENV)/installed ## Make a Debian package, in dist/, of what .venv has
	@$(BIN)/python conf/debian/package.py deb --output dist

clean: ## Remove what the targets above made
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis tests/browser/node_modules docs/examples/dashboard/node_modules

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer with venv was found. On Debian: apt install python3 python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The installed copy is the working tree itself, so only a change of the requirements installs again.
$(VENV)/installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-test: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ $(VENV)/installed

# Where there is no wheel of atheris, `make fuzz` does without.
$(VENV)/installed-fuzz: $(VENV)/installed-test
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]' || echo "atheris cannot be installed here" >&2
	@touch $@
