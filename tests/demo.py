"""`make demo`: a network on this machine to play with, each member in a pane of tmux, ready to type in.

Knows: how to get panes out of tmux (2.6 or newer), and what to tell a user without it.
Must not know: how the chat works. The members are the built program, started as a user starts it; the guide is
one more member, in line mode, that says its lines and leaves.
Leaves out: what can be checked without anybody watching; that is watch.py.

Two ways. Outside of tmux: a server of our own, on a private socket and without anybody's configuration, with keys
for killing and for joining. It ends with its last member or its last viewer, whatever becomes of this process:
tmux itself sees to that (destroy-unattached). Inside of tmux: one more window of the user's session, whose keys
and options stay as they are; it ends as any window does, when its last pane is left.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time

from helpers import BUILT, PATIENCE, TOP

NAMES = "ann", "bob", "cy", "dee", "eve", "fay", "gus", "hal", "ivy"
USUAL = 4                   # members, where no number is said
LEAST_ROWS, LEAST_COLS = 6, 20      # of a pane: less shows no talk
OLDEST = 2, 6               # the first tmux in which all that is used here exists
POLL = 0.02                 # seconds between two looks at a pane; tmux does not tell when one changed
TERM = "screen-256color"    # what every tmux is, whatever the user's configuration calls it
ENDINGS = signal.SIGHUP, signal.SIGTERM, signal.SIGINT

OWN_BAR = " Ctrl-B, then  arrow: go there  K: kill -9 this one  J: add one more  d: quit "
OWN_GUIDE = """\
type here; everyone reads it
K kills one; the rest reconnect
J adds one, who sees all this
"""
WINDOW_GUIDE = """\
type here; everyone reads it
kill -9 PID; the rest reconnect
more: ./p2pchat me localhost {port}
"""
WITHOUT_TMUX = """\
the panes need tmux, which is not installed. To do the same by hand, open terminals in this directory:
  in the first:       ./p2pchat {0}
  in each other one:  ./p2pchat {1} localhost PORT      (the first line of {0}'s screen says SERVER: PORT)
Talk; close a terminal or kill -9 a member, and the rest reconnect; join late, through anyone, and you see what
was said before. `make watch` shows all that in one terminal."""


class Tmux:
    """One tmux server, reached by the options of `where`; a user's own needs none."""

    def __init__(self, *where):
        self.where = where

    def __call__(self, *words):
        """What this tmux command prints. Raises ValueError with the reason that tmux gives."""
        done = subprocess.run(["tmux", *self.where, *words], capture_output=True, text=True, env=environment())
        if done.returncode:
            raise ValueError(f"tmux says: {done.stderr.strip()}")
        return done.stdout.rstrip("\n")

    def attempt(self, *words):
        """The same, where it does not matter if it fails."""
        try:
            return self(*words)
        except ValueError:
            return ""


def environment():
    """For tmux and the members: without the path to our modules, that make sets for this script."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


# Members in panes -------------------------------------------------------------------------------------


def member(name, *joining):
    """The command of a member, as separate words: no shell in between, so the pane's process is the member."""
    return ["env", f"TERM={TERM}", sys.executable, BUILT, name, *joining]


class Panes:
    """The members of one window, by the pane of the first; ids of panes are never used twice."""

    def __init__(self, tmux, first):
        self.tmux, self.first = tmux, first
        self.dress()

    def dress(self):
        """Above each pane its process and how it was started. Only for this window: nothing here is global."""
        for option, value in (("pane-border-status", "top"), ("remain-on-exit", "off"), ("automatic-rename", "off"),
                              ("pane-border-format", " pid #{pane_pid}: #{b:pane_start_command} ")):
            self.tmux("set-window-option", "-t", self.first, option, value)

    def port(self, pane):
        """The port of the member in this pane, once its screen shows one. Raises ValueError."""
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            found = re.match(r"SERVER: (\d+)", self.tmux.attempt("capture-pane", "-p", "-t", pane))
            if found:
                return found[1]
            self.tmux("display-message", "-p", "-t", self.first)    # fails if nobody is left
            time.sleep(POLL)
        raise ValueError("a member does not start; ./p2pchat ann tells why")

    def join(self, name, port, behind):
        """One more member, in a pane of its own behind that one. Returns the pane."""
        pane = self.tmux("split-window", "-d", "-t", behind, "-c", TOP, "-P", "-F", "#{pane_id}",
                         *member(name, "localhost", port))
        self.tmux("select-layout", "-t", pane, "tiled")     # room for the next one
        return pane

    def fill(self, names, guide):
        """All the others, through the first; when each is in, the guide. Raises ValueError."""
        port, last = self.port(self.first), self.first
        for name in names:
            last = self.join(name, port, last)
            self.port(last)     # one after the other: all starting at once keeps two cores busy for seconds
        say(guide.format(port=port), port)


def say(lines, port):
    """Have a member in line mode say these lines and leave. Raises ValueError."""
    try:
        subprocess.run([sys.executable, BUILT, "--lines", "guide", "localhost", port], input=lines, text=True, check=True,
                       capture_output=True, timeout=PATIENCE, env=environment())
    except subprocess.SubprocessError as error:
        raise ValueError(f"the guide cannot speak: {error}") from error


def one_more(tmux):
    """Another member joins through one that is there, under a name that nobody had. Raises ValueError."""
    panes = tmux("list-panes", "-F", "#{pane_id}").splitlines()
    had = int(tmux("show-options", "-v", "@members"))
    tmux("set-option", "@members", str(had + 1))
    name = NAMES[had] if had < len(NAMES) else f"m{had + 1}"
    window = Panes(tmux, panes[0])
    window.join(name, window.port(panes[0]), panes[-1])


def end_cleanly():
    """Have SIGHUP, SIGTERM and SIGINT end this process by way of its `finally`s."""
    for number in ENDINGS:
        signal.signal(number, _end)


def _end(number, _):
    for other in ENDINGS:
        signal.signal(other, signal.SIG_IGN)    # a terminal that is closed says so twice: not into the cleaning up
    sys.exit(128 + number)


# Outside of tmux --------------------------------------------------------------------------------------


def outside(names):
    """A server of our own, shown until the user detaches or nobody is left."""
    if not (os.isatty(0) and os.isatty(1)):
        raise ValueError("the panes need a terminal; make watch needs none")
    size = os.get_terminal_size()
    check_room(len(names), size.columns, size.lines - 1)
    end_cleanly()
    with tempfile.TemporaryDirectory(prefix="p2pchat-demo-") as place:
        tmux = Tmux("-S", os.path.join(place, "tmux"), "-f", os.devnull)
        try:
            own_server(tmux, names, size)
            attach(tmux)
        finally:
            tmux.attempt("kill-server")


def own_server(tmux, names, size):
    first = tmux("new-session", "-d", "-x", str(size.columns), "-y", str(size.lines), "-c", TOP, "-P", "-F", "#{pane_id}",
                 *member(names[0]))
    for option, value in (("status-left", OWN_BAR), ("status-left-length", str(len(OWN_BAR))), ("status-right", ""),
                          ("mouse", "on"), ("@members", str(len(names)))):
        tmux("set-option", option, value)
    for option in ("window-status-format", "window-status-current-format"):
        tmux("set-option", "-g", option, "")
    tmux("bind-key", "K", "run-shell", "kill -9 #{pane_pid}")
    tmux("bind-key", "J", "run-shell", "-b", joining(tmux))
    tmux.attempt("set-hook", "-g", "pane-exited", "select-layout tiled")    # tmux before 3.0 may not know it
    Panes(tmux, first).fill(names[1:], OWN_GUIDE)


def joining(tmux):
    """The shell command by which a key of this server has one more member join; # begins a format in tmux."""
    words = [sys.executable, "-B", os.path.abspath(__file__), "join", *tmux.where]
    return " ".join(map(shlex.quote, words)).replace("#", "##")


def attach(tmux):
    """Show it. Once somebody watches, the server is not to outlive the last who does."""
    watching = {name: value for name, value in environment().items() if not name.startswith("TMUX")}
    client = subprocess.Popen(["tmux", *tmux.where, "attach-session", ";", "set-option", "destroy-unattached", "on"],
                              env=watching)
    try:
        client.wait()
        # The client's own status says little: as its server ends with it, it now and then calls that a lost server.
        if tmux.attempt("list-sessions"):
            raise ValueError("tmux cannot use this terminal; make watch needs no tmux")
    finally:
        tmux.attempt("kill-server")     # where a signal ended us, the client gives the terminal back by this
        client.wait()


# Inside of tmux ---------------------------------------------------------------------------------------


def inside(tmux, names):
    """One more window in the session from which make was called. It stays when this process ends."""
    here = os.environ.get("TMUX_PANE", "")
    session, cols, rows = tmux("display-message", "-p", "-t", here, "#{session_id} #{window_width} #{window_height}").split()
    check_room(len(names), int(cols), int(rows))
    window, first = tmux("new-window", "-d", "-n", "p2pchat", "-t", f"{session}:", "-c", TOP, "-P", "-F",
                         "#{window_id} #{pane_id}", *member(names[0])).split()
    try:
        Panes(tmux, first).fill(names[1:], WINDOW_GUIDE)
    except BaseException:
        tmux.attempt("kill-window", "-t", window)
        raise
    tmux("select-window", "-t", window)
    print("The demo has its own tmux window, p2pchat. It closes when all its members have left (:quit).")


# The command ------------------------------------------------------------------------------------------


def check_room(count, cols, rows):
    """Raises ValueError if `count` panes, tiled and each below a title, would be too small to read."""
    high, wide = tiles(count)
    need_cols, need_rows = wide * (LEAST_COLS + 1) - 1, high * (LEAST_ROWS + 1)
    if cols < need_cols or rows < need_rows:
        raise ValueError(f"{count} members need a window of {need_cols} x {need_rows + 1} characters, this one has "
                         f"{cols} x {rows + 1}; make it larger, or have fewer, as in make demo N=2")


def tiles(count):
    """How many rows and columns of panes tmux makes of `count`."""
    high = wide = 1
    while high * wide < count:
        high += 1
        wide += high * wide < count
    return high, wide


def counted(text):
    """The number of members that the user wants. Raises ValueError."""
    if text.isascii() and text.isdigit() and 1 <= int(text) <= len(NAMES):
        return int(text)
    raise ValueError(f"N must be a number from 1 to {len(NAMES)}, not {text}, as in make demo N=6")


def check_tmux():
    """Raises ValueError if there is no tmux, or one that is too old."""
    try:
        version = subprocess.run(["tmux", "-V"], capture_output=True, text=True).stdout
    except OSError:
        raise ValueError(WITHOUT_TMUX.format(*NAMES)) from None
    found = re.search(r"(\d+)\.(\d+)", version)     # none in "tmux master", which is newer than all
    if found and tuple(map(int, found.groups())) < OLDEST:
        raise ValueError(f"this is {version.strip()}, and tmux {OLDEST[0]}.{OLDEST[1]} or newer is needed; "
                         "make watch needs no tmux")


def user_tmux():
    """The tmux in which we run, or None; $TMUX alone may be left over from one that is gone."""
    if not os.environ.get("TMUX"):
        return None
    tmux = Tmux()
    return tmux if tmux.attempt("display-message", "-p", "-t", os.environ.get("TMUX_PANE", ""), "here") else None


def main(words):
    if words[:1] == ["join"]:
        return one_more(Tmux(*words[1:]))
    names = NAMES[:counted(words[0] if words else str(USUAL))]
    check_tmux()
    tmux = user_tmux()
    return inside(tmux, names) if tmux else outside(names)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as mistake:
        sys.exit(f"p2pchat demo: {mistake}")
