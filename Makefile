# What one does with a checkout. Every target can be run on a fresh Debian 12 with Rust (stable); `make help` lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

SOAK_SECONDS ?= 3600
# Arguments for the drivers' tests, as in: make test-drivers ARGS='-k celery'; and for the demo, as in: make demo ARGS='--act 1 --seconds 60 --kill-every 10'
ARGS ?=

.PHONY: help setup build demo test test-drivers lint unit drivers doc-test bench-smoke fuzz-smoke bench soak clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing: redis-server, the demo's drivers (in .venv-zaqar)
	@scripts/setup

build: ## The release binary, target/release/ringfence
	@cargo build --release --locked

demo: setup build ## Half a minute of traffic while a node is killed, and one is added; says what was lost (nothing)
	@scripts/demo $(ARGS)

test: setup lint unit drivers doc-test bench-smoke fuzz-smoke ## Everything that must pass before a change goes in

lint: ## Format and clippy
	@cargo fmt --check
	@cargo clippy --locked --all-targets --quiet -- -D warnings

unit: ## Unit and integration tests, with real servers
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --locked --no-fail-fast; \
	else \
		cargo test --locked --no-fail-fast --lib --bins --tests; \
	fi

drivers: ## Python drivers, unchanged, against one Redis and against the pool: redis-py, RQ, Celery, Zaqar's own tests
	@scripts/setup drivers
	@cargo build --locked --quiet
	@scripts/test-drivers -m 'not slow' $(ARGS)

test-drivers: ## The same with all drivers (also BullMQ, Bull, Bee-Queue, ioredis, node-redis; Sidekiq, if it is installed)
	@scripts/setup node
	@cargo build --locked --quiet
	@scripts/test-drivers $(ARGS)

doc-test: ## The examples in the documentation
	@cargo test --locked --doc --quiet

bench-smoke: ## The benchmarks, a few commands each, so that they do not rot
	@cargo test --locked --quiet --bench data_path
	@cargo test --locked --quiet --bench pool -- --allow-missing
	@cargo test --locked --quiet --bench striped
	@cargo test --locked --quiet --bench scripts

fuzz-smoke: ## The fuzz targets for a few seconds, on the stable toolchain (fuzz/smoke)
	@if [ -x fuzz/smoke ]; then fuzz/smoke; fi

bench: ## Throughput and latency against plain Redis and others
	@scripts/setup bench
	@cargo bench --locked --bench pool
	@cargo bench --locked --bench striped
	@cargo bench --locked --bench scripts

soak: setup build ## All kinds of work and of harm at once, for an hour (SOAK_SECONDS); SEED=n replays a round
	@RINGFENCE_BIN=target/release/ringfence SOAK_SECONDS=$(SOAK_SECONDS) \
		cargo test --locked --test it soak::everything_at_once -- --exact --nocapture

clean: ## Remove what was built and installed here
	@cargo clean --quiet
	@rm -rf .venv-drivers .venv-zaqar .venv-zaqar-redis-5 tests/drivers/node/node_modules
	@find demo tests/drivers -name __pycache__ -prune -exec rm -rf {} +
