# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test test-slow bench lint format sums lock clean

demo: .venv/.installed
	$(BIN)/pewb run recipes/lora_sst2.toml --rerun
	$(BIN)/pewb leaderboard --task sst2 --task movie-snippets
	$(BIN)/pewb choose recipes/compare_basics_sst2.toml --gpu-memory 8GiB

test: .venv/.installed-test
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile  # one process for each core

# The long form: full matrices, long runs, and three committed records, drawn by the date, run again. Hours on two cores.
test-slow: .venv/.installed-test
	$(BIN)/python -m pytest -m slow

# Speed and accuracy beside the rivals'; what they print is committed in benchmarks/*.md.
bench: .venv/.installed
	$(BIN)/python -m benchmarks.training_speed
	$(BIN)/python -m benchmarks.prefix_cache
	$(BIN)/python -m benchmarks.language_model_speed
	$(BIN)/python -m benchmarks.comparison_speed
	$(BIN)/python -m benchmarks.planner_speed
	$(BIN)/python -m benchmarks.planner_accuracy

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# After adding records: the page, the pictures, what is committed, and what the README shows of it.
sums: .venv/.installed-test
	rm -f results/plots/*.svg
	$(BIN)/pewb leaderboard --plots results/plots > /dev/null
	@sha256sum results/*.json results/*.predictions.csv $(wildcard results/superseded/*) leaderboard.md > results/SHA256SUMS.new
	mv results/SHA256SUMS.new results/SHA256SUMS
	$(BIN)/python -m tests.test_readme

# What is installed now becomes the tested lock.
lock: .venv/.installed-dev
	@echo "# The tested lock: pip install --constraint constraints.txt --editable . (make lock writes it anew)" > constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/^torch==\([0-9.]*\).*/torch==\1/' >> constraints.txt

clean:
	rm -rf .venv

.venv/.installed: pyproject.toml constraints.txt
	@echo "Installing into .venv against constraints.txt (torch is large: this can take some minutes) …"
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	@touch $@

.venv/.installed-test: .venv/.installed
	$(PIP) --editable '.[test]'
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(PIP) --editable '.[dev]'
	@touch $@
