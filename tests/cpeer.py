"""A stand-in for the C program's peer: its habits, one after another, and none of our own.

    bob = CPeer("bob")                      # listens at bob.port, runs in threads
    bob.connect("127.0.0.1", port)          # OSError if nobody is there
    bob.say(b"hello")                       # as if typed: returns at once, ":q" leaves
    bob.wait(lambda screen: "ann: hi" in screen)
    bob.garble(FRAMES)                      # its next two messages cross, as those of two threads do

As a program: `python3 tests/cpeer.py NAME [HOST PORT]`: `SERVER: <port>` and the lines it shows go to stdout, lines
typed come from stdin (whose end leaves, as `:q` does).

test_cpeer.py holds it against the real program, where there is one. Not imitated: the keyboard is not polled 100 times
a second, the listen queue holds more than one connection, a write to a neighbour that is gone does not kill it
(SIGPIPE), and an ERROR line has words of our own.
"""

import queue
import select
import socket
import struct
import sys
import threading

LENGTH = struct.Struct("<Q")                # size_t of every machine the C program runs on
MAX_FRAME = 2048
LEAVE = (b":q", b":quit")
TYPED = bytes(range(0x20, 0x7f))            # what its input takes; other keys do nothing

# Orders in which the four writes of one message (1) and those of another (2) may reach a connection.
FRAMES = "11222211"                         # whole frames: still pairs, but of the wrong names and texts
HEADERS = "12111222"                        # a length follows a length: the stream makes no sense any more


class Dead(Exception):
    """The whole process is gone; raised in every thread that waits."""


class CPeer:
    def __init__(self, name, host="0.0.0.0", rcvbuf=None, shown=None):
        """rcvbuf: SO_RCVBUF of all its links. shown: called with each line."""
        self.name = name.encode() if isinstance(name, str) else name
        self.screen = []                    # str, all that stands under `SERVER: <port>`
        self.links = []                     # sockets it relays to
        self._shown = shown
        self._sockets, self._threads = [], []       # those it forgot too: it never closes one
        self._write_locks = {}              # ours, not its habit: garbling is on demand, so that tests are repeatable
        self._crossing = {}                 # socket -> the order of the next two messages
        self._held = {}                     # socket -> the writes of the first of these
        self._display = threading.RLock()
        self._changed = threading.Condition(threading.RLock())
        self._keys = queue.SimpleQueue()
        self._reading = threading.Event()
        self._reading.set()
        self._dead = False
        self._alarm, self._ring = socket.socketpair()       # readable once dead: wakes whoever waits
        # Habit: IPv4 only, on a port that the system picks.
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._rcvbuf = rcvbuf
        if rcvbuf:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self._listener.bind((host, 0))
        self._listener.listen(128)
        self.port = self._listener.getsockname()[1]
        self._run(self._accept)
        self._run(self._keyboard)

    # -- what a test does --------------------------------------------------------------------------------------------

    def connect(self, host, port):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            if self._rcvbuf:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._rcvbuf)
            sock.connect((host, int(port)))
        except OSError:
            sock.close()
            raise
        self._add(sock)

    def say(self, text):
        """Type a line. It is sent by the one keyboard thread, which stands still while a neighbour does not read."""
        text = text.encode() if isinstance(text, str) else text
        # Habit: no limit but the input's three rows: on a wide terminal more than its own kind can read.
        text = bytes(byte for byte in text if byte in TYPED).rstrip(b" ")
        if text:
            self._keys.put(text)

    def garble(self, order=FRAMES):
        """On each connection that it has now, mix the writes of the next two messages in this order.

        The C program's threads write to one socket without a lock, so what two neighbours say at the same instant may
        reach a third like that. Here the first of the two waits for the second, whoever says it.
        """
        if sorted(order) != sorted(FRAMES):
            raise ValueError("an order has each of the two messages' four writes once")
        with self._changed:
            self._crossing = dict.fromkeys(self.links, order)

    def quit(self, timeout=10):
        """`:q`, and wait until it is gone. TimeoutError while it is frozen in a write: then only kill() helps."""
        self._keys.put(b":q")
        with self._changed:
            if not self._changed.wait_for(lambda: self._dead, timeout):
                raise TimeoutError("a neighbour that does not read keeps %r from leaving" % self.name)
        self._end()

    def kill(self, reset=False):
        """kill -9: no `:q`. Neighbours see EOF, or with `reset` ECONNRESET (SO_LINGER 0)."""
        self._end(reset)

    def wait(self, predicate, timeout=10):
        """Until predicate(screen) holds; tried anew at each line and at each link won or lost. Returns its value."""
        with self._changed:
            result = self._changed.wait_for(lambda: predicate(self.screen), timeout)
            if not result:
                raise AssertionError("%r waited %s s in vain; %d links, %d lines, the last: %r" % (
                    self.name, timeout, len(self.links), len(self.screen), self.screen[-20:]))
            return result

    def pause_reading(self):
        """Stuck: from here on it takes no connection, and nothing from any link (at most a read that has begun still ends)."""
        self._reading.clear()

    def resume_reading(self):
        self._reading.set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    # -- its threads -------------------------------------------------------------------------------------------------

    def _accept(self):
        while True:
            self._ready(self._listener, select.POLLIN)
            self._reading.wait()
            self._add(self._listener.accept()[0])

    def _converse(self, sock):
        """Habit: one thread per connection, which reads, shows and relays, and blocks in each of the three."""
        while True:
            name = self._read_frame(sock)
            if name is None:
                self._show(b"ERROR", b"no name came")
                break
            text = self._read_frame(sock)
            if text is None:                # Habit: it reads on; of a text that is too long the first
                self._show(b"ERROR", b"no text came")       # bytes are taken for the next length.
                continue
            if text in LEAVE:               # Habit: shows nothing, answers nothing, relays nothing.
                break
            self._show(name, text)
            self._send(name, text, but=sock)            # Habit: to all others, no look at what came before.
        self._forget(sock)

    def _keyboard(self):
        while True:
            text = self._keys.get()
            if self._dead:
                return
            with self._display:             # Habit: held until all is sent; a write that blocks stops the screen, too.
                if text not in LEAVE:
                    self._show(self.name, text)
                self._send(self.name, text)     # Habit: leaving is an ordinary message to each neighbour.
            if text in LEAVE:
                return self._end()

    # -- reading and writing -----------------------------------------------------------------------------------------

    def _read_frame(self, sock):
        """Habit: ONE read for the length. None: it was cut, or is more than allowed, or the stream ends."""
        header = self._read(sock, LENGTH.size)
        if len(header) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack(header)
        if length > MAX_FRAME:
            return None
        body = b""
        while len(body) < length:           # Habit: the body, by contrast, may come in pieces.
            piece = self._read(sock, length - len(body))
            if not piece:
                return None
            body += piece
        return body.split(b"\0")[0]         # Habit: a C string; nothing later sees what follows a NUL.

    def _read(self, sock, size):
        while True:
            self._reading.wait()
            self._ready(sock, select.POLLIN)
            if self._reading.is_set():
                try:
                    return sock.recv(size)
                except OSError:
                    return b""

    def _send(self, name, text, but=None):
        """Habit: header, body, header, body in four writes, with Nagle's algorithm on, to the newest link first."""
        with self._changed:
            links = [sock for sock in reversed(self.links) if sock is not but]
        writes = [LENGTH.pack(len(name)), name, LENGTH.pack(len(text)), text]
        for sock in links:
            with self._write_locks[sock]:
                try:
                    for data in self._crossed(sock, writes):
                        self._write(sock, data)
                except OSError:             # The reader of that link meets the same error, and reports it.
                    pass

    def _crossed(self, sock, writes):
        """What to write now: nothing, if this message is to be mixed with the next."""
        if sock not in self._crossing:
            return writes
        if sock not in self._held:
            self._held[sock] = writes
            return []
        turns = {"1": iter(self._held.pop(sock)), "2": iter(writes)}
        return [next(turns[which]) for which in self._crossing.pop(sock)]

    def _write(self, sock, data):
        """Habit: blocks while the neighbour does not read. (Waits in poll, not in send, so that kill() can end it.)"""
        while data:
            try:
                data = data[sock.send(data, socket.MSG_DONTWAIT):]
            except BlockingIOError:
                self._ready(sock, select.POLLOUT)

    def _ready(self, sock, event):
        poll = select.poll()
        poll.register(self._alarm, select.POLLIN)
        poll.register(sock, event)
        poll.poll()
        if self._dead:
            raise Dead

    # -- links, screen, end ------------------------------------------------------------------------------------------

    def _add(self, sock):
        with self._changed:
            if self._dead:
                sock.close()
                raise Dead
            self._sockets.append(sock)
            self._write_locks[sock] = threading.Lock()
            self.links.append(sock)
            self._changed.notify_all()
            self._run(self._converse, sock)

    def _forget(self, sock):
        """Habit: the link leaves the list, the socket stays open until the process ends."""
        with self._changed:
            self.links.remove(sock)
            self._changed.notify_all()

    def _show(self, name, text):
        """Habit: only printable ASCII reaches the screen (it is relayed unharmed)."""
        line = "".join(map(chr, (byte for byte in name + b": " + text if 32 <= byte < 127)))
        with self._display, self._changed:
            if self._dead:
                raise Dead
            self.screen.append(line)
            if self._shown:
                self._shown(line)
            self._changed.notify_all()

    def _run(self, target, *arguments):
        def body():
            try:
                target(*arguments)
            except Dead:
                pass
        thread = threading.Thread(target=body, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _end(self, reset=False):
        with self._changed:
            self._dead = True
            self._changed.notify_all()
        self._ring.close()                  # the alarm is readable for ever
        self._reading.set()
        self._keys.put(b"")
        # All threads must be out first: a socket that somebody waits on outlives its close().
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        for sock in [self._alarm, self._listener, *self._sockets]:
            if reset and sock in self._sockets and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()


def main(arguments):
    if len(arguments) not in (2, 4):
        sys.exit("Usage: %s <username> [<peer> <port number>]" % arguments[0])      # exit status 1
    peer = CPeer(arguments[1], shown=lambda line: print(line, flush=True))
    peer.pause_reading()                    # until SERVER is printed
    if len(arguments) == 4:
        try:
            peer.connect(arguments[2], int(arguments[3]))
        except OSError as error:
            sys.exit("Failed to connect: %s" % error.strerror)
    print("SERVER: %d" % peer.port, flush=True)
    peer.resume_reading()
    for line in sys.stdin.buffer:
        peer.say(line.rstrip(b"\n"))
        if line.rstrip(b"\n") in LEAVE:
            break
    peer.quit(timeout=None)                 # at the end of input; after a typed `:q` nobody reads this second one


if __name__ == "__main__":
    main(sys.argv)
