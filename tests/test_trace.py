"""--trace: a line about each turn, in a file that only its owner can read, which is never waited for."""

import contextlib
import inspect
import os
import re
import socket
import stat

import pytest

import p2pchat
from helpers import PATIENCE, Program, encode_pair, run, until

LINE = re.compile(r"\d\d:\d\d:\d\d\.\d{6} (\S+) waited [\d.]+ ms for \S.*; took [\d.]+ ms")


def start(stack, name, *arguments):
    return stack.enter_context(Program(name, *arguments, "--bind", "127.0.0.1", "--lines"))


def test_two_traces_side_by_side_tell_the_life_of_a_message(tmp_path):
    paths = tmp_path / "ann.trace", tmp_path / "bob.trace"
    paths[0].write_text("")
    paths[0].chmod(0o644)  # from an earlier run, perhaps
    with contextlib.ExitStack() as stack:
        ann = start(stack, "ann", "--trace", paths[0])
        bob = start(stack, "bob", "127.0.0.1", ann.port, "--trace", paths[1])
        bob.type("here I am")
        ann.wait(lambda program: "bob: here I am" in program.out)
        bob.type("hi")
        ann.wait(lambda program: "bob: hi" in program.out)
        eve = stack.enter_context(socket.create_connection(("127.0.0.1", ann.port), PATIENCE))
        eve.sendall(encode_pair(b"eve", b"\x1b]0;gotcha\x07"))
        ann.wait(lambda program: any(line.startswith("eve: ") for line in program.out))
        until(lambda: "gotcha" in paths[0].read_text() and 'bob: "hi"' in paths[1].read_text())
    lines = [path.read_text().splitlines() for path in paths]
    assert all(LINE.fullmatch(line) for line in sum(lines, [])), lines
    assert [{LINE.fullmatch(line)[1] for line in trace} for trace in lines] == [{"ann"}, {"bob"}]
    (said,) = [line for line in lines[1] if 'bob: "hi"' in line]
    size = re.search(r"waited .* for .*input.*; bob: \"hi\".*; sent (\d+) to ann; took", said)[1]  # with what else came just then
    (heard,) = [line for line in lines[0] if '; bob: "hi"' in line]
    assert f"; read {size} from bob; log +" in heard
    assert "\x1b" not in paths[0].read_text() and 'eve: "\ufffd]0;gotcha\ufffd"' in paths[0].read_text()
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o600, 0o600]


def test_what_was_left_over_of_a_send_is_in_the_trace(tmp_path):
    path = tmp_path / "trace"
    with contextlib.ExitStack() as stack:
        ann = start(stack, "ann", "--trace", path)
        deaf = stack.enter_context(socket.create_connection(("127.0.0.1", ann.port), PATIENCE))
        deaf.sendall(encode_pair(b"eve", b"I only talk"))
        ann.wait(lambda program: "eve: I only talk" in program.out)
        ann.type(*["x" * 30_000] * 200)
        until(lambda: re.search(r"; \d+ left for eve", path.read_text()))


@pytest.mark.parametrize("where", ["a full disk", "a pipe that nobody empties"])
def test_a_trace_that_takes_no_more_ends_with_one_notice_and_the_chat_goes_on(where, tmp_path):
    if where == "a full disk" and not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    path = "/dev/full" if where == "a full disk" else str(tmp_path / "pipe")
    with contextlib.ExitStack() as stack:
        if path != "/dev/full":
            full_pipe(stack, path)
        ann = start(stack, "ann", "--trace", path)
        bob = start(stack, "bob", "127.0.0.1", ann.port)
        ann.wait(lambda program: any("the trace has ended" in line for line in program.err))
        bob.type("hi")
        ann.wait(lambda program: "bob: hi" in program.out)
        ended = [line for line in ann.err if "trace" in line]
        reason = "No space left on device" if path == "/dev/full" else "Resource temporarily unavailable"
        assert ended == [f"-- the trace has ended: cannot write to {path} ({reason})"]


def full_pipe(stack, path):
    """A named pipe with a reader that reads nothing, and no room."""
    os.mkfifo(path)
    for flags in os.O_RDONLY, os.O_WRONLY:
        end = os.open(path, flags | os.O_NONBLOCK)
        stack.callback(os.close, end)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(end, bytes(4096))


def test_a_file_that_cannot_be_written_is_refused_in_a_sentence(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, reason in ("pipe", "nobody reads it"), (".", "Is a directory"), ("none/trace", "No such file or directory"):
        path = os.path.join(str(tmp_path), name)
        assert run("ann", "--lines", "--trace", path) == (
            1, [], [f"p2pchat: cannot write a trace to {path} ({reason}); choose another file, or omit --trace"])


def test_a_loop_that_is_not_traced_has_nothing_of_it():
    for untraced in p2pchat.Chat, p2pchat.Link, p2pchat.Poll:
        assert "trace" not in inspect.getsource(untraced).lower()
