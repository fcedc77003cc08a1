"""What the simulator reports: a large network of which many die at once, one random run, or a hunt through new ones.

    python3 tests/simulator.py N KILL         N members join through one, KILL % of them die at once
    python3 tests/simulator.py --seed S       replay one random run, with its limits, its events, and a trace
    python3 tests/simulator.py --hunt [S]     new seeds from S on, on all cores, until you stop it with Ctrl-C
    python3 tests/simulator.py --shrink S     the least of a failing seed, as a test that can be pasted
    python3 tests/simulator.py --choose N     of the seeds below N, few and cheap ones that reach all rare branches

Leaves out: what a run is and what must hold (faults.py, oracle.py).
"""

import gc
import itertools
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from collections import Counter

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import faults
import marks
import message
import peers
import schedules
from message import Kind
from nodes import SimNetwork
from world import World


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


class QuietAuthor(peers.Author):
    """Says nothing about who is here, but for who is lost of the sample."""

    def tell(self, kind, name, texts=(b"",)):
        if kind in (Kind.SAY, Kind.GUEST) or kind == Kind.LOST and message.decode_lost(texts[0])[0] in Sample.origins:
            return peers.Author.tell(self, kind, name, texts)
        self.last_word, self.last_said = 1 << 62, 0
        self._log.have.setdefault(self.origin, 0)
        return self._log.end


class Sample(SimNetwork):
    """A member of a large network: the first `most` of them say that they are here, and nobody else is listed anywhere."""
    origins, most = set(), 0

    def __init__(self, *args):
        loud, is_loud = peers.Author, len(self.origins) < self.most
        peers.Author = loud if is_loud else QuietAuthor
        try:
            SimNetwork.__init__(self, *args)
        finally:
            peers.Author = loud
        self.origins.update([self.author.origin] * is_loud)
        linked, heard = self.presence.linked, self.presence.heard
        self.presence.linked = lambda origin, *args, **named: (linked if origin in self.origins else self._linked)(origin, *args, **named)
        self.presence.heard = lambda origin, name: heard(origin, name) if origin in self.origins else name

    def _linked(self, origin, name, is_first):
        if is_first and self.presence._call.since is not None:
            self.presence._call.rejoin()


PRESENCE_UP_TO = 200  # members that all say that they are here; in a larger network some do:
SAMPLED = 20_000  # this number by that of the members, as everybody telling everybody is their square

# Relative message redundancy, of Leitao's papers, is copies per delivery less one.
PUBLISHED = """published, of simulations by others:
  gossipsub v1.0, 1,000 nodes: 6.3 copies per delivery, the last node after 0.3 to 0.4 s (377,370 messages for 60,000 deliveries;
    gist.github.com/vyzo/25a53ec19c6b1d3b5e1064ece60b755c)
  Plumtree: a tree inside the overlay, 1 copy per delivery as long as nobody dies (Leitao et al., Epidemic Broadcast Trees, SRDS 2007)
  HyParView: 10,000 nodes with 5 links and 30 addresses each; ours: 5 to 8, and 128 (Leitao et al., DSN 2007)
  iroh-gossip runs both, and reports its redundancy and last hop with each change (github.com/n0-computer/iroh-gossip/pull/52)"""


def simulate(count, kill, seed=1, show=print):
    """Returns the figures as a dict."""
    began = time.process_time()
    gc.collect()
    gc.disable()  # looking through a million objects again and again takes a quarter of the time, and finds little
    sampled = count if count <= PRESENCE_UP_TO else SAMPLED // count
    Sample.origins, Sample.most = set(), sampled
    world = World(seed, lazy=True, network=Sample)
    world.strict = True
    rng = random.Random(seed)
    show(f"{count:,} members join through one of them in a minute; links take 10 to 100 ms; then {kill} % die at once")
    if sampled < count:
        show(f"(the first {sampled} say that they are here: everybody telling everybody takes one process too long)")
    first = world.member()
    for number in range(count - 1):
        world.at(60 * (number + 1) / count, lambda: world.member().join(first))
    for second in (30, 60):
        world.run_to(second)
        show(f"  {second} s: {len(world.components()[0]):,} of {len(world.members):,} hold together, {time.process_time() - began:.0f} s of work")
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
    known = {member.network.author.origin: member for member in world.members if member.network.author.origin in Sample.origins}
    talk("during", 90, 93, times)
    for victim in victims:
        world.kill(victim)
    curve = []  # for each tenth of a second, the share of the survivors that hold together
    survivors = world.members
    while len(curve) < 301 and (len(curve) < 51 or curve[-1] < 1):
        world.run_to(90 + len(curve) / 10 + 0.001)
        curve.append(len(world.components()[0]) / len(survivors))
    shares = curve[::10]
    whole = shares.index(1) if 1 in shares else None
    talk("after", world.now, world.now + 3, times)
    world.run(30)
    world.check_bounds()
    show("connected share, seconds after the kill:")
    show("  " + "  ".join(f"{second}s {share:.1%}" for second, share in enumerate(shares)))
    show(f"who is here: {listed_rightly(survivors, known):.2%} of all that survivors list of the {len(known)} who said so is right")
    reached = {}
    for phase, said in sent.items():
        got = sum(member.last.get(author.ident, 0) >= number for author, number in said for member in survivors)
        reached[phase] = got / max(len(said) * len(survivors), 1)
    links = sorted(len(member.mesh()) for member in survivors)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1 << 20)
    wall = time.process_time() - began
    show("reliability (shares of all survivors that showed a message): "
         + ", ".join(f"said {phase} {share:.2%}" for phase, share in reached.items()))
    show(f"copies per delivery {copies:.2f}; shortest path {graph_mean:.1f} hops on average, {graph_most} at most;"
         f" the fastest one {path:.1f} and {longest}; last member after {slowest:.2f} s")
    show(f"links per member before {before_links[0]}/{sum(before_links) / len(before_links):.1f}/{before_links[-1]},"
         f" after {links[0]}/{sum(links) / len(links):.1f}/{links[-1]} (least/mean/most)")
    show(f"control records {control:.2f} a member and second ({', '.join(f'{name(kind)} {number / count / 20:.2f}' for kind, number in sorted(counts.items()) if kind != Kind.SAY)})")
    show(PUBLISHED)
    show(f"{wall:.0f} s of work, {memory:.0f} MB, {world._count:,} events, {world.dials:,} dials")
    return {"shares": shares, "curve": curve, "whole": whole, "reached": reached, "copies": copies, "path": path, "longest": longest,
            "links": links, "control": control, "wall": wall, "memory": memory}


def listed_rightly(survivors, known):
    """The share of right answers to "is this one here?", of these (origin -> member), at all survivors."""
    right = count = 0
    for member in survivors:
        listed = {person.key for person in member.network.who()}
        for origin, other in known.items():
            if other is not member:
                count += 1
                right += (origin in listed) is not other.dead
    return right / max(count, 1)


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


ROUND, SLICES = 64, 4  # seeds of a hunt, and parts of all schedules of a small world, that are handed out at once


# One run, and many -----------------------------------------------------------------------------------

def replay(seed):
    """One random run, with a trace."""
    plan = faults.Draft(seed).plan
    print(f"limits {plan.limits}, world {plan.world}")
    for event in plan.events:
        print("   ", *event)
    run = faults.Run(plan, trace=print).run()
    print(f"passed; one network again after {run.took:.1f} s, of one mind after {run.took_to_agree:.1f} s; digest {run.world.digest:08x}")


def shrunk(seed):
    """The least of it that fails, as a test."""
    plan, error = faults.shrink(faults.Draft(seed).plan)
    return faults.as_test(plan, error) if error else f"seed {seed} passes"


def tried(seed):
    """(seed, the failure or None, the rare branches that it reached)."""
    marks.reached.clear()
    marks.watch()
    error = faults.failure(faults.Draft(seed).plan)
    return seed, error and f"{type(error).__name__}: {error}", list(marks.reached)


class Hunt:
    """Seed after seed on all cores, and meanwhile all schedules of a small world; what fails is printed, and again when it is shrunk."""

    def __init__(self, first):
        self.first = max(first, faults.SUITE_SEEDS)
        self.began, self.shown_at, self.count, self.failed = time.monotonic(), 0.0, 0, []
        self.reached = {}  # rare branch -> the first seed that reached it
        self.slices, self.schedules = list(schedules.slices()), 0

    def run(self):
        """Until Ctrl-C."""
        with multiprocessing.Pool(initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:
            try:
                for start in itertools.count(self.first, ROUND):
                    self._round(pool, start)
            except KeyboardInterrupt:
                self._summary()

    def _round(self, pool, start):
        shrinking, runs = [], pool.imap_unordered(tried, range(start, start + ROUND))
        parts = pool.imap_unordered(schedules.run_slice, self.slices[:SLICES])
        del self.slices[:SLICES]
        for seed, error, branches in runs:
            self.count += 1
            for branch in branches:
                self.reached.setdefault(branch, seed)
            if error:
                self.failed.append(seed)
                print(f"\nseed {seed}: {error}", flush=True)
                shrinking.append(pool.apply_async(shrunk, (seed,)))
            self._progress()
        for count, failure in parts:
            self.schedules += count
            if failure:
                self.failed.append("a small world")
                print("\n" + failure, flush=True)
        for result in shrinking:
            print("\n" + result.get(), flush=True)

    def _progress(self):
        if time.monotonic() < self.shown_at + 1:
            return
        self.shown_at = time.monotonic()
        print(f"\r{self.count:,} seeds, {self.schedules:,} schedules{' (all)' * (not self.slices)}, {len(self.failed)} failed, "
              f"{len(self.reached)} of {len(marks.ALL)} rare branches reached, {self.shown_at - self.began:.0f} s ", end="", flush=True)

    def _summary(self):
        print(f"\n{self.count:,} seeds from {self.first} on, {self.schedules:,} schedules of a small world, in {time.monotonic() - self.began:.0f} s; failed: {self.failed or 'none'}")
        for branch in marks.ALL:
            print(f"    {branch}: " + (f"seed {self.reached[branch]}" if branch in self.reached else "NEVER REACHED"))


def weighed(seed):
    """(seed, the seconds of processor time that it takes, the rare branches that it reaches)."""
    began = time.process_time()
    branches = tried(seed)[2]
    return seed, time.process_time() - began, set(branches)


def chosen(most, times=3):
    """Few and cheap seeds below `most` that reach each rare branch so many times, if all do."""
    with multiprocessing.Pool() as pool:
        rest = pool.map(weighed, range(most))
    lacking = {branch: min(times, sum(branch in branches for _, _, branches in rest)) for branch in marks.ALL}
    seeds = []
    while any(lacking.values()):
        best = max(rest, key=lambda run: sum(lacking[branch] > 0 for branch in run[2]) / run[1])
        rest.remove(best)
        seeds.append(best[0])
        for branch in best[2]:
            lacking[branch] = max(lacking[branch] - 1, 0)
    return sorted(seeds)


def main(arguments):
    if arguments[:1] == ["--seed"]:
        return replay(int(arguments[1]))
    if arguments[:1] == ["--shrink"]:
        return print(shrunk(int(arguments[1])))
    if arguments[:1] == ["--choose"]:
        return print(*chosen(int(arguments[1])), sep=", ")
    if arguments[:1] == ["--hunt"]:
        return Hunt(int((arguments[1:] or [time.time_ns() // 10 ** 9 % 10 ** 9])[0])).run()
    count, kill = (int(argument) for argument in (arguments + ["1000", "50"][len(arguments):])[:2])
    simulate(count, kill)


if __name__ == "__main__":
    main(sys.argv[1:])
