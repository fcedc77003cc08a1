"""The suite is the same on any day: the tests that touch a clock run once more with the clock moved, in another time zone than ours."""

import calendar
import os
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
    env.pop("P2PCHAT_TAKEN", None)
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


@pytest.mark.parametrize("statuses, status", [([0, 0], 0), ([0, 5], 0), ([5, 5], 5), ([0, 1], 1), ([5, 2], 2), ([-9, 0], 137)])
def test_one_failure_among_several_pytests_fails_all(statuses, status):
    assert run.verdict(statuses) == status


def on_one_core():
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])  # the pytests of one core show the same


def test_every_test_is_run_once_and_a_failure_is_told(tmp_path):
    for name in ("conftest.py", "surroundings.py"):
        shutil.copy(os.path.join(TOP, "tests", name), tmp_path)
    (tmp_path / "test_it.py").write_text("import pytest\n@pytest.mark.parametrize('n', range(40))\ndef test_n(n): assert n != 7\n")

    env = {name: value for name, value in os.environ.items() if name != "P2PCHAT_TAKEN"}
    done = subprocess.run(python(run.__file__, str(tmp_path)), env=env, capture_output=True, text=True, timeout=3 * PATIENCE,
                          preexec_fn=on_one_core)
    words = done.stdout.replace(",", "").split()
    counts = [sum(int(words[at - 1]) for at, word in enumerate(words) if word == what) for what in ("passed", "failed")]
    assert (done.returncode, counts) == (1, [39, 1]), done.stdout
