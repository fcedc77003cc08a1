"""The suite is the same on any day: the tests that touch a clock run once more with the clock moved, in another time zone than ours."""

import calendar
import os
import re
import shutil
import subprocess
import time

import pytest

import run
import surroundings
from helpers import PATIENCE, TOP, python

MOVED = os.path.join(TOP, "tests", "moved")


def seconds_to(*date):
    """By how much the clock is to be moved so that UTC has this date and time now."""
    return calendar.timegm((*date, 0, 0, 0)) - int(time.time())




def moved(seconds, *command):
    """Run this command with the clock moved. Returns what it printed."""
    seconds += int(os.environ.get("P2PCHAT_MOVED", "0"))  # this process's own clock may have been moved
    env = {**os.environ, "PYTHONPATH": f"{MOVED}:{os.environ.get('PYTHONPATH', '')}", "P2PCHAT_MOVED": str(seconds), "TZ": "UTC"}
    done = subprocess.run(command, env=env, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=3 * PATIENCE)
    return done.returncode, done.stdout


def test_what_touches_a_clock_passes_on_another_day_in_its_last_seconds():
    """Midnight comes between two tests, and in 2107 the times of records have begun again."""
    files = [os.path.join(TOP, "tests", name) for name in ("test_ui.py", "test_terminal.py")]
    status, said = moved(seconds_to(2107, 3, 1, 23, 59, 57), *run.PYTEST, "-m", "clock", *files)
    assert status == 0 and "passed" in said, said


def test_a_moved_clock_is_moved_in_a_child_too():
    code = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', 'import time; print(time.strftime(\"%d %B %Y\"))']))"
    assert moved(seconds_to(2028, 2, 29, 12, 0, 0), *python("-c", code)) == (0, "29 February 2028\n")


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
