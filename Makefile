# Every target installs first when it needs to. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help install demo bench paper-size test test-slow test-all lint format typecheck wheel clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HALF = $(shell $(PYTHON) -c 'import os; print(max(1, (os.cpu_count() or 2) // 2))')
DEMO := $(BIN)/python -m photoz_lit experiment=demo

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 14

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("photoz_lit needs Python 3.11 or newer: type make PYTHON=python3.12, say" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --no-compile --quiet --upgrade pip
	$(BIN)/python -m pip install --no-compile --quiet --constraint constraints.txt --editable '.[dev]'
	-@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib > /dev/null 2>&1 || true  # on all cores, where pip takes one
	@touch $@

install: $(VENV)/installed  ## Make .venv and install the package, its checks and its tests

# Side by side on half of the cores each they are faster than one after the other; corrections share the cores themselves.
demo: $(VENV)/installed  ## The whole method on the simulated survey: two to three minutes on two cores
	$(DEMO) stage=prepare
	$(DEMO) stage=representation head=single trainer.threads=$(HALF) trainer.progress=false & baseline=$$!; \
	$(DEMO) stage=representation encoder=mlp trainer.threads=$(HALF) trainer.progress=false & mlp=$$!; \
	$(DEMO) stage=representation head=multi trainer.threads=$(HALF); step1=$$?; \
	wait $$baseline && wait $$mlp && exit $$step1
	$(DEMO) --multirun stage=classifier correction=none,balanced,hard,unshifted,skip_balanced,full
	$(DEMO) stage=report

bench: $(VENV)/installed  ## How fast it is here, against what is plain: minutes. with="--write" keeps the table
	$(BIN)/python tests/bench/speed.py $(with)

paper-size: $(VENV)/installed  ## The paper's experiment at its size, for a GPU; scale=0.01 for a CPU, minutes=8 a piece
	$(BIN)/python tests/bench/paper_size.py --scale $(or $(scale),$(SCALE),1) $(if $(minutes),--minutes $(minutes)) $(with)

test: $(VENV)/installed  ## Fast tests
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: $(VENV)/installed  ## Slow tests
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

test-all: test test-slow  ## All tests

lint: $(VENV)/installed  ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed  ## Rewrite in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/installed  ## Build the wheel into dist/
	$(BIN)/python -m build --wheel

clean:  ## Remove what make and the tools made (never data/ and runs/)
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
