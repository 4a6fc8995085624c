PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: help install run dev test test-fast coverage faults check types docs docs-site docs-serve bench bench-docs bench-parts format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: .venv/installed ## install everything into .venv, and build the page

PAGE := $(wildcard frontend/*.* frontend/.npmrc frontend/src frontend/src/* frontend/src/reference/* frontend/src/views/* frontend/public/*)
NPM := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/npm --prefix frontend --silent

.venv/installed: pyproject.toml constraints.txt hatch_build.py $(filter-out frontend/src/types.ts,$(PAGE))
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

run: install ## serve, with embedded databases in ./data
	$(BIN)/realtime serve

dev: install ## serve with reload on port 8000, and the page with live edits on http://127.0.0.1:5173/
	@trap 'kill 0' EXIT; \
	$(BIN)/watchfiles --filter python "$(BIN)/realtime serve" realtime & \
	$(NPM) run dev & \
	wait

test: install ## run the tests; ARGS='-k outbox' selects some
	$(BIN)/pytest -n 4 --dist worksteal $(ARGS)

test-fast: install ## run the unit tests, in about a minute
	$(BIN)/pytest -n 4 --dist worksteal -m "not slow" tests/unit $(ARGS)

coverage: install ## run the tests with branch coverage, without browsers and faults
	$(BIN)/pytest -n 4 --dist worksteal --cov --cov-report term:skip-covered tests/unit tests/integration $(ARGS)

faults: install ## break the server many times, for hours, and write the results into the documentation
	$(BIN)/python -m tests.faults --write

check: install docs-site ## check formatting, lint, types, layers, generated files, documentation, and the page
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/check_prose.py
	$(BIN)/python docs/render.py --check
	$(BIN)/python frontend/schema.py | $(BIN)/node frontend/types.mjs --check
	$(NPM) run check

types: install ## generate the web app's types from the server's OpenAPI and AsyncAPI schemas
	$(BIN)/python frontend/schema.py | $(BIN)/node frontend/types.mjs

docs: install ## render the generated pages of the documentation
	$(BIN)/python docs/render.py

docs-site: install ## build the documentation into build/site
	$(BIN)/python docs/vendor.py
	$(BIN)/zensical build --strict

docs-serve: install ## preview the documentation on http://127.0.0.1:8100/
	$(BIN)/python docs/vendor.py
	$(BIN)/zensical serve --dev-addr 127.0.0.1:8100

bench: install ## compare the server with others
	$(BIN)/python -m benchmarks.compare

bench-docs: install ## compare, and write the figures into the documentation
	$(BIN)/python -m benchmarks.compare --write

bench-parts: install ## measure lists, co-editing, a long edited text, the memory of rooms, and growth
	$(BIN)/python -m benchmarks.lists
	$(BIN)/python -m benchmarks.coediting --most
	$(BIN)/python -m benchmarks.trace
	$(BIN)/python -m benchmarks.rooms
	$(BIN)/python -m benchmarks.growth

format: install ## correct the formatting
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(NPM) run format

clean: ## delete everything that is installed or built
	rm -rf .cache .venv frontend/node_modules build dist docs/assets/mermaid.min.js .mypy_cache .pytest_cache .ruff_cache realtime/static
