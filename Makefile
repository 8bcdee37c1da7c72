# `make` alone lists the targets. All set-up happens by itself: .venv is made when it is missing or out of date.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONDONTWRITEBYTECODE := 1
SANDBOX := molecule/sandbox/sandbox
PLAY := ansible-playbook -i inventories/sandbox

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: sandbox ## boot the sandbox Droplet, rotate its HMAC secret over SSH, show its status
	@$(PLAY) playbooks/bootstrap.yml
	@$(PLAY) playbooks/start.yml
	@$(PLAY) playbooks/rotate_hmac.yml
	@$(PLAY) playbooks/status.yml

.PHONY: test
test: venv ## everything below, with a table of results at the end
	@scripts/steps lint sanity unit molecule

.PHONY: lint
lint: venv ## ansible-lint (production), yamllint, ruff, mypy, shellcheck, changelog fragments
	@scripts/lint

.PHONY: sanity
sanity: venv ## ansible-test sanity, every test, no ignore file
	@scripts/sanity

.PHONY: unit
unit: venv ## the unit tests, under each supported Python that this machine has
	@scripts/unit

.PHONY: molecule
molecule: venv ## every molecule scenario on the sandbox Droplet, or one: scenario=NAME
	@scripts/molecule $(scenario)

.PHONY: bench
bench: sandbox ## rotations, backups and restores against the runbook's own commands, side by side on the sandbox
	@failed=0; for name in rotate_hmac rotate_db_password backups; do \
	  echo "--- $$name"; python tests/bench/$$name.py || failed=1; done; exit $$failed

.PHONY: chaos
chaos: sandbox ## both fault matrices on the sandbox, or one (of=rotations, of=backups), or a part: args="-h"
	@$(PLAY) playbooks/bootstrap.yml >/dev/null
	@$(PLAY) playbooks/start.yml >/dev/null
	@failed=0; for name in $(or $(of:rotations=chaos),chaos backups); do \
	  echo "--- $$name"; python tests/chaos/$$name.py $(args) || failed=1; done; exit $$failed

.PHONY: sandbox
sandbox: venv ## start the sandbox Droplet and keep it running
	@$(SANDBOX) up

.PHONY: sandbox-down
sandbox-down: ## remove the sandbox Droplet without a trace
	@$(SANDBOX) down

.PHONY: clean
clean: ## remove what make made in the checkout (the sandbox: make sandbox-down)
	@rm -rf .venv .cache .ansible .mypy_cache .pytest_cache .ruff_cache .hypothesis titan-ops-*.tar.gz

.PHONY: venv
venv: # always asked, never in the way: it does nothing when all is as it should be
	@scripts/venv newest >/dev/null
