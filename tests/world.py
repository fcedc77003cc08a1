"""A whole network of real Network objects in one process: a virtual clock, modelled TCP, machines and their faults.

Knows: time, cables, connections, processes; how a member and a C program are driven.
Leaves out: what must hold (oracle.py), and what happens in a random run (faults.py).

Nothing here waits or reads a real clock, and all chance comes from the seed, so a run repeats exactly. How long
a link's bytes take depends on the seed and its two ends only, so that leaving out one fault changes little else.
What is modelled: connections that are refused, accepted or met with silence; bytes that arrive late, in
order, in any pieces, or wait while a cable is out, and then for TCP's next attempt to send them again; ends of
links that arrive behind the bytes before them; a bounded number of bytes under way; machines with several
addresses, or that others cannot dial; processes that are stopped, killed, or lose power without a sign.
What is not: bytes lost in the middle of a stream (TCP has none), and the kernel's congestion control.
"""

import heapq
import random
import zlib
from collections import Counter

import message
import peers
from message import Hello, Kind, encode_frame, encode_hello, encode_record
from oracle import Oracle, Violation, said_notices
from p2pchat import STALL_SECONDS
from peers import Announce, Connect, Hangup, LinkKind, Network, Notice, Show

EPOCH = 1_700_000_000  # the wall clock at virtual second 0
WINDOW = 64 * 1024  # bytes under way in one direction of a link
SEGMENT = 1448
KEEPALIVE_SECONDS, GIVE_UP_SECONDS = 60, 900  # of a silent link: nothing under way; something under way
FIRST_RETRY, MOST_RETRY = 0.3, 120  # seconds until TCP sends again what was not acknowledged; doubled each time
SPINS = 50  # ticks at one moment that count as a busy loop
TICKS_A_SECOND = 400
OPEN, END = object(), object()  # what travels beside bytes
C_PREFIX = b"c"


class End:
    """One end of a connection. What it sends arrives at `peer`."""
    __slots__ = ("conn", "node", "host", "peer", "delay", "last", "flight", "unheard", "held", "over", "neighbour", "attempt",
                 "stuck", "buffer", "name", "deaf")

    def __init__(self, conn, node, host, delay):
        self.conn, self.node, self.host, self.delay = conn, node, host, delay
        self.peer = None
        self.last = 0.0  # when the last thing sent arrives: first in, first out
        self.flight = 0  # bytes of which it does not know that the peer has read them
        self.unheard = 0  # of these, what the peer has read
        self.held = None  # what waits at this end while the cable is out
        self.over = False
        self.neighbour = self.attempt = None
        self.stuck = None  # since when nothing was taken, while something waits
        self.buffer, self.name, self.deaf = b"", None, False  # a C peer's half-read input


class Conn:
    __slots__ = ("a", "b", "silent", "blocked_at")

    def __init__(self):
        self.silent, self.blocked_at = False, None


class SimNetwork(Network):
    """The core, counting the frames it takes."""
    counts = None

    def _take_run(self, neighbour, run):
        if self.counts is not None:
            self.counts[run.kind] += len(run.frames)
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

    is_c = False
    causal = True  # whether what it says is ordered behind what it has read
    dial_only = False  # whether nobody can dial it

    def __init__(self, world, name, host, port, ident=None):
        self.world, self.name, self.host, self.port = world, name, host, port
        self.hosts = [host]  # all its addresses
        self.dialled = 0
        self.dead = self.stopped = False
        self.inbox = []  # what waits while it is stopped
        self.ident = world.new_ident(self, ident)
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
            full = (text + b" " + b"%d.%d " % said * padding)[:padding]
            self.world.said[full] = self.world.said.pop(text)
            text = full
        for part in message.plain_texts(text):  # what a C peer sees of it
            self.world.parts[part] = text
        return text

    def showed(self, ident):
        self.before = (*self.before, ident)[-2:]

    def address_towards(self, host):
        """Which of its addresses is in the network of this host; None: there is no route. "10.": reached from everywhere."""
        if host.startswith("10."):
            return self.host if self.host.startswith("10.") else None
        return next((own for own in self.hosts if own.rpartition(".")[0] == host.rpartition(".")[0]), None)

    def __repr__(self):
        return f"{self.name.decode()}"


class Member(Node):
    """A member: a real Network, and around it what p2pchat.py and Link do."""

    def __init__(self, world, name, host, port, skew=0.0, ident=None):
        super().__init__(world, name, host, port, ident)
        self.skew = skew
        self.network = world.network(name, port, world.chance(self.ident), world.now, EPOCH + world.now + skew)
        self.network.counts = world.counts
        self.ends = {}  # Neighbour -> End
        self.notices = []
        self.asked = Counter()  # how often its user named a peer
        self.shown = 0
        self.parts = {}  # of texts that came in pieces: which were shown
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
                self.world.told(self, event)
            elif kind is Connect:
                self.world.dial(self, event.attempt, event.seconds)
            elif kind is Hangup:
                self._hang_up(event.neighbour, event.reason)
            elif kind is Announce:
                self.world.multicast(self.host, event.packet)
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
        neighbour = end.neighbour = self.network.opened(end.host, end.attempt, end.peer.host)
        self.ends[neighbour] = end
        self._after()

    def dial_failed(self, call, reason):
        if self.world.trace:
            self.world.trace(f"{self} cannot dial {call.address}: {reason}")
        self.do(self.network.dial_failed, call, reason)

    def resumed(self):
        self._clock()
        self._arm()

    def overhear(self, host, packet):
        if not self.dead and not self.stopped:
            self.do(self.network.overheard, host, packet)

    # What its user does

    def join(self, other, label=None):
        address = other if isinstance(other, tuple) else (other.host, other.port)
        label = label or f"{address[0]} {address[1]}"
        self.asked[label] += 1
        return self.do(self.network.join, label, [address])

    def say(self, padding=0):
        text = self.next_text(padding)
        self.do(self.network.say, text)
        return text

    def leave(self):
        self.do(self.network.leave)
        for end in list(self.ends.values()):
            self.world.flush(end)
        self.world.kill(self)

    # What its user sees

    def _show(self, event, text):
        self.world.shows(self, event, text)

    @property
    def said_notices(self):
        """What it was told, rendered."""
        return said_notices(self)

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


def shown_name(frame):
    """What a C program shows of a name: nothing of a mark."""
    return frame.partition(b"\xff")[0]


class CPeer(Node):
    """The C program's peer: shows and relays pairs, removes no duplicate, forgets a link at ":q" and never closes one."""

    is_c = True
    most_times = 2

    def __init__(self, world, name, host, port, ident=None):
        super().__init__(world, name, host, port, ident)
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
        self.world.c_shows(self, shown_name(name), text)
        self.relay(name, text, end)

    def relay(self, name, text, but=None):
        for end in self.ends:
            if end is not but:
                self.world.send(end, message.encode_pairs(name, [text]).data)

    def say(self):
        text = self.next_text()
        self.lines.append((self.name, text))
        self.showed((self.ident, self.number))
        self.last[self.ident] = self.number
        # What is typed while a member asks what this is, on a link that is about to end, reaches nobody there.
        self.lost |= any(end.peer.attempt is not None and not end.peer.attempt.plain for end in self.ends)
        self.relay(self.name, text)
        return text

    def join(self, node):
        """Dial it."""
        self.world.dial(self, peers.Attempt((node.host, node.port)), 10)

    def leave(self):
        self.relay(self.name, b":q")
        self.world.kill(self)

    def dial_failed(self, call, reason):
        pass

    def resumed(self):
        pass


class World(Oracle):
    """The clock, the cables, the connections, and who is there."""

    def __init__(self, seed=0, delay=(0.010, 0.100), pieces=0.0, lazy=False, trace=None, network=SimNetwork):
        Oracle.__init__(self)
        self.seed, self.rng = seed, random.Random(seed)
        self.network, self.delay, self.pieces, self.lazy, self.trace_to = network, delay, pieces, lazy, trace
        self.now = 0.0
        self._events, self._count = [], 0
        self.nodes = {}  # ident -> Node, all that ever were
        self.listening = {}  # (host, port) -> Node
        self.hosts = {}  # host -> whether its kernel answers
        self.conns = {}
        self.groups = {}  # host -> side of the partition
        self.dark = {}  # hosts without a cable
        self.one_way = set()  # (from, to): hosts between which nothing passes in this direction; to None: to any
        self.loss = 0.0  # the share of segments that TCP has to send again
        self.trouble = False  # whether any cable is out, anywhere
        self.counts = Counter()
        self.dials = 0
        self.digest = 0
        self.taps = None  # (from, to) -> list of what was sent, if recorded
        self.packets = []  # (when, bytes) of what was sent to all on the one segment

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

    def new_ident(self, node, ident=None):
        ident = ident or len(self.nodes) + 1
        self.nodes[ident] = node
        self.names.add(node.name)
        self.listening[node.host, node.port] = node
        self.hosts[node.host] = True
        return ident

    def _place(self, host, port, ident=None):
        count = ident or len(self.nodes) + 1
        return host or f"10.{count >> 16 & 255}.{count >> 8 & 255}.{count & 255}", port or 4000 + count % 60000

    def member(self, name=None, host=None, port=None, skew=0.0, ident=None):
        """A new one. `ident`: its number, where it must not depend on how many came before."""
        name = name if name is not None else f"m{ident or len(self.nodes) + 1}"
        return Member(self, name.encode(), *self._place(host, port, ident), skew, ident)

    def c_peer(self, name=None, host=None, port=None, ident=None):
        """A new C program."""
        return CPeer(self, (name or f"c{ident or len(self.nodes) + 1}").encode(), *self._place(host, port, ident), ident)

    @property
    def members(self):
        """The members that live."""
        return [node for node in self.nodes.values() if isinstance(node, Member) and not node.dead]

    def chance(self, *key):
        """A Random of its own for this key: what is drawn from it depends on nothing else that happens."""
        return random.Random(f"{self.seed} {key}")

    # What happens to a process

    def kill(self, node, sign=True):
        """SIGKILL: the kernel closes its sockets. Without a sign: the power went."""
        if self.trace:
            self.trace(f"{node} dies" + " without a sign" * (not sign))
        node.dead = True
        for address in [address for address, listener in self.listening.items() if listener is node]:
            del self.listening[address]
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
        """SIGSTOP: its kernel goes on."""
        if self.trace:
            self.trace(f"{node} is stopped")
        node.stopped = True

    def resume(self, node):
        """SIGCONT."""
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

    # What happens to a cable

    def unplug(self, node):
        """Nothing reaches it, and nothing leaves it."""
        if self.trace:
            self.trace(f"{node} loses its cable")
        self.dark.update(dict.fromkeys(node.hosts, True))
        self._block()

    def plug(self, node):
        """It has its cable again."""
        if node.dead:
            return  # nobody is there to switch it on
        if self.trace:
            self.trace(f"{node} has its cable again")
        for host in node.hosts:
            self.dark.pop(host, None)
        self._heal()

    def partition(self, *groups):
        """Between these groups of nodes (and whoever is in none) nothing passes."""
        if self.trace:
            self.trace(f"partition {groups}")
        self.groups = {host: number for number, group in enumerate(groups, 1) for node in group for host in node.hosts}
        self._block()

    def heal(self):
        """The partition is over."""
        if self.trace:
            self.trace("the partition heals")
        self.groups = {}
        self._heal()

    def mute(self, one, other=None, on=True):
        """What `one` sends does not reach `other`, or anybody; the other way it does. A firewall may do that, or a bad cable."""
        if self.trace:
            self.trace(f"what {one} sends does not reach {other or 'anybody'}: {on}")
        (self.one_way.add if on else self.one_way.discard)((one.host, other and other.host))
        self._block() if on else self._heal()

    def move(self, node, host):
        """It gets another address: from another access point, perhaps. Its connections hear of nobody any more."""
        if self.trace:
            self.trace(f"{node} moves to {host}")
        for conn in self.conns:
            if node in (conn.a.node, conn.b.node):
                conn.silent = True
        self._block()
        self._forget_host(node)
        node.host = host
        node.hosts = [host]
        self.hosts[host] = True
        self.listening[host, node.port] = node

    def _forget_host(self, node):
        for host in node.hosts:
            self.hosts.pop(host, None)
            self.listening.pop((host, node.port), None)

    def also_at(self, node, host):
        """This machine has one more address, in another network. Whoever has none there cannot reach it there."""
        node.hosts.append(host)
        self.hosts[host] = True
        self.listening[host, node.port] = node

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
            if conn.blocked_at is None and (self._is_blocked(conn.a) or self._is_blocked(conn.b)):
                conn.blocked_at = self.now
                self.after(KEEPALIVE_SECONDS, self._keepalive, conn, self.now)
                self.after(GIVE_UP_SECONDS, self._keepalive, conn, self.now)

    def _heal(self):
        self.trouble = bool(self.groups or self.dark or self.one_way or any(conn.silent for conn in self.conns))
        for conn in list(self.conns):
            if conn.blocked_at is not None and not self._is_blocked(conn.a) and not self._is_blocked(conn.b):
                wait, conn.blocked_at = self._next_retry(conn.blocked_at), None
                for end in (conn.a, conn.b):
                    if end.held is not None:
                        self.after(wait + end.peer.delay, self._release, end)
                    if end.unheard:
                        self._acknowledge(end, end.unheard)
                        end.unheard = 0

    def _next_retry(self, since):
        """How long it takes until TCP, which sends again after pauses that double, does so the next time."""
        pause, at = FIRST_RETRY, since + FIRST_RETRY
        while at < self.now:
            pause = min(pause * 2, MOST_RETRY)
            at += pause
        return at - self.now

    def _is_blocked(self, end):
        """Whether nothing comes to this end."""
        return end.conn.silent or self._apart(end.peer.node.host, end.node.host)

    def _apart(self, one, other):
        """Whether nothing comes from one host to the other."""
        return one != other and (one in self.dark or other in self.dark or self.groups.get(one) != self.groups.get(other)
                                 or (one, other) in self.one_way or (one, None) in self.one_way)

    def multicast(self, host, packet):
        """A packet to all who listen, its sender too: it keeps no order, and where a cable is out it is lost."""
        if not packet:
            return
        self.packets.append((self.now, packet))
        for member in self.members:
            if member.network.discovery and not self._apart(host, member.host):
                self.after(self.rng.uniform(0.0005, 0.005), member.overhear, host, packet)

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
        node.dialled += 1
        rng = self.chance(node.ident, call.address, node.dialled)
        there, back = rng.uniform(low, high), rng.uniform(low, high)
        self.after(there, self._knock, node, call, self.now + seconds, 1.0, there, back)

    def _knock(self, node, call, give_up, pause, there, back):
        """Its SYN arrives, or does not and is sent again."""
        if node.dead:
            return
        host, port = call.address[:2]
        local = host.startswith("127.")
        target_host = node.host if local else host
        source = node.host if local else node.address_towards(host)
        if source is None:
            self.after(back, self._dial_failed, node, call, "cannot be reached from here")
            return
        target = self.listening.get((target_host, port))
        if not self._hears(source, target_host, target):
            if self.now + pause + there < give_up:
                self.after(pause, self._knock, node, call, give_up, pause * 2, there, back)
            else:
                self.at(max(give_up, self.now), self._dial_failed, node, call, "does not answer")
            return
        if target is None:
            self.after(back, self._dial_failed, node, call, "refused the connection")
            return
        if call.plain and isinstance(target, Member) and isinstance(node, Member):
            self.tainted = True
        conn = Conn()
        conn.a = End(conn, node, host, there)
        conn.b = End(conn, target, "127.0.0.1" if local else source, back)
        conn.a.peer, conn.b.peer, conn.a.attempt = conn.b, conn.a, call
        self.conns[conn] = None
        self._arrive(conn.b, OPEN)
        conn.b.last = self.now + back
        self.at(conn.b.last, self._arrive, conn.a, OPEN)
        self.at(max(give_up, conn.b.last), self._dial_over, conn.a)

    def _hears(self, source, host, target):
        """Whether a machine there answers a SYN from this source: perhaps to say that nobody listens."""
        if host not in self.hosts or self._apart(source, host) or self._apart(host, source):
            return False
        return target is None or not target.dial_only or source in target.hosts

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
            end.node._drop(end, f"read nothing for {STALL_SECONDS} seconds")
            end.node._after()
        else:
            end.stuck = None

    def send(self, end, data):
        """Put bytes on the wire."""
        end.flight += len(data)
        if self.taps is not None:
            self.taps.setdefault((end.node, end.peer.node), []).append(data)
        arrival = self.now + end.delay
        if self.loss and self.rng.random() < self.loss:
            arrival += FIRST_RETRY * 2 ** int(self.rng.expovariate(1))  # lost, and sent again: a heavy tail
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
            return
        if end.held is not None or self.trouble and self._is_blocked(end):
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
        if end.held is None or self._is_blocked(end):
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
            if not (isinstance(node, CPeer) and end.deaf):  # else it does not read any more
                self._acknowledge(end.peer, len(item))
        elif isinstance(node, CPeer):
            end.over = True
        node.take(end, item)

    def _acknowledge(self, sender, size):
        if self.trouble and self._is_blocked(sender):
            sender.unheard += size  # what says so does not come back
            return
        sender.flight -= size
        if sender.stuck is not None and not sender.over:
            self.after(sender.peer.delay, self._acknowledged, sender)

    def _acknowledged(self, end):
        if end.over or end.node.dead or end.node.stopped or not isinstance(end.node, Member):
            return
        self.flush(end)
        end.node._after()


class Liar(Node):
    """Speaks the mesh protocol by hand, and lies. Dials a member, greets, and keeps what it gets."""

    def __init__(self, world, origin=0x11A4, port=None, probe=True, ident=None):
        super().__init__(world, b"liar", *world._place(None, port, ident), ident)
        self.origin, self.probe = origin, probe
        self.end, self.got, self.over = None, b"", False
        self.ends = []

    def join(self, member, **hello):
        self.hello = Hello(self.origin, hello.pop("port", self.port), True, hello.pop("name", b"liar"), **hello)
        self.world.dial(self, peers.Attempt((member.host, member.port)), 10)
        return self

    def take(self, end, item):
        if item is OPEN:
            self._opened(end)
        elif item is END:
            self.over = True
        else:
            self.got += item

    def _opened(self, end):
        if end.attempt is None:
            self.ends.append(end)
            return
        self.end = end
        if self.probe:
            short = self.hello._replace(addresses=(), vector={}, name=b"")
            self.send(message.encode_pairs(b"liar", [message.PROBE + encode_hello(short)]).data)
            self.send(encode_frame(encode_hello(self.hello)))

    def send(self, data):
        self.world.send(self.end, data)

    def record(self, kind, sequence, text=b"", origin=None, name=b"liar"):
        self.send(encode_record(kind, self.origin if origin is None else origin, sequence, EPOCH, name, text))

    def dial_failed(self, call, reason):
        self.over = True

    def resumed(self):
        pass
