# make demo    start the demo in a browser
# make test    run the tests
# make lint    style and types
# make format  put the code into the style
# make check   the slow checks: the wheel in a clean environment, exports, launchers, lost and
#              killed processes, load
# make clean   remove everything that make made
#
# PYTHON=python3.12                                       another Python, 3.11 or newer
# TORCH_INDEX=https://download.pytorch.org/whl/cpu        PyTorch from there: on Linux a download
#                                                         of 200 MB in place of several GB

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

ifdef TORCH_INDEX
export PIP_EXTRA_INDEX_URL := $(TORCH_INDEX)
endif

# Two test workers with an OpenMP pool each would wait for each other's cores.
ONE_THREAD := OMP_NUM_THREADS=1

.PHONY: demo test lint format check clean

demo: $(VENV)/.demo
	$(BIN)/python app.py

test: $(VENV)/.dev $(VENV)/.browser
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2

lint: $(VENV)/.dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: $(VENV)/.dev
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

check: $(VENV)/.dev
	$(ONE_THREAD) $(BIN)/python -m pytest tests/check

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .gradio

# A stamp is renewed when what it was made from has changed.
$(BIN)/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	    { echo "$(PYTHON) is older than Python 3.11: give a newer one, make PYTHON=..."; exit 1; }
	@# What venv leaves where it fails has a Python but no pip, and would be taken for whole.
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "No environment was made; on Debian and Ubuntu, apt install python3-venv."; exit 1; }

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing; the first time this takes a few minutes."
	$(PIP_INSTALL) -e ".[app,eval]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing; the first time this takes a few minutes."
	$(PIP_INSTALL) -e ".[app,train,eval,onnx,dev]"
	@touch $@ $(VENV)/.demo

# One browser is enough: the system's, else Debian's package, else Playwright's own download.
$(VENV)/.browser: | $(VENV)/.dev
	@command -v chromium || command -v chromium-browser || command -v google-chrome || \
	    { $(call AS_ROOT,apt-get update -qq) && \
	      $(call AS_ROOT,env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium) && chromium --version; } || \
	    $(BIN)/python -m playwright install chromium
	@touch $@

AS_ROOT = if [ "$$(id -u)" = 0 ]; then $(1); else sudo -n $(1); fi
