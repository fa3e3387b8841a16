# make demo shows what purekrb does; make test proves it. `make PYTHON=python3.12 test` chooses the interpreter.

ifndef PYTHON
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && { echo $$p; break; }; done)
endif
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ifeq ($(VERSION),)
$(error purekrb needs Python 3.10 or newer: make PYTHON=/path/to/python3 ...)
endif

VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install -q --disable-pip-version-check

# Hundreds of tests start `purekrb`: not to compile it each time takes minutes off.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test ready test-pythons lab lab-stop soak record bench bench-quick bench-peers lint wheel peers clean
.NOTPARALLEL:

demo: $(VENV)/demo-$(VERSION)
	@$(BIN)/purekrb demo

# Everything, on real peers. The other Pythons' tests need none, and run while the peers are installed and compiled.
# pytest comes last, so that its summary is the last line. It takes the files in the order of their folders, so that the
# short ones of tests/unit are left for the end: those with few tests, which xdist leaves there, are the longest ones.
test:
	@printf '%s\n' ready test-pythons | xargs -P 2 -n 1 $(MAKE) --no-print-directory
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# python3-venv is among what `peers` installs, so that the virtual environment comes second.
ready: peers
	@$(MAKE) --no-print-directory $(VENV)/interop-$(VERSION) lint

# The tests of units, exchanges and processes, on every other Python version that is installed.
test-pythons:
	@tools/test-pythons $$(tools/pythons $(VERSION))

# Samba's Active Directory to try the commands on, until `make lab-stop`.
lab:
	@tools/install-peers $(PYTHON) samba
	@$(MAKE) -s --no-print-directory $(VENV)/dev-$(VERSION)
	@PYTHONPATH=tests $(BIN)/python -m support.lab start .lab/samba

lab-stop:
	@PYTHONPATH=tests $(BIN)/python -m support.lab stop .lab/samba

# The tests at their full counts: a thousand kills, a million records, each parser fuzzed for a minute. Where there is no
# wheel of atheris for this Python, the mutations of the fuzzing are random ones.
soak: peers $(VENV)/interop-$(VERSION)
	-$(PIP) --only-binary atheris -e ".[fuzz]"
	PUREKRB_SOAK=1 $(BIN)/python -m pytest

# vectors/recorded and vectors/pac.json anew, with MIT and Samba. Only needed when purekrb's own messages change.
record: peers $(VENV)/interop-$(VERSION)
	PYTHONPATH=tests $(BIN)/python -m record
	PYTHONPATH=tests $(BIN)/python -m record.pac

# Every row of bench/README.md against the other implementations; rewrites its tables and its plot.
bench: bench-peers
	$(BIN)/python -m bench --update-readme

# The same in about a minute, for every day; changes no file but bench/results/.
bench-quick: bench-peers
	$(BIN)/python -m bench --quick

# Each peer in a virtual environment of its own, since their dependencies clash.
bench-peers: peers $(VENV)/interop-$(VERSION) $(patsubst bench/peers/%.txt,.venv-bench-%/installed,$(wildcard bench/peers/*.txt))

.venv-bench-%/installed: bench/peers/%.txt
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install -q --disable-pip-version-check -r $<
	@touch $@

lint: $(VENV)/dev-$(VERSION)
	$(BIN)/ruff check
	$(BIN)/ruff format --check -q
	$(BIN)/mypy

wheel: $(VENV)/dev-$(VERSION)
	$(BIN)/python -m build --wheel

peers:
	@tools/install-peers $(PYTHON)

clean:
	@[ ! -e .lab/samba ] || $(MAKE) --no-print-directory lab-stop
	rm -rf .venv .venv-* .lab build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The virtual environment keeps a mark of what was installed into it, and for which Python.

$(VENV)/python-$(VERSION):
	@echo "Making the virtual environment $(VENV)"
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/demo-$(VERSION): $(VENV)/python-$(VERSION) pyproject.toml
	@echo "Installing purekrb and what it needs into $(VENV)"
	$(PIP) -e .
	@touch $@

$(VENV)/dev-$(VERSION): $(VENV)/python-$(VERSION) pyproject.toml
	@echo "Installing purekrb and what its tests need into $(VENV)"
	$(PIP) -e ".[test,dev]"
	@touch $@

# python-gssapi compiles against MIT's library, which the peers bring.
$(VENV)/interop-$(VERSION): $(VENV)/dev-$(VERSION)
	@echo "Installing what talks to the peers into $(VENV)"
	command -v krb5-config >/dev/null && $(PIP) -e ".[interop]" || test "$(PUREKRB_ALLOW_MISSING_PEERS)" = 1
	@touch $@
