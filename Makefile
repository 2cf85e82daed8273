# Everything on a machine without ROS. In a ROS workspace use colcon (README).
# Each ROS distribution has a virtual environment of its own: .venv is Kilted, DISTRO=jazzy makes and uses .venv-jazzy.

PYTHON ?= python3
DISTRO = kilted
VENV = .venv$(if $(filter-out kilted,$(DISTRO)),-$(DISTRO))
INSTALL = $(strip $(PYTHON) tools/install.py --distro $(DISTRO))
ARGS ?=
JOBS ?= 3
EXTRAS ?=

.DEFAULT_GOAL := help
.PHONY: help venv sim teleop doctor test thorough smoke bench soak fuzz net mutants train docs reference linkcheck clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

venv:  ## install into .venv what running needs; DISTRO=jazzy, here and below, uses .venv-jazzy
	@$(strip $(INSTALL) $(EXTRAS))

sim: venv  ## imagine a robot and show it on a page to drive it from; ARGS="--help" lists what it takes
	@$(VENV)/bin/lingbot-world sim --open $(ARGS)

teleop: venv  ## drive it from the keyboard, in a second terminal
	@$(VENV)/bin/lingbot-world teleop $(ARGS)

doctor: venv  ## check the installation
	@$(VENV)/bin/lingbot-world doctor $(ARGS)

test:  ## install what tests need and run them; EXTRAS="train lingbot" adds those that need torch
	@$(INSTALL) reference test $(EXTRAS)
	@$(VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations 15 $(ARGS)

thorough:  ## the same with the tests that take long, about twice as long in all
	@$(MAKE) test ARGS="--slow $(ARGS)"

smoke:  ## the same in short: drive, show, record and replay a world; with other .venv* here, from one to another
	@$(INSTALL) test
	@$(VENV)/bin/python -m pytest test/test_smoke.py $(ARGS)

bench:  ## measure frame rate, latency, CPU; writes bench/out/
	@$(strip $(INSTALL) bench $(EXTRAS))
	@$(VENV)/bin/python -m bench $(ARGS)

soak: venv  ## run it for half an hour against faults of all kinds (docs/robustness.md)
	@$(VENV)/bin/python -m bench.soak $(ARGS)

fuzz:  ## attack it with 10 000 malformed and hostile cases (docs/robustness.md)
	@$(INSTALL) test
	@PYTHONPATH=test $(VENV)/bin/python -m fuzz $(ARGS)

net:  ## tell whether the package does what it did at a commit: make net BASE=<commit> (docs/robustness.md)
	@$(INSTALL) reference test lingbot report $(EXTRAS)
	@$(VENV)/bin/python tools/net against $(BASE) --allow tools/net/allowed.txt $(ARGS)

mutants:  ## change the core in small ways and count which changes the unit tests notice
	@$(INSTALL) reference test
	@$(VENV)/bin/python tools/mutants.py $(ARGS)

train:  ## install what training needs; docs/training.md has the commands
	@$(INSTALL) reference train

docs:  ## build the documentation as web pages, in docs/_build/html
	@$(INSTALL) docs
	@$(VENV)/bin/python -m sphinx -q -W --keep-going -b html $(ARGS) docs docs/_build/html
	@echo 'Open docs/_build/html/index.html in a browser.'

reference: venv  ## write docs/reference/ from the code
	@$(VENV)/bin/python tools/reference_docs $(ARGS)

linkcheck:  ## ask the net whether what the documentation links to is there
	@$(INSTALL) docs
	@$(VENV)/bin/python -m sphinx -q -b linkcheck $(ARGS) docs docs/_build/linkcheck

clean:  ## remove .venv
	rm -rf $(VENV)
