"""The chat without I/O (Network), and real sockets without chat (Link, Dial, listen, accept)."""

import random
import socket
from collections import Counter
from contextlib import suppress

import pytest

import message
import p2pchat
import peers
from helpers import encode_pair
from message import (LEFT_TEXT, PROBE, RECORD_SIZE, FrameDecoder, HEADER_SIZE, Hello, Kind, Log, Marker, decode_record, encode_frame,
                     encode_hello, encode_record, join, read_mark)
from p2pchat import Dial, Gone, Link, accept, listen
from peers import Attempt, Connect, Hangup, Neighbour, Network, Notice, LinkKind, Show, STRANGER_SECONDS


class Room:
    """A Network and what it asked for."""

    def __init__(self):
        self.network = Network(b"me", 1, random.Random(1))

    def neighbour(self, host="10.0.0.1"):
        """A plain neighbour that dialled us."""
        neighbour = self.network.opened(host)
        self.network.now = max(self.network.now, neighbour.since + STRANGER_SECONDS)
        self.network.tick()
        self.events()
        return neighbour

    def dialled(self, contact, address=("10.0.0.1", 7)):
        """A plain neighbour that we dialled."""
        contact.plain = True
        return self.network.opened(address[0], Attempt(address, contact, True, plain=True))

    def events(self, kind=object):
        found = [event for event in self.network.actions if isinstance(event, kind)]
        self.network.actions.clear()
        return found

    def notices(self):
        parts = [(event.words, [part.decode() if isinstance(part, bytes) else part for part in event.parts])
                 for event in self.events(Notice)]
        return [words.format(*values) for words, values in parts]


def taken(neighbour):
    """All the bytes that a neighbour is to be sent now."""
    data = neighbour.take(1 << 30, 1 << 30)
    while neighbour.backlog:
        data += neighbour.take(1 << 30, 1 << 30)
    return data


def pairs(data):
    frames = [frame[HEADER_SIZE:] for frame in FrameDecoder().feed(data)]
    return list(zip(frames[::2], frames[1::2]))


def sent(neighbour):
    """What a plain neighbour is sent, as its screen shows it: (name, text)."""
    return [(read_mark(name, text)[0], text) for name, text in pairs(taken(neighbour))]


@pytest.fixture
def room():
    return Room()


def test_what_comes_from_one_neighbour_goes_to_all_others_and_to_the_screen(room):
    ann, bob, cy = (room.neighbour() for _ in range(3))
    room.network.received(bob, encode_pair(b"bob", b"hi"))
    assert room.events(Show) == [Show(b"bob", [b"hi"])]
    assert sent(ann) == sent(cy) == [(b"bob", b"hi")]
    assert sent(bob) == []


def test_half_a_message_is_nobodys_business_yet(room):
    ann, bob = room.neighbour(), room.neighbour()
    room.network.received(bob, encode_pair(b"bob", b"hi")[:-1])
    assert room.events() == [] and sent(ann) == []


def test_what_we_say_goes_to_everyone_once_and_long_texts_in_parts(room):
    ann = room.neighbour()
    room.network.say(b"x" * 3000)
    assert room.events() == [Show(b"me", [b"x" * 3000], mine=True)]
    assert sent(ann) == [(b"me", b"x" * 2048), (b"me", b"x" * 952)]


def test_a_goodbye_is_not_relayed_and_names_who_left(room):
    ann, bob = room.neighbour(), room.neighbour()
    room.network.received(bob, encode_pair(b"bob", b"hi"))
    sent(ann), room.events()
    room.network.received(bob, encode_pair(b"bob", b":q") + encode_pair(b"bob", b"a ghost"))
    assert room.events() == [Hangup(bob, "left")] and sent(ann) == []
    room.network.closed(bob, "left")
    room.network.tick()
    assert room.notices() == ["bob left"] and room.network.who() == []


def test_a_member_behind_a_plain_link_that_leaves_has_left_for_everybody(room):
    """History: others were told "lost contact with m2", since a goodbye named nobody but by name."""
    left, other = Network(b"m2", 2, random.Random(2)), room.network.opened("10.0.0.2")
    far = left.opened("10.0.0.1")
    left.now = STRANGER_SECONDS
    left.tick()
    left.say(b"hi")
    left.leave()
    room.network.received(other, taken(far))
    room.network.closed(other, "left")
    last = decode_record(room.network.log.read(room.network.log.end - 1, room.network.log.end)[0])
    assert last.kind == Kind.GUEST_GONE and last.text == LEFT_TEXT
    room.network.tick()
    assert room.notices()[-1] == "m2 left"


def test_leaving_says_goodbye_behind_what_is_unsent(room):
    ann = room.neighbour()
    room.network.say(b"last words")
    room.network.leave()
    assert sent(ann) == [(b"me", b"last words"), (b"me", b":q")]


def test_a_lost_neighbour_is_named_by_who_was_heard_through_it(room):
    bob = room.neighbour("10.0.0.7")
    room.network.received(bob, encode_pair(b"bob", b"1") + encode_pair(b"cy", b"2") + encode_pair(b"bob", b"3"))
    room.events()
    room.network.closed(bob, "closed the connection")
    assert room.notices() == ["lost contact with bob, cy at 10.0.0.7: it closed the connection"]
    room.network.closed(room.neighbour("10.0.0.8"), "broke the connection off")
    assert room.notices() == [], "what has said nothing is announced to nobody"


def test_the_names_behind_one_link_are_bounded(room):
    bob = room.neighbour()
    for number in range(1000):
        room.network.received(bob, encode_pair(b"%d" % number, b""))
    assert len(bob.names) == peers.MAX_GUESTS == len(room.network.who())
    room.network.closed(bob, "closed the connection")
    assert not room.network.who()  # history: those behind the eighth stayed in the list for ever
    assert room.notices()[-1].count(",") == peers.MAX_NAMED_AT_ONCE - 1


def test_a_frame_too_long_costs_that_link_and_only_what_came_before_it_counts(room):
    ann, bob = room.neighbour(), room.neighbour()
    room.network.received(bob, encode_pair(b"bob", b"ok") + b"\xff" * 8)
    _, show, hangup = room.events()
    assert show == Show(b"bob", [b"ok"]) and hangup.neighbour is bob and "65536 at most" in hangup.reason
    assert sent(ann) == [(b"bob", b"ok")] and sent(bob) == [(b"me", b":q")]


def test_a_neighbour_that_takes_nothing_is_let_go_and_the_others_are_not(room, monkeypatch):
    monkeypatch.setattr(peers, "MAX_BACKLOG", 10_000)
    monkeypatch.setattr(peers, "LOG_MESSAGES", 20)
    ann, stuck = room.neighbour(), room.neighbour()
    for _ in range(20):
        room.network.say(b"x" * 1000)
        sent(ann)
    assert [event.neighbour for event in room.events(Hangup)] == [stuck]
    assert sent(stuck) == [(b"me", b":q")]  # its memory is given back at once
    assert ann.backlog == 0 and not ann.ending


def test_waiting_messages_are_joined_whole_up_to_the_size_and_counted_down(room):
    ann = room.neighbour()
    for _ in range(5):
        room.network.say(b"hello")
    one = ann.take(1, 1000)  # a single piece may be longer than a segment
    assert pairs(one)[0][1] == b"hello" and ann.backlog == 4 * len(one)
    assert ann.take(1000, len(one) - 1) == b""  # no room for a whole one: not a byte of it
    assert [text for _, text in pairs(ann.take(2 * len(one) + 1, 1000))] == [b"hello"] * 2
    assert len(pairs(ann.take(1000, 1000))) == 2 and ann.backlog == 0 and ann.take(1000, 1000) == b""


def test_what_a_neighbour_has_already_keeps_nothing_from_it_that_it_lacks():
    """History: a link whose next records were all known was taken for one without room, and waited."""
    log, neighbour = Log(), Neighbour("10.0.0.1", None, LinkKind.MESH, 0, 0)
    log.extend(7, 5000, [encode_record(1, 7, sequence, 0, b"al", b"x") for sequence in range(1, 5001)], 0)
    new = encode_record(1, 8, 1, 0, b"bo", b"y")
    log.extend(8, 1, [new], 0)
    neighbour.log, neighbour.vector_at_hello, neighbour.filter_until = log, {7: 5000}, log.end
    assert neighbour.take(1, 1) == new and neighbour.backlog == 0


def test_a_neighbour_that_lags_gets_all_but_what_it_brought():
    """In any order: what it brings, what others say, copies of that from it, and that it is sent something."""
    for seed in range(200):
        rng, log, said = random.Random(seed), Log(), Counter()
        neighbour = Neighbour("10.0.0.1", None, LinkKind.MESH, 0, 0)
        neighbour.follow(log)
        others, has, got, levels = [], [], [], 0

        def say(origin):
            first, number = said[origin] + 1, log.end
            said[origin] += rng.randint(1, 3)
            frames = [encode_record(Kind.SAY, origin, sequence, 0, b"al", b"x") for sequence in range(first, said[origin] + 1)]
            log.extend(origin, said[origin], frames, 0)
            return frames, (origin, first, said[origin], number)

        def take():
            data = neighbour.take(1 << 16, 1 << 16)
            got.extend(data[at:at + RECORD_SIZE + 3] for at in range(0, len(data), RECORD_SIZE + 3))

        for _ in range(60):
            what = rng.random()
            if what < 0.4:
                neighbour.brought(*say(rng.choice((7, 8)))[1])
            elif what < 0.7:
                others += say(9)[0]
            elif what < 0.8 and others:
                has.append(others[-1])
                neighbour.has(9, said[9], said[9])
            else:
                take()
                levels += neighbour.is_level
        take()
        assert [frame for frame in got if frame not in has] == [frame for frame in others if frame not in has]
        assert all(frame in others for frame in got) and levels


def test_a_stranger_is_told_nothing_until_it_is_clear_what_it_is(room):
    stranger = room.network.opened("10.0.0.1")
    room.network.say(b"hi")
    assert stranger.backlog == 0 and room.network.next_deadline() == STRANGER_SECONDS
    room.network.now = STRANGER_SECONDS
    room.network.tick()
    assert stranger.kind is LinkKind.PLAIN and room.notices() == ["nobody else is here yet; what you say is delivered to whoever joins"]
    assert sent(stranger) == [(b"me", b"hi")] and room.network.next_deadline() is None
    assert room.network.bridge.silent == 1
    room.network.received(stranger, encode_pair(b"bob", b"hello"))
    assert room.notices() == ["a C program connected from 10.0.0.1"] and room.network.bridge.silent == 0


def test_addresses_of_a_named_peer_are_tried_in_turn(room):
    contact = room.network.join("localhost 7", [("::1", 7, 0, 0), ("127.0.0.1", 7)])
    first, = room.events()
    assert first == Connect(Attempt(("::1", 7, 0, 0), contact, True), peers.DIAL_SECONDS / 2)
    room.network.dial_failed(first.attempt, "refused the connection")
    second, = room.events()
    assert second.attempt.address == ("127.0.0.1", 7) and not contact.failure
    room.network.dial_failed(second.attempt, "does not answer")
    assert contact.failure == "does not answer" and room.network.next_deadline() is None
    assert room.notices() == ["can't connect to localhost 7: it does not answer"]


def test_a_named_peer_that_does_not_answer_a_probe_is_dialled_again_as_a_c_peer(room):
    contact = room.network.join("bob", [("10.0.0.1", 7)])
    call = room.events()[0].attempt
    probing = room.network.opened("10.0.0.1", call)
    probe = taken(probing)
    assert probe.startswith(b"\2\0\0\0\0\0\0\0me") and b":q\0" in probe and len(probe) < 2048
    room.network.now = peers.PROBE_SECONDS
    room.network.tick()
    hangup, = room.events()
    assert hangup.neighbour is probing and taken(probing) == b""  # a C peer took the probe for a goodbye
    room.network.closed(probing, hangup.reason)
    again, = room.events()
    assert again.attempt[:4] == (("10.0.0.1", 7), contact, True, True)
    room.network.opened("10.0.0.1", again.attempt)
    assert contact.reached and room.notices() == ["connected to bob"]


def test_a_named_c_peer_that_is_lost_is_dialled_again_with_a_growing_pause(room):
    contact = room.network.join("bob", [("10.0.0.1", 7)])
    bob = room.dialled(contact)
    room.events()
    room.network.now = 5
    room.network.closed(bob, "broke the connection off")
    assert room.notices() == ["lost contact with a C program at 10.0.0.1: it broke the connection off; dialling again"]
    room.network.say(b"is anybody there?")
    assert room.notices() == ["nobody is connected; what you say is kept and delivered when somebody is"]
    pauses = []
    for _ in range(9):
        pauses.append(room.network.next_deadline() - room.network.now)
        due = room.network.next_deadline()
        room.network.now = due - 0.01
        room.network.tick()
        assert room.events(Connect) == []
        room.network.now = due
        room.network.tick()
        connect, = room.events(Connect)
        assert connect.attempt.contact is contact and not connect.attempt.plain and room.network.next_deadline() is None
        room.network.dial_failed(connect.attempt, "refused the connection")
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert room.notices() == []
    room.dialled(contact)
    assert room.notices() == ["connected to bob again"]


def test_the_pause_starts_anew_only_after_a_link_that_held(room):
    contact = room.network.join("bob", [("10.0.0.1", 7)])
    for length, pause in ((1, 1), (1, 2), (1, 4), (100, 1), (1, 2)):
        bob = room.dialled(contact)
        room.network.now += length
        room.network.closed(bob, "failed")
        assert contact.due == room.network.now + pause
        contact.due = None


def test_a_named_peer_that_says_goodbye_is_not_dialled_again(room):
    contact = room.network.join("bob", [("10.0.0.1", 7)])
    bob = room.dialled(contact)
    room.network.received(bob, encode_pair(b"bob", b":quit"))
    room.network.closed(bob, "left")
    assert contact.due is None and room.network.contacts == []


# Real sockets --------------------------------------------------------------------------------

def cramped(link):
    """Whether the far end's window, that of a C program, is too small for what is to be sent next."""
    return link.segmenter.retry_at is not None


def checked(link, now=0):
    """The Patience with a link whose flush has just fallen short."""
    patience = p2pchat.Patience(link, now)
    patience.check(now)
    return patience


@pytest.fixture
def linked():
    """A Link and the plain blocking socket at its far end."""
    listener = listen("127.0.0.1", 0)
    far = socket.create_connection(listener.getsockname())
    listener.setblocking(True)
    sock, host = accept(listener)
    link = Link(sock, Neighbour(host, None, LinkKind.PLAIN, 0, 0))
    yield link, far
    for closable in (sock, far, listener):
        closable.close()


def test_a_link_reports_what_came_nothing_and_the_end(linked):
    link, far = linked
    assert link.receive() == b""
    far.sendall(b"abc")
    assert link.receive() == b"abc"
    far.close()
    with pytest.raises(Gone, match="closed the connection"):
        link.receive()


def test_a_link_that_is_reset_is_gone(linked):
    link, far = linked
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    with pytest.raises(Gone, match="broke the connection off"):
        link.receive()


def test_last_words_are_read_though_sending_fails_already(linked):
    """History: a goodbye went unread when our own message met the closed socket first, and the user was told "lost"."""
    link, far = linked
    far.sendall(b"goodbye")
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    link.neighbour.queue(join([b"x"]))
    link.flush(0)
    assert link.receive() == b"goodbye"
    with pytest.raises(Gone, match="broke the connection off"):
        link.receive()


def test_a_far_end_that_stops_reading_makes_the_link_wait_and_gets_all_of_it_later(linked):
    link, far = linked
    pieces = [b"%06d" % number * 100 for number in range(20_000)]
    link.neighbour.queue(join(pieces))
    while not cramped(link):
        link.flush(0)
    assert 0 < link.unsent < 12_000_000 and not checked(link).is_due(0)
    arrived = bytearray()
    while len(arrived) < 12_000_000:
        arrived += far.recv(1 << 20)
        link.flush(0)
    assert arrived == b"".join(pieces) and not link.unsent and not cramped(link)


def test_a_write_that_was_taken_in_part_goes_on_where_it_stopped(linked):
    link, far = linked
    far.settimeout(5)
    link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    link.neighbour.kind = LinkKind.MESH  # to a C peer nothing is sent that does not fit
    said = b"".join(b"%07d " % number for number in range(300_000))
    link.neighbour.queue(join([said]))
    link.flush(0)
    assert 0 < link.unsent < len(said) and link.blocked and not checked(link).is_due(0)
    arrived = bytearray()
    while len(arrived) < len(said):
        arrived += far.recv(1 << 20)
        link.flush(0)
    assert arrived == said and not link.unsent and not link.blocked


def test_nothing_is_sent_into_a_window_that_it_does_not_fit(linked):
    link, far = linked
    link.neighbour.queue(join([b"x" * 1000] * 20_000))
    while not cramped(link):
        link.flush(0)
    joined, room = link.segmenter._look()
    assert room < 1000 < joined


def test_a_link_that_takes_nothing_is_let_go_after_a_while_and_not_before(linked):
    link, far = linked
    link.neighbour.queue(join([b"x" * 1000] * 20_000))
    while not cramped(link):
        link.flush(5)
    pauses, now, patience = [], 5, checked(link, 5)
    while now < 6:
        pauses.append(patience.deadline - now)
        now = patience.deadline
        link.flush(now)
        patience.check(now)
    assert pauses[0] < 0.002 and max(pauses) == pytest.approx(p2pchat.WINDOW_POLLS[1]) and patience.stuck
    patience.check(5 + p2pchat.STALL_SECONDS - 0.1)
    before = link.unsent
    while link.unsent == before:  # until the kernel has heard that there is room again
        far.recv(1 << 24)
        link.flush(20)
    patience.check(20)
    assert not patience.stuck
    patience.check(20 + p2pchat.STALL_SECONDS - 0.1)
    with pytest.raises(Gone, match="read nothing for 30 seconds"):
        patience.check(20 + p2pchat.STALL_SECONDS)


def test_one_flush_costs_a_bounded_number_of_sends(linked, monkeypatch):
    monkeypatch.setattr(p2pchat, "SENDS_PER_TURN", 2)
    link, _ = linked
    link.segmenter._look = lambda: (100, 1000)
    link.neighbour.queue(join([b"x" * 100] * 3))
    link.flush(0)
    assert link.unsent == 100 and link.blocked


@pytest.mark.skipif(not p2pchat.SEND_FLAGS, reason="needs MSG_EOR as Linux keeps it; elsewhere each message is a send of its own")
def test_no_send_is_longer_than_a_segment_unless_it_is_a_single_piece(linked):
    link, _ = linked
    sends, send = [], link.send_chunk
    link.send_chunk = lambda chunk, now: sends.append((len(chunk), link.segmenter._look()[0])) or send(chunk, now)
    link.neighbour.queue(join([b"x" * 100] * 1000))
    link.flush(0)
    assert 1 < len(sends) < 10 and sum(size for size, _ in sends) == 100_000
    assert all(size <= segment for size, segment in sends)


def dial(address):
    dialling = Dial(Attempt(address), 0)
    socket_ready(dialling.sock)
    return dialling


def socket_ready(sock):
    import select
    assert select.select([], [sock], [], 10)[1]


def test_a_dial_ends_in_a_socket_or_in_a_reason():
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    sock = dial(("127.0.0.1", port)).finish(own_port=1)
    assert sock.getpeername() == ("127.0.0.1", port) and not sock.getblocking()
    with pytest.raises(Gone, match="this program itself"):
        dial(("127.0.0.1", port)).finish(own_port=port)
    listener.close()
    with pytest.raises(Gone, match="refused"):
        dial(("127.0.0.1", port)).finish(own_port=1)
    sock.close()


def test_every_interface_means_both_families_and_ipv4_callers_look_like_ipv4():
    listener = listen("", 0)
    port = listener.getsockname()[1]
    hosts = {"127.0.0.1": "127.0.0.1", "::1": "::1"} if socket.has_dualstack_ipv6() else {"127.0.0.1": "127.0.0.1"}
    listener.setblocking(True)
    for host, seen in hosts.items():
        with socket.create_connection((host, port)):
            sock, where = accept(listener)
            assert where == seen
            sock.close()
    listener.setblocking(False)
    assert accept(listener) is None
    listener.close()


# Marks and circles ---------------------------------------------------------------------------

GATEWAY = 5  # an origin lower than any that is drawn at random


def marked(name, sequence, text, origin=77, gateway=GATEWAY):
    """The two frames of a message that a gateway put onto a plain link."""
    return Marker(gateway, "10.0.0.9", 4000).encode(0, [encode_record(Kind.SAY, origin, sequence, 0, name, text)]).data


def frames(*pieces):
    return [frame for piece in pieces for frame in FrameDecoder().feed(piece)]


def test_two_messages_that_a_c_program_mixed_up_cost_themselves_and_no_false_line(room):
    """History: its threads write at once, and rows such as "a0: b" were shown."""
    ann = room.neighbour()
    one, two, three = (frames(marked(b"eve", number, b"text %d" % number)) for number in (1, 2, 3))
    room.network.received(ann, one[0] + two[0] + one[1] + two[1] + b"".join(three))
    assert [event.texts for event in room.events(Show)] == [[b"text 3"]]


@pytest.mark.parametrize("cut", [20, 30, 0])
def test_what_is_left_of_a_mark_costs_that_line(room, cut):
    ann = room.neighbour()
    name = frames(marked(b"eve", 1, b"whole"))[0][HEADER_SIZE:]
    room.network.received(ann, encode_pair(name[:len(name) - cut], b"other words") + encode_pair(b"eve\xff\x80\x81", b"a strange name"))
    assert [event.texts for event in room.events(Show)] == [[b"a strange name"]]


def member(room, origin, host="10.0.0.9"):
    """A member at a mesh link that dialled us."""
    neighbour = room.network.opened(host)
    hello = Hello(origin, 4000, True, b"gate")
    room.network.received(neighbour, encode_pair(b"gate", PROBE + encode_hello(hello)) + encode_frame(encode_hello(hello))
                          + encode_record(Kind.HERE, origin, 1, 0, b"gate", b""))
    room.events()
    return neighbour


@pytest.mark.parametrize("limit", [message.LOG_BYTES, 300])
def test_a_line_that_was_not_sent_yet_when_its_link_went_quiet_is_not_sent_once_it_came_back(room, monkeypatch, limit):
    """History: nothing told that it came back, and the link took over though another gateway served it. And where the log
    had lost what the link lacked, another line was taken for the one that came back."""
    carl, gate = room.neighbour(), member(room, GATEWAY)
    monkeypatch.setattr(message, "LOG_BYTES", limit)
    for sequence in range(2, 12):
        room.network.received(gate, encode_record(Kind.HERE, GATEWAY, sequence, 0, b"gate", b""))
    room.network.received(gate, encode_record(Kind.GUEST, GATEWAY, 12, 0, b"cy", b"hi"))
    room.network.received(carl, marked(b"gate", 9, b"x", origin=GATEWAY))
    assert carl.outlet.is_quiet and not sent(carl)
    room.network.received(carl, encode_pair(b"cy", b"hi"))
    for _ in range(20):
        room.network.now += 1
        room.network.received(gate, encode_frame(bytes([Kind.PONG])))
        room.network.tick()
    assert carl.outlet.is_quiet and not sent(carl)
    assert [event.texts for event in room.events(Show)] == [[b"hi"]]


def test_a_message_that_two_neighbours_bring_goes_back_to_neither(room):
    ann, bob = member(room, 7), member(room, 8, "10.0.0.8")
    taken(ann), taken(bob)
    first, second = (encode_record(Kind.SAY, 9, sequence, 0, b"cy", b"hi") for sequence in (1, 2))
    room.network.received(ann, first)
    room.network.received(bob, first)
    assert taken(ann) == taken(bob) == b""
    room.network.received(ann, second)
    assert taken(ann) == b"" and taken(bob) == second
