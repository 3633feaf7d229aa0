# What one does with pykata; "make help" lists it.

SHELL := /bin/bash
PREFIX ?= /usr/local
DESTDIR ?=
GUESTS ?= /var/lib/kata/guest
PYTEST := .venv/bin/python -m pytest
PYTEST_FLAGS ?=
RUNTIME ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test check conformance guest install uninstall bench docs format clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

setup: ## install what development and tests need: Debian packages, .venv
	@packaging/install-packages run demo test engines
	@packaging/python-tools
	@/usr/bin/python3 -m compileall -q src/kata

demo: ## install what is missing, build the guest, run a container and show it from inside
	@packaging/install-packages run demo
	@/usr/bin/python3 -m compileall -q src/kata
	@bin/kata guest build --output $(GUESTS) >/dev/null
	@examples/demo.sh

test: setup ## run all tests: style, unit, processes, root, virtual machines, engines
	@failed=0; \
	$(PYTEST) -q -n 2 $(PYTEST_FLAGS) tests/style tests/unit tests/process || failed=1; \
	for runtime in runc crun; do \
	    RUNTIME=$$runtime $(PYTEST) -q $(PYTEST_FLAGS) --ignore tests/conformance/test_suite_fails.py \
	        tests/conformance || failed=1; \
	done; \
	$(PYTEST) -q $(PYTEST_FLAGS) tests/system tests/vm tests/engines tests/containerd tests/conformance || failed=1; \
	exit $$failed

check: setup ## lint, types, imports, unit tests; under a minute
	@$(PYTEST) -q -n 2 $(PYTEST_FLAGS) tests/style tests/unit

conformance: setup ## ask an OCI runtime all that engines rely on: RUNTIME=runc, or kata-runtime
	@RUNTIME=$(RUNTIME) $(PYTEST) -q $(PYTEST_FLAGS) --ignore tests/conformance/test_suite_fails.py tests/conformance

guest: ## build the guest image, if what goes into it changed
	@packaging/install-packages run
	@bin/kata guest build --output $(GUESTS)

install: ## install below PREFIX (/usr/local); DESTDIR is put in front of it
	@packaging/install-packages run
	@/usr/bin/python3 packaging/install.py install $(PREFIX) $(DESTDIR)
	@bin/kata guest build --output $(DESTDIR)$(PREFIX)/share/kata >/dev/null
	@echo "kata is installed in $(DESTDIR)$(PREFIX)/bin"

uninstall: ## remove what make install put there, but no edited configuration
	@/usr/bin/python3 packaging/install.py uninstall $(PREFIX) $(DESTDIR)

bench: setup ## measure against raw QEMU, runc and crun
	@bin/kata guest build --output $(GUESTS) >/dev/null
	@.venv/bin/python bench/run.py

docs: ## write the generated pages anew
	@PYTHONPATH=src /usr/bin/python3 -m kata.config.render reference >docs/reference/configuration.md
	@PYTHONPATH=src /usr/bin/python3 -m kata.cli.reference >docs/reference/cli.md
	@PYTHONPATH=src /usr/bin/python3 -c "from kata.oci.honoured import page; print(page(), end='')" >docs/reference/oci.md
	@PYTHONPATH=tests /usr/bin/python3 -c "from containerd.differences import page; print(page(), end='')" >docs/reference/cri.md
	@packaging/kubernetes/drop_ins.py

format: ## lay the source out as ruff does
	@.venv/bin/ruff format -q src tests examples packaging
	@.venv/bin/ruff check -q --fix-only src tests examples packaging

clean: ## remove what was built here
	@rm -rf build test-results .pytest_cache .mypy_cache .ruff_cache
	@find src tests -name __pycache__ -type d -exec rm -rf {} +
