"""The built program among hostile neighbours, for minutes: `make torture`, or `make torture ONLY=forge_ahead` for one attack.

ann is a real process at a pty; bob and cy are members at her, dora is a C program's user. All the while dora says
something that cy is to read, somebody presses ann's keys, and the time that each takes is noted: first in peace, then
under each attack of attacker.py. Prints a report of figures; exits with 1 if a limit below was passed, a line was lost
or came twice, or anything else broke.
"""

import contextlib
import os
import random
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections import Counter

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import attacker  # noqa: E402
from attacker import ATTACKS, Stranger  # noqa: E402
from helpers import BUILT, Program, Terminal, python  # noqa: E402

CALM_SECONDS, ATTACK_SECONDS, AFTER_SECONDS = 2, 8, 1
RATE = 100e3  # bytes a second; what comes faster than bob and cy can read it waits for them, whoever sent it
SLOWER = 0.05  # seconds by which a line or a key may take longer, in the middle, than in peace
WORST = 1.0  # the same for the slowest, on a machine whose cores the attack wants too
GROWN = 50e6  # bytes
DIALS, DIALS_A_SECOND = 45, 0.25  # to where third parties are: 60 a minute at most
NOTICES = 60  # lines about who comes and goes
REPEATED = {"forge_ahead", "forge_guests", "forge_last", "goodbyes", "jumps_of_others", "steal_names"}  # a line is said once more; twice, if whoever forges is faster than its author
SPOKEN = {"copies", "words", "marks"}  # under honest names, as often as the liar likes
LINE = re.compile(rb"\b(?:dora|bob) \d+\.|\b(?:stranger|member|late|after)(?:~\w+)?(?: \(\d\d:\d\d\))?: I am in")
WAITS = 2.0  # seconds for which a line may wait while its author's origin is forged again and again


class Report:
    """The figures, as they come; and whether all are within their limits."""

    def __init__(self):
        self.broken = []

    def part(self, title):
        self.title = title
        print(f"\n{title}", flush=True)

    def figure(self, what, value, limit=None, unit=""):
        good = limit is None or value <= limit
        self.broken += [] if good else [f"{self.title}: {what}"]
        bound = "" if limit is None else f"   (at most {limit:,.4g})"
        print(f"  {'ok  ' if good else 'HURT'} {what:<58} {value:>12,.4g} {unit}{bound}", flush=True)

    def truth(self, what, holds):
        self.broken += [] if holds else [f"{self.title}: {what}"]
        print(f"  {'ok  ' if holds else 'HURT'} {what}", flush=True)


class House:
    """ann at a terminal, bob and cy at her in line mode, dora as a C program's user is; and what is measured."""

    def __init__(self, *arguments, command=(BUILT,)):
        self.ann = Terminal("ann", *arguments, command=command)
        self.port = self.ann.port
        self.bob, self.cy = Program("bob", "127.0.0.1", self.port), Program("cy", "127.0.0.1", self.port)
        self.dora = Stranger(self.port, "127.0.0.3")
        self.dora.sock.setblocking(False)
        self.seen, self._rest, self.notices, self.cut_off = {"cy": Counter(), "dora": Counter()}, {}, 0, False
        self.lines, self.keys, self.number = [], [], 0
        self.measure(1.5)  # a stranger is told nothing in its first half second
        self.lines, self.keys = [], []

    @property
    def process_id(self):
        return self.ann.process.pid

    def measure(self, seconds):
        """Talk and type for so long; each takes its turn, ten times a second."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.ann.process.poll() is None:
            self._line()
            self._key()
            self._watch(0.1)

    def _line(self):
        """dora says one, and bob one that she is to read."""
        self.number += 1
        began = time.monotonic()
        with contextlib.suppress(OSError):
            self.dora.say(b"dora", b"dora %d." % self.number)
        self.bob.type(f"bob {self.number}.")
        while not self.arrived(self.number) and time.monotonic() < began + 10:
            self._watch(0.002)
        self.lines.append(time.monotonic() - began)

    def arrived(self, number):
        return self.seen["cy"][b"dora %d." % number] and self.seen["dora"][b"bob %d." % number]

    def _key(self):
        typed = "x" * (self.number % 60)
        began = time.monotonic()
        os.write(self.ann.master, b"\x15" + typed.encode())
        while self.ann.rows[-3] != typed and time.monotonic() < began + 10:
            self._watch(0.002)
        self.keys.append(time.monotonic() - began)

    def _watch(self, seconds):
        """One read of each: under a flood there is always more to show, and who measures must not be busy with showing it."""
        streams = {self.ann.master: "ann", self.bob.process.stdout: "bob", self.bob.process.stderr: "bob's notices",
                   self.cy.process.stdout: "cy", self.cy.process.stderr: "cy's notices"}
        if not self.cut_off:
            streams[self.dora.sock] = "dora"
        for ready in select.select(list(streams), [], [], seconds)[0]:
            self._take(ready, streams[ready])

    def _take(self, ready, who):
        if who == "ann":
            self.ann.model.feed(self.ann.read())
            return
        try:
            data = ready.recv(1 << 20) if who == "dora" else os.read(ready.fileno(), 1 << 20)
        except OSError:
            data = b""
        self.cut_off |= who == "dora" and not data
        self.notices += data.count(b"\n") * (who == "cy's notices")
        if who in self.seen:
            data = self._rest.get(who, b"") + data
            found = list(LINE.finditer(data))
            self.seen[who].update(re.sub(rb"~\w+| \(.*\)", b"", match[0]) for match in found)
            self._rest[who] = data[max(found[-1].end() if found else 0, len(data) - 40):]

    def meets(self, *newcomers):
        """Seconds until cy reads what each of them, (a Stranger, its name), says."""
        began = time.monotonic()
        for stranger, name in newcomers:
            if stranger:
                stranger.say(name, b"I am in")
        while not all(self.seen["cy"][name + b": I am in"] for _, name in newcomers) and time.monotonic() < began + 10:
            self.measure(0.1)
        return time.monotonic() - began

    def times(self, first):
        """How often each line since then came at cy and at dora: (fewest, most)."""
        numbers = range(first, self.number + 1)
        found = [self.seen[reader][b"%s %d." % (name, number)] for name, reader in ((b"dora", "cy"), (b"bob", "dora")) for number in numbers]
        return min(found), max(found)

    def close(self):
        self.dora.close()
        self.bob.kill(), self.cy.kill()
        self.ann.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def memory(process_id):
    """Bytes of resident memory of a process."""
    with open(f"/proc/{process_id}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


def cpu(process_id):
    """Seconds of processor time that a process has used."""
    with open(f"/proc/{process_id}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(process_id):
    return len(os.listdir(f"/proc/{process_id}/fd"))


def middle(times):
    return sorted(times)[len(times) // 2]


def attack(report, name):
    """One attack, beside a calm stretch of the same run."""
    report.part(f"{name}: {(ATTACKS[name].__doc__ or 'a flood').strip()}")
    with House() as house:
        house.measure(CALM_SECONDS)
        calm_lines, calm_keys, house.lines, house.keys = house.lines, house.keys, [], []
        memory_before, cpu_before, first = memory(house.process_id), cpu(house.process_id), house.number + 1
        with attacking(name, house.port, ATTACK_SECONDS + 3) as attacks:
            house.measure(ATTACK_SECONDS)
            entered = newcomers(house)
            opened, sent, knocks = map(int, attacks.communicate(timeout=60)[0].split())
        lines, keys = house.lines, house.keys
        house.measure(AFTER_SECONDS)
        report.figure("connections opened", opened)
        report.figure("sent", sent / 1e6, None, "MB")
        report.figure("a line in peace", middle(calm_lines) * 1000, None, "ms")
        slower = SLOWER + WAITS * (name in REPEATED)
        report.figure("a line: longer by", (middle(lines) - middle(calm_lines)) * 1000, slower * 1000, "ms")
        report.figure("a line: the slowest", max(lines) * 1000, (WORST + WAITS * (name in REPEATED)) * 1000, "ms")
        report.figure("a key: longer by", (middle(keys) - middle(calm_keys)) * 1000, SLOWER * 1000, "ms")
        report.figure("a key: the slowest", max(keys) * 1000, WORST * 1000, "ms")
        report.figure("newcomers waited", entered, 5, "s")
        check(report, house, name, first)
        report.figure("ann's memory grew by", (memory(house.process_id) - memory_before) / 1e6, GROWN / 1e6, "MB")
        report.figure("ann's processor time", cpu(house.process_id) - cpu_before, None, "s")
        report.figure("descriptors", descriptors(house.process_id), 1100)
        report.figure("third parties dialled", knocks, DIALS + DIALS_A_SECOND * (ATTACK_SECONDS + 3))


def newcomers(house):
    """Seconds until a C user and a member who come now are heard."""
    with Stranger(house.port, "127.0.0.6") as stranger, Program("member", "127.0.0.1", house.port) as member:
        member.type("I am in")
        return house.meets((stranger, b"stranger"), (None, b"member"))


def check(report, house, name, first):
    """Nobody is gone, and no line."""
    until = time.monotonic() + 4
    while house.times(first)[0] < 1 and time.monotonic() < until:
        house.measure(0.2)
    fewest, most = house.times(first)
    report.truth("ann, bob and cy live, and dora is connected", not house.cut_off and not any(
        one.process.poll() for one in (house.ann, house.bob, house.cy)))
    report.truth("no line was lost", fewest >= 1)
    report.figure("a line came so many times at most", most, None if name in SPOKEN else 3 if name in REPEATED else 1)
    report.figure("notices at cy", house.notices, NOTICES)


def attacking(name, port, seconds, rate=RATE):
    command = python(attacker.__file__, name, str(port), str(seconds), str(random.randrange(1 << 30)), str(rate))
    return subprocess.Popen(command, stdout=subprocess.PIPE)


# What does not attack the wire -----------------------------------------------------------------

def part_descriptors(report):
    """ulimit -n 32."""
    report.part("descriptors: 32 of them, 60 silent connections")
    script = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32)); os.execv(sys.argv[1], sys.argv[1:])"
    with House(command=python("-c", script, BUILT)) as house, contextlib.ExitStack() as stack:
        for _ in range(60):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", house.port))
        house.measure(2)
        report.truth("a notice said that nobody can join", b"nobody new can join" in house.ann.written)
        late = stack.enter_context(Stranger(house.port, "127.0.0.9"))
        report.figure("who came last and spoke was in after", house.meets((late, b"late")), 9, "s")
        stack.close()
        house.measure(2)
        with Stranger(house.port) as after:
            report.figure("when the crowd is gone, anybody can join, after", house.meets((after, b"after")), 2, "s")


def part_flood(report):
    """As fast as it goes: the keys must not feel it, whatever the lines do."""
    for name in ("talk", "mesh_talk", "rubbish"):
        report.part(f"flood: {name}, as fast as it goes")
        with House() as house, attacking(name, house.port, ATTACK_SECONDS, 1e12) as attacks:
            house.measure(ATTACK_SECONDS)
            report.figure("sent", int(attacks.communicate(timeout=60)[0].split()[1]) / 1e6, None, "MB")
            report.figure("a key: in the middle", middle(house.keys) * 1000, 2 * SLOWER * 1000, "ms")
            report.figure("a key: the slowest", max(house.keys) * 1000, WORST * 1000, "ms")
            report.figure("ann's memory", memory(house.process_id) / 1e6, 100, "MB")


def part_terminal(report):
    """The terminal is gone while a flood comes in."""
    report.part("terminal: it hangs up in a flood")
    with House() as house, attacking("talk", house.port, 3) as attacks:
        house.measure(1)
        house.ann.hang_up()
        began = time.monotonic()
        status = house.ann.process.wait(20)
        report.figure("until it has ended", time.monotonic() - began, 4, "s")
        report.truth(f"its status: {status}", status in (0, 128 + signal.SIGHUP))
        attacks.communicate(timeout=60)


PARTS = {name[len("part_"):]: value for name, value in list(globals().items()) if name.startswith("part_")}


def main(arguments):
    unknown = [name for name in arguments if name not in PARTS and name not in ATTACKS]
    if unknown:
        sys.exit(f"there is no part {unknown[0]}; the parts are {', '.join([*ATTACKS, *PARTS])}")
    report = Report()
    allow_descriptors()
    for name in arguments or [*ATTACKS, *PARTS]:
        PARTS[name](report) if name in PARTS else attack(report, name)
    print("\n" + "\n".join(report.broken or ["nothing hurt"]), flush=True)
    return 1 if report.broken else 0


def allow_descriptors():
    """For a crowd of 2,000 and for ann, who inherits it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard) if hard > 0 else 8192, hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
