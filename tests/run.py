"""`make test`: run.py [ARGUMENT ...] runs pytest three times for each core, and each test by whichever of them comes to it first.

Knows: how many run at once, and what their exit statuses come to.
Leaves out: who takes which test (conftest.py), and pytest's arguments, which are passed on.
"""

import os
import signal
import subprocess
import sys
import tempfile

from surroundings import TOP, clean

# No file of the user's, in a directory above perhaps, says how pytest is to run.
PYTEST = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", TOP]
MOST = 8  # at once; the longest tests take as long with any more
NONE_CHOSEN = 5  # pytest's exit status when there was no test to run


def cores():
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def verdict(statuses):
    """What the exit statuses of all come to: a failure, if there was one; if nobody ran anything, that."""
    failures = [status for status in statuses if status not in (0, NONE_CHOSEN)]
    if failures:
        return failures[0] if failures[0] > 0 else 128 - failures[0]
    return 0 if 0 in statuses else NONE_CHOSEN


def main(arguments):
    """The first is seen while it runs; what the others said stands behind it."""
    wanted = arguments if any(os.path.exists(word.split("::")[0]) for word in arguments) else [*arguments, os.path.join(TOP, "tests")]
    count = min(3 * cores(), MOST)  # many tests wait, so three share one core well
    with tempfile.TemporaryDirectory(prefix="p2pchat-tests-") as taken:
        env = {**clean(os.environ), "P2PCHAT_TAKEN": taken}
        outputs = [None] + [tempfile.TemporaryFile() for _ in range(count - 1)]
        running = [subprocess.Popen(PYTEST + wanted, env=env, cwd=TOP, stdout=output) for output in outputs]
        try:
            statuses = [process.wait() for process in running]
        except KeyboardInterrupt:
            statuses = [process.wait() for process in running]  # it was meant for them too
        finally:
            for process in running:
                process.kill()
        for output in outputs[1:]:
            output.seek(0)
            sys.stdout.buffer.write(output.read())
            output.close()
    return verdict(statuses)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # no pytest goes on without us
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)  # nohup, or a shell that runs us behind a &, has them ignored, by the programs too
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
