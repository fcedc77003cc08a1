"""Small worlds, exhaustively: every order in which what is under way may arrive, and one fault at every moment.

    python3 tests/schedules.py [DEPTH [MEMBERS]]    all faults at all moments, then all orders of DEPTH (5) steps, of 3 members

Knows: which steps are possible at a moment, and how to go through all of them.
Leaves out: the world (world.py), and what must hold in the end (oracle.py).

Random runs hit what is likely. Here nothing is left to chance: three members join, one of them with a C program,
and all speak at once; the next step is whatever may come next: a delivery of any link (each link is first-in
first-out), a timer, or, once, a fault. Each schedule is run from its start (stateless model checking: Godefroid 1997).
"""

import heapq
import sys

if __name__ == "__main__":
    import os
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from oracle import Violation
from world import World

BEGIN, END = 0.0, 1.4  # seconds: what is tried happens within these
STOPPED = 20  # seconds
DEPTH = 5


class Small:
    """Three members, or more, and a C program, of which one step at a time is chosen."""
    count = 3

    def __init__(self, trace=None):
        self.world = world = World(1, delay=(0.01, 0.01), trace=trace)
        self.members = [world.member() for _ in range(self.count)]
        self.peer = world.c_peer()
        one, two, three, *more = self.members
        world.at(0, two.join, one)
        for other in (three, *more):
            world.at(0, other.join, one)
        world.at(0.01, self.peer.join, two)
        world.at(0.045, one.say)
        for second in (0.3, 0.6):
            for node in (*self.members, self.peer):
                world.at(second, self._say, node)
        self.faults = [("kill", self.members[1]), ("kill", self.members[2]), ("kill", self.peer), ("cut", one, two), ("cut", two, three),
                       ("stop", one), ("stop", two), ("unplug", three), ("dial", one, two)]
        self.fault = None

    def _say(self, node):
        if not node.dead and not node.stopped:
            node.say()

    def steps(self):
        """What may happen next: the first delivery of each link, and whatever else is first."""
        first = {}
        for event in sorted(self.world._events, key=lambda event: event[:2]):
            key = event[3][0] if event[2] == self.world._arrive else None
            first.setdefault(key, event)
        return list(first.values())

    def take(self, event):
        """This happens now."""
        world = self.world
        world._events.remove(event)
        heapq.heapify(world._events)
        world.now = max(world.now, event[0])
        event[2](*event[3])

    def inject(self, kind, *nodes):
        """A fault."""
        world, node = self.world, nodes[0]
        self.fault = kind
        if any(node.dead for node in nodes):
            return
        if kind == "dial":
            nodes[0].join(nodes[1])
        elif kind in ("stop", "unplug"):
            getattr(world, kind)(node)
            world.after(STOPPED, world.resume if kind == "stop" else world.plug, node)
        else:
            getattr(world, kind)(*nodes)

    def finish(self):
        """All that is left happens in its time; then everything must hold. Raises Violation."""
        world = self.world
        world.run_to(END)
        # Whoever dialled a member that died before it answered has nobody to know: its user dials again.
        world.run(3 if self.fault in (None, "dial") else STOPPED + 22)
        living = world.members
        for member in living[1:]:
            if not world.is_one() and not member.mesh():
                member.join(living[0])
        world.run_until(world.is_one, 60)
        for member in living:
            member.say()
        world.run(11)
        world.check_complete(living)
        world.check_agreement(self.members, living)
        world.check_who()
        world.check_double_links()
        world.check_bounds()
        if not self.peer.dead and self.fault in (None, "dial") and self.peer.ends:
            self._check_peer(living)

    def _check_peer(self, living):
        for member in living:
            if self.peer.last.get(member.ident, 0) != member.number:
                raise Violation(f"{self.peer} (C) has seen {self.peer.last.get(member.ident, 0)} of {member}'s {member.number}")


def orders(depth, skip=0, most=None):
    """Run all orders of `depth` steps from the step number `skip` on, at most so many. Returns how many; raises Violation."""
    path, count = [], 0
    while path is not None and (most is None or count < most):
        path = _order(path, depth, skip)
        count += 1
    return count


def _order(path, depth, skip, trace=None):
    """One of them. Returns the path of the next one, None after the last."""
    small, widths = Small(trace), []
    for _ in range(skip):
        small.take(small.steps()[0])
    try:
        for step in range(depth):
            events = small.steps()
            choice = path[step] if step < len(path) else 0
            widths.append(len(events))
            small.take(events[choice])
        small.finish()
    except Exception as error:
        raise Violation(f"{error}\nthe order {path} after {skip} steps:\n{told(lambda trace: _order(path, depth, skip, trace))}") from error
    taken = path + [0] * (depth - len(path))
    while taken and taken[-1] + 1 >= widths[len(taken) - 1]:
        taken.pop()
    return taken[:-1] + [taken[-1] + 1] if taken else None


def moments(every=1, start=0):
    """Run each fault at each moment (of these every so manyth). Returns how many; raises Violation."""
    count, kinds = 0, len(Small().faults)
    for kind in range(kinds):
        moment = (start + kind) % every
        while _moment(kind, moment):
            moment += every
            count += 1
    return count


def _moment(kind, moment, trace=None):
    """Inject one fault after so many events. Returns whether there were that many."""
    small = Small(trace)
    for _ in range(moment):
        if not small.world._events or small.world.now > END:
            return False
        small.take(min(small.world._events))
    try:
        small.inject(*small.faults[kind])
        small.finish()
    except Exception as error:
        raise Violation(f"{error}\n{small.faults[kind]} after {moment} events:\n{told(lambda trace: _moment(kind, moment, trace))}") from error
    return True


def told(run):
    """What happened in a run that fails, as a person can follow it."""
    lines = []
    try:
        if lines is not None and not getattr(told, "busy", False):
            told.busy = True
            run(lines.append)
    except Violation:
        pass
    finally:
        told.busy = False
    return "\n".join(lines)


if __name__ == "__main__":
    depth, Small.count = map(int, (sys.argv[1:] + [DEPTH, Small.count][len(sys.argv) - 1:])[:2])
    print(f"{moments():,} schedules with a fault at each moment", flush=True)
    for skip in range(0, 60, 4):
        print(f"{orders(depth, skip):,} orders of {depth} steps after {skip}", flush=True)
