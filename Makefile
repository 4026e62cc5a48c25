# Every target sets up what it needs, in a virtual environment of its own inside this folder.
# Needed beforehand: make and Python 3.11 or newer, nothing else.

VENV := .venv
VENV_NOAIO := .venv-noaio
VENV_MINISTACK := .venv-ministack
VENV_PEERS := .venv-peers
MINISTACK := ministack>=1.5
VENV_LAMBDA := .venv-lambda
# The client that Lambda's own Python runtimes have, and the oldest boto3 that the functions take.
LAMBDA := awslambdaric>=4.2 boto3==1.36.0 botocore==1.36.0
PYTEST := -m pytest -p tests.plugins.no_hidden_skips
PYTEST_ARGS ?=
SEEDS ?= 10000
# What can tell one boto3 from another, or misses aioboto3; the rest is the same code in both environments.
NOAIO_TESTS ?= tests/cli/ tests/core/ tests/functions/ tests/infra/ tests/integration/ tests/store/ $(wildcard tests/test_*.py)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
ifdef PYTHON
export PYTHON
endif

.PHONY: help demo lambda test test-noaio test-ceph simulate lint format bench bench-peers constraints clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:
	@echo 'make demo        import, list, show and export sample conversations, in a temporary folder'
	@echo 'make lambda      the deployment packages of the functions in infra/, in build/lambda'
	@echo 'make test        every test (PYTEST_ARGS="-k tree" for some)'
	@echo 'make test-noaio  what uses S3 again, without aioboto3, on the newest boto3'
	@echo 'make test-ceph   the tests of S3 on Ceph, as root: makes a Debian tree with it in /var/tmp (700 MB)'
	@echo 'make simulate    the simulation of writers, crashes and faults, as long as you like (SEEDS=100000)'
	@echo 'make lint        ruff and mypy'
	@echo 'make format      let ruff format and mend the code'
	@echo 'make bench       the benchmarks'
	@echo 'make bench-peers one turn of a chat, beside what others keep in S3 for it'
	@echo 'make constraints write the files of exact versions anew'
	@echo 'make clean       remove environments, caches and builds'

demo: $(VENV)/.installed-cli
	@$(VENV)/bin/python examples/demo.py

lambda: build/wheels/.fetched
	@$(VENV)/bin/python infra/build.py

test: $(VENV)/.installed-dev $(VENV_MINISTACK)/.installed $(VENV_LAMBDA)/.installed build/wheels/.fetched
	$(VENV)/bin/python $(PYTEST) $(PYTEST_ARGS)

test-noaio: $(VENV_NOAIO)/.installed-dev $(VENV_MINISTACK)/.installed
	$(VENV_NOAIO)/bin/python $(PYTEST) $(PYTEST_ARGS) $(NOAIO_TESTS)

test-ceph: $(VENV)/.installed-dev
	$(VENV)/bin/python -m tests.servers.ceph $(VENV)/bin/python $(PYTEST) -m s3 $(PYTEST_ARGS)

simulate: $(VENV)/.installed-dev
	$(VENV)/bin/python -m tests.simulation.simulate --seeds $(SEEDS)

lint: $(VENV)/.installed-dev
	@failed=0; for tool in 'ruff check .' 'ruff format --check .' mypy; do \
	  echo "$$tool" && $(VENV)/bin/$$tool || failed=1; \
	done; exit $$failed

format: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(VENV)/.installed-dev
	$(VENV)/bin/python benchmarks/tree_growth.py
	$(VENV)/bin/python benchmarks/import_time.py
	$(VENV)/bin/python benchmarks/index_scale.py
	$(VENV)/bin/python benchmarks/export.py
	$(VENV)/bin/python benchmarks/turn.py

bench-peers: $(VENV_PEERS)/.installed
	$(VENV_PEERS)/bin/python benchmarks/turn.py

# aioboto3 pins an older boto3: with [aio] the tests run on that one, without it on the newest.
constraints:
	.ci/freeze '.[all,dev]' constraints.txt
	.ci/freeze '.[cli,dev]' constraints-noaio.txt
	.ci/freeze '$(MINISTACK)' constraints-ministack.txt
	.ci/freeze '$(LAMBDA)' constraints-lambda.txt
	.ci/freeze '.[peers]' constraints-peers.txt

clean:
	rm -rf $(VENV) $(VENV_NOAIO) $(VENV_MINISTACK) $(VENV_LAMBDA) $(VENV_PEERS)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environments. A stamp is newer than the files that it was installed from, or it is made again.

$(VENV)/bin/python $(VENV_NOAIO)/bin/python $(VENV_MINISTACK)/bin/python $(VENV_LAMBDA)/bin/python $(VENV_PEERS)/bin/python:
	@python=$$(.ci/find-python) && venv=$(@D) && "$$python" -m venv --clear "$${venv%/bin}"

$(VENV)/.installed-cli: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo 'Installing s3conv[cli] into $(@D)' && $(@D)/bin/python -m pip install -q -c constraints.txt -e '.[cli]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo 'Installing s3conv[all,dev] into $(@D)' && $(@D)/bin/python -m pip install -q -c constraints.txt -e '.[all,dev]'
	@touch $@

$(VENV_NOAIO)/.installed-dev: pyproject.toml constraints-noaio.txt | $(VENV_NOAIO)/bin/python
	@echo 'Installing s3conv[cli,dev] into $(@D)' && $(@D)/bin/python -m pip install -q -c constraints-noaio.txt -e '.[cli,dev]'
	@touch $@

# The S3 server of the tests. It pins botocore, hence an environment of its own.
$(VENV_MINISTACK)/.installed: constraints-ministack.txt | $(VENV_MINISTACK)/bin/python
	@echo 'Installing MiniStack into $(@D)' && $(@D)/bin/python -m pip install -q -c constraints-ministack.txt '$(MINISTACK)'
	@touch $@

# What s3conv is measured beside, and s3conv itself: all on the same Python and the same boto3.
$(VENV_PEERS)/.installed: pyproject.toml constraints-peers.txt | $(VENV_PEERS)/bin/python
	@echo 'Installing s3conv and its peers into $(@D)' && $(@D)/bin/python -m pip install -q -c constraints-peers.txt -e '.[peers]'
	@touch $@

# Where the functions run in tests as in Lambda: the runtime's client and boto3, without s3conv.
$(VENV_LAMBDA)/.installed: constraints-lambda.txt | $(VENV_LAMBDA)/bin/python
	@echo "Installing Lambda's runtime client into $(@D)" && $(@D)/bin/python -m pip install -q -c constraints-lambda.txt $(foreach one,$(LAMBDA),'$(one)')
	@touch $@

# What the deployment packages hold beside this project: for the runtime's platforms, and for this one, where tests run.
build/wheels/.fetched: pyproject.toml constraints.txt infra/build.py | $(VENV)/bin/python
	@echo 'Fetching the wheels of the deployment packages into $(@D)' && $(VENV)/bin/python infra/build.py fetch
	@touch $@
