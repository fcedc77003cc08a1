# make          build ./p2pchat, one executable file
# make test     run the tests; ONLY="tests/test_ui.py -k paste" some of them
# make simulate N=10000 KILL=50   N members join, KILL % of them die at once: how the rest reconnect
# make hunt     new random runs of small networks, and all schedules of a tiny one, until Ctrl-C; from FROM=1000 on; prints
#               the shortest that fails
# make break    breakages of the network; M=never_relay applies one, and shows which tests find it
# make demo N=6 N members in tmux panes, connected and ready to type in (4 without N)
# make watch    members talk, are killed and come back by themselves; checked to the last message
# make picture  the pictures in the README, from a real session and from what was measured;
#               ANEW=1 P2PCHAT_C=/path/to/binary measures first, for minutes
# make torture  the program among hostile neighbours, for minutes; ONLY=flood for one part of it
# make bench    how fast it is, beside others, with its goals; P2PCHAT_C=/path/to/binary adds the C program,
#               ONLY="--json FILE thr talk" measures only these parts, and keeps the figures
# make clean    remove what make made
#
# Needs Python 3.9 or newer, pip and make; everything else is fetched into .build/.

PYTHON ?= python3

# Every dependency, pinned. blessed brings the other two.
RUNTIME = blessed==1.52.0 jinxed==2.1.0 wcwidth==0.9.4
TESTING = pytest==8.4.2

SOURCES = p2pchat.py ui.py message.py peers.py
FETCH = "$(PYTHON)" .ci/fetch
COMPILE = "$(PYTHON)" -m compileall -q --invalidation-mode unchecked-hash -b
# The byte code of all that a test run loads is kept, but not beside the sources.
RUN = PYTHONPATH=.build/runtime:.build/testing PYTHONPYCACHEPREFIX="$(CURDIR)/.build/bytecode" "$(PYTHON)"

# What runs first in the built file. A parser of ten years ago can read it, so an old Python says one clear sentence.
define MAIN
import sys
if sys.version_info < (3, 9):
    sys.exit("p2pchat: Python 3.9 or newer is needed, and python3 is Python %d.%d here" % sys.version_info[:2])
import p2pchat
p2pchat.main()
endef
export MAIN

# zipapp packs the directory; the byte code in it spares every start 200 ms of compiling, and
# "unchecked-hash" keeps it valid in a zip, which has no useful file times. A zip cannot load C
# extensions: without the optional one wcwidth uses its Python code. The licences stay inside.
#
# The old ./p2pchat is removed first: if the file is there, it is complete, and made of these sources.
p2pchat: $(SOURCES) .build/runtime/done
	rm -rf p2pchat .build/stage
	cp -R .build/runtime .build/stage
	rm -rf .build/stage/bin .build/stage/done
	cp $(SOURCES) .build/stage
	printf '%s\n' "$$MAIN" > .build/stage/__main__.py
	$(COMPILE) $(SOURCES:%=.build/stage/%) .build/stage/__main__.py
	"$(PYTHON)" -m zipapp .build/stage --compress --python "/usr/bin/env python3" --output .build/p2pchat
	chmod 755 .build/p2pchat
	mv .build/p2pchat p2pchat

.build/runtime/done: Makefile .ci/fetch
	rm -f p2pchat
	$(FETCH) .build/runtime $(RUNTIME)
	find .build/runtime -name '*.so' -delete
	$(COMPILE) .build/runtime
	touch $@

.build/testing/done: Makefile .ci/fetch
	$(FETCH) .build/testing $(TESTING)
	touch $@

.PHONY: test simulate hunt break demo watch picture torture bench clean
ONLY ?=
test: p2pchat .build/testing/done
	@$(RUN) tests/run.py $(ONLY)

simulate: N ?= 1000
simulate: KILL ?= 50
simulate:
	$(RUN) tests/simulator.py $(N) $(KILL)

hunt:
	@$(RUN) tests/simulator.py --hunt $(FROM)

break: p2pchat .build/testing/done
	@$(RUN) tests/mutants.py $(M)

demo: N ?= 4
demo: p2pchat
	@$(RUN) tests/demo.py "$(N)"

watch: p2pchat
	@$(RUN) tests/watch.py

# The model of a terminal that draws them is part of the tests.
picture: p2pchat .build/testing/done
	$(RUN) tests/picture.py
	$(RUN) tests/plot.py $(if $(ANEW),anew) $(MEMBERS)

torture: p2pchat .build/testing/done
	$(RUN) tests/torture.py $(ONLY)

bench: p2pchat
	@$(RUN) tests/bench.py $(ONLY)

clean:
	rm -rf .build p2pchat
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
