# Everything runs in .venv, which is made at first need and brought up to date when the requirements change.

PYTHON ?= python3
PORT ?= 5000
JOBS ?= 1

# Any shell but the default: with that, make 3.81 (macOS) looks up simple commands in the original PATH.
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.PHONY: help corpus repro ui demo test bench gpu lint format audit

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

repro: .venv/.complete ## Run what params.yaml, the data or the code have made stale (RECIPE=best over params.yaml, JOBS=2, ARGS="evaluate@gru", ARGS=--force for all)
	$(if $(shell grep -Ex '[1-9][0-9]{0,2}' <<< '$(JOBS)'),,$(error JOBS=$(JOBS): give a number of models to train at a time))
	$(if $(and $(ARGS),$(filter-out 1,$(JOBS))),$(error JOBS trains all models before ARGS is looked at: leave out one of them))
	$(if $(RECIPE),@python -m pipeline.recipe $(RECIPE))
	@python -m pipeline.repro --jobs $(JOBS) $(ARGS)
	@echo 'See results/report/index.html, or compare the runs in MLflow: make ui'

corpus: .venv/.complete ## Make a recipe of a text of your own (TEXT=my.txt, ARGS="--lower-case --name mine")
	@if [ -e "$$TEXT" ]; then set -- "$$TEXT"; else set -- $$TEXT; fi; python -m pipeline.new_corpus "$$@" $(ARGS)

ui: .venv/.complete ## Compare runs in MLflow, on this machine only (PORT=5001, STORE=other.db)
	@python -m pipeline.reference || true
	@python -m pipeline.restore || true
	@python -m pipeline.ui --port $(PORT) $(if $(STORE),--store '$(STORE)')

demo: .venv/.complete ## Run the whole pipeline on a small invented corpus, in .demo
	python -m pipeline.demo

test: .venv/.complete ## Run the tests (ARGS="-m long" for those that take minutes, "-m stores" for PostgreSQL and S3, "-m cluster" for Slurm, "-m browser")
	python -m pytest -n auto --dist loadgroup $(ARGS)

bench: .venv/.complete ## Time a training step of each model against the plain loop and the floor (ARGS="--rounds 5")
	python benchmarks/throughput.py $(ARGS)

gpu: .venv/.complete ## On a machine with a GPU: its tests, then the benchmark; all of it is kept in gpu-results
	python benchmarks/gpu.py

lint: .venv/.complete ## Check style, formatting and types
	ruff check
	ruff format --check
	mypy

format: .venv/.complete ## Fix style and formatting where a tool can
	ruff check --fix
	ruff format

audit: .venv/.complete ## Look for known vulnerabilities in the pinned packages (asks PyPI)
	pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

# Compiling what is never imported is half of the installation. Where this variable is set, as in many containers,
# Python keeps nothing that it compiles, so pip has to do it.
COMPILED_WHEN_IMPORTED := $(if $(PYTHONDONTWRITEBYTECODE),,--no-compile)

.venv/.complete: requirements.txt requirements-stores.txt requirements-dev.txt constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit( \
	    "error: Python 3.11 or newer is needed, $(PYTHON) is %d.%d: try make PYTHON=python3.11" % v[:2])'
	@echo "Installing the packages into .venv: this takes some minutes the first time"
	@$(PYTHON) -m venv .venv
	@python -m pip install --quiet --disable-pip-version-check $(COMPILED_WHEN_IMPORTED) --use-pep517 -r requirements-dev.txt -c constraints.txt
	@touch $@
