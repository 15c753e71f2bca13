# Everything runs in .venv, which is created when it is first needed and updated when the requirements change.

PYTHON ?= python3
PORT ?= 5000
JOBS ?= 1

# Not the default shell: with that, make 3.81 (macOS) looks up simple commands in the original PATH.
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.PHONY: help corpus repro ui demo test bench gpu lint format audit

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

repro: .venv/.complete ## Run what a change of params.yaml, data or code affects (RECIPE=best, JOBS=2, ARGS="evaluate@gru", ARGS=--force for everything)
	$(if $(shell grep -Ex '[1-9][0-9]{0,2}' <<< '$(JOBS)'),,$(error JOBS=$(JOBS): give a number of models to train at a time))
	$(if $(and $(ARGS),$(filter-out 1,$(JOBS))),$(error JOBS trains all models before ARGS is looked at: leave out one of them))
	$(if $(RECIPE),@python -m pipeline.recipe $(RECIPE))
	@python -m pipeline.repro --jobs $(JOBS) $(ARGS)
	@echo 'See results/report/index.html, or compare the runs in MLflow: make ui'

corpus: .venv/.complete ## Write a recipe for a text of your own (TEXT=my.txt, ARGS="--lower-case --name mine")
	@if [ -e "$$TEXT" ]; then set -- "$$TEXT"; else set -- $$TEXT; fi; python -m pipeline.new_corpus "$$@" $(ARGS)

ui: .venv/.complete ## Compare runs in MLflow (on this machine only; PORT=5001, STORE=other.db)
	@python -m pipeline.reference || true
	@python -m pipeline.restore || true
	@python -m pipeline.ui --port $(PORT) $(if $(STORE),--store '$(STORE)')

demo: .venv/.complete ## Run the whole pipeline on a small invented corpus, in .demo
	python -m pipeline.demo

test: .venv/.complete ## Run the tests (ARGS="-m long" for those that take minutes, "-m stores" with PostgreSQL and S3, "-m cluster" with Slurm, "-m browser" with Chromium)
	python -m pytest -n auto --dist loadgroup $(ARGS)

bench: .venv/.complete ## Time a training step of each model against the plain loop and the floor (ARGS="--rounds 5")
	python benchmarks/throughput.py $(ARGS)

gpu: .venv/.complete ## Run the tests and the benchmark that need a GPU; results go to gpu-results
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

# Half of the installation would go into compiling modules that are never imported, so pip compiles nothing and Python
# compiles on import. Where this variable is set, as in many containers, Python does not keep what it compiles: there pip
# has to do it.
COMPILED_WHEN_IMPORTED := $(if $(PYTHONDONTWRITEBYTECODE),,--no-compile)

.venv/.complete: requirements.txt requirements-stores.txt requirements-dev.txt constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit( \
	    "error: Python 3.11 or newer is needed, $(PYTHON) is %d.%d: try make PYTHON=python3.11" % v[:2])'
	@echo "Installing the packages into .venv: this takes some minutes the first time"
	@$(PYTHON) -m venv .venv
	@python -m pip install --quiet --disable-pip-version-check $(COMPILED_WHEN_IMPORTED) --use-pep517 -r requirements-dev.txt -c constraints.txt
	@touch $@
