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
# For an installed server.
VERSION ?= latest
CONFIG ?= $(HOME)/.config/gg-runtime/runtime-server.toml
SERVICE ?= gg-runtime.service
SCOPE ?= user
BASE_URL ?= http://127.0.0.1:8080
TOKEN ?=
RUNTIME_BIN ?=
SECONDS ?= 20
HAS_CONFIG = $(if $(wildcard $(CONFIG)),--config $(CONFIG))
PREFLIGHT = scripts/preflight-runtime.sh $(HAS_CONFIG) $(if $(RUNTIME_BIN),--runtime-bin $(RUNTIME_BIN))

.PHONY: help run demo build test test-ops test-package test-clients test-openapi test-guide test-real
.PHONY: crash power fuzz loom tsan conformance soak bench check
.PHONY: api-docs-refresh api-docs-status api-docs-check api-docs-examples
.PHONY: package footprint install install-source upgrade preflight preflight-http check-config
.PHONY: vps-deploy vps-deploy-refresh service-status service-enable service-restart service-logs

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  BIND=host:port and DATA=folder change where 'make run' listens and keeps things;"
	@echo "  ARGS='--config file.toml' gives it a configuration. VERSION, CONFIG, SERVICE, SCOPE, BASE_URL, TOKEN and"
	@echo "  RUNTIME_BIN are for an installed server: docs/INSTALL.md and docs/DEPLOYMENT.md."

run: dev ## build, start the server with the demo agent, print a first session
	@$(DEV)/gg-runtime-server --bind $(BIND) --data-dir $(DATA) --hints $(ARGS)

demo: dev ## run that first session by itself, on a free port and in a folder that goes away
	@scripts/demo.sh $(DEV)

build: ## the optimised programs, in target/release
	cargo build --workspace --release

test: ## build everything and run every test that needs nothing but this repository
	cargo build --workspace
	cargo test --workspace

test-ops: dev ## install, upgrade, roll back, back up and restore with the scripts, in a home that goes away
	tests/ops/run.sh $(DEV)

test-package: ## make the bundle twice and compare it; run it in a folder without a libc (two optimised builds)
	tests/ops/package.sh

test-clients: dev ## the clients of docs/clients against the server, over a kill; one of them in a browser, with a foreign page
	tests/clients/run.sh $(DEV)

test-openapi: dev ## try the whole API document against a server, with schemathesis (needs python3, installs it)
	tests/openapi/run.sh $(DEV)

test-guide: dev ## the pasted sessions of docs/API.md and README.md, typed again (needs python3, curl and jq; ARGS=--update takes what they print)
	python3 tests/guide/replay.py $(ARGS) $(DEV) docs/API.md README.md

test-real: ## drive real agents against a scripted model (needs node and npm, downloads them)
	scripts/test-real.sh

crash: dev ## kill the server at random moments under mixed load (ROUNDS=500, SEED=… repeats a run)
	@$(DEV)/crash

fuzz: ## look for bytes that break a rule, SECONDS=20 for each target (needs a C++ compiler)
	@scripts/fuzz.sh $(SECONDS)

loom: ## try every order of the threads that hand things over (downloads loom)
	@cd tests/loom && cargo run --quiet --release

tsan: ## look for races with ThreadSanitizer (needs a nightly toolchain with rust-src; ARGS='kill stream' names tests of tests/it)
	scripts/tsan.sh $(ARGS)

power: dev ## take the power away at many moments (CUTS=1000, GG_TEST_SEED=… repeats a run)
	CUTS=$(or $(CUTS),1000) cargo test -p gooselake --test it power -- --nocapture

conformance: ## prove of the server at BASE_URL (with TOKEN) that its streams keep their promises
	@GG_RUNTIME_TOKEN=$(TOKEN) cargo run --quiet -p gooselake-conformance -- $(BASE_URL) $(ARGS)

soak: build ## mixed load for MINUTES=60; what grows is a failure. The picture goes to OUT=docs/plots
	@target/release/soak

bench: build ## measure throughput, latency and memory of the optimised programs
	cargo run --release -p gooselake-bench

check: ## what a change must pass: format, lints, tests
	scripts/check.sh

api-docs-refresh: ## write docs/openapi and docs/CONFIGURATION.md anew from the routes and the types
	UPDATE=1 cargo test --quiet --lib -- api::openapi config::page

api-docs-status: ## whether both are what the sources tell, and what they differ in from the last commit
	@cargo test --quiet --lib -- api::openapi config::page >/dev/null && echo "the documents follow the sources" \
	    || echo "the documents do not follow the sources: make api-docs-refresh"
	@git diff --stat HEAD -- docs/openapi docs/CONFIGURATION.md

api-docs-check: ## fail when a route, a type or a key has changed and docs/openapi or docs/CONFIGURATION.md has not
	@UPDATE= cargo test --quiet --lib -- api::openapi config::page

api-docs-examples: ## take the examples in the document anew from what the tests see; then api-docs-refresh
	cargo test --quiet --test it
	UPDATE=1 cargo test --quiet --test seen examples

package: ## the bundle of a release, in dist/
	scripts/package-release.sh

footprint: ## size of the bundle, memory of the idle server, time to start: the table of README.md
	scripts/footprint.sh

install: ## install a release (VERSION) for this user
	scripts/install-runtime.sh $(VERSION)

install-source: ## build the bundle from here and install it for this user
	scripts/install-from-source.sh

upgrade: ## make another release (VERSION) the current one; goes back by itself when it does not serve
	GG_RUNTIME_SYSTEMD_SERVICE=$${GG_RUNTIME_SYSTEMD_SERVICE-$(SERVICE)} GG_RUNTIME_SYSTEMD_SCOPE=$(SCOPE) \
	    scripts/upgrade-runtime.sh $(HAS_CONFIG) $(VERSION)

preflight: ## whether the installed server can work here
	$(PREFLIGHT) --skip-http

preflight-http: ## the same, and whether the one at BASE_URL does
	GG_RUNTIME_TOKEN=$(TOKEN) $(PREFLIGHT) --base-url $(BASE_URL)

check-config: ## what is wrong with CONFIG
	$(or $(RUNTIME_BIN),gg-runtime-server) --check-config $(HAS_CONFIG)

vps-deploy: ## put a server (VERSION) on this machine under systemd (SERVICE, SCOPE)
	scripts/deploy-vps.sh --version $(VERSION) --config $(CONFIG) --service $(SERVICE) --scope $(SCOPE)

vps-deploy-refresh: ## the same release again, with its unit file
	scripts/deploy-vps.sh --skip-upgrade --refresh-unit-files --config $(CONFIG) --service $(SERVICE) --scope $(SCOPE)

service-status: ## what systemd says about SERVICE
	systemctl --$(SCOPE) status $(SERVICE)

service-enable: ## start SERVICE now and at each boot
	systemctl --$(SCOPE) enable --now $(SERVICE)

service-restart: ## restart SERVICE; its agents go on
	systemctl --$(SCOPE) restart $(SERVICE)

service-logs: ## follow the log of SERVICE
	journalctl $(if $(filter user,$(SCOPE)),--user) -u $(SERVICE) -f

.PHONY: dev
dev:
	@cargo build --workspace --quiet
