# The verbs of this checkout. Everything they need, they install; everything they made, demo-down removes.
SHELL := /bin/bash
PY := .venv/bin/python

.PHONY: demo demo-down test test-quick lock help

help:
	@echo "make demo        a served fleet on this machine: 2 balancers, 3 vLLM servers, 1 monitoring host"
	@echo "make demo-down   removes all of it (KEEP=1 keeps packages, images and wheels for the next time)"
	@echo "make test        everything that CI runs; prints a table of all gates"
	@echo "make test-quick  less than 2 minutes, for daily work: linters, mypy, most of tests/repo and tests/unit. Left out:"
	@echo "                 ansible-lint and test files that take five seconds and more (UNHURRIED in tools/tests.py), gates"
	@echo "                 over the archive, over all documentation and under other ansible-cores; scenarios on hosts"
	@echo "make lock        renews requirements/*.txt from requirements/*.in"

demo:
	@tools/bootstrap
	@$(PY) -m tools.sandbox up

demo-down:
	@python3 -m tools.sandbox down $(if $(KEEP),--keep)

test:
	@tools/bootstrap
	@$(PY) -m tools.tests

test-quick:
	@tools/bootstrap
	@$(PY) -m tools.tests --quick

lock:
	@tools/bootstrap
	@$(PY) -m tools.lock
