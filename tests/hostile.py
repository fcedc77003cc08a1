"""Neighbours by hand, for the tests that try to hurt a member: real sockets that say whatever a test wants.

`Stranger` is any connection, `mesh` makes one of ours of it as far as the far end can tell. `Drain` reads as fast as
it can and notes when something it looks for came by. Nothing here is fair, and nothing here is part of the program.
"""

import os
import random
import socket
import struct
import threading
import time

from helpers import encode_pair
from message import PROBE, Hello, Kind, encode_frame, encode_hello, encode_record

NOW = 1_700_000_000  # seconds since 1970 in records; nobody compares it with anything
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, with RST


class Stranger:
    """A blocking socket to the member at `port`, from one of this machine's many loopback addresses."""

    def __init__(self, port, host="127.0.0.1", window=0, timeout=20):
        self.sock = socket.socket()
        if window:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.sock.settimeout(timeout)
        self.sock.bind((host, 0))
        self.sock.connect(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data):
        self.sock.sendall(data)

    def say(self, name, text):
        self.send(encode_pair(name, text))

    def read(self):
        """What came; b"" at the end of the stream."""
        try:
            return self.sock.recv(1 << 20)
        except ConnectionError:
            return b""

    def read_until(self, mark):
        """All that came until `mark` was part of it; AssertionError at the end of the stream."""
        data = b""
        while mark not in data:
            piece = self.read()
            assert piece, f"the link ended before {mark!r} came: {data[-200:]!r}"
            data += piece
        return data

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.sock.close()

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def probe(name, origin, port, urgent=True):
    """The first thing that one of ours says."""
    return encode_pair(name, PROBE + encode_hello(Hello(origin, port, urgent, b"")))


def hello(name, origin, port, addresses=(), vector=None):
    return encode_frame(encode_hello(Hello(origin, port, True, name, tuple(addresses), vector or {})))


def greeting(name, origin, port=0, addresses=(), vector=None):
    """All that makes a mesh link of a connection, without waiting for the answer."""
    return probe(name, origin, port) + hello(name, origin, port, addresses, vector)


def said(origin, sequence, name, text, kind=Kind.SAY, when=NOW):
    return encode_record(kind, origin, sequence, when, name, text)


def mesh(port, name=b"liar", origin=None, host="127.0.0.1", **options):
    """A Stranger that greeted as one of ours does. It listens nowhere unless told a port."""
    stranger = Stranger(port, host, window=options.pop("window", 0))
    stranger.origin = random.getrandbits(64) if origin is None else origin
    stranger.send(greeting(name, stranger.origin, **options))
    return stranger


class Drain:
    """Reads a socket in a thread, as fast as it can; remembers only when each of some marks came by."""

    def __init__(self, stranger):
        self.stranger, self.seen, self.bytes = stranger, {}, 0
        stranger.sock.settimeout(None)
        self.over = threading.Event()
        self._marks, self._changed = [], threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def expect(self, mark):
        with self._changed:
            self._marks.append(mark)

    def wait(self, mark, seconds):
        """When `mark` came; None if it did not."""
        with self._changed:
            self._changed.wait_for(lambda: mark in self.seen or self.over.is_set(), seconds)
            return self.seen.get(mark)

    def _read(self):
        tail = b""
        while True:
            try:
                data = self.stranger.read()
            except OSError:
                data = b""
            if not data:
                break
            self.bytes += len(data)
            self._look(tail + data)
            tail = data[-64:]
        with self._changed:
            self.over.set()
            self._changed.notify_all()

    def _look(self, data):
        with self._changed:
            for mark in [mark for mark in self._marks if mark in data]:
                self._marks.remove(mark)
                self.seen[mark] = time.monotonic()
                self._changed.notify_all()


def memory(process_id):
    """Bytes of resident memory of a process."""
    with open(f"/proc/{process_id}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


def cpu(process_id):
    """Seconds of processor time that a process has used."""
    with open(f"/proc/{process_id}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(process_id):
    return len(os.listdir(f"/proc/{process_id}/fd"))
