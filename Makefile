# Two commands: `make demo` (train, export, compile, prove parity) and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
TORCH ?= cpu
# Test processes; a file, or a class of the zoo, stays in one of them.
WORKERS ?= 2

.PHONY: demo test test-gpu mutants lint clean

demo: $(VENV)/ready
	$(VENV)/bin/python examples/digits_demo.py

test: $(VENV)/ready
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder

# On a machine with an NVIDIA GPU; elsewhere it fails, since there is nothing that it can test.
test-gpu: $(VENV)/ready
	$(VENV)/bin/python -m pytest tests/gpu -m gpu -v --durations=10

# Would the tests notice small mistakes in the compiler? An hour; OPTIONS="--minutes 10 passes/relax" is less.
mutants: $(VENV)/ready
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e ".[test,mutants]"
	$(VENV)/bin/python -m tests.mutants $(OPTIONS)

lint: $(VENV)/ready
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt ruff mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	.ci/check_types

$(VENV)/ready: pyproject.toml constraints.txt .ci/check_torch_build.py
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 10) <= sys.version_info < (3, 14) else "bnn-deploy needs Python 3.10 to 3.13, found " + sys.version.split()[0] + "; choose one with make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	[ "$(TORCH)" = cuda ] || $(VENV)/bin/python .ci/check_torch_build.py constraints.txt "$(MAKECMDGOALS)"
	@echo "Installing into $(VENV) (one minute or two) ..." >&2
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e ".[test]"
	touch $@

clean:
	rm -rf $(VENV) build demo own_network
