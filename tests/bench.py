"""`make bench`: what the built program does in the five kinds of work, beside others, as ratios of one run.

    python3 tests/bench.py [--quick] [PART ...]      parts: thr step talk late stuck chain grow idle links start keys scroll simulate

Knows: which work is measured, with how many receivers, what a ratio is set against, which ratios are goals.
Must not know: how a byte gets to a hub and back (bench_load.py).
Leaves out: absolute goals. Shared machines do not hold them; all that is compared took turns in one run.

The kinds of work: one source, one hub, N receivers, texts of 50 bytes.
thr    bursts, at most 512 messages ahead of the slowest receiver
step   the next message when all have the last
talk   16 peers all speaking, each at most 32 ahead
stuck  thr with N = 8, while 1 or 16 others read nothing; against the rate without them
chain  four members in a row, 10 messages a second from each end
late   100 messages a second: from sending to arrival at the last of 8
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import threading
import time
from statistics import median

import bench_load as load
from bench_load import BUILT, LINES, SCREEN, Hub, Member, Run, Stalled, Talk, Wrong, c_program, ours, relay, stream

C_PATH = os.environ.get("P2PCHAT_C", "")
ROUNDS = 3  # slices of each run; in each round every run gets its turn
MESH_LINKS = 7  # receivers that the program takes beside a source, as it is built
MORE_LINKS = "peers.MAX_MESH_LINKS = 2000"
ROW_ONLY = "peers.WANT_LINKS = 1"  # else four members link all with all, and there is no row
BARE, ASYNCIO, C = "bare", "asyncio", "C"

# (work, kind, receivers): what is asked for. Of CPU: at most so many times the bare relay's, else: at least so many times.
GOALS = {
    ("thr", "mesh", 1): (BARE, 0.22), ("thr", "mesh", 8): (BARE, 0.30), ("thr", "mesh", 64): (BARE, 0.50),
    ("thr", "plain", 8): (C, 20), ("thr", "plain", 64): (C, 20),
    ("step", "mesh", 8): ("cpu", 1.4), ("step", "plain", 8): ("cpu", 1.4),
    ("talk", "mesh", 16): (BARE, 0.55), ("talk", "plain", 16): (C, 20),
    ("stuck 1", "mesh", 8): ("free", 0.5), ("stuck 16", "mesh", 8): ("free", 0.5),
    ("stuck 1", "plain", 8): ("free", 0.5), ("stuck 16", "plain", 8): ("free", 0.5),
}


class Options:
    slice = 0.3  # seconds
    quick = False


class Failures(list):
    """Rows of ours that were not whole; the exit status tells."""


failures = Failures()


# Cells: one hub under one load -----------------------------------------------------------------

class Cell:
    """One run with its label: who ("ours lines", "bare" ...), over what kind of link. Trouble becomes its verdict."""

    def __init__(self, who, kind, make):
        self.who, self.kind, self.run, self.verdict = who, kind, None, "whole"
        self.peak = 0
        self.attempt(lambda: setattr(self, "run", make()))

    @property
    def is_ours(self):
        return self.who in (LINES, SCREEN)

    @property
    def ok(self):
        return self.verdict == "whole"

    def attempt(self, action):
        """Do it, unless something went wrong before."""
        if not self.ok:
            return
        try:
            action()
        except Stalled as error:
            self.verdict = "stands still"
            self._blame(error)
        except Wrong as error:
            self.verdict = "CORRUPT"
            self._blame(error)

    def _blame(self, error):
        if self.is_ours:
            self.verdict = "FAILED"
            failures.append(f"{self.who} {self.kind}: {error}")

    def close(self):
        if self.run:
            self.run.close()
            self.peak = self.run.peak


def contenders(receivers, modes=(LINES, SCREEN)):
    """(who, kind, how to start the hub), of all that are compared. A mesh with more than 8 links is a patched one."""
    patch = MORE_LINKS if receivers > MESH_LINKS else ""
    for mode in modes:
        yield mode, "mesh", lambda mode=mode: ours(mode, patch)
        yield mode, "plain", lambda mode=mode: ours(mode)
    yield BARE, "plain", lambda: relay("bare")
    yield ASYNCIO, "plain", lambda: relay("asyncio")
    if C_PATH:
        yield C, "plain", lambda: c_program(C_PATH)


def take_turns(cells, **how):
    """Slices of all cells in turn, ROUNDS times; then their hubs end."""
    for cell in cells:
        cell.attempt(lambda: cell.run.settle())
    for _ in range(ROUNDS):
        for cell in cells:
            cell.attempt(lambda: cell.run.slice(Options.slice, most=most_of(cell.run), **how))
    for cell in cells:
        cell.close()
    return cells


def most_of(run):
    """Messages for one slice: a mesh stream cannot begin again, and has to do for all rounds."""
    streams = getattr(run, "streams", None) or [run.stream]
    return (streams[0].count - 1) // ROUNDS if run.kind == "mesh" else 1 << 60


# The table ------------------------------------------------------------------------------------

HEAD = (f"{'':10}{'':7}{'':6}{'N':>4}{'deliveries/s':>14}{'us CPU':>8}{'x bare':>8}{'x asyncio':>10}{'x C':>8}"
        f"{'CPU x bare':>11}{'peak MB':>8}{'load CPU':>9}  {'checked':13}goal")


def show_rows(work, receivers, cells):
    """The rows of one work. `us CPU`: the hub's, a delivery; `load CPU`: the generator's share of a core."""
    rivals = {cell.who: cell for cell in cells if not cell.is_ours}
    for cell in cells:
        print(row(work, receivers, cell, rivals), flush=True)


def row(work, receivers, cell, rivals, free=None):
    begin = f"{work:10}{cell.who:7} {cell.kind:6}{receivers:>3}"
    if not cell.run or not cell.run.deliveries or not cell.ok:
        return f"{begin}{'':71}{cell.verdict}"
    run = cell.run
    ratios = {who: over(run.rate, rivals.get(who), "rate") for who in (BARE, ASYNCIO, C)}
    ratios["cpu"] = over(run.cost, rivals.get(BARE), "cost")
    ratios["free"] = run.rate / free if free else None
    return (f"{begin}{run.rate:>14,.0f}{run.cost:>8.2f}{cut(ratios[BARE]):>8}{cut(ratios[ASYNCIO]):>10}{cut(ratios[C]):>8}"
            f"{cut(ratios['cpu']):>11}{cell.peak:>8.0f}{run.load:>9.0%}  {cell.verdict:13}"
            + (f"{ratios['free']:.2f} of the rate without  " if free else "")
            + (goal(work, receivers, cell, ratios) if cell.is_ours else ""))


def over(value, cell, what):
    """value / that of the rival's, None without one."""
    other = getattr(cell.run, what) if cell and cell.ok and cell.run else 0
    return value / other if other else None


def cut(ratio):
    return "-" if ratio is None else f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.0f}"


def goal(work, receivers, cell, ratios):
    against, wanted = GOALS.get((work, cell.kind, receivers), (None, 0))
    ratio = ratios.get(against)
    if ratio is None:
        return ""
    reached = ratio <= wanted if against == "cpu" else ratio >= wanted
    words = {"cpu": "at most {} x bare's CPU", "free": "at least {} of it", BARE: "at least {} x bare", C: "at least {} x C"}
    return f"{'reached' if reached else 'missed'}: {words[against].format(wanted)}"


# The five kinds of work -------------------------------------------------------------------------

def part_thr():
    for receivers in (1, 8, 64):
        cells = [Cell(who, kind, lambda: Run(start(), kind, receivers)) for who, kind, start in contenders(receivers)]
        show_rows("thr", receivers, take_turns(cells))


def part_step():
    for receivers in (1, 8, 64):
        cells = [Cell(who, kind, lambda: Run(start(), kind, receivers)) for who, kind, start in contenders(receivers)]
        show_rows("step", receivers, take_turns(cells, burst=1, ahead=0))


def part_talk():
    cells = [Cell(who, kind, lambda: Talk(start(), kind, 16)) for who, kind, start in contenders(16)]
    show_rows("talk", 16, take_turns(cells))


def part_stuck():
    """Each hub three times, beside itself: with nobody stuck, with one, with 16."""
    modes = (LINES,) if Options.quick else (LINES, SCREEN)
    for who, kind, start in contenders(8 + 16, modes):
        cells = [Cell(who, kind, lambda: Run(start(), kind, 8, stuck)) for stuck in (0, 1, 16)]
        take_turns(cells)
        free = cells[0].run.rate if cells[0].ok else None
        for stuck, cell in zip((0, 1, 16), cells):
            print(row(f"stuck {stuck}", 8, cell, {}, free), flush=True)


def percentiles(seconds):
    """'median / 99 of 100', in ms."""
    ordered = sorted(seconds)
    return f"{median(ordered) * 1e3:8.2f} /{ordered[int(len(ordered) * 0.99)] * 1e3:8.2f} ms"


# Beginning and end ------------------------------------------------------------------------------

PARTS = {name[len("part_"):]: part for name, part in list(globals().items()) if name.startswith("part_")}


def main(arguments):
    """Exit status 1 if something of ours did not arrive whole, once, in order; slowness is only printed."""
    parser = argparse.ArgumentParser(prog="bench.py", description="What the built ./p2pchat does, beside others.")
    parser.add_argument("--quick", action="store_true", help="shorter slices: rough figures, for development")
    parser.add_argument("parts", nargs="*", metavar="PART", help=" ".join(PARTS))
    options = parser.parse_args(arguments)
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        parser.error(f"no part {', '.join(unknown)}; there are {' '.join(PARTS)}")
    Options.quick = options.quick
    Options.slice = 0.1 if options.quick else Options.slice
    load.prepare_process()
    began = time.perf_counter()
    try:
        for name in options.parts or PARTS:
            print(f"\n{name}", HEAD[len(name):], sep="")
            PARTS[name]()
    finally:
        load.end_all()
    print(f"\n{time.perf_counter() - began:.0f} s")
    for failure in failures:
        print(f"FAILED {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
