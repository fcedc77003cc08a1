"""A whole network of real Network objects in one process: a virtual clock, modelled TCP, faults, and an oracle.

    python3 tests/simulator.py N KILL         a report: N members join through one, KILL % of them die at once
    python3 tests/simulator.py --seed S       replay one random run of test_network.py, with a trace

Nothing here waits or reads a real clock, and all chance comes from the seed, so a run repeats exactly.
What is modelled: connections that are refused, accepted or met with silence; bytes that arrive late, in
order, in any pieces, or wait while a cable is out; ends of links that arrive behind the bytes before them;
a bounded number of bytes under way; processes that are stopped, killed, or lose power without a sign.
What is not: bytes lost in the middle of a stream (TCP has none), and the kernel's congestion control.
"""

import heapq
import os
import random
import resource
import sys
import time
import zlib
from collections import Counter

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import message
import peers
from message import Kind
from p2pchat import STALL_SECONDS
from peers import Connect, Hangup, Network, Notice, LinkKind, Show

EPOCH = 1_700_000_000  # the wall clock at virtual second 0
WINDOW = 64 * 1024  # bytes under way in one direction of a link
SEGMENT = 1448
KEEPALIVE_SECONDS, GIVE_UP_SECONDS = 60, 900  # of a silent link: nothing under way; something under way
SPINS = 50  # ticks at one moment that count as a busy loop
TICKS_A_SECOND = 400
OPEN, END = object(), object()  # what travels beside bytes
C_PREFIX = b"c"


class Violation(AssertionError):
    """The network broke one of its promises."""


class End:
    """One end of a connection. What it sends arrives at `peer`."""
    __slots__ = ("conn", "node", "host", "peer", "delay", "last", "flight", "held", "over", "neighbour", "attempt",
                 "stuck", "buffer", "name", "deaf")

    def __init__(self, conn, node, host, delay):
        self.conn, self.node, self.host, self.delay = conn, node, host, delay
        self.peer = None
        self.last = 0.0  # when the last thing sent arrives: first in, first out
        self.flight = 0  # bytes that the peer has not read
        self.held = None  # what waits at this end while the cable is out
        self.over = False
        self.neighbour = self.attempt = None
        self.stuck = None  # since when nothing was taken, while something waits
        self.buffer, self.name, self.deaf = b"", None, False  # a C peer's half-read input


class Conn:
    __slots__ = ("a", "b", "silent", "blocked_at")

    def __init__(self):
        self.silent, self.blocked_at = False, None


class QuietAuthor(peers.Author):
    """Says nothing about who is here."""

    def tell(self, kind, name, texts=(b"",)):
        if kind in (Kind.SAY, Kind.GUEST):
            return peers.Author.tell(self, kind, name, texts)
        self.last_word, self.last_said = 1 << 62, 0
        self._log.have.setdefault(self.origin, 0)
        return self._log.end


class SimNetwork(Network):
    """The core, counting the frames it takes. `quiet`: without presence, whose cost is the square of the members."""
    counts = None
    quiet = False

    def __init__(self, *args):
        author, peers.Author = peers.Author, QuietAuthor if self.quiet else peers.Author
        try:
            Network.__init__(self, *args)
        finally:
            peers.Author = author

    def _take_run(self, neighbour, run):
        if self.counts is not None:
            self.counts[run.first.kind] += len(run.frames)
        Network._take_run(self, neighbour, run)

    def _record(self, neighbour, frame):
        if self.counts is not None and len(frame) > message.HEADER_SIZE:
            self.counts[frame[message.HEADER_SIZE]] += 1
        Network._record(self, neighbour, frame)

    def _met(self, neighbour, hello):
        if self.counts is not None:
            self.counts[Kind.HELLO] += 1
        Network._met(self, neighbour, hello)


class Node:
    """A process on a machine: what a member and a C peer have in common."""

    def __init__(self, world, name, host, port):
        self.world, self.name, self.host, self.port = world, name, host, port
        self.dead = self.stopped = False
        self.inbox = []  # what waits while it is stopped
        self.ident = world.new_ident(self)
        self.number = 0  # of its own messages
        self.before = ()  # the ids of the last two lines it showed
        self.seen = set()  # what it showed: the oracle's memory
        self.last = {}  # author -> number of the last line shown
        self.times = None

    def next_text(self, padding=0):
        self.number += 1
        said = (self.ident, self.number)
        text = b"%d.%d %s" % (*said, b",".join(b"%d.%d" % ref for ref in self.before))
        self.world.said[text] = (said, self.before, self.world.now)
        if padding:
            full = text + b" " + b"x" * padding
            self.world.said[full] = self.world.said.pop(text)
            text = full
        for part in message.plain_texts(text):  # what a C peer sees of it
            self.world.parts.setdefault(part, None)
        return text

    def showed(self, ident):
        self.before = (*self.before, ident)[-2:]

    def __repr__(self):
        return f"{self.name.decode()}"


class Member(Node):
    """One of ours: a real Network, and around it what p2pchat.py and Link do."""

    def __init__(self, world, name, host, port, skew=0.0):
        super().__init__(world, name, host, port)
        self.skew = skew
        self.network = world.network(name, port, random.Random(world.rng.getrandbits(64)), world.now, EPOCH + world.now + skew)
        self.network.counts = world.counts
        self.ends = {}  # Neighbour -> End
        self.notices = []
        self.asked_at = 0.0  # when its user named a peer
        self.shown = 0
        self.presence = {}  # label -> whether the last notice said that it is here
        self.timer = None
        self.spins, self.spun_at = 0, -1.0
        self.ticks, self.ticks_in = 0, -1
        self.source = None  # the End whose bytes are being taken
        self.hops = {}
        self._after()

    # Driving the core

    def do(self, method, *args):
        self._clock()
        result = method(*args)
        self._after()
        return result

    def _clock(self):
        self.network.now = self.world.now
        self.network.wall = EPOCH + self.world.now + self.skew

    def _after(self, may_wait=False):
        network, events = self.network, self.network.actions
        if events:
            self._obey(events)
            may_wait = False
        end_of_log = network.log.end
        for neighbour in network.neighbours:  # Neighbour.backlog, taken apart: asked ten million times in a test run
            if neighbour.queued or neighbour.asked or neighbour.position < end_of_log and neighbour.log:
                self.world.flush(self.ends[neighbour])
        if not may_wait or self.timer is None:
            self._arm()

    def _obey(self, events):
        while events:
            event = events.popleft()
            kind = type(event)
            if kind is Show:
                for text in event.texts:
                    self._show(event, text)
            elif kind is Notice:
                self._notice(event)
            elif kind is Connect:
                self.world.dial(self, event.attempt, event.seconds)
            elif kind is Hangup:
                self._hang_up(event.neighbour, event.reason)
            else:
                raise Violation(f"{self}: an event of an unknown kind: {event!r}")

    def _hang_up(self, neighbour, reason):
        end = self.ends.get(neighbour)
        if end is None:
            raise Violation(f"{self}: hung up twice: {reason}")
        self.world.flush(end)
        self._drop(end, reason)

    def _drop(self, end, reason):
        """Close our end and tell the core; the caller drains the events."""
        world = self.world
        if world.trace:
            world.trace(f"{self} ends its link to {end.peer.node}: {reason}")
        world.close(end)
        del self.ends[end.neighbour]
        self._clock()
        self.network.closed(end.neighbour, reason)

    def _arm(self):
        deadline = self.network.deadline
        if deadline is not None and (self.timer is None or deadline < self.timer):
            self.timer = max(deadline, self.world.now)
            self.world.at(self.timer, self.tick, self.timer)

    def tick(self, due):
        if self.dead or self.timer != due:
            return
        self.timer = None
        if self.stopped:
            return
        now = self.world.now
        deadline = self.network.deadline
        if deadline is not None and deadline <= now:
            self._watch_spins(now)
            self.do(self.network.tick)
        else:
            self._arm()

    def _watch_spins(self, now):
        self.spins = self.spins + 1 if now == self.spun_at else 0
        self.spun_at = now
        if self.ticks_in != int(now):
            self.ticks, self.ticks_in = 0, int(now)
        self.ticks += 1
        if self.spins > SPINS or self.ticks > TICKS_A_SECOND:
            raise Violation(f"{self} is in a busy loop at {now:.3f}: its deadline does not move")

    # What happens to it

    def take(self, end, item):
        if item is OPEN:
            self._opened(end)
        elif item is END:
            self._drop(end, "closed the connection")
            self._after()
        else:
            network, neighbour = self.network, end.neighbour
            self._clock()
            self.source = end
            mesh = self.world.lazy and neighbour.kind is LinkKind.MESH
            before = network.log.end
            network.received(neighbour, item)
            # Most of what comes is a copy, which changes nothing. Large runs only: no message on a mesh link makes a deadline earlier.
            if network.actions or network.log.end != before or neighbour.backlog:
                self._after(may_wait=mesh)
            elif not mesh:
                self._arm()
            self.source = None

    def _opened(self, end):
        self._clock()
        neighbour = end.neighbour = self.network.opened(end.host, end.attempt, self.host)
        self.ends[neighbour] = end
        self._after()

    def dial_failed(self, call, reason):
        if self.world.trace:
            self.world.trace(f"{self} cannot dial {call.address}: {reason}")
        self.do(self.network.dial_failed, call, reason)

    def resumed(self):
        self._clock()
        self._arm()

    # What its user does

    def join(self, other, label=None):
        address = other if isinstance(other, tuple) else (other.host, other.port)
        self.asked_at = self.world.now
        return self.do(self.network.join, label or f"{address[0]} {address[1]}", [address])

    def say(self, padding=0):
        text = self.next_text(padding)
        self.do(self.network.say, text)
        return text

    def leave(self):
        self.do(self.network.leave)
        for end in list(self.ends.values()):
            self.world.flush(end)
        self.world.kill(self)

    # The oracle

    def _show(self, event, text):
        world = self.world
        known = world.said.get(text)
        if world.strict and known is None:
            raise Violation(f"{self} shows what nobody said: {event.name!r}: {text[:60]!r}")
        if known is None:
            world.extra.append((self, text))
            return
        (author, number), refs, when = known
        if world.trace:
            world.trace(f"{self} shows {author}.{number}" + " (earlier)" * bool(event.earlier))
        last = self.last.get(author, 0)
        if (author, number) in self.seen:
            if world.repeats is not None:
                world.repeats[self, author, number] += 1
                return
            raise Violation(f"{self} shows {author}.{number} twice")
        self.seen.add((author, number))
        if world.tainted:
            self.last[author] = max(number, last)
            self.before = (*self.before, (author, number))[-2:]
            return
        if number <= last and world.gaps and event.earlier:
            return  # it fills a hole
        if number <= last:
            raise Violation(f"{self} shows {author}.{number} again or late: it had shown {last}")
        writer = world.nodes[author]
        if number != last + 1 and not world.gaps and isinstance(writer, Member):
            raise Violation(f"{self} shows {author}.{number} after {author}.{last}: a gap")
        if not world.gaps and writer.causal:
            for other, ref in refs:
                if self.last.get(other, 0) < ref:
                    raise Violation(f"{self} shows {author}.{number} before {other}.{ref}, which it answers")
        self.last[author] = number
        self.before = (*self.before, (author, number))[-2:]
        self.shown += 1
        if world.stats is not None:
            world.stats.showed(self, (author, number), when)

    causal = True

    def _notice(self, event):
        world = self.world
        if world.trace:
            world.trace(f"{self} notice: {render(event)}")
        entry = (world.now, event.words, event.parts)
        if self.notices and world.stats is None:  # not worth ending a long report
            when, words, parts = self.notices[-1]
            is_answer = "connect" in words and self.asked_at > when  # the user asked twice
            if words == event.words and parts == event.parts and world.now - when < 5 and parts and not is_answer:
                raise Violation(f"{self} is told twice: {render(event)}")
        self.notices.append(entry)
        here = {"{} joined": True, "{} is back": True, "{} left": False}.get(event.words)
        if event.words.startswith("lost contact with {}; "):
            here = False
        if here is None and any(word in event.words for word in (" joined", " left", "back", "lost contact with")):
            self.presence.clear()  # of several, of whom not all are named
        if here is not None:
            label = event.parts[0]
            if self.presence.get(label) is here:
                raise Violation(f"{self} is told twice that somebody came or went: {render(event)}")
            self.presence[label] = here

    def told(self, start):
        """The notices that begin with these words, rendered."""
        return [text for text in self.said_notices if text.startswith(start)]

    @property
    def said_notices(self):
        return [render(Notice(words, parts)) for _, words, parts in self.notices]

    def mesh(self):
        """The members at the other ends of its mesh links that both ends hold for one."""
        found = []
        for neighbour in self.network.neighbours:
            if neighbour.kind is LinkKind.MESH and not neighbour.ending:
                far = self.ends[neighbour].peer
                if not far.over and not far.node.dead and isinstance(far.node, Member) and far.neighbour is not None \
                        and far.neighbour.kind is LinkKind.MESH and not far.neighbour.ending:
                    found.append(far.node)
        return found


def render(notice):
    return notice.words.format(*(part.decode("utf-8", "replace") if isinstance(part, bytes) else part for part in notice.parts))


def shown_name(frame):
    """What a C program shows of a name: nothing of a mark."""
    return frame.partition(b"\xff")[0]


class CPeer(Node):
    """The C program's peer: shows and relays pairs, removes no duplicate, forgets a link at ":q" and never closes one."""

    def __init__(self, world, name, host, port):
        super().__init__(world, name, host, port)
        self.ends = []
        self.lines = []  # (name, text) shown
        self.probes = 0
        self.forgot = 0
        self.gateways, self.lost = 0, False
        self.shown_times = {}

    @property
    def causal(self):
        return self.gateways <= 1 and not self.lost

    def take(self, end, item):
        if item is OPEN:
            self.ends.append(end)
            self.gateways += 1
        elif item is END:
            if end in self.ends:
                self.lost = True
                self.ends.remove(end)
        elif not end.deaf:
            self._read(end, item)

    def _read(self, end, data):
        end.buffer += data
        while end.buffer and not end.deaf:
            if len(end.buffer) < 8:
                raise Violation(f"{self}: a header came in two pieces")
            size = int.from_bytes(end.buffer[:8], "little")
            if size > message.MAX_PLAIN_FRAME:
                raise Violation(f"{self} got a frame of {size} bytes")
            if len(end.buffer) < 8 + size:
                return
            frame, end.buffer = end.buffer[8:8 + size], end.buffer[8 + size:]
            if end.name is None:
                end.name = frame
            else:
                name, end.name = end.name, None
                self._pair(end, name, frame)

    def _pair(self, end, name, text):
        world = self.world
        if text.startswith(message.PROBE):
            if len(text) > 200 or not message.is_kind(text[3:], Kind.HELLO):
                raise Violation(f"{self} got a strange probe: {text!r}")
            self.probes += 1
            self.gateways -= 1
        text = text.split(b"\0")[0]
        if text in (b":q", b":quit"):
            end.deaf = True  # forgets it, and never closes the socket
            self.ends.remove(end)
            self.forgot += 1
            return
        name, marked = shown_name(name), name
        if name not in world.names or world.strict and text not in world.parts:
            raise Violation(f"{self} got what nobody said: {name!r}: {text[:60]!r}")
        self.lines.append((name, text))
        if world.trace:
            world.trace(f"{self} (C) shows {name!r}: {text[:30]!r}")
        known = world.said.get(text)
        if known:
            self.last[known[0][0]] = max(self.last.get(known[0][0], 0), known[0][1])
            self.before = (*self.before, known[0])[-2:]
            times = self.shown_times[text] = self.shown_times.get(text, 0) + 1
            if times > self.most_times:
                raise Violation(f"{self} (C) shows {text[:30]!r} {times} times")
        self.relay(marked, text, end)

    most_times = 2

    def relay(self, name, text, but=None):
        for end in self.ends:
            if end is not but:
                self.world.send(end, message.encode_pairs(name, [text]).data)

    def say(self):
        text = self.next_text()
        self.lines.append((self.name, text))
        self.showed((self.ident, self.number))
        self.last[self.ident] = self.number
        # What is typed while one of ours asks what this is, on a link that is about to end, reaches nobody there.
        self.lost |= any(end.peer.attempt is not None and not end.peer.attempt.plain for end in self.ends)
        self.relay(self.name, text)
        return text

    def join(self, member):
        """Dial it."""
        self.world.dial(self, peers.Attempt((member.host, member.port)), 10)

    def leave(self):
        self.relay(self.name, b":q")
        self.world.kill(self)

    def dial_failed(self, call, reason):
        pass

    def resumed(self):
        pass


class World:
    """The clock, the wires, the faults."""

    def __init__(self, seed=0, delay=(0.010, 0.100), pieces=0.0, lazy=False, trace=None, network=SimNetwork):
        self.rng = random.Random(seed)
        self.network, self.delay, self.pieces, self.lazy, self.trace_to = network, delay, pieces, lazy, trace
        self.now = 0.0
        self._events, self._count = [], 0
        self.nodes = {}  # ident -> Node, all that ever were
        self.listening = {}  # (host, port) -> Node
        self.hosts = {}  # host -> whether its kernel answers
        self.conns = {}
        self.groups = {}  # host -> side of the partition
        self.dark = {}  # hosts without a cable
        self.trouble = False  # whether any cable is out, anywhere
        self.said, self.parts, self.names = {}, {}, set()
        self.tainted = False  # two of ours took each other for C peers: no order is promised between them
        self.strict, self.gaps = True, False
        self.repeats = None  # a Counter where a test counts what is shown again
        self.extra = []  # shown, not said by the oracle's authors
        self.counts = Counter()
        self.stats = None
        self.dials = 0
        self.digest = 0
        self.taps = None  # (from, to) -> list of what was sent, if recorded

    # The clock

    def at(self, when, what, *args):
        self._count += 1
        heapq.heappush(self._events, (when, self._count, what, args))

    def after(self, seconds, what, *args):
        self.at(self.now + seconds, what, *args)

    def run(self, seconds):
        self.run_to(self.now + seconds)

    def run_to(self, until):
        events = self._events
        while events and events[0][0] <= until:
            when, _, what, args = heapq.heappop(events)
            if when > self.now:
                self.now = when
            what(*args)
        self.now = until

    def run_until(self, condition, most, step=0.25):
        """Run until it holds; returns the seconds it took. Fails after `most`."""
        start = self.now
        while not condition():
            if self.now - start >= most:
                raise Violation(f"waited {most} s in vain for {getattr(condition, '__name__', condition)}")
            self.run(step)
        return self.now - start

    @property
    def trace(self):
        return self._trace if self.trace_to is not None else None

    def _trace(self, line):
        line = f"{self.now:9.3f} {line}"
        self.digest = zlib.crc32(line.encode(), self.digest)
        self.trace_to(line)

    # Who is there

    def new_ident(self, node):
        ident = len(self.nodes) + 1
        self.nodes[ident] = node
        self.names.add(node.name)
        self.listening[node.host, node.port] = node
        self.hosts[node.host] = True
        return ident

    def _place(self, host, port):
        count = len(self.nodes) + 1
        return host or f"10.{count >> 16 & 255}.{count >> 8 & 255}.{count & 255}", port or 4000 + count % 60000

    def member(self, name=None, host=None, port=None, skew=0.0):
        name = name if name is not None else f"m{len(self.nodes) + 1}"
        return Member(self, name.encode(), *self._place(host, port), skew)

    def c_peer(self, name=None, host=None, port=None):
        return CPeer(self, (name or f"c{len(self.nodes) + 1}").encode(), *self._place(host, port))

    @property
    def members(self):
        """The members that live."""
        return [node for node in self.nodes.values() if isinstance(node, Member) and not node.dead]

    # Faults

    def kill(self, node, sign=True):
        """SIGKILL: the kernel closes its sockets. Without a sign: the power went."""
        if self.trace:
            self.trace(f"{node} dies" + " without a sign" * (not sign))
        node.dead = True
        del self.listening[node.host, node.port]
        if not sign:
            self.unplug(node)
        ends = node.ends.values() if isinstance(node, Member) else node.ends
        for end in list(ends):
            if isinstance(end.peer.node, CPeer):
                end.peer.node.lost = True
            if sign:
                self.close(end)
            end.over = True

    def stop(self, node):
        if self.trace:
            self.trace(f"{node} is stopped")
        node.stopped = True

    def resume(self, node):
        if node.dead or not node.stopped:
            return
        if self.trace:
            self.trace(f"{node} goes on")
        node.stopped = False
        if isinstance(node, Member):
            node.do(node.network.woke)
        inbox, node.inbox = node.inbox, []
        for what, *args in inbox:
            what(*args)
        if not node.dead:
            node.resumed()

    def unplug(self, node):
        if self.trace:
            self.trace(f"{node} loses its cable")
        self.dark[node.host] = True
        self._block()

    def plug(self, node):
        if node.dead:
            return  # nobody is there to switch it on
        if self.trace:
            self.trace(f"{node} has its cable again")
        self.dark.pop(node.host, None)
        self._heal()

    def partition(self, *groups):
        """Between these groups of nodes (and whoever is in none) nothing passes."""
        if self.trace:
            self.trace(f"partition {groups}")
        self.groups = {node.host: number for number, group in enumerate(groups, 1) for node in group}
        self._block()

    def heal(self):
        if self.trace:
            self.trace("the partition heals")
        self.groups = {}
        self._heal()

    def cut(self, one, other):
        """Reset all connections between two nodes."""
        for conn in list(self.conns):
            if {conn.a.node, conn.b.node} == {one, other}:
                for end in (conn.a, conn.b):
                    if not end.over:
                        self.after(self.rng.uniform(0, 0.1), self._broke, end, "broke the connection off")

    def silence(self, one, other, on=True):
        """A cable pulled, or put back, between two nodes that only this connection uses."""
        if self.trace:
            self.trace(f"silence between {one} and {other}: {on}")
        for conn in list(self.conns):
            if {conn.a.node, conn.b.node} == {one, other}:
                conn.silent = on
        self._block() if on else self._heal()

    def _block(self):
        self.trouble = True
        for conn in list(self.conns):
            if conn.blocked_at is None and self._is_blocked(conn):
                conn.blocked_at = self.now
                self.after(KEEPALIVE_SECONDS, self._keepalive, conn, self.now)
                self.after(GIVE_UP_SECONDS, self._keepalive, conn, self.now)

    def _heal(self):
        self.trouble = bool(self.groups or self.dark or any(conn.silent for conn in self.conns))
        for conn in list(self.conns):
            if conn.blocked_at is not None and not self._is_blocked(conn):
                conn.blocked_at = None
                wait = self.rng.uniform(0, 1)  # until the next retransmission
                for end in (conn.a, conn.b):
                    if end.held is not None:
                        self.after(wait + end.peer.delay, self._release, end)

    def _is_blocked(self, conn):
        return conn.silent or self._apart(conn.a.node.host, conn.b.node.host)

    def _apart(self, one, other):
        return one != other and (one in self.dark or other in self.dark or self.groups.get(one) != self.groups.get(other))

    def _keepalive(self, conn, since):
        if conn.blocked_at == since:
            for end in (conn.a, conn.b):
                if end.flight == 0 or self.now - since >= GIVE_UP_SECONDS:
                    self._broke(end, "does not answer")

    def _broke(self, end, reason):
        if end.over or end.node.dead:
            return
        if end.node.stopped:
            end.node.inbox.append((self._broke, end, reason))
            return
        if isinstance(end.node, CPeer) or end.neighbour is None:
            end.over = True
            end.node.take(end, END) if end.neighbour is not None else None
            return
        end.node._drop(end, reason)
        end.node._after()

    # Connections

    def dial(self, node, call, seconds):
        self.dials += 1
        if self.trace:
            self.trace(f"{node} dials {call.address[0]} {call.address[1]}" + " (urgent)" * call.urgent + " (plain)" * call.plain)
        low, high = self.delay
        there, back = self.rng.uniform(low, high), self.rng.uniform(low, high)
        self.after(there, self._knock, node, call, self.now + seconds, 1.0, there, back)

    def _knock(self, node, call, give_up, pause, there, back):
        """Its SYN arrives, or does not and is sent again."""
        if node.dead:
            return
        host, port = call.address[:2]
        local = host.startswith("127.")
        target_host = node.host if local else host
        if target_host not in self.hosts or self._apart(node.host, target_host):
            if self.now + pause + there < give_up:
                self.after(pause, self._knock, node, call, give_up, pause * 2, there, back)
            else:
                self.at(max(give_up, self.now), self._dial_failed, node, call, "does not answer")
            return
        target = self.listening.get((target_host, port))
        if target is None:
            self.after(back, self._dial_failed, node, call, "refused the connection")
            return
        if call.plain and isinstance(target, Member) and isinstance(node, Member):
            self.tainted = True
        conn = Conn()
        conn.a = End(conn, node, host, there)
        conn.b = End(conn, target, "127.0.0.1" if local else node.host, back)
        conn.a.peer, conn.b.peer, conn.a.attempt = conn.b, conn.a, call
        self.conns[conn] = None
        self._arrive(conn.b, OPEN)
        conn.b.last = self.now + back
        self.at(conn.b.last, self._arrive, conn.a, OPEN)
        self.at(max(give_up, conn.b.last), self._dial_over, conn.a)

    def _dial_over(self, end):
        if end.neighbour is None and not end.over and not end.node.dead and isinstance(end.node, Member):
            if end.node.stopped:
                return  # its kernel has connected; the process sees that first
            self.close(end)
            end.node.dial_failed(end.attempt, "does not answer")

    def _dial_failed(self, node, call, reason):
        if node.dead:
            return
        if node.stopped:
            node.inbox.append((self._dial_failed, node, call, reason))
            return
        node.dial_failed(call, reason)

    def flush(self, end):
        """What Link.flush does: send as much as fits."""
        neighbour = end.neighbour
        may_be_c = neighbour.may_be_c
        while neighbour.backlog:
            room = WINDOW - end.flight
            if may_be_c:
                data = neighbour.take(SEGMENT, room)
                self._check_chunk(data)
            else:
                data = neighbour.take(65536, 65536 + 65536) if room > 0 else b""
            if not data:
                if neighbour.backlog and end.stuck is None:
                    end.stuck = self.now
                    self.after(STALL_SECONDS, self._stalled, end)
                return
            self.send(end, data)
            if end.stuck is not None:
                end.stuck = self.now
        end.stuck = None

    def _check_chunk(self, data):
        """A C peer reads a header with one read: what is sent to it at once must be whole frames."""
        at = 0
        while at < len(data):
            at += 8 + int.from_bytes(data[at:at + 8], "little")
        if at != len(data):
            raise Violation("half a frame was sent on a plain link")

    def _stalled(self, end):
        if end.over or end.stuck is None or end.node.dead:
            return
        if end.node.stopped:
            end.node.inbox.append((self._stalled, end))
            return
        wait = end.stuck + STALL_SECONDS - self.now
        if wait > 1e-9:
            self.after(wait, self._stalled, end)
        elif end.neighbour.backlog:
            end.node._drop(end, f"took nothing for {STALL_SECONDS} seconds")
            end.node._after()
        else:
            end.stuck = None

    def send(self, end, data):
        """Put bytes on the wire."""
        end.flight += len(data)
        if self.taps is not None:
            self.taps.setdefault((end.node, end.peer.node), []).append(data)
        arrival = self.now + end.delay
        if arrival < end.last:
            arrival = end.last
        if self.pieces and len(data) > 1 and isinstance(end.peer.node, Member) and self.rng.random() < self.pieces:
            cuts = sorted(self.rng.randrange(1, len(data)) for _ in range(self.rng.randint(1, 3)))
            for start, stop in zip([0] + cuts, cuts + [len(data)]):
                self.at(arrival, self._arrive, end.peer, data[start:stop])
                arrival += self.rng.uniform(0, 0.02)
        else:
            self.at(arrival, self._arrive, end.peer, data)
        end.last = arrival

    def close(self, end):
        """Its process closes it; the other one sees that behind the bytes before it."""
        if end.over:
            return
        end.over = True
        end.last = max(end.last, self.now + end.delay)
        self.at(end.last, self._arrive, end.peer, END)

    def _arrive(self, end, item):
        """Something arrives at this end's machine."""
        if end.over:
            if item is END or end.peer.over:
                self.conns.pop(end.conn, None)
            elif item is OPEN:
                pass
            return
        if self.trouble and (end.held is not None or self._is_blocked(end.conn)) or end.held is not None:
            if end.held is None:
                end.held = []
            end.held.append(item)
            return
        node = end.node
        if node.stopped:
            node.inbox.append((self._hand, end, item))
            return
        self._hand(end, item)

    def _release(self, end):
        """The cable is back: what waited comes, joined as it may be."""
        if end.held is None or self._is_blocked(end.conn):
            return
        items, end.held = end.held, None
        joined = []
        for item in items:
            if joined and isinstance(item, bytes) and isinstance(joined[-1], bytes):
                joined[-1] += item
            else:
                joined.append(item)
        for item in joined:
            self._arrive(end, item)

    def _hand(self, end, item):
        """The process reads it."""
        node = end.node
        if end.over or node.dead:
            return
        if item is OPEN:
            if self.trace:
                self.trace(f"{node} {'reached' if end.attempt else 'is reached by'} {end.peer.node}")
            if isinstance(node, CPeer):
                end.neighbour = end
        elif item is not END:
            sender = end.peer
            sender.flight -= len(item)
            if sender.stuck is not None and not sender.over:
                self.after(end.delay, self._acknowledged, sender)
            if isinstance(node, CPeer) and end.deaf:
                sender.flight += len(item)  # it does not read any more
                return
        elif isinstance(node, CPeer):
            end.over = True
        node.take(end, item)

    def _acknowledged(self, end):
        if end.over or end.node.dead or end.node.stopped or not isinstance(end.node, Member):
            return
        self.flush(end)
        end.node._after()

    # What holds

    def components(self, members=None):
        """Groups of living members that hold together by mesh links which both ends know."""
        members = self.members if members is None else members
        left = dict.fromkeys(members)
        groups = []
        while left:
            first = next(iter(left))
            del left[first]
            group, todo = [first], [first]
            while todo:
                for other in todo.pop().mesh():
                    if other in left:
                        del left[other]
                        group.append(other)
                        todo.append(other)
            groups.append(group)
        return sorted(groups, key=len, reverse=True)

    def is_one(self):
        """One component."""
        return len(self.components()) <= 1

    def check_bounds(self):
        for member in self.members:
            network = member.network
            links = sum(neighbour.kind is LinkKind.MESH and not neighbour.ending for neighbour in network.neighbours)
            sizes = {
                "mesh links": (links, peers.MAX_MESH_LINKS),
                "book": (len(network.overlay.book.heard), peers.MAX_BOOK),
                "friends": (len(network.overlay.book.friends), peers.MAX_FRIENDS),
                "shunned": (len(network.overlay.book.shunned), peers.MAX_BOOK),
                "members": (len(network.presence.people), peers.MAX_MEMBERS),
                "suspects": (len(network.presence._suspects), peers.MAX_MEMBERS),
                "chat in the log": (network.log._chat, message.LOG_MESSAGES),
                "holes": (network.log.holes.count, message.MAX_HOLES),
                "words": (len(network.bridge._words._lines), peers.MAX_WORDS),
                "links of the harness": (len(member.ends), len(network.neighbours)),
                "dials": (len(network.overlay.attempts), peers.MAX_DIALS + len(network.contacts) + 1),
                "actions": (len(network.actions), 0),
            }
            for what, (count, most) in sizes.items():
                if count > most:
                    raise Violation(f"{member}: {count} {what}, {most} at most")

    def check_complete(self, authors=None, readers=None):
        """Each reader has shown all that each author said. Order, causes and doubles were checked as they came."""
        authors = [member for member in self.members if not member.stopped] if authors is None else authors
        readers = authors if readers is None else readers
        for reader in readers:
            for author in authors:
                if reader.last.get(author.ident, 0) != author.number:
                    raise Violation(f"{reader} has shown {reader.last.get(author.ident, 0)} of {author}'s {author.number} messages")

    def check_double_links(self):
        for member in self.members:
            doubles = [node for node, count in Counter(member.mesh()).items() if count > 1]
            if doubles:
                raise Violation(f"{member} is linked twice to {doubles}")


# One random run ----------------------------------------------------------------------------------

LARGEST = 12  # members of a random run: what one costs is the square of them


class Chaos:
    """A small network and what may happen to one, all from one seed."""

    def __init__(self, seed, trace=None, network=SimNetwork):
        self.rng = rng = random.Random(seed)
        self.world = World(seed, delay=rng.choice([(0.0005, 0.002), (0.01, 0.1), (0.01, 0.1), (0.05, 0.24)]),
                           pieces=rng.choice([0, 0, 0.1, 0.4]), trace=trace, network=network)
        self.busy_until = 0.0  # when the last fault ends
        self.contacts = {}
        self.plain = []
        self.took = None

    def run(self):
        rng, world = self.rng, self.world
        self._join()
        self._talk(0, 40)
        if rng.random() < 0.4:
            self._c_peers()
        for _ in range(rng.randint(1, 4)):
            fault = rng.choice([self._kill_one, self._kill_seed, self._kill_half, self._partition, self._partition, self._stop,
                                self._unplug, self._silence, self._cut, self._cross, self._leave, self._late, self._burst,
                                self._sleep, self._power])
            world.at(rng.uniform(2, 30), fault)
        world.run_to(45)
        world.run_to(max(self.busy_until, 45))
        self._settle()
        self._check()
        return self

    # The parts

    def _start(self, when, target):
        member = self.world.member(skew=self.rng.uniform(-1, 1))
        self.world.at(when, self._first_join, member, target)
        return member

    def _first_join(self, member, target):
        alive = [other for other in self.world.members if other is not member]
        if member.dead or not alive:
            return
        self.contacts[member] = member.join(target if not target.dead else self.rng.choice(alive))

    def _join(self):
        rng, world = self.rng, self.world
        count = rng.choice([rng.randint(3, 6), rng.randint(3, 8), rng.randint(7, LARGEST)])
        shape = rng.choice(["chain", "star", "at once", "random"])
        self.first = world.member(skew=rng.uniform(-1, 1))
        made = [self.first]
        when = 0.1
        for _ in range(count - 1):
            target = {"chain": made[-1], "random": rng.choice(made)}.get(shape, self.first)
            made.append(self._start(when, target))
            when += 0 if shape == "at once" else rng.uniform(0, 1)

    def _talk(self, start, stop):
        for member in self.world.members:
            for _ in range(self.rng.randint(1, 5)):
                self.world.at(self.world.now + self.rng.uniform(start, stop), self._say, member)

    def _say(self, member, padding=0):
        if not member.dead and not member.stopped and (isinstance(member, Member) or member.ends):
            member.say(*([padding] if padding else []))

    def _c_peers(self):
        rng, world = self.rng, self.world
        for _ in range(rng.randint(1, 3)):
            peer, gateway = world.c_peer(), rng.choice(world.members)
            self.plain.append((peer, gateway))
            if rng.random() < 0.5:
                world.at(rng.uniform(0, 20), self._unless_dead, gateway, peer.join, gateway)
            else:
                world.at(rng.uniform(0, 20), self._unless_dead, gateway, gateway.join, peer)
            for _ in range(rng.randint(0, 6)):
                world.at(rng.uniform(0, 40), self._say, peer)

    def _unless_dead(self, member, what, *args):
        if not member.dead and not member.stopped:
            what(*args)

    def _lasts(self, seconds):
        self.busy_until = max(self.busy_until, self.world.now + seconds)

    def _some(self):
        return [member for member in self.world.members if not member.stopped]

    def _kill(self, member, sign=True):
        if len(self.world.members) > 1:
            self.world.kill(member, sign)
            self._lasts(0 if sign else 45)

    def _kill_one(self):
        self._kill(self.rng.choice(self.world.members))

    def _kill_seed(self):
        if not self.first.dead:
            self._kill(self.first)

    def _kill_half(self):
        members = self.world.members
        for member in self.rng.sample(members, len(members) // 2):
            self._kill(member)

    def _power(self):
        self._kill(self.rng.choice(self.world.members), sign=False)

    def _partition(self):
        members = self.world.members
        side = self.rng.sample(members, self.rng.randint(1, len(members)))
        self.world.partition(side)
        seconds = self.rng.choice([2, 20, 50, 90])
        self._lasts(seconds)
        self.world.after(seconds, self.world.heal)
        self._talk(0, seconds)

    def _stop(self):
        member = self.rng.choice(self.world.members)
        seconds = self.rng.choice([1, 10, 35, 60, 120])
        self._lasts(seconds)
        self.world.stop(member)
        self.world.after(seconds, self.world.resume, member)

    def _unplug(self):
        member = self.rng.choice(self.world.members)
        seconds = self.rng.choice([3, 30, 60, 150])
        self._lasts(seconds)
        self.world.unplug(member)
        self.world.after(seconds, self.world.plug, member)
        self._talk(0, seconds)

    def _sleep(self):
        member = self.rng.choice(self.world.members)
        seconds = self.rng.choice([60, 600])
        self._lasts(seconds)
        self.world.stop(member)
        self.world.unplug(member)
        self.world.after(seconds, self.world.plug, member)
        self.world.after(seconds, self.world.resume, member)

    def _pair(self):
        pairs = [(one, other) for one in self.world.members for other in one.mesh()]
        return self.rng.choice(pairs) if pairs else None

    def _silence(self):
        pair = self._pair()
        if pair:
            seconds = self.rng.choice([5, 45, 100])
            self._lasts(seconds)
            self.world.silence(*pair)
            self.world.after(seconds, self.world.silence, *pair, False)

    def _cut(self):
        for _ in range(3):
            pair = self._pair()
            if pair:
                self.world.cut(*pair)

    def _cross(self):
        """Two users dial each other at one moment."""
        members = self._some()
        if len(members) > 1:
            one, other = self.rng.sample(members, 2)
            one.join(other)
            other.join(one)

    def _leave(self):
        members = self._some()
        if len(members) > 1:
            self.rng.choice(members).leave()

    def _late(self):
        member = self._start(self.world.now, self.rng.choice(self.world.members))
        self.world.after(self.rng.uniform(1, 5), self._say, member)

    def _burst(self):
        members = self._some()
        if members:
            member = self.rng.choice(members)
            for _ in range(self.rng.randint(10, 60)):
                self._say(member, self.rng.choice([0, 0, 0, 3000]))

    # The end

    def _settle(self, bound=150):
        world = self.world
        start = world.now
        for member, contact in self.contacts.items():
            if not member.dead and not contact.reached:  # its first dial failed: p2pchat would have ended, and been started again
                others = [other for other in world.members if other is not member and self.contacts.get(other, contact) is not contact]
                member.join(self.rng.choice(others)) if others and not member.mesh() else None
        asked = 0
        while not world.is_one():
            world.run(0.5)
            if world.now - start > bound * (asked + 1):
                if asked == 3 or not self._stranded():
                    raise Violation(f"not one network {world.now - start:.0f} s after the last fault: {world.components()}")
                asked += 1  # nobody knows an address of the other part: its user has to help
                parts = world.components()
                for part in parts[1:]:
                    part[0].join(parts[0][0])
        self.took = world.now - start
        for member in world.members:
            member.say()
        # A roll call among them; but whoever slept has dead links, and learns from its own pings that they are.
        world.run(16)
        world.run_until(lambda: not self._disagreement(), 60)

    def _stranded(self):
        """Whether no member knows the address of a living one in another part."""
        for part in self.world.components():
            for member in part:
                network = member.network
                known = {**network.overlay.book.heard, **network.overlay.book.friends}
                known.update({contact.addresses[0][:2]: 0 for contact in network.contacts if contact.reached})
                if any((other.host, other.port) in known for other in self.world.members if other not in part):
                    return False
        return True

    def _check(self):
        world = self.world
        if not world.is_one():
            raise Violation(f"fell apart again: {world.components()}")
        world.check_complete()
        world.check_bounds()
        world.check_double_links()
        self._check_c_peers()
        self._check_presence()

    def _check_c_peers(self):
        for peer, gateway in self.plain:
            for text, times in peer.shown_times.items():
                if times > 1 and peer.gateways <= 1:
                    raise Violation(f"{peer} (C) shows {text!r} {times} times")
            if not gateway.dead and peer.causal and any(end.peer.node is gateway and not end.over and not end.peer.over for end in peer.ends):
                for member in world_members(self.world):
                    if peer.last.get(member.ident, 0) != member.number:
                        raise Violation(f"{peer} (C) has seen {peer.last.get(member.ident, 0)} of {member}'s {member.number}")

    def _check_presence(self):
        disagreement = self._disagreement()
        if disagreement:
            raise Violation(disagreement)

    def _disagreement(self):
        """Who lists whom wrongly; everybody must list exactly the living."""
        alive = {member.network.author.origin: member for member in self.world.members}
        for member in self.world.members:
            listed = {entry.key for entry in member.network.who() if entry.is_member}
            for origin, other in alive.items():
                if other is not member and origin not in listed:
                    return f"{member} does not list {other}, who is here"
            for key in listed - set(alive):
                return f"{member} lists {self._named(key)}, who is gone"
        return None

    def _named(self, origin):
        return next((node for node in self.world.nodes.values() if isinstance(node, Member) and node.network.author.is_ours(origin)), origin)


def world_members(world):
    return world.members


def chaos(seed, trace=None, network=SimNetwork):
    return Chaos(seed, trace, network).run()


# The report ---------------------------------------------------------------------------------------

class Stats:
    """Deliveries of a large run."""

    def __init__(self):
        self.hops, self.lags, self.count = Counter(), {}, Counter()

    def showed(self, member, ident, when):
        if member.source is None:
            member.hops[ident] = 0
            return
        hops = member.hops[ident] = member.source.peer.node.hops.get(ident, 0) + 1
        self.hops[hops] += 1
        self.count[ident] += 1
        self.lags[ident] = member.world.now - when


PRESENCE_UP_TO = 200  # members in the report: everybody telling everybody is the square of them


def simulate(count, kill, seed=1, show=print):
    """Returns the figures as a dict."""
    began = time.perf_counter()
    quiet = count > PRESENCE_UP_TO

    class Core(SimNetwork):
        pass
    Core.quiet = quiet
    world = World(seed, lazy=True, network=Core)
    world.strict = True
    rng = random.Random(seed)
    show(f"{count:,} members join through one of them in a minute; links take 10 to 100 ms; then {kill} % die at once")
    if quiet:
        show(f"(over {PRESENCE_UP_TO} members without presence records: everybody telling everybody takes one process too long)")
    first = world.member()
    for number in range(count - 1):
        world.at(60 * (number + 1) / count, lambda: world.member().join(first))
    for second in (30, 60):
        world.run_to(second)
        show(f"  {second} s: {len(world.components()[0]):,} of {len(world.members):,} hold together, {time.perf_counter() - began:.0f} s of work")
    world.run_to(70)
    joined = len(world.components()[0]) / len(world.members)
    show(f"  70 s: {joined:.1%} hold together")
    world.stats = stats = Stats()
    sent = {"before": [], "during": [], "after": []}

    def talk(phase, start, stop, times):
        for step in range(times):
            world.at(start + (stop - start) * step / times, say, phase)

    def say(phase):
        author = rng.choice(world.members)
        sent[phase].append((author, author.number + 1))
        author.say()

    times = 10
    talk("before", 70, 88, times)
    world.counts.clear()
    world.run_to(90)
    counts = Counter(world.counts)
    chat = counts[Kind.SAY]
    copies = chat / max(sum(stats.hops.values()), 1)
    control = (sum(counts.values()) - chat) / count / 20
    path = sum(hops * number for hops, number in stats.hops.items()) / max(sum(stats.hops.values()), 1)
    longest = max(stats.hops, default=0)
    slowest = max(stats.lags.values(), default=0)
    graph_mean, graph_most = shortest_paths(world.members, rng)
    before_links = sorted(len(member.mesh()) for member in world.members)

    victims = rng.sample(world.members, count * kill // 100)
    talk("during", 90, 93, times)
    for victim in victims:
        world.kill(victim)
    shares, whole = [], None
    survivors = world.members
    for second in range(31):
        world.run_to(90 + second + 0.001)
        share = len(world.components()[0]) / len(survivors)
        shares.append(share)
        if share == 1 and whole is None:
            whole = second
        if share == 1 and second >= 5:
            break
    talk("after", world.now, world.now + 3, times)
    world.run(20)
    world.check_bounds()
    show("connected share, seconds after the kill:")
    show("  " + "  ".join(f"{second}s {share:.1%}" for second, share in enumerate(shares)))
    reached = {}
    for phase, said in sent.items():
        got = sum(member.last.get(author.ident, 0) >= number for author, number in said for member in survivors)
        reached[phase] = got / max(len(said) * len(survivors), 1)
    links = sorted(len(member.mesh()) for member in survivors)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1 << 20)
    wall = time.perf_counter() - began
    show("reliability (shares of all survivors that showed a message): "
         + ", ".join(f"said {phase} {share:.2%}" for phase, share in reached.items()))
    show(f"copies per delivery {copies:.2f}; shortest path {graph_mean:.1f} hops on average, {graph_most} at most;"
         f" the fastest one {path:.1f} and {longest}; last member after {slowest:.2f} s")
    show(f"links per member before {before_links[0]}/{sum(before_links) / len(before_links):.1f}/{before_links[-1]},"
         f" after {links[0]}/{sum(links) / len(links):.1f}/{links[-1]} (least/mean/most)")
    show(f"control records {control:.2f} a member and second ({', '.join(f'{name(kind)} {number / count / 20:.2f}' for kind, number in sorted(counts.items()) if kind != Kind.SAY)})")
    show(f"{wall:.0f} s of work, {memory:.0f} MB, {world._count:,} events, {world.dials:,} dials")
    return {"shares": shares, "whole": whole, "reached": reached, "copies": copies, "path": path, "longest": longest,
            "links": links, "control": control, "wall": wall, "memory": memory}


def shortest_paths(members, rng):
    """Hops from a few members to all others: mean, most."""
    counts = Counter()
    for start in rng.sample(members, min(len(members), 5)):
        far, ring = {start: 0}, [start]
        while ring:
            ring = [other for member in ring for other in dict.fromkeys(member.mesh())
                    if far.setdefault(other, far[member] + 1) == far[member] + 1]
            ring = list(dict.fromkeys(ring))
        counts.update(hops for hops in far.values() if hops)
    return sum(hops * number for hops, number in counts.items()) / max(sum(counts.values()), 1), max(counts, default=0)


def name(kind):
    return next((name for name, value in vars(Kind).items() if value == kind), str(kind))


def main(arguments):
    if arguments[:1] == ["--seed"]:
        run = chaos(int(arguments[1]), trace=print)
        print(f"passed; one network again after {run.took:.1f} s; digest {run.world.digest:08x}")
        return
    count, kill = (int(argument) for argument in (arguments + ["1000", "50"][len(arguments):])[:2])
    simulate(count, kill)


if __name__ == "__main__":
    main(sys.argv[1:])
