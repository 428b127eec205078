# Every target makes and fills .venv by itself; nothing has to be installed before.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
AUDIT := .venv-audit
WITNESS := .venv-witness
SUPPLY := .venv-supply
# uv is quicker where it is there; pip does the same from the same hashes, and is there while it is needed.
UV_IS_HERE := $(shell command -v uv)
with_pip = $(1)/bin/python -m ensurepip >/dev/null && $(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile
install = $(if $(UV_IS_HERE),uv pip install --quiet --python $(1)/bin/python,$(call with_pip,$(1)))
# What nothing here loads of pyarrow, 50 MB of 150: remote calls, headers, tests, and second copies of one library.
UNUSED := libarrow_flight* libarrow_python_flight* _flight.* include tests libarrow_python.so libarrow_python.so.*.*

.DEFAULT_GOAL := help
.PHONY: help demo test coverage fuzz mutants interleavings monitoring lint check format bench docs size audit supply advisories template-mutants witness lock update clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: $(VENV)/run.stamp ## run the whole pipeline on this machine: from requests to a downloaded zip
	@$(BIN)/tagline demo

test: $(VENV)/test.stamp ## run the tests
	@$(BIN)/pytest -n 2

ROUNDS ?= 10
fuzz: $(VENV)/test.stamp ## try other examples of every property, ROUNDS times; the tests try the same each time
	@for round in $$(seq $(ROUNDS)); do \
		HYPOTHESIS_PROFILE=fuzz $(BIN)/pytest -n 2 -m hypothesis --no-header || exit 1; done

SAMPLE ?= 300
SEED ?= 0
mutants: $(VENV)/test.stamp ## change consumers/ in SAMPLE places, one at a time, and see that a test fails; takes hours
	@$(BIN)/python -m tests.mutants --sample $(SAMPLE) --seed $(SEED)

template-mutants: $(VENV)/test.stamp ## drop 200 things of template.yml, one at a time, and see that a test fails; takes an hour
	@$(BIN)/python -m tests.template_mutants --seed $(SEED)

interleavings: $(VENV)/test.stamp ## run three exports and erasures in all interleavings of two preemptions, after leases too; takes minutes
	@INTERLEAVINGS=1 $(BIN)/pytest tests/exporter/export/test_writers.py

monitoring: $(VENV)/test.stamp ## write alarms, dashboard and alert rules from the table in monitoring/alarms.py
	@$(BIN)/python -m monitoring

lint: $(VENV)/lint.stamp ## check format, lint, spelling and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/mypy

check: lint coverage ## all that has to be green before a commit: lint, and the tests with their branch coverage

coverage: $(VENV)/test.stamp ## run the tests in Python's development mode, and print the branch coverage of the three stages
	@PYTHONDEVMODE=1 PYTHONMALLOC=default $(BIN)/pytest -n 2 --cov --cov-report=term

format: $(VENV)/lint.stamp ## format the code and fix what can be fixed automatically
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/bench.stamp ## measure ours beside others, and print the ratios
	$(BIN)/python -m benchmarks

docs: $(VENV)/docs.stamp ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

audit: $(AUDIT)/audit.stamp $(VENV)/test.stamp ## look for weaknesses in the templates: cfn-lint, checkov, and AWS's rules with cfn-guard
	@CHECKOV=$(AUDIT)/bin/checkov GUARD=$(AUDIT)/lib $(BIN)/pytest -n 0 -s --no-header tests/audit.py

supply: $(SUPPLY)/supply.stamp $(VENV)/test.stamp ## write what each function ships to build/sbom/, and print sizes, imports and licences
	@$(BIN)/python -m tests.supply components $(SUPPLY)/bin

advisories: $(SUPPLY)/supply.stamp $(VENV)/test.stamp ## ask for known vulnerabilities of what is pinned: needs the internet
	@$(BIN)/python -m tests.supply advisories $(SUPPLY)/bin

witness: $(WITNESS)/witness.stamp $(VENV)/test.stamp ## create, update and delete stacks in another emulator: each pair of the main parameters' values
	@MINISTACK=$(WITNESS)/bin/ministack $(BIN)/pytest -n 0 -s tests/witness.py

UV = uv pip compile --quiet $(UPGRADE) --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header
lock: ## pin the requirements again, after a change of requirements/*.in: needs uv
	@cd requirements && for list in lambda zipper exporter usage usage_roller run test lint bench browser docs audit witness supply; do \
		$(UV) $$list.in -o $$list.txt >/dev/null || exit 1; done
	@cd requirements && $(UV) --no-deps guard.in -o guard.txt >/dev/null
	@# The Lambda runtime has these.
	@cd requirements && for list in consumer rows; do \
		$(UV) $$list.in -o $$list.txt --no-emit-package botocore --no-emit-package urllib3 \
			--no-emit-package python-dateutil --no-emit-package six >/dev/null || exit 1; done

update: ## pin the newest versions that requirements/*.in allow: then make check, make supply and make advisories
	@$(MAKE) lock UPGRADE=--upgrade

MAX_MB ?= 350
size: $(VENV)/run.stamp ## print how much is installed for the demo, and compare it with its limit; in a fresh clone
	@size=$$(du -sm $(VENV) | cut -f 1); echo "installed for the demo: $$size MB (limit $(MAX_MB))"; test $$size -le $(MAX_MB)

clean: ## remove what was made, the virtual environments too
	rm -rf $(VENV) $(AUDIT) $(WITNESS) $(SUPPLY) .aws-sam .tagline .hypothesis .mypy_cache .pytest_cache .ruff_cache .schemathesis .coverage build dist site *.zip report.html packaged.yml
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python $(AUDIT)/bin/python $(WITNESS)/bin/python $(SUPPLY)/bin/python:
	@echo "making $(@D:/bin=)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(if $(UV_IS_HERE),--without-pip) $(@D:/bin=) || \
		{ echo "Python's venv module is needed: on Debian, apt install python3-venv"; exit 1; }

$(VENV)/run.stamp: requirements/run.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing what the demo needs (about a minute, once)"
	@$(call install,$(VENV)) --require-hashes -r requirements/run.txt
	@$(call install,$(VENV)) --no-deps --no-build-isolation --editable .
	@$(if $(UV_IS_HERE),,$(BIN)/python -m pip uninstall --quiet --yes pip setuptools 2>/dev/null)
	@cd $(VENV)/lib/python3*/site-packages/pyarrow && rm -rf $(UNUSED)
	@touch $@

$(VENV)/test.stamp: requirements/test.txt $(VENV)/run.stamp
	@echo "installing what the tests need (half a minute, once)"
	@$(call install,$(VENV)) --require-hashes -r requirements/test.txt
	@touch $@

$(VENV)/lint.stamp $(VENV)/bench.stamp $(VENV)/browser.stamp: $(VENV)/%.stamp: requirements/%.txt $(VENV)/test.stamp
	@echo "installing the list $*"
	@$(call install,$(VENV)) --require-hashes -r requirements/$*.txt
	@touch $@

$(VENV)/docs.stamp: requirements/docs.txt | $(VENV)/bin/python
	@echo "installing what make docs needs"
	@$(call install,$(VENV)) --require-hashes -r requirements/docs.txt
	@touch $@

$(AUDIT)/audit.stamp: requirements/audit.txt requirements/guard.txt | $(AUDIT)/bin/python
	@echo "installing what make audit needs"
	@$(call install,$(AUDIT)) --require-hashes -r requirements/audit.txt
	@$(call install,$(AUDIT)) --require-hashes --no-deps -r requirements/guard.txt
	@touch $@

$(WITNESS)/witness.stamp: requirements/witness.txt | $(WITNESS)/bin/python
	@echo "installing what make witness needs"
	@$(call install,$(WITNESS)) --require-hashes -r requirements/witness.txt
	@touch $@

$(SUPPLY)/supply.stamp: requirements/supply.txt | $(SUPPLY)/bin/python
	@echo "installing what make supply needs"
	@$(call install,$(SUPPLY)) --require-hashes -r requirements/supply.txt
	@touch $@

# --- `sam build`: what each function ships. This is the list: nothing else is in an artifact. ---------------
# https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/building-custom-runtimes.html
LAMBDA_PYTHON := 3.13
# The wheels that run there, whatever machine builds: template.yml's architecture, and Amazon Linux 2023's libc. pip
# takes the tags as they are written: one that is missing gives another version of a library, or none.
LAMBDA_PLATFORMS := manylinux_2_28_aarch64 manylinux_2_24_aarch64 manylinux_2_17_aarch64 manylinux2014_aarch64
# The lists are complete: --no-deps leaves out only botocore, which the runtime has.
# Every function ships its stage's folder, and the stages before it: one rule, and small beside the wheels.
define ship
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
		-r requirements/$(1).txt --target $(ARTIFACTS_DIR) --no-compile --only-binary=:all: \
		--python-version $(LAMBDA_PYTHON) --implementation cp $(addprefix --platform ,$(LAMBDA_PLATFORMS))
	cp -R emitter/tagline $(2) $(ARTIFACTS_DIR)/
	$(compile)
endef
# Byte code in the artifact halves a cold start: /var/task cannot be written to, so without it every import compiles
# anew. Only the runtime's own version makes byte code that it takes.
define compile
	@find $(ARTIFACTS_DIR) -name __pycache__ -type d -prune -exec rm -rf {} +
	@$(PYTHON) -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(LAMBDA_PYTHON)")' \
		&& $(PYTHON) -m compileall -q --invalidation-mode unchecked-hash $(ARTIFACTS_DIR) \
		|| echo "no byte code: for a quicker cold start, PYTHON=python$(LAMBDA_PYTHON) sam build"
endef

.PHONY: build-RowConsumer build-MeterConsumer build-Reconciler build-DailyExporter build-Upkeep build-UsageRoller build-UsageApi build-DownloadApi build-DownloadWorker build-EmitterLayer
build-RowConsumer:
	$(call ship,rows,consumers schemas)

build-MeterConsumer:
	$(call ship,consumer,consumers)

build-Reconciler:
	$(call ship,consumer,consumers)

build-DailyExporter:
	$(call ship,exporter,consumers exporter schemas)

build-Upkeep:
	$(call ship,exporter,consumers exporter)

build-UsageRoller:
	$(call ship,usage_roller,consumers exporter)

build-UsageApi:
	$(call ship,usage,consumers exporter)

build-DownloadApi:
	$(call ship,lambda,consumers exporter)

build-DownloadWorker:
	$(call ship,zipper,consumers exporter)

# A layer's Python is looked for in python/: https://docs.aws.amazon.com/lambda/latest/dg/packaging-layers.html
build-EmitterLayer:
	mkdir -p $(ARTIFACTS_DIR)/python/tagline
	cp emitter/tagline/*.py emitter/tagline/py.typed $(ARTIFACTS_DIR)/python/tagline/
	@# Its functions run any of these versions. For those that are not here, Lambda compiles it at each cold start.
	@for minor in 9 10 11 12 13 14; do \
		python3.$$minor -m compileall -q --invalidation-mode unchecked-hash $(ARTIFACTS_DIR)/python 2>/dev/null || true; \
	done
