# `make` or `make help` lists what there is. Everything runs in .venv, which is made from
# requirements.lock when it is missing or older than that file.
# requirements-torch.txt and requirements-transformers.txt are extras for pretrained encoders;
# add them with .venv/bin/pip install -r.

PYTHON ?= python3
VENV ?= .venv
NOTEBOOKS ?= 01_prepare_corpora 90_template 60_comparison
CORPUS ?= ravdess

RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

export KERAS_BACKEND ?= tensorflow
export TF_CPP_MIN_LOG_LEVEL ?= 3
export JUPYTER_PREFER_ENV_PATH ?= 1
export PYDEVD_DISABLE_FILE_VALIDATION ?= 1

.DEFAULT_GOAL := help
.PHONY: help run demo test torture check format lab reproduce publish site tasks bench notebooks sample lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  NOTEBOOKS  what 'make run' executes and 'make publish' copies; now: $(NOTEBOOKS)"
	@echo "  CORPUS     what 'make reproduce' trains on; now: $(CORPUS)"
	@echo "  PYTHON     the Python 3.11 to 3.13 that makes $(VENV); now: $(PYTHON)"

run: $(INSTALLED) ## Execute notebooks on the sample corpus, or on FOLDER and CSV; NOTEBOOKS=all
	$(RUN) -m tools.notebooks execute $(NOTEBOOKS) $(if $(FOLDER)$(CSV),\
		--corpus my_corpus --parameters $(if $(FOLDER),"folder=$(FOLDER)") \
		$(if $(CSV),"csv=$(CSV)"),--corpus sample)

demo: $(INSTALLED) ## Try your voice on a page of this computer: microphone, recordings, both models
	$(RUN) -m common.demo

test: check ## Check style and notebooks, then test; ALL=1 every notebook, LAYOUTS=1 on all kinds of corpora
	$(if $(ALL),ALL=$(ALL)) $(RUN) -m pytest

torture: $(INSTALLED) ## Damage 2,000 recordings and 200 archives, kill 20 trainings; some minutes
	$(RUN) -m tools.torture

check: $(INSTALLED) ## Check style, and that the generated cells and tables are up to date
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m tools.notebooks check

format: $(INSTALLED) ## Put the code and the notebooks into the checked style
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

lab: $(INSTALLED) ## Open JupyterLab
	$(RUN) -m jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root)

reproduce: $(INSTALLED) ## Run the whole collection in full: CORPUS=ravdess in place, others as copies
	$(RUN) -m tools.notebooks execute all $(if $(filter ravdess,$(CORPUS)),--in-place,--corpus $(CORPUS))

publish: $(INSTALLED) ## Copy evidence and figures of full runs to be committed; NOTEBOOKS=11 names them
	$(if $(filter file,$(origin NOTEBOOKS)),$(error say which: make publish NOTEBOOKS="11 60"))
	$(RUN) -m tools.notebooks publish $(NOTEBOOKS)

tasks: $(INSTALLED) ## List the folds that NOTEBOOKS train on CORPUS, to be run apart: docs/cluster.md
	$(RUN) -m tools.tasks list $(if $(filter file,$(origin NOTEBOOKS)),,$(NOTEBOOKS)) --corpus $(CORPUS)

site: $(INSTALLED) ## Build the site in build/site: notebooks, sortable results, the reference
	$(RUN) -m tools.site build/site

bench: $(INSTALLED) ## Time features and YAMNet embeddings beside plain librosa
	$(RUN) -m tools.benchmark

notebooks: $(INSTALLED) ## Write the generated cells, the notebook index and the results table anew
	$(RUN) -m tools.notebooks sync

sample: $(INSTALLED) ## Rebuild the sample corpus (needs espeak-ng)
	$(RUN) -m tools.make_sample_corpus

lock: ## Resolve requirements.txt anew into requirements.lock
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	$(PYTHON) -m venv "$$folder" && "$$folder/bin/pip" install --quiet uv && \
	echo "# Made by 'make lock' from requirements.txt: exact versions for Python 3.11 to 3.13." \
		> "$$folder/lock" && \
	"$$folder/bin/uv" pip compile --quiet --universal --python-version 3.11 \
		--fork-strategy fewest --no-annotate --no-header --no-emit-index-url \
		requirements.txt >> "$$folder/lock" && \
	cp "$$folder/lock" requirements.lock

clean: ## Remove caches; .venv, data/raw and data/runs stay
	rm -rf data/cache .pytest_cache .ruff_cache .hypothesis
	find common tools tests notebooks -name __pycache__ -prune -exec rm -rf {} +
	find notebooks -name .ipynb_checkpoints -prune -exec rm -rf {} +

$(INSTALLED): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
		echo "Python 3.11, 3.12 or 3.13 is needed (TensorFlow has no release for others);" \
			"'$(PYTHON)' is $$($(PYTHON) --version 2>&1)." ; \
		echo "Name one that is installed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing into $(VENV): some minutes and 3 GB, once."
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@touch $@
