# make demo: train, predict, evaluate on synthetic chest CT. make test: the default suite.
# make test-slow: what takes longer; to be run before a release, and on changes to what these tests cover.
# VENV=folder chooses another environment.
VENV ?= .venv
PYTHON ?= python3
DEMO_OUT ?= demo_out
STAMP := $(VENV)/.medseg-installed
RUN := $(VENV)/bin/python -m

.PHONY: setup demo demo-model test test-slow check format samples

setup: $(STAMP)

# Installed again only when what is to be installed has changed.
$(STAMP): pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: setup
	$(VENV)/bin/medseg demo --out $(DEMO_OUT)

# One thread per worker: two workers with two threads each would only wait for each other.
test: setup
	OMP_NUM_THREADS=1 $(RUN) pytest -n 2 -m "not slow and not gpu"

test-slow: setup
	OMP_NUM_THREADS=1 $(RUN) pytest -n 2 -m slow

check: setup
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy medseg

format: setup
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

# Trains the small model of medseg demo --quick again; after a change of the format of bundles.
demo-model: setup
	$(VENV)/bin/python pipelines/demo_model.py

samples: setup
	$(RUN) medseg.phantoms data_samples
