"""The network as one member sees it (Network): a core without any I/O.

Knows: what each neighbour lacks, which links to have, who is here, what C programs need.
Must not know: sockets, clocks, the screen, arguments, signals. Nothing here ever waits, and time is
a number that is handed in.
Leaves out: the sockets and the loop that calls all this (p2pchat.py), the bytes of a record and the
log (message.py).

This is a sans-I/O engine: report what happened, then carry out `actions`. So the loop can run one
network, and a simulator a thousand of them. Each class has one topic; in this order:

    Neighbour   the far end of one link: what it is, and what it has yet to be sent
    Links       all of them, and the one place that ends one
    Author      what this member says: its origin, its sequence, its records
    Handshake   what is at the far end of a new link?
    Network     all parts together: is a record new, and which neighbours still lack it?
    Overlay     which links to have, and whom to dial (a random graph that heals itself)
    Bridge      C programs: marks, circles, lines that come through two gateways
    Presence    who is here, their labels, and the notices about them
    Discovery   how members on one network segment find each other without a port number

The subtle spots: Neighbour._take_records (why nothing is lost), Handshake.resolve_double (why two
members who dial each other at once keep exactly one link), Bridge (why a circle costs no line), and
Presence (why everybody agrees on who is here).
"""

from __future__ import annotations

import ipaddress
import re
import sys
from bisect import bisect_right
from collections import Counter, OrderedDict, deque
from enum import Enum
from functools import lru_cache
from itertools import accumulate, groupby, islice, takewhile
from math import inf
from random import Random
from typing import Any, Callable, Iterable, Iterator, Mapping, NamedTuple, Optional, Sequence, Union

from message import (ASKS, ASKS_ALL, CHAT, FIRST_LOGGED, HEADER_SIZE, LAST_LOGGED, LEFT_TEXT, LOG_MESSAGES, MARK, MAX_PLAIN_FRAME,
                     MAX_RECORD_TEXT, PROBE, QUIT_TEXTS, SMALLEST_SEGMENT, TELLS, Address, Announcement, Batch, GarbledError, Hello, Kind,
                     Log, Mark, Marker, ProtocolError, Range, Record, RecordDecoder, Run, as_c_reads, decode_addresses,
                     decode_announcement, decode_ask, decode_hello, decode_left, decode_lost, decode_record, decode_renamed,
                     encode_addresses, encode_announcement, encode_ask, encode_frame, encode_hello, encode_left, encode_lost,
                     encode_pair, encode_record, encode_records, encode_renamed, is_kind, join, keep_newest, looks_marked, new_tuple,
                     plain_texts, read_id, read_mark, split_text, unmarked)


Key = Union[int, bytes]  # a person: a member by its origin, or a C user by name


# What the network asks for -------------------------------------------------------------------

Part = Union[str, bytes]  # of a notice: ours, or a stranger's


class Show(NamedTuple):
    """Show chat messages of one name. They are a stranger's raw bytes: whoever shows them cleans them."""
    name: bytes
    texts: list[bytes]
    mine: bool = False
    earlier: int = 0  # when it was said (seconds since 1970), if that was before we were here


class Notice(NamedTuple):
    """Tell our user. `words` is ours; each {} in it stands for one of `parts`: str is ours, bytes are a stranger's."""
    words: str
    parts: tuple[Part, ...] = ()


class Connect(NamedTuple):
    """Dial; report to Network.opened, or to Network.dial_failed after `seconds` at the latest."""
    attempt: Attempt
    seconds: float


class Hangup(NamedTuple):
    """Send this neighbour what can be sent at once, close its link, and report `reason` to Network.closed."""
    neighbour: Neighbour
    reason: str


class Announce(NamedTuple):
    """Send this packet to the group on every network segment; if it is empty, only keep listening on each of them."""
    packet: bytes


Action = Union[Show, Notice, Connect, Hangup, Announce]


class Actions(deque[Action]):
    """What the caller is to do next, in this order."""

    def show(self, name: bytes, texts: list[bytes], earlier: int = 0) -> None:
        """Add a Show of what others said."""
        self.append(new_tuple(Show, (name, texts, False, earlier)))

    def notice(self, words: str, *parts: Part) -> None:
        """Add a Notice."""
        self.append(Notice(words, parts))


Later = tuple[Callable[[Any, Any], None], Any, Any]  # what Network.tell is to call, and with what


def sometimes(branch: str) -> None:
    """Mark a rare branch (a "sometimes assertion"). Does nothing: the simulator counts them, to see that its runs reach each."""


# Time, and how often -------------------------------------------------------------------------

class Clock:
    """The time that the caller last told us, in seconds: `now` on a monotonic clock, `wall` since 1970."""

    def __init__(self, now: float, wall: float) -> None:
        self.now, self.wall = now, wall

    def has_reached(self, when: Optional[float]) -> bool:
        """Whether it is this time or later. None: it never will be."""
        return when is not None and when <= self.now


def soonest(times: Iterable[Optional[float]]) -> Optional[float]:
    """The first of these times that is not None; None if there is none."""
    return min((time for time in times if time is not None), default=None)


class TokenBucket:
    """The one rate limiter: `size` at once, then one more every so many `seconds`."""

    def __init__(self, size: int, seconds: float, now: float) -> None:
        self._size, self._seconds = size, seconds
        self._full_at = now

    def has_one(self, now: float) -> bool:
        """Whether there is a token now."""
        return self.next_at <= now

    def take(self, now: float) -> bool:
        """Take a token if there is one. Returns whether there was."""
        if not self.has_one(now):
            return False
        self._full_at = max(self._full_at, now) + self._seconds
        return True

    @property
    def next_at(self) -> float:
        """When there is a token (seconds); in the past if there is one now."""
        return self._full_at - (self._size - 1) * self._seconds


MAX_SHARING = 256  # hosts whose buckets are remembered


class FairBuckets:
    """A TokenBucket for each host, so that none uses up what the others need."""

    def __init__(self, size: int, seconds: float) -> None:
        self._size, self._seconds = size, seconds
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def has_one(self, host: str, now: float) -> bool:
        """Whether there is a token for this host now."""
        return host not in self._buckets or self._buckets[host].has_one(now)

    def take(self, host: str, now: float) -> bool:
        """Take a token for this host if there is one. Returns whether there was."""
        bucket = self._buckets.pop(host, None) or TokenBucket(self._size, self._seconds, now)
        self._buckets[host] = bucket
        keep_newest(self._buckets, MAX_SHARING)
        return bucket.take(now)


# One neighbour -------------------------------------------------------------------------------

REDIAL_FIRST, REDIAL_MOST = 1, 60  # seconds of pause before a lost peer is dialled again; doubled each time


class Contact:
    """A peer that our user named: all its addresses, and when to dial it again after it was lost."""

    def __init__(self, label: str, addresses: Iterable[Address], seconds: float) -> None:
        self.label = label
        self.seconds = seconds  # for which all its addresses together may stay silent
        self.addresses = tuple(addresses)
        self.untried = list(addresses)
        self.pause = REDIAL_FIRST
        self.due: Optional[float] = None  # when to dial again; None: nothing is planned
        self.reached = False  # ever
        self.spare = False  # another peer that our user named was joined: this one is dialled when nobody is connected
        self.plain = False  # it was a C program last time (or a member that was stopped, so it is probed each time)
        self.origin: Optional[int] = None  # if it was a member last time, and did not leave
        self.failure = ""  # why the last round of dials came to nothing
        self.place: Optional[tuple[int, set[int]]] = None  # of a lost C program: where in our log it stands; what it has beyond that


class Attempt(NamedTuple):
    """One dial: of a contact, or of an address that the network picked."""
    address: Address
    contact: Optional[Contact] = None
    urgent: bool = False
    plain: bool = False  # a probe was not answered: speak as to a C program
    since: float = 0.0  # when it began
    announced: Optional[int] = None  # the origin that a packet says is there: it must be on one of our own network segments


class LinkKind(Enum):
    """What a link is. Only the dialling side has to detect it, with a probe that a C program does not show."""
    STRANGER = "accepted, and has not said anything"
    PROBING = "dialled, and has not answered"
    GREETING = "a member, whose full hello is on its way"
    MESH = "a member"
    PLAIN = "a C program"


# Looked up for every message: in Python 3.9 to 3.11 LinkKind.MESH costs a quarter of a microsecond.
STRANGER, PROBING, GREETING, MESH, PLAIN = LinkKind
OURS, KNOWN = (MESH, GREETING), (MESH, PLAIN)
MAX_BACKLOG = 8 * 1024 * 1024  # bytes of memory that may wait for a C program (a member lags behind in the log instead)
MAX_OUT = 4096  # Batches for a named C program that are remembered, because they may have to be sent again
PIECE_COST = 40  # bytes of memory that a waiting piece costs beside its own bytes
NOBODY: Sequence[Neighbour] = ()
NOTHING = 0, -1  # the first and the last of no sequences
NO_BATCH = join([])
MAX_GUESTS = 256  # names behind one plain link, or at one gateway
MAX_GUEST_NAME = 256  # bytes of such a name; longer ones are shown but not remembered, or a thousand links would hold half a GB


class Neighbour:
    """The far end of one link: what it is, what it has said, and what it has yet to be sent."""

    __slots__ = (  # a thousand links may be silent, and each costs its memory
        "host", "own_host", "attempt", "contact", "kind", "since", "since_wall", "address", "name", "heard_at", "pings",
        "pinged_at", "frames", "left", "ending", "_outbox", "waiting", "queued", "_taken", "_stream", "_stream_end",
        "log", "position", "asked", "is_level", "origin", "greeted_as", "met_at", "vector_at_hello", "seen", "filter_until",
        "own_from", "has_asked", "is_foreign", "names", "spoke", "next_batch", "outlet")

    def __init__(self, host: str, attempt: Optional[Attempt], kind: LinkKind, now: float, wall: float, own_host: str = "",
                 outbox: Optional[set[Neighbour]] = None) -> None:
        self.host, self.own_host = host, own_host
        self.attempt = attempt  # None: it dialled us
        self.contact = attempt.contact if attempt else None  # None: our user did not name it
        self.kind = kind
        self.since, self.since_wall = now, wall
        self.address: Optional[Address] = None  # where it can be dialled, if known
        self.name = b""
        self.heard_at = now
        self.pings, self.pinged_at = 0, now  # pings that are unanswered; when the last one was sent
        self.frames = RecordDecoder()
        self.left: Optional[bytes] = None  # the name, with its mark if a member's, that said goodbye
        self.ending = False  # a hang-up is under way: nothing more is taken from it or queued for it
        # What is to be sent
        self._outbox: set[Neighbour] = set() if outbox is None else outbox  # of all neighbours: those with something queued
        self.waiting: list[Batch] = []  # Batches to send before anything of the log
        self.queued = 0  # bytes in `waiting`
        self._taken = 0  # bytes of the first Batch that were taken out
        self._stream: Any = deque(maxlen=MAX_OUT) if self.contact else ()  # to a contact: Batches, each with the bytes before it
        self._stream_end = 0  # all bytes that were ever queued for a contact
        self.log: Optional[Log] = None  # ours, to be sent to it; None: nothing of it is, for now
        self.position = 0  # where in our log it stands: the next record to send
        self.asked: list[int] = []  # numbers in our log that it asked for, the first one last
        # Whether all that it lacks is the log from its position on, and its link has sent all the rest. True after a take;
        # no longer when something else is queued for it, it brings a copy, its link is slow, or it is hung up.
        self.is_level = False
        # A mesh link: who is there, and what it has of our log
        self.origin: int = None  # type: ignore[assignment]  # known from its hello on
        self.greeted_as: Optional[int] = None  # our own origin, as we told it
        self.met_at = 0  # the next number of our log when we met
        self.vector_at_hello: dict[int, int] = {}  # origin -> the sequence that it had when we met
        self.seen: dict[int, tuple[int, int]] = {}  # origin -> (first, last) of what it has sent since: it has exactly these
        self.filter_until = 0  # from this number of our log on, it is not known to have anything
        self.own_from: Optional[int] = None  # of what comes before that, it has exactly the records from here on; None: it may have any
        self.has_asked = False
        self.is_foreign = False  # when we met, it knew nobody we knew: its history is another network's
        # A plain link: who is behind it
        self.names: dict[Key, bytes] = {}  # who was heard over it: key -> name, with its mark if a member's
        self.spoke = False  # whether anything came over it
        self.next_batch: Optional[Callable[[Neighbour], Optional[Batch]]] = None  # turns the next part of the log into pairs
        self.outlet: Outlet = None  # type: ignore[assignment]  # from Bridge.opened on

    @property
    def is_linked(self) -> bool:
        """Whether it hears what is said here."""
        return self.kind in KNOWN and not self.ending

    @property
    def may_be_c(self) -> bool:
        """Whether the far end may be a C program, so that the rules for sending to one apply."""
        return self.kind not in OURS

    @property
    def backlog(self) -> int:
        """0 if nothing is to be sent now, else bytes plus records; rough: only its trend matters."""
        log = self.log
        return self.queued + len(self.asked) + (log.end - self.position if log else 0)

    def is_done(self) -> bool:
        """Whether nothing is to be sent now: whether `backlog` is 0, but cheaper to ask."""
        log = self.log
        return not (self.queued or self.asked or log and self.position < log.end)

    @property
    def is_caller(self) -> bool:
        """Whether it called us, and is not known as a member: anybody can have any number of such links."""
        return self.attempt is None and self.kind is not MESH

    @property
    def people(self) -> list[bytes]:
        """The names of those who were heard over this link, or its own."""
        return [self.name] if self.name else [unmarked(frame)[0] for frame in self.names.values()]

    def queue(self, batch: Batch) -> None:
        """Have a Batch sent at the end of the turn, as everything is (rule 2 of p2pchat.py)."""
        self._queue(batch)
        self._outbox.add(self)

    def _queue(self, batch: Batch) -> None:
        self.waiting.append(batch)
        self.queued += len(batch.data)
        if self.contact:
            self._stream.append((self._stream_end, batch))
            self._stream_end += len(batch.data)
            while self._stream_end - self.queued - self._stream[0][0] > MAX_BACKLOG:  # the far end has it: no kernel buffers so much
                self._stream.popleft()

    def follow(self, log: Log) -> None:
        """Send it the log, from its position on and from now on."""
        self.log = log
        self._outbox.add(self)

    def queue_frame(self, body: bytes) -> None:
        """Queue a frame of its own with this body."""
        self.queue(join([encode_frame(body)]))

    def clear(self) -> None:
        """Drop all that waits, and send nothing of the log."""
        self.waiting.clear()
        self.asked.clear()
        self.queued, self._taken, self.log, self.is_level = 0, 0, None, False

    @property
    def cost(self) -> int:
        """Bytes of memory that what waits costs."""
        return sum(len(batch.data) + PIECE_COST * len(batch.ends) for batch in self.waiting)

    @property
    def lagging(self) -> bool:
        """Whether it lags so far behind that our own user's input should wait."""
        lag = self.log.end - max(self.position, self.met_at) if self.log is not None else 0
        return self.cost > MAX_BACKLOG // 4 or lag > LOG_MESSAGES // 4

    def keep_place(self, lost: int = 0) -> None:
        """A C program that our user named is lost: note where in our log it stands, for when it is dialled again.

        That is the first record of which not all arrived: `lost` bytes that were taken out did not.
        """
        if self.contact is None or self.kind is not PLAIN or self.log is None:
            return
        position = self.position
        arrived = self._stream_end - self.queued - lost
        before, batch = next((place for place in reversed(self._stream) if place[0] <= arrived), (0, NO_BATCH))
        if batch.numbers:
            at = bisect_right(batch.ends, arrived - before)
            position = batch.numbers[at] if at < len(batch.numbers) else min(batch.numbers[-1] + 1, position)
        self.contact.place = position, self.outlet.skips

    def ask(self, numbers: Sequence[int]) -> None:
        """Have these records of the log sent, whatever it is known to have."""
        self.asked = list(reversed(numbers))
        self._outbox.add(self)

    def take(self, joined: int, room: int) -> bytes:
        """Take out what to send next; b"" if there is nothing, or if `room` (bytes) is too small for the first piece.

        Whole pieces of what waits, up to `joined` bytes together, or one longer one: of a piece over SMALLEST_SEGMENT
        bytes only the header, at its start, must not be cut, so room for that many will do. Then a chunk of the log.
        """
        if self.next_batch and self.log and not self.waiting:
            batch = self.next_batch(self)
            if batch is None:
                return b""
            if len(batch.data) <= joined and len(batch.data) <= room and not self.contact:  # as a rule: all goes out at once
                return batch.data
            self._queue(batch)
        if self.waiting:
            return self._take_pieces(joined, room)
        if self.asked:
            return self._take_asked() + self._take_records()
        data = self._take_records()
        self.is_level = self.log is not None and self.position >= self.filter_until
        return data

    def _take_pieces(self, joined: int, room: int) -> bytes:
        chunk: list[bytes] = []
        left = min(joined, room)
        while self.waiting:
            batch, start = self.waiting[0], self._taken
            at = bisect_right(batch.ends, start + left)
            if at and batch.ends[at - 1] > start:
                stop = batch.ends[at - 1]
            elif not chunk and min(batch.ends[at] - start, SMALLEST_SEGMENT) <= room:  # a piece that alone is longer
                stop = batch.ends[at]
            else:
                break
            chunk.append(batch.data[start:stop])
            left -= stop - start
            self._taken = stop
            if stop == len(batch.data):
                del self.waiting[0]
                self._taken = 0
        self.queued -= sum(map(len, chunk))
        return chunk[0] if len(chunk) == 1 else b"".join(chunk)

    def _take_asked(self) -> bytes:
        """Some of what it asked for, as far as our log still has it."""
        chunk: list[bytes] = []
        size = 0
        while self.asked and size < SMALLEST_SEGMENT * 100:
            number = self.asked.pop()
            frames = self.log.read(number, number + 1)  # type: ignore[union-attr]
            chunk += frames
            size += sum(map(len, frames))
        return b"".join(chunk)

    def _take_records(self) -> bytes:
        # The subtle spot: only a position in the shared log is kept, not a queue of its own. So nothing is lost
        # on the way: each neighbour gets the whole log in its order, except for what it is known to have.
        # A slow one costs nothing, lags behind, and catches up; one that lags too far finds a gap: a hole.
        log, start = self.log, self.position
        while log and start < log.end:
            if start < log.start:
                start = log.start
            data, self.position = log.chunk(start)
            if start < self.filter_until:
                data = self._unknown(log, start, self.position)
            start = self.position
            if data:
                return data
        return b""

    def _unknown(self, log: Log, start: int, stop: int) -> bytes:
        """Of the log from `start` to the record before `stop`, what this neighbour is not known to have."""
        if self.own_from is not None:  # as a rule
            return b"".join(log.read(start, min(self.own_from, stop)) + log.read(self.filter_until, stop))
        frames = log.read(start, stop)
        late, vector, seen = log.late, self.vector_at_hello, self.seen
        unknown = []
        for number, frame in enumerate(frames, start):
            origin, sequence = read_id(frame)
            first, last = seen.get(origin, NOTHING)
            if not first <= sequence <= last and (sequence > vector.get(origin, 0) or number in late):
                unknown.append(frame)
        return b"".join(unknown)

    def has_learned(self, origin: int, sequence: int) -> bool:
        """Whether it got what it sends of this origin, from here on, only after we met: it had less before, or this came late."""
        return sequence > self.vector_at_hello.get(origin, 0) or sequence < self.seen.get(origin, (0, 0))[0]

    def has(self, origin: int, first: int, last: int) -> None:
        """Note that it has these sequences: it sent them, in a row."""
        self._saw(origin, first, last)
        if self.position < self.log.end:  # type: ignore[union-attr]
            self.filter_until, self.own_from, self.is_level = self.log.end, None, False  # type: ignore[union-attr]

    def brought(self, origin: int, first: int, last: int, number: int) -> None:
        """Note that it has these sequences, which were new: they are our log's last records, from this number on."""
        end = self.log.end  # type: ignore[union-attr]
        if self.position == number:  # it lacked nothing, and still does not
            self.position = end
        else:
            if self.position >= self.filter_until:
                self.own_from = number
            elif self.filter_until != number:
                self.own_from = None
            self.filter_until = end
        self._saw(origin, first, last)

    def _saw(self, origin: int, first: int, last: int) -> None:
        low, high = self.seen.get(origin, NOTHING)
        if not low <= first <= high + 1:
            low = high = first
            if len(self.seen) > LOG_MESSAGES // 4:  # made-up origins; at worst it is sent what it has
                self.seen.clear()
        self.seen[origin] = low, last if last > high else high


PLAIN_ANSWER, DOUBLE, SPARED = "is a C peer", "is linked twice", "found other links"  # why the network itself ends a link
NO_ROOM = "has no room for another link"


class Links:
    """All links of this member, and the one place that ends one."""

    def __init__(self, author: Author, actions: Actions) -> None:
        self._author, self._actions = author, actions
        self.all: list[Neighbour] = []
        self.outbox: set[Neighbour] = set()  # neighbours for whom something was queued
        # Those of them that lead to members, in the order of their hellos: few, however many links there are
        self.ours: dict[Neighbour, None] = {}

    @property
    def goodbye(self) -> Batch:
        """The last words on a plain link: without them, a C program takes the end of the stream for an error."""
        return Marker(self._author.origin, "", 0).encode_goodbye(self._author.name)

    def mesh(self, greeting: bool = False) -> list[Neighbour]:
        """The neighbours at mesh links; with `greeting`, also those about to be."""
        return [neighbour for neighbour in self.ours if (greeting or neighbour.kind is MESH) and not neighbour.ending]

    def found_member(self, neighbour: Neighbour, kind: LinkKind) -> None:
        """A member is at the far end of this link, which is of this kind from now on."""
        neighbour.kind = kind
        self.ours[neighbour] = None

    def origins(self, greeting: bool = False) -> set[int]:
        """The origins we are linked to: two links that claim the same one count once."""
        return {neighbour.origin for neighbour in self.mesh(greeting)}

    def is_linked(self, origin: int, greeting: bool = False) -> bool:
        """Whether there is a mesh link to this origin."""
        return any(neighbour.origin == origin for neighbour in self.mesh(greeting))

    def addresses_but(self, neighbour: Neighbour, greeting: bool = False) -> tuple[Address, ...]:
        """The addresses of our other neighbours, to tell this one."""
        known = (other.address for other in self.mesh(greeting) if other is not neighbour and other.address)
        return tuple((host.partition("%")[0], port) for host, port in known)

    def hang_up(self, neighbour: Neighbour, reason: str, farewell: Optional[bytes] = None) -> None:
        """End a link; `farewell` is the body of a last frame."""
        if neighbour.ending:
            return
        neighbour.ending = True
        neighbour.keep_place()
        neighbour.clear()
        if neighbour.kind is STRANGER:
            neighbour.kind = PLAIN
        if neighbour.kind is PLAIN and neighbour.left is None:
            neighbour.queue(self.goodbye)
        if farewell:
            neighbour.queue_frame(farewell)
        self._actions.append(Hangup(neighbour, reason))

    def bye(self, neighbour: Neighbour) -> None:
        """Let go of a neighbour that will find other links; give it addresses to try."""
        self.hang_up(neighbour, SPARED, encode_addresses(Kind.BYE, self.addresses_but(neighbour)))


# What we say ---------------------------------------------------------------------------------

RESAY_SECONDS = 60  # in which our words may not have reached everybody: a dead link is noticed after 40
FLIGHT_SECONDS = 5  # in which they are on their way as a rule
MAX_OWN = 256  # of our own origins that are remembered; whenever somebody forges the present one, we take another
FORGED = 2 ** 64 - 1  # the sequence in the LOST of an origin that its owner gave up: nothing comes after it


class Author:
    """What this member says: its origin, its sequence, and the records that it puts into the log."""

    def __init__(self, name: bytes, log: Log, clock: Clock, rng: Random) -> None:
        self.name = name
        self._log, self._clock, self._rng = log, clock, rng
        self.origins: dict[int, None] = {}  # our own: the last MAX_OWN; the values mean nothing
        self._again = 0
        self.renew()

    def renew(self) -> None:
        """Take a new origin, and say so."""
        self.origin, self.sequence = self._rng.getrandbits(64), 0
        self._again_before = self._again  # under the old origin
        self.origins[self.origin] = None  # old ones stay ours: what we said under them must not come back as somebody else's
        keep_newest(self.origins, MAX_OWN)
        # (sequence, number in the log) of the first record of each call of tell, and when that was
        self._runs: list[tuple[int, int, float]] = []
        self._twice = self._again = 0  # up to these sequences it was said under two other origins before, or under one
        self.tell(Kind.HERE, self.name)

    def is_ours(self, origin: Optional[Key]) -> bool:
        """Whether this origin is, or was, our own."""
        return origin in self.origins

    def tell(self, kind: int, name: bytes, texts: Sequence[bytes] = (b"",), ago: float = 0) -> int:
        """Put records of our own into the log; the links take them from there. Returns the number of the first.

        `ago`: seconds since it was said, where we waited for somebody else to tell it.
        """
        first = self.sequence + 1
        self.sequence += len(texts)
        frames = encode_records(kind, self.origin, first, int(self._clock.wall - ago), name, texts)
        number = self._log.append(self.origin, self.sequence, frames)
        self.last_said = self._clock.now
        if kind in (Kind.SAY, Kind.HERE):  # the others do not bear our name
            self.last_word = self._log.end - 1
        self._runs.append((first, number, self._clock.now))
        if self._runs[len(self._runs) // 2][1] < self._log.start:  # half at once, so that each costs O(1)
            del self._runs[:len(self._runs) // 2]
        return number

    def is_forged(self, frame: bytes) -> bool:
        """Whether a record in our present origin was not said by us. One that our log no longer holds is taken as ours."""
        _, sequence = read_id(frame)
        if sequence > self.sequence:
            return True
        number = self._number(sequence)
        return number >= self._log.start and self._log.read(number, number + 1) != [frame]

    def hidden_from(self, sequence: int) -> int:
        """The first of our sequences that may be hidden somewhere, now that we hear that this one was forged.

        Whoever forged it may have forged those before it, too, and been faster there than our words: only where these came
        first do we not hear of that. Before a jump there is a hole instead, and our words fill it.
        """
        if sequence > self.sequence + 1:
            return self.sequence + 1
        return min([sequence, *(first for first, _, _ in self._runs_since(self._clock.now - FLIGHT_SECONDS))])

    def said_since(self, sequence: int, forged: set[int]) -> list[Record]:
        """What we, and our guests, said from this sequence on: the `forged` ones, and all within RESAY_SECONDS. Oldest first.

        A forgery hides only what has not reached everybody yet. What we say again goes out in one piece, with an origin
        that nobody knew before: only a forger faster than that piece hides it again. So twice is enough.
        """
        numbers = set(map(self._number, forged))
        stop = self.sequence + 1
        for first, number, _ in self._runs_since(self._clock.now - RESAY_SECONDS):  # between them is what others said, which may be a lot
            numbers.update(range(number, number + stop - first))
            stop = first
        found = (decode_record(frame) for number in sorted(numbers) for frame in self._log.read(number, number + 1))
        return [record for record in found if record.sequence >= max(sequence, self._twice + 1) and record.kind in (Kind.SAY, Kind.GUEST)]

    def _runs_since(self, oldest: float) -> Iterator[tuple[int, int, float]]:
        """The latest first."""
        return takewhile(lambda run: run[2] >= oldest, reversed(self._runs))

    def recent(self, since: float) -> list[Range]:
        """Our own latest records, to ask a new neighbour for: somebody may have forged them while we were cut off.

        Of whom we meet for the first time that is a minute: what was forged earlier elsewhere hides our words from it.
        """
        runs = list(self._runs_since(min(self._clock.now, since) - RESAY_SECONDS))
        return [(self.origin, runs[-1][0], self.sequence)] if runs else []

    def say_again(self, said: Iterable[Record]) -> tuple[int, int]:
        """Repeat under the new origin what said_since returned for the old one. Returns (number in the log, how many records)."""
        number = self._log.end
        for (again, kind, name), run in groupby(said, lambda record: (record.sequence <= self._again_before, record.kind, record.name)):
            self.tell(kind, name, [record.text for record in run])
            self._twice = self.sequence if again else self._twice
        self._again = self.sequence
        return number, self._log.end - number

    def _number(self, sequence: int) -> int:
        at = bisect_right(self._runs, (sequence, self._log.end)) - 1
        first, number, _ = self._runs[max(at, 0)]
        return number + sequence - first


# What is at the far end of a new link? -------------------------------------------------------

STRANGER_SECONDS = 0.5  # a member says hello with its first bytes; a C program waits for its user
PROBE_SECONDS = 1.0  # for a member to answer a probe; a C program never does
HELLO_SECONDS = 5  # from the first hello to the last
MAX_CLAIMS = 3  # links from different hosts that claim one origin: any may be the true one, and together they count once
SHUN_SELF = 300  # seconds for which an address where we met ourselves is not dialled
LEAST_PORT = 1024  # lower ports belong to other services, and are dialled only if our user names them


class Handshake:
    """Finds out what is at the far end of a link: a C program, or a member, and then which one.

    Once that is known, it calls `settled` (neighbour) for a C program, or `met` (neighbour, hello) for a member.
    """

    def __init__(self, author: Author, port: int, clock: Clock, log: Log, links: Links, overlay: Overlay,
                 met: Callable[[Neighbour, Hello], None], settled: Callable[[Neighbour], None]) -> None:
        self._author, self._port, self._clock, self._log = author, port, clock, log
        self._links, self._overlay = links, overlay
        self._met, self._settled = met, settled

    def begin(self, neighbour: Neighbour) -> None:
        """We have dialled it: send the probe."""
        assert neighbour.attempt  # it was dialled
        hello = Hello(self._author.origin, self._port, neighbour.attempt.urgent, b"")
        neighbour.queue(encode_pair(self._author.name, PROBE + encode_hello(hello)))

    def due(self, neighbour: Neighbour) -> Optional[float]:
        """When this link must have said more; None if we know what it is."""
        if neighbour.kind is STRANGER:
            return neighbour.since + STRANGER_SECONDS
        if neighbour.kind is PROBING:
            assert neighbour.attempt  # it was dialled
            return neighbour.since + max(PROBE_SECONDS, 2 * (neighbour.since - neighbour.attempt.since))  # far away: be patient
        if neighbour.kind is GREETING:
            return neighbour.since + HELLO_SECONDS
        return None

    def overdue(self, neighbour: Neighbour) -> None:
        """It did not say more in time."""
        if neighbour.kind is STRANGER:
            self._settled(neighbour)
        elif neighbour.kind is PROBING:
            self._links.hang_up(neighbour, PLAIN_ANSWER)
        else:
            self._links.hang_up(neighbour, "did not finish its hello")

    def read_probe(self, neighbour: Neighbour, text: bytes) -> bool:
        """Handle this text of a plain pair if it is a probe. Returns whether it is one. Raises ProtocolError."""
        if not text.startswith(PROBE) or not is_kind(text[len(PROBE):], Kind.HELLO) or neighbour.attempt or neighbour.spoke:
            return False  # a probe may come late, on a link that we already took for a C program's: one lost packet is enough
        hello = decode_hello(text[len(PROBE):])
        self._links.found_member(neighbour, GREETING)
        neighbour.clear()  # what was held back while we took it for a C program will come from the log
        neighbour.next_batch = None
        if self._recognise(neighbour, hello):
            if self._overlay.has_room(neighbour) or hello.urgent:
                self._greet(neighbour)
            else:
                sometimes("there is no room for a caller")
                self._links.bye(neighbour)
        return True

    def read_answer(self, neighbour: Neighbour) -> None:
        """Read the first frame of what we dialled: a hello, a bye, or chat of a C program. Raises ProtocolError."""
        for frame in neighbour.frames:
            self._answered(neighbour, frame[HEADER_SIZE:])
            if neighbour.ending or neighbour.kind is not PROBING:
                return

    def _answered(self, neighbour: Neighbour, body: bytes) -> None:
        assert neighbour.attempt
        if is_kind(body, Kind.BYE):
            self._overlay.proved(neighbour.attempt)
            self._overlay.learn(neighbour, decode_addresses(body))
            self._links.hang_up(neighbour, NO_ROOM)
        elif is_kind(body, Kind.HELLO):
            self._overlay.proved(neighbour.attempt)
            hello = decode_hello(body)
            if self._recognise(neighbour, hello):
                self._greet(neighbour)
                self._met(neighbour, hello)
        # else it is chat: of a C program, or of a member that has not read our probe yet; PROBE_SECONDS will tell

    def read_hello(self, neighbour: Neighbour) -> None:
        """Read the full hello of whoever dialled us. Raises ProtocolError."""
        frame = next(iter(neighbour.frames), None)  # only one: what follows it is read as records
        if frame is None:
            return
        if not is_kind(frame[HEADER_SIZE:], Kind.HELLO):
            raise ProtocolError("did not say hello")
        hello = decode_hello(frame[HEADER_SIZE:])
        if hello.origin != neighbour.origin:
            raise ProtocolError("changed its origin")
        self._met(neighbour, hello)

    def _recognise(self, neighbour: Neighbour, hello: Hello) -> bool:
        """Note who it is. Returns False if it is ourselves, or a second link to one member that is not to be kept."""
        neighbour.origin, neighbour.name = hello.origin, hello.name
        host, port = neighbour.attempt.address[:2] if neighbour.attempt else (neighbour.host, hello.port)
        neighbour.address = (host, port) if port >= LEAST_PORT or neighbour.attempt else None
        if self._author.is_ours(hello.origin):
            self._overlay.book.shun(neighbour.address, self._clock.now + SHUN_SELF)
            self._decline(neighbour, "is this program itself")
            return False
        if neighbour.address and neighbour.attempt:  # else we have only its word, so far
            self._overlay.book.note(neighbour.address, hello.origin)
        for other in self._links.mesh(greeting=True):
            if other.origin == hello.origin and other is not neighbour and not self.resolve_double(neighbour, other):
                return False
        return True

    def resolve_double(self, new: Neighbour, old: Neighbour) -> bool:
        """Two links to one member, dialled from both ends at once. Returns whether the new one stays.

        The subtle spot: the two ends decide alone, must drop the same link, and may see the two in a different order. So
        the rule uses only what both ends know: the link that the higher origin dialled stays; of two that one end dialled,
        the new one. If they come from two hosts, one may be a stranger under a stolen origin, which must not cost the real
        member its link.
        """
        if new.host != old.host and not (is_loopback(new.host) and is_loopback(old.host)):
            return self._admit_claim(new)
        ours_new, ours_old = new.attempt is not None, old.attempt is not None
        keep_new = ours_new == ours_old or ours_new == (self._author.origin > new.origin)
        sometimes("of two links the new one stays" if keep_new else "of two links the old one stays")
        self._decline(old if keep_new else new, DOUBLE)
        return keep_new

    def _admit_claim(self, new: Neighbour) -> bool:
        """A second host claims an origin. Returns whether this link stays, too."""
        sometimes("a second host claims an origin")
        claims = sum(other.origin == new.origin for other in self._links.mesh(greeting=True))
        if claims <= MAX_CLAIMS:
            return True
        self._decline(new, DOUBLE)
        if new.kind is GREETING:  # perhaps the true one: a record that it never wrote tells it that others use its origin
            new.queue(join([encode_record(Kind.SAY, new.origin, FORGED, int(self._clock.wall), new.name, b"")]))
        return False

    def _decline(self, neighbour: Neighbour, reason: str) -> None:
        """Hang up on a member that we are already linked to. Send our hello first, so that the dialler decides the same way."""
        hello = encode_hello(Hello(self._author.origin, self._port, False, self._author.name))
        self._links.hang_up(neighbour, reason, hello if neighbour.kind is GREETING else None)

    def _greet(self, neighbour: Neighbour) -> None:
        addresses = self._links.addresses_but(neighbour, greeting=True)
        hello = Hello(self._author.origin, self._port, False, self._author.name, addresses, self._log.vector())
        neighbour.queue_frame(encode_hello(hello))
        neighbour.greeted_as = self._author.origin


# The network ---------------------------------------------------------------------------------

PING_SECONDS, MOST_PINGS = 10, 3  # silence before a ping; unanswered pings before the link is given up
BEFORE_SECONDS = 60  # in which the history comes after we joined: then we believe nobody any more about what we have missed
EARLIER_SECONDS = 10  # a message that a new link brings is marked as earlier if it was said longer ago
AGAIN_SECONDS = 10  # between two notices that we are connected again, or that nobody is connected
ALONE_SECONDS = 1.5  # after the last link was lost, until our user is told; by then another one may be up
RENEW_SECONDS, FORGED_PAUSE = 2, 60  # between two changes of our origin; between two notices that somebody forges our name
MISSING_PAUSE = 10  # seconds between two notices of what is missing: a liar may skip sequences without end
MAX_NAMED_AT_ONCE = 8  # names in a notice about one link


class Network:
    """A whole member, but for its sockets and its screen. Report what happened, then carry out `actions`.

    A replicated log over a bounded random graph: each neighbour is sent what it lacks of the log, in the log's order
    (anti-entropy, with a version vector in each hello). C programs are at the edge, on plain links, and see nothing of it.

    Catching up is nothing special. A member that is stopped for a moment finds the rest waiting in its links. One that
    was stopped longer has lost them (_overdue), dials again (Overlay.fill), and its new neighbours start from the vector
    in its hello (_met, Neighbour._take_records), as with a latecomer.

    What came is passed on before it is worked out what our user is shown of it (`tell`): for the one everybody behind us
    waits, for the other only our user. But what C programs may have already is found out first (Bridge.may_have).

    The caller sets `now` (seconds of a monotonic clock) and `wall` (seconds since 1970) before each call; `rng` is the
    only source of chance. So a simulator can run it, and replay a run.
    """

    def __init__(self, name: bytes, port: int, rng: Random, now: float = 0.0, wall: float = 0) -> None:
        self.name, self.port = name, port  # name: bytes; port: where we listen
        self.clock = clock = Clock(now, wall)
        # Whether an address is still one of this machine's; the caller says
        self.has_address: Callable[[str], bool] = lambda host: True
        self._actions = Actions()
        self._later: deque[Later] = deque()
        self.contacts: list[Contact] = []
        self.log = Log()
        self.author = Author(name, self.log, clock, rng)
        self.links = Links(self.author, self._actions)
        self.overlay = Overlay(self.author, clock, rng, self.links, self.contacts, self._actions)
        self.presence = Presence(self.author, clock, rng, self.log, self.links, self._actions)
        self.bridge = Bridge(self.author, port, clock, rng, self.log, self.links, self.presence, self.overlay.find,
                             self._actions, self._later)
        self.handshake = Handshake(self.author, port, clock, self.log, self.links, self.overlay, self._met, self._settled)
        self.discovery: Optional[Discovery] = None  # a Discovery, once our user asks for it
        self._before: dict[int, int] = {}  # origin -> the sequence up to which it spoke before we joined: that is not news
        self._before_until = now
        self._alone_told_at = -inf
        self._renew_at = self._forged_told_at = self._again_at = self._missing_after = now
        self._missing = 0  # messages of which our user will be told that they are missing
        self._was_cut_off = False  # our last neighbour was lost (not if it left)
        self.was_connected, self._told_alone = False, False  # whether we ever were; whether our user knows that nobody is connected now
        self._tell_alone_at: Optional[float] = None  # when our user is told that the last link is lost
        self._unheard_from: Optional[int] = None  # the log's number of the first thing that our user said to nobody
        self._forged_from: Optional[int] = None  # the first of our sequences that somebody forged, or may have
        self._forged: set[int] = set()  # those that we have seen
        self._planned: Optional[float] = None  # the deadline that was worked out last
        self._replan = True
        self._offered = 0  # the end of the log at the last call of to_send

    # What the caller tells -------------------------------------------------------------------

    @property
    def now(self) -> float:
        """The caller's monotonic clock, in seconds."""
        return self.clock.now

    @now.setter
    def now(self, seconds: float) -> None:
        self.clock.now = seconds

    @property
    def wall(self) -> float:
        """The caller's clock, in seconds since 1970."""
        return self.clock.wall

    @wall.setter
    def wall(self, seconds: float) -> None:
        self.clock.wall = seconds

    @property
    def neighbours(self) -> list[Neighbour]:
        """The far ends of all links, oldest first."""
        return self.links.all

    @property
    def actions(self) -> Actions:
        """What the caller is to do next. Ask for it after to_send: for that everybody waits, for this only our user."""
        return self.tell()

    def tell(self) -> Actions:
        """Work out what is news to our user of what came. Returns `actions`."""
        later = self._later
        while later:
            work, first, second = later.popleft()
            work(first, second)
        return self._actions

    @property
    def is_alone(self) -> bool:
        """Whether nobody is connected: what our user says is kept, and delivered when somebody is."""
        return not any(neighbour.is_linked for neighbour in self.links.all)

    def next_deadline(self) -> Optional[float]:
        """When to call tick (seconds); None: nothing is planned, and an idle member sleeps. Early perhaps, never late."""
        if self._replan:  # worked out only after a change, not in every turn of a busy loop
            self._replan, self._planned = False, self._plan()
        return self._planned

    def to_send(self) -> tuple[Sequence[Neighbour], Sequence[Neighbour]]:
        """Take out a message that came alone, as most do, and say whom to send something.

        Returns (those that lack only that message: send them `log.last`, others that may lack something: take it from them).
        """
        outbox, end = self.links.outbox, self.log.end
        if self._offered == end and not outbox:
            return NOBODY, NOBODY
        lone: list[Neighbour] = []
        others, last = [*outbox], end - 1
        for neighbour in outbox:
            neighbour.is_level = False
        for neighbour in self.links.all if self._offered != end else ():
            if neighbour.position == last and neighbour.is_level:
                neighbour.position = end
                lone.append(neighbour)
            elif neighbour.position != end and neighbour not in outbox:
                others.append(neighbour)
        outbox.clear()
        self.bridge.new_from, self._offered = self._offered, end
        return lone, others

    def _plan(self) -> Optional[float]:
        times = [contact.due for contact in self.contacts]
        times += [self._due(neighbour) for neighbour in self.links.all if neighbour.kind is not PLAIN]
        times += [self._renew_at] * (self._forged_from is not None) + [self._tell_alone_at]
        times += [self._missing_after] * (self._missing > 0)
        times += [self.log.holes.next_tell(), self.overlay.deadline, self.bridge.deadline, self.presence.deadline]
        times += [self.discovery.deadline] if self.discovery else []
        return soonest(times)

    def join(self, label: str, addresses: Iterable[Address], seconds: Optional[float] = None) -> Contact:
        """Our user wants a link to the peer at one of `addresses`, called `label` in notices. Returns its Contact.

        They may stay silent for so many seconds together; None: DIAL_SECONDS.
        """
        self._replan = True
        contact = Contact(label, addresses, seconds or DIAL_SECONDS)
        self.contacts.append(contact)
        self._dial_contact(contact)
        return contact

    def remember(self, label: str, addresses: Iterable[Address]) -> None:
        """Our user named this peer, too: dial it whenever nobody is connected."""
        contact = Contact(label, addresses, DIAL_SECONDS)
        contact.spare = True
        self.contacts.append(contact)

    def look_around(self, room: bytes) -> None:
        """Find the members of this room (bytes) on our network segments, and be found by them, from now on."""
        self._replan = True
        self.discovery = Discovery(room, self.author, self.port, self.clock, self.links, self.overlay, self.presence, self._actions)

    def overheard(self, host: str, packet: bytes) -> None:
        """A packet came from this host to the group."""
        self._replan = True
        if self.discovery:
            self.discovery.heard(host, packet)

    def say(self, *texts: bytes) -> None:
        """Our user says these texts (bytes, of any length) to everyone, and to our own screen."""
        self.actions.append(Show(self.name, list(texts), mine=True))  # below what came before it
        number = self.author.tell(Kind.SAY, self.name, [part for text in texts for part in split_text(text, MAX_RECORD_TEXT)])
        self._replan |= self.bridge.grew()
        if self.is_alone:
            self._unheard_from = number if self._unheard_from is None else self._unheard_from
            self._tell_alone()

    def _tell_alone(self) -> None:
        self._tell_alone_at = None
        if not self._told_alone:
            self._told_alone, self._alone_told_at = True, self.now
            self._actions.notice("nobody is connected; what you say is kept and delivered when somebody is" if self.was_connected
                                 else "nobody else is here yet; what you say is delivered to whoever joins")

    @property
    def unheard(self) -> bool:
        """Whether our user has said something, and nobody was connected since."""
        return self._unheard_from is not None

    def _connected(self, neighbour: Neighbour) -> None:
        """Somebody hears us now: a C program, too, gets what was said to nobody."""
        if neighbour.kind is PLAIN and self._unheard_from is not None:
            neighbour.position = self._unheard_from
        self.was_connected, self._told_alone, self._tell_alone_at, self._unheard_from = True, False, None, None

    def leave(self) -> None:
        """Say goodbye to all, after whatever is still to be sent to them."""
        self.overlay.leaving, self.discovery = True, None
        self.contacts.clear()
        self.presence.leave()
        goodbye = self.links.goodbye
        for neighbour in self.links.all:
            if neighbour.kind is STRANGER:
                self._settled(neighbour)
            if neighbour.may_be_c and not neighbour.ending:
                self.bridge.finish(neighbour, goodbye)

    def opened(self, host: str, attempt: Optional[Attempt] = None, own_host: str = "") -> Neighbour:
        """A connection is up; `attempt` if we dialled it; `own_host` is the address of our end. Returns its Neighbour."""
        self._replan = True
        kind = STRANGER if attempt is None else PLAIN if attempt.plain else PROBING
        neighbour = Neighbour(host, attempt, kind, self.now, self.wall, own_host, self.links.outbox)
        self.links.all.append(neighbour)
        self.overlay.opened(attempt)
        if kind is PROBING:
            self.handshake.begin(neighbour)
        else:
            self.bridge.opened(neighbour)
        if kind is PLAIN:
            self._connected(neighbour)
            self.bridge.settled(neighbour)
            self._reached(neighbour)
        return neighbour

    def dial_failed(self, attempt: Attempt, reason: str) -> None:
        """A Connect failed; `reason` is a sentence without its subject."""
        self._replan = True
        contact = attempt.contact
        self.overlay.failed(attempt)
        if contact is None:
            return
        if contact.untried:
            self._dial_contact(contact)
            return
        contact.failure = reason
        if not contact.reached and not contact.spare:
            self._forget_contact(contact)
            self._actions.notice("can't connect to {}: it {}", contact.label, reason)
        self._plan_redial(contact)

    def make_way(self) -> bool:
        """There are too many links: let one go, for a newcomer. Returns False if none can be spared now.

        It is the newest silent link of the host with most of these: an earlier one, or the only one of its host, may be a C
        program whose user is just quiet. If all of them talk, it is the link that was silent for longest, of the host with
        most links; if no two have the same host, of those that came last.
        """
        guests = [neighbour for neighbour in self.links.all if neighbour.kind in (PLAIN, GREETING)
                  and not neighbour.attempt and not neighbour.ending and neighbour.since + STRANGER_SECONDS <= self.now]
        silent = _of_the_largest_crowd([neighbour for neighbour in guests if not neighbour.spoke])
        talkers = _of_the_largest_crowd([neighbour for neighbour in guests if neighbour.spoke])
        crowd = silent or sorted(talkers, key=lambda guest: guest.heard_at, reverse=True)
        found = crowd[-1] if crowd else None
        if found is None and len(guests) > len(self.links.all) // 2:  # talkers of different hosts: who was here first stays
            found = min(guests[len(guests) // 2:], key=lambda guest: (guest.spoke, guest.heard_at))
        if found is not None:
            self.links.hang_up(found, "was one of too many from that address")
        return found is not None

    def received(self, neighbour: Neighbour, data: bytes) -> None:
        """Bytes came from this neighbour, in whatever pieces."""
        if neighbour.ending:
            return
        neighbour.heard_at, neighbour.pings = self.clock.now, 0
        neighbour.frames.feed(data)
        try:
            if neighbour.kind is MESH or self._read(neighbour):
                self._read_records(neighbour)
        except ProtocolError as error:
            self.tell()
            self.links.hang_up(neighbour, str(error))
        if self.bridge.grew():
            self._replan = True

    def closed(self, neighbour: Neighbour, reason: str, lost: int = 0) -> None:
        """This neighbour's link is closed; `reason` is a sentence without its subject.

        `lost`: bytes of what was taken out to be sent to it that did not arrive.
        """
        self.tell()
        self._replan = True
        self.links.all.remove(neighbour)
        self.links.ours.pop(neighbour, None)
        self.links.outbox.discard(neighbour)
        if neighbour.kind is PROBING:
            self._probe_failed(neighbour, reason)
        elif neighbour.kind is MESH:
            self._mesh_closed(neighbour, reason)
        elif neighbour.kind is PLAIN:
            neighbour.keep_place(lost)
            self._plain_closed(neighbour, reason)
        elif neighbour.kind is STRANGER:
            self.bridge.forget(neighbour)
        elif neighbour.kind is GREETING and neighbour.address and not neighbour.ending:
            self.overlay.find(neighbour, *neighbour.address, neighbour.origin)  # it gave up waiting for us, and may take us for a C program
        self.overlay.fill()

    def woke(self) -> None:
        """We were stopped or asleep, for an unknown time: others may have taken our place."""
        self._replan = True
        self.bridge.woke()
        self.presence.woke()
        self._restart_discovery()

    def tick(self) -> None:
        """The deadline has come: do what is due."""
        self.tell()
        self._replan = True
        for neighbour in list(self.links.all):
            if self.clock.has_reached(self._due(neighbour)):
                self._overdue(neighbour)
        if self._before_until <= self.now:
            self._before = {}
        self._redial()
        if self.clock.has_reached(self._tell_alone_at):
            self._was_cut_off = True
            self._tell_alone()
        self._tell_missing()
        self._renew()
        self.bridge.tick()
        self.presence.tick()
        self.overlay.tick()
        if self.discovery:
            self.discovery.tick()

    def _redial(self) -> None:
        for contact in [contact for contact in self.contacts if self.clock.has_reached(contact.due)]:
            contact.due, contact.untried = None, list(contact.addresses)
            if not contact.spare or self.is_alone:
                self._dial_contact(contact)

    def who(self) -> list[Person]:
        """Everybody here but ourselves, as Persons."""
        self.tell()
        return self.presence.who()

    # One link: dispatch on what it is --------------------------------------------------------

    def _read(self, neighbour: Neighbour) -> bool:
        """Read until it is a mesh link or nothing is left: what is said may change the link's kind. Returns whether it is a mesh link."""
        if neighbour.kind is PLAIN:
            self._read_pairs(neighbour)
        while neighbour.kind not in KNOWN and not neighbour.ending:
            self.tell()
            kind, self._replan = neighbour.kind, True
            if kind is PROBING:
                self.handshake.read_answer(neighbour)
            elif kind is GREETING:
                self.handshake.read_hello(neighbour)
            else:
                self._read_pairs(neighbour)
            if neighbour.kind is kind:
                break
        return neighbour.kind is MESH

    def _read_pairs(self, neighbour: Neighbour) -> None:
        found = neighbour.frames.next_pairs()
        while found is not None:
            name, texts = found
            self.tell()  # what came before it
            if self.handshake.read_probe(neighbour, texts[0]):
                self.bridge.forget(neighbour)
                return
            self._settled(neighbour)
            self.bridge.received(neighbour, as_c_reads(name), [as_c_reads(texts[0])] if b"\0" in texts[0] else texts)
            if neighbour.ending:
                return
            found = neighbour.frames.next_pairs()

    def _read_records(self, neighbour: Neighbour) -> None:
        found = neighbour.frames.next_run()
        while found is not None and not neighbour.ending:
            if isinstance(found, Run):
                self._take_run(neighbour, found)
            else:
                self.tell()
                self._record(neighbour, found)
            found = neighbour.frames.next_run()

    def _settled(self, neighbour: Neighbour) -> None:
        """It is a C program, as far as anybody can tell."""
        if neighbour.kind is STRANGER:
            neighbour.kind = PLAIN
            self._connected(neighbour)
            self.bridge.settled(neighbour)

    def _met(self, neighbour: Neighbour, hello: Hello) -> None:
        """Both have said hello: a mesh link from here on."""
        is_first, alone = not self.overlay.book.met, not self.links.mesh()
        self.links.found_member(neighbour, MESH)
        self._connected(neighbour)
        neighbour.name = hello.name
        neighbour.vector_at_hello = hello.vector
        neighbour.is_foreign = not any(origin in self.log.have for origin in hello.vector if origin != self.author.origin)
        neighbour.position, neighbour.filter_until = self.log.start, self.log.end
        neighbour.met_at = self.log.end
        neighbour.follow(self.log)
        if neighbour.greeted_as != self.author.origin:
            neighbour.queue_frame(encode_renamed(self.author.origin))  # we took another one while we waited for its hello
        lacking = self.author.recent(self.presence.together_until(hello.origin)) + self.log.holes.youngest(hello.origin)
        if lacking:
            neighbour.queue_frame(encode_ask(lacking))
        if is_first and neighbour.attempt:
            self._before, self._before_until = hello.vector, self.now + BEFORE_SECONDS
        self.presence.linked(hello.origin, hello.name, is_first=alone)
        self.bridge.met(hello.origin)
        self.overlay.met(neighbour, hello)
        if alone:
            self._restart_discovery()
        self._announce_link(neighbour, hello, is_first)

    def _announce_link(self, neighbour: Neighbour, hello: Hello, is_first: bool) -> None:
        """Tell our user of a new mesh link if it is one that they wait for."""
        if neighbour.contact:
            neighbour.contact.plain, neighbour.contact.place, neighbour.contact.origin = False, None, neighbour.origin
            self._reached(neighbour)
        elif is_first and self.discovery and neighbour.attempt and neighbour.attempt.announced is not None:
            self._actions.notice("found {} in room {}", self.presence.label(hello.origin, hello.name), self.discovery.room)
        elif self._was_cut_off and self.now >= self._again_at:  # announce two crossed dials once
            self._was_cut_off, self._again_at = False, self.now + AGAIN_SECONDS
            self._actions.notice("connected again, through {}", self.presence.label(hello.origin, hello.name))

    def _reached(self, neighbour: Neighbour) -> None:
        contact, attempt = neighbour.contact, neighbour.attempt
        assert contact and attempt  # our user named it, and it was dialled
        contact.addresses = (attempt.address,)  # of several, the one that works
        self._actions.notice("connected to {} again" if contact.reached else "connected to {}", contact.label)
        contact.reached, contact.spare = True, False

    def _due(self, neighbour: Neighbour) -> Optional[float]:
        """When something is due on this link; None: never."""
        if neighbour.ending:
            return None
        if neighbour.kind is MESH:
            return max(neighbour.heard_at, neighbour.pinged_at) + PING_SECONDS
        return self.handshake.due(neighbour)

    def _overdue(self, neighbour: Neighbour) -> None:
        if neighbour.kind is not MESH:
            self.handshake.overdue(neighbour)
        elif neighbour.pings >= MOST_PINGS:
            sometimes("a silent neighbour is given up")
            self.links.hang_up(neighbour, "is silent")
        elif not self.has_address(neighbour.own_host):  # our address has changed: what is sent to the old one is lost
            for dead in [link for link in self.links.all if link.own_host == neighbour.own_host]:
                self.links.hang_up(dead, "was reached from an address that this machine no longer has")
        else:
            neighbour.pings += 1
            neighbour.pinged_at = self.now
            neighbour.queue_frame(bytes([Kind.PING]))

    # One link: its end -----------------------------------------------------------------------

    def _probe_failed(self, neighbour: Neighbour, reason: str) -> None:
        contact, attempt = neighbour.contact, neighbour.attempt
        assert attempt  # it was dialled
        if reason == DOUBLE and contact:
            self._reached(neighbour)
        elif reason in (DOUBLE, SPARED):
            return
        elif contact is None:
            self.overlay.refused(attempt, has_no_room=reason == NO_ROOM)
        elif reason == PLAIN_ANSWER:
            contact.plain = True
            contact.untried.insert(0, attempt.address)
            self._dial_contact(contact, plain=True)
        else:
            self.dial_failed(attempt, reason)

    def _mesh_closed(self, neighbour: Neighbour, reason: str) -> None:
        if self.links.is_linked(neighbour.origin, greeting=True):
            return
        self.overlay.closed(neighbour)
        self.presence.neighbour_lost(neighbour.origin, was_spared=reason == SPARED)
        if not self.links.mesh():
            is_loss = self.presence.is_here(neighbour.origin)
            self._was_cut_off = is_loss and reason != SPARED  # whoever let us go named others, whom we dial at once
            self._lost_last(is_loss)
            self.presence.alone()
            self._restart_discovery()

    def _lost_last(self, is_loss: bool) -> None:
        if not self.is_alone or self.overlay.leaving:
            return
        if is_loss:
            self._tell_alone_at = max(self.now + ALONE_SECONDS, self._alone_told_at + AGAIN_SECONDS)
        for contact in self.contacts:
            if contact.spare and contact.due is None and not self.overlay.is_dialling(contact):
                contact.pause = REDIAL_FIRST
                self._plan_redial(contact)

    def _restart_discovery(self) -> None:
        if self.discovery:
            self.discovery.restart()

    def _plain_closed(self, neighbour: Neighbour, reason: str) -> None:
        contact = neighbour.contact if neighbour.contact in self.contacts else None
        self.bridge.closed(neighbour)
        if neighbour.left is not None:
            self._forget_contact(contact)
            self._lost_last(False)
            return
        self._lost_last(contact is not None or neighbour.spoke)
        if contact is None and not neighbour.spoke:
            return
        behind = [unmarked(frame)[0] for key, frame in neighbour.names.items() if not self.presence.is_here(key)]
        who: list[Part] = [*behind[:MAX_NAMED_AT_ONCE]] or ["a C program"]
        words = "lost contact with " + ", ".join(["{}"] * len(who)) + " at {}: it {}"
        if contact is None:
            self.presence.announce(words, *who, neighbour.host, reason)
            return
        self._actions.notice(words + "; dialling again", *who, neighbour.host, reason)
        if self.now - neighbour.since > REDIAL_MOST:
            contact.pause = REDIAL_FIRST
        self._plan_redial(contact)

    def _dial_contact(self, contact: Contact, plain: bool = False) -> None:
        address = contact.untried.pop(0)
        self.overlay.dial(Attempt(address, contact, True, plain), contact.seconds / len(contact.addresses))

    def _plan_redial(self, contact: Contact) -> None:
        # The overlay finds members again by itself; only a C program has to be dialled at its own address.
        is_wanted = self.is_alone if contact.spare else contact.reached and contact.plain
        if contact not in self.contacts or not is_wanted:
            return
        contact.due = self.now + contact.pause
        contact.pause = min(contact.pause * 2, REDIAL_MOST)

    def _forget_contact(self, contact: Optional[Contact]) -> None:
        if contact in self.contacts:
            self.contacts.remove(contact)

    # What other members tell -----------------------------------------------------------------

    def _take_run(self, neighbour: Neighbour, run: Run) -> None:
        """Take what is new in a run. A copy that came around a circle only shows what this neighbour has."""
        _, origin, first, _, _, frames = run
        if origin in self.author.origins:
            self._own(neighbour, origin, frames)
            return
        log, last = self.log, first + len(frames) - 1
        number, have = log.end, log.have.get(origin, 0)
        if first == have + 1 and first > neighbour.vector_at_hello.get(origin, 0) and first > self._before.get(origin, 0):
            # As a rule: somebody said the next thing. What it means to our user can wait until it is sent on.
            log.append(origin, last, frames)
            neighbour.brought(origin, first, last, number)
            if self._later and run.kind == Kind.GUEST:
                self.tell()  # another gateway may have told the same line
            self._later.append((self._deliver, run, number))
            if self.bridge.may_have(run):
                self.tell()
            return
        self.tell()
        is_known = last <= have and not log.may_lack(origin, first, neighbour.has_learned(origin, first))
        if first > have:
            self._extend(neighbour, run, False)
        elif not is_known:
            for low, high, late in log.news(origin, first, last):
                self._extend(neighbour, run.part(low - first, high - first + 1), late)
        if not is_known or origin != neighbour.origin:  # else our copy may be forged, and its owner must see it
            neighbour.has(origin, first, last)

    def _extend(self, neighbour: Neighbour, run: Run, late: bool) -> None:
        """Log and deliver a new run: as a whole, or record by record where some may be earlier."""
        if late:
            sometimes("a hole is filled")
        _, origin, first, _, _, frames = run
        log, last = self.log, first + len(frames) - 1
        is_live = first > neighbour.vector_at_hello.get(origin, 0)
        number = log.extend(origin, last, frames, self.now, late, is_live)
        neighbour.brought(origin, first, last, number)
        self._replan = True  # there may be a new hole
        if is_live and not late and first > self._before.get(origin, 0):
            self._deliver(run, number)
            return
        for offset in range(len(frames)):
            one = run.part(offset, offset + 1)
            is_old = one.sequence <= neighbour.vector_at_hello.get(origin, 0) and self.wall - one.when > EARLIER_SECONDS
            if neighbour.is_foreign and not is_old:
                self.bridge.skip_behind(neighbour.origin, number + offset)
            earlier = late or is_old or one.sequence <= self._before.get(origin, 0)
            self._deliver(one, number + offset, earlier, is_history=neighbour.is_foreign and is_old, is_late=True, fills_hole=late)

    def _deliver(self, run: Run, number: int, earlier: bool = False, is_history: bool = False, is_late: bool = False,
                 fills_hole: bool = False) -> None:
        """Show what is new. C programs get it from the log, except what they have, and another network's history."""
        kind, origin, sequence, when, name, frames = run
        if is_history:
            sometimes("history of another network comes")
            self.bridge.skip(number, len(frames))
        is_alive = self.presence.is_alive(origin, sequence + len(frames) - 1, fills_hole)
        if kind == Kind.SAY:
            label = self.presence.heard(origin, name) if is_alive else self.presence.label(origin, name)
            news = self.bridge.said(run, run.texts(), number)
        else:
            if is_alive:
                self.presence.note_alive(origin)
            label, news = self.bridge.told(run, number, is_late)
        if news:
            self._actions.show(label, news, when if earlier else 0)

    def _record(self, neighbour: Neighbour, frame: bytes) -> None:
        """A record that is not chat."""
        body = frame[HEADER_SIZE:]
        kind = body[0] if body else None
        if kind is None or kind == Kind.HELLO:
            raise ProtocolError("said hello twice" if kind else "sent an empty record")
        if kind == Kind.PING:
            if not neighbour.queued:  # a neighbour that does not read our answers gets no more of them
                neighbour.queue_frame(bytes([Kind.PONG]))
        elif kind == Kind.PEERS:
            self.overlay.learn(neighbour, decode_addresses(body))
        elif kind == Kind.BYE:
            self.overlay.learn(neighbour, decode_addresses(body))
            self.links.hang_up(neighbour, SPARED)
        elif kind == Kind.ASK:
            self._asked(neighbour, decode_ask(body))
        elif kind == Kind.RENAMED:
            self._renamed(neighbour, decode_renamed(body))
        elif FIRST_LOGGED <= kind <= LAST_LOGGED:
            self._logged(neighbour, frame)

    def _asked(self, neighbour: Neighbour, ranges: list[Range]) -> None:
        if not neighbour.has_asked:  # only once: it takes a walk through the log
            neighbour.has_asked = True
            sometimes("a neighbour asks for what it lacks")
            neighbour.ask(self.log.find(ranges))

    def _renamed(self, neighbour: Neighbour, origin: int) -> None:
        if sum(other.origin == origin for other in self.links.mesh(greeting=True)) >= MAX_CLAIMS:
            self.links.hang_up(neighbour, DOUBLE)  # links of one origin count once: a stranger could have any number
        elif not self.author.is_ours(origin):
            old, neighbour.origin = neighbour.origin, origin
            if not self.links.is_linked(old, greeting=True):  # else a stranger had greeted under it
                self.presence.renamed(old, origin, neighbour.name)

    def _logged(self, neighbour: Neighbour, frame: bytes) -> None:
        record = decode_record(frame)
        if self.author.is_ours(record.origin):
            self._own(neighbour, record.origin, [frame])
            return
        is_live = neighbour.has_learned(record.origin, record.sequence)
        self.log.may_lack(record.origin, record.sequence, is_live)
        news = self.log.news(record.origin, record.sequence, record.sequence)
        if news:
            ((_, _, late),) = news
            number = self.log.extend(record.origin, record.sequence, [frame], self.now, late, is_live)
            neighbour.brought(record.origin, record.sequence, record.sequence, number)
            self._replan = True
            is_news = record.sequence > self._before.get(record.origin, 0) and not late
            is_alive = self.presence.is_alive(record.origin, record.sequence, late)
            if is_alive:
                self.presence.note_alive(record.origin)
            if is_alive or record.kind != Kind.HERE:
                self._told(record, is_news)
        elif record.origin != neighbour.origin:  # else our copy may be forged, and its owner must see it
            neighbour.has(record.origin, record.sequence, record.sequence)

    def _told(self, record: Record, is_news: bool) -> None:
        if record.kind == Kind.GUEST_GONE:
            self.bridge.guest_gone(record, is_news)
        elif record.kind == Kind.HERE:
            self.presence.here(record.origin, record.name, is_news)
        elif record.kind == Kind.LEFT:
            self.presence.left(record.origin, decode_left(record.text), is_news)
            self.overlay.forget(record.origin)
        else:
            forged = self.presence.lost(record, is_news)
            if forged is not None:
                self._note_forged(forged)

    def _tell_missing(self) -> None:
        missing = self._missing = self._missing + self.log.holes.tell(self.now)
        if missing and self._missing_after <= self.now:
            sometimes("missing messages are told")
            self._missing, self._missing_after = 0, self.now + MISSING_PAUSE
            words = "{} message is missing: nobody connected has it any more"
            self._actions.notice(words if missing == 1 else "{} messages are missing: nobody connected has them any more", f"{missing:,}")

    # Speaking in our name --------------------------------------------------------------------

    def _own(self, neighbour: Neighbour, origin: int, frames: list[bytes]) -> None:
        """Records with one of our own origins: ours came back, or somebody forged them."""
        forged = [frame for frame in frames if origin == self.author.origin and self.author.is_forged(frame)]
        if not forged:
            neighbour.has(origin, read_id(frames[0])[1], read_id(frames[-1])[1])
        else:
            sequences = [read_id(frame)[1] for frame in forged]
            self._forged.update(sequence for sequence in sequences if sequence <= self.author.sequence)
            self._note_forged(sequences[0])

    def _note_forged(self, sequence: int) -> None:
        """Somebody forged this sequence of ours, and perhaps further ones."""
        self._forged_from = min(self._forged_from or FORGED, self.author.hidden_from(sequence))
        self._replan = True
        self._renew()

    def _renew(self) -> None:
        """Our origin was forged: take a new one, soon, and say again what the forgery may have covered."""
        if self._forged_from is None or self.now < self._renew_at:
            return
        sometimes("our origin is changed")
        old, said = self.author.origin, self.author.said_since(self._forged_from, self._forged)
        self._forged_from, self._forged = None, set()
        self._renew_at = self.now + RENEW_SECONDS
        self.author.renew()
        for neighbour in self.links.mesh():
            neighbour.queue_frame(encode_renamed(self.author.origin))
        self.author.tell(Kind.LOST, self.name, [encode_lost(old, FORGED)])
        self.bridge.skip(*self.author.say_again(said))  # our C programs have it already
        self.bridge.renamed()
        self.presence.renamed(old, self.author.origin, self.name)
        self._replan = True
        if self.now >= self._forged_told_at:
            self._forged_told_at = self.now + FORGED_PAUSE
            self._actions.notice("someone else is sending messages in your name; your last messages were sent again, so some people may see them twice")


def _of_the_largest_crowd(neighbours: Sequence[Neighbour]) -> list[Neighbour]:
    """Those of the host that has most of these, oldest first; none if no host has two."""
    crowds = Counter(neighbour.host for neighbour in neighbours)
    most = max(crowds.values(), default=0)
    return [neighbour for neighbour in neighbours if crowds[neighbour.host] == most > 1]


# Hosts ---------------------------------------------------------------------------------------

def is_loopback(host: str) -> bool:
    """Whether this numeric host means the speaker's own machine."""
    return host.startswith("127.") or host == "::1"


def own_end(link: Neighbour) -> str:
    """Our address there, which tells networks apart. All loopback addresses are one: a local program can dial any of 16 million."""
    return "loopback" if is_loopback(link.own_host) else link.own_host


def is_link_local(host: str) -> bool:
    """Whether this numeric host is link-local: an IPv6 address of one network segment, the one of the interface behind the %."""
    return host.startswith("fe80:")


@lru_cache(maxsize=1024)  # the same few are named again and again
def is_dialable(host: str) -> bool:
    """Whether this is the numeric address of one machine: not a name, not "any", not multicast or broadcast."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if address.version == 6:
        return not (address.is_unspecified or address.is_multicast or address.ipv4_mapped)
    return 0 < address.packed[0] < 224 and str(address) == host  # Python 3.9.0 to 3.9.4 take leading zeros


# Which links to have -------------------------------------------------------------------------

FAILED_PAUSE = 0, 60  # seconds for which a failed address is not dialled
MAX_BOOK = 128  # addresses heard of
MAX_FRIENDS = 8  # addresses of members we once met, to find the other half after a split: a reservoir sample


class Book:
    """The passive view: where members can be dialled. address -> origin, or None while we do not know who is there."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.heard: dict[Address, Optional[int]] = {}  # from live neighbours; what fails is dropped
        # A fair sample of all members we were ever linked to: some may be the other half after a split
        self.friends: dict[Address, int] = {}
        self.met = 0
        self.shunned: dict[Address, float] = {}  # address -> until when it is not dialled
        self.proven: dict[Address, None] = {}  # addresses where a member answered us; the values mean nothing

    def note(self, address: Address, origin: Optional[int] = None) -> None:
        """A member may be dialled there; `origin` if we know which."""
        self.heard[address] = origin if origin is not None else self.heard.get(address)
        if len(self.heard) > MAX_BOOK:
            del self.heard[self.rng.choice(list(self.heard))]

    def prove(self, address: Address) -> None:
        """A member answered there."""
        self.proven[address] = None
        keep_newest(self.proven, MAX_BOOK)

    def befriend(self, address: Optional[Address], origin: int) -> None:
        """Reservoir sampling (Vitter 1985, algorithm R): each member ever met is a friend with equal chance."""
        self.met += 1
        if address is None or address in self.friends:
            return
        if len(self.friends) < MAX_FRIENDS:
            self.friends[address] = origin
        elif self.rng.randrange(self.met) < MAX_FRIENDS:
            del self.friends[self.rng.choice(list(self.friends))]
            self.friends[address] = origin

    def shun(self, address: Optional[Address], until: float) -> None:
        """Do not dial this address before `until`. None: we do not know where that was."""
        if address is None:
            return
        self.shunned[address] = until
        keep_newest(self.shunned, MAX_BOOK)

    def failed(self, address: Address, now: float) -> None:
        """No member answered there."""
        self.heard.pop(address, None)
        self.proven.pop(address, None)
        self.shun(address, now + self.rng.uniform(*FAILED_PAUSE))

    def forget(self, origin: int) -> None:
        """Nobody will answer where this member was."""
        for addresses in (self.heard, self.friends):
            for address in [address for address, owner in addresses.items() if owner == origin]:
                del addresses[address]

    def fresh(self, now: float) -> dict[Address, Optional[int]]:
        """The addresses heard of that may be dialled now."""
        self.shunned = {address: until for address, until in self.shunned.items() if until > now}
        return {address: origin for address, origin in self.heard.items() if address not in self.shunned}

    def next_fresh(self) -> Optional[float]:
        """When the next shunned address may be dialled again, or None."""
        return min((until for address, until in self.shunned.items() if address in self.heard), default=None)


# tests/simulator.py measures the mesh: with 4 and 6 a delivery costs 4 copies instead of 6, but more hops
WANT_LINKS, MAX_MESH_LINKS = 5, 8  # the active view: five random links hold a network together when half of it dies
MAX_LINKS = 1024  # of all kinds; each costs a descriptor and a few KB, and a stranger can ask for as many as it likes
DIAL_SECONDS = 10  # for all addresses of a peer that our user named, together, to answer
MAX_DIALS = 3  # probes under way at once
MESH_DIAL_SECONDS = 5  # for an address that the network picked to answer
SHUFFLE_SECONDS = 15, 45  # between two swaps
# A newcomer's first swaps come sooner, after this share of the time: it knows only the neighbours of those it joined through,
# and where 90 % died, nobody who lived.
FIRST_SHUFFLES, SOONER = 3, 0.2
FRIEND_SHARE = 0.3  # of swaps that try a friend first
OUTBOUND_QUOTA = 3  # the last links that we dialled, never given up for a caller (as in gossipsub v1.1)
ELDEST_CALLERS = 3  # the oldest callers, never given up for another, or a crowd of strangers would leave us nobody else
SETTLED_SECONDS = 10  # by then a neighbour has other links, so that somebody notices if it dies after we let it go
RESERVE_FIRST, RESERVE_MOST = 1, 15  # seconds between two dials of old acquaintances, doubled each time
NO_ROOM_PAUSE = 1, 3  # seconds for which an address is not dialled where there was no room (a member without links finds room anywhere)
CLOSED_PAUSE = 0, 10  # the same for an address whose link was closed
# Never let a peer use us as a port scanner. Dials to addresses where no member ever answered us: so many at once, then one in
# so many seconds, 60 a minute at most. Of 2,000 members 90 % died, 18 times: with 24 at once, and one in 2 seconds, the rest were
# one network within 3 seconds in 6 of these runs, with these limits in 17, and with the whole book at once in 18.
UNPROVEN_DIALS, UNPROVEN_SECONDS = 44, 4
MAX_NAMED, NAMED_SECONDS = 16, 4  # addresses that one host may name at once, and one more in so many seconds


class Overlay:
    """Which links to have: WANT_LINKS, never more than MAX_MESH_LINKS, to addresses that live neighbours named.

    A random graph with an active view (the links) and a passive one (the Book), as in HyParView (Leitao et al. 2007).
    """

    def __init__(self, author: Author, clock: Clock, rng: Random, links: Links, contacts: list[Contact], actions: Actions) -> None:
        self._author, self._clock, self._rng, self._links, self._contacts, self._actions = author, clock, rng, links, contacts, actions
        self.book = Book(rng)
        self.attempts: list[Attempt] = []  # dials under way
        self.leaving = False
        self._unproven = TokenBucket(UNPROVEN_DIALS, UNPROVEN_SECONDS, clock.now)
        self._naming = FairBuckets(MAX_NAMED, NAMED_SECONDS)
        self._shuffle_at: Optional[float] = None
        self._shuffles = 0
        self._reserve_at, self._reserve_pause = clock.now, RESERVE_FIRST
        self._tried: set[Address] = set()  # old acquaintances that had their turn
        self._sought: dict[Address, int] = {}  # members that we have to find, and their origins

    # What is dialled

    @property
    def deadline(self) -> Optional[float]:
        """When to call tick (seconds); None: nothing is planned."""
        times = [self._shuffle_at]
        if self._wants_links():
            times.append(self.book.next_fresh())
            times += [self._reserve_at] * bool(self._free(self._reserve()))
        if self._wants_links() or self._may_seek():
            times += [self._unproven.next_at] * (not self._unproven.has_one(self._clock.now))
        return soonest(times)

    def tick(self) -> None:
        """Shuffle if it is time, and dial if there are too few links."""
        if self._clock.has_reached(self._shuffle_at):
            self._shuffle()
        self.fill()

    def dial(self, attempt: Attempt, seconds: float = MESH_DIAL_SECONDS) -> None:
        """Have it dialled, and given up after this many seconds."""
        if attempt.contact is None and attempt.address[:2] not in self.book.proven:
            self._unproven.take(self._clock.now)
        attempt = attempt._replace(since=self._clock.now)
        self.attempts.append(attempt)
        self._actions.append(Connect(attempt, seconds))

    def fill(self) -> None:
        """Dial until there are WANT_LINKS, MAX_DIALS at once."""
        self._seek()
        while self._wants_links():
            address = self._pick(self._free(self.book.fresh(self._clock.now))) or self._pick_reserve()
            if address is None:
                return
            self.dial(Attempt(address, urgent=not self._links.mesh()))

    def find(self, neighbour: Neighbour, host: str, port: int, origin: int) -> None:
        """A member is at this address that no link of ours leads to, as a mark or a caller that gave up told: link to it directly."""
        address = self._usable(neighbour, host, port)
        if address is None or self._links.is_linked(origin, greeting=True):
            return
        if self.book.shunned.get(address, 0) > self._clock.now or not self._may_name(neighbour, address):
            return
        self.book.note(address)  # we have only a stranger's word for who is there
        self._sought[address] = origin
        keep_newest(self._sought, MAX_BOOK)
        self._seek()

    def _seek(self) -> None:
        """Dial those who have to be found, even if there are enough links."""
        while self._may_seek() and self._unproven.has_one(self._clock.now):
            address, origin = next(iter(self._sought.items()))
            del self._sought[address]
            if self._free({address: origin}):
                self.dial(Attempt(address, urgent=True))
            else:
                self.book.shun(address, self._clock.now + FIND_SECONDS)  # looking at all links is too much for each mark

    def _may_seek(self) -> bool:
        return bool(self._sought) and len(self.attempts) < MAX_DIALS and not self.leaving

    def near(self, host: str, port: int, origin: int) -> bool:
        """Somebody announces a member on our network segment: link to it. Only that packet says so, so it is not noted.

        Returns whether it is dialled.
        """
        address = (host, port)
        if self.leaving or port < LEAST_PORT or not is_dialable(host) or len(self.attempts) >= MAX_DIALS:
            return False
        if self.book.shunned.get(address, 0) > self._clock.now or not self._free({address: origin}):
            return False
        if any(attempt.announced == origin for attempt in self._under_way()):
            return False  # by another interface
        self.dial(Attempt(address, urgent=True, announced=origin))
        return True

    def is_dialling(self, contact: Contact) -> bool:
        """Whether a dial of this contact is under way, or a connection that may become a link."""
        return any(attempt.contact is contact for attempt in self._under_way())

    def _under_way(self) -> list[Attempt]:
        """The dials under way, and those that led to a link. (Not to a plain one: a member may be there that was slow to answer.)"""
        return self.attempts + [neighbour.attempt for neighbour in self._links.all if neighbour.attempt and neighbour.kind is not PLAIN]

    # What came of it

    def opened(self, attempt: Optional[Attempt]) -> None:
        """A dial was answered."""
        if attempt in self.attempts:
            self.attempts.remove(attempt)

    def failed(self, attempt: Attempt) -> None:
        """A dial failed."""
        self.opened(attempt)
        if attempt.contact is None:
            self._not_there(attempt)
            self.fill()

    def refused(self, attempt: Attempt, has_no_room: bool) -> None:
        """What we dialled did not become a link. If it only had no room, a member is alive there: keep the address."""
        if has_no_room:
            self.book.shun(attempt.address[:2], self._clock.now + self._rng.uniform(*NO_ROOM_PAUSE))
        else:
            self._not_there(attempt)

    def _not_there(self, attempt: Attempt) -> None:
        address = attempt.address[:2]
        is_forged = attempt.announced is not None and (address in self.book.heard or address in self.book.proven)
        if not is_forged:  # a forged packet must not make us forget where members are
            self.book.failed(address, self._clock.now)

    def proved(self, attempt: Attempt) -> None:
        """A member answered there."""
        self.book.prove(attempt.address[:2])

    def met(self, neighbour: Neighbour, hello: Hello) -> None:
        """There is a new mesh link."""
        self._reserve_pause = RESERVE_FIRST
        self.learn(neighbour, hello.addresses)
        if neighbour.address:
            self.book.note(neighbour.address, hello.origin)
        self.book.befriend(neighbour.address, hello.origin)
        if self._shuffle_at is None:
            self._plan_shuffle()
        self._make_room(neighbour)
        self.fill()

    def closed(self, neighbour: Neighbour) -> None:
        """A mesh link is closed."""
        self.book.shun(neighbour.address, self._clock.now + self._rng.uniform(*CLOSED_PAUSE))

    def forget(self, origin: int) -> None:
        """This member said goodbye: nobody will answer."""
        self.book.forget(origin)
        for contact in self._contacts:
            if contact.origin == origin:
                contact.origin = None

    def has_room(self, caller: Neighbour) -> bool:
        """Whether a caller who is not urgent may become a neighbour.

        The first that reached one of our addresses may: perhaps nobody else connects us to that network.
        """
        is_first = all(own_end(link) != own_end(caller) for link in self._links.mesh())
        return is_first or len(self._links.origins()) < MAX_MESH_LINKS

    def learn(self, neighbour: Neighbour, addresses: Iterable[Address]) -> None:
        """Note addresses of members that this neighbour names. It may say anything: only what can be dialled, and not too much."""
        for host, port in addresses:
            address = self._usable(neighbour, host, port)
            if address and address not in self.book.heard and self._may_name(neighbour, address):
                self.book.note(address)

    def _usable(self, neighbour: Neighbour, host: str, port: int) -> Optional[Address]:
        if is_loopback(host) and not is_loopback(neighbour.host):
            host = neighbour.host  # it means "on my machine"
        elif is_link_local(host):  # the interface behind a % is one of its machine's, not of ours
            host = host.partition("%")[0] + "%" + neighbour.host.partition("%")[2]
        return (host, port) if port >= LEAST_PORT and is_dialable(host) else None

    def _may_name(self, neighbour: Neighbour, address: Address) -> bool:
        """No liar may fill the book with dead addresses, or use us as a port scanner."""
        return address in self.book.heard or self._naming.take(neighbour.host, self._clock.now)

    # Which to dial, and which to give up

    def _wants_links(self) -> bool:
        """Whether to dial somebody else now, if we know anybody."""
        dials = len(self.attempts) + sum(neighbour.kind is PROBING for neighbour in self._links.all)
        # Half-open handshakes do not count, or strangers could fill WANT_LINKS.
        return not self.leaving and dials < MAX_DIALS and len(self._links.origins()) < WANT_LINKS

    def _pick(self, addresses: Sequence[Address]) -> Optional[Address]:
        return self._rng.choice(addresses) if addresses else None

    def _pick_reserve(self) -> Optional[Address]:
        """An old acquaintance, in turn, one at a time and after a growing pause: it may be gone for good."""
        if self._clock.now < self._reserve_at:
            return None
        reserve = self._reserve()
        free = self._free(reserve)
        self._tried &= reserve.keys()
        if self._tried.issuperset(free):
            self._tried.clear()
        address = self._pick([address for address in free if address not in self._tried])
        if address is not None:
            self._tried.add(address)
            sometimes("an old acquaintance is dialled")
            self._reserve_at = self._clock.now + self._reserve_pause
            self._reserve_pause = min(self._reserve_pause * 2, RESERVE_MOST)
        return address

    def _plan_shuffle(self) -> None:
        self._shuffles += 1
        self._shuffle_at = self._clock.now + self._rng.uniform(*SHUFFLE_SECONDS) * (SOONER if self._shuffles <= FIRST_SHUFFLES else 1)

    def _shuffle(self) -> None:
        """Swap a link for a random other one, so that no part of the network closes in on itself."""
        self._plan_shuffle()
        for neighbour in self._links.mesh():
            addresses = self._links.addresses_but(neighbour)
            if addresses:
                neighbour.queue_frame(encode_addresses(Kind.PEERS, addresses))
        if len(self._links.origins()) < WANT_LINKS:
            return  # fill is dialling already
        sources = [self._free(self.book.fresh(self._clock.now)), self._free(self.book.friends)]
        if self._rng.random() < FRIEND_SHARE:
            sources.reverse()
        address = self._pick(sources[0] or sources[1])
        if address is not None:
            self.dial(Attempt(address, urgent=True))

    def _reserve(self) -> Mapping[Address, Optional[int]]:
        """Where else to look: friends, and the peers that our user named: those who did not leave or, without any link, all.

        Not in shuffles: all may have named the same one.
        """
        alone = not self._links.mesh()
        named = {contact.addresses[0][:2]: contact.origin for contact in self._contacts
                 if contact.reached and not contact.plain and (alone or contact.origin)}
        return {**named, **self.book.friends}

    def _free(self, source: Mapping[Address, Optional[int]]) -> list[Address]:
        """The addresses in `source` at which we know of nobody that we are linked to or dialling."""
        taken = {neighbour.address for neighbour in self._links.all} | {attempt.address[:2] for attempt in self._under_way()}
        linked = {neighbour.origin for neighbour in self._links.all if neighbour.origin}
        may_dial = self._unproven.has_one(self._clock.now)
        return [address for address, origin in source.items() if address not in taken
                and (origin or self.book.heard.get(address)) not in linked
                and not self._author.is_ours(origin or self.book.heard.get(address))
                and (may_dial or address in self.book.proven)]

    def _make_room(self, newest: Neighbour) -> None:
        """Keep to MAX_MESH_LINKS by letting go of a random other neighbour. It loses nothing: its next link catches it up."""
        was_shuffled = newest.attempt is not None and newest.attempt.contact is None and newest.attempt.urgent
        most = WANT_LINKS + 1 if was_shuffled else MAX_MESH_LINKS
        others = [other for other in self._links.mesh() if other is not newest]
        if len({other.origin for other in others} - {newest.origin}) >= most:
            sometimes("a neighbour makes room for another")
            self._links.bye(self._rng.choice(self._spare(others, newest)))

    def _spare(self, others: list[Neighbour], newest: Neighbour) -> list[Neighbour]:
        """Whom to let go: one of the host with most links, if there is one, so that no machine pushes the others out."""
        others = [other for other in others if not other.pings] or others  # who does not answer may be dead, and somebody must notice
        ways = Counter(map(own_end, (*others, newest)))
        others = [other for other in others if ways[own_end(other)] > 1] or others  # the only link to another network, perhaps
        if newest.attempt is None:  # a caller takes another caller's place, if there are many
            called = [other for other in others if other.attempt is None][ELDEST_CALLERS:]
            dialled = [other for other in others if other.attempt is not None][:-OUTBOUND_QUOTA]
            others = called or dialled or others
        settled = [other for other in others if other.since + SETTLED_SECONDS <= self._clock.now]
        return _of_the_largest_crowd(others) or settled or others


# C programs ----------------------------------------------------------------------------------

SAME_WORDS_SECONDS = 2  # in which the same words of a C user from two gateways are one message
OTHER_CLOCK_SECONDS = 5  # the same by their records' times, which are whole seconds of the two gateways' clocks
LATE_WORDS_SECONDS = 60  # the same at a quiet link: a C program that was stopped may bring old lines
MAX_WORDS = 4096  # lines of C users that are remembered for that
MAX_TELLERS = 16  # gateways and links that are counted for one line
OURSELVES = "ourselves"  # stands for us among the gateways that told a line, since our origin may change


Teller = Union[int, str]  # a gateway's origin, or OURSELVES
Line = Any  # what Words knows of a line: when it was last told or heard, {Teller: times told}, {link: times heard}


class Words:
    """Tells a C user's line that came by two gateways from one that was said twice.

    Only the words can tell, since a C program knows no identities. So each gateway that tells a line is counted, and
    each link of ours that brings it: it was said as often as the one that had it most often.
    """

    def __init__(self) -> None:
        # hash of (name, text) -> [when, {gateway: times told}, {link: times heard}]; or, of nearly all lines, (when, gateway,
        # link): one gateway told it once, and one link of ours, or none, brought it. Oldest first, but for those told again.
        self._lines: dict[int, Any] = {}

    def are_first(self, name: bytes, texts: list[bytes], gateway: Teller, now: float, link: int = 0) -> bool:
        """Whether none of these lines is known, and no two are the same.

        If so, note that `gateway` tells them at `now` (seconds), and that `link` of ours brought them.
        """
        lines, keys = self._lines, [hash((name, text)) for text in texts]
        if not lines.keys().isdisjoint(keys) or len(keys) > 1 and len({*keys}) < len(keys):
            return False
        line = now, gateway, link
        for key in keys:
            lines[key] = line
        if len(lines) > MAX_WORDS:
            self._drop_half()
        return True

    def knows_any(self, name: bytes, texts: list[bytes]) -> bool:
        """Whether one of these lines was told or heard lately."""
        return not self._lines.keys().isdisjoint([hash((name, text)) for text in texts])

    def told(self, key: int, gateway: Teller, now: float, mine: bool = False) -> bool:
        """A gateway tells this line, the hash of a (name, text), at `now` (seconds). Returns whether that is news."""
        is_awaited = not self._known(key)[1]  # a quiet link brought it, and waits for a gateway to tell it
        _, told, _ = self._line(key, now, LATE_WORDS_SECONDS if is_awaited else SAME_WORDS_SECONDS)
        times = self._count(told, gateway)
        return mine or times > max((count for teller, count in told.items() if teller != gateway), default=0)

    def heard(self, key: int, link: int, now: float, is_quiet: bool) -> tuple[int, int]:
        """A link of ours brings this line. Returns how often it has, and how often gateways have told it."""
        _, told, heard = self._line(key, now, LATE_WORDS_SECONDS if is_quiet else SAME_WORDS_SECONDS)
        return self._count(heard, link), max(told.values(), default=0)

    def when(self, key: int) -> Optional[float]:
        """When this line was last told or heard (seconds), or None."""
        return self._lines[key][0] if key in self._lines else None

    def times_told(self, key: int) -> int:
        """How often this line was told lately."""
        return max(self._known(key)[1].values(), default=0)

    def tellers(self, key: int) -> dict[Any, int]:
        """The gateways that told it lately, and how often each did."""
        return {**self._known(key)[1]}

    def bringers(self, key: int) -> dict[int, int]:
        """The links of ours that brought it lately, and how often each did."""
        return {**self._known(key)[2]}

    def _known(self, key: int) -> Line:
        line = self._lines.get(key)
        if line is None:
            return 0, {}, {}
        if isinstance(line, list):
            return line
        when, gateway, link = line
        return [when, {gateway: 1}, {link: 1} if link else {}]

    def _line(self, key: int, now: float, seconds: float) -> Line:
        line = self._known(key)
        if not -seconds <= now - line[0] <= seconds or key not in self._lines:
            line = [now, {}, {}]
        self._lines.pop(key, None)
        line[0] = max(line[0], now)
        self._lines[key] = line
        if len(self._lines) > MAX_WORDS:
            self._drop_half()
        return line

    def _drop_half(self) -> None:
        for key in list(self._lines)[:-MAX_WORDS // 2]:  # however many came at once
            del self._lines[key]

    def _count(self, counts: dict[Any, int], who: Teller) -> int:
        if who not in counts and len(counts) >= MAX_TELLERS:
            counts.pop(min(counts, key=counts.__getitem__))  # invented gateways must not keep the real one from being counted
        times: int = counts.get(who, 0) + 1
        counts[who] = times
        return times


class Outlet:
    """The bridge's view of a plain link: what the C programs behind it have, and whether another gateway serves them.

    Most of it is empty at most links, and there may be a thousand: an empty list takes 56 bytes, an empty deque 760.
    """

    def __init__(self, number: int) -> None:
        self.number = number  # counts all plain links there ever were
        self.is_quiet = False
        self.is_evident = False  # whether other gateways can know of this link: something was sent into it, or what it brought was told
        self.skips: set[int] = set()  # numbers of the log beyond the link's position that they have already, or must not get
        # line_id, with the hash of the text, of what came over the link with a mark
        self.marks: OrderedDict[bytes, None] = OrderedDict()
        self.marked_at = 0.0  # when the last of them came
        self.gateways: dict[int, float] = {}  # origin -> when its mark last came over the link; the latest is last
        # (number in the log, since when) of what has yet to come back over this link
        self.owed: list[tuple[int, float]] = []
        self.owed_lines: dict[int, deque[int]] = {}  # C users' lines among that: hash of (name, text) -> numbers in the log
        # (when, name, text, times): C users' lines that no other gateway has told yet
        self.untold: list[tuple[float, bytes, bytes, int]] = []
        self.untold_size = 0  # bytes that came into it since it was empty
        self.spread = 0.0  # seconds, random
        self.goodbye: Optional[Batch] = None  # to be sent last: we are leaving
        self.garbled: list[float] = []  # when lines with a wrong checksum came


QUIET_SECONDS, RANK_SECONDS, QUIET_SPREAD = 2.5, 0.75, 0.25  # that a quiet link waits; more for each gateway before it; a random part
MAX_QUIET = 16  # quiet links
MAX_RANK = 3  # so that even the last one takes over within 5 seconds
DECIDED_SECONDS = 2  # after one of two links of our own went quiet, until another one may
MAX_CARRIED = 20_000  # lines that came through C programs only, and may come again through the mesh
MAX_SAME = 8  # different words under one identity that are remembered: at most one of them is not forged
FIND_SECONDS = 2  # between two dials to a gateway that is not here through the mesh
MAX_GATEWAYS = 16  # remembered for one link: those whose marks came over it; and for one guest
MAX_SEEN_MARKS, LEAST_SEEN_MARKS = 20_000, 64  # marks that came before, or instead of, the mesh's record; the links share these
MAX_BEHIND, LEAST_BEHIND = 4096, 16  # people behind plain links who are remembered: the links share these; and of one link
MAX_UNTOLD, MAX_UNTOLD_BYTES = 4096, 1 << 20  # lines of C users that wait at a quiet link for another gateway to tell them
MESH_SECONDS, LOOK_SECONDS = 4, 1  # until a line that the mesh should have brought is taken from a C program; between two looks
MAX_AWAITED, MAX_AWAITING = 256, 16  # such lines of one member; such members
GARBLED_LINES, GARBLED_SECONDS = 3, 10  # so many in so many seconds, and a C program that our user named is dialled again
MAX_MARKERS = 16  # kept: one for each address of this machine
CONVERTED, MAX_CONVERTED = 512, 80  # records of the log that are made into pairs at once; results kept, for all links together
CONVERTED_BYTES = 32 * 1024  # of such records: as pairs they wait in memory, for a link that may read slowly or not at all
Awaited = tuple[float, Neighbour, bytes, bytes, Mark, bytes]  # when a line came, over which link; its frame, name, mark and text


class Bridge:
    """Serves C programs, without ever sending a line around in a circle. A gateway is a member with a link to one.

    A message that we send to a C program carries its identity in a mark. A message that comes back with one is known
    (_is_known), and shows that there is a circle: this link leads where another gateway's link leads. Of the two
    gateways, the one with the higher origin goes quiet on its link: it reads on, but sends nothing into it and passes
    nothing on. (A C user's own line has no mark: see Words.) The subtle spot: a quiet link trusts nobody. Its position
    in the log stands still at the first line that has not come back over it, and what has not come back within
    QUIET_SECONDS is sent after all. So a circle that was wrong or forged, or a gateway that is killed, stopped or cut
    off, costs seconds but no line.
    """

    def __init__(self, author: Author, port: int, clock: Clock, rng: Random, log: Log, links: Links, presence: Presence,
                 find: Callable[[Neighbour, str, int, int], None], actions: Actions, later: deque[Later]) -> None:
        self._author, self._port, self._clock, self._rng, self._log = author, port, clock, rng, log
        self._links, self._presence, self._find, self._actions = links, presence, find, actions
        self._later = later  # what can wait until all was sent
        self._plain: dict[int, Neighbour] = {}  # the neighbours that are, or may be, C programs, by the number of the link
        self._quiet: dict[int, Neighbour] = {}  # those of them that are quiet: a record may look at these, but not at all
        self._count = 0  # how many there ever were
        self._behind: Counter[Key] = Counter()  # who was heard over plain links: key -> over how many
        self._words = Words()
        # line_id, with the part, of a line that came through C programs -> its hashes: somebody may have forged others
        self._carried: OrderedDict[bytes, tuple[int, ...]] = OrderedDict()
        self._awaited: dict[int, list[Awaited]] = {}  # by origin: lines that the mesh should bring
        self._look_at: Optional[float] = None  # when to look whether it did
        self._never: set[int] = set()  # numbers in the log that are for no C program
        # Made once for all links
        self._marker = lru_cache(maxsize=MAX_MARKERS)(Marker)
        self._converted = lru_cache(maxsize=MAX_CONVERTED)(self._convert)
        self._ids = lru_cache(maxsize=MAX_CONVERTED)(self._ids_of)
        self.new_from = sys.maxsize  # the number of the first record that is new in this turn (Network.to_send)
        self._decided_at: Optional[float] = None  # when one of two own links in one island went quiet
        self._grown, self._changed = log.end, False
        self._stock_at = log.end  # the number of the log at which to look at those that lag

    # Links come and go

    def opened(self, neighbour: Neighbour) -> None:
        """This link may lead to a C program. If it does, all that is said from now on is for it."""
        self._count += 1
        neighbour.outlet = Outlet(self._count)
        neighbour.position = self._log.end
        self._plain[self._count] = neighbour

    def settled(self, neighbour: Neighbour) -> None:
        """It leads to a C program."""
        contact = neighbour.contact
        if contact and contact.place:  # it was lost, and lacks what was said since
            sometimes("a lost C program gets what it lacks")
            (neighbour.position, neighbour.outlet.skips), contact.place = contact.place, None
        neighbour.next_batch = self._next_batch
        if not neighbour.outlet.is_quiet:
            neighbour.follow(self._log)

    def forget(self, neighbour: Neighbour) -> None:
        """It leads to a member after all."""
        self._plain.pop(neighbour.outlet.number, None)
        self._quiet.pop(neighbour.outlet.number, None)

    def closed(self, neighbour: Neighbour) -> None:
        """The link is closed, and nobody is behind it any more."""
        self._carry_awaited(inf)
        self.forget(neighbour)
        self._pass_on_untold(neighbour)
        left, name = (None, b"") if neighbour.left is None else identity(neighbour.left)
        for key, frame in neighbour.names.items():
            self._behind[key] -= 1
            if self._behind[key]:
                continue
            del self._behind[key]
            has_left = key == left
            self._author.tell(Kind.GUEST_GONE, frame, [LEFT_TEXT if has_left else b""])
            self._presence.guest_gone(self._author.origin, key, has_left, has_left)
        is_listed = left in neighbour.names or left in self._presence.people  # then Presence tells it
        if left is not None and not is_listed and (neighbour.spoke or neighbour.attempt):
            self._presence.announce("{} left", name)

    def finish(self, neighbour: Neighbour, goodbye: Batch) -> None:
        """We are leaving: say goodbye once all that is still to be sent into this link was taken."""
        if neighbour.log and neighbour.position < self._log.end:
            neighbour.outlet.goodbye = goodbye
        else:
            neighbour.log = None
            neighbour.queue(goodbye)

    @property
    def silent(self) -> int:
        """The number of C programs that have not said anything yet."""
        return sum(neighbour.kind is PLAIN and not neighbour.spoke for neighbour in self._plain.values())

    def renamed(self) -> None:
        """We have a new origin: marks name it as the gateway from now on, and our guests are its guests."""
        for neighbour in self._plain.values():
            for key, frame in neighbour.names.items():
                self._presence.guest(self._author.origin, key, unmarked(frame)[0])

    def woke(self) -> None:
        """We were stopped or asleep. What waits for us is old, and another gateway may have told it; being quiet is harmless."""
        if self._links.mesh():
            for neighbour in self._plain.values():
                self._go_quiet(neighbour)

    # What a C program says

    def received(self, neighbour: Neighbour, name: bytes, texts: list[bytes]) -> None:
        """A run of pairs of one name came, as a C program reads them. A goodbye is a run of its own."""
        if texts[0] in QUIT_TEXTS:
            neighbour.left = name
            self._links.hang_up(neighbour, "left")
            return
        if not neighbour.spoke:
            neighbour.spoke = True
            if neighbour.attempt is None:
                self._presence.announce("a C program connected from {}", neighbour.host)
        if MARK in texts[0] and looks_marked(texts[0]):
            neighbour.frames.take_for_name(texts[0])  # two threads of the C program wrote at once: we are out of step
            self._garbled(neighbour)
            return
        if len(max(texts, key=len)) > MAX_RECORD_TEXT:
            texts = [part for text in texts for part in split_text(text, MAX_RECORD_TEXT)]
        if MARK not in name or len(name) > MAX_PLAIN_FRAME:  # as a record, a longer one would cost whoever passes it on its links
            self._unmarked(neighbour, name[:MAX_PLAIN_FRAME], texts)
            return
        for text in texts:
            self._marked(neighbour, name, text)

    def _unmarked(self, neighbour: Neighbour, name: bytes, texts: list[bytes]) -> None:
        """What a C user typed."""
        outlet, now = neighbour.outlet, self._clock.now
        is_new = not outlet.is_quiet and self._words.are_first(name, texts, OURSELVES, now, outlet.number)  # as a rule
        news = texts if is_new else [text for text in texts if self._is_said_again(neighbour, name, text)]
        if news:
            self._pass_on(neighbour, name, news)
            self._later.append((self._show_guest, neighbour, (name, news)))

    def _is_said_again(self, neighbour: Neighbour, name: bytes, text: bytes) -> bool:
        """Whether these words of a C user, which may be known, are another line, and for us to tell."""
        key, outlet, now = hash((name, text)), neighbour.outlet, self._clock.now
        times, told = self._words.heard(key, outlet.number, now, outlet.is_quiet)
        if times <= told:
            self._heard_again(neighbour, name, text)
            return False
        if outlet.is_quiet:
            self._wait_for(neighbour, name, text, times)
            return False
        self._words.told(key, OURSELVES, now, mine=True)
        return True

    def _pass_on(self, neighbour: Neighbour, name: bytes, texts: list[bytes], ago: float = 0) -> None:
        """A line of a C user enters the network here."""
        number = self._author.tell(Kind.GUEST, name, texts, ago)
        neighbour.outlet.is_evident = True
        self._skip_at(neighbour, number, len(texts))
        self._owe_lines(name, texts, number)

    def _show_guest(self, neighbour: Neighbour, said: tuple[bytes, list[bytes]]) -> None:
        frame, texts = said
        key, name = identity(frame)
        is_known = self._is_behind(neighbour, key, frame)
        self._actions.show(self._presence.guest(self._author.origin, key, name) if is_known else self._presence.label(key, name), texts)

    def _is_behind(self, neighbour: Neighbour, key: Key, frame: bytes) -> bool:
        """Note who is behind this link. Returns whether there was room to remember it."""
        names = neighbour.names
        if key not in names:
            most = min(max(MAX_BEHIND // max(len(self._plain), 1), LEAST_BEHIND), MAX_GUESTS)
            if len(names) >= most or len(frame) > MAX_GUEST_NAME:
                return False
            self._behind[key] += 1
        names[key] = frame
        return True

    def _heard_again(self, neighbour: Neighbour, name: bytes, text: bytes) -> None:
        """This link brings what a gateway has told, so it leads where that gateway's link leads."""
        key = hash((name, text))
        self._come_back(neighbour, key)
        for gateway in self._words.tellers(key):
            self._circle(neighbour, self._author.origin if gateway == OURSELVES else gateway)

    def _come_back(self, neighbour: Neighbour, key: int) -> None:
        """These words of a C user came back over a quiet link: they are no longer owed to it, whoever told them."""
        outlet = neighbour.outlet
        numbers = outlet.owed_lines.get(key)
        if numbers:
            outlet.skips.add(numbers.popleft())
            if not numbers:
                del outlet.owed_lines[key]
            self._advance(neighbour)

    def _wait_for(self, neighbour: Neighbour, name: bytes, text: bytes, times: int) -> None:
        """A quiet link brings a line that no other gateway has told yet."""
        outlet, size = neighbour.outlet, len(name) + len(text)
        outlet.untold_size = size + (outlet.untold_size if outlet.untold else 0)
        outlet.untold.append((self._clock.now, name, text, times))
        self._changed = True
        if len(outlet.untold) > MAX_UNTOLD or outlet.untold_size > MAX_UNTOLD_BYTES:
            self._take_over(neighbour)

    def _marked(self, neighbour: Neighbour, frame: bytes, text: bytes) -> None:
        """A message came that some gateway sent into a plain link."""
        try:
            name, mark = read_mark(frame, text)
        except GarbledError:
            self._garbled(neighbour)
            return
        if mark is None:
            self._unmarked(neighbour, name, [text])
            return
        self._note_mark(neighbour, mark, text)
        if mark.is_guest:
            self._come_back(neighbour, hash((name, text)))
        if self._is_known(mark, name, text):
            return
        is_here = self._presence.is_here
        if not (mark.origin in self._awaited or is_here(mark.origin) or is_here(mark.gateway)):
            self._carry(self._clock.now, neighbour, frame, name, mark, text)
        elif len(text) <= MAX_PLAIN_FRAME:
            self._await((self._clock.now, neighbour, frame, name, mark, text))  # the mesh brings it, in order

    def _note_mark(self, neighbour: Neighbour, mark: Mark, text: bytes) -> None:
        outlet, now = neighbour.outlet, self._clock.now
        if outlet.is_quiet or mark.gateway <= self._author.origin:  # one with a higher origin must hear our mark, and go quiet
            outlet.marks[line_id(mark.origin, mark.sequence, hash(text))] = None  # a stranger may use the same identity for other words
        outlet.marked_at = now
        keep_newest(outlet.marks, max(MAX_SEEN_MARKS // len(self._plain), LEAST_SEEN_MARKS))
        is_fresh = now - outlet.gateways.pop(mark.gateway, -FIND_SECONDS) >= FIND_SECONDS
        outlet.gateways[mark.gateway] = now
        keep_newest(outlet.gateways, MAX_GATEWAYS)
        self._advance(neighbour)
        if self._author.is_ours(mark.gateway) or self._presence.is_here(mark.gateway):
            self._circle(neighbour, mark.gateway)
        elif mark.host and is_fresh:
            self._find(neighbour, mark.host, mark.port, mark.gateway)

    def _await(self, line: Awaited) -> None:
        lines = self._awaited.setdefault(line[4].origin, [])
        lines.append(line)
        if len(lines) > MAX_AWAITED or len(self._awaited) > MAX_AWAITING:
            self._carry_awaited(inf)
        elif self._look_at is None:
            self._look_at, self._changed = self._clock.now + LOOK_SECONDS, True

    def _carry_awaited(self, now: float) -> None:
        """Carry what the mesh should have brought by `now` (seconds): we may be cut off from its author without knowing it yet."""
        for origin, lines in list(self._awaited.items()):
            rest = next((at for at, line in enumerate(lines) if not self._is_settled(line, now)), len(lines))
            del lines[:rest]
            if not lines:
                del self._awaited[origin]
        self._look_at = self._clock.now + LOOK_SECONDS if self._awaited else None

    def _is_settled(self, line: Awaited, now: float) -> bool:
        """Whether this line is settled: the mesh has brought it, or no longer will, and it is carried."""
        when, neighbour, frame, name, mark, text = line
        if self._is_known(mark, name, text):
            return True
        is_here = self._presence.is_here(mark.origin)
        if when + MESH_SECONDS > now or now < inf and is_here and not self._follows(mark):
            return False
        if not self._presence.was_heard(mark.origin if is_here else mark.gateway, when):  # else it is on its way, or forged
            self._carry(when, neighbour, frame, name, mark, text)
        return True

    def _follows(self, mark: Mark) -> bool:
        """Whether nothing is missing that its author said before."""
        before = mark.sequence - 1
        return self._log.have.get(mark.origin, before) >= before or line_id(mark.origin, before, 0) in self._carried

    def _carry(self, when: float, neighbour: Neighbour, frame: bytes, name: bytes, mark: Mark, text: bytes) -> None:
        """Take a line whose author the mesh does not reach as a C user's line that keeps its identity. It came at `when` (seconds)."""
        sometimes("a C program carries a line for the mesh")
        self._remember(mark, name, text)
        if mark.is_guest and not self._words.told(hash((name, text)), mark.origin, when):
            return  # another gateway has told it
        self._show_guest(neighbour, (frame, [text]))
        number = self._author.tell(Kind.GUEST, frame, [text], self._clock.now - when)
        self._skip_at(neighbour, number, 1)

    def _garbled(self, neighbour: Neighbour) -> None:
        """The threads of a C program mixed up two messages. That costs the line; if it happens often, the link."""
        now, garbled = self._clock.now, neighbour.outlet.garbled
        if not garbled or now - garbled[-1] > GARBLED_SECONDS:
            self._presence.announce("a message from the C program at {} arrived garbled", neighbour.host)
        garbled.append(now)
        del garbled[:-GARBLED_LINES]
        if len(garbled) == GARBLED_LINES and now - garbled[0] < GARBLED_SECONDS and neighbour.contact:
            self._links.hang_up(neighbour, "garbled what it sent")

    # What the mesh brings

    def may_have(self, run: Run) -> bool:
        """Whether C programs may have some of this already: that is to be found out before it is sent to them."""
        if not self._plain:
            return False
        if self._quiet or self._carried or MARK in run.name:
            return True
        return run.kind == Kind.GUEST and self._words.knows_any(run.name, run.texts())

    def said(self, run: Run, texts: list[bytes], number: int, start: int = 0) -> list[bytes]:
        """These texts of a run, from index `start` on, are in the log, from `number` on. Returns those that C programs have not brought before."""
        if not self._carried:
            return texts
        news = []
        for offset, text in enumerate(texts):
            parts = plain_texts(text)
            lacking = [part for at, part in enumerate(parts) if hash((run.name, part)) not in self._carried.get(
                line_id(run.origin, run.sequence + start + offset, at), ())]
            news += [text] if len(lacking) == len(parts) else lacking
            if len(lacking) < len(parts):
                self.skip(number + offset, 1)  # C programs have it already
        return news

    def told(self, run: Run, number: int, is_late: bool) -> tuple[bytes, list[bytes]]:
        """A gateway tells what C users said; some of it may be from before we met. Returns (label, what is news)."""
        name, mark = unmarked(run.name)
        if mark is not None:
            return self._told_carried(run, name, mark, number)
        label, texts = self._presence.guest(run.origin, name, name), run.texts()
        if not is_late and not self._carried and self._words.are_first(name, texts, run.origin, self._clock.now):  # as a rule
            self._owe_lines(name, texts, number)
            return label, texts
        news = []
        for offset, text in enumerate(texts):
            if not self.said(run, [text], number + offset, offset):
                continue
            key = hash((name, text))
            if self._words.told(key, run.origin, self._told_at(key, number + offset, is_late)):
                news.append(text)
                self._owe_lines(name, [text], number + offset)
            else:
                self.skip(number + offset, 1)
                self._told_again(key, run.origin)
        return label, news

    def _told_at(self, key: int, number: int, is_late: bool) -> float:
        """When a gateway told this line (seconds): now; or, if we know it from another time, when its record says.

        What comes a long way comes late, and a clock may be wrong: one of the two is near the line that we know.
        """
        now, known_at = self._clock.now, self._words.when(key)
        frames = self._log.read(number, number + 1)
        if not frames or not is_late and (known_at is None or abs(now - known_at) <= SAME_WORDS_SECONDS):
            return now
        said_at = now - (self._clock.wall - decode_record(frames[0]).when)
        if known_at is not None and abs(said_at - known_at) <= OTHER_CLOCK_SECONDS:
            return known_at
        return said_at

    def _told_carried(self, run: Run, name: bytes, mark: Mark, number: int) -> tuple[bytes, list[bytes]]:
        """Another gateway carried a line, for a member that it cannot reach."""
        label = self._presence.guest(run.origin, identity(run.name)[0], name)
        news = []
        for offset, text in enumerate(run.texts()):
            if self._is_known(mark, name, text):
                self.skip(number + offset, 1)
            else:
                self._remember(mark, name, text)
                news.append(text)
        return label, news

    def _owe_lines(self, name: bytes, texts: list[bytes], first: int) -> None:
        """A gateway told a C user's lines: a quiet link that has brought one no longer has to tell it."""
        for neighbour in self._quiet.values():
            for number, text in enumerate(texts, first):
                self._owe(neighbour, hash((name, text)), number)

    def _owe(self, neighbour: Neighbour, key: int, number: int) -> None:
        lines = neighbour.outlet.owed_lines
        if self._words.bringers(key).get(neighbour.outlet.number, 0) >= self._words.times_told(key):
            neighbour.outlet.skips.add(number)
            return
        if len(lines) > MAX_WORDS:
            lines.clear()
        lines.setdefault(key, deque()).append(number)

    def _told_again(self, key: int, gateway: int) -> None:
        """A gateway tells what is told already, so our links that brought it lead where that gateway's link leads."""
        for number in self._words.bringers(key):
            if number in self._plain:
                self._circle(self._plain[number], gateway)

    def guest_gone(self, record: Record, is_news: bool) -> None:
        """A gateway has lost a C user."""
        self._presence.guest_gone(record.origin, identity(record.name)[0], record.text == LEFT_TEXT, is_news)

    # What was carried

    def _is_known(self, mark: Mark, name: bytes, text: bytes) -> bool:
        """Whether this very message was shown, however it came. Other words under its identity are new."""
        if self._author.is_ours(mark.origin):
            return True
        carried = self._carried.get(line_id(mark.origin, mark.sequence, mark.part), ())
        return hash((name, text)) in carried or self._log.delivered(mark.origin, mark.sequence)

    def _remember(self, mark: Mark, name: bytes, text: bytes) -> None:
        key = line_id(mark.origin, mark.sequence, mark.part)
        self._carried[key] = (*self._carried.get(key, ()), hash((name, text)))[:MAX_SAME]
        keep_newest(self._carried, MAX_CARRIED)

    # Circles

    def met(self, gateway: int) -> None:
        """We are linked to this member now, so its earlier marks over plain links count as evidence, too.

        If it cannot have seen ours there, only we know.
        """
        for neighbour in self._plain.values():
            outlet = neighbour.outlet
            if gateway in outlet.gateways and (self._author.origin > gateway or not outlet.is_evident):
                self._go_quiet(neighbour)

    def _circle(self, neighbour: Neighbour, gateway: int) -> None:
        """This link and that gateway's link lead to the same C programs: the member with the higher origin goes quiet."""
        if neighbour.outlet.is_quiet:
            return
        if self._author.is_ours(gateway):
            # Two links of our own lead to the same C programs. The line comes back over the other link, too: decide once.
            if self._decided_at is None or self._clock.now - self._decided_at > DECIDED_SECONDS:
                self._decided_at = self._clock.now
                self._go_quiet(neighbour)
        elif self._author.origin > gateway and self._presence.is_here(gateway):
            self._go_quiet(neighbour)

    def _go_quiet(self, neighbour: Neighbour) -> None:
        outlet = neighbour.outlet
        if outlet.is_quiet or neighbour.ending or not self._may_go_quiet(neighbour):
            return
        sometimes("a circle is found")
        if not self._quiet:
            self._grown = self._log.end
        outlet.is_quiet = self._changed = True
        self._quiet[outlet.number] = neighbour
        outlet.spread = self._rng.uniform(0, QUIET_SPREAD)
        neighbour.log = None
        neighbour.position = max(neighbour.position, self._log.start)
        if neighbour.position < self._log.end:
            outlet.owed.append((neighbour.position, self._clock.now))
        for number, frame in enumerate(self._log.read(neighbour.position, self._log.end), neighbour.position):
            if frame[HEADER_SIZE] == Kind.GUEST and number not in self._never:  # perhaps only its words come back
                record = decode_record(frame)
                self._owe(neighbour, hash((record.name, record.text)), number)
        self._advance(neighbour)

    def _may_go_quiet(self, neighbour: Neighbour) -> bool:
        """Whether there is room for another quiet link. Each record looks at them, so no machine may have them all."""
        if len(self._quiet) < MAX_QUIET:
            return True
        crowd = _of_the_largest_crowd(list(self._quiet.values()))
        if not crowd or crowd[0].host == neighbour.host:
            return False
        self._take_over(crowd[-1])
        return True

    def _advance(self, neighbour: Neighbour) -> None:
        """Move a quiet link's position past what the C programs behind it have."""
        outlet = neighbour.outlet
        if not outlet.is_quiet:
            return
        neighbour.position = max(neighbour.position, self._log.start)
        frames = self._log.read(neighbour.position, neighbour.position + 1)
        while frames and self._has(outlet, neighbour.position, frames[0]):
            outlet.skips.discard(neighbour.position)
            neighbour.position += 1
            frames = self._log.read(neighbour.position, neighbour.position + 1)
        while len(outlet.owed) > 1 and outlet.owed[1][0] <= neighbour.position:
            del outlet.owed[0]
        if neighbour.position == self._log.end:
            outlet.owed.clear()
            outlet.owed_lines.clear()

    def _has(self, outlet: Outlet, number: int, frame: bytes) -> bool:
        """Whether the C programs behind this link have this record, or must not get it."""
        if number in outlet.skips or number in self._never or frame[HEADER_SIZE] not in CHAT:
            return True
        return bool(outlet.marks) and wire_id(frame) in outlet.marks

    def grew(self) -> bool:
        """Owe quiet links what is new in the log. Returns whether our deadline may have changed."""
        changed, end = self._changed, self._log.end
        if not self._quiet and not changed and end < self._stock_at:  # as a rule
            return False
        self._changed = False
        if self._quiet and self._grown < end:
            self._owe_new(self._grown)
            changed = True
        self._grown = end
        if end >= self._stock_at:
            self._stock_at = end + LOG_MESSAGES // 16
            for neighbour in list(self._plain.values()):
                self._stock_up(neighbour)
        return changed

    def _owe_new(self, number: int) -> None:
        for neighbour in self._quiet.values():
            outlet = neighbour.outlet
            if not outlet.owed or self._clock.now - outlet.owed[-1][1] > QUIET_SPREAD:
                outlet.owed.append((number, self._clock.now))
            self._advance(neighbour)

    def _stock_up(self, neighbour: Neighbour) -> None:
        """It lags: queue what would soon fall out of the log."""
        while neighbour.log and self._log.end - neighbour.position > LOG_MESSAGES // 4:
            if not neighbour.contact:  # it may see a line twice, for thousands that it has not read: pairs of its own cost memory
                neighbour.outlet.marks.clear()
                neighbour.outlet.skips.clear()
            batch = self._next_batch(neighbour)
            if batch:
                neighbour.queue(batch)
            if neighbour.cost > MAX_BACKLOG:
                self._links.hang_up(neighbour, f"read nothing while {MAX_BACKLOG >> 20} MiB were waiting")

    def _pause(self, outlet: Outlet) -> float:
        """How long a quiet link waits (seconds): the lowest origin goes first, and the others hear of it."""
        gateways = list(outlet.gateways)
        active = gateways[-1] if gateways else None
        rank = sum(gateway < self._author.origin and gateway != active for gateway in gateways)
        return QUIET_SECONDS + RANK_SECONDS * min(rank, MAX_RANK) + outlet.spread

    @property
    def deadline(self) -> Optional[float]:
        """When to call tick (seconds); None: nothing is planned."""
        return soonest([*map(self._due, self._quiet.values()), self._look_at])

    def _due(self, neighbour: Neighbour) -> Optional[float]:
        outlet = neighbour.outlet
        if neighbour.ending:
            return None
        since = [owed[1] for owed in outlet.owed[:1] if neighbour.position < self._log.end]
        since += [line[0] for line in outlet.untold[:1]]
        return min(since) + self._pause(outlet) if since else None

    def tick(self) -> None:
        """Take over, on quiet links, what has not come back in time."""
        self.grew()
        if self._clock.has_reached(self._look_at):
            self._carry_awaited(self._clock.now)
        for neighbour in list(self._quiet.values()):
            untold = neighbour.outlet.untold
            while untold and self._words.times_told(hash(untold[0][1:3])) >= untold[0][3]:
                del untold[0]
            if self._clock.has_reached(self._due(neighbour)):
                self._take_over(neighbour)

    def _take_over(self, neighbour: Neighbour) -> None:
        """No other gateway serves these C programs: this one does, beginning with exactly what they lack."""
        outlet = neighbour.outlet
        sometimes("a quiet link takes over")
        outlet.is_quiet = False
        self._quiet.pop(outlet.number, None)
        self._pass_on_untold(neighbour)
        neighbour.follow(self._log)
        outlet.owed.clear()
        outlet.owed_lines.clear()
        outlet.gateways.clear()
        self._decided_at = None

    def _pass_on_untold(self, neighbour: Neighbour) -> None:
        untold, now = neighbour.outlet.untold, self._clock.now
        while untold:
            when, name, text, times = untold.pop(0)
            key = hash((name, text))
            if self._words.times_told(key) < times:
                self._words.told(key, OURSELVES, when, mine=True)
                self._pass_on(neighbour, name, [text], now - when)
                self._show_guest(neighbour, (name, [text]))

    # What C programs get

    def skip(self, number: int, count: int) -> None:
        """Never send these records of the log to a C program."""
        self._never.update(range(number, number + count))
        if len(self._never) > 2 * LOG_MESSAGES:
            self._never = {number for number in self._never if number >= self._log.start}

    def skip_behind(self, gateway: int, number: int) -> None:
        """This record was said where that gateway was, before we met it: C programs that we share with it have it from there."""
        for neighbour in self._plain.values():
            if gateway in neighbour.outlet.gateways:
                self._skip_at(neighbour, number, 1)

    def _skip_at(self, neighbour: Neighbour, number: int, count: int) -> None:
        if neighbour.position == number and not neighbour.outlet.is_quiet:
            neighbour.position = number + count
        else:
            neighbour.outlet.skips.update(range(number, number + count))

    def _next_batch(self, neighbour: Neighbour) -> Optional[Batch]:
        """The next records of the log for a C program, as marked pairs; None if there is nothing more for it."""
        log, outlet, batch = self._log, neighbour.outlet, None
        while neighbour.log and neighbour.position < log.end and batch is None:
            batch = self._convert_next(neighbour)
        if batch:
            outlet.is_evident = True
        if outlet.goodbye and neighbour.position >= log.end:
            batch = outlet.goodbye.behind(batch) if batch else outlet.goodbye
            neighbour.log = outlet.goodbye = None
        return batch

    def _convert_next(self, neighbour: Neighbour) -> Optional[Batch]:
        outlet, start = neighbour.outlet, max(neighbour.position, self._log.start)
        if outlet.marks and self._clock.now - outlet.marked_at > LATE_WORDS_SECONDS:
            outlet.marks.clear()
        # Conversions end at the same places for all links, so that they can share them. As a rule all lack what is new in this
        # turn. One that brought some of it shares that conversion, too.
        block = start - start % CONVERTED
        end = min(block + CONVERTED, self._log.end)
        first = max(self.new_from, block) if self._log.start <= self.new_from < start else start
        marker = self._marker(self._author.origin, neighbour.own_host, self._port)
        batch, neighbour.position = self._converted(first, end, marker)
        while neighbour.position <= start:  # one conversion did not reach that far
            first = neighbour.position
            batch, neighbour.position = self._converted(first, end, marker)
        known = {*range(first, start)}
        if outlet.skips or outlet.marks:
            known |= self._known(outlet, start, neighbour.position)
            outlet.skips = {number for number in outlet.skips if number >= neighbour.position}
        batch = batch.without(known) if known else batch
        return batch if batch.data else None

    def _known(self, outlet: Outlet, start: int, stop: int) -> set[int]:
        """Which records from `start` to before `stop` the C programs behind this link have. Nearly always none."""
        known = {number for number in outlet.skips if number < stop}
        if outlet.marks:
            ids = self._ids(start, stop)
            known.update(*(ids[found] for found in ids.keys() & outlet.marks.keys()))
        return known

    def _ids_of(self, start: int, stop: int) -> dict[bytes, list[int]]:
        """wire_id -> numbers, nearly always one, of the lines from `start` to before `stop`."""
        ids: dict[bytes, list[int]] = {}
        for number, frame in enumerate(self._log.read(start, stop), start):
            if frame[HEADER_SIZE] in CHAT:
                ids.setdefault(wire_id(frame), []).append(number)
        return ids

    def _convert(self, start: int, stop: int, marker: Marker) -> tuple[Batch, int]:
        """(Batch, the number after it): the records from `start` to before `stop`, or fewer, as C programs get them."""
        frames = self._log.read(start, stop)
        if len(frames) > 1:
            del frames[bisect_right(list(accumulate(map(len, frames))), CONVERTED_BYTES) or 1:]
        return marker.encode(start, frames, self._never), start + len(frames)


def identity(frame: bytes) -> tuple[Key, bytes]:
    """(key of who bears a name that may keep its mark, the name): a member by its origin, a C user by name."""
    name, mark = unmarked(frame)
    return (name, name) if mark is None or mark.is_guest else (mark.origin, name)


def wire_id(frame: bytes) -> bytes:
    """line_id of a record's frame and the hash of its last text, as it comes back from a C program."""
    record = decode_record(frame)
    _, mark = unmarked(record.name)
    source = record if mark is None else mark
    return line_id(source.origin, source.sequence, hash(plain_texts(record.text)[-1]))


def line_id(origin: int, sequence: int, detail: int) -> bytes:
    """The identity of a line as the key of a dict: hashed with a secret. Tuples of numbers can be chosen so that all collide."""
    return b"%x %x %x" % (origin, sequence, detail)


# Who is here ---------------------------------------------------------------------------------

class Person:
    """Somebody on the network, as :who lists them: a member by its origin, or a C user by name."""

    def __init__(self, key: Key, name: bytes, bearers: Bearers) -> None:
        self.key: Any = key
        self.name, self.bearers = name, bearers
        self.is_member = False  # through the mesh, it speaks for itself
        self.has_spoken = False  # a record of it has come, not only a hello
        self.here = False
        self.heard_at = 0.0
        self.together_until = inf  # when it was heard last before it was gone, if we were not linked to it since (seconds)
        self.gateways: set[int] = set()  # of a guest: the members whose links it is behind
        self.announced: Optional[bool] = None  # what our user was last told: that it is here, or that it is not

    @property
    def guest(self) -> bool:
        """Whether it takes part through a C program."""
        return not self.is_member

    @property
    def label(self) -> bytes:
        """Its label at every member: the name, with some digits of its origin if several bear that name."""
        return self.bearers.label(self.key, self.name)


MAX_COMPARED = 64  # bearers of one name whose origins are compared; more are told apart by the whole origin
LABEL_LIKE = re.compile(rb"~([0-9a-f]{2,16}|C)$").search  # a name that ends as a label may


class Bearers:
    """All who are here under one name. How many digits of their origins tell them apart is worked out once."""

    def __init__(self) -> None:
        self.keys: set[Key] = set()
        self._digits: Optional[int] = None

    def change(self, key: Key, is_here: bool) -> None:
        """This one has come, or gone."""
        (self.keys.add if is_here else self.keys.discard)(key)
        self._digits = None

    def label(self, key: Key, name: bytes) -> bytes:
        """The label of one of them."""
        keys = self.keys
        if (not keys or len(keys) == 1 and key in keys) and (b"~" not in name or not LABEL_LIKE(name)):
            return name
        if isinstance(key, bytes):
            return name + b"~C"
        if self._digits is None:
            self._digits = self._tell_apart()
        return name + b"~" + _digits(key)[:self._digits]

    def _tell_apart(self) -> int:
        if len(self.keys) > MAX_COMPARED:
            return 16
        origins = [_digits(key) for key in self.keys if not isinstance(key, bytes)]
        return next((count for count in range(2, 16) if len({digits[:count] for digits in origins}) == len(origins)), 16)


def _digits(origin: int) -> bytes:
    return b"%016x" % origin


MAX_IN_NOTICE = 3  # names in a notice of who came or went; the rest is counted
NEWS_SECONDS = {"joined": 2, "is back": 1, "left": 0, "lost": 1}  # until our user is told, of all together
MAX_NEWS = 1000  # members who came or went that are remembered until our user is told; of more, only the number
NOTICES, NOTICE_SECONDS = 50, 10  # of members who came and went, at once; and one more in so many seconds


class News:
    """Notices of who came and went. Changes that come together make one notice; one that is undone at once makes none."""

    UNDOES = {("joined", "left"), ("joined", "lost"), ("lost", "is back"), ("is back", "lost"), ("is back", "left")}

    def __init__(self, clock: Clock, links: Links, actions: Actions) -> None:
        self._clock, self._links, self._actions = clock, links, actions
        self._found: dict[Key, tuple[str, Person, bytes]] = {}  # by key: the verb, the Person and its label
        self._due: Optional[float] = None
        self._was_held = False
        self._uncounted = 0  # losses and joins that were only counted
        self._bucket = TokenBucket(NOTICES, NOTICE_SECONDS, clock.now)

    def add(self, person: Person, verb: str, label: bytes) -> None:
        """This happened to a Person who is, or was, called `label`."""
        before = self._found.pop(person.key, None)
        if before and (before[0], verb) in self.UNDOES:
            return
        if len(self._found) >= MAX_NEWS:
            self._uncounted += 1
            return
        self._found[person.key] = verb, person, label
        due = self._clock.now + NEWS_SECONDS[verb]
        self._due = due if self._due is None else min(self._due, due)

    def announce(self, words: str, parts: tuple[Part, ...]) -> None:
        """Tell this at once, or only count it if there was too much of it lately."""
        # Members who come and go all day must not hold up the news of losses.
        is_late = self._found and self._clock.has_reached(self._due)
        if not is_late and self._bucket.take(self._clock.now):
            self._actions.notice(words, *parts)
        else:
            self._uncounted += 1

    def forget(self, key: Key) -> None:
        """Tell nothing of this Person."""
        self._found.pop(key, None)

    def __contains__(self, key: Key) -> bool:
        return key in self._found

    @property
    def deadline(self) -> Optional[float]:
        """When to call tick (seconds); None: nothing is planned."""
        if not self._found and not self._uncounted:
            return None
        return max(self._due or 0, self._bucket.next_at)

    def tick(self, hold_until: Optional[float] = None) -> None:
        """Tell what is due, along with the rest; hold it back once, until `hold_until` (seconds), when more is known of others."""
        if not self._clock.has_reached(self.deadline):
            return
        if hold_until is not None and not self._was_held:
            self._was_held, self._due = True, hold_until
            return
        if self._uncounted:
            self._bucket.take(self._clock.now)
            self._actions.notice("{} more joined or left", f"{self._uncounted:,}")
            self._uncounted = 0
        found, self._found, self._due, self._was_held = self._found, {}, None, False
        lost = {person.name for verb, person, _ in found.values() if verb == "lost"}
        come = {person.name for verb, person, _ in found.values() if verb == "joined"}
        for verb in NEWS_SECONDS:
            told = [(person, label) for a_verb, person, label in found.values() if a_verb == verb
                    and not (verb in ("lost", "joined") and person.name in lost & come)]  # restarted within seconds
            if told:
                self._tell(verb, told)

    def _tell(self, verb: str, told: list[tuple[Person, bytes]]) -> None:
        self._bucket.take(self._clock.now)
        for person, _ in told:
            person.announced = verb in ("joined", "is back")
        words, parts = _listed([label for _, label in told])
        if verb == "lost":
            links = [neighbour.name for neighbour in self._links.mesh()][:MAX_IN_NOTICE]
            holds, names = _listed(links)
            words = f"lost contact with {words}; " + (f"still connected through {holds}" if links else "looking for the others")
            self._actions.notice(words, *parts, *names)
        elif verb == "is back" and len(told) > 1:
            self._actions.notice(words + " are back", *parts)
        else:
            self._actions.notice(f"{words} {verb}", *parts)


def _listed(labels: Sequence[bytes]) -> tuple[str, tuple[Part, ...]]:
    """(words with a {} for each of parts, parts): "{}", "{} and {}", "{}, {} and {}", "{} and {} others"."""
    if len(labels) > MAX_IN_NOTICE:
        return "{} and {} others", (labels[0], f"{len(labels) - 1:,}")
    words = ["{}"] * len(labels)
    return (", ".join(words[:-1]) + " and " if len(words) > 1 else "") + "".join(words[-1:]), tuple(labels)


CALL_SECONDS, ANSWER_SECONDS = 8, 2  # of a roll call: until whoever was not heard seems lost; in which all answer, at random
ANSWER_PAUSE = 3  # seconds between two answers: a liar can miss somebody a thousand times a second
CALLS, CALL_PAUSE = 3, 30  # roll calls at once, and one more in so many seconds: each makes every member speak


class RollCall:
    """Who is still here? After a loss every member says so, and whoever is not heard is lost, too. (Presence asks and tells.)"""

    def __init__(self, clock: Clock, rng: Random) -> None:
        self._clock, self._rng = clock, rng
        self._bucket = TokenBucket(CALLS, CALL_PAUSE, clock.now)
        self.since: Optional[float] = None  # when the call began that is under way
        self.was_asked = False  # whether the others know of it
        self.answer_at: Optional[float] = None  # when we say that we are here
        self.asked_at = clock.now  # when somebody wanted to know
        self._again: Optional[float] = None  # when somebody asked for the next one, which waits
        self._answered_at = clock.now - ANSWER_PAUSE

    def begin(self, must: bool = False) -> None:
        """Somebody is missed, and all know it: answer, and wait for the others' answers.

        What comes while a call is under way is a call of its own: others answer it now, not when ours is over. Where
        there were too many lately (`must` overrules that), we answer now, and look later who else did.
        """
        self.ask()
        self._again = self.asked_at
        if self.since is None:
            self.next(must)

    def ask(self) -> None:
        """Somebody wants to know whether we are here: answer soon."""
        self.asked_at = self._clock.now
        if self.answer_at is None:
            self.answer_at = max(self.asked_at + self._rng.uniform(0, ANSWER_SECONDS), self._answered_at + ANSWER_PAUSE)

    def restart(self) -> None:
        """Wait anew, though nobody has been asked anew."""
        self.since, self.was_asked = self._clock.now, False

    def rejoin(self) -> None:
        """We are linked again. A call that nobody was asked for is over: whoever is lost is missed by all, or by us."""
        if self.was_asked:
            self.restart()
            return
        if self._again is None:
            self.answer_at = None
        self.end()

    def answered(self) -> None:
        """We have said that we are here, or something else."""
        self.answer_at, self._answered_at = None, self._clock.now

    def end(self) -> None:
        """The call is over."""
        self.since = None
        self.next()

    def next(self, must: bool = False) -> None:
        """The next call, if one waits, and may be made now: it began when it was asked for."""
        if self._again is not None and (self._bucket.take(self._clock.now) or must):
            self.since, self.was_asked, self._again = self._again, True, None

    @property
    def deadline(self) -> Optional[float]:
        """When something is due (seconds), or None."""
        return soonest((self.answer_at, self.ends_at))

    @property
    def ends_at(self) -> Optional[float]:
        """When whoever was not heard is lost (seconds), or the next call may be made, or None."""
        if self.since is None:
            return None if self._again is None else self._bucket.next_at
        return self.since + CALL_SECONDS


MAX_MEMBERS = 10_000  # people remembered for :who
SUSPECT_SECONDS = 1, 2  # until all are told of a lost neighbour that nobody has heard of; random, so that one of five tells
DOUBT_SECONDS = 2  # for a member that somebody calls lost to contradict
CONTRADICT_SECONDS = 0.5  # between two HEREs that we send: a liar can call us lost a thousand times a second
TELLER_SECONDS, MAX_TELLER = 0.5, 10  # between two members who may tell who did not answer; how many take such turns
NAMESAKE_SECONDS = 2  # until our user is told of a namesake: by then an earlier run of ours that crashed is lost


class Presence:
    """Who is here, in the same ordered stream as the messages: HERE, LEFT, LOST, and a roll call after a loss.

    The subtle spot: a process that dies says nothing, and its neighbours may die with it. So after a loss, all who
    live speak within ANSWER_SECONDS; the lowest origin among them tells that those who did not speak are lost.
    """

    def __init__(self, author: Author, clock: Clock, rng: Random, log: Log, links: Links, actions: Actions) -> None:
        self._author, self._clock, self._rng, self._log = author, clock, rng, log
        self._links = links
        self.version = 0  # changes whenever who is here, or a label, may have changed
        self.people: dict[Key, Person] = {}
        self._bearers: dict[bytes, Bearers] = {}  # by name
        self._guests: dict[int, dict[Key, None]] = {}  # gateway -> keys of those behind its plain links
        # origin of a lost neighbour, or one of somebody who left -> (since when, when to miss it, whether it was ours)
        self._suspects: dict[int, tuple[float, float, bool]] = {}
        # origin that somebody called lost while we were linked to it -> the last sequence we had of it
        self._called_lost: dict[int, int] = {}
        # origin that was called lost -> its last sequence then, if we did not have it yet; FORGED: nobody uses it any more
        self._gone_at: dict[int, int] = {}
        # origin that somebody calls lost -> until when it can contradict; the first is due first
        self._doubted: dict[int, float] = {}
        self._contradict_at: Optional[float] = None  # when to say that we are here
        self._contradicted_at = clock.now - CONTRADICT_SECONDS  # when we last did
        self._silent: dict[int, float] = {}  # who did not answer the last call, and when it was heard before
        self._silent_at: Optional[float] = None  # when to say so
        self._call = RollCall(clock, rng)
        self._news = News(clock, links, actions)
        self._namesakes = 0  # how many share our name, at the last notice
        self._namesakes_at: Optional[float] = None  # when the next notice is due
        self._own = self._bearers_of(author.name)
        self._own.change(author.origin, True)

    # What is asked

    def who(self) -> list[Person]:
        """Everybody here but ourselves."""
        return [person for person in self.people.values() if person.here]

    def is_here(self, origin: Key) -> bool:
        """Whether this member is here, through the mesh."""
        person = self.people.get(origin)
        return person is not None and person.here and person.is_member

    def was_heard(self, origin: int, since: float) -> bool:
        """Whether the mesh has brought anything of this member since then (seconds)."""
        person = self.people.get(origin)
        return person is not None and (person.heard_at > since or any(
            neighbour.heard_at > since for neighbour in self._links.mesh() if neighbour.origin == origin))

    def together_until(self, origin: int) -> float:
        """When a member was last heard before it was lost (seconds): what we said later, somebody may have forged where it was."""
        return self.people[origin].together_until if origin in self.people else inf

    def label(self, key: Key, name: bytes) -> bytes:
        """The label of somebody who may not be here."""
        return self._bearers[name].label(key, name) if name in self._bearers else Bearers().label(key, name)

    @property
    def own_label(self) -> bytes:
        """How others see our own name."""
        return self._own.label(self._author.origin, self._author.name)

    # What is heard

    def heard(self, origin: int, name: bytes) -> bytes:
        """A member has spoken. Returns its label."""
        person = self.people.get(origin)
        if person is None or not person.here or not person.is_member:
            person = self._come(origin, name)
        person.heard_at, person.has_spoken = self._clock.now, True
        if origin in self._doubted:
            del self._doubted[origin]
        return person.bearers.label(origin, person.name)

    def is_alive(self, origin: int, sequence: int, fills_hole: bool) -> bool:
        """Whether this record shows that its author is here. It does not if it was said before a loss that we were told of first."""
        if not fills_hole and sequence > self._gone_at.get(origin, 0):
            return True
        sometimes("what was said before a loss comes after it")
        return False

    def note_alive(self, origin: int) -> None:
        """A record of a member has come that does not bear its name."""
        if origin in self.people:
            self.people[origin].heard_at = self._clock.now
            self._doubted.pop(origin, None)

    def here(self, origin: int, name: bytes, is_news: bool) -> None:
        """A member says that it is here; if that is news, it has joined."""
        person = self.people.get(origin)
        is_new = person is None or not person.has_spoken
        self.heard(origin, name)
        if is_new and is_news and origin in self.people:
            self._tell(self.people[origin], "joined")

    def left(self, origin: int, neighbours: Sequence[int], is_news: bool) -> None:
        """A member has said goodbye. Perhaps only its links reached some: its neighbours say that they are here, and expect it of each other."""
        if is_news and self._author.origin in neighbours:
            self._call.ask()
            due = self._clock.now + CALL_SECONDS + self._rng.uniform(*SUSPECT_SECONDS)
            for other in filter(self.is_here, neighbours):
                self._suspects.setdefault(other, (self._clock.now, due, False))
        self._go(origin, "left" if is_news else None)
        self._note_gone(origin, FORGED)

    def lost(self, record: Record, is_news: bool) -> Optional[int]:
        """Somebody misses a member. Returns the last sequence that was heard of us if we never said so much: somebody forged it."""
        origin, sequence = decode_lost(record.text)
        if origin == self._author.origin:
            if sequence is not None and sequence > self._author.sequence:
                return sequence
            sometimes("somebody misses us who are here")
            self._contradict_at = max(self._clock.now, self._contradicted_at + CONTRADICT_SECONDS)
            self._contradict()
            return None
        if is_news:
            self._call.begin()  # also whoever knows better answers: others wait for all
        if origin is not None and not self._is_outdated(origin, sequence) and self.is_here(origin):
            self._doubt(origin, is_news)
        if origin is not None and sequence is not None and sequence > self._log.have.get(origin, 0):
            self._note_gone(origin, sequence)
        if origin is not None and sequence == FORGED:
            self._log.holes.hush(origin)
        return None

    def _is_outdated(self, origin: int, sequence: Optional[int]) -> bool:
        """Whether we have heard more of a member than whoever calls it lost."""
        is_outdated = sequence is not None and sequence != FORGED and self._log.have.get(origin, 0) > sequence
        if is_outdated:
            sometimes("a loss is told that is out of date")
        return is_outdated

    def _doubt(self, origin: int, is_news: bool) -> None:
        """Somebody calls this member lost, and we know no better."""
        if self._links.is_linked(origin):
            if len(self._called_lost) > MAX_COMPARED:
                self._called_lost.clear()
            sometimes("a neighbour of ours is called lost")
            # A member that we are linked to is not lost on another's word; but that link may be dead.
            self._called_lost[origin] = self._log.have.get(origin, 0)
            return
        self._silent.pop(origin, None)  # somebody else has told that
        if not is_news:
            self._go(origin, None)
            return
        self._suspects.pop(origin, None)
        self._doubted.setdefault(origin, self._clock.now + DOUBT_SECONDS)

    def _note_gone(self, origin: int, sequence: int) -> None:
        """Note that what it said up to this sequence does not show that it is here: some logs go back further."""
        self._gone_at[origin] = max(sequence, self._gone_at.get(origin, 0))
        keep_newest(self._gone_at, MAX_MEMBERS)

    def _contradict(self) -> None:
        if self._clock.has_reached(self._contradict_at):
            self._contradict_at, self._contradicted_at = None, self._clock.now
            self._author.tell(Kind.HERE, self._author.name)

    def leave(self) -> None:
        """Say goodbye, and who our neighbours are."""
        neighbours = encode_left([*self._links.origins(), *self._suspects])
        self._author.tell(Kind.LEFT, self._author.name, [neighbours])

    def renamed(self, old: int, new: int, name: bytes) -> None:
        """A neighbour, or we ourselves, gave up an origin that somebody forged."""
        if new == self._author.origin:
            self._own.change(old, False)
            self._own.change(new, True)
            self.version += 1
            return
        known = self.people.get(old)
        self._go(old, None)
        if known is not None:
            person = self._come(new, name)
            person.announced, person.has_spoken = known.announced, True

    def guest(self, gateway: int, key: Key, name: bytes) -> bytes:
        """Somebody behind a C program spoke, by this gateway: a C user (key: its name) or a member that the mesh does
        not reach (key: its origin). Returns the label."""
        if self._author.is_ours(key):
            return self.own_label
        person = self.people.get(key)
        if person is not None and person.here and (person.is_member or gateway in person.gateways):
            return person.label
        gateways = self._guests
        if len(gateways.get(gateway, ())) >= MAX_GUESTS or len(name) > MAX_GUEST_NAME or (
                gateway not in gateways and len(gateways) >= MAX_MEMBERS) or person and len(person.gateways) >= MAX_GATEWAYS:
            return self.label(key, name)
        keys = gateways.setdefault(gateway, {})
        keys[key] = None
        person = self._meet(key, name)
        person.is_member &= person.here  # a member that was lost comes back as a guest, and goes as one
        person.gateways.add(gateway)
        self._set_here(person, True)
        return person.label

    def guest_gone(self, gateway: int, key: Key, has_left: bool, is_news: bool) -> None:
        """A gateway has lost somebody behind a C program, who is gone if no other gateway has them."""
        keys = self._guests.get(gateway, {})
        keys.pop(key, None)
        if not keys:
            self._guests.pop(gateway, None)
        person = self.people.get(key)
        if person is None or gateway not in person.gateways:
            return
        person.gateways.discard(gateway)
        if person.gateways or person.is_member or not person.here:
            return
        if is_news and (has_left or gateway != self._author.origin):
            self._tell(person, "left" if has_left else "lost")
        self._drop_guest(person)

    # Links of our own

    def announce(self, words: str, *parts: Part) -> None:
        """Tell our user that somebody else made or lost a link; limited, since strangers may do that all day."""
        self._news.announce(words, parts)

    def linked(self, origin: int, name: bytes, is_first: bool) -> None:
        """There is a mesh link to this member, so it is here, though its HERE may still be on its way."""
        self._suspects.pop(origin, None)
        if not self.is_here(origin):
            self._come(origin, name).heard_at = self._clock.now
        self.people[origin].together_until = inf
        if is_first and self._call.since is not None:
            self._call.rejoin()

    def neighbour_lost(self, origin: int, was_spared: bool) -> None:
        """The link is gone. If we let go of it, it is lost only if somebody missed it and it has not spoken since."""
        is_missed = self._log.have.get(origin, 0) == self._called_lost.pop(origin, None)
        if self.is_here(origin) and (not was_spared or is_missed):
            self._suspects[origin] = self._clock.now, self._clock.now + self._rng.uniform(*SUSPECT_SECONDS), True

    def alone(self) -> None:
        """We have no mesh link at all."""
        if self.people:
            self._call.begin(must=True)
            self._call.restart()

    def woke(self) -> None:
        """We were stopped or asleep, and heard nobody."""
        if self._call.ends_at is not None:
            self._call.restart()

    # What is due

    @property
    def deadline(self) -> Optional[float]:
        """When to call tick (seconds); None: nothing is planned."""
        times: list[Optional[float]] = [due for _, due, _ in self._suspects.values()]
        times += islice(self._doubted.values(), 1)
        times += [self._contradict_at, self._silent_at, self._call.deadline, self._news.deadline, self._namesakes_at]
        times += [self._clock.now] * (self._namesakes_at is None and len(self._own.keys) - 1 != self._namesakes)
        return soonest(times)

    def tick(self) -> None:
        """Do what is due: tell losses, answer or end a call."""
        now = self._clock.now
        for origin, (since, due, was_linked) in list(self._suspects.items()):
            if due <= now:
                del self._suspects[origin]
                self._miss(origin, since, was_linked)
        for origin, _ in list(takewhile(lambda doubt: doubt[1] <= now, self._doubted.items())):
            del self._doubted[origin]
            if not self._links.is_linked(origin):
                self._go(origin, "lost")
        if self._clock.has_reached(self._call.answer_at):
            self._answer()
        if self._clock.has_reached(self._call.ends_at):
            self._end_call()
        if self._clock.has_reached(self._silent_at):
            self._tell_silent()
        self._contradict()
        if self._author.last_word < self._log.start:
            self._author.tell(Kind.HERE, self._author.name)  # so that we stay in the log as long as we are here
        self._news.tick(next(reversed(self._doubted.values()), None))
        self._tell_namesakes()

    def _miss(self, origin: int, since: float, was_linked: bool) -> None:
        """Tell all whom we miss: a neighbour that we lost, or a member from whom we expected an answer.

        What was heard of a lost neighbour since may have been on its way, or forged, so that it has to contradict.
        """
        was_heard = self.is_here(origin) and self.people[origin].heard_at > since
        if not self.is_here(origin) or self._links.is_linked(origin) or was_heard and not was_linked:
            return
        self._tell_lost(origin)
        if was_linked and not was_heard:
            self._go(origin, "lost")
        else:
            self._doubted.setdefault(origin, self._clock.now + DOUBT_SECONDS)
        self._call.begin()

    def _answer(self) -> None:
        if self._author.last_said < self._call.asked_at:
            self._author.tell(Kind.HERE, self._author.name)
        self._call.answered()

    def _end_call(self) -> None:
        """Whoever did not answer seems lost. The lowest origin that did answer says so; if it does not, the next one."""
        since, was_asked, linked = self._call.since, self._call.was_asked, self._links.origins()
        if since is None:
            self._call.next()
            return
        self._call.end()
        members = [person for person in self.people.values() if person.here and person.is_member]
        # Without a link nobody can have answered, whatever came last.
        silent = [person for person in members if (person.heard_at < since or not linked) and person.key not in linked]
        rank = sum(person.key < self._author.origin for person in members) - sum(person.key < self._author.origin for person in silent)
        if silent and linked and not was_asked:
            self._ask_with(silent[0].key)
            return
        self._silent.update((person.key, person.heard_at) for person in silent)
        if silent:
            sometimes("a roll call finds a ghost")
            self._silent_at = self._clock.now + TELLER_SECONDS * min(rank, MAX_TELLER)

    def _ask_with(self, origin: int) -> None:
        """We may just not have heard who still lives: tell all that one of them is missed, so that all answer."""
        self._tell_lost(origin)
        self._doubted[origin] = self._clock.now + DOUBT_SECONDS
        self._call.begin(must=True)

    def _tell_silent(self) -> None:
        silent, self._silent, self._silent_at = self._silent, {}, None
        for origin, heard_at in silent.items():
            if self.is_here(origin) and self.people[origin].heard_at == heard_at and origin not in self._doubted:
                self._tell_lost(origin)
                self._doubted[origin] = self._clock.now + DOUBT_SECONDS

    def _tell_lost(self, origin: int) -> None:
        self._author.tell(Kind.LOST, self.people[origin].name, [encode_lost(origin, self._log.have.get(origin, 0))])

    def _tell_namesakes(self) -> None:
        others = len(self._own.keys) - 1
        is_due = self._clock.has_reached(self._namesakes_at)
        if others == self._namesakes:
            self._namesakes_at = None
        elif self._namesakes_at is None or is_due and self._own.keys & self._doubted.keys():
            # It may be an earlier run of ours that crashed, or have been missed for a moment only.
            self._namesakes_at = self._clock.now + NAMESAKE_SECONDS
        elif is_due:
            are_more = others > self._namesakes
            self._namesakes, self._namesakes_at = others, None
            if are_more:
                self.announce("someone else here is also called {}; others see you as {}", self._author.name, self.own_label)

    # Who is here

    def _come(self, origin: int, name: bytes) -> Person:
        person = self._meet(origin, name)
        for gateway in person.gateways:
            self._guests.get(gateway, {}).pop(origin, None)
        person.gateways.clear()
        person.is_member = True
        was_told_gone = person.announced is False or not person.here and person.key in self._news
        self._set_here(person, True)
        if was_told_gone:
            self._tell(person, "is back")
        return person

    def _go(self, origin: int, verb: Optional[str]) -> None:
        """This member is gone, and so is everybody whom only its links reach."""
        person = self.people.get(origin)
        if person is None or not person.here:
            return
        if verb and person.name != self._author.name or verb == "left":
            self._tell(person, verb)
        elif verb:
            person.announced = None  # an earlier run of ours that crashed
            self._news.forget(person.key)
        self._suspects.pop(origin, None)
        self._doubted.pop(origin, None)
        self._set_here(person, False)
        person.together_until = min(person.together_until, person.heard_at)
        person.is_member = False  # it may still be heard through C programs
        for guest in [self.people[key] for key in self._guests.pop(origin, ()) if key in self.people]:
            guest.gateways.discard(origin)
            if not guest.gateways and not guest.is_member:
                self._drop_guest(guest)

    def _drop_guest(self, person: Person) -> None:
        self._set_here(person, False)
        if person.together_until == inf:  # else it is a member: when we lost it tells what to compare once it is back
            del self.people[person.key]

    def _tell(self, person: Person, verb: str) -> None:
        self._news.add(person, verb, person.label)

    def _meet(self, key: Key, name: bytes) -> Person:
        person = self.people.get(key)
        if person is None:
            self._bound()
            person = self.people[key] = Person(key, name, self._bearers.get(name) or Bearers())
        return person

    def _bearers_of(self, name: bytes) -> Bearers:
        bearers = self._bearers.get(name)
        if bearers is None:
            bearers = self._bearers[name] = Bearers()
        return bearers

    def _set_here(self, person: Person, here: bool) -> None:
        if person.here == here:
            return
        person.here = here
        self.version += 1
        if here:
            person.bearers = self._bearers_of(person.name)
        person.bearers.change(person.key, here)
        if not person.bearers.keys and self._bearers.get(person.name) is person.bearers:
            del self._bearers[person.name]  # a stranger may make names up

    def _bound(self) -> None:
        if len(self.people) < MAX_MEMBERS:
            return
        # Half at once, so that each costs O(1): a stranger may invent members. Those who were here first stay.
        self.people = dict([item for item in self.people.items() if item[1].here][:MAX_MEMBERS // 2])
        self.version += 1
        self._bearers = {self._author.name: self._own}
        self._own.keys = {self._author.origin}
        for person in self.people.values():
            person.bearers = self._bearers_of(person.name)
            if person.here:
                person.bearers.change(person.key, True)
        self._guests = {gateway: {key: None for key in keys if key in self.people} for gateway, keys in self._guests.items()}
        self._guests = {gateway: keys for gateway, keys in self._guests.items() if keys}


# Found without a port number -----------------------------------------------------------------

ASK_SECONDS = 1, 60  # between two questions of a member without links: it asks after 0, 1, 2, 4 ... seconds
TELL_SECONDS = 60, 120  # between two announcements of a member with links; random, so that a few speak for all
SOON_SECONDS = 1, 5  # until the first announcement, so that two networks that formed side by side meet
REPLY_SECONDS = 0.02, 0.12  # until a question is answered; random, so that a few answer for all
ENOUGH_TELLERS = 2  # members of our own network that told, and we need not: one of them may be out of reach
REPLIES, REPLY_PAUSE = 8, 1  # answers at once; and one more in so many seconds
CALL_SPREAD = 0, 1  # until a member with links dials: by then another may have linked the two networks
LINK_LOCAL_PAUSE = 0.03, 0.05  # the same for a member without links, so that the packet's copy over IPv4 comes first
REPEAT_SECONDS = 0.5  # after which somebody who asks again did not hear the answers. Until then it is the same question by another interface
NEAR_DIALS, NEAR_SECONDS = 8, 8  # dials on the word of packets: half of what UNPROVEN_SECONDS allows, so that forgers leave the rest
HOST_DIALS, HOST_SECONDS = 2, 24  # the same to one host: fewer than MAX_DIALS, so that whoever announces a lot leaves some to others
QUESTIONS_IN_VAIN = 5  # after which our user is told
MAX_NEARBY, NEARBY_SECONDS = 256, 240  # members whose announcements are remembered; for how long


class Discovery:
    """How members of one room on one network segment find each other: each sends packets to a group, and hears the rest.

    A member without links asks; one with links tells when it is asked, and now and then. Two packets are enough for any
    number of members: whoever has heard two of its own network stays silent. A packet proves nothing, since anybody can
    send one from any address: it is good for one dial, and only to a machine on our own segments (Overlay.near).

    Limit: whoever floods the segment with packets from forged addresses, which takes root, uses up the dials of all.
    Then members meet again when the flood ends, and join by host and port until then.
    """

    def __init__(self, room: bytes, author: Author, port: int, clock: Clock, links: Links, overlay: Overlay, presence: Presence,
                 actions: Actions) -> None:
        self.room = room
        self._author, self._port, self._clock = author, port, clock
        self._links, self._overlay, self._presence, self._actions = links, overlay, presence, actions
        self._rng = overlay.book.rng
        # origin -> (room, when it was heard, since when it asks)
        self._nearby: OrderedDict[int, tuple[bytes, float, Optional[float]]] = OrderedDict()
        self._tellers: set[int] = set()  # members of our own network that told since we last told or were asked
        self._replies = TokenBucket(REPLIES, REPLY_PAUSE, clock.now)
        self._dials, self._each = TokenBucket(NEAR_DIALS, NEAR_SECONDS, clock.now), FairBuckets(HOST_DIALS, HOST_SECONDS)
        self._call: Optional[tuple[float, int, str, int]] = None  # (when to dial it, origin, host, port)
        self._asked, self._next_ask_at = 0, clock.now  # questions so far; when the next may be asked, however often we lose all links
        self._tell_at: Optional[float] = None
        self.restart()

    @property
    def deadline(self) -> Optional[float]:
        """When to call tick (seconds)."""
        return soonest((self._ask_at, self._tell_at, self._call and self._call[0]))

    def restart(self) -> None:
        """We have just come, got our first link, lost our last one, or were stopped or asleep."""
        now, is_linked = self._clock.now, self._is_linked()
        self._alone_since = now
        self._ask_at = None if is_linked else max(now, self._next_ask_at)
        self._tell_at = now + self._rng.uniform(*SOON_SECONDS) if is_linked else self._tell_at

    def tick(self) -> None:
        """Ask, tell or dial, as is due."""
        now = self._clock.now
        if self._call and self._call[0] <= now:
            _, origin, host, port = self._call
            self._call = None
            self._dial(origin, host, port)
        if self._clock.has_reached(self._ask_at):
            self._ask()
        if self._clock.has_reached(self._tell_at):
            self._tell()

    def heard(self, host: str, packet: bytes) -> None:
        """A packet has come from this host."""
        heard = decode_announcement(packet)
        if heard is None or self._author.is_ours(heard.origin):
            return
        asks_again = self._note(heard)
        if heard.kind == ASKS_ALL or heard.kind == ASKS and heard.room == self.room:
            self._plan_reply()
        if heard.room != self.room:
            return
        if self._presence.is_here(heard.origin):
            self._tellers.update([heard.origin] * (heard.kind == TELLS))
        elif (heard.kind == TELLS or asks_again) and self._may_dial(host):
            self._plan_dial(heard, host)

    def rooms(self) -> list[tuple[bytes, int]]:
        """(name, how many members announce it) of each room heard of lately, those with most first."""
        rooms = Counter(room for room, heard_at, _ in self._nearby.values() if heard_at > self._clock.now - NEARBY_SECONDS)
        return sorted(rooms.items(), key=lambda room: (-room[1], room[0]))

    def _is_linked(self) -> bool:
        return bool(self._links.mesh())

    def _note(self, heard: Announcement) -> bool:
        """Remember that this member announces this room. Returns whether it asks again, which means that it hears no answers."""
        now, asks = self._clock.now, heard.kind != TELLS
        _, _, asks_since = self._nearby.pop(heard.origin, (None, None, None))
        asks_again = asks and asks_since is not None and REPEAT_SECONDS < now - asks_since < NEARBY_SECONDS
        self._nearby[heard.origin] = heard.room, now, asks_since if asks_again else now if asks else None
        keep_newest(self._nearby, MAX_NEARBY)
        return asks_again

    def _plan_reply(self) -> None:
        if self._replies.take(self._clock.now):
            reply_at = self._clock.now + self._rng.uniform(*REPLY_SECONDS)
            self._tell_at = reply_at if self._tell_at is None else min(self._tell_at, reply_at)
            self._tellers.clear()

    def _may_dial(self, host: str) -> bool:
        return self._dials.has_one(self._clock.now) and self._each.has_one(host, self._clock.now)

    def _plan_dial(self, heard: Announcement, host: str) -> None:
        if heard.kind == TELLS and not self._is_linked() and not is_link_local(host):
            self._dial(heard.origin, host, heard.port)
        elif self._call is None:
            spread = CALL_SPREAD if self._is_linked() else LINK_LOCAL_PAUSE
            self._call = self._clock.now + self._rng.uniform(*spread), heard.origin, host, heard.port

    def _dial(self, origin: int, host: str, port: int) -> None:
        may_dial = self._may_dial(host) and not self._presence.is_here(origin)
        if may_dial and self._overlay.near(host, port, origin):
            self._dials.take(self._clock.now)
            self._each.take(host, self._clock.now)

    def _ask(self) -> None:
        self._send(ASKS if self._asked else ASKS_ALL)
        least, most = ASK_SECONDS
        self._asked, self._next_ask_at = self._asked + 1, self._clock.now + least
        self._ask_at = self._clock.now + min(max(self._clock.now - self._alone_since, least), most)
        if self._asked == QUESTIONS_IN_VAIN and not self._overlay.book.met:
            words = ("somebody is in room {} nearby, but no connection came about; a firewall may block it: let them join you by host and port"
                     if self.room in dict(self.rooms()) else "nobody else is in room {} yet; if somebody should be, they are on another "
                     "network, or a firewall blocks UDP: then join by host and port")
            self._actions.notice(words, self.room)

    def _tell(self) -> None:
        if len(self._tellers) < ENOUGH_TELLERS:
            self._send(TELLS)
        else:
            self._actions.append(Announce(b""))
        self._tellers.clear()
        self._tell_at = self._clock.now + self._rng.uniform(*TELL_SECONDS) if self._is_linked() else None

    def _send(self, kind: int) -> None:
        packet = encode_announcement(Announcement(kind, self._author.origin, self._port, self.room))
        self._actions.append(Announce(packet))
