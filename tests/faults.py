"""Random runs of a small network: what happens in one, what must hold after it, and the least of it that fails.

Knows: the limits of the program that a run changes, the kinds of faults, and how long healing may take.
Leaves out: how a fault works (world.py, nodes.py), and what each screen must show (oracle.py).

A seed draws a Plan: limits, and an explicit list of events, each with its time and its victim. So a run can be
repeated without some of them, and what fails is cut down to the few that matter (delta debugging: Zeller and
Hildebrandt 2002). Each plan uses only some kinds of faults (swarm testing: Groce et al. 2012). Some faults
never heal: whoever is outside of them, the core, must be whole all the same (the liveness mode of
TigerBeetle's VOPR), so that nothing is hidden by a world that is always mended in the end.
"""

import contextlib
import random
import re
from typing import NamedTuple

import message
import peers
from message import Kind
from nodes import Liar, Member, SimNetwork
from oracle import Violation
from peers import LinkKind
from world import World

SUITE_SEEDS = 1000  # the seeds below are of small networks: what a run costs is the square of its members
SMALL, LARGE = 10, 24
QUIET_AT = 45  # seconds: when the last fault has begun
WHOLE_SECONDS = 150  # until one network again after the last fault: what a split needs that only a friend can mend
AGREE_SECONDS = 76  # until all have shown everything, and list the same; whoever slept learns from its own pings that its links are dead

# Limits that a plan may change, and the values that it draws from. The first is the program's.
LIMITS = {
    "LOG_MESSAGES": (None, None, 400, 60),
    "WANT_LINKS, MAX_MESH_LINKS": (None, None, (4, 6), (3, 5)),
    "MAX_BOOK": (None, None, 16, 6),
    "MAX_FRIENDS": (None, None, 2),
    "PING_SECONDS": (None, None, 4),
    "SHUFFLE_SECONDS": (None, None, (3, 9)),
    "UNPROVEN_DIALS": (None, None, 4),
    "CALLS": (None, None, 1),
    "MAX_SEEN_MARKS": (None, None, 200),
    "CONVERTED": (None, None, 16),
    "CHUNK_SIZE": (None, None, 200),
    "MAX_HOLES, MAX_HOLES_EACH": (None, None, (40, 8)),
}


class Plan(NamedTuple):
    """One run. Printed, it is what replay() takes."""
    seed: int  # of delays, and of what the members draw
    limits: dict
    world: dict  # delay, pieces, loss
    events: list  # (seconds, kind, arguments ...)


@contextlib.contextmanager
def limited(limits):
    """The program has these limits meanwhile."""
    before = []
    for names, values in limits.items():
        pairs = zip(names.split(", "), values if "," in names else (values,))
        for name, value in pairs:
            for module in (message, peers):
                if hasattr(module, name):
                    before.append((module, name, getattr(module, name)))
                    setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in reversed(before):
            setattr(module, name, value)


# What a seed draws -----------------------------------------------------------------------------------

class Draft:
    """Draws a Plan from a seed."""

    def __init__(self, seed):
        self.rng = rng = random.Random(seed)
        self.events = []
        self.count = self._size(SMALL if seed < SUITE_SEEDS else LARGE)
        self.members = list(range(1, self.count + 1))
        self.next_number = self.count + 1
        self.c_peers = []
        limits = {name: rng.choice(values) for name, values in LIMITS.items() if rng.random() < 0.25}
        self.limits = {name: value for name, value in limits.items() if value is not None}
        self.world = {"delay": rng.choice([(0.0005, 0.002), (0.01, 0.1), (0.01, 0.1), (0.05, 0.24)]),
                      "pieces": rng.choice([0, 0, 0.1, 0.4]), "loss": rng.choice([0, 0, 0, 0.02])}
        self._join()
        self._talk(0, 40)
        self._faults(KINDS, rng.randint(1, 5))
        self._faults(C_KINDS, rng.choice([0, 0, 1, 2]))
        self._faults(["lie", "lie_while_away"], rng.choice([0, 0, 0, 1]))
        self._faults(["forge_marks"], rng.choice([0, 0, 0, 1]))
        if seed >= SUITE_SEEDS:  # the suite's seeds were chosen without them
            self._faults(["c_slow", "subnets"], rng.choice([0, 0, 0, 0, 1]))
        self.world["link_local"] = not self.c_peers and rng.random() < 0.2
        self.events.sort(key=lambda event: event[0])
        self.plan = Plan(seed, self.limits, self.world, self.events)

    def _size(self, most):
        return self.rng.choice([self.rng.randint(3, 6), self.rng.randint(3, 8), self.rng.randint(7, most)])

    def _faults(self, kinds, count):
        """So many faults, of some of these kinds."""
        some = [kind for kind in kinds if self.rng.random() < 0.4] or kinds
        for _ in range(count):
            getattr(self, self.rng.choice(some))(self.rng.uniform(2, 30))

    def add(self, when, kind, *args):
        self.events.append((round(when, 2), kind, *args))

    def _join(self):
        shape = self.rng.choice(["chain", "star", "at once", "random"])
        when = 0.1
        self.add(0, "join", 1, 0)
        for number in self.members[1:]:
            through = {"chain": number - 1, "random": self.rng.randint(1, number - 1)}.get(shape, 1)
            self.add(when, "join", number, through)
            when += 0 if shape == "at once" else self.rng.uniform(0, 1)

    def _talk(self, start, stop, most=4):
        for number in self.members:
            for _ in range(self.rng.randint(1, most)):
                self.add(self.rng.uniform(start, stop), "say", number)

    def one(self):
        return self.rng.choice(self.members)

    def some(self, least=1):
        return tuple(sorted(self.rng.sample(self.members, self.rng.randint(least, max(least, len(self.members) - 1)))))

    def half(self):
        return tuple(sorted(self.rng.sample(self.members, len(self.members) // 2)))

    def new(self):
        self.next_number += 1
        return self.next_number - 1

    def seconds(self, *choices):
        return self.rng.choice(choices)

    # The kinds of faults: each adds its events

    def kill(self, when):
        self.add(when, "kill", self.one())

    def kill_first(self, when):
        self.add(when, "kill", 1)

    def kill_half(self, when):
        for number in self.half():
            self.add(when, "kill", number)

    def power(self, when):
        self.add(when, "power", self.one())

    def power_half(self, when):
        for number in self.half():
            self.add(when, "power", number)

    def leave(self, when):
        self.add(when, "leave", self.one())

    def restart(self, when):
        number, again = self.one(), self.new()
        self.add(when, "kill", number)
        self.add(when + self.rng.uniform(0.5, 5), "again", again, number, self.one())
        self.members.append(again)

    def late(self, when):
        number = self.new()
        self.add(when, "join", number, self.one())
        self.add(when + self.rng.uniform(1, 5), "say", number)
        self.members.append(number)

    def partition(self, when):
        seconds = self.seconds(2, 20, 50, 90)
        self.add(when, "partition", self.some(), seconds)
        self._talk(when, when + seconds, 3)

    def away(self, when):
        """Somebody is away for longer than the log lasts."""
        self.limits["LOG_MESSAGES"] = 30
        self.add(when, "partition", (self.one(),), 50)
        for number in self.members * (80 // len(self.members)):
            self.add(when + self.rng.uniform(1, 30), "say", number)

    def mute(self, when):
        self.add(when, "mute", self.one(), self.one(), self.seconds(5, 45, 100))

    def mute_out(self, when):
        self.add(when, "mute_all", self.one(), self.seconds(5, 45, 100))

    def stop(self, when):
        self.add(when, "stop", self.one(), self.seconds(1, 10, 35, 60, 120))

    def unplug(self, when):
        seconds = self.seconds(3, 30, 60, 150)
        self.add(when, "unplug", self.one(), seconds)
        self._talk(when, when + seconds, 2)

    def sleep(self, when):
        self.add(when, "sleep", self.one(), self.seconds(60, 600))

    def silence(self, when):
        self.add(when, "silence", self.one(), self.rng.randrange(8), self.seconds(5, 45, 100))

    def cut(self, when):
        for _ in range(3):
            self.add(when, "cut", self.one(), self.rng.randrange(8))

    def cross(self, when):
        one, other = self.one(), self.one()
        self.add(when, "dial", one, other)
        self.add(when, "dial", other, one)

    def burst(self, when):
        number = self.one()
        for _ in range(self.rng.randint(10, 40)):
            self.add(when, "say", number, self.rng.choice([0, 0, 0, 3000]))

    def move(self, when):
        self.add(when, "move", self.one())

    def clock(self, when):
        self.add(when, "clock", self.one(), self.seconds(-400_000_000, -3600, -15, 15, 3600, 400_000_000))

    def dial_only(self, when):
        for number in self.rng.sample(self.members, len(self.members) // 3):
            self.add(0, "dial_only", number)

    def forever(self, when):
        outside = self.rng.sample(self.members, self.rng.randint(1, max(1, len(self.members) // 3)))
        how = self.rng.choice(["stop", "unplug", "mute_all", "partition"])
        if how == "partition":
            self.add(when, how, tuple(sorted(outside)), None)
        else:
            for number in outside:
                self.add(when, how, number, None)

    def c_peer(self, when):
        peer = self.new()
        self.c_peers.append(peer)
        self.add(when, *self.rng.choice([("c_dials", peer, self.one()), ("c_named", peer, self.one())]))
        for _ in range(self.rng.randint(1, 6)):
            self.add(self.rng.uniform(when, QUIET_AT), "say", peer)

    def c_circle(self, when):
        left, right = self.new(), self.new()
        self.c_peers += [left, right]
        self.add(when, "c_dials", left, self.one())
        self.add(when, "c_named", right, self.one())
        self.add(when + 3, "c_link", left, right)
        for peer in (left, right):
            for _ in range(self.rng.randint(1, 4)):
                self.add(self.rng.uniform(when + 5, QUIET_AT), "say", peer)

    def c_between(self, when):
        """Two members have one C program in common, and then nothing else."""
        self.c_peer(when)
        peer, other = self.c_peers[-1], self.one()
        self.add(when + 1, "c_also", peer, other)
        self.add(when + self.rng.uniform(2, 8), "divide", (other,), self.seconds(20, 60))
        self._talk(when + 8, when + 30, 3)

    def c_faults(self, when):
        self.c_peer(when)
        peer = self.c_peers[-1]
        self.add(self.rng.uniform(when, 35), *self.rng.choice([
            ("stop", peer, self.seconds(3, 20, 70)), ("kill", peer), ("leave", peer), ("garble", peer), ("c_cut", peer), ("c_cut", peer)]))

    def c_slow(self, when):
        """A C program accepts a member's connection, and is slow to read what comes over it."""
        peer = self.new()
        self.c_peers.append(peer)
        self.add(when, "c_named", peer, self.one())
        self.add(when, "stop", peer, self.seconds(0.5, 3, 20))
        self.add(self.rng.uniform(when + 3, QUIET_AT), "say", peer)

    def subnets(self, when):
        """Some members are in a network of their own, and only one machine, which nothing happens to, is in both."""
        behind = tuple(sorted(self.rng.sample(self.members[1:], len(self.members) // 3)))
        if not any(event[1] == "subnets" for event in self.events):
            self.add(0, "subnets", self.new(), behind)

    def lie(self, when):
        liar = self.new()
        self.add(when, "liar", liar, self.one())
        for _ in range(self.rng.randint(1, 4)):
            how = self.rng.choice(LIES)
            self.add(when + self.rng.uniform(0.6, 6), "lie", liar, how, self.one())

    def lie_while_away(self, when):
        """What was forged comes first, and then what its author had said, below it."""
        liar, victim = self.new(), self.one()
        self.add(when, "liar", liar, self.one())
        self.add(when, "divide", (victim,), 20)
        self.add(when + 1, "lie", liar, "jump", victim)
        for _ in range(3):
            self.add(when + self.rng.uniform(8, 18), "say", victim)

    def forge_marks(self, when):
        """A stranger that speaks as a C program does, to a member or through a C program, forges what gateways say."""
        liar = self.new()
        self.add(when, "plain_liar", liar, self.rng.choice(self.members + self.c_peers))
        for _ in range(self.rng.randint(1, 6)):
            self.add(when + self.rng.uniform(1, 12), "mark", liar, self.rng.choice(MARKS), self.one(), self.one())


KINDS = ("kill", "kill_first", "kill_half", "power", "power_half", "leave", "restart", "late", "partition", "mute", "mute_out", "stop",
         "unplug", "away", "sleep", "silence", "cut", "cross", "burst", "move", "clock", "dial_only", "forever")
C_KINDS = ("c_peer", "c_circle", "c_between", "c_faults")
CABLES = ("partition", "divide", "mute", "mute_all", "unplug", "silence", "stop", "sleep", "move")  # what a line may come late by
MARKS = ("gateway", "words", "later", "guest", "address", "garbled")
LIES = ("forge", "jump", "far jump", "lost", "name", "origin", "flood", "nonsense")


# One run ---------------------------------------------------------------------------------------------

class Run:
    """A Plan, carried out: each kind of event is a method here."""

    def __init__(self, plan, trace=None, network=SimNetwork):
        self.plan = plan
        options = dict(plan.world)
        loss = options.pop("loss", 0)
        self.world = World(plan.seed, trace=trace, network=network, **options)
        self.world.loss = loss
        self.rng = random.Random(plan.seed)
        self.busy_until = 0.0  # when the last fault ends
        self.contacts = {}  # member -> its first Contact
        self.gateways = []  # (C peer, member)
        self.router, self.behind = None, ()  # the machine in both networks, and who is in the second one only
        self.outside = set()  # members that a fault keeps apart for ever
        self.took = None
        self.took_to_agree = None

    def run(self):
        """Raises Violation."""
        world, limits = self.world, self.plan.limits
        # A log that is too small for what was said while somebody was away leaves a gap, of which its user is told.
        world.gaps = any(name in limits for name in ("LOG_MESSAGES", "MAX_HOLES, MAX_HOLES_EACH"))
        self.cables_fail = any(event[1] in CABLES for event in self.plan.events)
        with limited(limits):
            for when, kind, *args in self.plan.events:
                world.at(when, getattr(self, kind), *args)
            world.run_to(QUIET_AT)
            while world.now < self.busy_until:
                world.run_to(self.busy_until)
            self._settle()
            self._check()
        return self

    def node(self, number):
        """That node, if it is there and can do anything."""
        node = self.world.nodes.get(number)
        return None if node is None or node.dead or node.stopped else node

    def alive(self, number):
        """That node, if it lives; it may be stopped."""
        node = self.world.nodes.get(number)
        return None if node is None or node.dead else node

    def _lasts(self, seconds, what, *args):
        self.busy_until = max(self.busy_until, self.world.now + seconds)
        if what is not None:
            self.world.after(seconds, what, *args)

    # Users

    def join(self, number, through):
        """A member is started, and dials another one."""
        self._start(number, f"m{number}", through)

    def again(self, number, before, through):
        """A member that died is started again, under its name."""
        self._start(number, f"m{before}", through)

    def _start(self, number, name, through):
        world = self.world
        host = f"192.168.1.{number}" if number in self.behind else None
        member = world.member(name, host, ident=number, skew=world.chance("skew", number).uniform(-1, 1))
        others = [other for other in world.members if other is not member]
        if not others:
            return
        target = self.alive(through)
        if not isinstance(target, Member) or target.dial_only:
            target = min(others, key=lambda other: (other.dial_only, other.ident))
        self.contacts[member] = member.join(self._reachable(member, target))

    def subnets(self, number, behind):
        """These are in a network of their own, and one more machine is in both."""
        self.behind = behind
        self.join(number, 1)
        self.router = self.world.nodes[number]
        self.world.also_at(self.router, f"192.168.1.{number}")

    def _reachable(self, member, target):
        return target if member.address_towards(target.as_seen_by(member)[0]) else self.router

    def say(self, number, padding=0):
        """A user types a line."""
        node = self.node(number)
        if node is not None and (not node.is_c or node.ends):
            node.say(*([padding] if padding else []))

    def dial(self, number, other):
        """A user names another member, too."""
        member, target = self.node(number), self.alive(other)
        if isinstance(member, Member) and isinstance(target, Member) and member is not target:
            member.join(self._reachable(member, target))

    def leave(self, number):
        """A user leaves; the last member of all stays."""
        node = self.node(number)
        if node is not None and (node.is_c or len(self.world.members) > 1):
            node.leave()

    # Processes

    def kill(self, number, sign=True):
        """A process dies; the last member of all stays."""
        node = self.alive(number)
        if node is not None and (node.is_c or len(self.world.members) > 1):
            self.world.kill(node, sign)
            self._lasts(0 if sign else 45, None)

    def power(self, number):
        """It dies without a sign."""
        self.kill(number, sign=False)

    def stop(self, number, seconds):
        """It is stopped, for so long; None: for ever."""
        node = self.node(number)
        if node is None or not self._may_stay_outside(node, seconds):
            return
        self.world.stop(node)
        if seconds is not None:
            self._lasts(seconds, self.world.resume, node)

    def sleep(self, number, seconds):
        """A laptop's lid is closed."""
        node = self.node(number)
        if node is not None:
            self.world.unplug(node)
            self._lasts(seconds, self._plug, node)
            self.stop(number, seconds)

    def clock(self, number, seconds):
        """Somebody sets its clock."""
        node = self.node(number)
        if isinstance(node, Member):
            node.skew += seconds

    # Cables

    def partition(self, numbers, seconds):
        """Between these and the others nothing passes; None: for ever."""
        nodes = [node for node in map(self.alive, numbers) if node is not None]
        if self.world.groups or not nodes or not self._may_stay_outside(nodes[0], seconds, nodes):
            return
        self.world.partition(nodes)
        if seconds is not None:
            self._lasts(seconds, self.world.heal)

    def unplug(self, number, seconds):
        """Its cable is out."""
        node = self.alive(number)
        if node is None or not self._may_stay_outside(node, seconds):
            return
        self.world.unplug(node)
        if seconds is not None:
            self._lasts(seconds, self._plug, node)

    def _plug(self, node):
        if node not in self.outside:
            self.world.plug(node)

    def mute(self, number, other, seconds):
        """What it sends does not reach one other."""
        node, other = self.alive(number), self.alive(other)
        if node is not None and other is not None and node is not other:
            self.world.mute(node, other)
            self._lasts(seconds, self._unmute, node, other)

    def _unmute(self, node, other):
        if not self.outside & {node, other}:
            self.world.mute(node, other, False)

    def mute_all(self, number, seconds):
        """What it sends reaches nobody; it hears all."""
        node = self.alive(number)
        if node is None or not self._may_stay_outside(node, seconds):
            return
        self.world.mute(node)
        if seconds is not None:
            self._lasts(seconds, self._unmute, node, None)

    def divide(self, numbers, seconds):
        """Between these members and the others nothing passes; C programs are reached from both sides."""
        here = {node for node in map(self.alive, numbers) if isinstance(node, Member)}
        pairs = [(one, other) for one in here for other in self.world.members if other not in here]
        for one, other in pairs + [pair[::-1] for pair in pairs]:
            self.world.mute(one, other)
            self._lasts(seconds, self._unmute, one, other)

    def silence(self, number, which, seconds):
        """One of its links carries nothing."""
        pair = self._link(number, which)
        if pair:
            self.world.silence(*pair)
            self._lasts(seconds, self.world.silence, *pair, False)

    def cut(self, number, which):
        """One of its links breaks."""
        pair = self._link(number, which)
        if pair:
            self.world.cut(*pair)

    def _link(self, number, which):
        member = self.alive(number)
        others = member.mesh() if isinstance(member, Member) else []
        return (member, others[which % len(others)]) if others else None

    def move(self, number):
        """It gets another address."""
        member = self.alive(number)
        is_free = isinstance(member, Member) and member not in self.outside and member.host not in self.world.groups
        if is_free and len(member.hosts) == 1 and number not in self.behind:
            self.world.move(member, f"10.77.{number}.{len(self.world.hosts) % 250}")
            self._lasts(45, None)

    def dial_only(self, number):
        """Nobody can dial it, as behind a home's router."""
        self.world.at(self.world.now, self._dial_only, number, 100)

    def _dial_only(self, number, times):
        member = self.alive(number)
        if member is None and times:
            self.world.after(0.25, self._dial_only, number, times - 1)
        elif isinstance(member, Member) and number > 1:
            member.dial_only = True

    def _may_stay_outside(self, node, seconds, nodes=()):
        """Whether this fault may begin: one that never ends leaves at least two members who can be dialled."""
        if seconds is not None:
            return node not in self.outside
        victims = set(nodes or (node,))
        core = [member for member in self.world.members if member not in self.outside | victims]
        if len(core) < 2 or all(member.dial_only for member in core):
            return False
        self.outside |= victims
        return True

    # C programs

    def c_dials(self, number, gateway):
        """A C program joins through a member."""
        self._c_joins(number, gateway, lambda peer, member: peer.join(member))

    def c_named(self, number, gateway):
        """A member dials a C program."""
        self._c_joins(number, gateway, lambda peer, member: member.join(peer))

    def _c_joins(self, number, gateway, how):
        member = self.node(gateway)
        if isinstance(member, Member) and not member.dial_only:
            peer = self.world.c_peer(ident=number)
            self.gateways.append((peer, member))
            how(peer, member)

    def c_link(self, left, right):
        """Two C programs are linked to each other: a circle, through ours."""
        left, right = self.node(left), self.node(right)
        if left is not None and right is not None:
            self.world.two_ways |= self.cables_fail
            self.world.tainted = True
            for peer in (left, right):
                peer.lost, peer.most_times = True, 6  # until the circle is found, a line may come by both ways
            self.world.dial(left, peers.Attempt((right.host, right.port)), 5)

    def c_also(self, number, gateway):
        """One more member dials this C program."""
        member, peer = self.node(gateway), self.node(number)
        if isinstance(member, Member) and peer is not None and (peer, member) not in self.gateways:
            self.world.two_ways |= self.cables_fail
            self.world.tainted = True  # what a C program carries is ahead of what the mesh brings
            member.join(peer)

    def c_cut(self, number):
        """A C program's links break off."""
        peer = self.alive(number)
        for end in list(peer.ends) if peer is not None else ():
            peer.lost = True
            self.world.cut(peer, end.peer.node)

    def garble(self, number):
        """Two threads of a C program write at once: two names, then two texts."""
        peer = self.node(number)
        if peer is None or not peer.ends:
            return
        self.world.strict, peer.lost = False, True
        first, second = peer.next_text(), peer.next_text()
        for end in peer.ends:
            self.world.send(end, b"".join(map(message.encode_frame, (peer.name, peer.name, first, second))))

    # Liars

    def liar(self, number, target):
        """A stranger speaks our protocol to a member."""
        member = self.node(target)
        if isinstance(member, Member) and not member.dial_only:
            self.world.strict = False
            Liar(self.world, origin=self.world.chance("liar", number).getrandbits(64), ident=number).join(member)

    def plain_liar(self, number, target):
        """A stranger speaks to a member, or to a C program, as C programs do."""
        node = self.node(target)
        if node is not None and not node.dial_only:
            self.world.strict = False
            Liar(self.world, origin=1, probe=False, ident=number).join(node)

    def mark(self, number, how, victim, gateway):
        """It says something with a mark about these members."""
        liar, victim, gateway = self.world.nodes.get(number), self.alive(victim), self.alive(gateway)
        if liar is None or liar.end is None or liar.over or not isinstance(victim, Member) or not isinstance(gateway, Member):
            return
        liar.number += 1
        origin, gateway, last = victim.network.author.origin, gateway.network.author.origin, victim.network.author.sequence
        text = b"forged %d" % liar.number
        if how == "gateway":
            liar.mark(liar.number + 10 ** 6, liar.number, gateway, text)
        elif how in ("words", "later"):
            liar.mark(origin, last + (0 if how == "words" else self.rng.choice([1, 5, 10 ** 9])), gateway, text, victim.name)
        elif how == "guest":
            liar.mark(gateway, last, gateway, text, b"carl", is_guest=True)
        elif how == "address":
            liar.mark(3, 1, liar.number + 10 ** 6, text, place=(victim.host, 5000 + liar.number))
        else:
            liar.send(message.encode_pair(b"liar\xff" + b"\x80" * 52, text).data)

    def lie(self, number, how, victim):
        """It lies about this member."""
        liar, victim = self.world.nodes.get(number), self.alive(victim)
        if not isinstance(victim, Member) or liar is None or liar.end is None or liar.over:
            return
        author, reader = victim.network.author, liar.end.peer.node
        last = reader.network.log.have.get(author.origin, 0) if isinstance(reader, Member) else 0
        liar.number += 1
        if how in ("forge", "jump", "far jump"):
            self.world.forged.add(victim.ident)
            skipped = {"forge": 1, "jump": 7, "far jump": 10 ** 9}[how]
            self.world.forgeries.add((author.origin, last + skipped))
            liar.record(Kind.SAY, last + skipped, b"forged", origin=author.origin, name=victim.name)
        elif how == "lost":
            liar.record(Kind.LOST, liar.number, message.encode_lost(author.origin, last), name=b"liar")
        elif how == "name":
            liar.record(Kind.HERE, liar.number, name=victim.name)
        elif how == "origin":
            self.world.forged.add(victim.ident)
            Liar(self.world, origin=author.origin, ident=number * 1000 + liar.number).join(reader)
        elif how == "flood":
            for origin in range(300):
                liar.record(Kind.HERE, 1, origin=10 ** 6 + origin, name=b"n%d" % origin)
        else:
            liar.record(Kind.LOST, 1, b"short", origin=77)

    # The end

    @property
    def core(self):
        """The living members that nothing keeps apart any more."""
        return [member for member in self.world.members if member not in self.outside]

    def _settle(self):
        world = self.world
        start = world.now
        for member, contact in self.contacts.items():
            if not member.dead and not contact.reached and member not in self.outside:
                self._try_again(member)
        asked = 0
        while not world.is_one(self.core):
            world.run(0.5)
            if world.now - start > WHOLE_SECONDS * (asked + 1):
                if asked == 3 or not self._stranded() and not self._is_taken_for_c():
                    raise Violation(f"not one network {world.now - start:.0f} s after the last fault: {world.components(self.core)}")
                asked += 1
                self._help()  # nobody knows an address of the other part: its user has to do something
        self.took = world.now - start
        for member in self.core:
            member.say()
        start = world.now
        while self._disagreement() or self._is_something_due():
            world.run(0.5)
            if world.now - start > AGREE_SECONDS:
                break
        self.took_to_agree = world.now - start

    def _try_again(self, member):
        """Its first dial failed: p2pchat would have ended, and been started again."""
        others = [other for other in self.core if other is not member and not other.dial_only and self.contacts.get(other) is not self.contacts[member]]
        if others and not member.mesh():
            member.join(self._reachable(member, self.rng.choice(others)))

    def _is_taken_for_c(self):
        """Whether somebody whom nobody can dial was met by silence, and speaks as to a C program: until a line is said."""
        return any(neighbour.kind is LinkKind.PLAIN and member.ends[neighbour].peer.node in self.core
                   for member in self.core if member.dial_only for neighbour in member.network.neighbours)

    def _help(self):
        parts = self.world.components(self.core)
        if self._is_taken_for_c():
            for member in self.core:
                member.say()
            return
        if all(member.dial_only for member in self.core):
            parts[0][0].dial_only = False  # nobody could ever dial anybody: one of them opens a port
        for part in parts:
            target = next((member for member in self.core if member not in part and not member.dial_only), None)
            if target is not None:
                part[0].join(self._reachable(part[0], target))

    def _stranded(self):
        """Whether no member knows the address of a living one in another part."""
        for part in self.world.components(self.core):
            others = [other for other in self.core if other not in part and not other.dial_only]
            for member in part:
                there = {other.as_seen_by(member) for other in others}
                network = member.network
                known = {**network.overlay.book.heard, **network.overlay.book.friends}
                known.update({contact.addresses[0][:2]: 0 for contact in network.contacts if contact.reached})
                if there & known.keys():
                    return False
        return True

    def _is_something_due(self):
        """Whether somebody is about to say who is here, or is not: only then can it still change who lists whom."""
        return any(member.network.presence.deadline is not None for member in self.core)

    def _disagreement(self):
        try:
            self._check_words()
            self._check_c_peers()
        except Violation as violation:
            return str(violation)
        return self.world.wrongly_listed(self.core)

    def _check_words(self):
        self.world.check_complete(self.core)
        if not self.world.gaps:
            self.world.check_agreement([node for node in self.world.nodes.values() if isinstance(node, Member) and node not in self.core
                                        and node.ident not in self.world.forged], self.core)

    def _check(self):
        world = self.world
        if not world.is_one(self.core):
            raise Violation(f"fell apart again: {world.components(self.core)}")
        self._check_words()
        world.check_bounds()
        world.check_double_links()
        self._check_c_peers()
        world.check_who(self.core)

    def _check_c_peers(self):
        for peer, gateway in self.gateways:
            for text, times in peer.shown_times.items():
                if times > 1 and peer.gateways <= 1 and self.world.strict and not peer.lost and not self.world.two_ways:
                    raise Violation(f"{peer} (C) shows {text!r} {times} times")
            linked = any(end.peer.node is gateway and not end.over and not end.peer.over and not end.conn.silent for end in peer.ends)
            if gateway in self.core and linked and peer.causal and not peer.stopped and not self.world.gaps and self.world.strict:
                self._check_c_peer(peer)

    def _check_c_peer(self, peer):
        for member in self.core:
            if peer.last.get(member.ident, 0) != member.number:
                raise Violation(f"{peer} (C) has seen {peer.last.get(member.ident, 0)} of {member}'s {member.number}")


def chaos(seed, trace=None, network=SimNetwork):
    """The run of this seed. Raises Violation."""
    return Run(Draft(seed).plan, trace, network).run()


def replay(*plan):
    """A run that shrink() printed."""
    return Run(Plan(*plan)).run()


# The least of it that fails --------------------------------------------------------------------------

def failure(plan):
    """What is wrong with this plan: the exception, or None."""
    try:
        Run(plan).run()
    except Exception as error:  # whatever the program raises is a failure, too
        return error
    return None


def kind_of(error):
    """What sort of failure it is: its words without numbers and names."""
    return error and (type(error), re.sub(r"\d.*", "", re.sub(r"\bm?c?\d+(\.\d+)?", "*", str(error)))[:40])


def shrink(plan, progress=lambda plan: None):
    """The same plan with as few events and limits as still fail in this way (ddmin), and its failure."""
    found = failure(plan)
    if found is None:
        return plan, None

    def fails(plan):
        return kind_of(failure(plan)) == kind_of(found)
    for limits in ({}, *({name: value} for name, value in plan.limits.items())):
        smaller = plan._replace(limits=limits)
        if fails(smaller):
            plan = smaller
            break
    count = 2
    while len(plan.events) > 1:
        size = max(len(plan.events) // count, 1)
        parts = [plan._replace(events=plan.events[:at] + plan.events[at + size:]) for at in range(0, len(plan.events), size)]
        smaller = next((part for part in parts if fails(part)), None)
        if smaller is not None:
            plan, count = smaller, max(count - 1, 2)
            progress(plan)
        elif size == 1:
            break
        else:
            count = min(count * 2, len(plan.events))
    return plan, failure(plan)


def as_test(plan, error):
    """A test that repeats this plan, to be pasted into test_network.py."""
    events = "".join(f"        {event!r},\n" for event in plan.events)
    return (f"def test_seed_{plan.seed}():\n"
            f'    """{type(error).__name__}: {str(error)[:100]}"""\n'
            f"    faults.replay({plan.seed}, {plan.limits!r}, {plan.world!r}, [\n{events}    ])\n")
