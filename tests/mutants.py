"""Breakages of the network, one line each, and which scenario of test_network.py finds each of them.

    make break                  list them
    make break M=never_relay    apply one, run the tests of the network, and see which of them find it

Knows: what to break. Leaves out: what must hold (oracle.py), and the scenarios (test_network.py).
A test that no breakage fails tests nothing; a line that can be broken unseen needs a test.
"""

import inspect
import os
import subprocess
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import message
import peers
import run
from message import Kind, encode_record, join

TESTS = [os.path.join("tests", name) for name in ("test_network.py", "test_peers.py")]


def skip_the_duplicate_check(patch):
    """What is known already is sometimes shown again."""
    def take(self, neighbour, run):
        known = self.log.have.get(run.origin, 0) >= run.sequence
        original(self, neighbour, run)
        if known and run.sequence % 3 == 0:
            self._deliver(run, 0)
    original = peers.Network._take_run
    patch(peers.Network, "_take_run", take)


def skip_catching_up(patch):
    """A new link brings nothing of what was said before it."""
    def met(self, neighbour, hello):
        original(self, neighbour, hello)
        if neighbour.log is not None:
            neighbour.position = self.log.end
    original = peers.Network._met
    patch(peers.Network, "_met", met)


def forget_an_origin(patch):
    """Some records of some members are noted, and dropped."""
    def extend(self, origin, sequence, *args):
        if origin % 4 or sequence < 3:
            return original(self, origin, sequence, *args)
        self.have[origin] = sequence
        return self.end
    original = message.Log.extend
    patch(message.Log, "extend", extend)


def send_newest_first(patch):
    """A neighbour is sent the log's records in the wrong order."""
    original = message.Log.read
    patch(message.Log, "read", lambda self, number, stop: original(self, number, stop)[::-1])


def never_dial_again(patch):
    """Too few links are put up with."""
    patch(peers.Overlay, "_wants_links", lambda self: False)


def take_any_number_of_links(patch):
    """Nobody is let go when there are too many links."""
    patch(peers.Overlay, "_make_room", lambda self, newest: None)


def keep_both_of_two_links(patch):
    """Two members who dialled each other at once keep both links."""
    patch(peers.Handshake, "resolve_double", lambda self, new, old: True)


def take_the_wrong_one_of_two_links(patch):
    """The two ends decide by chance which of two links stays."""
    def resolve(self, new, old):
        keep_new = (new.attempt is not None) == (old.attempt is not None) or self._overlay.book.rng.random() < 0.5
        self._decline(old if keep_new else new, peers.DOUBLE)
        return keep_new
    patch(peers.Handshake, "resolve_double", resolve)


def never_ping(patch):
    """A silent neighbour is never asked whether it lives."""
    patch(peers, "PING_SECONDS", 1e9)


def skip_what_waits(patch):
    """A neighbour that lags is taken to know one record that was never sent."""
    def take(self):
        if self.log and self.position + 1 < self.log.end:
            self.position += 1
        return original(self)
    original = peers.Neighbour._take_records
    patch(peers.Neighbour, "_take_records", take)


def show_records_to_c_peers(patch):
    """A C program is sent a frame of the mesh."""
    def settled(self, neighbour):
        original(self, neighbour)
        neighbour.queue(join([encode_record(Kind.HERE, 1, 1, 0, b"m1", b"")]))
    original = peers.Bridge.settled
    patch(peers.Bridge, "settled", settled)


def never_take_over(patch):
    """A quiet link stays quiet when its active gateway is dead."""
    patch(peers.Bridge, "_take_over", lambda self, neighbour: None)


def never_go_quiet(patch):
    """A circle through C programs is found, and nothing is done."""
    patch(peers.Bridge, "_go_quiet", lambda self, neighbour: None)


def forget_what_is_missing(patch):
    """What a neighbour skips is not noted, so it is not shown when it comes."""
    patch(message.Holes, "add", lambda self, *hole: None)


def never_call_the_roll(patch):
    """Nobody asks who is still here after a loss."""
    patch(peers.RollCall, "begin", lambda self, must=False: None)


def deadline_in_the_past(patch):
    """The time for the next swap of links never moves."""
    patch(peers.Overlay, "_shuffle", lambda self: None)


def tell_losses_twice(patch):
    """A loss is told twice."""
    def notice(self, words, *parts):
        original(self, words, *parts)
        if words.startswith("lost contact"):
            original(self, words, *parts)
    original = peers.Actions.notice
    patch(peers.Actions, "notice", notice)


def forget_the_book(patch):
    """No address of anybody is kept."""
    patch(peers.Overlay, "learn", lambda self, neighbour, addresses: None)
    patch(peers.Book, "note", lambda self, address, origin=None: None)
    patch(peers.Book, "befriend", lambda self, address, origin: None)


def never_forget_an_address(patch):
    """All addresses are kept for ever."""
    patch(peers.Book, "note", lambda self, address, origin=None: self.heard.update({(*address, len(self.heard)): origin}))


def never_relay(patch):
    """What one neighbour says is passed on to no other."""
    def take(self, neighbour, run):
        original(self, neighbour, run)
        for other in self.links.mesh():
            other.position = self.log.end
    original = peers.Network._take_run
    patch(peers.Network, "_take_run", take)


def trust_a_clock(patch):
    """What another clock calls long ago is not announced."""
    def told(self, record, is_news):
        original(self, record, is_news and abs(self.wall - record.when) < 10)
    original = peers.Network._told
    patch(peers.Network, "_told", told)


def never_contradict(patch):
    """Whoever is called lost says nothing."""
    patch(peers.Presence, "_contradict", lambda self: None)


def list_who_was_given_up(patch):
    """An origin that somebody forged is listed again when the forgery comes late."""
    patch(peers.Presence, "_note_gone", lambda self, origin, sequence: None)


def never_call_back(patch):
    """Whoever took us for a C program is left behind its plain link until somebody speaks."""
    patch(peers.Overlay, "find", lambda self, *where: None)


def dial_old_acquaintances_at_random(patch):
    """Some have their turn again and again, others not for long."""
    def pick(self):
        self._tried.clear()
        return original(self)
    original = peers.Overlay._pick_reserve
    patch(peers.Overlay, "_pick_reserve", pick)


# Which scenario finds it within a few seeds
FINDERS = {
    skip_the_duplicate_check: "chaos",
    skip_catching_up: "chaos",
    forget_an_origin: "chaos",
    send_newest_first: "chaos",
    never_dial_again: "chaos",
    take_any_number_of_links: "crowd",
    keep_both_of_two_links: "cross",
    take_the_wrong_one_of_two_links: "cross",
    never_ping: "chaos",
    skip_what_waits: "chaos",
    show_records_to_c_peers: "chaos",
    never_take_over: "circles",
    never_go_quiet: "circles",
    forget_what_is_missing: "holes",
    never_call_the_roll: "ghosts",
    deadline_in_the_past: "chaos",
    tell_losses_twice: "chaos",
    forget_the_book: "chaos",
    never_forget_an_address: "crowd",
    never_relay: "crowd",
    trust_a_clock: "clocks",
    never_contradict: "chaos",
    list_who_was_given_up: "forgers",
    never_call_back: "stopped",
    dial_old_acquaintances_at_random: "alone",
}
BY_NAME = {mutant.__name__: mutant for mutant in FINDERS}


def apply(name):
    """Break the network of this process, as the environment variable P2PCHAT_BREAK tells conftest.py."""
    BY_NAME[name](setattr)


def main(arguments):
    """List them, or show what one does to the tests."""
    if not arguments or arguments[0] not in BY_NAME:
        for name, mutant in BY_NAME.items():
            print(f"{name:34}{mutant.__doc__}")
        return 0 if not arguments else f"there is no {arguments[0]}"
    print(inspect.getsource(BY_NAME[arguments[0]]), flush=True)
    done = subprocess.run([sys.executable, run.__file__, "--tb=line", "--maxfail", "3", *TESTS], env={**os.environ, "P2PCHAT_BREAK": arguments[0]})
    print("the tests found it" if done.returncode else "NO TEST FOUND IT")
    return not done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
