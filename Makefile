# `make demo` and `make test` are the two commands; both do all set-up first. compose/setup.sh says what that is.
PYTHON ?= python3
export PYTHON
BIN := .venv/bin

.PHONY: help setup venv demo check test test-long uninstall clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: ## engine, compose plugin, .venv and images, where they are not there yet (YES=1 answers its question)
	@sh compose/setup.sh

venv:
	@sh compose/setup.sh venv

demo: setup ## set-up, then six cells on real brokers: who loses acknowledged messages when the power goes
	$(BIN)/mqtest run scenarios/first-look.toml

check: venv ## lint, types and the tests that need no Docker engine: four minutes
	$(BIN)/ruff check .
	$(BIN)/mypy --strict
	$(BIN)/pytest -q -m "not docker and not ray" -n 4 --dist worksteal

test: setup check ## set-up, then every check and test, those on real brokers too, but for the longest
	$(BIN)/pytest -q --durations=30 -m "(docker or ray) and not long"

test-long: setup ## set-up with ClickHouse (640 MB), then the longest tests on real brokers, which CI runs every night
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dashboard]'
	$(BIN)/pytest -q -m long

uninstall: ## takes back what the set-up did: our containers and images, packages, sources, engine, .venv
	@sh compose/setup.sh undo

clean: ## removes what tools left in the tree (results are pruned by `mqtest clean`)
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
