"""The network as a whole, in the simulator: random runs that a seed repeats, and each promise and each attack by itself.

A failing run prints its seed; `python3 tests/simulator.py --seed S` replays it with a trace.
"""

import os
import random
import subprocess
from collections import Counter

import pytest

import message
import peers
import faults
import marks
import mutants
import schedules
import simulator
from faults import chaos
from helpers import encode_pair, mutated, python
from message import HEADER_SIZE, Hello, Kind, encode_frame, encode_hello, encode_record
from nodes import EPOCH, Liar, Member
from oracle import Violation
from peers import LinkKind
from world import World

# They reach each rare branch three times; `python3 tests/simulator.py --choose 400` found them.
SEEDS = 25, 33, 36, 42, 82, 92, 94, 98, 127, 154, 158, 172, 181, 185, 281, 288, 303, 306, 345, 355, 361, 363, 382
MOST_SECONDS = 150  # until one network again after the last fault: what a split needs that only a friend can mend


def test_whatever_happens_survivors_are_one_network_and_show_everything_once_and_in_order():
    """To replay one: python3 tests/simulator.py --seed SEED. All in one test, as they must reach all branches together."""
    marks.watch()
    failures = {seed: error for seed, error in ((seed, faults.failure(faults.Draft(seed).plan)) for seed in SEEDS) if error}
    assert not failures
    assert not marks.missing(), "no seed reaches this any more: choose others (see SEEDS)"


@pytest.mark.parametrize("members, every, least", [(2, 4, 50), (3, 12, 50)])
def test_in_a_small_world_a_fault_at_any_moment_costs_nothing(members, every, least):
    """One fault each at some of the moments; make hunt tries all, with four members."""
    assert schedules.moments(every, members=members) > least


@pytest.mark.parametrize("members, skip, least", [(2, 24, 15), (3, 40, 30)])
def test_in_a_small_world_what_is_under_way_may_come_in_any_order(members, skip, least):
    """Three steps, while all are linked and speak; make hunt goes deeper."""
    assert schedules.orders(3, skip, most=50, members=members) > least


def test_a_seed_repeats_a_run_exactly_whatever_the_hash_seed():
    done = subprocess.run(python("-B", simulator.__file__, "--seed", "4"), stdout=subprocess.PIPE, timeout=60, text=True,
                          env={**os.environ, "PYTHONHASHSEED": "1"})  # ours is random
    digest = chaos(4, trace=lambda line: None).world.digest
    assert digest and done.stdout.split()[-2:] == ["digest", f"{digest:08x}"]


# Small worlds -------------------------------------------------------------------------------------

def network_of(count, seed=1, seconds=10, **options):
    """A world of `count` members that joined through the first, at rest."""
    world = World(seed, **options)
    first = world.member()
    for number in range(1, count):
        world.at(number * 0.05, lambda: world.member().join(first))
    world.run(count * 0.05 + seconds)
    assert world.is_one() and len(world.members) == count
    return world


def everybody_speaks(world, members=None):
    for member in members or world.members:
        member.say()


def notices(member, start=""):
    return [text for text in member.said_notices if text.startswith(start)]


def link(one, other):
    """The Neighbours by which `one` is linked to `other`."""
    return [neighbour for neighbour, end in one.ends.items() if end.peer.node is other and not end.peer.over]


def records(world):
    """How many logged records were taken so far, wherever."""
    return sum(count for kind, count in world.counts.items() if message.FIRST_LOGGED <= kind <= message.LAST_LOGGED)


# Growing and healing ------------------------------------------------------------------------------

@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
def test_up_to_six_members_are_a_full_mesh(count):
    world = network_of(count)
    assert all(len(set(member.mesh())) == count - 1 for member in world.members)


def test_in_a_larger_network_nobody_has_more_links_than_allowed_at_any_moment():
    world = World(2)
    first = world.member()
    for number in range(20):
        world.at(number * 0.02, lambda: world.member().join(first))
    for _ in range(80):
        world.run(0.05)
        assert all(sum(neighbour.kind is LinkKind.MESH and not neighbour.ending for neighbour in member.network.neighbours)
                   <= peers.MAX_MESH_LINKS for member in world.members)
    assert world.is_one()
    assert min(len(member.mesh()) for member in world.members) >= peers.WANT_LINKS - 1


def test_a_full_member_refuses_with_addresses_but_takes_one_that_is_urgent():
    world = network_of(16, seconds=2)
    full = max(world.members, key=lambda member: len(member.mesh()))
    while len(full.mesh()) < peers.MAX_MESH_LINKS:
        other = next(member for member in world.members if member is not full and member not in full.mesh())
        other.join(full)
        world.run(2)
    patient = Liar(world).join(full)
    patient.hello = patient.hello._replace(urgent=False)
    world.run(3)
    assert patient.over and peers.encode_addresses(Kind.BYE, ())[:9] in patient.got and b"10.0.0." in patient.got
    newcomer = world.member()
    newcomer.join(full)
    world.run(1.5)
    assert full in newcomer.mesh()
    assert len(full.mesh()) <= peers.MAX_MESH_LINKS


def test_half_killed_at_once_the_rest_is_one_network_within_three_seconds():
    world = network_of(16, seconds=2)
    first = world.members[0]
    for victim in [first, *world.rng.sample(world.members[1:], 7)]:
        world.kill(victim)
    everybody_speaks(world)
    assert world.run_until(world.is_one, 3) <= 3
    everybody_speaks(world)
    world.run(5)
    world.check_complete()


def test_without_a_sign_the_dead_are_noticed_by_their_silence():
    world = network_of(14, seconds=2)
    for victim in world.rng.sample(world.members, 7):
        world.kill(victim, sign=False)
    world.run(45)
    assert world.is_one()
    everybody_speaks(world)
    world.run(5)
    world.check_complete()
    assert all(len(member.network.neighbours) == len(member.mesh()) for member in world.members)


def test_a_member_whose_neighbours_all_died_comes_back_through_its_book():
    world = network_of(16, seconds=2)
    lonely = world.members[12]
    for neighbour in lonely.mesh():
        world.kill(neighbour)
    lonely.say()
    world.run_until(world.is_one, 5)
    world.run(2)
    world.check_complete([lonely], world.members)


@pytest.mark.parametrize("seed", range(3))
def test_a_member_that_knows_forty_dead_addresses_and_one_that_lives_finds_it_at_once(seed):
    """History: of 10,000 members of which 90 % died, some used up their dials, and were alone for ten seconds."""
    world = network_of(2, seed)
    lonely, other = world.members
    survivor = world.member()
    book = lonely.network.overlay.book
    for number in range(40):
        world.hosts[f"10.9.9.{number}"] = True  # a machine that answers: nobody listens
        book.note((f"10.9.9.{number}", 4000))
    book.note(survivor.as_seen_by(lonely))
    world.kill(other)
    world.run_until(lambda: survivor in lonely.mesh(), 10)


def test_a_newcomer_knows_nearly_all_of_forty_members_after_20_seconds():
    """History: it knew 29, and of 2,000 members of which 90 % died, one knew nobody who lived."""
    world = network_of(40, seconds=20)
    assert min(len(member.network.overlay.book.heard) for member in world.members[-10:]) > 34


def test_a_shuffle_finds_the_other_half_after_a_long_split():
    world = network_of(8, seconds=20, lazy=True)
    half = world.members[::2]
    world.partition(half)
    world.run(300)
    everybody_speaks(world)
    world.heal()
    world.run_until(world.is_one, 30)
    world.run(5)
    world.check_complete()


def test_friends_find_the_other_half_when_the_seed_is_dead_and_the_split_lasted_a_quarter_of_an_hour():
    world = network_of(6, seconds=60, lazy=True)
    world.kill(world.members[0])
    world.partition(world.members[::2])
    world.run(900)
    everybody_speaks(world)
    world.heal()
    world.run_until(world.is_one, MOST_SECONDS)
    world.run(5)
    world.check_complete()


def test_after_a_split_the_peer_that_a_user_named_is_dialled_again_though_there_are_other_links(monkeypatch):
    """History (seed 720013): it was dialled only without any link, so two parts whose friends were dead stayed apart."""
    monkeypatch.setattr(peers, "MAX_FRIENDS", 0)
    world = network_of(3)
    world.partition(world.members[:1])
    world.run(100)
    assert not any(member.network.overlay.book.heard.keys() & {(world.members[0].host, world.members[0].port)} for member in world.members)
    world.heal()
    world.run_until(world.is_one, MOST_SECONDS)


def test_the_peer_that_a_user_named_is_not_dialled_once_it_has_left():
    world = network_of(3)
    world.members[0].leave()
    dials = world.dials
    world.run(300)
    assert world.dials == dials


def test_whoever_reached_only_a_member_that_is_stopped_for_ever_is_taken_in_once_its_user_names_another():
    """History (seeds 3002427, 720847): the oracle waited for the stopped one, and never let that user name another."""
    plan = [(0, "join", 1, 0), (0, "dial_only", 4), (0.1, "join", 2, 1), (0.2, "join", 3, 1), (5, "stop", 1, None), (6, "join", 4, 1)]
    run = faults.replay(1, {}, {}, plan)
    assert faults.WHOLE_SECONDS < run.took < 2 * faults.WHOLE_SECONDS


def test_two_networks_are_joined_by_one_user():
    world = network_of(8)
    other = world.member()
    for _ in range(5):
        world.member().join(other)
    world.run(5)
    everybody_speaks(world)
    world.run(5)
    assert len(world.components()) == 2
    world.members[3].join(world.members[-1])
    world.run(5)
    assert world.is_one()
    world.check_complete()


def test_crossed_dials_leave_exactly_one_link():
    for seed in range(30):
        world = World(seed)
        one, other = world.member(), world.member()
        world.at(1, one.join, other)
        world.at(1 + world.rng.choice([0, 0.01, 0.05, 0.1, 0.3]), other.join, one)
        world.run(5)
        assert len(link(one, other)) == len(link(other, one)) == 1, f"seed {seed}"
        one.say(), other.say()
        world.run(2)
        world.check_complete()
        assert len(notices(one, "lost")) == len(notices(other, "lost")) == 0


def test_dialled_twice_by_one_side_the_newer_link_stays():
    world = World(1)
    one, other = world.member(), world.member()
    one.join(other)
    world.run(2)
    world.silence(one, other)  # the old link is dead, and nobody knows
    for conn in world.conns:
        conn.silent = True
    one.join(other, "the other")
    world.run(3)
    assert len(link(one, other)) == 1
    everybody_speaks(world)
    world.run(2)
    world.check_complete()


def test_dialling_ourselves_leaves_no_link_and_is_not_repeated():
    world = World(1)
    one = world.member()
    one.join(one)
    world.run(100)
    assert one.network.neighbours == [] and world.dials == 1


def test_an_unfinished_hello_is_cut_off_after_its_deadline():
    world = World(1)
    one = world.member()
    liar = Liar(world, probe=False).join(one)
    world.run(0.3)
    short = liar.hello._replace(name=b"")
    liar.send(encode_pair(b"liar", message.PROBE + encode_hello(short)))
    world.run(peers.HELLO_SECONDS - 0.5)
    assert not liar.over
    world.run(1.5)
    assert liar.over and one.network.neighbours == []


def test_a_probe_that_comes_late_is_still_recognised():
    """The first version took a caller for a C peer, and its probe for a goodbye, when one packet was lost."""
    for late in 0.7, 2, 4:
        world = World(1)
        one = world.member()
        liar = Liar(world, probe=False).join(one)
        world.run(late)
        liar.send(encode_pair(b"liar", message.PROBE + encode_hello(liar.hello._replace(name=b""))))
        liar.send(encode_frame(encode_hello(liar.hello)))
        world.run(1)
        assert [neighbour.kind for neighbour in one.network.neighbours] == [LinkKind.MESH], late


def test_whoever_took_a_member_for_a_c_program_and_cannot_be_dialled_links_to_it_at_its_first_line():
    """History (seed 701346): it did not dial that address again, as its plain link led there."""
    world = network_of(3)
    first, guest = world.members[0], world.member()
    world.stop(first)
    guest.join(first)
    world.run(3)
    world.resume(first)
    guest.dial_only = True
    world.run(5)
    assert not world.is_one()
    first.say()
    world.run(2)
    assert world.is_one()


@pytest.mark.parametrize("delay", [0.3, 0.6, 0.9])
def test_members_far_apart_recognise_each_other(delay):
    """The first version counted a second from the connection, and spoke plain to a member 0.6 s away."""
    world = World(1, delay=(delay, delay))
    one, other = world.member(), world.member()
    other.join(one)
    one.say(), other.say()
    world.run(20)
    assert other in one.mesh() and one in other.mesh()
    world.check_complete()


# Nothing lost, nothing twice ----------------------------------------------------------------------

def test_a_link_that_comes_back_in_sync_carries_no_message_at_all():
    world = network_of(5)
    everybody_speaks(world)
    world.run(peers.RESAY_SECONDS + 5)  # what one said lately one asks for: somebody may have forged it
    world.counts.clear()
    one, other = world.members[1:3]
    world.cut(one, other)
    world.run(0.9)  # before the loss of a neighbour is told
    world.run_until(lambda: other in one.mesh(), 10)
    world.run(5)
    assert world.counts[Kind.HELLO] > 0
    assert records(world) == 0


def test_a_late_joiner_is_shown_the_history_in_order_marked_as_earlier_with_its_time():
    world = network_of(6)
    for _ in range(20):
        world.rng.choice(world.members).say()
        world.run(1)
    world.run(30)
    seen = []
    newcomer = world.member()
    newcomer._show = lambda event, text, show=newcomer._show: (seen.append(event), show(event, text))
    newcomer.join(world.members[3])
    world.run(5)
    world.check_complete()
    assert len(seen) == 20
    assert all(EPOCH < event.earlier <= EPOCH + world.now - 30 for event in seen)
    assert [event.earlier for event in seen] == sorted(event.earlier for event in seen)
    assert not notices(newcomer, "m2 joined"), "a member who joined long ago is not announced"
    assert {member.label for member in newcomer.network.who()} == {member.name for member in world.members[:-1]}


def test_when_the_history_window_is_exceeded_the_user_is_told_how_many_are_missing(monkeypatch):
    monkeypatch.setattr(message, "LOG_MESSAGES", 100)
    world = network_of(4)
    world.gaps = True
    away = world.members[2]
    everybody_speaks(world)
    world.run(2)
    world.partition([away])
    author = world.members[0]
    for _ in range(300):
        author.say()
    world.run(60)
    world.heal()
    world.run_until(world.is_one, 60)
    world.run(message.TELL_SECONDS + 1)
    shown = len([ident for ident in away.seen if ident[0] == author.ident])
    told = [text for text in away.said_notices if "missing" in text]
    assert len(told) == 1 and 50 < shown < 120
    assert told[0].startswith(f"{301 - shown} messages are missing")
    assert away.last[author.ident] == author.number


def test_two_members_away_together_for_longer_than_the_log_are_taken_back(monkeypatch):
    """History: each waited for the other to bring what both were missing, and refused everybody else, for ever."""
    monkeypatch.setattr(message, "LOG_MESSAGES", 100)
    world = network_of(8)
    world.gaps = True
    away, others = world.members[:2], world.members[2:]
    everybody_speaks(world)
    world.run(2)
    world.partition(away)
    world.run(60)
    for _ in range(40):
        everybody_speaks(world, others)
        world.run(0.1)
    world.heal()
    world.run_until(world.is_one, 120)
    everybody_speaks(world)
    world.run(20)
    assert world.is_one()
    world.check_complete()


def test_what_a_lone_member_said_is_there_for_whoever_joins():
    world = World(1)
    lone = world.member()
    for _ in range(5):
        lone.say()
        world.run(100)
    world.member().join(lone)
    world.run(3)
    world.check_complete()
    assert world.members[1].shown == 5


def test_a_member_that_was_let_go_for_not_reading_catches_up():
    world = network_of(3)
    stuck, talker = world.members[1], world.members[2]
    world.stop(stuck)
    for _ in range(300):
        talker.say(padding=1000)
        world.run(0.01)
    world.run(100)
    assert stuck not in talker.mesh() and not link(talker, stuck)
    world.resume(stuck)
    world.run_until(world.is_one, 30)
    world.run(5)
    world.check_complete()
    world.check_double_links()


def test_a_stuck_neighbour_costs_the_others_nothing():
    world = network_of(8)
    world.stop(world.members[3])
    others = [member for member in world.members if not member.stopped]
    for _ in range(200):
        others[0].say(padding=1000)
    world.run(2)
    world.check_complete(others)
    queued = [neighbour.queued for member in others for neighbour in member.network.neighbours]
    assert max(queued) < 1000, "a slow neighbour is a position in the log"


def test_two_networks_without_a_route_between_them_are_one_through_a_machine_in_both():
    world = World(1)
    hub = world.member(host="192.168.1.1")
    world.also_at(hub, "192.168.2.1")
    here = [world.member(host=f"192.168.1.{number}") for number in (10, 11)]
    there = [world.member(host=f"192.168.2.{number}") for number in (10, 11)]
    for member in here + there:
        member.do(member.network.join, "the hub", [(member.host.rpartition(".")[0] + ".1", hub.port)])
    world.run(10)
    assert set(hub.mesh()) == {*here, *there} and set(here[0].mesh()) == {hub, here[1]} and set(there[0].mesh()) == {hub, there[1]}
    everybody_speaks(world)
    world.run(2)
    world.check_complete()
    world.check_who()
    dials = world.dials
    world.run(600)
    assert world.dials - dials < 10 * 60, "who cannot be reached is not dialled all the time"


def test_a_machine_in_two_networks_keeps_its_only_link_to_either():
    """History (seed 9100016): it swapped that link for another in the larger one, and then had no room for the smaller one."""
    network = peers.Network(b"me", 1, random.Random(1))
    for number in range(2, 50):
        met(network, f"10.0.0.{number}", number, "10.0.0.1")
    one, other = [met(network, f"10.1.0.{number}", number, "10.1.0.1", urgent=False) for number in (98, 99)]
    assert one.kind is LinkKind.MESH and other.ending, "there was room for the first one only"
    for number in range(100, 150):
        met(network, f"10.0.0.{number}", number, "10.0.0.1")
    assert not one.ending


def test_a_program_on_our_machine_that_dials_many_loopback_addresses_pushes_nobody_out():
    network = peers.Network(b"me", 1, random.Random(1))
    for number in range(2, 50):
        met(network, f"127.0.0.{number}", number, "127.0.0.1")
    kept = set(network.links.mesh())
    callers = [met(network, "127.66.0.1", number, f"127.0.1.{number}", urgent=False) for number in range(50, 70)]
    assert all(caller.ending for caller in callers) and set(network.links.mesh()) == kept


def test_a_slept_laptop_rejoins_and_catches_up_by_itself():
    world = network_of(5)
    sleeper = world.members[3]
    world.stop(sleeper)
    world.unplug(sleeper)
    for _ in range(5):
        world.run(200)
        world.rng.choice([member for member in world.members if member is not sleeper]).say()
    world.plug(sleeper)
    world.resume(sleeper)
    world.run_until(world.is_one, 40)
    world.run(10)
    sleeper.say()
    world.run(3)
    world.check_complete()


# Who is here --------------------------------------------------------------------------------------

def test_joined_left_lost_and_back_are_each_told_once():
    world = network_of(4, delay=(0.02, 0.04))
    watcher, leaver, victim = world.members[0], world.members[1], world.members[2]
    newcomer = world.member("zoe")
    newcomer.join(watcher)
    world.run(12)
    assert notices(watcher, "zoe") == ["zoe joined"]
    leaver.leave()
    world.run(12)
    assert notices(watcher, leaver.name.decode())[-1] == f"{leaver.name.decode()} left"
    assert not notices(watcher, "lost")
    world.kill(victim)
    world.run(12)
    lost = notices(watcher, "lost")
    assert len(lost) == 1 and lost[0].startswith(f"lost contact with {victim.name.decode()}; still connected through ")
    assert {member.label for member in watcher.network.who()} == {b"zoe", b"m4"}


def test_a_member_wrongly_called_lost_says_that_it_is_here():
    world = network_of(8)
    away = world.members[3]
    world.partition([away])
    world.run(60)
    rest = [member for member in world.members if member is not away]
    assert all(len(notices(member, f"lost contact with {away}")) == 1 for member in rest)
    world.heal()
    world.run_until(world.is_one, MOST_SECONDS)
    world.run(5)
    assert all(notices(member, f"{away} is back") == [f"{away} is back"] for member in rest)
    assert all(len(member.network.who()) == 7 for member in world.members)


def test_two_members_of_one_name_are_told_apart():
    world = World(1)
    one, other, third = world.member("ann"), world.member("ann"), world.member("bob")
    labels = []
    third._show = lambda event, text: labels.append(event.name)
    other.join(one)
    world.run(2)
    third.join(one)
    world.run(2)
    one.say()
    world.run(1)
    other.say()
    world.run(1)
    expected = [b"ann~%02x" % (member.network.author.origin >> 56) for member in (one, other)]
    assert labels == expected
    assert sorted(member.label for member in third.network.who()) == sorted(expected)
    assert [member.network.presence.own_label for member in (one, other)] == expected
    world.run(peers.NAMESAKE_SECONDS)
    for member, label in zip((one, other), expected):
        assert f"someone else here is also called ann; others see you as {label.decode()}" in member.said_notices
    world.kill(other)
    world.run(15)
    assert [member.label for member in third.network.who()] == [b"ann"], "a name that only one bears is shown as it is"


def test_an_earlier_run_of_ours_is_not_announced_by_the_history_of_whoever_calls_us():
    """History: restarted with --lan and called by another, a member was told that its own dead run had joined."""
    world = World(1)
    one, crashed = world.member("ann"), world.member("bob")
    crashed.join(one)
    world.run(5)
    world.kill(crashed)
    world.run(20)
    bob = world.member("bob")
    one.join(bob)
    world.run(5)
    assert bob.said_notices == ["ann joined"]


def test_a_namesake_that_was_missed_for_a_moment_is_not_announced_again():
    """History (seed 730152): its link broke off, it was told lost, and said that it was here."""
    faults.replay(730152, {}, {'delay': (0.01, 0.1)}, [
        (0, 'join', 1, 0),
        (0.1, 'join', 2, 1),
        (1.16, 'join', 4, 3),
        (1.6, 'join', 5, 4),
        (2.2, 'join', 6, 5),
        (3.18, 'join', 7, 6),
        (3.78, 'again', 8, 7, 7),
        (5.73, 'cut', 8, 0),
    ])


def test_a_lie_that_a_member_is_lost_is_contradicted_and_told_nobody_who_is_linked_to_it():
    world = network_of(3)
    one, other = world.members[:2]
    liar = Liar(world).join(other)
    world.run(1)
    liar.record(Kind.LOST, 1, one.network.author.origin.to_bytes(8, "little"), name=one.name)
    world.run(2)
    assert not any(notices(member, f"lost contact with {one}") + notices(member, f"{one} is back") for member in world.members)
    assert one.network.author.origin in {key for key, member in other.network.presence.people.items() if member.here}


# C peers ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dialled", [False, True])
def test_a_c_peer_takes_part_both_ways_and_sees_nothing_but_chat(dialled):
    world = network_of(6)
    gateway = world.members[2]
    peer = world.c_peer()
    if dialled:
        gateway.join(peer)
    else:
        peer.join(gateway)
    for _ in range(10):
        everybody_speaks(world)
        world.run(1)
        if peer.ends:
            peer.say()
    world.run(5)
    everybody_speaks(world)
    world.run(5)
    world.check_complete([*world.members, peer], world.members)
    assert all(peer.last[member.ident] == member.number for member in world.members)
    assert max(peer.shown_times.values()) == 1
    assert peer.probes == int(dialled)
    assert all(any(entry.guest and entry.here for entry in member.network.presence.people.values()) for member in world.members)
    lines = len(peer.lines)
    world.kill(world.members[4])
    world.member().join(world.members[0])
    world.run(60)
    assert len(peer.lines) == lines, "it hears of no joins, no losses, no history"
    gateway.leave()
    world.run(2)
    assert peer.forgot == 1 + dialled


def ring_of(seed, **options):
    """Four members; the first and the third lead to two C programs, which are linked to each other: a circle."""
    world = network_of(4, seed, **options)
    left, right = world.c_peer(), world.c_peer()
    left.join(world.members[0])
    right.join(world.members[2])
    world.run(2)
    world.dial(left, peers.Attempt((right.host, right.port)), 5)
    world.run(2)
    return world, left, right


def quiet_links(world):
    return [neighbour for member in world.members for neighbour in member.network.neighbours
            if neighbour.outlet and neighbour.outlet.is_quiet]


def talk(world, speakers, seconds=20):
    for _ in range(seconds):
        for speaker in speakers:
            speaker.say()
        world.run(1)
    world.run(6)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("first", ["members", "C users"])
def test_in_a_circle_through_c_programs_each_line_is_seen_once(seed, first):
    """History: the first version sent each line of a C user around for ever; the next one closed links to stop that."""
    world, left, right = ring_of(seed)
    members, c_users = world.members[:], [left, right]
    talk(world, members if first == "members" else c_users, 1)
    before = {peer: dict(peer.shown_times) for peer in c_users}
    talk(world, members + c_users)
    world.check_complete([*members, *c_users], members)  # the oracle fails if a member shows a line twice
    for peer in c_users:
        later = {text: times for text, times in peer.shown_times.items() if text not in before[peer]}
        assert set(later.values()) == {1}, f"{peer} shows a line more than once after the circle was found"
        assert all(peer.last[node.ident] == node.number for node in members + c_users if node is not peer)
    assert len(quiet_links(world)) == 1 and len(plain_links(world)) == 2, "no C program is cut off"


@pytest.mark.parametrize("first", ["a member", "a C user"])
@pytest.mark.parametrize("seed", range(2))
def test_in_a_chain_of_members_and_c_programs_each_line_is_seen_once(seed, first):
    """History: both gateways of one island went quiet, and a line told late by another one was taken for a new one."""
    world = simulator.World(seed)
    one, two, three = members = [world.member() for _ in range(3)]
    left, right = c_users = [world.c_peer() for _ in range(2)]
    for who, whom in ((left, one), (two, left), (right, two), (three, right)):
        who.join(whom)
        world.run(2)
    (one if first == "a member" else left).say()
    world.run(3)
    for speakers in (c_users, members, members + c_users):
        for speaker in speakers * 10:
            speaker.say()
            world.run(0.03)
        world.run(3)
    world.run(10)
    world.check_complete([*members, *c_users], members)  # the oracle fails if a member shows a line twice
    for peer in c_users:
        assert sum(times > 1 for times in peer.shown_times.values()) <= 12, "only what was said until the circle was found"
        assert all(peer.last[node.ident] == node.number for node in members + c_users if node is not peer)
    assert len(quiet_links(world)) == 2 and len(plain_links(world)) == 4


def any_shape(seed):
    """Two to four members and one to three C programs, linked anyhow, though never in a circle of C programs alone.

    They are linked one after the other, in any order and direction. Returns (world, members, C programs).
    """
    rng, world = random.Random(seed), simulator.World(seed)
    members = [world.member() for _ in range(rng.randint(2, 4))]
    c_users = [world.c_peer() for _ in range(rng.randint(1, 3))]
    for peer in c_users:
        peer.most_times = len(members) * len(c_users)  # links into its island, until the circle is found
    nodes = rng.sample(members + c_users, len(members + c_users))
    pairs = [(node, rng.choice(nodes[:at])) for at, node in enumerate(nodes) if at]
    pairs += [rng.sample(nodes, 2) for _ in range(rng.randint(0, 3))]
    pairs = {frozenset(pair): tuple(pair) for pair in pairs}.values()
    island = {node: node for node in c_users}  # C programs that are linked have the same
    gap = rng.choice([0.1, 0.5, 1.5, 3])
    for one, other in map(lambda pair: rng.sample(pair, 2), pairs):
        if one in island and other in island:
            if island[one] is island[other]:
                continue
            island = {node: island[one] if of is island[other] else of for node, of in island.items()}
        one.join(other)
        world.run(rng.uniform(0, gap))
    world.run(4)
    return world, members, c_users


@pytest.mark.parametrize("seed", range(6))
def test_in_a_network_of_any_shape_each_line_is_seen_once(seed):
    """History: of 700 shapes, 33 lost a line to a C program, or showed it lines twice long after each circle was found."""
    world, members, c_users = any_shape(seed)
    world.tainted, world.repeats = True, Counter()
    rng, nodes = random.Random(seed), members + c_users
    rng.choice(nodes).say()
    world.run(3)
    for speakers in rng.sample([members, c_users, nodes], 3):
        for speaker in speakers * 8:
            speaker.say()
            world.run(0.03)
        world.run(rng.choice([0.2, 3, 6]))
    world.run(12)
    repeats, before = len(world.repeats), {peer: dict(peer.shown_times) for peer in c_users}
    talk(world, nodes, 4)
    for node in nodes:
        assert all(node.last[other.ident] == other.number for other in nodes if other is not node), f"{node} lacks something"
    assert repeats <= 3 and len(world.repeats) == repeats, "only a C user's first lines, before anything came around"
    for peer in c_users:
        twice = [text for text, times in peer.shown_times.items() if times > 1]
        # A gateway finds the other one, dials it and greets it in 0.4 s: a dozen lines.
        assert len(twice) <= 12 and all(text in before[peer] for text in twice), "only what was said until a circle was found"
    for member in members:
        assert len(member.network.who()) == len(nodes) - 1


def reachable(world, node):
    """The nodes that this one is connected to, by way of others."""
    found, pairs = {node}, [(conn.a, conn.b) for conn in world.conns if not (conn.a.over or conn.b.over or conn.silent)]
    for _ in pairs:
        for one, other in pairs:
            if found & {one.node, other.node}:
                found |= {one.node, other.node}
    return found


@pytest.mark.parametrize("how", ["a member is killed", "a member is stopped", "a link is silent"])
@pytest.mark.parametrize("seed", range(3))
def test_in_a_network_of_any_shape_a_fault_costs_no_line(seed, how):
    """History: a quiet link took over a C user's line a second time; what two gateways told 3 seconds apart was shown twice."""
    world, members, c_users = any_shape(seed)
    world.tainted, world.repeats = True, Counter()
    rng, nodes = random.Random(seed), members + c_users
    talk(world, nodes, 5)
    victim = rng.choice(members)
    if how == "a member is killed":
        world.kill(victim)
        nodes.remove(victim)
    elif how == "a member is stopped":
        world.stop(victim)
    else:
        world.silence(*rng.choice([(one, other) for one in members for other in one.mesh()]))
    repeats = len(world.repeats)
    talk(world, [node for node in nodes if not node.stopped], 6)
    world.run(60)
    if victim.stopped:
        world.resume(victim)
        world.run(60)
    shown = {peer: dict(peer.shown_times) for peer in c_users}
    talk(world, nodes, 3)
    together = [node for node in nodes if node in reachable(world, next(member for member in members if not member.dead))]
    for node in together:
        assert all(node.last[other.ident] == other.number for other in together if other is not node), f"{node} lacks something"
    assert len(world.repeats) == repeats
    for peer in c_users:
        assert not [text for text, times in peer.shown_times.items() if times > 1 and text not in shown[peer]]


@pytest.mark.parametrize("seed", [1, 2])
def test_whoever_is_let_go_for_a_newcomer_is_not_told_that_it_is_connected_again(seed):
    """History: half a second after it had joined, and nobody had been lost."""
    world = simulator.World(seed)
    members = [world.member()]
    while len(members) < 40:
        newcomer = world.member()
        newcomer.join(members[-1 - len(members) % 7 % len(members)])
        members.append(newcomer)
        world.run(0.15)
    world.run(2)
    assert not [member for member in members for _, words, _ in member.notices if words.startswith("connected again")]


def plain_links(world):
    return [neighbour for member in world.members for neighbour in member.network.neighbours if neighbour.kind is LinkKind.PLAIN]


def test_a_gateway_that_is_slower_than_the_c_program_is_known_at_the_first_line():
    """History: it sent nothing that had come back already, so the others did not know of it, and one line in between came twice."""
    world = simulator.World(1, delay=(0.01, 0.01))
    members, peer = [world.member() for _ in range(3)], world.c_peer()
    peer.most_times = 3
    for member in members:
        for other in [members[0], peer][member is members[0]:]:
            member.join(other)
            world.run(2)
    ends = [end for conn in world.conns for end in (conn.a, conn.b) if peer not in (conn.a.node, conn.b.node)]
    assert len(ends) == 6
    for end in ends:
        end.delay = 1  # so the C program relays a line to the other two before the mesh brings it
    max(members, key=lambda member: member.network.author.origin).say()
    world.run(4)
    assert len(quiet_links(world)) == 2
    assert max(peer.shown_times.values()) <= 3, "once for each link, before the circle is found"
    for end in ends:
        end.delay = 0.001
    shown = dict(peer.shown_times)
    talk(world, [*members, peer], 3)
    assert not [text for text, times in peer.shown_times.items() if times > 1 and text not in shown]


@pytest.mark.parametrize("how", ["killed", "stopped", "cut off"])
@pytest.mark.parametrize("seed", range(2))
def test_a_quiet_link_takes_over_exactly_what_did_not_come(seed, how):
    world, left, right = ring_of(seed)
    talk(world, world.members + [left, right], 5)
    quiet, = quiet_links(world)
    gateways = [world.members[0], world.members[2]]
    active = next(member for member in gateways if quiet not in member.network.neighbours)
    served = left if active is gateways[0] else right
    if how == "killed":
        world.kill(active)
    elif how == "stopped":
        world.stop(active)
    else:
        world.cut(active, served)
    shown_before = dict(left.shown_times), dict(right.shown_times)
    speakers = [member for member in world.members if not member.stopped] + [left, right]
    talk(world, speakers, 15)
    others = [member for member in speakers if isinstance(member, Member)]
    world.check_complete([*others, left, right], others)
    for peer, before in zip((left, right), shown_before):
        assert all(peer.last[node.ident] == node.number for node in speakers if node is not peer)
        assert max(times for text, times in peer.shown_times.items() if text not in before) <= 2
    if how == "stopped":
        world.resume(active)
        world.run(50)
        talk(world, [*world.members, left, right], 5)
        world.check_complete([*world.members, left, right], world.members)


@pytest.mark.parametrize("seed", range(2))
def test_a_line_that_only_a_c_program_can_bring_does_not_wait_for_a_link_that_is_dead(seed):
    """History: it was left to the mesh as long as its author was listed, and lost where the mesh never healed."""
    world = network_of(2, seed)
    peer = world.c_peer()
    one, other = pair = world.members[:]
    for member in pair:
        member.join(peer)
    talk(world, pair, 3)
    world.silence(one, other)
    talk(world, pair, 3)
    world.run(6)
    assert all(member.last[who.ident] == who.number for member, who in ((one, other), (other, one)))
    assert one.mesh() and other.mesh(), "neither knows yet that their link is dead"
    world.silence(one, other, on=False)
    talk(world, pair, 3)
    world.check_complete([*pair, peer], pair)


def test_a_forged_circle_costs_seconds_and_no_line():
    world = network_of(3)
    peer = world.c_peer("carl")
    gateway = max(world.members, key=lambda member: member.network.author.origin)
    other = next(member for member in world.members if member is not gateway)
    peer.join(gateway)
    world.run(1)
    mark = message.Marker(other.network.author.origin, "10.0.0.9", 4000)
    world.strict = False
    forged = encode_record(Kind.SAY, 1234, 1, 0, b"carl", b"forged")
    peer.ends[0].node.world.send(peer.ends[0], mark.encode(0, [forged]).data)
    world.run(0.5)
    assert len(quiet_links(world)) == 1
    talk(world, [*world.members, peer], 10)
    world.check_complete([*world.members, peer], world.members)
    assert all(peer.last[member.ident] == member.number for member in world.members) and not quiet_links(world)
    assert max(peer.shown_times.values()) == 1


@pytest.mark.parametrize("seed", range(4))
def test_two_links_of_one_member_into_one_island(seed):
    world = network_of(2, seed)
    left, right = world.c_peer(), world.c_peer()
    left.join(world.members[0])
    world.members[0].join(right)
    world.run(3)
    world.dial(left, peers.Attempt((right.host, right.port)), 5)
    world.run(2)
    left.most_times = right.most_times = 3
    talk(world, [world.members[1], left, right], 1)
    before = {peer: dict(peer.shown_times) for peer in (left, right)}
    talk(world, [*world.members, left, right], 10)
    world.check_complete([*world.members, left, right], world.members)
    for peer in (left, right):
        assert {times for text, times in peer.shown_times.items() if text not in before[peer]} == {1}


def test_members_behind_one_c_program_find_each_other_at_the_first_line():
    world = World(3)
    peer = world.c_peer("carl")
    one, other = world.member(), world.member()
    one.join(peer), other.join(peer)
    world.run(5)
    assert not one.mesh()
    one.say()
    world.run(3)
    assert other in one.mesh() and other.shown == 1
    talk(world, [one, other, peer], 5)
    world.kill(peer)
    talk(world, [one, other], 5)
    world.check_complete()


def test_members_who_reach_each_other_through_c_programs_only_hear_each_line_once():
    """One label for each, and what the mesh brings later is not shown again."""
    world = World(3)
    peer = world.c_peer("carl")
    one, other = world.member(), world.member()
    one.join(peer), other.join(peer)
    world.partition([one], [other])
    world.groups[peer.host] = None
    world._apart = lambda here, there: {here, there} == {one.host, other.host} and bool(world.groups)
    world.run(5)
    talk(world, [one, other, peer], 5)
    assert not one.mesh() and other.shown == one.shown == 15
    assert sorted(person.label for person in one.network.who()) == [b"carl", other.name]
    world.heal()
    one.join(other)
    world.run(5)
    talk(world, [one, other, peer], 5)
    assert other in one.mesh() and one.shown == other.shown == 30  # the oracle fails if one is shown twice
    assert sorted(person.label for person in one.network.who()) == [b"carl", other.name]


def test_one_line_typed_twice_on_a_plain_link_is_shown_twice():
    world = network_of(3)
    world.strict = False
    peer = world.c_peer("carl")
    peer.join(world.members[1])
    world.run(2)
    for _ in range(2):
        peer.relay(b"carl", b"ok")
    world.run(2)
    world.members[0].do(world.members[0].network.say, b"ok")
    world.members[0].do(world.members[0].network.say, b"ok")
    world.run(2)
    assert [[node.name for node, text in world.extra if node is member and text == b"ok"] for member in world.members] \
        == [[member.name] * 4 for member in world.members]
    assert [text for _, text in peer.lines] == [b"ok", b"ok"]


# What strangers and clocks cannot do --------------------------------------------------------------

def test_a_line_that_others_copied_under_invented_origins_can_be_said_again():
    """History: after 70 copies from 70 origins the real speaker's repeats were shown nowhere."""
    world = network_of(3)
    world.strict = False
    bob, other = world.members[:2]
    liar = Liar(world).join(other)
    world.run(1)
    bob.do(bob.network.say, b"ok")
    for origin in range(70):
        liar.record(Kind.SAY, 1, b"ok", origin=10_000 + origin, name=bob.name)
        liar.record(Kind.GUEST, 2, b"ok", origin=10_000 + origin, name=bob.name)
    world.run(2)
    before = sum(node is other and text == b"ok" for node, text in world.extra)
    for _ in range(5):
        bob.do(bob.network.say, b"ok")
        world.run(0.5)
    assert sum(node is other and text == b"ok" for node, text in world.extra) == before + 5


def test_whoever_calls_a_member_lost_and_takes_its_name_does_not_get_its_label():
    """History: the liar was bob, and bob was bob~2, everywhere."""
    world = network_of(4, delay=(0.01, 0.02))
    bob, other, third = world.members[:3]
    liar = Liar(world).join(other, name=bob.name)
    world.run(1)
    liar.record(Kind.LOST, 1, bob.network.author.origin.to_bytes(8, "little"), name=bob.name)
    liar.record(Kind.HERE, 2, name=bob.name)
    world.run(10)
    for member in (other, third):
        labels = {person.key: person.label for person in member.network.who()}
        assert labels[bob.network.author.origin] == bob.name + b"~%02x" % (bob.network.author.origin >> 56)
        assert all(label != bob.name for label in labels.values())


def test_a_member_that_was_called_lost_while_we_were_linked_to_it_is_lost_when_that_link_ends_in_peace():
    """History: its last words, a bye, came after the news of its death, and it was listed for ever."""
    network = peers.Network(b"me", 1, random.Random(1))
    dead, witness = met(network, "10.0.0.1", 7), met(network, "10.0.0.2", 8)
    network.received(witness, encode_record(Kind.LOST, 8, 2, 0, b"m8", message.encode_lost(7, 1)))
    network.received(dead, encode_frame(message.encode_addresses(Kind.BYE, ())))
    network.closed(dead, peers.SPARED)
    for _ in range(4):
        network.now += 1
        network.tick()
    assert [person.key for person in network.who()] == [8]


def losses(member):
    """How many LOST its log holds."""
    return sum(message.decode_record(frame).kind == Kind.LOST for frame in member.network.log.read(0, member.network.log.end))


def test_a_member_alone_for_a_moment_calls_nobody_lost_but_those_it_was_linked_to():
    """History: it waited for answers to a call that nobody had heard, and called all others lost: of 80 members 36 at once."""
    world = network_of(14)
    lonely, other = world.members[10], world.members[3]
    for neighbour in lonely.mesh():
        world.cut(lonely, neighbour)
    world.run(25)
    world.check_who()
    assert 0 < losses(other) <= 2 * peers.MAX_MESH_LINKS
    assert not any(notices(member, "lost") for member in world.members)


def test_a_roll_call_is_answered_however_many_there_were_and_whatever_came_before():
    """History: whoever had called too often did not answer, and two calls that overlapped were answered once."""
    network = peers.Network(b"me", 1, random.Random(1))
    witness = met(network, "10.0.0.2", 8)

    for number in range(2, 12):
        network.now += 1
        before = network.author.sequence
        network.received(witness, encode_record(Kind.LOST, 8, number, 0, b"m8", message.encode_lost(99, 1)))
        for _ in range(6):
            network.now += 1
            network.tick()
        assert network.author.sequence == before + 1, number


def test_a_member_that_was_called_lost_and_spoke_since_is_not_missed_when_its_link_ends_in_peace():
    """History: each such end was told as a loss, which made the next one a loss, too, for as long as the network lived."""
    network = peers.Network(b"me", 1, random.Random(1))
    alive, witness = met(network, "10.0.0.1", 7), met(network, "10.0.0.2", 8)
    network.received(witness, encode_record(Kind.LOST, 8, 2, 0, b"m8", message.encode_lost(7, 1)))
    network.received(witness, encode_record(Kind.HERE, 7, 2, 0, b"m7", b""))
    network.received(alive, encode_frame(message.encode_addresses(Kind.BYE, ())))
    network.closed(alive, peers.SPARED)
    for _ in range(4):
        network.now += 1
        network.tick()
    assert [person.key for person in network.who()] == [7, 8]


def test_what_fills_a_hole_of_a_member_that_is_lost_does_not_bring_it_back():
    """History (seed 770009): it was said before the news of the loss, and came after it."""
    network = peers.Network(b"me", 1, random.Random(1))
    witness, other = met(network, "10.0.0.1", 7), met(network, "10.0.0.2", 8)
    for sequence in 1, 5:
        network.received(witness, encode_record(Kind.SAY, 9, sequence, 0, b"m9", b"line %d" % sequence))
    network.received(witness, encode_record(Kind.LOST, 7, 2, 0, b"m7", message.encode_lost(9, 5)))
    network.now += peers.DOUBT_SECONDS
    network.tick()
    assert 9 not in [person.key for person in network.who()]
    network.received(other, encode_record(Kind.SAY, 9, 3, 0, b"m9", b"line 3"))
    assert [show.texts for show in network.actions if type(show) is peers.Show] == [[b"line 1"], [b"line 5"], [b"line 3"]]
    assert 9 not in [person.key for person in network.who()]


def listed(network, seconds=0):
    """The origins that it lists after so many seconds in which nothing comes."""
    for _ in range(seconds):
        network.now += 1
        network.tick()
    return [person.key for person in network.who()]


@pytest.mark.parametrize("last, late", [(5, Kind.SAY), (5, Kind.HERE), (9, Kind.SAY), (9, Kind.HERE)])
def test_what_a_member_said_before_it_was_called_lost_does_not_show_that_it_lives(last, late):
    """History (seed 3000176): logs were short, so it filled a hole, or came from a log that went back further."""
    network = peers.Network(b"me", 1, random.Random(1))
    witness, other = met(network, "10.0.0.1", 7), met(network, "10.0.0.2", 8)
    for sequence in 1, 5:
        network.received(witness, encode_record(Kind.SAY, 9, sequence, 0, b"m9", b""))
    network.received(witness, encode_record(Kind.LOST, 7, 2, 0, b"m9", message.encode_lost(9, last)))
    network.received(other, encode_record(late, 9, last - 1, 0, b"m9", b""))
    assert listed(network, 3) == [7, 8]
    network.received(other, encode_record(late, 9, last + 1, 0, b"m9", b""))
    assert listed(network) == [7, 8, 9]


def test_what_is_heard_of_a_member_after_its_link_broke_does_not_show_that_it_lives():
    """History (seeds 3001751, 720037): it was forged, or had been on its way for long, and nobody asked for the dead any more."""
    network = peers.Network(b"me", 1, random.Random(1))
    dead, alive, witness = [met(network, f"10.0.0.{number}", number) for number in (7, 8, 9)]
    network.closed(dead, "is silent")
    network.closed(alive, "is silent")
    network.now += 0.5
    network.received(witness, encode_record(Kind.SAY, 7, 2, 0, b"m7", b"") + encode_record(Kind.SAY, 8, 2, 0, b"m8", b""))
    network.now += 2.0
    network.tick()
    assert listed(network) == [7, 8, 9]
    network.received(witness, encode_record(Kind.HERE, 8, 3, 0, b"m8", b""))
    assert listed(network, 3) == [8, 9]


def test_who_was_heard_last_as_our_last_link_ended_is_lost_like_all_others():
    """History: it had spoken in the very turn in which the roll call began, which passed for an answer."""
    network = peers.Network(b"me", 1, random.Random(1))
    neighbour = met(network, "10.0.0.7", 7)
    network.now += 1
    network.received(neighbour, encode_record(Kind.SAY, 9, 1, 0, b"m9", b"") + encode_record(Kind.LEFT, 7, 2, 0, b"m7", b""))
    network.closed(neighbour, "closed the connection")
    assert listed(network, 20) == []


def test_a_roll_call_beyond_what_is_allowed_is_only_put_off():
    """History: all had called too often lately, so nobody looked who had answered, and the dead were listed until the next loss."""
    network = peers.Network(b"me", 1, random.Random(1))
    witness = met(network, "10.0.0.8", 8)
    network.received(witness, encode_record(Kind.HERE, 9, 1, 0, b"m9", b""))
    for number in range(2, 3 + peers.CALLS):
        network.received(witness, encode_record(Kind.HERE, 9, number, 0, b"m9", b""))
        network.now += 1
        network.received(witness, encode_record(Kind.LOST, 8, number, 0, b"m99", message.encode_lost(99, 1)))
        assert listed(network, peers.CALL_SECONDS) == [8, 9]
    assert listed(network, peers.CALL_PAUSE) == [8]


def test_when_the_only_way_to_some_members_leaves_they_are_lost():
    """History: a machine in two networks left, and each half listed the other for ever."""
    world = World(1)
    hub = world.member(host="192.168.1.1")
    world.also_at(hub, "192.168.2.1")
    halves = [[world.member(host=f"192.168.{half}.{number}") for number in (10, 11)] for half in (1, 2)]
    for member in sum(halves, []):
        member.do(member.network.join, "the hub", [(member.host.rpartition(".")[0] + ".1", hub.port)])
    world.run(10)
    hub.leave()
    world.run(20)
    for half in halves:
        world.check_who(half)


def test_a_newcomer_that_vanished_is_missed_though_its_only_neighbour_left():
    """History (seed 720250): nobody else could notice that its machine had lost power, and all listed it for ever."""
    world = network_of(4)
    leaver, newcomer = world.members[1], world.member()
    newcomer.dial_only = True
    newcomer.join(leaver)
    world.run_until(lambda: newcomer in leaver.mesh(), 1, step=0.01)
    world.kill(newcomer, sign=False)
    world.run(1)
    assert all(newcomer.network.author.origin in [person.key for person in member.network.who()] for member in world.members)
    leaver.leave()
    world.run(20)
    world.check_who()
    assert all(len(notices(member, "lost contact with m5; ")) == len(notices(member, "lost")) == 1 for member in world.members)


@pytest.mark.parametrize("count, rest", [(0, b""), (1, b""), (2, b"1234567"), (message.MAX_LEFT, b"12345678" * 3)])
def test_whatever_the_text_of_a_goodbye_is_it_names_at_most_so_many_whole_origins(count, rest):
    assert message.decode_left(message.encode_left(range(count)) + rest) == [*range(count)]


def test_when_one_of_many_leaves_its_neighbours_alone_say_that_they_are_here():
    world = network_of(20)
    leaver = world.members[3]
    neighbours = [member.network.author.origin for member in leaver.mesh()]
    log, start = world.members[0].network.log, world.members[0].network.log.end
    leaver.leave()
    world.run(20)
    said = [(record.kind, record.origin) for record in map(message.decode_record, log.read(start, log.end))]
    assert sorted(said) == sorted([(Kind.LEFT, leaver.network.author.origin), *((Kind.HERE, origin) for origin in neighbours)])


def test_whoever_is_known_by_news_of_a_loss_only_is_not_called_like_the_lost():
    """History: a newcomer's history began with the news, which bears the name of the lost, and it took that for its author's."""
    network = peers.Network(b"me", 1, random.Random(1))
    witness = met(network, "10.0.0.8", 8)
    network.received(witness, encode_record(Kind.LOST, 9, 7, 0, b"m7", message.encode_lost(7, 1)))
    network.received(witness, encode_record(Kind.SAY, 9, 8, 0, b"m9", b"hello"))
    assert [person.name for person in network.who()] == [b"m8", b"m9"]


def test_our_name_stays_in_the_log_whatever_our_guests_say(monkeypatch):
    """History: only a record of ours had to be there, and those of guests and losses bear other names: newcomers did not list us."""
    monkeypatch.setattr(message, "LOG_MESSAGES", 20)
    network = peers.Network(b"me", 1, random.Random(1))
    met(network, "10.0.0.8", 8)
    guest = network.opened("10.0.0.9")
    for number in range(200):
        network.received(guest, encode_pair(b"carl", b"line %d" % number))
        network.tick()
    said = map(message.decode_record, network.log.read(network.log.start, network.log.end))
    assert (Kind.HERE, b"me") in [(record.kind, record.name) for record in said]


def test_what_is_missing_of_a_member_is_asked_of_it_however_long_it_was_away():
    """History: somebody forged what came later, and after a minute nobody asked for what it had said before."""
    faults.replay(1256, {}, {'delay': (0.01, 0.1), 'pieces': 0, 'loss': 0.02}, [
        (0.1, 'join', 2, 1),
        (0.1, 'join', 3, 1),
        (8.26, 'liar', 4, 2),
        (8.26, 'divide', (3,), 20),
        (9.26, 'lie', 4, 'jump', 3),
        (18.19, 'say', 3),
        (22.72, 'say', 3),
        (25.16, 'mute_all', 3, 100),
        (25.46, 'say', 3),
        (34.71, 'say', 3),
    ])


def test_what_was_forged_of_a_member_whom_nobody_had_met_hides_none_of_its_words():
    """History: we had met it at what was forged, and took what it had said before for history that we had come too late for."""
    faults.replay(2114, {}, {'delay': (0.01, 0.1), 'pieces': 0, 'loss': 0}, [
        (0, 'dial_only', 2),
        (0.1, 'join', 2, 1),
        (0.25, 'join', 3, 2),
        (15.7, 'say', 2),
        (16.07, 'liar', 6, 3),
        (17.07, 'lie', 6, 'jump', 2),
        (22.93, 'again', 5, 3, 4),
        (26.18, 'say', 2),
    ])


def test_what_was_forged_where_a_member_was_away_from_is_found_however_long_it_was_away():
    """History: a forgery and its word had one number, and after a minute nobody compared them: the word was lost unseen."""
    faults.replay(50441, {}, {'delay': (0.01, 0.1), 'pieces': 0, 'loss': 0}, [
        (0.73, 'join', 3, 1),
        (0.84, 'join', 4, 1),
        (17.61, 'partition', (1, 4), 90),
        (27.83, 'liar', 5, 3),
        (28.83, 'lie', 5, 'jump', 4),
        *[(30 + number, 'say', 4) for number in range(7)],
    ])


def test_what_was_forged_while_its_author_was_heard_through_c_programs_only_is_found():
    """History: when they were heard no more, we forgot since when that member had been away, and asked for too little."""
    faults.replay(92328, {'WANT_LINKS, MAX_MESH_LINKS': (3, 5)}, {'delay': (0.01, 0.1), 'pieces': 0.1, 'loss': 0.02}, [
        (0, 'join', 1, 0),
        (0.1, 'join', 2, 1),
        (0.43, 'join', 3, 1),
        (1.42, 'join', 4, 1),
        (1.54, 'join', 5, 1),
        (5.8, 'c_dials', 6, 2),
        (6.8, 'c_also', 6, 1),
        (8.32, 'divide', (1,), 60),
        (11.1, 'unplug', 2, 3),
        (12.11, 'say', 4),
        (15.37, 'liar', 7, 1),
        (18.04, 'lie', 7, 'nonsense', 3),
        (18.7, 'unplug', 4, 30),
        (19.27, 'lie', 7, 'forge', 4),
        (20.34, 'lie', 7, 'forge', 2),
        (23.76, 'say', 3),
        (32.27, 'say', 1),
    ])


def test_other_words_forged_under_the_identity_of_a_line_that_c_programs_brought_do_not_bring_it_twice():
    """History: of two texts under one identity the later one was remembered, and the mesh's copy of the first was new."""
    faults.replay(262, {}, {'delay': (0.01, 0.1), 'pieces': 0, 'loss': 0}, [
        (0.95, 'join', 4, 2),
        (2.18, 'join', 6, 5),
        (2.4, 'join', 7, 2),
        (20.49, 'c_dials', 8, 7),
        (20.51, 'divide', (7,), 60),
        (21.49, 'c_also', 8, 6),
        (23.06, 'plain_liar', 10, 8),
        (28.73, 'say', 6),
        (30.04, 'mark', 10, 'words', 6, 4),
    ])


def test_a_member_that_was_lost_and_is_heard_through_a_c_program_is_lost_once():
    """History: it was missed in the next roll call, and told to be lost again, though it had never been told to be back."""
    faults.replay(40, {}, {'delay': (0.01, 0.1), 'pieces': 0, 'loss': 0}, [
        (0, 'join', 1, 0),
        (0.1, 'join', 5, 1),
        (2.54, 'c_dials', 8, 1),
        (3.54, 'c_also', 8, 5),
        (30.33, 'divide', (5,), 60),
        (66.55, 'say', 5),
    ])


def test_a_member_that_says_goodbye_over_the_mesh_and_over_a_plain_link_left_once():
    """History: its probe was lost, so it took us for a C program, and its ":q" did not say that it was its own."""
    faults.replay(2124, {}, {'delay': (0.01, 0.1), 'pieces': 0, 'loss': 0.02}, [(0, 'join', 1, 0), (0.1, 'join', 2, 1), (9.48, 'leave', 1)])


def test_a_user_told_that_a_member_is_lost_is_not_told_later_that_it_had_left():
    faults.replay(499, {}, {'delay': (0.05, 0.24), 'pieces': 0, 'loss': 0}, [
        (0, 'join', 1, 0),
        (0.5, 'join', 3, 1),
        (0.69, 'join', 4, 1),
        (6.55, 'partition', (1, 3), 90),
        (8.66, 'leave', 3),
        (27.14, 'cut', 4, 6),
    ])


@pytest.mark.parametrize("seconds, times", [(3, 1), (10, 2)])
def test_a_c_users_line_that_another_gateway_told_meanwhile_is_known_by_its_time_though_clocks_differ(seconds, times):
    """History: a record's time is in whole seconds, and two clocks that were right within a second made it another line."""
    network = peers.Network(b"me", 1, random.Random(1), 100.0, EPOCH + 100)
    guest = network.opened("10.0.0.9")
    network.received(guest, encode_pair(b"carl", b"ok"))
    network.now, network.wall = 140.0, EPOCH + 140
    network.received(met(network, "10.0.0.2", 7), encode_record(Kind.GUEST, 7, 2, EPOCH + 100 - seconds, b"carl", b"ok"))
    assert sum(isinstance(action, peers.Show) for action in network.actions) == times


def met(network, host, origin, own_host="", urgent=True, **more):
    """A neighbour that has greeted, and says that it is here."""
    neighbour = network.opened(host, own_host=own_host)
    hello = Hello(origin, 4000, urgent, b"m%d" % origin, **more)
    network.received(neighbour, encode_pair(hello.name, message.PROBE + encode_hello(hello)) + encode_frame(encode_hello(hello)))
    network.received(neighbour, encode_record(Kind.HERE, origin, 1, 0, hello.name, b""))
    return neighbour


def test_a_lone_message_is_taken_out_at_once_for_those_that_lack_nothing_else():
    network = peers.Network(b"me", 1, random.Random(1))
    bob, cy, dee, eve = links = [met(network, "10.0.0.%d" % number, number) for number in (2, 3, 4, 5)]

    def say(number):
        network.received(bob, encode_record(Kind.SAY, 2, number, 0, b"m2", b"hi %d" % number))

    def catch_up():
        return [link for link in network.to_send()[1] for _ in iter(lambda: link.take(1 << 20, 1 << 20), b"")]

    network.opened("10.0.0.6")  # a stranger: it is sent nothing yet
    say(2)
    assert {*catch_up()} == {*links}, "what they lack since they met"
    say(3)
    assert network.to_send()[0] == [cy, dee, eve] and not catch_up() and not any(link.backlog for link in links)
    say(4)
    network.received(cy, encode_record(Kind.SAY, 2, 4, 0, b"m2", b"hi 4"))  # the same, around a circle
    dee.queue_frame(b"?")
    lone, others = network.to_send()
    assert lone == [eve] and {*others} == {cy, dee, network.neighbours[-1]}
    assert cy.take(1 << 20, 1 << 20) == b"" and dee.take(1 << 20, 1 << 20) == encode_frame(b"?")
    assert dee.take(1 << 20, 1 << 20) == network.log.last and eve.position == network.log.end
    say(5)
    eve.clear()
    assert network.to_send()[0] == [cy, dee], "they are level again, and eve is on her way out"


def test_a_stranger_that_closed_its_link_is_forgotten():
    network = peers.Network(b"me", 1, random.Random(1))
    met(network, "10.0.0.2", 8)
    stranger = network.opened("10.0.0.3")
    network.woke()  # all links that may lead to C programs go quiet
    network.closed(stranger, "closed the connection")
    network.say(b"hi")
    network.to_send()
    network.now += 2 * peers.QUIET_SECONDS
    network.tick()
    lone, others = network.to_send()
    assert stranger not in [*lone, *others] and not network.bridge._plain


def test_each_c_program_gets_what_others_said_in_a_turn_and_nothing_of_its_own(monkeypatch):
    monkeypatch.setattr(peers, "CONVERTED_BYTES", 100)
    monkeypatch.setattr(peers, "CONVERTED", 8)
    monkeypatch.setattr(message, "LOG_MESSAGES", 40)
    for seed in range(30):
        rng = random.Random(seed)
        network = peers.Network(b"me", 1, rng)
        links = [network.opened("10.0.0.%d" % number) for number in range(2)]
        for number, link in enumerate(links):
            network.received(link, encode_pair(b"c%d" % number, b"hi"))
        for turn in range(20):
            for run in range(rng.randint(1, 5)):
                who, texts = rng.choice((b"c0", b"c1", b"me")), [b"%d %d %d." % (turn, run, line) for line in range(rng.choice((1, 1, 3, 12)))]
                network.say(*texts) if who == b"me" else network.received(links[int(who[1:])], b"".join(encode_pair(who, text) for text in texts))
            places = [max(link.position, network.log.start) for link in links]
            network.to_send()
            for number, link in enumerate(links):
                got = b"".join(iter(lambda link=link: link.take(1 << 20, 1 << 20), b""))
                said = map(message.decode_record, network.log.read(places[number], network.log.end))
                expected = [record.text for record in said if record.kind in message.CHAT and record.name != b"c%d" % number]
                assert [frame[HEADER_SIZE:] for frame in [*message.FrameDecoder().feed(got)][1::2]] == expected


def test_what_a_slow_c_program_gets_after_our_origin_was_forged_names_the_new_one_as_its_gateway(monkeypatch):
    monkeypatch.setattr(peers, "CONVERTED", 1)  # as if it lagged by more than are made at once
    network = peers.Network(b"me", 1, random.Random(1))
    witness, fast, slow = met(network, "10.0.0.7", 7), network.opened("10.0.0.8"), network.opened("10.0.0.9")
    network.received(fast, encode_pair(b"carl", b"hi"))
    network.received(slow, encode_pair(b"cy", b"hi"))

    def gateway(link):
        got = b"".join(iter(lambda: link.take(1 << 20, 1 << 20), b""))
        *_, name, text = (frame[HEADER_SIZE:] for frame in message.FrameDecoder().feed(got))
        return message.read_mark(name, text)[1].gateway
    network.received(witness, encode_record(Kind.SAY, 7, 2, 0, b"m7", b"line"))
    before = network.author.origin
    assert gateway(fast) == before
    network.received(witness, encode_record(Kind.SAY, before, 50, 0, b"me", b"forged"))
    assert gateway(slow) == network.author.origin != before


def test_a_line_that_two_gateways_tell_in_one_turn_reaches_a_c_program_once():
    """What came is passed on before it is worked out what it means, but not what a C program may have."""
    network = peers.Network(b"me", 1, random.Random(1))
    bob, cy = met(network, "10.0.0.2", 8), met(network, "10.0.0.3", 9)
    plain = network.opened("10.0.0.4")
    network.now += peers.STRANGER_SECONDS
    network.tick()
    network.actions.clear()
    for gateway, origin in (bob, 8), (cy, 9):
        network.received(gateway, encode_record(Kind.GUEST, origin, 2, 0, b"eve", b"hi"))
    assert plain in network.to_send()[1] and plain.take(1 << 16, 1 << 16).count(b"hi") == 1 and plain.is_done()
    assert [action.texts for action in network.actions if isinstance(action, peers.Show)] == [[b"hi"]]


def test_what_was_forged_may_come_after_the_news_that_it_was():
    """History: then the origin that its owner had given up was listed for ever, and messages of it were missing."""
    network = peers.Network(b"me", 1, random.Random(1))
    witness, other = met(network, "10.0.0.2", 8), met(network, "10.0.0.3", 9)
    network.received(other, encode_record(Kind.HERE, 7, 1, 0, b"m7", b""))
    network.received(witness, encode_record(Kind.LOST, 8, 2, 0, b"m8", message.encode_lost(7, peers.FORGED)))
    network.received(other, encode_record(Kind.SAY, 7, 60, 0, b"m7", b"forged"))
    network.actions.clear()
    for _ in range(2 * message.TELL_SECONDS):
        network.now += 1
        network.tick()
    assert [person.key for person in network.who()] == [8, 9]
    assert not [action for action in network.actions if isinstance(action, peers.Notice) and "missing" in action.words]


@pytest.mark.parametrize("seconds, again", [(1, [b"word"]), (peers.FLIGHT_SECONDS + 1, [])])
def test_what_we_said_just_before_the_forgery_that_we_hear_of_is_said_again(seconds, again):
    """History: somebody forged two of our sequences, and the first of them had overtaken our word there. We only heard of the second."""
    network = peers.Network(b"me", 1, random.Random(1))
    witness, forged_from = met(network, "10.0.0.2", 8), network.author.origin
    network.now += peers.RENEW_SECONDS
    network.say(b"word")
    network.now += seconds
    network.received(witness, encode_record(Kind.SAY, forged_from, network.author.sequence + 1, 0, b"me", b"forged"))
    said = [message.decode_record(frame) for frame in network.log.read(network.log.start, network.log.end)]
    assert network.author.origin != forged_from
    assert [record.text for record in said if record.origin == network.author.origin and record.kind == Kind.SAY] == again


def test_a_member_that_greets_while_we_take_another_origin_is_told_of_it():
    """History: the old one was listed by that neighbour for as long as they were linked."""
    network = peers.Network(b"me", 1, random.Random(1))
    witness, new = met(network, "10.0.0.2", 8), network.opened("10.0.0.3")
    hello = Hello(9, 4000, True, b"m9")
    network.received(new, encode_pair(hello.name, message.PROBE + encode_hello(hello)))
    network.received(witness, encode_record(Kind.SAY, network.author.origin, 50, 0, b"me", b"forged"))
    network.received(new, encode_frame(encode_hello(hello)))
    assert encode_frame(message.encode_renamed(network.author.origin)) in b"".join(batch.data for batch in new.waiting)


@pytest.mark.parametrize("heard", [100, peers.FORGED])
def test_a_lie_that_more_was_heard_of_us_than_we_said_makes_us_take_another_origin(heard):
    world = network_of(4)
    victim, other = world.members[:2]
    before = victim.network.author.origin
    liar = Liar(world).join(other)
    world.run(1)
    liar.record(Kind.LOST, 1, message.encode_lost(before, heard))
    world.run(5)
    assert victim.network.author.origin != before
    world.strict = False  # the liar is listed
    world.check_who()
    everybody_speaks(world)
    world.run(2)
    world.check_complete()


def test_who_does_not_answer_is_not_let_go_before_somebody_notices_that_it_is_dead():
    """History: each of its neighbours swapped it for another within half a minute, so nobody missed it, and all listed it."""
    network = peers.Network(b"me", 1, random.Random(1))
    *answering, dead = [met(network, f"10.0.0.{number}", number) for number in range(2, 2 + peers.MAX_MESH_LINKS)]
    network.now = peers.PING_SECONDS + 1.0
    network.tick()
    for neighbour in answering:
        network.received(neighbour, encode_frame(bytes([Kind.PONG])))
    for number in range(30, 40):
        met(network, f"10.0.0.{number}", number)
    assert not dead.ending and sum(neighbour.ending for neighbour in network.neighbours) == 10


def test_history_of_a_member_that_is_lost_does_not_bring_it_back_to_the_list():
    """History: one log began behind its last words and told the loss; the next one went back further."""
    network = peers.Network(b"me", 1, random.Random(1))
    network.received(met(network, "10.0.0.2", 8), encode_record(Kind.LOST, 8, 2, 0, b"m7", message.encode_lost(7, 4)))
    far = met(network, "10.0.0.3", 9, vector={7: 4})
    network.received(far, encode_record(Kind.SAY, 7, 4, 0, b"m7", b"last words"))
    assert [person.key for person in network.who()] == [8, 9]
    network.received(far, encode_record(Kind.SAY, 7, 5, 0, b"m7", b"I live"))
    assert [person.key for person in network.who()] == [8, 9, 7]


def test_a_forged_record_does_not_keep_the_dead_in_the_list():
    """History: one forged record for d, then d died, and :who listed d for ever."""
    world = network_of(8)
    world.strict = False
    other, victim = world.members[1:3]
    liar = Liar(world).join(other)
    world.run(1)
    liar.record(Kind.SAY, victim.network.author.sequence + 1000, b"forged", origin=victim.network.author.origin, name=victim.name)
    world.kill(victim)
    world.run(20)
    alive = {member.network.author.origin for member in world.members}
    for member in world.members:
        assert {person.key for person in member.network.who() if person.name != b"liar"} == alive - {member.network.author.origin}


@pytest.mark.parametrize("skew", [-12, -3600, 3600])
def test_a_member_whose_clock_is_wrong_joins_like_any_other(skew):
    """History: with a clock 12 seconds slow nobody was told that it joined."""
    world = network_of(3)
    world.run(30)
    newcomer = world.member("zoe", skew=skew)
    newcomer.join(world.members[1])
    world.run(5)
    assert all(notices(member, "zoe") == ["zoe joined"] for member in world.members[:-1])


def test_restarting_after_a_crash_announces_nothing_about_ourselves():
    """History: "ann~2 joined", "lost ann~2", about her own dead run."""
    world = network_of(4)
    ann = world.member("ann")
    ann.join(world.members[0])
    world.run(10)
    world.kill(ann)
    world.run(1)
    again = world.member("ann")
    again.join(world.members[1])
    world.run(20)
    assert not [text for text in again.said_notices if "ann" in text]
    assert all([person.label for person in member.network.who()].count(b"ann") == 1 for member in world.members if member is not again)
    assert not any("~" in text for member in world.members for text in member.said_notices)


def test_forging_again_and_again_costs_no_line_and_few_origins():
    """History: 5,542 origins burnt in 9 seconds, 18 of 30 lines never shown, and nobody told the victim."""
    world = network_of(4)
    world.repeats, world.tainted = Counter(), True  # what was covered comes later, and perhaps twice
    bob, other = world.members[:2]
    liar = Liar(world).join(other)
    world.run(1)
    for _ in range(15):
        origin = bob.network.author.origin
        last = other.network.log.have[origin]
        for sequence in range(last + 1, last + 4):
            liar.record(Kind.HERE, sequence, origin=origin, name=bob.name)
        bob.say(), bob.say()
        world.run(0.6)
    world.run(15)
    for member in world.members[1:]:
        assert {number for ident, number in member.seen if ident == bob.ident} == set(range(1, bob.number + 1))
        assert sum(person.name == bob.name for person in member.network.who()) == 1
    assert len(bob.network.author.origins) <= 24 / peers.RENEW_SECONDS
    assert len(notices(bob, "someone else is sending messages in your name")) == 1


def test_long_names_and_texts_of_c_users_reach_everybody_and_cost_no_link():
    """History: a C text of over 2048 bytes dropped the whole link."""
    world = network_of(3)
    world.strict = False
    peer, second = world.c_peer("carl"), world.c_peer("dora")
    peer.join(world.members[0]), second.join(world.members[1])
    world.run(2)
    texts = [b"%d " % size + b"x" * size for size in (5000, 60_000)]
    world.names = {b"n" * size for size in range(1900, 2049)}  # cut to make room for the mark
    for text in texts:
        name = b"n" * 2048
        data = b"".join(encode_frame(part) for part in (name, text))
        world.send(peer.ends[0], data)
        world.run(3)
    for member in world.members:
        shown = [text for node, text in world.extra if node is member]
        assert b"".join(shown) == b"".join(texts)
    assert all(neighbour.kind is LinkKind.PLAIN for neighbour in plain_links(world)) and len(plain_links(world)) == 2
    got = [(name, text) for name, text in second.lines]
    assert b"".join(text for _, text in got) == b"".join(texts) and all(len(text) <= 2048 for _, text in got)


# Bad input ----------------------------------------------------------------------------------------

def test_a_stranger_under_a_members_origin_does_not_cost_it_its_links():
    world = network_of(3)
    victim, others = world.members[0], world.members[1:]
    for other in others:
        Liar(world, origin=victim.network.author.origin).join(other)
    world.run(1)
    assert all(len(link(victim, other)) == 1 and link(victim, other)[0].kind is LinkKind.MESH for other in others)
    everybody_speaks(world)
    world.run(2)
    world.check_complete(world.members)


def test_a_forgery_in_our_name_makes_us_take_another_origin():
    world = network_of(4)
    victim, other = world.members[0], world.members[1]
    everybody_speaks(world)
    world.run(2)
    before = victim.network.author.origin
    liar = Liar(world).join(other)
    world.run(1)
    links, last = set(link(victim, other)), other.network.log.have[before]
    world.repeats = Counter()  # what the forgery may have covered is said again
    for number in range(1, 4):  # history: the second one cost its innocent messenger the link
        liar.record(Kind.HERE, last + number, origin=before, name=victim.name)
    world.run(5)
    assert victim.network.author.origin != before and set(link(victim, other)) == links
    victim.say()
    world.run(3)
    world.check_complete()


def test_a_liars_jumps_cost_nobody_a_link_and_no_message():
    """History: one liar's jumps made honest members drop each other, and told them that messages were missing."""
    world = network_of(4)
    author, reader = world.members[:2]
    everybody_speaks(world)
    world.run(2)
    liar = Liar(world).join(reader)
    world.run(1)
    before = {member: set(member.network.neighbours) for member in world.members}
    for sequence in author.network.author.sequence + 50, 2 ** 64 - 1:
        world.strict = False
        liar.record(Kind.SAY, sequence, b"early", origin=author.network.author.origin, name=author.name)
    world.run(1)
    for _ in range(60):
        author.say()
    world.run(message.TELL_SECONDS + 5)
    world.check_complete()
    assert {member: set(member.network.neighbours) for member in world.members} == before
    assert not any("missing" in text for member in world.members for text in member.said_notices)


@pytest.mark.parametrize("seed", range(3))
def test_a_member_that_believed_a_jump_while_alone_is_taken_back(seed):
    """History: one forged record in its log, and each of the others refused it as one who skips, for ever."""
    world = network_of(6, seed)
    world.strict, world.gaps = False, True
    author, fooled = world.members[1], world.members[5]
    everybody_speaks(world)
    world.run(2)
    world.partition([fooled])
    world.run(60)
    world.heal()
    liar = Liar(world).join(fooled)
    world.run(0.3)
    liar.record(Kind.SAY, author.network.author.sequence + 7, b"forged", origin=author.network.author.origin, name=author.name)
    world.run_until(lambda: world.is_one() and len(fooled.mesh()) >= peers.WANT_LINKS, 60)
    everybody_speaks(world)
    world.run(20)
    world.check_complete()


def test_a_record_that_makes_no_sense_costs_no_honest_link():
    """History: a LOST that names nobody was logged, passed on, and whoever got it hung up on who had passed it on."""
    world = network_of(5)
    liar = Liar(world).join(world.members[0])
    world.run(1)
    before = {member: {neighbour for other in world.members for neighbour in link(member, other)} for member in world.members}
    for sequence, kind in enumerate((Kind.LOST, Kind.GUEST_GONE, Kind.LEFT, Kind.HERE), 1):
        for text in b"", b"short":
            liar.record(kind, 1, text, origin=sequence * 100 + len(text))
    world.run(2)
    assert all(before[member] <= set(member.ends) for member in world.members)
    everybody_speaks(world)
    world.run(2)
    world.check_complete()


def test_a_hole_filled_at_every_other_place_leaves_bounded_holes():
    """History: each record that split one left one more, and each was looked through for the next: 84 s for 18,000."""
    holes = message.Holes()
    holes.add(5, 1, 10 ** 9, now=0)
    for sequence in range(2, 2000, 2):
        assert holes.fill(5, sequence, sequence) in ([(sequence, sequence)], [])
    for origin in range(3000):
        holes.add(origin, 1, 10 ** 9, now=0)
        holes.fill(origin, 7, 7)
    assert holes.count == sum(map(len, holes._holes.values())) <= message.MAX_HOLES
    assert max(map(len, holes._holes.values())) <= message.MAX_HOLES_EACH


def test_what_is_missing_is_told_at_once_and_then_now_and_then():
    """History: a liar that skipped every other sequence filled the screen, several rows a second."""
    network = peers.Network(b"me", 1, random.Random(1))
    liar = met(network, "10.6.6.6", 666)
    network.actions.clear()
    told = []
    for number in range(message.MAX_HOLES_EACH):
        network.received(liar, encode_record(Kind.HERE, 7, 2 * number + 1, 0, b"n", b""))
        network.now += 1
        while network.next_deadline() is not None and network.next_deadline() <= network.now:
            network.tick()
        told += [action.parts[0] for action in network.actions if isinstance(action, peers.Notice) and "missing" in action.words]
        network.actions.clear()
    assert told[0] == "1" and len(told) <= 1 + message.MAX_HOLES_EACH // peers.MISSING_PAUSE
    network.now += 100
    network.tick()
    told += [action.parts[0] for action in network.actions if isinstance(action, peers.Notice) and "missing" in action.words]
    assert sum(map(int, told)) == message.MAX_HOLES_EACH - 1, "all are counted"


def test_a_lie_that_somebody_was_forged_hides_nothing_that_was_missing():
    """History: what a hole lacked was not taken any more when it came at last."""
    log = message.Log()
    frames = [encode_record(Kind.SAY, 5, sequence, EPOCH, b"bob", b"%d" % sequence) for sequence in (1, 5)]
    log.extend(5, 1, frames[:1], 0)
    log.extend(5, 5, frames[1:], 0)
    log.holes.hush(5)
    assert log.news(5, 2, 4) == [(2, 4, True)] and not log.holes.tell(100)


def test_lying_sequences_cost_nobody_anything(monkeypatch):
    monkeypatch.setattr(message, "MAX_HOLES", 150)
    world = network_of(5)
    world.strict = False
    liar = Liar(world).join(world.members[0])
    world.run(1)
    for sequence in 2 ** 64 - 1, 1, 2 ** 63, 5:
        liar.record(Kind.SAY, sequence, b"lie %d" % sequence)
    for origin in range(message.MAX_HOLES + 10):
        liar.record(Kind.SAY, 2 ** 64 - 1, b"lie", origin=origin)
    world.run(10)
    everybody_speaks(world)
    world.run(5)
    world.check_complete()
    world.check_bounds()


@pytest.mark.parametrize("what", ["hello", "empty", "long", "half a record", "zero", "garbage", "half a frame"])
def test_what_makes_no_sense_costs_at_most_that_link(what):
    world = network_of(4)
    third = world.members[2]
    liar = Liar(world).join(world.members[0])
    world.run(1)
    told = len(third.notices)
    liar.send({
        "hello": encode_frame(encode_hello(liar.hello)),
        "empty": encode_frame(b""),
        "long": (1 << 63).to_bytes(8, "little"),
        "half a record": encode_frame(bytes([Kind.SAY]) + b"123"),
        "zero": encode_record(Kind.SAY, 7, 0, 0, b"x", b"y"),
        "garbage": random.Random(1).getrandbits(8 * 500).to_bytes(500, "little"),
        "half a frame": encode_frame(b"x" * 1000)[:500],
    }[what])
    world.run(5)
    assert liar.over or what == "half a frame"
    everybody_speaks(world)
    world.run(5)
    world.check_complete()
    assert len(third.notices) == told + bool(notices(third, "lost"))
    assert not [text for text in third.said_notices if "m1" in text and "lost" in text]


def test_mutated_real_streams_never_reach_a_third_member_and_raise_nothing():
    """A real stream, mutated, into a member that has two more neighbours."""
    world = network_of(3, seed=5)
    world.taps = {}
    real = world.member()
    real.join(world.members[0])
    for _ in range(20):
        real.say()
        world.run(0.2)
    stream = b"".join(world.taps[real, world.members[0]])
    assert len(stream) > 1000
    rng = random.Random(7)
    for case in range(100):
        mutated_once(mutated(stream, rng), case, rng)


def mutated_once(data, case, rng):
    world = World(case)
    world.strict, world.gaps = False, True
    target, third = world.member(), world.member()
    third.join(target)
    world.run(1.5)
    liar = Liar(world, probe=False).join(target)
    world.run(0.25)
    before = link(third, target), list(third.notices)
    for at in range(0, len(data), 700):
        if not liar.over:
            liar.send(data[at:at + 700])
    world.run(3)
    assert link(third, target) == before[0], f"case {case}: the third member's link was closed"
    target.say(), third.say()
    world.run(3)
    assert (third.last.get(target.ident), target.last.get(third.ident)) == (1, 1), f"case {case}"
    world.check_bounds()


@pytest.mark.parametrize("host", ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1", "localhost", "example.org", "1.2.3", ""])
def test_addresses_of_nobody_are_never_dialled(host):
    world = network_of(2)
    dialled = []
    world.dial = lambda node, call, seconds, dial=world.dial: (dialled.append(call.address), dial(node, call, seconds))
    Liar(world).join(world.members[0], addresses=((host, 4000), ("10.9.9.9", 0)))
    world.run(60)
    assert dialled[0] == (world.members[0].host, world.members[0].port)
    assert not [address for address in dialled if address[0] == host or address[1] == 0]


def test_addresses_of_ourselves_are_dialled_once_at_most_and_end_there():
    world = network_of(2)
    one = world.members[0]
    dialled = []
    world.dial = lambda node, call, seconds, dial=world.dial: (dialled.append((node, call.address)), dial(node, call, seconds))
    Liar(world).join(one, addresses=((one.host, one.port), ("127.0.0.1", one.port)))
    world.run(250)
    assert sum(node is one and address == (one.host, one.port) for node, address in dialled) <= 1
    assert link(one, one) == []


def test_a_loopback_address_means_the_machine_of_whoever_says_it():
    world = World(1)
    far, near = world.member(host="10.1.1.1", port=5001), world.member(host="10.1.1.1", port=5002)
    near.do(near.network.join, "near", [("127.0.0.1", 5001)])
    world.run(2)
    assert far in near.mesh()
    outside = world.member(host="10.2.2.2", port=5003)
    outside.join(far)
    world.run(5)
    assert set(outside.mesh()) == {far, near}
    assert all(not peers.is_loopback(neighbour.address[0]) for neighbour in outside.network.neighbours)


def test_more_addresses_and_origins_than_are_remembered_leave_bounded_memory(monkeypatch):
    monkeypatch.setattr(peers, "MAX_MEMBERS", 300)
    monkeypatch.setattr(peers, "MAX_BOOK", 64)
    world = network_of(3)
    world.strict, world.gaps = False, True
    target = world.members[0]
    for number in range(2 * peers.MAX_BOOK // 8):
        liar = Liar(world, origin=1000 + number).join(
            target, addresses=tuple((f"10.200.{number}.{part}", 4000) for part in range(8)), vector={key: 5 for key in range(600)})
        world.run(0.3)
        liar.record(Kind.SAY, 1, b"x")
    for number in range(400):
        liar.record(Kind.HERE, 1, origin=10 ** 6 + number, name=b"n%d" % number)
    world.run(20)
    world.check_bounds()
    assert len(target.network.presence._bearers) <= 2 * peers.MAX_MEMBERS


# Sleep well ---------------------------------------------------------------------------------------

def test_an_idle_member_wakes_only_for_pings_and_shuffles():
    world = network_of(6)
    ticks = []
    for member in world.members:
        member.network.tick = lambda tick=member.network.tick: (ticks.append(world.now), tick())
    world.run(300)
    # A ping for each of 15 links every 10 s, an answer to each, six shuffles every 30 s.
    assert len(ticks) < 300 * (15 * 2 / 10 + 6 / 15)
    alone = World(1).member()
    assert alone.network.next_deadline() is None, "who is alone and knows nobody sleeps"


# The oracle itself: break the core (mutants.py), and it must notice ----------------------------------

FEW_LINKS = {"WANT_LINKS, MAX_MESH_LINKS": (3, 5)}  # so that a few members are not a full mesh


def circles(seed):
    """A circle through C programs, whose active gateway is killed."""
    world, left, right = ring_of(seed)
    talk(world, world.members + [left, right], 5)
    quiet = quiet_links(world)
    for member in world.members[0:3:2]:
        if not any(neighbour in quiet for neighbour in member.network.neighbours):
            world.kill(member)
    talk(world, world.members + [left, right], 8)
    world.check_complete([*world.members, left, right], world.members)
    if any(times > 1 for peer in (left, right) for text, times in peer.shown_times.items() if peer.last):
        late = [text for peer in (left, right) for text, times in peer.shown_times.items() if times > 1]
        if len(late) > 20:
            raise Violation(f"C users read {len(late)} lines twice")
    if any(peer.last[member.ident] != member.number for peer in (left, right) for member in world.members):
        raise Violation("C users miss lines")


def holes(seed):
    """A liar skips what the others still bring."""
    world = network_of(4, seed)
    author, reader = world.members[:2]
    everybody_speaks(world)
    world.run(2)
    liar = Liar(world).join(reader)
    world.run(1)
    world.strict, world.gaps = False, True
    liar.record(Kind.SAY, author.network.author.sequence + 50, b"early", origin=author.network.author.origin, name=author.name)
    for member in world.members[2:]:
        world.cut(author, member)
    for _ in range(20):
        author.say()
    world.run(15)
    missing = set(range(1, author.number + 1)) - {number for ident, number in reader.seen if ident == author.ident}
    if missing:
        raise Violation(f"{reader} lacks {missing}")


@faults.limited(FEW_LINKS)
def ghosts(seed):
    """Eight of ten die at once."""
    world = network_of(10, seed, seconds=5)
    for victim in world.rng.sample(world.members, 8):
        world.kill(victim)
    world.run(15)
    newcomer = world.member()
    newcomer.join(world.members[0])
    world.run(3)
    for member in world.members:
        listed = {person.key for person in member.network.who()}
        if listed != {other.network.author.origin for other in world.members if other is not member}:
            raise Violation(f"{member} lists {len(listed)}")


@faults.limited({**FEW_LINKS, "MAX_BOOK": 16})
def crowd(seed):
    """Nine join through one, and speak."""
    world = World(seed)
    first = world.member()
    for number in range(9):
        world.at(number * 0.1, lambda: world.member().join(first))
    for _ in range(3):
        world.run(1)
        world.check_bounds()
    everybody_speaks(world)
    world.run(3)
    world.check_complete()
    world.check_bounds()


def cross(seed):
    """Two dial each other at once."""
    world = World(seed)
    one, other = world.member(), world.member()
    for member, target in (one, other), (other, one):
        world.at(1, member.join, target)
    world.run(1.8)
    if len(link(one, other)) != 1 or len(link(other, one)) != 1 or one.mesh() != [other]:
        raise Violation(f"{len(link(one, other))} and {len(link(other, one))} links")


def clocks(seed):
    """Somebody joins whose clock is an hour slow."""
    world = network_of(3, seed)
    world.run(30)
    world.member("zoe", skew=-3600).join(world.members[1])
    world.run(5)
    if not all(notices(member, "zoe") == ["zoe joined"] for member in world.members[:-1]):
        raise Violation("not everybody is told that zoe joined")


def forgers(seed):
    """Somebody speaks in the name of another, again and again."""
    world = network_of(4, seed)
    world.strict, world.forged = False, {1}
    bob, other = world.members[:2]
    liar = Liar(world).join(other)
    world.run(1)
    for _ in range(5):
        origin = bob.network.author.origin
        liar.record(Kind.HERE, other.network.log.have[origin] + 1, origin=origin, name=bob.name)
        world.run(peers.RENEW_SECONDS + 1)
    world.run(20)
    world.check_who()


def alone(seed):
    """All others lose power, and one dials them in turn (seed 700116: by chance, so two who lived missed each other for minutes)."""
    world = network_of(6, seed)
    others = world.members[1:]
    for other in others:
        world.kill(other, sign=False)
    world.run(300)
    dials = []
    world.trace_to = dials.append
    world.run(10 * len(others) * peers.RESERVE_MOST)
    dialled = [line.split()[3] for line in dials if " dials " in line]
    two_turns = 2 * len(others) - 1
    if any(len(set(dialled[start:start + two_turns])) < len(others) for start in range(5 * two_turns)):
        raise Violation(f"not in turn: {dialled}")


@faults.limited({"UNPROVEN_DIALS": 4})
def stopped(seed):
    """Eight join through a stopped member, who goes on and has links enough (seed 700252: they took it for a C program)."""
    world = network_of(8, seed)
    first = world.members[0]
    world.stop(first)
    for _ in range(8):
        world.member().join(first)
    world.run(5)
    world.resume(first)
    world.run(20)  # and nobody speaks
    if not world.is_one():
        raise Violation(f"not one network: {world.components()}")


TRIED_FIRST = 25, 158, 1  # of chaos, as they find nearly all


def first_to_fail(scenario):
    """The first seed with which this scenario does."""
    for seed in (*TRIED_FIRST * (scenario is chaos), *range(30)):
        try:
            scenario(seed)
        except Violation:
            return seed
    raise AssertionError("no seed finds it")


@pytest.mark.parametrize("mutant", mutants.FINDERS, ids=lambda mutant: mutant.__name__)
def test_the_oracle_notices_when_the_core_is_broken_and_only_then(mutant, monkeypatch):
    scenario = globals()[mutants.FINDERS[mutant]]
    mutant(monkeypatch.setattr)
    seed = first_to_fail(scenario)
    monkeypatch.undo()
    scenario(seed)


# Nobody is connected --------------------------------------------------------------------------

ALONE = "nobody is connected; what you say is kept and delivered when somebody is"


def test_whoever_loses_its_last_neighbour_is_told_at_once_and_again_the_next_time():
    world = network_of(2)
    ann, bob = world.members
    for times in 1, 2:
        world.kill(bob)
        world.run(peers.ALONE_SECONDS + 0.5)
        assert ann.network.is_alone and notices(ann, "nobody") == [ALONE] * times
        ann.say()
        world.run(20)
        assert notices(ann, "nobody") == [ALONE] * times and ann.network.unheard
        bob = world.member()
        bob.join(ann)
        world.run(5)
        assert not ann.network.is_alone and not ann.network.unheard
    assert bob.shown == 2, "what was said to nobody was delivered"


def test_whoever_is_left_with_a_goodbye_is_told_when_it_speaks():
    world = network_of(2)
    ann, bob = world.members
    bob.leave()
    world.run(20)
    assert notices(ann, "nobody") == []
    ann.say()
    ann.say()
    assert notices(ann, "nobody") == [ALONE]


def test_whoever_loses_one_neighbour_of_several_is_told_nothing_of_it():
    world = network_of(3)
    world.kill(world.members[1])
    world.run(20)
    assert not any(notices(member, "nobody") for member in world.members)


def test_a_lost_c_program_was_somebody_too():
    world = World(1)
    ann, carl = world.member(), world.c_peer()
    ann.join(carl)
    world.run(5)
    world.kill(carl)
    world.run(5)
    assert notices(ann, "nobody") == [ALONE]


def test_a_second_peer_that_our_user_named_is_dialled_only_when_nobody_is_connected():
    world = network_of(2)
    ann, bob = world.members
    spare = world.c_peer()
    ann.do(ann.network.remember, "the spare one", [(spare.host, spare.port)])
    world.run(100)
    assert not spare.ends
    world.kill(bob)
    world.run(0.5)
    text = ann.say()
    world.run(10)
    assert [text for _, text in spare.lines] == [text] and notices(ann, "connected") == ["connected to the spare one"]


def test_a_second_peer_that_is_away_is_dialled_after_growing_pauses_for_as_long_as_nobody_is_connected():
    world = network_of(2)
    ann, bob = world.members
    ann.do(ann.network.remember, "the spare one", [("10.77.0.1", 4000)])
    world.hosts["10.77.0.1"] = True
    dials = world.dials
    bob.leave()
    world.run(300)
    assert 6 <= world.dials - dials <= 14 and notices(ann, "can't") == []
    world.member().join(ann)
    spare = world.c_peer(host="10.77.0.1", port=4000)  # it is back, and not needed any more
    world.run(100)
    assert not spare.probes and not spare.ends


def test_what_was_said_to_nobody_reaches_a_c_program_that_joins_and_nothing_from_before():
    world = network_of(2)
    ann, bob = world.members
    everybody_speaks(world)
    world.run(5)
    bob.leave()
    world.run(5)
    texts = [ann.say(), ann.say()]
    carl, dora = world.c_peer(), world.c_peer()
    carl.join(ann)
    world.run(5)
    dora.join(ann)
    world.run(5)
    assert [text for _, text in carl.lines] == texts and not dora.lines
