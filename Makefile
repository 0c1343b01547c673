# AdaFocus: `make` prints this file's targets. Everything runs in .venv, which the first target that needs it makes.

PYTHON    ?= python3
VENV      ?= .venv
BIN       := $(VENV)/bin
DATASET   ?= synthetic
DATA_ROOT ?= data/$(DATASET)
SHARDS    ?= shards/$(DATASET)
RUNS      ?= runs
RECIPE    ?= demo
RECIPES   ?= demo,demo-v2
# Index of PyTorch's builds; empty: PyPI's, which bring CUDA. `make demo TORCH=https://download.pytorch.org/whl/cpu`
TORCH     ?=
ARGS      ?=

export ADAFOCUS_RUNS := $(RUNS)

.DEFAULT_GOAL := help
.PHONY: help env demo preprocess train tune benchmark frontier report mlflow docs bench test test-plain test-ray test-slow test-browser gpu-prepare gpu-check lint format clean

help: ## Print the targets
	@echo "Usage: make TARGET [DATASET=...] [DATA_ROOT=...] [SHARDS=...] [RUNS=...] [RECIPE=...] [RECIPES=...] [TORCH=...] [ARGS='...']"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(VENV)/.ready ## Make the environment: .venv with the pinned packages
$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	@echo "Making $(VENV) (once; a few minutes)"
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH),$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  --index-url $(TORCH) --extra-index-url https://pypi.org/simple torch torchvision)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs]'
	@touch $@

# Trials that failed (status 1) are listed by the report.
demo: env ## Make a data set, train with two trials, print the result table (about 10 minutes on 2 cores)
	$(BIN)/adafocus preprocess --dataset synthetic --data-root data/synthetic --out shards/synthetic --height 112
	$(BIN)/adafocus tune --recipe demo --shards shards/synthetic --runs $(RUNS) --name demo --grid ppo.gamma=0.5,0.7 $(ARGS) || status=$$?; \
	[ $${status:-0} -le 1 ] || exit $$status; \
	$(BIN)/adafocus benchmark --sweep demo --shards shards/synthetic --runs $(RUNS) > /dev/null && \
	$(BIN)/adafocus report --name demo --runs $(RUNS) && exit $${status:-0}

preprocess: env ## Cut DATASET's videos below DATA_ROOT into shards at SHARDS
	$(BIN)/adafocus preprocess --dataset $(DATASET) --data-root $(DATA_ROOT) --out $(SHARDS) $(ARGS)

train: env ## Train RECIPE on SHARDS through its stages
	$(BIN)/adafocus train --recipe $(RECIPE) --shards $(SHARDS) --runs $(RUNS) $(ARGS)

tune: env ## Sweep over RECIPE on SHARDS: ARGS='--grid ppo.gamma=0.5,0.7'
	$(BIN)/adafocus tune --recipe $(RECIPE) --shards $(SHARDS) --runs $(RUNS) $(ARGS)

benchmark: env ## Measure a finished run: ARGS='--run NAME'
	$(BIN)/adafocus benchmark --shards $(SHARDS) --runs $(RUNS) $(ARGS)

frontier: env ## Compare methods on SHARDS: RECIPES=demo,demo-v2
	$(BIN)/adafocus frontier --recipes $(RECIPES) --shards $(SHARDS) --runs $(RUNS) $(ARGS)

report: env ## Print and write the result table from MLflow
	$(BIN)/adafocus report --runs $(RUNS) $(ARGS)

mlflow: env ## Open the MLflow dashboard on 127.0.0.1:5000
	$(BIN)/adafocus dashboard --runs $(RUNS) $(ARGS)

docs: env ## Build README and docs/ as a site: site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: env ## Measure speed as ratios against plain alternatives
	status=0; for file in tests/benchmarks/bench_*.py; do $(BIN)/python $$file || status=1; done; exit $$status

lint: env ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Tests wait for processes that they start, so three run on two cores, beside the linters: two of those without Ray, one of
# those with it, one by one, for each Ray has all processors.
test: env ## Run linters and tests
	@$(MAKE) --no-print-directory --keep-going --jobs 3 lint test-plain test-ray

test-plain: env
	@$(BIN)/pytest -m 'not slow and not ray' --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS) || test $$? = 5  # ARGS leave none

test-ray: env
	@out=$$(mktemp); trap 'cat $$out; rm $$out' EXIT; $(BIN)/pytest -m 'not slow and ray' $(ARGS) >$$out 2>&1; status=$$?; test $$status = 0 -o $$status = 5

test-slow: env ## Run the tests that take minutes
	$(BIN)/pytest -m slow $(ARGS)

test-browser: env ## Run the tests of pages in Chromium; installs Gradio and Playwright
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[app,browser]'
	$(BIN)/pytest -m slow $$(grep -rlE 'browser_page|gradio' --include='test_*.py' tests) $(ARGS)

WHEELS := pydantic pydantic-core annotated-types typing-inspection typing-extensions simplejpeg filelock
gpu-prepare: env ## Make what make gpu-check takes along: wheels for Python 3.12, packed frames
	rm -rf gpu-wheels
	$(BIN)/pip download --quiet --disable-pip-version-check --constraint constraints.txt --no-deps --dest gpu-wheels \
	  --only-binary=:all: --python-version 3.12 --implementation cp --platform manylinux_2_28_x86_64 \
	  --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 $(WHEELS)
	$(BIN)/python tests/gpu/make_shards.py gpu-shards

gpu-check: ## Check and measure everything on a GPU, with PYTHON and little else (8 minutes); needs make gpu-prepare
	PYTHON=$(PYTHON) tests/gpu/check.sh $(ARGS)

format: env ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove the environment, caches and site; data, shards and runs stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis site
