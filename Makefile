# The habits of this project. `make` alone names them.

# Outside of the clone, so that RocksDB, which takes twenty minutes to compile, is compiled once for all clones.
CACHE := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)
export CARGO_TARGET_DIR ?= $(CACHE)/zrs/target
export ZRS_BIN ?= $(CARGO_TARGET_DIR)/debug
# Python's compiled modules, too: nothing is written into the clone.
export PYTHONPYCACHEPREFIX ?= $(CACHE)/zrs/pycache

# Of the suites of ZEO and ZODB, the tests run a part with one node, another one each day; CI runs a larger one, a part with
# three nodes, and clients of older versions. Their tests wait most of the time (two at a time take a fifth of two cores),
# so more run at a time; three nodes get less company, as a lost election would count as a failure.
UPSTREAM := $(if $(CI),'--sut zrsd --shard day/6 --jobs 8' '--sut zrsd3 --shard day/24 --jobs 3','--sut zrsd --shard day/12 --jobs 6')

.PHONY: help setup check test lint tidy deny fix cluster sim sim-soak mutants release bench doc conformance versions stress

help:
	@echo 'make cluster       starts a three-node cluster on this machine, ready for clients'
	@echo 'make check         format, scripts, clippy, doc and all tests; writes nothing into the clone'
	@echo 'make test          the tests alone; CI=1: more of the suites of ZEO and ZODB'
	@echo 'make conformance   all of the suites of ZEO and ZODB, with one node and with three'
	@echo 'make versions      clients of the versions of ZEO that people run'
	@echo 'make fix           formats, and does what clippy and ruff propose'
	@echo 'make tidy          the house rules alone (tests/tidy/)'
	@echo 'make deny          licences, versions, sources and advisories of all crates, with cargo-deny'
	@echo 'make sim SEED=n    one run of the simulation; without SEED, the usual ones'
	@echo 'make sim-soak HOURS=8  new seeds of the simulation, on all cores'
	@echo 'make mutants       whether the simulation finds bugs that are put in for that'
	@echo 'make stress        large things, and ten minutes of races, with three nodes (release build)'
	@echo 'make fuzz MINUTES=2 bytes by chance for every reader of foreign bytes, so many minutes each'
	@echo 'make release       zrsd and zrsctl to install, optimised'
	@echo 'make bench         side by side with a stock ZEO server (release build)'
	@echo 'make doc           the documentation of the code'
	@echo 'make setup         what the others do first: checks for what the system must have'

setup:
	@etc/setup

check: lint test

lint: setup
	cargo fmt --check
	etc/lint
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items

tidy: setup
	cargo test --locked --quiet --test tidy

deny: setup
	@etc/deny

# (etc/suites says how they run. All run, also after one of them failed; each ends by saying how many passed and failed.)
test: setup
	@$(if $(CI),CI=1) etc/suites $(UPSTREAM)

fix: setup
	cargo fmt
	cargo clippy --locked --all-targets --fix --allow-dirty --allow-staged
	cargo fmt
	etc/lint --fix

cluster: setup
	cargo build --locked --bins
	@exec etc/local-cluster

sim: setup
	$(if $(SEED),SEED=$(SEED)) cargo test --locked --test sim

# (In the cache, with all else that is built.)
release: setup
	cargo build --locked --bins
	@etc/release-build
	@echo "zrsd and zrsctl are in $(CARGO_TARGET_DIR)/release"

# For so many hours (8); ends with what all seeds have seen.
sim-soak: setup
	@etc/sim-soak $(or $(HOURS),8)

mutants: setup
	@etc/mutants $(ARGS)

bench: setup
	cargo build --locked --bins
	@etc/release-build
	ZRS_BIN=$(CARGO_TARGET_DIR)/release bench/bench.py $(ARGS)

doc: setup
	cargo doc --locked --no-deps --document-private-items
	@echo "see $(CARGO_TARGET_DIR)/doc/zrs/index.html"

# (`tests/python/conformance/README.md`; ARGS='--sut zrsd --match testUndo' and so on.)
conformance: setup
	cargo build --locked --bins
	tests/python/conformance/run.py $(ARGS)

# (ARGS='5.2.3' for one version.)
versions: setup
	cargo build --locked --bins
	tests/python/versions.py $(ARGS)

# (ARGS='large --scale 0.1', ARGS='races --minutes 60'.)
stress: setup
	cargo build --locked --bins
	@etc/release-build
	ZRS_BIN=$(CARGO_TARGET_DIR)/release tests/python/stress.py $(ARGS)

# For so many minutes each (2); ARGS='pickle frames' for some of them. (`fuzz/README.md`.)
.PHONY: fuzz
fuzz: setup
	@fuzz/run $(or $(MINUTES),2) $(ARGS)
