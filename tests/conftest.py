"""What more than one test needs: the program's modules, surroundings that are always the same, and which test comes first."""

import os
import runpy
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(1, os.path.dirname(os.path.abspath(__file__)))

import forks  # noqa: E402
import surroundings  # noqa: E402

surroundings.settle()

# First what takes long, so that nobody waits for it at the end; then all others.
LONGEST = ("test_lan", "test_demo", "test_network", "test_readme", "test_build", "test_surroundings", "test_healing", "test_hostile",
           "test_terminal", "test_p2pchat")
if "P2PCHAT_BREAK" in os.environ:  # `make break`: do the tests notice?
    import mutants
    mutants.apply(os.environ["P2PCHAT_BREAK"])


def pytest_configure(config):
    count = int(os.environ.pop("P2PCHAT_FORKS", "0"))
    if count:
        config.pluginmanager.register(forks.Forks(count))
    config.addinivalue_line("markers", "together: the tests of this file need each other, so one process runs them all")


def pytest_collection_modifyitems(items):
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


@pytest.fixture(params=["today", "in the first seconds of a day in 2107"])
def any_day(request):
    """Runs a test twice, the second time with the clock moved, for what it starts too: then records' times have begun again."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param != "today":
            by = 1 + int(time.mktime((2107, 3, 1, 0, 0, 0, 0, 0, -1)) - time.time())
            started = surroundings.moved(by)
            for name in ("time", "time_ns", "localtime", "gmtime", "ctime", "strftime"):
                patch.setattr(time, name, getattr(time, name))
            patch.setenv("P2PCHAT_MOVED", str(by))  # of our own clock, which may be moved already
            runpy.run_path(os.path.join(surroundings.MOVED, "sitecustomize.py"))
            for name, value in started.items():
                patch.setenv(name, value)
        yield


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
