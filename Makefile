# Two commands do everything: make demo, make test.
PYTHON ?= python3
BIN := .venv/bin
.PHONY: install install-test demo test fuzz lint clean

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt scripts/install.sh
	PYTHON=$(PYTHON) sh scripts/install.sh all
	@touch $@

install-test: install
	PYTHON=$(PYTHON) sh scripts/install.sh dev
	sh scripts/browser.sh
	sh scripts/cluster.sh
	sh scripts/servers.sh

demo: install
	$(BIN)/python examples/support_tickets/generate.py
	$(BIN)/python examples/support_tickets/baseline.py
	$(BIN)/tanzim run examples/support_tickets/tanzim.yaml

test: install-test lint
	$(BIN)/pytest -m "not slow"
	$(BIN)/pytest -m slow -n 2 --dist loadfile

# The properties on TIMES as many examples as in make test, and on others each time.
TIMES ?= 50
fuzz: install-test
	TANZIM_FUZZ=$(TIMES) $(BIN)/pytest -m hypothesis

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv runs
