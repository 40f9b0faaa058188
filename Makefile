# `make demo` and `make test` are the two commands to know. Each creates .venv and installs what is missing first. A finished
# stage leaves a stamp in .venv/.stamps, so an interrupted set-up resumes where it stopped and a finished one costs nothing.
#
#   PYTHON=python3.11     Python for .venv (3.11 or 3.12; tested with 3.11)
#   MMCV_WHEELS=folder    use a prebuilt onedl-mmcv wheel from this folder instead of compiling
#   WORKERS=2             number of test processes
#   TESTS=tests/layers    tests to run (default: all, and the package's doctests)

PYTHON ?=
WORKERS ?= 2
TESTS ?= tests mmtied
export MMCV_WHEELS

SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
STAMPS := $(VENV)/.stamps
PIP := $(PY) -m pip --disable-pip-version-check install --constraint requirements/constraints.txt
READY := $(STAMPS)/mmtied

.DEFAULT_GOAL := help
.PHONY: help demo test setup lint clean

help:  ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(READY)  ## Generate a data set, train a tied Mask R-CNN on it and evaluate it by occlusion
	@$(PY) tools/demo.py

test: lint  ## Lint and run all tests, including docstring examples
	@$(PY) -m pytest -n $(WORKERS) --doctest-modules $(TESTS)

lint: $(READY)  ## Check the code's style
	@$(PY) -m ruff check .

setup: $(READY)  ## Create .venv and install everything (demo and test do this themselves)

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

$(STAMPS)/build: requirements/build.txt requirements/make_venv.sh
	$(call stage,1,virtual environment and build tools)
	@bash requirements/make_venv.sh $(VENV) $(PYTHON)
	@$(PIP) --upgrade -r requirements/build.txt
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/torch: requirements/torch.txt requirements/constraints.txt $(STAMPS)/build
	$(call stage,2,PyTorch: 2 to 10 minutes of download$(comma) 5 GB on disk)
	@$(PIP) -r requirements/torch.txt
	@touch $@

$(STAMPS)/mmcv: requirements/mmcv.txt requirements/install_mmcv.py $(STAMPS)/torch
	$(call stage,3,mmcv with its operators: seconds from a prebuilt wheel$(comma) or 10 to 17 minutes of compilation on 2 cores)
	@$(PY) requirements/install_mmcv.py
	@touch $@

$(STAMPS)/onedl: requirements/onedl.txt $(STAMPS)/mmcv
	$(call stage,4,mmengine$(comma) mmdet$(comma) mmpretrain)
	@$(PIP) -r requirements/onedl.txt
	@touch $@

$(STAMPS)/test: requirements/test.txt $(STAMPS)/onedl
	$(call stage,5,test tools)
	@$(PIP) -r requirements/test.txt
	@touch $@

$(READY): setup.py pyproject.toml mmtied/version.py $(wildcard mmtied/native/*.cpp) $(STAMPS)/test
	$(call stage,6,mmtied itself$(comma) editable)
	@PYTHONWARNINGS=ignore $(PIP) --quiet --no-deps --no-build-isolation -e .
	@touch $@
	@printf '==> set-up is done\n\n'

comma := ,
