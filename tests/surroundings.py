"""What the tests and every program that they start find around them, whatever the user has there: variables, time of day."""

import os
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MOVED = os.path.join(TOP, "tests", "moved")  # where a Python that has it on its PYTHONPATH finds that its clock is moved
CLOCK = 12 * 3600 + 3 * 60 + 5  # what it is in the tests, in seconds since midnight: far from any other day

# What a user may have set, and what would change what a program under test, make, tmux or Python does.
FOREIGN = ("LC_", "LANG", "PYTHON", "PYTEST_", "MAKE", "MFLAGS", "TMUX", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "COLORTERM",
           "LINES", "COLUMNS", "TERMINFO", "ESCDELAY", "NOTIFY_SOCKET", "ONLY", "SEED")
OURS = ("PYTHONPATH", "PYTHONPYCACHEPREFIX")


def zone(now):
    """A time zone, as TZ has it, in which CLOCK is the time of day `now` (seconds since 1970)."""
    west = (int(now) - CLOCK) % 86400  # seconds by which it is behind UTC; at most a day
    hours, rest = divmod(west, 3600)
    return f"XXX{hours}:{rest // 60:02}:{rest % 60:02}"


def clean(variables):
    """The environment without what is the user's, and with what the tests expect."""
    kept = {name: value for name, value in variables.items() if name in OURS or not name.startswith(FOREIGN)}
    first = os.path.dirname(sys.executable)
    return {**kept, "TZ": zone(time.time()), "TERM": "xterm-256color", "PYTHONUTF8": "1", "PYTHON": sys.executable,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PATH": os.pathsep.join([first, *(path for path in kept.get("PATH", os.defpath).split(os.pathsep) if path != first)])}


def settle():
    """Make this process's own surroundings so."""
    wanted = clean(os.environ)
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)
    time.tzset()


def moved(seconds):
    """What to add to the environment of a process so that its clock is so much ahead of ours, and that of what it starts."""
    ours = int(os.environ.get("P2PCHAT_MOVED", 0))
    return {"PYTHONPATH": f"{MOVED}:{os.environ.get('PYTHONPATH', '')}", "P2PCHAT_MOVED": str(ours + seconds)}
