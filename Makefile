# Two commands: `make run` serves the sample models, `make test` checks everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test fast bench load train format clean

run: $(VENV)/.server
	@$(BIN)/nstarx up configs/quickstart.yaml

test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -m "not ray"
	$(BIN)/pytest -m ray

fast: $(VENV)/.dev
	$(BIN)/pytest -m "not ray"

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.server
	$(BIN)/python -m benchmarks.compare

load: $(VENV)/.bench
	$(BIN)/locust -f benchmarks/locustfile.py --headless --users 20 --spawn-rate 10 --run-time 30s --host http://127.0.0.1:8080

train: $(VENV)/.train
	$(BIN)/python models/train.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=python3.x") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.server: $(BIN)/python pyproject.toml
	@echo "setting up $(VENV) (once; a minute or two)"
	$(BIN)/pip install --quiet --editable ".[server]"
	@touch $@

$(VENV)/.dev: $(VENV)/.server Makefile
	$(BIN)/pip install --quiet --editable ".[server,dev,train,bench]"
	@touch $@

$(VENV)/.train: $(VENV)/.server
	$(BIN)/pip install --quiet --editable ".[server,train]"
	@touch $@

$(VENV)/.bench: $(VENV)/.server
	$(BIN)/pip install --quiet --editable ".[server,bench]"
	@touch $@
