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
MINUTES ?= 5

VENV := .venv
PY := $(VENV)/bin/python
SAY := printf '==> %s\n'

.PHONY: help
help: ## list these targets
	@echo 'Usage: make TARGET    (make PYTHON=python3.12 TARGET makes .venv with another Python, 3.10 or newer)'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: $(VENV)/.demo ## export EfficientNet-Lite0, run it on a photograph of a cat, write out/demo/
	@$(SAY) 'export EfficientNet-Lite0 and run it on a photograph, into out/demo'
	@$(PY) -m gapcam_export.demo --output out/demo

.PHONY: test
test: $(VENV)/.dev ## run the tests, in a quarter of an hour or less (PYTEST_ARGS="-k boxes" runs some)
	@$(SAY) 'run the tests'
	@# One thread a process: the tests run in as many processes as there are cores.
	@OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses auto --dist worksteal -m 'not slow' $(PYTEST_ARGS)

.PHONY: test-slow
test-slow: $(VENV)/.dev ## run the tests that take longest: soaks, trainings, whole benchmarks, exports of large networks
	@$(SAY) 'run the slow tests'
	@OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses auto --dist worksteal -m slow $(PYTEST_ARGS)

.PHONY: lint
lint: $(VENV)/.dev ## check style, format and types
	@$(SAY) 'ruff check'
	@$(PY) -m ruff check .
	@$(SAY) 'ruff format --check'
	@$(PY) -m ruff format --check .
	@$(SAY) 'mypy --strict on the three packages'
	@$(PY) -m mypy

.PHONY: bench
bench: $(VENV)/.dev ## measure the model of `make demo` on one thread, and what its map costs, in a few minutes (BENCH_ARGS="--quick")
	@[ -e out/demo/model.onnx ] || $(PY) -m gapcam_export.demo --output out/demo
	@$(SAY) 'measure out/demo/model.onnx with and without its map, into out/bench'
	@$(VENV)/bin/gapcam bench out/demo/model.onnx --device cpu --threads 1 --scenario single-stream,camera \
		--json out/bench/result.json --html out/bench/result.html $(BENCH_ARGS)
	@$(SAY) 'measure the steps of a map'
	@$(VENV)/bin/gapcam bench map-cost --seconds 60

.PHONY: bench-full
bench-full: $(VENV)/.dev ## measure all combinations that make sense here, in some hours; goes on where it was stopped (BENCH_ARGS="--rounds 3")
	@[ -e out/demo/model.onnx ] || $(PY) -m gapcam_export.demo --output out/demo
	@$(SAY) 'measure all combinations, into out/bench'
	@$(VENV)/bin/gapcam bench out/demo/model.onnx --device all --precision as-is,int8 --emit plain,features,maps,topk \
		--batch 1,4 --frame 720p,1080p --threads 1,all --scenario single-stream,multi-stream,offline,server,camera \
		--rounds 5 --json out/bench/full.json --html out/bench/full.html $(BENCH_ARGS)

.PHONY: bench-peers
bench-peers: $(VENV)/.dev ## measure torch-cam, grad-cam, OpenVINO and code by hand beside gapcam, into docs/performance.md (BENCH_ARGS="--fresh")
	@[ -e out/demo/model.onnx ] || $(PY) -m gapcam_export.demo --output out/demo
	@$(SAY) 'measure gapcam and its peers, into out/bench and docs/performance.md'
	@$(VENV)/bin/gapcam bench peers --json out/bench/peers.json --html out/bench/peers.html --markdown docs/performance.md $(BENCH_ARGS)

.PHONY: bench-camera
bench-camera: $(VENV)/.dev ## hold how old frames get between a camera and its sinks against the goals (BENCH_ARGS="--json")
	@[ -e out/demo/model.onnx ] || $(PY) -m gapcam_export.demo --output out/demo
	@$(PY) -m gapcam_bench.camera $(BENCH_ARGS)

.PHONY: soak
soak: $(VENV)/.dev ## run four cameras at once against faults; nothing may get lost, slower or larger (MINUTES=5)
	@[ -e out/demo/model.onnx ] || $(PY) -m gapcam_export.demo --output out/demo
	@PYTHONPATH=tests/runtime $(PY) tests/soak/soak.py --minutes $(MINUTES)

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

.PHONY: test-nvrtc
test-nvrtc: $(VENV)/.dev ## compile the kernels with the NVRTC of CUDA 12.2, 12.6 and 13.0, which devices have, in out/nvrtc (no GPU)
	@$(SAY) 'compile the kernels with NVRTC 12.2, 12.6 and 13.0'
	@$(PY) tests/gpu/old_nvrtc.py out/nvrtc

# Debian's names, and Ubuntu's.
TEST_TOOLS := chromium gir1.2-gst-rtsp-server-1.0 python3-gi \
	gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly

.PHONY: test-tools
test-tools: ## install Chromium and GStreamer's RTSP server by apt-get; without them some tests are skipped by name
	@missing=; for tool in $(TEST_TOOLS); do \
		dpkg-query --show --showformat '$${db:Status-Status}' "$$tool" 2>/dev/null | grep -q '^installed' || missing="$$missing $$tool"; \
	done; \
	if [ -z "$$missing" ]; then exit; fi; \
	if [ "$$(id -u)" = 0 ]; then root=; else root='sudo --non-interactive'; fi; \
	if ! command -v apt-get >/dev/null; then \
		echo "not here, and there is no apt-get to install it:$$missing"; \
	elif ! $$root true 2>/dev/null; then \
		echo "not here, and only root may install it: sudo apt-get install$$missing"; \
	else \
		$(SAY) "apt-get install$$missing"; \
		$$root apt-get update --quiet=2 && DEBIAN_FRONTEND=noninteractive $$root apt-get install --quiet=2 --yes --no-install-recommends $$missing || \
			echo "apt-get failed; tests that need these are skipped:$$missing"; \
	fi

.PHONY: test-browser
test-browser: $(VENV)/.dev test-tools ## test the camera's page in a real Chromium; its pictures are kept in out/browser
	@$(SAY) 'test the page in Chromium'
	@OMP_NUM_THREADS=1 $(PY) -m pytest tests/browser $(PYTEST_ARGS)

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
