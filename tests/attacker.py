"""The attacker: everything that a stranger can do who reaches a member's port. Each attack is a few lines.

    python3 tests/attacker.py ATTACK PORT SECONDS SEED RATE     attack the member at PORT with so many bytes a second

Knows: the wire, from the README. It shares no code with the program, so that a mistake in one cannot hide in the other.
Leaves out: what the victims feel (test_hostile.py for a moment, torture.py for minutes).

An attack is a generator: it queues bytes on its lines and yields; it goes on when they are on their way. What the
honest members say meanwhile it can read, as any stranger can.
"""

import base64
import random
import socket
import struct
import sys
import time
import zlib
from itertools import count

NOW = 1_700_000_000  # seconds since 1970 in records; nobody compares it with anything
SAY, GUEST, HERE, LEFT, LOST, GUEST_GONE = 1, 2, 3, 4, 5, 6
HELLO, PING, PONG, BYE, PEERS, ASK, RENAMED = 16, 17, 18, 19, 20, 21, 22
MAGIC = b"p2pchat\x01"
ALL = 2 ** 64 - 1
READ, AHEAD = 1 << 16, 1 << 17  # bytes read at once; and that may wait on all lines before an attack goes on
EVE, ORIGIN = b"eve", 0xE1E  # how an attacker calls itself where that does not matter


# The wire -------------------------------------------------------------------------------------

def frame(body):
    return struct.pack("<Q", len(body)) + body


def pair(name, text):
    return frame(name) + frame(text)


def record(kind, origin, sequence, name, text=b"", when=NOW):
    return frame(struct.pack("<BQQIH", kind, origin & ALL, sequence & ALL, when, len(name)) + name + text)


def records(kind, origin, first, name, texts):
    return b"".join(record(kind, origin, sequence, name, text) for sequence, text in enumerate(texts, first))


def lost(origin, sequence=0):
    return struct.pack("<QQ", origin, sequence)


def places(addresses):
    return bytes([len(addresses)]) + b"".join(bytes([len(host)]) + host.encode() + struct.pack("<H", port) for host, port in addresses)


def peers(addresses, kind=PEERS):
    return frame(bytes([kind]) + MAGIC + places(addresses))


def hello(name, origin, port=0, addresses=(), vector=None, urgent=True):
    entries = b"".join(struct.pack("<QQ", *entry) for entry in (vector or {}).items())
    return struct.pack("<B8sQHBH", HELLO, MAGIC, origin, port, urgent, len(name)) + name + places(addresses) + entries


def probe(name, origin, port=0, urgent=True):
    """The first thing that a member says."""
    return pair(name, b":q\0" + hello(b"", origin, port, urgent=urgent))


def greeting(name, origin, port=0, addresses=(), vector=None, urgent=True):
    """All that makes a mesh link of a connection, without waiting for the answer."""
    return probe(name, origin, port, urgent) + frame(hello(name, origin, port, addresses, vector, urgent))


def marked(name, text, origin, sequence, gateway, host="", port=0, guest=False, part=0, parts=1):
    """A pair as a gateway puts it onto a plain link."""
    packed = bytes(map(int, host.split("."))) if host else b""
    head = struct.pack("<BQQHB", 0x10 | guest, origin, gateway, port, len(packed)) + packed
    head += bytes(-len(head) % 3)
    place = struct.pack("<QBB", sequence & ALL, part, parts)
    crc = zlib.crc32(text, zlib.crc32(place, zlib.crc32(head, zlib.crc32(name))))
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    shift = bytes.maketrans(alphabet, bytes(range(0x80, 0xC0)))
    return pair(name + b"\xff" + base64.b64encode(head + place + struct.pack("<Ix", crc)).translate(shift), text)


# Connections ----------------------------------------------------------------------------------

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, with RST


class Stranger:
    """A blocking socket to the member at `port`, from one of this machine's many loopback addresses."""

    def __init__(self, port, host="127.0.0.1", window=0, timeout=20):
        self.sock = socket.socket()
        if window:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.sock.settimeout(timeout)
        self.sock.bind((host, 0))
        self.sock.connect(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data):
        self.sock.sendall(data)

    def say(self, name, text):
        self.send(pair(name, text))

    def read(self):
        """What came; b"" at the end of the stream."""
        try:
            return self.sock.recv(1 << 20)
        except ConnectionError:
            return b""

    def read_until(self, mark):
        """All that came until `mark` was part of it; AssertionError at the end of the stream."""
        data = b""
        while mark not in data:
            piece = self.read()
            assert piece, f"the link ended before {mark!r} came: {data[-200:]!r}"
            data += piece
        return data

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.sock.close()

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Line:
    """One of an attack's connections: what is queued goes out as it can, and what comes in is read, or not."""

    def __init__(self, attack, sock, reads=True):
        self.sock, self.attack, self.reads = sock, attack, reads
        self.queue, self.got, self.over, self.origin = bytearray(), b"", False, None
        sock.setblocking(False)

    def send(self, *data):
        if not self.over:
            self.queue += b"".join(data)

    def pump(self):
        try:
            if self.queue:
                del self.queue[:self.sock.send(self.queue)]
            data = self.sock.recv(READ) if self.reads else None
            if data == b"":
                self.close()
            elif data:
                self.attack.sniff(self, data)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.close()

    def close(self):
        self.over = True
        self.queue.clear()
        self.sock.close()


class Attack:
    """One attack, turned by `step`; by the loop of its own process, or between the turns of the members in a test's."""

    def __init__(self, name, port, seed=1, scale=1.0):
        self.port, self.rng, self.scale = port, random.Random(seed), scale
        self.lines, self.listeners = [], []
        self.opened = self.sent = self.rounds = 0
        self.knocks = 0  # connections to where third parties would be
        self.origins, self.texts = {}, {}  # who is there, by the name: its origin; and what it said last
        self.heads = {}  # origin -> its highest sequence
        self.over = False
        self._work = ATTACKS[name](self)

    def line(self, host="127.0.0.1", window=0, reads=True):
        """Connect from this loopback address."""
        sock = socket.socket()
        if window:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        sock.bind((host, 0))
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", self.port))
        self.lines.append(Line(self, sock, reads))
        self.opened += 1
        return self.lines[-1]

    def mesh(self, name=EVE, origin=None, host="127.0.0.1", window=0, reads=True, **greets):
        """The same, as one of theirs."""
        line = self.line(host, window, reads)
        line.origin = self.rng.getrandbits(64) if origin is None else origin
        line.send(greeting(name, line.origin, **greets))
        return line

    def listen(self, host):
        """Be there as a third party; whoever connects is counted, and the connection is a line."""
        sock = socket.create_server((host, 0), backlog=500)
        sock.setblocking(False)
        self.listeners.append(sock)
        return sock.getsockname()

    def accepted(self, liars=0):
        """Connections that came meanwhile, as lines; to the first so many listeners they are not counted: those lie, too."""
        found = []
        for number, listener in enumerate(self.listeners):
            try:
                found.append(Line(self, listener.accept()[0]))
                found[-1].is_liar = number < liars
                self.knocks += number >= liars
            except BlockingIOError:
                pass
        self.lines += found
        return found

    def host(self, number):
        """One of this machine's loopback addresses."""
        return f"127.66.{number // 250 % 250}.{number % 250 + 1}"

    def many(self, most):
        """How many of something: fewer in the short form."""
        return max(int(most * self.scale), 3)

    def sniff(self, line, data):
        """Note who is there and what they said last, from the records that come to us."""
        line.got += data
        while len(line.got) >= 8:
            (length,) = struct.unpack_from("<Q", line.got)
            if length > 1 << 20:
                line.got, line.reads = b"", False
                return
            if len(line.got) < 8 + length:
                return
            body, line.got = line.got[8:8 + length], line.got[8 + length:]
            self.note(body)

    def note(self, body):
        if body[:9] == bytes([HELLO]) + MAGIC:
            origin, _, _, length = struct.unpack_from("<QHBH", body, 9)
            self.origins[body[22:22 + length]] = origin
        elif len(body) >= 23 and SAY <= body[0] <= GUEST_GONE:
            kind, origin, sequence, _, length = struct.unpack_from("<BQQIH", body)
            name = body[23:23 + length]
            if kind in (SAY, HERE) and not any(line.origin == origin for line in self.lines):
                self.origins[name] = origin
            if kind in (SAY, GUEST):
                self.texts[name] = body[23 + length:]
            self.heads[origin] = max(sequence, self.heads.get(origin, 0))

    def step(self, limit=0.0, more=True):
        """Send and read what can be, and go on with the attack, if `more` and little waits; waits `limit` seconds at most."""
        self.lines = [line for line in self.lines if not line.over]
        if limit:
            time.sleep(limit)
        for line in self.lines:
            before = len(line.queue)
            line.pump()
            self.sent += before - len(line.queue)
        if more and not self.over and sum(len(line.queue) for line in self.lines) < AHEAD:
            self.rounds += 1
            self.over = next(self._work, self) is self

    def close(self):
        for line in self.lines:
            line.close()
        for listener in self.listeners:
            listener.close()


# Attacks: floods ------------------------------------------------------------------------------

def flood(data, mesh=False):
    """An attack that sends data(rng, number) as fast as it goes, over a link that is opened again when it is closed."""
    def attack(a):
        line = None
        for number in count():
            if line is None or line.over:
                line = a.mesh() if mesh else a.line()
            line.send(data(a, line, number))
            yield
    return attack


def talk(a, line, number):
    return b"".join(pair(EVE, b"flood %d" % a.rng.getrandbits(60)) for _ in range(a.many(500)))


def repeats(a, line, number):
    return pair(EVE, b"flood") * a.many(2000)


def long_texts(a, line, number):
    return b"".join(pair(EVE, b"%d " % a.rng.getrandbits(60) + b"z" * 2000) for _ in range(20))


def new_names(a, line, number):
    return b"".join(pair(b"eve %d" % a.rng.getrandbits(60), b"flood") for _ in range(a.many(500)))


def rubbish(a, line, number):
    return a.rng.getrandbits(8 * 1000).to_bytes(1000, "little")


def said(a, line, number):
    return records(SAY, line.origin, 1 + number * 500, EVE, [b"flood %d" % a.rng.getrandbits(60) for _ in range(500)])


def said_again(a, line, number):
    return record(SAY, line.origin, 1, EVE, b"flood") * a.many(2000)


def invented(kind, text=b"", name=None):
    """Records of one kind, each of an origin that nobody has."""
    return lambda a, line, number: b"".join(
        record(kind, a.rng.getrandbits(64), 1, name or b"n%d" % a.rng.getrandbits(40), text) for _ in range(a.many(500)))


def pings(a, line, number):
    return frame(bytes([PING])) * a.many(5000)


def asks(a, line, number):
    return frame(bytes([ASK]) + b"".join(struct.pack("<QQQ", origin, 1, ALL) for origin in [*a.origins.values(), 1] * 5)[:24 * 16]) * 50


def renames(a, line, number):
    return b"".join(frame(bytes([RENAMED]) + struct.pack("<Q", a.rng.getrandbits(64))) for _ in range(a.many(300)))


def third_parties(a, line, number):
    return b"".join(peers([(f"127.0.{a.rng.randrange(256)}.{a.rng.randrange(1, 255)}", a.rng.randrange(1, 65536)) for _ in range(8)]) for _ in range(50))


# Attacks: what costs a member time or memory ----------------------------------------------------

def guests_then_lost(a):
    """Thousands of guests at one gateway, which is then called lost again and again."""
    line = a.mesh()
    line.send(b"".join(record(GUEST, line.origin, n + 1, b"g%d" % n, b"hi") for n in range(a.many(9000))))
    for number in count(1):
        line.send(records(LOST, line.origin + number, 1, EVE, [lost(line.origin)] * a.many(100)))
        yield


def lost_members(a):
    """Everybody who is here, and thousands who are invented, are called lost again and again."""
    line = a.mesh()
    made = [a.rng.getrandbits(64) for _ in range(a.many(5000))]
    line.send(b"".join(record(HERE, origin, 1, b"m%d" % origin) for origin in made))
    for number in count(1):
        line.send(records(LOST, line.origin, 1 + number * 100, EVE, [lost(a.rng.choice(made + [*a.origins.values()])) for _ in range(100)]))
        yield


def heavy_names(a):
    """Members whose names are long and slow to clean come and go."""
    line = a.mesh()
    names = [b"n%d" % n + ("\u0301" * 340).encode() for n in range(a.many(2000))]
    for number in count():
        line.send(b"".join(record(HERE, 7000 + n, 2 * number + 1, name) + record(LEFT, 7000 + n, 2 * number + 2, name) * (n % 2)
                           for n, name in enumerate(names)))
        yield


HEAVY = ["\U0001f469\u200d\U0001f4bb", "a" + "\u0301" * 300, "\u0915\u094d", "\u1100\u1161\u11a8", "\n\u0301", "\U0001f1e9\U0001f1ea",
         "\u202e\u2066", "\u0e33", "\ufdfa", "\u1160", "\U000e0061"]


def heavy_texts(a):
    """Long texts of what is slow to measure and to wrap."""
    line = a.mesh()
    for number in count(1):
        text = (HEAVY[number % len(HEAVY)] * a.many(10_000)).encode()[:32_000].decode("utf-8", "ignore")
        line.send(record(SAY, line.origin, number, EVE, text.encode()))
        yield


def jumps(a):
    """Sequences that jump: holes without end, in one origin and in many."""
    line = a.mesh()
    for number in count(1):
        line.send(b"".join(record(HERE, line.origin + n % 40, number * 10 ** 6 + n * 7, EVE) for n in range(a.many(400))))
        yield


def jumps_of_others(a):
    """The same in the names of everybody who is here."""
    line = a.mesh()
    for number in count(1):
        for name, origin in list(a.origins.items()):
            line.send(record(SAY, origin, a.heads.get(origin, 0) + 10 ** 6 * number, name, b"a jump"))
        yield


def vectors(a):
    """Hellos with all that fits, over and over; and on each link all that can be asked for."""
    for number in count():
        line = a.mesh(host=a.host(number), vector={a.rng.getrandbits(64): n for n in range(a.many(3900))})
        line.send(asks(a, line, number))
        yield
        yield


def knock(a):
    """Come, say a word, go."""
    for number in count():
        a.line(a.host(number)).send(pair(b"x%d" % number, b"hi") if number % 2 else probe(b"x", number))
        yield
        if number > 30:
            a.lines[0].close()


def crowd(a):
    """Come and say nothing, or a word, or half of one; stay."""
    for number in range(a.many(2000)):
        a.line(a.host(number // 3)).send((b"", pair(EVE, b"x")[:12], probe(EVE, number + 5), pair(EVE, b"x"))[number % 4])
        if number % 20 == 19:
            yield
    while True:
        yield


def talkers(a):
    """Take all places, and say something on each again and again."""
    lines = []
    for number in count():
        lines = [line for line in lines if not line.over]
        if len(lines) < a.many(1100):
            lines += [a.line(a.host(number + n)) for n in range(20)]
        for line in lines:
            line.send(pair(EVE, b"%d" % number))
        yield


def deaf(a):
    """Many that read nothing, while empty texts under changing names pass by."""
    for number in range(a.many(300)):
        a.line(a.host(number), window=4096, reads=False)
        if number % 10 == 9:
            yield
    line = a.line()
    for number in count():
        line.send(b"".join(pair(b"%d" % (number * 100 + n), b"") for n in range(a.many(300))))
        yield


def deaf_members(a):
    """Members that read nothing, while others flood."""
    for number in range(8):
        a.mesh(host=a.host(number), window=4096, reads=False)
    yield from flood(said, mesh=True)(a)


def deaf_with_marks(a):
    """Many that read nothing, after each has sent a mark: nobody else is to get exactly what it lacks."""
    for number in range(a.many(300)):
        a.line(a.host(number), window=4096, reads=False).send(marked(b"x", b"%d" % number, 7000 + number, 1, 0))
        if number % 10 == 9:
            yield
    yield from flood(said, mesh=True)(a)


def slow_readers(a):
    """A little is read, four times a second: a C program's link and a member's."""
    slow = [a.line(a.host(1), window=4096, reads=False), a.mesh(host=a.host(2), window=4096, reads=False)]
    line, then = a.line(), 0.0
    for number in count():
        line.send(long_texts(a, line, number))
        if time.monotonic() - then > 0.25:
            then = time.monotonic()
            for one in slow:
                one.reads = True
                one.pump()
                one.reads = False
        yield


def unfinished(a):
    """Streams that stop anywhere, one byte a moment."""
    whole = [pair(EVE, b"hello"), greeting(EVE, 99) + record(SAY, 99, 1, EVE, b"hello")]
    lines = [(a.line(a.host(n)), data[:stop]) for data in whole for n, stop in enumerate(range(1, len(data), 3))]
    for at in count():
        for line, data in lines:
            line.send(data[at:at + 1])
        yield


# Attacks: other people's lines, names and links ---------------------------------------------------

def forge_ahead(a):
    """The next three sequences of everybody who is here, whenever they are known."""
    line = a.mesh()
    done = {}
    while True:
        for name, origin in list(a.origins.items()):
            head = a.heads.get(origin, 0)
            if origin != line.origin and done.get(origin, -1) < head:
                done[origin] = head + 3
                line.send(records(SAY, origin, head + 1, name, [b"forged"] * 3))
        yield


def forge_guests(a):
    """What a gateway would tell next of somebody behind it."""
    line = a.mesh()
    done = {}
    while True:
        for name, origin in list(a.origins.items()):
            head = a.heads.get(origin, 0)
            if origin != line.origin and done.get(origin) != head:
                done[origin] = head
                line.send(record(GUEST, origin, head + 1, b"dora", b"forged"))
        yield


def forge_last(a):
    """The last sequence that there is, and those that are about to come."""
    line = a.mesh()
    while True:
        for name, origin in list(a.origins.items()):
            for sequence in (ALL, ALL - 1, 2 ** 63, 2 ** 32):
                line.send(record(SAY, origin, sequence, name, b"forged"), record(LEFT, origin, sequence + 1 & ALL or 1, name))
        yield


def goodbyes(a):
    """Everybody leaves, as the liar says."""
    line = a.mesh()
    done = {}
    while True:
        for name, origin in list(a.origins.items()):
            head = a.heads.get(origin, 0)
            if origin != line.origin and done.get(origin) != head:
                done[origin] = head
                line.send(record(LEFT, origin, head + 1, name))
        yield


def following(text):
    """What somebody who counts says next."""
    words, _, number = text.rpartition(b" ")
    return b"%s %d" % (words, int(number) + 1) if number.isdigit() else text


def copies(a):
    """What was said is said again by seventy others, and by as many gateways; and what is going to be said."""
    line = a.mesh()
    while True:
        for name, text in list(a.texts.items())[:6]:
            for words in (text, following(text)):
                for kind in (SAY, GUEST):
                    line.send(b"".join(record(kind, a.rng.getrandbits(64), 1, name, words) for _ in range(70)))
        yield


def steal_names(a):
    """Call somebody lost, then be somebody of that name."""
    line = a.mesh()
    for number in count(1):
        for name, origin in list(a.origins.items()):
            line.send(record(LOST, line.origin, number, EVE, lost(origin, ALL)), record(HERE, line.origin + number, 1, name))
        yield


def squat(a):
    """Be everybody who is here, from other addresses, before and after."""
    a.mesh(host=a.host(0))
    for number in count(1):
        for name, origin in list(a.origins.items()):
            for n in range(4):
                a.mesh(name, origin, a.host(n + number % 40 * 4), urgent=n % 2 == 0)
        for _ in range(10):
            yield
        for line in a.lines[1:-20]:
            line.close()


def renamed_crowd(a):
    """Hundreds of members whose origins turn out to be one, so that they count as one."""
    for number in range(a.many(1100)):
        a.mesh(b"r%d" % number, number + 1, a.host(number)).send(frame(bytes([RENAMED]) + struct.pack("<Q", 5000)))
        yield
    while True:
        for line in a.lines:
            line.send(frame(bytes([PING])))
        yield


def urgent_crowd(a):
    """Members who want a link urgently, from everywhere."""
    for number in count():
        a.mesh(b"u%d" % number, number + 1, a.host(number))
        yield


def marks(a):
    """A C program's link brings marks of everybody who is here: a circle, as it seems."""
    a.mesh()
    line = a.line(a.host(1))
    for number in count():
        for name, origin in list(a.origins.items()):
            for gateway in a.origins.values():
                text = a.texts.get(name, b"x")
                line.send(marked(name, text, origin, a.heads.get(origin, 0) + number % 5, gateway))
                line.send(marked(name, following(text), origin, a.heads.get(origin, 0) + 1, gateway))
        if line.over:
            line = a.line(a.host(1))
        yield


def quiet_crowd(a):
    """Hundreds of links that all lead where the lowest origin's link leads, as it seems; and what its guests say."""
    mesh = a.mesh(origin=0)
    for _ in range(a.many(500)):
        a.line(a.host(1)).send(pair(EVE, b"x"))
    for number in count(1):
        for line in a.lines[1:]:
            line.send(marked(b"x", b"%d" % number, 0, number, 0))
        mesh.send(records(GUEST, 0, number * 1000, EVE, [b"%d" % (number * 1000 + n) for n in range(a.many(500))]))
        yield


def marks_of_nobody(a):
    """Marks whose gateways and authors are invented, and listen where third parties are."""
    where = [a.listen(a.host(100 + n)) for n in range(20)]
    line = a.line()
    for number in count():
        for n in range(a.many(100)):
            host, port = where[n % 20]
            line.send(marked(b"m%d" % n, b"x", a.rng.getrandbits(64), 1, a.rng.getrandbits(64), host, port))
        for one in a.accepted():
            one.close()
        if line.over:
            line = a.line()
        yield


def garbled(a):
    """Marks whose checksum is wrong, and what is left of marks."""
    line = a.line()
    for number in count():
        whole = marked(EVE, b"text %d" % number, 5, 5, 6)
        line.send(whole[:20] + b"\x81" + whole[21:], whole)
        if line.over:
            line = a.line()
        yield


def too_long(a):
    """Names and texts with a mark that are as long as a frame may be: as records they would be too long for a member."""
    for number in count():
        line = a.line(a.host(number % 50))
        line.send(marked(EVE * 1000, b"x", number, 1, 5), marked(EVE, b"x" * 65536, number, 2, 5), pair(EVE + b"\xff", b"x" * 65536),
                  marked(b"x" * 65487, b"x", number, 3, 5))
        yield
        line.close()


def words(a):
    """A C program's link brings what everybody says, before and after."""
    a.mesh()
    line = a.line(a.host(1))
    while True:
        for name, text in list(a.texts.items()):
            line.send(pair(name, text), pair(name, following(text)))
        if line.over:
            line = a.line(a.host(1))
        yield


def name_third_parties(a):
    """Liars from everywhere name addresses that are nobody's; each of them counts who knocks."""
    where = [a.listen(a.host(1000 + n)) for n in range(a.many(200))]
    for number in count():
        a.mesh(origin=number + 1, host=a.host(number), addresses=a.rng.sample(where, min(8, len(where))))
        for one in a.accepted():
            one.close()
        for line in a.lines[:-20]:
            line.close()
        yield


def byes(a):
    """Liars answer every dial with a bye that names others: some liars, and third parties, who count who knocks."""
    where = [a.listen(a.host(1000 + n)) for n in range(a.many(200))]
    liars = len(where) // 10 + 1
    for number in count():
        if number % 20 == 0:
            a.mesh(origin=number + 1, host=a.host(number), addresses=a.rng.sample(where, min(8, len(where)))).send(peers(where[:8], BYE))
        for one in a.accepted(liars):
            if one.is_liar:
                one.send(peers(a.rng.sample(where, min(8, len(where))), BYE))
            else:
                one.close()
        yield


NAMES = ["\u2500\u2500 lost bob", "\u23af\u23af bob left", "\u02d7\u02d7", "\u30fc\u30fc", "ann\u2236 hi", "ann\uff1a hi", "bob (12\u223603)",
         "SERVER", "SERVER~2", "SERVER~3f", "ERROR~C", "\u0405ERVER", "-- bob left", "ann: hi", "bob ", " bob", "bob\u200b", "b\u200bob", "bob\u202e",
         "12:03 bob", "\x1b[31mbob", "\x9b2J", "\ufeffbob", "bo\u0000b", "bob\n-- ann left", "\ufe30 bob", "bob\ufe30 hi", "\u25ac\u25ac bob left"]


def imitations(a):
    """Names that read like a notice, like another's line, or like nothing."""
    mesh, plain = a.mesh(), a.line(a.host(1))
    for number, name in enumerate(NAMES, 1):
        mesh.send(record(HERE, 9000 + number, 1, name.encode()), record(SAY, 9000 + number, 2, name.encode(), b"read me"))
        plain.send(pair(name.encode(), b"read me too"))
        yield
    while True:
        yield


ATTACKS = {
    "talk": flood(talk), "repeats": flood(repeats), "long_texts": flood(long_texts), "new_names": flood(new_names),
    "rubbish": flood(rubbish), "mesh_talk": flood(said, mesh=True), "mesh_repeats": flood(said_again, mesh=True),
    "mesh_rubbish": flood(rubbish, mesh=True), "mesh_lines": flood(invented(SAY, b"x"), mesh=True),
    "mesh_members": flood(invented(HERE), mesh=True), "mesh_guests": flood(invented(GUEST, b"x", EVE), mesh=True),
    "mesh_leavers": flood(invented(LEFT), mesh=True), "pings": flood(pings, mesh=True), "asks": flood(asks, mesh=True),
    "renames": flood(renames, mesh=True), "third_parties": flood(third_parties, mesh=True),
    **{one.__name__: one for one in (
        guests_then_lost, lost_members, heavy_names, heavy_texts, jumps, jumps_of_others, vectors, knock, crowd, talkers, deaf,
        deaf_with_marks, deaf_members, slow_readers, unfinished, forge_ahead, forge_guests, forge_last, goodbyes, copies,
        steal_names, squat, renamed_crowd, urgent_crowd, marks, quiet_crowd, marks_of_nobody, garbled, too_long, words, name_third_parties, byes, imitations)},
}


def main(arguments):
    """Prints how many connections were opened, bytes sent, and connections to third parties."""
    name, port, seconds, seed, rate = arguments
    attack, began = Attack(name, int(port), int(seed)), time.monotonic()
    while time.monotonic() < began + float(seconds):
        attack.step(0.01, attack.sent <= float(rate) * (time.monotonic() - began))
    print(attack.opened, attack.sent, attack.knocks)
    attack.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
