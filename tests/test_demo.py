"""What make demo, make watch and make picture show, without anybody looking: in a tmux that is the user's, or the terminal."""

import glob
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from functools import partial

import pytest

import demo
import helpers
import picture
import watch
from helpers import PATIENCE, TOP, python

DEMO = os.path.join(TOP, "tests", "demo.py")
WATCH = os.path.join(TOP, "tests", "watch.py")
SVG = "{http://www.w3.org/2000/svg}"
until = partial(helpers.until, pause=0.05)   # each look is a process of tmux

pytestmark = pytest.mark.together  # `make watch` is begun once, and seen last

with_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="there is no tmux here to show the demo in")


@pytest.fixture(scope="module", autouse=True)
def show():
    """`make watch`, begun before the other tests: it mostly waits."""
    with subprocess.Popen(python("-B", WATCH), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.fixture
def place():
    """A directory with a name that is short enough for sockets; all in it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="p2p-", dir="/tmp") as path:
        yield path


@pytest.fixture
def user(place):
    """The tmux of a user: one window of 100 x 30, in which a shell waits."""
    tmux = demo.Tmux("-S", os.path.join(place, "user"), "-f", os.devnull)
    tmux("new-session", "-d", "-x", "100", "-y", "30", f"env TMPDIR={place} sh")
    yield tmux
    tmux.attempt("kill-server")


def shown(tmux, pane):
    """The rows of a pane, wrapped ones joined, without times."""
    rows = re.sub(r"\n(?: {10}| {4})(?! )", " ", tmux.attempt("capture-pane", "-p", "-t", pane)).splitlines()
    return [re.sub(r"^\d\d:\d\d ", "", row) for row in rows]


def until_all(tmux, panes, row):
    """Wait until each pane shows a row that this pattern matches."""
    until(lambda: all(any(re.match(row, line) for line in shown(tmux, pane)) for pane in panes),
          lambda: "\n".join([row, *(line for pane in panes for line in shown(tmux, pane))]))


def members(tmux, window=""):
    """pane -> process."""
    rows = tmux("list-panes", *(["-t", window] if window else []), "-F", "#{pane_id} #{pane_pid}").splitlines()
    return {pane: int(pid) for pane, pid in map(str.split, rows)}


def runs(pid):
    """Whether this process is there, and is not one that only waits to be buried."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return bool(state.strip()) and not state.startswith("Z")


def typed(tmux, command):
    """Type this line in the user's shell."""
    tmux("send-keys", "-l", command)
    tmux("send-keys", "Enter")


def own_server(user, place, count):
    """The demo begun outside of tmux, as far as the shell in the user's terminal can tell. Returns its server and panes."""
    typed(user, f"unset TMUX; {shlex.join(python('-B', DEMO, str(count)))}; echo ended $?")
    socket = until(lambda: glob.glob(os.path.join(place, "p2pchat-demo-*", "tmux")))[0]
    tmux = demo.Tmux("-S", socket)
    until(lambda: tmux.attempt("list-clients"))
    return tmux, members(tmux)


# make demo --------------------------------------------------------------------------------------------


@with_tmux
def test_outside_of_tmux_the_demo_has_a_server_of_its_own_that_ends_with_its_viewer(user, place):
    tmux, panes = own_server(user, place, 4)
    ann, *others = panes
    assert len(panes) == 4
    until_all(tmux, panes, "guide: J adds one")
    user("send-keys", "hello", "Enter")
    until_all(tmux, panes, "ann: hello")
    user("send-keys", "C-b", "K")
    until(lambda: list(members(tmux)) == others)
    user("send-keys", "C-b", "J")
    late = until(lambda: set(members(tmux)) - set(others)).pop()
    until_all(tmux, [late], "ann: hello")
    until_all(tmux, others, "-- .*eve joined")
    until_all(tmux, others, "-- lost contact with ann; still connected through")
    left = members(tmux)
    user("send-keys", "C-b", "d")
    until(lambda: any("ended 0" in row for row in shown(user, "")), lambda: "\n".join(shown(user, "")))  # not always at its beginning: see attach
    until(lambda: not any(map(runs, left.values())))
    assert os.listdir(place) == ["user"]


@with_tmux
def test_a_terminal_that_tmux_cannot_use_gets_a_sentence_and_nothing_is_left(user, place):
    typed(user, f"unset TMUX; TERM=dumb {shlex.join(python('-B', DEMO, '1'))}; echo ended $?")
    until(lambda: "ended 1" in shown(user, ""), lambda: "\n".join(shown(user, "")))
    assert "p2pchat demo: tmux cannot use this terminal; make watch needs no tmux" in shown(user, "")
    assert os.listdir(place) == ["user"]


@with_tmux
@pytest.mark.parametrize("how", ["its terminal is closed", "its last member leaves"])
def test_nothing_is_left_of_the_demo_when(user, place, how):
    tmux, panes = own_server(user, place, 1)
    if how == "its terminal is closed":
        user("kill-server")
    else:
        for pane in panes:
            tmux("send-keys", "-t", pane, ":quit", "Enter")
    until(lambda: not any(map(runs, panes.values())))
    until(lambda: not glob.glob(os.path.join(place, "p2pchat-demo-*")))


@with_tmux
def test_inside_of_tmux_the_demo_is_one_more_window_and_nothing_else_is_touched(user):
    def settings():
        return [user(*words) for words in (["list-keys"], ["show-options", "-g"], ["show-options"], ["show-options", "-s"],
                                           ["show-window-options", "-g"], ["show-window-options", "-t", "0"])]

    before = settings()
    typed(user, shlex.join(python("-B", DEMO, "3")))
    until(lambda: user("display-message", "-p", "#{window_name}") == "p2pchat")
    panes = members(user, "p2pchat")
    ann, *others = panes
    assert len(panes) == 3 and settings() == before
    until_all(user, panes, "guide: more: ")
    user("send-keys", "-t", ann, "hello", "Enter")
    until_all(user, panes, "ann: hello")
    os.kill(panes[ann], 9)
    until_all(user, others, "-- lost contact with ann; still connected through")
    for pane in others:
        user("send-keys", "-t", pane, "C-c")
    until(lambda: len(user("list-windows").splitlines()) == 1)
    assert not any(map(runs, panes.values())) and settings() == before


@pytest.mark.parametrize("number", ["0", "10", "x", "-1", "", "²"])
def test_a_number_of_members_is_1_to_9(number):
    with pytest.raises(ValueError, match=f"N must be a number from 1 to 9, not {number}"):
        demo.main([number])


@with_tmux
def test_without_a_terminal_it_says_so_in_one_sentence():
    done = subprocess.run(python("-B", DEMO), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          env={**os.environ, "TMUX": ""})
    assert (done.returncode, done.stderr) == (1, "p2pchat demo: the panes need a terminal; make watch needs none\n")


def test_without_tmux_it_tells_how_to_do_the_same_in_windows():
    done = subprocess.run(python("-B", DEMO), capture_output=True, text=True, env={**os.environ, "PATH": ""})
    assert done.returncode == 1 and "./p2pchat ann" in done.stderr and "./p2pchat bob localhost PORT" in done.stderr


def test_a_window_that_is_too_small_is_refused_and_80_x_24_holds_nine():
    demo.check_room(9, 80, 23)
    with pytest.raises(ValueError, match="4 members need a window of 41 x 15 characters, this one has 40 x 15; make it larger"):
        demo.check_room(4, 40, 14)


# make watch -------------------------------------------------------------------------------------------


class Puppet(watch.Actor):
    """A member that says and shows what the test wants."""

    def __init__(self, name, said, shows, stayed=True):
        self.name, self.said, self.stayed = name, said, stayed
        self._seen = {"stdout": "".join(f"{line}\n" for line in ["SERVER: 1", *shows]).encode(), "stderr": b""}


def staged(bob_shows, cy_stayed):
    """ann said a 1 and a 2, cy said c 1 and c 2, and all showed everything; but for bob."""
    stage = watch.Stage.__new__(watch.Stage)
    stage.guide = Puppet("guide", [], ["ann: a 1", "ann: a 2", "cy: c 1", "cy: c 2"])
    stage.alive = {"ann": Puppet("ann", ["a 1", "a 2"], ["cy: c 1", "cy: c 2"]), "bob": Puppet("bob", [], bob_shows)}
    stage.gone = [Puppet("cy", ["c 1", "c 2", "c 3"], [], stayed=cy_stayed)]
    return stage


def test_the_check_is_content_with_everything_once_in_order_and_the_last_words_of_the_killed_lost():
    staged(["ann (12:03): a 1", "cy: c 1", "ann~2: a 2", "cy: c 2", "you: whatever"], cy_stayed=False).check()


@pytest.mark.parametrize("bob_shows, cy_stayed", [
    (["ann: a 1", "cy: c 1", "cy: c 2"], False),
    (["ann: a 2", "ann: a 1", "cy: c 1", "cy: c 2"], False),
    (["ann: a 1", "ann: a 2", "ann: a 2", "cy: c 1", "cy: c 2"], False),
    (["ann: a 1", "ann: a 2", "cy: c 1", "cy: c 2", "eve: e 1"], False),
    (["ann: a 1", "ann: a 2", "cy: c 1"], False),
    (["ann: a 1", "ann: a 2", "cy: c 1", "cy: c 2"], True),
], ids=["missing", "order", "twice", "invented", "the dead's to some only", "the last words of one who stayed"])
def test_the_check_finds_what_is(bob_shows, cy_stayed):
    with pytest.raises(watch.Failed):
        staged(bob_shows, cy_stayed).check()


# make picture -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", picture.THEMES)
def test_the_picture_is_safe_text_inside_its_frame_and_tells_of_the_session(name):
    path = os.path.join(picture.FOLDER, f"screen-{name}.svg")
    assert os.path.getsize(path) < 40_000
    root = ElementTree.parse(path).getroot()
    width, height = float(root.get("width")), float(root.get("height"))
    texts = [element for element in root.iter(f"{SVG}text")]
    for text in texts:
        assert 0 < float(text.get("x")) and float(text.get("x")) + float(text.get("textLength", 0)) <= width - picture.EDGE + 1
        assert 0 < float(text.get("y")) < height
    for circle in root.iter(f"{SVG}circle"):
        assert float(circle.get("cx")) > 0 and float(circle.get("cy")) > 0
    assert {element.tag for element in root.iter()} == {SVG + tag for tag in ("svg", "title", "rect", "path", "circle", "text")}
    words = [text.text for text in texts]
    for said in ("-- earlier messages end here", "12:03", "zoë", "🍜", "去", "-- lost contact with leo; still connected through", "ann"):
        assert any(said in word for word in words), said


def test_a_cell_is_drawn_where_and_how_the_terminal_has_it():
    model = picture.StyledModel(2, 20)
    model.feed("\x1b[1;1H\x1b[2m-- <a> & b\x1b[m\x1b[2;3H\x1b[38;5;131m\x1b[7mbob\x1b[m: \x1b[1mx  去🍜y\x1b[m".encode())
    assert picture.runs(model) == [
        (0, 0, "-- <a> & b", ("2",)), (1, 2, "bob", ("38", "5", "131", "7")), (1, 5, ":", ()), (1, 7, "x", ("1",)),
        (1, 10, "去", ("1",)), (1, 12, "🍜", ("1",)), (1, 14, "y", ("1",))]
    drawn = picture.draw(model, picture.THEMES["light"])
    assert "-- &lt;a&gt; &amp; b</text>" in drawn and 'fill="#af5f5f"/>' in drawn
    model.feed(b"\x1b[2;1H\x1b[K\x1b[2;3Hnew")
    assert picture.runs(model)[1:] == [(1, 2, "new", ())]


# Last, since it was begun first -----------------------------------------------------------------------


def test_the_show_runs_by_itself_and_everybody_read_everything_once_and_in_order(show):
    out, _ = show.communicate(timeout=PATIENCE)
    assert show.returncode == 0, out[-2000:]
    assert re.search(r"p2pchat watch: 5 members killed, 5 came back; \d+ messages, each shown exactly once and in order "
                     r"by all 6; after the kills everybody read everybody in \d+ ms and \d+ ms; \d+\.\d s\n\Z", out), out
