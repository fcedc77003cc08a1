"""Whole members for the tests: stepped in this process, or run as processes of their own, in line mode or on a pty."""

import contextlib
import fcntl
import gc
import os
import pty
import random
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, TOP)  # for what is started by hand: tests have conftest.py

import message  # noqa: E402
import p2pchat  # noqa: E402
import ui  # noqa: E402

BUILT = os.path.join(TOP, "p2pchat")
HUGE = [2049, 65536, 65537, 2 ** 31, 2 ** 32, 2 ** 63, 2 ** 64 - 1]  # lengths that no frame may have
REPAINT = b"\x1b[m\x1b[H"  # begins the screen's first frame of a new size
PATIENCE = 30  # seconds until a condition that should hold counts as failed: far longer than any needs on a busy machine


class Member:
    """A whole program in line mode whose loop the test turns; its stdin, stdout and stderr are pipes."""

    def __init__(self, name, bind="127.0.0.1"):
        self.stdin_far, self.stdout_far, self.stderr_far = -1, -1, -1
        read_in, self.stdin_far = os.pipe()
        self.stdout_far, write_out = os.pipe()
        self.stderr_far, write_err = os.pipe()
        self._ends = [read_in, write_out, write_err, self.stdin_far, self.stdout_far, self.stderr_far]
        self._seen = {self.stdout_far: b"", self.stderr_far: b""}
        self.chat = p2pchat.Chat(name.encode(), p2pchat.listen(bind, 0), ui.Lines(read_in, write_out, write_err))
        self.chat.open("join: ...")
        self.port = self.chat.port

    def join(self, port, host="127.0.0.1"):
        """Dial the member (or C peer) at this port; turn until `joined`."""
        self.contact = self.chat.network.join(f"{host} {port}", [(host, port)])

    @property
    def joined(self):
        return self.contact.reached

    def type(self, *lines):
        os.write(self.stdin_far, "".join(line + "\n" for line in lines).encode())

    def end_input(self):
        os.close(self.stdin_far)
        self._ends.remove(self.stdin_far)

    @property
    def out(self):
        """The chat lines on stdout so far, without the SERVER line."""
        return self._lines(self.stdout_far)[1:]

    @property
    def err(self):
        """The notices on stderr so far."""
        return self._lines(self.stderr_far)

    def _lines(self, descriptor):
        while select.select([descriptor], [], [], 0)[0]:
            data = os.read(descriptor, 1 << 20)
            if not data:
                break
            self._seen[descriptor] += data
        return self._seen[descriptor].decode().splitlines()

    def kill(self):
        """End as kill -9 would: no goodbye, the kernel closes the sockets."""
        self.chat.close()
        for descriptor in self._ends:
            try:
                os.close(descriptor)
            except OSError:
                pass
        self._ends = []


def turn(members, until, patience=PATIENCE):
    """Turn the loops of `members` until the condition holds."""
    give_up = time.monotonic() + patience
    while not until():
        for member in members:
            member.chat.step(0.001)
        if time.monotonic() > give_up:
            state = [(member.chat.network.name, member.out[-5:], member.err[-5:]) for member in members]
            raise AssertionError(f"waited {patience} s in vain; {state}")


def start(command, *arguments, env=None, pass_fds=(), before=None, **options):
    """Start `command`, or, where it is None, p2pchat in a fork of this process. Returns the Popen.

    The fork has imported what the built file would load from its zip: a start costs 10 ms of processor time, not
    300. For whoever looks from outside it is a process like any other. The built file itself is started by
    test_build.py, test_p2pchat.py, test_readme.py and whoever names it. `before` runs in the child.
    """
    def become():
        if before:
            before()
        if not command:
            be_program(arguments, env, pass_fds)

    arguments = [str(argument) for argument in arguments]
    env = {**os.environ, **(env or {})}
    return subprocess.Popen([*(command or [BUILT]), *arguments], env=env, pass_fds=pass_fds, preexec_fn=become,
                            restore_signals=bool(command), **options)  # Python, which we stay, ignores SIGPIPE


def be_program(arguments, env, pass_fds):
    """Go on as p2pchat in this child, and end with it: nothing of the parent's is left open, and nothing of its ends here."""
    status = 1
    try:
        gc.freeze()
        close_all_but(0, 1, 2, *pass_fds)
        os.environ.clear()
        os.environ.update(env)
        time.tzset()
        sys.argv = [BUILT, *arguments]
        sys.stdin, sys.stdout, sys.stderr = (open(number, mode, closefd=False) for number, mode in enumerate("rww"))
        status = exit_status(p2pchat.main)
        sys.stdout.flush()
    finally:
        os._exit(status)


def close_all_but(*kept):
    """Close all other descriptors of this process."""
    for descriptor in map(int, os.listdir("/dev/fd")):
        if descriptor not in kept:
            os.closerange(descriptor, descriptor + 1)  # the one of the listing itself is closed already


def limited(what, most):
    """For `before`: the program may have only so much of this resource."""
    def limit():
        close_all_but(0, 1, 2)  # ours may be more than it may have
        resource.setrlimit(what, (most, most))
    return limit


def exit_status(main):
    """What a Python process that runs `main` ends with, what it says at its end included."""
    try:
        main()
    except SystemExit as leaving:
        if not isinstance(leaving.code, str):
            return leaving.code or 0
        print(leaving.code, file=sys.stderr, flush=True)
        return 1
    except BaseException:
        sys.__excepthook__(*sys.exc_info())
        sys.stderr.flush()
        return 1
    return 0


class Program:
    """The program in line mode, as a process."""

    def __init__(self, *arguments, command=None, env=None, before=None):
        self.process = start(command, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             env={"TERM": "xterm", **(env or {})}, before=before)
        self._seen = {"stdout": b"", "stderr": b""}
        self.port = int(self.wait(lambda program: program.out)[0].split()[1])

    def type(self, *lines):
        self.process.stdin.write("".join(line + "\n" for line in lines).encode())
        self.process.stdin.flush()

    @property
    def out(self):
        return self._seen["stdout"].decode().splitlines()

    @property
    def err(self):
        return self._seen["stderr"].decode().splitlines()

    def wait(self, condition):
        """Read what it prints until condition(self) holds; returns its value."""
        give_up = time.monotonic() + PATIENCE
        streams = {getattr(self.process, name): name for name in self._seen}
        while not condition(self):
            ready = select.select(list(streams), [], [], 0.1)[0] if streams else []
            for stream in ready:
                data = os.read(stream.fileno(), 1 << 16)
                self._seen[streams[stream]] += data
                if not data:
                    del streams[stream]
            if time.monotonic() > give_up or not streams and not condition(self):
                raise AssertionError(f"in vain; {self.process.args}, {self.out[-10:]}, {self.err[-10:]}")
        return condition(self)

    def wait_alone(self):
        """Wait until :who says that nobody else is here: whoever left within two seconds of joining gets no notice."""
        asked = time.monotonic()
        self.type(":who")
        answers = len(self.err)

        def is_alone(program):
            nonlocal asked
            if any(re.search("(nobody else is|0) here", line) for line in program.err[answers:]):
                return True
            if time.monotonic() > asked + 0.1:
                asked = time.monotonic()
                program.type(":who")
            return False
        self.wait(is_alone)

    def end(self):
        """Close its stdin and wait for it to leave. Returns the exit status."""
        self.process.stdin.close()
        return self.process.wait(PATIENCE)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()


class Terminal:
    """A program on a pty of its own session, as a terminal window runs it; the screen is in `model`."""

    def __init__(self, *arguments, rows=24, cols=80, command=None, env=None, pass_fds=(), before=None, **redirected):
        import blessed  # noqa: F401  once here, not in every fork; the demo, started by hand, may lack it
        from screen import Model

        self.master, self.slave = pty.openpty()
        self._size(rows, cols)
        self.found = termios.tcgetattr(self.slave)
        self.model = Model(rows, cols)
        self.written = b""  # everything that came out
        self._before = before
        streams = {"stdin": self.slave, "stdout": self.slave, "stderr": self.slave, **redirected}
        self.process = start(command, *arguments, start_new_session=True, before=self._be_controlling,
                             env={"TERM": "xterm-256color", **(env or {})}, pass_fds=pass_fds, **streams)

    def _be_controlling(self):
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)
        if self._before:
            self._before()

    def _size(self, rows, cols):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    @property
    def rows(self):
        return [row.rstrip() for row in self.model.display]

    @property
    def said(self):
        """The rows without the times before messages."""
        return [re.sub(r"^(?:\d\d:\d\d |      )(?! )", "", row) for row in self.rows]

    @property
    def port(self):
        """The port on the first line, once it is there."""
        return int(self.wait(lambda t: re.match(r"SERVER: (\d+)", t.rows[0]))[1])

    @property
    def unread(self):
        """Bytes that were typed and are not yet read by the program."""
        return struct.unpack("i", fcntl.ioctl(self.slave, termios.FIONREAD, bytes(4)))[0]

    @property
    def restored(self):
        """Whether a shell would find the terminal as it was before the program."""
        return self.model.restored and termios.tcgetattr(self.slave) == self.found

    def wait(self, condition):
        """Show what comes out until condition(self) holds with no frame half drawn; returns its value."""
        give_up = time.monotonic() + PATIENCE
        while True:
            ended = self.process.poll() is not None
            self.look()
            value = not self.model.modes["synchronized"] and condition(self)
            if value:
                return value
            if ended or time.monotonic() > give_up:
                raise AssertionError(f"in vain; status {self.process.returncode}, the screen:\n" + "\n".join(self.rows))
            select.select([self.master], [], [], 0.01)

    def look(self):
        """Show what has come out."""
        data = self.read()
        while data:
            self.model.feed(data)
            data = self.read()

    def read(self):
        if not select.select([self.master], [], [], 0)[0]:
            return b""
        data = os.read(self.master, 1 << 16)
        self.written += data
        return data

    def shows(self, row):
        self.wait(lambda t: row in t.said)

    def type(self, data):
        while data:
            data = data[os.write(self.master, data[:1000]):]
            self.wait(lambda t: not t.unread)  # so that what comes next is, as a rule, a read of its own

    def resize(self, rows, cols):
        """Another size for program and model; what was on its way is still shown at the old one."""
        self.look()
        self._size(rows, cols)
        data, give_up = b"", time.monotonic() + PATIENCE
        while REPAINT not in data:
            assert time.monotonic() < give_up, "no repaint after a resize"
            select.select([self.master], [], [], 0.01)
            data += self.read()
        at = data.index(REPAINT)
        self.model.feed(data[:at])
        self.model.resize(rows, cols)
        self.model.feed(data[at:])

    def end(self):
        """Wait for the program to end. Returns its exit status."""
        self.wait(lambda t: t.process.poll() is not None)
        self.look()
        return self.process.returncode

    def hang_up(self):
        """As when a terminal window is closed."""
        os.close(self.master)
        os.close(self.slave)
        self.master = self.slave = None

    def close(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except OSError:
            pass
        self.process.kill()
        self.process.wait()
        if self.master is not None:
            self.hang_up()


def run(*arguments, stdin=b"", command=None, env=None):
    """The program to its end. Returns (status, stdout lines, stderr lines)."""
    with start(command, *arguments, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            out, err = process.communicate(stdin, timeout=PATIENCE)
        finally:
            process.kill()
    return process.returncode, out.decode().splitlines(), err.decode().splitlines()


def mutated(data, rng):
    """A stream as a broken or hostile program might send it: some bytes changed, lost, doubled, or the rest missing."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data) + 1)
        action = rng.randrange(6)
        if action == 0:
            data[at:at + 1] = bytes([rng.randrange(256)])
        elif action == 1:
            del data[at:at + rng.randint(1, 40)]
        elif action == 2:
            data[at:at] = rng.getrandbits(64).to_bytes(8, "little")
        elif action == 3:
            data[at:at] = data[max(at - 100, 0):at]
        elif action == 4:
            data[at:at + 8] = rng.choice(HUGE).to_bytes(8, "little")
        else:
            del data[at:]
        data = data or bytearray(b"\0")
    return bytes(data)


def encode_pair(name, text):
    """The bytes of one message on a plain link."""
    return message.encode_pair(name, text).data


def until(condition, seen=lambda: "", pause=0.01):
    """Wait for what nothing reports, with a pause (seconds) between two looks. Returns its value; fails with what was `seen`."""
    give_up = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < give_up, f"in vain\n{seen()}"
        time.sleep(pause)


@contextlib.contextmanager
def must_end():
    """What is done within may take its time, but a call that blocks for ever is a failure."""
    def give_up(number, frame):
        raise AssertionError(f"blocked for {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def unused_port():
    """A port on which nobody listens now, below those that Linux and macOS give out: so no other test gets it meanwhile."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def python(*arguments):
    """The command line of this very Python."""
    return (sys.executable, *arguments)
