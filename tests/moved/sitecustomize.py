"""Moves the clock of every Python that finds this directory on its PYTHONPATH, by P2PCHAT_MOVED seconds; and of all that it starts.

What measures (time.monotonic) and what sleeps goes on as it was.
"""

import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
for _folder in sys.path:  # what another sitecustomize does, it does first: we hide it
    _other = os.path.join(_folder, "sitecustomize.py")
    if os.path.abspath(_folder or ".") != HERE and os.path.exists(_other):
        with open(_other, encoding="utf-8") as _file:
            exec(compile(_file.read(), _other, "exec"), {"__name__": "sitecustomize", "__file__": _other})
        break

_by = int(os.environ.get("P2PCHAT_MOVED", "0"))
_time, _time_ns = time.time, time.time_ns


def _without_argument(function, position):
    """`function`, which takes the moved time where none is given."""
    def moved(*arguments):
        if len(arguments) > position and arguments[position] is not None:
            return function(*arguments)
        when = time.time()
        return function(*arguments[:position], time.localtime(when) if function is _strftime else when)
    return moved


_strftime = time.strftime
time.time = lambda: _time() + _by
time.time_ns = lambda: _time_ns() + _by * 10 ** 9
time.localtime, time.gmtime, time.ctime = (_without_argument(function, 0) for function in (time.localtime, time.gmtime, time.ctime))
time.strftime = _without_argument(_strftime, 1)
