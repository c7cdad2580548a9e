# Needs Python 3.11 to 3.13, make and git. Everything else goes into .venv, which the first command makes.

PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
# uv, because the pip that comes with Python 3.11 cannot read dependency groups.
UV_VERSION := 0.13.8
ARGS ?=

RUN := .venv/bin/python -m
# Left to itself, xdist keeps the files with the fewest tests for the end, and these are the ones that take minutes.
SPREAD := -n auto --dist loadfile --no-loadscope-reorder
UV := .venv/uv-$(UV_VERSION).stamp
ENV := .venv/env.stamp
THIRDPARTY := .venv-thirdparty/env.stamp
JAX := .venv-jax/env.stamp
LIGHTNING := .venv-lightning/env.stamp

export TF_CPP_MIN_LOG_LEVEL ?= 3
export NO_MKDOCS_2_WARNING ?= 1
# Where it is set, each of the many processes of the tests compiles TensorFlow's sources anew: 7 s of CPU each.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: train test test-fast compat thirdparty lint types docs format bench bench-others env lock clean help

train: $(ENV)  ## train the small Inception and test it
	$(RUN) recipes.inception $(ARGS)

test: $(ENV)  ## run every test
	$(RUN) pytest $(SPREAD) $(ARGS)

test-fast: $(ENV)  ## run the tests that are not marked slow
	$(RUN) pytest $(SPREAD) -m "not slow" $(ARGS)

compat: $(ENV)  ## run the tests that need PyTorch, which is installed for them (3 GB)
	.venv/bin/uv pip install -p .venv/bin/python --group compat
	$(RUN) pytest -k torch $(ARGS)

thirdparty: $(THIRDPARTY)  ## run other people's callbacks, in an environment of their own (.venv-thirdparty)
	.venv-thirdparty/bin/python -m pytest tests/thirdparty $(ARGS)

lint: $(ENV)  ## check style and layout
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types: $(ENV)  ## check types
	$(RUN) mypy

docs: $(ENV)  ## build the site into site/; a warning is an error
	$(RUN) mkdocs build --strict --quiet

format: $(ENV)  ## lay out the code and mend what ruff can mend
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

bench: $(ENV)  ## measure this machine: every table of docs/benchmarks.md, in half an hour (ARGS="--only loops")
	$(RUN) tests.bench $(ARGS)

bench-others: $(JAX) $(LIGHTNING)  ## install Keras on JAX, and PyTorch Lightning, each apart, for bench to measure beside

env: $(ENV)  ## make .venv, or bring it up to date

lock: $(UV)  ## write both files of constraints anew from pyproject.toml (ARGS=--upgrade for newer versions)
	.venv/bin/uv pip compile pyproject.toml --extra recipes --group dev --universal --python-version 3.11 \
		--no-annotate --no-header --no-emit-index-url --quiet -o constraints.txt $(ARGS)
	.venv/bin/uv pip compile pyproject.toml --group thirdparty --universal --python-version 3.11 \
		--no-annotate --no-header --no-emit-index-url --quiet -o constraints-thirdparty.txt $(ARGS)

clean:  ## remove what the commands above made, except the environments and runs
	rm -rf site build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . \( -path './.venv*' \) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A stamp is written last, so an install that was interrupted is taken up again by the next command.

$(UV):
	$(PYTHON) -m venv .venv
	$(RUN) pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(ENV): pyproject.toml constraints.txt $(UV)
	.venv/bin/uv pip install -p .venv/bin/python -c constraints.txt -e '.[recipes]' --group dev
	@touch $@

# Apart from .venv, because these packages want an older protobuf, and 200 more of others.
$(THIRDPARTY): pyproject.toml constraints-thirdparty.txt $(UV)
	.venv/bin/uv venv --quiet --allow-existing -p .venv/bin/python .venv-thirdparty
	.venv/bin/uv pip install -p .venv-thirdparty/bin/python -c constraints-thirdparty.txt -e . --group thirdparty
	@touch $@

# Of the project, these two environments have only what the groups name: none of them needs TensorFlow.
$(JAX) $(LIGHTNING): .venv-%/env.stamp: pyproject.toml $(UV)
	.venv/bin/uv venv --quiet --allow-existing -p .venv/bin/python .venv-$*
	.venv/bin/uv pip install -p .venv-$*/bin/python --group $*
	@touch $@
