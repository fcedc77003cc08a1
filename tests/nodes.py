"""Who takes part in a simulated network: a member with its real Network, a C program, and a liar.

Knows: what p2pchat.py and Link do around a Network; how a C program reads, relays and forgets; what a user does.
Leaves out: time, cables and connections (world.py), and what must hold (oracle.py).
"""

from collections import Counter

import message
import peers
from message import Hello, Kind, encode_frame, encode_hello, encode_record
from oracle import Violation, said_notices
from peers import Announce, Connect, Hangup, LinkKind, Network, Notice, Show, is_link_local

EPOCH = 1_700_000_000  # the wall clock at virtual second 0
SPINS = 50  # ticks at one moment that count as a busy loop
TICKS_A_SECOND = 400
OPEN, END = object(), object()  # what arrives at a node beside bytes


class SimNetwork(Network):
    """The core, counting the frames it takes, and noting whom it met."""
    counts = None

    def __init__(self, *args):
        self.met_at = {}  # origin -> when they were linked, each time
        Network.__init__(self, *args)

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
        self.met_at.setdefault(hello.origin, []).append(self.now)
        Network._met(self, neighbour, hello)


def scoped(host, node):
    """This address, as the node writes it."""
    return f"{host}%{node.interface}" if is_link_local(host) else host


class Node:
    """A process on a machine: what a member and a C peer have in common."""

    is_c = False
    causal = True  # whether what it says is ordered behind what it has read
    dial_only = False  # whether nobody can dial it

    def __init__(self, world, name, host, port, ident=None):
        self.world, self.name, self.host, self.port = world, name, host, port
        self.hosts = [host]  # all its addresses
        self.interface = f"eth{port % 3}"  # what it calls its network interface; others may call theirs otherwise
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
        bare, _, scope = host.partition("%")
        if is_link_local(bare):
            return next(filter(is_link_local, self.hosts), None) if scope == self.interface else None
        if host.startswith("10."):
            return next((own for own in self.hosts if own.startswith("10.")), None)
        return next((own for own in self.hosts if own.rpartition(".")[0] == host.rpartition(".")[0]), None)

    def as_seen_by(self, other):
        """(host, port) where another node dials this one: link-local by what that one calls its interface, if it has one."""
        host = next((host for host in self.hosts if other.address_towards(scoped(host, other))), self.host)
        return scoped(host, other), self.port

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
        self.records = {}  # number -> (origin, sequence, when) of what it said
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
        for neighbour in network.to_send()[0]:
            neighbour.is_level = self.world.send_last(self.ends[neighbour], network.log.last)
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
        deadline = self.network.next_deadline()
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
        deadline = self.network.next_deadline()
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
        address = other if isinstance(other, tuple) else other.as_seen_by(self)
        label = label or f"{address[0]} {address[1]}"
        self.asked[label] += 1
        return self.do(self.network.join, label, [address])

    def say(self, padding=0):
        text = self.next_text(padding)
        self.do(self.network.say, text)
        self.records[self.number] = self.network.author.origin, self.network.author.sequence, self.world.now
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
                self.world.send(end, message.encode_pair(name, text).data)

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
        self.world.dial(self, peers.Attempt(node.as_seen_by(self)), 10)

    def leave(self):
        self.relay(self.name, b":q")
        self.world.kill(self)

    def dial_failed(self, call, reason):
        pass

    def resumed(self):
        pass


class Liar(Node):
    """Speaks the mesh protocol by hand, and lies. Dials a member, greets, and keeps what it gets."""

    def __init__(self, world, origin=0x11A4, port=None, probe=True, ident=None):
        super().__init__(world, b"liar", *world._place(None, port, ident), ident)
        self.origin, self.probe = origin, probe
        self.end, self.got, self.over = None, b"", False
        self.ends = []

    def join(self, member, **hello):
        self.hello = Hello(self.origin, hello.pop("port", self.port), True, hello.pop("name", b"liar"), **hello)
        self.world.dial(self, peers.Attempt(member.as_seen_by(self)), 10)
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
            self.send(message.encode_pair(b"liar", message.PROBE + encode_hello(short)).data)
            self.send(encode_frame(encode_hello(self.hello)))

    def send(self, data):
        self.world.send(self.end, data)

    def record(self, kind, sequence, text=b"", origin=None, name=b"liar"):
        self.send(encode_record(kind, self.origin if origin is None else origin, sequence, EPOCH, name, text))

    def mark(self, origin, sequence, gateway, text, name=b"liar", is_guest=False, place=("", 0)):
        """Say this on a plain link, as if that gateway had put it there."""
        record = encode_record(Kind.GUEST if is_guest else Kind.SAY, origin, sequence, EPOCH, name, text)
        self.send(message.Marker(gateway, *place).encode(0, [record]).data)

    def dial_failed(self, call, reason):
        self.over = True

    def resumed(self):
        pass
