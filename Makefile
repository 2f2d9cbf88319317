# Three commands do everything on a fresh machine with Python and make:
#   make demo    set up, then analyse a real mask: a table, JSON, CSV and a figure in demo-out/
#   make quick   while working: lint, types and the quick tests, in under a minute; `make quick T=metrics` for one room
#   make test    set up, then every check that CI runs
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := notebooks/masks/synflow_resnet20_d0.02.safetensors

# Two processes, which share what they compile (topo.kernels locks the cache); one that is done takes tests of the other.
# torch and LAPACK run on one thread in each: two of them on two cores would wait for one another.
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest --quiet --numprocesses 2 --dist worksteal
# The tests of a room: those called as it, or else those that import it.
OF_ROOM = $(or $(wildcard tests/test_$(T).py tests/test_$(T)_*.py),$(shell grep -lw "topo.$(T)" tests/test_*.py),$(error no test is called or imports '$(T)'))

.PHONY: demo quick test test-browser lint types suite interpreted boundscheck fuzz benchmarks docs trace-random trace-zoo clean

$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test]"
	touch $(READY)

demo: $(READY)
	mkdir -p demo-out
	$(BIN)/topo analyze $(DEMO) --model resnet20 \
		--json demo-out/report.json --csv demo-out/report.csv --plot demo-out/layers.pdf
	@echo "wrote demo-out/report.json, demo-out/report.csv and demo-out/layers.pdf"

test: lint types suite interpreted boundscheck

# With a room, all its tests but the slow ones; some rooms have none that the interpreter could run (`small`).
quick: lint types
	$(PYTEST) $(if $(T),-m "not slow" $(OF_ROOM),-m "small and not slow")

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/typos

types: $(READY)
	$(BIN)/mypy --package topo

# The whole suite, kernels compiled.
suite: $(READY)
	$(PYTEST)

# The HTML page in a browser, which is installed for it where apt may; without one these tests are skipped.
test-browser: $(READY)
	command -v chromium || apt-get install --yes --quiet chromium
	$(PYTEST) tests/test_page.py tests/test_page_graph.py

# The kernels as plain Python, on small sizes: arithmetic that only the compiler forgives shows here. Tests that run no
# kernel, or take long on lines that others reach, are not repeated.
OF_KERNELS = -m "small and kernels and not slow"
interpreted: $(READY)
	NUMBA_DISABLE_JIT=1 $(PYTEST) $(OF_KERNELS)

# Every index checked; a cache of its own, since compiled code does not record the flag.
boundscheck: $(READY)
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(VENV)/boundscheck $(PYTEST) $(OF_KERNELS)

# Damaged files, N of every kind: no traceback, no wait over 5 s, no more than 1 GB, no code run.
N ?= 20000
fuzz: $(READY)
	$(BIN)/python -W ignore benchmarks/fuzz_files.py --count $(N)

benchmarks: $(READY)
	$(BIN)/python benchmarks/run.py

# The documentation, from pages, docstrings, registries and parsers; warnings are errors, no network is needed.
docs: $(READY)
	$(BIN)/python -m sphinx --fresh-env --fail-on-warning --keep-going --quiet --builder html docs docs/_build/html
	@echo "wrote docs/_build/html/index.html"

# Random networks whose traces are held against gradients; the suite takes two thousand of them.
N ?= 50000
trace-random: $(READY)
	$(BIN)/python benchmarks/trace_random.py $(N)

# Families of timm and torchvision, where they are installed; the table of docs/models.md.
trace-zoo: $(READY)
	$(BIN)/python benchmarks/trace_zoo.py

clean:
	rm -rf $(VENV) demo-out
