"""The C program's habits, byte by byte: of the stand-in, and of the real program where P2PCHAT_C names one.

Each test runs on both: what is expected was measured on the real program, and the stand-in has to do the same.
"""

import os
import select
import socket
import struct

import pytest

from cpeer import FRAMES, HEADERS, CPeer
from helpers import PATIENCE, Terminal, until

C_PATH = os.environ.get("P2PCHAT_C", "")
EVERY_BYTE = bytes(range(1, 256))
PRINTABLE = bytes(range(0x20, 0x7f)).decode()
LENGTH = struct.Struct("<Q")
NAGLE_SECONDS = 0.2  # a C program's small writes wait for an acknowledgement, which the kernel delays by 40 ms


class StandIn:
    def __init__(self, directory):
        self.peer = CPeer("carl")
        self.port = self.peer.port
        self.type = self.peer.say

    def rows(self):
        return [hide_words(row) for row in self.peer.screen]

    def close(self):
        self.peer.kill()


class Real:
    """On a terminal that can only place the cursor and clear itself, so that curses sends nothing else."""

    def __init__(self, directory):
        write_terminfo(directory)
        self.terminal = Terminal("carl", rows=40, cols=1000, command=(C_PATH,),
                                 env={"TERM": "bare", "TERMINFO": str(directory)})
        self.port = until(self._port, lambda: "\n".join(self.terminal.rows))

    def _port(self):
        self.terminal.look()
        ports = [row.split()[1] for row in self.terminal.rows if row.startswith("SERVER: ")]
        return int(ports[0]) if ports else None

    def type(self, text):
        self.terminal.type(text + b"\n")

    def rows(self):
        """What stands above the dashed rule and under the SERVER line."""
        self.terminal.look()
        rows = [hide_words(row) for row in self.terminal.rows[:-4] if row]
        return rows[1:]

    def close(self):
        self.terminal.close()


def hide_words(row):
    """An ERROR line without its words, which are the program's own; a row without the blanks at its end."""
    return "ERROR" if row.startswith("ERROR: ") else row.rstrip()


def write_terminfo(directory):
    """A compiled entry `bare` of term(5): columns, lines, clear_screen, cursor_address."""
    names, strings = b"bare\0", {5: b"\x1b[1;1H\x1b[2J\0", 10: b"\x1b[%i%p1%d;%p2%dH\0"}
    table, offsets = b"", []
    for index in range(11):
        offsets.append(len(table) if index in strings else -1)
        table += strings.get(index, b"")
    entry = struct.pack("<6h", 0o432, len(names), 0, 3, len(offsets), len(table)) + names
    entry += bytes(len(entry) % 2) + struct.pack("<3h", 80, -1, 24) + struct.pack("<11h", *offsets) + table
    for place in ("b", "62"):               # Linux and macOS name the directory differently
        (directory / place).mkdir()
        (directory / place / "bare").write_bytes(entry)


@pytest.fixture(params=[
    StandIn, pytest.param(Real, marks=pytest.mark.skipif(not C_PATH, reason="P2PCHAT_C names no C program to compare with"))])
def carl(request, tmp_path):
    peer = request.param(tmp_path)
    yield peer
    peer.close()


@pytest.fixture
def dial(carl):
    """dial() is a neighbour of carl by hand, linked once it has been heard."""
    socks = []

    def connect():
        sock = socket.create_connection(("127.0.0.1", carl.port), PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        socks.append(sock)
        hello = f"neighbour {len(socks)}"
        sock.sendall(pair(b"n", hello.encode()))
        shows(carl, f"n: {hello}")
        return sock

    yield connect
    for sock in socks:
        sock.close()


def shows(carl, *rows):
    """Wait until the last rows are these."""
    until(lambda: carl.rows()[-len(rows):] == list(rows), lambda: f"not {rows}, but {carl.rows()}")


def pair(name, text):
    """A message on a plain link, of any length."""
    return LENGTH.pack(len(name)) + name + LENGTH.pack(len(text)) + text


def read(sock, size):
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece, f"the stream ends after {data!r}"
        data += piece
    return data


def relays(sock, *pairs):
    """The next that comes over the socket are exactly these messages."""
    expected = b"".join(pair(*each) for each in pairs)
    assert read(sock, len(expected)) == expected


def is_empty(sock, seconds=0):
    """Whether the socket has nothing to read, not even the end of the stream, for so long."""
    return not select.select([sock], [], [], seconds)[0]


def test_bytes_outside_printable_ascii_are_relayed_but_not_shown(carl, dial):
    giver, taker = dial(), dial()
    relays(giver, (b"n", b"neighbour 2"))
    giver.sendall(pair(b"<" + EVERY_BYTE + b">", b"[" + EVERY_BYTE + b"]"))
    relays(taker, (b"<" + EVERY_BYTE + b">", b"[" + EVERY_BYTE + b"]"))
    shows(carl, f"<{PRINTABLE}>: [{PRINTABLE}]")


@pytest.mark.parametrize("byte", [0x01, 0x09, 0x0a, 0x1b, 0x1f, 0x7f, 0x80, 0x9b, 0xbf, 0xff])
def test_such_a_byte_alone_before_behind_or_between_letters_leaves_the_letters(carl, dial, byte):
    giver, taker = dial(), dial()
    raw = bytes([byte])
    pairs = [(b"a" + raw, raw + b"b"), (raw + b"a", b"b" + raw), (b"a" + raw + b"a", b"b" + raw + b"b"), (raw, b"b")]
    giver.sendall(b"".join(pair(*each) for each in pairs))
    relays(taker, *pairs)
    shows(carl, "a: b", "a: b", "aa: bb", ": b")


def test_a_nul_ends_what_is_shown_and_relayed(carl, dial):
    giver, taker = dial(), dial()
    giver.sendall(pair(b"bob\0hidden", b"text\0more") + pair(b"\0", b"\0") + pair(b"bob", b"end"))
    relays(taker, (b"bob", b"text"), (b"", b""), (b"bob", b"end"))
    shows(carl, "bob: text", ":", "bob: end")


@pytest.mark.parametrize("goodbye", [b":q", b":quit", b":q\0anything"])
def test_a_goodbye_is_not_shown_or_relayed_and_the_link_is_forgotten_but_not_closed(carl, dial, goodbye):
    giver, taker, leaver = dial(), dial(), dial()       # what the giver says goes to the newest link first
    relays(taker, (b"n", b"neighbour 3"))
    leaver.sendall(pair(b"bob", goodbye) + pair(b"bob", b"never read"))

    def is_forgotten():
        giver.sendall(pair(b"cy", b"?"))
        relays(taker, (b"cy", b"?"))
        if is_empty(leaver, NAGLE_SECONDS):
            return True
        relays(leaver, (b"cy", b"?"))
        return False

    until(is_forgotten)
    shows(carl, "cy: ?")
    assert set(carl.rows()[3:]) == {"cy: ?"} and is_empty(leaver)


@pytest.mark.parametrize("text", [b":q ", b" :q", b":Q", b":quit!", b":help", b""])
def test_what_only_resembles_a_goodbye_is_chat(carl, dial, text):
    giver, taker = dial(), dial()
    giver.sendall(pair(b"bob", text))
    relays(taker, (b"bob", text))
    shows(carl, f"bob: {text.decode()}".rstrip())


def test_a_length_in_two_pieces_costs_the_link_which_stays_open(carl, dial):
    giver, taker = dial(), dial()
    relays(giver, (b"n", b"neighbour 2"))
    message = pair(b"bob", b"text")
    giver.sendall(message[:3])
    until(lambda: carl.rows()[-1:] == ["ERROR"])
    giver.sendall(message[3:] + message)
    taker.sendall(pair(b"cy", b"after"))
    shows(carl, "ERROR", "cy: after")
    assert is_empty(giver) and is_empty(taker)


def test_a_frame_may_come_in_pieces_behind_its_length(carl, dial):
    giver, taker = dial(), dial()
    for piece in (LENGTH.pack(3), b"b", b"ob", LENGTH.pack(4), b"te", b"xt"):
        giver.sendall(piece)
    relays(taker, (b"bob", b"text"))
    shows(carl, "bob: text")


def test_a_message_that_comes_twice_is_shown_and_relayed_twice(carl, dial):
    giver, taker = dial(), dial()
    relays(giver, (b"n", b"neighbour 2"))
    giver.sendall(pair(b"bob", b"again") * 2)
    taker.sendall(pair(b"bob", b"again"))
    relays(giver, (b"bob", b"again"))
    relays(taker, *[(b"bob", b"again")] * 2)
    shows(carl, *["bob: again"] * 3)


def test_frames_of_2048_bytes_pass(carl, dial):
    giver, taker = dial(), dial()
    giver.sendall(pair(b"\xff" * 2047 + b"n", b"\xff" * 2047 + b"t"))
    relays(taker, (b"\xff" * 2047 + b"n", b"\xff" * 2047 + b"t"))
    shows(carl, "n: t")


def test_a_longer_name_costs_the_link(carl, dial):
    giver, taker = dial(), dial()
    relays(giver, (b"n", b"neighbour 2"))
    giver.sendall(pair(b"n" * 2049, b"text"))
    until(lambda: carl.rows()[-1:] == ["ERROR"])
    taker.sendall(pair(b"cy", b"after"))
    shows(carl, "ERROR", "cy: after")
    assert is_empty(giver) and is_empty(taker)


def test_a_longer_text_is_taken_for_messages(carl, dial):
    giver, taker = dial(), dial()
    text = pair(b"eve", b"out of step")
    giver.sendall(LENGTH.pack(3) + b"bob" + LENGTH.pack(2049) + text)
    relays(taker, (b"eve", b"out of step"))
    shows(carl, "ERROR", "eve: out of step")


@pytest.mark.parametrize("rest, errors", [(b"", 1), (LENGTH.pack(3) + b"bob", 2), (pair(b"bob", b"text")[:-1], 2)])
def test_the_end_of_a_stream_shows_an_error_and_another_for_a_text_that_is_missing(carl, dial, rest, errors):
    giver, other = dial(), dial()
    giver.sendall(rest)
    giver.shutdown(socket.SHUT_WR)
    until(lambda: carl.rows().count("ERROR") == errors)
    other.sendall(pair(b"cy", b"after"))
    shows(carl, *["ERROR"] * errors, "cy: after")


@pytest.mark.parametrize("typed, sent", [
    (b"hi", b"hi"), (b"  two  words   ", b"  two  words"), (b"caf\xc3\xa9", b"caf"), (b":q!", b":q!"), (b"x" * 2500, b"x" * 2500)])
def test_typed_text_goes_out_as_far_as_it_is_printable_ascii(carl, dial, typed, sent):
    taker = dial()
    carl.type(typed)
    relays(taker, (b"carl", sent))


def test_a_blank_line_is_not_sent(carl, dial):
    taker = dial()
    for line in (b"", b"   ", b"end"):
        carl.type(line)
    relays(taker, (b"carl", b"end"))
    shows(carl, "carl: end")


@pytest.mark.parametrize("goodbye", [b":q", b":quit"])
def test_leaving_is_an_ordinary_message(carl, dial, goodbye):
    taker = dial()
    carl.type(goodbye)
    relays(taker, (b"carl", goodbye))
    assert taker.recv(1) == b""


def test_the_stand_in_mixes_two_messages_on_demand():
    one, other = pair(b"ann", b"one"), pair(b"bob", b"two")
    for order, expected in [
            (FRAMES, one[:11] + other + one[11:]),          # ann: bob, and two: one
            (HEADERS, one[:8] + other[:8] + one[8:] + other[8:])]:
        with CPeer("carl") as carl, socket.create_connection(("127.0.0.1", carl.port), PATIENCE) as taker:
            givers = [socket.create_connection(("127.0.0.1", carl.port), PATIENCE) for _ in range(2)]
            carl.wait(lambda screen: len(carl.links) == 3)
            carl.garble(order)
            for giver, message, row in zip(givers, (one, other), ("ann: one", "bob: two")):
                giver.sendall(message)
                carl.wait(lambda screen: row in screen)
            assert read(taker, len(expected)) == expected
            carl.say("whole again")
            relays(taker, (b"carl", b"whole again"))
            for giver in givers:
                giver.close()
