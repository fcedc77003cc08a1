"""What travels between two members: frames, and the pairs of frames that make a message.

Knows: the byte layout of the wire, its limits, and which texts mean "I am leaving".
Must not know: sockets, clocks, screens. Bytes go in, objects come out, nothing waits.
Leaves out: who sends what to whom (peers.py), and how a text is made safe to show (ui.py).

One message on the wire, as the C program writes it ("al" says "hi"):

    02 00 00 00 00 00 00 00   61 6c        frame 1: length 2, the name  "al"
    02 00 00 00 00 00 00 00   68 69        frame 2: length 2, the text  "hi"
"""

from __future__ import annotations

import struct
import unicodedata

_HEADER = struct.Struct("<Q")  # the C program's size_t on every machine it runs on: 8 bytes, little-endian
HEADER_SIZE = _HEADER.size

MAX_PLAIN_FRAME = 2048  # bytes; the C program's buffer: a longer name costs the link, a longer text its stream
SMALLEST_SEGMENT = 536  # bytes that any TCP carries in one segment (RFC 9293, 3.7.1)
LOOK_BACK = 64  # bytes searched for a place to split outside a character; a longer "character" is not a person's

QUIT_TEXTS = (b":q", b":quit")  # exactly these; whatever else begins with a colon is chat


class ProtocolError(Exception):
    """The other end broke the rules; the text says how. It costs that one link, nothing else."""


class FrameDecoder:
    """Cuts a byte stream into frames, however the network cut it into pieces.

    TCP is a stream: one recv may bring half a frame or forty of them. What has not arrived
    completely waits in here, at most `limit` + HEADER_SIZE bytes beside the piece being fed.
    """

    def __init__(self, limit):
        self.limit = limit
        self._rest = b""

    def feed(self, data):
        """Yield each frame's body that `data` completes, in order. Never blocks.

        Raises ProtocolError at a length above `limit` bytes, as soon as the header is there:
        the frames before it have been yielded, and nothing is kept for the one announced.
        """
        buffer = self._rest + data if self._rest else data
        position, end = 0, len(buffer)
        while end - position >= HEADER_SIZE:
            (length,) = _HEADER.unpack_from(buffer, position)
            if length > self.limit:
                raise ProtocolError(f"sent a frame of {length} bytes ({self.limit} at most)")
            stop = position + HEADER_SIZE + length
            if stop > end:
                break
            yield buffer[position + HEADER_SIZE:stop]
            position = stop
        self._rest = buffer[position:]


class PairDecoder:
    """Cuts a plain link's stream into (name, text) pairs of bytes."""

    def __init__(self):
        self._frames = FrameDecoder(MAX_PLAIN_FRAME)
        self._name = None

    def feed(self, data):
        """Yield each (name, text) that `data` completes. Raises ProtocolError as FrameDecoder.feed does."""
        for frame in self._frames.feed(data):
            # The C program stops at a NUL when it shows, compares and relays. If we did not, a text
            # of ":q", NUL, "x" would be a goodbye to it and chat to us.
            frame = frame.partition(b"\0")[0]
            if self._name is None:
                self._name = frame
                continue
            name, self._name = self._name, None
            yield name, frame


def encode_frame(body):
    """One frame: the length of `body` in 8 bytes, then `body`."""
    return _HEADER.pack(len(body)) + body


def encode_pair(name, text):
    """The two frames of a message, as bytes. Raises ValueError over MAX_PLAIN_FRAME bytes: a C peer must not get it."""
    if len(name) > MAX_PLAIN_FRAME or len(text) > MAX_PLAIN_FRAME:
        raise ValueError(f"a name or text over {MAX_PLAIN_FRAME} bytes; split it first")
    return encode_frame(name) + encode_frame(text)


def pair_pieces(name, text):
    """The message as a tuple of pieces that may each end a segment: whole if short, else frame by frame.

    A C peer reads a header with one read, so no header may lie across two TCP segments. A piece
    begins with a header and holds no other one beyond its first SMALLEST_SEGMENT bytes.
    Raises ValueError as encode_pair does.
    """
    pair = encode_pair(name, text)
    if len(pair) <= SMALLEST_SEGMENT:
        return (pair,)
    second = HEADER_SIZE + len(name)
    return pair[:second], pair[second:]


def is_quit(text):
    """Whether this text says that its sender leaves."""
    return text in QUIT_TEXTS


def plain_texts(text):
    """The texts (bytes) that carry `text` on a plain link: one line each, at most MAX_PLAIN_FRAME bytes, in order.

    Joined they are `text` again, but for what a C peer cannot carry: a newline becomes a space,
    a NUL becomes U+FFFD. Cut after a space where there is one, else between two characters.
    """
    text = text.replace(b"\r\n", b" ").replace(b"\n", b" ").replace(b"\0", "\ufffd".encode())
    parts, start = [], 0
    while len(text) - start > MAX_PLAIN_FRAME:
        stop = _split_at(text, start)
        parts.append(text[start:stop])
        start = stop
    parts.append(text[start:])
    if len(parts) > 1 and is_quit(parts[-1]):
        # The subtle spot: "... :q" may be cut so that its last part says goodbye for us. Move the cut.
        stop = _character_start(text, start - 1)
        parts[-2:] = [parts[-2][:stop - start], text[stop:]]
    return parts


def _split_at(text, start):
    stop = start + MAX_PLAIN_FRAME
    space = text.rfind(b" ", start + MAX_PLAIN_FRAME // 2, stop)  # a part is at least half full, whatever the spaces
    if space >= 0:
        return space + 1
    return _character_start(text, stop)


def _character_start(text, index):
    """The last index at or before `index` (within LOOK_BACK) where a character begins that stands by itself."""
    for at in range(index, max(index - LOOK_BACK, 0), -1):
        if not _continues(text, at):
            return at
    return index


def _continues(text, at):
    if text[at] & 0xC0 == 0x80:
        return True  # the middle of one code point in UTF-8
    following = text[at:at + 4].decode("utf-8", "ignore")[:1]
    before = text[max(at - 3, 0):at].decode("utf-8", "ignore")[-1:]
    if before == "\u200d" or following == "\u200d":
        return True  # ZERO WIDTH JOINER: an emoji family
    return unicodedata.category(following)[0] == "M" if following else False
