"""The built program among hostile neighbours, for minutes: `make torture`, or `make torture ONLY=flood` for one part.

ann is a real process at a pty. bob and cy are two quiet members that have only her between them: all the while bob says
something to cy, somebody presses a key, and the time that each takes is noted, and ann's memory. Prints a report of
figures; exits with 1 if a limit below was passed or anything else broke.
"""

import contextlib
import os
import random
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from helpers import BUILT, Terminal, encode_pair, python  # noqa: E402
from hostile import Drain, Stranger, cpu, descriptors, greeting, memory, mesh, said  # noqa: E402
from message import Kind, encode_addresses, encode_frame  # noqa: E402

MESSAGE_SECONDS = 1.0  # from bob to cy through ann, at worst, on a machine whose two cores the flood wants too
KEY_SECONDS = 1.0  # from a key to its echo, at worst; typical are 40 ms in a flood
GROWN = 80 << 20  # bytes by which ann may grow: a full log, a full scrollback, one neighbour's full queue


class Report:
    """The figures, as they come; and whether all are within their limits."""

    def __init__(self):
        self.broken = 0

    def part(self, title):
        print(f"\n{title}", flush=True)

    def figure(self, what, value, limit=None, unit=""):
        good = limit is None or value <= limit
        self.broken += not good
        bound = "" if limit is None else f"   (at most {limit:,g})"
        print(f"  {'ok  ' if good else 'HURT'} {what:<58} {value:>12,.4g} {unit}{bound}", flush=True)

    def truth(self, what, holds):
        self.broken += not holds
        print(f"  {'ok  ' if holds else 'HURT'} {what}", flush=True)


class House:
    """ann at a terminal, bob and cy at her, and the three measurements."""

    def __init__(self, *arguments, command=(BUILT,)):
        self.ann = Terminal("ann", *arguments, command=command)
        self.port = self.ann.port
        self.bob, self.cy = Stranger(self.port, "127.0.0.2"), Stranger(self.port, "127.0.0.3")
        self._drain_bob, self._drain_cy = Drain(self.bob), Drain(self.cy)
        self.messages, self.keys, self.number = [], [], 0
        self.measure(1.0)
        self.messages, self.keys = [], []  # a stranger is told nothing in its first half second
        self.before, self.cpu_before = memory(self.ann.process.pid), cpu(self.ann.process.pid)

    def measure(self, seconds):
        """Talk and type for so long; each takes its turn, ten times a second."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._message()
            self._key()
            self._watch(0.1)

    def _message(self):
        self.number += 1
        mark = b"from bob to cy %d." % self.number
        self._drain_cy.expect(mark)
        began = time.monotonic()
        self.bob.say(b"bob", mark)
        while mark not in self._drain_cy.seen and time.monotonic() < began + 10 and not self._drain_cy.over.is_set():
            self._watch(0.002)
        self.messages.append(self._drain_cy.seen.get(mark, began + 10) - began)

    def _key(self):
        typed = "x" * (self.number % 60)
        began = time.monotonic()
        os.write(self.ann.master, b"\x15" + typed.encode())
        while self.ann.rows[-3] != typed and time.monotonic() < began + 10:
            self._watch(0.002)
        self.keys.append(time.monotonic() - began)

    def _watch(self, seconds):
        """One read: under a flood there is always more to show, and who measures must not be busy with showing it."""
        select.select([self.ann.master], [], [], seconds)
        data = self.ann.read()
        self.ann.model.feed(data)

    def met(self, name):
        """Whether ann's screen ever named somebody so."""
        self._watch(0)
        return name.encode() in self.ann.written

    def report(self, report, message_limit=MESSAGE_SECONDS, key_limit=KEY_SECONDS, grown=GROWN):
        pid = self.ann.process.pid
        alive = self.ann.process.poll() is None
        report.truth("ann is alive", alive)
        for what, times, limit in (("messages", self.messages, message_limit), ("keys", self.keys, key_limit)):
            times = sorted(times)
            report.figure(f"{what}: median of {len(times)}", times[len(times) // 2], None, "s")
            report.figure(f"{what}: slowest", times[-1], limit, "s")
        if alive:
            report.figure("memory before", self.before / 1e6, None, "MB")
            report.figure("memory grown", (memory(pid) - self.before) / 1e6, grown / 1e6, "MB")
            report.figure("processor time of ann", cpu(pid) - self.cpu_before, None, "s")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.bob.close()
        self.cy.close()
        self.ann.close()


# Floods: each in a process of its own, so that it takes nothing from who measures ---------------------------

def flood(kind, port, seconds, count):
    """Send as fast as it goes, over so many links, until the time is up; a link that is closed is opened again."""
    until, flooders = time.monotonic() + seconds, [Flooder(kind, port, seed) for seed in range(count)]
    while time.monotonic() < until:
        for flooder in flooders:
            flooder.push()
    print(sum(flooder.opened for flooder in flooders), sum(flooder.sent for flooder in flooders))


class Flooder:
    def __init__(self, kind, port, seed):
        self.kind, self.port, self.rng = kind, port, random.Random(seed)
        self.opened = self.sent = 0
        self.stranger = None

    def push(self):
        try:
            if self.stranger is None:
                self._open()
            self._rest = self._rest or next(self._data)
            count = self.stranger.sock.send(self._rest)
            self._rest, self.sent = self._rest[count:], self.sent + count
        except BlockingIOError:
            pass
        except (OSError, StopIteration):
            self._close()
            return
        self._discard()

    def _open(self):
        self.stranger, self._rest, self._data = Stranger(self.port), b"", FLOODS[self.kind](self.rng)
        self.stranger.sock.setblocking(False)
        self.opened += 1

    def _close(self):
        if self.stranger is not None:
            self.stranger.close()
        self.stranger = None

    def _discard(self):
        """Read what is there: a flooder that does not read is another test."""
        try:
            if not self.stranger.sock.recv(1 << 20):
                self._close()
        except BlockingIOError:
            pass
        except OSError:
            self._close()


def plain_messages(rng):
    while True:
        yield b"".join(encode_pair(b"eve", b"flood %d" % rng.getrandbits(60)) for _ in range(500))


def plain_repeats(rng):
    data = encode_pair(b"eve", b"flood") * 2000
    while True:
        yield data


def plain_long(rng):
    while True:
        yield b"".join(encode_pair(b"eve", b"%d " % rng.getrandbits(60) + b"z" * 2000) for _ in range(20))


def plain_names(rng):
    while True:
        yield b"".join(encode_pair(b"eve %d" % rng.getrandbits(60), b"flood") for _ in range(500))


def rubbish(rng):
    while True:
        yield rng.getrandbits(8 * 1000).to_bytes(1000, "little")


def mesh_messages(rng):
    origin, sequence = rng.getrandbits(64), 0
    yield greeting(b"eve", origin)
    while True:
        yield b"".join(said(origin, sequence + n, b"eve", b"flood %d" % rng.getrandbits(60)) for n in range(1, 500))
        sequence += 500


def mesh_duplicates(rng):
    origin = rng.getrandbits(64)
    yield greeting(b"eve", origin)
    data = said(origin, 1, b"eve", b"flood") * 2000
    while True:
        yield data


def mesh_origins(rng):
    yield greeting(b"eve", rng.getrandbits(64))
    while True:
        yield b"".join(said(rng.getrandbits(64), 1, b"eve", b"flood") for _ in range(500))


def mesh_members(rng):
    yield greeting(b"eve", rng.getrandbits(64))
    while True:
        yield b"".join(said(rng.getrandbits(64), 1, b"n%d" % rng.getrandbits(40), b"", kind=3) for _ in range(500))


def mesh_rubbish(rng):
    yield greeting(b"eve", rng.getrandbits(64))
    while True:
        yield rng.getrandbits(8 * 1000).to_bytes(1000, "little")


def mesh_pings(rng):
    yield greeting(b"eve", rng.getrandbits(64))
    while True:
        yield bytes([1, 0, 0, 0, 0, 0, 0, 0, 17]) * 5000


def mesh_peers(rng):
    yield greeting(b"eve", rng.getrandbits(64))
    while True:
        yield b"".join(said_peers(rng) for _ in range(50))


def said_peers(rng):
    return encode_frame(encode_addresses(Kind.PEERS, [(f"127.0.{rng.randrange(256)}.{rng.randrange(1, 255)}", rng.randrange(1, 65536)) for _ in range(8)]))


def knocks(rng):
    yield encode_pair(b"eve", b"hello")


def hellos(rng):
    yield greeting(b"eve", rng.getrandbits(64))
    for _ in range(20):
        yield bytes([1, 0, 0, 0, 0, 0, 0, 0, 17])


FLOODS = {one.__name__: one for one in (plain_messages, plain_repeats, plain_long, plain_names, rubbish, mesh_messages,
                                        mesh_duplicates, mesh_origins, mesh_members, mesh_rubbish, mesh_pings, mesh_peers,
                                        knocks, hellos)}


LONG = ("plain_messages", "rubbish", "mesh_messages", "mesh_rubbish")  # for 20 s; the variations for 3


def part_flood(report):
    """One peer sends as fast as it can."""
    for kind in FLOODS:
        one_flood(report, kind, 20 if kind in LONG else 3)


def one_flood(report, kind, seconds, count=1):
    report.part(f"flood: {count} x {kind} for {seconds} s")
    with House() as house, flooding(house.port, kind, seconds, count) as flooder:
        house.measure(seconds)
        opened, sent = flooder.communicate(timeout=60)[0].split()
        report.figure("links opened", int(opened))
        report.figure("sent", int(sent) / 1e6, None, "MB")
        house.report(report)


def flooding(port, kind, seconds, count=1):
    command = python(os.path.abspath(__file__), "--flooder", kind, str(port), str(seconds), str(count))
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def part_floods(report):
    """A hundred links flood at once, and as many mesh links as there may be."""
    one_flood(report, "plain_messages", 8, 100)
    one_flood(report, "mesh_messages", 8, 7)
    one_flood(report, "hellos", 6, 30)


def part_stuck(report):
    """Neighbours that read nothing while 100 MB and more pass by: a C peer, one of ours, and fifty C peers."""
    for what, count, connect in (("a C peer", 1, Stranger), ("one of ours", 1, mesh), ("C peers", 50, Stranger)):
        report.part(f"{count} that read nothing: {what}")
        with House() as house, contextlib.ExitStack() as stack:
            for _ in range(count):
                stack.enter_context(connect(house.port, window=4096))
            house.measure(1)
            with flooding(house.port, "plain_long", 5) as flooder:
                house.measure(6)
                sent = int(flooder.communicate(timeout=60)[0].split()[1])
            report.figure("passed by", sent / 1e6, None, "MB")
            report.truth("that is 100 MB at least", sent > 100e6 or count > 1)
            house.report(report)


def part_slow(report, seconds=30):
    """One byte a second in, one out, and stops in the middle: of a length, a frame, a pair, a probe, a hello, a record."""
    report.part(f"slow and unfinished, for {seconds} s")
    pair, whole = encode_pair(b"slow", b"hello"), greeting(b"slow", 99) + said(99, 1, b"slow", b"hello")
    with House() as house, contextlib.ExitStack() as stack:
        for stream in (pair, whole):
            for stop in range(1, len(stream), 3):
                stack.enter_context(Stranger(house.port)).send(stream[:stop])
        readers = [stack.enter_context(connect(house.port, window=4096)) for connect in (Stranger, mesh)]
        writers = [(stack.enter_context(Stranger(house.port)), stream) for stream in (pair, whole)]
        house.measure(0.5)
        for second in range(seconds):
            for stranger, stream in writers:
                with contextlib.suppress(OSError):
                    stranger.send(stream[second:second + 1])
            for stranger in readers:
                with contextlib.suppress(OSError):
                    stranger.sock.setblocking(False)
                    stranger.sock.recv(1)
            house.measure(1)
        report.truth("the one of a byte a second was heard", house.met("slow"))
        house.report(report)


def part_crowd(report):
    """2,000 connections that say nothing: who was there before and is just quiet stays, and a newcomer is let in."""
    report.part("2,000 silent connections")
    with House() as house, contextlib.ExitStack() as stack:
        quiet = [stack.enter_context(Stranger(house.port, host)) for host in ("127.0.0.4", "127.0.0.1")]
        house.measure(1)
        crowd(house, stack, 2000)
        began = time.monotonic()
        newcomers = [stack.enter_context(Stranger(house.port, host)) for host in ("127.0.0.5", "127.0.0.1")]
        newcomers[0].send(greeting(b"newcomer", 77) + said(77, 1, b"newcomer", b"hello"))
        newcomers[1].say(b"stranger", b"hello")
        while not (house.met("newcomer") and house.met("stranger")) and time.monotonic() < began + 10:
            house.measure(0.1)
        report.truth("one of ours and a C peer came in", house.met("newcomer") and house.met("stranger"))
        report.figure("they waited", time.monotonic() - began, 5, "s")
        for number, stranger in enumerate(quiet):
            stranger.say(b"quiet%d" % number, b"still here")
        house.measure(1)
        report.truth("who was just quiet is still there", house.met("quiet0") and house.met("quiet1"))
        report.figure("descriptors", descriptors(house.ann.process.pid), 1100)
        house.report(report)


def crowd(house, stack, count):
    """Connect so many sockets that say nothing, a hundred between two measurements."""
    for number in range(count):
        sock = stack.enter_context(socket.socket())
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", house.port))
        if number % 100 == 99:
            house.measure(0.2)


def part_descriptors(report):
    """ulimit -n 32."""
    report.part("32 descriptors, 60 silent connections")
    script = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32)); os.execv(sys.argv[1], sys.argv[1:])"
    with House(command=python("-c", script, BUILT)) as house, contextlib.ExitStack() as stack:
        crowd(house, stack, 60)
        house.measure(2)
        report.truth("a notice said that nobody can join", b"nobody new can join" in house.ann.written)
        late = stack.enter_context(Stranger(house.port))
        late.say(b"late", b"hello")
        house.measure(10)
        report.truth("who came last and spoke is in", house.met("late"))
        stack.close()
        house.measure(2)
        with Stranger(house.port) as after:
            after.say(b"after", b"hello")
            house.measure(2)
            report.truth("when the crowd is gone, anybody can join", house.met("after"))
        house.report(report)


def part_flapping(report, rounds=10):
    """Two hundred come, say a word and go, again and again: 50 lines about it and not 4,000."""
    report.part(f"{rounds} x 200 come and go")
    with House() as house:
        for _ in range(rounds):
            strangers = [Stranger(house.port) for _ in range(200)]
            for stranger in strangers:
                stranger.say(b"x%d" % random.getrandbits(30), b"hi")
            house.measure(0.7)
            for stranger in strangers:
                stranger.close()
        house.measure(11)
        report.truth("the others were counted", b"more joined or left" in house.ann.written)
        house.report(report)


def part_liars(report, seconds=60):
    """Five liars link up every two seconds and name forty addresses. All of them are one listener, which counts."""
    report.part(f"liars for {seconds} s")
    knocks = []
    with socket.create_server(("0.0.0.0", 0), backlog=500) as listener, House() as house:
        port = listener.getsockname()[1]
        threading.Thread(target=count_knocks, args=(listener, knocks), daemon=True).start()
        for number in range(seconds // 2):
            with contextlib.ExitStack() as stack:
                for part in range(5):
                    named = [(f"127.1.{number % 250}.{part * 8 + n + 1}", port) for n in range(8)]
                    stack.enter_context(mesh(house.port, origin=number * 5 + part + 1, addresses=named))
                house.measure(2)
        report.figure("named", 20 * seconds)
        report.figure("dials a minute", len(knocks) * 60 / seconds, 60)
        report.truth("each said a probe, and no more", all(said.startswith(b"\3\0\0\0\0\0\0\0ann") and len(said) < 100 for said in knocks))
        house.report(report)


def count_knocks(listener, knocks):
    with contextlib.suppress(OSError):
        while True:
            sock, _ = listener.accept()
            with sock:
                sock.settimeout(2)
                knocks.append(sock.recv(1000))


def part_terminal(report):
    """The terminal is gone, and stops reading, while a flood comes in."""
    report.part("a terminal that hangs up in a flood")
    with House() as house, flooding(house.port, "plain_messages", 3) as flooder:
        house.measure(1)
        house.ann.hang_up()
        began = time.monotonic()
        status = house.ann.process.wait(20)
        report.figure("until it has ended", time.monotonic() - began, 4, "s")
        report.truth(f"its status: {status}", status in (0, 128 + signal.SIGHUP))
        flooder.communicate(timeout=60)


PARTS = {name[len("part_"):]: value for name, value in list(globals().items()) if name.startswith("part_")}


def main(arguments):
    if arguments[:1] == ["--flooder"]:
        return flood(arguments[1], int(arguments[2]), float(arguments[3]), int(arguments[4]))
    unknown = [name for name in arguments if name not in PARTS]
    if unknown:
        sys.exit(f"there is no part {unknown[0]}; the parts are {', '.join(PARTS)}")
    report = Report()
    allow_descriptors()
    for name in arguments or PARTS:
        PARTS[name](report)
    print(f"\n{report.broken or 'nothing'} hurt", flush=True)
    return 1 if report.broken else 0


def allow_descriptors():
    """For a crowd of 2,000 and for ann, who inherits it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard) if hard > 0 else 8192, hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
