# make demo: train, predict, evaluate on synthetic chest CT. make test: the default suite.
# make test-slow: what takes longer; to be run before a release, and on changes to what these tests cover.
# VENV=folder chooses another environment.
VENV ?= .venv
PYTHON ?= python3
DEMO_OUT ?= demo_out
STAMP := $(VENV)/.medseg-installed
RUN := $(VENV)/bin/python -m

# Tools that no test needs, in an environment of their own.
TOOLS := .venv-tools

.PHONY: setup demo demo-model test test-slow check format samples docs gallery sbom constraints-hashed

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
	$(MAKE) docs

# Strict: every warning, broken link or unknown reference fails.
docs: setup
	$(RUN) sphinx -W --keep-going -n -q -b html -d docs/_build/doctrees docs docs/_build/html
	@echo "docs/_build/html/index.html"

# The pictures of docs/gallery, drawn again.
gallery: setup
	for program in docs/gallery/*.py; do $(VENV)/bin/python $$program || exit 1; done

format: setup
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

# Trains the small model of medseg demo --quick again; after a change of the format of bundles.
demo-model: setup
	$(VENV)/bin/python pipelines/demo_model.py

samples: setup
	$(RUN) medseg.phantoms data_samples

$(TOOLS):
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --disable-pip-version-check pip-tools==7.6.2 cyclonedx-bom==7.5.0

# After a change of constraints.txt or of the dependencies. It names no index, so that everybody's own is used.
constraints-hashed: $(TOOLS)
	$(TOOLS)/bin/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url \
	  --no-emit-find-links --no-emit-trusted-host --no-header --no-annotate -c constraints.txt \
	  -o constraints-hashed.new pyproject.toml
	sed -n '/^#/p' constraints-hashed.txt > constraints-hashed.head
	# A pin without the local version takes the CPU build, too.
	sed 's/+cpu//' constraints-hashed.new | cat constraints-hashed.head - > constraints-hashed.txt
	rm constraints-hashed.new constraints-hashed.head

# A software bill of materials of the environment, CycloneDX.
sbom: setup $(TOOLS)
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o sbom.json $(VENV)/bin/python
	@echo sbom.json
