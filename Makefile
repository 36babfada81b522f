# The verbs of the project; `make help` lists them. Chores in Rust are `cargo xtask`, stages of the tests are `.ci/test`.
.DEFAULT_GOAL := help
SHELL := bash

STORAGE ?= $(HOME)/.cache/zimcache/store
MAX_SIZE ?= 10GB
# Multiplies the volume of every seeded suite; the nightly parts raise it.
NIGHTLY_SCALE ?= 40
# Longest time of one nightly part, and of one fuzz target in seconds.
NIGHTLY_LIMIT ?= 3h
FUZZ_SECONDS ?= 60
# What draws the dashboards, and flags for it: --span SECONDS, --interval SECONDS, --out FOLDER, names of dashboards.
DRAWING := $(or $(ZIMCACHE_CACHE),$(HOME)/.cache/zimcache)/tools/python/drawing
DASHBOARDS ?=
# Length of `make chaos`.
CHAOS_SECONDS ?= 300

.PHONY: help build run test lint unit real clients doc bench cluster cluster-down dashboards fuzz gen tidy numbers \
	images e2e e2e-full chart nightly nightly-store nightly-procs nightly-fuzz nightly-quality chaos soak

help: ## lists these verbs
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':[^#]*## ' '{printf "%-16s %s\n", $$1, $$2}'

build: ## builds target/release/zim
	cargo build --release --locked --bin zim

run: build ## builds and serves on port 8080 (STORAGE=, MAX_SIZE=)
	./target/release/zim cache serve --port 8080 --storage $(STORAGE) --max-size $(MAX_SIZE)

test: ## installs what the tests need and runs all of them
	@.ci/test

lint: ## formatting, house rules, spelling, clippy, dependency rules
	@.ci/test lint clippy build house

unit: ## unit, contract, wire and simulation tests
	@.ci/test build unit

real: ## real build tools, kills, power cuts and full disks against the real binary
	@.ci/test build real

clients: ## runs every real client, also those that take long to install
	@.ci/needs clients
	@.ci/test build clients

doc: ## tests in the documentation, and the documentation itself
	@.ci/test doc

bench: ## compares with other servers; writes docs/benchmarks.md (about 100 minutes)
	@.ci/needs bench
	cargo build --release --locked --bin zim
	ZIM_BIN="$${CARGO_TARGET_DIR:-target}/release/zim" cargo run --release --locked --package zimcache-xtask -- bench

cluster: build ## starts 2 gateways, 3 nodes, S3 and Redis on this machine; target/cluster/processes.json says where
	@.ci/needs cluster
	cargo run --quiet --locked --package zimcache-xtask -- cluster up

cluster-down: ## stops every process of make cluster
	cargo run --quiet --locked --package zimcache-xtask -- cluster down

images: ## container images of the product, Redis and an S3 server in target/images, without a base image
	@.ci/needs cluster
	cargo run --quiet --locked --package zimcache-xtask -- images

e2e: images ## Helm, load, real clients and faults on a real Kubernetes (E2E_KUBECONFIG=FILE: on that one)
	@.ci/needs e2e
	cargo build --quiet --locked --package zimcache-e2e
	@e2e/run usual

e2e-full: images ## the same with Helm 3, power cuts and whatever takes long
	@.ci/needs e2e
	cargo build --quiet --locked --package zimcache-e2e
	@e2e/run full

chart: ## the Helm chart with Helm 3 and 4, as far as no cluster is needed
	@.ci/chart

dashboards: ## draws the dashboards into docs/images/dashboards, of a cluster under load (PROMETHEUS=URL: of that one)
	@.ci/needs dashboards
ifdef PROMETHEUS
	PYTHONPATH=$(DRAWING) python3 tests/observability/panels.py draw --prometheus $(PROMETHEUS) $(DASHBOARDS)
else
	cargo build --quiet --locked --bin zim --bin xtask
	PYTHONPATH=$(DRAWING) python3 tests/observability/run.py draw --programs "$${CARGO_TARGET_DIR:-target}/debug"
endif

fuzz: ## every fuzz target for FUZZ_SECONDS each (needs a nightly toolchain)
	@.ci/needs fuzz
	@.ci/fuzz $(FUZZ_SECONDS)

gen: ## writes the generated files
	cargo xtask gen

tidy: ## the house rules that no compiler checks
	cargo xtask tidy

numbers: ## size and shape of the code beside others
	cargo xtask numbers

nightly: nightly-store nightly-procs nightly-fuzz nightly-quality ## all nightly parts, each at most NIGHTLY_LIMIT

nightly-store: ## the store's model, crash and fault tests at NIGHTLY_SCALE times the volume
	ZIMCACHE_TEST_SCALE=$(NIGHTLY_SCALE) timeout $(NIGHTLY_LIMIT) .ci/test build rows

nightly-procs: ## kills, power cuts and real clients at NIGHTLY_SCALE times the volume
	ZIMCACHE_TEST_SCALE=$(NIGHTLY_SCALE) timeout $(NIGHTLY_LIMIT) .ci/test build real

nightly-fuzz: ## every fuzz target for 20 minutes
	@.ci/needs fuzz
	timeout $(NIGHTLY_LIMIT) .ci/fuzz 1200

nightly-quality: ## checks the numbers of the house and the licences, with advisories
	@.ci/test lint clippy build house doc
	cargo xtask numbers

chaos: ## five minutes of a cluster in which everything breaks (CHAOS_SECONDS=, ZIMCACHE_CHAOS_SEED=)
	@.ci/needs cluster
	ZIMCACHE_CHAOS_SECONDS=$(CHAOS_SECONDS) .ci/test build chaos

soak: ## 2,000 simulated clusters, two hours of a real one in which everything breaks, two hours of kills under load
	ZIMCACHE_TEST_SCALE=8 .ci/test build sim
	ZIMCACHE_TEST_SCALE=100 ZIMCACHE_CHAOS_SECONDS=7200 .ci/test build chaos
	ZIMCACHE_TEST_SCALE=100 timeout 2h .ci/test build real
