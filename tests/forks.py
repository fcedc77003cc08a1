"""A plugin of pytest: one pytest collects the tests and reports on them, and forks of it run them.

Knows: which fork runs which test, and how one reports for all.
Leaves out: how many forks there are (run.py).

Collecting the tests takes longer than most of them, so it is done once. Then the numbers of all groups of tests lie in
one pipe, and whichever fork is free reads the next. What is to be reported comes back through a pipe from each fork.
"""

import gc
import os
import signal
import sys
from itertools import groupby
from multiprocessing import Pipe
from multiprocessing.connection import wait
from warnings import WarningMessage

from pytest import TestReport

NUMBER_SIZE = 2  # bytes; all numbers must fit into a pipe that nobody reads yet, which may hold only 16 KB


class Forks:
    """A plugin of the pytest that collects and reports."""

    def __init__(self, count):
        self.count = count

    def pytest_runtestloop(self, session):
        """As pytest's own, which runs where this returns None: nothing to share, or a user who wants to look into a test."""
        option = session.config.option
        groups = [list(group) for _, group in groupby(session.items, together)]
        count = min(self.count, len(groups))
        if session.testsfailed or option.collectonly or option.usepdb or option.capture == "no" or count < 2:
            return None
        gc.freeze()  # what 1,600 tests consist of is not garbage: no need to look through it, and copy it, in each fork
        queue, forks = filled(len(groups)), {}
        for _ in range(count):
            far, near = Pipe(duplex=False)
            process = os.fork()
            if not process:
                return run_share(session, groups, queue, near)
            forks[far] = process
            near.close()
        try:
            signal.signal(signal.SIGTERM, lambda number, frame: end_as_by_ctrl_c(forks))
            report_all(session, forks, queue)
        finally:  # Ctrl-C reaches them too, and they end what they have started
            for process in forks.values():
                os.waitpid(process, 0)
        return stop_if_told(session)


def together(item):
    """What is the same for tests that one process must run."""
    return item.path if item.get_closest_marker("together") else item.nodeid


def filled(count):
    """A pipe to read the numbers below `count` from, and then its end."""
    queue, end = os.pipe()
    os.write(end, b"".join(number.to_bytes(NUMBER_SIZE, "big") for number in range(count)))
    os.close(end)
    return queue


def interrupt(forks):
    """Have them end what they have started, and themselves."""
    for process in forks.values():
        os.kill(process, signal.SIGINT)


def end_as_by_ctrl_c(forks):
    interrupt(forks)
    raise KeyboardInterrupt


def stop_if_told(session):
    """Raise what pytest raises after the last failure that it was to wait for, by -x. Otherwise True."""
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    if session.shouldstop:
        raise session.Interrupted(session.shouldstop)
    return True


# In a fork

def run_share(session, groups, queue, pipe):
    """Run the tests whose numbers no other fork has read."""
    plugins = session.config.pluginmanager
    teller = Teller(session.config, pipe)
    plugins.register(teller)
    capture = plugins.get_plugin("capturemanager")
    capture.stop_global_capturing()  # into files that all forks have in common
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # our own reporter says nothing
    capture.start_global_capturing()
    capture.suspend_global_capture()
    numbers = iter(lambda: os.read(queue, NUMBER_SIZE), b"")
    items = (item for number in numbers for item in groups[int.from_bytes(number, "big")])
    item = next(items, None)
    while item is not None:
        following = next(items, None)  # pytest keeps for it what both need
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        teller.send(item)
        stop_if_told(session)
        item = following
    return True


class Teller:
    """A plugin that keeps what a reporter would say of a test, and sends it all at once."""

    def __init__(self, config, pipe):
        self.config, self.pipe = config, pipe
        self.reports, self.warned = [], []

    def pytest_runtest_logreport(self, report):
        self.reports.append(self.config.hook.pytest_report_to_serializable(config=self.config, report=report))

    def pytest_warning_recorded(self, warning_message, when, nodeid, location):
        plain = WarningMessage(str(warning_message.message), warning_message.category, warning_message.filename, warning_message.lineno)
        self.warned.append({"warning_message": plain, "when": when, "nodeid": nodeid, "location": location})

    def pytest_internalerror(self, excrepr):
        print(excrepr, file=sys.stderr, flush=True)

    def send(self, item):
        """Its test is over, and its warnings have been collected: pytest does that last."""
        self.pipe.send((item.nodeid, item.location, self.reports, self.warned))
        self.reports, self.warned = [], []


# In the pytest that reports

def report_all(session, forks, queue):
    """Pass on to pytest's reporter what comes from all forks, until they end."""
    pipes, left = list(forks), {item.nodeid: item for item in session.items}
    while pipes:
        for pipe in wait(pipes):
            try:
                nodeid, *told = pipe.recv()
            except (EOFError, OSError):  # the latter: it died while it was sending
                pipes.remove(pipe)
                continue
            left.pop(nodeid, None)
            report_one(session.config, nodeid, *told)
        if left and (session.shouldfail or session.shouldstop):
            left.clear()
            while os.read(queue, 1 << 16):
                pass  # nobody begins another one
            interrupt(forks)
    for item in left.values():
        session.config.hook.pytest_runtest_logreport(
            report=TestReport(item.nodeid, item.location, {}, "failed", "the process that was to run it died", "call"))


def report_one(config, nodeid, location, reports, warned):
    """One test has been run."""
    hook = config.hook
    for report in reports:
        hook.pytest_runtest_logreport(report=hook.pytest_report_from_serializable(config=config, data=report))
    for warning in warned:
        hook.pytest_warning_recorded.call_historic(kwargs=warning)
    hook.pytest_runtest_logfinish(nodeid=nodeid, location=location)
