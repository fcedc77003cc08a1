"""Fourteen processes of the program: half of them are killed in the middle of the talk, again and again."""

import random
import re

from helpers import Program, unused_port


def test_survivors_of_kill_9_read_everything_once_and_in_order():
    rng = random.Random(1)
    network = Network(rng)
    try:
        while len(network.alive) > 2:
            network.talk(10)
            victims = rng.sample(sorted(network.alive), len(network.alive) // 2)
            if len(network.alive) == 14:
                victims[0] = "m00"  # the one through whom everybody joined
            network.kill(set(victims))
            network.talk(10)
            network.check()
    finally:
        network.end()


class Network:
    def __init__(self, rng):
        self.rng = rng
        self.alive = {}
        self.said = {}
        first = self.start("m00")
        for number in range(1, 14):
            self.start(f"m{number:02}", first if number % 2 else rng.choice(list(self.alive.values())))
        for name, program in self.alive.items():
            others = {f"-- {other} joined" for other in self.alive if other != name}
            program.wait(lambda program: others <= set(program.err) or known(program) >= len(others))

    def start(self, name, through=None):
        joining = () if through is None else ("127.0.0.1", through.port)
        # A port that the system gives nobody else: survivors dial the dead, and would find another test's member there.
        self.alive[name] = program = Program(name, *joining, "--bind", "127.0.0.1", "--port", unused_port())
        self.said[name] = 0
        return program

    def talk(self, lines):
        for _ in range(lines):
            for name, program in self.alive.items():
                program.type(f"{self.said[name]}")
                self.said[name] += 1

    def kill(self, names):
        for name in names:
            self.alive.pop(name).kill()

    def check(self):
        expected = {name: [f"{name}: {number}" for number in range(self.said[name])] for name in self.alive}
        for name, program in self.alive.items():
            total = sum(len(lines) for other, lines in expected.items() if other != name)
            program.wait(lambda program: sum(spoken(program, other) for other in self.alive) >= total)
        for name, program in self.alive.items():
            for other in expected:
                lines = [line for line in program.out if line.startswith(f"{other}: ")]
                assert lines == ([] if other == name else expected[other]), (name, other)
        self.check_the_dead()

    def check_the_dead(self):
        """What the dead said arrived everywhere alike, in order, without gaps."""
        for dead in set(self.said) - set(self.alive):
            heard = {tuple(line for line in program.out if line.startswith(f"{dead}: ")) for program in self.alive.values()}
            assert all(list(lines) == [f"{dead}: {number}" for number in range(len(lines))] for lines in heard)

    def end(self):
        for program in self.alive.values():
            program.kill()


def spoken(program, name):
    return sum(line.startswith(f"{name}: ") for line in program.out)


def known(program):
    """How many others it knows to be here: those who joined before it are not announced."""
    program.type(":who")
    counts = [int(line.split()[1]) for line in program.err if re.match(r"-- \d+ others? here", line)]
    return counts[-1] if counts else 0
