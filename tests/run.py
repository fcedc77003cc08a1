"""`make test`: run.py [ARGUMENT ...] becomes a pytest whose tests are shared by forks of it.

Knows: how many forks there are to be, and what pytest finds around it.
Leaves out: what the forks do (forks.py), and pytest's arguments, which are passed on.
"""

import os
import signal
import sys

from surroundings import TOP, clean

# No file of the user's, in a directory above perhaps, says how pytest is to run.
PYTEST = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", TOP]
A_CORE = 3  # many tests wait, so three forks share one core well
MOST = 8  # the longest tests take as long with any more


def cores():
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main(arguments):
    """Does not return."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)  # nohup, or a shell that runs us behind a &, has them ignored, by the programs too
    os.chdir(TOP)
    wanted = arguments if any(os.path.exists(word.split("::")[0]) for word in arguments) else [*arguments, os.path.join(TOP, "tests")]
    os.execve(sys.executable, PYTEST + wanted, {**clean(os.environ), "P2PCHAT_FORKS": str(min(A_CORE * cores(), MOST))})


if __name__ == "__main__":
    main(sys.argv[1:])
