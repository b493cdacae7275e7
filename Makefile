# Everything a developer and CI runs. `make` alone lists it.
SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
PROTOS := services/watcher/teleport/pb

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[36m%-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: .venv/.ready ## prepare .venv with the access-mail command; all that a developer needs

.venv/.ready: pyproject.toml requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing what requirements/dev.txt pins ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: tools
tools: ## install what some tests run beside Python: Debian packages, as root
	apt-get update --quiet=2
	DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends $$(grep -v '^#' requirements/debian.txt)

.PHONY: locks
locks: setup ## pin anew what pyproject.toml allows
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url pyproject.toml -o requirements/runtime.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --extra dev pyproject.toml -o requirements/dev.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --extra demo pyproject.toml -o requirements/demo.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --group build -o requirements/build.txt

.PHONY: protos
protos: setup ## write the Python stubs of Teleport's messages anew
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I . --python_out=. --mypy_out=quiet:. $(PROTOS)/*.proto
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I . --grpc_python_out=. --mypy_grpc_out=quiet:. $(addprefix $(PROTOS)/,auth.proto rules.proto users.proto accounts.proto)

.PHONY: dashboards
dashboards: setup ## write Grafana's dashboards anew
	$(BIN)/python -P -m monitoring.dashboards

.PHONY: docs
docs: setup ## write the generated pages of docs/ anew
	$(BIN)/python -P -m monitoring.metrics_page

.PHONY: demo
demo: setup ## simulated Teleport, Access Mail and a mailbox: a story told by mail; ONCE=1 checks it and ends
	@$(BIN)/python -m simulators.demo $(if $(ONCE),--once)

.PHONY: test
test: setup ## all tests but those of `make stack`, two at a time: a quarter of an hour
	$(BIN)/python -m pytest --ignore tests/stack --numprocesses 2 --dist worksteal

.PHONY: stack
stack: setup ## the image and `docker compose up` on a container engine, with stand-ins for images that are not here
	$(BIN)/python -m pytest tests/stack

.PHONY: long
long: setup ## the promises under failure with very many mails: seven minutes
	$(BIN)/python -m pytest tests/long/storms.py tests/long/outages.py

.PHONY: quick
quick: setup ## the tests that need no processes: half a minute
	$(BIN)/python -m pytest tests/unit tests/laws tests/contracts tests/house

.PHONY: bench
bench: setup ## mails and events a second, rules, snapshots, latency, memory: ten minutes on an idle machine
	$(BIN)/python -m benchmarks

.PHONY: lint
lint: setup ## style, types, imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: setup ## put the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: clean
clean: ## forget what was installed and cached
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
