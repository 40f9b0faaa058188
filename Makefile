# `make demo` and `make test` are the two commands to know. Each creates .venv and installs what is missing first. A finished
# stage leaves a stamp in .venv/.stamps, so an interrupted set-up resumes where it stopped and a finished one costs nothing.
#
#   PYTHON=python3.11     Python for .venv (3.11 or 3.12; tested with 3.11; `make test-openmmlab` needs 3.10)
#   MMCV_WHEELS=folder    use a prebuilt mmcv wheel from this folder instead of compiling
#   WORKERS=2             number of test processes
#   MINUTES=60            how long `make fuzz` runs
#   TESTS=tests/layers    tests to run (default: all, and the package's doctests)

PYTHON ?=
WORKERS ?= 2
TESTS ?= tests mmtied
MINUTES ?= 20
export MMCV_WHEELS

SHELL := /bin/bash
# A set of pinned packages, and the environment that they are installed into.
SET ?= requirements/onedl
VENV ?= .venv
PY := $(VENV)/bin/python
STAMPS := $(VENV)/.stamps
PIP := $(PY) -m pip --disable-pip-version-check install --constraint $(SET)/constraints.txt
READY := $(STAMPS)/mmtied

.DEFAULT_GOAL := help
.PHONY: help demo test test-openmmlab fuzz setup lint docs clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(READY)  ## Generate a data set, train a tied Mask R-CNN on it and evaluate it by occlusion
	@$(PY) tools/demo.py

test: lint  ## Lint and run all tests, including docstring examples
	@$(PY) -m pytest -n $(WORKERS) --dist worksteal --doctest-modules $(TESTS)

test-openmmlab:  ## Run all tests with OpenMMLab's own releases on torch 2.1 and Python 3.10, in .venv-openmmlab
	@$(MAKE) --no-print-directory test SET=requirements/openmmlab VENV=.venv-openmmlab PYTHON=$(or $(PYTHON),python3.10)

fuzz: $(READY)  ## Run every tool on changed and broken files for MINUTES (20), and check its outcome
	@$(PY) tests/robustness/fuzz.py --minutes $(MINUTES)

lint: $(READY)  ## Check the code's style
	@$(PY) -m ruff check .

setup: $(READY)  ## Create .venv and install everything (demo and test do this themselves)

docs: $(STAMPS)/docs  ## Build the documentation site into build/docs
	@$(PY) -m sphinx --quiet --fail-on-warning --keep-going docs build/docs

clean:  ## Remove build and test artefacts; keep .venv, data and work_dirs
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find mmtied tools tests -name __pycache__ -prune -exec rm -rf {} +

# $(call stage,NUMBER,TEXT): announce a stage and remove packages that an interrupted pip unpacked only partly, so that they are
# unpacked again (pip writes INSTALLER last).
define stage
	@printf '\n==> set-up %s/6: %s\n' '$(1)' '$(2)'
	@for info in $(VENV)/lib/python3.*/site-packages/*.dist-info; do \
	  if [ -d "$$info" ] && [ ! -e "$$info/INSTALLER" ]; then rm -rf "$$info"; fi; done
	@rm -rf $(VENV)/lib/python3.*/site-packages/~*
endef

$(STAMPS)/build: $(SET)/build.txt $(SET)/python.txt requirements/make_venv.sh
	$(call stage,1,virtual environment and build tools)
	@bash requirements/make_venv.sh $(VENV) $(SET)/python.txt $(PYTHON)
	@$(PIP) --upgrade -r $(SET)/build.txt
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/torch: $(SET)/torch.txt $(SET)/constraints.txt $(STAMPS)/build
	$(call stage,2,PyTorch: 2 to 10 minutes of download$(comma) 5 GB on disk)
	@$(PIP) -r $(SET)/torch.txt
	@touch $@

$(STAMPS)/mmcv: $(SET)/mmcv.txt requirements/install_mmcv.py requirements/precompiled_header.py $(STAMPS)/torch
	$(call stage,3,mmcv with its operators: seconds from a prebuilt wheel$(comma) or 2 to 5 minutes of compilation on 2 cores)
	@$(PY) requirements/install_mmcv.py $(SET)
	@touch $@

$(STAMPS)/packages: $(SET)/packages.txt $(STAMPS)/mmcv
	$(call stage,4,mmengine$(comma) mmdet$(comma) mmpretrain)
	@$(PIP) -r $(SET)/packages.txt
	@touch $@

$(STAMPS)/test: $(SET)/test.txt $(STAMPS)/packages
	$(call stage,5,test tools)
	@$(PIP) -r $(SET)/test.txt
	@touch $@

$(READY): setup.py pyproject.toml mmtied/version.py $(wildcard mmtied/native/*.cpp) $(STAMPS)/test
	$(call stage,6,mmtied itself$(comma) editable)
	@PYTHONWARNINGS=ignore $(PIP) --quiet --no-deps --no-build-isolation -e .
	@touch $@
	@printf '==> set-up is done\n\n'

$(STAMPS)/docs: requirements/docs.txt $(STAMPS)/build
	@$(PIP) -r requirements/docs.txt
	@touch $@

comma := ,
