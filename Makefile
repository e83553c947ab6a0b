# Everything below needs one of these Pythons and nothing else; for others some packages have no wheels.
IN_RANGE := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=
# Without bytecode every start compiles torch and MLflow anew: a training starts in 15 s instead of 6.
unexport PYTHONDONTWRITEBYTECODE

# Where the Python that it was made with is gone, it is made anew.
ifneq ($(wildcard $(READY)),)
$(shell $(BIN)/python -c '' 2>/dev/null || rm -f $(READY))
endif

.DEFAULT_GOAL := help
.PHONY: help setup train test test-slow faults dashboard bench lint audit-dependencies format lock mlflow server clean

help: ## list every target
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | awk -F'|' '{ printf "%-28s%s\n", $$1, $$2 }'

setup: $(READY) ## make the virtual environment from the pinned constraints
$(READY): constraints.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 to 3.14 is needed; set PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c '$(IN_RANGE)' || \
	  { echo "Python 3.11 to 3.14 is needed, $(PYTHON) is another; set PYTHON=/path/to/python3"; exit 1; }
	@echo "Setting up $(VENV) (once; downloads about 3 GB)"
	@# Without pip its making was cut short; without a Python that starts, or can be used, that of the system was replaced.
	@{ $(BIN)/python -c '$(IN_RANGE)' && $(BIN)/python -m pip --version; } >/dev/null 2>&1 || \
	  $(PYTHON) -m venv --clear $(VENV)
	@awk '/^[a-z]/ { is_uv = /^uv==/ } is_uv' constraints.txt > $(VENV)/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt
	$(BIN)/uv pip install --python $(BIN)/python --compile-bytecode --require-hashes -r constraints.txt
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --no-build-isolation --quiet --editable .
	@touch $@

train: $(READY) ## train the CNN and ResNet18, register both (ARGS="--epochs 1": as short as it gets)
	$(BIN)/python -m trainer quickstart $(ARGS)

test: $(READY) ## run the tests (ARGS is passed to pytest)
	$(BIN)/python -m pytest $(ARGS)

bench: $(READY) ## measure speed against the report's pipeline and the limit (takes minutes; run nothing beside it)
	$(BIN)/python -m tests.benchmarks $(ARGS)

test-slow: $(READY) ## run the tests that start several whole programs: stopping, resuming, serving, torchrun, sweeps
	$(BIN)/python -m pytest -m slow $(ARGS)

faults: $(READY) ## kill, fill, cut off and overload for real, and see that nothing is lost (ARGS="--only kill")
	$(BIN)/python -m tests.faults $(ARGS)

lint: $(READY) ## format check, lint, types, and who may import whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit-dependencies: $(READY) ## ask PyPI's list of known vulnerabilities about every pinned package
	$(BIN)/uv tool run pip-audit --requirement constraints.txt --disable-pip --require-hashes --strict

format: $(READY) ## format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(READY) ## pin the newest versions that fit pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	  --upgrade --no-emit-index-url --no-header --quiet --output-file constraints.txt

dashboard: $(READY) ## open the dashboard on the same store, at http://127.0.0.1:8501 (PORT=…)
	$(BIN)/python -m dashboard --port $(or $(PORT),8501)

mlflow: $(READY) ## open the MLflow UI on the same store, at http://127.0.0.1:5000 (PORT=…)
	$(BIN)/python -m trainer ui --port $(or $(PORT),5000)

server: $(READY) ## start a tracking server for a team, on PostgreSQL (settings: docs/server/server.env.example)
	$(BIN)/python -m trainer server $(ARGS)

clean: ## remove the virtual environment and caches; runs and data stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
