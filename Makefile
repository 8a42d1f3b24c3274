# The commands that people type. `make` alone lists them.
#
# They need Rust (stable, 1.95 or newer), a C compiler (SQLite is built from source) and, for demo and the lines that run
# prints, curl. Nothing is installed and nothing outside this folder and the data folder is touched.

# The server and the programs beside it. `run` and `demo` use the dev profile: it shares its build with `test` and leaves
# out the optimisation across all crates, which is most of the time of a release build; in one session no person can
# feel the difference. Measure and install with `make build`.
DEV = target/debug
BIND ?= 127.0.0.1:8080
DATA ?= .gg-runtime
ARGS ?=

.PHONY: help run demo build test test-real bench check

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  BIND=host:port and DATA=folder change where 'make run' listens and keeps things;"
	@echo "  ARGS='--config file.toml' gives it a configuration."

run: dev ## build, start the server with the demo agent, print a first session
	@$(DEV)/gg-runtime-server --bind $(BIND) --data-dir $(DATA) --hints $(ARGS)

demo: dev ## run that first session by itself, on a free port and in a folder that goes away
	@scripts/demo.sh $(DEV)

build: ## the optimised programs, in target/release
	cargo build --workspace --release

test: ## build everything and run every test that needs nothing but this repository
	cargo build --workspace
	cargo test --workspace

test-real: ## drive real agents against a scripted model (needs node and npm, downloads them)
	scripts/test-real.sh

bench: build ## measure throughput, latency and memory of the optimised programs
	cargo run --release -p gooselake-bench

check: ## what a change must pass: format, lints, tests
	scripts/check.sh

.PHONY: dev
dev:
	@cargo build --workspace --quiet
