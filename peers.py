"""The neighbours: which links there are, who gets what (Network), and the sockets that carry it (Link).

Knows: a link's unsent bytes and names, relaying, goodbyes, and when to dial a lost peer again.
Must not know: the selector, the screen, arguments, signals. Nothing here ever waits: a socket is
read or written once it is ready, and time is a number handed in (seconds of a monotonic clock).
Leaves out: the loop that calls all this (p2pchat.py), the bytes of a frame (message.py).

Two halves, on purpose. Network is the chat itself without any I/O: it is told what happened and
leaves in `events` what to do, so that tests drive it without a network. Link, Dial and Listener are
the sockets without any idea of chat: bytes in, bytes out, and one exception, Gone, when it is over.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import sys
import termios
from collections import deque
from typing import NamedTuple

from message import QUIT_TEXTS, PairDecoder, ProtocolError, is_quit, pair_pieces, plain_texts

READ_SIZE = 64 * 1024  # bytes read from one link in one turn: a flood gets its share of a turn, not the turn
SENDS_PER_TURN = 8  # system calls spent on one link in one turn, for the same reason
MAX_UNSENT = 8 * 1024 * 1024  # bytes a neighbour may lag behind before it is let go: about 100,000 short messages
MAX_LINKS = 1024  # links at once; each costs a descriptor and a few KB, and a stranger can ask for as many as it likes
ACCEPTS_PER_TURN = 32  # new connections taken in one turn; the kernel queues the rest
MAX_NAMES = 8  # names remembered per link, to say who was behind it when it is lost
DIAL_SECONDS = 10  # how long all addresses of one peer together may stay silent
REDIAL_FIRST, REDIAL_MOST = 1, 60  # seconds of pause before a lost peer is dialled again; doubled each time
STALL_SECONDS = 30  # how long a link may take nothing: a C peer that got out of step is deaf, and does not say so
WINDOW_POLLS = 0.001, 0.1  # seconds until a link without room in the far end's window is tried again: first, at most
LISTEN_BACKLOG = 128  # connections that the kernel keeps for us between two turns

# Where the end of a send is the end of a segment, whole messages joined up to one segment keep every
# header in one piece (see Link.flush). Elsewhere the flag exists but TCP ignores it.
_SEGMENT_FLAG = socket.MSG_EOR if sys.platform.startswith("linux") else 0
# Offsets in Linux's struct tcp_info (linux/tcp.h): tcpi_snd_mss, and tcpi_snd_wnd, which came with 5.4.
TCP_INFO_SIZE, TCP_INFO_SEGMENT, TCP_INFO_WINDOW = 232, 16, 228
_U32 = struct.Struct("=I")
_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_TRY_AGAIN = (BlockingIOError, InterruptedError)


class Gone(Exception):
    """A link or a dial is over; the text is a sentence for our user, without its subject."""


class OutOfDescriptors(Exception):
    """The system has no descriptor for another connection now; the text says what it said."""


# What the network asks for -------------------------------------------------------------------

class Show(NamedTuple):
    """Put a chat message on the screen. Raw bytes of a stranger: whoever shows them cleans them."""
    name: bytes
    text: bytes
    mine: bool = False


class Notice(NamedTuple):
    """Tell our user. `words` is ours; each {} in it stands for one of `parts`: str is ours, bytes are a stranger's."""
    words: str
    parts: tuple = ()


class Connect(NamedTuple):
    """Dial this address; report to Network.opened, or to Network.dial_failed after `seconds` at the latest."""
    contact: "Contact"
    address: tuple
    seconds: float


class Hangup(NamedTuple):
    """Close this neighbour's link, then report `reason` to Network.closed."""
    neighbour: "Neighbour"
    reason: str


# The chat without I/O ------------------------------------------------------------------------

class Contact:
    """A peer that our user named: all its addresses, and when to dial it again after it was lost."""

    def __init__(self, label, addresses):
        self.label = label
        self.addresses = tuple(addresses)
        self.untried = list(addresses)
        self.pause = REDIAL_FIRST
        self.due = None  # when to dial again; None: nothing is planned
        self.reached = False  # ever
        self.failure = ""  # why the last round of dials came to nothing


class Neighbour:
    """The far end of one link, as the chat sees it: what it said, and what it has yet to be sent."""

    def __init__(self, host, contact, now):
        self.host = host
        self.contact = contact
        self.since = now
        self.pairs = PairDecoder()
        self.names = []  # who was heard over this link
        self.waiting = deque()  # pieces to send; the bytes objects are shared with the other neighbours
        self.unsent = 0  # bytes in `waiting`
        self.ending = False  # a hang-up is under way: nothing more is taken from it or queued for it
        self.left = None  # the name that said goodbye

    def heard(self, name):
        if name not in self.names and len(self.names) < MAX_NAMES:
            self.names.append(name)

    def queue(self, pieces):
        self.waiting.extend(pieces)
        self.unsent += sum(map(len, pieces))

    def take(self, joined, room):
        """Whole pieces, up to `joined` bytes together, or one longer one of up to `room` bytes; b"" if nothing fits."""
        chunk, total, limit = [], 0, room
        while self.waiting and total + len(self.waiting[0]) <= limit:
            chunk.append(self.waiting.popleft())
            total += len(chunk[-1])
            limit = min(joined, room)
        self.unsent -= total
        return b"".join(chunk)


class Network:
    """Who our neighbours are and who is sent what. Told what happened; leaves in `events` what to do.

    On plain links that is the C program's whole protocol: pass everything on to all others. Here
    it stops being right where links form a circle: nothing in a pair says that it was here before.
    """

    def __init__(self, name):
        self.name = name  # bytes
        self.neighbours = []
        self.contacts = []
        self.events = deque()

    @property
    def deadline(self):
        """When tick wants to be called, in seconds of the caller's clock; None: nothing is planned."""
        return min((contact.due for contact in self.contacts if contact.due is not None), default=None)

    def join(self, label, addresses):
        """Our user wants a link to the peer at one of `addresses`, called `label` in notices. Returns its Contact."""
        contact = Contact(label, addresses)
        self.contacts.append(contact)
        self._dial(contact)
        return contact

    def say(self, text):
        """Our user says `text` (bytes of any length): to everyone, and to our own screen."""
        self.events.append(Show(self.name, text, mine=True))
        for part in plain_texts(text):
            self._relay(pair_pieces(self.name, part))

    def leave(self):
        """Say goodbye to all neighbours, behind whatever they are still to be sent."""
        self.contacts.clear()
        for neighbour in self.neighbours:
            self._queue(neighbour, self.goodbye)

    @property
    def goodbye(self):
        """What a neighbour must get before we close: a C peer takes a bare end of stream for an error."""
        return pair_pieces(self.name, QUIT_TEXTS[0])

    def opened(self, host, contact, now):
        """A connection is up, with a Contact if we dialled. Returns its Neighbour."""
        neighbour = Neighbour(host, contact, now)
        self.neighbours.append(neighbour)
        if contact is None:
            self._notice("somebody joined from {}", host)
            return neighbour
        self._notice("linked to {} again" if contact.reached else "linked to {}", contact.label)
        contact.reached = True
        return neighbour

    def dial_failed(self, contact, reason, now):
        """A Connect came to nothing; `reason` is a sentence without its subject."""
        if contact.untried:
            self._dial(contact)
            return
        contact.failure = reason
        self._plan_redial(contact, now)

    def received(self, neighbour, data):
        """Bytes came from this neighbour, in whatever pieces."""
        try:
            for name, text in neighbour.pairs.feed(data):
                if neighbour.ending:
                    return
                self._message(neighbour, name, text)
        except ProtocolError as error:
            self._hang_up(neighbour, str(error))

    def closed(self, neighbour, reason, now):
        """This neighbour's link is no more; `reason` is a sentence without its subject."""
        self.neighbours.remove(neighbour)
        contact = neighbour.contact
        if neighbour.left is not None:
            self._notice("{} left", neighbour.left)
            if contact in self.contacts:
                self.contacts.remove(contact)
            return
        self._notice_lost(neighbour, reason)
        if contact is None:
            return
        if now - neighbour.since > REDIAL_MOST:
            contact.pause = REDIAL_FIRST
        self._plan_redial(contact, now)

    def tick(self, now):
        """Time has passed: dial who is due."""
        for contact in self.contacts:
            if contact.due is not None and contact.due <= now:
                contact.due = None
                contact.untried = list(contact.addresses)
                self._dial(contact)

    def _message(self, neighbour, name, text):
        if is_quit(text):
            neighbour.left = name
            self._hang_up(neighbour, "left")
            return
        neighbour.heard(name)
        self.events.append(Show(name, text))
        self._relay(pair_pieces(name, text), neighbour)

    def _relay(self, pieces, origin=None):
        for neighbour in self.neighbours:
            if neighbour is not origin:
                self._queue(neighbour, pieces)

    def _queue(self, neighbour, pieces):
        if neighbour.ending:
            return
        neighbour.queue(pieces)
        if neighbour.unsent > MAX_UNSENT:
            self._hang_up(neighbour, f"took nothing while {MAX_UNSENT >> 20} MiB were waiting")

    def _hang_up(self, neighbour, reason):
        neighbour.ending = True
        neighbour.waiting.clear()
        neighbour.unsent = 0
        self.events.append(Hangup(neighbour, reason))

    def _dial(self, contact):
        address = contact.untried.pop(0)
        self.events.append(Connect(contact, address, DIAL_SECONDS / len(contact.addresses)))

    def _plan_redial(self, contact, now):
        if not contact.reached or contact not in self.contacts:
            return
        contact.due = now + contact.pause
        contact.pause = min(contact.pause * 2, REDIAL_MOST)

    def _notice_lost(self, neighbour, reason):
        who = neighbour.names or [b"somebody"]
        words = "lost " + ", ".join(["{}"] * len(who)) + " at {}: it {}"
        if neighbour.contact in self.contacts:
            words += "; dialling again"
        self._notice(words, *who, neighbour.host, reason)

    def _notice(self, words, *parts):
        self.events.append(Notice(words, parts))


# The sockets without chat --------------------------------------------------------------------

class Link:
    """One connected socket and the neighbour behind it. Every failure of either comes out as Gone."""

    def __init__(self, sock, neighbour):
        self.sock = sock
        self.neighbour = neighbour
        self.blocked = False  # a send fell short: wait for writability before the next one
        self.cramped = False  # the far end's window is too small for the next one: try again in a moment
        self._rest = b""  # of a send that was taken in part
        self._pause, self._retry_at = WINDOW_POLLS[0], 0
        self._stuck_since = None  # when the last byte was taken, while some wait

    @property
    def unsent(self):
        """Bytes that wait on our side of the kernel."""
        return self.neighbour.unsent + len(self._rest)

    def receive(self):
        """What has arrived, at most READ_SIZE bytes; b"" if nothing has. Raises Gone at the end of the stream."""
        try:
            data = self.sock.recv(READ_SIZE)
        except _TRY_AGAIN:
            return b""
        except OSError as error:
            raise Gone(_because(error)) from error
        if not data:
            raise Gone("closed the connection")
        return data

    @property
    def ready(self):
        """Whether flush has something to do that nothing is known to stand in the way of."""
        return self.unsent > 0 and not self.blocked and not self.cramped

    @property
    def deadline(self):
        """When flush wants to be called though nothing happened; None while nothing waits."""
        if self._stuck_since is None:
            return None
        give_up = self._stuck_since + STALL_SECONDS
        return min(give_up, self._retry_at) if self.cramped else give_up

    def flush(self, now):
        """Send what waits, as far as the kernel and the far end take it. Raises Gone after STALL_SECONDS without progress.

        The subtle spot: a C peer reads a header with a single read and is deaf to us for ever if
        only half of it is there. So a send holds whole pieces, is never longer than a segment, and
        MSG_EOR makes the kernel start the next one in a new segment. Still, where the far end's
        window is smaller than a waiting segment, the kernel cuts that to fit (a window probe); so
        we never send more than the window has room for. Nothing reports that the window is open
        again: a link that waits for it is `cramped` and tried again after a growing pause.
        """
        if self._stuck_since is None:
            self._stuck_since = now
        self.blocked = self.cramped = False
        for _ in range(SENDS_PER_TURN):
            if not self._send_chunk(now):
                break
        else:
            self.blocked = True  # its share of this turn is used up
        if not self.unsent:
            self.blocked, self._stuck_since = False, None
        elif now >= self._stuck_since + STALL_SECONDS:
            raise Gone(f"took nothing for {STALL_SECONDS} seconds")

    def _send_chunk(self, now):
        """One system call's worth. Returns whether it is worth trying the next."""
        chunk = self._rest or self.neighbour.take(*self._room())
        if not chunk:
            self._wait_for_window(now)
            return False
        sent = self._send(chunk)
        self._rest = chunk[sent:]
        self.blocked = bool(self._rest)
        if sent:
            self._stuck_since, self._pause = now, WINDOW_POLLS[0]
        return not self._rest

    def _wait_for_window(self, now):
        self.cramped = self.unsent > 0
        self._retry_at = now + self._pause
        self._pause = min(self._pause * 2, WINDOW_POLLS[1])

    def settled(self):
        """Whether all that was sent has arrived at the far end's system. Never blocks."""
        if self.unsent:
            return False
        try:
            return _kernel_unsent(self.sock) == 0
        except OSError:
            return True  # this system does not tell

    def close(self):
        self.sock.close()

    def _send(self, chunk):
        try:
            return self.sock.send(chunk, _SEGMENT_FLAG)
        except _TRY_AGAIN:
            return 0
        except OSError as error:
            raise Gone(_because(error)) from error

    def _room(self):
        """Bytes that a send may have now: of pieces joined (a segment), and at all (the far end's window)."""
        if not _SEGMENT_FLAG:
            return 0, MAX_UNSENT  # the best there is without MSG_EOR and TCP_INFO: one piece a send
        try:
            # In this order: an acknowledgement between the two calls then makes the room look smaller, not larger.
            queued = _kernel_unsent(self.sock)
            info = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
        except OSError as error:
            raise Gone(_because(error)) from error
        (segment,) = _U32.unpack_from(info, TCP_INFO_SEGMENT)
        if len(info) < TCP_INFO_SIZE:
            return segment, MAX_UNSENT  # a Linux before 5.4 does not tell the window
        (window,) = _U32.unpack_from(info, TCP_INFO_WINDOW)
        return segment, window - queued


def _kernel_unsent(sock):
    """Bytes that the far end's system has not acknowledged yet. Raises OSError where the system does not tell."""
    return _U32.unpack(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(_U32.size)))[0]


class Dial:
    """A connection being made: connect says "in progress", select says writable, SO_ERROR says how it went."""

    def __init__(self, contact, address, deadline):
        """Start connecting to `address` (as getaddrinfo gives it). Never blocks. Raises Gone."""
        self.contact = contact
        self.deadline = deadline
        self.host = readable_host(address)
        self._address = address
        family = socket.AF_INET6 if len(address) == 4 else socket.AF_INET
        try:
            self.sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise Gone(_because(error)) from error
        self.sock.setblocking(False)
        code = self.sock.connect_ex(address)
        if code not in (0, errno.EINPROGRESS, errno.EINTR):
            self.sock.close()
            raise Gone(_because(OSError(code, os.strerror(code))))

    def finish(self, own_port):
        """The connected socket, once select has reported it writable. Raises Gone: refused, or it is ourselves."""
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.sock.close()
            raise Gone(_because(OSError(code, os.strerror(code))))
        if self._is_self(own_port):
            self.sock.close()
            raise Gone("is this program itself")
        prepare(self.sock)
        return self.sock

    def _is_self(self, own_port):
        here = self.sock.getsockname()
        return here == self._address or (here[0] == self._address[0] and self._address[1] == own_port)


def listen(host, port):
    """A listening socket on `host` ("" is every interface, IPv4 and IPv6) and `port` (0: the system picks). Raises OSError."""
    if not host and socket.has_dualstack_ipv6():
        listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=LISTEN_BACKLOG)
    else:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=LISTEN_BACKLOG)
    listener.setblocking(False)
    return listener


def accept(listener):
    """The next waiting connection as (socket, host), or None. Raises OutOfDescriptors; never blocks."""
    try:
        sock, address = listener.accept()
    except OSError as error:
        if error.errno in _OUT_OF_DESCRIPTORS:
            raise OutOfDescriptors(_because(error)) from error
        return None  # none is waiting, or it gave up while it waited (ECONNABORTED and its kin)
    try:
        prepare(sock)
    except OSError:
        sock.close()
        return None
    return sock, readable_host(address)


def prepare(sock):
    """Set a connected socket up for the loop. Raises OSError if it is dead already."""
    sock.setblocking(False)
    # Without it a message waits for the acknowledgement of the one before: 57 ms in a chain of four.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # a peer whose cable was cut is noticed in a minute instead of two hours
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)


def readable_host(address):
    """The host of a socket address as a person writes it: an IPv4 caller of an IPv6 socket is still IPv4."""
    host = address[0]
    return host[7:] if host.startswith("::ffff:") and "." in host else host


def _because(error):
    known = {
        errno.ECONNRESET: "broke the connection off",
        errno.EPIPE: "broke the connection off",
        errno.ECONNREFUSED: "refused the connection",
        errno.ETIMEDOUT: "does not answer",
        errno.EHOSTUNREACH: "cannot be reached from here",
        errno.ENETUNREACH: "cannot be reached from here",
    }
    return known.get(error.errno, f"failed ({error.strerror or error})")
