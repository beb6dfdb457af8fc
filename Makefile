# Every target is one command; `outpost --help` tells the rest.

PYTHON ?= python3
MODEL ?= motion
OUTPOST = .venv/bin/outpost
AT = $(if $(BOARD),--board $(BOARD)) $(if $(PORT),--port $(PORT))

.DEFAULT_GOAL := help
.PHONY: help venv run simulate fleet model check flash deploy repl monitor erase pull profile gateway \
    firmware emulate test test-boards test-chip torture bench lint lock doctor clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

venv:  ## .venv, from requirements.lock
	@$(PYTHON) host_tools/bootstrap.py

run: venv  ## train, convert, live 7 virtual days on real MicroPython, write the report
	@$(OUTPOST) run $(ARGS)

simulate: venv  ## months of a node's life, its joules and its report: DAYS=90 WORLD=factory BOARD=esp32
	@$(OUTPOST) simulate $(MODEL) $(if $(BOARD),--board $(BOARD)) $(if $(WORLD),--world $(WORLD)) \
	    $(if $(DAYS),--days $(DAYS)) $(ARGS)

fleet: venv  ## nodes by the hundred and their gateway, everything killed: NODES=200 DAYS=30
	@$(OUTPOST) fleet $(if $(NODES),--nodes $(NODES)) $(if $(DAYS),--days $(DAYS)) $(ARGS)

model: venv  ## build a model: MODEL=motion BOARD=esp32
	@$(OUTPOST) build $(MODEL) $(if $(BOARD),--board $(BOARD)) $(ARGS)

check: venv  ## a model against its contract, line by line: MODEL=motion BOARD=rp2040
	@$(OUTPOST) check $(MODEL) $(if $(BOARD),--board $(BOARD)) $(ARGS)

flash: venv  ## put a node onto a board: BOARD=esp32 PORT=/dev/ttyUSB0 [FIRMWARE=file]
	@$(OUTPOST) flash --model $(MODEL) $(if $(BOARD),,--board esp32) $(AT) \
	    $(if $(FIRMWARE),--firmware $(FIRMWARE)) $(ARGS)

deploy: flash  ## the same

repl: venv  ## a node's REPL, caught when it wakes: PORT=...
	@$(OUTPOST) repl --wait $(AT) $(ARGS)

monitor: venv  ## what a node prints: PORT=...
	@$(OUTPOST) monitor $(AT) $(ARGS)

erase: venv  ## everything off a board, records too: BOARD=esp32 PORT=...
	@$(OUTPOST) erase $(AT) $(ARGS)

pull: venv  ## what a node has recorded: PORT=...
	@$(OUTPOST) pull --model $(MODEL) $(AT) $(ARGS)

profile: venv  ## what a model costs on the attached board: MODEL=motion PORT=...
	@$(OUTPOST) profile $(MODEL) $(AT) $(ARGS)

test: venv  ## everything that runs on this machine
	@.venv/bin/python -m pytest $(ARGS)

test-boards: venv  ## the real firmware and every architecture's code, on emulated machines
	@.venv/bin/python -m pytest tests/boards -m "long or not long" $(ARGS)

test-chip: venv  ## two minutes of test-boards: every architecture, and the emulated RP2040
	@.venv/bin/python -m pytest tests/boards/test_architectures.py tests/boards/test_rp2040.py $(ARGS)

gateway: venv  ## take in what nodes report: a broker of its own, SQLite
	@$(OUTPOST) gateway $(ARGS)

firmware: venv  ## build a board's firmware: BOARD=rp2040
	@$(OUTPOST) build $(MODEL) --arch x64 --arch armv6m
	@$(OUTPOST) firmware $(BOARD) --model $(MODEL) $(ARGS)

emulate: venv  ## the board on this machine, its serial port included: BOARD=rp2040
	@$(OUTPOST) emulate $(BOARD) $(ARGS)

torture: venv  ## cut the power at every step of the flash ring: CUTS=1000000 SEED=1
	@$(OUTPOST) torture $(ARGS)

bench: venv  ## benchmark tables: NAME=ring, or all
	@$(OUTPOST) bench $(NAME) $(ARGS)

lint: venv  ## ruff over everything
	@.venv/bin/ruff check .

lock: venv  ## write requirements.lock anew from pyproject.toml
	@.venv/bin/python -m piptools compile -q --upgrade --allow-unsafe --generate-hashes \
	    --no-header --no-emit-options --no-emit-index-url --no-emit-find-links \
	    --no-emit-trusted-host --strip-extras --extra dev -o requirements.lock pyproject.toml

doctor: venv  ## what is present, what is missing, how to get it
	@$(OUTPOST) doctor

clean:  ## remove what was built here; the shared cache stays
	@rm -rf build .pytest_cache .ruff_cache .hypothesis
