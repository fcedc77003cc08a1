"""Hostile neighbours, in a few seconds: every attack of attacker.py for a moment, and what they showed once. For minutes: torture.py.

Delays are counted in turns of the loop, and work in steps, not in seconds: a slow machine fails nothing.
"""

import contextlib
import os
import random
import re
import resource
import socket
import struct
import subprocess
import sys
import time
from collections import Counter

import pytest

import attacker
import message
import p2pchat
import peers
import ui
from attacker import ATTACKS, HERE, LEFT, Attack, Stranger, frame, greeting, lost, pair, probe, record, records
from helpers import BUILT, HUGE, PATIENCE, Member, Program, Terminal, limited, mutated, start, turn
from message import decode_record
from peers import Network, Notice, LinkKind
from test_network import Liar, everybody_speaks, network_of


@pytest.fixture
def strangers():
    """strangers(member, 3) connects so many sockets to it; all are closed after the test."""
    connected = []

    def connect(member, count=1, **options):
        connected.extend(Stranger(member.port, **options) for _ in range(count))
        return connected[-count:]

    yield connect
    for stranger in connected:
        stranger.close()


def fill(stranger, data):
    """Send it again and again until nothing more goes out."""
    stranger.sock.setblocking(False)
    try:
        while True:
            data = data[stranger.sock.send(data):] or data
    except BlockingIOError:
        stranger.sock.setblocking(True)


# What the attacks showed ----------------------------------------------------------------------------------------------

def shown(network):
    """The texts that it asked to be shown since the last time."""
    found = [text for event in network.actions if isinstance(event, peers.Show) for text in event.texts]
    network.actions.clear()
    return found


def test_whoever_said_goodbye_does_not_come_back_by_a_forged_record():
    """History: ":who" listed it until somebody was lost, which may take days."""
    network = Network(b"me", 1, random.Random(1))
    bob, liar = meet(network, "10.0.0.2", 777), meet(network, "10.6.6.6", 666)
    network.received(bob, record(HERE, 777, 1, b"bob") + record(LEFT, 777, 2, b"bob"))
    network.closed(bob, "closed the connection")
    network.received(liar, record(1, 777, 3, b"bob", b"boo") + record(HERE, 777, 4, b"bob"))
    assert not network.presence.is_here(777)


def test_hundreds_of_jumps_ahead_of_a_member_keep_nobody_from_what_it_says_next():
    """History: the oldest of 64 holes was given up, and in it was all that the member said until it took a new origin."""
    network = Network(b"me", 1, random.Random(1))
    bob, liar = meet(network, "10.0.0.2", 777), meet(network, "10.6.6.6", 666)
    network.received(bob, record(1, 777, 1, b"bob", b"one"))
    network.received(liar, b"".join(record(1, 777, 1000 * n, b"bob", b"a lie") for n in range(1, 300)))
    shown(network)
    network.received(bob, records(1, 777, 2, b"bob", [b"two", b"three"]))
    assert shown(network) == [b"two", b"three"]


def test_jumps_in_the_names_of_many_leave_each_the_hole_with_its_next_words():
    """History: half of all holes were given up by origin, each with all of its holes."""
    network = Network(b"me", 1, random.Random(1))
    liar = meet(network, "10.6.6.6", 666)
    network.received(liar, b"".join(record(1, 1000 + n, 1, b"m%d" % n, b"one") for n in range(40)))
    network.received(liar, b"".join(record(1, 1000 + n, 1000 * jump, b"m%d" % n, b"a lie") for jump in range(1, 70) for n in range(40)))
    shown(network)
    network.received(liar, b"".join(record(1, 1000 + n, 2, b"m%d" % n, b"two") for n in range(40)))
    assert shown(network) == [b"two"] * 40


def test_what_is_said_between_a_jump_and_our_new_origin_is_said_again():
    """History: only what came after the sequence that was forged was."""
    network = Network(b"me", 1, random.Random(1), wall=1_700_000_000)
    liar = meet(network, "10.6.6.6", 666)
    for number in range(2):
        network.received(liar, record(1, network.author.origin, 1000, b"me", b"a lie"))
        network.say(b"%d" % number)
    network.now += 3
    network.tick()
    assert [one.text for one in map(decode_record, network.log.read(0, network.log.end)) if one.text][-1] == b"1"


def test_a_jump_in_the_name_of_somebody_not_met_yet_does_not_mute_it():
    """History: the highest sequence heard of was taken for the first one that was ever said."""
    network = Network(b"me", 1, random.Random(1))
    bob, liar = meet(network, "10.0.0.2", 777), meet(network, "10.6.6.6", 666)
    network.received(liar, record(1, 777, 1000, b"bob", b"a lie"))
    shown(network)
    network.received(bob, records(1, 777, 1, b"bob", [b"one", b"two"]))
    network.received(bob, record(1, 777, 5, b"bob", b"five"))
    network.received(bob, record(1, 777, 4, b"bob", b"four") + record(1, 777, 4, b"bob", b"four"))
    assert shown(network) == [b"one", b"two", b"five", b"four"]


def test_older_history_of_a_second_neighbour_is_still_not_shown():
    network = Network(b"me", 1, random.Random(1))
    first = network.opened("10.0.0.2")
    network.received(first, greeting(b"bob", 777, vector={9: 500}) + record(1, 9, 500, b"al", b"five hundred"))
    second = network.opened("10.0.0.3")
    network.received(second, greeting(b"cy", 778, vector={9: 500}) + record(1, 9, 499, b"al", b"before"))
    assert shown(network) == [b"five hundred"]


def test_words_forged_at_a_gateway_cost_its_guest_no_line():
    """History: only our own words were said again under the new origin."""
    network = Network(b"me", 1, random.Random(1), wall=1_700_000_000)
    liar, dora = meet(network, "10.6.6.6", 666), network.opened("10.0.0.2")
    network.now += 1
    network.tick()
    before, forged = network.log.end, network.author.sequence + 1
    network.received(dora, pair(b"dora", b"true"))
    network.received(liar, record(2, network.author.origin, forged, b"dora", b"false"))
    network.now += 3
    network.tick()
    told = [(frame.origin, frame.text) for frame in map(decode_record, network.log.read(before, network.log.end)) if frame.kind == 2]
    assert told[0][1] == told[1][1] == b"true" and told[1][0] == network.author.origin != told[0][0]
    assert dora.take(1 << 20, 1 << 20) == b"", "she said it, and is not told so"


def test_a_jump_in_the_name_of_a_member_behind_a_c_program_does_not_mute_her():
    network = Network(b"me", 1, random.Random(1))
    liar, plain = meet(network, "10.6.6.6", 666), network.opened("10.0.0.2")
    network.received(liar, record(1, 777, 3, b"eva", b"a lie") + record(1, 777, 1000, b"eva", b"a lie"))
    network.now += 30
    network.presence._go(777, None)  # as after a roll call: nobody reaches her
    shown(network)
    network.received(plain, b"".join(attacker.marked(b"eva", b"%d" % n, 777, n, 777) for n in (1, 2, 4, 5)))
    assert shown(network) == [b"1", b"2", b"4", b"5"]


def test_what_was_forged_while_we_were_cut_off_is_said_again_once_we_are_back():
    """History: whoever had the forgery did not tell us, since our hello said that we know that sequence."""
    network = Network(b"me", 1, random.Random(1), wall=1_700_000_000)
    network.say(b"true")
    neighbour = meet(network, "10.0.0.2", 777)
    asked = neighbour.take(1 << 20, 1 << 20)
    assert frame(bytes([21]) + struct.pack("<QQQ", network.author.origin, 1, 2)) in asked
    network.now += 3
    network.received(neighbour, record(1, network.author.origin, 2, b"me", b"false"))
    again = [one.text for one in map(decode_record, network.log.read(0, network.log.end)) if one.origin == network.author.origin]
    assert again[-1] == b"true"


def test_of_more_origins_than_the_tables_hold_no_line_is_shown_twice(monkeypatch):
    """History: 16,000 old lines, and those of whoever was here first."""
    monkeypatch.setattr(message, "LOG_MESSAGES", 100)
    monkeypatch.setattr(message, "MAX_ORIGINS", 400)
    network = Network(b"me", 1, random.Random(1))
    bob, liar = meet(network, "10.0.0.2", 777), meet(network, "10.6.6.6", 666)
    network.received(bob, b"".join(record(1, 1000 + n, 1, b"al", b"first %d" % n) for n in range(50)))
    lines = [record(1, 2000 + n, 1, b"x", b"%d" % n) for n in range(3000)]
    network.received(liar, b"".join(lines))
    assert len(shown(network)) == 3050 and len(network.log.have) < 700
    again = meet(network, "10.0.0.3", 778)
    network.received(again, b"".join(record(1, 1000 + n, 1, b"al", b"first %d" % n) for n in range(50)) + b"".join(lines[-150:]))
    assert shown(network) == []


def test_squatters_from_many_hosts_do_not_keep_a_member_out():
    """History: three of them, and the true one was told that it is linked already."""
    network = Network(b"me", 1, random.Random(1))
    squatters = [meet(network, f"10.6.6.{number}", 777) for number in range(1, 4)]
    assert not any(squatter.ending for squatter in squatters)
    bob = Network(b"bob", 2, random.Random(2))
    true = network.opened("10.0.0.2")
    network.received(true, greeting(b"bob", bob.author.origin))
    assert not true.ending, "nobody claims his origin"
    network.received(true, b"")
    late = network.opened("10.0.0.3")
    network.received(late, greeting(b"al", 777))
    assert late.ending
    told, origin = late.take(1 << 20, 1 << 20), bob.author.origin
    liar = meet(bob, "10.0.0.9", 5)
    bob.received(liar, told[told.index(b"\x01" + struct.pack("<Q", 777)) - 8:].replace(struct.pack("<Q", 777), struct.pack("<Q", origin)))
    assert bob.author.origin != origin, "so told, one takes an origin that nobody claims"


# Work: every record costs the same, whatever was said before ----------------------------------------------------------

class Crowded:
    """A Network that strangers have filled: plain links, members, guests, holes, doubts; `size` says how full."""

    def __init__(self, size):
        self.network = Network(b"me", 1, random.Random(1))
        self.liar = meet(self.network, "10.6.6.6", 666)
        self.plain = [self.network.opened(f"10.7.{number // 200}.{number % 200 + 1}") for number in range(size // 8)]
        self.network.now += 1
        self.network.tick()
        for number, link in enumerate(self.plain):
            self.network.received(link, pair(b"c%d" % number, b"hi"))
        self.network.received(self.liar, b"".join(
            [record(3, 10 ** 6 + n, 1, b"n%d" % n) for n in range(size)] + [record(2, 667, 1 + n, b"g%d" % n, b"x") for n in range(size)]
            + [record(3, 10 ** 6 + n % 40, 10 ** 6 + n * 1000, b"n") for n in range(size)]
            + [record(5, 666, 1 + n, b"eve", lost(10 ** 6 + n)) for n in range(size // 2)]))

    def steps(self, make):
        """Lines of the program that are run for each of ten such records, after some."""
        self._receive(make, range(4))
        return lines_run(lambda: self._receive(make, range(4, 14)))

    def _receive(self, make, numbers):
        for number in numbers:
            self.network.received(*make(self, number))


def lines_run(call):
    """How many lines of the program a call runs."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += event == "line"
        return trace
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return count


RECORDS = {
    "a new member's words": lambda at, n: (at.liar, record(1, 2 * 10 ** 6 + n, 1, b"z%d" % n, b"hi")),
    "a new member": lambda at, n: (at.liar, record(3, 3 * 10 ** 6 + n, 1, b"y%d" % n)),
    "a guest of a new gateway": lambda at, n: (at.liar, record(2, 4 * 10 ** 6 + n, 1, b"eve", b"x%d" % n)),
    "the same words by a new gateway": lambda at, n: (at.liar, record(2, 5 * 10 ** 6 + n, 1, b"eve", b"same")),
    "a goodbye": lambda at, n: (at.liar, record(4, 10 ** 6 + n + 100, 1 << 40, b"n")),
    "a loss": lambda at, n: (at.liar, record(5, 668, 1 + n, b"eve", lost(10 ** 6 + n + 60))),
    "the loss of a gateway with many guests": lambda at, n: (at.liar, record(5, 669 + n, 1, b"eve", lost(667))),
    "a guest that is gone": lambda at, n: (at.liar, record(6, 667, (1 << 30) + n, b"g%d" % n)),
    "a jump": lambda at, n: (at.liar, record(3, 10 ** 6 + n % 7, (1 << 40) + n, b"n")),
    "what is known": lambda at, n: (at.liar, record(3, 10 ** 6 + 50 + n, 1, b"n%d" % n)),
    "a C user's words": lambda at, n: (at.plain[-1], pair(b"p%d" % n, b"x%d" % n)),
    "a mark of nobody": lambda at, n: (at.plain[-1], attacker.marked(b"m", b"x%d" % n, 7 * 10 ** 6 + n, 1, 8 * 10 ** 6 + n, "10.9.9.9", 5000)),
    "a mark of a member": lambda at, n: (at.plain[-1], attacker.marked(b"m", b"x%d" % n, 7 * 10 ** 6 + n, 1, 666)),
    "an address": lambda at, n: (at.liar, attacker.peers([(f"10.8.0.{n + 1}", 5000)])),
    "a new name": lambda at, n: (at.liar, frame(bytes([22]) + (9 * 10 ** 6 + n).to_bytes(8, "little"))),
    "a ping": lambda at, n: (at.liar, frame(b"\x11")),
}


def test_every_record_costs_the_same_whatever_was_said_before():
    """History: a LOST walked through all guests, a mark or a guest's words through all links."""
    few, many = {}, {}
    for size, steps in ((160, few), (960, many)):
        crowded = Crowded(size)
        steps.update((what, crowded.steps(make)) for what, make in RECORDS.items())
    assert {what: (few[what], many[what]) for what in RECORDS if many[what] > 1.2 * few[what] + 100} == {}


def test_nobody_can_choose_marks_whose_identities_collide():
    """History: 8,000 whose tuples had one hash made each mark cost 5 ms instead of 30 us."""
    network = Network(b"me", 1, random.Random(1))
    link = network.opened("10.6.6.6")
    network.received(link, attacker.marked(b"x", b"hi", 7, 1, 0))
    keys = [*network.bridge._carried, *link.outlet.marks]
    assert len(keys) == 2 and all(isinstance(key, bytes) for key in keys), "bytes are hashed with a secret, and tuples of numbers are not"


def test_a_lie_in_our_name_costs_what_we_said_lately_and_not_what_was_said_meanwhile():
    """History: 70,000 records of others, all said within a minute, were decoded each time: 140 ms."""
    def cost(others):
        network = Network(b"me", 1, random.Random(1), wall=1_700_000_000)
        liar = meet(network, "10.6.6.6", 666)
        network.say(b"true")
        network.received(liar, records(3, 666, 1, b"eve", [b""] * others))
        return lines_run(lambda: network.received(liar, record(1, network.author.origin, 2, b"me", b"a lie")))
    assert cost(2000) <= cost(20) + 100


def test_of_hundreds_of_links_a_few_go_quiet_and_an_honest_one_is_among_them():
    """History: each record looked at all of them, 12 ms with 800."""
    network = Network(b"me", 1, random.Random(1))
    meet(network, "10.6.6.6", 0)
    crowd, honest = [network.opened("10.6.6.7") for _ in range(3 * peers.MAX_QUIET)], network.opened("10.0.0.2")
    for link in [*crowd, honest]:
        network.received(link, attacker.marked(b"x", b"hi", 0, 1, 0))
    assert len(network.bridge._quiet) == peers.MAX_QUIET and honest.outlet.is_quiet


def test_a_mark_that_came_over_a_link_does_not_make_others_words_dearer_to_send_there():
    """History: each link that had sent a mark got pairs of its own: 500 lines to 400 of them took 1.7 s, and now 25 ms."""
    def cost(mark):
        network = Network(b"me", 1, random.Random(1))
        liar, links = meet(network, "10.6.6.6", 666), [network.opened("10.6.6.7") for _ in range(20)]
        for link in links:
            network.received(link, attacker.marked(b"x", b"hi", 7000, 1, 0) if mark else pair(b"x", b"hi"))
        for link in links:
            link.take(1 << 16, 1 << 16)
        network.received(liar, records(1, 666, 1, b"eve", [b"%d" % number for number in range(200)]))
        return lines_run(lambda: [link.take(1 << 16, 1 << 16) for link in links])
    assert cost(mark=True) < 2 * cost(mark=False) + 200 * 20


def deaf_crowd(size):
    """(network, links): so many that read nothing after each has sent a mark, when 6,000 lines were said."""
    network = Network(b"me", 1, random.Random(1))
    links, liar = [network.opened("10.6.6.7") for _ in range(size)], meet(network, "10.6.6.6", 666)
    network.now += 1
    network.tick()
    for number, link in enumerate(links):
        network.received(link, attacker.marked(b"x", b"%d" % number, 7000 + number, 1, 0))
    for number in range(60):
        network.received(liar, records(1, 666, 1 + number * 100, b"eve", [b"z" * 300] * 100))
        for link in links:
            link.waiting or link.take(500, 500)
    return network, links


def test_deaf_links_that_sent_marks_share_what_waits_for_them():
    """History: each had pairs of its own, 8 MB of them, which took 10 us each to make."""
    _, links = deaf_crowd(20)
    waiting = {id(batch): len(batch.data) for link in links for batch in link.waiting}
    assert sum(waiting.values()) < sum(link.cost for link in links) / 2


def test_deaf_links_do_not_hold_up_our_leaving_and_a_reader_gets_all_and_then_the_goodbye():
    """History: everything was made into pairs at once, for each of them: 4 s for 50, before anything else was done."""
    few, links = deaf_crowd(2)
    many, _ = deaf_crowd(20)
    lacking = few.log.end - links[0].position
    assert lines_run(many.leave) < lines_run(few.leave) + 18 * 100
    data = b"".join(iter(lambda: links[0].take(1 << 20, 1 << 20), b""))
    assert data.count(b"z" * 300) >= lacking - 2 > 1000 and data.endswith(frame(b":q"))


# Every attack, for a moment ---------------------------------------------------------------------------------------------

ROUNDS = 4  # lines that each honest person says while an attack goes on
TURNS = 60  # of the loops until a line is everywhere: an attack's own work is done by portions
REPEATED = {"forge_ahead", "forge_guests", "forge_last", "goodbyes", "jumps_of_others", "steal_names"}  # say a line at most once more; twice, if whoever forges is faster than its author
SPOKEN = {"copies", "words", "marks"}  # under honest names, as often as the liar likes
LINE = re.compile(rb": ((?:ann|bob|cy|dora) [0-9]+)\n")


class House:
    """ann, bob and cy are members; dora is at ann, as a C program's user is. All are turned in this process."""

    def __init__(self):
        self.members = [Member(name) for name in ("ann", "bob", "cy")]
        self.ann, self.bob, self.cy = self.members
        self.dora, self.screen, self.number = Stranger(self.ann.port), b"", 0
        self.seen = set()  # lines that were on dora's screen, which a flood scrolls away
        self.dora.sock.setblocking(False)
        for member in self.members:
            os.set_blocking(member.stdout_far, False)
        self.shown = {member: Counter() for member in self.members}
        self._rest = dict.fromkeys(self.members, b"")
        self.bob.join(self.ann.port), self.cy.join(self.ann.port)
        self.turn(self.is_whole)
        self.round()

    def is_whole(self):
        """Whether everybody is linked to everybody."""
        origins = {member.chat.network.author.origin for member in self.members}
        return all(origins <= member.chat.network.links.origins() | {member.chat.network.author.origin} for member in self.members)

    def turn(self, condition, attack=None):
        """Turn everybody until the condition holds. Returns how many turns that took."""
        give_up, turns = time.monotonic() + PATIENCE, 0
        while not condition():
            assert time.monotonic() < give_up, (self.lacking(), [member.err[-3:] for member in self.members])
            for member in self.members:
                member.chat.step(0.001)
            if attack is not None:
                attack.step()
            self._look()
            turns += 1
        return turns

    def _look(self):
        for member in self.members:
            with contextlib.suppress(BlockingIOError):
                data = self._rest[member] + os.read(member.stdout_far, 1 << 20)
                self.shown[member].update(LINE.findall(data))
                self._rest[member] = data[data.rfind(b"\n") + 1:]
        with contextlib.suppress(BlockingIOError):
            data = self.dora.sock.recv(1 << 20)
            assert data, "the C program was cut off"
            self.screen = self.screen[-100_000:] + data
            self.seen.update(line for line in map(self._line, self.members) if line in self.screen)

    def round(self, attack=None):
        """Everybody says a line; turn until all have all of them."""
        self.number += 1
        self.dora.say(b"dora", self._line("dora"))
        for member in self.members:
            member.type(self._line(member).decode())
        return self.turn(lambda: not self.lacking(), attack)

    def _line(self, who):
        return b"%s %d" % (b"dora" if who == "dora" else who.chat.network.name, self.number)

    def lacking(self):
        """Who has not got whose last line yet."""
        members = [(reader.chat.network.name, line) for reader in self.members for line in map(self._line, [*self.members, "dora"])
                   if line != self._line(reader) and not self.shown[reader][line]]
        return members + [("dora", line) for line in map(self._line, self.members) if line not in self.seen]

    def close(self):
        self.dora.close()
        for member in self.members:
            member.kill()


@pytest.fixture(scope="module")
def houses():
    """One house for all attacks, as long as it stands: what one leaves behind must not help the next."""
    standing = []
    yield standing
    for house in standing:
        house.close()


@pytest.mark.parametrize("name", ATTACKS)
def test_no_attack_costs_anybody_a_line_or_a_link(houses, name):
    house = houses.pop() if houses else House()
    attack, first = Attack(name, house.ann.port, scale=0.05), house.number + 1
    try:
        turns = [house.round(attack) for _ in range(ROUNDS)]
        attack.close()
        house.round()
        for member in house.members:
            member.err  # read, or its pipe would be full one day
        most = 0 if name in SPOKEN else 3 if name in REPEATED else 1
        times = {(member.chat.network.name, line): count for member, shown in house.shown.items() for line, count in shown.items()
                 if int(line.split()[1]) >= first}
        assert not most or max(times.values()) <= most, [found for found in times.items() if found[1] > most]
        assert name in REPEATED or max(turns) <= TURNS, turns
        house.turn(house.is_whole)
        check_bounds(house.ann.chat.network)
        if name not in REPEATED:  # else what was said is said again in a while
            houses.append(house)
    finally:
        attack.close()
        if house not in houses:
            house.close()


def check_bounds(network):
    """What may not grow, whoever says what."""
    log, presence, book, bridge = network.log, network.presence, network.overlay.book, network.bridge
    assert len(network.links.origins()) <= peers.MAX_MESH_LINKS
    assert log._cost <= message.LOG_BYTES and log.holes.count <= message.MAX_HOLES and len(presence.people) <= peers.MAX_MEMBERS
    assert len(book.heard) <= peers.MAX_BOOK and len(book.friends) <= peers.MAX_FRIENDS and len(book.shunned) <= peers.MAX_BOOK
    assert len(network.links.mesh()) <= peers.MAX_MESH_LINKS * peers.MAX_CLAIMS and len(presence._news._found) <= peers.MAX_NEWS
    assert len(bridge._quiet) <= peers.MAX_QUIET
    assert len(bridge._words._lines) <= peers.MAX_WORDS and len(bridge._carried) <= peers.MAX_CARRIED


def test_however_many_lines_a_c_program_brings_at_once_few_are_remembered():
    network = peers.Network(b"me", 1, random.Random(1))
    plain = network.opened("10.0.0.1")
    for turn in range(3):
        network.received(plain, b"".join(frame(b"") + frame(b"%d %d" % (turn, number)) for number in range(3000)))
        check_bounds(network)


# Liars: addresses of nobody, of others' services, of ourselves ---------------------------------------------------------

def dials_among_liars(seconds, **options):
    """Whom a member dials while three liars, again and again, link up, name new addresses and go: [address]."""
    world = network_of(2)
    target, dialled = world.members[0], []
    world.dial = lambda node, call, seconds, dial=world.dial: (
        dialled.append(call.address) if node is target else None, dial(node, call, seconds))
    for number in range(int(seconds * 1.5)):
        liar = Liar(world, origin=number + 1)
        liar.join(target, **options, addresses=[(f"10.200.{number % 200}.{part + 1}", options.get("port", 4000)) for part in range(8)])
        world.run(1 / 1.5)
        if not liar.over:
            world.close(liar.end)
    return dialled


def test_liars_get_a_few_dials_a_minute_out_of_us_however_many_addresses_they_name():
    """History: sixteen new addresses a minute for each link, and liars opened new links."""
    assert len(dials_among_liars(90)) <= peers.UNPROVEN_DIALS + 90 / peers.UNPROVEN_SECONDS + 1


@pytest.mark.parametrize("port", [1, 22, 80, 1023])
def test_ports_of_well_known_services_are_not_dialled_on_a_peers_word(port):
    assert dials_among_liars(20, port=port) == []


def test_dials_to_where_members_answered_are_not_counted():
    overlay = Network(b"me", 1, random.Random(1)).overlay
    overlay.book.prove(("10.1.0.1", 4000))
    for number in range(2 * peers.UNPROVEN_DIALS):
        overlay.dial(peers.Attempt(("10.1.0.1", 4000)))
    assert overlay._unproven.has_one(0)


# Crowds ---------------------------------------------------------------------------------------------------------------

@pytest.fixture
def few_links(monkeypatch):
    monkeypatch.setattr(peers, "MAX_LINKS", 12)
    monkeypatch.setattr(peers, "STRANGER_SECONDS", 0.05)
    monkeypatch.setattr(p2pchat, "ACCEPT_PAUSE", 0.02)


@pytest.mark.parametrize("crowd", [b"", pair(b"eve", b"x")[:12], probe(b"eve", 5, 0), pair(b"eve", b"x")])
def test_a_crowd_shuts_out_neither_a_newcomer_nor_a_quiet_user(members, strangers, few_links, crowd):
    """History: 1,024 connections that said nothing shut out everybody, for ever."""
    ann, = members("ann")
    (dora,), (cy,) = strangers(ann, host="127.0.0.4"), strangers(ann)  # cy's host is the crowd's, but cy was there first
    turn([ann], lambda: ann.chat.network.bridge.silent == 2 and not strangers_of(ann))
    many = strangers(ann, 60)
    for one in many:
        one.send(crowd)
    turn([ann], lambda: len(ann.chat.links) >= 12)
    bob = strangers(ann, host="127.0.0.5")[0]
    bob.say(b"bob", b"I am in")
    turn([ann], lambda: "bob: I am in" in ann.out)
    dora.say(b"dora", b"so am I")
    turn([ann], lambda: "dora: so am I" in ann.out)
    cy.say(b"cy", b"and I")
    turn([ann], lambda: "cy: and I" in ann.out)
    assert len(ann.chat.links) <= peers.MAX_LINKS
    assert sum("nobody new" in line for line in ann.err) <= 1


def test_talkers_from_as_many_hosts_as_there_are_places_keep_no_newcomer_out():
    """History: where no host had two links, nobody made way."""
    network = Network(b"me", 1, random.Random(1))
    links = [network.opened(f"10.7.0.{number}") for number in range(10)]
    for number, link in enumerate(links):
        network.now += 1
        network.received(link, pair(b"c%d" % number, b"hi"))
    assert network.make_way()
    assert [link.ending for link in links] == [False] * 5 + [True] + [False] * 4, "of those who came last the longest silent"


def strangers_of(member):
    return [one for one in member.chat.network.neighbours if one.kind is LinkKind.STRANGER]


def test_without_descriptors_silent_strangers_give_way_to_those_who_speak():
    with Program("ann", "--bind", "127.0.0.1", before=limited(resource.RLIMIT_NOFILE, 32)) as ann:
        crowd = [Stranger(ann.port) for _ in range(40)]
        with Stranger(ann.port) as bob:
            bob.say(b"bob", b"I am in")
            ann.wait(lambda program: "bob: I am in" in program.out)
            crowd[0].say(b"first", b"so am I")
            ann.wait(lambda program: "first: so am I" in program.out)
        for stranger in crowd:
            stranger.close()
        assert ann.end() == 0


# Notices --------------------------------------------------------------------------------------------------------------

def come_and_go(network, number):
    """A plain stranger for half a second."""
    network.closed(talk(network, pair(b"x%d" % number, b"hi")), "broke the connection off")


def garble(network, number):
    """A plain stranger whose message has a wrong checksum."""
    network.closed(talk(network, attacker.marked(b"x", b"hi", 5, 1, 6)[:-1] + b"!"), "broke the connection off")


def say_goodbye(network, number):
    """A plain stranger who leaves under another name."""
    network.closed(talk(network, pair(b"x", b"hi") + pair(b"y%d" % number, b":q")), "left")


def talk(network, data):
    neighbour = network.opened("10.0.0.1")
    network.received(neighbour, data)
    return neighbour


def invent_a_member(network, number):
    network.presence.here(number, b"n%d" % number, True)


def lose_a_member(network, number):
    network.presence.here(number, b"n%d" % number, False)
    network.presence._go(number, "lost")


@pytest.mark.parametrize("coming", [come_and_go, garble, say_goodbye, invent_a_member, lose_a_member])
def test_thousands_who_come_and_go_are_counted_and_not_named(coming):
    """History: each of them was a line, and a line, and the chat could not be read."""
    network = Network(b"me", 1, random.Random(1))
    told, now = [], 0.0
    for number in range(2000):
        coming(network, number)
        now = network.now = now + 0.01
        network.tick()
        told += [event for event in network.actions if isinstance(event, Notice)]
        network.actions.clear()
    network.now += 2 * peers.NOTICE_SECONDS
    network.tick()
    told += network.actions
    assert len(told) <= peers.NOTICES + 20 / peers.NOTICE_SECONDS + 2
    counted = [int(part.replace(",", "")) for notice in told for part in notice.parts if isinstance(part, str) and part[0].isdigit() and "." not in part]
    assert sum(counted) > 1900


def test_namesakes_who_come_and_go_all_day_are_told_now_and_then():
    """History: every two seconds."""
    network = Network(b"me", 1, random.Random(1))
    liar, told = meet(network, "10.6.6.6", 666), []
    for number in range(1, 600):
        network.received(liar, record((LEFT, HERE)[number % 2], 777, number, b"me"))
        network.tick()
        network.now += 2
        network.tick()
        told += [event for event in network.actions if isinstance(event, Notice) and "also called" in event.words]
        network.actions.clear()
    assert 0 < len(told) <= peers.NOTICES + 600 * 2 / peers.NOTICE_SECONDS


@pytest.mark.parametrize("data", [pair(b"x", b"hi"), greeting(b"x", 5) + record(HERE, 5, 1, b"x")])
def test_a_stranger_who_comes_and_goes_all_day_is_told_now_and_then_where_nobody_else_is(data):
    """History: that nobody is connected was said every two seconds."""
    network = Network(b"me", 1, random.Random(1))
    for _ in range(300):
        link = network.opened("10.0.0.1")
        network.received(link, data)
        network.closed(link, "broke the connection off")
        network.now += 2
        network.tick()
    told = sum(isinstance(event, Notice) for event in network.actions)
    assert told <= peers.NOTICES + 600 / peers.NOTICE_SECONDS + 2 * 600 / peers.AGAIN_SECONDS


def test_of_members_who_come_faster_than_our_user_is_told_only_the_number_is_remembered():
    """History: 200,000 of them were 200 MB, until it was their turn."""
    network = Network(b"me", 1, random.Random(1))
    for number in range(2 * peers.MAX_NEWS):
        invent_a_member(network, number)
    assert len(network.presence._news._found) == peers.MAX_NEWS
    network.now += 3
    network.tick()
    assert [action.parts[-1] for action in network.actions] == ["1,000", "999"]


def test_of_thousands_of_names_who_tab_and_ignore_clean_a_few_hundred(members):
    """History: 9,000 of a stranger's names took 1.7 s; and in line mode the answer was longer than what is kept for stderr: none."""
    ann, = members("ann")
    network, screen = ann.chat.network, ui.Screen()
    for number in range(999):
        network.presence.here(number, "n\u0301{}".format(number).encode() * 20, False)
    network.presence.here(999, "Zoë".encode(), False)
    screen.here([person.label for person in network.who()])
    ui.cleaned_name.cache_clear()
    ann.chat.commands.obey(":who")
    ann.chat.step(0)
    assert "1,000 others here" in ann.err[-1] and ann.err[-1].endswith("and 750 more")
    assert len(screen._completions("", True)) == ui.NAMES_COMPLETED
    ann.chat.commands.obey(":ignore zoë")
    ann.chat.step(0)
    assert ann.err[-1] == "-- ignoring zoë; :unignore NAME shows them again", "however many came before"
    assert ui.cleaned_name.cache_info().misses <= max(p2pchat.MAX_LISTED, ui.NAMES_COMPLETED) + 2


# A full disk, a closed stdout, a terminal that is gone, a clock that jumps --------------------------------------------

@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("typed", [None, b"hi\n", b""])
def test_a_full_disk_ends_it_with_one_sentence_and_status_1(typed):
    """History: status 0, and a script went on as if its log were there."""
    with open("/dev/full", "wb") as full, start(None, "log", stdin=subprocess.PIPE, stdout=full, stderr=subprocess.PIPE) as log:
        if typed is None:
            assert log.wait(PATIENCE) == 1, "though its input goes on"
        _, err = log.communicate(typed, timeout=PATIENCE)
    assert log.returncode == 1 and err.count(b"No space left on device") == 1 and b"Traceback" not in err


def test_a_log_that_reaches_the_file_size_limit_ends_with_one_sentence_and_status_1(tmp_path):
    with Program("hub") as hub, open(tmp_path / "log", "wb") as file:
        log = start(None, "log", "127.0.0.1", hub.port, before=limited(resource.RLIMIT_FSIZE, 512),
                    stdin=subprocess.PIPE, stdout=file, stderr=subprocess.PIPE)
        hub.wait(lambda program: any("log joined" in line for line in program.err))
        hub.type(*["x" * 100] * 20)
        hub.wait(lambda program: "-- log left" in program.err)
        _, err = log.communicate(timeout=PATIENCE)
    assert log.returncode == 1 and err.count(b"File too large") == 1 and b"Traceback" not in err


def test_saving_to_a_full_disk_is_said_and_the_chat_goes_on(tmp_path):
    ann = Terminal("ann", before=limited(resource.RLIMIT_FSIZE, 512))
    try:
        for number in range(30):
            ann.type(b"x" * 70 + b"%d\r" % number)
        ann.type(f":save {tmp_path}/log\r".encode())
        ann.wait(lambda terminal: any("can't save to" in row for row in terminal.rows))
        ann.type(b"still here\r")
        ann.shows("ann: still here")
    finally:
        ann.close()


@pytest.mark.parametrize("closed, shows", [(">&-", False), ("2>&-", True), ("<&-", True), ("<&- >&- 2>&-", False)])
def test_with_closed_streams_it_chats_on_or_ends(closed, shows):
    """A socket that got such a number would be sent what our user is told."""
    with Program("hub") as hub:
        command = f'echo hi | "$P" bot 127.0.0.1 {hub.port} {closed}'
        done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=PATIENCE, env={**os.environ, "P": BUILT})
        assert done.returncode == 0 and b"Traceback" not in done.stderr
        assert done.stdout.startswith(b"SERVER: ") == shows
        hub.wait_alone()
        assert ("bot: hi" in hub.out) == ("<&-" not in closed)


def test_a_socket_for_stdout_that_hangs_up_ends_it_quietly():
    near, far = socket.socketpair()
    with Program("hub") as hub, near:
        log = start(None, "log", "127.0.0.1", hub.port, stdin=subprocess.PIPE, stdout=far, stderr=subprocess.PIPE)
        far.close()
        hub.wait(lambda program: any("log joined" in line for line in program.err))
        near.close()
        hub.type("is anybody there?")
        hub.wait(lambda program: "-- log left" in program.err)
        _, err = log.communicate(timeout=PATIENCE)
    assert log.returncode == 0 and b"Traceback" not in err


@pytest.mark.parametrize("jump", [-2 * 10 ** 9, -3600, 3600, 10 ** 9, 2 ** 32])
def test_a_wall_clock_that_jumps_changes_marks_and_nothing_else(jump):
    """History: a clock before 1970 or after 2106 ended the program with a traceback."""
    world = network_of(4)
    victim, other = world.members[:2]
    everybody_speaks(world)
    world.run(2)
    links = set(victim.mesh())
    victim.skew = jump
    for _ in range(3):
        everybody_speaks(world)
        world.run(40)
    assert set(victim.mesh()) == links
    late = world.member(skew=-jump)
    late.join(victim)
    world.run(5)
    everybody_speaks(world)
    world.run(5)
    world.check_complete()


# Links that are none --------------------------------------------------------------------------------------------------

def test_strangers_with_half_a_hello_do_not_keep_us_from_looking_for_others():
    """History: each counted as a link for five seconds, and five of them, again and again, kept a lost member lost."""
    network = Network(b"me", 1, random.Random(1))
    network.overlay.book.note(("10.1.0.1", 4000))
    for number in range(peers.WANT_LINKS):
        network.received(network.opened(f"10.2.0.{number}"), probe(b"eve", number + 1, 0))
    network.tick()
    assert [event.attempt.address for event in network.actions if isinstance(event, peers.Connect)] == [("10.1.0.1", 4000)]


def test_one_host_cannot_push_the_others_off_our_links():
    """History: who asks urgently gets a link, and a random other had to go: eight such left nobody else."""
    network = Network(b"me", 1, random.Random(1))
    honest = [meet(network, f"10.1.0.{number}", number + 1) for number in range(6)]
    for number in range(40):
        network.now += 1
        meet(network, "10.9.9.9", 100 + number)
    assert all(neighbour in network.neighbours for neighbour in honest)
    assert len(network.neighbours) == peers.MAX_MESH_LINKS


def test_strangers_who_turn_out_to_have_one_origin_do_not_take_all_places():
    """History: they counted as one, each stayed, and nobody made way for a newcomer: 1,024 links, for as long as they liked."""
    network = Network(b"me", 1, random.Random(1))
    for number in range(40):
        network.received(meet(network, f"10.6.6.{number}", 100 + number), frame(message.encode_renamed(5)))
    assert len([link for link in network.neighbours if not link.ending]) <= peers.MAX_CLAIMS


def test_whoever_we_joined_through_cannot_make_what_others_say_later_look_earlier():
    """History: its hello said that it knew everything that a member was ever going to say, and that was believed for ever."""
    network = Network(b"me", 1, random.Random(1))
    network.join("eve", [("10.6.6.6", 4000)])
    liar = network.opened("10.6.6.6", network.overlay.attempts[0])
    network.received(liar, frame(attacker.hello(b"eve", 666, vector={777: 2 ** 64 - 1})))
    bob = meet(network, "10.0.0.2", 777)
    network.now += peers.BEFORE_SECONDS
    network.tick()
    network.received(bob, record(1, 777, 1, b"bob", b"now"))
    assert [action.earlier for action in network.actions if isinstance(action, peers.Show)] == [0]


def meet(network, host, origin):
    """A member that dialled us urgently and greeted; hang-ups are carried out."""
    neighbour = network.opened(host)
    network.received(neighbour, greeting(b"m%d" % origin, origin))
    for event in [event for event in network.actions if isinstance(event, peers.Hangup)]:
        network.closed(event.neighbour, event.reason)
    network.actions.clear()
    return neighbour


# Who does not read, or little ----------------------------------------------------------------------------------------------------

def test_whoever_reads_little_holds_a_bots_input_for_a_moment_only(members, monkeypatch):
    """History: for 17 seconds, and another 16 when it left; newcomers, who lack everything, held it for ever."""
    monkeypatch.setattr(p2pchat, "HOLD_SECONDS", 0.1)
    monkeypatch.setattr(p2pchat, "SLOW_SECONDS", 1000)  # what it reads now and then keeps it from being stuck
    monkeypatch.setattr(peers, "LOG_MESSAGES", 40)
    ann, = members("ann")
    with Stranger(ann.port, window=4096) as slow:
        slow.send(greeting(b"slow", 666))
        turn([ann], lambda: ann.chat.network.links.mesh())
        for link in ann.chat.links.values():
            link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        for number in range(30):
            ann.type(*["x" * 2000] * 10)
            turn([ann], lambda: ann.chat.network.author.sequence > 10 * number)
        assert ann.chat.network.links.mesh(), "and it is still linked"


def test_c_peers_that_do_not_read_share_what_waits_for_them(monkeypatch):
    """So that a thousand of them cost what one does, whenever each stopped reading."""
    monkeypatch.setattr(peers, "MAX_BACKLOG", 1 << 20)
    monkeypatch.setattr(peers, "LOG_MESSAGES", 40)
    monkeypatch.setattr(peers, "CONVERTED", 4)
    monkeypatch.setattr(peers, "MAX_CONVERTED", 1000)
    network = Network(b"me", 1, random.Random(1))
    stuck, reader = [], network.opened("10.0.0.2")
    for number in range(1200):
        if number % 20 == 0:
            stuck.append(network.opened("10.0.0.1"))
        network.now += 1.0
        network.tick()
        network.say(b"%d" % number + b"x" * 1000)
        reader.take(1 << 20, 1 << 20)
    waiting = {id(batch): len(batch.data) for neighbour in stuck for batch in neighbour.waiting}
    assert sum(waiting.values()) <= peers.MAX_BACKLOG * 1.1 and sum(len(each.waiting) for each in stuck) > 10 * len(waiting)
    assert 0 < sum(neighbour.ending for neighbour in stuck) < len(stuck) and not reader.ending


def test_a_crowd_of_newcomers_does_not_delay_known_members(members, strangers, monkeypatch):
    """A hello costs milliseconds where the log is full, and a crowd may send a hundred of them at once."""
    monkeypatch.setattr(p2pchat, "LINK_SECONDS", PATIENCE)  # what bob says costs little, however slow the machine is
    ann, = members("ann")
    bob, = strangers(ann)
    bob.say(b"bob", b"first")
    turn([ann], lambda: "bob: first" in ann.out)
    crowd = strangers(ann, 30)
    turn([ann], lambda: len(ann.chat.links) == 31)
    monkeypatch.setattr(p2pchat, "TURN_SECONDS", 0)
    for number, stranger in enumerate(crowd):
        stranger.send(probe(b"eve", number + 1, 0))
    bob.say(b"bob", b"second")
    greeted = len([one for one in ann.chat.network.neighbours if one.kind is LinkKind.GREETING])
    ann.chat.step()
    assert "bob: second" in ann.out
    assert len([one for one in ann.chat.network.neighbours if one.kind is LinkKind.GREETING]) == greeted + 1, "one a turn, when time is up"
    turn([ann], lambda: not strangers_of(ann))


def test_callers_however_many_take_turns_with_the_links_that_we_have():
    """History: each of hundreds of callers had as large a part of a turn as a member had, and a member was cut off for half a minute."""
    network, read = Network(b"me", 1, random.Random(1)), []
    known = [meet(network, "10.0.0.2", 2), network.opened("10.0.0.3", peers.Attempt(("10.0.0.3", 4000)))]
    reader = p2pchat.FairReader(lambda link, size: read.append((link.neighbour, size)) or size, lambda: None)
    near, far = socket.socketpair()
    with near, far:
        links = [p2pchat.Link(near, neighbour) for neighbour in [*(network.opened("10.6.6.6") for _ in range(50)), *known]]
        for link in links:
            reader.add(link)
        for _ in range(8):
            for link in links:
                reader.read(link)
            reader.read_waiting(0)  # the time is long up: one link is read
    assert [[neighbour for neighbour, _ in read].count(one) for one in known] == [2, 2] and len(read) == 8
    assert max(size for one, size in read if one not in known) == p2pchat.READ_SIZE // (2 * 50)  # as much together as those


# Rubbish --------------------------------------------------------------------------------------------------------------

UNSHOWN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


class Fed:
    """A Network with two other neighbours, a C peer and a member, which take bytes from a stranger and must stay whole."""

    def __init__(self, mesh):
        self.rng = random.Random(1)
        self.network = Network(b"me", 40000, self.rng)
        self.third, self.fourth = self.network.opened("10.1.0.1"), meet(self.network, "10.1.0.2", 2)
        self.network.now = 1.0
        self.network.tick()
        self.stranger = meet(self.network, "10.6.6.6", 666) if mesh else self.network.opened("10.6.6.6")
        self.network.actions.clear()
        self.cleaned = []

    def feed(self, data):
        """In pieces of a random size, as long as the link is held open; then everything must be as it was."""
        at = 0
        while at < len(data) and not self.stranger.ending:
            piece = self.rng.choice((1, 7, 100, 5000))
            self.network.received(self.stranger, data[at:at + piece])
            at += piece
        self._look()
        assert self.third in self.network.neighbours and self.fourth in self.network.neighbours
        assert not self.third.ending and not self.fourth.ending
        assert len(self.stranger.frames._rest) <= 2 * (message.MAX_FRAME + message.HEADER_SIZE)
        assert len(self.network.presence.people) <= peers.MAX_MEMBERS and len(self.network.overlay.book.heard) <= peers.MAX_BOOK

    def _look(self):
        """Show what the network asks to be shown, as the screen and line mode would."""
        for event in self.network.actions:
            if isinstance(event, peers.Show):
                self.cleaned += [ui.clean_name(event.name), *map(ui.clean_text, event.texts)]
            if isinstance(event, Notice):
                self.cleaned += [ui.clean_name(part) if isinstance(part, bytes) else part for part in event.parts]
        self.network.actions.clear()
        bad = [text for text in self.cleaned if UNSHOWN.search(text)]
        assert not bad, bad
        self.cleaned.clear()


def stream(mesh, rng):
    """What a neighbour really says, with every kind of record and text in it."""
    if not mesh:
        return b"".join(pair(b"eve", bytes(rng.choices(range(256), k=rng.randrange(40)))) for _ in range(20))
    logged = [record(kind, rng.choice((2, 666, 7)), number + 1, b"n%d" % (number % 3), bytes(rng.choices(range(256), k=rng.randrange(40))))
              for number, kind in enumerate((1, 2, 3, 4, 5, 6) * 3)]
    between = [frame(bytes([kind])) for kind in (17, 18)] + [attacker.peers([("10.7.0.1", 5000)])]
    return b"".join(rng.sample(logged + between, len(logged) + len(between)))


@pytest.mark.parametrize("mesh", [False, True], ids=["plain", "mesh"])
def test_mutated_streams_hurt_nobody_and_show_nothing_unclean(mesh):
    for seed in range(150):
        rng = random.Random(seed)
        Fed(mesh).feed(mutated(stream(mesh, rng), rng))


@pytest.mark.parametrize("mesh", [False, True], ids=["plain", "mesh"])
def test_random_bytes_hurt_nobody(mesh):
    for seed in range(60):
        rng = random.Random(seed)
        Fed(mesh).feed(rng.getrandbits(8 * 300).to_bytes(300, "little"))
        Fed(mesh).feed(frame(rng.getrandbits(8 * 200).to_bytes(200, "little")) * 3)


@pytest.mark.parametrize("mesh", [False, True], ids=["plain", "mesh"])
def test_a_stream_may_end_anywhere(mesh):
    data = stream(mesh, random.Random(3))
    for stop in range(0, len(data), 7):  # every place of a header, a name and a text sooner or later
        fed = Fed(mesh)
        fed.feed(data[:stop])
        fed.network.closed(fed.stranger, "closed the connection")
        fed.feed(b"")


@pytest.mark.parametrize("mesh", [False, True], ids=["plain", "mesh"])
def test_frames_of_every_length(mesh):
    for length in [*range(70), *range(70, 2050, 99), 2047, 2048, *HUGE]:
        fed = Fed(mesh)
        fed.feed(length.to_bytes(8, "little") + b"\x01" * min(length, 70_000) + pair(b"x", b"y"))
        limit = message.MAX_FRAME
        assert fed.stranger.ending or length <= limit


def test_probes_and_hellos_of_rubbish_hurt_nobody():
    for seed in range(150):
        rng = random.Random(seed)
        start = greeting(b"eve", 666, rng.randrange(65536), [("10.7.0.1", 5000), ("x" * 9, 1)], {n: n for n in range(5)})
        Fed(False).feed(mutated(start, rng) + stream(True, rng))


def test_every_code_point_and_every_byte_is_harmless_in_names_and_texts():
    fed = Fed(False)
    everything = [chr(point).encode("utf-8", "surrogatepass") for point in [*range(0x900), *range(0x2000, 0x2100), *range(0xd7f0, 0xe010), *range(0xfe00, 0x10010),
                                                                         *range(0x1f1e0, 0x1f200), *range(0xe0000, 0xe0200)]]
    everything += [bytes([one, other]) for one in range(0x80, 256) for other in (0x00, 0x1b, 0x41, 0x80, 0xbf, 0xff)]
    for start in range(0, len(everything), 50):
        for piece in everything[start:start + 50]:
            fed.network.actions.append(peers.Show(b"a" + piece + b"b", [b"a" + piece + b"b"]))
        mixed = b"".join(everything[start:start + 50])
        fed.network.actions.append(peers.Show(mixed, [mixed]))
    fed.feed(b"")


def test_rubbish_through_real_sockets_leaves_a_strict_terminal_whole():
    """The model raises on any sequence that it does not know; so would a terminal that is not so strict, in its way."""
    ann = Terminal("ann", rows=150, cols=60)  # a busy machine may show all that the sixty cost at once
    try:
        for seed in range(60):
            rng = random.Random(seed)
            with Stranger(ann.port) as stranger, contextlib.suppress(OSError):
                stranger.send(greeting(b"eve", seed + 1) * (seed % 2) + mutated(stream(seed % 2 == 1, rng), rng))
        with Stranger(ann.port) as stranger:
            stranger.say(b"bob", b"all is well")
            ann.wait(lambda terminal: "bob: all is well" in terminal.said)
        assert ann.rows[0].startswith(f"SERVER: {ann.port}") and not any(UNSHOWN.search(row) for row in ann.rows)
    finally:
        ann.close()


# Memory ---------------------------------------------------------------------------------------------------------------

def test_forging_our_name_again_and_again_costs_bounded_memory_and_does_not_mute_us():
    """History: each time we take another origin, and all of them were remembered."""
    network = Network(b"me", 1, random.Random(1))
    liar = meet(network, "10.6.6.6", 666)
    for _ in range(500):
        network.now += peers.RENEW_SECONDS
        network.received(liar, record(1, network.author.origin, 2 ** 64 - 1, b"me", b"a lie"))
        network.actions.clear()
    assert len(network.author.origins) <= peers.MAX_OWN
    before = network.log.end
    network.say(b"the truth")
    assert [(record.origin, record.text) for record in map(decode_record, network.log.read(before, network.log.end))] == [(network.author.origin, b"the truth")]


def test_the_names_behind_plain_links_are_bounded_in_bytes():
    """History: 256 names of 2 KB on each of a thousand links were half a gigabyte."""
    network = Network(b"me", 1, random.Random(1))
    neighbour = network.opened("10.0.0.1")
    for number in range(300):
        network.received(neighbour, pair(b"%04d" % number + b"x" * 2000, b"hello") + pair(b"%04d" % number, b"hi"))
    assert len(neighbour.names) == peers.MAX_GUESTS and sum(map(len, neighbour.names)) <= peers.MAX_GUESTS * peers.MAX_GUEST_NAME
    assert sum(isinstance(event, peers.Show) for event in network.actions) == 600, "and all is shown"
    many = [network.opened("10.0.0.1") for _ in range(50)]
    for link in many:
        network.received(link, b"".join(pair(b"%d" % number, b"hello") for number in range(100)))
    assert sum(len(link.names) for link in many) <= peers.MAX_BEHIND, "the links share them"


def test_what_a_named_c_program_was_sent_is_remembered_as_far_as_it_may_be_on_its_way():
    """History: the last 4,096 pieces, which are 64 KB each where the network is this machine: 260 MB after a flood."""
    network = Network(b"me", 1, random.Random(1))
    network.join("c", [("10.0.0.2", 4000)])
    link, liar = network.opened("10.0.0.2", network.overlay.attempts[0]._replace(plain=True)), meet(network, "10.6.6.6", 666)
    for number in range(12):
        network.received(liar, records(1, 666, 1 + 50 * number, b"eve", [b"x" * 30_000] * 50))
        while link.take(1 << 16, 1 << 17):
            pass
    assert abs(link._stream_end - link._stream[0][0] - peers.MAX_BACKLOG) < 10 ** 6 < peers.MAX_BACKLOG < link._stream_end


def test_the_last_link_may_end_while_it_is_quiet_and_its_words_wait():
    """History: the names were shared by as many links as there were: none."""
    network = Network(b"me", 1, random.Random(1))
    meet(network, "10.6.6.6", 0)
    link = network.opened("10.0.0.1")
    network.received(link, attacker.marked(b"x", b"hi", 0, 1, 0) + pair(b"cu", b"wait"))
    network.closed(link, "closed the connection")
    assert shown(network)[-1:] == [b"wait"]


def test_long_words_of_c_users_are_not_kept_to_compare_them():
    """History: 4,096 lines of 60 KB were 146 MB, and each line of a link that was gone kept that link's buffer."""
    network = Network(b"me", 1, random.Random(1))
    neighbour = network.opened("10.0.0.1")
    network.received(neighbour, frame(b"cu") + frame(b"x" * 60_000))
    lines = network.bridge._words._lines
    assert set(map(type, lines)) == {int} and set(lines.values()) == {(network.now, peers.OURSELVES, neighbour.outlet.number)}


def test_a_forged_mark_does_not_keep_the_true_words_from_a_c_program():
    """History: whatever came over the link under an identity counted as those words."""
    network = Network(b"me", 1, random.Random(1))
    neighbour = network.opened("10.0.0.1")
    network.now += 1
    network.tick()
    bob = meet(network, "10.0.0.2", 777)
    forged = record(1, 777, 1, b"bob", b"a lie")
    network.received(neighbour, message.Marker(4711, "", 0).encode(0, [forged]).data)
    network.received(bob, record(1, 777, 1, b"bob", b"the truth"))
    data = b""
    while neighbour.backlog:
        data += neighbour.take(1 << 20, 1 << 20)
    assert b"the truth" in data


@pytest.mark.parametrize("data", [attacker.marked(b"x" * 65487, b"hi", 5, 1, 6), attacker.marked(b"x" * 3000, b"hi", 5, 1, 6),
                                  attacker.marked(b"x", b"h" * 65536, 5, 1, 6), pair(b"x\xff", b"h" * 65536)])
def test_a_gateway_passes_nothing_on_that_other_members_would_refuse(data):
    """History: it ended with a traceback, or put a record into the log for which every member hung up on it, again and again."""
    gateway, bob = Network(b"me", 1, random.Random(1)), Network(b"bob", 2, random.Random(2))
    gateway.received(gateway.opened("10.6.6.6"), data)
    gateway.say(b"after that")
    link, there = meet(gateway, "10.0.0.2", 777), meet(bob, "10.0.0.1", 778)
    told = b"".join(iter(lambda: link.take(1 << 20, 1 << 20), b""))
    bob.received(there, told[told.index(record(3, gateway.author.origin, 1, b"me", when=0)):])
    assert not there.ending and shown(bob)[-1] == b"after that"


def test_invented_gateways_do_not_mute_a_c_user():
    """History: beside 16 that told his line, nobody's next telling of it counted."""
    network = Network(b"me", 1, random.Random(1))
    gateway, liar = meet(network, "10.0.0.2", 777), meet(network, "10.6.6.6", 666)
    network.received(liar, b"".join(record(2, 1000 + n, 1, b"cu", b"ok") for n in range(16)))
    network.actions.clear()
    for sequence in range(1, 6):
        network.now += 1
        network.received(gateway, record(2, 777, sequence, b"cu", b"ok"))
    assert sum(isinstance(event, peers.Show) for event in network.actions) >= 4


def test_invented_gateways_of_one_guest_are_bounded(monkeypatch):
    monkeypatch.setattr(peers, "MAX_MEMBERS", 1000)
    network = Network(b"me", 1, random.Random(1))
    liar = meet(network, "10.6.6.6", 666)
    for start in range(0, 3000, 1000):
        network.received(liar, b"".join(record(2, start + n + 1, 1, b"cu", b"%d" % (start + n)) for n in range(1000)))
        network.actions.clear()
    assert len(network.presence._guests) <= peers.MAX_MEMBERS
    assert all(len(person.gateways) <= peers.MAX_GATEWAYS for person in network.presence.people.values())


def test_a_crowd_that_misses_us_is_contradicted_once():
    """History: one answer for each, and each of them looked through all that were given before: 1.8 ms a record."""
    network = Network(b"me", 1, random.Random(1))
    liar = meet(network, "10.6.6.6", 666)
    before = network.author.sequence
    lost = message.encode_lost(network.author.origin, 0)
    network.received(liar, b"".join(record(5, 666, n, b"liar", lost) for n in range(1, 3000)))
    assert network.author.sequence == before + 1
    network.now += 1
    network.tick()
    assert network.author.sequence == before + 2


def test_forging_our_first_words_does_not_make_us_say_everything_again():
    """History: 5,000 lines came again at every member, and every two seconds if the liar liked."""
    network = Network(b"me", 1, random.Random(1), wall=1_700_000_000)
    liar = meet(network, "10.6.6.6", 666)
    network.say(*[b"%d" % number for number in range(500)])
    network.now, network.wall = network.now + 90, network.wall + 90
    network.say(b"just now")
    before = network.log.end
    network.received(liar, record(1, network.author.origin, 2, b"me", b"a lie"))
    again = [record.text for record in map(decode_record, network.log.read(before, network.log.end)) if record.kind == message.Kind.SAY]
    assert again == [b"0", b"just now"]  # what was forged, and what may not have reached everybody yet


def test_a_stranger_under_a_members_origin_does_not_rename_it_away():
    network = Network(b"me", 1, random.Random(1))
    bob = meet(network, "10.0.0.2", 777)
    network.received(bob, record(message.Kind.HERE, 777, 1, b"bob", b""))
    network.received(meet(network, "10.6.6.6", 777), frame(message.encode_renamed(4242)))
    assert network.presence.is_here(777) and not bob.ending


def test_what_a_neighbour_is_known_to_have_is_bounded_though_it_reads_nothing(monkeypatch):
    """History: 400,000 invented origins were 320 MB, and all of it was kept until it read."""
    monkeypatch.setattr(peers, "LOG_MESSAGES", 2000)
    network = Network(b"me", 1, random.Random(1))
    liar = meet(network, "10.6.6.6", 666)
    for start in range(1, 6000, 1000):
        network.received(liar, b"".join(record(message.Kind.HERE, start + n, 1, b"g", b"") for n in range(1000)))
        network.actions.clear()
    assert len(liar.seen) <= peers.LOG_MESSAGES // 4 + 1
