# Everything sets itself up: `make demo` and `make test` work on a machine with Python 3.11 and make.
PYTHON ?= python3.11
VENV := .venv
EXTRAS ?= dev
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-slow test-deepspeed test-zero check ui clean

demo: $(READY)
	$(BIN)/rlhf run deployments/pipelines/newsroom.yaml

# One thread each: the tests' models are tiny, and two threads on a busy machine wait for each other most of the time.
# Two processes, the tests of one file together, since they share what was slow to make, and in the order of the tree:
# by their numbers of tests the few slow ones would come last, and one process would wait for the other.
test: export OMP_NUM_THREADS = 1
test: $(READY)
	$(BIN)/pytest -m "not slow" --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-slow: export OMP_NUM_THREADS = 1
test-slow: $(READY)
	$(BIN)/pytest -m slow

# In an environment of its own: transformers loads DeepSpeed into every process wherever it is installed.
test-deepspeed:
	$(MAKE) VENV=.venv-deepspeed EXTRAS=dev,deepspeed test-zero

test-zero: export OMP_NUM_THREADS = 1
test-zero: $(READY)
	$(BIN)/pytest --numprocesses 2 tests/rlhf_plugins/optimizers/text/test_zero*.py

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

ui: $(READY)
	$(BIN)/rlhf ui

# The constraints are the tested set of versions; torch first, alone, so that no other package pulls in another build.
$(READY): pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $(READY)

clean:
	rm -rf $(VENV) .venv-deepspeed .rlhf
