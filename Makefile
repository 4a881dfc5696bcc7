# Two commands do it all on a fresh machine: make run, make test.
PYTHON ?= python3
ACCEL ?= cpu
BIN := .venv/bin
SOURCES := desktop_app packaging tests
PYTEST := QT_QPA_PLATFORM=offscreen $(BIN)/python -m pytest

.PHONY: run test check bench bench-tools clean env dev lock

run: env
	@$(BIN)/python -m desktop_app $(ARGS)

test: dev
	$(PYTEST) $(ARGS)

check: dev
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) $(ARGS)

# make bench JSON=FILE: every raw pair, the commit and the weights' hash go to FILE.
bench: dev
	$(BIN)/python -m tests.bench $(if $(JSON),--json $(JSON)) $(ARGS)

# llama.cpp's own programs, from the engine's own source, for make bench ARGS='--only llama_cpp'.
bench-tools: dev
	$(BIN)/python -m tests.bench.llama_tools $(ARGS)

env:
	@$(PYTHON) packaging/setup_env.py --accel $(ACCEL)

dev:
	@$(PYTHON) packaging/setup_env.py --accel $(ACCEL) --dev

# Maintainers: lock the requirements anew (needs uv).
lock:
	cd packaging/requirements && for name in run dev build; do \
	  uv pip compile --universal --python-version 3.11 --generate-hashes --quiet \
	    --custom-compile-command "make lock" $$name.in -o $$name.txt || exit 1; done; \
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-deps --quiet \
	    --custom-compile-command "make lock" engine.in -o engine.txt

clean:
	rm -rf .venv .build build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
