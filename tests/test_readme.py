"""What the README says of the wire and the limits is what the code does."""

import os
import re

import message
import p2pchat
import peers
import ui
from helpers import TOP

with open(os.path.join(TOP, "README.md"), encoding="utf-8") as _file:
    README = _file.read()


def test_the_frames_in_the_readme_are_the_frames_on_the_wire():
    plain, mesh = [bytes.fromhex(row) for row in re.findall(r"^(?:[0-9a-f]{2} ){10,}[0-9a-f]{2}$", README, re.MULTILINE)]
    assert plain == message.encode_pair(b"al", b"hi")
    assert mesh == message.encode_record(message.Kind.SAY, 0x0807060504030201, 2, 0x68000000, b"al", b"hi")


def test_the_kinds_of_records_in_the_readme_are_those_in_the_code():
    table = README[README.index("| record | bytes |"):README.index("Addresses: how many")]
    said = {number: word for number, word in re.findall(r"(\d+) (said by a guest|said|here|left|lost|guest gone|hello|ping|pong|bye|peers)\b", table)}
    kinds = {"said": "SAY", "said by a guest": "GUEST", "guest gone": "GUEST_GONE"}
    assert {kinds.get(word, word.upper()): int(number) for number, word in said.items()} \
        == {name: number for name, number in vars(message.Kind).items() if name.isupper()}


def test_the_limits_in_the_readme_are_the_limits_in_the_code():
    rows = re.findall(r"^\| `(\w+)\.([A-Z_]+)` \| ([^|]+) \|", README, re.MULTILINE)
    modules = {"message": message, "peers": peers, "p2pchat": p2pchat, "ui": ui}
    assert len(rows) > 25
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
