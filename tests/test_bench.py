"""The bench's own check of what arrives: it passes what the wire allows, in whatever pieces, and nothing else."""

import random
import socket

import pytest

import bench_load as load

COUNT = 60
SAID = [(b"s00", b"%08d" % number + b"." * (load.TEXT - 8)) for number in range(COUNT)]


def mark(length):
    """So many bytes that no C program shows: 0xff, and what looks like base64 moved upwards."""
    return b"\xff" + bytes(0x80 + (7 * number) % 64 for number in range(length - 1)) if length else b""


def pairs(said, lengths):
    return [load.frame(name + mark(length)) + load.frame(text) for (name, text), length in zip(said, lengths)]


@pytest.fixture
def linked():
    """A receiver of the bench's on a link of its own, and that link's other end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        member = load.Member(listener.getsockname()[1])
        with listener.accept()[0] as far, member.sock:
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            member.heard = load.stream("plain", 0, COUNT)
            yield member, far


def hear(linked, data, pieces=1, seed=1):
    """Let the receiver have this, in pieces."""
    member, far = linked
    cuts = sorted(random.Random(seed).sample(range(1, len(data)), pieces - 1))
    for begin, end in zip([0, *cuts], [*cuts, len(data)]):
        far.sendall(data[begin:end])
        member.check(member.recv())


@pytest.mark.parametrize("lengths", [[0], [61], [61, 61, 61, 60], [61, 0, 3]], ids=str)
@pytest.mark.parametrize("pieces", [1, 200])
def test_what_was_said_is_right_with_marks_of_any_length_and_without(linked, lengths, pieces):
    hear(linked, b"".join(pairs(SAID, lengths * COUNT)), pieces)
    assert linked[0].position == COUNT * linked[0].heard.size


def changed(at, what):
    """The messages, all but this one as they were said."""
    messages = pairs(SAID, [61] * COUNT)
    messages[at:at + 1] = what(messages[at])
    return b"".join(messages)


@pytest.mark.parametrize("what", [
    lambda one: [], lambda one: [one, one], lambda one: [one.replace(b"...", b"..,", 1)], lambda one: [one.replace(b"s00", b"s01")],
    lambda one: [one.replace(b"\x81", b"a", 1)], lambda one: [one.replace(b"\xff", b"\x80", 1)], lambda one: [b"\x41" + one[1:]],
    lambda one: [b"\xff" * 8 + one[8:]], lambda one: [b"\x02" + one[1:]]],
    ids=["missing", "twice", "its text", "its name", "a letter in its mark", "no 0xff", "the length of its name", "a huge length", "a short name"])
@pytest.mark.parametrize("at", [0, 30])
def test_what_was_not_said_is_wrong(linked, what, at):
    with pytest.raises(load.Wrong):
        hear(linked, changed(at, what))


@pytest.mark.parametrize("length", [0, 61])
def test_a_mixture_of_speakers_is_told_apart(linked, length):
    member, far = linked
    streams = [load.stream("plain", number, COUNT) for number in range(3)]
    ear = load.Ear(member, streams, own=0)
    said = [(b"s%02d" % author, text) for _, text in SAID for author in (1, 2)]
    far.sendall(b"".join(pairs(said, [length] * len(said))))
    ear.check_to(len(said))
    assert ear.least == streams[0].size + length
    far.sendall(b"".join(pairs(said[:2], [length] * 2)))
    ear.read_to(len(said) + 2)
    far.sendall(b"".join(pairs(said[:1], [length])))
    with pytest.raises(load.Wrong):
        ear.check_to(len(said) + 3)
