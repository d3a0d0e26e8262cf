# The only set of commands: people, the README and CI use these. `make` alone lists them.
#
# Every target that needs an environment makes it: .venv, with the versions of constraints.txt. Stamp files in it say
# which extras are installed, so that the second time takes seconds; one is written only when its install has finished.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

PYTHON ?= python3
PYTEST_ARGS ?=
BENCH_ARGS ?=
GPU_ARGS ?=
MODELS_ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
SAY := printf '==> %s\n'

.PHONY: help
help: ## list these targets
	@echo 'Usage: make TARGET    (make PYTHON=python3.12 TARGET makes .venv with another Python, 3.10 or newer)'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-9s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: $(VENV)/.demo ## export EfficientNet-Lite0, run it on a photograph of a cat, write out/demo/
	@$(SAY) 'export EfficientNet-Lite0 and run it on a photograph, into out/demo'
	@$(PY) -m gapcam_export.demo --output out/demo

.PHONY: test
test: $(VENV)/.dev ## run every test (PYTEST_ARGS="-k boxes" runs some)
	@$(SAY) 'run the tests'
	@# One thread a process: the tests run in as many processes as there are cores.
	@OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses auto --dist worksteal $(PYTEST_ARGS)

.PHONY: lint
lint: $(VENV)/.dev ## check style, format and types
	@$(SAY) 'ruff check'
	@$(PY) -m ruff check .
	@$(SAY) 'ruff format --check'
	@$(PY) -m ruff format --check .
	@$(SAY) 'mypy --strict on the three packages'
	@$(PY) -m mypy

.PHONY: bench
bench: $(VENV)/.demo ## measure what a map costs, on the model that `make demo` made (BENCH_ARGS="--json")
	@$(PY) -m gapcam_bench $(BENCH_ARGS)

.PHONY: test-gpu
test-gpu: $(VENV)/.dev ## run the tests that need a GPU; what the machine lacks is skipped by name
	@$(SAY) 'run the tests of the GPU'
	@$(PY) -m pytest tests/gpu $(PYTEST_ARGS)

.PHONY: test-pycuda
test-pycuda: $(VENV)/.dev ## build PyCUDA in out/pycuda and test its driver without a GPU (a minute or two, once)
	@$(SAY) 'build PyCUDA in out/pycuda, unless it is there'
	@$(PY) tests/gpu/build_pycuda.py out/pycuda
	@$(SAY) "run the GPU's tests on the host, through PyCUDA, too"
	@PYTHONPATH="$(CURDIR)/out/pycuda" OMP_NUM_THREADS=1 $(PY) -m pytest tests/runtime/cuda/test_host_libcuda.py $(PYTEST_ARGS)

.PHONY: bench-gpu
bench-gpu: $(VENV)/.demo $(VENV)/.dev ## measure whatever the GPU offers, into benchmarks/results (GPU_ARGS="--quick")
	@$(SAY) 'measure the GPU'
	@# Where there is a GPU, on the demo's model.
	@[ -e out/demo/model.onnx ] || \
		$(PY) -c 'import sys; from gapcam.cuda.presence import presence; sys.exit(not presence().problem)' || \
		$(PY) -m gapcam_export.demo --output out/demo
	@$(PY) -m gapcam_bench.gpu $(GPU_ARGS)

.PHONY: models
models: $(VENV)/.demo ## make docs/models.md: export many models, in an hour or so (MODELS_ARGS="--fresh")
	@$(SAY) "export torchvision's and timm's models, into docs/models.md"
	@$(PY) -m gapcam_export.model_table --output docs/models.md $(MODELS_ARGS)

.PHONY: wheel
wheel: $(VENV)/.dev ## build dist/gapcam-*.whl
	@$(SAY) 'build the wheel into dist'
	@$(PY) -m build --wheel --no-isolation --outdir dist

.PHONY: clean
clean: ## remove out, dist and the caches; the environment stays (rm -r .venv removes it)
	@$(SAY) 'remove out, dist and the caches'
	@rm -rf out dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find runtime export benchmarks tests -type d -name __pycache__ -prune -exec rm -rf {} +

# The environment.

.PHONY: FORCE
FORCE:

# .home holds the folder that the environment was made for: editable installs and scripts point there, so one that was
# moved or copied is made anew, and so is one that does not start or was left half made. An environment without .home
# that works is somebody's own and is used as it is. The file is written only on a change, so nothing is redone else.
$(VENV)/.home: FORCE
	@here=$$(pwd -P); was=$$(cat $@ 2>/dev/null || echo "$$here"); \
	if [ "$$was" = "$$here" ] && $(PY) -c 'import pip, sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then \
		if [ -e $@ ]; then exit; fi; \
		$(SAY) 'use the $(VENV) that is here'; \
	else \
		if ! found=$$($(PYTHON) --version 2>&1); then \
			echo 'gapcam needs Python 3.10 or newer, and "$(PYTHON)" does not start here. Name one: make PYTHON=/path/to/python3 $(MAKECMDGOALS)' >&2; exit 1; \
		elif ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then \
			echo "gapcam needs Python 3.10 or newer, and \"$(PYTHON)\" is $$found. Name another: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; \
		elif ! $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null; then \
			echo "\"$(PYTHON)\" ($$found) has no venv and ensurepip, which make the environment. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
		fi; \
		if [ "$$was" != "$$here" ]; then $(SAY) "$(VENV) was made in $$was: make it anew"; \
		elif [ -e $(VENV) ]; then $(SAY) '$(VENV) does not work: make it anew'; fi; \
		$(SAY) "make $(VENV) with $$found"; \
		rm -f $(VENV)/.demo $(VENV)/.dev; \
		$(PYTHON) -m venv --clear $(VENV) || exit; \
	fi; \
	echo "$$here" > $@

# $(call install,extra): with pip's progress the first time, quiet where an earlier install only needs bringing up to
# date. Indexes of the user's that do not know a package are not worth a line each: the inner braces send pip's standard
# error through grep, and pip's exit status past it.
define install
	@$(SAY) 'install gapcam[$1] with the versions of constraints.txt$(if $(wildcard $@),, (some minutes and gigabytes the first time))'
	@exec 3>&1; status=$$({ { \
		$(PY) -m pip install --disable-pip-version-check $(if $(wildcard $@),--quiet) \
			--constraint constraints.txt --editable '.[$1]' 2>&1 >&3 3>&- 4>&-; echo $$? >&4; \
	} | grep -v '^WARNING: Location .* is ignored' >&2; } 4>&1); exit "$$status"
	@touch $@
endef

$(VENV)/.demo: $(VENV)/.home pyproject.toml constraints.txt
	$(call install,demo)

# The extra dev contains demo.
$(VENV)/.dev: $(VENV)/.home pyproject.toml constraints.txt
	$(call install,dev)
	@touch $(VENV)/.demo
