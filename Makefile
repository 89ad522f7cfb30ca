# make demo    from a fresh clone to a report with success rates (13 to 25 minutes on two cores)
# make test    set everything up and run the tests
#
# Every target makes .venv first. Variables: PYTHON=python3.12 picks the interpreter, PIP_FLAGS="…"
# goes to pip, PYTEST_FLAGS="…" to pytest in place of its own.

BIN := .venv/bin
# Files in their own order: by count of tests, those with few long ones would come last.
PYTEST_FLAGS ?= -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
INSTALLED := .venv/.installed
DOCS_INSTALLED := .venv/.installed-docs
FOLDERS := core datasets vjepa planning envs benchmarks cli

# Threads that spin while they wait take the core from the process they wait for.
export OMP_WAIT_POLICY := PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo demo-long test test-mujoco lint docs bench
.DELETE_ON_ERROR:

help:
	@echo "targets: install demo demo-long test test-mujoco lint docs bench"

install: $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/tubelet demo

demo-long: $(INSTALLED)
	$(BIN)/tubelet demo --preset long

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_FLAGS)

# The environments' tests with another MuJoCo, by default the oldest that is supported.
test-mujoco: $(INSTALLED)
	@sh scripts/test_mujoco.sh $(BIN)/python $(or $(MUJOCO),3.3.0)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: $(DOCS_INSTALLED)
	$(BIN)/mkdocs build --strict

bench: $(INSTALLED)
	$(BIN)/python -m tubelet.benchmarks.speed all

# The stamp makes later runs quick: only a changed pyproject.toml or constraints.txt installs again.
$(INSTALLED): pyproject.toml constraints.txt
	@sh scripts/make_venv.sh .venv
	@echo "installing tubelet and its dependencies into .venv (a minute or two, 1.5 GB)"
	@$(BIN)/python -m pip install --quiet --no-compile $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@sh scripts/ensure_gl.sh $(BIN)/python
	@touch $@

$(DOCS_INSTALLED): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e '.[docs]'
	@touch $@
