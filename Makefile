# make install      .venv with all that the other targets need
# make quickstart   the main job, small, offline; ARGS=--smallest for the form that CI runs
# make test         the tests
# make quality      ruff and mypy; `make style` mends what can be mended
# make bench        speed of making data
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install quickstart test quality style bench

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --constraint constraints.txt --editable ".[dev]"
	touch $@

quickstart: install
	$(BIN)/spatialboost quickstart $(ARGS)

test: install
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

quality: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

style: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/python -m benchmarks.data
	for name in encoder feature_cache training loading scaling profile_step batching loss_head data_loading evaluate; do \
		$(BIN)/python -m benchmarks.$$name --smallest || exit 1; done
