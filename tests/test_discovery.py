"""Members that find each other on a network segment: the packets, a dozen members simulated, and whole programs."""

import ast
import errno
import os
import random
import secrets
import select
import socket
import time

import pytest

import p2pchat
import peers
from helpers import PATIENCE, Member, Program, turn, unused_port, until
from message import ASKS, ASKS_ALL, MAX_ROOM, TELLS, Announcement, decode_announcement, encode_announcement
from world import World

LAN = (0.0005, 0.005)  # seconds that bytes take on one segment


def enter(world, room=b"lobby", **options):
    """A member that looks around from its first moment on."""
    member = world.member(**options)
    member.do(member.network.look_around, room)
    return member


def packets(world, since=0.0):
    return [decode_announcement(packet) for when, packet in world.packets if when >= since]


def announce(world, member, packet, host="10.9.9.9"):
    """A stranger at `host` sends this packet, and nobody else hears it."""
    member.do(member.network.overheard, host, packet)


# What is sent ---------------------------------------------------------------------------------

def test_a_packet_is_these_bytes():
    packet = bytes.fromhex("70 32 70 63 68 61 74 01 02 08 07 06 05 04 03 02 01 39 30 05 6c 6f 62 62 79")
    told = Announcement(TELLS, 0x0102030405060708, 12345, b"lobby")
    assert encode_announcement(told) == packet and decode_announcement(packet) == told


def test_of_bytes_that_make_no_sense_nothing_is_decoded():
    packet = encode_announcement(Announcement(TELLS, 1, 40000, b"lobby"))
    for wrong in (b"", packet[:-1], packet + b"x", packet[:19], packet[:20], b"P" + packet[1:], packet[:7] + b"\2" + packet[8:],
                  packet[:8] + b"\0" + packet[9:], packet[:8] + b"\4" + packet[9:],
                  encode_announcement(Announcement(TELLS, 1, 40000, b"x" * (MAX_ROOM + 1)))):
        assert decode_announcement(wrong) is None, wrong
    rng = random.Random(1)
    for _ in range(2000):
        damaged = bytearray(packet)
        damaged[rng.randrange(len(packet))] = rng.randrange(256)
        decode_announcement(bytes(damaged[:rng.randrange(len(packet) + 1)]))


# Who finds whom -------------------------------------------------------------------------------

def test_a_dozen_members_find_each_other_and_then_hardly_say_anything():
    world = World(3, delay=LAN)
    for number in range(12):
        world.at(number * number * 0.02, enter, world)
    world.run(11 * 11 * 0.02)
    world.run_until(lambda: len(world.members) == 12 and world.is_one(), 1, step=0.05)
    for member in world.members:
        member.say()
    world.run(10)
    assert all(member.shown == 12 for member in world.members)
    world.run(120)
    quiet = packets(world, world.now - 120)
    assert {packet.kind for packet in quiet} == {TELLS}
    assert 2 <= len(quiet) <= 8, "two a minute at most, and some that crossed, however many members there are"


def test_all_who_start_at_one_moment_are_one_network_after_seconds():
    world = World(5, delay=LAN)
    for _ in range(20):
        enter(world)
    world.run_until(world.is_one, 8)
    assert len(packets(world)) < 20 * 6


def test_a_newcomer_is_told_who_was_found_and_asks_no_more():
    world = World(1, delay=LAN)
    ann = enter(world, name="ann")
    world.run(300)
    bob = enter(world, name="bob")
    world.run(1)
    assert bob.said_notices == ["found ann in room lobby"] and world.is_one()
    world.run(20)
    assert "bob joined" in ann.said_notices and not any(packet.kind != TELLS for packet in packets(world, world.now - 18))


def test_rooms_stay_apart_and_each_hears_of_the_other():
    world = World(2, delay=LAN)
    lobby, attic = ([enter(world, room) for _ in range(3)] for room in (b"lobby", b"attic"))
    world.run(400)
    assert len(world.components()) == 2
    assert dict(lobby[0].network.discovery.rooms())[b"attic"] in (2, 3)
    late = enter(world, b"cellar")
    world.run(0.5)
    assert {room for room, _ in late.network.discovery.rooms()} == {b"attic", b"lobby"}, "whoever has just come knows already"


def test_the_rooms_with_most_members_come_first_and_a_list_of_them_has_an_end(nearby):
    ann, = nearby("ann")
    discovery = ann.chat.network.discovery
    for number in range(300):
        discovery.heard("10.9.9.9", encode_announcement(Announcement(TELLS, number + 100, 40000, b"%03d" % number)))
    for origin in 7, 8:
        discovery.heard("10.9.9.8", encode_announcement(Announcement(TELLS, origin, 40000, b"real")))
    ann.type(":rooms")
    turn([ann], lambda: any("rooms nearby" in line for line in ann.err))
    assert ann.err[-1].split("), ")[1] == "real (announced by 2" and ann.err[-1].endswith(f"and {peers.MAX_NEARBY - 2 - p2pchat.MAX_ROOMS_TOLD + 1} more")


def test_whoever_is_alone_asks_after_0_1_2_4_seconds_and_then_every_minute_and_is_told_once_that_it_is_in_vain():
    world = World(1, delay=LAN)
    alone = enter(world)
    world.run(250)
    times = [when for when, _ in world.packets]
    assert times == [0, 1, 2, 4, 8, 16, 32, 64, 124, 184, 244]
    assert [packet.kind for packet in packets(world)] == [ASKS_ALL] + [ASKS] * 10
    assert [text for text in alone.said_notices if "firewall" in text] == alone.said_notices and len(alone.said_notices) == 1


def test_whoever_loses_its_links_again_and_again_asks_once_a_second():
    world = World(1, delay=LAN)
    ann = enter(world)
    world.run(300)
    start = world.now
    for _ in range(50):
        bob = world.member()
        bob.join(ann)
        world.run(0.05)
        world.kill(bob)
        world.run(0.05)
    assert 2 <= len([packet for packet in packets(world, start) if packet.kind == ASKS]) <= 6


def test_networks_that_never_met_become_one_when_the_cable_is_back():
    world = World(4, delay=LAN)
    halves = [[world.member() for _ in range(4)] for _ in range(2)]
    world.partition(*halves)
    for half in halves:
        for member in half:
            member.do(member.network.look_around, b"lobby")
    world.run(100)
    assert len(world.components()) == 2
    world.heal()
    world.run_until(world.is_one, peers.TELL_SECONDS[1] + 5)
    world.run(5)
    assert all(len(member.mesh()) >= peers.WANT_LINKS for member in world.members)


def test_whoever_cannot_hear_is_dialled_when_it_asks_again():
    world = World(6, delay=LAN)
    network = [enter(world) for _ in range(5)]
    world.run(300)
    deaf = enter(world)
    deaf.overhear = lambda host, packet: None
    world.run_until(lambda: deaf.mesh(), 4)
    assert world.is_one() and len(network) == 5


def test_off_it_says_and_hears_nothing():
    world = World(1)
    member = world.member()
    announce(world, member, encode_announcement(Announcement(TELLS, 1, 40000, b"lobby")))
    world.run(500)
    assert not world.packets and not world.dials and member.network.next_deadline() is None


def test_whoever_leaves_announces_nothing_more():
    world = World(1, delay=LAN)
    member = enter(world)
    world.run(1.5)
    member.do(member.network.leave)
    member.do(member.network.overheard, "10.9.9.9", encode_announcement(Announcement(ASKS, 1, 40000, b"lobby")))
    world.run(100)
    assert len(world.packets) == 2


def test_a_member_heard_by_two_interfaces_is_dialled_by_one():
    world = World(1, delay=LAN)
    alone = enter(world)
    world.hosts["10.8.0.1"] = world.hosts["10.9.0.1"] = True
    for host in "10.8.0.1", "10.9.0.1", "fe80::1%eth0":
        announce(world, alone, encode_announcement(Announcement(TELLS, 7, 40000, b"lobby")), host)
    assert world.dials == 1


# Liars ----------------------------------------------------------------------------------------

def test_a_forged_packet_is_good_for_one_dial_and_a_thousand_for_a_few():
    world = World(1, delay=LAN)
    alone = enter(world)
    world.run(300)
    announce(world, alone, encode_announcement(Announcement(TELLS, 7, 40000, b"lobby")), "10.9.0.1")
    assert world.dials == 1
    world.run(60)
    assert world.dials == 1
    for number in range(1000):
        host = f"10.9.{number // 250}.{number % 250 + 1}"
        world.hosts[host] = True  # it refuses at once, so that the next one may be dialled
        announce(world, alone, encode_announcement(Announcement(TELLS, number + 100, 40000, b"lobby")), host)
        world.run(0.01)
    world.run(1)
    assert 2 < world.dials <= 1 + peers.NEAR_DIALS + 11 / peers.NEAR_SECONDS + 1
    assert len(alone.network.discovery._nearby) <= peers.MAX_NEARBY


@pytest.mark.parametrize("host, port, room", [
    ("10.9.9.9", 80, b"lobby"), ("10.9.9.9", 0, b"lobby"), ("224.0.0.1", 40000, b"lobby"), ("0.0.0.0", 40000, b"lobby"),
    ("255.255.255.255", 40000, b"lobby"), ("10.9.9.9", 40000, b"Lobby")])
def test_an_address_that_no_member_of_this_room_can_have_is_not_dialled(host, port, room):
    world = World(1)
    alone = enter(world)
    announce(world, alone, encode_announcement(Announcement(TELLS, 7, port, room)), host)
    announce(world, alone, encode_announcement(Announcement(TELLS, alone.network.author.origin, 40000, b"lobby")))
    assert world.dials == 0


def test_a_flood_from_one_host_keeps_no_newcomer_out():
    """History: its packets, even those that named no port, used up the dials that a member may make on the word of packets."""
    world = World(1, delay=LAN)
    world.hosts["10.9.9.9"] = True
    flooded = [enter(world)]

    def flood(number=0):
        for member in flooded:
            port = 1024 + number % 60000 if number % 2 else 0
            announce(world, member, encode_announcement(Announcement(TELLS, number + 100, port, b"lobby")))
        world.after(0.03, flood, number + 1)
    flood()
    world.run(30)
    assert world.dials <= peers.HOST_DIALS + 30 / peers.HOST_SECONDS + 1
    flooded.append(enter(world))
    world.run_until(world.is_one, 3)


def test_whoever_hears_somebody_and_cannot_reach_them_is_told_so():
    world = World(1, delay=LAN)
    alone = enter(world)
    for _ in range(20):
        announce(world, alone, encode_announcement(Announcement(TELLS, 7, 40000, b"lobby")))
        world.run(1)
    assert alone.said_notices == ["somebody is in room lobby nearby, but no connection came about; a firewall may block it: "
                                  "let them join you by host and port"]


def test_forged_answers_do_not_silence_those_who_are_here():
    world = World(1, delay=LAN)
    ann, bob = enter(world), enter(world)
    world.run(300)
    for number in range(100):
        announce(world, ann, encode_announcement(Announcement(TELLS, number + 100, 40000, b"lobby")))
        announce(world, bob, encode_announcement(Announcement(TELLS, number + 100, 40000, b"lobby")))
    start = world.now
    world.run(130)
    assert any(packet.kind == TELLS for packet in packets(world, start))


def test_a_thousand_questions_get_a_few_answers():
    world = World(1, delay=LAN)
    alone = enter(world)
    world.run(300)
    start = world.now
    for number in range(1000):
        announce(world, alone, encode_announcement(Announcement(ASKS, number + 100, 40000, b"lobby")))
        world.run(0.01)
    assert len(packets(world, start)) <= peers.REPLIES + 10 / peers.REPLY_PAUSE + 2


# Whole programs, on the loopback interface ----------------------------------------------------

@pytest.fixture
def nearby(members, monkeypatch):
    """nearby("ann", "bob") starts programs that look around in a room of the test's own, on a port of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setattr(p2pchat, "GROUP_PORT", probe.getsockname()[1])
    room = secrets.token_hex(8).encode()

    def start(*names, room=room):
        started = members(*names)
        for member in started:
            member.chat.look_around(room)
        return started
    return start


def test_two_programs_on_one_machine_meet_without_a_port_number(nearby):
    ann, = nearby("ann")
    turn([ann], lambda: ann.chat.network.discovery._asked)
    bob, = nearby("bob")
    pair = ann, bob
    room = bob.chat.network.discovery.room.decode()
    turn(pair, lambda: f"-- found ann in room {room}" in bob.err)
    bob.type("hi", ":rooms")
    turn(pair, lambda: ann.out == ["bob: hi"] and any("rooms nearby" in line for line in bob.err))
    assert bob.err[-1] == f"-- rooms nearby: {room} (yours, announced by 1)"


def test_another_room_on_the_same_machine_is_heard_of_and_not_joined(nearby):
    ann, = nearby("ann")
    bob, = nearby("bob", room=b"at\x1b[2Jtic")
    turn([ann, bob], lambda: ann.chat.network.discovery.rooms() and bob.chat.network.discovery.rooms())
    ann.type(":rooms")
    turn([ann, bob], lambda: any("rooms nearby" in line for line in ann.err))
    assert "announced by nobody else), at" in ann.err[-1] and ann.err[-1].endswith(" (announced by 1)") and "\x1b" not in ann.err[-1] and not ann.chat.links


def test_beside_a_program_that_keeps_the_port_to_itself_joining_by_hand_still_works(nearby, monkeypatch):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", 0))
        monkeypatch.setattr(p2pchat, "GROUP_PORT", other.getsockname()[1])
        ann, bob = pair = nearby("ann", "bob")
        bob.join(ann.port)
        turn(pair, lambda: bob.joined and ann.chat.links)
        assert [line for line in bob.err if "cannot look" in line] == [
            f"-- cannot look for members nearby (UDP port {p2pchat.GROUP_PORT}: Address already in use); join by host and port instead"]
        bob.type(":rooms")
        turn(pair, lambda: bob.err[-1].startswith("-- cannot look for members nearby"))


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_where_another_program_has_the_port_over_ipv4_only_members_are_looked_for_over_ipv6(monkeypatch):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", 0))
        monkeypatch.setattr(p2pchat, "GROUP_PORT", other.getsockname()[1])
        ann = Member("ann", bind="::")
        ann.chat.look_around(secrets.token_hex(8).encode())
        turn([ann], lambda: any("may not find all members nearby (UDP port" in line for line in ann.err))
        assert ann.chat.network.discovery and [type(group) for group in ann.chat.groups] == [p2pchat.Group6]
        ann.kill()


def test_whoever_names_a_peer_that_is_gone_looks_around_all_the_same(capfd):
    port = unused_port()
    chat, _ = p2pchat.start(["ann", "--room", secrets.token_hex(8), "127.0.0.1", str(port), "--no-input"])
    chat.open("join: ...")
    chat.step(0)
    assert chat.network.discovery and chat.network.contacts[0].spare
    chat.close()
    assert f"can't connect to 127.0.0.1 {port}: it refused the connection" in capfd.readouterr().err


def test_where_announcing_is_forbidden_it_is_said_once_and_joining_by_hand_works(nearby, monkeypatch):
    """EPERM is what a firewall on this machine answers with; the tests can have none."""
    def refuse(*_):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    monkeypatch.setattr(p2pchat.Group, "_send", refuse)
    monkeypatch.setattr(peers, "ASK_SECONDS", (0.1, 1))
    ann, bob = pair = nearby("ann", "bob")
    turn(pair, lambda: bob.chat.network.discovery._asked == 2)
    bob.join(ann.port)
    turn(pair, lambda: bob.joined)
    assert sum("cannot look for members nearby (UDP port" in line and "Operation not permitted" in line for line in bob.err) == 1


def test_a_flood_of_packets_gets_its_share_of_a_turn(nearby):
    ann, = nearby("ann")
    turn([ann], lambda: ann.chat.network.discovery._asked)
    heard = []
    ann.chat.network.overheard = lambda host, packet: heard.append((host, packet))
    group = p2pchat.Group("127.0.0.1")
    for _ in range(100):
        group.send(b"x")
    group.close()
    ann.chat.step(1)
    assert len(heard) == p2pchat.PACKETS_PER_TURN


def test_without_lan_there_is_no_socket_for_it(members):
    ann, = members("ann")
    ann.type(":rooms")
    turn([ann], lambda: "-- not looking for rooms; start with --lan or --room NAME" in ann.err)
    sockets = [source for source in ann.chat._poll.watched if isinstance(source, socket.socket)]
    assert not ann.chat.groups and sockets and not any(sock.type == socket.SOCK_DGRAM for sock in sockets)


# Whole programs, on machines of their own -----------------------------------------------------

def found(program):
    return any(line.startswith("-- found ") for line in program.err)


def who_is_here(program):
    before = len(program.err)
    program.type(":who")
    return program.wait(lambda program: [line for line in program.err[before:] if " here" in line])[-1]


def test_machines_on_one_segment_meet_and_one_between_two_segments_joins_them(segments):
    one, between, two = segments.machine("left"), segments.machine("left", "right"), segments.machine("right")
    with Program("ann", "--lan", before=one.enter) as ann, Program("bob", "--lan", before=between.enter) as bob:
        bob.wait(found)
        with Program("cy", "--lan", before=two.enter) as cy:
            cy.wait(found)
            assert cy.err[:2] == ["-- found bob in room lobby", f"-- join: ./p2pchat NAME {two.hosts[0]} {cy.port}"]
            cy.type("hi")
            ann.wait(lambda program: program.out[1:] == ["cy: hi"])
            assert who_is_here(bob) == "-- 2 others here: ann, cy"
            assert linked(bob) == 2, "by one address each, however many there are"


def test_on_a_segment_without_ipv4_members_meet_by_their_link_local_addresses_and_rejoin_by_them(segments):
    machines = [segments.machine("left", ipv4=False) for _ in range(3)]
    with Program("ann", "--lan", before=machines[0].enter) as ann, Program("bob", "--lan", before=machines[1].enter) as bob:
        bob.wait(found)
        with Program("cy", "--lan", before=machines[2].enter) as cy:
            cy.wait(found)
            cy.type("hi")
            for other in ann, bob:
                other.wait(lambda program: program.out[1:] == ["cy: hi"])
            until(lambda: linked(cy) == 2, seen=lambda: cy.err)  # a neighbour's address on this segment is one of ours with our interface
            cy.end()
            cy.wait(lambda program: program.err[-1].startswith("-- rejoin with: ./p2pchat cy fe80::"))
        words = cy.err[-1].split()[4:]
        assert words[1].endswith("%eth0")
        with Program(*words, before=machines[2].enter) as cy:
            cy.wait(lambda program: program.out[1:] and program.out[1].endswith("hi"))


def linked(program):
    before = len(program.err)
    program.type(":links")
    who_is_here(program)
    return sum(": mesh" in line for line in program.err[before:])


def test_whoever_a_firewall_keeps_from_hearing_the_others_is_dialled_by_them(segments):
    one, deaf = segments.machine("left"), segments.machine("left")
    segments.run(f"ip link set {deaf.ports[0]} type bridge_slave mcast_flood off".split())
    with Program("ann", "--lan", before=one.enter) as ann, Program("bob", "--lan", before=deaf.enter) as bob:
        bob.wait(lambda program: "-- ann joined" in program.err)
        assert who_is_here(ann) == "-- 1 other here: bob"


def there(machine, what):
    """What this function returns in a fork of ours on that machine."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            machine.enter()
            os.write(writer, repr(what()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return ast.literal_eval(said)


def next_packet(group):
    select.select([group.sock], [], [], PATIENCE)  # a busy machine may bring it a moment later
    return group.receive()


def test_a_packet_goes_out_on_loopback_only_where_it_goes_out_nowhere_else(segments):
    one = segments.machine("left")

    def heard():
        group = p2pchat.Group("::")
        group.send(b"x")
        return [next_packet(group), *iter(group.receive, None)]

    for host in one.hosts[0], "127.0.0.1":
        assert there(one, heard) == [(host, b"x")]
        one.ip("link set eth0 down")  # it keeps its address


def test_over_ipv6_only_what_comes_from_the_segment_counts(segments):
    """The socket there takes what is sent to this machine alone, too, from wherever that is."""
    one = segments.machine("left")

    def heard():
        group = p2pchat.Group6("::")
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", ("::1", p2pchat.GROUP_PORT))
        foreign, packet, give_up = next_packet(group), None, time.monotonic() + PATIENCE
        while packet is None and time.monotonic() < give_up:
            group.send(b"y")  # on a busy machine, a new interface has no address yet
            select.select([group.sock], [], [], 0.1)
            packet = group.receive()
        return foreign, packet

    foreign, (host, packet) = there(one, heard)
    assert foreign == ("", b"") and (host[:5], host[-5:], packet) == ("fe80:", "%eth0", b"y")


def test_an_address_off_our_segments_is_not_dialled_on_the_word_of_a_packet(segments):
    """SO_DONTROUTE: without it, the dial takes the default route, to whomever the packet names."""
    one, router = segments.machine("left"), segments.machine("left")
    one.ip(f"route add default via {router.hosts[0]}")

    def dialled(announced):
        try:
            p2pchat.Dial(peers.Attempt(("192.0.2.77", 40000), announced=announced), 0)
        except p2pchat.Gone as gone:
            return str(gone)
        return "dialled"

    assert there(one, lambda: [dialled(None), dialled(7)]) == ["dialled", "cannot be reached from here"]
