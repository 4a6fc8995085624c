PYTHON ?= python3
BIN := .venv/bin

.PHONY: install run test check docs bench format clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt hatch_build.py $(wildcard frontend/*)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

run: install
	$(BIN)/realtime serve

test: install
	$(BIN)/pytest -n 3 --dist worksteal

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python docs/render.py --check

docs: install
	$(BIN)/python docs/render.py

bench: install
	$(BIN)/python benchmarks/lists.py

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache realtime/static
