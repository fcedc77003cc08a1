"""What travels between two members, and what a member remembers of it: frames, records, the log.

Knows: the byte layout of the wire, its limits, which texts mean "I am leaving", what is a duplicate.
Must not know: sockets, clocks, screens. Bytes go in, objects come out, nothing waits.
Leaves out: who sends what to whom (peers.py), and how a text is made safe to show (ui.py).

To a C program a message is a pair of frames. "al" says "hi":

    02 00 00 00 00 00 00 00   61 6c        frame 1: length 2, the name  "al"
    02 00 00 00 00 00 00 00   68 69        frame 2: length 2, the text  "hi"

Between two of ours each frame is a record: one thing that one member tells everybody, with its
author's origin and sequence number, so that it is known when it comes a second time (see Log).
Messages come in crowds: whatever may come in a run is taken, kept and passed on as a run.

The subtle spot: plain_texts (a text cut in two may end in what a C peer takes for our goodbye).
"""

from __future__ import annotations

import struct
import unicodedata
from bisect import bisect_left
from collections import OrderedDict
from itertools import accumulate
from typing import NamedTuple, Optional

_HEADER = struct.Struct("<Q")  # the C program's size_t on every machine it runs on: 8 bytes, little-endian
HEADER_SIZE = _HEADER.size
_read_length = _HEADER.unpack_from  # bound once: what is done for each message is worth it

MAX_PLAIN_FRAME = 2048  # bytes; the C program's buffer: a longer name costs the link, a longer text its stream
SMALLEST_SEGMENT = 536  # bytes that any TCP carries in one segment (RFC 9293, 3.7.1)
LOOK_BACK = 64  # bytes searched for a place to split outside a character; a longer "character" is not a person's

QUIT_TEXTS = (b":q", b":quit")  # exactly these; whatever else begins with a colon is chat


class ProtocolError(Exception):
    """The other end broke the rules; the text says how. It costs that one link, nothing else."""


class FrameDecoder:
    """Cuts a byte stream into frames, however the network cut it into pieces.

    A read may be partial: TCP carries a stream, not messages, and one recv may bring half a
    header or forty frames. What has not arrived completely waits in here, at most `limit` +
    HEADER_SIZE bytes beside the piece that was fed. (A write may be partial, too: p2pchat.Link.)
    """

    def __init__(self, limit):
        self.limit = limit
        self._rest, self._at = b"", 0  # what was fed and not dropped yet, and how much of it was taken

    def feed(self, data):
        """Take what arrived; iterate to get the frames that it completes. Never blocks."""
        self._rest = self._rest[self._at:] + data
        self._at = 0
        return self

    def __iter__(self):
        """Yield each whole frame, header and all, in order.

        Raises ProtocolError at a length above `limit` bytes, as soon as the header is there:
        the frames before it have been yielded, and nothing is kept for the one announced.
        """
        frame = self._next()
        while frame is not None:
            yield frame
            frame = self._next()

    def _next(self):
        at, end = self._at, len(self._rest)
        if end - at >= HEADER_SIZE:
            (length,) = _read_length(self._rest, at)
            if length > self.limit:
                raise ProtocolError(f"sent a frame of {length} bytes ({self.limit} at most)")
            self._at = at + HEADER_SIZE + length
            if self._at <= end:
                return self._rest[at:self._at]
        self._rest, self._at = self._rest[at:], 0
        return None


def encode_frame(body):
    """One frame: the length of `body` in 8 bytes, then `body`."""
    return _HEADER.pack(len(body)) + body


class Batch(NamedTuple):
    """Frames, joined: made once, shared by all the links that are to get them."""
    data: bytes
    ends: list  # where a TCP segment may end, as offsets in `data`


def join(pieces):
    """The Batch of these pieces, each of which may end a segment."""
    return Batch(b"".join(pieces), list(accumulate(map(len, pieces))))


def encode_pairs(name, texts):
    """The messages of one name as a Batch. A short one may end a segment; of a longer one, each frame.

    A C peer reads a header with one read, so no header may lie across two TCP segments: a piece,
    which is what lies between two ends, begins with a header, and holds no other one beyond its
    first SMALLEST_SEGMENT bytes. Raises ValueError over MAX_PLAIN_FRAME bytes of a name or text.
    """
    pieces, head = [], encode_frame(name)
    for text in texts:
        pair = head + encode_frame(text)
        pieces += (pair,) if len(pair) <= SMALLEST_SEGMENT else (head, pair[len(head):])
    if len(max(pieces, key=len)) > MAX_PLAIN_FRAME + HEADER_SIZE:
        raise ValueError(f"a name or text over {MAX_PLAIN_FRAME} bytes; split it first")
    return join(pieces)


class Pairs:
    """Puts the frames of a plain link together in twos, and those in runs of one name."""

    def __init__(self):
        self._name = None  # the first frame of a pair whose second has not arrived

    def runs(self, frames):
        """Yield (name, texts) for each run. A ProtocolError of `frames` flies behind what came before it.

        A text that is more than chat, to a C peer or to us, comes alone, and before more is taken
        from `frames`: what it says may change what they are.
        """
        run, texts = None, []
        try:
            for frame in frames:
                if self._name is None:
                    self._name = frame
                    continue
                name, self._name, text = self._name, None, frame[HEADER_SIZE:]
                special = b"\0" in text or text in QUIT_TEXTS
                if texts and (special or name != run):
                    yield run[HEADER_SIZE:], texts
                    texts = []
                if special:
                    yield name[HEADER_SIZE:], [text]
                    continue
                run = name
                texts.append(text)
        except ProtocolError:
            if texts:
                yield run[HEADER_SIZE:], texts
            raise
        if texts:
            yield run[HEADER_SIZE:], texts


def as_c_reads(frame):
    """The part of a frame that the C program shows, compares and relays: it stops at a NUL.

    If we did not, a text of ":q", NUL, "x" would be a goodbye to it and chat to us.
    """
    return frame.partition(b"\0")[0]


def is_quit(text):
    """Whether this text says that its sender leaves."""
    return text in QUIT_TEXTS


def split_text(text, limit):
    """`text` (bytes) in parts of at most `limit` bytes: cut after a space if there is one, else between two characters."""
    parts, start = [], 0
    while len(text) - start > limit:
        # A part is at least half full, whatever the spaces.
        space = text.rfind(b" ", start + limit // 2, start + limit)
        stop = space + 1 or _character_start(text, start + limit)
        parts.append(text[start:stop])
        start = stop
    parts.append(text[start:])
    return parts


def plain_texts(text):
    """The texts (bytes) that carry `text` on a plain link: one line each, at most MAX_PLAIN_FRAME bytes, in order.

    Joined they are `text` again, but for what a C peer cannot carry: a newline becomes a space,
    a NUL becomes U+FFFD. None of them says goodbye: a C peer would take it for ours.
    """
    if is_quit(text):
        return [b" " + text]  # no user of ours can say it; a stranger's record can
    if len(text) <= MAX_PLAIN_FRAME and b"\n" not in text and b"\0" not in text:
        return [text]
    text = text.replace(b"\r\n", b" ").replace(b"\n", b" ").replace(b"\0", "\ufffd".encode())
    parts = split_text(text, MAX_PLAIN_FRAME)
    if len(parts) > 1 and is_quit(parts[-1]):
        # The subtle spot: "... :q" may be cut so that its last part says goodbye for us. Move the cut.
        before, last = parts[-2:]
        stop = _character_start(before, len(before) - 1)
        parts[-2:] = [before[:stop], before[stop:] + last]
    return parts


def _character_start(text, index):
    """The last index at or before `index` (within LOOK_BACK) where a character begins that stands by itself."""
    for at in range(index, max(index - LOOK_BACK, 0), -1):
        if not _continues(text, at):
            return at
    return next((at for at in range(index, index - 4, -1) if text[at] & 0xC0 != 0x80), index)


def _continues(text, at):
    if text[at] & 0xC0 == 0x80:
        return True  # the middle of one code point in UTF-8
    following = text[at:at + 4].decode("utf-8", "ignore")[:1]
    before = text[max(at - 3, 0):at].decode("utf-8", "ignore")[-1:]
    if before == "\u200d" or following == "\u200d":
        return True  # ZERO WIDTH JOINER: an emoji family
    return unicodedata.category(following)[0] == "M" if following else False


# Mesh links: one record a frame ---------------------------------------------------------------

# A record
MAX_MESH_FRAME = 64 * 1024  # bytes; the longest record: a hello with MAX_VECTOR origins
MAX_VECTOR = 4000  # origins in a hello: 16 bytes each, within one frame
MAX_ADDRESSES = 8  # addresses in a hello or a bye
MAX_RECORD_TEXT = 32 * 1024  # bytes of text in one record; longer input goes as several
# The log
LOG_MESSAGES = 20_000  # messages kept for those who come back or come late
LOG_BYTES = 8 * 1024 * 1024  # and their bytes, whichever is reached first
STRETCH_SIZE = 64 * 1024  # bytes of the log that are joined for one send
MAX_STRETCHES = 32  # of them kept at once
# Echoes
MAX_ECHOES = 4096  # messages in which an echo is recognised
ECHO_SECONDS = 60  # and for how long
MAX_WAYS = 64  # by which one message is counted

MAGIC = b"p2pchat\x01"  # the name of the protocol and its version; another version is another protocol
PROBE = b":q\0"  # what a C peer sees of a hello: a guest who leaves at once


class Kind:
    """The first byte of a record. Numbers that we do not know are ignored: they are from our future."""

    SAY = 1  # a member said it
    GUEST = 2  # somebody on a plain link said it; the origin is the member at whose link it came in
    HERE = 3  # a member joined, or contradicts that it was lost
    LEFT = 4  # a member says goodbye
    LOST = 5  # a member's neighbour misses it; the text is its origin
    GUEST_GONE = 6  # a guest's plain link ended
    HELLO, PING, PONG, BYE, PEERS = 16, 17, 18, 19, 20  # between two neighbours only


_RECORD = struct.Struct("<QBQQIH")  # length, kind, origin, sequence, time, length of the name; then name and text
read_record, RECORD_SIZE = _RECORD.unpack_from, _RECORD.size  # RECORD_SIZE: bytes of a frame before the name
read_id = struct.Struct("<9xQQ").unpack_from  # origin and sequence of a record's frame
_HELLO = struct.Struct("<B8sQHBH")  # kind, MAGIC, origin, port, urgent, length of the name; then name, addresses, vector
_ENTRY = struct.Struct("<QQ")  # an origin and the highest sequence of it
_PORT = struct.Struct("<H")
LATEST = 2 ** 32 - 1  # seconds since 1970 that fit into a record: until 2106
FIRST_LOGGED, LAST_LOGGED = Kind.SAY, Kind.GUEST_GONE
CHAT = (bytes([Kind.SAY]), bytes([Kind.GUEST]))


class Record(NamedTuple):
    """What the log holds: one thing that one member told everybody."""
    kind: int
    origin: int  # a random number for each run of the program; a name is only a label
    sequence: int  # 1, 2, 3 ... of this origin
    when: int  # seconds since 1970, by the author's clock
    name: bytes
    text: bytes


class Hello(NamedTuple):
    """How two of ours greet. In a probe there are no addresses and no vector yet."""
    origin: int
    port: int  # where the sender listens; its host is where the connection comes from
    urgent: bool
    name: bytes
    addresses: tuple = ()
    vector: dict = {}


def encode_record(kind, origin, sequence, when, name, text):
    """A record's frame. `when` is what some clock says: one that is wrong by a century must not end the program."""
    return _RECORD.pack(_RECORD.size - HEADER_SIZE + len(name) + len(text), kind, origin, sequence,
                        min(max(when, 0), LATEST), len(name)) + name + text


def decode_record(frame):
    """The Record in a frame. Raises ProtocolError."""
    if len(frame) < RECORD_SIZE:
        raise ProtocolError("sent half a record")
    _, kind, origin, sequence, when, length = read_record(frame)
    stop = RECORD_SIZE + length
    if stop > len(frame) or not sequence or length > MAX_PLAIN_FRAME:
        raise ProtocolError("sent a record that makes no sense")
    return Record(kind, origin, sequence, when, frame[RECORD_SIZE:stop], frame[stop:])


class Run(NamedTuple):
    """Records that one member, or one guest of its, said one after the other; or one record that is no chat."""
    frames: list  # as they came, header and all
    first: Optional[Record] = None  # None: no chat
    texts: list = []  # of all of them

    def without(self, count):
        """The Run without its first `count` records."""
        return Run(self.frames[count:], decode_record(self.frames[count]), self.texts[count:]) if count else self


class RecordDecoder(FrameDecoder):
    """A FrameDecoder that can also cut a mesh link's stream, into runs."""

    def runs(self):
        """Yield each Run. A ProtocolError flies behind what came before it. What is no chat is yielded at once.

        With _extend the hot loop of the program: what is done there for each message is nearly all
        that is done for each; everything else is done for each run.
        """
        run = self._begin()
        while run:
            if run.first:
                self._extend(run)
            yield run
            run = self._begin()

    def _begin(self):
        frame = self._next()
        if frame is None:
            return None
        if frame[HEADER_SIZE:HEADER_SIZE + 1] not in CHAT:
            return Run([frame])
        first = decode_record(frame)
        return Run([frame], first, [first.text])

    def _extend(self, run):
        """Take what follows on the first record: of the same kind, origin and name, and each the next in sequence."""
        kind, origin, following, _, name, _ = run.first
        buffer, at, end, limit = self._rest, self._at, len(self._rest), self.limit
        text, size, add_frame, add_text = RECORD_SIZE + len(name), len(name), run.frames.append, run.texts.append
        while end - at >= text:
            length, a_kind, an_origin, sequence, _, a_size = read_record(buffer, at)
            following += 1
            stop = at + HEADER_SIZE + length
            if (sequence != following or an_origin != origin or a_kind != kind or a_size != size or stop > end
                    or stop < at + text or length > limit or buffer[at + RECORD_SIZE:at + text] != name):
                break
            add_frame(buffer[at:stop])
            add_text(buffer[at + text:stop])
            at = stop
        self._at = at


def encode_hello(hello):
    """A frame's body."""
    return (_HELLO.pack(Kind.HELLO, MAGIC, hello.origin, hello.port, hello.urgent, len(hello.name)) + hello.name
            + _encode_addresses(hello.addresses) + b"".join(_ENTRY.pack(*entry) for entry in hello.vector.items()))


def decode_hello(body):
    """The Hello in a frame's body. Raises ProtocolError."""
    try:
        kind, magic, origin, port, urgent, length = _HELLO.unpack_from(body)
        name, rest = body[_HELLO.size:_HELLO.size + length], body[_HELLO.size + length:]
        addresses, rest = _decode_addresses(rest)
        vector = dict(_ENTRY.iter_unpack(rest))
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ProtocolError("sent a hello that makes no sense") from error
    if kind != Kind.HELLO or magic != MAGIC or length > MAX_PLAIN_FRAME or len(vector) > MAX_VECTOR:
        raise ProtocolError("sent a hello of another kind")
    return Hello(origin, port, bool(urgent), name, addresses, vector)


def is_kind(body, kind):
    """Whether a frame's body claims to be a hello of ours, or a bye."""
    return body.startswith(bytes([kind]) + MAGIC)


def encode_addresses(kind, addresses):
    """A frame's body: a bye (no room for you here; try these) or peers (my neighbours now; for who has too few)."""
    return bytes([kind]) + MAGIC + _encode_addresses(addresses)


def decode_addresses(body):
    """The addresses in the body of a bye or of peers. Raises ProtocolError."""
    try:
        return _decode_addresses(body[1 + len(MAGIC):])[0]
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ProtocolError("sent a bye that makes no sense") from error


def _encode_addresses(addresses):
    hosts = [(host.encode(), port) for host, port in addresses[:MAX_ADDRESSES]]
    return bytes([len(hosts)]) + b"".join(bytes([len(host)]) + host + _PORT.pack(port) for host, port in hosts)


def _decode_addresses(data):
    addresses, at = [], 1
    for _ in range(data[0]):
        length = data[at]
        (port,) = _PORT.unpack_from(data, at + 1 + length)
        addresses.append((data[at + 1:at + 1 + length].decode("ascii"), port))
        at += 1 + length + _PORT.size
    return tuple(addresses[:MAX_ADDRESSES]), data[at:]


class Log:
    """Every record once, in the order in which this member delivered them; as many of the last as the limits allow.

    `have` says up to which sequence each origin's records were delivered. Since every link is
    first-in first-out and every member passes on in its own order, what comes is a duplicate or
    exactly the next of its origin; only who was away for longer than the log sees a jump.

    Records are kept as the frames they came in: passed on without encoding them again.
    """

    def __init__(self):
        self.have = {}
        self.start = 0  # the number of the oldest record kept; numbers never change
        self.end = 0  # the number that the next record will get
        self._frames = []
        self._bytes = 0
        self._stretches = {}  # number -> (frames, the number after them)

    def missing(self, origin, sequence):
        """How many of this origin's records are missing before this one; None if this one is a duplicate."""
        last = self.have.get(origin)
        if last is None:
            return 0
        return sequence - last - 1 if sequence > last else None

    def extend(self, origin, sequence, frames):
        """Append this origin's next records, which are no duplicates; `sequence` is the last one's."""
        self.have[origin] = sequence
        self._frames += frames
        self.end += len(frames)
        self._bytes += sum(map(len, frames))
        if self._stretches:
            self._stretches = {}
        if self._bytes > LOG_BYTES or len(self._frames) > LOG_MESSAGES:
            self._trim()

    def read(self, number, stop):
        """The frames from this number to the one before `stop`, as far as they are kept."""
        return self._frames[max(number - self.start, 0):stop - self.start]

    def stretch(self, number):
        """The frames from this number on, STRETCH_SIZE bytes or little more, and the number after the last of them.

        Joined once for all who ask: neighbours that are up to date stand at the same number.
        """
        if number not in self._stretches:
            if len(self._stretches) > MAX_STRETCHES:
                self._stretches.clear()
            self._stretches[number] = self._join(number)
        return self._stretches[number]

    def _join(self, number):
        frames = self.read(number, number + STRETCH_SIZE // RECORD_SIZE)
        ends = list(accumulate(map(len, frames)))
        count = bisect_left(ends, STRETCH_SIZE) + 1
        return b"".join(frames[:count]), number + min(count, len(frames))

    def vector(self):
        """origin -> highest sequence, of the origins that are in the log; the last MAX_VECTOR of them."""
        recent = {}
        for frame in reversed(self._frames):
            origin, _ = read_id(frame)
            recent.setdefault(origin, self.have[origin])
            if len(recent) == MAX_VECTOR:
                break
        return recent

    def _trim(self):
        # A tenth at once: cutting the head of a list costs as much as its tail is long.
        while self._bytes > LOG_BYTES or len(self._frames) > LOG_MESSAGES:
            count = len(self._frames) // 10 or 1
            self._bytes -= sum(map(len, self._frames[:count]))
            del self._frames[:count]
            self.start += count
        if len(self.have) > 2 * LOG_MESSAGES:
            origins = {origin for origin, _ in map(read_id, self._frames)}
            self.have = {origin: last for origin, last in self.have.items() if origin in origins}


class Echoes:
    """Tells a message from the copy of it that went around a circle of C peers, who strip all marks.

    For each (name, text) of the last minute it counts by how many ways how often it came. One way
    brings each message once, so the message was said as often as the busiest way brought it: "ok",
    "ok" over one link are two messages, "ok" over each of two links is one.
    """

    def __init__(self):
        self._seen = OrderedDict()  # (name, text) -> (when last, {way: times}); oldest first. A dict finds that one slowly

    def is_new(self, name, text, way, now):
        """Whether this message, which came by `way` at `now` (seconds), is no echo; counts it."""
        when, ways = self._seen.pop((name, text), (now, None))
        if ways is None or abs(now - when) > ECHO_SECONDS:
            self._seen[name, text] = now, {way: 1}
            if len(self._seen) > MAX_ECHOES:
                self._seen.popitem(last=False)
            return True
        shown = max(ways.values())
        if len(ways) < MAX_WAYS:
            ways[way] = ways.get(way, 0) + 1
        self._seen[name, text] = now, ways
        return ways.get(way, 0) > shown

    def ways(self, name, text):
        """By which ways this message came lately, as a list."""
        return list(self._seen.get((name, text), (0, {}))[1])
