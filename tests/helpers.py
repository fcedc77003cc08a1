"""Whole members for the tests: stepped in this process, or run as the built program."""

import os
import select
import socket
import subprocess
import sys
import time

import p2pchat
import peers
import ui

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILT = os.path.join(TOP, "p2pchat")
PATIENCE = 20  # seconds until a condition that should hold counts as failed: far longer than any needs


class Member:
    """A whole program in line mode whose loop the test turns; its stdin, stdout and stderr are pipes."""

    def __init__(self, name, bind="127.0.0.1"):
        self.stdin_far, self.stdout_far, self.stderr_far = -1, -1, -1
        read_in, self.stdin_far = os.pipe()
        self.stdout_far, write_out = os.pipe()
        self.stderr_far, write_err = os.pipe()
        self._ends = [read_in, write_out, write_err, self.stdin_far, self.stdout_far, self.stderr_far]
        self._seen = {self.stdout_far: b"", self.stderr_far: b""}
        self.chat = p2pchat.Chat(name.encode(), peers.listen(bind, 0), ui.Lines(read_in, write_out, write_err))
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


class Program:
    """The built program in line mode, as a process."""

    def __init__(self, *arguments, command=(BUILT,), env=None):
        self.process = subprocess.Popen([*command, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env={**os.environ, "TERM": "xterm", **(env or {})})
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


def run(*arguments, stdin=b"", command=(BUILT,), env=None):
    """The built program to its end. Returns (status, stdout lines, stderr lines)."""
    done = subprocess.run([*command, *map(str, arguments)], input=stdin, capture_output=True, timeout=PATIENCE,
                          env={**os.environ, **(env or {})})
    return done.returncode, done.stdout.decode().splitlines(), done.stderr.decode().splitlines()


def unused_port():
    """A port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def python(*arguments):
    """The command line of this very Python."""
    return (sys.executable, *arguments)
