"""Small worlds, exhaustively: every order in which what is under way may arrive, and one fault at every moment.

    python3 tests/schedules.py [DEPTH [MEMBERS]]    all faults at all moments, then all orders of DEPTH (5) steps, of 4 members

Knows: which steps are possible at a moment, and how to go through all of them.
Leaves out: the world (world.py), and what must hold in the end (oracle.py). The suite tries a few of 3 members, a hunt all of 4.

Random runs hit what is likely. Here nothing is left to chance: three members join, one of them with a C program,
and all speak at once; the next step is whatever may come next: a delivery of any link (each link is first-in
first-out), a timer, or, once, a fault. Each schedule is run from its start (stateless model checking: Godefroid 1997).
"""

import contextlib
import heapq
import sys

if __name__ == "__main__":
    import os
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from oracle import Violation
from world import World

END = 1.4  # seconds: what is tried happens before
STOPPED = 20  # seconds
DEPTH, MEMBERS = 5, 4  # of a hunt
SKIPS = range(0, 60, 4)  # steps after which all orders are tried: from the first dial to the second line of each


class Small:
    """Three members, or more, and a C program, of which one step at a time is chosen."""

    def __init__(self, members=3, trace=None):
        self.world = world = World(1, delay=(0.01, 0.01), trace=trace)
        self.members = [world.member() for _ in range(members)]
        self.peer = world.c_peer()
        one, two, *more = self.members
        for other in (two, *more):
            world.at(0, other.join, one)
        world.at(0.01, self.peer.join, two)
        world.at(0.045, one.say)
        for second in (0.3, 0.6):
            for node in (*self.members, self.peer):
                world.at(second, self._say, node)
        self.faults = [("kill", two), ("kill", self.peer), ("cut", one, two), ("stop", one), ("stop", two), ("dial", one, two)]
        if more:
            self.faults += [("kill", more[0]), ("cut", two, more[0]), ("unplug", more[0])]
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

    def choose(self, number):
        """Of what may happen next, this happens now. Returns how much there was to choose from."""
        events = self.steps()
        if self.world.trace:
            self.world.trace(f"next, {number + 1} of {len(events)}: {self._told(events[number])}")
        self.take(events[number])
        return len(events)

    def _told(self, event):
        what, args = event[2], event[3]
        if what == self.world._arrive:
            return f"what {args[0].peer.node} sent reaches {args[0].node}"
        who = next((arg for arg in (*args, getattr(what, "__self__", None)) if hasattr(arg, "ident")), "a link")
        return f"{({'_knock': 'the dial', 'tick': 'the timer', '_say': 'the next line'}).get(what.__name__, what.__name__)} of {who}"

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


def orders(depth, skip=0, most=None, members=3, first=()):
    """Run all orders of `depth` steps from the step number `skip` on, at most so many, that begin with these choices.

    Returns how many; raises Violation.
    """
    path, count = list(first), 0
    while path is not None and path[:len(first)] == list(first) and (most is None or count < most):
        path = _order(path, depth, skip, members)
        count += 1
    return count


def _order(path, depth, skip, members, trace=None):
    """One of them. Returns the path of the next one, None after the last."""
    try:
        small = _after(skip, members, trace)
        following = _walk(small, path, depth)
        small.finish()
    except Exception as error:
        if trace:
            raise
        raise Violation(f"{error}\n{members} members, the order {path} after {skip} steps:\n"
                        f"{told(lambda trace: _order(path, depth, skip, members, trace))}") from error
    return following


def _after(skip, members, trace=None):
    small = Small(members, trace)
    for _ in range(skip):
        small.take(small.steps()[0])
    return small


def _walk(small, path, depth):
    """Choose these steps, and then always the first. Returns the path of the next walk, None after the last."""
    taken = path + [0] * (depth - len(path))
    widths = [small.choose(choice) for choice in taken]
    while taken and taken[-1] + 1 >= widths[len(taken) - 1]:
        taken.pop()
    return taken[:-1] + [taken[-1] + 1] if taken else None


def moments(every=1, start=0, members=3, kinds=None):
    """Run each fault (or these kinds) at each moment, of which every so manyth. Returns how many; raises Violation."""
    count = 0
    for kind in range(len(Small(members).faults)) if kinds is None else kinds:
        moment = (start + kind) % every
        while _moment(kind, moment, members):
            moment += every
            count += 1
    return count


def _moment(kind, moment, members, trace=None):
    """Inject one fault after so many events. Returns whether there were that many."""
    small = Small(members, trace)
    for _ in range(moment):
        if not small.world._events or small.world.now > END:
            return False
        small.take(min(small.world._events))
    try:
        small.inject(*small.faults[kind])
        small.finish()
    except Exception as error:
        if trace:
            raise
        raise Violation(f"{error}\n{members} members, {small.faults[kind]} after {moment} events:\n"
                        f"{told(lambda trace: _moment(kind, moment, members, trace))}") from error
    return True


def told(run):
    """What happened in a run that fails, as a person can follow it."""
    lines = []
    with contextlib.suppress(Exception):
        run(lines.append)
    return "\n".join(lines)


def slices(depth=DEPTH, members=MEMBERS):
    """All of them, in parts of a few seconds: arguments for run_slice."""
    for kind in range(len(Small(members).faults)):
        yield moments, {"members": members, "kinds": (kind,)}
    for skip in SKIPS:
        for first in _beginnings(skip, members):
            yield orders, {"depth": depth, "skip": skip, "members": members, "first": first}


def _beginnings(skip, members):
    """The first two choices of all orders; none where that fails already."""
    path, found = [], []
    while path is not None:
        found.append((*path, 0, 0)[:2])
        try:
            path = _walk(_after(skip, members), path, 2)
        except Exception:
            return [()]
    return found


def run_slice(part):
    """Run a part of all. Returns (how many schedules, the failure or None)."""
    what, options = part
    try:
        return what(**options), None
    except Violation as violation:
        return 1, str(violation)


def main(depth=DEPTH, members=MEMBERS):
    count = 0
    for part in slices(int(depth), int(members)):
        done, failure = run_slice(part)
        count += done
        print(failure or f"\r{count:,} schedules", end="\n" if failure else "", flush=True)
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])
