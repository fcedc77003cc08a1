"""What travels between two members, and what each one remembers of it: frames, marks, records, the log.

Knows: the byte layout of the wire and its limits, which texts say goodbye, and which records are new.
Must not know: sockets, clocks, screens. Bytes go in, objects come out, and nothing here ever waits.
Leaves out: which neighbour is sent which record (peers.py), and how a text is made safe to show (ui.py).

On a link to a C program, a message is a pair of frames. "al" says "hi":

    02 00 00 00 00 00 00 00   61 6c        frame 1: length 2, the name  "al"
    02 00 00 00 00 00 00 00   68 69        frame 2: length 2, the text  "hi"

Between two members that run this program, each frame is a record: one thing that one member tells
everybody, with its author's origin and a sequence number, so that a second copy is recognised (see Log).
On its way through C programs, a message carries the same identity in a mark: bytes that they relay and
never show (see Mark). Messages often come in bursts, so a run of messages by one author is read, stored
and passed on as a whole.

Reading order: FrameDecoder first; every program that reads from a socket needs one. A first reader may
skip marks, announcements and holes.

The subtle spot: plain_texts (a long text must not be split so that its last part says goodbye for us).
"""

from __future__ import annotations

import ipaddress
import re
import struct
import unicodedata
from binascii import a2b_base64, b2a_base64
from bisect import bisect_left
from collections import Counter
from functools import lru_cache
from itertools import accumulate, compress, islice
from typing import Any, Container, Iterable, Iterator, NamedTuple, Optional, Sequence, Union
from zlib import crc32

# Frames: a length, and that many bytes ---------------------------------------------------------

_HEADER = struct.Struct("<Q")  # the C program's size_t on every machine it runs on: 8 bytes, little-endian
HEADER_SIZE = _HEADER.size
_read_length, _pack_length = _HEADER.unpack_from, _HEADER.pack  # bound once, because they are called for every message

MAX_FRAME = 64 * 1024  # bytes that we accept on either kind of link: a C user on a wide terminal sends over 2048


class ProtocolError(Exception):
    """The far end broke the rules; the text says how. It costs that one link and nothing else."""


class FrameDecoder:
    """Cuts a byte stream into frames, wherever the network has cut it into pieces.

    A READ MAY BE PARTIAL: TCP carries a stream, not messages, and one recv may return half a header or
    forty frames. An incomplete frame waits in here: at most HEADER_SIZE + MAX_FRAME bytes, beside the piece
    that was just fed. (A write may be partial, too: p2pchat.Link.)
    """

    def __init__(self) -> None:
        self._rest, self._at = b"", 0  # bytes that were fed and are still kept, and how many of them are used up

    def feed(self, data: bytes) -> FrameDecoder:
        """Take what arrived; iterate over the decoder for the frames that it completes."""
        self._rest, self._at = self._rest[self._at:] + data if self._rest else data, 0
        return self

    def __iter__(self) -> Iterator[bytes]:
        """Yield each complete frame, header included, in order.

        Raises ProtocolError as soon as a header announces more than MAX_FRAME bytes. The frames before it
        have been yielded by then, and no memory is spent on the one announced.
        """
        return iter(self._next, None)

    def _next(self) -> Optional[bytes]:
        rest, at = self._rest, self._at
        if not rest:
            return None
        body, end = at + HEADER_SIZE, len(rest)
        if body <= end:
            (length,) = _read_length(rest, at)
            if length > MAX_FRAME:
                raise _too_long(length)
            stop = body + length
            if stop <= end:
                self._at = stop
                return rest[at:stop]
        self._rest, self._at = rest[at:], 0
        return None


def _too_long(length: int) -> ProtocolError:
    return ProtocolError(f"sent a frame of {length} bytes ({MAX_FRAME} at most)")


def encode_frame(body: bytes) -> bytes:
    """One frame: the length of `body` in 8 bytes, then `body`."""
    return _pack_length(len(body)) + body


# Plain links: two frames a message, a name and a text ------------------------------------------

MAX_PLAIN_FRAME = 2048  # bytes; the C program's buffer: a longer name costs the link, a longer text desynchronises it
SMALLEST_SEGMENT = 536  # bytes that any TCP carries in one segment (RFC 9293, 3.7.1)
LOOK_BACK = 64  # bytes searched backwards for a boundary between two characters; nobody types a longer one

MARK = b"\xff"  # never part of UTF-8; behind it, a name may carry a mark (see Mark)
QUIT_TEXTS = (b":q", b":quit")  # exactly these; anything else that begins with a colon is chat
_UNFIT, _SPACES = re.compile(rb"[\n\t\0]").search, bytes.maketrans(b"\n\t", b"  ")  # what a C program cannot show or read


new_tuple = tuple.__new__  # of a NamedTuple that is made for every message: its own constructor takes a microsecond more


class Batch(NamedTuple):
    """Frames that were joined once, for all the links that they go to."""
    data: bytes
    ends: list[int]  # offsets in `data` where a TCP segment may end: no header straddles two segments
    numbers: Sequence[int] = ()  # for each piece between two ends, the log's number of the record in it

    def behind(self, first: Batch) -> Batch:
        """Both, this one last; its pieces count as pieces of no record."""
        size = len(first.data)
        return Batch(first.data + self.data, first.ends + [size + end for end in self.ends], first.numbers)

    def without(self, known: Container[int]) -> Batch:
        """What is left without the pieces of these records."""
        pieces = [self.data[start:end] for start, end in zip([0, *self.ends], self.ends)]
        is_kept = [number not in known for number in self.numbers]
        return join([*compress(pieces, is_kept)], [*compress(self.numbers, is_kept)])


def join(pieces: Sequence[bytes], numbers: Sequence[int] = ()) -> Batch:
    """A Batch of these pieces, each of which may end a segment."""
    return new_tuple(Batch, (b"".join(pieces), list(accumulate(map(len, pieces))), numbers))


def encode_pair(name: bytes, text: bytes) -> Batch:
    """One message, without a mark. Raises ValueError for a name or text over MAX_PLAIN_FRAME bytes."""
    if max(len(name), len(text)) > MAX_PLAIN_FRAME:
        raise ValueError(f"a name or text over {MAX_PLAIN_FRAME} bytes; split it first")
    return join(pair_pieces(encode_frame(name), text))


def pair_pieces(head: bytes, text: bytes) -> tuple[bytes, ...]:
    """One message as pieces, each of which may end a segment; `head` is the frame of the name.

    A C program reads a header with a single read, so no header may straddle two TCP segments: a piece
    begins with a header, and has no other one beyond its first SMALLEST_SEGMENT bytes.
    """
    body = _pack_length(len(text)) + text
    return (head + body,) if len(head) + len(body) <= SMALLEST_SEGMENT else (head, body)


def as_c_reads(frame: bytes) -> bytes:
    """The part of a frame that a C program shows, compares and relays: it stops at a NUL.

    We must stop there too, or the text ":q", NUL, "x" would be a goodbye to it and chat to us.
    """
    return frame.partition(b"\0")[0]


def split_text(text: bytes, limit: int) -> list[bytes]:
    """`text` in parts of at most `limit` bytes: cut after a space if there is one, else between two characters."""
    parts, start = [], 0
    while len(text) - start > limit:
        # Only in the second half: parts are at least half full, wherever the spaces are.
        space = text.rfind(b" ", start + limit // 2, start + limit)
        stop = space + 1 or _character_start(text, start + limit)
        parts.append(text[start:stop])
        start = stop
    parts.append(text[start:])
    return parts


def plain_texts(text: bytes) -> list[bytes]:
    """The texts that carry `text` on a plain link: one line each, at most MAX_PLAIN_FRAME bytes, in order.

    Joined they are `text` again, except for what a plain link cannot represent: a newline or a tab becomes a
    space, a NUL becomes U+FFFD. None of them is a goodbye: a C program would take it for ours.
    """
    if len(text) <= MAX_PLAIN_FRAME and not _UNFIT(text):
        return [b" " + text] if text in QUIT_TEXTS else [text]
    text = text.replace(b"\r\n", b" ").translate(_SPACES).replace(b"\0", "\ufffd".encode())
    parts = split_text(text, MAX_PLAIN_FRAME)
    if len(parts) > 1 and parts[-1] in QUIT_TEXTS:
        # The subtle spot: "... :q" may be split so that its last part says goodbye for us. Move the cut.
        before, last = parts[-2:]
        stop = _character_start(before, len(before) - 1)
        parts[-2:] = [before[:stop], before[stop:] + last]
    return parts


def _character_start(text: bytes, index: int) -> int:
    """The last index at or before `index`, within LOOK_BACK, where a character begins that stands on its own."""
    for at in range(index, max(index - LOOK_BACK, 0), -1):
        if not _continues(text, at):
            return at
    return next((at for at in range(index, index - 4, -1) if text[at] & 0xC0 != 0x80), index)


def _continues(text: bytes, at: int) -> bool:
    if text[at] & 0xC0 == 0x80:
        return True  # the middle of one code point in UTF-8
    following = text[at:at + 4].decode("utf-8", "ignore")[:1]
    before = text[max(at - 3, 0):at].decode("utf-8", "ignore")[-1:]
    if before == "\u200d" or following == "\u200d":
        return True  # ZERO WIDTH JOINER: an emoji family
    return unicodedata.category(following)[0] == "M" if following else False


# Marks: identity through C programs ------------------------------------------------------------

MARK_VERSION = 0x10  # the high half of a mark's first byte
MAX_PARTS = 255  # of one text; a record's text is split into 33 at most

# The head: version and flags, origin, gateway, port, length of the host; then the host. The tail: sequence, part, parts,
# CRC. Each is a multiple of three bytes long, so base64 can encode them apart: a run shares one head.
_HEAD, _PLACE, _CRC = struct.Struct("<BQQHB"), struct.Struct("<QBB"), struct.Struct("<Ix")
_TAIL_SIZE = _PLACE.size + _CRC.size
_ENCODED_TAIL = _TAIL_SIZE * 4 // 3
_pack_place, _pack_crc = _PLACE.pack, _CRC.pack
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_HIGH = bytes(range(0x80, 0xC0))  # bytes that a C program relays and never shows
_TO_HIGH, _FROM_HIGH = bytes.maketrans(_ALPHABET, _HIGH), bytes.maketrans(_HIGH, _ALPHABET)
LEAST_OF_MARK = 16  # bytes of a mark's alphabet in a row: so many do not end a name by accident
MARK_SIZES = (48, 52, 68)  # bytes behind MARK: without a host, with an IPv4 one, with an IPv6 one


class GarbledError(Exception):
    """A mark with a wrong checksum: a C program's threads have mixed up two messages."""


class Mark(NamedTuple):
    """A message's identity, which it keeps wherever C programs pass it on."""
    origin: int
    sequence: int  # together with the origin, the identity of its record
    is_guest: bool  # a C user's words, not the member's own
    part: int  # if the text was split: which part this is, from 0
    parts: int
    gateway: int  # the origin of the member that sent it into a plain link
    host: str  # where the gateway listens; "" if it does not know
    port: int


# What all messages of one author and name share: the start of a pair's first frame, its CRC, the longest text (bytes) that is
# sent in one piece with it (-1: none); and, of a name that has a mark already, the place that this mark gives, else None.
Head = tuple[bytes, int, int, Optional[tuple[int, int, int]]]
MAX_HEADS = 64  # heads that a Marker keeps, so that an earlier speaker's next message needs no new one


class Marker:
    """Marks the messages that one gateway sends into plain links."""

    def __init__(self, gateway: int, host: str, port: int) -> None:
        packed = _pack_host(host)
        self._gateway = gateway, port, len(packed)
        self._host = packed + bytes(-(_HEAD.size + len(packed)) % 3)
        self._head = lru_cache(maxsize=MAX_HEADS)(self._make_head)

    def encode(self, first: int, frames: Iterable[bytes], never: Container[int] = ()) -> Batch:
        """The pairs that carry these records, the first of which has this number in the log: the chat that is not in `never`.

        One of the two hot loops (see RecordDecoder.next_run): nearly every text is short, and in one part.
        """
        head_of, pieces, numbers = self._head, [], []
        for number, frame in enumerate(frames, first):
            _, kind, origin, sequence, _, size = read_record(frame)
            if kind not in CHAT or number in never:
                continue
            stop = RECORD_SIZE + size
            text = frame[stop:]
            start, crc, room, place = head_of(kind, origin, frame[RECORD_SIZE:stop])
            if len(text) <= room and not _UNFIT(text) and text not in QUIT_TEXTS:
                packed = _pack_place(sequence, 0, 1)
                tail = b2a_base64(packed + _pack_crc(crc32(packed + text, crc)), newline=False)
                pieces.append(start + tail.translate(_TO_HIGH) + _pack_length(len(text)) + text)
                numbers.append(number)
            else:
                found = _encode_parts(start, crc, plain_texts(text), *(place or (sequence, 0, 1)))
                pieces += found
                numbers += [number] * len(found)
        return join(pieces, numbers)

    def encode_goodbye(self, name: bytes) -> Batch:
        """What the gateway, whose name this is, sends into a plain link last. The mark is for a member that took it for a C program."""
        start, crc, _, _ = self._head(Kind.SAY, self._gateway[0], name)
        return join(_encode_parts(start, crc, QUIT_TEXTS[:1]))

    def _make_head(self, kind: int, origin: int, frame: bytes) -> Head:
        name, mark = unmarked(frame)
        is_guest = kind == Kind.GUEST if mark is None else mark.is_guest
        head = _HEAD.pack(MARK_VERSION | is_guest, origin if mark is None else mark.origin, *self._gateway) + self._host
        encoded = b2a_base64(head, newline=False).translate(_TO_HIGH)
        size = MAX_PLAIN_FRAME - len(MARK) - len(encoded) - _ENCODED_TAIL
        name = split_text(name, size)[0] if len(name) > size else name
        start = name + MARK + encoded
        place = None if mark is None else (mark.sequence, mark.part, mark.parts)  # a part of a longer text stays one
        room = SMALLEST_SEGMENT - 2 * HEADER_SIZE - len(start) - _ENCODED_TAIL if mark is None else -1
        return _pack_length(len(start) + _ENCODED_TAIL) + start, crc32(head, crc32(name)), room, place


def _encode_parts(start: bytes, crc: int, texts: Sequence[bytes], sequence: int = 0, first: int = 0, parts: int = 1) -> list[bytes]:
    """The pieces that carry one message, split into `texts`; `first` is the first one's index of all `parts`."""
    pieces: list[bytes] = []
    for part, text in enumerate(texts, first):
        place = _pack_place(sequence, min(part, MAX_PARTS), max(parts, len(texts)))
        tail = place + _pack_crc(crc32(text, crc32(place, crc)))
        pieces += pair_pieces(start + b2a_base64(tail, newline=False).translate(_TO_HIGH), text)
    return pieces


def looks_marked(frame: bytes) -> bool:
    """Whether this frame ends in a mark, or in what a C program has left of one."""
    _, found, encoded = frame.rpartition(MARK)
    return bool(found) and LEAST_OF_MARK <= len(encoded) <= MARK_SIZES[-1] and not encoded.translate(None, _HIGH)


def read_mark(frame: bytes, text: Optional[bytes]) -> tuple[bytes, Optional[Mark]]:
    """(name, Mark) of a marked frame and its text; (frame, None) if it has no mark.

    Anything behind MARK that is not a well-formed mark is part of the name. Raises GarbledError if the checksum
    is wrong; without a `text` it is not checked.
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
        return name, None  # of a later version: only the name can be read
    (crc,) = _CRC.unpack_from(data, len(data) - _CRC.size)
    if text is not None and crc != crc32(text, crc32(place, crc32(head, crc32(name)))):
        raise GarbledError
    sequence, part, parts = _PLACE.unpack(place)
    host = _unpack_host(head[_HEAD.size:_HEAD.size + size])
    return name, Mark(origin, sequence, bool(version & 1), part, parts, gateway, host, port)


def unmarked(frame: bytes) -> tuple[bytes, Optional[Mark]]:
    """(name, Mark) of a name in the log that may keep its mark; the gateway that let it in looked at its checksum."""
    try:
        return read_mark(frame, None) if MARK in frame else (frame, None)
    except GarbledError:
        return frame, None


def _pack_host(host: str) -> bytes:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).packed
    except ValueError:
        return b""


def _unpack_host(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed)) if len(packed) in (4, 16) else ""


# Mesh links: one record a frame ----------------------------------------------------------------

MAX_VECTOR = 4000  # origins in a hello: 16 bytes each, so that all fit into one frame
MAX_ADDRESSES = 8  # in a hello, a bye or peers
MAX_RECORD_TEXT = 32 * 1024  # bytes of text in one record; a longer one goes as several

MAGIC = b"p2pchat\x01"  # the protocol's name and version; another version is another protocol
PROBE = b":q\0"  # all that a C program reads of our first hello: a guest who leaves at once, so it shows nothing

Address = tuple[str, int]  # a numeric host and a port
Range = tuple[int, int, int]  # an origin, and its first and last sequence meant


class Kind:
    """The first byte of a record. Kinds that we do not know are ignored: later versions may have more."""

    SAY = 1  # a member said it
    GUEST = 2  # somebody on a plain link said it; the origin is that of the member whose link it came over
    HERE = 3  # a member has joined, or contradicts that it is lost
    LEFT = 4  # a member says goodbye; the text is the origins of its neighbours
    LOST = 5  # somebody misses a member; the text is its origin and the last sequence heard of it
    GUEST_GONE = 6  # a guest's plain link has ended; the text is LEFT_TEXT if they said goodbye
    HELLO, PING, PONG, BYE, PEERS = 16, 17, 18, 19, 20  # from here on, between two neighbours only
    ASK = 21  # ranges that the sender lacks; the far end sends what it has of them
    RENAMED = 22  # the sender's origin was forged; this is its new one


_RECORD = struct.Struct("<QBQQIH")  # length, kind, origin, sequence, time, length of the name; then name and text
read_record, _pack_record, RECORD_SIZE = _RECORD.unpack_from, _RECORD.pack, _RECORD.size  # RECORD_SIZE: bytes of a frame before the name
read_id = struct.Struct("<9xQQ").unpack_from  # origin and sequence of a record's frame
_HELLO = struct.Struct("<B8sQHBH")  # kind, MAGIC, origin, port, urgent, length of the name; then name, addresses, vector
_ENTRY = struct.Struct("<QQ")  # an origin and its highest sequence
_PORT = struct.Struct("<H")
LATEST = 2 ** 32 - 1  # the last time that fits into a record, in seconds since 1970: in 2106
FIRST_LOGGED, LAST_LOGGED = Kind.SAY, Kind.GUEST_GONE
CHAT = Kind.SAY, Kind.GUEST
LEFT_TEXT = b"left"
_RANGE, _ORIGIN = struct.Struct("<QQQ"), struct.Struct("<Q")
MAX_ASKED = 16  # ranges in one ASK
MAX_LEFT = 16  # neighbours in one LEFT


class Record(NamedTuple):
    """One thing that one member told everybody: what the log consists of."""
    kind: int
    origin: int  # chosen at random for each run of the program; a name is only a label
    sequence: int  # 1, 2, 3 ... for each origin
    when: int  # seconds since 1970, by the author's clock
    name: bytes
    text: bytes


class Hello(NamedTuple):
    """How two members greet each other. A probe has no addresses and no vector yet."""
    origin: int
    port: int  # where the sender listens; its host is where the connection comes from
    urgent: bool  # without any other link
    name: bytes
    addresses: tuple[Address, ...] = ()
    vector: dict[int, int] = {}  # origin -> the highest sequence that the sender has


def encode_record(kind: int, origin: int, sequence: int, when: int, name: bytes, text: bytes) -> bytes:
    """A record's frame."""
    return encode_records(kind, origin, sequence, when, name, [text])[0]


def encode_records(kind: int, origin: int, first: int, when: int, name: bytes, texts: Sequence[bytes]) -> list[bytes]:
    """The frames of successive records. `when` is clamped: a clock that is wrong by a century must not end the program."""
    when, size, length = min(max(when, 0), LATEST), RECORD_SIZE - HEADER_SIZE + len(name), len(name)
    return [_pack_record(size + len(text), kind, origin, sequence, when, length) + name + text for sequence, text in enumerate(texts, first)]


def decode_record(frame: bytes) -> Record:
    """The Record in a frame. Raises ProtocolError."""
    if len(frame) < RECORD_SIZE:
        raise ProtocolError("sent half a record")
    _, kind, origin, sequence, when, length = read_record(frame)
    stop = RECORD_SIZE + length
    if stop > len(frame) or not sequence or length > MAX_PLAIN_FRAME:
        raise ProtocolError("sent a record that makes no sense")
    return Record(kind, origin, sequence, when, frame[RECORD_SIZE:stop], frame[stop:])


class Run(NamedTuple):
    """Successive chat records of one author and name: each has the next sequence."""
    kind: int
    origin: int
    sequence: int  # of the first
    when: int  # of the first
    name: bytes
    frames: list[bytes]  # as they came, headers included

    def texts(self) -> list[bytes]:
        """One for each frame. Cut out only when our user is told: they are passed on as they came."""
        start = RECORD_SIZE + len(self.name)
        return [frame[start:] for frame in self.frames]

    def part(self, start: int, stop: int) -> Run:
        """The Run of its records from index `start` up to, but not including, `stop`."""
        if start == 0 and stop == len(self.frames):
            return self
        kind, origin, sequence, when, name, _ = decode_record(self.frames[start])
        return Run(kind, origin, sequence, when, name, self.frames[start:stop])


class RecordDecoder(FrameDecoder):
    """A FrameDecoder that can also cut the stream of a mesh link, or of a plain one, into runs."""

    def next_pairs(self) -> Optional[tuple[bytes, list[bytes]]]:
        """The next successive messages of one name on a plain link, as (name, texts); None until a whole one has arrived.

        What may change the meaning of what follows, such as a goodbye or a probe, comes alone. The first part of a pair waits
        in here: at most two frames. Raises ProtocolError.
        """
        rest, at = self._rest, self._at
        if not rest:
            return None
        texts: list[bytes] = []
        end, run = len(rest), b""
        while end - at >= 2 * HEADER_SIZE:
            body = at + HEADER_SIZE
            (size,) = _read_length(rest, at)
            start = body + size + HEADER_SIZE
            if start > end:
                break
            (length,) = _read_length(rest, start - HEADER_SIZE)
            stop = start + length
            if stop > end or size > MAX_FRAME or length > MAX_FRAME:
                break
            name, text = rest[body:body + size], rest[start:stop]
            is_special = b"\0" in text or MARK in text or text in QUIT_TEXTS
            if texts and (is_special or name != run):
                break
            run, at = name, stop
            texts.append(text)
            if is_special:
                break
        if not texts:
            self._await_pair(rest[at:])
            return None
        self._rest, self._at = (rest, at) if at < end else (b"", 0)
        return run, texts

    def _await_pair(self, rest: bytes) -> None:
        """Keep the first part of a pair. Raises ProtocolError if either length that is here already is too long."""
        self._rest, self._at, start = rest, 0, 0
        while start + HEADER_SIZE <= len(rest):
            (length,) = _read_length(rest, start)
            if length > MAX_FRAME:
                raise _too_long(length)
            start += HEADER_SIZE + length

    def take_for_name(self, text: bytes) -> None:
        """Get back into step: what looked like a text was the name of the next message."""
        self._rest, self._at = encode_frame(text) + self._rest[self._at:], 0

    def next_run(self) -> Union[Run, bytes, None]:
        """The next Run, or a frame that is not chat or makes no sense; None until more has arrived. Raises ProtocolError.

        With _extend the hot loop of the program: the only work per message; all other work is per run.
        """
        rest, at = self._rest, self._at
        if not rest:
            return None
        end = len(rest)
        if end - at < RECORD_SIZE:
            return self._next()
        length, kind, origin, sequence, when, size = read_record(rest, at)
        name, stop = at + RECORD_SIZE, at + HEADER_SIZE + length
        text = name + size
        if kind not in CHAT or not text <= stop <= end or not sequence or size > MAX_PLAIN_FRAME or length > MAX_FRAME:
            return self._next()
        run = new_tuple(Run, (kind, origin, sequence, when, rest[name:text], [rest[at:stop]]))
        if stop < end:
            self._at = stop
            self._extend(run)
        else:  # as a rule: messages come one at a time
            self._rest, self._at = b"", 0
        return run

    def _extend(self, run: Run) -> None:
        """Add what follows the first record: same kind, origin and name, and the next sequence each time."""
        kind, origin, following, _, name, frames = run
        buffer, at, end = self._rest, self._at, len(self._rest)
        text, size, add_frame = RECORD_SIZE + len(name), len(name), frames.append
        while end - at >= text:
            length, a_kind, an_origin, sequence, _, a_size = read_record(buffer, at)
            following += 1
            stop = at + HEADER_SIZE + length
            if (sequence != following or an_origin != origin or a_kind != kind or a_size != size or stop > end
                    or stop < at + text or length > MAX_FRAME or buffer[at + RECORD_SIZE:at + text] != name):
                break
            add_frame(buffer[at:stop])
            at = stop
        self._rest, self._at = (buffer, at) if at < end else (b"", 0)


def encode_hello(hello: Hello) -> bytes:
    """The body of a hello's frame."""
    return (_HELLO.pack(Kind.HELLO, MAGIC, hello.origin, hello.port, hello.urgent, len(hello.name)) + hello.name
            + _encode_addresses(hello.addresses) + b"".join(_ENTRY.pack(*entry) for entry in hello.vector.items()))


def decode_hello(body: bytes) -> Hello:
    """The Hello in the body of a frame. Raises ProtocolError."""
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


def encode_ask(ranges: list[Range]) -> bytes:
    """The body of an ASK for these ranges, MAX_ASKED of them at most."""
    return bytes([Kind.ASK]) + b"".join(_RANGE.pack(*asked) for asked in ranges[:MAX_ASKED])


def decode_ask(body: bytes) -> list[Range]:
    """The ranges in the body of an ASK. Raises ProtocolError."""
    try:
        return [(origin, first, last) for origin, first, last in _RANGE.iter_unpack(body[1:1 + MAX_ASKED * _RANGE.size])]
    except struct.error as error:
        raise ProtocolError("asked for what makes no sense") from error


def encode_renamed(origin: int) -> bytes:
    """The body of a RENAMED: the sender's new origin."""
    return bytes([Kind.RENAMED]) + _ORIGIN.pack(origin)


def decode_renamed(body: bytes) -> int:
    """The origin in the body of a RENAMED. Raises ProtocolError."""
    try:
        origin: int = _ORIGIN.unpack_from(body, 1)[0]
    except struct.error as error:
        raise ProtocolError("sent a name that makes no sense") from error
    return origin


def encode_left(neighbours: Iterable[int]) -> bytes:
    """The text of a LEFT. Version 1.0 sends none, and does not read it."""
    return b"".join(map(_ORIGIN.pack, islice(neighbours, MAX_LEFT)))


def decode_left(text: bytes) -> list[int]:
    """The origins in the text of a LEFT, whatever it is."""
    whole = min(len(text) // _ORIGIN.size, MAX_LEFT) * _ORIGIN.size
    return [origin for (origin,) in _ORIGIN.iter_unpack(text[:whole])]


def encode_lost(origin: int, sequence: int) -> bytes:
    """The text of a LOST. Version 1.0 reads only the origin."""
    return _ENTRY.pack(origin, sequence)


def decode_lost(text: bytes) -> tuple[Optional[int], Optional[int]]:
    """(origin, last sequence heard of it). Version 1.0 sends no sequence: None. If the text makes no sense, both are None.

    Such a text does not cost the link that brings it: honest members pass on what a stranger said.
    """
    if len(text) < _ORIGIN.size:
        return None, None
    return _ENTRY.unpack_from(text) if len(text) >= _ENTRY.size else (_ORIGIN.unpack_from(text)[0], None)


def is_kind(body: bytes, kind: int) -> bool:
    """Whether the body of a frame is of this kind (hello, bye or peers) and of this version of the protocol."""
    return body.startswith(bytes([kind]) + MAGIC)


def encode_addresses(kind: int, addresses: Sequence[Address]) -> bytes:
    """The body of a bye (no room for you here; try these) or of peers (my neighbours now, if you have too few)."""
    return bytes([kind]) + MAGIC + _encode_addresses(addresses)


def decode_addresses(body: bytes) -> tuple[Address, ...]:
    """The addresses in the body of a bye or of peers. Raises ProtocolError."""
    try:
        return _decode_addresses(body[1 + len(MAGIC):])[0]
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ProtocolError("sent a bye that makes no sense") from error


def _encode_addresses(addresses: Sequence[Address]) -> bytes:
    hosts = [(host.encode(), port) for host, port in addresses[:MAX_ADDRESSES]]
    return bytes([len(hosts)]) + b"".join(bytes([len(host)]) + host + _PORT.pack(port) for host, port in hosts)


def _decode_addresses(data: bytes) -> tuple[tuple[Address, ...], bytes]:
    addresses, at = [], 1
    for _ in range(data[0]):
        length = data[at]
        (port,) = _PORT.unpack_from(data, at + 1 + length)
        addresses.append((data[at + 1:at + 1 + length].decode("ascii"), port))
        at += 1 + length + _PORT.size
    return tuple(addresses[:MAX_ADDRESSES]), data[at:]


# Announcements: packets of their own on a network segment --------------------------------------

MAX_ROOM = 64  # bytes of a room's name
ASKS, TELLS, ASKS_ALL = 1, 2, 3  # Who is in this room? I am. Which rooms are there?
_ANNOUNCEMENT = struct.Struct("<8sBQHB")  # magic, kind, origin, port, length of the room's name


class Announcement(NamedTuple):
    """A member says where it is, to whoever is near."""

    kind: int
    origin: int
    port: int
    room: bytes


def encode_announcement(announcement: Announcement) -> bytes:
    """A packet's bytes."""
    kind, origin, port, room = announcement
    return _ANNOUNCEMENT.pack(MAGIC, kind, origin, port, len(room)) + room


def decode_announcement(packet: bytes) -> Optional[Announcement]:
    """The Announcement in a packet, or None if it makes no sense: anyone can send one, and there is no link to close."""
    if not _ANNOUNCEMENT.size < len(packet) <= _ANNOUNCEMENT.size + MAX_ROOM:
        return None
    magic, kind, origin, port, length = _ANNOUNCEMENT.unpack_from(packet)
    room = packet[_ANNOUNCEMENT.size:]
    is_ours = magic == MAGIC and kind in (ASKS, TELLS, ASKS_ALL) and length == len(room)
    return Announcement(kind, origin, port, room) if is_ours else None


# Holes: what is missing ------------------------------------------------------------------------

MAX_HOLES, MAX_HOLES_EACH = 1024, 64  # remembered in all, and for one origin: a liar can make as many as it likes
MAX_MISSING = 1_000_000  # messages in one hole; whoever skips more is lying, and nobody is told that so many are missing
TELL_SECONDS = 10  # until our user is told of a hole: by then some link would have filled it
NEVER = float("-inf")  # when a hole was opened that our user is not told about


def keep_newest(entries: dict[Any, Any], most: int) -> None:
    """Forget the oldest entry if there is one more than `most`: a stranger may add entries without end."""
    if len(entries) > most:
        del entries[next(iter(entries))]


class Hole:
    """Sequences of one origin that were skipped: whoever sent us what follows no longer had them."""
    __slots__ = ("first", "last", "since", "told")

    def __init__(self, first: int, last: int, since: float, told: bool = False) -> None:
        self.first, self.last, self.since, self.told = first, last, since, told


class Holes:
    """The sequences that we lack of each origin. They are new whenever they come, and over whichever link."""

    def __init__(self) -> None:
        self._holes: dict[int, list[Hole]] = {}  # by origin; each origin's oldest first
        self._hushed: dict[int, None] = {}  # origins of which no hole is told, oldest first
        self.count = 0

    def __contains__(self, origin: int) -> bool:
        return origin in self._holes

    def add(self, origin: int, first: int, last: int, now: float) -> None:
        """Sequences `first` to `last` were skipped at `now` (seconds; NEVER: do not tell our user)."""
        self._add(origin, Hole(first, last, now, told=origin in self._hushed or now == NEVER))

    def covers(self, origin: int, sequence: int) -> bool:
        """Whether this one is missing."""
        return any(hole.first <= sequence <= hole.last for hole in self._holes.get(origin, ()))

    def fill(self, origin: int, first: int, last: int) -> list[tuple[int, int]]:
        """These sequences came. Returns the ranges of them that were missing, as (first, last)."""
        found = []
        for hole in list(self._holes.get(origin, ())):
            low, high = max(first, hole.first), min(last, hole.last)
            if low <= high:
                found.append((low, high))
                self._shrink(origin, hole, low, high)
        return sorted(found)

    def youngest(self, author: int) -> list[Range]:
        """The ranges to ask a new neighbour for: first those that it wrote itself, as `author`; of each kind, the latest first."""
        found = [((origin == author, hole.since), origin, hole.first, hole.last) for origin, holes in self._holes.items() for hole in holes]
        return [asked[1:] for asked in sorted(found, reverse=True)[:MAX_ASKED]]

    def tell(self, now: float) -> int:
        """How many messages have been missing for TELL_SECONDS and are not told yet; from now on they are."""
        missing = 0
        for hole in self._untold():
            if hole.since + TELL_SECONDS <= now:
                hole.told = True
                missing += hole.last - hole.first + 1 if hole.last - hole.first < MAX_MISSING else 0
        return missing

    def next_tell(self) -> Optional[float]:
        """When the next hole is due to be told, in seconds; None if there is none."""
        return min((hole.since + TELL_SECONDS for hole in self._untold()), default=None)

    def hush(self, origin: int) -> None:
        """Somebody says that this origin was forged: do not tell our user what seems to be missing. What comes is still new."""
        self._hushed[origin] = None
        keep_newest(self._hushed, MAX_HOLES)
        for hole in self._holes.get(origin, ()):
            hole.told = True

    def _untold(self) -> list[Hole]:
        return [hole for holes in self._holes.values() for hole in holes if not hole.told]

    def _shrink(self, origin: int, hole: Hole, low: int, high: int) -> None:
        self._remove(origin, hole)
        for first, last in ((hole.first, low - 1), (high + 1, hole.last)):
            if first <= last:
                self._add(origin, Hole(first, last, hole.since, hole.told))

    def _add(self, origin: int, hole: Hole) -> None:
        holes = self._holes.setdefault(origin, [])
        holes.append(hole)
        self.count += 1
        if len(holes) > MAX_HOLES_EACH:  # a forger jumps ahead, while the author's next records fall into the lowest hole
            self._remove(origin, max(holes, key=lambda hole: hole.first))
        if self.count > MAX_HOLES:
            self._give_up_half()

    def _remove(self, origin: int, hole: Hole) -> None:
        holes = self._holes[origin]
        holes.remove(hole)
        self.count -= 1
        if not holes:
            del self._holes[origin]

    def _give_up_half(self) -> None:
        # Half at once, so that each costs O(1): first the higher ones of the origins with most, then those of the latest
        # origins. A liar skips within one origin, or in many; either way the holes of those who were here first are kept.
        most = MAX_HOLES_EACH
        while self.count > MAX_HOLES // 2 and most > 1:
            most //= 2
            for origin, hole in [(origin, hole) for origin, holes in self._holes.items()
                                 for hole in sorted(holes, key=lambda hole: hole.first)[most:]]:
                self._remove(origin, hole)
        for origin in list(self._holes)[MAX_HOLES // 2:]:
            self._remove(origin, self._holes[origin][0])


# The log: what is remembered -------------------------------------------------------------------

LOG_MESSAGES = 20_000  # chat messages kept for latecomers and returning members; presence does not push them out
LOG_BYTES = 8 * 1024 * 1024  # that chat and presence may cost together, whichever limit is reached first
FRAME_COST = 50  # bytes that a record costs beside its frame
MAX_ORIGINS = 4 * LOG_MESSAGES  # remembered beside those of the records kept, so that no old line is shown again
CHUNK_SIZE = 64 * 1024  # bytes of the log that are joined for one send
MAX_CHUNKS = 32  # kept


class Log:
    """Every record once, in the order in which this member delivered them: the latest ones, as the limits allow.

    `have` is this member's version vector: the highest sequence delivered of each origin; `holes` is what
    is missing below it. Every link is first in, first out, and every member passes records on in its own
    order, so what arrives is a duplicate or exactly the next record of its origin. Only after an absence
    longer than the log is there a gap.

    Records are kept as the frames that they arrived in, and passed on without being encoded again.
    """

    def __init__(self) -> None:
        self.have: dict[int, int] = {}
        self.holes = Holes()
        self.late: set[int] = set()  # numbers of records that filled a hole: a neighbour's vector says nothing about them
        self.start = 0  # the number of the oldest record kept; numbers never change
        self.end = 0  # the number that the next record will get
        self.last = b""  # the frame of the record before that
        self._frames: list[bytes] = []
        self._low: dict[int, int] = {}  # origin -> the lowest sequence delivered, where that is not 1
        self._held: dict[int, int] = {}  # origin -> how many of its records are kept; whoever spoke last is last
        self._cost = 0  # bytes
        self._chat = 0  # how many of the frames are chat
        self._joined = lru_cache(maxsize=MAX_CHUNKS)(self._join)

    def may_lack(self, origin: int, first: int, is_live: bool) -> bool:
        """Whether something at or below what we have of an origin may be missing.

        What was said before we met its origin is not, unless it `is_live`: then somebody forged a later record before.
        """
        low = self._low.get(origin, 0)
        if is_live and first < low:
            self._low[origin] = first
            self.holes.add(origin, first, low - 1, NEVER)
        return origin in self.holes

    def delivered(self, origin: int, sequence: int) -> bool:
        """Whether a record with this identity was delivered."""
        return self._low.get(origin, 1) <= sequence <= self.have.get(origin, 0) and not self.holes.covers(origin, sequence)

    def news(self, origin: int, first: int, last: int) -> list[tuple[int, int, bool]]:
        """What is new of these sequences, as (first, last, whether it fills a hole)."""
        have = self.have.get(origin)
        if have is None or first > have:
            return [(first, last, False)]
        filled = self.holes.fill(origin, first, min(last, have)) if origin in self.holes else []
        late = [(low, high, True) for low, high in filled]
        return late + [(have + 1, last, False)] if last > have else late

    def extend(self, origin: int, sequence: int, frames: list[bytes], now: float, late: bool = False, is_live: bool = False) -> int:
        """Append new records of one origin, the last of them `sequence`, at `now` (seconds). What they skip is a hole.

        `late`: they fill a hole; `is_live`: they are not history. Returns the number of the first.
        """
        have, before = self.have.get(origin), sequence - len(frames)
        if late:
            self.late.update(range(self.end, self.end + len(frames)))
        elif have != before:
            self._skip(origin, have, before, now, is_live)
        return self.append(origin, self.have.get(origin, sequence) if late else sequence, frames)

    def append(self, origin: int, sequence: int, frames: list[bytes]) -> int:
        """Append records that follow on what we have of their origin: from now on that is `sequence`. Returns the number of the first."""
        number, count, held = self.end, len(frames), self._held
        self.have[origin] = sequence
        self._frames += frames
        self.last = frames[-1]
        held[origin] = held.pop(origin, 0) + count
        self.end = number + count
        self._cost += sum(map(len, frames)) + count * FRAME_COST
        if frames[0][HEADER_SIZE] in CHAT:
            self._chat += count
        if self._cost > LOG_BYTES or self._chat > LOG_MESSAGES:
            self._trim()
        return number

    def _skip(self, origin: int, have: Optional[int], last: int, now: float, is_live: bool) -> None:
        """The next record of this origin does not follow on what we have; `last` is the sequence before it."""
        if have is not None and last > have:
            self.holes.add(origin, have + 1, last, now)
        # A latecomer gets only the end of what an origin said. But what is live follows a first word, so this may be forged.
        elif have is None and last and is_live:
            self.holes.add(origin, 1, last, NEVER)
        elif have is None and last:
            self._low[origin] = last + 1

    def read(self, number: int, stop: int) -> list[bytes]:
        """The frames from this number up to, but not including, `stop`, as far as they are kept."""
        return self._frames[max(number - self.start, 0):max(stop - self.start, 0)]

    def chunk(self, number: int) -> tuple[bytes, int]:
        """The frames from this number on, about CHUNK_SIZE bytes of them, and the number after the last one.

        They are joined once for all who ask: neighbours that are up to date all ask for the same number.
        """
        return self._joined(number, self.end)

    def _join(self, number: int, end: int) -> tuple[bytes, int]:
        frames = self.read(number, min(number + CHUNK_SIZE // RECORD_SIZE, end))
        ends = list(accumulate(map(len, frames)))
        count = bisect_left(ends, CHUNK_SIZE) + 1
        return b"".join(frames[:count]), number + min(count, len(frames))

    def find(self, ranges: Iterable[Range]) -> list[int]:
        """The numbers of the records in these ranges that are kept, in the log's order. One pass over the whole log."""
        wanted: dict[int, list[tuple[int, int]]] = {}
        for origin, first, last in ranges:
            wanted.setdefault(origin, []).append((first, last))
        return [number for number, (origin, sequence) in enumerate(map(read_id, self._frames), self.start)
                if origin in wanted and any(first <= sequence <= last for first, last in wanted[origin])]

    def vector(self) -> dict[int, int]:
        """For a hello: origin -> highest sequence, of the latest MAX_VECTOR origins in the log."""
        return {origin: self.have[origin] for origin in islice(reversed(self._held), MAX_VECTOR)}

    def _trim(self) -> None:
        # A tenth at once: cutting off the head of a list costs as much as its tail is long.
        while self._cost > LOG_BYTES or self._chat > LOG_MESSAGES:
            count = len(self._frames) // 10 or 1
            gone = self._frames[:count]
            self._forget(gone)
            self._cost -= sum(map(len, gone)) + count * FRAME_COST
            self._chat -= sum(frame[HEADER_SIZE] in CHAT for frame in gone)
            del self._frames[:count]
            self.start += count
        self.late = {number for number in self.late if number >= self.start}
        if len(self.have) > MAX_ORIGINS:
            # Those who were here first, and the latest: what a neighbour's log may still hold of the others is not chat.
            origins = list(self.have)
            kept = {*origins[:LOG_MESSAGES], *origins[-2 * LOG_MESSAGES:]}
            self.have = {origin: last for origin, last in self.have.items()
                         if origin in kept or origin in self._held or origin in self.holes}
            self._low = {origin: low for origin, low in self._low.items() if origin in self.have}

    def _forget(self, frames: list[bytes]) -> None:
        for origin, count in Counter(origin for origin, _ in map(read_id, frames)).items():
            self._held[origin] -= count
            if not self._held[origin]:
                del self._held[origin]
