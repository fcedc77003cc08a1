"""Whole programs: several of them turned in this process, C peers beside them, and the built file as a user runs it."""

import contextlib
import errno
import os
import random
import re
import resource
import secrets
import select
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys

import pytest

import message
import p2pchat
import peers
from cpeer import CPeer
from helpers import BUILT, PATIENCE, TOP, Program, encode_pair, limited, python, run, start, turn, unused_port
from attacker import greeting


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    """The pauses of members turned in this process, a fifth as long; the built program keeps its own."""
    for module, name in ((peers, "PROBE_SECONDS"), (peers, "STRANGER_SECONDS"), (peers, "REDIAL_FIRST"), (p2pchat, "SLOW_SECONDS")):
        monkeypatch.setattr(module, name, getattr(module, name) / 5)
    monkeypatch.setattr(peers, "NEWS_SECONDS", {verb: seconds / 20 for verb, seconds in peers.NEWS_SECONDS.items()})
    monkeypatch.setattr(peers, "SUSPECT_SECONDS", (0.2, 0.4))
    monkeypatch.setattr(p2pchat, "ACCEPT_PAUSE", 0.2)


@pytest.fixture
def cpeers():
    started = []

    def start(*names, **options):
        started.extend(CPeer(name, **options) for name in names)
        return started[-len(names):]

    yield start
    for peer in started:
        peer.kill()


def link(members, *pairs):
    """Have the first of each pair join the second, one after the other."""
    for one, other in pairs:
        one.join(other.port)
        turn(members, lambda one=one, other=other: one.joined)
    turn(members, lambda: sum(len(member.chat.links) for member in members) >= 2 * len(pairs))


def said(member):
    return [line for line in member.out]


# What one says reaches all --------------------------------------------------------------------

def test_a_text_goes_from_the_first_to_the_third_by_way_of_the_second(members):
    ann, bob, cy = trio = members("ann", "bob", "cy")
    link(trio, (bob, ann), (cy, bob))
    ann.type("hi :)")
    turn(trio, lambda: cy.out)
    cy.type("zoë 世界", "::help is chat too")
    turn(trio, lambda: len(ann.out) == 2)
    assert bob.out == ["ann: hi :)", "cy: zoë 世界", "cy: :help is chat too"]
    assert ann.out == bob.out[1:] and cy.out == bob.out[:1]


def test_a_leaving_member_is_named_and_its_last_words_arrive(members):
    ann, bob = pair = members("ann", "bob")
    link(pair, (bob, ann))
    turn(pair, lambda: "-- bob joined" in ann.err)
    bob.type(*(f"word {number}" for number in range(500)), ":q", "never said")
    turn(pair, lambda: "-- bob left" in ann.err and bob.chat.finished())
    bob.kill()
    turn([ann], lambda: not ann.chat.links)
    assert ann.out == [f"bob: word {number}" for number in range(500)]
    assert bob.chat.status == 0 and not any("lost" in line for line in ann.err)


def test_a_killed_member_is_named_and_the_others_go_on(members):
    ann, bob, cy = trio = members("ann", "bob", "cy")
    link(trio, (bob, ann), (cy, ann))
    bob.type("soon dead")
    turn(trio, lambda: ann.out)
    bob.kill()
    turn([ann, cy], lambda: "-- lost contact with bob; still connected through cy" in ann.err)
    cy.type("still here")
    turn([ann, cy], lambda: "cy: still here" in ann.out)
    assert not any("left" in line for line in ann.err)


def test_a_named_peer_that_comes_back_on_its_port_is_linked_again(members):
    ann, = members("ann")
    port = unused_port()
    first = p2pchat.listen("127.0.0.1", port)
    ann.join(port)
    turn([ann], lambda: ann.joined)
    accepted = first.accept()[0]
    first.close()
    accepted.close()
    turn([ann], lambda: any("dialling again" in line for line in ann.err))
    again = p2pchat.listen("127.0.0.1", port)
    turn([ann], lambda: f"-- connected to 127.0.0.1 {port} again" in ann.err)
    again.close()


def test_end_of_input_leaves_after_everything_is_sent(members):
    ann, bob = pair = members("ann", "bob")
    link(pair, (bob, ann))
    turn(pair, lambda: "-- bob joined" in ann.err)
    os.write(bob.stdin_far, b"one\ntwo\nno newline at the end")
    os.close(bob.stdin_far)
    bob._ends.remove(bob.stdin_far)
    turn(pair, lambda: bob.chat.finished() and "-- bob left" in ann.err)
    assert ann.out == ["bob: one", "bob: two", "bob: no newline at the end"]


def test_a_long_text_reaches_members_whole_and_a_c_peer_in_parts_that_lose_nothing(members, cpeers):
    ann, bob = pair = members("ann", "bob")
    carl, = cpeers("carl")
    link(pair, (bob, ann))
    carl.connect("127.0.0.1", ann.port)
    turn(pair, lambda: len(ann.chat.links) == 2)
    text = " ".join(f"word{number}" for number in range(1000))
    bob.type(text)
    turn(pair, lambda: ann.out == ["bob: " + text] and "word999" in "".join(carl.screen))
    assert len(carl.screen) > 3
    assert " ".join(line[len("bob: "):] for line in carl.screen).split() == text.split()


# A network of members -------------------------------------------------------------------------

def test_everyone_is_linked_to_everyone_and_says_each_thing_once(members):
    five = members("ann", "bob", "cy", "dan", "eve")
    link(five, *((member, five[0]) for member in five[1:]))
    turn(five, lambda: all(len(member.chat.links) == 4 for member in five))
    for number in range(50):
        for member in five:
            member.type(f"number {number}")
    turn(five, lambda: all(len(member.out) == 200 for member in five))
    for member in five:
        for other in five:
            own = [line for line in member.out if line.startswith(f"{other.chat.network.name.decode()}: ")]
            assert own == [] if other is member else len(own) == 50 and own == sorted(own, key=lambda line: int(line.split()[-1]))


def test_a_circle_of_links_repeats_nothing(members):
    ann, bob, cy = trio = members("ann", "bob", "cy")
    link(trio, (bob, ann), (cy, bob))
    ann.join(cy.port)
    turn(trio, lambda: ann.joined and all(len(member.chat.links) == 2 for member in trio))
    ann.type("once")
    cy.type("and once")
    turn(trio, lambda: bob.out == ["ann: once", "cy: and once"] or len(bob.out) > 2 or sorted(bob.out) == sorted(["ann: once", "cy: and once"]))
    assert sorted(bob.out) == ["ann: once", "cy: and once"] and ann.out == ["cy: and once"] and cy.out == ["ann: once"]


def test_a_latecomer_sees_what_was_said_marked_with_its_time(members):
    ann, bob = pair = members("ann", "bob")
    ann.type("said to nobody")
    turn([ann], lambda: ann.chat.network.log.end == 2)
    link(pair, (bob, ann))
    turn(pair, lambda: bob.out)
    assert re.fullmatch(r"ann \(\d\d:\d\d\): said to nobody", bob.out[0])
    ann.type("said to bob")
    turn(pair, lambda: len(bob.out) == 2)
    assert bob.out[1] == "ann: said to bob" and "-- ann joined" not in bob.err


def test_who_and_links_tell_what_there_is(members, cpeers):
    ann, bob, other = trio = members("ann", "bob", "bob")
    carl, = cpeers("carl")
    link(trio, (bob, ann), (other, ann))
    carl.connect("127.0.0.1", ann.port)
    carl.say("hi")
    turn(trio, lambda: "carl: hi" in other.out)
    ann.type(":who", ":links")
    turn(trio, lambda: len([line for line in ann.err if "connected since" in line]) == 3)
    bobs = [member.chat.network.presence.own_label.decode() for member in (bob, other)]  # two digits, as a rule
    found = next(line for line in ann.err if "others here" in line)
    assert all(bob in found for bob in bobs) and "carl (C program)" in found and found.startswith("-- 3 others here: ")
    assert sum(": mesh, connected since " in line for line in ann.err) == 2
    assert any("carl at 127.0.0.1: plain, connected since " in line for line in ann.err)
    other.type("which bob am I?")
    turn(trio, lambda: f"{bobs[1]}: which bob am I?" in ann.out)


def test_connect_joins_two_networks_at_run_time(members):
    ann, bob, cy = trio = members("ann", "bob", "cy")
    link(trio, (bob, ann))
    cy.type(":connect", f":connect 127.0.0.1 {unused_port()}", f":connect localhost {bob.port}")
    turn(trio, lambda: all(len(member.chat.links) == 2 for member in trio))
    assert any("usage: :connect HOST PORT" in line for line in cy.err) and any("can't connect" in line for line in cy.err)
    assert "-- looking up localhost" in cy.err and f"-- connected to localhost {bob.port}" in cy.err
    cy.type("hello both")
    turn(trio, lambda: ann.out == bob.out == ["cy: hello both"])


def test_c_users_see_exactly_what_they_would_see_among_c_peers(members, cpeers):
    ann, bob, cy = trio = members("ann", "bob", "cy")
    carl, dora = cpeers("carl", "dora")
    link(trio, (bob, ann), (cy, ann))
    carl.connect("127.0.0.1", ann.port)  # one dials us ...
    ann.type("traffic")
    bob.join(dora.port)  # ... and one is dialled, while there is traffic
    turn(trio, lambda: bob.joined and carl.screen and len(carl.links) == len(dora.links) == 1)
    for number in range(20):
        for one in (carl, dora):
            one.say(f"{number}")
        for member in trio:
            member.type(f"{number}")
    expected = [f"{name}: {number}" for name in ("ann", "bob", "cy", "carl", "dora") for number in range(20)]
    turn(trio, lambda: all(len(member.out) >= 80 for member in trio) and len(carl.screen) >= 101 and len(dora.screen) >= 100)
    cy.kill()
    turn([ann, bob], lambda: any("lost contact with cy" in line for line in ann.err) and any("lost contact with cy" in line for line in bob.err))
    ann.type(":q")
    turn([ann, bob], lambda: ann.chat.finished() and not carl.links)
    assert sorted(carl.screen) == sorted(["ann: traffic", *expected])
    assert sorted(line for line in dora.screen if line != "ann: traffic") == sorted(expected)


# Beside C peers -------------------------------------------------------------------------------

def test_c_peers_at_both_ends_of_a_chain_through_us(members, cpeers):
    ann, bob = pair = members("ann", "bob")
    first, last = cpeers("first", "last")
    link(pair, (bob, ann))
    first.connect("127.0.0.1", ann.port)
    bob.join(last.port)
    turn(pair, lambda: bob.joined and len(ann.chat.links) == len(bob.chat.links) == 2)
    first.say("from the first")
    turn(pair, lambda: "first: from the first" in last.screen)
    last.say("from the last")
    turn(pair, lambda: "last: from the last" in first.screen)
    ann.type("from the middle")
    turn(pair, lambda: "ann: from the middle" in first.screen and "ann: from the middle" in last.screen)
    assert first.screen == ["first: from the first", "last: from the last", "ann: from the middle"] == last.screen
    assert bob.out == first.screen and ann.out == first.screen[:2]


def test_a_c_peer_as_the_hub_between_members(members, cpeers):
    ann, bob = pair = members("ann", "bob")
    hub, = cpeers("hub")
    ann.join(hub.port)
    bob.join(hub.port)
    turn(pair, lambda: ann.joined and bob.joined and len(hub.links) == 2)
    ann.type("one")
    turn(pair, lambda: bob.out == ["ann: one"] and all(member.chat.network.links.mesh() for member in pair))
    bob.type("two")
    turn(pair, lambda: ann.out == ["bob: two"] and len(hub.screen) == 2)
    assert hub.screen == ["ann: one", "bob: two"]


@pytest.mark.parametrize("goodbye", [":q", ":quit", b":q\0anything"])
def test_a_c_peer_that_leaves_is_named_whatever_way_it_says_so(members, goodbye):
    ann, = members("ann")
    with socket.create_connection(("127.0.0.1", ann.port)) as raw:
        raw.sendall(encode_pair(b"carl", b"hi"))
        turn([ann], lambda: ann.out)
        raw.sendall(encode_pair(b"carl", goodbye if isinstance(goodbye, bytes) else goodbye.encode()))
        turn([ann], lambda: "-- carl left" in ann.err)
        assert raw.recv(100) == b"" and not ann.chat.links  # a C peer never closes: we do


def test_leaving_shows_nothing_on_a_c_peers_screen(members, cpeers):
    ann, = members("ann")
    carl, = cpeers("carl")
    ann.join(carl.port)
    turn([ann], lambda: ann.joined)
    ann.type("bye", ":quit")
    turn([ann], lambda: ann.chat.finished())
    assert ann.chat._parting == f"rejoin with: ./p2pchat ann 127.0.0.1 {carl.port}"
    ann.kill()
    carl.wait(lambda screen: screen and not carl.links)
    assert carl.screen == ["ann: bye"]  # no ERROR line: the goodbye came before the end of the stream


@pytest.mark.parametrize("rcvbuf, longest", [(None, 2048), (1024, 500), (4096, 2048)])
def test_everything_said_reaches_a_c_peer_before_we_leave(members, cpeers, rcvbuf, longest):
    """History: the end of input right behind ":q" counted as a second, impatient wish to leave, and cut the rest. And the
    last text never came where the window is smaller than it, while the stand-in's ERROR line was counted as that text."""
    ann, = members("ann")
    carl, = cpeers("carl", rcvbuf=rcvbuf)
    ann.join(carl.port)
    turn([ann], lambda: ann.joined)
    ann.type(*(f"line {number} " + "x" * (number % 30) for number in range(1500)), "y" * longest)
    ann.type(":q")
    os.close(ann.stdin_far)
    ann._ends.remove(ann.stdin_far)
    turn([ann], ann.chat.finished)
    ann.kill()
    carl.wait(lambda screen: len(screen) == 1501 and not carl.links)
    assert carl.screen == [*(f"ann: line {number} " + "x" * (number % 30) for number in range(1500)), "ann: " + "y" * longest]


def test_a_neighbour_that_takes_little_does_not_keep_a_bot_for_ever(members, monkeypatch):
    monkeypatch.setattr(p2pchat, "LEAVE_SECONDS", PATIENCE)
    monkeypatch.setattr(p2pchat, "PIPE_SECONDS", 0.05)
    ann, = members("ann")
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        slow.connect(("127.0.0.1", ann.port))
        slow.sendall(encode_pair(b"carl", b"hi"))
        turn([ann], lambda: ann.out)
        link, = ann.chat.links.values()
        link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        ann.type(*["x" * 2000] * 30)
        turn([ann], lambda: link.unsent)
        os.close(ann.stdin_far)
        ann._ends.remove(ann.stdin_far)
        turn([ann], lambda: (select.select([slow], [], [], 0)[0] and slow.recv(1000)) and ann.chat.finished())
        assert link.unsent


def test_a_file_waits_for_its_readers(members, cpeers, monkeypatch):
    """History: a file on our input outran a C peer that reads 25,000 messages a second, and it was let go."""
    monkeypatch.setattr(peers, "MAX_BACKLOG", 40_000)
    monkeypatch.setattr(peers, "LOG_MESSAGES", 400)
    monkeypatch.setattr(p2pchat, "SLOW_SECONDS", PATIENCE)  # on a busy machine a fifth of a second is soon over
    ann, = members("ann")
    carl, = cpeers("carl", rcvbuf=4096)
    ann.join(carl.port)
    turn([ann], lambda: ann.joined)
    carl.pause_reading()
    typed = 0
    while not ann.chat._input_throttled():
        ann.type(*(f"line {number:05}" for number in range(typed, typed + 100)))
        typed += 100
        ann.chat.step(0.01)
    ann.type("and the rest")
    for _ in range(5):
        ann.chat.step(0.001)
    assert len(ann.chat.links) == 1 and ann.chat.front.input_fd() not in ann.chat._poll.watched
    carl.resume_reading()
    turn([ann], lambda: "ann: and the rest" in carl.screen)
    assert len(carl.screen) == typed + 1


def test_a_burst_of_2000_messages_through_our_hub_reaches_a_c_peer_whole(members, cpeers):
    hub, = members("hub")
    source, sink, slow = cpeers("source", "sink", "slow")
    for peer in (source, sink, slow):
        peer.connect("127.0.0.1", hub.port)
    turn([hub], lambda: len(hub.chat.links) == 3)
    for number in range(2000):
        source.say(f"message {number} x" + "x" * (number % 50))
        if number % 700 == 350:
            slow.pause_reading()
        if number % 700 == 0:
            slow.resume_reading()
    slow.resume_reading()
    turn([hub], lambda: len(sink.screen) == len(slow.screen) == len(hub.out) == 2000)
    expected = [f"source: message {number} x" + "x" * (number % 50) for number in range(2000)]
    assert sink.screen == slow.screen == hub.out == expected


def test_our_own_burst_of_2000_lines_reaches_a_pausing_c_peer_whole(members, cpeers):
    """History: MSG_EOR alone lost such a peer in half of the runs; the kernel cuts a segment to fit a small window."""
    ann, = members("ann")
    carl, = cpeers("carl", rcvbuf=4096)
    ann.join(carl.port)
    turn([ann], lambda: ann.joined)
    typed = 0
    while typed < 2000:
        carl.pause_reading()
        while typed < 2000 and not any(link.segmenter.retry_at for link in ann.chat.links.values()):
            ann.type(f"line {typed}")
            typed += 1
            ann.chat.step(0.001)
        carl.resume_reading()
        turn([ann], lambda: len(carl.screen) == typed)
    assert carl.screen == [f"ann: line {number}" for number in range(2000)]


def test_a_garbled_c_peer_is_let_go_with_a_goodbye_and_dialled_again_if_we_named_it(members):
    ann, = members("ann")
    with p2pchat.listen("127.0.0.1", 0) as listener:
        ann.join(listener.getsockname()[1])
        turn([ann], lambda: ann.joined)
        listener.setblocking(True)
        listener.accept()[0].close()  # the probe
        first, _ = listener.accept()
        first.sendall(encode_pair(b"carl", b"fine") + b"\xee" * 100)
        turn([ann], lambda: any("lost contact with carl" in line and "65536 at most" in line for line in ann.err))
        last = b"".join(iter(lambda: first.recv(100), b""))
        assert last[8:12] == b"ann\xff" and last.endswith(b"\2" + bytes(7) + b":q")
        turn([ann], lambda: any("again" in line and "connected" in line for line in ann.err))
        first.close()
        listener.accept()[0].close()
    assert ann.out == ["carl: fine"]


def behind_the_first(members, cpeers):
    """The C program that the first of these members has joined; the others have joined that member. Returns it."""
    first, *others = members
    carl, = cpeers("carl")
    first.join(carl.port)
    turn(members, lambda: first.joined)
    link(members, *((other, first) for other in others))
    return carl


def quiet_links(members):
    """How many links to C programs are left to another gateway."""
    neighbours = [neighbour for member in members for neighbour in member.chat.network.neighbours]
    return sum(bool(neighbour.outlet and neighbour.outlet.is_quiet) for neighbour in neighbours)


@pytest.fixture
def patience(monkeypatch):
    """However slow the machine is, no quiet link takes over."""
    monkeypatch.setattr(peers, "QUIET_SECONDS", PATIENCE)


def test_a_circle_through_a_c_program_repeats_nothing(members, cpeers, patience):
    ann, bob = pair = members("ann", "bob")
    carl = behind_the_first(pair, cpeers)
    bob.join(carl.port)
    turn(pair, lambda: bob.joined and len(carl.links) == 2)
    ann.type("first"), bob.type("first")
    turn(pair, lambda: "bob: first" in ann.out and "ann: first" in bob.out)
    turn(pair, lambda: quiet_links(pair))
    for number in range(20):
        ann.type(f"{number}"), bob.type(f"{number}")
    turn(pair, lambda: len(ann.out) >= 21 and len(bob.out) >= 21)
    carl.say("ok")
    carl.say("ok")
    turn(pair, lambda: ann.out[-2:] == bob.out[-2:] == ["carl: ok"] * 2)
    for member, other in ((ann, "bob"), (bob, "ann")):
        assert member.out[:-2] == [f"{other}: first"] + [f"{other}: {number}" for number in range(20)]
    turn(pair, lambda: all(f"{name}: 19" in carl.screen for name in ("ann", "bob")))
    assert all(carl.screen.count(f"{name}: {number}") == 1 for name in ("ann", "bob") for number in range(20))
    assert len(carl.links) == 2, "no C program is cut off"


def test_no_storm_where_a_c_program_stands_still_while_a_second_link_to_it_comes_up(members, cpeers, patience):
    # Version 1.0: 9,019 copies of one line on ann's screen after ten seconds.
    ann, bob = pair = members("ann", "bob")
    carl = behind_the_first(pair, cpeers)
    carl.pause_reading()
    bob.join(carl.port)
    turn(pair, lambda: bob.joined)
    carl.say("hi")
    turn(pair, lambda: "carl: hi" in ann.out and "carl: hi" in bob.out)
    carl.resume_reading()
    turn(pair, lambda: len(carl.links) == 2)
    for number in range(5):
        ann.type(f"a{number}"), bob.type(f"b{number}"), carl.say(f"c{number}")
    turn(pair, lambda: all("carl: c4" in one.out for one in pair) and {"ann: a4", "bob: b4"} <= set(carl.screen))
    for one, other in ((ann, "bob: b"), (bob, "ann: a")):
        assert [line for line in one.out if line.startswith(other)] == [f"{other}{number}" for number in range(5)]
        assert one.out.count("carl: hi") <= 2 and all(one.out.count(f"carl: c{number}") <= 2 for number in range(5))
    turn(pair, lambda: quiet_links(pair))
    carl.say("last")
    ann.type("last"), bob.type("last")
    turn(pair, lambda: "carl: last" in ann.out and "carl: last" in bob.out and {"ann: last", "bob: last"} <= set(carl.screen))
    assert ann.out.count("carl: last") == bob.out.count("carl: last") == 1
    assert carl.screen.count("ann: last") == carl.screen.count("bob: last") == 1


def test_three_members_and_a_c_program_all_linked_to_each_other_have_one_label_each(members, cpeers, patience):
    # Version 1.0: within seconds b~2, k~2 and a~3 for the same people, and rows such as "a0: b".
    ann, bob, eve = three = members("ann", "bob", "eve")
    carl = behind_the_first(three, cpeers)
    bob.join(carl.port)
    eve.join(carl.port)
    turn(three, lambda: bob.joined and eve.joined and len(carl.links) == 3)
    for number in range(10):
        for one in three:
            one.type(f"{number}")
    carl.say("hello")
    carl.say("again")
    turn(three, lambda: all(sum(line.endswith(": 9") for line in one.out) == 2 and {"carl: hello", "carl: again"} <= set(one.out) for one in three))
    turn(three, lambda: all(f"{name}: 9" in carl.screen for name in ("ann", "bob", "eve")) and quiet_links(three) == 2)
    for one in three:
        one.type("last")
    turn(three, lambda: all(f"{name}: last" in carl.screen for name in ("ann", "bob", "eve")))
    turn(three, lambda: all(sum(line.endswith(": last") for line in one.out) == 2 for one in three))
    assert all(carl.screen.count(f"{name}: last") == 1 for name in ("ann", "bob", "eve"))
    for one in three:
        one.type(":who")
        turn(three, lambda one=one: any("others here" in line for line in one.err))
        assert set(one.err[-1].partition("here: ")[2].split(", ")) == {"ann", "bob", "eve", "carl (C program)"} - {one.chat.network.name.decode()}
    named = {line.partition(": ")[0] for one in three for line in one.out} | {line.partition(": ")[0] for line in carl.screen}
    assert named == {"ann", "bob", "eve", "carl"}
    for name in ("ann", "bob", "eve"):
        said = {one.chat.network.name.decode(): [line for line in one.out if line.startswith(f"{name}: ")] for one in three}
        assert all(lines == [*(f"{name}: {number}" for number in range(10)), f"{name}: last"] for heard, lines in said.items() if heard != name)


# Neighbours that misbehave --------------------------------------------------------------------

def test_a_neighbour_that_reads_nothing_is_let_go_and_delays_nobody(members, cpeers, monkeypatch):
    monkeypatch.setattr(peers, "MAX_BACKLOG", 200_000)
    monkeypatch.setattr(peers, "LOG_MESSAGES", 100)
    hub, bob = pair = members("hub", "bob")
    link(pair, (bob, hub))
    stuck, = cpeers("stuck", rcvbuf=4096)
    stuck.connect("127.0.0.1", hub.port)
    stuck.say("hi")
    turn(pair, lambda: "stuck: hi" in bob.out)
    stuck.pause_reading()
    total = 0
    while len(hub.chat.links) == 2:
        hub.type("x" * 1000)
        total += 1
        turn(pair, lambda: len(bob.out) == total + 1)  # nobody waits for the stuck one
    assert total > 100
    turn(pair, lambda: any("read nothing" in line for line in hub.err))
    hub.type("still here")
    turn(pair, lambda: bob.out[-1] == "hub: still here")


def test_a_member_that_stops_reading_for_a_while_gets_every_message_that_comes_alone(members):
    ann, = members("ann")
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", ann.port))
        slow.sendall(greeting(b"slow", 666))
        turn([ann], lambda: ann.chat.network.links.mesh())
        (link,), said, read = ann.chat.links.values(), [], b""
        begin = rb"x(\d{4})"  # of a line; a record's header may hold an x, too
        link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        slow.setblocking(False)

        def say():
            said.append(b"%04d" % len(said))
            ann.type("x" + said[-1].decode() * 500)
            turn([ann], lambda: b"x" + said[-1] in ann.chat.network.log.last)

        while not ann.chat._unfinished:
            say()
        for _ in range(5):
            say()

        def all_has_come():
            nonlocal read
            with contextlib.suppress(BlockingIOError):
                read += slow.recv(1 << 16)
            return not ann.chat._unfinished and len(re.findall(begin, read)) == len(said)

        turn([ann], all_has_come)
    assert re.findall(begin, read) == said and all(read.count(text) >= 500 for text in said)


def test_what_is_said_is_converted_once_for_all_c_programs_even_if_one_lags(members, cpeers, monkeypatch):
    converted, encode = [], message.Marker.encode

    def count(marker, first, frames, never=()):
        converted.extend(range(first, first + len(frames)))
        return encode(marker, first, frames, never)

    monkeypatch.setattr(message.Marker, "encode", count)
    ann, = members("ann")
    bob, cy = cpeers("bob", "cy")
    for c_program in bob, cy:
        c_program.connect("127.0.0.1", ann.port)
        c_program.say("hi")
        turn([ann], lambda who=c_program: f"{who.name.decode()}: hi" in ann.out)
    (slow, _), unfinished = ann.chat.links.values(), ann.chat._unfinished

    def has_come(text):
        unfinished[slow] = p2pchat.Patience(slow, 0)  # as if something had been left of its last flush, in each turn
        return ann.chat.network.log.last.endswith(text.encode())

    for text in "one", "two":
        cy.say(text)
        turn([ann], lambda text=text: has_come(text))
    turn([ann], lambda: not unfinished)
    assert len(converted) == len({*converted}) == 3


def test_a_reset_in_the_middle_of_a_frame_costs_that_link_only(members):
    ann, bob = pair = members("ann", "bob")
    link(pair, (bob, ann))
    raw = socket.create_connection(("127.0.0.1", ann.port))
    raw.sendall(encode_pair(b"eve", b"whole") + encode_pair(b"eve", b"half")[:-2])
    turn(pair, lambda: "eve: whole" in bob.out)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    raw.close()
    turn(pair, lambda: any("lost contact with eve" in line for line in ann.err))
    bob.type("fine")
    turn(pair, lambda: "bob: fine" in ann.out)
    assert "half" not in "".join(ann.out + bob.out)


def test_one_byte_at_a_time_is_a_message_all_the_same(members):
    ann, = members("ann")
    with socket.create_connection(("127.0.0.1", ann.port)) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in encode_pair(b"eve", b"slowly"):
            raw.sendall(bytes([byte]))
            ann.chat.step(0.001)
        turn([ann], lambda: ann.out == ["eve: slowly"])


def test_a_flood_gets_its_share_of_a_turn_and_no_more(members):
    ann, = members("ann")
    flood = encode_pair(b"eve", b"flood") * 20_000
    with socket.create_connection(("127.0.0.1", ann.port)) as raw:
        turn([ann], lambda: ann.chat.links)
        raw.setblocking(False)
        assert raw.send(flood) > p2pchat.READ_SIZE
        ann.chat.step(1)
        assert 0 < len(ann.out) <= p2pchat.READ_SIZE // 24


def test_what_costs_much_is_read_in_smaller_pieces_until_it_costs_little_again(members, monkeypatch):
    """History: 64 KiB of LOST records kept a key waiting for 130 ms."""
    ann, = members("ann")
    flood = encode_pair(b"eve", b"flood") * 20_000
    log = ann.chat.network.log

    def heard_in_a_turn(seconds):
        """Bytes, if what they cost counts as much from so many seconds on."""
        monkeypatch.setattr(p2pchat, "LINK_SECONDS", seconds)
        before = log.end
        ann.chat.step(1)
        return (log.end - before) * (len(flood) // 20_000)

    with socket.create_connection(("127.0.0.1", ann.port)) as raw:
        turn([ann], lambda: ann.chat.links)
        raw.setblocking(False)
        assert raw.send(flood) > 2 * p2pchat.READ_SIZE
        first, costly, still = heard_in_a_turn(PATIENCE), heard_in_a_turn(1e-9), heard_in_a_turn(1e-9)
        assert p2pchat.FIRST_READ - 48 < first <= p2pchat.FIRST_READ < costly and 0 < still <= p2pchat.LEAST_READ
        assert heard_in_a_turn(PATIENCE) <= p2pchat.LEAST_READ + 24 < p2pchat.FIRST_READ - 48 < heard_in_a_turn(PATIENCE) < heard_in_a_turn(PATIENCE)


def test_a_stranger_cannot_forge_a_line_or_a_notice_in_a_log(members):
    ann, = members("ann")
    with socket.create_connection(("127.0.0.1", ann.port)) as raw:
        raw.sendall(encode_pair(b"eve", b"hi\nbob: forged\r\nSERVER: 1") + encode_pair(b"-- bob\nleft\x1b[2J", b"x")
                    + encode_pair(b"bob: hi", b"y") + encode_pair(b"", b"z"))
        turn([ann], lambda: ann.out and ann.out[-1].endswith("z"))
    assert ann.out[:3] == ["eve: hi", "    bob: forged", "    SERVER: 1"]
    assert not any(line.startswith(("--", "bob:", "SERVER", "\x1b")) for line in ann.out)
    assert "\x1b" not in "".join(ann.out)


def test_more_connections_than_links_are_turned_away_with_one_notice(members, monkeypatch):
    monkeypatch.setattr(peers, "MAX_LINKS", 3)
    ann, = members("ann")
    strangers = [socket.create_connection(("127.0.0.1", ann.port)) for _ in range(6)]
    turn([ann], lambda: any("3 links already" in line for line in ann.err))
    assert len(ann.chat.links) == 3
    for stranger in strangers:
        stranger.close()
    with socket.create_connection(("127.0.0.1", ann.port)) as late:
        late.sendall(encode_pair(b"late", b"hello"))
        turn([ann], lambda: "late: hello" in ann.out)
    assert sum("links already" in line for line in ann.err) == 1
    assert any("can join again" in line for line in ann.err)


def test_for_one_newcomer_one_silent_stranger_is_let_go_not_two(members, monkeypatch):
    monkeypatch.setattr(peers, "MAX_LINKS", 6)
    ann, = members("ann")
    strangers = [socket.create_connection(("127.0.0.1", ann.port)) for _ in range(5)]
    turn([ann], lambda: ann.chat.network.bridge.silent == 5)
    strangers.append(socket.create_connection(("127.0.0.1", ann.port)))
    turn([ann], lambda: ann.chat.network.bridge.silent == 6)
    assert len(ann.chat.links) == 6, "there was room for the last one"
    with socket.create_connection(("127.0.0.1", ann.port)) as late:
        late.sendall(encode_pair(b"late", b"hello"))
        turn([ann], lambda: "late: hello" in ann.out)
        assert len(ann.chat.links) == 6
    for stranger in strangers:
        stranger.close()


def test_without_descriptors_listening_pauses_and_chat_goes_on():
    def begin():
        peers.STRANGER_SECONDS = PATIENCE  # in the fork alone: nobody is to give way, however slow the machine is
        limited(resource.RLIMIT_NOFILE, 24)()

    with Program("ann", "--bind", "127.0.0.1", before=begin) as ann:
        strangers = [socket.create_connection(("127.0.0.1", ann.port)) for _ in range(30)]
        ann.wait(lambda program: any("nobody new can join" in line for line in program.err))
        strangers[0].sendall(encode_pair(b"first", b"I am in"))
        ann.wait(lambda program: "first: I am in" in program.out)
        for stranger in strangers[:20]:
            stranger.close()
        ann.wait(lambda program: any("can join again" in line for line in program.err))
        strangers[29].sendall(encode_pair(b"last", b"me too"))
        ann.wait(lambda program: "last: me too" in program.out)
        for stranger in strangers:
            stranger.close()
        assert ann.end() == 0


# Commands -------------------------------------------------------------------------------------

@pytest.mark.parametrize("text, said", [
    *((text, text) for text in (":)", ":D", ":DD", ":xD", ":-P", ":3", ":30", ":thinking: yes", ":+1:", ":std::x", ": x", "/s",
                                "/etc/hosts is empty", "/r/python is nice", "::1", "// x", " :q", ":", "//", "::)", "hi :hlep",
                                ":oO", ":P", "/s!", ":bell:", ":save!x", ":/", "/q/", "::", "/?")),
    ("::who", ":who"), ("//me", "/me"), ("::quit now", ":quit now"), ("::q", ":q"), ("::Q", ":Q"), ("//msg bob", "/msg bob"), ("::wq", ":wq")])
def test_what_is_chat(text, said):
    assert p2pchat.is_chat(text) and p2pchat.unescaped(text) == said


@pytest.mark.parametrize("text, reason", [
    (":hlep", ":hlep is not a command; did you mean :help?"), (":wq", ":wq is not a command; did you mean :quit?"),
    (":q!", ":q! is not a command; did you mean :q?"), (":quit now", ":quit takes no arguments"), (":exit", "did you mean :quit?"),
    (":Help", "did you mean :help?"), (":WHO", "did you mean :who?"), ("/msg bob secret", "/msg is not a command; see :help"),
    ("/me waves", "/me is not"), ("/join a 1", "did you mean :connect?"), ("/quit now", "/quit takes no arguments"),
    (":who\nme", ":who takes no arguments"), (":who!", "did you mean :who?"), (":nickname\tx", ":nickname is not"),
    (":Q", "did you mean :q?"), ("/Q", "did you mean :q?"), (":qq", "did you mean :q?"), (":q!!", "did you mean :q?"), (":help?", "did you mean :help?"),
    ("/who, please", "did you mean :who?"), (":save!! x", "did you mean :save?"), (":hwo", "did you mean :who?"), (":tiem", "did you mean :time?"),
    ("/me waves", "see :help"), ("/tmp is full", "see :help"), ("/home", "see :help"), (":lol", "see :help")])
def test_a_typo_is_not_sent_to_everyone(text, reason):
    assert not p2pchat.is_chat(text) and reason in p2pchat.refusal(text)


@pytest.mark.parametrize("text, command", [
    (":q", ":q"), ("/quit", ":quit"), (":who ", ":who"), ("/who\n", ":who"), (":find a b", ":find"), ("/save! x", ":save!"), (":who\u00a0", ":who")])
def test_what_is_a_command(text, command):
    assert not p2pchat.is_chat(text) and p2pchat.command_in(text) == command and not p2pchat.refusal(text)


def test_a_refused_line_is_named_on_stderr_and_by_the_exit_status():
    status, out, err = run("bot", stdin=b":hlep\n::hlep\n/who\n")
    assert status == 1 and "-- nobody else is here" in err
    assert "-- not sent: :hlep is not a command; did you mean :help? (--verbatim sends every line as is)" in err


def test_whoever_is_ignored_is_not_shown_until_it_is_shown_again(members):
    ann, bob, cy = trio = members("ann", "Bőb", "cy")
    link(trio, (bob, ann), (cy, ann))
    turn(trio, lambda: any("cy joined" in line for line in ann.err))
    ann.type(":ignore", ":ignore bo\u030bB", ":unignore cy", ":unignore", ":who")
    turn(trio, lambda: ann.err[-1].startswith("-- 2 others here"))
    assert ann.err[-5:] == ["-- usage: :ignore NAME", "-- ignoring bo\u030bB; :unignore NAME shows them again", "-- cy was not ignored",
                            "-- usage: :unignore NAME", "-- 2 others here: Bőb (ignored), cy"]
    ann.type(":ignore ANN", ":ignore dab", ":unignore dab", ":ignore", ":who")
    turn(trio, lambda: len(ann.err) > 4 and "-- no longer ignoring dab" in ann.err and ann.err[-1].startswith("-- 2 others here"))
    assert ann.err[-5] == "-- that is your own name", "whoever typed it never saw their own words again"
    assert ann.err[-4] == "-- ignoring bo\u030bB, dab (not here); :unignore NAME shows them again"
    bob.type("one")
    turn(trio, lambda: cy.out)
    cy.type("two")
    turn(trio, lambda: ann.out)
    ann.type(":unignore BŐB")
    turn(trio, lambda: "-- no longer ignoring BŐB" in ann.err)
    bob.type("three")
    turn(trio, lambda: len(ann.out) == 2)
    assert ann.out == ["cy: two", "Bőb: three"]


def test_a_saved_file_is_whole_or_what_was_there_before(tmp_path):
    file, folder = tmp_path / "chat", lambda: sorted(entry.name for entry in tmp_path.iterdir())

    def half():
        yield "half\n" * 10_000
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError):
        p2pchat.save(str(file), half(), False)
    assert folder() == []
    p2pchat.save(str(file), ["whole\n"], False)
    assert file.read_text() == "whole\n" and file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        p2pchat.save(str(file), ["other\n"], False)
    with pytest.raises(OSError):
        p2pchat.save(str(file), half(), True)
    assert file.read_text() == "whole\n" and folder() == ["chat"]
    file.chmod(0o644)
    p2pchat.save(str(file), ["new\n"], True)
    assert file.read_text() == "new\n" and folder() == ["chat"] and file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("over", [False, True])
def test_links_and_devices_are_never_written_to(tmp_path, over):
    (tmp_path / "aim").write_text("aim")
    (tmp_path / "link").symlink_to(tmp_path / "aim")
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "fifo")
    for name in (tmp_path / "link", tmp_path / "broken", tmp_path / "fifo", tmp_path, "/dev/null"):
        with pytest.raises(OSError, match="it is a directory" if name == tmp_path else "not a regular file"):
            p2pchat.save(str(name), ["x"], over)
    assert (tmp_path / "aim").read_text() == "aim" and not (tmp_path / "nothing").exists()
    assert not stat.S_ISREG(os.stat("/dev/null").st_mode)


def test_where_there_are_no_hard_links_a_new_file_is_saved_all_the_same(tmp_path, monkeypatch):
    def fail(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")
    monkeypatch.setattr(os, "link", fail)
    p2pchat.save(str(tmp_path / "chat"), ["x\n"], False)
    assert (tmp_path / "chat").read_text() == "x\n" and len(list(tmp_path.iterdir())) == 1


def test_a_goodbye_that_is_only_said_forgets_nobody(members, cpeers):
    ann, = members("ann")
    carl, = cpeers("carl")
    ann.join(carl.port)
    turn([ann], lambda: ann.joined)
    ann.type("::q", "::quit", "still here")
    turn([ann], lambda: "ann: still here" in carl.screen)
    assert carl.screen == ["ann:  :q", "ann:  :quit", "ann: still here"]


# The loop -------------------------------------------------------------------------------------

def test_an_idle_member_sleeps_until_a_ping_is_due_and_without_mesh_links_for_ever(members, cpeers):
    ann, bob, cy = trio = members("ann", "bob", "cy")
    carl, = cpeers("carl")
    carl.connect("127.0.0.1", cy.port)
    link(trio, (bob, ann))
    turn(trio, lambda: "-- bob joined" in ann.err and cy.chat.network.bridge.silent)
    for member, sleeps in ((ann, False), (cy, True)):
        member.chat.step(0)
        member.chat._rewatch()
        wait = member.chat._timeout(member.chat._deadline(), None)
        assert wait is None if sleeps else 1 < wait <= peers.PING_SECONDS
        assert all(events == p2pchat.READ for events in member.chat._poll.watched.values())


def check_what_is_waited_for(chat):
    """What the loop remembers, against the same worked out anew from everything there is (rule 5)."""
    assert set(chat._unfinished) == {link for link in chat.links.values() if link.unsent}
    level = [neighbour for neighbour in chat.links if neighbour.is_level]
    assert all(neighbour.kind is peers.MESH and neighbour.is_done() and not chat.links[neighbour].unsent for neighbour in level)
    chat._rewatch()
    reading, writing = {chat._signals, *chat.front.hangup_fds(), *(lookup.output for lookup in chat.lookups)}, set(chat.front.output_fds())
    reading |= {chat.listener} if chat.status is None and not chat._accept_after else set()
    throttled = any(link.neighbour.lagging and not patience.stuck for link, patience in chat._unfinished.items())
    reading |= {chat.front.input_fd()} if chat.front.input_fd() is not None and not throttled else set()
    reading |= {link.sock for link in chat.links.values()}
    writing |= {dial.sock for dial in chat.dials} | {link.sock for link in chat.links.values() if link.blocked}
    assert chat._poll.watched == {source: p2pchat.READ * (source in reading) | p2pchat.WRITE * (source in writing) for source in reading | writing}
    planned = [chat.network._plan(), chat.front.next_deadline(), *(timed.deadline for timed in (*chat._unfinished.values(), *chat.dials))]
    first = min((at for at in planned if at is not None), default=None)
    assert first is None or chat._deadline() <= first


def test_what_the_loop_waits_for_is_never_stale(members, monkeypatch):
    monkeypatch.setattr(p2pchat, "SENDS_PER_TURN", 2)
    rng, trio, strangers = random.Random(1), members("ann", "bob", "cy"), []
    ours = greeting(b"eve", 666)
    refused = unused_port()

    def come():
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", rng.choice(trio).port))
        sock.setblocking(False)
        strangers.append(sock)
        sock.send(rng.choice([b"", ours[:50], ours, encode_pair(b"eve", b"hi")]))

    def type_in(line):
        one = rng.choice(trio)
        if select.select([], [one.stdin_far], [], 0)[1]:  # else it was full already
            one.type(line)

    actions = [come, lambda: type_in("hello"), lambda: type_in("x" * 3000), lambda: type_in("x" * 3000), lambda: type_in(f":connect 127.0.0.1 {refused}"),
               lambda: type_in(f":connect 127.0.0.1 {rng.choice(trio).port}")]
    with_strangers = [lambda: strangers.pop(rng.randrange(len(strangers))).close(), lambda: rng.choice(strangers).send(encode_pair(b"eve", b"so")),
                      lambda: rng.choice(strangers).recv(1 << 16)]
    type_in(":connect localhost 1")
    waited_for_room = 0
    for _ in range(200):
        with contextlib.suppress(OSError):
            rng.choice(actions + with_strangers * bool(strangers))()
        for member in trio:
            member.chat.step(0)
            check_what_is_waited_for(member.chat)
            member.out, member.err  # somebody reads them
            waited_for_room += len(member.chat._unfinished)
    assert waited_for_room
    for sock in strangers:
        sock.close()


def test_whoever_stood_still_knows_it_before_it_reads_what_came_meanwhile(members, monkeypatch):
    """History: a gateway that had been stopped passed on what another one had passed on for it."""
    ann, = members("ann")
    order, network = [], ann.chat.network
    with socket.create_connection(("127.0.0.1", ann.port)) as raw:
        turn([ann], lambda: ann.chat.links)
        raw.sendall(encode_pair(b"eve", b"hi"))
        turn([ann], lambda: "eve: hi" in ann.out)
        for name in ("woke", "received"):
            monkeypatch.setattr(network, name, lambda *_, name=name, do=getattr(network, name): (order.append(name), do(*_)))
        raw.sendall(encode_pair(b"eve", b"again"))
        link, = ann.chat.links.values()
        assert select.select([link.sock], [], [], PATIENCE)[0]
        ann.chat._signal_source.send(bytes([signal.SIGCONT]))  # as the handler of signals does; reported behind the link
        turn([ann], lambda: "eve: again" in ann.out)
    assert order == ["woke", "received"]


def test_each_module_imports_only_what_its_layer_may():
    allowed_only_in = {
        "blessed": {"ui.py"}, "wcwidth": {"ui.py"}, "selectors": {"p2pchat.py"}, "argparse": {"p2pchat.py"},
        "signal": {"p2pchat.py"}, "socket": {"p2pchat.py"}, "message": {"p2pchat.py", "peers.py"},
        "peers": {"p2pchat.py"}, "ui": {"p2pchat.py"}, "p2pchat": set(),
        "time": {"p2pchat.py", "ui.py"}, "os": {"p2pchat.py", "ui.py"},
    }
    ours = {name for names in allowed_only_in.values() for name in names} | {"message.py"}
    for name in ours:
        with open(os.path.join(TOP, name), encoding="utf-8") as source:
            imported = set(re.findall(r"^\s*(?:import|from) (\w+)", source.read(), re.MULTILINE))
        for module in imported & set(allowed_only_in):
            assert name in allowed_only_in[module], f"{name} imports {module}"
        for module in imported - {"blessed", "wcwidth", "message", "peers", "ui", "__future__"}:
            assert module in STANDARD_LIBRARY, f"{name} imports {module}, which is not in the standard library"


def test_a_learner_finds_all_that_a_socket_is_asked_on_a_few_pages():
    """The teaching order of p2pchat.py: receive, send, connect, accept, select, all within 400 lines."""
    with open(os.path.join(TOP, "p2pchat.py"), encoding="utf-8") as source:
        lines = source.read().split("\n")
    calls = ["self.sock.recv(", "self.sock.send(", "self.sock.connect_ex(", "listener.accept(", "self._selector.select("]
    found = [[number for number, line in enumerate(lines) if call in line] for call in calls]
    assert [len(places) for places in found] == [1] * len(calls), "each is called in one place"
    places = [number for number, in found]
    assert places == sorted(places) and places[-1] - places[0] <= 400


STANDARD_LIBRARY = set(getattr(sys, "stdlib_module_names", ())) or {
    "argparse", "binascii", "bisect", "codecs", "collections", "contextlib", "difflib", "enum", "errno", "fcntl", "os", "re", "select", "selectors", "signal",
    "socket", "stat", "struct", "sys", "termios", "time", "typing", "unicodedata", "itertools", "functools", "ipaddress", "math", "random", "shlex", "subprocess", "tempfile",
    "zlib"}


# Arguments ------------------------------------------------------------------------------------

MISTAKES = {
    "no name": ([], "usage: ./p2pchat <username> [<peer> <port number> ...]"),
    "an empty name": ([""], "choose a name"),
    "a name of spaces": (["  "], "choose a name"),
    "a name that cannot be shown": (["a\x1b[2J"], "choose another"),
    "a name that is no UTF-8": (["a\udcff"], "choose another"),
    "a name that begins like a notice": (["--", "-- ann"], "begins with a dash"),
    "a name that begins with a long dash": (["—ann"], "begins with a dash"),
    "a name that ends with a space": (["a "], "begins or ends with a space"),
    "a name that begins with a space": ([" a"], "begins or ends with a space"),
    "a name with two spaces": (["a  b"], "two spaces in a row"),
    "a name with a colon": (["a: b"], "a colon"),
    "an over-long name": (["x" * 65], "choose a shorter one"),
    "a peer without a port": (["ann", "localhost"], "missing port number after localhost"),
    "a second peer without a port": (["ann", "localhost", "1", "2"], "missing port number after 2"),
    "a wrong port of a second peer": (["ann", "localhost", "1", "there", "here"], "'here' is not a port number"),
    "port 0": (["ann", "localhost", "0"], "from 1 to 65535"),
    "port 65536": (["ann", "localhost", "65536"], "from 1 to 65535"),
    "a port with zeros in front": (["ann", "localhost", "0000099999"], "from 1 to 65535"),
    "a negative port": (["ann", "localhost", "-5"], "from 1 to 65535"),
    "a port that is not a number": (["ann", "localhost", "5x"], "from 1 to 65535"),
    "a port in other digits": (["ann", "localhost", "٣"], "from 1 to 65535"),
    "an own port that is none": (["ann", "--port", "99999"], "choose one for --port"),
    "an unknown option and no name": (["-x"], "unrecognized arguments: -x"),
    "a room without a name": (["ann", "--room", ""], "a room's name must be 1 to 64 bytes"),
    "a room's name that is too long": (["ann", "--room", "x" * 65], "a room's name must be 1 to 64 bytes"),
    "a room's name that cannot be shown": (["ann", "--room", "a\x1b"], "a room's name must be 1 to 64 bytes"),
    "an unknown option": (["ann", "--colour"], "usage"),
    "a host that does not exist": (["ann", "no-such-host.invalid", "7"], "check the spelling"),
    "a host that cannot exist": (["ann", "x" * 300, "7"], "check the spelling"),
    "host and port in one word": (["ann", "localhost:4000", "4000"], "write host and port as two words: localhost 4000"),
    "an address in brackets with its port": (["ann", "[::1]:4000", "4000"], "write host and port as two words: ::1 4000"),
    "an empty host": (["ann", " ", "4000"], "the host is empty"),
    "a link-local address without its interface": (["ann", "fe80::1", "4000"], "write fe80::1 with the interface that leads there, as in fe80::1%"),
    "an address in brackets": (["ann", "[::1]", "7"], "write ::1 without brackets"),
    "a host with a NUL": (["ann", "a\0b", "7"], "'a\\x00b' is not a host name"),
    "an own address in brackets": (["ann", "--bind", "[::1]"], "write ::1 without brackets"),
    "an address that is not ours": (["ann", "--bind", "192.0.2.77"], "cannot listen on address 192.0.2.77"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_sentence(mistake):
    arguments, hint = MISTAKES[mistake]
    with pytest.raises(ValueError) as error:
        p2pchat.start(arguments)
    assert hint in str(error.value) and "\n" not in str(error.value)


def test_a_mistake_ends_the_program_with_status_1_and_nothing_on_stdout():
    assert run() == (1, [], ["p2pchat: missing username. " + p2pchat.USAGE])
    port = unused_port()
    status, out, err = run("ann", "localhost", port)
    assert (status, out, len(err)) == (1, [], 1) and f"can't connect to localhost {port}: it refused the connection; check the host and the port" in err[0]


@pytest.mark.parametrize("words", [
    ["ann", "h", "1", "i", "2", "--port", "7", "--lines"], ["--port", "7", "ann", "--lines", "h", "1", "i", "2"],
    ["--lines", "ann", "h", "--port=7", "1", "i", "2"], ["--lines", "--port", "7", "--", "ann", "h", "1", "i", "2"],
    ["ann", "h", "--lines", "1", "--port", "7", "--", "i", "2"]])
def test_options_stand_anywhere_and_behind_two_dashes_is_none(words):
    options = p2pchat.parse(words)
    assert (options.name, options.peers, options.port, options.lines) == (b"ann", [("h", 1), ("i", 2)], 7, True)


def test_behind_two_dashes_a_name_may_look_like_an_option():
    options = p2pchat.parse(["--lines", "--", "-x", "h", "1"])
    assert (options.name, options.peers, options.lines) == (b"-x", [("h", 1)], True)


def test_of_several_peers_the_first_that_answers_is_joined_and_another_when_it_is_gone():
    with Program("hub") as hub, Program("late") as late:
        closed = unused_port()
        with Program("ann", "no-such-host.invalid", 7, "localhost", closed, "127.0.0.1", hub.port, "127.0.0.1", late.port) as ann:
            ann.wait(lambda program: f"-- connected to 127.0.0.1 {hub.port}" in program.err)
            assert "check the spelling" in ann.err[0] and f"can't connect to localhost {closed}: it refused" in ann.err[1]
            assert not any(str(late.port) in line for line in ann.err)
            hub.kill()
            ann.wait(lambda program: f"-- connected to 127.0.0.1 {late.port}" in program.err)
            ann.type("hi")
            late.wait(lambda program: program.out[1:] == ["ann: hi"])
            assert ann.end() == 0
            ann.wait(lambda program: program.err[-1] == f"-- rejoin with: ./p2pchat ann 127.0.0.1 {late.port}")


def test_the_way_back_is_whom_we_dialled_before_whoever_called_us(members):
    """Whoever can only dial out calls; its port leads nowhere."""
    ann, bob, cy = trio = members("ann", "bob", "cy")
    link(trio, (bob, ann), (ann, cy))
    ann.type(":q")
    turn(trio, lambda: ann.chat.status == 0)
    assert ann.chat._parting == f"rejoin with: ./p2pchat ann 127.0.0.1 {cy.port}"


def test_the_way_back_is_whoever_answers_to_the_same_room_and_can_be_typed(members):
    """History: after a crash that nobody had noticed yet, it named the dead one; and no --room, so whoever came back was not found."""
    ann, bob, cy = trio = members("-ann", "bob", "cy")
    link(trio, (bob, ann), (ann, cy))
    ann.chat.look_around(secrets.token_hex(8).encode() + b" '")
    next(neighbour for neighbour in ann.chat.network.neighbours if neighbour.name == b"cy").pings = 1
    way = ann.chat._way_back()
    assert way.startswith("rejoin with: ./p2pchat ")
    options = p2pchat.parse(shlex.split(way)[3:])
    assert (options.name, options.peers, options.room) == (b"-ann", [("127.0.0.1", bob.port)], ann.chat.network.discovery.room)


def test_of_several_peers_that_do_not_answer_each_is_named():
    one, other = unused_port(), unused_port()
    status, out, err = run("ann", "localhost", one, "localhost", other)
    assert (status, out, len(err)) == (1, [], 1)
    assert f"can't connect to localhost {one}: it refused the connection, or to localhost {other}: it refused the connection; check" in err[0]


def test_a_port_in_use_is_said_so():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, out, err = run("ann", "--bind", "127.0.0.1", "--port", port)
    assert (status, out, len(err)) == (1, [], 1) and f"port {port}" in err[0] and "in use" in err[0]


def test_a_peer_that_is_silent_is_given_up(monkeypatch):
    monkeypatch.setattr(peers, "DIAL_SECONDS", 0.2)
    with socket.socket() as full:  # a listener whose queue is full answers nobody
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        with pytest.raises(ValueError, match="does not answer"):
            p2pchat.start(["ann", "127.0.0.1", str(address[1])])
        for filler in fillers:
            filler.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "0.0.0.0", "localhost"])
def test_joining_oneself_is_refused(host):
    """History: by another of the machine's addresses it went unnoticed, and one line was repeated for ever."""
    port = unused_port()
    status, out, err = run("ann", host, port, "--port", port)
    assert status == 1 and len(err) == 1 and "this program itself" in err[0]


def test_help_and_version():
    status, out, err = run("--help")
    options = {"--lan", "--room", "--port", "--bind", "--lines", "--no-input", "--times", "--no-history", "--verbatim"}
    assert status == 0 and out[0] == p2pchat.USAGE and options < set(" ".join(out).split())
    assert run("--version") == (0, [f"p2pchat {p2pchat.VERSION}"], [])


# The built file -------------------------------------------------------------------------------

def test_two_built_programs_chat_in_line_mode():
    with Program("ann", command=(BUILT,)) as ann, Program("bob", "localhost", ann.port, command=(BUILT,)) as bob:
        ann.type("hi bob")
        bob.wait(lambda program: "ann: hi bob" in program.out)
        bob.type("two\tcells")
        ann.wait(lambda program: "bob: two    cells" in program.out and "-- bob joined" in program.err)
        assert bob.end() == 0
        ann.wait(lambda program: "-- bob left" in program.err)
        assert ann.end() == 0
        assert ann.out[0] == f"SERVER: {ann.port}"


def test_a_one_line_bot_and_a_logger():
    with Program("hub") as hub:
        status, out, err = run("bot", "localhost", hub.port, stdin=b"hi\n")
        assert (status, out[0][:8]) == (0, "SERVER: ") and err[-1] == f"-- rejoin with: ./p2pchat bot 127.0.0.1 {hub.port}"
        hub.wait(lambda program: "bot: hi" in program.out)
        assert not any("bot" in line for line in hub.err), "whoever comes for a moment costs one row, not three"


def test_whoever_pipes_something_to_nobody_is_told_and_gets_status_1():
    status, out, err = run("bot", stdin=b"one\ntwo\n")
    assert status == 1 and err[1:] == ["-- nobody else is here yet; what you say is delivered to whoever joins",
                                       "-- nobody is connected, so nobody got what you sent"]
    assert run("bot", stdin=b":who\n")[0] == 0, "a command is not for anybody"


def test_whoever_was_heard_at_first_is_told_that_nobody_got_the_rest(members):
    """History: it said that nobody got any of it."""
    ann, bob = pair = members("ann", "bob")
    link(pair, (ann, bob))
    ann.type("one")
    turn(pair, lambda: bob.out)
    bob.kill()
    turn([ann], lambda: not ann.chat.links)
    ann.type("two")
    ann.end_input()
    turn([ann], lambda: ann.chat.status == 1)
    assert ann.err[-1] == "-- nobody is connected, so nobody got what you last sent"


@pytest.mark.parametrize("file", ["/dev/null", os.path.join(TOP, "Makefile")])
def test_stdin_may_be_a_file_or_nothing(file):
    with Program("hub") as hub, open(file, "rb") as stdin:
        with start(None, "bot", "localhost", hub.port, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as bot:
            out, _ = bot.communicate(timeout=PATIENCE)
        assert bot.returncode == 0 and out.startswith(b"SERVER: ")
        hub.wait_alone()
        if stdin.name != "/dev/null":
            assert "bot: # make          build ./p2pchat, one executable file" in hub.out


def test_verbatim_sends_commands_and_typos_too():
    with Program("hub") as hub:
        status, out, err = run("bot", "localhost", hub.port, "--verbatim", stdin=b":q\n:hlep\n::who\n\xef\xbb\xbf:who\n\x1b[31mred\x1b[0m\n")
        hub.wait_alone()
        assert status == 0 and hub.out[1:] == ["bot: :q", "bot: :hlep", "bot: ::who", "bot: :who", "bot: red"]


def test_a_bot_without_history_and_with_times():
    with Program("hub") as hub:
        hub.type("before")
        with Program("log", "localhost", hub.port, "--times", "--no-history", env={"TZ": "XXX-5:30"}) as log:
            hub.wait(lambda program: any("log joined" in line for line in program.err))
            hub.type("one", "two")
            log.wait(lambda program: len(program.out) == 3)
        with Program("old", "localhost", hub.port, "--times") as old:
            old.wait(lambda program: len(program.out) == 4)
        assert [re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+05:30 hub: (.*)", line)[1] for line in log.out[1:]] == ["one", "two"]
        assert [line[25:] for line in old.out[1:]] == [" hub: before", " hub: one", " hub: two"][:3]


def test_without_input_it_runs_until_a_signal():
    with Program("hub") as hub:
        with start(None, "log", "localhost", hub.port, "--no-input", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                   stderr=subprocess.PIPE) as log:
            hub.wait(lambda program: any("log joined" in line for line in program.err))
            hub.type("still there?")
            assert log.stdout.readline() and log.stdout.readline() == b"hub: still there?\n"
            log.terminate()
            assert log.wait(PATIENCE) == 128 + signal.SIGTERM
            assert log.stderr.read().decode().splitlines()[-1] == f"-- rejoin with: ./p2pchat log 127.0.0.1 {hub.port}"


def test_connect_says_what_is_wrong_with_a_host(members):
    """History: a NUL in it raised a ValueError in the middle of the loop."""
    ann, = members("ann")
    ann.type(":connect [::1] 7", ":connect a\0b 7", ":connect " + "x" * 300 + " 7", ":connect 127.0.0.1 99999", ":who")
    turn([ann], lambda: any("nobody else" in line for line in ann.err))
    assert [line[:60] for line in ann.err if "join:" not in line] == [
        "-- write ::1 without brackets", "-- 'a\\x00b' is not a host name; check the spelling, or use an address"[:60],
        "-- '" + "x" * 56, "-- '99999' is not a port number from 1 to 65535; theirs is on their first line, after SERVER:"[:60], "-- nobody else is here"]


def test_a_looked_up_address_keeps_its_scope():
    """History: Invalid argument, since the lookup dropped it."""
    address = "fe80::1%" + socket.if_nameindex()[0][1]
    lookup = p2pchat.Lookup(address, 1)
    hosts = None
    while hosts is None:
        hosts = lookup.read()
    lookup.close()
    assert hosts == [address]


def test_before_the_first_paint_only_the_named_peer_is_dialled(members):
    """History: what the network dialled besides waited for an answer while blessed was imported."""
    ann, bob = pair = members("ann", "bob")
    link(pair, (bob, ann))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    cy = p2pchat.Chat(b"cy", p2pchat.listen("127.0.0.1", 0), p2pchat.ui.Lines(None, nowhere, nowhere))
    contact = cy.network.join("ann", [("127.0.0.1", ann.port)])
    while not contact.reached or not cy.network.overlay.attempts:
        for chat in (ann.chat, bob.chat, cy):
            chat.step(0.001)
    assert len(cy.links) == 1 and not cy.dials
    cy.open("")
    while len(cy.links) == 1:
        for chat in (ann.chat, bob.chat, cy):
            chat.step(0.001)
    cy.close()
    os.close(nowhere)


def test_a_name_is_looked_up_without_code_of_the_current_directory(tmp_path):
    """History: :connect NAME imported socket.py from wherever the program was started."""
    (tmp_path / "socket.py").write_text("open('ran', 'w')")
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        lookup = p2pchat.Lookup("localhost", 1)
        while lookup.read() is None:
            pass
        lookup.close()
    finally:
        os.chdir(here)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("further", [["line 1"], []])
def test_a_closed_stdout_ends_it_quietly_even_if_nothing_more_is_said(further):
    with Program("hub") as hub:
        log = start(None, "log", "localhost", hub.port, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        hub.wait(lambda program: any("joined" in line for line in program.err))
        hub.type("line 0")
        assert [log.stdout.readline(), log.stdout.readline()][1] == b"hub: line 0\n"
        log.stdout.close()
        hub.type(*further)
        hub.wait(lambda program: "-- log left" in program.err)
        err = log.communicate(timeout=PATIENCE)[1]
        assert log.returncode == 0 and b"Traceback" not in err and b"Broken" not in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_leaves_with_a_goodbye_and_its_own_status(number):
    with Program("hub") as hub, Program("bob", "localhost", hub.port) as bob:
        hub.wait(lambda program: "-- bob joined" in program.err)
        bob.process.send_signal(number)
        assert bob.process.wait(20) == 128 + number
        hub.wait(lambda program: "-- bob left" in program.err)


def test_the_built_file_runs_from_anywhere(tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copy(BUILT, copy)
    link_path = tmp_path / "link"
    link_path.symlink_to(BUILT)
    for command in ((str(link_path),), python(BUILT), ("elsewhere",)):
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": "", "PYTHONNOUSERSITE": "1"}
        status, out, err = run("ann", command=command, env=env)
        assert status == 0 and out[0].startswith("SERVER: "), (command, err)


def test_the_built_file_carries_blessed_and_line_mode_does_not_load_it():
    code = ("import sys; sys.path.insert(0, sys.argv.pop(1)); import p2pchat, os\n"
            "try: p2pchat.main()\n"
            "except SystemExit: print(sorted({'blessed', 'wcwidth', 'jinxed'} & set(sys.modules)))\n"
            "import blessed; print(os.path.dirname(os.path.dirname(blessed.__file__)) == sys.path[0])")
    status, out, err = run("ann", command=python("-S", "-c", code, BUILT), env={"PYTHONPATH": ""})
    assert (status, out[1:]) == (0, ["[]", "True"]), err


def test_the_source_file_runs_where_blessed_is_installed():
    status, out, err = run("ann", command=python(os.path.join(TOP, "p2pchat.py")))
    assert status == 0 and out[0].startswith("SERVER: ")


def test_descriptors_are_not_inherited_by_surprise():
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft > 64, "the suite needs more than 64 descriptors: ulimit -n 256"


def test_a_probe_that_nobody_answered_is_closed_for_writing_first_and_later_wholly(members, monkeypatch):
    """History: a C program that wrote to a probe we had closed was killed by SIGPIPE, for which it has no handler."""
    monkeypatch.setattr(p2pchat, "LINGER_SECONDS", 0.5)
    ann, = members("ann")
    with p2pchat.listen("127.0.0.1", 0) as listener:
        ann.join(listener.getsockname()[1])
        turn([ann], lambda: ann.joined)
        listener.setblocking(True)
        probe, _ = listener.accept()
        probe.settimeout(PATIENCE)
        assert b"".join(iter(lambda: probe.recv(1000), b"")).startswith(b"\3\0\0\0\0\0\0\0ann")
        for _ in range(3):
            probe.sendall(encode_pair(b"carl", b"still writing"))
        turn([ann], lambda: not ann.chat._lingering)


def test_what_was_on_its_way_to_a_named_c_program_when_its_link_broke_is_sent_again(members):
    """History: of 375 lines a C program showed 269; the rest was said while it was being dialled again."""
    ann, = members("ann")
    with p2pchat.listen("127.0.0.1", 0) as listener:
        ann.join(listener.getsockname()[1])
        turn([ann], lambda: ann.joined)
        listener.setblocking(True)
        probe, _ = listener.accept()
        first, _ = listener.accept()
        first.settimeout(PATIENCE)
        ann.type("one")
        turn([ann], lambda: select.select([first], [], [], 0)[0])
        got = first.recv(1000)
        assert got.endswith(b"one")
        first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        first.close()
        ann.type("two")
        turn([ann], lambda: any("dialling again" in line for line in ann.err))
        ann.type("three")
        turn([ann], lambda: any("again" in line and "connected" in line for line in ann.err))
        probe.close()
        listener.accept()[0].close()
        second, _ = listener.accept()
        second.settimeout(PATIENCE)
        got = b""
        while b"three" not in got:
            turn([ann], lambda: select.select([second], [], [], 0)[0])
            got += second.recv(1000)
        assert b"one" not in got and got.index(b"two") < got.index(b"three")
        second.close()
