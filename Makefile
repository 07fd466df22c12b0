# Commands for users and developers. Every target installs what it needs first (`setup`, instant when done).

.DEFAULT_GOAL := help
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
# Without bytecode every process compiles mlflow and torch again, for seconds.
unexport PYTHONDONTWRITEBYTECODE

# Loopback never goes through a proxy.
empty :=
comma := ,
loopback := $(subst $(empty) $(empty),$(comma),$(strip $(no_proxy) $(NO_PROXY) 127.0.0.1 localhost))
export no_proxy := $(loopback)
export NO_PROXY := $(loopback)

# Values given on the command line reach the programs by the environment, with their quotes and $.
$(foreach name,VERSION REASON OVERRIDE_GATE CANDIDATE_URL SERVICE_URL NAME FROM SET,\
	$(if $(filter command,$(firstword $(origin $(name)))),\
		$(eval override export $(name) := $$(value $(name)))))
needs = @test -n "$$$(1)" || { printf 'error: no $(1)\nhint: make $@ $(1)=%s\n' '$(2)' >&2; exit 2; }
compose = $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

.PHONY: $(shell sed -nE 's/^([a-z-]+):.*/\1/p' $(firstword $(MAKEFILE_LIST)))

help: ## list these commands
	@awk 'BEGIN { FS = ":.*## " } /^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-26s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST)) \
		|| [ $$? = 141 ]  # a closed pipe: `make help | head`

##@ Start
run: setup ## train, register, promote and ask the served model one question
	@python -m scripts.quickstart
serve: setup ## serve Production in the foreground (PORT=8000)
	@python -m serving
docker: setup ## the same as run in containers, which keep running (compose.yaml)
	@$(compose) version >/dev/null 2>&1 || \
		{ printf 'error: there is no Docker Compose\nhint: install its plugin for Docker\n' >&2; exit 2; }
	@$(compose) up --build --detach
	@COMPOSE="$(compose)" python -m scripts.quickstart --docker

##@ Team (deploy/team)
up: ## start MLflow on PostgreSQL and S3, and two services (COMPOSE_PROFILES=monitoring)
	@deploy/team/secrets.sh
	@cd deploy/team && $(compose) up --build --detach
down: ## stop them; the volumes keep all data
	@cd deploy/team && COMPOSE_PROFILES=monitoring $(compose) down
check-deploy: ## check what is in deploy/ (needs docker-compose, nginx, promtool)
	@scripts/check_deploy.sh

##@ Develop
setup: ## install requirements/dev.lock into .venv
	@scripts/setup.sh
setup-ray: setup ## add requirements/ray.lock: with RAY_ADDRESS set, evaluate runs on that cluster
	@python -m pip install --quiet --disable-pip-version-check -r requirements/ray.lock
lock: setup ## write the lock files from requirements/*.in
	@uv pip compile -q --universal --python-version 3.11 --custom-compile-command 'make lock' \
		--config-file requirements/lock.toml requirements/dev.in -o requirements/dev.lock
	@uv pip compile -q --universal --python-version 3.11 --custom-compile-command 'make lock' \
		--config-file requirements/lock.toml --generate-hashes -c requirements/dev.lock \
		--excludes requirements/serving-excludes.txt \
		requirements/serving.in -o requirements/serving.lock
	@uv pip compile -q --universal --python-version 3.11 --custom-compile-command 'make lock' \
		-c requirements/dev.lock requirements/ray.in -o requirements/ray.lock
test: setup lint ## lint, check types and run all tests
	@python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
lint: setup ## check style and types
	@ruff check --quiet . && ruff format --check --quiet . && mypy
format: setup ## format the code and fix style where ruff can
	@ruff check --fix --quiet . ; ruff format --quiet .

sbom: setup ## list what the serving image installs: sbom.json, in CycloneDX
	@PYTHONWARNINGS=ignore uvx --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py requirements requirements/serving.lock \
		--pyproject pyproject.toml --output-reproducible --output-file sbom.json
audit: setup ## look up known vulnerabilities of what the serving image installs
	@uvx --quiet --from pip-audit==2.10.1 pip-audit --strict --disable-pip --require-hashes \
		--requirement requirements/serving.lock

##@ Experiments
experiment: setup ## run the pipeline in a copy with experiments/NAME.yaml (NAME=four-operations)
	$(call needs,NAME,four-operations)
	@python -m scripts.experiment "$$NAME"
sweep: setup-ray ## run the pipeline on Ray with each combination of params (SET=train.seed=1,2)
	$(call needs,SET,train.seed=1$(comma)2)
	@set -f; python -m scripts.sweep $$SET
hard-cases: setup ## add a service's wrong answers to the training data (FROM=mispredictions.jsonl)
	$(call needs,FROM,mispredictions.jsonl)
	@python -m scripts.hard_cases "$$FROM"
seeds: setup ## train and certify ten other seeds
	@python -m benchmarks.seeds

##@ Registry
promote: setup ## make VERSION=3 Production (REASON="…", OVERRIDE_GATE="…", CANDIDATE_URL=…)
	$(call needs,VERSION,3)
	@python -m registry.promotion "$$VERSION" $${REASON:+--reason "$$REASON"} \
		$${OVERRIDE_GATE:+--override-gate "$$OVERRIDE_GATE"} \
		$${CANDIDATE_URL:+--candidate-url "$$CANDIDATE_URL"}
rollback: setup ## make Previous Production again (REASON="…")
	@python -m registry.promotion --rollback $${REASON:+--reason "$$REASON"}
lineage: setup ## check the chain from a version to its run, lock, commit and data (VERSION=3)
	@python -m registry.lineage $${VERSION:+"$$VERSION"}

##@ Documents
docs: setup ## build the documentation site into site/
	@zensical build --strict
docs-serve: setup ## serve the site on port 8010, anew after each edit
	@zensical serve --dev-addr localhost:8010
reference: setup ## write docs/reference/ from the code
	@python -m scripts.reference
test-docs: setup ## run the commands of tutorial and how-tos in clones, as a user would
	@python -m benchmarks.tutorial
screenshots: setup ## take the docs' pictures of pages and plots (needs chromium)
	@python -m scripts.screenshots
tables: setup ## write the tables of README and docs from the committed results
	@python -m benchmarks.tables
figures: setup ## draw the figures of README and docs
	@python -m benchmarks.figures

##@ Proofs
certify-full: setup ## decode every equation of the domain with the served graphs
	@python -m benchmarks.certify_full
reproduce: setup ## retrain in a clone of the last commit and compare every hash
	@python -m benchmarks.reproduce
reproduce-cpus: setup ## a short pipeline on emulated Intel and AMD CPUs: the same bytes
	@python -m benchmarks.reproduce_cpus

##@ Benchmarks
bench-setup: setup ## seconds to install the lock, by pip and by uv
	@python -m benchmarks.setup
bench-noop: setup ## seconds of a dvc repro with nothing to do
	@python -m benchmarks.pipeline --noop
bench-pipeline: setup ## seconds of each stage, on all cores and on one
	@python -m benchmarks.pipeline
bench-ray: setup-ray ## seconds of the certification by Ray workers, beside joblib's processes
	@python -m benchmarks.ray_workers
bench-decoders: setup ## milliseconds of the decoder graphs, beside the first version's
	@python -m benchmarks.decoders
bench-grpo: setup ## reinforcement learning against supervised steps, from the same start
	@python -m benchmarks.grpo_comparison
bench-serving: setup ## requests per second, beside other servers (needs wrk)
	@python -m benchmarks.serving
bench-serving-environment: setup ## start-up time, memory and disk of the service
	@python -m benchmarks.serving --environment
bench-replicas: setup ## one and two services behind nginx on the same cores (needs wrk, nginx)
	@python -m benchmarks.replicas
bench-profile: setup ## where the service spends its core under load (needs wrk, root)
	@python -m benchmarks.serving --profile
bench-faults: setup ## the service under overload, kills, swaps and bad input
	@python -m benchmarks.faults
bench-kills: setup ## kill -9 at a thousand points of dvc repro
	@python -m benchmarks.kills
bench-restarts: setup ## restart each part of the team's stack under load (needs docker)
	@python -m benchmarks.restarts
