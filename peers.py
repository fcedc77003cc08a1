"""The network as one member sees it (Network): a core without any I/O.

Knows: what a link is, who is sent what, whom to link to, what to do when somebody is lost.
Must not know: sockets, clocks, the screen, arguments, signals. Nothing here ever waits, and time is
a number that is handed in.
Leaves out: the sockets and the loop that calls all this (p2pchat.py), the bytes of a record and the
log (message.py).

Network is told what happened and leaves in `events` what to do, so that a simulator runs a thousand
of it as well as the loop runs one.

Reading order: Phase and Neighbour, and of Network what the caller tells; its other sections as they
are called. The constants are for looking up.

The subtle spots: Neighbour._take_records (why nothing is lost) and Network._resolve_double (why two
members who dial each other at once keep one link).
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections import Counter, deque
from enum import Enum
from typing import NamedTuple, Optional

from message import (ECHO_SECONDS, FIRST_LOGGED, HEADER_SIZE, LAST_LOGGED, LOG_MESSAGES, MAX_MESH_FRAME, MAX_PLAIN_FRAME,
                     MAX_RECORD_TEXT, PROBE, QUIT_TEXTS, SMALLEST_SEGMENT, Echoes, Hello, Kind, Log, Pairs,
                     ProtocolError, RecordDecoder, as_c_reads, decode_addresses, decode_hello, decode_record,
                     encode_addresses, encode_frame, encode_hello, encode_pairs, encode_record, is_kind, is_quit, join,
                     plain_texts, read_id, split_text)

# How many links. tests/simulator.py measures the mesh: with 4 and 6 a delivery costs 4 copies instead of 6, but more hops
WANT_LINKS, MAX_MESH_LINKS = 5, 8  # five random links hold a network together when half of its members die at once
MAX_LINKS = 1024  # of all kinds; each costs a descriptor and a few KB, and a stranger can ask for as many as it likes

# A neighbour that takes nothing, or says nothing
MAX_UNSENT = 8 * 1024 * 1024  # bytes that may wait for a C peer: about 100,000 short messages. One of ours lags in the log
PING_SECONDS, MOST_PINGS = 10, 3  # silence before a ping; unanswered pings before the link is given up

# Finding out what is at the far end of a link
STRANGER_SECONDS = 0.5  # one of ours says hello with its first bytes; a C peer waits for its user
PROBE_SECONDS = 1.0  # how long one of ours may take to answer; a C peer never does
HELLO_SECONDS = 5  # from the first hello to the last

# Dialling: whom our user named
DIAL_SECONDS = 10  # how long all addresses of one peer together may stay silent
REDIAL_FIRST, REDIAL_MOST = 1, 60  # seconds of pause before a lost peer is dialled again; doubled each time

# Dialling: addresses that the network picks
MAX_DIALS = 3  # probes under way at once
MESH_DIAL_SECONDS = 5  # for an address to answer
STIR_SECONDS = 15, 45  # between two swaps
FRIEND_SHARE = 0.3  # of swaps that try a friend first
RESERVE_FIRST, RESERVE_MOST = 1, 30  # pause between two dials of old acquaintances, doubled each time
FAILED_PAUSE = 0, 60  # seconds for which a failed address is not dialled
NO_ROOM_PAUSE = 1, 3  # the same where there was no room: who has lost all its links finds room everywhere
CLOSED_PAUSE = 0, 10  # the same where a link was closed
SHUN_SELF = 300  # the same where we met ourselves
MAX_BOOK = 128  # addresses heard of
MAX_FRIENDS = 8  # addresses of members once met, kept to find the other half after a split

# Dialling on a stranger's word: we are nobody's way to ring at others' doors
MAX_NAMED, NAMED_SECONDS = 16, 60  # new addresses that one neighbour may name, and in how many seconds
LEAST_PORT = 1024  # below are the services of others
# Dials to where nobody of ours ever answered us: so many at once, and one more after so many seconds. One that is
# answered costs nothing. Who has lost its links, all or nearly, has a second allowance beside this one: empty at first,
# it grows with time, and with each host where a member answered: among liars only there is none to speak of.
KNOCKS, KNOCK_SECONDS = 8, 10
LONELY_KNOCKS, LONELY_SECONDS, LONELY_LINKS, EARNED_KNOCKS = 64, 30, 3, 8

# Who is here
MAX_MEMBERS = 10_000  # members remembered for :who
MAX_GUESTS = 256  # names that may be behind one plain link
MAX_GUEST_NAME = 256  # bytes of such a name; longer ones are shown, not remembered: a thousand links would hold half a GB
MAX_NAMES = 8  # of them named when it is lost
MAX_OWN = 256  # origins of our own, remembered; each time that somebody speaks in our name we take another one
SUSPECT_SECONDS = 1, 2  # after which a lost neighbour that nobody heard of is told to all; random, so that one of five tells
AGAIN_SECONDS = 10  # within which a second link to the same member is no news
# Notices of who came and went: so many at once, and one more after so many seconds; the others are only counted. A crowd
# that comes and goes for hours leaves the chat readable.
COMINGS, COMING_SECONDS = 50, 10

# History
EARLIER_SECONDS = 10  # a message that was said longer ago, and comes with a new link, is marked as earlier
CLOCK_SLACK = 5  # seconds by which two members' clocks may differ
MISSING_PAUSE = 10  # seconds between two notices of missing messages
GAP_SECONDS, MAX_GAPS = 10, 256  # so long what is missing of an origin is awaited from another link; so many origins' are
MAX_MISSING = 1_000_000  # messages of one origin: whoever jumps further lies

# Circles of C peers, in which copies come back
RECENT_MESSAGES = 256  # of the log that may still come back as echoes when the first C peer turns up
MAX_CIRCLED = 64  # ways remembered for each plain link of a circle
CIRCLE_SECONDS = 30  # for which nothing is passed on into a circle of C peers where it is already, after the last echo
REDUNDANT_ECHOES, REDUNDANT_SECONDS = 5, (2, 20)  # echoes, and seconds, until a link that brings nothing else is closed
SAID = "said"  # the way by which members' own messages come, see Echoes

# Why the network itself ends a link, beside what a neighbour did
PLAIN_ANSWER, DOUBLE, SPARED = "is a C peer", "is linked twice", "found other links"
NO_ROOM = "has no room for another link"

# What the network asks for -------------------------------------------------------------------

class Show(NamedTuple):
    """Put chat messages of one name on the screen. Raw bytes of a stranger: whoever shows them cleans them."""
    name: bytes
    texts: list
    mine: bool = False
    earlier: int = 0  # when it was said (seconds since 1970), if that was before we were here


class Notice(NamedTuple):
    """Tell our user. `words` is ours; each {} in it stands for one of `parts`: str is ours, bytes are a stranger's."""
    words: str
    parts: tuple = ()


class Connect(NamedTuple):
    """Dial; report to Network.opened, or to Network.dial_failed after `seconds` at the latest."""
    call: "Call"
    seconds: float


class Hangup(NamedTuple):
    """Send this neighbour what waits, as far as it goes at once; close its link; report `reason` to Network.closed."""
    neighbour: "Neighbour"
    reason: str


# The chat without I/O: one neighbour ---------------------------------------------------------

class Contact:
    """A peer that our user named: all its addresses, and when to dial it again after it was lost."""

    def __init__(self, label, addresses):
        self.label = label
        self.addresses = tuple(addresses)
        self.untried = list(addresses)
        self.pause = REDIAL_FIRST
        self.due = None  # when to dial again; None: nothing is planned
        self.reached = False  # ever
        self.plain = False  # the last time, it was a C peer (or one of ours that was stopped: so it is probed each time)
        self.failure = ""  # why the last round of dials came to nothing


class Call(NamedTuple):
    """One dial: of a contact, or of an address that the network picked."""
    address: tuple
    contact: Optional[Contact] = None
    urgent: bool = False
    plain: bool = False  # a probe was not answered: speak as to a C peer
    since: float = 0.0  # when it began


class Phase(Enum):
    """What a link is. Only the side that dials has to find out, with a probe that a C peer does not show."""
    STRANGER = "accepted, and has not said anything"
    PROBING = "dialled, and has not answered"
    GREETING = "one of ours, whose full hello is on its way"
    MESH = "one of ours"
    PLAIN = "a C peer"


class Neighbour:
    """The far end of one link, as the chat sees it: what it is, what it said, what it has yet to be sent."""

    def __init__(self, host, call, phase, now, wall):
        self.host = host
        self.call = call  # None: it dialled us
        self.phase = phase
        self.since, self.since_wall = now, wall
        self.heard_at = now
        self.pings, self.pinged_at = 0, now  # unanswered, and when the last one went out
        self.frames = RecordDecoder(MAX_PLAIN_FRAME)
        self.pairs = Pairs()  # of a plain link
        self.names = {}  # who was heard over a plain link, in order; the values mean nothing
        self.waiting = deque()  # Batches to send before anything of the log
        self.queued = 0  # bytes in `waiting`
        self._taken = 0  # bytes of the first of them that were taken
        self.named = deque()  # (address, when): what it named lately and nobody else had
        self.ending = False  # a hang-up is under way: nothing more is taken from it or queued for it
        self.left = None  # the name that said goodbye
        self.origin = None  # of a mesh link, from its hello on
        self.address = None  # where it can be dialled
        self.name = b""
        self.log, self.position = None, 0  # of a mesh link: the next record of our log that it may be sent
        self.known, self.horizon = {}, {}  # origin -> sequence that we saw it has, and that it had when we met
        self.may_skip = False  # what is missing between its records was awaited from others, and did not come
        self.ahead = 0  # the number in our log from which on nothing is known to be there already
        self.circled = {}  # of a plain link: way -> until when what comes by that way is known to be there already
        self.echoes, self.redundant_at = 0, None  # of a plain link, see Network._echo

    @property
    def contact(self):
        """The Contact that led to this link; None if our user did not name it."""
        return self.call.contact if self.call else None

    @property
    def plain(self):
        """Whether a C peer may be at the far end, so that the rules for sending to one hold."""
        return self.phase not in (Phase.GREETING, Phase.MESH)

    @property
    def unsent(self):
        """0 if nothing is to be sent now, else the bytes in `waiting` plus the number of records left in the log."""
        if self.phase is Phase.STRANGER:
            return 0  # not before it is known what it is
        return self.queued + (self.log.end - self.position if self.log else 0)

    def heard(self, name):
        """Remember who is behind this link. Returns False if there are too many, or the name is too long for a person's."""
        if len(self.names) < MAX_GUESTS and len(name) <= MAX_GUEST_NAME:
            self.names[name] = None
        return name in self.names

    def queue(self, batch):
        """Have a Batch sent; at the end of the turn, as everything is (rule 2 of p2pchat.py)."""
        self.waiting.append(batch)
        self.queued += len(batch.data)

    def queue_frame(self, body):
        """The same with one frame."""
        self.queue(join([encode_frame(body)]))

    def clear(self):
        """Nothing that waits will be sent, and nothing of the log."""
        self.waiting.clear()
        self.queued, self._taken, self.log = 0, 0, None

    @property
    def lagging(self):
        """Whether it takes so much less than is said that our own user should wait."""
        return self.queued > MAX_UNSENT // 4 or self.log is not None and self.log.end - self.position > LOG_MESSAGES // 4

    def take(self, joined, room):
        """Take out what is to be sent next; b"" if there is nothing, or `room` (bytes) is too small for the first piece.

        Whole pieces of what waits, up to `joined` bytes together, or one longer one: of a piece over SMALLEST_SEGMENT
        bytes only the header, at its start, must not be cut, so room for that many will do. Then a stretch of the log.
        """
        chunk = []
        if self.waiting:
            self._take_pieces(chunk, joined, room)
        if self.log and not self.waiting:
            self._take_records(chunk)
        return chunk[0] if len(chunk) == 1 else b"".join(chunk)

    def _take_pieces(self, chunk, joined, room):
        left = min(joined, room)
        while self.waiting:
            batch, start = self.waiting[0], self._taken
            stop = len(batch.data)
            if stop - start > left:
                stop = self._last_end(batch, start + left) or (0 if chunk else self._long_piece(batch, room))
            if not stop:
                break
            chunk.append(batch.data[start:stop])
            left -= stop - start
            self._drop(stop)
        self.queued -= sum(map(len, chunk))

    def _last_end(self, batch, most):
        """The last place at or before `most` where a segment may end; 0 if that takes nothing."""
        at = bisect_right(batch.ends, most) - 1
        return batch.ends[at] if at >= 0 and batch.ends[at] > self._taken else 0

    def _long_piece(self, batch, room):
        """Where the piece ends that alone is longer than what may be joined; 0 without room for its header."""
        stop = batch.ends[bisect_right(batch.ends, self._taken)]
        return stop if min(stop - self._taken, SMALLEST_SEGMENT) <= room else 0

    def _drop(self, stop):
        """What is before `stop` in the first Batch is taken."""
        self._taken = stop
        if stop == len(self.waiting[0].data):
            self.waiting.popleft()
            self._taken = 0

    def _take_records(self, chunk):
        # The subtle spot: only a position in the shared log is kept, not a queue of its own. So nothing is lost
        # on the way: what is in the log goes to each neighbour, in the log's order, unless it is known to have
        # it. One that is slow costs nothing, lags behind, and catches up; one that lags too far finds a jump, and says so.
        self.position = max(self.position, self.log.start)
        while not chunk and self.position < self.log.end:
            data, stop = self.log.stretch(self.position)
            if self.position < self.ahead:
                data = self._unknown(stop)
            self.position = stop
            if data:
                chunk.append(data)

    def _unknown(self, stop):
        """Of the log from our position to `stop`, what this neighbour is not known to have."""
        if len(self.known) > 2 * LOG_MESSAGES:  # origins that a stranger made up
            self.known = {origin: last for origin, last in self.known.items() if origin in self.log.have}
        frames, known = self.log.read(self.position, stop), self.known
        return b"".join([frame for frame, (origin, sequence) in zip(frames, map(read_id, frames))
                         if sequence > known.get(origin, 0)])


# The chat without I/O: who is here, and where to dial ----------------------------------------

class Member:
    """Somebody on the network, as :who lists them."""

    def __init__(self, name, guest):
        self.name, self.label = name, name
        self.guest = guest  # whether it is on a plain link of some member
        self.here = True
        self.told = None  # what our user was told last: that it is here, or that it is not


class People:
    """Who is here. A member's key is its origin, a guest's the origin of the member it hangs on, and its name."""

    def __init__(self, own_name):
        self.members = {}
        self._guests = {}  # origin -> keys of the guests at its links
        self._own_name = own_name
        self._labels = {}  # label -> the Member that bears it, or did last
        self._counts = {}  # name -> the last number that told one bearer from another

    def find(self, key):
        """The Member who is here under this key, or None."""
        member = self.members.get(key)
        return member if member is not None and member.here else None

    def meet(self, key, name):
        """The Member under this key; a new one is here."""
        member = self.members.get(key)
        if member is None:
            member = self.members[key] = Member(name, isinstance(key, tuple))
            self._label(member)
            if member.guest:
                self._guests.setdefault(key[0], []).append(key)
            self._bound()
        return member

    def heard(self, key, name):
        """The Member under this key, who is here (again): it spoke."""
        member = self.meet(key, name)
        self.set_here(member, True)
        return member

    def gone(self, origin):
        """This member is not here any more, and with it its guests."""
        for key in (origin, *self._guests.get(origin, ())):
            if key in self.members:
                self.members[key].here = False

    def set_here(self, member, here):
        """Whether this Member is here, from now on. One that comes back may get another label."""
        back = here and not member.here
        member.here = here
        if back and self._labels.get(member.label) is not member:
            self._label(member)  # another one bears the old label now

    def _label(self, member):
        """Call it by its name, unless our user or somebody who is here is called so; then with a number."""
        label, number = member.name, self._counts.get(member.name, 1)
        while label == self._own_name or label in self._labels and self._labels[label].here:
            number += 1
            self._counts[member.name] = number
            label = b"%s~%d" % (member.name, number)
        member.label = label
        self._labels[label] = member
        if len(self._labels) > 2 * MAX_MEMBERS:  # a liar lets two come and go by turns
            self._labels = {member.label: member for member in self.members.values()}

    def _bound(self):
        if len(self.members) <= MAX_MEMBERS:
            return
        # Half at once, those who are gone first: a stranger may invent members faster than one by one is cheap.
        self.members = dict(sorted(self.members.items(), key=lambda item: item[1].here)[MAX_MEMBERS // 2:])
        self._guests, self._counts = {}, {}
        self._labels = {member.label: member for member in self.members.values()}
        for key, member in self.members.items():
            if member.guest:
                self._guests.setdefault(key[0], []).append(key)


class Book:
    """Where members can be dialled: address -> origin, None as long as it is not known who is there."""

    def __init__(self, rng):
        self.rng = rng
        self.heard = {}  # from live neighbours; what fails is dropped
        self.friends = {}  # a fair sample of all whom we were ever linked to: they may be the other half after a split
        self.met = 0
        self.shunned = {}  # address -> until when it is not dialled
        self.proven, self.hosts = {}, {}  # addresses, and hosts, where one of ours answered us; the values mean nothing

    def note(self, address, origin=None):
        """A member may be dialled there; `origin` if it is known which."""
        self.heard[address] = origin if origin is not None else self.heard.get(address)
        if len(self.heard) > MAX_BOOK:
            del self.heard[self.rng.choice(list(self.heard))]

    def prove(self, address):
        """One of ours answered there."""
        for known, key in ((self.proven, address), (self.hosts, address[0])):
            known[key] = None
            if len(known) > MAX_BOOK:
                del known[next(iter(known))]

    def drop(self, address):
        """Forget an address, if nobody was met there."""
        if self.heard.get(address, 0) is None:
            del self.heard[address]

    def befriend(self, address, origin):
        """Reservoir sampling (Vitter 1985, algorithm R): each member ever met is a friend with equal chance."""
        self.met += 1
        if address is None or address in self.friends:
            return
        if len(self.friends) < MAX_FRIENDS:
            self.friends[address] = origin
        elif self.rng.randrange(self.met) < MAX_FRIENDS:
            del self.friends[self.rng.choice(list(self.friends))]
            self.friends[address] = origin

    def shun(self, address, until):
        """Do not dial it before `until`. None: it is not known where that was."""
        if address is None:
            return
        self.shunned[address] = until
        if len(self.shunned) > MAX_BOOK:
            del self.shunned[next(iter(self.shunned))]

    def failed(self, address, now):
        """Nobody of ours answered there."""
        self.heard.pop(address, None)
        self.proven.pop(address, None)
        self.shun(address, now + self.rng.uniform(*FAILED_PAUSE))

    def forget(self, origin):
        """This member said goodbye: nobody will answer."""
        for addresses in (self.heard, self.friends):
            for address in [address for address, owner in addresses.items() if owner == origin]:
                del addresses[address]

    def fresh(self, now):
        """What was heard of and may be dialled now."""
        self.shunned = {address: until for address, until in self.shunned.items() if until > now}
        return {address: origin for address, origin in self.heard.items() if address not in self.shunned}

    def next_fresh(self):
        """When the first of the others may be dialled again, or None."""
        return min((until for address, until in self.shunned.items() if address in self.heard), default=None)


class Allowance:
    """So many at once, and one more every so many seconds."""

    def __init__(self, most, seconds, full_at):
        self._most, self._seconds = most, seconds
        self._full_at = full_at

    def left(self, now):
        """Whether there is one now."""
        return self._most - max(self._full_at - now, 0) / self._seconds >= 1

    def spend(self, now):
        """One is used; also if none is left, and then the next one comes later."""
        self._full_at = max(self._full_at, now) + self._seconds

    def refund(self, count=1):
        """Give so many back."""
        self._full_at -= count * self._seconds

    @property
    def next_at(self):
        """When there is one again."""
        return self._full_at - (self._most - 1) * self._seconds


# The chat without I/O: the network -----------------------------------------------------------

class Network:
    """Who our neighbours are, who is sent what, how it heals. Told what happened; leaves in `events` what to do.

    A replicated log over a bounded random graph, in three rules: send a neighbour whatever the log
    holds that it has not seen, in the log's order; keep WANT_LINKS, never more than MAX_MESH_LINKS,
    to addresses heard of from live neighbours; now and then swap a link for a random other one. C
    peers hang on at the edge, on plain links, and see nothing of it.

    The caller sets `now` (seconds of a monotonic clock) and `wall` (seconds since 1970) before each
    call; `rng` is the only source of chance. So a simulator can run it, and replay a run.
    """

    def __init__(self, name, port, rng, now=0.0, wall=0):
        self.name, self.port, self.rng = name, port, rng  # name: bytes; port: where we listen
        self._goodbye = encode_pairs(name, QUIT_TEXTS[:1])  # a C peer takes a bare end of stream for an error
        self.now, self.wall = now, wall
        self.neighbours = []
        self.contacts = []
        self.events = deque()
        self.log = Log()
        self.people = People(name)
        self.book = Book(rng)
        self.calls = []  # dials under way
        self._knocks = Allowance(KNOCKS, KNOCK_SECONDS, now)
        self._lonely_knocks = Allowance(LONELY_KNOCKS, LONELY_SECONDS, now + LONELY_KNOCKS * LONELY_SECONDS)
        self._suspects = {}  # origin -> when to tell all that it is lost
        self._before = {}  # origin -> sequence that was said before we joined: history, not news
        self._plain = []  # the neighbours that are, or may be, C peers
        self._echoes = Echoes()
        self._guests_until = now  # so long C peers are about, somewhere
        self._missing, self._missing_at = 0, now
        self._gaps = {}  # origin -> (the last sequence before what is missing, since when that is awaited)
        self._comings, self._untold = Allowance(COMINGS, COMING_SECONDS, now), 0
        self._stir_at = None
        self._reserve_at, self._reserve_pause = now, RESERVE_FIRST
        self._leaving = False
        self._linked = None, now  # whom we told our user to be linked to, and when: two crossed links are one piece of news
        self._planned, self._replan = None, True
        self._own_origins = {}  # the last MAX_OWN; the values mean nothing
        self._new_origin()

    # What the caller tells -------------------------------------------------------------------

    @property
    def deadline(self):
        """When tick wants to be called; None: nothing is planned, an idle member sleeps. May be early, never late."""
        if self._replan:  # worked out when something changed, not in every turn of a busy loop
            self._replan, self._planned = False, self._plan()
        return self._planned

    def _plan(self):
        times = [contact.due for contact in self.contacts]
        times += [self._due(neighbour) for neighbour in self.neighbours]
        times += [self._stir_at, *self._suspects.values()]
        times += [self._comings.next_at] * bool(self._untold) + [self._missing_at] * bool(self._missing)
        if self._wants_links():
            times.append(self.book.next_fresh())
            times += [self._reserve_at] * bool(self._free(self._reserve()))
            times += [self._knocks.next_at] * (not self._may_knock())
        return min((time for time in times if time is not None), default=None)

    def join(self, label, addresses):
        """Our user wants a link to the peer at one of `addresses`, called `label` in notices. Returns its Contact."""
        self._replan = True
        contact = Contact(label, addresses)
        self.contacts.append(contact)
        self._dial_contact(contact)
        return contact

    def say(self, *texts):
        """Our user says this (bytes of any length): to everyone, and to our own screen."""
        self.events.append(Show(self.name, list(texts), mine=True))
        self._tell(Kind.SAY, self.name, [part for text in texts for part in split_text(text, MAX_RECORD_TEXT)])
        _, parts = self._news(self.name, texts, SAID)
        self._relay(self.name, parts)

    def leave(self):
        """Say goodbye to all, behind whatever they are still to be sent."""
        self._leaving = True
        self.contacts.clear()
        self._tell(Kind.LEFT, self.name)
        for neighbour in self.neighbours:
            if neighbour.phase is Phase.STRANGER:
                self._settle_plain(neighbour)
            if neighbour.plain:
                self._queue(neighbour, self._goodbye)

    def opened(self, host, call=None):
        """A connection is up; `call` if we dialled it. Returns its Neighbour."""
        self._replan = True
        phase = Phase.STRANGER if call is None else Phase.PLAIN if call.plain else Phase.PROBING
        neighbour = Neighbour(host, call, phase, self.now, self.wall)
        self.neighbours.append(neighbour)
        self._sort_out()
        if call in self.calls:
            self.calls.remove(call)
        if phase is Phase.PLAIN:
            self._reached(call.contact, call.address)
        if phase is Phase.PROBING:
            neighbour.frames.limit = MAX_MESH_FRAME
            hello = Hello(self.origin, self.port, call.urgent, b"")
            neighbour.queue(encode_pairs(self.name, [PROBE + encode_hello(hello)]))
        return neighbour

    def dial_failed(self, call, reason):
        """A Connect came to nothing; `reason` is a sentence without its subject."""
        self._replan = True
        if call in self.calls:
            self.calls.remove(call)
        if call.contact is None:
            self.book.failed(call.address[:2], self.now)
            self._fill()
            return
        if call.contact.untried:
            self._dial_contact(call.contact)
            return
        call.contact.failure = reason
        if not call.contact.reached:
            self._forget_contact(call.contact)
            self._notice("{} cannot be joined: it {}", call.contact.label, reason)
        self._plan_redial(call.contact)

    def make_way(self):
        """There are too many links: let one go for somebody new. Returns False if none can be spared now.

        That is the newest silent one of the host with most of them: who came before the crowd may be a C peer whose
        user is just quiet, and so may one that is alone on its host. Talkers only go where one host has half of all.
        """
        guests = [neighbour for neighbour in self.neighbours if neighbour.phase in (Phase.PLAIN, Phase.GREETING)
                  and not neighbour.call and not neighbour.ending and neighbour.since + STRANGER_SECONDS <= self.now]
        found = _newest_of_most([neighbour for neighbour in guests if not neighbour.names], 2)
        found = found or _newest_of_most(guests, MAX_LINKS // 2)
        if found is not None:
            self._hang_up(found, "is one of too many from there")
        return found is not None

    def received(self, neighbour, data):
        """Bytes came from this neighbour, in whatever pieces."""
        neighbour.heard_at, neighbour.pings = self.now, 0
        self._replan |= neighbour.phase not in (Phase.MESH, Phase.PLAIN)
        neighbour.frames.feed(data)
        phase = None
        try:
            while neighbour.phase is not phase and not neighbour.ending:  # what it says may change what it is
                phase = neighbour.phase
                self._read(neighbour)
        except ProtocolError as error:
            self._hang_up(neighbour, str(error))
        self._tell_missing()

    def closed(self, neighbour, reason):
        """This neighbour's link is no more; `reason` is a sentence without its subject."""
        self._replan = True
        self.neighbours.remove(neighbour)
        self._sort_out()
        if neighbour.phase is Phase.PROBING:
            self._probe_failed(neighbour, reason)
        elif neighbour.phase is Phase.MESH:
            self._mesh_closed(neighbour, reason)
        elif neighbour.phase is Phase.PLAIN:
            self._plain_closed(neighbour, reason)
        elif neighbour.phase is Phase.GREETING and neighbour.address and not neighbour.ending:
            self.book.note(neighbour.address)  # it gave up waiting for us, and may take us for a C peer: call back
        self._fill()

    def tick(self):
        """The deadline has passed: do what is due."""
        self._replan = True
        for neighbour in list(self.neighbours):
            due = self._due(neighbour)
            if due is not None and due <= self.now:
                self._overdue(neighbour)
        for contact in self.contacts:
            if contact.due is not None and contact.due <= self.now:
                contact.due, contact.untried = None, list(contact.addresses)
                self._dial_contact(contact)
        for origin in [origin for origin, due in self._suspects.items() if due <= self.now]:
            del self._suspects[origin]
            self._tell_lost(origin)
        if self._untold and self._comings.left(self.now):
            untold, self._untold = self._untold, 0
            self._tell_coming("{} more came or went", f"{untold:,}")
        self._tell_missing()
        if self._last_word < self.log.start:
            self._tell(Kind.HERE, self.name)  # so that the log never forgets who is here
        if self._stir_at is not None and self._stir_at <= self.now:
            self._stir()
        self._fill()

    def who(self):
        """Everybody here but ourselves, as Members."""
        return [member for member in self.people.members.values() if member.here]

    # One link: what is it? -------------------------------------------------------------------

    def _read(self, neighbour):
        if neighbour.phase is Phase.MESH:
            self._read_records(neighbour)
        elif neighbour.phase is Phase.PROBING:
            self._read_answer(neighbour)
        elif neighbour.phase is Phase.GREETING:
            self._read_hello(neighbour)
        else:
            self._read_pairs(neighbour)

    def _read_pairs(self, neighbour):
        for name, texts in neighbour.pairs.runs(neighbour.frames):
            self._pairs(neighbour, name, texts)
            if neighbour.ending or not neighbour.plain:
                return

    def _read_answer(self, neighbour):
        """What we dialled says its first frame: a hello, a bye, or it is a C peer that chats already."""
        for frame in neighbour.frames:
            self._answered(neighbour, frame[HEADER_SIZE:])
            if neighbour.ending or neighbour.phase is not Phase.PROBING:
                return

    def _read_hello(self, neighbour):
        frame = next(iter(neighbour.frames), None)  # one: what follows it is read as records
        if frame is not None:
            self._greeted(neighbour, frame[HEADER_SIZE:])

    def _read_records(self, neighbour):
        for run in neighbour.frames.runs():
            self._take_run(neighbour, run)
            if neighbour.ending:
                return

    def _pairs(self, neighbour, name, texts):
        text = texts[0]
        if text.startswith(PROBE) and is_kind(text[len(PROBE):], Kind.HELLO) and neighbour.call is None and not neighbour.names:
            # Also on a link that we took for a C peer's, as long as nothing else came: one lost packet makes a probe late.
            self._probed(neighbour, decode_hello(text[len(PROBE):]))
            return
        if neighbour.phase is Phase.STRANGER:
            self._settle_plain(neighbour)
        self._plain_messages(neighbour, as_c_reads(name), texts if len(texts) > 1 else [as_c_reads(text)])

    def _settle_plain(self, neighbour):
        neighbour.phase = Phase.PLAIN
        self._tell_coming("somebody joined from {}", neighbour.host)

    def _probed(self, neighbour, hello):
        """One of ours dialled us: take it, or tell it whom else to ask."""
        neighbour.phase = Phase.GREETING
        self._replan = True
        self._sort_out()
        if not self._recognise(neighbour, hello):
            return
        if len(self._mesh()) >= MAX_MESH_LINKS and not hello.urgent:
            self._bye(neighbour)
            return
        self._greet(neighbour)

    def _answered(self, neighbour, frame):
        if is_kind(frame, Kind.BYE) or is_kind(frame, Kind.HELLO):
            self._proved(neighbour.call)
        if is_kind(frame, Kind.BYE):
            self._learn(neighbour, decode_addresses(frame))
            self._hang_up(neighbour, NO_ROOM)
            return
        if not is_kind(frame, Kind.HELLO):
            return  # chat: of a C peer, or of one of ours that has not got our probe yet; PROBE_SECONDS will tell
        hello = decode_hello(frame)
        if self._recognise(neighbour, hello):
            self._greet(neighbour)
            self._meet(neighbour, hello)

    def _greeted(self, neighbour, frame):
        if not is_kind(frame, Kind.HELLO):
            raise ProtocolError("did not say hello")
        hello = decode_hello(frame)
        if hello.origin != neighbour.origin:
            raise ProtocolError("changed its origin")
        self._meet(neighbour, hello)

    def _recognise(self, neighbour, hello):
        """Note who it is. Returns False if it is ourselves, or a second link to the same member that is not to be kept."""
        neighbour.origin, neighbour.name = hello.origin, hello.name
        host, port = (neighbour.host, hello.port) if neighbour.call is None else neighbour.call.address[:2]
        neighbour.address = (host, port) if port >= LEAST_PORT or neighbour.call else None
        if hello.origin in self._own_origins:
            self.book.shun(neighbour.address, self.now + SHUN_SELF)
            self._decline(neighbour, "is this program itself")
            return False
        if neighbour.address and neighbour.call:  # else it only says so, as yet
            self.book.note(neighbour.address, hello.origin)
        for other in self._mesh(greeting=True):
            if other.origin == hello.origin and other is not neighbour and not self._resolve_double(neighbour, other):
                return False
        return True

    def _resolve_double(self, new, old):
        """Two links to one member, dialled from both ends at once. Returns whether the new one stays.

        The subtle spot: both ends decide alone, must drop the same one, and may see the two in different order. So what
        decides is the same at both ends: the link that the higher origin dialled stays; of two dialled by one end, the new.
        """
        ours_new, ours_old = new.call is not None, old.call is not None
        keep_new = ours_new == ours_old or ours_new == (self.origin > new.origin)
        if new.host != old.host and not (is_loopback(new.host) and is_loopback(old.host)):
            keep_new = False  # perhaps a stranger under a stolen name: it must not cost the real one its link
        self._decline(old if keep_new else new, DOUBLE)
        return keep_new

    def _decline(self, neighbour, reason):
        """Hang up on somebody we are linked to anyway. Who dialled must hear who we are, to see it the same way."""
        hello = encode_hello(Hello(self.origin, self.port, False, self.name))
        self._hang_up(neighbour, reason, hello if neighbour.phase is Phase.GREETING else None)

    def _greet(self, neighbour):
        neighbour.clear()  # chat that was held back while it was a stranger comes from the log now
        neighbour.frames.limit = MAX_MESH_FRAME
        addresses = self._addresses_but(neighbour, greeting=True)
        hello = Hello(self.origin, self.port, False, self.name, addresses, self.log.vector())
        neighbour.queue_frame(encode_hello(hello))

    def _meet(self, neighbour, hello):
        """Both have said hello: a mesh link from here on."""
        alone = not self._mesh()
        neighbour.phase = Phase.MESH
        neighbour.name = hello.name
        neighbour.horizon, neighbour.known = hello.vector, dict(hello.vector)
        neighbour.log, neighbour.position, neighbour.ahead = self.log, self.log.start, self.log.end
        self._suspects.pop(hello.origin, None)
        self._reserve_pause = RESERVE_FIRST
        self._learn(neighbour, hello.addresses)
        if neighbour.address:
            self.book.note(neighbour.address, hello.origin)
        self.book.befriend(neighbour.address, hello.origin)
        if self.book.met == 1 and neighbour.call:
            self._before = hello.vector
        if neighbour.contact:
            neighbour.contact.plain = False
            self._reached(neighbour.contact, neighbour.call.address)
        elif alone and self.book.met > 1:
            self._tell_linked(hello)
        if self._stir_at is None:
            self._stir_at = self.now + self.rng.uniform(*STIR_SECONDS)
        self._make_room(neighbour)
        self._fill()

    def _tell_linked(self, hello):
        """Our user hears that we are not alone any more; once, though two links may have crossed."""
        origin, when = self._linked
        if origin != hello.origin or self.now - when >= AGAIN_SECONDS:
            self._linked = hello.origin, self.now
            self._tell_coming("linked to {}", self.people.meet(hello.origin, hello.name).label)

    def _make_room(self, newest):
        """Keep to MAX_MESH_LINKS by letting a random other go. It loses nothing: its next link catches up."""
        stirred = newest.call is not None and newest.call.contact is None and newest.call.urgent
        most = WANT_LINKS + 1 if stirred else MAX_MESH_LINKS
        others = [other for other in self._mesh() if other is not newest]
        if len(others) >= most:
            # Of the host that has most of them, if one has: who opens eight links from one machine pushes nobody else out.
            crowds = Counter(other.host for other in others)
            self._bye(self.rng.choice([other for other in others if crowds[other.host] == max(crowds.values())]))

    def _reached(self, contact, address):
        contact.addresses = (address,)  # of several, the one that works
        self._notice("linked to {} again" if contact.reached else "linked to {}", contact.label)
        contact.reached = True

    # One link: when something is due, and its end --------------------------------------------

    def _due(self, neighbour):
        """When something has to be done about this link; None: never."""
        if neighbour.ending:
            return None
        if neighbour.phase is Phase.STRANGER:
            return neighbour.since + STRANGER_SECONDS
        if neighbour.phase is Phase.PROBING:
            return neighbour.since + max(PROBE_SECONDS, 2 * (neighbour.since - neighbour.call.since))  # far away: be patient
        if neighbour.phase is Phase.GREETING:
            return neighbour.since + HELLO_SECONDS
        if neighbour.phase is Phase.MESH:
            return max(neighbour.heard_at, neighbour.pinged_at) + PING_SECONDS
        return neighbour.redundant_at

    def _overdue(self, neighbour):
        if neighbour.phase is Phase.STRANGER:
            self._settle_plain(neighbour)
        elif neighbour.phase is Phase.PLAIN:
            self._open_circle(neighbour)
        elif neighbour.phase is Phase.PROBING:
            self._hang_up(neighbour, PLAIN_ANSWER)
        elif neighbour.phase is Phase.GREETING:
            self._hang_up(neighbour, "did not finish its hello")
        elif neighbour.pings >= MOST_PINGS:
            self._hang_up(neighbour, "is silent")
        else:
            neighbour.pings += 1
            neighbour.pinged_at = self.now
            neighbour.queue_frame(bytes([Kind.PING]))

    def _hang_up(self, neighbour, reason, farewell=None):
        """End a link; `farewell` is the body of a last frame."""
        if neighbour.ending:
            return
        neighbour.ending = True
        neighbour.clear()
        if neighbour.phase is Phase.STRANGER:
            neighbour.phase = Phase.PLAIN
        if neighbour.phase is Phase.PLAIN and neighbour.left is None:
            neighbour.queue(self._goodbye)
        if farewell:
            neighbour.queue_frame(farewell)
        self.events.append(Hangup(neighbour, reason))

    def _bye(self, neighbour):
        self._hang_up(neighbour, SPARED, encode_addresses(Kind.BYE, self._addresses_but(neighbour)))

    def _probe_failed(self, neighbour, reason):
        contact = neighbour.contact
        if reason == DOUBLE and contact:
            self._reached(contact, neighbour.call.address)
        elif reason in (DOUBLE, SPARED):
            return
        elif contact is None and reason == NO_ROOM:
            self.book.shun(neighbour.call.address[:2], self.now + self.rng.uniform(*NO_ROOM_PAUSE))  # alive: keep it
        elif contact is None:
            self.book.failed(neighbour.call.address[:2], self.now)
        elif reason == PLAIN_ANSWER:
            contact.plain = True
            contact.untried.insert(0, neighbour.call.address)
            self._dial_contact(contact, plain=True)
        else:
            self.dial_failed(neighbour.call, reason)

    def _mesh_closed(self, neighbour, reason):
        if self._is_linked(neighbour.origin, greeting=True):
            return
        self.book.shun(neighbour.address, self.now + self.rng.uniform(*CLOSED_PAUSE))
        member = self.people.members.get(neighbour.origin)
        if reason != SPARED and member is not None and (member.here or member.told):
            self.people.set_here(member, True)  # said to be lost while we were linked to it: now it is, for us too
            self._suspects[neighbour.origin] = self.now + self.rng.uniform(*SUSPECT_SECONDS)

    def _plain_closed(self, neighbour, reason):
        for name in neighbour.names:
            self._presence((self.origin, name), name, False, None)
            self._tell(Kind.GUEST_GONE, name)
        if neighbour.left is not None:
            self._tell_coming("{} left", neighbour.left)
            self._forget_contact(neighbour.contact)
            return
        who = list(neighbour.names)[:MAX_NAMES] or [b"somebody"]
        words = "lost " + ", ".join(["{}"] * len(who)) + " at {}: it {}"
        redial = neighbour.contact in self.contacts
        if not redial:
            self._tell_coming(words, *who, neighbour.host, reason)
            return
        self._notice(words + "; dialling again", *who, neighbour.host, reason)
        if self.now - neighbour.since > REDIAL_MOST:
            neighbour.contact.pause = REDIAL_FIRST
        self._plan_redial(neighbour.contact)

    def _forget_contact(self, contact):
        if contact in self.contacts:
            self.contacts.remove(contact)

    # Mesh links: what other members tell -----------------------------------------------------

    def _take_run(self, neighbour, run):
        """Take what is new in a run as a whole where it is one more piece of the conversation; else record by record."""
        if run.first is None:
            self._record(neighbour, run.frames[0])
            return
        origin, last = run.first.origin, self.log.have.get(run.first.origin)
        end = run.first.sequence + len(run.frames) - 1
        known = 0 if last is None else max(last + 1 - run.first.sequence, 0)
        if known >= len(run.frames):
            self._has(neighbour, origin, end)
            return
        run = run.without(known)
        if self._is_special(neighbour, run.first, end):
            for frame in run.frames:
                self._logged(neighbour, frame)
                if neighbour.ending:
                    return
        else:
            self._extend(neighbour, run, end)

    def _is_special(self, neighbour, first, end):
        """Whether the records from `first` to the sequence `end` are our own, follow a gap, or may be earlier messages."""
        horizon = neighbour.horizon.get(first.origin, 0)
        return (first.origin in self._own_origins or self.log.missing(first.origin, first.sequence) != 0
                or first.sequence <= self._before.get(first.origin, 0)
                or first.sequence <= horizon and (end > horizon or self.wall - first.when > EARLIER_SECONDS))

    def _extend(self, neighbour, run, end):
        up_to_date = neighbour.position == self.log.end
        self.log.extend(run.first.origin, end, run.frames)
        self._has(neighbour, run.first.origin, end)
        if up_to_date:
            neighbour.position = self.log.end  # or each record that it sent would be looked at again, to find that it has it
        self._said(run.first, run.texts, caught_up=end <= neighbour.horizon.get(run.first.origin, 0))

    def _has(self, neighbour, origin, sequence):
        neighbour.known[origin] = max(sequence, neighbour.known.get(origin, 0))
        neighbour.ahead = self.log.end

    def _record(self, neighbour, frame):
        body = frame[HEADER_SIZE:]
        kind = body[0] if body else None
        if kind is None or kind == Kind.HELLO:
            raise ProtocolError("said hello twice" if kind else "sent an empty record")
        if kind == Kind.PING:
            if not neighbour.queued:  # who does not read its answers gets no more of them
                neighbour.queue_frame(bytes([Kind.PONG]))
        elif kind == Kind.PEERS:
            self._learn(neighbour, decode_addresses(body))
        elif kind == Kind.BYE:
            self._learn(neighbour, decode_addresses(body))
            self._hang_up(neighbour, SPARED)
        elif FIRST_LOGGED <= kind <= LAST_LOGGED:
            self._logged(neighbour, frame)

    def _logged(self, neighbour, frame):
        record = decode_record(frame)
        missing = self.log.missing(record.origin, record.sequence)
        if missing is None:
            self._has(neighbour, record.origin, record.sequence)
            return
        if record.origin in self._own_origins:
            self._impersonated(record.origin)
            return
        if missing and not neighbour.may_skip and len(self._mesh()) > 1:
            if self._may_still_come(record.origin):
                # We lagged behind its log. Another link may still bring what is missing; a jump would cut that off.
                self._bye(neighbour)
                return
            neighbour.may_skip = True
        self.log.extend(record.origin, record.sequence, (frame,))
        self._has(neighbour, record.origin, record.sequence)
        if 0 < missing < MAX_MISSING:
            self._missing += missing
            self._replan = True
        self._deliver(record, caught_up=record.sequence <= neighbour.horizon.get(record.origin, 0))

    def _impersonated(self, origin):
        """Somebody speaks in our name: be somebody else. Whatever else comes in the old name is not ours, and not passed on."""
        if origin == self.origin:
            self._new_origin()
            self._tell(Kind.LOST, self.name, [origin.to_bytes(8, "little")])

    def _may_still_come(self, origin):
        """Whether what is missing of this origin is awaited: not for ever, or two who both lack it would refuse all others."""
        last, since = self._gaps.get(origin, (None, self.now))
        if last != self.log.have[origin]:
            since = self.now
            self._gaps.pop(origin, None)
            self._gaps[origin] = self.log.have[origin], since
            if len(self._gaps) > MAX_GAPS:
                del self._gaps[next(iter(self._gaps))]
        return self.now < since + GAP_SECONDS

    def _deliver(self, record, caught_up):
        history = record.sequence <= self._before.get(record.origin, 0)
        earlier = history or caught_up and self.wall - record.when > EARLIER_SECONDS
        if record.kind in (Kind.SAY, Kind.GUEST):
            self._said(record, [record.text], caught_up, record.when if earlier else 0)
        elif record.kind == Kind.GUEST_GONE:
            self._presence((record.origin, record.name), record.name, False, None)
            for neighbour in self.neighbours:
                neighbour.echoes, neighbour.redundant_at = 0, None
        elif record.kind == Kind.LOST:
            self._lost(record, quiet=earlier)
        else:
            here = record.kind == Kind.HERE
            self._presence(record.origin, record.name, here, None if earlier else "{} joined" if here else "{} left")
            if not here:
                self.book.forget(record.origin)

    def _said(self, first, texts, caught_up=False, earlier=0):
        """Show the texts of a run that begins with the record `first`, and pass them on to C peers."""
        key, way, find = first.origin, SAID, self.people.meet
        if first.kind == Kind.GUEST:
            key, way, find = (first.origin, first.name), first.origin, self.people.heard
            self._expect_echoes()
            self._guests_until = self.now + ECHO_SECONDS
        texts, parts = self._news(first.name, texts, way, self._said_at(first) if caught_up else None)
        if texts:
            self.events.append(Show(find(key, first.name).label, texts, earlier=earlier))
            self._relay(first.name, parts, way, when=first.when if caught_up else None)

    def _tell_missing(self):
        if self._missing and self.now >= self._missing_at:
            self._notice("{} messages are missing: they are no longer in anybody's history", f"{self._missing:,}")
            self._missing, self._missing_at = 0, self.now + MISSING_PAUSE

    # Mesh links: what we tell ----------------------------------------------------------------

    def _tell(self, kind, name, texts=(b"",)):
        """Put records of our own into the log; the links take them from there."""
        when, first = int(self.wall), self._sequence + 1
        self._sequence += len(texts)
        self.log.extend(self.origin, self._sequence, [encode_record(kind, self.origin, sequence, when, name, text)
                                                      for sequence, text in enumerate(texts, first)])
        self._last_word = self.log.end - 1

    def _new_origin(self):
        self.origin, self._sequence = self.rng.getrandbits(64), 0
        self._own_origins[self.origin] = None  # the old ones stay ours: what they said must not come back as another's
        if len(self._own_origins) > MAX_OWN:
            del self._own_origins[next(iter(self._own_origins))]
        self._tell(Kind.HERE, self.name)

    # Plain links -----------------------------------------------------------------------------

    def _plain_messages(self, neighbour, name, texts):
        """A run of messages of one name. A goodbye is a run of its own."""
        if is_quit(texts[0]):
            neighbour.left = name
            self._hang_up(neighbour, "left")
            return
        known = neighbour.heard(name)
        texts = [text for text in texts if self._is_new(neighbour, name, text)]
        if not texts:
            return
        neighbour.echoes, neighbour.redundant_at = 0, None
        label = self.people.heard((self.origin, name), name).label if known else name
        self.events.append(Show(label, texts))
        self._tell(Kind.GUEST, name, texts)
        self._relay(name, texts, neighbour)

    def _relay(self, name, texts, way=None, when=None):
        """Pass messages on to all plain links but the one they came by; old ones to who was here when they were said."""
        if not texts or not self._plain:
            return
        batch = encode_pairs(name, texts)
        for neighbour in self._plain:
            if neighbour is way:
                continue
            if neighbour.circled and neighbour.circled.get(way, 0) > self.now:
                continue  # the far end of the circle could not tell it from one that was said again
            if when is None or when >= neighbour.since_wall - CLOCK_SLACK:
                self._queue(neighbour, batch)

    def _queue(self, neighbour, batch):
        if neighbour.ending:
            return
        neighbour.queue(batch)
        if neighbour.queued > MAX_UNSENT:
            self._hang_up(neighbour, f"took nothing while {MAX_UNSENT >> 20} MiB were waiting")

    # Plain links in circles: no copy is shown or passed on -----------------------------------

    def _is_new(self, neighbour, name, text):
        new = self._echoes.is_new(name, text, neighbour, self.now)
        if not new:
            self._echo(neighbour, name, text)
        return new

    def _echo(self, neighbour, name, text):
        """A copy came back: behind this link there is a circle, and what comes by the copy's other ways is there already."""
        for way in self._echoes.ways(name, text):
            if way not in (SAID, neighbour) and len(neighbour.circled) < MAX_CIRCLED:
                neighbour.circled[way] = self.now + CIRCLE_SECONDS
        neighbour.echoes += 1
        if neighbour.redundant_at is None:
            neighbour.redundant_at = self.now + self.rng.uniform(*REDUNDANT_SECONDS)
            self._replan = True

    def _open_circle(self, neighbour):
        """A link that for a while brought nothing but copies closes a circle: open it there.

        The member at the circle's other end sees the same, and must not do it too: the while is
        random, and who hears that another one did it (GUEST_GONE) begins anew.
        """
        if neighbour.echoes >= REDUNDANT_ECHOES:
            self._forget_contact(neighbour.contact)
            self._hang_up(neighbour, "brought only what came by another way")
        neighbour.echoes, neighbour.redundant_at = 0, None

    def _news(self, name, texts, way, said_at=None):
        """Those of the texts that are no echoes, where there may be any, and the parts of them that plain links are to get.

        `said_at`: of history, which may repeat what came by a C peer as long ago.
        """
        if said_at is None and not self._plain and self.now >= self._guests_until:
            return texts, ()
        said_at = self.now if said_at is None else said_at
        news, parts = [], []
        for text in texts:
            new = [part for part in plain_texts(text) if self._echoes.is_new(name, part, way, said_at)]
            parts += new
            if new:
                news.append(text)
            else:
                self._circle(name, text, way)
        return news, parts

    def _said_at(self, record):
        """The time `now` was when it was said: history comes all at once, and is not all of one minute."""
        return self.now - (self.wall - record.when)

    def _circle(self, name, text, way):
        """What came by `way` had come by a plain link of ours: behind that link is what comes by `way`, already."""
        for link in self._echoes.ways(name, text):
            if isinstance(link, Neighbour) and way != SAID and len(link.circled) < MAX_CIRCLED:
                link.circled[way] = self.now + CIRCLE_SECONDS

    def _expect_echoes(self):
        """A C peer turns up: from now on, count; and what was said just before."""
        if self._plain or self.now < self._guests_until:
            return
        for record in map(decode_record, self.log.read(self.log.end - RECENT_MESSAGES, self.log.end)):
            if record.kind == Kind.SAY:
                for part in plain_texts(record.text):
                    self._echoes.is_new(record.name, part, SAID, self._said_at(record))

    def _sort_out(self):
        """Links came, went, or turned out to be something: which may lead to C peers?"""
        plain = [neighbour for neighbour in self.neighbours if neighbour.phase in (Phase.PLAIN, Phase.STRANGER)]
        if plain:
            self._expect_echoes()
        self._plain = plain

    # Who is here -----------------------------------------------------------------------------

    def _presence(self, key, name, here, words):
        if key in self._own_origins:
            return
        known = key in self.people.members
        member = self.people.meet(key, name)
        changed, back = not known or member.here != here, known and here
        self.people.set_here(member, here)
        news = member.told is False if back else member.told is not here  # nobody comes back who was not told to be gone
        if words and changed and news and self._tell_coming("{} is back" if back else words, member.label):
            member.told = here

    def _tell_lost(self, origin):
        """We lost a neighbour, and nobody heard of it since."""
        member = self.people.find(origin)
        if member is not None and not self._is_linked(origin):
            self._tell(Kind.LOST, member.name, [origin.to_bytes(8, "little")])
            self._notice_lost(origin)

    def _lost(self, record, quiet):
        """Another member lost its neighbour."""
        origin = int.from_bytes(record.text[:8], "little")
        if origin in self._own_origins:
            self._tell(Kind.HERE, self.name)
            return
        self._suspects.pop(origin, None)
        if quiet or self._is_linked(origin):  # who is linked to us contradicts, or we notice ourselves
            self.people.gone(origin)
        else:
            self._notice_lost(origin)

    def _notice_lost(self, origin):
        member = self.people.find(origin)
        if member is None:
            return
        links = [self.people.meet(other.origin, other.name).label for other in self._mesh()][:3]
        holds = "; the network holds through " + ", ".join(["{}"] * len(links)) if links else "; looking for the others"
        self.people.gone(origin)
        if member.told is not False and self._tell_coming("lost {}" + holds, member.label, *links):
            member.told = False

    def _notice(self, words, *parts):
        self.events.append(Notice(words, parts))

    def _tell_coming(self, words, *parts):
        """A notice of who came or went. Returns False if there are too many of them, and this one is only counted."""
        if not self._comings.left(self.now):
            self._untold += 1
            self._replan = True
            return False
        self._comings.spend(self.now)
        self._notice(words, *parts)
        return True

    # Which links to have ---------------------------------------------------------------------

    def _mesh(self, greeting=False):
        phases = (Phase.MESH, Phase.GREETING) if greeting else (Phase.MESH,)
        return [neighbour for neighbour in self.neighbours if neighbour.phase in phases and not neighbour.ending]

    def _is_linked(self, origin, greeting=False):
        return any(other.origin == origin for other in self._mesh(greeting))

    def _fill(self):
        """Dial until there are WANT_LINKS, MAX_DIALS at once."""
        while self._wants_links():
            address = self._pick(self._free(self.book.fresh(self.now))) or self._pick_reserve()
            if address is None:
                return
            self._dial(Call(address, urgent=not self._mesh()))

    def _wants_links(self):
        """Whether another dial is due now, if only somebody to dial is known."""
        dials = len(self.calls) + sum(neighbour.phase is Phase.PROBING for neighbour in self.neighbours)
        # Half a hello is no link: five strangers with one each could keep us from looking for anybody else.
        return not self._leaving and dials < MAX_DIALS and len(self._mesh()) < WANT_LINKS

    def _pick(self, addresses):
        return self.rng.choice(addresses) if addresses else None

    def _pick_reserve(self):
        """An old acquaintance, one at a time and after a growing pause: it may be gone for good."""
        if self.now < self._reserve_at:
            return None
        address = self._pick(self._free(self._reserve()))
        if address is not None:
            self._reserve_at = self.now + self._reserve_pause
            self._reserve_pause = min(self._reserve_pause * 2, RESERVE_MOST)
        return address

    def _stir(self):
        """Swap a link for a random other, so that no part of the network closes in on itself."""
        self._stir_at = self.now + self.rng.uniform(*STIR_SECONDS)
        for neighbour in self._mesh():
            addresses = self._addresses_but(neighbour)
            if addresses:
                neighbour.queue_frame(encode_addresses(Kind.PEERS, addresses))
        if len(self._mesh()) < WANT_LINKS:
            return  # _fill is at it
        sources = [self._free(self.book.fresh(self.now)), self._free(self._reserve())]
        if self.rng.random() < FRIEND_SHARE:
            sources.reverse()
        address = self._pick(sources[0] or sources[1])
        if address is not None:
            self._dial(Call(address, urgent=True))

    def _reserve(self):
        """Where else to look: friends and, while there is no link at all, whom our user named."""
        if self._mesh():
            return self.book.friends
        named = {contact.addresses[0][:2]: None for contact in self.contacts if contact.reached and not contact.plain}
        return {**named, **self.book.friends}

    def _free(self, source):
        """The addresses in `source` that lead to nobody we are linked to or are dialling, as far as we know."""
        calls = self.calls + [neighbour.call for neighbour in self.neighbours if neighbour.call]
        taken = {neighbour.address for neighbour in self.neighbours} | {call.address[:2] for call in calls}
        linked = {neighbour.origin for neighbour in self.neighbours if neighbour.origin} | set(self._own_origins)
        may_knock = self._may_knock()
        return [address for address, origin in source.items()
                if address not in taken and (origin or self.book.heard.get(address)) not in linked
                and (may_knock or address in self.book.proven)]

    def _addresses_but(self, neighbour, greeting=False):
        """Where our other neighbours can be dialled, for this one to know."""
        return tuple(other.address for other in self._mesh(greeting) if other is not neighbour and other.address)

    # Dialling, and whom to believe -----------------------------------------------------------

    def _dial(self, call, seconds=MESH_DIAL_SECONDS):
        call = call._replace(since=self.now)
        if call.contact is None and call.address[:2] not in self.book.proven:
            knocks = self._knocks if self._knocks.left(self.now) else self._lonely_knocks
            knocks.spend(self.now)
        self.calls.append(call)
        self.events.append(Connect(call, seconds))

    def _dial_contact(self, contact, plain=False):
        address = contact.untried.pop(0)
        self._dial(Call(address, contact, True, plain), DIAL_SECONDS / len(contact.addresses))

    def _plan_redial(self, contact):
        # One of ours is found again by healing; only a C peer has to be dialled by its own address.
        if contact not in self.contacts or not contact.reached or not contact.plain:
            return
        contact.due = self.now + contact.pause
        contact.pause = min(contact.pause * 2, REDIAL_MOST)

    def _may_knock(self):
        """Whether we may dial what may be nobody's address, on a stranger's word."""
        return self._knocks.left(self.now) or self._lonely_knocks.left(self.now) and len(self._mesh()) < LONELY_LINKS

    def _proved(self, call):
        """One of ours answered there."""
        address = call.address[:2]
        if call.contact is None and address not in self.book.proven:
            self._knocks.refund()
        if address[0] not in self.book.hosts:
            self._lonely_knocks.refund(EARNED_KNOCKS)
        self.book.prove(address)

    def _learn(self, neighbour, addresses):
        """Note where members are. A peer may say anything: what can be dialled at all is taken, and a bounded number."""
        for host, port in addresses:
            if is_loopback(host) and not is_loopback(neighbour.host):
                host = neighbour.host  # "on my machine", it means
            if port >= LEAST_PORT and is_dialable(host) and (host, port) not in self.book.heard:
                self._note_named(neighbour, (host, port))

    def _note_named(self, neighbour, address):
        """A liar must neither fill the book with nobody's addresses nor use us to knock on others' doors."""
        if len(neighbour.named) == MAX_NAMED:
            oldest, when = neighbour.named[0]
            if self.now - when < NAMED_SECONDS:
                return
            self.book.drop(oldest)
            neighbour.named.popleft()
        neighbour.named.append((address, self.now))
        self.book.note(address)


def _newest_of_most(neighbours, least):
    """The newest from the host that has most of these; None if it has fewer than `least`."""
    crowds = Counter(neighbour.host for neighbour in neighbours)
    most = max(crowds.values(), default=0)
    if most < least:
        return None
    return [neighbour for neighbour in neighbours if crowds[neighbour.host] == most][-1]  # in the order of their coming


def is_loopback(host):
    """Whether this numeric host means the machine it is said on."""
    return host.startswith("127.") or host == "::1"


def is_dialable(host):
    """Whether this is the numeric address of one machine: not a name, not "any", not multicast or broadcast."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if address.version == 6:
        return not (address.is_unspecified or address.is_multicast or address.ipv4_mapped or "%" in host)
    return address.packed[0] != 0 and address.packed[0] < 224 and str(address) == host  # no leading zeros
