"""What travels between two members, and what a member remembers of it: frames, marks, records, the log.

Knows: the byte layout of the wire, its limits, which texts mean "I am leaving", which records are new.
Must not know: sockets, clocks, screens. Bytes go in, objects come out, nothing waits.
Leaves out: who sends what to whom (peers.py), and how a text is made safe to show (ui.py).

To a C program a message is a pair of frames. "al" says "hi":

    02 00 00 00 00 00 00 00   61 6c        frame 1: length 2, the name  "al"
    02 00 00 00 00 00 00 00   68 69        frame 2: length 2, the text  "hi"

Between two of ours each frame is a record: one thing that one member tells everybody, with its
author's origin and sequence number, so that it is known when it comes a second time (see Log).
On its way through C programs a message carries the same identity in a mark, in bytes that they
relay and never show (see Mark). Messages come in crowds: whatever may come in a run is taken,
kept and passed on as a run.

The subtle spot: plain_texts (a text cut in two may end in what a C peer takes for our goodbye).
"""

from __future__ import annotations

import ipaddress
import re
import struct
import unicodedata
import zlib
from binascii import a2b_base64, b2a_base64
from bisect import bisect_left
from itertools import accumulate, islice
from typing import NamedTuple, Optional

_HEADER = struct.Struct("<Q")  # the C program's size_t on every machine it runs on: 8 bytes, little-endian
HEADER_SIZE = _HEADER.size
_read_length = _HEADER.unpack_from  # bound once, since it is called for each message

MAX_FRAME = 64 * 1024  # bytes that we accept, on both kinds of link: a C user on a wide terminal sends more than 2048
MAX_PLAIN_FRAME = 2048  # bytes; the C program's buffer: a longer name costs the link, a longer text desynchronises it
SMALLEST_SEGMENT = 536  # bytes that any TCP carries in one segment (RFC 9293, 3.7.1)
LOOK_BACK = 64  # bytes searched for a place to split outside a character; a longer "character" is not a person's

MARK = b"\xff"  # never part of UTF-8; at the end of the frame with a name, a mark follows it (see Mark)
QUIT_TEXTS = (b":q", b":quit")  # exactly these; whatever else begins with a colon is chat
_UNFIT, _SPACES = re.compile(rb"[\n\t\0]").search, bytes.maketrans(b"\n\t", b"  ")  # what a C program cannot show, or read


class ProtocolError(Exception):
    """The other end broke the rules; the text says how. It costs that one link, nothing else."""


class FrameDecoder:
    """Cuts a byte stream into frames, however the network cut it into pieces.

    A read may be partial: TCP carries a stream, not messages, and one recv may bring half a
    header or forty frames. What has not arrived completely waits in here, at most `limit` +
    HEADER_SIZE bytes beside the piece that was fed. (A write may be partial, too: p2pchat.Link.)
    """

    def __init__(self, limit=MAX_FRAME):
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
    ends: list  # where a TCP segment may end, as offsets in `data`: no header straddles two segments
    numbers: tuple = ()  # for each of the pieces between two ends, the number in the log of what it carries


def join(pieces, numbers=()):
    """The Batch of these pieces, each of which may end a segment."""
    return Batch(b"".join(pieces), list(accumulate(map(len, pieces))), numbers)


def encode_pairs(name, texts):
    """The messages of one name as a Batch, without marks. Raises ValueError over MAX_PLAIN_FRAME bytes of a name or text."""
    pieces, head = [], encode_frame(name)
    for text in texts:
        pieces += pair_pieces(head, text)
    if len(max(pieces, key=len)) > MAX_PLAIN_FRAME + HEADER_SIZE:
        raise ValueError(f"a name or text over {MAX_PLAIN_FRAME} bytes; split it first")
    return join(pieces)


def pair_pieces(head, text):
    """One message as pieces that may each end a segment; `head` is the frame of the name.

    A C peer reads a header with one read, so no header may lie across two TCP segments: a piece begins
    with a header, and holds no other one beyond its first SMALLEST_SEGMENT bytes.
    """
    body = _HEADER.pack(len(text)) + text
    return (head + body,) if len(head) + len(body) <= SMALLEST_SEGMENT else (head, body)


class Pairs:
    """Puts the frames of a plain link together in twos, and those in runs of one name."""

    def __init__(self):
        self._name = None  # the first frame of a pair whose second has not arrived

    def runs(self, frames):
        """Yield (name, texts) for each run. Runs completed before a ProtocolError are yielded first.

        A goodbye or a probe is yielded alone, before the next frame is decoded: a probe changes the protocol.
        """
        run, texts = None, []
        try:
            for frame in frames:
                if self._name is None:
                    self._name = frame
                    continue
                name, self._name, text = self._name, None, frame[HEADER_SIZE:]
                special = b"\0" in text or text in QUIT_TEXTS or MARK in text
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

    def take_for_name(self, text):
        """What was taken for a text is the name of the next one."""
        self._name = encode_frame(text)


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

    Joined they are `text` again, but for what a plain link cannot represent: a newline or a tab becomes
    a space, a NUL becomes U+FFFD. None of them says goodbye: a C peer would take it for ours.
    """
    if len(text) <= MAX_PLAIN_FRAME and not _UNFIT(text):
        return [b" " + text] if text in QUIT_TEXTS else [text]
    text = text.replace(b"\r\n", b" ").translate(_SPACES).replace(b"\0", "\ufffd".encode())
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


# Marks: identity through C programs -----------------------------------------------------------

MARK_VERSION = 0x10  # the high half of a mark's first byte
MAX_PARTS = 255  # of one text; a record's text has at most 33

# Version and flags, origin, gateway, port, length of the host; then the host, and the tail: sequence, part, parts, CRC.
# Head and tail are each a multiple of three bytes, so that base64 encodes them apart: the head is the same for a run.
_HEAD, _PLACE, _CRC = struct.Struct("<BQQHB"), struct.Struct("<QBB"), struct.Struct("<Ix")
_TAIL_SIZE = _PLACE.size + _CRC.size
_ENCODED_TAIL = _TAIL_SIZE * 4 // 3
_pack_place, _pack_crc = _PLACE.pack, _CRC.pack
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_HIGH = bytes(range(0x80, 0xC0))  # bytes that a C program relays and never shows
_TO_HIGH, _FROM_HIGH = bytes.maketrans(_ALPHABET, _HIGH), bytes.maketrans(_HIGH, _ALPHABET)
LEAST_OF_MARK = 16  # so many bytes of a mark are not part of anybody's name
MARK_SIZES = (48, 52, 68)  # bytes behind MARK: without a host, with IPv4, with IPv6


class GarbledError(Exception):
    """A mark whose checksum is wrong: the C program's threads mixed up two messages."""


class Mark(NamedTuple):
    """What a message is, wherever a C program passes it on."""
    origin: int
    sequence: int  # with the origin the identity of its record
    is_guest: bool  # a C user's words, not the member's own
    part: int  # of a text that was split, from 0
    parts: int
    gateway: int  # the origin of the member that put it onto a plain link
    host: str  # where the gateway listens; "" if it does not know
    port: int


class Marker:
    """Marks the messages of one gateway for plain links."""

    def __init__(self, gateway, host, port):
        packed = _pack_host(host)
        self._gateway = gateway, port, len(packed)
        self._host = packed + bytes(-(_HEAD.size + len(packed)) % 3)

    def head(self, name, origin, is_guest):
        """What is the same for all messages of one author and name, for `encode`: (start of the frame, its CRC)."""
        head = _HEAD.pack(MARK_VERSION | is_guest, origin, *self._gateway) + self._host
        encoded = b2a_base64(head, newline=False).translate(_TO_HIGH)
        size = MAX_PLAIN_FRAME - len(MARK) - len(encoded) - _ENCODED_TAIL
        name = split_text(name, size)[0] if len(name) > size else name
        start = name + MARK + encoded
        return _HEADER.pack(len(start) + _ENCODED_TAIL) + start, zlib.crc32(head, zlib.crc32(name))


def encode_marked(head, messages, first=0, parts=1):
    """(pieces, numbers) that carry these (number, sequence, text), as `join` takes them; `head` is their author's.

    `first` and `parts`: each is this one of so many parts of a text.

    One of the two hot loops (see RecordDecoder.runs): nearly every text is one short part.
    """
    (start, crc), pieces, numbers = head, [], []
    pack_length, crc32, add_piece, add_number = _HEADER.pack, zlib.crc32, pieces.append, numbers.append
    for number, sequence, text in messages:
        if len(text) > SMALLEST_SEGMENT or _UNFIT(text) or text in QUIT_TEXTS or parts > 1:
            found = _encode_parts(head, sequence, plain_texts(text), first, parts)
            pieces += found
            numbers += [number] * len(found)
            continue
        place = _pack_place(sequence, 0, 1)
        tail = place + _pack_crc(crc32(text, crc32(place, crc)))
        name = start + b2a_base64(tail, newline=False).translate(_TO_HIGH)
        if len(name) + HEADER_SIZE + len(text) <= SMALLEST_SEGMENT:
            add_piece(name + pack_length(len(text)) + text)
        else:
            add_piece(name)
            add_number(number)
            add_piece(pack_length(len(text)) + text)
        add_number(number)
    return pieces, numbers


def _encode_parts(head, sequence, texts, first, parts):
    """The pieces that carry one message, split into `texts`."""
    start, crc = head
    pieces = []
    for part, text in enumerate(texts, first):
        place = _pack_place(sequence, min(part, MAX_PARTS), max(parts, len(texts)))
        tail = place + _pack_crc(zlib.crc32(text, zlib.crc32(place, crc)))
        pieces += pair_pieces(start + b2a_base64(tail, newline=False).translate(_TO_HIGH), text)
    return pieces


def looks_marked(frame):
    """Whether this frame ends in a mark, or in what a C program left of one."""
    _, found, encoded = frame.rpartition(MARK)
    return bool(found) and LEAST_OF_MARK <= len(encoded) <= MARK_SIZES[-1] and not encoded.translate(None, _HIGH)


def read_mark(frame, text):
    """(name, Mark) of a marked frame and its text; (frame, None) where there is no mark.

    What stands behind MARK and is not well formed is part of the name. Raises GarbledError at a wrong checksum,
    which is not looked at without a `text`.
    """
    name, _, encoded = frame.rpartition(MARK)
    if not looks_marked(frame):
        return frame, None
    if len(encoded) not in MARK_SIZES:
        raise GarbledError
    data = a2b_base64(encoded.translate(_FROM_HIGH))
    head, place = data[:-_TAIL_SIZE], data[-_TAIL_SIZE:-_CRC.size]
    version, origin, gateway, port, size = _HEAD.unpack_from(head)
    if version & 0xF0 != MARK_VERSION:
        return name, None  # from our future: only the name can be read
    (crc,) = _CRC.unpack_from(data, len(data) - _CRC.size)
    if text is not None and crc != zlib.crc32(text, zlib.crc32(place, zlib.crc32(head, zlib.crc32(name)))):
        raise GarbledError
    sequence, part, parts = _PLACE.unpack(place)
    host = _unpack_host(head[_HEAD.size:_HEAD.size + size])
    return name, Mark(origin, sequence, bool(version & 1), part, parts, gateway, host, port)


def _pack_host(host):
    try:
        return ipaddress.ip_address(host.partition("%")[0]).packed
    except ValueError:
        return b""


def _unpack_host(packed):
    return str(ipaddress.ip_address(packed)) if len(packed) in (4, 16) else ""


# Mesh links: one record a frame ---------------------------------------------------------------

MAX_VECTOR = 4000  # origins in a hello: 16 bytes each, within one frame
MAX_ADDRESSES = 8  # addresses in a hello or a bye
MAX_RECORD_TEXT = 32 * 1024  # bytes of text in one record; longer input goes as several

MAGIC = b"p2pchat\x01"  # the name of the protocol and its version; another version is another protocol
PROBE = b":q\0"  # what a C peer sees of a hello: a guest who leaves at once


class Kind:
    """The first byte of a record. Numbers that we do not know are ignored: they are from our future."""

    SAY = 1  # a member said it
    GUEST = 2  # somebody on a plain link said it; the origin is the member at whose link it came in
    HERE = 3  # a member joined, or contradicts that it was lost
    LEFT = 4  # a member says goodbye
    LOST = 5  # somebody misses a member; the text is its origin and the last sequence heard of it
    GUEST_GONE = 6  # a guest's plain link ended; the text is LEFT_TEXT if it said goodbye
    HELLO, PING, PONG, BYE, PEERS = 16, 17, 18, 19, 20  # between two neighbours only
    ASK = 21  # ranges that the sender lacks: the far end sends what it has of them
    RENAMED = 22  # the sender's origin was forged; this is its new one


_RECORD = struct.Struct("<QBQQIH")  # length, kind, origin, sequence, time, length of the name; then name and text
read_record, RECORD_SIZE = _RECORD.unpack_from, _RECORD.size  # RECORD_SIZE: bytes of a frame before the name
read_id = struct.Struct("<9xQQ").unpack_from  # origin and sequence of a record's frame
_HELLO = struct.Struct("<B8sQHBH")  # kind, MAGIC, origin, port, urgent, length of the name; then name, addresses, vector
_ENTRY = struct.Struct("<QQ")  # an origin and the highest sequence of it
_PORT = struct.Struct("<H")
LATEST = 2 ** 32 - 1  # seconds since 1970 that fit into a record: until 2106
FIRST_LOGGED, LAST_LOGGED = Kind.SAY, Kind.GUEST_GONE
CHAT = (bytes([Kind.SAY]), bytes([Kind.GUEST]))
LEFT_TEXT = b"left"
_RANGE, _ORIGIN = struct.Struct("<QQQ"), struct.Struct("<Q")
MAX_ASKED = 16  # ranges in one ASK


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
    """Records that one member, or one guest of its, said one after the other; or one record that is not chat."""
    frames: list  # as they came, header and all
    first: Optional[Record] = None  # None: not chat
    texts: list = []  # of all of them

    def part(self, start, stop):
        """The Run of its records from index `start` to the one before `stop`."""
        if start == 0 and stop == len(self.frames):
            return self
        return Run(self.frames[start:stop], decode_record(self.frames[start]), self.texts[start:stop])


class RecordDecoder(FrameDecoder):
    """A FrameDecoder that can also cut a mesh link's stream, into runs."""

    def runs(self):
        """Yield each Run. Runs completed before a ProtocolError come first. Records that are not chat are yielded singly.

        With _extend the hot loop of the program: the only per-message work; the rest is per run.
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


def encode_ask(ranges):
    """A frame's body: (origin, first, last) for each of at most MAX_ASKED ranges of sequences."""
    return bytes([Kind.ASK]) + b"".join(_RANGE.pack(*asked) for asked in ranges[:MAX_ASKED])


def decode_ask(body):
    """The ranges in the body of an ASK. Raises ProtocolError."""
    try:
        return list(_RANGE.iter_unpack(body[1:1 + MAX_ASKED * _RANGE.size]))
    except struct.error as error:
        raise ProtocolError("asked for what makes no sense") from error


def encode_renamed(origin):
    """A frame's body: the sender's new origin."""
    return bytes([Kind.RENAMED]) + _ORIGIN.pack(origin)


def decode_renamed(body):
    """The origin in the body of a RENAMED. Raises ProtocolError."""
    try:
        return _ORIGIN.unpack_from(body, 1)[0]
    except struct.error as error:
        raise ProtocolError("sent a name that makes no sense") from error


def encode_lost(origin, sequence):
    """The text of a LOST. Version 1.0 reads only the origin."""
    return _ENTRY.pack(origin, sequence)


def decode_lost(text):
    """(origin, last sequence heard of it). The sequence is None from version 1.0; both are if the text makes no sense.

    That is no error of the link that it comes over: what a stranger said is passed on by honest members.
    """
    if len(text) < _ORIGIN.size:
        return None, None
    return _ENTRY.unpack_from(text) if len(text) >= _ENTRY.size else (_ORIGIN.unpack_from(text)[0], None)


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


# What is missing
MAX_HOLES, MAX_HOLES_EACH = 1024, 64  # remembered, and of one origin: a liar can make them at will
MAX_MISSING = 1_000_000  # messages of one hole: whoever skips more lies, and nobody is told that so many are missing
TELL_SECONDS = 10  # after which a hole is told: by then any link would have filled it
ASK_SECONDS = 60  # for which new neighbours are asked to fill it


class Hole:
    """Sequences of one origin that were skipped: whoever sent what follows had them no more."""
    __slots__ = ("first", "last", "since", "told")

    def __init__(self, first, last, since, told=False):
        self.first, self.last, self.since, self.told = first, last, since, told


class Holes:
    """What is missing of each origin. It is new whenever and by whichever link it comes."""

    def __init__(self):
        self._holes = {}  # origin -> Holes, oldest first
        self._hushed = {}  # origins of which no hole is told; the values mean nothing
        self.count = 0
        self.untold = 0  # holes that were not told yet

    def __contains__(self, origin):
        return origin in self._holes

    def add(self, origin, first, last, now):
        """Sequences `first` to `last` were skipped at `now` (seconds)."""
        self._add(origin, Hole(first, last, now, told=origin in self._hushed))

    def fill(self, origin, first, last):
        """These sequences came. Returns the ranges of them that were missing, as (first, last)."""
        found = []
        for hole in list(self._holes.get(origin, ())):
            low, high = max(first, hole.first), min(last, hole.last)
            if low <= high:
                found.append((low, high))
                self._shrink(origin, hole, low, high)
        return sorted(found)

    def youngest(self, now):
        """The ranges to ask a new neighbour for, as (origin, first, last)."""
        young = [(hole.since, origin, hole.first, hole.last) for origin, holes in self._holes.items()
                 for hole in holes if now - hole.since < ASK_SECONDS]
        return [asked[1:] for asked in sorted(young, reverse=True)[:MAX_ASKED]]

    def tell(self, now):
        """How many messages are missing for TELL_SECONDS and were not told yet; now they are."""
        missing = 0
        for hole in self._untold():
            if hole.since + TELL_SECONDS <= now:
                hole.told = True
                self.untold -= 1
                missing += hole.last - hole.first + 1 if hole.last - hole.first < MAX_MISSING else 0
        return missing

    def next_tell(self):
        """When the next hole is to be told, in seconds; None: there is none."""
        return min((hole.since + TELL_SECONDS for hole in self._untold()), default=None)

    def hush(self, origin):
        """This origin was forged, as somebody says: tell nobody of what seems to be missing. What comes is new all the same."""
        self._hushed[origin] = None
        if len(self._hushed) > MAX_HOLES:
            del self._hushed[next(iter(self._hushed))]
        for hole in self._holes.get(origin, ()):
            self.untold -= not hole.told
            hole.told = True

    def _untold(self):
        return [hole for holes in self._holes.values() for hole in holes if not hole.told] if self.untold else []

    def _shrink(self, origin, hole, low, high):
        self._remove(origin, hole)
        for first, last in ((hole.first, low - 1), (high + 1, hole.last)):
            if first <= last:
                self._add(origin, Hole(first, last, hole.since, hole.told))

    def _add(self, origin, hole):
        holes = self._holes.setdefault(origin, [])
        holes.append(hole)
        self.count += 1
        self.untold += not hole.told
        if len(holes) > MAX_HOLES_EACH:
            self._remove(origin, holes[0])
        if self.count > MAX_HOLES:
            self._give_up_half()

    def _remove(self, origin, hole):
        holes = self._holes[origin]
        holes.remove(hole)
        self.count -= 1
        self.untold -= not hole.told
        if not holes:
            del self._holes[origin]

    def _give_up_half(self):
        # Half at once, so that it costs O(1) for each: first of the origins with most, then of those met last. A liar
        # skips in one origin, or invents many; either way the holes of those who were here before are kept.
        order = sorted(self._holes, key=lambda origin: len(self._holes[origin]), reverse=True)
        order.sort(key=lambda origin: len(self._holes[origin]) == 1)
        singles = [origin for origin in order if len(self._holes[origin]) == 1][::-1]
        for origin in [origin for origin in order if len(self._holes[origin]) > 1] + singles:
            while self.count > MAX_HOLES // 2 and origin in self._holes:
                self._remove(origin, self._holes[origin][0])


# What is remembered
LOG_MESSAGES = 20_000  # messages of chat kept for those who come back or come late; presence does not push them out
LOG_BYTES = 8 * 1024 * 1024  # what they and the records of presence may cost together, whichever is reached first
FRAME_COST = 50  # bytes that a record costs beside its frame
STRETCH_SIZE = 64 * 1024  # bytes of the log that are joined for one send
MAX_STRETCHES = 32  # of them kept at once


class Log:
    """Every record once, in the order in which this member delivered them; as many of the last as the limits allow.

    `have` says the highest sequence of each origin that was delivered, and `holes` what is missing
    below it. Since every link is first-in first-out and every member passes on in its own order, what
    comes is a duplicate or exactly the next of its origin; only whoever was away for longer than the
    log sees a gap.

    Records are kept as the frames they came in: passed on without encoding them again.
    """

    def __init__(self):
        self.have = {}
        self.holes = Holes()
        self.late = set()  # numbers of records that filled a hole: a neighbour's vector says nothing about them
        self.start = 0  # the number of the oldest record kept; numbers never change
        self.end = 0  # the number that the next record will get
        self._frames = []
        self._held = {}  # origin -> how many of its records are kept; whoever spoke last is last
        self._cost = 0
        self._chat = 0  # how many of them are chat
        self._stretches = {}  # number -> (frames, the number after them)

    def news(self, origin, first, last):
        """What of these sequences is new, as a list of (first, last, whether it fills a hole)."""
        have = self.have.get(origin)
        if have is None or first > have:
            return [(first, last, False)]
        late = [(*found, True) for found in self.holes.fill(origin, first, min(last, have))] if origin in self.holes else []
        return late + [(have + 1, last, False)] if last > have else late

    def extend(self, origin, sequence, frames, now, late=False):
        """Append these new records of one origin, which end at `sequence`, at `now` (seconds). What they skip is a hole."""
        number, count = self.end, len(frames)
        if late:
            self.late.update(range(number, number + count))
        else:
            have = self.have.get(origin)
            if have is not None and sequence - count > have:
                self.holes.add(origin, have + 1, sequence - count, now)
            self.have[origin] = sequence
        self._frames += frames
        self._held[origin] = self._held.pop(origin, 0) + count
        self.end += count
        self._cost += sum(map(len, frames)) + count * FRAME_COST
        if frames[0][HEADER_SIZE:HEADER_SIZE + 1] in CHAT:
            self._chat += count
        if self._stretches:
            self._stretches = {}
        if self._is_full():
            self._trim()
        return number

    def read(self, number, stop):
        """The frames from this number to the one before `stop`, as far as they are kept."""
        return self._frames[max(number - self.start, 0):max(stop - self.start, 0)]

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

    def find(self, ranges):
        """The numbers of the records kept of these (origin, first, last), in the log's order. One pass over the log."""
        wanted = {}
        for origin, first, last in ranges:
            wanted.setdefault(origin, []).append((first, last))
        return [number for number, (origin, sequence) in enumerate(map(read_id, self._frames), self.start)
                if origin in wanted and any(first <= sequence <= last for first, last in wanted[origin])]

    def vector(self):
        """origin -> highest sequence, of the origins that are in the log; the last MAX_VECTOR of them."""
        return {origin: self.have[origin] for origin in islice(reversed(self._held), MAX_VECTOR)}

    def _is_full(self):
        return self._cost > LOG_BYTES or self._chat > LOG_MESSAGES

    def _trim(self):
        # A tenth at once: cutting the head of a list costs as much as its tail is long.
        while self._is_full():
            count = len(self._frames) // 10 or 1
            gone = self._frames[:count]
            self._forget(gone)
            self._cost -= sum(map(len, gone)) + count * FRAME_COST
            self._chat -= sum(frame[HEADER_SIZE:HEADER_SIZE + 1] in CHAT for frame in gone)
            del self._frames[:count]
            self.start += count
        self.late = {number for number in self.late if number >= self.start}
        if len(self.have) > 2 * LOG_MESSAGES:
            self.have = {origin: last for origin, last in self.have.items() if origin in self._held or origin in self.holes}

    def _forget(self, frames):
        for origin, _ in map(read_id, frames):
            self._held[origin] -= 1
            if not self._held[origin]:
                del self._held[origin]
