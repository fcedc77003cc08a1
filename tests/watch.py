"""`make watch`: a network that talks, dies and comes back by itself, to be looked at, and checked to the last message.

Knows: the script, whom to kill, and what every survivor has to have shown at the end.
Must not know: how the chat works. The members are processes of the program in line mode, talked to through their
standard input and output.
Leaves out: odd networks and thousands of members (simulator.py), and a network to type in (demo.py).

At a terminal a further member runs on the screen in front of the viewer, who reads what `guide` and the others say,
may type too, and may leave at any time: then it ends. Elsewhere, in CI say, what the guide's own member shows goes
to standard output, with seconds, and nothing waits for a reader. Exit status: 0 if every survivor showed every
message exactly once and in order, and each kill was noticed and mended; else 1, with a sentence.
"""

import os
import random
import re
import select
import signal
import subprocess
import sys
import time

from demo import end_cleanly
from helpers import BUILT, PATIENCE, Program, unused_port

NAMES = "ann", "bob", "cy", "dee", "eve", "fay"
GUIDE, VIEWER = "guide", "you"
READING = 1.4               # seconds that a viewer gets for what the guide says
TALKING = 0.25              # seconds between two messages for a viewer
NEWS = 4                    # seconds until all are told of a member, on a busy machine; whoever goes sooner gets no notice
ENDING = 3                  # seconds that a viewer has for the last words
PHRASES = ("anybody up for lunch?", "in ten minutes", "the build is green", "who has the adapter?", "on my way",
           "我也去", "look at that", "not again", "I can hear you", "still here", "so am I", "👍", "ça marche", "wait for me")


class Left(Exception):
    """The viewer has seen enough."""


class Failed(Exception):
    """The network did not do what it should; the text says what."""


class Actor(Program):
    """One run of one member, and all that it said; every text is said once only, so each that is shown can be traced."""

    def __init__(self, name, *joining):
        self.name, self.said = name, []
        self.stayed = True          # not killed: then what it said has to be everywhere
        super().__init__(name, *joining, "--bind", "127.0.0.1", "--port", unused_port())
        self.streams = {self.process.stdout.fileno(): "stdout", self.process.stderr.fileno(): "stderr"}

    def say(self, text):
        self.said.append(text)
        self.type(text)

    def take(self, descriptor):
        """Read what came on this descriptor. Returns the lines that are complete now."""
        data, stream = os.read(descriptor, 1 << 16), self.streams[descriptor]
        before = self._seen[stream]
        self._seen[stream] = before + data
        if not data:
            del self.streams[descriptor]
        return self._seen[stream][before.rfind(b"\n") + 1:].decode(errors="replace").split("\n")[:-1]

    def heard(self):
        """Every message shown, whether live or said before: name -> texts, in the order shown."""
        found = {}
        for line in self.out[1:]:
            if line.startswith("    "):     # the viewer's; no member says more than a line
                continue
            name, text = re.fullmatch(r"(.+?)(?:~\w+)?(?: \(\d\d:\d\d\))?: (.*)", line).groups()
            found.setdefault(name, []).append(text)
        return found

    def part_of(self, heard):
        """Of what somebody heard, what this run said."""
        return [text for text in heard.get(self.name, []) if text in self.said]

    def noticed(self, what, name):
        """How many notices say this of a member of that name, the second one of it (`cy~2`) included."""
        named = rf"\b{name}(~\w+)?\b"
        notice = re.compile(f"-- lost contact with [^;]*{named}[^;]*;.*" if what == "lost" else f"-- .*{named}.* {what}")
        return sum(notice.fullmatch(line) is not None for line in self.err)


class Stage:
    """All members, the one loop that reads what they print, and what is done to them."""

    def __init__(self, rng, shown):
        self.rng, self.shown = rng, shown
        self.begun = time.monotonic()
        self.viewer = None
        self.alive, self.gone = {}, []
        self.lines = 0              # said by members; each has its number behind it
        self.killed = self.returned = 0
        self.healings = []          # seconds from a kill until everybody read everybody again
        self.guide = Actor(GUIDE)

    # Reading, and the time

    def everybody(self):
        return [self.guide, *self.alive.values()]

    def until(self, condition, complaint):
        """Read what all print until the condition holds. Raises Failed, or Left if the viewer went."""
        give_up = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > give_up:
                raise Failed(complaint)
            self.read()

    def pause(self, seconds):
        """Time for a viewer to read; where nobody looks, none."""
        over = time.monotonic() + seconds * self.shown
        while time.monotonic() < over:
            self.read()

    def read(self):
        """Wait a moment for somebody to print something, and read it."""
        readers = {descriptor: actor for actor in self.everybody() for descriptor in actor.streams}
        for descriptor in select.select(list(readers), [], [], 0.02)[0]:
            lines = readers[descriptor].take(descriptor)
            self.log(lines if readers[descriptor] is self.guide else [])
        if self.viewer and self.viewer.poll() is not None:
            raise Left

    def log(self, lines):
        """Without a viewer: what the guide's member shows, as it comes."""
        for line in lines:
            if not self.shown:
                print(f"{time.monotonic() - self.begun:5.1f} s  {line}", flush=True)

    # What happens

    def open_window(self):
        """The viewer's own member, on this terminal. Raises Failed."""
        self.viewer = subprocess.Popen([sys.executable, BUILT, VIEWER, "127.0.0.1", str(self.guide.port),
                                        "--bind", "127.0.0.1"])
        try:
            self.until(lambda: self.guide.noticed("joined", VIEWER), "the viewer's member does not join")
        except Left:
            raise Failed("the viewer's member ended at once") from None

    def tell(self, text):
        """The guide tells the viewer what comes next."""
        self.guide.say(text)
        self.log([f"{GUIDE}: {text}"])
        self.pause(READING)

    def join(self, name, through):
        """A member joins, or comes back, and gets all that was said before. (Whom the rest is told of two seconds later.)"""
        actor = self.alive[name] = Actor(name, "127.0.0.1", through.port)
        self.until(lambda: any("connected to" in line for line in actor.err), f"{name} does not join")
        self.joined_at = time.monotonic()
        self.returned += any(actor.name == name for actor in self.gone)
        self.pause(TALKING)

    def talk(self, lines):
        """Some of the living say something, and everybody reads it."""
        for _ in range(lines):
            self.speak(self.rng.choice(list(self.alive.values())))
            self.pause(TALKING)
        self.settle()

    def speak(self, actor):
        self.lines += 1
        actor.say(f"{self.rng.choice(PHRASES)} ({self.lines})")

    def kill(self, *names):
        """SIGKILL for these at once, in the middle of a sentence. The others go on, and miss them."""
        self._let_news_settle()
        survivors = [actor for actor in self.everybody() if actor.name not in names]
        before = [actor.noticed("lost", name) for actor in survivors for name in names]
        victims = [self.alive.pop(name) for name in names]
        self.gone += victims
        self.killed += len(victims)
        for victim in victims * 3:
            self.speak(victim)
        for victim in victims:
            victim.stayed = False
            victim.kill()
        begun = time.monotonic()
        for actor in self.alive.values():
            self.speak(actor)
        self.settle()
        self.healings.append(time.monotonic() - begun)
        self.until(lambda: all(now > then for now, then in zip(
            [actor.noticed("lost", name) for actor in survivors for name in names], before)),
            f"not everybody is told that {' and '.join(names)} are lost")
        self.pause(READING)

    def stop(self, name, lines):
        """One hears nothing for a while, as when a laptop is closed, and then gets exactly what it missed."""
        process = self.alive[name].process
        process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(lines):
                self.speak(self.rng.choice([actor for actor in self.alive.values() if actor.process is not process]))
                self.pause(TALKING)
        finally:
            process.send_signal(signal.SIGCONT)
        self.settle()
        self.pause(READING)

    def leave(self, name):
        """One says goodbye; everybody is told at once."""
        self._let_news_settle()
        actor = self.alive.pop(name)
        self.gone.append(actor)
        actor.type(":quit")
        self.until(lambda: all(other.noticed("left", name) for other in self.everybody()), f"not everybody is told that {name} left")
        if actor.process.wait(PATIENCE):
            raise Failed(f"{name} left with status {actor.process.returncode}")

    def _let_news_settle(self):
        self.until(lambda: time.monotonic() > self.joined_at + NEWS, "time stands still")

    # What has to be true

    def sources(self):
        """Every run of every member, the dead among them; not the viewer's: nobody knows what that one typed."""
        return [*self.gone, *self.everybody()]

    def accounts(self):
        """For each reader and each source: (reader, source, what it shows of it, what it should show of it).

        The last words of a killed member may have died with it, but for all alike: what one shows all have to show.
        """
        shown = {(reader, source): source.part_of(heard) for reader, heard in
                 [(reader, reader.heard()) for reader in self.everybody()] for source in self.sources()}
        for source in self.sources():
            most = max(len(shown[reader, source]) for reader in self.everybody())
            due = source.said if source.stayed else source.said[:most]
            yield from ((reader, source, shown[reader, source], due) for reader in self.everybody() if reader is not source)

    def settle(self):
        """Wait until everybody shows as much as it should."""
        self.until(lambda: all(len(texts) >= len(due) for _, _, texts, due in self.accounts()), "not everybody got everything")

    def check(self):
        """Each message at everybody exactly once, each member's in order, and none that nobody said. Raises Failed."""
        known = dict.fromkeys(self.everybody(), 0)
        for reader, source, texts, due in self.accounts():
            if texts != due:
                raise Failed(f"{reader.name} shows of {source.name} {texts}, and it said {due}")
            known[reader] += len(texts)
        for reader, count in known.items():
            strange = sum(len(texts) for name, texts in reader.heard().items() if name != VIEWER) - count
            if strange:
                raise Failed(f"{reader.name} shows {strange} messages that nobody said")

    def figures(self):
        said = sum(len(due) for due in {source: due for _, source, _, due in self.accounts()}.values())
        healed = " and ".join(f"{1000 * seconds:.0f} ms" for seconds in self.healings)
        return (f"{self.killed} members killed, {self.returned} came back; {said} messages, each shown exactly once and in "
                f"order by all {len(self.everybody())}" + f"; after the kills everybody read everybody in {healed}" * bool(healed))

    def end(self):
        """Nobody is left behind, and the terminal is as it was."""
        if self.viewer:
            self.viewer.terminate()
            self.viewer.wait()
        for actor in [*self.gone, *self.everybody()]:
            actor.__exit__()


def play(stage):
    """The script."""
    stage.tell("No server here. ann comes first, and five others join through her.")
    stage.join(NAMES[0], stage.guide)
    for name in NAMES[1:]:
        stage.join(name, stage.alive[NAMES[0]])
    stage.talk(6)
    stage.tell("Now ann and cy are killed (kill -9) in the middle of a sentence.")
    stage.kill("ann", "cy")
    stage.tell("The rest stay connected. Both come back, and read what they missed.")
    stage.join("ann", stage.alive["bob"])
    stage.join("cy", stage.alive["fay"])
    stage.talk(6)
    stage.tell("dee's laptop sleeps (kill -STOP) while the others talk; then it wakes up.")
    stage.stop("dee", 6)
    stage.tell("Half of them are killed at once: bob, dee and fay.")
    stage.kill("bob", "dee", "fay")
    for name in ("bob", "dee", "fay"):
        stage.join(name, stage.rng.choice(list(stage.alive.values())))
    stage.talk(6)
    stage.tell("eve says :quit.")
    stage.leave("eve")
    stage.talk(3)


def finish(stage):
    """The check of everything, and the last words."""
    stage.settle()
    stage.check()
    figures = stage.figures()
    if stage.viewer:
        stage.tell(f"{figures}.")
        stage.pause(ENDING)
    return figures


def watch(stage):
    """The whole of it. Returns the figures; raises Failed."""
    try:
        if stage.shown:
            stage.open_window()
        play(stage)
        return finish(stage)
    except Left:
        stage.viewer, stage.shown = None, False
        return f"left early; {finish(stage)}"


def main():
    end_cleanly()
    stage = Stage(random.Random(1), os.isatty(0) and os.isatty(1))
    try:
        result = watch(stage)
    except Failed as failure:
        result = failure
    finally:
        stage.end()
    if isinstance(result, Failed):
        sys.exit(f"p2pchat watch: FAILED: {result}")
    print(f"p2pchat watch: {result}; {time.monotonic() - stage.begun:.1f} s")


if __name__ == "__main__":
    main()
