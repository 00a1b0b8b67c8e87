PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROFILE ?= synthetic
# true: a table whose data are not there does not fail the target.
ALLOW_MISSING ?= false
OVERRIDES ?=
# How many tables are filled at a time: with more than one, the times in them say little.
JOBS ?= 1
LAUNCHER := $(if $(filter-out 1,$(JOBS)),hydra/launcher=joblib hydra.launcher.n_jobs=$(JOBS))
# The longest begin, so that none is left alone at the end; p2_models and p2_paradigms share jobs, so they stand apart.
EARLY := p3_width p2_models p3_distillation
TABLES := $(EARLY) $(filter-out $(EARLY),$(basename $(notdir $(sort $(wildcard conf/table/*.yaml)))))
EMPTY :=
COMMA := ,

.DEFAULT_GOAL := help
.PHONY: help setup run test lint format compare tables tables-check bench weights ui clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## */: /' | awk -F': ' '{printf "  make %-18s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

setup: $(VENV)/.installed  ## the virtual environment with everything in it (about 3.5 GB)

run: setup  ## the main job on the embedded synthetic data: teacher, student, distilled student, int8
	$(BIN)/python train.py

test: setup  ## the tests
	$(BIN)/python -m pytest

lint: setup  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .
	$(BIN)/lint-imports

format: setup  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

compare: setup  ## the newest job's table and plot, in reports/
	mkdir -p reports
	$(BIN)/python compare.py --format markdown --output reports/newest.md --plot reports/newest.png
	$(BIN)/python compare.py --format html --output reports/newest.html

tables: setup  ## the papers' tables in reports/ (PROFILE=synthetic, ci, full; OVERRIDES="paths.ptbxl=..."; JOBS=2)
	status=0; $(BIN)/python train.py -m table=$(subst $(EMPTY) $(EMPTY),$(COMMA),$(TABLES)) profile=$(PROFILE) allow_missing=$(ALLOW_MISSING) $(LAUNCHER) $(OVERRIDES) || status=1; \
	$(BIN)/python tables.py render profile=$(PROFILE) allow_missing=$(ALLOW_MISSING) $(OVERRIDES) || status=1; exit $$status

tables-check: setup  ## the tables of profile ci, held against expected/; fails where a figure has drifted
	$(MAKE) tables PROFILE=ci ALLOW_MISSING=true JOBS=2
	$(BIN)/python tables.py check profile=ci $(OVERRIDES)

bench: setup  ## speed, as ratios within one run
	for name in $(basename $(notdir $(wildcard bench/bench_*.py))); do $(BIN)/python -m bench.$$name || exit 1; done

weights: setup  ## published weights: the face detector's and two TS-CAN's (12 MB, in weights/)
	$(BIN)/python weights.py

ui: setup  ## the MLflow UI over the local store, on http://127.0.0.1:5000
	MLFLOW_DISABLE_TELEMETRY=true $(BIN)/mlflow ui --backend-store-uri $${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db} --host 127.0.0.1 --port 5000

clean:  ## remove caches and outputs, keep the environment and the tracked runs
	rm -rf .cache outputs build reports
