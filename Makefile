# The README's two commands are `make invert` and `make test`; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PHOTO ?=
CROP ?=
EDIT ?= age=-3,3
OUT ?=
PORT ?= 8001
# FAST=1 leaves the refinement out; BUDGET is its seconds.
FAST ?=
BUDGET ?= 120
# HARDENED=1 serves with TLS, clients' certificates and tokens: those of SECRETS, made where they are missing.
HARDENED ?=
SECRETS ?= build/secrets
# RUNTIME=gpu installs onnxruntime-gpu in place of onnxruntime.
RUNTIME ?= export
SIDECAR := $(if $(filter gpu,$(RUNTIME)),sidecar-gpu,sidecar)

# The example photo shows half a person: take the part around the head.
example := build/astronaut.png
example_crop := 120,20,160
ifeq ($(PHOTO)$(CROP),)
CROP := $(example_crop)
endif

export PATH := $(CURDIR)/$(BIN):$(PATH)
# The stamps come last: a build that was cut short is taken up again.
repository := build/.repository
sources := $(wildcard export/*.py export/checkpoints/*.py export/serve/*.py networks/*.py networks/weights/ffhq/*.safetensors) \
	assets/paths.py assets/wheels.py protocol/methods.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help invert serve test lint format verify bench images clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

invert: $(repository) build/.judges $(if $(PHOTO),,$(example)) ## Invert and edit a photo: PHOTO=my.jpg CROP=x,y,size EDIT=smile=-2,2 OUT=folder FAST=1
	@python -m server run $(if $(FAST),,--sidecar) -- client invert $(if $(FAST),--fast,--seconds $(BUDGET)) \
		"$(or $(PHOTO),$(example))" $(if $(CROP),--crop "$(CROP)") $(if $(EDIT),--edit "$(EDIT)") $(if $(OUT),--out "$(OUT)")

serve: $(repository) build/.judges $(if $(HARDENED),$(SECRETS)) ## Keep a local Triton up on PORT (8001), and the side-car on 8003, until Ctrl-C; HARDENED=1
	@python -m server start --sidecar --grpc-port $(PORT) $(if $(HARDENED),--secrets $(SECRETS)/server)

$(SECRETS): | $(VENV)/.run
	@python -m server secrets $@

test: lint $(repository) build/.judges ## Lint, types, all tests (unit and server), and their coverage
	@python -m pytest -n auto --maxprocesses 4 --dist loadgroup --no-loadscope-reorder --cov

lint: $(VENV)/.dev ## Style and types
	@ruff check .
	@ruff format --check .
	@mypy

format: $(VENV)/.dev ## Rewrite the code in the project's style
	@ruff check --fix --quiet .
	@ruff format .

verify: $(repository) ## Compare torch, ONNX Runtime and the served models
	@python -m export verify

bench: $(VENV)/.dev $(repository) build/.judges ## Measure: throughput, generators, batches, the quality of --fast, the recipes of the refinement
	@python -m bench throughput
	@python -m bench generators
	@python -m bench batch
	@python -m bench refine
	@python -m server run -- python -m bench quality

images: build/.judges ## Build the images of the side-car and of the client; BASE=debootstrap builds them without a registry
	@docker/images.sh

clean: ## Remove everything that is built, the environment included
	rm -rf $(VENV) build out *.egg-info model_repository/*/[0-9]*

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11 to 3.13 is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[client,$(RUNTIME),$(SIDECAR),server,demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.run
	python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[client,$(RUNTIME),$(SIDECAR),server,bench,demo,dev]'
	@touch $@

$(repository): $(sources) $(VENV)/.run
	python -m export fetch
	python -m export graphs
	python -m export repository
	@touch $@

build/.judges: $(wildcard assets/*.py judges/*.py) | $(VENV)/.run
	python -m export fetch --judges
	@touch $@

$(example): | $(VENV)/.run
	@mkdir -p build
	@python -c 'import skimage; from PIL import Image; Image.fromarray(skimage.data.astronaut()).save("$@")'
