# The two commands are `make run` and `make test`; they need Python 3.11 or later, and a package index within reach.
# Nothing here needs a compiler, and the path of this folder may have spaces.

VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check --no-input --only-binary :all:
VAR := $(or $(AUREN_VAR),var)
KAFKA_PORT ?= 9092
# make test ARGS="-k ingest" passes arguments to pytest; COVERAGE=1 measures, and `coverage combine` and `report` follow
ARGS ?=
# Processes that the tests run in, each with servers of its own; JOBS=0 is this one alone.
JOBS ?= 2
COVERAGE ?=

.DEFAULT_GOAL := help
.PHONY: help run test lint types migrations docs screenshots
.PHONY: bench bench-batches bench-calls bench-faults bench-load bench-pages bench-profiles bench-ratios bench-readme bench-sides bench-store
.PHONY: kafka clean

help:
	@echo "make run      the whole bridge on this machine, with demo people: http://127.0.0.1:8000"
	@echo "              PORT=8001 another port; AUREN_VAR=folder another place for its data (var/)"
	@echo "              DATABASE_URL, REDIS_URL, KAFKA_BOOTSTRAP_SERVERS: yours in place of the embedded ones"
	@echo "make test     every test, on embedded servers; ARGS='-k ingest' for some"
	@echo "              JOBS=0 in one process, as --pdb wants it (2)"
	@echo "make lint     ruff's rules and format"
	@echo "make types    mypy, strict"
	@echo "make docs     docs/metrics.md anew, out of the code"
	@echo "make screenshots  docs/screenshots anew; needs Chromium"
	@echo "make bench-pages  how soon a timeline is drawn and how it moves; needs Chromium; ARGS='--days 365' of history"
	@echo "make bench    all that has a target, into bench/results; the load test alone takes an hour; ARGS=--short for a glance"
	@echo "make bench-load  of it the load test, verified after each phase; ARGS='--only spike' for one of them"
	@echo "make bench-faults  PostgreSQL, Redis, Kafka, one of three nodes away under load: what callers notice, what is lost"
	@echo "make bench-readme  the table and picture in the README anew, out of the newest results of all"
	@echo "make bench-batches  how soon a phone's 1,000 samples are answered, and can be read"
	@echo "make bench-calls  announcements a second that one worker processes, with vendors that take 120 and 180 ms"
	@echo "make bench-profiles  flame graphs of ingest, worker, publisher and timeline, into bench/profiles; needs wrk, root"
	@echo "make bench-store  what storing and reading cost, on a PostgreSQL of its own; ARGS='--others 100' million rows"
	@echo "make bench-sides  ingest beside a bare reply, Django and FastAPI with a commit each, claims beside one at a time"
	@echo "              and procrastinate; needs wrk; ARGS='--only claims' for a part"
	@echo "make bench-ratios  the ratios of bench/ratios.json, in 2 minutes: fails when one has fallen by a third; needs wrk"
	@echo "make kafka    a real Apache Kafka 4 in the foreground, at KAFKA_PORT=9092; needs Java 17 and Maven"
	@echo "make clean    remove the environment, caches, and the data of make run"
	@echo "PYTHON=python3.12 chooses the Python that $(VENV) is made with."

run: $(VENV)/run.stamp
	@exec $(RUN) manage.py up

test: $(VENV)/test.stamp
	@exec $(RUN) $(if $(COVERAGE),-m coverage run) -m pytest -n $(JOBS) --dist worksteal --durations=10 $(ARGS)

lint: $(VENV)/test.stamp
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(VENV)/test.stamp
	$(RUN) -m mypy .

migrations: $(VENV)/test.stamp
	$(RUN) manage.py makemigrations --check --dry-run

docs: $(VENV)/run.stamp
	$(RUN) manage.py document_metrics

screenshots: $(VENV)/test.stamp
	@exec $(RUN) -m tests.browser.screenshots

bench-pages: $(VENV)/test.stamp
	@exec $(RUN) -m bench.pages $(ARGS)

bench: $(VENV)/sides.stamp $(VENV)-bench/stamp
	@exec $(RUN) -m bench $(ARGS)

bench-load: $(VENV)/run.stamp $(VENV)-bench/stamp
	@exec $(RUN) -m bench.load $(ARGS)

bench-batches: $(VENV)/run.stamp
	@exec $(RUN) -m bench.batches $(ARGS)

bench-faults: $(VENV)/run.stamp $(VENV)-bench/stamp
	@exec $(RUN) -m bench.faults $(ARGS)

bench-calls: $(VENV)/run.stamp
	@exec $(RUN) -m bench.calls $(ARGS)

bench-profiles: $(VENV)/run.stamp $(VENV)-bench/stamp
	@exec $(RUN) -m bench.profiles $(ARGS)

bench-readme: $(VENV)/run.stamp
	@exec $(RUN) -m bench.readme $(ARGS)

bench-store: $(VENV)/test.stamp
	@exec $(RUN) -m bench.store $(ARGS)

bench-ratios: $(VENV)/test.stamp
	@exec $(RUN) -m bench.ratios $(ARGS)

bench-sides: $(VENV)/sides.stamp
	@exec $(RUN) -m bench.sides $(ARGS)

kafka:
	@exec deploy/kafka/run $(KAFKA_PORT)

# A relocated PostgreSQL (see auren/embedded/initdb.py) is a symlink to a folder of its own under /var/lib/auren.
clean:
	@if [ -e "$(VAR)/run.json" ] && kill -0 "$$(cat "$(VAR)/lock" 2>/dev/null)" 2>/dev/null; then \
	  echo "make run is still running here, as process $$(cat "$(VAR)/lock"): stop it first." >&2; exit 1; \
	fi
	@data=$$(readlink "$(VAR)/postgres" || true); \
	case "$$data" in /var/lib/auren/*) rm -rf "$$data";; esac
	@if [ -e "$(VAR)/lock" ]; then rm -rf "$(VAR)"; fi
	rm -rf $(VENV) $(VENV)-bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* deploy/kafka/target
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/run.stamp: requirements.txt | $(RUN)
	@echo "Installing what the bridge runs on into $(VENV) ..."
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/test.stamp: requirements-dev.txt $(VENV)/run.stamp
	@echo "Installing what its tests need into $(VENV) ..."
	@$(PIP) -r requirements-dev.txt
	@touch $@

$(VENV)/sides.stamp: bench/requirements-sides.txt $(VENV)/test.stamp
	@echo "Installing FastAPI, asyncpg and procrastinate into $(VENV) ..."
	@$(PIP) -r bench/requirements-sides.txt
	@touch $@

# Locust brings gevent and Flask, which nothing else here should meet.
$(VENV)-bench/stamp: bench/requirements.txt | $(RUN)
	@echo "Installing Locust into $(VENV)-bench ..."
	@$(RUN) -m venv --clear $(VENV)-bench
	@$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-input --only-binary :all: \
	  -r bench/requirements.txt
	@touch $@

# The first Python that is new enough. A pyenv shim may exist and not run, so each is tried.
$(RUN):
	@for python in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3); do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  "$$python" -c 'import ensurepip, venv' 2>/dev/null || { without_venv="$$python"; continue; }; \
	  exec "$$python" -m venv --clear $(VENV); \
	done; \
	if [ -n "$$without_venv" ]; then \
	  echo "$$without_venv has no module venv: apt-get install $$without_venv-venv (on Debian or Ubuntu)." >&2; \
	else \
	  echo "No Python 3.11 or later found$(if $(PYTHON), as $(PYTHON)): install one, or name it with PYTHON=..." >&2; \
	fi; exit 1
