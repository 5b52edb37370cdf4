# assetcore: `make materialize` builds the example, `make test` tests it. Nothing needs to be installed but Python 3.11 and make.
#
#   make materialize PROJECT=handbook SELECT='+index' ARGS='--force'

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup materialize plan up down test fast soak check format-check lint types walls cover fmt bench lock dist clean

PROJECT ?= handbook
SELECT ?=
ARGS ?=

RUN := stack/run
# Each of these processes has an embedded stack of its own for the tests that need services, which wait a third of their time: so
# there are half as many again as cores.
cores := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
side_by_side = -n $(shell echo $$((($(cores) * 3 + 1) / 2))) --maxprocesses 4 --dist worksteal
quoted = '$(subst ','\'',$(1))'
chosen = --project $(call quoted,$(PROJECT)) $(if $(SELECT),$(call quoted,$(SELECT))) $(ARGS)

help:                ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

setup:               ## make the environment .venv from requirements.lock (implied by all others)
	@$(RUN)

materialize:         ## make what is stale: PROJECT=handbook SELECT= ARGS=
	@$(RUN) aipctl materialize $(chosen)

plan:                ## show what is stale and why: PROJECT=handbook SELECT= ARGS=
	@$(RUN) aipctl plan $(chosen)

up:                  ## start Postgres, Redis and Prefect
	@$(RUN) aipctl up

down:                ## stop what was started
	@$(RUN) aipctl down

test:                ## all tests; ARGS='-k name' narrows, ARGS='-n 0' runs them in one process
	@$(RUN) pytest $(side_by_side) $(ARGS)

fast:                ## the tests that need no service
	@$(RUN) pytest tests/unit $(ARGS)

soak:                ## the tests under fire for an hour or so: 200 kills, runs over each other, a store that fails
	@SOAK=200 $(RUN) pytest -n 0 tests/integration/test_fire.py \
		tests/integration/test_flow.py::test_an_api_that_is_away_for_a_while $(ARGS)

check: format-check lint types walls cover  ## everything that must hold before a merge

format-check:        ## is every file formatted?
	@$(RUN) ruff format --check

lint:                ## ruff
	@$(RUN) ruff check

types:               ## basedpyright
	@$(RUN) basedpyright --level error

walls:               ## do imports run down only? (contracts in pyproject.toml)
	@$(RUN) lint-imports

cover:               ## all tests, at least 85 % of the core covered
	@$(RUN) pytest $(side_by_side) --cov --cov-report=term --cov-fail-under=85 $(ARGS)

fmt:                 ## format, and mend what ruff can
	@$(RUN) ruff check --fix-only --quiet
	@$(RUN) ruff format

bench:               ## measure (tests/bench)
	@$(RUN) python -m tests.bench $(ARGS)

lock:                ## resolve pyproject.toml again into requirements.lock and the locks of stack/
	@$(RUN) uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --quiet --upgrade -o requirements.lock
	@$(RUN) uv pip compile --group s3-server --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --quiet --upgrade -o stack/s3.lock
	@$(RUN) uv pip compile --group gateway --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --quiet --upgrade -o stack/gateway.lock
	@$(RUN) uv pip compile pyproject.toml --extra docker --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --quiet --upgrade -o stack/image.lock

dist:                ## wheel and sdist in dist/
	@$(RUN) python -m hatchling build

clean:               ## stop everything and remove all that was made: services, their data, environment, caches
	@if [ -d "$${ASSETCORE_HOME:-.assetcore}" ]; then $(RUN) aipctl clean --yes; fi
	@rm -rf .venv dist .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* coverage.xml .import_linter_cache
