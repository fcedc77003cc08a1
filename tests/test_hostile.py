"""Hostile neighbours, in a few seconds: floods, crowds, liars, rubbish. The same for minutes: torture.py.

Floods are counted by turns of the loop and by bytes, not by seconds: a slow machine is no failure.
"""

import pytest

import peers
from helpers import Member, turn
from hostile import Stranger
from message import encode_pair


@pytest.fixture
def members():
    """members("ann", "bob") starts whole programs, turned in this process; all are ended after the test."""
    started = []

    def start(*names):
        started.extend(Member(name) for name in names)
        return started[-len(names):]

    yield start
    for member in started:
        member.kill()


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


# Floods ---------------------------------------------------------------------------------------------------------------

def test_many_floods_do_not_delay_who_says_little(members, strangers):
    """History: each link was read 64 KB a turn. With twenty floods a turn took a second, and with a hundred ten."""
    ann, = members("ann")
    floods, (bob,) = strangers(ann, 60), strangers(ann)
    turn([ann], lambda: len(ann.chat.links) == 61)
    for who, flood in enumerate(floods):
        fill(flood, b"".join(encode_pair(b"eve", b"%d %d" % (who, number)) for number in range(8000)))
    for number in range(10):
        bob.say(b"bob", b"%d" % number)
        before = ann.chat.network.log.end
        ann.chat.step()
        said = [record.text for record in ann.chat.network.log.read(before)]
        assert b"%d" % number in said
        assert len(said) <= (peers.READ_SIZE + 61 * peers.LEAST_READ) // 24, "a turn takes as long as with one flood"
