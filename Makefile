# Two commands do everything: `make up` starts Parley, `make test` checks it all. `make help` lists the rest.
# PORT= DATA= AGENTS= READY= GATEWAYS= DISPATCHERS= HISTORIES= RESTART= are handed on (docs/settings.md).

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := libs/events services/gateway services/dispatcher services/history services/standalone
STAMP := $(VENV)/installed
HANDLES := PORT DATA AGENTS READY GATEWAYS DISPATCHERS HISTORIES RESTART
export $(HANDLES)
DOCKER ?= docker
, := ,
SERVICES := gateway dispatcher history standalone
export BASE_IMAGE PARLEY_TAG

.DEFAULT_GOAL := help
.PHONY: help up cluster reset compose-up compose-down images test check lint unit contract e2e faults guards fuzz bench soak fmt sync jars lock

help: ## list what there is
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

up: $(STAMP) ## start Parley in one process, needing nothing (PORT= DATA= AGENTS= READY=)
	@exec $(BIN)/parley up

cluster: jars ## start Parley as in production, on this machine (GATEWAYS= DISPATCHERS= HISTORIES= RESTART=1)
	@exec $(BIN)/parley cluster

reset: $(STAMP) ## delete DATA, after asking (YES=1: without)
	@exec $(BIN)/parley reset $(if $(YES),--yes)

compose-up: images ## start Parley in containers, with a new .env if there is none
	@deploy/new-env.sh
	@$(DOCKER) compose up -d --wait --no-build
	@echo "Parley is at http://$$($(DOCKER) compose port gateway 8080); the key is PARLEY_API_KEY in .env (docs/deploy.md)"

compose-down: ## stop the containers; the data stays
	@$(DOCKER) compose down

images: ## build the container images (BASE_IMAGE= PARLEY_TAG= PIP_CONF= DOCKER=)
	@command -v $(firstword $(DOCKER)) >/dev/null || { echo "parley: $(DOCKER) is not on the path: images need Docker, or what answers to it (DOCKER=)" >&2; exit 1; }
	@for service in $(SERVICES); do \
		DOCKER_BUILDKIT=1 $(DOCKER) build -q -f deploy/docker/Dockerfile --build-arg SERVICE=$$service \
			$(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) $(if $(PIP_CONF),--secret id=pip$(,)src=$(PIP_CONF)) \
			--build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) \
			-t parley-$$service:$(or $(PARLEY_TAG),latest) . || exit 1; \
	done

test: jars lint ## run every check and every test, side by side
	@$(BIN)/python -m tests.lanes

check: lint ## the static part of it: lint, format, import rules, types
	$(BIN)/mypy

lint: $(STAMP) ## the quick half of that: all but types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check -q .
	$(BIN)/lint-imports --no-logo

unit: $(STAMP) ## the tests that need nothing
	$(BIN)/pytest -q tests/unit

contract: jars ## the tests of ports, records and views, on real parts
	$(BIN)/pytest -q tests/contract

e2e: jars ## the tests of the whole, on real parts
	$(BIN)/pytest -q tests/e2e

faults: jars ## break everything at every moment, and check each promise (SEED= ONLY= KEEP= RESULTS=1; a quarter of an hour)
	@$(BIN)/python -m tests.faults

guards: jars ## take each guard out once: the fault suite must notice (ONLY=; ten minutes)
	@$(BIN)/python -m tests.faults.guards

fuzz: $(STAMP) ## ask whatever the OpenAPI documents allow, and what they do not (COUNT=100 SEED=1; minutes)
	FUZZ_COUNT=$(or $(COUNT),100) FUZZ_SEED=$(or $(SEED),1) FUZZ_LIMIT_S=3000 $(BIN)/pytest -q -s tests/e2e/test_fuzz.py

bench: jars ## measure everything that there is a target for, and write RESULTS.md (ONLY="streams idle"; ten minutes)
	$(BIN)/python -m tests.bench $(if $(ONLY),--only $(ONLY))

soak: jars ## half load for a quarter of an hour: does any process grow? (MINUTES=15)
	$(BIN)/python -m tests.bench.soak $(MINUTES)

fmt: $(STAMP) ## format the code
	$(BIN)/ruff check --fix -q .
	$(BIN)/ruff format -q .

sync: $(STAMP) ## install everything into .venv (the others do it)

$(STAMP): requirements.lock pyproject.toml $(PACKAGES:=/pyproject.toml)
	@test -n "$(PYTHON)" || { echo "parley: Python 3.11 or newer is needed and none is on the path (PYTHON= names one)" >&2; exit 1; }
	@command -v $(firstword $(PYTHON)) >/dev/null || { echo "parley: PYTHON=$(PYTHON) is not there: name a Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || { echo "parley: $(PYTHON) is too old: Python 3.11 or newer is needed" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "parley: $(PYTHON) cannot make environments: install its venv module (on Debian: python3-venv)" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing (once) ..." >&2
	@$(BIN)/python -m pip install -q --no-compile --disable-pip-version-check --require-hashes -r requirements.lock > $(VENV)/pip.log 2>&1 \
		|| { echo "parley: the packages could not be installed; is there a network? (what pip said: $(VENV)/pip.log)" >&2; exit 1; }
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-index --no-deps --no-build-isolation $(addprefix -e ,$(PACKAGES)) > $(VENV)/pip.log 2>&1 \
		|| { echo "parley: Parley's own packages could not be installed (what pip said: $(VENV)/pip.log)" >&2; exit 1; }
	@touch $@

jars: $(STAMP) ## fetch Apache Kafka's jars with Maven, once (cluster and test do it)
	@$(BIN)/parley jars

lock: ## make requirements.lock anew from requirements.in (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q requirements.in -o requirements.lock
