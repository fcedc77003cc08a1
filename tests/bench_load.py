"""The load of `make bench`: hubs as processes, sockets that speak to them, and two relays to compare with.

Knows: the bytes of README's "The wire", once more and on purpose: a reader of the program's own code would
not notice what both get wrong. How to start a hub, what it costs, and whether all arrived whole, once, in order.
Leaves out: which work is measured, and how it is printed (bench.py).

The generator must not be the bottleneck: messages are made beforehand and repeat in a circle where the wire
allows it, a burst is one send, a read is as large as it comes, and the check is one comparison of bytes per read.
Everything blocks: after a burst each receiver has to get it, so it does not matter which is waited for first.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import math
import os
import pty
import re
import resource
import select
import selectors
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections import deque
from statistics import median

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILT = os.environ.get("P2PCHAT", os.path.join(TOP, "p2pchat"))  # another version, to compare with
PATIENCE = 3  # seconds without a byte until a hub counts as standing still
TEXT = 50  # bytes of each message's text
READ = 1 << 18  # bytes asked for in one read
NO_DIALS = 0  # a hello with this port: the hub has nowhere to dial us
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
HUB_CORES, OWN_CORES = CORES[:1], CORES[1:2]  # apart, so that neither waits for the other
LINES, SCREEN = "lines", "screen"


class Wrong(Exception):
    """What arrived is not what was sent: damaged, twice, missing, or out of order."""


class Stalled(Exception):
    """Nothing arrives any more, or nothing is taken."""


# The wire, from README ------------------------------------------------------------------------

HEADER = struct.Struct("<Q")
RECORD = struct.Struct("<BQQIH")  # kind, origin, sequence, time, length of the name
HELLO = struct.Struct("<B8sQHBH")  # kind, magic, origin, port, urgent, length of the name
MAGIC = b"p2pchat\x01"
SAY, GUEST, HERE, LOST = 1, 2, 3, 5
ORIGIN = struct.Struct("<QQ")  # of a LOST: who is missed, and the last sequence heard of it
LARGEST = 1 << 16  # bytes in a frame


def frame(body):
    return HEADER.pack(len(body)) + body


def hello(origin, urgent, name):
    """A hello without addresses and origins."""
    return HELLO.pack(16, MAGIC, origin, NO_DIALS, urgent, len(name)) + name + b"\0"


class Stream:
    """The messages of one author, made beforehand, all `size` bytes long. A plain one may be said in a circle."""

    def __init__(self, kind, author, count):
        self.kind, self.count = kind, count
        self.origin = 1 + author
        make = self._record if kind == "mesh" else self._pair
        messages = [make(b"s%02d" % author, b"%08d" % number + b"." * (TEXT - 8), number) for number in range(count)]
        self.size = len(messages[0])
        self.length = self.size * count
        data = b"".join(messages)
        self.data = data + data[:4 * READ] if kind == "plain" else data  # a read may cross the circle's end
        self.view = memoryview(self.data)

    def _pair(self, name, text, number):
        return frame(name) + frame(text)

    def _record(self, name, text, number):
        return frame(RECORD.pack(SAY, self.origin, number + 1, int(BEGAN), len(name)) + name + text)

    def at(self, position):
        """Where the byte at this position of the whole stream is in `data`."""
        return position % self.length

    @property
    def last(self):
        """How many messages there are at all."""
        return self.count if self.kind == "mesh" else 1 << 60


BEGAN = time.time()
_streams = {}


def stream(kind, author=0, count=None):
    """The Stream of this author; made once."""
    count = count or {"mesh": 450_000, "plain": 50_000}[kind]
    if (kind, author, count) not in _streams:
        _streams[kind, author, count] = Stream(kind, author, count)
    return _streams[kind, author, count]


class Verified:
    """Messages with marks, as one receiver heard and checked them: the others of its hub compare bytes with them.

    Taking marks off costs two microseconds a message, four times what the hub needs to deliver it.
    """

    MOST = 1 << 24  # bytes kept

    def __init__(self):
        self._size, self._first, self._data = 0, 0, bytearray()  # bytes of each message, the first one's number, all of them

    def has(self, number, size, data):
        """Whether these are messages of so many bytes each from this number on, checked before."""
        return size == self._size and number >= self._first and self._data.startswith(data, (number - self._first) * size)

    def add(self, number, size, data):
        """These were checked."""
        if size != self._size or number != self._first + len(self._data) // size or len(self._data) > self.MOST:
            self._size, self._first, self._data = size, number, bytearray()
        self._data += data


# One socket -----------------------------------------------------------------------------------

class Member:
    """One end of the generator's: a neighbour of the hub that says a stream, hears another and checks it."""

    def __init__(self, port, kind="plain", origin=0, small=False):
        """`small`: with the least room for what it will not read."""
        self.kind = kind
        self.sock = socket.socket()
        if small:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # the hub's kernel sizes its buffer by it
        self.sock.connect(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", PATIENCE, 0))
        self.heard, self.position = None, 0  # the stream to come, and how many bytes of it came
        self.verified = Verified()  # shared by the receivers of one hub
        self._rest = b""  # the beginning of something that is not of the stream
        if kind == "mesh":
            self._greet(origin or 10_000 + self.sock.fileno())

    def _greet(self, origin):
        name = b"m%d" % origin
        self.send(frame(name) + frame(b":q\0" + hello(origin, True, b"")))
        data = b""
        while len(data) < 8 or len(data) < 8 + HEADER.unpack_from(data)[0]:
            data += self.recv("when a hello is due")
        size = 8 + HEADER.unpack_from(data)[0]
        if data[8:8 + 1 + len(MAGIC)] != b"\x10" + MAGIC:
            raise Wrong("no hello came back")
        self._rest = data[size:]
        self.send(frame(hello(origin, False, name)))

    def send(self, data):
        """All of it. Raises Stalled."""
        try:
            self.sock.sendall(data)
        except BlockingIOError as error:
            raise Stalled("takes nothing") from error
        except OSError as error:
            raise Wrong(f"closed the link ({error.strerror})") from error

    def recv(self, where="when all should arrive"):
        """What comes next; `where` tells how far it came. Raises Stalled, or Wrong at the stream's end."""
        try:
            data = self.sock.recv(READ)
        except BlockingIOError as error:
            raise Stalled(f"sends nothing for {PATIENCE} s, {where}") from error
        except OSError as error:
            raise Wrong(f"closed the link ({error.strerror})") from error
        if not data:
            raise Wrong("closed the link")
        return data

    def read_to(self, position):
        """Wait until so many bytes of the stream have come, and were right."""
        while self.position < position:
            self.check(self.recv(f"after message {self.position // self.heard.size:,} of {position // self.heard.size:,}"))

    def check(self, data):
        """Compare what came with what was said: one memcmp, but for reads with marks or control records in them."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        if self._is_next(data):
            self.position += len(data)
        elif self.kind == "mesh":
            self._check_frames(data)
        else:
            self._check_marked(data)

    def _is_next(self, data):
        return self.heard.data.startswith(data, self.heard.at(self.position))

    def _check_marked(self, data):
        """Names with marks: as a rule all of one length, so that one substitution takes them off. Half a message is kept."""
        marks = mark_at(data, 0) if len(data) >= 8 and self.position % self.heard.size == 0 else 0
        size = self.heard.size + marks
        count, number = len(data) // size, self.position // self.heard.size
        whole = data[:count * size]
        if marks and (self.verified.has(number, size, whole) or self._is_right(number, size, whole)):
            self.position += count * self.heard.size
            self._rest = data[len(whole):]
        else:
            self._check_pairs(data)

    def _is_right(self, number, size, data):
        said = unmarked(data, size - self.heard.size)
        right = len(said) * size == len(data) * self.heard.size and self._is_next(said)
        if right:
            self.verified.add(number, size, data)
        return right

    def _check_pairs(self, data):
        """One message after the other, each with a mark of its own length or none."""
        at = min(-self.position % self.heard.size, len(data))  # the rest of a message, which has no mark
        self._must_be(data[:at])
        while len(data) - at >= 8:
            marks = mark_at(data, at)
            if len(data) - at < self.heard.size + marks:
                break
            self._must_be(unmarked(data[at:at + self.heard.size + marks], marks))
            at += self.heard.size + marks
        self._rest = data[at:]

    def _check_frames(self, data):
        stop = min(-self.position % self.heard.size, len(data))  # the rest of a message
        self._must_be(data[:stop])
        for piece in frames(data[stop:]):
            stop += len(piece)
            if piece[8] in (SAY, GUEST):
                self._must_be(piece)
        self._rest = data[stop:]

    def _must_be(self, piece):
        if not self._is_next(piece):
            raise Wrong(f"at message {self.position // self.heard.size:,}: {piece[:40]!r}")
        self.position += len(piece)


NAME = 3  # bytes of the streams' names: s00
NAME_FRAME = HEADER.pack(NAME)


def mark_at(data, at):
    """How many bytes stand behind the name of the message that begins here: invisible to a C program's user. Raises Wrong."""
    length = HEADER.unpack_from(data, at)[0]
    if not NAME <= length <= LARGEST:
        raise Wrong(f"a name of {length} bytes: {data[at:at + 40]!r}")
    return length - NAME


def unmarked(data, marks):
    """Messages as they were said, each without so many bytes of mark; anything else stays, and will not compare."""
    return marked(marks).sub(NAME_FRAME + rb"\1", data) if marks else data


@functools.lru_cache(maxsize=100)
def marked(marks):
    """The name frame of a message with so long a mark: 0xff, which no UTF-8 has, and bytes that no C program shows."""
    return re.compile(re.escape(HEADER.pack(NAME + marks)) + rb"(s\d\d)\xff[\x80-\xbf]{%d}" % (marks - 1), re.DOTALL)


def frames(data):
    """The whole frames in `data`, with their headers."""
    at = 0
    while len(data) - at >= 8:
        length = HEADER.unpack_from(data, at)[0]
        if length > LARGEST:
            raise Wrong(f"a frame of {length} bytes")
        if at + 8 + length > len(data):
            return
        yield data[at:at + 8 + length]
        at += 8 + length


# Processes that are measured ------------------------------------------------------------------

class Hub:
    """A program under test: where it listens, what it costs. Its output is read and thrown away by a thread."""

    # The C program's first paint ends in its port, of five digits as a rule: then there is nothing more to wait for.

    # A mesh has no hub: a member takes 8 links. Here one is to have more; nothing else is changed.
    PATCHED = "import sys; sys.path.insert(0, {!r}); import peers, p2pchat; {}; p2pchat.main()"

    def __init__(self, command, terminal=False, ready=re.compile(rb"SERVER:\s*(\d{5}|\d+(?=\s))|join: ./p2pchat NAME \S+ (\d+)\s")):
        self.terminal = terminal
        self.began = time.perf_counter()
        self.output = b""  # until it is ready
        self.process, self.source = spawn_on_terminal(command) if terminal else spawn(command)
        self.pid, self._drain = self.process.pid, None
        _running.append(self)
        match = self.wait_for(lambda: ready.search(plain_text(self.output)))
        self.port = int(match[1] or match[2])
        self.ready_after = time.perf_counter() - self.began

    def read(self):
        """Some of its output. Raises Stalled."""
        if not select.select([self.source], [], [], PATIENCE)[0]:
            raise Stalled(f"prints nothing more; it said {self.output[-300:]!r}")
        try:
            data = os.read(self.source, 1 << 16)
        except OSError:  # EIO: nobody at the pty's other end
            data = b""
        if not data:
            raise Stalled(f"ended; it said {self.output[-300:]!r}")
        return data

    def wait_for(self, condition):
        """Read its output into `output` until the condition holds; returns its value."""
        while not condition():
            self.output += self.read()
        return condition()

    def drain(self):
        """From now on its output is thrown away as it comes."""
        if self._drain:
            return self
        self._drain = threading.Thread(target=self._read_all, daemon=True)
        self._drain.start()
        return self

    def _read_all(self):
        try:
            while os.read(self.source, 1 << 16):
                pass
        except OSError:
            pass

    def cpu(self):
        """CPU seconds of all its threads so far."""
        total, folder = 0, f"/proc/{self.pid}/task"
        for task in os.listdir(folder):
            with open(f"{folder}/{task}/schedstat") as file:
                total += int(file.read().split()[0])
        return total / 1e9

    def descriptors(self):
        """How many are open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def switches(self):
        """How often any of its threads waited."""
        total, folder = 0, f"/proc/{self.pid}/task"
        for task in os.listdir(folder):
            with open(f"{folder}/{task}/status") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt"))
        return total

    def status(self, key):
        """A number of /proc/PID/status: VmHWM and VmRSS, in KB."""
        with open(f"/proc/{self.pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(key + ":"))

    def end(self):
        self.process.kill()
        self.process.wait()
        if self._drain:
            self._drain.join(PATIENCE)
        if self.terminal:
            os.close(self.source)
        else:
            self.process.stdin.close()
            self.process.stderr.close()
        _running.remove(self)


_running = []  # hubs; main ends them whatever happens


def end_all():
    while _running:
        _running[-1].end()


def spawn(command):
    """The process, and the descriptor of its stderr: notices, few. Its stdout, with every message, is /dev/null."""
    with on_cores(HUB_CORES):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return process, process.stderr.fileno()


def spawn_on_terminal(command):
    """The process, and the master's end of its terminal of 24 x 80."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with on_cores(HUB_CORES):
        process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                                   env={**os.environ, "TERM": "xterm-256color"})
    os.close(slave)
    return process, master


@contextlib.contextmanager
def on_cores(cores):
    """What starts within inherits these cores; a preexec_fn would copy all our memory's page tables."""
    pin(cores)
    yield
    pin(OWN_CORES)


def free_all():
    """Let every hub use every core: programs in a row stand for machines of their own, and do not share one."""
    for hub in _running:
        for task in os.listdir(f"/proc/{hub.pid}/task") if CORES else ():
            os.sched_setaffinity(int(task), CORES)


def pin(cores):
    if len(CORES) > 1:
        os.sched_setaffinity(0, cores)


def prepare_process():
    """This process: its core, and descriptors for 1,000 links and more."""
    pin(OWN_CORES)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def plain_text(data):
    """Without escape sequences: curses may put some anywhere."""
    return re.sub(rb"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[()][0-9A-Z]|\x1b\][^\x07]*\x07|\x1b[=>]", b" ", data)


def ours(mode=LINES, patch="", name="hub", *arguments):
    """The built program, ready. `patch`: what to change in it before it starts."""
    start = [sys.executable, "-c", Hub.PATCHED.format(BUILT, patch)] if patch else [BUILT]
    lines = ["--lines"] if mode == LINES else []
    return Hub([*start, name, *map(str, arguments), "--bind", "127.0.0.1", *lines], mode == SCREEN)


def relay(which, *arguments):
    return Hub([sys.executable, os.path.abspath(__file__), which, *map(str, arguments)])


def c_program(path, *arguments):
    return Hub([path, "hub", *map(str, arguments)], terminal=True)


# Runs: a hub, a load, and what it came to -----------------------------------------------------

class Run:
    """A hub with one source and N receivers. Slices of several runs alternate, so that all meet the same machine."""

    def __init__(self, hub, kind, receivers, stuck=0):
        self.hub, self.kind = hub.drain(), kind
        self.stream = stream(kind)
        self.stuck = [Member(hub.port, kind, 900_000 + number, small=True) for number in range(stuck)]
        self.receivers = [Member(hub.port, kind, 20_000 + number) for number in range(receivers)]
        self.source = Member(hub.port, kind, self.stream.origin)
        self._start_count()
        verified = Verified()
        for member in self.receivers:
            member.heard, member.verified = self.stream, verified
        self.send(1)  # when all have it, all links are what they are going to be

    def _start_count(self):
        self.sent = 0
        self.rates = []  # deliveries a second, of each slice
        self.costs = []  # the hub's CPU in microseconds a delivery, of each slice

    def send(self, count):
        start = self.stream.at(self.sent * self.stream.size)
        self.source.send(self.stream.view[start:start + count * self.stream.size])
        self.sent += count

    def wait(self, behind=0):
        """Until every receiver has all but the last `behind` messages."""
        for member in self.receivers:
            member.read_to((self.sent - behind) * self.stream.size)

    def slice(self, seconds, burst=256, ahead=256, most=1 << 60):
        """Send bursts for so long, each as soon as all have all but the last `ahead`; then wait for the rest."""
        with Clock(self):
            until, last = self.clock + seconds, min(self.sent + most, self.stream.last)
            before = self.sent
            while self.sent + burst <= last and time.perf_counter() < until:
                self.send(burst)
                self.wait(ahead)
            self.wait()
        self._count((self.sent - before) * len(self.receivers))

    def _count(self, deliveries):
        """A slice is over and was right."""
        seconds, cpu = self.spent
        self.rates.append(deliveries / seconds)
        self.costs.append(cpu / max(deliveries, 1) * 1e6)

    def settle(self):
        """Until all have all."""
        self.wait()

    def finish(self):
        """One message more: it would come behind whatever came twice."""
        self.send(1)
        self.settle()

    def close(self):
        for member in self.members():
            member.sock.close()
        self.hub.end()

    def members(self):
        return [*self.receivers, *self.stuck, self.source]

    @property
    def cost(self):
        """The hub's CPU in microseconds a delivery: the median, for other work changes how much it does at once."""
        return median(self.costs) if self.costs else math.inf


class Clock:
    """What passes within, for a run's `spent`: time, and the hub's CPU."""

    def __init__(self, run):
        self.run = run

    def __enter__(self):
        self.before = self._now()
        self.run.clock = self.before[0]

    def __exit__(self, *_):
        self.run.spent = [now - then for now, then in zip(self._now(), self.before)]

    def _now(self):
        return time.perf_counter(), self.run.hub.cpu()


class Talk(Run):
    """A hub and peers that all speak. What each hears is a mixture: it is kept, and checked when the clock stands."""

    COUNT = 8000  # messages of each that are made
    AHEAD = 4  # messages that each is ahead of the slowest, at most: people do not talk in heaps

    def __init__(self, hub, kind, peers):
        self.hub, self.kind = hub.drain(), kind
        self.streams = [stream(kind, number, self.COUNT) for number in range(peers)]
        self.receivers = [Member(hub.port, kind, said.origin) for said in self.streams]
        self.ears = [Ear(member, self.streams, number) for number, member in enumerate(self.receivers)]
        self._start_count()

    def members(self):
        return self.receivers

    def send(self, count, speakers=slice(None)):
        for said, member in list(zip(self.streams, self.receivers))[speakers]:
            start = said.at(self.sent * said.size)
            member.send(said.view[start:start + count * said.size])

    def begin(self):
        """The last who came speaks first: when the others hear it, all are connected. Then the others speak."""
        self.send(1, slice(-1, None))
        for ear in self.ears[:-1]:
            ear.read_to(1)
        self.send(1, slice(-1))
        self.sent = 1

    def wait(self, behind=0):
        goal = (self.sent - behind) * (len(self.streams) - 1)
        try:
            for ear in self.ears:
                ear.read_to(goal)
        except Stalled:
            self._check()  # a damaged stream is the likelier reason: say that
            raise

    def _check(self):
        for ear in self.ears:
            ear.check()

    def settle(self):
        """Until everybody has everything, checked."""
        if not self.sent:
            self.begin()
        self.wait()
        self._check()
        for ear in self.ears:
            ear.check_to(self.sent * (len(self.streams) - 1))

    def finish(self):
        self.send(1)
        self.sent += 1
        self.settle()

    def slice(self, seconds, most=1 << 60):
        others = len(self.receivers) - 1
        before = self.sent
        with Clock(self):
            until, last = self.clock + seconds, min(self.sent + most, self.streams[0].last)
            while self.sent < last and time.perf_counter() < until:
                self.send(1)
                self.sent += 1
                self.wait(self.AHEAD - 1)
            self.wait()
        self.settle()
        self._count((self.sent - before) * others * len(self.receivers))


class Ear:
    """What one talker hears: unchecked pieces, and how far each of the others has been heard."""

    def __init__(self, member, streams, own):
        self.member, self.pieces = member, [member._rest]
        self.unread = 0  # bytes in pieces
        self.key = slice(8, 8 + NAME) if member.kind == "plain" else slice(9, 17)  # the name, or the origin
        self.said = {said.data[self.key]: said for number, said in enumerate(streams) if number != own}
        self.counts = dict.fromkeys(self.said, 0)
        self.size = streams[0].size
        self.least = self.size  # bytes that a message takes on this link: with a mark more

    @property
    def right(self):
        """Messages that were heard and checked."""
        return sum(self.counts.values())

    def read_to(self, messages):
        """Wait until so many must have come, by what the smallest takes. Unchecked."""
        wanted = (messages - self.right) * self.least
        while self.unread < wanted:
            self._read()

    def _read(self):
        data = self.member.recv()
        self.unread += len(data)
        self.pieces.append(data)

    def check_to(self, messages):
        """Wait until so many have come, checked."""
        self.check()
        while self.right < messages:
            self._read()
            self.check()

    def check(self):
        """All that was heard whole."""
        data, at = b"".join(self.pieces), 0
        sizes = []
        while at < len(data):
            size = self._message(data, at)
            sizes += [size] * (size > 0)
            step = size or self._control(data, at)
            if not step:
                break
            at += step
        self.least = min(sizes, default=self.least)
        self.pieces = [data[at:]]
        self.unread = len(data) - at

    def _message(self, data, at):
        who = data[at + self.key.start:at + self.key.stop]
        said = self.said.get(who)
        if said is None:
            return 0
        marks = mark_at(data, at) if self.member.kind == "plain" else 0
        if len(data) - at < self.size + marks:
            return 0
        number, message = self.counts[who], unmarked(data[at:at + self.size + marks], marks)
        if len(message) != self.size or not said.data.startswith(message, said.at(number * self.size)):
            raise Wrong(f"message {number} of {who!r}: {data[at:at + self.size + marks]!r}")
        self.counts[who] = number + 1
        return self.size + marks

    def _control(self, data, at):
        piece = next(frames(data[at:at + LARGEST + 8]), None)
        if self.member.kind == "mesh" and piece and piece[8] not in (SAY, GUEST):
            return len(piece)
        known = self.member.kind == "plain" and data[at + self.key.start:at + self.key.stop] in self.said
        if piece and not known:
            raise Wrong(f"nobody said {piece[:40]!r}")
        return 0


class Attack:
    """A neighbour at a mesh link that says what `says(origin)` yields as fast as it is taken, in a thread, and reads nothing."""

    def __init__(self, hub, says):
        self.member = Member(hub.port, "mesh", 666_000)
        self._pieces, self._thread = says(666_000), threading.Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            for piece in self._pieces:
                if piece:
                    self.member.sock.sendall(piece)
                else:
                    time.sleep(0.01)
        except OSError:
            pass

    def __enter__(self):
        self._thread.start()
        time.sleep(0.3)

    def __exit__(self, *_):
        self.member.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self.member.sock.close()


# What we are compared with --------------------------------------------------------------------

def bare_relay(*peer):
    """One thread, one select: bytes go on as they came, one joined send per link and turn. No names, no checks."""
    waiting = {}  # socket -> chunks that the kernel did not take
    selector = selectors.DefaultSelector()
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)

    def add(sock):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        waiting[sock] = deque()
        selector.register(sock, selectors.EVENT_READ)

    def drop(sock):
        selector.unregister(sock)
        del waiting[sock]
        sock.close()

    def push(sock, chunk):
        """Send the chunk, or what waits before it. Returns what was not taken."""
        try:
            return chunk[sock.send(chunk):]
        except BlockingIOError:
            return chunk
        except OSError:
            return b""  # reading will tell

    def send(sock, chunk):
        if waiting[sock]:
            waiting[sock].append(chunk)
            return
        rest = push(sock, chunk)
        if rest:
            waiting[sock].append(rest)
            selector.modify(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)

    def send_on(sock):
        queue = waiting[sock]
        while queue:
            queue[0] = push(sock, queue[0])
            if queue[0]:
                return
            queue.popleft()
        selector.modify(sock, selectors.EVENT_READ)

    def receive(sock, came):
        try:
            data = sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            came.append((sock, data))
        else:
            drop(sock)

    def turn():
        came = []
        for key, mask in selector.select():
            if key.fileobj is listener:
                add(listener.accept()[0])
                continue
            if mask & selectors.EVENT_WRITE:
                send_on(key.fileobj)
            if mask & selectors.EVENT_READ:
                receive(key.fileobj, came)
        senders = {sock for sock, _ in came}
        whole = b"".join(data for _, data in came)
        for sock in list(waiting) if came else ():
            chunk = b"".join(data for source, data in came if source is not sock) if sock in senders else whole
            if chunk:
                send(sock, chunk)

    if peer:
        add(socket.create_connection(("127.0.0.1", int(peer[-1]))))
    announce(listener)
    while True:
        turn()


def asyncio_relay(*peer):
    """As a simple chat on asyncio's streams is written: read a pair, write it to each of the others, drain."""
    import asyncio  # the other relay's memory shall not show it

    writers = set()

    async def read_frame(reader):
        header = await reader.readexactly(8)
        return header + await reader.readexactly(HEADER.unpack(header)[0])

    async def serve(reader, writer):
        writers.add(writer)
        try:
            while True:
                pair = await read_frame(reader) + await read_frame(reader)
                for other in [other for other in writers if other is not writer]:
                    other.write(pair)
                    await other.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writers.discard(writer)
            writer.close()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
        if peer:
            asyncio.ensure_future(serve(*await asyncio.open_connection("127.0.0.1", int(peer[-1]))))
        announce(server.sockets[0])
        await server.serve_forever()

    asyncio.run(main())


def announce(listener):
    """As notices go: our standard output is /dev/null, as the measured program's is. Who started us may die: then end."""
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    print(f"SERVER: {listener.getsockname()[1]}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    {"bare": bare_relay, "asyncio": asyncio_relay}[sys.argv[1]](*sys.argv[2:])
