PYTHON ?= python3
BIN := .venv/bin

.PHONY: install run test faults check types docs bench bench-docs bench-parts format clean

install: .venv/installed

PAGE := $(wildcard frontend/*.* frontend/.npmrc frontend/src frontend/src/* frontend/src/reference/* frontend/src/views/* frontend/public/*)
NPM := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/npm --prefix frontend --silent

.venv/installed: pyproject.toml constraints.txt hatch_build.py $(filter-out frontend/src/types.ts,$(PAGE))
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

run: install
	$(BIN)/realtime serve

test: install
	$(BIN)/pytest -n 4 --dist worksteal

faults: install
	$(BIN)/python -m tests.faults --write

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/render.py --check
	$(BIN)/python frontend/schema.py | $(BIN)/node frontend/types.mjs --check
	$(NPM) run check

types: install
	$(BIN)/python frontend/schema.py | $(BIN)/node frontend/types.mjs

docs: install
	$(BIN)/python docs/render.py

bench: install
	$(BIN)/python -m benchmarks.compare

bench-docs: install
	$(BIN)/python -m benchmarks.compare --write

bench-parts: install
	$(BIN)/python -m benchmarks.lists
	$(BIN)/python -m benchmarks.coediting --most
	$(BIN)/python -m benchmarks.trace
	$(BIN)/python -m benchmarks.rooms

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(NPM) run format

clean:
	rm -rf .venv frontend/node_modules build dist .mypy_cache .pytest_cache .ruff_cache realtime/static
