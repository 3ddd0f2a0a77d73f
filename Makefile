# Two commands do everything: `make labs` runs the labs, `make test` tests the project. Both set up what they need first.
# Works with macOS's GNU Make 3.81; the recipes are plain sh.

SHELL = /bin/sh
export LAB PROFILE IMAGES TARGET YES

# An empty variable is one that was not set.
ifeq ($(strip $(PROFILE)),)
unexport PROFILE
endif
ifeq ($(strip $(IMAGES)),)
unexport IMAGES
endif
ifeq ($(strip $(TARGET)),)
unexport TARGET
endif
ifeq ($(strip $(YES)),)
unexport YES
endif

.PHONY: help labs test lab doctor clean bench build lock environment

# packages of their own, each with its own tests
SERVICES = inference-server rag-service trace-receiver

help:
	@echo 'make labs [LAB=4.4.1] [PROFILE=cpu|gpu] [IMAGES=auto|registry|debian]   run labs from top to bottom, write a report'
	@echo 'make test [ARGS=...]      test everything (ARGS go to pytest)'
	@echo 'make lab                  open JupyterLab on your copies in work/'
	@echo 'make doctor [ARGS=--fix]  what would stop a lab on this machine, and what to do'
	@echo 'make bench ARGS=image     measure the figures in the documents again'
	@echo 'make clean                remove what the labs left; ARGS=--all also what is kept'
	@echo 'make build                make labs/ from solutions/ (for authors)'
	@echo 'make lock                 resolve requirements.txt again (for authors)'

environment:
	@./bootstrap.sh

labs: environment
	@.venv/bin/course run $(LAB)

test: environment
	@.venv/bin/python -m course_lib.host.setup
	@.venv/bin/ruff check --quiet . && .venv/bin/ruff format --quiet --check course_lib tests
	@.venv/bin/mypy --no-error-summary
	@for service in $(SERVICES); do (cd docker/$$service && ../../.venv/bin/mypy --no-error-summary) || exit 1; done
ifdef ARGS
	@.venv/bin/python -m pytest $(ARGS)
else
	@.venv/bin/course setup >/dev/null
	@.venv/bin/python tests/lanes.py
endif

lab: environment
	@.venv/bin/course lab $(ARGS)

doctor: environment
	@.venv/bin/course doctor $(ARGS)

clean: environment
	@.venv/bin/course cleanup $(ARGS)

bench: environment
	@.venv/bin/course bench $(ARGS)

build: environment
	@.venv/bin/course build $(ARGS)

lock: environment
	@uv=$$(command -v uv || echo .cache/uv/bin/uv); \
	 $$uv pip compile pyproject.toml --group dev --universal --generate-hashes --python-version 3.11 --constraint docker/inference-server/requirements.txt --constraint docker/rag-service/requirements.txt --no-emit-index-url --no-header --upgrade --quiet -o requirements.txt
