"""Reports of the simulator: a large network of which many die at once, and one random run.

    python3 tests/simulator.py N KILL         N members join through one, KILL % of them die at once
    python3 tests/simulator.py --seed S       replay one random run of test_network.py, with a trace
"""

import os
import random
import resource
import sys
import time
from collections import Counter

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import faults
from message import Kind
from world import SimNetwork, World


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
    curve = []  # for each tenth of a second, the share of the survivors that hold together
    survivors = world.members
    while len(curve) < 301 and (len(curve) < 51 or curve[-1] < 1):
        world.run_to(90 + len(curve) / 10 + 0.001)
        curve.append(len(world.components()[0]) / len(survivors))
    shares = curve[::10]
    whole = shares.index(1) if 1 in shares else None
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
    return {"shares": shares, "curve": curve, "whole": whole, "reached": reached, "copies": copies, "path": path, "longest": longest,
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
        run = faults.chaos(int(arguments[1]), trace=print)
        print(f"passed; one network again after {run.took:.1f} s; digest {run.world.digest:08x}")
        return
    count, kill = (int(argument) for argument in (arguments + ["1000", "50"][len(arguments):])[:2])
    simulate(count, kill)


if __name__ == "__main__":
    main(sys.argv[1:])
