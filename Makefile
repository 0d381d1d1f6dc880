# Everything a newcomer, a hook or CI runs; `make` alone lists it.
PYTHON ?= $(or $(shell command -v python3.11),python3)
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PLAIN  := $(VENV)/.ready-plain
READY  := $(VENV)/.ready
LAB    := $(VENV)/.ready-lab

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types layers format lab lab-linux lab-qemu lab-vmm matrix bench fixtures schemas pages site man deb clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(PLAIN) ## two emulated hosts, the six steps on both, a guest doing I/O throughout
	@$(BIN)/nvmelm demo

test: $(READY) ## lint, types, layers, then the unit, replay and emulated tests
	@$(MAKE) --no-print-directory check

check: $(READY) lint types layers
	@$(BIN)/pytest --numprocesses auto --maxprocesses 8 --dist loadfile

lint: $(READY) ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY) ## mypy --strict
	@$(BIN)/mypy

layers: $(READY) ## import-linter: imports point downwards only
	@$(BIN)/lint-imports

format: $(READY) ## put the code into ruff's format
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

lab: $(LAB) ## steps 1-5 on a real kernel with an SR-IOV NVMe controller in QEMU (QEMU=… for another binary)
	@$(BIN)/python -m tests.lab
	@$(BIN)/python -m tests.lab --boot

lab-linux: $(LAB) ## a Linux guest inside the lab's moves with its file system mounted (after lab-qemu and lab-vmm; minutes)
	@$(BIN)/python -m tests.lab -- -m slow

lab-qemu: ## a QEMU for the lab whose controllers can migrate; then make lab QEMU=.lab-qemu/qemu-system-x86_64
	@$(PYTHON) -m tests.lab.qemu.build $(if $(LAB_CACHE),--cache '$(LAB_CACHE)')

lab-vmm: ## a stock QEMU >= 8.1 beside the installed one, as the VMM of VMs that move
	@$(PYTHON) -m tests.lab.qemu.vmm

matrix: $(LAB) ## the lab on Linux 6.1, 6.12 and the newest, with QEMU 7.2, 10.0 and the newest (CELLS=… for some; hours)
	@$(BIN)/python -m tests.lab.matrix $(CELLS)

bench: $(LAB) ## what it costs, side by side with what a user would use instead
	@$(BIN)/python -m tests.bench

fixtures: $(LAB) ## record the lab's verbs anew into fixtures/; look at the difference before you keep it
	@$(BIN)/python -m tests.lab.fixtures

schemas: $(READY) ## write the JSON Schema of every document to docs/schemas
	@$(BIN)/python -m nvmelm.cli.reference.schemas docs/schemas

pages: $(READY) schemas man ## write what is made from the code: pages of docs/, man pages, shell completion
	@$(BIN)/python -m nvmelm.cli.reference.pages docs

site: $(READY) ## build the documentation as a web site, into build/site
	@$(BIN)/mkdocs build --quiet --strict -f docs/site/mkdocs.yml

man: $(READY) ## write the man pages and the shell completion, into nvmelm/share
	@$(BIN)/python -m nvmelm.cli.reference.manpages nvmelm/share/man
	@$(BIN)/python -m nvmelm.cli.reference.completions nvmelm/share/completions

deb: $(READY) ## build a Debian package into dist/, with everything where it belongs; asks no index for anything
	@$(BIN)/python .ci/debian.py dist

clean: ## remove what the targets made
	rm -rf $(VENV) .lab .lab-qemu .lab-vmm .lab-matrix .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist

$(PLAIN): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not there; PYTHON=… names another Python >= 3.11" >&2; exit 1; }
	@echo "make: installing nvmelm and the packages it needs into $(VENV), once" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --editable .
	@touch $@

$(READY): $(PLAIN)
	@echo "make: installing what tests, lint and documentation need into $(VENV), once" >&2
	@$(PIP) --editable '.[dev]'
	@# libvirt's binding is compiled against its headers; where they are not there, its tests are skipped.
	@if pkg-config --exists libvirt 2>/dev/null && command -v cc >/dev/null; then $(PIP) --editable '.[libvirt]' || true; fi
	@touch $@

$(LAB): $(READY)
	@$(PIP) --editable '.[lab]'
	@touch $@
