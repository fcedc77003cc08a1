"""What the README says is true: its bytes, limits, names, options and commands are the code's, and what it says to type works."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import zipfile

import pytest

import message
import p2pchat
import peers
import ui
from helpers import PATIENCE, TOP, Terminal, encode_pair, python, until

with open(os.path.join(TOP, "README.md"), encoding="utf-8") as _file:
    README = _file.read()


def test_the_frames_in_the_readme_are_the_frames_on_the_wire():
    plain, mesh = [bytes.fromhex(row) for row in re.findall(r"^(?:[0-9a-f]{2} ){10,}[0-9a-f]{2}$", README, re.MULTILINE)]
    assert plain == encode_pair(b"al", b"hi")
    assert mesh == message.encode_record(message.Kind.SAY, 0x0807060504030201, 2, 0x68000000, b"al", b"hi")


def test_the_kinds_of_records_in_the_readme_are_those_in_the_code():
    table = README[README.index("| record, by its first byte |"):README.index("Name: length 2")]
    said = {number: word for number, word in re.findall(r"(\d+) (said by a guest|said|here|left|lost|guest gone|hello|ping|pong|bye|peers|ask|renamed)\b", table)}
    kinds = {"said": "SAY", "said by a guest": "GUEST", "guest gone": "GUEST_GONE"}
    assert {kinds.get(word, word.upper()): int(number) for number, word in said.items()} \
        == {name: number for name, number in vars(message.Kind).items() if name.isupper()}


def test_the_limits_in_the_readme_are_the_limits_in_the_code():
    rows = re.findall(r"^\| `(\w+)\.([A-Z_]+)` \| ([^|]+) \|", README, re.MULTILINE)
    modules = {"message": message, "peers": peers, "p2pchat": p2pchat, "ui": ui}
    assert len(rows) >= 15 and len({row[:2] for row in rows}) == len(rows)
    for module, name, value in rows:
        numbers = getattr(modules[module], name)
        numbers = numbers if isinstance(numbers, tuple) else (numbers,)
        units = {"KiB": 1024, "MiB": 1024 * 1024}
        amount, _, unit = value.strip().partition(" ")
        said = tuple(float(part.replace(",", "")) * units.get(unit.split()[0] if unit else "", 1) for part in amount.split("-"))
        assert said == numbers, (module, name, value, numbers)


def test_every_function_in_the_life_of_a_message_exists():
    life = README[README.index("### The life of a message"):README.index("## Limits")]
    owners = {**vars(message), **vars(peers), **vars(p2pchat), **vars(ui)}
    for name in re.findall(r"`(\w+\.\w+|\w+_\w+)`", life):
        owner, _, attribute = name.partition(".")
        assert owner in owners and (not attribute or hasattr(owners[owner], attribute)), name
    assert life.count("`") > 20


def test_the_options_and_commands_in_the_readme_are_those_of_the_program(capsys):
    with pytest.raises(SystemExit):
        p2pchat.parse(["--help"])
    offered = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help", "--version"}
    usage = README[README.index("./p2pchat <username>"):README.index("`make` writes")]
    assert set(re.findall(r"--[a-z-]+", usage)) == offered
    assert set(re.findall(r"`[^`]*?(--[a-z-]{3,})[^`]*`", README)) >= offered - {"--lines"}
    table = README[README.index("| command | |"):README.index("The keys are those")]
    assert set(re.findall(r"`(:[a-z]+!?)", table)) - {":hlep", ":q"} >= set(p2pchat.COMMANDS) - {":q"}


def test_the_readme_is_short_and_fits_a_terminal():
    lines = README.splitlines()
    assert len(lines) <= 250 and max(map(len, lines)) <= 110


# Whoever follows it ---------------------------------------------------------------------------------

SHELL = [line for block in re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL) for line in block.splitlines()]
MAKES = sorted(set(re.findall(r"`((?:\w+=\S+ )?make(?: [^`]*)?)`", README)))


# What a careful, or a careless, user may have told pip for all of the machine: make does not mind.
HOSTILE = {"PIP_USER": "1", "PIP_REQUIRE_VIRTUALENV": "1", "PIP_PREFIX": "/x", "PIP_TARGET": "/x", "PIP_DRY_RUN": "1", "PIP_NO_DEPS": "1",
           "PIP_REQUIRE_HASHES": "1", "PIP_CONSTRAINT": "/x", "PIP_PYTHON": "/x"}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The sources as they come from a clone, and what pip has fetched: that costs as much as all else here (see below)."""
    top = tmp_path_factory.mktemp("clone") / "p2pchat of zoë's"
    left_out = {".git", "__pycache__", "p2pchat", ".pytest_cache", "testing", "bytecode", "stage"}
    shutil.copytree(TOP, top, ignore=lambda folder, names: left_out & set(names))
    return top


WHEEL = {
    "x.py": "",
    "x-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: x\nVersion: 1\n",
    "x-1.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: p2pchat\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "x-1.dist-info/RECORD": "x.py,,\nx-1.dist-info/METADATA,,\nx-1.dist-info/WHEEL,,\nx-1.dist-info/RECORD,,\n",
}


def test_pip_fetches_a_package_whatever_its_user_has_told_it_for_all_of_the_machine(tmp_path):
    with zipfile.ZipFile(tmp_path / "x-1-py3-none-any.whl", "w") as wheel:
        for name, text in WHEEL.items():
            wheel.writestr(name, text)
    done = subprocess.run(python(os.path.join(TOP, ".ci", "fetch"), "into", "x==1"), cwd=tmp_path, capture_output=True, timeout=4 * PATIENCE,
                          env={**os.environ, **HOSTILE, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PYTHONPYCACHEPREFIX": ""})
    assert done.returncode == 0 and (tmp_path / "into" / "x.py").is_file(), done.stderr


def test_whoever_types_what_the_readme_says_from_its_first_line_to_its_last_chats(clone):
    followed = iter(SHELL)
    with contextlib.ExitStack() as stack:
        ann = typed(stack, next(followed), "make && ./p2pchat ann", clone)
        port = str(ann.port)
        bob = typed(stack, next(followed), "./p2pchat bob localhost 40123", clone, port)
        ann.wait(lambda terminal: any("bob joined" in row for row in terminal.rows))
        bot, log = next(followed), next(followed)
        assert log == "./p2pchat log localhost 40123 > chat.log"
        stack.enter_context(process(log.replace("40123", port), clone, stdin=subprocess.PIPE))
        bob.wait(lambda terminal: any("log joined" in row for row in terminal.rows))
        assert bot == r"printf 'the build is green\n' | ./p2pchat bot localhost 40123"
        with process(bot.replace("40123", port), clone) as speaker:
            assert speaker.wait(PATIENCE) == 0
        bob.shows("bot: the build is green")
        until(lambda: "bot: the build is green\n" in (clone / "chat.log").read_text())
        (clone / "build.log").write_text(":hlep\n")
        tail = next(followed)
        assert tail == "tail -f build.log | ./p2pchat builds localhost 40123 --verbatim --no-history > /dev/null"
        stack.enter_context(process(tail.replace("40123", port), clone))
        bob.shows("builds: :hlep")
        archive = next(followed)
        assert archive == "nohup ./p2pchat archive localhost 40123 --no-input --times > archive.log &"
        stack.enter_context(process(archive.replace("40123", port).rstrip("&"), clone, stdin=subprocess.DEVNULL))
        until(lambda: (clone / "archive.log").exists() and re.search(r"^\d{4}-\d\d-\d\dT\S+ bot: the build is green$", (clone / "archive.log").read_text(), re.MULTILINE))
        recipe = next(followed)
        assert recipe.endswith(r"--no-input --times | sed -un 's/^\([^ ]*\) bob: /\1 /p'")
        stack.enter_context(process(recipe.replace("40123", port) + " > bob.log", clone, stdin=subprocess.DEVNULL))
        bob.type(b"as it comes\r")  # History: awk, which is mawk on Debian, kept it until the end
        until(lambda: (clone / "bob.log").exists() and re.fullmatch(r"\d{4}-\d\d-\d\dT\S+ as it comes\n", (clone / "bob.log").read_text()))
        ann.type(b":quit\r")
        assert ann.end() == 0
        assert not list(followed)


def typed(stack, command, expected, folder, port=None):
    """A line of the README in a shell on a terminal, at another port if given."""
    assert command == expected
    terminal = Terminal(command=("sh", "-c", command.replace("40123", port or "40123")), cwd=folder, cols=120, env=HOSTILE)
    stack.callback(terminal.close)
    return terminal


@contextlib.contextmanager
def process(command, folder, **streams):
    running = subprocess.Popen(["sh", "-c", "exec " * ("|" not in command) + command], cwd=folder, stderr=subprocess.DEVNULL,
                               start_new_session=True, **streams)
    with running:
        try:
            yield running
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)  # all of a pipeline


@pytest.mark.parametrize("command", MAKES)
def test_every_make_in_the_readme_is_one_that_there_is(command, clone):
    """One is run, with fewer; the others take minutes, or are this very test: make itself says what it would run."""
    command = command.replace("N=300", "N=6")
    done = subprocess.run(["sh", "-c", command if "N=6 " in command else command.replace("make", "make -n", 1)], cwd=clone,
                          capture_output=True, text=True, timeout=2 * PATIENCE)
    assert done.returncode == 0 and done.stdout, done.stderr
    if "N=6 " in command:
        assert "said after 100.00%" in done.stdout


def test_every_picture_and_file_that_the_readme_names_is_there():
    for name in re.findall(r'(?:srcset|src)="([^"]+)"|`((?:tests/)?\w+\.py)`', README):
        path = name[0] or name[1]
        assert os.path.exists(os.path.join(TOP, path)) or os.path.exists(os.path.join(TOP, "tests", path)), path
