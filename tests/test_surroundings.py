"""The suite is the same on any day and whatever a user has set, and each of its tests is run."""

import os
import re
import shutil
import subprocess
import time

import pytest

import run
import surroundings
from helpers import PATIENCE, TOP, python


def test_a_moved_clock_is_moved_in_a_child_too():
    code = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', 'import time; print(time.strftime(\"%d %B %Y\"))']))"
    by = int(time.mktime((2028, 2, 29, 12, 0, 0, 0, 0, -1)) - time.time())
    done = subprocess.run(python("-c", code), env={**os.environ, **surroundings.moved(by)}, stdout=subprocess.PIPE, timeout=PATIENCE)
    assert done.stdout == b"29 February 2028\n"


@pytest.mark.usefixtures("any_day")
def test_a_clock_that_a_test_moves_is_moved_in_its_forks_too(request):
    expected = "2107" if "2107" in request.node.name else time.strftime("%Y")
    status = os.waitpid(os.fork() or os._exit(time.strftime("%Y") != expected), 0)[1]
    assert status == 0 and time.strftime("%Y") == expected


@pytest.mark.parametrize("now", [0, 12 * 3600, 1_700_000_000, 1_700_049_999, 5_000_000_000])
def test_it_is_always_noon_in_the_tests(now, monkeypatch):
    monkeypatch.setenv("TZ", surroundings.zone(now))
    time.tzset()
    assert time.strftime("%H:%M:%S", time.localtime(now)) == "12:03:05"
    monkeypatch.undo()
    time.tzset()


def test_what_a_user_has_set_does_not_reach_the_tests():
    user = {"LC_ALL": "C", "PYTHONWARNINGS": "error", "PYTEST_ADDOPTS": "-x", "TMUX": "x", "TERM": "linux", "HOME": "/h", "PYTHONPATH": "p"}
    kept = surroundings.clean(user)
    assert not {"LC_ALL", "PYTHONWARNINGS", "PYTEST_ADDOPTS", "TMUX"} & set(kept)
    assert (kept["HOME"], kept["PYTHONPATH"], kept["TERM"]) == ("/h", "p", "xterm-256color")


SHARED = """
import os, pytest, warnings

@pytest.mark.parametrize("number", range(40))
def test_it(number):
    print(f"said by {number}")
    if number == 9:
        os._exit(0)
    if number == 5:
        warnings.warn(UserWarning("old"))
    assert number != 7
"""


def on_one_core():
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])  # the forks of one core show the same


def test_every_test_is_run_once_and_its_failure_its_output_and_its_end_are_told(tmp_path):
    for name in ("conftest.py", "surroundings.py", "forks.py"):
        shutil.copy(os.path.join(TOP, "tests", name), tmp_path)
    (tmp_path / "test_it.py").write_text(SHARED)
    done = subprocess.run(python(run.__file__, str(tmp_path)), capture_output=True, text=True, timeout=3 * PATIENCE, preexec_fn=on_one_core)
    counts = re.search(r"(\d+) failed, (\d+) passed, 1 warning in", done.stdout)
    assert counts, done.stdout
    failed, passed = map(int, counts.groups())
    assert (done.returncode, failed + passed) == (1, 40) and failed in (2, 3), done.stdout  # what was to be the next there, 10 or later, fails too
    assert [line for line in done.stdout.splitlines() if line.startswith("said by")] == ["said by 7"], done.stdout
    assert "the process that was to run it died" in done.stdout and "UserWarning: old" in done.stdout, done.stdout
