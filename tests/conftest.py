"""What more than one test needs: the program's modules, surroundings that are always the same, and who runs which test."""

import gc
import os
import sys
from itertools import groupby

import pytest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(1, os.path.dirname(os.path.abspath(__file__)))

import surroundings  # noqa: E402

surroundings.settle()

# First what takes long, so that nobody waits for it at the end; then all others.
LONGEST = ("test_lan", "test_demo", "test_network", "test_readme", "test_build", "test_surroundings", "test_healing", "test_hostile",
           "test_terminal", "test_p2pchat")
if "P2PCHAT_BREAK" in os.environ:  # `make break`: do the tests notice?
    import mutants
    mutants.apply(os.environ["P2PCHAT_BREAK"])

TAKEN = os.environ.get("P2PCHAT_TAKEN")  # run.py started several of us: here is who runs what


def pytest_configure(config):
    config.addinivalue_line("markers", "together: the tests of this file need each other, so one process runs them all")
    config.addinivalue_line("markers", "clock: run again on other days by test_surroundings.py")


def pytest_collection_modifyitems(items):
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


def pytest_runtestloop(session):
    """As pytest's own, but for one's own share of the tests. Returns None where that is all: then pytest's own runs."""
    if not TAKEN or session.testsfailed or session.config.option.collectonly:
        return None
    gc.freeze()  # what 1,600 tests consist of is not garbage: no need to look through it again and again
    mine = share(session.items)
    item = next(mine, None)
    while item is not None:
        following = next(mine, None)  # pytest keeps for it what both need
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail or session.shouldstop:
            raise (session.Failed if session.shouldfail else session.Interrupted)(session.shouldfail or session.shouldstop)
        item = following
    return True


def share(items):
    """The tests that nobody else has taken, one after the other; all that are `together` count as one."""
    def together(item):
        return item.path if item.get_closest_marker("together") else item.nodeid

    for number, (_, group) in enumerate(groupby(items, together)):
        try:
            os.close(os.open(os.path.join(TAKEN, str(number)), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        yield from group


@pytest.fixture
def members():
    """members("ann", "bob") starts whole programs, turned in this process; all are ended after the test."""
    from helpers import Member  # not before the path is set

    started = []

    def start(*names):
        started.extend(Member(name) for name in names)
        return started[-len(names):]

    yield start
    for member in started:
        member.kill()


@pytest.fixture
def segments():
    """A Lan: machines and segments made of network namespaces, where the system gives us some."""
    from lan import Lan, NoNamespaces

    try:
        lan = Lan()
    except NoNamespaces as reason:
        pytest.skip(str(reason))
    with lan:
        yield lan
