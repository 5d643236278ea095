# The three verbs of this checkout. Everything they need, they install; everything they made, demo-down removes.
SHELL := /bin/bash
PY := .venv/bin/python

.PHONY: demo demo-down test lock help

help:
	@echo "make demo        a served fleet on this machine: 2 balancers, 3 vLLM servers, 1 monitoring host"
	@echo "make demo-down   removes all of it (KEEP=1 keeps packages, images and wheels for the next time)"
	@echo "make test        everything that CI runs"
	@echo "make lock        renews requirements/*.txt from requirements/*.in"

demo:
	@tools/bootstrap
	@$(PY) -m tools.sandbox up

demo-down:
	@python3 -m tools.sandbox down $(if $(KEEP),--keep)

test:
	@tools/bootstrap
	@$(PY) -m tools.tests

lock:
	@tools/bootstrap
	@$(PY) -m tools.lock
