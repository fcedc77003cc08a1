#!/usr/bin/env python3
"""p2pchat <username> [<peer> <port>]: the sockets, the loop that serves them, the commands, and main.

Knows: sockets, the selector, signals, arguments, the exit status, and which text is a command.
Must not know: how bytes are framed, what a key sends, how a row is drawn.
Leaves out: the chat itself (peers.py: Network) and the terminal (ui.py: Screen, Lines).

Reading order: one connection (Link), how connections begin (Dial, listen, accept), one turn of the loop
(Poll, Chat.step) and what it calls; then a socket without connections (Group), commands, arguments and
main. A first reader skips Patience, Segmenter and FairReader, and stops at Group. `# rule N` marks where
a rule is kept.

The rules of the loop, by which one thread is enough for everything:
1. Only `select` waits. No blocking connect, no sendall, no sleep, and no name lookup once the loop
   runs: while one call waits, everybody waits.
2. Handlers queue; one place sends, at the end of the turn (_send). Writability is asked for only
   after a send fell short, since a write may be partial (Link.send_chunk), or after a link used up
   its share of the turn: a socket is nearly always writable, so asking for no reason would spin.
3. Handlers mark; one place removes (_reap), once all events of the turn have been handed out: so no
   handler meets a link that was closed under it, or a new one that got the old one's descriptor.
4. Handlers change state; one place draws, at most once a turn and no faster than an eye needs.
5. What to wait for, and for how long, follows from state (_wanted, _rewatch, _timeout), and is never
   switched on here and off there. The timeout is the nearest deadline; without one it is None, so an
   idle chat does not wake up.
6. Bounded work per link and turn, not only bounded bytes (FairReader): whatever floods in, the
   keyboard is served in every turn.
7. One place (_mark) turns a link's failure into "this link is gone, because ..."; any other
   exception is our bug and ends the program, after the terminal was restored.

The subtle spots: Segmenter (why a C program never sees half a header) and Chat._act (a send may end a
link, and the end of a link may give us something to send).
"""

import argparse
import errno
import fcntl
import os
import random
import re
import selectors
import signal
import socket
import stat
import struct
import sys
import termios
import time
from collections import deque
from contextlib import suppress
from itertools import groupby, zip_longest
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple, Union

if sys.version_info < (3, 9):  # before anything is read that an old Python does not understand
    sys.exit("p2pchat: Python 3.9 or newer is needed, and this is Python %d.%d" % sys.version_info[:2])

import peers  # noqa: E402
import ui  # noqa: E402
from message import MAX_FRAME, MAX_ROOM  # noqa: E402

Address = Tuple[Any, ...]  # of a socket, as getaddrinfo gives it: (host, port), and for IPv6 perhaps two more numbers
Named = Tuple[str, List[Address]]  # a peer that our user named: what to call it in notices, and where it may be
Front = Union[ui.Screen, ui.Lines]
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


# One connection -------------------------------------------------------------------------------

READ_SIZE = 64 * 1024  # bytes read in a turn, from one busy link or from all of them together; and joined for one send
MAX_SEND = READ_SIZE + MAX_FRAME  # bytes in one send: what is joined, and the last record of it
SENDS_PER_TURN = 8  # system calls spent on one link: a neighbour that takes a lot must not keep the rest waiting

# Where the end of a send is the end of a segment, a C program gets every header in one piece (see Segmenter).
# Elsewhere the flag exists but TCP ignores it.
SEND_FLAGS = socket.MSG_EOR if sys.platform.startswith("linux") else 0


class Gone(Exception):
    """A link or a dial is over; the text is a sentence for our user, without its subject."""


class Link:
    """One connected socket and the neighbour behind it. Every failure of either comes out as Gone.

    It never waits: call receive when select says readable, and flush when something is to be sent.
    A read may be partial: message.FrameDecoder handles that. A write may be partial: see send_chunk.
    """

    def __init__(self, sock: socket.socket, neighbour: peers.Neighbour) -> None:
        self.sock, self.neighbour = sock, neighbour
        self.segmenter = Segmenter(sock)
        self.blocked = False  # the kernel's buffer is full, or this turn's share is used up: wait for writability
        self.taken_at = 0.0  # when the kernel last took bytes
        self._rest = b""  # what it did not take of a partial write: it goes out before anything else
        self._broken = ""  # why sending failed

    @property
    def unsent(self) -> int:
        """0 if nothing waits on our side of the kernel, else roughly how much: Neighbour.backlog, plus unsent bytes."""
        return self.neighbour.backlog + len(self._rest)

    def receive(self, size: int = READ_SIZE) -> bytes:
        """What has arrived, at most `size` bytes; b"" if nothing has. Raises Gone at the end of the stream. Never blocks."""
        try:
            data = self.sock.recv(size)  # b"" from recv itself is the far end's close
        except BlockingIOError:
            return b""
        except OSError as error:
            raise Gone(_because(error)) from error
        if not data:
            raise Gone(self._broken or "closed the connection")
        return data

    def flush(self, now: float) -> bool:
        """Send what waits, as far as it is taken. Returns whether nothing is left. Never blocks."""
        neighbour, self.blocked = self.neighbour, False
        is_ours = neighbour.kind in peers.OURS
        for _ in range(SENDS_PER_TURN):
            chunk = self._rest or (neighbour.take(READ_SIZE, MAX_SEND) if is_ours else self.segmenter.next_chunk(neighbour, now))
            self._rest = b""
            if not chunk:
                return neighbour.is_done()  # if not, a C program's window has no room: writability would not tell when it has
            if not self.send_chunk(chunk, now):
                break
            self.taken_at = now
            if neighbour.is_done():
                return True
        self.blocked = True  # also where the kernel took all, but this turn's share is used up
        return False

    def send_chunk(self, chunk: bytes, now: float) -> bool:
        """Send one system call's worth; nothing may be left of an earlier one. Returns whether all was taken. Never blocks.

        A WRITE MAY BE PARTIAL, and this is where that is handled. send only copies into the kernel's buffer, which
        empties no faster than the far end reads. Where that has room for a part of the chunk, send takes this
        part and returns its length; what it did not take is kept in _rest, `blocked` makes the loop wait for
        writability, and the next flush begins with it: nothing may come between the two parts of a frame.
        """
        try:
            sent = self.sock.send(chunk, SEND_FLAGS)
            if sent == len(chunk):
                return True
        except BlockingIOError:
            sent = 0  # the kernel's buffer is full
        except OSError as error:
            # Not yet Gone: its last words, a goodbye perhaps, may still be there to be read.
            sent, self._broken = 0, _because(error)
        if sent:
            self.taken_at = now
        self._rest = chunk[sent:]
        return False

    def undelivered(self) -> int:
        """Bytes that were taken from the neighbour and that the far end's system has not acknowledged. Never blocks."""
        try:
            return kernel_unsent(self.sock) + len(self._rest)
        except OSError:
            return len(self._rest)  # this system does not say


SLOW_SECONDS = 1  # without taking anything: such a neighbour is not slow but stuck, and our own input no longer waits for it
STALL_SECONDS = 30  # without taking anything, and the link is given up: a C program that got out of step is deaf and does not say so


class Patience:
    """How long we wait for a link that does not take all that is to be sent. It begins with the first flush that falls short."""

    def __init__(self, link: Link, now: float) -> None:
        self._link, self._moved_at = link, now  # when bytes were last taken
        self.stuck = False  # nothing was taken for SLOW_SECONDS
        self.outrun = False  # our input waited for it long enough, and does not again until it has caught up
        self.deadline = now  # when to call flush even if nothing happens (seconds)

    def check(self, now: float) -> None:
        """A flush fell short, the first one or another. Raises Gone after STALL_SECONDS in which nothing was taken."""
        moved_at = self._moved_at = max(self._moved_at, self._link.taken_at)
        self.stuck = now >= moved_at + SLOW_SECONDS
        if now >= moved_at + STALL_SECONDS:
            raise Gone(f"read nothing for {STALL_SECONDS} seconds")
        next_look, retry_at = moved_at + (STALL_SECONDS if self.stuck else SLOW_SECONDS), self._link.segmenter.retry_at
        self.deadline = next_look if retry_at is None else min(next_look, retry_at)

    def is_due(self, now: float) -> bool:
        """Whether to call flush: the deadline has come, or nothing is known to be in its way."""
        return self.deadline <= now or not self._link.blocked and self._link.segmenter.retry_at is None


WINDOW_POLLS = 0.001, 0.1  # seconds until a link without room in the far end's window is tried again: first, at most
# Offsets in Linux's struct tcp_info (linux/tcp.h): tcpi_snd_mss, and tcpi_snd_wnd, which came with 5.4.
TCP_INFO_SIZE, TCP_INFO_SEGMENT, TCP_INFO_WINDOW = 232, 16, 228
TCP_OPTIONS = 40  # bytes of a segment that selective acknowledgements may take, which tcpi_snd_mss does not subtract
NO_WINDOW = 8 * 1024 * 1024  # bytes of room assumed where the system does not say
_U32 = struct.Struct("=I")


class Segmenter:
    """Skip this at first: how much may go to a C program at once.

    The subtle spot: a C program reads a header with a single read, and is deaf to us for ever if only half of it is
    there. So a send holds whole pieces, is never longer than a segment, and MSG_EOR makes the kernel start the next
    one in a new segment. Still, where the far end's window is smaller than a waiting segment, the kernel cuts that to
    fit (a window probe); so we never send more than the window has room for. Nothing reports that the window is open
    again: it is looked at again after a growing pause.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._segment, self._room = 0, 0  # bytes in a segment; bytes that the far end's window has room for, at least
        self._pause = WINDOW_POLLS[0]
        self.retry_at: Optional[float] = None  # when to look at the window again; None: nothing waits for it

    def next_chunk(self, neighbour: peers.Neighbour, now: float) -> bytes:
        """What may be sent now; b"" while the window has no room for the next piece. Raises Gone."""
        chunk = b""
        if neighbour.queued <= min(self._segment, self._room):  # a window never shrinks, so what was seen of it can be used up
            chunk = neighbour.take(self._segment, self._room)
        if not chunk and neighbour.backlog:
            self._segment, self._room = self._look()
            chunk = neighbour.take(self._segment, self._room)
        if chunk or not neighbour.backlog:
            self._room -= len(chunk)
            self._pause, self.retry_at = WINDOW_POLLS[0], None
        else:
            self.retry_at = now + self._pause
            self._pause = min(self._pause * 2, WINDOW_POLLS[1])
        return chunk

    def _look(self) -> Tuple[int, int]:
        """Bytes in a segment, and how many the far end's window has room for."""
        if not SEND_FLAGS:
            return 0, NO_WINDOW  # the best there is without MSG_EOR and TCP_INFO: one piece a send
        try:
            # In this order, an acknowledgement between the two calls makes the room look smaller, not larger.
            queued = kernel_unsent(self._sock)
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
        except OSError as error:
            raise Gone(_because(error)) from error
        (segment,) = _U32.unpack_from(info, TCP_INFO_SEGMENT)
        if len(info) < TCP_INFO_SIZE:
            return segment - TCP_OPTIONS, NO_WINDOW  # before 5.4, Linux does not tell the window
        (window,) = _U32.unpack_from(info, TCP_INFO_WINDOW)
        return segment - TCP_OPTIONS, window - queued


def kernel_unsent(sock: socket.socket) -> int:
    """Bytes that the far end's system has not acknowledged yet. Raises OSError where the system does not tell."""
    return _U32.unpack(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(_U32.size)))[0]


def close_for_writing(sock: socket.socket) -> bool:
    """Send nothing more. Returns whether the far end may still be there. Never blocks."""
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        return False
    return True


# How connections begin ------------------------------------------------------------------------

LISTEN_BACKLOG = 128  # connections that the kernel keeps for us between two turns
_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class OutOfDescriptors(Exception):
    """The system has no descriptor for another connection now; the text says what it said."""


class Dial:
    """A connection being made: connect says "in progress", select says writable, SO_ERROR says how it went."""

    def __init__(self, attempt: peers.Attempt, deadline: float) -> None:
        """Start connecting to the attempt's address (as getaddrinfo gives it). Never blocks. Raises Gone."""
        self.attempt = attempt
        self.deadline = deadline
        self.host = readable_host(attempt.address)
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            self._address = address = socket_address(attempt.address)
            self.sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise Gone(_because(error)) from error
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, attempt.announced is not None)  # off our segments: fails
        code = self.sock.connect_ex(address)
        if code not in (0, errno.EINPROGRESS, errno.EINTR):
            self.sock.close()
            raise Gone(_because(OSError(code, os.strerror(code))))

    def finish(self, own_port: int) -> socket.socket:
        """The connected socket, once select has reported it writable. Raises Gone: refused, or it is ourselves."""
        try:
            code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            if self._is_self(own_port):
                raise Gone("is this program itself")
            prepare(self.sock)
        except OSError as error:
            self.sock.close()
            raise Gone(_because(error)) from error
        except Gone:
            self.sock.close()
            raise
        return self.sock

    def _is_self(self, own_port: int) -> bool:
        here = self.sock.getsockname()
        return here == self._address or (here[0] == self._address[0] and self._address[1] == own_port)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on `host` ("": every interface, IPv4 and IPv6) and `port` (0: the system picks). Raises OSError."""
    if not host and socket.has_dualstack_ipv6():
        listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=LISTEN_BACKLOG)
    else:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server(socket_address((host, port)), family=family, backlog=LISTEN_BACKLOG)
    listener.setblocking(False)
    return listener


def accept(listener: socket.socket) -> Optional[Tuple[socket.socket, str]]:
    """The next waiting connection as (socket, host), or None. Raises OutOfDescriptors; never blocks."""
    try:
        sock, address = listener.accept()
    except OSError as error:
        if error.errno in _OUT_OF_DESCRIPTORS:
            raise OutOfDescriptors(_because(error)) from error
        return None  # none is waiting, or the caller gave up while waiting (ECONNABORTED and the like)
    try:
        prepare(sock)
    except OSError:
        sock.close()
        return None
    return sock, readable_host(address)


def prepare(sock: socket.socket) -> None:
    """Set a connected socket up for the loop. Raises OSError if it is dead already."""
    sock.setblocking(False)  # rule 1 of the loop: where send and recv would wait, they raise BlockingIOError
    # Without it, a message waits until the one before is acknowledged: 57 ms in a chain of four.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # A peer whose cable was cut is noticed in a minute instead of two hours. And since nothing waits in the
    # kernel while we wait for a window (see Segmenter), only this asks whether that is open again.
    for option, seconds in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 5)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)


def has_address(host: str) -> bool:
    """Whether this is still an address of this machine. Never blocks."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(socket_address((host, 0)))
    except OSError as error:
        return error.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV)
    return True


def readable_host(address: Address) -> str:
    """The host of a socket address as a person writes it: an IPv4 caller of an IPv6 socket is still IPv4."""
    host = address[0]
    if len(address) == 4 and address[3] and "%" not in host:
        with suppress(OSError):  # that interface is gone
            return f"{host}%{socket.if_indextoname(address[3])}"
    return host[7:] if host.startswith("::ffff:") and "." in host else host


def socket_address(address: Address) -> Address:
    """What the system takes for (host, port): the interface behind a % is a number of its own. Raises OSError."""
    host, _, interface = address[0].partition("%")
    return (host, address[1], 0, socket.if_nametoindex(interface)) if interface else address


def _because(error: OSError) -> str:
    """An OSError as a sentence for our user, without its subject."""
    known = {
        errno.ECONNRESET: "broke the connection off",
        errno.EPIPE: "broke the connection off",
        errno.ECONNREFUSED: "refused the connection",
        errno.ETIMEDOUT: "does not answer",
        errno.EHOSTUNREACH: "cannot be reached from here",
        errno.ENETUNREACH: "cannot be reached from here",
    }
    return known.get(error.errno or 0, f"failed ({error.strerror or error})")


# The loop -------------------------------------------------------------------------------------

class Poll:
    """select, and what it is to wait for.

    epoll refuses regular files and /dev/null, since reading them never waits: they are ready in every turn.
    """

    def __init__(self) -> None:
        self.watched: Dict[Any, int] = {}  # file object -> events
        self.always_ready: Dict[Any, Tuple[selectors.SelectorKey, int]] = {}  # what epoll refuses
        self._selector = selectors.DefaultSelector()

    def wait(self, timeout: Optional[float]) -> List[Tuple[selectors.SelectorKey, int]]:
        """(key, events) of each that is ready; key.data is (handler, subject). Waits for so many seconds; None: for ever."""
        ready = self._selector.select(timeout)
        return ready + list(self.always_ready.values()) if self.always_ready else ready

    def watch(self, source: Any, events: int, handler: Callable[..., None], subject: Any = None) -> None:
        """Have handler(subject, events) called when one of these events is ready."""
        if self.watched.get(source) == events:
            return
        data = handler, subject
        if source in self.always_ready:
            del self.always_ready[source]
        elif source in self.watched:
            self._selector.modify(source, events, data)
            self.watched[source] = events
            return
        try:
            self._selector.register(source, events, data)
        except PermissionError:
            self.always_ready[source] = selectors.SelectorKey(source, source, events, data), events
        self.watched[source] = events

    def unwatch(self, source: Any) -> None:
        """Wait for it no longer; to be called before it is closed."""
        if self.watched.pop(source, None) is not None and self.always_ready.pop(source, None) is None:
            self._selector.unregister(source)

    def close(self) -> None:
        self._selector.close()


TURN_SECONDS = 0.03  # for reading from busy links in one turn; the rest go first in the next. Too short for an eye to see
LINK_SECONDS = 0.008  # for what one link brings in one turn; if it costs more, less is read from that link
FIRST_READ = 4 * 1024  # bytes that a newcomer may bring in a turn; so much more after each read that cost little
LEAST_READ = 512  # bytes in one read: less is not worth a system call. A link that brings so many at once is busy from then on


class FairReader:
    """Rule 6: which links are read in this turn, and how much of each.

    A quiet link is read at once. One that brought much, or cost much, is busy: busy links are read after the keyboard and
    the quiet ones, whoever waited longest first, for as long as the turn lasts. Bounding bytes is not enough, since those
    of one kind of record cost a hundred times what others do: a link whose bytes are costly may bring fewer.
    """

    def __init__(self, read: Callable[[Link, int], int], settle: Callable[[], object]) -> None:
        """`read(link, size)` takes in what a link brings and returns how many bytes that was; `settle` does the rest of the work."""
        self._read, self._settle = read, settle
        self.waiting: List[Link] = []  # busy links that have something for us in this turn
        self._turn = 0
        self._busy: Dict[Link, int] = {}  # -> the turn in which it was last read
        self._shares: Dict[Link, int] = {}  # bytes that a link may bring in one turn, if that is less than the others may

    def add(self, link: Link) -> None:
        """A newcomer waits behind the links that we have."""
        self._busy[link], self._shares[link] = self._turn, FIRST_READ

    def discard(self, link: Link) -> None:
        self._busy.pop(link, None)
        self._shares.pop(link, None)

    def read(self, link: Link) -> None:
        """This link has something for us: read it now if it is quiet, else when read_waiting is called."""
        if link in self._busy:
            self.waiting.append(link)
        elif self._read(link, LEAST_READ) == LEAST_READ:
            self._busy[link] = self._turn

    def read_waiting(self, now: float) -> None:
        """Read busy links until the time is up; `now` is when the turn began."""
        order = self._order()
        self.waiting, self._turn, began = [], self._turn + 1, time.monotonic()
        for link, size in order:
            most = min(size, self._shares.get(link, size))
            brought = self._read(link, most)
            self._settle()  # a part of what this link costs
            ended = time.monotonic()
            self._adjust(link, most, brought, ended - began)
            if ended >= now + TURN_SECONDS:
                return  # the rest stay readable, and go before those read in this turn
            began = ended

    def _order(self) -> List[Tuple[Link, int]]:
        """The waiting links, and how many bytes each may bring.

        Anybody may call, and as often as they like: so callers that are not known as members take turns with all others.
        """
        waiting = sorted(self.waiting, key=self._busy.__getitem__)
        callers = [link for link in waiting if link.neighbour.is_caller]
        others = [link for link in waiting if not link.neighbour.is_caller]
        lanes = [lane for lane in ((others, callers), (callers, others))[self._turn % 2] if lane]
        sizes = [max(READ_SIZE // (len(lane) * len(lanes)), LEAST_READ) for lane in lanes]
        return [(link, size) for links in zip_longest(*lanes) for link, size in zip(links, sizes) if link is not None]

    def _adjust(self, link: Link, size: int, brought: int, seconds: float) -> None:
        """What this link may bring next time: less if this cost much, else more again, little by little."""
        if seconds >= LINK_SECONDS:
            self._shares[link] = max(int(size * LINK_SECONDS / seconds), LEAST_READ)
        elif brought == size and link in self._shares:
            self._shares[link] += FIRST_READ
            if self._shares[link] >= READ_SIZE:
                del self._shares[link]
        if brought >= LEAST_READ or seconds >= LINK_SECONDS:
            self._busy[link] = self._turn
        else:
            del self._busy[link]


LEAVE_SECONDS = 2  # for which unsent messages may keep a user who wants to leave
PIPE_SECONDS = 60  # for which they may keep a bot, however slowly they move: a neighbour could take a byte a second
LEAVE_POLL = 0.01  # seconds between two looks: nothing reports that the far end has everything, so this is polled
HOLD_SECONDS = 2  # for which our own input waits for those that take little
HERE_SECONDS = 1 / 20_000  # for each member here, between two looks at who is here: liars may change that in every turn
ACCEPTS_PER_TURN = 32  # new connections taken; the kernel queues the rest
PACKETS_PER_TURN = 32  # of what is announced nearby; the kernel drops what it has no room for
ACCEPT_PAUSE = 1  # seconds without accepting after the system ran out of descriptors
CROWDED_PAUSE = 30  # seconds between two notices of it
LINGER_SECONDS, MAX_LINGERING = 30, 32  # for which a C program's socket stays open for reading; so many at once
SLEPT_SECONDS = 2  # by which the two clocks moved apart: the machine slept (or somebody set the clock, which does no harm)
LEAVE_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
SCREEN_SIGNALS = (signal.SIGWINCH, signal.SIGTSTP)
WHERE_PORT = "on their first line, after SERVER:"


class Chat:
    """A whole member: its network, its sockets and its front end (Screen or Lines); step() turns it."""

    def __init__(self, name: bytes, listener: socket.socket, front: Front, verbatim: bool = False, no_history: bool = False) -> None:
        self.front = front
        self.listener = listener
        self.port: int = listener.getsockname()[1]
        self.network = peers.Network(name, self.port, random.Random(), time.monotonic(), record_time())
        self.network.has_address = has_address
        self.commands = Commands(self)
        self.links: Dict[peers.Neighbour, Link] = {}
        self.dials: List[Dial] = []
        self.lookups: List[Lookup] = []
        self.groups: "Tuple[Group, ...]" = ()  # where members nearby announce themselves, if our user asks for it
        self._poll = Poll()
        # Leaving
        self.status: Union[None, int, str] = None  # the exit status, once it is time to leave
        self.leave_by = 0.0
        self._parting = ""  # how to join again; the last line that our user sees
        self._patient_until = 0.0  # a bot's input ended: until then, leave only once nothing has moved for LEAVE_SECONDS
        self._unsent = 0  # bytes, at the last look
        # Our user
        self._opened = False  # whether the front end has the terminal
        self._verbatim = verbatim  # whether every text is said, commands too
        self._since = time.time() if no_history else 0.0  # nothing that was said before this is shown
        self.mute_because = ""  # what our user was told if members nearby cannot be looked for
        self._typed: Deque[List[ui.Event]] = deque()  # what our user did and is not obeyed yet: some chat, or one key or command
        self._held_until = 0.0  # a time until which our input waits for neighbours that lag; 0: it does not
        self._here: Any = None  # what the status row shows: the version of who is here, whether nobody is connected
        self._here_after = 0.0  # a time before which it is not looked up again
        # New connections
        self._postponed: List[peers.Connect] = []  # dials that the network wants before the loop runs
        self._accept_after = 0.0  # a time before which nothing is accepted
        self._crowded = False  # whether the user was told that nothing is accepted
        self._crowded_after = 0.0  # a time before which it is not told again
        # Links
        self._reader = FairReader(self._read, self.network.tell)
        self._unfinished: Dict[Link, Patience] = {}  # links of which the last flush left something
        self._changed: Set[Link] = set()  # links that may need other events waited for than before
        self._gone: Dict[Link, str] = {}  # why; removed at the end of the turn
        self._lingering: Deque[Tuple[float, socket.socket]] = deque()  # (when to close it, which) of those that are closed for writing only
        # What is waited for, and the time
        self._interest: Any = None  # what _wanted was last asked for
        self._others: Any = frozenset()  # what is watched beside the links
        self._apart = self.network.wall - self.network.now  # between the two clocks, in seconds
        self._signals, self._signal_source = socket.socketpair()
        for end in (self._signals, self._signal_source):
            end.setblocking(False)
        self._keys = {
            ui.Key.LEAVE: self.leave, ui.Key.END: self._input_ended,
            ui.Key.SUSPEND: self.suspend, ui.Key.GONE: self._lose_terminal,
        }
        self._action_methods: Dict[type, Callable[..., None]] = {
            peers.Show: self._show, peers.Notice: self._notice,
            peers.Connect: self._connect, peers.Hangup: self._hang_up, peers.Announce: self._announce,
        }

    # From outside

    def join(self, named: "Sequence[Named]", or_stay_alone: bool = False) -> None:
        """Link up with the first of these peers that answers, before anything is drawn; the others are remembered.

        Waits; raises ValueError if none answers, unless our user may be found in another way.
        """
        failures = []
        for label, addresses in named:
            contact = self.network.join(label, addresses, peers.DIAL_SECONDS / len(named))
            while not contact.reached and not contact.failure:
                self.step()
            if contact.reached:
                self._remember([other for other in named if other[0] != label])
                return
            failures.append(f"to {label}: it {contact.failure}")
        if not or_stay_alone:
            raise ValueError(f"can't connect {', or '.join(failures)}; check the host and the port, which is {WHERE_PORT}")
        self._remember(named)

    def _remember(self, named: "Sequence[Named]") -> None:
        for label, addresses in named:
            self.network.remember(label, addresses)

    def look_around(self, room: bytes) -> None:
        """Find the members of this room on our network segments, and be found, from now on; or tell our user why not."""
        failures = []
        for kind in (Group, Group6):
            try:
                self.groups += (kind(readable_host(self.listener.getsockname())),)
            except OSError as error:
                failures.append(error)
        taken = [error for error in failures if error.errno == errno.EADDRINUSE]  # by another program; one of the two may still be free
        if not self.groups:
            self._cannot_look((taken or failures)[0])
            return
        if taken:
            self._cannot_look(taken[0], "may not find all members nearby")
        self.network.look_around(room)

    def wait_for_somebody(self, seconds: float) -> None:
        """Turn until somebody is connected, for so many seconds at most: piped input is sent, and ends, in no time."""
        until = time.monotonic() + seconds
        while self.network.is_alone and time.monotonic() < until:
            self.step(until - time.monotonic())

    def _cannot_look(self, error: OSError, what: str = "cannot look for members nearby") -> None:
        self.mute_because = f"{what} (UDP port {GROUP_PORT}: {error.strerror}); join by host and port instead"
        self.network.actions.append(peers.Notice("{}", (self.mute_because,)))

    def open(self, hint: str) -> None:
        """Take the terminal; `hint` tells our user how others can join. Raises OSError."""
        self._tell_here()
        self.front.open(self.port, hint, self.network.name, COMMANDS)
        self._opened = True
        self.network.actions.extend(self._postponed)
        self._postponed.clear()

    def run(self) -> Union[None, int, str]:
        """Turn until it is time to go. Returns the exit status."""
        while not self.finished():
            self.step()
        return self.status

    def finished(self) -> bool:
        """Whether there is nothing left to wait for: all has arrived, or the time is up."""
        if self.status is None:
            return False
        if not any(link.unsent or link.undelivered() for link in self.links.values()):
            return True
        unsent = sum(link.unsent for link in self.links.values())
        if unsent < self._unsent and self._patient_until:
            self.leave_by = min(time.monotonic() + LEAVE_SECONDS, self._patient_until)
        self._unsent = unsent
        return time.monotonic() >= self.leave_by

    def close(self) -> None:
        """Release everything, the terminal first. Safe to call at any moment."""
        self.front.close(self._parting)
        signal.set_wakeup_fd(-1)
        sockets = [*(link.sock for link in self.links.values()), *(dial.sock for dial in self.dials), *(sock for _, sock in self._lingering)]
        held: Tuple[Any, ...] = (*sockets, *self.lookups, *self.groups, self.listener, self._signals, self._signal_source, self._poll)
        for closable in held:
            closable.close()

    # One turn

    def step(self, limit: Optional[float] = None) -> None:
        """One turn: wait for the first event or deadline (`limit` seconds at most), then handle all there is."""
        self._rewatch()
        deadline = self._deadline()
        ready = self._poll.wait(self._timeout(deadline, limit))  # rule 1: the one place that waits
        now = self._read_clocks()
        if len(ready) > 1:
            ready.sort(key=self._comes_later)
        for key, events in ready:
            handler, subject = key.data
            handler(subject, events)
        if self._reader.waiting:
            self._reader.read_waiting(now)
        if deadline is not None and deadline <= now:
            self._expire(now)
        self._act(now)
        if self._opened:
            self._tell_here()
            self.front.draw(now)  # rule 4

    def _comes_later(self, found: Tuple[selectors.SelectorKey, int]) -> bool:
        """Links come last: a signal may say that we stood still, and that matters for what came over them meanwhile."""
        return found[0].data[0] == self._on_link

    def _read_clocks(self) -> float:
        """Tell the network the time. A sleeping machine stops the one clock, and not the other."""
        clock = self.network.clock
        clock.now = now = time.monotonic()
        clock.wall = wall = record_time()
        apart = wall - now
        if apart - self._apart > SLEPT_SECONDS:
            self.network.woke()
        self._apart = apart
        return now

    def _rewatch(self) -> None:
        """Rule 5: make what is waited for what is wanted now. Nothing is worked out for what did not change."""
        interest = self._wants()
        if interest != self._interest:
            self._interest = interest
            wanted = {source: rest for source, *rest in self._wanted(*interest)}
            for source in self._others - wanted.keys():
                self._poll.unwatch(source)
            self._others = wanted.keys()
            for source, rest in wanted.items():
                self._poll.watch(source, *rest)
        for link in self._changed:
            self._poll.watch(link.sock, READ | WRITE if link.blocked else READ, self._on_link, link)  # rule 2
        self._changed.clear()

    def _wants(self) -> Tuple[Any, ...]:
        """All that _wanted depends on: cheap to ask for in every turn, and to compare."""
        listening = self.status is None and not self._accept_after
        front = self.front
        if not self._opened:
            return listening, self.groups, None, [], [], (*self.dials,), (*self.lookups,)
        typing = None if self._unfinished and self._input_throttled() else front.input_fd()
        return listening, self.groups, typing, front.output_fds(), front.hangup_fds(), (*self.dials,), (*self.lookups,)

    def _wanted(self, listening: bool, groups: "Tuple[Group, ...]", typing: Optional[int], writing: List[int], watching: List[int],
                dials: Tuple[Dial, ...], lookups: "Tuple[Lookup, ...]") -> Iterator[Tuple[Any, int, Callable[..., None], Any]]:
        """Rule 5: everything but links that the loop waits for, as (file object, events, handler, its subject)."""
        yield self._signals, READ, self._on_signal, None
        if listening:
            yield self.listener, READ, self._on_listener, None
        for group in groups:
            yield group.sock, READ, self._on_packet, group
        for dial in dials:
            yield dial.sock, WRITE, self._on_dial, dial
        for lookup in lookups:
            yield lookup.output, READ, self._on_lookup, lookup
        if typing is not None:
            yield typing, READ, self._on_input, None
        for descriptor in {*writing, *watching}:
            yield descriptor, WRITE * (descriptor in writing) | READ * (descriptor in watching), self._on_output, None

    def _input_throttled(self) -> bool:
        """Whether our input (a file, perhaps) is faster than some neighbour. It then waits, for HOLD_SECONDS at most."""
        slow = [patience for link, patience in self._unfinished.items() if link.neighbour.lagging and not patience.stuck and not patience.outrun]
        if self.front.shows_own or not slow:
            self._held_until = 0.0
            return False
        self._held_until = self._held_until or self.network.now + HOLD_SECONDS
        if self.network.now < self._held_until:
            return True
        for patience in slow:
            patience.outrun = True
        self._held_until = 0.0
        return False

    def _deadline(self) -> Optional[float]:
        """Rule 5: when something has to be done even if nothing happens; None: never. Idle links have no deadline."""
        first, shown = self.network.next_deadline(), self.front.next_deadline() if self._opened else None
        if first is None or shown is not None and shown < first:
            first = shown
        if not (self.dials or self._unfinished or self._lingering or self._accept_after or self._here_after):  # as a rule
            return first
        times = [first, self._accept_after or None, self._held_until or None]
        times += [dial.deadline for dial in self.dials] + [patience.deadline for patience in self._unfinished.values()]
        times += [at for at, _ in self._lingering]
        if self._here_after and self._here != (self.network.presence.version, self.network.is_alone):
            times.append(self._here_after)
        return min([at for at in times if at is not None], default=None)

    def _timeout(self, deadline: Optional[float], limit: Optional[float]) -> Optional[float]:
        """Seconds that select may wait; None: for ever."""
        if self._poll.always_ready or self._typed or self.network.tell():
            return 0
        if self.status is not None:
            limit = LEAVE_POLL if limit is None else min(limit, LEAVE_POLL)
        if deadline is None:
            return limit
        wait = deadline - time.monotonic()  # may be in the past
        return wait if limit is None else min(wait, limit)

    def _read(self, link: Link, size: int) -> int:
        """Read at most `size` bytes from a link. Returns how many came."""
        try:
            data = link.receive(size)
        except Gone as gone:
            self._mark(link, gone)
            return 0
        if self.status is None:
            self.network.received(link.neighbour, data)
        return len(data)

    def _expire(self, now: float) -> None:
        if self._accept_after and self._accept_after <= now:
            self._accept_after = 0.0
        while self._lingering and self._lingering[0][0] <= now:
            self._lingering.popleft()[1].close()
        for dial in [dial for dial in self.dials if dial.deadline <= now]:
            self._end_dial(dial)
            dial.sock.close()
            self.network.dial_failed(dial.attempt, "does not answer")
        due, shown = self.network.next_deadline(), self.front.next_deadline()
        if due is not None and due <= now:
            self.network.tick()
        if self._opened and shown is not None and shown <= now:
            self._take_input(self.front.expire(now))

    def _act(self, now: float) -> None:
        """Send, then do what the network asks and what our user typed, until nothing is left. Sending is first: others wait for it.

        The subtle spot: each of these may make work for the others. A send that fails ends a link; the network hears of
        its end and may tell everybody; and what it tells has to be sent. Left for the next turn, that would lie there
        until something else wakes select. This loop ends: what was typed is finite, and otherwise only the end of a
        link starts another round.
        """
        self._send(now)
        while self.network.tell() or self._typed or self._gone:
            self._obey()
            if self._gone:
                self._reap()
            self._send(now)

    def _send(self, now: float) -> None:
        """Rule 2: the one place that sends. (_hang_up sends a goodbye, before it marks.)"""
        lone, others = self.network.to_send()  # before any flush: it tells the bridge what is new in this turn
        last = self.network.log.last
        for neighbour in lone:
            if not self.links[neighbour].send_chunk(last, now):
                self._flush(self.links[neighbour], now)
        if self._unfinished:
            for link in [link for link, patience in self._unfinished.items() if patience.is_due(now)]:
                self._flush(link, now)
        for neighbour in others:
            if self.links[neighbour] not in self._unfinished:
                self._flush(self.links[neighbour], now)

    def _flush(self, link: Link, now: float) -> None:
        try:
            if not link.flush(now):
                self._changed.add(link)
                link.neighbour.is_level = False  # before it is sent anything else, the rest has to go out
                self._unfinished.setdefault(link, Patience(link, now)).check(now)
            elif link in self._unfinished:
                self._changed.add(link)
                del self._unfinished[link]
        except Gone as gone:
            self._mark(link, gone)

    def _mark(self, link: Link, why: object) -> None:
        """Rules 3 and 7: the one place where a link is marked as gone; the first reason counts."""
        self._gone.setdefault(link, str(why))

    def _obey(self) -> None:
        """Carry out the network's actions; if there are none, first obey what was typed next, so that it stands above its answer."""
        actions = self.network.tell()
        if self._typed and not actions:
            self._obey_user(self._typed.popleft())
        while actions:
            action = actions.popleft()
            self._action_methods[type(action)](action)

    def _reap(self) -> None:
        """Rule 3: the one place that removes a link and closes its descriptor, once all events were handed out."""
        for link, reason in self._gone.items():
            del self.links[link.neighbour]
            self._reader.discard(link)
            self._unfinished.pop(link, None)
            self._changed.discard(link)
            self._poll.unwatch(link.sock)
            lost = link.undelivered()
            self._close(link)
            self.network.closed(link.neighbour, reason, lost)
        self._gone.clear()

    def _close(self, link: Link) -> None:
        """Close a link; one that we dialled and that may lead to a C program only for writing, and wholly a while later.

        A C program may not have read our goodbye yet, and writing to a closed socket kills it, as it has no handler for
        SIGPIPE: 2 of 12 stopped C programs died of a probe that was closed at once.
        """
        neighbour = link.neighbour
        if not neighbour.attempt or not neighbour.ending or not neighbour.may_be_c or not close_for_writing(link.sock):
            link.sock.close()
            return
        self._lingering.append((time.monotonic() + LINGER_SECONDS, link.sock))
        if len(self._lingering) > MAX_LINGERING:
            self._lingering.popleft()[1].close()

    # What happened: handlers, which only queue and mark (rules 2 and 3), and call no other handler

    def _on_link(self, link: Link, events: int) -> None:
        if events & WRITE:
            link.blocked = False
        if events & READ:
            self._reader.read(link)

    def _on_listener(self, subject: None, events: int) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            if len(self.links) >= peers.MAX_LINKS and not self.network.make_way():
                self._pause_accepting(f"there are {peers.MAX_LINKS} links already")
                return
            accepted = self._accept()
            if accepted is None:
                return
            self._admit(*accepted)
            if len(self.links) >= peers.MAX_LINKS:
                return  # if nobody else is waiting, nobody has to make way

    def _accept(self) -> Optional[Tuple[socket.socket, str]]:
        """The next connection as (socket, host); None if none is waiting, or there is no descriptor for it."""
        try:
            return accept(self.listener)
        except OutOfDescriptors as error:
            while self._lingering:
                self._lingering.popleft()[1].close()
            if not self.network.make_way():
                self._pause_accepting(str(error))
            return None

    def _admit(self, sock: socket.socket, host: str) -> None:
        if self._crowded:
            self._crowded = False
            self.front.notice("new members can join again")
        self._add_link(sock, host)

    def _pause_accepting(self, reason: str) -> None:
        self._accept_after = time.monotonic() + ACCEPT_PAUSE
        if not self._crowded and time.monotonic() >= self._crowded_after:
            self._crowded, self._crowded_after = True, time.monotonic() + CROWDED_PAUSE
            self.front.notice(f"nobody new can join for now: {reason}")

    def _on_packet(self, group: "Group", events: int) -> None:
        for _ in range(PACKETS_PER_TURN):
            found = group.receive()
            if found is None:
                return
            self.network.overheard(*found)

    def _on_dial(self, dial: Dial, events: int) -> None:
        if dial not in self.dials:
            return
        self._end_dial(dial)
        try:
            sock = dial.finish(self.port)
        except Gone as gone:
            self.network.dial_failed(dial.attempt, str(gone))
            return
        self._add_link(sock, dial.host, dial.attempt)

    def _end_dial(self, dial: Dial) -> None:
        self.dials.remove(dial)
        self._poll.unwatch(dial.sock)

    def _add_link(self, sock: socket.socket, host: str, attempt: Optional[peers.Attempt] = None) -> None:
        neighbour = self.network.opened(host, attempt, readable_host(sock.getsockname()))
        self.links[neighbour] = link = self._make_link(sock, neighbour)
        self._changed.add(link)
        self._reader.add(link)

    def _make_link(self, sock: socket.socket, neighbour: peers.Neighbour) -> Link:
        return Link(sock, neighbour)

    def _on_input(self, _: None, events: int) -> None:
        self._take_input(self.front.read(time.monotonic()))

    def _on_output(self, _: None, events: int) -> None:
        self._take_input(self.front.flush())

    def _take_input(self, events: Iterable[ui.Event]) -> None:
        for chat, group in groupby(events, self._is_chat):
            self._typed.extend([list(group)] if chat else [[event] for event in group])

    def _is_chat(self, event: ui.Event) -> bool:
        return is_chat(event) or self._verbatim and not isinstance(event, ui.Key)

    def _on_lookup(self, lookup: "Lookup", events: int) -> None:
        hosts = lookup.read()
        if hosts is None:
            return
        self.lookups.remove(lookup)
        self._poll.unwatch(lookup.output)
        lookup.close()
        if not hosts:
            self.front.notice(f"unknown host {lookup.host}; check the spelling, or use an address")
        elif self.status is None:
            self.network.join(f"{lookup.host} {lookup.port}", [(host, lookup.port) for host in hosts])

    def _on_signal(self, _: None, events: int) -> None:
        # Each number once, and a wish to leave before SIGCONT: `kill %1` sends both, and resume() may stop us again.
        for number in sorted(set(self._signals.recv(64))):
            if number == signal.SIGWINCH:
                self.front.resize()
            elif number == signal.SIGCONT:
                self._resume()
            elif number == signal.SIGTSTP:
                self.suspend()
            else:
                self.leave(128 + number)

    # What to do: our user's keys, commands and words

    def _obey_user(self, events: List[Any]) -> None:
        first = events[0]
        if isinstance(first, ui.Key):
            self._keys[first]()
        elif self.status is not None:
            return
        elif self._is_chat(first):
            self._say(events if self._verbatim else list(map(unescaped, events)))
        else:
            self.commands.obey(first)

    def _say(self, texts: List[str]) -> None:
        self.network.say(*(text.encode("utf-8", "replace") for text in texts))

    def leave(self, status: int = 0) -> None:
        """Say goodbye and go once everything is sent, in LEAVE_SECONDS at the latest; at once when asked again."""
        now = time.monotonic()
        if self.status is not None:
            self.leave_by = now
            return
        self.status, self.leave_by = status, now + LEAVE_SECONDS
        self._parting = self._way_back()
        for dial in list(self.dials):
            self._end_dial(dial)
            dial.sock.close()
        self.network.leave()

    def _way_back(self) -> str:
        """How our user joins again, through somebody who is still there."""
        linked = [neighbour for neighbour in self.network.neighbours if neighbour.is_linked and neighbour.left is None]
        # One that answers: the one that our user named, if it is still there; else one that we dialled, since it can be dialled.
        linked.sort(key=lambda neighbour: (neighbour.pings > 0, not neighbour.contact, not neighbour.attempt, -neighbour.heard_at))
        known = [neighbour.attempt.address[:2] if neighbour.attempt else neighbour.address for neighbour in linked]
        found = next(filter(None, known), None)
        if found is None:
            return ""
        from shlex import join  # 2 ms that only leaving costs
        name, discovery = self.network.name.decode("utf-8", "replace"), self.network.discovery
        room = discovery and discovery.room.decode("utf-8", "replace")
        options = [] if room is None else ["--lan"] if room == LOBBY else [f"--room={room}"]
        words = [name, found[0], str(found[1])]
        return "rejoin with: ./p2pchat " + join([*options, "--", *words] if name.startswith("-") else [*words, *options])

    def _input_ended(self) -> None:
        if self.status is not None:
            return
        self._patient_until = time.monotonic() + PIPE_SECONDS
        self.leave()
        if self.network.unheard:
            self.status = 1
            self.front.notice(f"nobody is connected, so nobody got what you {'last ' * self.network.was_connected}sent")

    def _lose_terminal(self) -> None:
        if self.status is None:  # a hang-up also sends SIGHUP, which is not a second request to leave
            self.leave()

    def look_up_and_join(self, host: str, port: int) -> None:
        """Dial a peer that our user named while the loop runs. Raises ValueError.

        Never blocks: a name is looked up by another process.
        """
        if peers.is_dialable(host):
            self.network.join(f"{host} {port}", [(host, port)])
            return
        check_host(host)
        self.front.notice(f"looking up {host}")
        try:
            self.lookups.append(Lookup(host, port))
        except OSError as error:
            self.front.notice(f"cannot look up {host} now ({error.strerror})")

    # What to do: what the network asks for

    def _show(self, action: peers.Show) -> None:
        name, texts, mine, earlier = action
        if earlier and earlier < self._since:
            return
        if not self.front.shows_own if mine else self.commands.is_ignored(name):
            return
        self.front.show(name, texts, int(meant(earlier) if earlier else time.time()), mine, earlier != 0)

    def _notice(self, action: peers.Notice) -> None:
        parts = [ui.clean_name(part) if isinstance(part, bytes) else part for part in action.parts]
        self.front.notice(action.words.format(*parts))

    def _connect(self, action: peers.Connect) -> None:
        if self.status is not None:
            return
        if not self._opened and action.attempt.contact is None and action.attempt.announced is None:
            self._postponed.append(action)  # loading blessed takes 0.3 s, for which whoever answered would wait
            return
        try:
            dial = Dial(action.attempt, self.network.now + action.seconds)
        except Gone as gone:
            self.network.dial_failed(action.attempt, str(gone))
            return
        self.dials.append(dial)

    def _announce(self, action: peers.Announce) -> None:
        failures = []
        for group in self.groups:
            try:
                group.send(action.packet)
            except OSError as error:
                failures.append(error)
        if len(failures) == len(self.groups) and not self.mute_because:
            self._cannot_look(failures[0])

    def _hang_up(self, action: peers.Hangup) -> None:
        link = self.links[action.neighbour]
        self._flush(link, self.network.now)
        self._mark(link, action.reason)

    def _tell_here(self) -> None:
        """The status row's names, looked up whenever who is here has another version."""
        if not self.front.shows_own:
            return
        alone = self.network.is_alone
        if self._here == (self.network.presence.version, alone) or self.network.now < self._here_after:
            return
        self._here = self.network.presence.version, alone
        here = self.network.who()
        self._here_after = self.network.now + len(here) * HERE_SECONDS
        self.front.here([person.label for person in here], any(person.guest for person in here), alone)

    # The process

    def take_signals(self) -> None:
        """Have signals wake the loop (a handler alone does not: select goes on waiting, PEP 475). Main thread only."""
        signal.set_wakeup_fd(self._signal_source.fileno(), warn_on_full_buffer=False)
        for number in (*LEAVE_SIGNALS, signal.SIGCONT, *SCREEN_SIGNALS * self.front.shows_own):
            if signal.getsignal(number) is not signal.SIG_IGN:  # ignored from the start: nohup, a background job
                signal.signal(number, _note_signal)

    def suspend(self) -> None:
        """Stop as Ctrl-Z does, with the terminal as we found it; take it again when the shell says fg."""
        self.front.suspend()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(0, signal.SIGTSTP)  # the whole job, as the terminal would; without a shell that could wake us, this does nothing
        signal.signal(signal.SIGTSTP, _note_signal)
        os.kill(os.getpid(), signal.SIGCONT)  # even if nothing stopped us; then the loop resumes, unless it is leaving

    def _resume(self) -> None:
        self.network.woke()
        if self.status is None and self.front.shows_own:
            self.front.resume()


RECORD_TIMES = 2 ** 32  # seconds until a record's 32 bits of time begin again


def record_time() -> float:
    """Now, as records have it: seconds since 1970 in 32 bits, which begin again in 2106."""
    return time.time() % RECORD_TIMES


def meant(when: float) -> float:
    """The moment that a record's time stands for: after 2106, the one nearest to now."""
    return when + max(round((time.time() - when) / RECORD_TIMES), 0) * RECORD_TIMES


def _note_signal(number: int, frame: Any) -> None:
    """The wake-up descriptor has brought the signal's number to the loop; nothing is safe to do here."""


# Members nearby -------------------------------------------------------------------------------

GROUP, GROUP6, GROUP_PORT = "239.255.112.50", "ff02::7032:7063", 21112  # for an organisation's own use; for one segment
_MEMBERSHIP = struct.Struct("=4s4si")  # struct ip_mreqn: group, address of an interface, its index
_MEMBERSHIP6 = struct.Struct("@16sI")  # struct ipv6_mreq: group, index of an interface
_IFREQ = struct.Struct("16s4x4s8x")  # struct ifreq: name of an interface, its address inside of a struct sockaddr_in
SIOCGIFADDR = 0x8915 if sys.platform.startswith("linux") else 0xC0206921
EVERY_ADDRESS = "0.0.0.0", "::"
LOOPBACK_NET = b"\x7f"  # how its addresses begin


class Group:
    """All members nearby: a UDP socket, which has no connections.

    What is sent to the group reaches every program that listens to it, as one whole packet or not at all. Anybody can
    send, and no sender learns who got it. There is nothing to accept, to flush or to frame.
    """

    FAMILY, BOUND_TO = socket.AF_INET, GROUP  # so that no packet comes that was sent to one machine
    OPTIONS: Tuple[Tuple[int, int], ...] = ((socket.IPPROTO_IP, socket.IP_MULTICAST_TTL), (socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP))

    def __init__(self, host: str) -> None:
        """`host`: the address our listener is bound to; the group is used on its interface only, or on all. Raises OSError."""
        self._only = host if host not in EVERY_ADDRESS else None
        if self._only and not self._serves(self._only):
            raise OSError(errno.EADDRNOTAVAIL, "not with this --bind")
        self.sock = socket.socket(self.FAMILY, socket.SOCK_DGRAM)
        try:
            self.sock.setblocking(False)
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):  # several members on one machine; each gets every packet
                self.sock.setsockopt(socket.SOL_SOCKET, option, 1)
            for level, option in self.OPTIONS:  # no router passes it on; members on this machine get it, too
                self.sock.setsockopt(level, option, 1)
            self.sock.bind((self.BOUND_TO, GROUP_PORT))
        except OSError:
            self.sock.close()
            raise

    def _serves(self, host: str) -> bool:
        """Whether a member that hears our packets can dial a listener that is bound to this host."""
        return ":" not in host

    def send(self, packet: bytes) -> None:
        """Join the group anew on every interface, as interfaces come and go, and send the packet there; b"": only join.

        On loopback only if it went out nowhere else: members on one machine get it anyway.

        Never blocks. Raises OSError if it is forbidden; after any other failure (an interface went down, a queue is full),
        the next call tries again.
        """
        forbidden, sent = None, False
        for index, address in self._interfaces():
            with suppress(OSError):  # we are in the group already
                self._join(index, address)
            if not packet:
                continue
            if sent and address[:1] == LOOPBACK_NET:
                break
            try:
                self._send(packet, index, address)
                sent = True
            except PermissionError as error:
                forbidden = error
            except OSError:
                pass
        if forbidden and not sent:
            raise forbidden

    def _interfaces(self) -> List[Tuple[int, bytes]]:
        """(index, IPv4 address) of each that has one; loopback, for two members on a machine without a network, is last."""
        found = [pair for pair in ipv4_interfaces(self.sock) if self._only in (None, socket.inet_ntoa(pair[1]))]
        return sorted(found, key=lambda pair: pair[1][:1] == LOOPBACK_NET)

    def _join(self, index: int, address: bytes) -> None:
        there = _MEMBERSHIP.pack(socket.inet_aton(GROUP), address, index)
        self.sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, there)

    def _send(self, packet: bytes, index: int, address: bytes) -> None:
        self.sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, _MEMBERSHIP.pack(bytes(4), address, index))
        self.sock.sendto(packet, (GROUP, GROUP_PORT))

    def receive(self) -> Optional[Tuple[str, bytes]]:
        """The next packet as (host, bytes), or None. Never blocks."""
        try:
            packet, address = self.sock.recvfrom(1024)
        except OSError:
            return None
        return readable_host(address), packet

    def close(self) -> None:
        self.sock.close()


class Group6(Group):
    """The same over IPv6, where every interface has an address of its own segment (fe80::), and no other address counts."""

    FAMILY, BOUND_TO = socket.AF_INET6, "::"  # a link-local group cannot be bound to on all interfaces
    OPTIONS = ((socket.IPPROTO_IPV6, socket.IPV6_V6ONLY), (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS),
               (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP))

    def _serves(self, host: str) -> bool:
        return peers.is_link_local(host)

    def _interfaces(self) -> List[Tuple[int, bytes]]:
        return [(index, b"") for index, name in socket.if_nameindex() if not self._only or self._only.endswith(f"%{name}")]

    def _join(self, index: int, address: bytes) -> None:
        there = _MEMBERSHIP6.pack(socket.inet_pton(socket.AF_INET6, GROUP6), index)
        self.sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, there)

    def _send(self, packet: bytes, index: int, address: bytes) -> None:
        self.sock.sendto(packet, (GROUP6, GROUP_PORT, 0, index))

    def receive(self) -> Optional[Tuple[str, bytes]]:
        found = super().receive()
        return found if found is None or peers.is_link_local(found[0]) else ("", b"")


def ipv4_interfaces(sock: socket.socket) -> Iterator[Tuple[int, bytes]]:
    """(index, IPv4 address) of each interface that has one; `sock` is any socket."""
    for index, name in socket.if_nameindex():
        with suppress(OSError):
            yield index, _IFREQ.unpack(fcntl.ioctl(sock, SIOCGIFADDR, _IFREQ.pack(name.encode(), bytes(4))))[1]


# Commands -------------------------------------------------------------------------------------

BELLS = ("off", "mention", "all")
MAX_LISTED = 250  # people: a stranger's names are slow to clean, 45 ms for so many
MAX_ROOMS_TOLD = 16  # beside our own: a stranger can announce any number


class Commands:
    """What our user can type beside chat. Each command's method gets what was written behind it."""

    def __init__(self, chat: Chat) -> None:
        self._chat, self._network = chat, chat.network
        self._front: Any = chat.front  # a Screen where a command is on_screen
        self._ignored: Dict[str, str] = {}  # names as they are compared -> as they were typed

    def obey(self, text: str) -> None:
        """Do what a text says that is_chat does not call chat, or say why not."""
        word, name, refused = first_word(text), command_in(text), refusal(text)
        if refused:
            self._front.refuse(text, f"{refused} (to say it anyway, begin with {word[0]}{word})")
        elif COMMANDS[name].on_screen and not self._front.shows_own:
            self._front.notice(f"{word} works on the screen only, not in line mode")
        else:
            COMMANDS[name].do(self, text[len(word):].strip())

    def is_ignored(self, name: bytes) -> bool:
        """Whether what this name says is not to be shown."""
        return bool(self._ignored) and ui.fold(ui.clean_name(name)) in self._ignored

    def help(self, topic: str) -> None:
        if topic not in ("", "keys"):
            self._usage(":help")
            return
        rows = [(f"{word} {command.takes}".rstrip(), command.does) for word, command in COMMANDS.items() if command.does]
        self._front.help("Anything you type is sent to everyone, except these commands:", rows, topic == "keys")

    def _usage(self, word: str) -> None:
        self._front.notice(f"usage: {word} {COMMANDS[word].takes}")

    def who(self, _: str) -> None:
        here, silent = self._network.who(), self._network.bridge.silent
        names = [self._called(person) for person in here[:MAX_LISTED]]
        count = f"{len(here):,} other{'s' * (len(here) > 1)} here: "
        quiet = f"{silent} C program{'s' * (silent > 1)} that {'have' if silent > 1 else 'has'} not said anything" * bool(silent)
        more = f" and {len(here) - len(names):,} more" * (len(here) > len(names))
        self._front.notice((count + ", ".join(names) + more if names else "nobody else is here") + f"; also {quiet}" * bool(quiet))

    def _called(self, person: peers.Person) -> str:
        name = ui.clean_name(person.label)
        return name + " (C program)" * person.guest + " (ignored)" * self.is_ignored(person.label)

    def links(self, _: str) -> None:
        lines = [self._describe(link) for link in self._chat.links.values()]
        self._front.notice("\n".join(lines) or f"no connections; others join with ./p2pchat NAME HOST {self._chat.port}")

    def _describe(self, link: Link) -> str:
        neighbour = link.neighbour
        who = ", ".join(map(ui.clean_name, neighbour.people[:peers.MAX_NAMED_AT_ONCE])) or "a C program"
        where = " ".join(map(str, neighbour.address or (neighbour.host,)))
        since = time.strftime("%H:%M:%S", time.localtime(meant(neighbour.since_wall)))
        unsent = f", {link.unsent:,} bytes unsent" * bool(link.unsent)
        return f"{who} at {where}: {neighbour.kind.name.lower()}, connected since {since}{unsent}"

    def connect(self, text: str) -> None:
        words = text.split()
        if len(words) != 2:
            self._front.notice(f"usage: :connect HOST PORT (the port is {WHERE_PORT})")
            return
        try:
            self._chat.look_up_and_join(words[0], _checked_port(words[1]))
        except ValueError as mistake:
            self._front.notice(str(mistake))

    def rooms(self, _: str) -> None:
        discovery = self._network.discovery
        if discovery is None:
            self._front.notice(self._chat.mute_because or "not looking for rooms; start with --lan or --room NAME")
            return
        found = {discovery.room: 0, **dict(discovery.rooms())}
        rooms = [f"{ui.clean_name(room)} ({'yours, ' * (room == discovery.room)}announced by {count or 'nobody else'})"
                 for room, count in found.items()][:MAX_ROOMS_TOLD + 1]
        more = f" and {len(found) - len(rooms)} more" * (len(found) > len(rooms))
        self._front.notice("rooms nearby: " + ", ".join(rooms) + more)

    def find(self, text: str) -> None:
        if not self._front.find(text):
            self._usage(":find")

    def time(self, _: str) -> None:
        self._front.toggle_times()

    def bell(self, bell: str) -> None:
        if bell not in BELLS:
            self._usage(":bell")
            return
        self._front.ring(bell)
        self._front.notice(f"bell: {bell}")

    def ignore(self, name: str) -> None:
        if ui.fold(name) == ui.fold(ui.clean_name(self._network.name)):
            self._front.notice("that is your own name")
            return
        if name:
            self._ignored[ui.fold(name)] = name
        typed = {name.encode("utf-8", "replace").lower() for name in self._ignored.values()}
        likely = sorted(self._network.who(), key=lambda person: person.label.lower() not in typed)[:MAX_LISTED]
        here = {ui.fold(ui.clean_name(person.label)) for person in likely}
        ignored = ", ".join(name + " (not here)" * (key not in here) for key, name in self._ignored.items())
        self._front.notice(f"ignoring {ignored}; :unignore NAME shows them again" if ignored else f"usage: :ignore {COMMANDS[':ignore'].takes}")

    def unignore(self, name: str) -> None:
        if self._ignored.pop(ui.fold(name), None):
            self._front.notice(f"no longer ignoring {name}")
        elif name:
            self._front.notice(f"{name} was not ignored")
        else:
            self._usage(":unignore")

    def clear(self, _: str) -> None:
        self._front.clear()

    def save(self, path: str, over: bool = False) -> None:
        if not path:
            self._usage(":save")
            return
        try:
            save(os.path.expanduser(path), self._front.transcript(), over)
        except FileExistsError:
            self._front.notice(f"{path} exists; :save! {path} overwrites it")
        except (OSError, ValueError) as error:  # ValueError: no file can have that name here
            reason = getattr(error, "strerror", None) or "this system cannot write that name"
            self._front.notice(f"can't save to {path}: {reason[0].lower()}{reason[1:]}")
        else:
            self._front.notice(f"saved to {path}")

    def save_over(self, path: str) -> None:
        self.save(path, over=True)

    def quit(self, _: str) -> None:
        self._chat.leave()


class Command(NamedTuple):
    """What :help, Tab and Commands.obey know of a command."""
    takes: str  # what may follow; "": nothing may
    does: str  # for :help; "": the help of another command says it
    do: Callable[[Commands, str], None]
    on_screen: bool = False  # whether it is about the screen


# What a text must begin with to be a command. The one table: it dispatches, :help prints it, Tab completes from it.
COMMANDS = {
    ":help": Command("[keys]", "show this help, or the keys", Commands.help),
    ":who": Command("", "list who is here", Commands.who),
    ":links": Command("", "list your direct connections", Commands.links),
    ":connect": Command("HOST PORT", "connect to another member and their network", Commands.connect),
    ":rooms": Command("", "list the rooms nearby (--lan)", Commands.rooms),
    ":find": Command("TEXT", "latest message with TEXT; :find again for older", Commands.find, True),
    ":time": Command("", "show or hide the times of messages", Commands.time, True),
    ":bell": Command("off|mention|all", "ring never, on mentions, or on every message", Commands.bell, True),
    ":ignore": Command("NAME", "hide what NAME says", Commands.ignore),
    ":unignore": Command("NAME", "show it again", Commands.unignore),
    ":clear": Command("", "clear the screen", Commands.clear, True),
    ":save": Command("FILE", "save messages to FILE; :save! overwrites", Commands.save, True),
    ":save!": Command("FILE", "", Commands.save_over, True),
    ":quit": Command("", "quit (or :q)", Commands.quit),
    ":q": Command("", "", Commands.quit),
}


# What is taken for a mistyped command: `:hlep`, `/msg`, `:q!`; but not `/etc/hosts`, `:-P` or `:thinking:`. A command in
# capitals or with a mark behind it is one, too: `:Q`, `:help?`.
TYPO = re.compile("[:/][A-Za-z]{2,}|:[A-Za-z]+!")
MARKS = "!?.,;"
FACE = re.compile(r":(?:([a-pr-z])\1+|x[dp]+)", re.IGNORECASE)  # `:DD`, `:oO`, `:xD`; but `:qq` was to be `:q`
# What other programs call our commands, where the spelling does not help, or misleads (`/me`).
ELSEWHERE = {"join": ":connect", "exit": ":quit", "wq": ":quit", "qq": ":q", "names": ":who", "search": ":find", "me": ""}
ALIKE = 0.65  # by difflib: alike are `tiem` and `hwo`, unlike are `tmp` and `home`


def first_word(text: str) -> str:
    """What decides whether a text is a command; nothing if it begins with a blank."""
    return "" if not text or text[0].isspace() else text.split(maxsplit=1)[0]


def command_in(text: str) -> str:
    """The command that a text is, `:who` for `/who` as well; "" if it is none."""
    word = first_word(text)
    return ":" + word[1:] if word[:1] in (":", "/") and ":" + word[1:] in COMMANDS else ""


def refusal(text: str) -> str:
    """Why a text is neither obeyed nor sent to everyone: it looks like a command that was not meant so. "" if it does not."""
    word, command = first_word(text), command_in(text)
    if command:
        extra = not COMMANDS[command].takes and text[len(word):].strip()
        return f"{word} takes no arguments" if extra else ""
    meant = word[1:].lower().rstrip(MARKS)
    if word[:1] not in (":", "/") or ":" + meant not in COMMANDS and (FACE.fullmatch(word) or not TYPO.fullmatch(word)):
        return ""
    alike = ELSEWHERE[meant] if meant in ELSEWHERE else _nearest_command(meant)
    return f"{word} is not a command; " + (f"did you mean {alike}?" if alike else "see :help")


def _nearest_command(word: str) -> str:
    """The command that is spelled most like `word`; "" if none is."""
    import difflib  # 6 ms that only a typo costs
    found = difflib.get_close_matches(word, [command[1:] for command in COMMANDS], 1, ALIKE)
    return ":" + found[0] if found else ""


def unescaped(text: str) -> str:
    """What is said: `:who` for `::who`, for that is how a text that looks like a command is said anyway."""
    doubled = text[:1] in (":", "/") and text[:1] == text[1:2]
    return text[1:] if doubled and (command_in(text[1:]) or refusal(text[1:])) else text


def is_chat(event: ui.Event) -> bool:
    """Whether a front end's event is chat: a text that is neither a command nor refused."""
    if isinstance(event, ui.Key):
        return False
    return event[:1] not in (":", "/") or not command_in(event) and not refusal(event)


def save(path: str, lines: Iterable[str], over: bool) -> None:
    """Write lines to a file that only its owner can read: a new one, or `over` the one that is there. Raises OSError.

    They go to a file beside it, which then takes its name: a full disk costs nothing that was there before. Links and
    devices are refused: the name may have been prepared by somebody else, in /tmp say. It is written at once; 100,000
    messages take half a second, in which nothing else happens.
    """
    import tempfile  # 5 ms that only this command costs
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        raise OSError(errno.EINVAL, "it is a directory" if os.path.isdir(path) else "it is not a regular file")
    descriptor, beside = tempfile.mkstemp(prefix=".p2pchat-", dir=os.path.dirname(path) or ".")  # mode 0600
    try:
        with open(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.writelines(lines)
        if over:
            os.replace(beside, path)
        else:
            _rename_to_new(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def _rename_to_new(beside: str, path: str) -> None:
    """Rename, but never onto a file that came there meanwhile. Raises FileExistsError."""
    try:
        os.link(beside, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.replace(beside, path)
    else:
        os.unlink(beside)


class Lookup:
    """A host name being looked up. The name service can only be asked by waiting, so another process does the waiting."""

    # getnameinfo, since getaddrinfo gives the scope of fe80::1%eth0 beside the address.
    SCRIPT = ("import socket, sys\nfor found in socket.getaddrinfo(sys.argv[1], 0, type=socket.SOCK_STREAM):"
              " print(socket.getnameinfo(found[4], socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0])")

    def __init__(self, host: str, port: int) -> None:
        """Raises OSError."""
        from subprocess import DEVNULL, PIPE, Popen  # 10 ms that only this command costs
        self.host, self.port = host, port
        self._process = Popen([sys.executable, "-I", "-c", self.SCRIPT, host], stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL)
        self.output: Any = self._process.stdout
        self._answer = b""

    def read(self) -> Optional[List[str]]:
        """The addresses (none: not known), or None while more is to come. Blocks unless `output` is readable."""
        data = os.read(self.output.fileno(), 4096)
        self._answer += data
        return None if data else self._answer.decode().split()

    def close(self) -> None:
        """End the process; blocks as long as the system takes for that."""
        self._process.kill()
        self._process.wait()
        self.output.close()


# --trace: what happened, turn by turn ---------------------------------------------------------

TRACED_LINE, TRACED_TEXT = 4000, 40  # bytes of a line, which is one write into a pipe (PIPE_BUF); characters of a text
WAKERS: Dict[Callable[..., None], str] = {
    Chat._on_listener: "a newcomer", Chat._on_dial: "a dial", Chat._on_input: "input", Chat._on_output: "output",
    Chat._on_signal: "a signal", Chat._on_lookup: "a name", Chat._on_packet: "a packet",
}


class TracedChat(Chat):
    """A Chat that writes a line about each of its turns. One that is not traced has nothing of this, so it costs nothing.

    The file is never waited for: if it takes no more, one notice says so, and the chat goes on.
    """

    def __init__(self, trace: int, path: str, *arguments: Any) -> None:
        """`trace`: the descriptor that open_trace returned for `path`; the rest is for Chat."""
        super().__init__(*arguments)
        self._trace: Optional[int] = trace
        self._path = path
        self._name = ui.clean_name(self.network.name)
        self._notes: List[str] = []  # what happened in this turn
        self._logged = self.network.log.end
        self._wait = self._poll.wait
        self._poll.wait = self._traced_wait  # type: ignore[method-assign]
        self._woke_at = self._waited = 0.0

    def step(self, limit: Optional[float] = None) -> None:
        """Turn as a Chat does; then write what happened."""
        self._notes.clear()
        super().step(limit)
        took = time.monotonic() - self._woke_at
        for link in self._unfinished:
            self.note(f"{link.unsent} left for {self.called(link)}")
        self._note_queued()
        seconds = time.time() - took  # when it woke: a turn stands below its cause, even in another member's trace
        at = time.strftime("%H:%M:%S", time.localtime(seconds)) + f".{int(seconds * 1e6) % 1_000_000:06d}"
        self._write(f"{at} {self._name} waited {self._waited * 1e3:.1f} ms for {'; '.join(self._notes)}; took {took * 1e3:.2f} ms")

    def note(self, what: str) -> None:
        """Something happened in this turn."""
        self._note_queued()
        self._notes.append(what)

    def _note_queued(self) -> None:
        """What is in the log is queued for every neighbour that lacks it."""
        queued, self._logged = self.network.log.end - self._logged, self.network.log.end
        if queued:
            self._notes.append(f"log +{queued}")

    def called(self, link: Link) -> str:
        """A neighbour as the trace names it."""
        return ", ".join(map(ui.clean_name, link.neighbour.people[:1])) or link.neighbour.host

    def close(self) -> None:
        super().close()
        self._end_trace()

    def _traced_wait(self, timeout: Optional[float]) -> List[Tuple[selectors.SelectorKey, int]]:
        began = time.monotonic()
        ready = self._wait(timeout)
        self._woke_at = time.monotonic()
        self._waited = self._woke_at - began
        self.note(", ".join(self._waker(key, events) for key, events in ready) or "a deadline")
        return ready

    def _waker(self, key: selectors.SelectorKey, events: int) -> str:
        handler, subject = key.data
        if isinstance(subject, Link):
            return self.called(subject) + " (writable)" * bool(events & WRITE)
        return WAKERS[handler.__func__]

    def _make_link(self, sock: socket.socket, neighbour: peers.Neighbour) -> Link:
        return TracedLink(sock, neighbour, self)

    def _show(self, action: peers.Show) -> None:
        for text in action.texts:
            line = " ".join(ui.clean_text(text).split())
            self.note(f'{ui.clean_name(action.name)}: "{line[:TRACED_TEXT]}{"..." * (len(line) > TRACED_TEXT)}"')
        super()._show(action)

    def _mark(self, link: Link, why: object) -> None:
        self.note(f"{self.called(link)} {why}")
        super()._mark(link, why)

    def _write(self, line: str) -> None:
        if self._trace is None:
            return
        data = line.encode("utf-8", "replace")[:TRACED_LINE] + b"\n"
        try:
            complete = os.write(self._trace, data) == len(data)
            reason = "it is full"
        except OSError as error:
            complete, reason = False, os.strerror(error.errno or 0)
        if not complete:
            self._end_trace()
            self.network.actions.append(peers.Notice(f"the trace has ended: cannot write to {self._path} ({reason})"))

    def _end_trace(self) -> None:
        if self._trace is not None:
            os.close(self._trace)
        self._trace = None


class TracedLink(Link):
    """A Link that tells its TracedChat what was read and sent."""

    def __init__(self, sock: socket.socket, neighbour: peers.Neighbour, chat: TracedChat) -> None:
        super().__init__(sock, neighbour)
        self._chat = chat

    def receive(self, size: int = READ_SIZE) -> bytes:
        data = super().receive(size)
        self._chat.note(f"read {len(data)} from {self._chat.called(self)}")
        return data

    def send_chunk(self, chunk: bytes, now: float) -> bool:
        complete = super().send_chunk(chunk, now)
        self._chat.note(f"sent {len(chunk) - len(self._rest)}{'' if complete else f' of {len(chunk)}'} to {self._chat.called(self)}")
        return complete


def open_trace(path: str) -> int:
    """A descriptor for appending to a file that only its owner can read. Never waits. Raises ValueError."""
    try:
        trace = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY, 0o600)
        if stat.S_ISREG(os.fstat(trace).st_mode):
            os.fchmod(trace, 0o600)  # an older file may be open to all
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = "nobody reads it" if getattr(error, "errno", 0) == errno.ENXIO else getattr(error, "strerror", None) or error
        raise ValueError(f"cannot write a trace to {path} ({reason}); choose another file, or omit --trace") from error
    return trace


# Before the loop: arguments to sockets, where waiting is allowed ------------------------------

VERSION = "1.0"
LOBBY = "lobby"  # the room of all who do not choose one
FIND_SECONDS = 1.5  # for which piped input waits until somebody is found nearby: two questions
MAX_HOST = 253  # characters of a host name (RFC 1035)
MAX_NAME = 64  # bytes of a username; the wire would carry 2048, a screen would not
USAGE = "usage: ./p2pchat <username> [<peer> <port number> ...]"
# What a name may not have, since others would read it as something else.
WRONG_NAMES = (
    (re.compile(r"^\s|\s$"), "begins or ends with a space"),
    (re.compile(r"\s\s"), "has two spaces in a row"),
    (re.compile(r":(\s|$)"), "has a colon at the end or before a space, where your text would seem to begin"),
    (re.compile("^-(?![A-Za-z0-9])|^[\u2010-\u2015\u2212]"), "begins with a dash, as the program's own lines do"),  # but `-x` may
)


HOST_AND_PORT = re.compile(r"(?:\[([^][]*)\]|([^][:/]+)):(\d+)")  # in one word, as other programs take them


class Arguments(argparse.ArgumentParser):
    """argparse, but a mistake is one sentence and status 1, as in the C program."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raises ValueError."""
        raise ValueError(f"{message}. {USAGE}")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line as a namespace: name (bytes), peers as (host, port), room (bytes, or None), port, bind, lines and
    what implies it. Options may stand anywhere before a `--`. Raises ValueError."""
    parser = Arguments(prog="p2pchat", usage=USAGE[len("usage: "):],
                       description="Chat with everyone on a network, without a server.")
    parser.add_argument("username", nargs="?", help=f"the name that others see, at most {MAX_NAME} bytes")
    parser.add_argument("peers", nargs="*", metavar="peer, port number", help="a member to join: a host name, an IPv4 or an IPv6 "
                        f"address; and their port ({WHERE_PORT}). Of several, the first that answers")
    parser.add_argument("--port", metavar="N", help="listen on this port (default: the system picks one)")
    parser.add_argument("--bind", metavar="ADDRESS", default="", help="listen on this address only (default: every interface)")
    parser.add_argument("--lan", action="store_true", help="find members nearby, in the room lobby, without a port number")
    parser.add_argument("--room", metavar="NAME", help="the same, in a room of this name")
    parser.add_argument("--trace", metavar="FILE", help="write what each turn of the loop did to FILE, which only you can read")
    lines = parser.add_argument_group("line mode (also where input or output is not a terminal)")
    lines.add_argument("--lines", action="store_true", help="no screen: messages on stdout, notices on stderr; each stdin line is sent")
    lines.add_argument("--no-input", action="store_true", help="read no input; run until a signal")
    lines.add_argument("--times", action="store_true", help="begin each message with an ISO 8601 time")
    lines.add_argument("--no-history", action="store_true", help="show only what is said from now on")
    lines.add_argument("--verbatim", action="store_true", help="send every line as is, even commands")
    parser.add_argument("--version", action="version", version=f"p2pchat {VERSION}")
    # argparse takes either options between words, or words behind a `--`.
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_intermixed_args(arguments[:split])
    words = [options.username, *options.peers] * (options.username is not None) + list(arguments[split + 1:])
    options.lines = options.lines or options.no_input or options.times or options.no_history or options.verbatim
    if not words:
        raise ValueError(f"missing username. {USAGE}")
    options.name = _checked_name(words[0])
    if len(words) % 2 == 0:
        raise ValueError(f"missing port number after {words[-1]}. {USAGE}")
    options.peers = [(host, _checked_port(port)) for host, port in zip(words[1::2], words[2::2])]
    options.port = _checked_port(options.port, "choose one for --port, or omit the option") if options.port is not None else 0
    if options.lan or options.room is not None:
        options.room = _checked_room(options.room if options.room is not None else LOBBY)
    return options


def _checked_room(name: str) -> bytes:
    encoded = name.encode("utf-8", "surrogateescape")
    if not name.strip() or len(encoded) > MAX_ROOM or ui.MARK in ui.clean_name(encoded):
        raise ValueError(f"a room's name must be 1 to {MAX_ROOM} bytes of printable text; choose another one")
    return encoded


def _checked_name(name: str) -> bytes:
    encoded = name.encode("utf-8", "surrogateescape")
    if not name.strip():
        raise ValueError(f"the username is empty; choose a name that others will see. {USAGE}")
    for wrong, what in WRONG_NAMES:
        if wrong.search(name):
            raise ValueError(f"the username {what}; choose another one")
    if ui.MARK in ui.clean_name(encoded):
        raise ValueError("the username has characters that cannot be shown; choose another one")
    if len(encoded) > MAX_NAME:
        raise ValueError(f"the username is longer than {MAX_NAME} bytes; choose a shorter one")
    return encoded


def _checked_port(text: str, advice: str = f"theirs is {WHERE_PORT}") -> int:
    if text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535:
        return int(text)
    raise ValueError(f"{text!r} is not a port number from 1 to 65535; {advice}")


def _interface() -> str:
    """The name of an interface that leads somewhere, to show as an example."""
    return next((name for _, name in socket.if_nameindex() if not name.startswith("lo")), "eth0")


def check_host(host: str) -> None:
    """Raises ValueError for a host that no name service need be asked about."""
    if not host.strip():
        raise ValueError("the host is empty; it is a name or an address")
    joined = HOST_AND_PORT.fullmatch(host)
    if joined:
        raise ValueError(f"write host and port as two words: {joined[1] or joined[2]} {joined[3]}")
    if host.startswith("[") or host.endswith("]"):
        raise ValueError(f"write {host.strip('[]')} without brackets")
    if peers.is_dialable(host) and peers.is_link_local(host) and "%" not in host:
        raise ValueError(f"write {host} with the interface that leads there, as in {host}%{_interface()}")
    if not host.isprintable() or len(host) > MAX_HOST:
        raise ValueError(f"{host[:MAX_HOST]!r} is not a host name; check the spelling, or use an address")


def resolve(host: str, port: int) -> List[Address]:
    """Every address of `host`, as the system orders them. Waits for the name service. Raises ValueError."""
    check_host(host)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a host name"
        raise ValueError(f"unknown host {host} ({reason}); check the spelling, or use an address") from error
    return [(readable_host(address), port) for family, _, _, _, address in found if family in (socket.AF_INET, socket.AF_INET6)]


def resolve_all(found: Iterable[Tuple[str, int]]) -> Tuple[List[Named], List[str]]:
    """The peers that were found, with their addresses, and what is wrong with the rest. Waits. Raises ValueError if none was found."""
    named, unknown = [], []
    for host, port in found:
        try:
            named.append((f"{host} {port}", resolve(host, port)))
        except ValueError as mistake:
            unknown.append(str(mistake))
    if unknown and not named:
        raise ValueError(unknown[0])
    return named, unknown


def open_listener(bind: str, port: int) -> socket.socket:
    """The listening socket. Raises ValueError with what to do about it."""
    host = resolve(bind, port)[0][0] if bind else ""
    try:
        return listen(host, port)
    except OSError as error:
        where = " ".join([f"address {bind}"] * bool(bind) + [f"port {port}"] * bool(port)) or "any port"
        reason = os.strerror(error.errno or 0)
        raise ValueError(f"cannot listen on {where} ({reason}); choose another, or omit the option") from error


def lan_host(bind: str) -> str:
    """The address to tell people who want to join: `bind`, or the one that this machine has on its network."""
    if bind not in ("", *EVERY_ADDRESS):
        return bind
    # Nothing is sent: it only makes the system choose an interface.
    for family, elsewhere in (socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            return probe.getsockname()[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # no way out of this network: people on it may join
        hosts = [socket.inet_ntoa(address) for _, address in ipv4_interfaces(probe)]
    hosts += link_local_hosts()
    return next((host for host in hosts if not peers.is_loopback(host)), "localhost")


def link_local_hosts() -> Iterator[str]:
    """The link-local IPv6 address, with its scope, of each interface that has one."""
    for index, _ in socket.if_nameindex():
        with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect(("ff02::1", 9, 0, index))  # nothing is sent
            yield readable_host(probe.getsockname())


def fill_standard_descriptors() -> None:
    """Open /dev/null for each of 0, 1, 2 that came closed, so that no socket gets such a number and a chat line."""
    while True:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            return


def choose_front(options: argparse.Namespace) -> Front:
    """The screen where there is a capable terminal at both ends, else line mode."""
    terminal = os.isatty(0) and os.isatty(1) and os.environ.get("TERM", "dumb") not in ("", "dumb")
    if terminal and not options.lines:
        return ui.Screen()
    return ui.Lines(None if options.no_input else 0, times=options.times)


def start(arguments: Sequence[str]) -> Tuple[Chat, str]:
    """A Chat that has joined. All that can fail because of the user fails here, as ValueError."""
    options = parse(arguments)
    named, unknown = resolve_all(options.peers)
    listener = open_listener(options.bind, options.port)
    trace = open_trace(options.trace) if options.trace is not None else None
    own = options.name, listener, choose_front(options), options.verbatim, options.no_history
    try:
        chat = Chat(*own) if trace is None else TracedChat(trace, options.trace, *own)
    except OSError as error:
        raise ValueError(f"cannot start ({error.strerror}); see ulimit -n") from error
    chat.network.actions.extend(peers.Notice("{}", (mistake,)) for mistake in unknown)
    if named:
        chat.join(named, or_stay_alone=options.room is not None)
    if options.room:
        chat.look_around(options.room)
        if not chat.front.shows_own and not options.no_input and not os.isatty(0):
            chat.wait_for_somebody(FIND_SECONDS)
    return chat, f"join: ./p2pchat NAME {lan_host(options.bind)} {chat.port}"


def main() -> None:
    """The program. Exit status: 0 after :quit, 1 with a sentence for a user's mistake or a full disk, 128+n for signal n."""
    fill_standard_descriptors()
    try:
        chat, hint = start(sys.argv[1:])
    except ValueError as mistake:
        sys.exit(f"p2pchat: {mistake}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    try:
        chat.take_signals()
        status = _open(chat, hint) or chat.run()
    finally:
        chat.close()
    sys.exit(status or int(chat.front.failed))


def _open(chat: Chat, hint: str) -> Optional[str]:
    """Take the terminal. Returns why the program ends here, or None."""
    try:
        chat.open(hint)
    except OSError as error:
        chat.leave()  # or those whom we have joined would look for us
        chat.run()
        return f"p2pchat: cannot open this terminal ({error.strerror}); use --lines, or `script -c` for a terminal of your own"
    return None


if __name__ == "__main__":
    main()
