"""tiny.py talks to its own kind and to the built program, and what it says of the real program is true."""

import contextlib
import os
import re
import socket
import subprocess

import pytest

import message
import p2pchat
import peers
import tiny
import ui
from helpers import PATIENCE, TOP, Program, encode_pair, python

PATH = os.path.join(TOP, "tests", "tiny.py")
with open(os.path.join(TOP, "tests", "COURSE.md"), encoding="utf-8") as _file:
    COURSE = _file.read()

pytestmark = pytest.mark.together


@pytest.fixture(scope="module")
def chain():
    """The built program, ann and bob, in a row; ann and bob are tiny."""
    with contextlib.ExitStack() as stack:
        built = stack.enter_context(Program("cy", "--bind", "127.0.0.1", "--lines"))
        ann = stack.enter_context(Program("ann", 0, "127.0.0.1", built.port, command=python(PATH)))
        bob = stack.enter_context(Program("bob", 0, "127.0.0.1", ann.port, command=python(PATH)))
        built.wait(lambda program: program.err)
        yield built, ann, bob


@contextlib.contextmanager
def peer(member, buffer=None):
    """A bare socket, linked to this member."""
    with socket.socket() as sock:
        sock.settimeout(PATIENCE)
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.connect(("127.0.0.1", member.port))
        yield sock


def hears(program, line):
    program.wait(lambda program: line in program.out)


def read(sock, size):
    """Exactly so many bytes."""
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(min(size - len(data), 1 << 20))
        assert piece, f"the end after {len(data)} of {size} bytes"
        data += piece
    return bytes(data)


def test_lines_go_both_ways_through_a_chain_of_two_tiny_ones_and_the_built_program(chain):
    built, ann, bob = chain
    bob.type("from one end")
    hears(ann, "bob: from one end")
    hears(built, "bob: from one end")
    built.type("from the other")
    hears(bob, "cy: from the other")
    ann.type("from the middle")
    hears(bob, "ann: from the middle")
    hears(built, "ann: from the middle")


def test_a_name_is_shown_up_to_a_byte_0xff_and_relayed_whole_though_it_came_byte_by_byte(chain):
    built, ann, bob = chain
    name = "zoë".encode() + b"\xff\x80\x81 behind it"
    with peer(bob) as slow, peer(ann) as far_end:
        slow.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in encode_pair(name, b"one byte at a time"):
            slow.sendall(bytes([byte]))
        assert read(far_end, len(encode_pair(name, b"one byte at a time"))) == encode_pair(name, b"one byte at a time")
        hears(ann, "zoë: one byte at a time")


def test_a_peer_that_reads_nothing_keeps_nobody_waiting_and_gets_all_of_it_once_it_reads(chain):
    """Twelve megabytes: more than the kernel keeps for it, so what is written to it is written in part."""
    built, ann, bob = chain
    long_name = b"eve\xff" + bytes(range(0x80, 0xC0)) * 900  # of which three letters are shown
    with peer(ann, buffer=4096) as deaf, peer(bob) as flood:
        flooded = (message.encode_frame(long_name) + message.encode_frame(b"...")) * 200 + encode_pair(b"eve", b"the last word")
        flood.sendall(flooded)
        hears(ann, "eve: the last word")
        ann.type("and on it goes")
        hears(bob, "ann: and on it goes")
        assert read(deaf, len(flooded)) == flooded
        assert read(deaf, len(encode_pair(b"ann", b"and on it goes"))) == encode_pair(b"ann", b"and on it goes")


def test_a_goodbye_is_neither_shown_nor_passed_on_and_a_member_that_leaves_says_one(chain):
    built, ann, bob = chain
    with peer(ann) as far_end:
        with Program("dan", 0, "127.0.0.1", bob.port, command=python(PATH)) as dan:
            dan.type("my last words")
            assert dan.end() == 0
        hears(ann, "dan: my last words")
        bob.type("still here")
        hears(ann, "bob: still here")
        said = encode_pair(b"dan", b"my last words") + encode_pair(b"bob", b"still here")
        assert read(far_end, len(said)) == said
    assert not [line for line in ann.out + bob.out if line.startswith("dan: :")]


def test_a_frame_of_a_senseless_length_costs_that_link_alone(chain):
    built, ann, bob = chain
    with peer(ann) as liar:
        liar.sendall(b"\xff" * 8)
        assert liar.recv(1) == b""
    bob.type("who was that?")
    hears(ann, "bob: who was that?")


OWNERS = {**vars(ui), **vars(message), **vars(peers), **vars(p2pchat), "ui": ui, "message": message, "peers": peers}


def missing(names):
    """Those that are not in the real program: functions, classes, `Class.method`, `module.function`."""
    owned = [name.partition(".") for name in names]
    return [owner + dot + attribute for owner, dot, attribute in owned
            if owner not in OWNERS or attribute and not hasattr(OWNERS[owner], attribute)]


def test_every_place_that_it_names_is_in_the_real_program():
    rows = tiny.__doc__.partition("where the real program does it:\n")[2].splitlines()
    names = [name for row in rows for name in re.findall(r"\b(?:ui\.\w+|[A-Z]\w+\.\w+|[A-Z][a-z]+|[a-z]+_[a-z]+|accept)\b", row[48:])]
    assert len(rows) == 10 and len(names) == 17
    assert missing(names) == []


def test_every_function_that_the_course_names_exists():
    quoted = re.findall(r"`([A-Za-z_]+(?:\.[A-Za-z_]+)?)`", COURSE)
    names = [name for name in quoted if re.search(r"[A-Z]|_|^accept$", name) and not name.endswith((".py", ".md")) and not name.isupper()]
    assert len(set(names)) > 30
    assert missing(names + ["Record.origin", "Record.sequence"]) == []
    with open(peers.__file__.replace(".pyc", ".py"), encoding="utf-8") as file:
        lines = {line.strip() for line in file}
    assert {line for line in re.findall(r"`(if [^`]+:)`", COURSE)} - lines == {"if False:"}  # what an exercise changes
    paths = re.findall(r"`(\w+/?\w+\.(?:py|md))`", COURSE)
    assert paths and all(os.path.exists(os.path.join(TOP, path)) for path in paths)


def test_every_command_of_the_course_is_one_that_a_shell_can_read():
    """They were run by hand, and take ten seconds each; what they name is checked above and here."""
    blocks = re.findall(r"^```sh\n(.*?)^```", COURSE, re.MULTILINE | re.DOTALL)
    assert re.findall(r"^### (\d+)\.", COURSE, re.MULTILINE) == [str(number) for number in range(1, 11)] and len(blocks) > 12
    done = subprocess.run(["sh", "-n"], input="\n".join(blocks), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    names = re.findall(r"\b(?:peers|p2pchat)\.(\w+(?:\.\w+)?)", "\n".join(blocks))
    assert len(names) >= 7 and missing(names) == []
    assert max(map(len, COURSE.splitlines())) <= 120


def test_it_is_as_short_as_it_claims_and_needs_nothing_but_the_standard_library():
    with open(PATH, encoding="utf-8") as file:
        lines = file.read().splitlines()
    assert len(lines) <= 150
    assert re.findall(r"^(?:import|from) (\w+)", "\n".join(lines), re.MULTILINE) == ["os", "select", "socket", "struct", "sys", "typing"]
