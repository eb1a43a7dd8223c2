# Start with `make invert` or `make test`. `make help` lists all targets, docs/commands.md all variables.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PHOTO ?=
CROP ?=
EDIT ?= age=-2,2
OUT ?=
PORT ?= 8001
# What make serve serves: default, what invert and edit of the default cut need; all; or names.
MODELS ?= default
# Seconds of refinement; FAST=1 skips it.
FAST ?=
# FORCE=1 replaces the results of an earlier run; those of the example are always replaced.
FORCE ?=
BUDGET ?= 60
# HARDENED=1 serves with TLS, client certificates and tokens from SECRETS, created if missing.
HARDENED ?=
SECRETS ?= build/secrets
# MINUTES and SEED of make chaos.
MINUTES ?= 5
SEED ?= 0
# RUNTIME=gpu installs onnxruntime-gpu instead of onnxruntime, and exports graphs for a GPU.
RUNTIME ?= export
SIDECAR := $(if $(filter gpu,$(RUNTIME)),sidecar-gpu,sidecar)
TARGET := $(if $(filter gpu,$(RUNTIME)),--target gpu)

example := build/astronaut.png

export PATH := $(CURDIR)/$(BIN):$(PATH)
# Stamps are written last, so an interrupted build continues.
repository := build/.repository
sources := $(wildcard export/*.py export/checkpoints/*.py export/serve/*.py networks/*.py) \
	$(wildcard networks/weights/*.safetensors networks/weights/ffhq/*.safetensors) \
	assets/paths.py assets/wheels.py protocol/cuts.py protocol/methods.py protocol/roles.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help invert serve test lint format verify bench chaos images clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

invert: $(repository) build/.judges $(if $(PHOTO),,$(example)) ## Invert and edit a photo: PHOTO=my.jpg CROP=x,y,size EDIT=smile=-2,2 OUT=folder FAST=1 FORCE=1
	@python -m server run $(if $(FAST),,--sidecar) -- client invert $(if $(FAST),--fast,--seconds $(BUDGET)) \
		"$(or $(PHOTO),$(example))" $(if $(CROP),--crop "$(CROP)") $(if $(EDIT),--edit "$(EDIT)") $(if $(OUT),--out "$(OUT)") $(if $(FORCE)$(if $(PHOTO),,1),--force)

serve: $(repository) build/.judges $(if $(HARDENED),$(SECRETS)) ## Run Triton on PORT (8001) and the side-car on 8003 until Ctrl-C; MODELS=all; HARDENED=1 for TLS and tokens
	@python -m server start --sidecar --models $(MODELS) --grpc-port $(PORT) $(if $(HARDENED),--secrets $(SECRETS)/server)

$(SECRETS): | $(VENV)/.run
	@python -m server secrets $@

# Without a restart, a crashed worker is a failure; with one, pytest-xdist may wait for ever.
# Unit and server tests together, since server tests wait for much of their time; conftest.py says which run in one process.
test: lint $(repository) build/.judges ## Lint, type-check, run all tests, and report coverage
	@python -m pytest -n auto --maxprocesses 4 --dist loadgroup --no-loadscope-reorder --max-worker-restart=0 --cov

lint: $(VENV)/.dev ## Lint and type-check
	@ruff check .
	@ruff format --check .
	@mypy

format: $(VENV)/.dev ## Format the code
	@ruff check --fix --quiet .
	@ruff format .

verify: $(repository) ## Compare PyTorch, the exported files and the served models
	@python -m export verify $(TARGET)

bench: $(VENV)/.dev $(repository) build/.judges ## Run the benchmarks
	@python -m bench throughput
	@python -m bench generators
	@python -m bench batch
	@python -m bench refine
	@python -m server run --models all -- python -m bench quality
	@python -m server run -- python -m bench change

chaos: $(VENV)/.dev ## Break servers, clients and connections at random during batches: MINUTES=5 SEED=0
	@python -m server_tests.chaos --minutes $(MINUTES) --seed $(SEED)

images: build/.judges ## Build the container images of the side-car and the client; BASE=debootstrap needs no registry
	@docker/images.sh

clean: ## Remove everything that was built, including the environment
	rm -rf $(VENV) build out .coverage* *.egg-info model_repository/*/[0-9]*

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "error: Python 3.11 to 3.13 is required: set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[client,$(RUNTIME),$(SIDECAR),server,demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.run
	python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[client,$(RUNTIME),$(SIDECAR),server,bench,demo,dev]'
	@touch $@

$(repository): $(sources) $(VENV)/.run
	python -m export fetch
	python -m export graphs $(TARGET)
	python -m export repository $(TARGET)
	@touch $@

build/.judges: $(wildcard assets/*.py judges/*.py) | $(VENV)/.run
	python -m export fetch --judges
	@touch $@

$(example): | $(VENV)/.run
	@mkdir -p build
	@python -c 'import skimage; from PIL import Image; Image.fromarray(skimage.data.astronaut()).save("$@")'
