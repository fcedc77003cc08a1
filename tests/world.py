"""A whole network of real Network objects in one process: a virtual clock, modelled TCP, machines and their faults.

Knows: time, cables, connections, processes and their machines.
Leaves out: what a member or a C program does (nodes.py), what must hold (oracle.py), and what happens in a random run (faults.py).

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

from nodes import END, OPEN, CPeer, Member, SimNetwork, scoped
from oracle import Oracle, Violation
from p2pchat import STALL_SECONDS

WINDOW = 64 * 1024  # bytes under way in one direction of a link
SEGMENT = 1448
KEEPALIVE_SECONDS, GIVE_UP_SECONDS = 60, 900  # of a silent link: nothing under way; something under way
FIRST_RETRY, MOST_RETRY = 0.3, 120  # seconds until TCP sends again what was not acknowledged; doubled each time


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


class World(Oracle):
    """The clock, the cables, the connections, and who is there."""

    def __init__(self, seed=0, delay=(0.010, 0.100), pieces=0.0, lazy=False, trace=None, network=SimNetwork, link_local=False):
        Oracle.__init__(self)
        self.seed, self.rng = seed, random.Random(seed)
        self.network, self.delay, self.pieces, self.lazy, self.trace_to = network, delay, pieces, lazy, trace
        self.link_local = link_local  # whether members reach each other by link-local addresses of IPv6
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
        place = self._place(host, port, ident)
        if not self.link_local:
            return Member(self, name.encode(), *place, skew, ident)
        member = Member(self, name.encode(), f"fe80::{place[1]:x}", place[1], skew, ident)
        self.also_at(member, place[0])  # for all who speak IPv4 only
        return member

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
        target_host = node.host if local else host.partition("%")[0]
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
        conn.b = End(conn, target, "127.0.0.1" if local else scoped(source, target), back)
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

    def send_last(self, end, record):
        """What Chat._send does for those that lack only this. Returns whether the far end has read enough to get more at once."""
        self.send(end, record)
        return end.flight < WINDOW

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
