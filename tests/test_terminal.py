"""The program at a terminal: real processes, each on a pty, its output through the strict model of a screen."""

import os
import re
import select
import signal
import socket
import subprocess
import termios
import time

import blessed
import pytest

import p2pchat
import ui
from helpers import PATIENCE, Program, Terminal, close_all_but, encode_pair, unused_port, until

MORNING = f"XXX{(int(time.time()) // 3600 - 8) % 24}"  # a time zone in which it is some minutes past eight: no midnight comes between
UP, DOWN, PAGE_UP, PAGE_DOWN = b"\x1b[A", b"\x1b[B", b"\x1b[5~", b"\x1b[6~"
PASTE_BEGIN, PASTE_END = b"\x1b[200~", b"\x1b[201~"


def be_shell(orders, reports, background):
    """What a shell does for Ctrl-Z, fg, bg and kill: a session leader that waits, and hands the terminal around.

    Returns in the job, which goes on as the program; the shell ends here.
    """
    os.tcsetpgrp(0, os.getpgrp())
    job = os.fork()
    if not job:
        os.setpgid(0, 0)
        if not background:
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.tcsetpgrp(0, os.getpid())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        return
    try:
        close_all_but(0, 1, 2, orders, reports)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        obey(job, orders, reports, background)
    finally:
        os._exit(0)


def obey(job, orders, reports, background):
    if background == 2:
        os.read(orders, 10)
        os.tcsetpgrp(0, job)
    while True:
        _, status = os.waitpid(job, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            os.write(reports, b"ended %d\n" % os.WEXITSTATUS(status) if os.WIFEXITED(status) else b"killed\n")
            return
        os.tcsetpgrp(0, os.getpgrp())
        os.write(reports, b"stopped\n")
        order = os.read(orders, 10)
        if order == b"fg":
            os.tcsetpgrp(0, job)
        if order == b"kill":
            os.killpg(job, signal.SIGTERM)
        os.killpg(job, signal.SIGCONT)


class Shell(Terminal):
    """The program as the job of a shell; `order` answers a report of it."""

    def __init__(self, *arguments, background=0, **options):
        """background: 0, the job begins in the foreground; 1, it does not; 2, the first order is to bring it there as it runs."""
        (ordered, self._orders), (self._reports, reported) = os.pipe(), os.pipe()
        self._ends = ordered, reported, int(background)
        super().__init__(*arguments, **options)
        os.close(ordered)
        os.close(reported)

    def _be_controlling(self):
        super()._be_controlling()
        be_shell(*self._ends)

    def report(self):
        """The next thing that happened to the job."""
        self.wait(lambda t: select.select([t._reports], [], [], 0)[0])
        self.look()
        return os.read(self._reports, 100).decode()

    def order(self, what):
        os.write(self._orders, what)

    def close(self):
        super().close()
        os.close(self._orders)
        os.close(self._reports)


@pytest.fixture
def started():
    """started(Terminal, "ann", ...) starts a program; all are ended after the test."""
    running = []

    def start(kind, *arguments, **options):
        running.append(kind(*arguments, **{**options, "env": {"TZ": MORNING, **options.get("env", {})}}))
        return running[-1]

    yield start
    for one in running:
        one.close() if isinstance(one, Terminal) else one.__exit__()


@pytest.fixture
def pair(started):
    """Two members, ann in a large and bob in a small terminal, linked."""
    ann = started(Terminal, "ann")
    bob = started(Terminal, "bob", "127.0.0.1", ann.port, rows=12, cols=40)
    ann.shows("-- bob joined")
    bob.wait(lambda t: t.said[1].startswith("-- connected to 127.0.0.1"))
    return ann, bob


@pytest.fixture
def watched(started):
    """ann at a terminal, and the hub in line mode that sees what becomes of her."""
    hub = started(Program, "hub")
    ann = started(Terminal, "ann", "127.0.0.1", hub.port)
    ann.wait(lambda t: t.said[1].startswith("-- connected to 127.0.0.1"))
    return ann, hub


# The chat ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("any_day")
def test_two_members_chat_on_two_screens(pair):
    ann, bob = pair
    ann.type(b"hello bob\r")
    bob.shows("ann: hello bob")
    bob.type(b"hello ann\r")
    for one in pair:
        one.shows("bob: hello ann")
    linked = f"-- connected to 127.0.0.1 {ann.port}"
    assert bob.rows[0].startswith("SERVER: ") and len(bob.rows[0]) <= 40
    assert bob.rows[1:] == [linked, "ann: hello bob", "bob: hello ann", "", "", "", "", "---- bob " + "-" * 31, "", "", ""]
    assert bob.model.cursor == (9, 0) and bob.model.modes["cursor"]
    assert ann.rows[0].startswith(f"SERVER: {ann.port}  here: bob  join: ./p2pchat NAME ")
    assert ann.said[1:4] == ["-- bob joined", "ann: hello bob", "bob: hello ann"]
    assert all(re.match(r"\d\d:\d\d ", row) for row in ann.rows[1:4])
    assert ann.rows[20:] == ["---- ann " + "-" * 71, "", "", ""]


def test_wide_characters_and_graphemes_in_names_and_texts_and_input(started):
    ann = started(Terminal, "阿明")
    bob = started(Terminal, "bob", "127.0.0.1", ann.port)
    ann.shows("-- bob joined")
    ann.type("日本語 e\u0301 👍🏽 ไทย".encode())
    ann.wait(lambda t: t.rows[21] == "日本語 e\u0301 👍🏽 ไทย")
    ann.type(b"\x7f\x7f\x7f\x7f\r")  # "ไทย" and the blank
    bob.shows("阿明: 日本語 e\u0301 👍🏽")
    ann.shows("阿明: 日本語 e\u0301 👍🏽")


@pytest.mark.parametrize("size", [7, 1], ids="{} bytes at once".format)
def test_a_paste_is_one_message_in_whatever_pieces_it_comes(watched, size):
    ann, hub = watched
    paste = PASTE_BEGIN + "één\rzwei\nтри\r\nfour".encode() + PASTE_END
    for piece in re.findall(rb"(?s)\x1b..|[^\x1b]{1,%d}" % size, paste):  # Escape or Alt-[, alone for long, means something else
        ann.type(piece)
    ann.wait(lambda t: t.rows[21:] == ["zwei", "три", "four"])
    ann.type(b"\r")
    hub.wait(lambda program: program.out[1:] == ["ann: één", "    zwei", "    три", "    four"])
    ann.wait(lambda t: t.rows[2][6:] == "ann: één" and t.rows[3:6] == [" " * 10 + text for text in ("zwei", "три", "four")])


def test_a_key_that_comes_in_pieces_is_that_key(started):
    ann = started(Terminal, "ann")
    ann.wait(lambda t: t.rows[20].startswith("---- ann --"))
    ann.type(b"said before\r")
    for _ in range(100):
        begun = time.monotonic()
        for piece in (UP[:1], UP[1:2], UP[2:]):
            ann.type(piece)
        if time.monotonic() < begun + ui.ESC_SECONDS:
            break  # else this machine was too slow: what a person does not mean as one key
        ann.type(DOWN + b"\x15")
    ann.wait(lambda t: t.rows[21] == "said before")


def test_keys_edit_and_recall(watched):
    ann, hub = watched
    ann.type(b"ac\x1b[Db\x01>\x05<\r" + UP + b"\x7f!\x1b[99~\r")
    hub.wait(lambda program: program.out[1:] == ["ann: >abc<", "ann: >abc!"])


def test_keys_in_every_form_a_terminal_sends_them(watched):
    ann, hub = watched
    ann.type(b"ac\x1b[1;2Db\x1bOd>\x1b[1;129C\x1b[1;1:1C\x1b[97;1u\x1bOq\x1b[27;5;97~<\x1b[99;1:3u\x1b[M!!!\x1bOM")
    hub.wait(lambda program: program.out[1:] == ["ann: <>aba1c"] or len(program.out) > 1)
    ann.type(b"one\x1b[13;2utwo\x1b[27;2;13~three\x1b\rfour\x1b")
    ann.wait(lambda t: t.rows[23] == "four")
    ann.type(b"\x1b[?62;1;")
    ann.type(b"22c")
    ann.type(b"\x1b[1114112u\x1b[99999999999999999999u!\n")
    hub.wait(lambda program: program.out[2:] == ["ann: one", "    two", "    three", "    four!"])
    assert hub.out[1] == "ann: <>aba1c"


def test_alone_it_says_once_that_nobody_hears(started):
    ann = started(Terminal, "ann")
    ann.type(b"one\r")
    ann.shows("ann: one")
    ann.type(b"two\r")
    ann.wait(lambda t: t.said[1:5] == ["ann: one", "-- nobody else is here yet; what you say is delivered to whoever joins", "ann: two", ""])
    assert ann.rows[0].startswith(f"SERVER: {ann.port}  nobody connected  join: ")
    bob = started(Program, "bob", "127.0.0.1", ann.port)
    ann.wait(lambda t: t.rows[0].startswith(f"SERVER: {ann.port}  here: bob"))
    bob.kill()
    ann.wait(lambda t: "nobody connected" in t.rows[0])
    ann.shows("-- nobody is connected; what you say is kept and delivered when somebody")


def test_page_up_holds_its_place_while_messages_arrive(started):
    ann = started(Terminal, "ann", rows=12, cols=60)
    bob = started(Program, "bob", "127.0.0.1", ann.port)
    bob.type(*(f"line {n}" for n in range(30)))
    ann.shows("bob: line 29")
    ann.type(PAGE_UP)
    ann.wait(lambda t: "scrolled up" in t.rows[8])
    held = ann.said[1:8]
    bob.type("line 30", "line 31")
    ann.wait(lambda t: " 2 new; " in t.rows[8])
    assert ann.said[1:8] == held and "bob: line 26" in held
    ann.type(PAGE_DOWN * 2)
    ann.wait(lambda t: t.said[7] == "bob: line 31" and t.rows[8] == "---- ann " + "-" * 51)


@pytest.mark.usefixtures("any_day")
def test_every_size_is_drawn_and_the_first_comes_back_whole(pair):
    ann, bob = pair
    bob.type(b"hello\r" + b"typed")
    ann.shows("bob: hello")
    bob.wait(lambda t: t.rows[9] == "typed")
    before = bob.rows
    for rows, cols in [(1, 1), (2, 2), (3, 500), (100, 500), (1, 80), (5, 3), (50, 9), (12, 40)]:
        bob.resize(rows, cols)
        ann.type(b".")
    bob.wait(lambda t: t.rows == before)
    ann.type(b"\r")
    bob.shows("ann: " + "." * 8)


def test_many_sizes_at_once_end_with_the_last(pair):
    ann, bob = pair
    ann.type(b"hello\r")
    bob.shows("ann: hello")
    for n in range(300):
        bob._size(1 + n % 12, 1 + n * 7 % 40)
    bob._size(12, 40)
    bob.type(b"typed\x0c")
    bob.wait(lambda t: t.rows[2] == "ann: hello" and t.rows[8].startswith("---- bob --") and t.rows[9] == "typed")


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "vt100"}, {"TERM": "nonsense"}],
                         ids=lambda env: "{}={}".format(*next(iter(env.items()))))
def test_names_are_bold_without_colour_and_on_any_terminal(started, env):
    ann = started(Terminal, "ann", env=env)
    ann.model.feed = feed_shift_in(ann.model.feed)
    ann.wait(lambda t: t.rows[20].startswith("---- ann --"))
    ann.type(b"x\r")  # the first frame is plain, but keys are read once blessed is loaded
    ann.shows("ann: x")
    assert b"\x1b[1mann" in ann.written or env == {"TERM": "nonsense"}
    alone = "-- nobody else is here yet; what you say is delivered to whoever joins"
    ann.wait(lambda t: [row for row in t.said[1:] if row] == ["ann: x", alone, "---- ann " + "-" * 71])
    ann.type(b":q\r")
    assert ann.end() == 0 and ann.restored


def feed_shift_in(feed):
    """SI: what older terminals need after bold, and a model of a modern one need not know."""
    return lambda data: feed(data.replace(b"\x0f", b""))


# Ways out ---------------------------------------------------------------------------------------------


WAYS_OUT = {"ctrl-c": b"\x03", "ctrl-d": b"\x04", "q": b":q\r", "quit": b":quit\r", "half": b"half a line\x03\x03"}


def test_leaving_restores_the_terminal_and_says_goodbye(started):
    hub = started(Program, "hub")
    leaving = {name: started(Terminal, name, "127.0.0.1", hub.port) for name in WAYS_OUT}  # together: it saves time
    for name, one in leaving.items():
        one.wait(lambda t: t.said[1].startswith("-- connected to 127.0.0.1"))
        one.type(b"last words\r" + WAYS_OUT[name])
    for name, one in leaving.items():
        assert one.end() == 0 and one.restored, name
        assert one.rows[0] == f"rejoin with: ./p2pchat {name} 127.0.0.1 {hub.port}" and not any(one.rows[1:])
        hub.wait(lambda program: f"{name}: last words" in program.out)
        hub.wait_alone()


def test_a_typo_stays_in_the_input_and_is_not_sent(watched):
    ann, hub = watched
    ann.type(b":)\r :q\r:P\r:hlep me\r")
    ann.wait(lambda t: "-- :hlep is not a command; did you mean :help? (to say it anyway, begin" in "\n".join(t.rows))
    assert ann.rows[21] == ":hlep me"
    ann.type(b"\x01:\r:quit now\r")
    ann.wait(lambda t: t.rows[21] == ":quit now")
    assert hub.wait(lambda program: len(program.out) == 5 and program.out[1:]) == ["ann: :)", "ann:  :q", "ann: :P", "ann: :hlep me"]


HELP = """\
-- Anything you type is sent to everyone, except these commands:
:help [keys]          show this help, or the keys
:who                  list who is here
:links                list your direct connections
:connect HOST PORT    connect to another member and their network
:rooms                list the rooms nearby (--lan)
:find TEXT            latest message with TEXT; :find again for older
:time                 show or hide the times of messages
:bell off|mention|all ring never, on mentions, or on every message
:ignore NAME          hide what NAME says
:unignore NAME        show it again
:clear                clear the screen
:save FILE            save messages to FILE; :save! overwrites
:quit                 quit (or :q)
:help keys lists the keys"""


def test_help_is_one_screen_and_every_command_works(watched, tmp_path):
    ann, hub = watched
    ann.type(b":help\r")
    ann.wait(lambda t: ":help keys lists" in "\n".join(t.rows))
    assert HELP in "\n".join(row[10:] if row[:6].isspace() else row[6:] for row in ann.rows[1:20])
    ann.type(b":cl\t\r:help keys\r")
    ann.wait(lambda t: "Ctrl-T" in "\n".join(t.rows) and "Enter         send" in "\n".join(t.rows))
    ann.type(b"/clear\r")
    ann.wait(lambda t: not any(t.rows[1:20]))
    usage = "-- usage: :bell off|mention|all"
    ann.type(b"one\r:who\r:bell\r:bell all\r:bell all the time\r:find one\r:save\r:save!\r")
    ann.wait(lambda t: t.said[1:9] == ["ann: one", "-- 1 other here: hub", usage, "-- bell: all", usage, "-- usage: :save FILE", "-- usage: :save FILE", ""])
    ann.type(b":time\r")
    ann.wait(lambda t: t.rows[1:3] == ["ann: one", "-- 1 other here: hub"])
    ann.type(b":clear\r:find\r/time\r")
    file = tmp_path / "saved"
    ann.type(f"two\r:save {file}\r".encode())
    ann.wait(lambda t: "saved to" in t.rows[3])
    assert file.stat().st_mode & 0o777 == 0o600 and " ann: two\n" in file.read_text()
    ann.type(f":save {file}\r".encode())
    ann.wait(lambda t: "overwrites it" in "".join(t.rows))
    ann.type(f":save! {file}\r".encode())
    ann.wait(lambda t: "".join(t.rows).count("saved to") == 2)
    assert "overwrites it" in file.read_text()
    ann.type(b":clear\r:save! /dev/null\r")
    ann.wait(lambda t: "can't save to /dev/null: it is not a regular file" in "".join(t.rows))
    ann.type(b":save it\x15::wave\r:q\r")
    assert ann.end() == 0 and ann.restored
    assert hub.wait(lambda program: len(program.out) == 4 and program.out[1:]) == ["ann: one", "ann: two", "ann: :wave"]


@pytest.mark.parametrize("rows, cols", [(15, 60), (24, 80), (13, 40), (50, 140)])
def test_help_shows_its_beginning_on_every_screen(started, rows, cols):
    ann = started(Terminal, "ann", rows=rows, cols=cols)
    ann.type(b":help\r")
    ann.wait(lambda t: t.said[1].startswith("-- Anything") and any(":quit" in row for row in t.rows))
    whole = "\n".join(ann.rows)
    assert ":quit" in whole and (":help keys lists" in whole) == (rows < 50), "all commands are in view"
    assert (":find again for older" in whole) == (rows > 15) and ("Ctrl-T        swap" in whole) == (rows == 50)


def test_commands_of_the_screen_are_answered_in_line_mode(started):
    bob = started(Program, "bob")
    bob.type(":help", ":find x", ":save! x", ":time", ":who")
    bob.wait(lambda program: program.err and program.err[-1] == "-- nobody else is here")
    assert [row for row in bob.err if "line mode" in row] == [f"-- {word} works on the screen only, not in line mode"
                                                              for word in (":find", ":save!", ":time")]
    assert "    :who                  list who is here" in bob.err and not any("Ctrl" in row for row in bob.err)


@pytest.mark.usefixtures("any_day")
def test_a_latecomer_sees_where_the_earlier_messages_end(started):
    hub = started(Program, "hub")
    ann = started(Program, "ann", "127.0.0.1", hub.port)
    ann.wait(lambda program: program.err)
    ann.type("before")
    hub.wait(lambda program: "ann: before" in program.out)
    bob = started(Terminal, "bob", "127.0.0.1", hub.port)
    bob.wait(lambda t: re.fullmatch(r"\d\d:\d\d ann: before", t.rows[2]))
    bob.wait(lambda t: "here: hub, ann" in t.rows[0] or "here: ann, hub" in t.rows[0])
    hub.type("now")
    bob.wait(lambda t: t.said[3:6] == ["-- earlier messages end here", "hub: now", ""])


def test_a_mention_and_what_came_meanwhile_reach_the_window(watched):
    ann, hub = watched
    ann.type(b"\x1b[Odraft")
    ann.wait(lambda t: any(row.rstrip() == "draft" for row in t.rows))  # so that the focus is left before hub speaks
    hub.type("hello", "Ann, are you there?")
    ann.wait(lambda t: t.model.title == f"p2pchat ann {ann.port} (2 unread)")
    ann.wait(lambda t: t.said[2:5] == ["-- new messages", "hub: hello", "hub: Ann, are you there?"])
    assert ann.model.bells == 1 and ann.model.notifications == ["p2pchat: hub mentioned you"]
    ann.type(b"\x1b[I")
    ann.wait(lambda t: t.model.title == f"p2pchat ann {ann.port}")
    ann.type(b"\x03\x03")
    assert ann.end() == 0 and ann.restored


def test_a_signal_restores_the_terminal_and_says_goodbye(started):
    hub = started(Program, "hub")
    numbers = signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT
    leaving = {number: started(Terminal, f"n{number:d}", "127.0.0.1", hub.port) for number in numbers}
    for number, one in leaving.items():
        one.wait(lambda t: t.said[1].startswith("-- connected to 127.0.0.1"))
        one.process.send_signal(number)
    for number, one in leaving.items():
        assert one.end() == 128 + number and one.restored, number
        assert one.rows[0] == f"rejoin with: ./p2pchat n{number:d} 127.0.0.1 {hub.port}"
        hub.wait_alone()


def test_a_hang_up_of_the_terminal_ends_the_program_with_a_goodbye(watched):
    ann, hub = watched
    # A hang-up sends SIGCONT too: taking the terminal back failed, and the program ended without its goodbye.
    ann.type(b"last words\r")
    ann.shows("ann: last words")
    ann.process.send_signal(signal.SIGSTOP)  # so that the signals and the end of the input are met in one turn
    assert os.WIFSTOPPED(os.waitpid(ann.process.pid, os.WUNTRACED)[1])
    ann.hang_up()
    assert ann.process.wait(PATIENCE) in (0, 128 + signal.SIGHUP)
    hub.wait(lambda program: program.out[1:] == ["ann: last words"])
    hub.wait_alone()


def test_an_exception_restores_the_terminal_and_then_shows_its_traceback(started):
    def fail(*_):
        raise RuntimeError("provoked")

    ann = started(Terminal, "ann", rows=40, cols=200, env={"PYTHON_COLORS": "0"}, before=lambda: setattr(p2pchat.Chat, "_show", fail))
    ann.wait(lambda t: t.rows[36].startswith("---- ann --"))
    ann.type(b"x\r")
    assert ann.end() == 1 and ann.restored
    ann.wait(lambda t: "RuntimeError: provoked" in t.rows and "Traceback (most recent call last):" in t.rows)


# Job control ------------------------------------------------------------------------------------------


def test_ctrl_z_stops_with_the_terminal_restored_and_fg_brings_the_screen_back(started):
    ann = started(Shell, "ann")
    bob = started(Program, "bob", "127.0.0.1", ann.port)
    ann.type(b"half")
    ann.wait(lambda t: t.rows[21] == "half")
    for text in ("one", "two"):
        ann.type(b"\x1a")
        assert ann.report() == "stopped\n"
        assert ann.restored and not ann.rows[0].startswith("SERVER")
        os.write(ann.slave, b"$ fg\r\n")
        bob.type(text)
        ann.order(b"fg")
        ann.shows(f"bob: {text}")
        assert "$ fg" not in ann.rows and ann.rows[21] == "half" and ann.rows[0].startswith("SERVER")
    ann.type(b" a line\r")
    bob.wait(lambda program: "ann: half a line" in program.out)
    ann.type(b"\x03")
    assert ann.report() == "ended 0\n" and ann.restored


def test_a_job_started_in_the_background_waits_for_fg(started):
    # It ended with a traceback: SIGCONT interrupted the system call that the terminal's stop had begun (EINTR).
    ann = started(Shell, "ann", background=True)
    assert ann.report() == "stopped\n"
    ann.order(b"fg")
    ann.wait(lambda t: t.rows[0].startswith("SERVER") and t.rows[20].startswith("---- ann --"))
    ann.type(b"\x03")
    assert ann.report() == "ended 0\n" and ann.restored


def test_bg_stops_again_and_fg_still_works(started):
    ann = started(Shell, "ann")
    ann.wait(lambda t: t.rows[20].startswith("---- ann --"))
    ann.type(b"\x1a")
    for order in (b"bg", b"bg", b"fg"):
        assert ann.report() == "stopped\n" and ann.restored
        ann.order(order)
    ann.wait(lambda t: t.rows[20].startswith("---- ann --"))
    ann.type(b"typed")
    ann.wait(lambda t: t.rows[21] == "typed")
    ann.type(b"\x03\x03")
    assert ann.report() == "ended 0\n" and ann.restored


@pytest.mark.parametrize("how", ["Ctrl-Z", "Ctrl-Z and bg", "SIGSTOP"])
def test_a_stopped_job_can_be_killed(started, how):
    # It stopped once more instead (SIGTTOU), with its goodbye unsaid: `kill %1` is TERM, then CONT.
    ann = started(Shell, "ann")
    bob = started(Program, "bob", "127.0.0.1", ann.port)
    bob.type("hello")
    ann.shows("bob: hello")
    if how == "SIGSTOP":
        os.kill(os.tcgetpgrp(ann.master), signal.SIGSTOP)
    else:
        ann.type(b"\x1a")
    assert ann.report() == "stopped\n"
    if how == "Ctrl-Z and bg":
        ann.order(b"bg")
        assert ann.report() == "stopped\n"
    ann.order(b"kill")
    assert ann.report() == "ended 143\n"
    bob.wait_alone()


def test_stopped_and_continued_from_outside_it_repaints(pair):
    ann, bob = pair
    bob.process.send_signal(signal.SIGSTOP)
    assert os.WIFSTOPPED(os.waitpid(bob.process.pid, os.WUNTRACED)[1])
    os.write(bob.slave, b"\x1b[3;1Hsomething of the shell")
    bob.shows("something of the shell")
    termios.tcsetattr(bob.slave, termios.TCSANOW, bob.found)  # what a shell does
    ann.type(b"meanwhile\r")
    ann.shows("ann: meanwhile")
    bob.process.send_signal(signal.SIGCONT)
    bob.wait(lambda t: t.rows[2] == "ann: meanwhile" and t.rows[8].startswith("---- bob --"))
    bob.type(b"typed")
    bob.wait(lambda t: t.rows[9] == "typed")
    bob.type(b"\x03\x03")
    assert bob.end() == 0 and bob.restored


def test_ctrl_z_without_a_shell_to_wake_it_does_nothing(started):
    ann = started(Terminal, "ann")
    ann.wait(lambda t: t.rows[20].startswith("---- ann --"))
    ann.type(b"\x1atyped")
    ann.wait(lambda t: t.rows[21] == "typed" and t.model.modes["alternate"])


# Terminals that misbehave, and none at all -----------------------------------------------------------------


def test_a_terminal_that_stops_reading_delays_neither_the_network_nor_the_end(started):
    ann = started(Program, "ann")
    bob = started(Terminal, "bob", "127.0.0.1", ann.port, rows=200, cols=400)
    eve = started(Program, "eve", "127.0.0.1", bob.port)
    eve.type("here")
    ann.wait(lambda program: "eve: here" in program.out)
    ann.type(*[f"{n} " + "x" * 1990 for n in range(100)], "all")  # a frame of 80 KB: no pty holds it
    eve.wait(lambda program: program.out[-1] == "ann: all")
    eve.type("answer")
    ann.wait(lambda program: "eve: answer" in program.out)
    ann.type("once more")
    eve.wait(lambda program: program.out[-1] == "ann: once more")
    bob.process.send_signal(signal.SIGTERM)
    assert bob.process.wait(PATIENCE) == 128 + signal.SIGTERM
    assert termios.tcgetattr(bob.slave) == bob.found
    eve.wait(lambda program: "-- bob left" in program.err)
    bob.look()  # a frame that was cut in the middle does not trap the shell either


def test_line_mode_at_a_terminal_that_stops_reading_delays_nobody(started):
    # A write could block though poll had called the terminal writable, and then SIGTERM did nothing either.
    ann = started(Program, "ann")
    bob = started(Terminal, "bob", "127.0.0.1", ann.port, "--lines")
    eve = started(Program, "eve", "127.0.0.1", bob.wait(lambda t: re.fullmatch(r"SERVER: (\d+)", t.rows[0]))[1])
    eve.type("here")
    ann.wait(lambda program: "eve: here" in program.out)
    ann.type(*["x" * 100] * 3000, "all")  # no pty holds that
    eve.wait(lambda program: program.out[-1] == "ann: all")
    bob.process.send_signal(signal.SIGTERM)
    assert bob.process.wait(PATIENCE) == 128 + signal.SIGTERM


def test_line_mode_in_the_background_leaves_the_terminal_alone_until_it_is_ours(started, tmp_path):
    # SIGTTIN stopped `./p2pchat log HOST PORT > chat.log &` at the next key that its user typed for the shell.
    hub = started(Program, "hub")
    with open(tmp_path / "log", "wb") as log:
        bob = started(Shell, "bob", "127.0.0.1", hub.port, "--lines", background=2, stdout=log)
    hub.wait(lambda program: "-- bob joined" in program.err)
    os.write(bob.master, b"for the shell\n")
    hub.type("still there?")
    until(lambda: b"hub: still there?\n" in (tmp_path / "log").read_bytes())
    assert not select.select([bob._reports], [], [], 0)[0] and len(hub.out) == 1
    bob.order(b"fg")
    hub.wait(lambda program: "bob: for the shell" in program.out)
    os.write(bob.master, b"and now\n:q\n")
    hub.wait(lambda program: "bob: and now" in program.out)
    hub.wait_alone()
    assert bob.report() == "ended 0\n"


LINE_MODES = {
    "TERM=dumb": {"env": {"TERM": "dumb"}},
    "TERM empty": {"env": {"TERM": ""}},
    "--lines": {},
    "stdin no terminal": {"stdin": subprocess.PIPE},
}


@pytest.mark.parametrize("case", LINE_MODES)
def test_line_mode_writes_no_escape_sequence_and_leaves_the_terminal_alone(started, case):
    hub = started(Program, "hub")
    bob = started(Terminal, "bob", "127.0.0.1", hub.port, *["--lines"] * (case == "--lines"), **LINE_MODES[case])
    bob.wait(lambda t: re.fullmatch(r"SERVER: \d+", t.rows[0]))
    with socket.create_connection(("127.0.0.1", hub.port)) as stranger:
        stranger.sendall(encode_pair(b"eve", b"\x1b[2Jhello"))
        bob.shows("eve: \ufffd[2Jhello")
    assert termios.tcgetattr(bob.slave) == bob.found
    if bob.process.stdin:
        bob.process.stdin.write(b"hi\n")
        bob.process.stdin.close()
    else:
        bob.type(b"hi\n:q\n")
    assert bob.end() == 0 and bob.restored and b"\x1b" not in bob.written
    hub.wait(lambda program: program.out[-1] == "bob: hi")
    hub.wait_alone()


def test_line_mode_when_stdout_is_not_a_terminal(started):
    bob = started(Terminal, "bob", stdout=subprocess.PIPE)
    assert re.fullmatch(rb"SERVER: \d+\n", bob.process.stdout.readline())
    bob.type(b"hi\n\x04")
    assert bob.end() == 1 and bob.restored and b"\x1b" not in bob.written
    assert bob.process.stdout.read() == b""
    bob.process.stdout.close()


MISTAKES = {
    "a refused peer": (["ann", "127.0.0.1", "{unused}"], "refused"),
    "itself": (["ann", "127.0.0.1", "{unused}", "--port", "{unused}"], "itself"),
    "an unknown host": (["ann", "host.invalid", "1"], "host.invalid"),
    "no port": (["ann", "127.0.0.1"], "port"),
    "a wrong port": (["ann", "127.0.0.1", "70000"], "65535"),
    "no name": ([], "usage"),
    "an escape sequence for a name": (["\x1b[2J"], "username"),
}


def test_a_mistake_gets_one_sentence_and_the_terminal_stays_untouched(started):
    mistaken = {}
    for case, (arguments, _) in MISTAKES.items():
        unused = unused_port()
        mistaken[case] = started(Terminal, *[argument.format(unused=unused) for argument in arguments], cols=300)
    for case, one in mistaken.items():
        assert one.end() == 1 and one.restored, case
        assert b"\x1b" not in one.written, case
        assert [row for row in one.rows if row] == one.rows[:1] and one.rows[0].startswith("p2pchat: "), case
        assert MISTAKES[case][1] in one.rows[0] and len(one.rows[0]) < 300, case


def open_as_nobody(mode):
    """In a program that begins: its screen is opened by somebody who may not open the terminal by its name."""
    blessed.Terminal(stream=open(1, "w", closefd=False))  # now: nobody may not read this Python's modules
    take = ui.Screen.open

    def opened(*arguments):
        os.fchmod(0, mode)
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        take(*arguments)
    ui.Screen.open = opened


def be_of_no_session():
    """In a program that begins: the terminal is not its own."""
    child = os.fork()
    if child:
        os._exit(os.waitpid(child, 0)[1] >> 8)
    os.setsid()
    open_as_nobody(0o600)


@pytest.mark.skipif(os.getuid() or not hasattr(os, "setresuid"), reason="needs root to become somebody else")
def test_somebody_elses_terminal_that_is_not_ours_gets_a_sentence_and_the_members_a_goodbye(started):
    bob = started(Program, "bob")
    ann = started(Terminal, "ann", "127.0.0.1", bob.port, cols=200, before=be_of_no_session)
    ann.process.wait(PATIENCE)
    bob.wait_alone()
    assert not any("ann" in line for line in bob.err), "she never left, but was lost"
    ann.look()
    assert ann.process.returncode == 1 and ann.rows[0].startswith("p2pchat: cannot open this terminal (") and not any(ann.rows[1:])


@pytest.mark.skipif(os.getuid() or not hasattr(os, "setresuid"), reason="needs root to become somebody else")
def test_somebody_elses_terminal_will_do(started):
    # As after `su`: the tty belongs to another user, and cannot be opened again by its name.
    ann = started(Terminal, "ann", cols=200, before=lambda: open_as_nobody(0o620))
    ann.wait(lambda t: t.rows[20].startswith("---- ann --") or t.process.poll() is not None)
    ann.type(b":q\r")
    assert ann.end() == 0 and ann.restored


# Strangers ------------------------------------------------------------------------------------------------

HOSTILE = [
    *(bytes([n]) * 3 for n in range(256)), b"", b" ", b"--", b"-- ann left", "\u2014 ann left".encode(), b"ann: forged",
    b"x\nann: forged", b"x\rann: forged", b"x\r\n-- forged", b"x\x0bann: forged", "x\u2028ann: forged".encode(),
    b"\x1b[2J\x1b[Hann: forged", b"\x1b]0;title\x07", b"\x1b]52;c;eA==\x1b\\", b"\x1b[6n\x1b[c\x1bZ", b"\x1b[?1049l\x1bc", b"\x1b",
    b"\x9b2J", "\u009b2J".encode(), b"\x1bP+q\x1b\\", "\u202eann: forged\u202c".encode(), "\u2067x".encode(), "\u200b\u200e\ufeff".encode(),
    ("z" + "\u0301\u0489" * 300).encode(), "\u0301\u0301".encode(), ("\u5b57" * 600).encode(), "\U0001f468\u200d\U0001f469\u200d\U0001f467".encode(),
    b" " * 37 + b"ann: forged", b"x " * 500 + b"ann: forged", b"y" * 2048, bytes(range(256)) * 8, "\ud800".encode("utf-8", "surrogatepass"),
    ("\U000e0041" * 100).encode(), "\u3164\u115f\u2800".encode(), b"\t\t\tann: forged", b"ann:\tforged",
]


def test_what_strangers_send_is_shown_harmless_and_imitates_nobody(started):
    ann = started(Terminal, "ann", rows=100, cols=40)
    with socket.create_connection(("127.0.0.1", ann.port)) as stranger:
        for number in range(0, len(HOSTILE), 12):
            for hostile in HOSTILE[number:number + 12]:
                for name, text in ((b"eve", hostile), (hostile, b"as a name"), (hostile, hostile)):
                    stranger.sendall(encode_pair(name, text))
            stranger.sendall(encode_pair(b"mark", b"%d" % number))
            ann.wait(lambda t: f"mark: {number}" in t.rows)
            assert not [row for row in ann.rows[2:96] if row.startswith(("ann:", "-- "))]
        assert ann.rows[0].startswith(f"SERVER: {ann.port}") and ann.rows[96] == "---- ann " + "-" * 31 and ann.model.title == f"p2pchat ann {ann.port}"
        stranger.sendall(encode_pair(b"\x1b[2J-- ann", b":q"))
        ann.wait(lambda t: "-- \ufffd[2J-- ann left" in t.rows)
    ann.type(b"still here\r")
    ann.shows("ann: still here")


def test_a_key_is_answered_while_a_stranger_floods(started):
    ann = started(Terminal, "ann")
    flood = encode_pair(b"eve", b"z" * 100) * 500
    with socket.create_connection(("127.0.0.1", ann.port)) as stranger:
        stranger.setblocking(False)

        def flooding_until(typed):
            def holds(terminal):
                try:
                    stranger.send(flood)
                except BlockingIOError:
                    pass
                return terminal.rows[21] == typed
            return holds

        for typed in ("a", "ab", "abc"):
            os.write(ann.master, typed[-1].encode())
            ann.wait(flooding_until(typed))


# Quiet ----------------------------------------------------------------------------------------------------


def switches(process):
    with open(f"/proc/{process.pid}/status") as status:
        return [int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches")][0]


def test_an_idle_screen_does_not_wake_up(pair):
    if not os.path.exists("/proc/self/status"):
        pytest.skip("no /proc here to count wake-ups with")
    ann, bob = pair
    for one in pair:
        one.type(b"x")
        one.wait(lambda t: "x" in t.rows)

    def window():
        """How often bob woke up in the time of some frames."""
        before = switches(bob.process)
        select.select([bob.master], [], [], 3 * ui.FRAME_SECONDS)
        bob.look()
        return switches(bob.process) - before

    until(lambda: window() == 0)  # the first may still hold the last frame, others a ping
