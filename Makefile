# The two commands: `make run` and `make test`. A second run finds its stamps and starts in seconds.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# Imports write their bytecode, or every one of the mesh's processes would compile vLLM again.
unexport PYTHONDONTWRITEBYTECODE

VENV   ?= .venv
PY     := $(VENV)/bin/python
BIN    := $(VENV)/bin
STAMPS := $(VENV)/.stamps
say     = @printf '\033[1m==> %s\033[0m\n'

# torch for CPU is not on every index: if the plain install does not find it, this index is asked, for torch only.
EXPERTMESH_TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

JOBS    ?= 2
SEEDS   ?= 2000
USERS   ?= 8
SECONDS_OF_LOAD ?= 60

.PHONY: help run test test-unproven unit bench load lint proto bench-queue bench-gateway bench-cache bench-hostile fuzz twin \
        chaos soak clean
help:
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

run: $(STAMPS)/project ## talk to a real mixture-of-experts model (ARGS='--graph sim' for simulated engines)
	@exec $(BIN)/expertmesh run $(ARGS)

# One of JOBS workers runs the tests whose vLLM ranks fill both cores, in a row; the others take what comes next.
side_by_side = -n $(JOBS) --dist loadscope --no-loadscope-reorder --durations=10 --durations-min=20

# The infrastructure's tests wait for a fake AWS most of the time: they run beside the others, which go first. With
# ARGS, which name tests of ours, they are left out. What failed is said once more at the very end.
test: $(STAMPS)/dev ## the tests that need no GPU, less those in tests/unproven.txt; Terraform's beside them (JOBS=n)
	@logs=$$(mktemp -d); \
	nice -n 10 $(if $(ARGS),echo left out because of ARGS,make infra-test) >$$logs/infra 2>&1 </dev/null & infra=$$!; \
	trap 'kill $$infra 2>/dev/null || true; rm -rf $$logs' EXIT; \
	failed=0; colour=no; if [ -t 1 ]; then colour=yes; fi; \
	$(PY) -m pytest -m "not gpu and not unproven" $(side_by_side) --color=$$colour $(ARGS) | tee $$logs/ours || failed=$$?; \
	printf '\033[1m==> %s\033[0m\n' "Terraform (make infra-test)"; \
	if wait $$infra; then tail -n 1 $$logs/infra; else failed=$$?; cat $$logs/infra; fi; \
	if grep -q 'short test summary' $$logs/ours; then sed -n '/short test summary/,$$p' $$logs/ours; fi; exit $$failed

test-unproven: $(STAMPS)/dev ## tests that were not yet seen to pass (tests/unproven.txt)
	@$(PY) -m pytest -m "unproven and not gpu" $(ARGS)

unit: $(STAMPS)/dev ## the fast tests: no Ray, no network
	@$(PY) -m pytest tests/unit tests/properties $(ARGS)

bench: $(STAMPS)/dev ## the figures of first light, into docs/benchmarks/
	@$(PY) -m load_tests.bench.bench_first_light $(ARGS)

load: $(STAMPS)/dev ## a minute of load against a running mesh, with a verdict
	@$(PY) -m load_tests --users $(USERS) --seconds $(SECONDS_OF_LOAD) $(ARGS)

bench-queue: $(STAMPS)/dev ## the queue's cost of a decision, 100,000 queued
	@$(PY) -m load_tests.bench.bench_queue $(ARGS)

bench-gateway: $(STAMPS)/dev ## the gateway's cost of a token, simulated engines
	@$(PY) -m load_tests.bench.bench_gateway $(ARGS)

bench-cache: $(STAMPS)/dev ## the response cache: hits, misses, single flight
	@$(PY) -m load_tests.bench.bench_cache $(ARGS)

bench-hostile: $(STAMPS)/dev ## good traffic beside a thousand hostile clients; leavers; memory per stream
	@$(PY) -m load_tests.bench.bench_hostile $(ARGS)
	@$(PY) -m load_tests.bench.bench_disconnects
	@$(PY) -m load_tests.bench.bench_stream_memory

fuzz: $(STAMPS)/dev ## odd input on both ports: 10,000 cases from our OpenAPI document, 10,000 of our proto
	@$(PY) -m load_tests.fuzz $(ARGS)

twin: $(STAMPS)/project ## SEEDS=n seeded runs of the digital twin with faults
	@$(BIN)/expertmesh twin run --seeds $(SEEDS) $(ARGS)

chaos: $(STAMPS)/dev ## 20 kills of each kind of process beside 200 streams, every token compared (ARGS='--victims engine')
	@$(PY) -m load_tests.survival chaos $(ARGS)

soak: $(STAMPS)/dev ## 40 minutes of light load: does any process grow?
	@$(PY) -m load_tests.survival soak $(ARGS)

lint: $(STAMPS)/dev ## ruff, pyright, import contracts
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/pyright --pythonpath $(PY)

proto: $(STAMPS)/dev ## services/api/_generated from proto/
	@$(PY) -m grpc_tools.protoc -I proto --python_out=services/api/_generated \
	    --pyi_out=services/api/_generated \
	    $$(cd proto && find . -name '*.proto')

clean: ## forget the environment, the dev key and all caches of tools (the prepared model is kept)
	@rm -rf $(VENV) .expertmesh .pytest_cache .hypothesis .ruff_cache .import_linter_cache *.egg-info build dist

# The environment ------------------------------------------------------------------------------------------------
# Python 3.11 by name, else a python3 that is 3.11.
find_python = for p in python3.11 python3; do \
	  if command -v $$p >/dev/null && $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' \
	    2>/dev/null; then echo $$p; exit; fi; done

# uv unpacks the set in a quarter of a minute where pip needs several; pip stands in where uv finds no package.
install = $(BIN)/uv pip install -q --python $(PY) --no-deps --require-hashes $(1) \
	  || $(PY) -m pip install -q --no-deps --no-compile --require-hashes $(1)

$(STAMPS)/runtime: requirements/installer.txt requirements/cpu.txt requirements/torch-cpu.txt
	@python="$$($(find_python))"; if [ -z "$$python" ]; then \
	  echo "error: Python 3.11 with its venv module is needed (looked for python3.11, then python3);" \
	       "on Debian or Ubuntu: apt install python3.11 python3.11-venv" >&2; exit 1; fi; \
	if [ "$$(uname -s)-$$(uname -m)" != Linux-x86_64 ]; then \
	  echo "error: the locked set is for Linux on x86-64, this is $$(uname -s) on $$(uname -m)" >&2; exit 1; fi; \
	printf '\033[1m==> %s\033[0m\n' "Making $(VENV) with $$python"; \
	$$python -m venv --clear $(VENV)
	@$(PY) -m pip install -q --disable-pip-version-check --no-deps --no-compile --require-hashes \
	  -r requirements/installer.txt
	$(say) "Installing $$(grep -c == requirements/cpu.txt) packages and torch (1.2 GB)"
	@( $(call install,-r requirements/cpu.txt) ) & packages=$$!; \
	torch="$(PY) -m pip install -q --disable-pip-version-check --no-deps --no-compile --require-hashes \
	    -r requirements/torch-cpu.txt"; \
	$$torch 2>/dev/null || { echo "torch is not on the plain index, asking $(EXPERTMESH_TORCH_INDEX)"; \
	    $$torch --index-url $(EXPERTMESH_TORCH_INDEX); }; \
	wait $$packages
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/project: $(STAMPS)/runtime pyproject.toml
	@$(PY) -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation --no-index --no-compile -e .
	@touch $@

$(STAMPS)/dev: $(STAMPS)/project requirements/dev.txt
	$(say) "Installing what tests need"
	@$(call install,-r requirements/dev.txt)
	@touch $@

-include infra/infra.mk
