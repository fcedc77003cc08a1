# make          build ./p2pchat, one executable file
# make test     run the tests
# make simulate N=10000 KILL=50   N members join, KILL % of them die at once: how the rest heals
# make demo N=6 N members in panes of tmux, joined and ready to type in (4 without N)
# make watch    members talk, are killed and come back by themselves; checked to the last message
# make picture  the pictures in the README, from a real session
# make torture  the program among hostile neighbours, for minutes; ONLY=flood for one part of it
# make bench    how fast it is, beside others, as ratios; P2PCHAT_C=/path/to/binary adds the C program,
#               ONLY="thr talk" measures only these parts
# make clean    remove what make made
#
# Needs Python 3.9 or newer, pip and make; everything else is fetched into .build/.

PYTHON ?= python3

# Every dependency, pinned. blessed brings the other two.
RUNTIME = blessed==1.52.0 jinxed==2.1.0 wcwidth==0.9.4
TESTING = pytest==8.4.2

# Half of the tests, by the time that they take.
HALF = tests/test_network.py tests/test_hostile.py tests/test_demo.py

SOURCES = p2pchat.py ui.py message.py peers.py
INSTALL = PIP_ROOT_USER_ACTION=ignore $(PYTHON) -m pip install --quiet --disable-pip-version-check --no-compile
# $(PYTHON) -B: a test run leaves no byte code behind beside the sources.
RUN = PYTHONPATH=.build/runtime:.build/testing $(PYTHON) -B

# zipapp packs the directory; the byte code in it spares every start 200 ms of compiling, and
# "unchecked-hash" keeps it valid in a zip, which has no useful file times. A zip cannot load C
# extensions: without the optional one wcwidth uses its Python code. The licences stay inside.
p2pchat: $(SOURCES) .build/runtime/done
	rm -rf .build/stage
	cp -R .build/runtime .build/stage
	rm -rf .build/stage/bin .build/stage/done
	cp $(SOURCES) .build/stage
	$(PYTHON) -m compileall -q --invalidation-mode unchecked-hash -b .build/stage
	$(PYTHON) -m zipapp .build/stage --compress --main p2pchat:main --python "/usr/bin/env python3" --output .build/p2pchat
	chmod 755 .build/p2pchat
	mv .build/p2pchat p2pchat

.build/runtime/done: Makefile
	rm -rf .build/runtime
	$(INSTALL) --target .build/runtime $(RUNTIME)
	find .build/runtime -name '*.so' -delete
	touch $@

.build/testing/done: Makefile
	rm -rf .build/testing
	$(INSTALL) --target .build/testing $(TESTING)
	touch $@

.PHONY: test simulate demo watch picture torture bench clean
test: p2pchat .build/testing/done
	@# Two at once, for two cores; what the first one says is shown behind the second.
	@$(RUN) -m pytest -q -rs -p no:cacheprovider $(HALF) > .build/half.log 2>&1 & half=$$!; \
	$(RUN) -m pytest -q -rs -p no:cacheprovider $(HALF:%=--ignore=%) tests; rest=$$?; \
	wait $$half; half=$$?; cat .build/half.log; exit $$((rest || half))

simulate: N ?= 1000
simulate: KILL ?= 50
simulate:
	$(RUN) tests/simulator.py $(N) $(KILL)

demo: N ?= 4
demo: p2pchat
	@$(RUN) tests/demo.py "$(N)"

watch: p2pchat
	@$(RUN) tests/watch.py

# The model of a terminal that draws them is part of the tests.
picture: p2pchat .build/testing/done
	$(RUN) tests/picture.py

ONLY ?=
torture: p2pchat .build/testing/done
	$(RUN) tests/torture.py $(ONLY)

bench: p2pchat
	@$(RUN) tests/bench.py $(ONLY)

clean:
	rm -rf .build p2pchat
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
