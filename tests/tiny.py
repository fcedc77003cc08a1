"""A chat without a server: the whole idea of p2pchat, before anything makes it robust.

    python3 tests/tiny.py NAME PORT [PEER PORT ...]     PORT 0: the system picks one

It listens on PORT and dials the members you name: others like itself, p2pchat, or the C program. What you type
goes to every neighbour; what a neighbour says is shown, and passed on to every other one. `:q` leaves.

What it leaves out, and where the real program does it:
  a line that goes around in a circle             Log.news, and Bridge among C programs
  a network that falls apart and mends itself     Overlay.fill, Network.closed
  what was said before somebody joined            Neighbour.take
  a neighbour that takes nothing, for ever        Patience.check
  half a header, which makes a C program deaf     Segmenter; towards one, this file is a gamble
  no descriptor left; a name service that is slow accept; Lookup
  a text that is too long for one frame           split_text, plain_texts
  an escape sequence in a name or a text          ui.clean_name, ui.clean_text
  signals; a goodbye that must arrive             Chat.take_signals, Chat.finished
  a screen; an output that nobody reads           ui.Screen, ui.Lines
"""

import os
import select
import socket
import struct
import sys
from typing import Any, Callable, Iterator

LENGTH = struct.Struct("<Q")  # before each frame: how long it is, in 8 bytes, little-endian
MAX_FRAME = 64 * 1024  # bytes: believe any length, and a stranger can fill our memory
GOODBYES = (b":q", b":quit")
MARK = b"\xff"  # ends what is shown of a name; p2pchat puts an identity behind it


class Link:
    """A connection to one neighbour, and what is unfinished in either direction."""

    def __init__(self, sock: socket.socket, connected: bool) -> None:
        sock.setblocking(False)  # from now on no call on this socket waits
        self.sock, self.connected = sock, connected
        self.received = bytearray()  # the start of a frame; the rest has not arrived yet
        self.name: "bytes | None" = None  # the first frame of a message; the second has not arrived yet
        self.unsent = bytearray()  # what the kernel has not taken yet
        self.lost = False

    def fileno(self) -> int:  # makes a link something that select can wait for
        return self.sock.fileno()

    def receive(self) -> Iterator[tuple[bytes, bytes]]:
        """Read once, and yield each message that is now complete, as (name, text)."""
        data = self.sock.recv(MAX_FRAME)
        if not data:
            raise ConnectionError("it closed the connection")
        self.received += data
        # A READ MAY BE PARTIAL: recv returns what is there, half a header or forty frames.
        while len(self.received) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self.received)
            if length > MAX_FRAME:
                raise ConnectionError(f"it announced a frame of {length} bytes")
            end = LENGTH.size + length
            if len(self.received) < end:
                return
            frame = bytes(self.received[LENGTH.size:end])
            del self.received[:end]
            if self.name is None:
                self.name = frame
            else:
                yield self.name, frame
                self.name = None

    def send(self) -> None:
        """select says writable: the dial is over, or the kernel has room again."""
        error = 0 if self.connected else self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        self.connected = True
        # A WRITE MAY BE PARTIAL: send returns how many bytes the kernel had room for. The rest waits for its turn.
        del self.unsent[:self.sock.send(self.unsent)]


class Chat:
    """One member: a listener, a link to each neighbour, and the loop that serves them all in one thread."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name.encode()
        self.listener = socket.create_server(("", port))
        self.links: list[Link] = []
        self.typed = b""  # the start of a line; its end has not been typed yet
        self.leaving = False
        print("SERVER:", self.listener.getsockname()[1], flush=True)

    def dial(self, host: str, port: str) -> None:
        """Begin to connect. A non-blocking connect fails with "in progress" even when all is well; see Link.send."""
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self.links.append(Link(socket.socket(family, kind), connected=False))
        self.links[-1].sock.connect_ex(address)

    def turn(self) -> None:
        """Wait until something can be done, and do it. Nothing else in this file waits."""
        reading: list[Any] = [self.listener, *self.links, *[sys.stdin] * (not self.leaving)]
        # Not all links: a socket is nearly always writable, so select would return at once, for ever.
        writing = [link for link in self.links if link.unsent or not link.connected]
        readable, writable, _ = select.select(reading, writing, [])
        for ready in readable:
            if ready is self.listener:
                self.links.append(Link(self.listener.accept()[0], connected=True))
            elif ready is sys.stdin:
                self.read_keyboard()
            else:
                self.guard(ready, self.relay)
        for link in [link for link in writable if not link.lost]:
            self.guard(link, Link.send)
        # Only now: the descriptor of a link that is closed earlier may be a newcomer's before the turn is over.
        for link in [link for link in self.links if link.lost]:
            self.links.remove(link)
            link.sock.close()

    def guard(self, link: Link, action: Callable[[Link], None]) -> None:
        """Whatever goes wrong with a link costs that link, and nothing else."""
        try:
            action(link)
        except OSError as error:
            print("lost a neighbour:", error, file=sys.stderr)
            link.lost = True

    def relay(self, source: Link) -> None:
        for name, text in source.receive():
            if text.partition(b"\0")[0] not in GOODBYES:  # the end of the connection follows by itself
                shown = name.partition(MARK)[0] + b": " + text
                print(shown.decode(errors="replace"), flush=True)
                self.say(name, text, source)

    def read_keyboard(self) -> None:
        data = os.read(0, MAX_FRAME) or b"\n:q\n"  # b"": the input has ended
        *lines, self.typed = (self.typed + data).split(b"\n")
        for line in filter(None, lines):
            self.say(self.name, line)
            self.leaving = self.leaving or line in GOODBYES

    def say(self, name: bytes, text: bytes, source: "Link | None" = None) -> None:
        message = b"".join(LENGTH.pack(len(frame)) + frame for frame in (name, text))
        for link in [link for link in self.links if link is not source]:
            link.unsent += message


if __name__ == "__main__":
    chat = Chat(sys.argv[1], int(sys.argv[2]))
    for peer in zip(sys.argv[3::2], sys.argv[4::2]):
        chat.dial(*peer)
    while not chat.leaving or any(link.unsent for link in chat.links):
        chat.turn()
