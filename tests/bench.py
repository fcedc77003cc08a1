"""`make bench`: what the built program does beside others, as ratios of one run, each with its goal.

    make bench [ONLY="[--quick] [--json FILE] [PART ...]"] [P2PCHAT_C=/path/to/binary]

Knows: which work is measured, against what, and which ratios are asked for.
Must not know: how a byte gets to a hub and back (bench_load.py).
Leaves out: absolute goals, which shared machines do not hold. All that is compared takes turns in short slices,
and a ratio is the median of those of each turn. Linux only: what a process costs is read from /proc.

One source, one hub, N receivers, texts of 50 bytes. Receivers and source are sockets of the bench; the hub is the
built program, in line mode or with its screen on a pty, over mesh links or plain ones. Beside it: a relay that
passes bytes on unread (bare), the same on asyncio's streams, and the C program where P2PCHAT_C names one.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from statistics import median
from typing import NamedTuple, Optional

import bench_load as load
from bench_load import LINES, SCREEN, Member, Run, Stalled, Talk, Wrong, c_program, ours, relay, stream

C_PATH = os.environ.get("P2PCHAT_C", "")
ROUNDS = 5  # slices of each run; in each round every run gets its turn
MESH_LINKS = 7  # receivers that the program takes beside a source, as it is built
MORE_LINKS = "peers.MAX_MESH_LINKS = 2000"
# Else four members link all with all, or swap links in the middle of it, and there is no row.
ROW_ONLY = "peers.WANT_LINKS, peers.SHUFFLE_SECONDS = 1, (1e6, 1e6)"
BARE, ASYNCIO, C = "bare", "asyncio", "C"


class Figure(NamedTuple):
    """One measured number. What is asked of it: at least or at most `goal`; None: nothing."""
    part: str
    what: str
    value: float
    goal: Optional[float] = None
    at_most: bool = False
    unit: str = ""

    @property
    def reached(self):
        if self.goal is None:
            return None
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def __str__(self):
        asked = f"{'<=' if self.at_most else '>='} {self.goal:g}" if self.goal is not None else ""
        verdict = {None: "", True: "reached", False: "MISSED"}[self.reached]
        return f"{self.part:7}{self.what:52}{cut(self.value):>9} {self.unit:5}{asked:>9}  {verdict}".rstrip()


def cut(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.4f}"


class Bench:
    """One run of the bench: how long each slice takes, what came of it, and what went wrong."""

    def __init__(self, quick=False):
        self.slice = 0.05 if quick else 0.2  # seconds
        self.part = ""
        self.figures = []
        self.failures = []  # of ours, not whole: the exit status tells

    def at_least(self, what, value, goal=None, unit=""):
        self._add(Figure(self.part, what, value, goal, False, unit))

    def at_most(self, what, value, goal=None, unit=""):
        self._add(Figure(self.part, what, value, goal, True, unit))

    def _add(self, figure):
        self.figures.append(figure)
        print(figure, flush=True)


bench = Bench()


# Cells: one hub under one load -----------------------------------------------------------------

class Cell:
    """One run with its label: who ("lines", "bare" ...), over what kind of link. Trouble becomes its verdict."""

    def __init__(self, who, kind, make):
        self.who, self.kind, self.run, self.verdict = who, kind, None, "whole"
        self.delays = []  # seconds, a list for each round
        self.attempt(lambda: setattr(self, "run", make()))

    @property
    def ok(self):
        return self.verdict == "whole"

    def attempt(self, action):
        """Do it, unless something went wrong before."""
        if not self.ok:
            return
        try:
            action()
        except (Stalled, Wrong) as error:
            self.verdict = "stands still" if isinstance(error, Stalled) else "corrupt"
            note = f"{bench.part}: {self.who} {self.kind}, {error}"
            print(note, flush=True)
            bench.failures += [note] * (self.who in (LINES, SCREEN))

    def close(self):
        if self.run:
            self.run.close()


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
            cell.attempt(lambda: cell.run.slice(bench.slice, most=most_of(cell.run), **how))
    for cell in cells:
        cell.attempt(lambda: cell.run.finish())
        cell.close()
    return cells


def most_of(run):
    """Messages for one slice: a mesh stream cannot begin again, and has to do for all rounds, a first and a last message."""
    streams = getattr(run, "streams", None) or [run.stream]
    return (streams[0].count - 2) // ROUNDS if run.kind == "mesh" else 1 << 60


def of_ours(cells):
    return [cell for cell in cells if cell.who in (LINES, SCREEN) and cell.ok]


def beside(cell, cells, rival, what="rates"):
    """The median of our figure / that of a rival in the same round; None without a rival that is whole."""
    found = [other for other in cells if other.who == rival and other.ok]
    if not found:
        return None
    mine, others = (what(one) if callable(what) else getattr(one.run, what) for one in (cell, found[0]))
    ratios = [one / other for one, other in zip(mine, others) if other]
    return median(ratios) if ratios else None


# Bursts, lone messages, many speakers -------------------------------------------------------------

def part_thr():
    """Bursts, at most 512 messages ahead of the slowest receiver: rates."""
    for receivers in (1, 8, 64):
        cells = take_turns([Cell(who, kind, lambda: Run(start(), kind, receivers)) for who, kind, start in contenders(receivers)])
        for cell in of_ours(cells):
            label = f"{cell.kind}, N={receivers}, {cell.who}"
            against_c = beside(cell, cells, C)
            if against_c is not None:
                bench.at_least(f"{label}: x C", against_c, 100 if cell.kind == "mesh" else 20)
            bench.at_least(f"{label}: x asyncio", beside(cell, cells, ASYNCIO))
            bench.at_least(f"{label}: x bare", beside(cell, cells, BARE))


def part_step():
    """The next message when all have the last: rates, and the hub's CPU."""
    how = [(who, kind, start) for who, kind, start in contenders(8, (LINES,))]
    cells = take_turns([Cell(who, kind, lambda: Run(start(), kind, 8)) for who, kind, start in how], burst=1, ahead=0)
    for cell in of_ours(cells):
        is_mesh = cell.kind == "mesh"
        bench.at_least(f"{cell.kind}, N=8: rate x bare", beside(cell, cells, BARE), 0.85 if is_mesh else None)
        bench.at_most(f"{cell.kind}, N=8: CPU a delivery x bare", beside(cell, cells, BARE, "costs"), 1.4 if is_mesh else None)


def part_talk():
    """16 peers all speaking, each at most 4 ahead: rates."""
    cells = take_turns([Cell(who, kind, lambda: Talk(start(), kind, 16)) for who, kind, start in contenders(16, (LINES,))])
    for cell in of_ours(cells):
        bench.at_least(f"{cell.kind}, 16 speakers: x bare", beside(cell, cells, BARE), {"mesh": 0.55, "plain": 0.4}[cell.kind])


# Delays ------------------------------------------------------------------------------------------

def medians(cell):
    return [median(delays) for delays in cell.delays]


def p99(cell):
    """99 of 100 are not slower."""
    times = sorted(delay for delays in cell.delays for delay in delays)
    return [times[int(len(times) * 0.99)]]


def show_delays(cells, goals):
    """`goals`: (rival, of what) -> at most so many times its."""
    for cell in of_ours(cells):
        for (rival, what), goal in goals.items():
            ratio = beside(cell, cells, rival, {"median": medians, "p99": p99}[what])
            if ratio is not None:
                bench.at_most(f"{cell.kind}, {cell.who}: {what} x {rival}", ratio, goal)


def part_late():
    """100 messages a second: from sending to arrival at the last of 8."""
    cells = [Cell(who, kind, lambda: Run(start(), kind, 8)) for who, kind, start in contenders(8, (LINES,)) if who != ASYNCIO]
    for _ in range(ROUNDS):
        for cell in cells:
            cell.delays.append([])
            cell.attempt(lambda: late(cell.run, cell.delays[-1], bench.slice * 2.5))
    for cell in cells:
        cell.close()
    show_delays([cell for cell in cells if cell.kind == "mesh" or cell.who != LINES], {(BARE, "median"): 1.15, (C, "median"): 1})


def late(run, delays, seconds):
    """100 messages a second; from each one's sending to its arrival at the last receiver."""
    run.settle()
    due = time.perf_counter()
    until = due + seconds
    while due < until:
        time.sleep(max(0, due - time.perf_counter()))
        began = time.perf_counter()
        run.send(1)
        run.wait()
        now = time.perf_counter()
        delays.append(now - began)
        due = max(due + 0.01, now)


class Chain:
    """Four programs in a row, and a socket of ours at each end: what one end says, the other hears."""

    def __init__(self, start):
        """`start` starts a program that joins the given host and port, or none."""
        self.hubs = [start().drain()]
        left = Member(self.hubs[0].port)  # accepted before the next program is
        for _ in range(3):
            self.hubs.append(start("127.0.0.1", self.hubs[-1].port).drain())
        self.ends = [left, Member(self.hubs[-1].port)]
        self.streams = [stream("plain", 0), stream("plain", 1)]
        self.counts, self.sent = [0, 0], [deque(), deque()]  # said; when, of what has not arrived
        left.heard, self.ends[1].heard = self.streams[1], self.streams[0]
        for number in (1, 0):  # from the right first: when it arrives, both ends are accepted
            self.say(number)
            self.ends[1 - number].read_to(self.streams[number].size)
            self.sent[number].clear()

    def say(self, number):
        said = self.streams[number]
        start = self.counts[number] * said.size
        self.ends[number].send(said.view[start:start + said.size])
        self.counts[number] += 1
        self.sent[number].append(time.perf_counter())

    def hear(self, seconds, delays):
        """What arrives within so many seconds."""
        socks = {end.sock: number for number, end in enumerate(self.ends)}
        ready = select.select(list(socks), [], [], max(0, seconds))[0]
        for sock in ready:
            self._hear_end(socks[sock], delays)
        return ready

    def _hear_end(self, number, delays):
        end, waiting = self.ends[number], self.sent[1 - number]
        end.check(end.recv())
        missing = self.counts[1 - number] - end.position // end.heard.size
        while len(waiting) > missing:
            delays.append(time.perf_counter() - waiting.popleft())

    def talk(self, delays, seconds):
        """Ten messages a second from each end."""
        due = time.perf_counter()
        for number in range(max(int(20 * seconds), 2)):
            while time.perf_counter() < due:
                self.hear(due - time.perf_counter(), delays)
            self.say(number % 2)
            due += 0.05
        while any(self.sent):
            if not self.hear(load.PATIENCE, delays):
                raise Stalled("a message of the chain is missing")

    def close(self):
        for end in self.ends:
            end.sock.close()
        for hub in self.hubs:
            hub.end()


def part_chain():
    """Four members in a row, 10 messages a second from each end: from sending at one end to arrival at the other."""
    starts = {(LINES, "mesh"): lambda *peer: ours(LINES, ROW_ONLY, "hub", *peer), (BARE, "plain"): lambda *peer: relay("bare", *peer),
              (ASYNCIO, "plain"): lambda *peer: relay("asyncio", *peer)}
    if C_PATH:
        starts[C, "plain"] = lambda *peer: c_program(C_PATH, *peer)
    cells = [Cell(who, kind, lambda: Chain(start)) for (who, kind), start in starts.items()]
    load.free_all()
    for _ in range(ROUNDS):
        for cell in cells:
            cell.delays.append([])
            cell.attempt(lambda: cell.run.talk(cell.delays[-1], bench.slice * 6))
    for cell in cells:
        cell.close()
    show_delays(cells, {(BARE, "median"): 1.5, (ASYNCIO, "median"): 1, (C, "median"): 1 / 60, (BARE, "p99"): 1.5, (ASYNCIO, "p99"): 1,
                        (C, "p99"): 1 / 60})


# What does nothing, and what there is much of -----------------------------------------------------

def part_links():
    """1,000 links that say nothing: a turn in which one speaks and nobody is sent anything, and memory."""
    hubs, costs = {}, {8: [], 1000: []}
    for count in costs:
        hub = ours()
        warm(hub)
        before = hub.status("VmRSS")
        members = [Member(hub.port) for _ in range(count)]
        speaker = Member(hub.port)
        speaker.send(load.frame(b"s00") + load.HEADER.pack(60_000))
        hubs[count] = hub, members, speaker
        until(lambda: hub.descriptors() >= count)
        if count == 1000:
            bench.at_most("memory of an idle link", (hub.status("VmRSS") - before) / count, 4, "KB")
    time.sleep(0.7)  # until it is settled what they all are
    for _ in range(ROUNDS):
        for count, (hub, _, speaker) in hubs.items():
            costs[count].append(turn_cost(hub, speaker, 40 if bench.slice < 0.1 else 200))
    for hub, members, speaker in hubs.values():
        for member in [*members, speaker]:
            member.sock.close()
        hub.end()
    bench.at_most("a turn's CPU with 1,000 idle links x with 8", median(many / few for few, many in zip(*costs.values())), 1.1)


def warm(hub):
    """One message from one link to another, so that all is loaded that a first one needs."""
    said, hears, speaks = stream("plain", 1), Member(hub.port), Member(hub.port)
    hears.heard = said
    speaks.send(said.view[:said.size])
    hears.read_to(said.size)


def turn_cost(hub, speaker, turns):
    """CPU seconds of a turn in which a byte comes of a text that is not whole yet."""
    cpu = hub.cpu()
    for _ in range(turns):
        speaker.send(b"x")
        time.sleep(0.0005)
    time.sleep(0.02)
    return (hub.cpu() - cpu) / turns


def until(condition):
    give_up = time.monotonic() + load.PATIENCE
    while not condition():
        if time.monotonic() > give_up:
            raise Stalled("accepts nobody")
        time.sleep(0.01)


def part_idle():
    """Wake-ups of a hub with 8 links on which nothing is said."""
    cell = Cell(LINES, "plain", lambda: Run(ours(), "plain", 8))
    cell.attempt(lambda: cell.run.settle())
    time.sleep(0.1)  # what was just said is still being drawn
    before = cell.run.hub.switches()
    time.sleep(bench.slice * 15)
    bench.at_most(f"wake-ups in {bench.slice * 15:g} s", cell.run.hub.switches() - before, 0)
    cell.close()


def part_start():
    """From starting the process to what is said; runs that take turns."""
    starts = {"python3": bare_python, LINES: lambda: ready_after(ours()), SCREEN: lambda: ready_after(ours(SCREEN))}
    times = {who: [start() for _ in range(2 if bench.slice < 0.1 else 7)] for who, start in starts.items()}
    bench.at_most("line mode, to SERVER: x python3 -c pass", median(times[LINES]) / median(times["python3"]))
    bench.at_most("screen, to first paint x python3 -c pass", median(times[SCREEN]) / median(times["python3"]), 2)


def bare_python():
    began = time.perf_counter()
    with load.on_cores(load.HUB_CORES):
        subprocess.run(["/usr/bin/env", "python3", "-c", "pass"], check=True)
    return time.perf_counter() - began


def ready_after(hub):
    seconds = hub.ready_after
    hub.end()
    return seconds


def part_grow():
    """200,000 messages through one hub, against 20,000: CPU a delivery."""
    for kind in ("mesh", "plain"):
        few, many = [], []
        for _ in range(1 if bench.slice < 0.1 else 2):
            few.append(cost_of(kind, 20_000))
            many.append(cost_of(kind, 200_000))
        bench.at_most(f"{kind}: CPU a delivery of 200,000 x of 20,000", min(many) / min(few), 1.1)


def cost_of(kind, messages):
    """CPU a delivery, of so many messages to 8 receivers."""
    cell = Cell(LINES, kind, lambda: Run(ours(LINES, MORE_LINKS if kind == "mesh" else ""), kind, 8))
    cell.attempt(lambda: cell.run.settle())
    cell.attempt(lambda: cell.run.slice(60, most=messages))
    cell.close()
    return cell.run.cost


# A key while a stranger does its worst ------------------------------------------------------------

ZALGO = "e\u0301\u0302\u0303\u0304\u0306\u0307"
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


def say(name, text, origin, sequence, kind=load.SAY):
    return load.frame(load.RECORD.pack(kind, origin, sequence, int(load.BEGAN), len(name)) + name + text)


def nothing(origin):
    while True:
        yield b""


def flood(origin):
    for first in range(1, 1 << 40, 500):
        yield b"".join(say(b"eve", b"flood %d" % number, origin, number) for number in range(first, first + 500))


def hostile_names(origin):
    names = [(f"{number:04}" + ZALGO * 40).encode()[:700] for number in range(2000)]
    for sequence in range(1, 1 << 40):
        for first in range(0, len(names), 50):
            yield b"".join(say(name, b"", origin + 1 + first + place, sequence, load.HERE) for place, name in enumerate(names[first:first + 50]))


def invented_guests(origin):
    for first in range(1, 9000, 300):
        yield b"".join(say(b"guest %d" % number, b"x", origin + 1, number, load.GUEST) for number in range(first, first + 300))
    for first in range(1, 1 << 40, 300):
        yield b"".join(say(b"eve", load.ORIGIN.pack(origin + 1, 1 << 40), origin, number, load.LOST) for number in range(first, first + 300))


def texts_of_marks(origin):
    worst = [(ZALGO * 9000).encode()[:60_000], (FAMILY * 9000).encode()[:60_000], ("\u0915\u094d" * 9000).encode()[:50_000],
             ("\u1100" * 20_000).encode()[:60_000], ("\n\u0301" * 20_000).encode()[:60_000], ("\U0001f1e6" * 15_000).encode()[:60_000]]
    for sequence in range(1, 1 << 40):
        yield say(b"eve", worst[sequence % len(worst)], origin, sequence)


def part_keys():
    """From a key's press to the screen showing it, 95 of 100, while a neighbour at a mesh link attacks."""
    for attack in (nothing, flood, hostile_names, invented_guests, texts_of_marks):
        hub = ours(SCREEN)
        press(hub, 1)  # the first waits for what is loaded behind the first paint
        with load.Attack(hub, attack):
            delays = sorted(press(hub, number) for number in range(2, 22 if bench.slice < 0.1 else 62))
        bench.at_most(f"{attack.__name__.replace('_', ' ')}: 95 of 100 keys", delays[int(len(delays) * 0.95)] * 1e3, 50, "ms")
        hub.end()


def press(hub, count):
    """Press Z for the count-th time; seconds until so many are shown in a row."""
    time.sleep(0.02)  # a fast typist's pause: the figure is not one of keys in a heap
    began, hub.output = time.perf_counter(), b""
    os.write(hub.source, b"Z")
    hub.wait_for(lambda: b"Z" * count in hub.output)
    return time.perf_counter() - began


# Beginning and end ------------------------------------------------------------------------------

PARTS = {name[len("part_"):]: part for name, part in list(globals().items()) if name.startswith("part_")}
SECONDS = {"thr": 60, "step": 9, "talk": 16, "late": 15, "chain": 28, "links": 8, "idle": 4, "start": 8, "grow": 20, "keys": 25}  # about


def main(arguments):
    """Exit status 1 if something of ours did not arrive whole, once, in order; what is slow is only said."""
    parser = argparse.ArgumentParser(prog="bench.py", description="What the built ./p2pchat does, beside others.")
    parser.add_argument("--quick", action="store_true", help="shorter slices: rough figures, for development")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE as well")
    parser.add_argument("parts", nargs="*", metavar="PART", help=" ".join(PARTS))
    options = parser.parse_args(arguments)
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        parser.error(f"no part {', '.join(unknown)}; there are {' '.join(PARTS)}")
    bench.__init__(options.quick)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    load.prepare_process()
    began = time.perf_counter()
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores; C: {C_PATH or 'none, P2PCHAT_C=/path/to/binary names one'}")
    try:
        measure(options.parts or list(PARTS))
    finally:
        load.end_all()
    asked = [figure for figure in bench.figures if figure.reached is not None]
    print(f"\n{sum(figure.reached for figure in asked)} of {len(asked)} goals reached, in {time.perf_counter() - began:.0f} s")
    for failure in bench.failures:
        print(f"FAILED {failure}")
    if options.json:
        keep(options.json)
    return 1 if bench.failures else 0


def keep(path):
    """The figures as JSON: what other runs, of other versions, are compared with."""
    figures = [{**figure._asdict(), "reached": figure.reached} for figure in bench.figures]
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"python": sys.version.split()[0], "cores": os.cpu_count(), "c_program": C_PATH, "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                   "figures": figures, "failures": bench.failures}, file, indent=1)


def measure(names):
    """One part after the other; a line on stderr says which, and how long the rest will take by what the first ones took."""
    began, expected = time.perf_counter(), 0
    for number, name in enumerate(names, 1):
        spent = time.perf_counter() - began
        pace = spent / expected if expected else 0.4 if bench.slice < 0.1 else 1
        left = pace * sum(SECONDS[other] for other in names[number - 1:])
        print(f"[{number}/{len(names)}] {name}, about {left:.0f} s left", file=sys.stderr, flush=True)
        expected += SECONDS[name]
        bench.part = name
        print(f"\n{name}: {PARTS[name].__doc__}")
        try:
            PARTS[name]()
        except (Stalled, Wrong) as error:
            bench.failures.append(f"{name}: {error}")
        load.end_all()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
