"""`make bench`: what the built program does in the five kinds of work, beside others, as ratios of one run.

    make bench [ONLY="[--quick] PART ..."] [P2PCHAT_C=/path/to/binary]

Parts: thr step talk stuck late chain, and grow idle links start keys scroll simulate.

Knows: which work is measured, with how many receivers, what a ratio is set against, which ratios are goals.
Must not know: how a byte gets to a hub and back (bench_load.py).
Leaves out: absolute goals. Shared machines do not hold them; all that is compared took turns in one run.
Linux only, for what a process costs is read from /proc.

The kinds of work: one source, one hub, N receivers, texts of 50 bytes. Receivers and source are sockets of the
bench; the hub is the built program, in line mode or with its screen on a pty, over mesh links or plain ones.
thr    bursts, at most 512 messages ahead of the slowest receiver
step   the next message when all have the last
talk   16 peers all speaking, each at most 4 ahead
stuck  thr with N = 8, while 1 or 16 others read nothing; against the rate without them
chain  four members in a row, 10 messages a second from each end
late   100 messages a second: from sending to arrival at the last of 8
"""

from __future__ import annotations

import argparse
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from statistics import median

import bench_load as load
from bench_load import LINES, SCREEN, Member, Run, Stalled, Talk, Wrong, c_program, ours, relay, stream

C_PATH = os.environ.get("P2PCHAT_C", "")
ROUNDS = 4  # slices of each run; in each round every run gets its turn
MESH_LINKS = 7  # receivers that the program takes beside a source, as it is built
MORE_LINKS = "peers.MAX_MESH_LINKS = 2000"
ROW_ONLY = "peers.WANT_LINKS = 1"  # else four members link all with all, and there is no row
BARE, ASYNCIO, C = "bare", "asyncio", "C"

# (work, kind, receivers): what is asked for, as (against what, how much): ratios of rates, but "cpu", which is at most so
# many times the bare relay's. The goals were set against the original C program and a relay in C, beside which the two
# relays here were measured: C 5,000, 32,000 and 97,000 deliveries a second (thr, N = 1, 8, 64), asyncio 67,000, 120,000
# and 133,000. So where that C program is not at hand, 100 x C is 7.5, 27 and 73 x asyncio; 20 x C is 5.3 and 14.6.
GOALS = {
    ("thr", "mesh", 1): [(BARE, 0.22), (ASYNCIO, 7.5), (C, 100)], ("thr", "mesh", 8): [(BARE, 0.30), (ASYNCIO, 27), (C, 100)],
    ("thr", "mesh", 64): [(BARE, 0.50), (ASYNCIO, 73), (C, 100)],
    ("thr", "plain", 8): [(ASYNCIO, 5.3), (C, 20)], ("thr", "plain", 64): [(ASYNCIO, 14.6), (C, 20)],
    ("step", "mesh", 8): [("cpu", 1.4), (BARE, 0.86), (C, 2)], ("step", "plain", 8): [("cpu", 1.4), (BARE, 0.86), (C, 2)],
    ("talk", "mesh", 16): [(BARE, 0.55), (C, 20)], ("talk", "plain", 16): [(BARE, 0.55), (C, 20)],
    **{(f"stuck {count}", kind, 8): [("free", 0.5)] for count in (1, 16) for kind in ("mesh", "plain")},
}
GOAL_WORDS = {"cpu": "CPU <= {} x bare", "free": ">= {}", BARE: ">= {} x bare", ASYNCIO: ">= {} x asyncio", C: ">= {} x C"}
TABLED = ("thr", "step", "talk", "stuck")


class Bench:
    """One run of the bench: how long, and what went wrong."""

    def __init__(self, quick=False):
        self.quick = quick
        self.slice = 0.1 if quick else 0.25  # seconds
        self.part = ""
        self.failures = []  # of ours, not whole: the exit status tells


bench = Bench()


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
            bench.failures.append(f"{bench.part}: {self.who} {self.kind}, {error}")

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
            cell.attempt(lambda: cell.run.slice(bench.slice, most=most_of(cell.run), **how))
    for cell in cells:
        cell.attempt(lambda: cell.run.finish())
        cell.close()
    return cells


def most_of(run):
    """Messages for one slice: a mesh stream cannot begin again, and has to do for all rounds, a first and a last message."""
    streams = getattr(run, "streams", None) or [run.stream]
    return (streams[0].count - 2) // ROUNDS if run.kind == "mesh" else 1 << 60


# The table ------------------------------------------------------------------------------------

HEAD = (f"{'':10}{'':7}{'':6}{'N':>4}{'deliveries/s':>14}{'us CPU':>8}{'x bare':>8}{'x asyncio':>10}{'x C':>8}"
        f"{'CPU x bare':>11}{'peak MB':>8}{'load':>6}{'waited':>7}  {'checked':13}goal")


def show_rows(work, receivers, cells):
    """The rows of one work.

    `us CPU` is the hub's, a delivery; `load` the share of a core that the generator used; `waited` the share of the
    time in which the hub could have worked, had others not had its core.
    """
    rivals = {cell.who: cell for cell in cells if not cell.is_ours}
    for cell in cells:
        print(row(work, receivers, cell, rivals), flush=True)


def row(work, receivers, cell, rivals, free=None):
    begin = f"{work:10}{cell.who:7} {cell.kind:6}{receivers:>3}"
    if not cell.run or not cell.run.deliveries or not cell.ok:
        return f"{begin}{'':71}{cell.verdict}"
    run = cell.run
    ratios = {who: over(run, rivals.get(who), "rate") for who in (BARE, ASYNCIO, C)}
    costs = {BARE: over(run, rivals.get(BARE), "cost")}
    asked = goal(work, receivers, cell, ratios, costs, free) if cell.is_ours else ""
    return (f"{begin}{run.rate:>14,.0f}{run.cost:>8.2f}{cut(ratios[BARE]):>8}{cut(ratios[ASYNCIO]):>10}{cut(ratios[C]):>8}"
            f"{cut(costs[BARE]):>11}{cell.peak:>8.0f}{run.load:>6.0%}{run.waited / run.seconds:>7.0%}  {cell.verdict:13}"
            + (f"{run.rate / free.rate:.2f} of the rate without  " if free else "") + asked)


def over(run, rival, what):
    """The run's rate or cost / that of the rival's, None without one."""
    return getattr(run, what) / getattr(rival.run, what) if rival and rival.ok and rival.run else None


def cut(ratio):
    return "-" if ratio is None else f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.0f}"


def goal(work, receivers, cell, ratios, costs, free):
    """What was asked of this row and can be told: without the C program its goals are left out."""
    told = []
    for against, wanted in GOALS.get((work, cell.kind, receivers), ()):
        ratio = reach(against, cell, ratios, costs, free)
        reached = ratio is not None and (ratio <= wanted if against == "cpu" else ratio >= wanted)
        if ratio is not None:
            told.append(f"{'reached' if reached else 'MISSED'} {GOAL_WORDS[against].format(wanted)} ({cut(ratio)})")
    return ", ".join(told)


def reach(against, cell, ratios, costs, free):
    """The ratio that a goal is about; None if it cannot be told."""
    if against == "free":
        return free and cell.run.rate / free.rate
    return costs[BARE] if against == "cpu" else ratios[against]


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
    modes = (LINES,) if bench.quick else (LINES, SCREEN)
    for who, kind, start in contenders(8 + 16, modes):
        cells = [Cell(who, kind, lambda: Run(start(), kind, 8, stuck)) for stuck in (0, 1, 16)]
        take_turns(cells)
        free = cells[0].run if cells[0].ok else None
        for stuck, cell in zip((0, 1, 16), cells):
            print(row(f"stuck {stuck}", 8, cell, {}, free), flush=True)


def percentiles(seconds):
    """'median / 99 of 100', in ms."""
    return f"{median(seconds) * 1e3:9.2f} /{p99(seconds) * 1e3:8.2f} ms"


def show_delays(work, receivers, cells, delays):
    """A row for each cell; `delays` beside it: seconds, a list each. Ratios of medians."""
    medians = {cell.who: median(times) for cell, times in zip(cells, delays) if not cell.is_ours and times and cell.ok}
    for cell, times in zip(cells, delays):
        begin = f"{work:10}{cell.who:7} {cell.kind:6}{receivers:>3}"
        if not cell.ok or not times:
            print(f"{begin}  {cell.verdict}")
            continue
        ratios = "  ".join(f"{median(times) / medians[who]:.2f} x {who}" for who in medians if cell.is_ours)
        print(f"{begin}  median / p99 {percentiles(times)}  {cell.verdict}  {ratios}", flush=True)


def part_late():
    """100 messages a second: from sending to arrival at the last of 8 receivers."""
    cells = [Cell(who, kind, lambda: Run(start(), kind, 8)) for who, kind, start in contenders(8)]
    delays = []
    for cell in cells:
        delays.append([])
        cell.attempt(lambda: late(cell.run, delays[-1], bench.slice * 6))
        cell.close()
    show_delays("late", 8, cells, delays)


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
        self.peak = 0

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
        for number in range(int(20 * seconds)):
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
    starts = {(mode, "mesh"): lambda *peer, mode=mode: ours(mode, ROW_ONLY, "hub", *peer) for mode in (LINES, SCREEN)}
    starts[BARE, "plain"] = lambda *peer: relay("bare", *peer)
    starts[ASYNCIO, "plain"] = lambda *peer: relay("asyncio", *peer)
    if C_PATH:
        starts[C, "plain"] = lambda *peer: c_program(C_PATH, *peer)
    cells, delays = [], []
    for (who, kind), start in starts.items():
        cells.append(Cell(who, kind, lambda: Chain(start)))
        delays.append([])
        cells[-1].attempt(lambda: cells[-1].run.talk(delays[-1], bench.slice * 10))
        cells[-1].close()
    show_delays("chain", 4, cells, delays)
    beside = delays[-1] if C_PATH and cells[-1].ok else []
    for cell, times in zip(cells, delays):
        if cell.is_ours and cell.ok and beside:
            print(f"{cell.who:6} {over_c('median', times, beside, 1 / 50)}, {over_c('p99', times, beside, 1 / 100)}")


def over_c(what, times, beside, wanted):
    ratio = (median(times) / median(beside) if what == "median" else p99(times) / p99(beside))
    return f"{'reached' if ratio <= wanted else 'MISSED'} {what} <= {wanted} x C ({ratio:.3f})"


def p99(seconds):
    return sorted(seconds)[int(len(seconds) * 0.99)]


# The rest ---------------------------------------------------------------------------------------

def part_grow():
    """200,000 messages through one hub, against 20,000: deliveries for a second of its CPU; the best of three, in turn."""
    for kind in ("mesh", "plain"):
        rates = {20_000: [], 200_000: []}
        for count in list(rates) * (1 if bench.quick else 3):
            rates[count].append(rate_of(kind, count))
        few, many = map(max, rates.values())
        ratio = many / few if few else 0
        if 0 in [*rates[20_000], *rates[200_000]]:
            print(f"{kind:6} FAILED, see below")
        print(f"{kind:6} 20,000: {few:,.0f}, 200,000: {many:,.0f}, {ratio:.2f} of it"
              f"  {'reached' if ratio >= 0.9 else 'MISSED'} >= 0.9", flush=True)


def rate_of(kind, messages):
    """Deliveries a CPU second, of so many messages to 8 receivers; 0 if it went wrong."""
    cell = Cell(LINES, kind, lambda: Run(ours(LINES, MORE_LINKS if kind == "mesh" else ""), kind, 8))
    cell.attempt(lambda: cell.run.settle())
    cell.attempt(lambda: cell.run.slice(60, most=messages))
    cell.close()
    return 1e6 / cell.run.cost if cell.ok else 0


def part_idle():
    """Wake-ups and CPU of hubs with 8 plain links on which nothing is said."""
    seconds = 1 if bench.quick else 5
    cells = [Cell(who, kind, lambda: Run(start(), kind, 8)) for who, kind, start in contenders(8) if kind == "plain"]
    cells = [cell for cell in cells if cell.run]
    for cell in cells:
        cell.attempt(lambda: cell.run.settle())
    time.sleep(0.1)  # what was just said is still being drawn
    before = [usage(cell.run.hub) for cell in cells]
    time.sleep(seconds)
    for cell, (wakes, cpu) in zip(cells, before):
        now_wakes, now_cpu = usage(cell.run.hub)
        print(f"{cell.who:8} {now_wakes - wakes:5} wake-ups, {(now_cpu - cpu) * 1e3:6.2f} ms CPU in {seconds} s")
        cell.close()


def usage(hub):
    return hub.switches(), hub.cpu()


def part_links():
    """1,000 idle plain links on one hub: its memory with them, less that without."""
    for who, kind, start in [some for some in contenders(1000) if some[1] == "plain"]:
        hub = start()
        warm(hub)
        before = hub.status("VmRSS")
        cell = Cell(who, kind, lambda: Run(hub, kind, 1000))
        cell.attempt(lambda: cell.run.settle())
        after = hub.status("VmRSS")
        cell.close()
        each = (after - before) / 1001
        asked = f"{'reached' if each < 10 else 'MISSED'}: under 10 KB" if cell.is_ours else ""
        print(f"{who:8} {each:5.1f} KB a link  {cell.verdict}  {asked}", flush=True)


def warm(hub):
    """One message from one link to another, so that all is loaded that a first one needs."""
    said, hears, speaks = stream("plain", 1), Member(hub.port), Member(hub.port)
    hears.heard = said
    speaks.send(said.view[:said.size])
    hears.read_to(said.size)


def part_start():
    """From starting the process to what is said; medians of runs that took turns."""
    starts = {"python3": bare_python, LINES: lambda: ready_after(ours()), SCREEN: lambda: ready_after(ours(SCREEN))}
    if C_PATH:
        starts[C] = lambda: ready_after(c_program(C_PATH))
    times = {who: [] for who in starts}
    for _ in range(3 if bench.quick else 11):
        for who, start in starts.items():
            times[who].append(start())
    labels = {"python3": "python3 -c pass", LINES: "to SERVER:", SCREEN: "to first paint"}
    for who, each in times.items():
        ratio = median(each) / median(times["python3"])
        print(f"{who:8} {labels.get(who, ''):16} {median(each) * 1e3:7.1f} ms  {ratio:5.2f} x python3"
              + (f"  {'reached' if ratio <= 2.2 else 'MISSED'}: about twice" if who == SCREEN else ""), flush=True)


def bare_python():
    began = time.perf_counter()
    with load.on_cores(load.HUB_CORES):
        subprocess.run(["/usr/bin/env", "python3", "-c", "pass"], check=True)
    return time.perf_counter() - began


def ready_after(hub):
    seconds = hub.ready_after
    hub.end()
    return seconds


def part_keys():
    """From a key's press to the screen showing it; the hub's CPU a key beside it."""
    hub = ours(SCREEN)
    source = Member(hub.port)
    press(hub, 1)  # the first waits for what is loaded behind the first paint
    cpu, count = hub.cpu(), 30
    rest = [press(hub, number) for number in range(2, count + 2)]
    print(f"at rest      median / p99 {percentiles(rest)}  {(hub.cpu() - cpu) / count * 1e3:.2f} ms CPU a key", flush=True)
    flooding = threading.Event()
    flooding.set()
    thread = threading.Thread(target=flood, args=(source, flooding), daemon=True)
    thread.start()
    hub.wait_for(lambda: b"s00" in hub.output)
    busy = [press(hub, number) for number in range(count + 2, 2 * count + 2)]
    flooding.clear()
    thread.join(load.PATIENCE)
    print(f"under flood  median / p99 {percentiles(busy)}  {median(busy) / median(rest):.1f} x at rest")
    source.sock.close()
    hub.end()


def press(hub, count):
    """Press Z for the count-th time; seconds until so many are shown in a row."""
    time.sleep(0.02)  # a fast typist's pause: the figure is not one of keys in a heap
    began, hub.output = time.perf_counter(), b""
    os.write(hub.source, b"Z")
    hub.wait_for(lambda: b"Z" * count in hub.output)
    return time.perf_counter() - began


def flood(member, flooding):
    said = stream("plain")
    try:
        while flooding.is_set():
            member.send(said.view[:1000 * said.size])
    except (Stalled, Wrong):
        pass


def part_scroll():
    """A screen with 100,000 messages behind it: to the oldest, a page, to the newest; against the same with 1,000."""
    few, many = scrolling(1_000), scrolling(10_000 if bench.quick else 100_000)
    for what in few:
        print(f"{what:22} {many[what] * 1e3:8.2f} ms, {many[what] / few[what]:.1f} x as with 1,000 messages")


def scrolling(count):
    """what was pressed -> seconds until it was shown, medians of 5."""
    hub, said = ours(SCREEN), stream("mesh")
    source = Member(hub.port, "mesh", said.origin)
    sender = threading.Thread(target=source.send, args=(said.view[:count * said.size],), daemon=True)
    sender.start()
    hub.wait_for(lambda: shown(hub, count - 1))
    sender.join()
    times = {what: [] for what in KEYS}
    for what, (key, number) in list(KEYS.items()) * 5:
        began, hub.output = time.perf_counter(), b""
        os.write(hub.source, key)
        hub.wait_for(lambda: shown(hub, number if number >= 0 else count + number))
        times[what].append(time.perf_counter() - began)
    source.sock.close()
    hub.end()
    return {what: median(each) for what, each in times.items()}


# what -> (key, the number of a message that is then shown, from the end if negative); in this order they are pressed
KEYS = {"Ctrl-Home to the oldest": (b"\x1b[1;5H", 0), "PageDown": (b"\x1b[6~", 25),
        "Ctrl-End to the newest": (b"\x1b[1;5F", -1), "PageUp": (b"\x1b[5~", -25)}


def shown(hub, number):
    if len(hub.output) > 1 << 17:
        hub.output = hub.output[-(1 << 16):]
    return b"%08d" % number in hub.output


def part_simulate():
    """`make simulate`: its seconds of work, against a fixed piece of plain Python."""
    count = 100 if bench.quick else 300
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-B", os.path.join(load.TOP, "tests", "simulator.py"), str(count), "50"],
                          capture_output=True, text=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": os.path.join(load.TOP, ".build", "runtime")})
    seconds = time.perf_counter() - began
    events = re.search(r"([\d,]+) events", done.stdout)
    if done.returncode or not events:
        bench.failures.append(f"simulate: {done.stderr[-300:]}")
        return
    rate = int(events[1].replace(",", "")) / seconds
    print(f"{count} members, 50 % killed: {seconds:.1f} s, {rate:,.0f} events/s,"
          f" {seconds / yardstick():.1f} x a million turns of plain Python")


def yardstick():
    """Seconds for a million turns of a loop with a dict and a division in it."""
    began, seen = time.perf_counter(), {}
    for number in range(1_000_000):
        seen[number % 1000] = number
    return time.perf_counter() - began


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
    bench.__init__(options.quick)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    load.prepare_process()
    began = time.perf_counter()
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores; C: {C_PATH or 'none, P2PCHAT_C=/path/to/binary names one'}")
    print("mesh, N over 7: a member takes 8 mesh links; for these its MAX_MESH_LINKS is raised, nothing else")
    try:
        for name in options.parts or PARTS:
            measure(name)
    finally:
        load.end_all()
    print(f"\n{time.perf_counter() - began:.0f} s")
    for failure in bench.failures:
        print(f"FAILED {failure}")
    return 1 if bench.failures else 0


def measure(name):
    """One part, under its headline."""
    print("\n" + (name + HEAD[len(name):] if name in TABLED else f"{name}: {PARTS[name].__doc__}"))
    bench.part = name
    try:
        PARTS[name]()
    except (Stalled, Wrong) as error:
        print(f"FAILED {error}")
        bench.failures.append(f"{name}: {error}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
