# Everything a user types. `make run` and `make test` set up what they need.
# A target that needs Python depends on `setup`, which is done once and again when the lock changes.

.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON_ENV := .venv/bin
export PATH := $(CURDIR)/$(PYTHON_ENV):$(PATH)
export DVC_NO_ANALYTICS := 1
# By the environment, so that quotes and $ in a reason stay what they are.
export VERSION REASON OVERRIDE_GATE SHADOW_URL FROM TO KEY

.PHONY: help setup lock run four-operations serve promote candidate hard-cases rollback deliver \
	trace keys docker test lint format clean mend gc seeds frontier six-digits bench-beam \
	certify-full reproduce reproduce-cpus bench-kills bench-decoders bench-serving bench-serving-environment \
	bench-faults tampering bench-pipeline

help: ## what there is to type
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 28

setup: .venv/stamp ## make .venv from the lock file

.venv/stamp: requirements/dev.lock
	@scripts/setup.sh

lock: setup ## write the lock files after an edit of requirements/*.in
	@python -m pip install -qq uv==0.13.9
	@uv pip compile -q --universal --python-version 3.11 --custom-compile-command 'make lock' \
		requirements/dev.in -o requirements/dev.lock
	@uv pip compile -q --universal --python-version 3.11 --custom-compile-command 'make lock' \
		--generate-hashes -c requirements/dev.lock requirements/serving.in -o requirements/serving.lock

run: setup ## the whole walk: dvc repro, register, promote, serve, one real prediction
	@python -m scripts.walk

four-operations: setup ## train, evaluate and register the second configuration: + - * /
	@python -m scripts.mend four-operations
	@cd four-operations && PYTHONPATH=.. python -m dvc repro
	@mkdir -p docs/certificates && cp four-operations/metrics/evaluation.json \
		docs/certificates/four-operations.json

serve: setup ## serve Production in the foreground from the default store (PORT=8000)
	@python -m scripts.serve

promote: setup ## make VERSION=3 Production, after the gate (REASON="…", OVERRIDE_GATE="why", SHADOW_URL=… SHADOW_ANSWERS=1000)
	@python -m registry.promote "$$VERSION" $(if $(REASON),--reason "$$REASON") \
		$(if $(OVERRIDE_GATE),--override-gate "$$OVERRIDE_GATE") \
		$(if $(SHADOW_URL),--shadow-url "$$SHADOW_URL") \
		$(if $(SHADOW_ANSWERS),--shadow-answers $(SHADOW_ANSWERS))

candidate: setup ## let services try VERSION=4 beside Production; without VERSION, none any more
	@python -m registry.candidate $(if $(VERSION),"$$VERSION")

hard-cases: setup ## equations answered wrongly FROM=…/hard-cases.jsonl into hard_cases.csv, which training reads (TO=…)
	@python -m scripts.hard_cases "$$FROM" $(if $(TO),--to "$$TO")

rollback: setup ## return to the previous Production version (REASON="…")
	@python -m registry.promote --rollback $(if $(REASON),--reason "$$REASON")

deliver: setup ## record what a tracking server did not take when it was made
	@python -m registry.deliver

trace: setup ## from a served answer to a line of code, every link checked (VERSION=3, SERVICE_URL=…)
	@python -m registry.trace $(if $(VERSION),"$$VERSION")

keys: setup ## a pair of keys for SIGNING_KEY and TRUSTED_KEY (KEY=signing-key)
	@python -m registry.signing "$${KEY:-signing-key}"

docker: setup ## build the image, run Production in a container, ask it one question
	@python -m scripts.docker

test: setup lint ## lint, types and all tests
	@python -m pytest -n 2 --dist loadfile

lint: setup ## ruff and mypy
	@ruff check --quiet . && ruff format --check --quiet . && echo "ruff: clean"
	@mypy

format: setup ## let ruff mend what it can
	@ruff check --fix --quiet . ; ruff format .

mend: setup ## after a kill -9: remove what a killed DVC left and no `dvc repro` accepts
	@python -m scripts.mend . four-operations

clean: setup ## caches of tools: what would go; YES=1 deletes it
	@python -m scripts.clean $(if $(YES),--yes)

gc: setup ## what DVC's cache holds and no lock, commit or version needs; YES=1 deletes it
	@python -m scripts.gc $(if $(YES),--yes)

seeds: setup ## ten fresh seeds of the default recipe, each certified on its whole domain
	@python -m benchmarks.seeds

frontier: setup ## the smallest exact models by parameters, and the smallest training set
	@python -m benchmarks.frontier

six-digits: setup ## + and - over 0-999999 by params alone, certified by a sample
	@python -m benchmarks.six_digits

bench-beam: setup ## what a beam search changes on a model that is not exact yet
	@python -m benchmarks.beam

certify-full: setup ## every equation of both domains, decoded by the graphs that serve (minutes)
	@python -m benchmarks.certify_full
	@python -m benchmarks.certify_full --bundle four-operations/bundle \
		--result certify-full-four-operations

reproduce: setup ## dvc.lock again from nothing, in a clone of the last commit; prints a certificate
	@python -m benchmarks.reproduce

reproduce-cpus: setup ## a shortened pipeline here and on emulated Intel and AMD CPUs: same hashes?
	@python -m benchmarks.reproduce_cpus

bench-kills: setup ## kill -9 at 1,000 points of dvc repro; an earlier run is gone on with (most of an hour)
	@python -m benchmarks.kills --jobs 2

bench-decoders: setup ## the serving graphs beside those of AGAINST=COMMIT, milliseconds
	@python -m benchmarks.decoders $(or $(AGAINST),$(error say AGAINST=COMMIT))

bench-serving: setup ## this service beside a constant answer, torch and four servers (needs wrk)
	@python -m benchmarks.serving

bench-serving-environment: setup ## what serving costs: seconds to start, memory, disk
	@python -m benchmarks.serving_environment

bench-faults: setup ## load, overload, kills, promotions, bad input, SIGTERM and a soak (minutes)
	@python -m benchmarks.faults

tampering: setup ## tamper with a recorded version in every way of the table, try every door
	@python -m benchmarks.tampering

bench-pipeline: setup ## seconds of both pipelines, from nothing, in a clone of the last commit
	@python -m benchmarks.pipeline
	@taskset -c 0 python -m benchmarks.pipeline --result pipeline-one-core
	@python -m benchmarks.pipeline --project four-operations --result four-operations
