"""The screen and the keys, from one function up to a real pty. Nothing here sleeps."""
from __future__ import annotations

import datetime
import errno
import fcntl
import io
import os
import pty
import random
import re
import select
import struct
import subprocess
import sys
import termios
import time
import unicodedata

import blessed
import pytest
from wcwidth import iter_graphemes, wcswidth

import ui
from helpers import PATIENCE, must_end, python
from screen import Model, Unknown
from ui import BARE, Decoder, Key, Line, Lines, Screen, Scrollback, View, clean_name, clean_text, render

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
SEED = int(os.environ.get("SEED", "7"))         # printed by pytest with the failing parameters


# ---- cleaning -----------------------------------------------------------------------------------------------

def test_printable_ascii_passes_unchanged():
    text = bytes(range(0x20, 0x7f))
    assert clean_text(text) == text.decode()


def test_no_single_byte_reaches_the_terminal_as_a_control():
    for byte in map(bytes, zip(range(256))):
        for text in (clean_text(byte), clean_text(b"a" + byte + b"b")):
            assert text and all(char.isprintable() or char == "\n" for char in text), byte
        assert "\n" not in clean_name(b"a" + byte + b"b"), byte


def test_every_character_of_an_unseen_category_is_made_visible():
    allowed = "\n\t" + ui.NUMBER_SIGNS
    all_of, some_of = ui.UNSEEN - {"Cs", "Cn", "Co"}, {"Cn", "Co"}  # unassigned, and for private use: 900,000 of them
    categories = zip(map(chr, range(0x110000)), map(unicodedata.category, map(chr, range(0x110000))))
    chosen = [char for char, category in categories if category in all_of or category in some_of and ord(char) % 499 == 0]
    hidden = [char for char in chosen if char not in allowed and not ui.is_new_emoji(char)]
    assert len(hidden) > 2000
    for at in range(0, len(hidden), 1000):
        some = hidden[at:at + 1000]
        cleaned = clean_text("".join(f"a{char}b" for char in some).encode())
        assert cleaned == "a\ufffdb" * len(some), [hex(ord(char)) for char in some if clean_text(f"a{char}b".encode()) != "a\ufffdb"]


def test_random_bytes_give_only_harmless_characters():
    rng = random.Random(SEED)
    pool = [chr(c) for c in (*range(0x20), 0x7f, 0x9b, 0x202e, 0x2066, 0x200b, 0x200d, 0x200c, 0x2028, 0xfeff, 0x301,
                             0xfe0f, 0x1f468, 0x627, 0x94d, 0x915, 0x61, 0x20, 0xe0061, 0x1160, 0xe000)]
    for _ in range(1500):
        data = b"".join(rng.choice(pool).encode() if rng.random() < .8 else bytes([rng.randrange(256)])
                        for _ in range(rng.randrange(30)))
        for text in (clean_text(data), clean_name(data)):
            bad = [c for c in text if unicodedata.category(c) in ui.UNSEEN and c not in "\n" + ui.JOINERS + ui.NUMBER_SIGNS]
            assert not bad, data
        assert clean_text(clean_text(data).encode()) == clean_text(data), data
        name = clean_name(data)
        assert name and "\n" not in name and ": " not in name and not re.match("-?[- ]|-$", name) and name[-1] not in ": ", data


@pytest.mark.parametrize("text", [
    FAMILY, "❤️", "1️⃣", "👍🏽", "🇩🇪", "می‌خواهم", "क्‍ष", "ශ්‍රී", "മലയാളം ന്‍", "한국어", "\u1112\u1161\u11ab", "Việt",
    "e\u0301", "ر‍م", "र‍्याम", "۲‌نفره", "🙂‍↔️", "PDF‌ها", "👩‍❤️‍👨", "🏳️‍🌈", "⛓️‍💥", "日本語", "שָׁלוֹם", "ไทยนี้", "a\nb"])
def test_scripts_and_emoji_stay_whole(text):
    assert clean_text(text.encode()) == text


def test_an_emoji_newer_than_this_python_is_shown():
    unknown = [char for char in map(chr, range(0x1f000, 0x1fb00)) if unicodedata.category(char) == "Cn" and wcswidth(char) == 2]
    for char in unknown or ["🙂"]:
        assert clean_text(f"a{char}b".encode()) == f"a{char}b" and ui.visible(char) == char
        assert clean_text(f"👩\u200d{char}".encode()) == f"👩\u200d{char}"
    assert clean_text("\U0001f0ff\U0001faff".encode()) in ("\ufffd\ufffd", "\U0001f0ff\ufffd"), "what nobody knows is not"


@pytest.mark.parametrize("data, shown", [
    ("ا\u200d\u200d\u200dب".encode(), "ا\u200d\ufffd\u200dب"), ("漢\u200d字".encode(), "漢\ufffd字"), ("\u200dا".encode(), "\ufffdا"),
    (b"a\r\nb\rc", "a\nb\ufffdc"), (b"\tx", "    x"), (b"\x1b[2J", "\ufffd[2J"), (b"\xff\xfe", "\ufffd\ufffd"),
    ("a\u200db".encode(), "a\ufffdb"), ("a\ufe0fb".encode(), "a\ufffdb"), ("\u0301x".encode(), "\u25cc\u0301x"),
    ("a \u0301".encode(), "a \u25cc\u0301"), ("\u202egnp.exe".encode(), "\ufffdgnp.exe"), ("\u3164".encode(), "\ufffd"),
    (("a" + "\u0301" * 500 + "b").encode(), "a" + "\u0301" * ui.MARKS_PER_BASE + "b")])
def test_text_that_hides_or_paints_over_is_shown(data, shown):
    assert clean_text(data) == shown


@pytest.mark.parametrize("data, shown", [
    (b"al", "al"), (b"", "\ufffd"), (b"   ", "\ufffd" * 3), (b"a\nb", "a\ufffdb"), (b"-- bob", "\ufffd- bob"), (b"-", "\ufffd"),
    (b"-x", "-x"), (b"- x", "\ufffd x"), ("-ー x".encode(), "\ufffdー x"),
    ("\u2013x".encode(), "\ufffdx"), (b"bob: hi", "bob\ufffd hi"), (b"bob:", "bob\ufffd"), (b"a:b", "a:b"), (b" a  b ", "\ufffda \ufffdb\ufffd"), (b"SERVER ", "SERVER\ufffd"), ("SERVER\u00a0".encode(), "SERVER\ufffd"),
    ("── lost bob".encode(), "\ufffd─ lost bob"), ("⎯⎯ bob left".encode(), "\ufffd⎯ bob left"), ("˗˗ x".encode(), "\ufffd˗ x"),
    ("ーー x".encode(), "\ufffdー x"), ("ー x".encode(), "\ufffd x"), ("一郎".encode(), "一郎"), ("一 x".encode(), "\ufffd x"), ("ㅡㅡ".encode(), "\ufffdㅡ"),
    ("➖➖ x".encode(), "\ufffd➖ x"), ("ann∶ hi".encode(), "ann\ufffd hi"), ("ann：hi".encode(), "ann\ufffdhi"), ("bob (12∶03)".encode(), "bob (12\ufffd03)"),
    ("ann\ufe30 hi".encode(), "ann\ufffd hi"), ("ann\u2237 hi".encode(), "ann\ufffd hi"), ("▬▬ x".encode(), "\ufffd▬ x"), ("\u223c\u223c x".encode(), "\ufffd\u223c x"),
    (b"__ bob", "\ufffd_ bob"), (b"___ lost bob", "\ufffd__ lost bob"), (b"__init__ x", "__init__ x"), (b"_ x", "_ x"), (b"__", "__"),
    (b"SERVER~2", "peer SERVER~2"), (b"error~12", "peer error~12"), (b"SERVER~3f", "peer SERVER~3f"), (b"server~C", "peer server~C"),
    ("\u0405ERV\u0415R".encode(), "peer \u0405ERV\u0415R"), ("\u0455\u0435rv\u0435r".encode(), "peer \u0455\u0435rv\u0435r"), (b"x" * 99 + b"~3f", "x" * 28 + "\u2026~3f"), ("ＳＥＲＶＥＲ".encode(), "peer ＳＥＲＶＥＲ"), (b"SERVER~x", "SERVER~x"),
    (b" -x", "\ufffd-x"), (b"SERVER", "peer SERVER"), (b"Error", "peer Error"), (b"SERVERS", "SERVERS"), (b"12:03 al", "12\ufffd03 al"),
    (b"al (12:03)", "al (12\ufffd03)"), (b"al 12:03 x", "al 12:03 x"), ("\u0301".encode(), "\u25cc\u0301"), (b"x" * 99, "x" * 31 + "\u2026"), (b"x" * 99 + b"~12", "x" * 28 + "\u2026~12")])
def test_a_name_is_one_line_that_imitates_nothing(data, shown):
    assert clean_name(data) == shown


def test_a_wide_name_is_shortened_by_cells():
    assert wcswidth(clean_name(("漢" * 40).encode())) <= ui.NAME_CELLS


@pytest.mark.parametrize("name, text, found", [
    ("Ren", "René", False), ("Ren", "Rene\u0301", False), ("Ren", "Ren\u0301", False), ("Ren", "ren!", True), ("René", "RENE\u0301 hi", True),
    ("Åsa", "hej åsa", True), ("Åsa", "A\u030asa", True), ("bob", "bobby bob", True), ("bob", "bobby", False), ("राम", "रामायण", False), ("राम", "हे राम!", True),
    ("阿明", "阿明你好", True), ("me", "漢me字", True), ("민수", "민수야", True), ("Aнна", "aннатолий", False), ("straße", "STRASSE", True), ("me", "me2", False),
    ("", "x", False), ("a+b", "a+b", True), ("x", "xx xx", False), ("bob", "@bob:", True), ("عمر", "العمرة", False), ("bob~2", "bob~2: hi", True)])
def test_a_mention_is_a_word_in_every_script_however_it_is_written(name, text, found):
    assert ui.mentions(ui.fold(name), ui.fold(text)) == found


def test_find_sees_through_capitals_and_composition():
    back = Scrollback()
    back.add("Zoë".encode(), ["un cafe\u0301, s'il vous plaît".encode(), "Straße".encode(), b"end"])
    for sought, number in (("CAFÉ", 0), ("cafe\u0301", 0), ("strasse", 1), ("zoe\u0308: end", 2), ("caff", None)):
        assert back.find(ui.fold(sought), 9) == number, sought


def test_comparing_hostile_text_is_not_quadratic():
    piled = "a" + "\u0301\u0316" * 40_000
    began = time.process_time()
    ui.fold(piled)
    assert ui.fold(piled) == ui.fold(piled[:100]), "what nobody can see is not compared"
    assert time.process_time() - began < 1, "it took a minute"


# ---- keys ---------------------------------------------------------------------------------------------------

STREAM = ("hé\U0001f600\r\x1b[A\x1bOB\x1b[1;5C\x1b[[A\x1b]0;title\x07x\x1bPq\x1b\\y\x1b[200~a\r\nb\x1b[c\x1b[201~\x7f\x1bz"
          "\x1b[<0;1;2M\x1b[99~\x1b\x1b[D\x03").encode() + b"\xff\xc3(\x04"


def joined(tokens):
    """Text runs may be cut anywhere; everything else may not."""
    out = []
    for token in tokens:
        if token.kind == "text" and out and out[-1][0] == "text":
            out[-1] = ("text", out[-1][1] + token.text)
        else:
            out.append((token.kind, token.text))
    return out


WHOLE = [("text", "hé\U0001f600"), ("key", "\r"), ("key", "\x1b[A"), ("key", "\x1bOB"), ("key", "\x1b[1;5C"),
         ("key", "\x1b[[A"), ("text", "xy"), ("paste", "a\r\nb\x1b[c"), ("key", "\x7f"), ("key", "\x1bz"),
         ("key", "\x1b[<0;1;2M"), ("key", "\x1b[99~"), ("key", "\x1b\x1b[D"), ("key", "\x03"), ("text", "\ufffd\ufffd("),
         ("key", "\x04")]


def test_decoder_gives_the_same_tokens_at_every_split():
    assert joined(Decoder().feed(STREAM, 0)) == WHOLE
    for cut in range(len(STREAM)):
        decoder = Decoder()
        assert joined(decoder.feed(STREAM[:cut], 0) + decoder.feed(STREAM[cut:], 0)) == WHOLE, cut


def test_decoder_gives_the_same_tokens_byte_by_byte_and_at_random_splits():
    rng = random.Random(SEED)
    for largest in [1] + [rng.randrange(2, 9) for _ in range(200)]:
        decoder, tokens, rest = Decoder(), [], STREAM
        while rest:
            size = rng.randint(1, largest)
            tokens += decoder.feed(rest[:size], 0)
            rest = rest[size:]
        assert joined(tokens) == WHOLE
        assert decoder.deadline is None


@pytest.mark.parametrize("answer", [
    "\x1b[?62;1;22c", "\x1b[24;80R", "\x1b]11;rgb:0000/0000/0000\x1b\\", "\x1b]10;?\x07", "\x1bP>|tmux 3.3a\x1b\\", "\x1b[?2026;2$y", "\x1b[<0;10;20M",
    "\x1b[M !!", "\x1b[8;24;80t", "\x1b_Gi=1;OK\x1b\\", "\x1b[I", "\x1b[O", "\x1b[?1u", "\x1b[200;1~", "\x1b[48;24;80;0;0t"])
def test_what_a_terminal_answers_types_nothing_whole_or_in_pieces_a_second_apart(answer):
    for cuts in [[], *([cut] for cut in range(2, len(answer))), list(range(2, len(answer)))]:
        decoder, now, tokens = Decoder(), 100.0, []
        for start, stop in zip([0, *cuts], [*cuts, len(answer)]):
            now += 0.01 if BARE.fullmatch(answer[:start]) else 0.99 if len(cuts) < 2 else 0.5
            tokens += decoder.expire(now) + decoder.feed(answer[start:stop].encode(), now)
        tokens += decoder.feed(b"x", now)
        assert [token.text for token in tokens if token.kind == "text"] == ["x"], cuts
        assert all(KEYBOARD.key(token.text)[1] == "" and KEYBOARD.key(token.text)[0] not in ui.EDITS for token in tokens if token.kind == "key")


def test_what_begins_an_answer_is_a_key_when_nothing_follows():
    for bare in ("\x1b", "\x1b[", "\x1bO", "\x1b]", "\x1bP", "\x1b^"):
        decoder = Decoder()
        assert decoder.feed(bare.encode(), 1.0) == [] and decoder.deadline == 1.0 + ui.ESC_SECONDS
        assert decoder.expire(1.1) == [ui.Token("key", bare)] and joined(decoder.feed(b"a", 1.2)) == [("text", "a")]


def test_an_answer_whose_end_is_lost_swallows_no_keys_for_long():
    decoder, now = Decoder(), 100.0
    decoder.feed(b"\x1b]11;rgb", now)
    tokens = []
    for _ in range(100):
        now += 0.3
        tokens += decoder.expire(now) + decoder.feed(b"a", now)
    assert len("".join(token.text for token in tokens)) > 15
    for key in "\r\x7f\x03":
        assert decoder.feed(b"\x1b]11;rgb" + key.encode(), now)[-1].text == key


# Bytes as typed, what blessed calls the key, and what it types. [kitty 6279, xterm.js 998, tmux 4846]
KEYS = [
    ("\x1b[99;5u", "Ctrl-C", ""), ("\x1b[27;5;99~", "Ctrl-C", ""), ("\x03", "Ctrl-C", ""), ("\x1b[97;1u", "A", "a"), ("\x1b[97u", "A", "a"), ("\x1b[228u", "", "ä"),
    ("\x1b[97;2u", "A", "A"), ("\x1b[97;65u", "A", "A"), ("\x1b[97;129u", "A", "a"), ("\x1b[13;2u", "Shift-Enter", ""), ("\x1b[27;2;13~", "Shift-Enter", ""),
    ("\x1b\r", "Alt-Enter", ""), ("\x1b\n", "Alt-Enter", ""), ("\n", "Enter", ""), ("\r", "Enter", ""), ("\x1b[106;5u", "Ctrl-J", ""), ("\x1bOM", "Enter", ""), ("\x1b[57414u", "Enter", ""),
    ("\x1bOq", "1", "1"), ("\x1bOp", "0", "0"), ("\x1bOk", "Add", "+"), ("\x1bOn", "Decimal", "."), ("\x1b[57400u", "1", "1"), ("\x1b[57417u", "Left", ""),
    ("\x1bOd", "Ctrl-Left", ""), ("\x1bOc", "Ctrl-Right", ""), ("\x1b[d", "Left", ""), ("\x1b\x1b[D", "Alt-Left", ""), ("\x1b\x1bOC", "Alt-Right", ""), ("\x1bO5D", "Ctrl-Left", ""),
    ("\x1b[5C", "Ctrl-Right", ""), ("\x1b[1;129D", "Left", ""), ("\x1b[1;1:1D", "Left", ""), ("\x1b[1;1:2D", "Left", ""), ("\x1b[1;1:3D", "", ""), ("\x1b[1;2D", "Left", ""),
    ("\x1b[1;6D", "Ctrl-Left", ""), ("\x1b[D", "Left", ""), ("\x1bOD", "Left", ""), ("\x1b[7~", "Home", ""), ("\x1b[1~", "Home", ""), ("\x1bOH", "Home", ""), ("\x1b[7^", "Ctrl-Home", ""),
    ("\x1b[8^", "Ctrl-End", ""), ("\x1b[1;5F", "Ctrl-End", ""), ("\x1b[3~", "Delete", ""), ("\x1b[3$", "Delete", ""), ("\x1b[3;133~", "Ctrl-Delete", ""), ("\x1b\x1b[3~", "Alt-Delete", ""),
    ("\x1b[Z", "Shift-Tab", ""), ("\x1b[9;2u", "Shift-Tab", ""), ("\x1b[27;2;9~", "Shift-Tab", ""), ("\x1b[9u", "Tab", ""), ("\x1b[105;5u", "Ctrl-I", ""), ("\x1b[127u", "Backspace", ""),
    ("\x1b[127;3u", "Alt-Backspace", ""), ("\x7f", "Backspace", ""), ("\x08", "Backspace", ""), ("\x1b\x7f", "Alt-Backspace", ""), ("\x1bb", "Alt-B", ""), ("\x1bB", "Alt-B", ""),
    ("\x1b[98;3u", "Alt-B", ""), ("\x1b[27;3;98~", "Alt-B", ""), ("\x1f", "Ctrl-_", ""), ("\x1b[95;5u", "Ctrl-Underscore", ""), ("\x1b[27u", "Escape", ""), ("\x1b[5;1~", "PageUp", ""),
    ("\x1b[99;5:3u", "", ""), ("\x1b[99;5:2u", "Ctrl-C", ""), ("\x1b[1114112u", "", ""), ("\x1b[99999999999999999999u", "", ""), ("\x1b[27;5;99999999999999999999~", "", ""),
    ("\x1b[8238u", "", ""), ("\x1b[55296u", "", ""), ("\x1b[0u", "", ""), ("\x1b[1;99999999999999999999D", "", None), ("\x1b[99~", "", ""), ("\x1b[[A", "", None), ("\x1b[M!!!", "", ""),
    ("\x1b[57441;2u", "Left-Shift", ""), ("\x1b[118;9u", "Super-V", "")]


@pytest.mark.parametrize("term", ["xterm-256color", "linux", "vt100", "rxvt", "nonsense"])
def test_every_key_is_what_blessed_calls_it_however_its_bytes_are_cut(term):
    keyboard = keyboard_of(term)
    for typed, name, text in KEYS:
        data = typed.encode()
        for size in {1, 2, len(data)}:
            decoder, tokens = Decoder(), []
            for at in range(0, len(data), size):
                tokens += decoder.feed(data[at:at + size], 0)
            tokens += decoder.expire(1)
            assert [token.text for token in tokens] == [typed], typed
        called, types = keyboard.key(typed)
        assert types == "" if text is None else (ui.readable(called) if called else "", types) == (name, text), (term, typed, called, types)


def keyboard_of(term):
    return ui.Keyboard(blessed.Terminal(kind=term, stream=io.StringIO(), force_styling=True))


KEYBOARD = keyboard_of("xterm-256color")


def test_no_sequence_is_too_odd_for_the_keyboard():
    rng = random.Random(SEED)
    for _ in range(3000):
        data = "\x1b" + "".join(rng.choices("\x1b[[O;;:?0123456789~^$@uACDMPRZabdmt \x7f\r", k=rng.randrange(12)))
        for token in Decoder().feed(data.encode(), 0):
            name, text = KEYBOARD.key(token.text) if token.kind == "key" else ("", "")
            assert text.isprintable() and len(text) <= 8 and isinstance(name, str), data


def test_a_key_is_looked_up_once():
    keyboard = keyboard_of("xterm-256color")
    for _ in range(1000):
        keyboard.key("\x01")
    assert keyboard.key.cache_info().misses == 1 and keyboard.key.cache_info().maxsize == ui.KEYS_KEPT


def test_decoder_never_gives_a_control_as_text_whatever_comes():
    rng = random.Random(SEED)
    for _ in range(2000):
        decoder = Decoder()
        data = bytes(rng.choice(b"\x1b\x1b\x1b[[]O;?01~mAPX^_\\\x07\x18\x9b\xc2\xff a\r") for _ in range(40))
        for token in decoder.feed(data, 0) + decoder.expire(9):
            assert token.kind != "text" or token.text.isprintable()


def test_a_lone_escape_is_a_key_only_after_its_deadline():
    decoder = Decoder()
    assert decoder.feed(b"\x1b", 10.0) == []
    assert decoder.deadline == 10.0 + ui.ESC_SECONDS
    assert decoder.expire(10.0) == []
    assert decoder.expire(11.0) == [ui.Token("key", "\x1b")]
    assert decoder.deadline is None


def test_a_sequence_that_never_ends_costs_nothing_and_types_nothing():
    decoder = Decoder()
    for start in (b"\x1b[", b"\x1b]", b"\x1bP", b"\x1bO"):
        tokens = decoder.feed(start, 0)
        for _ in range(50):
            tokens += decoder.feed(b"1" * 1000, 0)
            assert len(decoder._rest) <= 2000
        tokens += decoder.feed({b"\x1b[": b"~", b"\x1bO": b"~"}.get(start, b"\x1b\\") + b"x", 0)
        assert joined(tokens)[-1] == ("text", "x") and len(joined(tokens)) <= 2, start


def test_a_paste_stays_open_across_slow_reads_and_is_kept_if_its_end_is_lost():
    decoder = Decoder()
    assert decoder.feed(b"\x1b[200~one\r", 0.0) == []
    assert decoder.expire(1.5) == []
    assert decoder.feed(b"two\x1b[2", 1.5) == []
    assert decoder.deadline == 1.5 + ui.PIECE_SECONDS
    assert decoder.expire(4.0) == [ui.Token("paste", "one\rtwo")]
    assert joined(decoder.feed(b"x", 5.0)) == [("text", "x")]


def test_a_paste_is_capped_and_says_how_much_was_lost():
    decoder = Decoder()
    tokens = decoder.feed(b"\x1b[200~" + b"x" * (ui.INPUT_LIMIT + 5) + b"\x1b[201~", 0)
    assert [(len(token.text), token.lost) for token in tokens] == [(ui.INPUT_LIMIT, 5)]


# ---- editing: the cursor is the bar -------------------------------------------------------------------------

def line(marked):
    return Line(marked.replace("|", ""), marked.index("|"))


def marked(edited):
    return edited.text[:edited.at] + "|" + edited.text[edited.at:]


@pytest.mark.parametrize("edit, start, result", [
    (ui.backspace, "foo bar|", "foo ba|"), (ui.backspace, "|foo", "|foo"), (ui.backspace, "foo|bar", "fo|bar"),
    (ui.delete, "foo |bar", "foo |ar"), (ui.delete, "foo|", "foo|"), (ui.left, "foo ba|r", "foo b|ar"), (ui.left, "|a", "|a"),
    (ui.right, "fo|o", "foo|"), (ui.right, "foo|", "foo|"), (ui.home, "foo|", "|foo"), (ui.end, "|foo", "foo|"),
    (ui.home, "a\nfo|o", "a\n|foo"), (ui.end, "f|oo\nbar", "foo|\nbar"), (ui.left, "a\n|b", "a|\nb"),
    (ui.left, f"a{FAMILY}|b", f"a|{FAMILY}b"), (ui.right, f"a|{FAMILY}b", f"a{FAMILY}|b"),
    (ui.backspace, f"a{FAMILY}|b", "a|b"), (ui.delete, f"a|{FAMILY}b", "a|b"), (ui.backspace, "xe\u0301|", "x|"),
    (ui.right, "|e\u0301x", "e\u0301|x"), (ui.left, "漢字|", "漢|字"), (ui.backspace, "🇩🇪🇫🇷|", "🇩🇪|")])
def test_edits(edit, start, result):
    assert marked(edit(line(start))) == result


WORDS = [
    (ui.word_left, "foo bar|", "foo |bar"), (ui.word_left, "foo  |bar", "|foo  bar"), (ui.word_left, "|a", "|a"),
    (ui.word_right, "|foo bar", "foo| bar"), (ui.word_right, "foo| -- bar", "foo -- bar|"), (ui.word_right, "a|", "a|"),
    (ui.word_right, "|e\u0301te\u0301 x", "e\u0301te\u0301| x"), (ui.blank_left, "a b-c.d  |", "a |b-c.d  "),
    (ui.word_left, f"x {FAMILY}|", f"|x {FAMILY}"), (ui.to_end, "a|b\nc", "ab|\nc"), (ui.to_end, "ab|\nc", "ab\n|c"),
    (ui.to_start, "a\nb|c", "a\n|bc"), (ui.to_start, "a\n|b", "a|\nb"), (ui.transpose, "ab|", "ba|"), (ui.transpose, "a|bc", "ba|c"),
    (ui.transpose, "|ab", "|ab"), (ui.transpose, "a|", "a|"), (ui.transpose, f"e\u0301{FAMILY}|", f"{FAMILY}e\u0301|")]


@pytest.mark.parametrize("edit, start, result", WORDS)
def test_motions_by_word_and_swaps(edit, start, result):
    assert marked(edit(line(start))) == result


NAMES = {ui.readable(name): name for name in ui.KEY_NAMES}


def press(*keys, start="|", said=(), complete=lambda word, begins: []):
    """What an Editor holds after these keys, called as in the help; anything else is typed."""
    editor = ui.Editor(complete)
    for text in said:
        editor.insert(text)
        editor.take()
    editor.line = line(start)
    for key in keys:
        if key not in NAMES or not editor.key(NAMES[key]):
            editor.insert(key)
    return editor


@pytest.mark.parametrize("start, keys, result", [
    ("one two|", ["Ctrl-W", "Ctrl-Y", "Ctrl-Y"], "one twotwo|"), ("one two|", ["Ctrl-W", "Ctrl-W", "Ctrl-Y"], "one two|"),
    ("one| two x", ["Alt-D", "Alt-D", "Home", "Ctrl-Y"], " two x|one"), ("a b|c", ["Ctrl-K", "Ctrl-A", "Ctrl-Y"], "c|a b"),
    ("a b|c", ["Ctrl-U", "End", "Ctrl-Y"], "ca b|"), ("a-b|", ["Alt-Backspace", "x"], "a-x|"), ("a|b", ["Alt-Enter"], "a\n|b"),
    ("a|b", ["Left", "Ctrl-F", "Right", "Ctrl-B"], "a|b"), ("one two|", ["Ctrl-Left", "Alt-B", "Alt-Right"], "one| two"),
    ("|", ["Ctrl-Y", "Ctrl-_", "Ctrl-W", "Ctrl-K", "Ctrl-T"], "|"), ("a|", ["b", "c", " ", "d", "Ctrl-_"], "abc|"),
    ("a|", ["b", "c", "Ctrl-_"], "a|"), ("a b|", ["Ctrl-W", "Ctrl-_"], "a b|"), ("a b|", ["Ctrl-W", "Ctrl-_", "Ctrl-_"], "a b|"),
    ("ab|", ["Backspace", "Home", "Delete", "Ctrl-_", "Ctrl-_"], "ab|")])
def test_keys_of_readline(start, keys, result):
    assert marked(press(*keys, start=start).line) == result


def test_a_search_in_the_history_shows_the_newest_match_and_can_be_left_either_way():
    said = ["ls one", "cd two", "ls three"]
    assert marked(press("Ctrl-R", "l", "s", said=said).line) == "|ls three"
    assert marked(press("Ctrl-R", "ls", "Ctrl-R", said=said).line) == "|ls one"
    assert marked(press("Ctrl-R", "ls", " o", "Backspace", "Backspace", said=said).line) == "|ls three"
    assert marked(press("Ctrl-R", "ls", "Escape", said=said, start="dra|ft").line) == "dra|ft"
    assert marked(press("Ctrl-R", "tw", "End", "!", said=said).line) == "cd two!|"
    assert marked(press("Ctrl-R", "tw", "Down", "Down", said=said, start="draft|").line) == "draft|"
    assert marked(press("Ctrl-R", "\u0301", said=["xe\u0301"]).line) == "x|e\u0301"
    failed = press("Ctrl-R", "ls", "x", said=said)
    assert failed.search.failed and marked(failed.line) == "|ls three"


def test_tab_goes_through_the_choices_and_back_to_what_was_typed():
    def names(word, begins):
        return [name + (": " if begins else " ") for name in ("bob", "bea") if name.startswith(word)]
    seen = [press(*["Tab"] * count, start="b|", complete=names).line.text for count in range(5)]
    assert seen == ["b", "bob: ", "bea: ", "b", "bob: "]
    assert marked(press("Tab", start="hi b| x", complete=names).line) == "hi bob | x"
    assert marked(press("Tab", "Tab", start="x|", complete=names).line) == "x|"
    assert marked(press("Tab", "Tab", start="bo|", complete=names).line) == "bob: |", "the only choice stays"
    assert marked(press("Tab", "c", "Tab", start="b|", complete=names).line) == "bob: c|"


def test_every_key_has_one_meaning():
    keys = [name for names, _, _ in ui.EDIT_KEYS + ui.SCREEN_KEYS for name in names.split()]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("typed, label", [
    ("one line|", ""), ("a\nb\n|c", "3 lines; Enter to send"), ("x" * 2048 + "|", ""), ("x" * 2049 + "|", "C users will see 2 messages"),
    ("漢" * 1400 + "|", "C users will see 3 messages"), ("\n" * 2048 + "|a", "1 line; Enter to send"), ("a\n|", "1 line; Enter to send"),
    ("a" + "\n" * 2048 + "b|", "2,049 lines; Enter to send; C users will see 2 messages"), ("\n|", "")])
def test_what_enter_will_send_is_told_before(typed, label):
    editor = press(start=typed)
    assert editor.label == label.partition("; C")[0] * (label[0:1] != "C"), "nobody uses the C program"
    editor.c_users = True
    assert editor.label == label


@pytest.mark.parametrize("cols, anchor, label, row", [
    (30, None, "", "---- me " + "-" * 22), (30, None, "search: l\ns", "---- me ---- search: l s " + "-" * 5),
    (20, None, "search: l\ns", "---- search: l s " + "-" * 3), (50, (0, 0), "", "---- me ---- 3 new; PageDown for newer " + "-" * 11),
    (60, (0, 0), "2 lines", "---- me ---- 3 new; PageDown for newer ---- 2 lines " + "-" * 8), (14, (0, 0), "2 lines", "3 new" + "-" * 9),
    (14, None, "search: 漢字漢字漢字", "search: 漢字.."), (3, None, "search: a", "sea"), (20, None, "x 漢", "---- me ---- x 漢 " + "-" * 2),
    (3, None, "", "---")])
def test_the_rule_tells_what_it_has_room_for(cols, anchor, label, row):
    shown = view((b"al", b"1"), (b"al", b"2"), (b"al", b"3"), anchor=anchor, label=label, me="me")
    assert render(shown, 8, cols, ui.PLAIN).rows[-4] == row


def test_the_rule_names_help_until_the_first_message():
    assert plain(view((None, b"linked"), me="me"), 8, 40)[-4] == "---- me ---- :help for help " + "-" * 12
    assert plain(view((None, b"linked"), (b"al", b"1"), me="me"), 8, 40)[-4] == "---- me " + "-" * 32


def test_undo_and_kills_are_bounded(monkeypatch):
    monkeypatch.setattr(ui, "UNDO_CHARACTERS", 1000)
    editor = press()
    for _ in range(500):
        editor.insert("x" * 50)
        editor.insert(" ")
    assert sum(len(old.text) for old in editor._undo) <= 1000


def test_pasting_what_was_cut_ends_at_the_limit_of_the_input(monkeypatch):
    monkeypatch.setattr(ui, "INPUT_LIMIT", 10)
    assert press("Ctrl-U", *["Ctrl-Y"] * 9, start="abcd|").line.text == "abcdabcd"


def test_a_search_takes_no_megabytes():
    assert len(press("Ctrl-R", "x" * 10_000).search.query) == ui.QUERY


def test_random_keys_never_leave_the_cursor_inside_a_grapheme():
    rng = random.Random(SEED)
    for _ in range(60):
        editor = ui.Editor(lambda word, begins: ["bob "])
        for _ in range(60):
            if rng.random() < .4:
                editor.insert(rng.choice(PIECES).replace("\x1b", "").replace("\u200b", ""))
            else:
                editor.key(rng.choice(sorted(ui.EDITS)))
            text, at = editor.line
            assert at in (0, len(text)) or ui.after(text, ui.before(text, at)) == at, (text, at)


def test_a_key_in_a_huge_input_costs_little():
    editor = ui.Editor(lambda word, begins: [])
    editor.line = Line("x" * 10**6, 500_000)
    began = time.process_time()
    for key in ("Ctrl-W", "Ctrl-_", "Alt-D", "Ctrl-T", "Alt-B", "Ctrl-K"):
        assert editor.key(NAMES[key])
    assert time.process_time() - began < 0.06


def test_inserted_text_keeps_its_newlines_and_loses_its_controls():
    assert marked(ui.insert(line("a|b"), "x\r\ny\rz\t\x00\x1b\x9b")) == "ax\ny\nz    |b"


def test_history_keeps_the_draft():
    history = ui.History()
    history.add("one")
    history.add("two")
    history.add("two")
    at = history.move(line("dra|ft"), -1)
    assert marked(at) == "two|"
    assert marked(history.move(at, -1)) == "one|"
    assert marked(history.move(line("one|"), -1)) == "one|"
    assert marked(history.move(line("one|"), 1)) == "two|"
    assert marked(history.move(line("two|"), 1)) == "draft|"
    assert marked(history.move(line("draft|"), 1)) == "draft|"


def test_history_is_bounded():
    history = ui.History()
    for at in range(20):
        history.add(str(at) * (ui.INPUT_LIMIT // 2))
    assert sum(map(len, history._texts)) <= ui.HISTORY_BYTES


# ---- wrapping and rendering ---------------------------------------------------------------------------------

def wrapped(text, width, rest, **kind):
    return [text[span.start:span.end] for span in ui.wrap(text, width, rest, **kind)]


@pytest.mark.parametrize("text, rows", [
    ("", [""]), ("abc", ["abc"]), ("al: one two three", ["al: one", "two", "three"]), ("abcdefghijklm", ["abcdefgh", "ijklm"]),
    ("a\n\nb", ["a", "", "b"]), ("a\n", ["a", ""]), ("12345678 9", ["12345678", "9"]), ("漢字漢字漢字", ["漢字漢字", "漢字"]),
    ("a http://x/y-z", ["a", "http:/", "/x/y-z"]), ("ab 23456789", ["ab 23456", "789"]), ("a b https://c", ["a b", "https:", "//c"]),
    ("abcdefg漢", ["abcdefg", "漢"]), ("abcdefge\u0301x", ["abcdefge\u0301", "x"])])
def test_wrap(text, rows):
    assert wrapped(text, 8, 6) == rows


def test_simple_characters_are_what_the_shortcut_takes_them_for():
    runs = ui.SIMPLE.findall("".join(map(chr, range(0x20000))))  # no higher ones are simple
    simple = "".join(runs)
    assert len(simple) > 30_000
    for char in {*simple[::10], *(run[end] for run in runs if run for end in (0, -1))}:
        assert wcswidth(char) == (2 if char >= "\u1100" else 1), hex(ord(char))
    rng = random.Random(SEED)
    mixed = "".join(rng.choices(simple, k=5000))
    assert list(iter_graphemes(mixed)) == list(mixed)


MIXED = [*"aé漢한ไा", FAMILY, "e\u0301", "❤️", "🇩🇪", "🇫🇷", "👍🏽", "क्ष", "र‍्या", "ന്‍", "\u1112\u1161\u11ab", "שָׁ", "🎉", "🙂‍↔️", " ", "\ufffd", "می‌خ", "ำ", "\u0600"]


def test_our_graphemes_are_as_wide_as_those_of_wcwidth():
    rng = random.Random(SEED)
    for _ in range(2000):
        text = clean_text("".join(rng.choices(MIXED, k=rng.randrange(1, 12))).encode())
        parts = [text[start:stop] for start, stop in ui.graphemes(text, 0, len(text))]
        assert "".join(parts) == text and ui.cells(text) == wcswidth(text), ascii(text)


@pytest.mark.parametrize("unit", [FAMILY, "a" + "\u0301\u0316" * 99, "क्\u200d", "\u1112\u1161\u11ab", "\n\u0301", "🇩🇪", "\u0301", "❤\ufe0f", "\u200d", "\x01", "w "])
def test_of_a_huge_message_only_what_is_in_view_is_laid_out(unit):
    back = Scrollback("me")
    back.add(b"eve", [unit.encode() * (60_000 // len(unit.encode()))])
    assert back.messages == 1 and back.end > 20
    for anchor in (None, (0, 0), (back.end // 2, 0)):
        back._entries.clear()
        render(View("", back, anchor, 0, Line("", 0)), 24, 80, STYLE)
        assert len(back._entries) <= 20
        assert sum(span.end - span.start for entry in back._entries.values() for span in entry.spans) < 25_000
        assert all(len(entry.text) <= ui.PIECE_BYTES + 99 for entry in back._entries.values())


def test_a_long_message_is_one_message_whole_and_forges_nothing():
    text = " ".join(f"word{number}" for number in range(2000)) + "\n-- bob left\n" + "漢" * 3000
    back = Scrollback("me")
    back.add(b"al", [text.encode(), b"short"], NOON)
    assert back.messages == 2 and back.end > 5
    rows = [row.rstrip() for row in render(View("", back, (0, 0), 0, Line("", 0)), 500, 70, ui.PLAIN).rows][1:-4]
    rows = [row for row in rows if row]
    assert rows[0].startswith("12:00 al: word0 ") and all(row[:10].isspace() for row in rows[1:-1]) and rows[-1] == "12:00 al: short"
    said = " ".join([rows[0][10:], *(row.strip() for row in rows[1:-1])])
    assert said.replace(" ", "") == text.replace("\n", "").replace(" ", "")
    assert "".join(back.transcript()) == f"{'12:00 '}al: " + text.replace("\n", "\n" + " " * 10) + "\n12:00 al: short\n"


def test_a_piece_never_begins_with_a_mark():
    for unit in ("ก็", "e\u0301", FAMILY, "क्ष", "🇩🇪"):
        parts = list(ui.pieces((unit * 3000).encode()))
        assert b"".join(parts) == (unit * 3000).encode() and all(len(part) <= ui.PIECE_BYTES for part in parts)
        assert not any(part.decode()[0] in "็\u0301\u200d्" for part in parts), unit


def test_wrap_without_words_loses_no_character():
    assert "".join(wrapped("a b  c" * 9, 7, 7, words=False)) == "a b  c" * 9


STYLE = ui.Style("\x1b[1m", "\x1b[2m", "\x1b[m", "\x1b[7m", ("\x1b[31m", "\x1b[32m"))
PIECES = ["a", "word ", "漢字", FAMILY, "e\u0301", "❤️", "🇩🇪", "ไทย", "\n", " ", "x" * 90, "שלום", "\x1b[31m", "\t", "\u200b"]


def bare(row):
    return re.sub("\x1b\\[[0-9]*m", "", row)


def random_text(rng, most):
    return "".join(rng.choice(PIECES) for _ in range(rng.randrange(most)))


def random_view(rng, rows, cols):
    back = Scrollback("al")
    back.times, back.read = rng.random() < .5, rng.choice([None, 0, 5])
    for _ in range(rng.randrange(60)):
        back.add(random_text(rng, 5).encode(), [random_text(rng, 20).encode()], rng.choice([0, 9e8, 9e8 + 99999]), rng.randrange(4))
    typed = ui.insert(Line("", 0), random_text(rng, rng.choice([3, 30, 300])))
    at = rng.randrange(len(typed.text) + 1)
    typed = Line(typed.text, ui.before(typed.text, at) if at else 0)
    anchor = None
    if back.end and rng.random() < .5:
        anchor = back.anchor_of((rng.randrange(back.end), 0), cols)
    names = [clean_name(random_text(rng, 5).encode()) for _ in range(rng.randrange(9))]
    label = rng.choice(["", "search: " + random_text(rng, 9)])
    row = ui.status(4711, names, len(names), "join: ./p2pchat NAME host 4711", cols)
    return View(row, back, anchor, rng.randrange(back.messages + 1), typed, label, clean_name(random_text(rng, 5).encode()))


@pytest.mark.parametrize("seed", range(SEED, SEED + 5))
def test_a_frame_has_exactly_the_cells_of_its_screen(seed):
    rng = random.Random(seed)
    sizes = [(1, 1), (1, 2), (2, 1), (3, 3), (500, 200)][seed % 5:seed % 5 + 1]
    sizes += [(rng.randint(1, 12), rng.randint(1, 30)) for _ in range(20)] + [(rng.randint(1, 60), rng.randint(1, 200))]
    for rows, cols in sizes:
        frame = render(random_view(rng, rows, cols), rows, cols, STYLE)
        assert len(frame.rows) == rows
        for row in frame.rows:
            assert wcswidth(bare(row)) == cols, (rows, cols, row)
            assert all(c.isprintable() or c in ui.JOINERS for c in bare(row)), (rows, cols, row)
        assert 0 <= frame.cursor[0] < rows and 0 <= frame.cursor[1] < cols


NOON = int(time.mktime((2026, 11, 22, 12, 0, 0, 0, 0, -1)))


def view(*messages, status="SERVER: 1", anchor=None, seen=0, typed="|", label="", times=True, read=None, me=""):
    back = Scrollback("me", NOON)
    back.times, back.read = times, read
    for name, text, *when in messages:
        back.add(name or b"", [text], *(when or [0, ui.LIVE if name else ui.NOTICE]))
    colors = ui.Colors(len(STYLE.colors))
    colors.here(dict.fromkeys(said[0] for said in messages if said[0]))
    return View(status, back, anchor, seen, line(typed), label, me, colors)


def plain(shown, rows, cols):
    return [row.rstrip() for row in render(shown, rows, cols, ui.PLAIN).rows]


def test_the_whole_screen():
    shown = view((b"al", b"hello"), (None, b"bob left"), (b"bob", b"one two three four"), (b"bo", b"a\nb"), typed="foo ba|r")
    assert plain(shown, 13, 16) == [
        "SERVER: 1", "al: hello", "-- bob left", "bob: one two", "    three four", "bo: a", "    b", "", "", "-" * 16,
        "foo bar", "", ""]
    assert render(shown, 13, 16, ui.PLAIN).cursor == (10, 6)


def test_messages_scroll_only_once_the_area_is_full():
    messages = [(b"al", b"%d" % at) for at in range(9)]
    assert plain(view(*messages[:3]), 10, 9)[1:6] == ["al: 0", "al: 1", "al: 2", "", ""]
    assert plain(view(*messages), 10, 9)[1:6] == ["al: 4", "al: 5", "al: 6", "al: 7", "al: 8"]


def test_nothing_of_a_text_ever_starts_a_row():
    hostile = "x -- bob left\n-- bob left\nal: yes\n" + "-- y " * 30 + "漢字" * 40
    for cols in range(2, 40):
        rows = plain(view((b"m", hostile.encode())), 900, cols)[1:-4]
        assert rows[0][0] == "m" and all(row[:1] in ("", " ") for row in rows[1 + (cols < 3):]), cols


def test_the_status_is_cut_gracefully():
    status = "SERVER: 4711  join: ./p2pchat NAME host 4711"
    assert plain(view(status=status), 10, 60)[0] == status
    assert plain(view(status=status), 10, 24)[0] == "SERVER: 4711  join: ./.."
    assert plain(view(status=status), 10, 6)[0] == "SERVER"


@pytest.mark.parametrize("rows, parts", [(1, "i"), (2, "mi"), (3, "smi"), (4, "smri"), (6, "smmmri"), (7, "smmmrii"), (9, "smmmmriii")])
def test_on_a_tiny_screen_the_input_survives(rows, parts):
    heights = ui.layout(rows)
    assert "s" * heights.status + "m" * heights.messages + "r" * heights.rule + "i" * heights.input == parts


def test_names_have_colours_and_our_own_is_bold_and_notices_are_dim():
    shown = view((b"al", b"hi"), (None, b"bob left"), (b"me", b"hi", NOON, ui.OWN), (b"cy", b"hi"))
    rows = [row.rstrip() for row in render(shown, 10, 20, STYLE).rows[:5]]
    assert rows == ["\x1b[7mSERVER: 1           \x1b[m", "\x1b[31mal\x1b[m: hi", "\x1b[2m-- bob left\x1b[m", "\x1b[1mme\x1b[m: hi", "\x1b[32mcy\x1b[m: hi"]
    mono = render(shown, 10, 20, STYLE._replace(colors=())).rows
    assert mono[1].rstrip() == "al: hi" and mono[3].startswith("\x1b[1mme\x1b[m:")


def test_those_who_are_here_have_different_colours_while_there_are_enough():
    names = [b"ann", b"cy", b"eve", b"fay"]
    colors = ui.Colors(16)
    alone = {name: colors.of(name) for name in names}
    assert alone[b"ann"] == alone[b"cy"] and alone[b"eve"] == alone[b"fay"], "these collide"
    colors.here(names)
    given = {name: colors.of(name) for name in names}
    assert len(set(given.values())) == 4 and given[b"ann"] == alone[b"ann"]
    colors.here([b"fay", b"new", b"cy", b"ann"])
    assert {name: colors.of(name) for name in (b"fay", b"cy", b"ann")} == {name: given[name] for name in (b"fay", b"cy", b"ann")}, "they keep them"
    assert colors.of(b"eve") == alone[b"eve"]
    colors.here([b"%d" % number for number in range(2000)])
    assert len({colors.of(b"%d" % number) for number in range(16)}) == 16


@pytest.mark.parametrize("text, called", [
    ("me", True), ("hi Me!", True), ("me: yes", True), ("some", False), ("me2", False), ("me_", False), ("漢me字", True), ("", False)])
def test_a_mention_of_our_name_stands_out(text, called):
    row = render(view((b"al", text.encode())), 10, 20, STYLE).rows[1].rstrip()
    assert row == (f"\x1b[31m\x1b[7mal\x1b[m\x1b[1m: {text}\x1b[m" if called else f"\x1b[31mal\x1b[m: {text}".rstrip())


def test_nobody_is_mentioned_by_himself_or_before_he_came():
    rows = render(view((b"me", b"me", NOON, ui.OWN), (b"al", b"me", NOON, ui.EARLIER), (None, b"me")), 10, 40, STYLE).rows
    assert not any("\x1b[7m" in row for row in rows[1:])


def test_every_colour_can_be_read_on_black_and_on_white():
    def luminance(number):
        levels = [(0, 95, 135, 175, 215, 255)[(number - 16) // size % 6] / 255 for size in (36, 6, 1)]
        return sum(part * (level / 12.92 if level < .04 else ((level + .055) / 1.055) ** 2.4)
                   for part, level in zip((.2126, .7152, .0722), levels))
    for number in ui.COLORS_256:
        assert min((luminance(number) + .05) / .05, 1.05 / (luminance(number) + .05)) >= 4, number
    assert len(set(ui.COLORS_256)) == len(ui.COLORS_256) == 16


DAY = 24 * 60 * 60


@pytest.mark.usefixtures("any_day")
def test_times_days_and_where_the_earlier_history_ends():
    messages = [(b"al", b"old", NOON - DAY, ui.EARLIER), (b"bob", b"old", NOON - DAY + 60, ui.EARLIER), (b"al", b"hi", NOON, ui.LIVE),
                (None, b"bob left", NOON, ui.NOTICE), (b"me", b"one two three four five six", NOON + 60, ui.OWN)]
    marks = ["-- Saturday 21 November 2026", "-- earlier messages end here", "-- Sunday 22 November 2026"]
    texts = ["al: old", "bob: old", "al: hi", "-- bob left", "me: one two three four five six"]
    times = ["12:00 ", "12:01 ", "12:00 ", "12:00 ", "12:01 "]
    stamped = [time + text for time, text in zip(times, texts)]
    assert plain(view(*messages), 16, 60)[1:9] == [marks[0], *stamped[:2], *marks[1:], *stamped[2:]]
    for narrow in (plain(view(*messages), 16, 59), plain(view(*messages, times=False), 16, 60)):
        assert narrow[1:9] == [marks[0], *texts[:2], *marks[1:], *texts[2:]], "earlier ones neither: names begin in one column"
    long = plain(view((b"me", b"one two three four " * 4, NOON, ui.OWN)), 16, 60)
    assert long[1:3] == ["12:00 me: one two three four one two three four one two", "          three four one two three four"]
    assert plain(view((b"al", b"hi")), 10, 60)[1] == "      al: hi", "a time that is not known is left blank"


def test_times_are_dim():
    shown = view((b"al", b"hi", NOON), (b"me", b"hi", NOON, ui.OWN), (b"al", b"hi", NOON, ui.EARLIER))
    assert all(row.startswith("\x1b[2m12:00 \x1b[m\x1b[") for row in render(shown, 10, 60, STYLE).rows[1:3])


def test_a_mark_shows_where_reading_ended():
    said = [(b"al", b"%d" % at) for at in range(3)]
    assert plain(view(*said, read=2), 12, 40)[1:6] == ["al: 0", "al: 1", "-- new messages", "al: 2", ""]
    assert plain(view(*said, read=0), 12, 40)[1:5] == ["al: 0", "al: 1", "al: 2", ""], "nothing above it was read"
    assert plain(view(*said, read=3), 12, 40)[1:5] == ["al: 0", "al: 1", "al: 2", ""]


@pytest.mark.parametrize("times", [False, True])
def test_with_the_times_too_nothing_of_a_text_starts_a_row(times):
    hostile = "x -- bob left\n-- bob left\n12:00 al: yes\nal: yes\n" + "12:00 -- y " * 30 + "漢字" * 400 + "-- x\n" * 400
    for cols in (60, 61, 67, 78, 89):
        rows = plain(view((b"m", hostile.encode(), NOON, ui.LIVE), times=times), 900, cols)[1:-4]
        assert rows[0].startswith("12:00 m: x" if times else "m: x")
        assert all(not row[:10 if times else 4].strip() for row in rows[1:]), cols


@pytest.mark.parametrize("names, hint, cols, row", [
    ([], "join: x 1", 40, "SERVER: 4711  join: x 1"), ([], "", 40, "SERVER: 4711"), (["al", "bo"], "join: x 1", 40, "SERVER: 4711  here: al, bo  join: x 1"),
    (["al", "bo", "cy"], "join: x 1", 40, "SERVER: 4711  here: 3  join: x 1"),
    (["al", "bo", "cy"], "join: x 1", 42, "SERVER: 4711  here: al, bo, cy  join: x 1"), (["al", "bo", "cy"], "join: me me me 1", 32, "SERVER: 4711  here: al, bo, cy"),
    (["albert", "bo", "cy"], "join: me me me 1", 32, "SERVER: 4711  here: 3"),
    (["al", "bo"], "join: ./p2pchat NAME me 1", 40, "SERVER: 4711  here: al, bo  join: me 1"), ([], "join: ./p2pchat NAME me 1", 32, "SERVER: 4711  join: me 1"),
    ([], "join: ./p2pchat NAME me 1", 20, "SERVER: 4711  join: me 1"),
    (["albert", "bo", "cy"], "", 33, "SERVER: 4711  here: 3"),
    (["al", "bo", "cy", "di"], "", 35, "SERVER: 4711  here: al, bo, cy, di"), (["al"] * 9, "", 37, "SERVER: 4711  here: al, al and 7 more"),
    (["al"] * 9, "", 15, "SERVER: 4711"), ([f"{n}" for n in range(99)], "", 200, "SERVER: 4711  here: " + ", ".join(map(str, range(20))) + " and 79 more")])
def test_the_status_row_tells_what_it_has_room_for(names, hint, cols, row):
    assert ui.status(4711, names[:20], len(names), hint, cols) == row


@pytest.mark.parametrize("cols, row", [
    (80, "SERVER: 47110  nobody connected  join: ./p2pchat NAME 192.168.178.199 47110"),
    (74, "SERVER: 47110  nobody connected  join: 192.168.178.199 47110"), (50, "SERVER: 47110  nobody connected"), (20, "SERVER: 47110")])
def test_the_status_row_says_for_how_long_nobody_is_connected(cols, row):
    assert ui.status(47110, ["gone"], 1, "join: ./p2pchat NAME 192.168.178.199 47110", cols, alone=True) == row


@pytest.mark.parametrize("typed, rows, cursor", [
    ("|", ["", "", ""], (0, 0)), ("ab|", ["ab", "", ""], (0, 2)), ("abcd|", ["abcd", "", ""], (1, 0)),
    ("abc|d", ["abcd", "", ""], (0, 3)), ("a\n|b", ["a", "b", ""], (1, 0)), ("a|\nb", ["a", "b", ""], (0, 1)),
    ("abcdefghijklmnop|", ["ijkl", "mnop", ""], (2, 0)), ("|abcdefghijklmnop", ["abcd", "efgh", "ijkl"], (0, 0)),
    (f"{FAMILY * 3}|{FAMILY * 12}", [FAMILY * 2] * 3, (1, 2)), ("漢字漢字|漢字漢字", ["漢字"] * 3, (1, 0)), ("é|", ["é", "", ""], (0, 1)),
    ("abcdefg|hijklmnop", ["abcd", "efgh", "ijkl"], (1, 3)), ("漢字|", ["漢字", "", ""], (1, 0)), ("a漢字|", ["a漢", "字", ""], (1, 2))])
def test_the_input_wraps_and_scrolls_inside_its_rows(typed, rows, cursor):
    shown, at = ui.input_rows(line(typed), 3, 4)
    assert ([row.rstrip() for row in shown], at) == (rows, cursor)


@pytest.mark.parametrize("typed, up, down", [
    ("ab\ncd|", "ab|\ncd", None), ("a|b\ncd", None, "ab\nc|d"), ("abcdef|", "ab|cdef", None), ("ab|cdef", None, "abcdef|"), ("abcd|", "|abcd", None),
    ("漢字漢|字", "漢|字漢字", None), ("漢|字\nabc", None, "漢字\nab|c"), ("|", None, None), ("a\n\n|b", "a\n|\nb", None), ("abc|\nd\nefg", None, "abc\nd|\nefg")])
def test_up_and_down_move_between_the_rows_of_the_input(typed, up, down):
    for by, expected in ((-1, up), (1, down)):
        moved = ui.climb(line(typed), by, 4)
        assert (marked(moved) if moved else None) == expected


def test_far_into_a_long_input_the_rows_are_those_of_the_whole():
    text = "".join(chr(97 + at % 26) for at in range(5000))
    for at in range(0, 5000, 37):
        shown, (row, column) = ui.input_rows(Line(text, at), 3, 10)
        assert column == at % 10 and shown[row] == text[at // 10 * 10:at // 10 * 10 + 10]
        assert row == (0 if at < 10 else 2 if at >= 4990 else 1)


# ---- the scrollback -----------------------------------------------------------------------------------------

def test_the_scrollback_is_bounded_in_messages_and_bytes(monkeypatch):
    monkeypatch.setattr(ui, "SCROLLBACK_MESSAGES", 10)
    monkeypatch.setattr(ui, "SCROLLBACK_BYTES", 1000)
    back = Scrollback()
    for at in range(100):
        back.add(b"n", [b"x"])
    assert (back.start, back.end) == (90, 100)
    for at in range(100):
        back.add(b"n", [b"x" * 300])
    assert (back.start, back.end) == (197, 200)
    for at in range(10):
        back.add(b"n" * 400, [b"x"])
    assert (back.start, back.end) == (208, 210)


def test_moves_in_the_scrollback_are_those_in_the_list_of_all_rows():
    rng = random.Random(SEED)
    back = Scrollback()
    for _ in range(40):
        back.add(b"al", [random_text(rng, 9).encode()])
    places = [(n, row) for n in range(back.end) for row in range(len(back.entry(n, 20).spans))] + [(back.end, 0)]
    for _ in range(500):
        at, by = rng.randrange(len(places)), rng.randint(-30, 30)
        assert back.move(places[at], by, 20) == places[max(0, min(len(places) - 1, at + by))]


# ---- the screen, on a pty -----------------------------------------------------------------------------------

class Session:
    """A Screen on a pty, and the terminal at its other end; whoever uses it plays the loop."""

    def __init__(self, rows=12, cols=40):
        self.master, self.slave = pty.openpty()
        self.size(rows, cols)
        self.found = termios.tcgetattr(self.slave)
        self.model = Model(rows, cols)
        self.screen = Screen(self.slave, self.slave, lambda: NOON)
        self.now = 100.0

    def size(self, rows, cols):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def open(self):
        self.screen.open(4711, "  join: ./p2pchat NAME host 4711", b"Me")
        self.look()
        return self

    def look(self):
        """Draw, pass all output to the model, and return its rows."""
        self.now += 1
        self.screen.draw(self.now)
        while True:
            self.screen.flush()
            if not select.select([self.master], [], [], 0)[0]:
                if not self.screen.output_fds():
                    return [row.rstrip() for row in self.model.display]
                continue
            self.model.feed(os.read(self.master, 65536))

    def type(self, data):
        """Type it and return the events."""
        if isinstance(data, str):
            data = data.encode()
        events = []
        while data:
            data = data[os.write(self.master, data[:2000]):]
            while select.select([self.slave], [], [], 0)[0]:
                events += self.screen.read(self.now)
        return events

    def restored(self):
        return termios.tcgetattr(self.slave) == self.found and self.model.restored


@pytest.fixture(autouse=True)
def usual_terminal(monkeypatch):
    """Whatever terminal the tests run in."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture
def session():
    made = Session()
    yield made
    made.screen.close()
    os.close(made.master)
    os.close(made.slave)


def test_the_first_screen(session):
    assert session.open().look() == [
        "SERVER: 4711  join: host 4711", *[""] * 7, "---- Me ---- :help for help ------------", "", "", ""]
    assert session.model.cursor == (9, 0)
    assert session.model.modes == {"alternate": True, "paste": True, "synchronized": False, "cursor": True, "autowrap": False, "focus": True, "wheel": False}
    assert session.model.title == "p2pchat Me 4711"
    modes = termios.tcgetattr(session.slave)
    assert not modes[3] & (termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN) and not modes[0] & termios.IXON
    assert session.screen.next_deadline() is None and session.screen.output_fds() == []


def test_typing_shows_and_enter_enters(session):
    session.open()
    assert session.type("hé 漢") == []
    assert session.look()[9] == "hé 漢" and session.model.cursor == (9, 5)
    assert session.type("\x1b[D\x1bOD!\r") == ["hé! 漢"]
    assert session.look()[9] == ""


def test_keys_edit_the_line(session):
    session.open()
    assert session.type("bar\x01foo \x05!\x1b[D\x1b[D\x1b[3~\x7fb\x1b[H>\x1b[F<\r") == [">foo bb!<"]
    assert session.type("draft\x1b[A") == []
    assert session.look()[9] == ">foo bb!<"
    session.type("\x1b[B")
    assert session.look()[9] == "draft"


def test_the_keys_of_the_editor_work_at_a_terminal(session):
    session.open()
    session.type("one two\x17\x19\x1b\x7f\x1f\x1b\rthree\r")
    session.type("\x12on")
    assert session.look()[8:11] == ["---- Me ---- search: on " + "-" * 16, "one two", "three"]
    session.type("\x1b")
    assert session.screen.expire(session.now + 1) == [] and session.look()[8:10] == ["---- Me ---- :help for help ------------", ""]
    assert session.type("\x12on\x03x\t\x1b[Z\r") == ["x"]
    session.type("\x1b[200~one\ntwo\x1b[201~")
    assert session.look()[8] == "---- Me ---- 2 lines; Enter to send ----"
    session.type("\x1f")
    assert session.look()[8:] == ["---- Me ---- :help for help ------------", "", "", ""]


def test_an_empty_line_is_nothing_and_commands_are_only_text(session):
    session.open()
    assert session.type("\r  \r:quit\r\r:)\n") == [":quit", ":)"]


@pytest.mark.parametrize("typed, events", [
    ("\x03", [Key.LEAVE]), ("\x04", [Key.LEAVE]), ("ab\x01\x04\r", ["b"]), ("\x1a", [Key.SUSPEND]), ("\x1b[99~\x1b[15;2~\x13", [])])
def test_control_keys(session, typed, events):
    assert session.open().type(typed) == events


def test_a_lone_escape_does_nothing_and_keeps_nobody_waiting(session):
    session.open()
    session.type("\x1b")
    assert session.screen.next_deadline() == session.now + ui.ESC_SECONDS
    assert session.screen.expire(session.now + 1) == []
    session.look()
    assert session.screen.next_deadline() is None


def test_ctrl_c_clears_a_draft_and_leaves_only_without_one(session):
    session.open()
    assert session.type("a draft\x03") == [] and session.look()[9] == ""
    session.type("\x19!")
    assert session.look()[9] == "a draft!"
    assert session.type("\x1b[99;5u") == [] and session.type("\x1b[27;5;99~") == [Key.LEAVE]


def test_escape_then_enter_is_a_new_line_at_any_pace(session):
    session.open()
    session.type("a\x1b")
    session.screen.expire(session.now + 1)
    assert session.type("\rb\x1b[13;2uc\x1b[27;2;13~d\x1b\re") == []
    assert session.type("\x1b[27ux\r") == ["a\nb\nc\nd\nex"], "only directly behind it"


def test_up_moves_inside_the_text_before_it_goes_to_the_history(session):
    session.open()
    session.type("before\rone\x1b\rtwo\x1b[A")
    assert session.look()[9:11] == ["one", "two"] and session.model.cursor == (9, 3)
    session.type("\x1b[A")
    assert session.look()[9] == "before"
    session.type("\x1b[B")
    assert session.look()[9:11] == ["one", "two"]


def test_a_turn_of_the_wheel_never_touches_a_draft(session):
    session.open()
    assert not session.model.modes["wheel"], "where the mode is known, it sends nothing"
    fill(session, 50)
    session.type("before\rdraft")
    session.type("\x1b[A\x1b[A\x1b[A")
    assert session.look()[9] == "draft" and "scrolled up" in session.look()[8]
    session.type("\x1bOB" * 3)
    assert session.look()[9] == "draft" and "scrolled up" not in session.look()[8]
    session.type("\x1b[A")
    assert session.look()[9] == "before"


def test_a_tab_in_a_paste_without_brackets_completes_nothing(session):
    session.open()
    session.screen.here([b"bob"])
    assert session.type("some columns: b\tx\r") == ["some columns: b    x"]
    assert session.type("b\t\r") == ["bob: "]


def test_escape_sequences_and_a_byte_order_mark_in_a_paste_are_dropped(session):
    session.open()
    session.type("\x1b[200~\ufeff\x1b[1;31mred\x1b[0m \x1b]0;title\x07x\x1b(B\x1b[201~\r")
    assert session.type("\x1b[200~\ufeff:who\x1b[201~\r") == [":who"]
    session.type("\x1b[A\x1b[A")
    assert session.look()[9] == "red x"


def test_a_refused_text_comes_back_unless_the_next_was_begun(session):
    session.open()
    assert session.type(":hlep\r") == [":hlep"]
    session.screen.refuse(":hlep", "no")
    assert session.look()[9] == ":hlep" and "-- no" in session.look()
    session.type("\x15next")
    session.screen.refuse(":hlep", "no")
    assert session.look()[9] == "next"


def test_a_keypad_types_what_is_on_its_keys(session):
    session.open()
    assert session.type("\x1bOq\x1bOk\x1bOr\x1b[233u\x1bOM") == ["1+2é"]
    session.type("\x12")
    session.type("\x1bOq\x1b[M!!!")
    assert "search: 1" in session.look()[8]


def test_a_changed_time_zone_is_noticed(session, monkeypatch):
    session.open()
    session.size(12, 70)
    session.model.resize(12, 70)
    session.screen.resize()
    monkeypatch.setenv("TZ", "AAA-1")
    session.screen._zone_after = 0.0
    session.screen.show(b"al", [b"hi"], 12 * 3600)
    assert any(row.startswith("13:00 al: hi") for row in session.look())
    monkeypatch.setenv("TZ", "BBB-2")
    session.now += ui.ZONE_SECONDS
    session.screen._dirty = True
    assert any(row.startswith("14:00 al: hi") for row in session.look())
    monkeypatch.undo()
    time.tzset()


def test_a_paste_with_newlines_is_one_text(session):
    session.open()
    assert session.type("\x1b[200~one\r\ntwo\r\x1b[201~") == []
    assert session.look()[9:] == ["one", "two", ""]
    assert session.type("\r") == ["one\ntwo"]


def test_a_paste_beyond_the_limit_is_cut_with_a_notice(session, monkeypatch):
    monkeypatch.setattr(ui, "INPUT_LIMIT", 10)
    session.open()
    session.type("\x1b[200~0123456789abc\x1b[201~")
    session.type("xy")
    rows = session.look()
    assert rows[9] == "0123456789"
    assert rows[1:3] == ["-- the input holds 10 characters: the", "    last 3 were left out"]


@pytest.mark.usefixtures("any_day")
def test_messages_and_notices_are_drawn_clean(session):
    session.open()
    session.screen.show(b"al", [b"hi \x1b[31m there"])
    session.screen.notice("bob left")
    assert session.look()[1:3] == ["al: hi \ufffd[31m there", "-- bob left"]


def test_messages_are_drawn_thirty_times_a_second_and_keys_at_once(session):
    session.open()
    screen = session.screen
    screen.show(b"al", [b"one"])
    screen.draw(session.now + 1)
    screen.show(b"al", [b"two"])
    screen.draw(session.now + 1.001)
    assert screen.next_deadline() == pytest.approx(session.now + 1 + ui.FRAME_SECONDS)
    assert "al: two" not in [row.text for row in screen._back._entries.values()]
    os.write(session.master, b"k")
    screen.read(session.now + 1.002)
    screen.draw(session.now + 1.002)
    assert session.look()[1:3] == ["al: one", "al: two"]


def test_only_changed_rows_are_sent(session):
    session.open()
    session.type("x")
    session.screen.draw(session.now)
    sent = os.read(session.master, 65536)
    assert sent == b"\x1b[?2026h\x1b[?25l\x1b[10;1H\x1b[Kx\x1b[10;2H\x1b[?25h\x1b[?2026l"
    session.screen._dirty = True
    session.screen.draw(session.now + 9)
    assert not select.select([session.master], [], [], 0)[0]


def untimed(rows):
    """What the rows say, without the times in front."""
    return [re.sub(r"^(\d\d:\d\d| {5}) ", "", row) for row in rows]


@pytest.mark.usefixtures("any_day")
def test_the_title_counts_what_came_while_the_window_was_left(session):
    session.open()
    session.screen.show(b"al", [b"one"], NOON)
    session.type("\x1b[O")
    session.screen.show(b"al", [b"two"], NOON)
    session.screen.show(b"me", [b"mine"], NOON, mine=True)
    session.screen.show(b"al", [b"old"], NOON, earlier=True)
    session.screen.notice("bob left")
    session.screen.show(b"al", [b"three"], NOON)
    rows = untimed(session.look())
    assert session.model.title == "p2pchat Me 4711 (2 unread)"
    assert rows[rows.index("-- new messages") + 1] == "al: two"
    session.type("\x1b[I")
    assert "-- new messages" in untimed(session.look()) and session.model.title == "p2pchat Me 4711"
    session.type("\x1b[O")
    assert "-- new messages" not in untimed(session.look())


@pytest.mark.usefixtures("any_day")
def test_a_mention_rings_once_a_second_at_most(session):
    session.open()
    for name, text, others in ((b"al", b"hello", {}), (b"me", b"me", {"mine": True}), (b"al", b"me", {"earlier": True}), (b"al", b"some", {})):
        session.screen.show(name, [text], NOON, **others)
    session.look()
    assert session.model.bells == 0
    for _ in range(3):
        session.screen.show(b"al", [b"hey ME!"])
    session.look()
    assert session.model.bells == 1
    session.screen.show(b"al", [b"hey me"])
    session.screen.draw(session.now + .5)
    session.look()
    assert session.model.bells == 1
    session.screen.show(b"al", [b"hey me"])
    session.look()
    assert session.model.bells == 2


def test_a_mention_is_told_to_the_desktop_only_while_we_look_elsewhere(session):
    session.open()
    session.screen.show(b"al", [b"hey me"])
    session.look()
    assert session.model.notifications == []
    session.type("\x1b[O")
    session.screen.show("b\x1bé".encode(), [b"secret, me"])
    session.look()
    assert session.model.notifications == ["p2pchat: b\ufffdé mentioned you"]
    session.screen.ring("off")
    session.screen.show(b"al", [b"hey me"])
    session.look()
    session.screen.ring("mention")
    session.type("\x1b[I")
    session.screen.show(b"al", [b"hey me"])
    session.look()
    assert len(session.model.notifications) == 1


def test_our_name_rings_however_it_is_written():
    session = Session()
    session.screen.open(4711, "", "Åsa".encode())
    session.look()
    session.screen.show(b"al", ["hej A\u030aSA!".encode()])
    session.look()
    assert session.model.bells == 1
    session.screen.close()


def test_names_are_cleaned_once_not_with_each_change(session):
    session.open()
    names = [("x\u0301" * 99 + f"{number}").encode() for number in range(2000)]
    session.screen.here(names)
    session.look()
    ui.cleaned_name.cache_clear()
    for _ in range(5):
        session.screen.here(names[::-1])
        session.look()
    assert ui.cleaned_name.cache_info().misses <= ui.STATUS_NAMES, "the others are only counted"
    session.type("z\t")
    session.type("\x7fz\t")
    assert ui.cleaned_name.cache_info().misses <= 2000


@pytest.mark.parametrize("term, title", [("xterm", "p2pchat Me 4711"), ("tmux-256color", "p2pchat Me 4711"), ("linux", ""), ("vt100", "")])
def test_no_console_gets_a_title_that_it_would_print(monkeypatch, term, title):
    monkeypatch.setenv("TERM", term)
    session = Session()
    session.open()
    assert session.model.title == title
    session.screen.close()
    session.look()
    assert session.restored()


def test_who_is_here_stands_in_the_status_row(session):
    session.open()
    session.screen.here([b"bo\x1b"])
    assert session.look()[0] == "SERVER: 4711  here: bo\ufffd  join: host 4711"
    session.screen.here([b"al", b"bo", b"cy"])
    assert session.look()[0] == "SERVER: 4711  here: 3  join: host 4711"
    session.screen.here([])
    assert session.look()[0] == "SERVER: 4711  join: host 4711"


@pytest.mark.parametrize("capability, colors", [
    (lambda n: f"\x1b[38;5;{n}m" if n > 7 else f"\x1b[3{n}m", 16), (lambda n: f"\x1b[3{n}m", 4), (lambda n: "", 0)])
def test_the_palette_is_what_the_terminal_can_do(capability, colors):
    assert len(ui.palette(capability)) == colors


def fill(session, count, start=0):
    for at in range(start, start + count):
        session.screen.show(b"al", [b"%d one two three four five six seven eight nine ten" % at])


def test_a_view_that_is_scrolled_up_never_moves(session):
    session.open()
    fill(session, 50)
    session.look()
    session.type("\x1b[5~\x1b[5~")
    kept = session.look()
    assert kept[8] == "---- scrolled up; PageDown for newer ---"
    fill(session, 30, 50)
    rows = session.look()
    assert rows[:8] == kept[:8]
    assert rows[8] == "---- Me ---- 30 new; PageDown for newer"


def test_a_resize_keeps_the_first_character_in_place_and_redraws_everything(session):
    session.open()
    fill(session, 50)
    session.type("\x1b[5~\x1b[5~\x1b[5~")
    top = session.look()[1]
    for rows, cols in ((20, 25), (9, 100), (12, 40)):
        session.size(rows, cols)
        session.model.resize(rows, cols)
        session.screen.resize()
        shown = session.look()
        assert shown[0].startswith("SERVER: 4711") and "scrolled up" in shown[rows - 4]
        assert shown[1].split()[:2] == top.split()[:2]
    assert shown[1] == top


def test_page_down_to_the_end_follows_again_and_so_does_entering(session):
    session.open()
    fill(session, 50)
    bottom = session.look()
    session.type("\x1b[5~" * 99)
    assert session.look()[1].startswith("al: 0 one")
    session.type("\x1b[6~" * 99)
    assert session.look() == bottom
    session.type("\x1b[5~")
    assert session.look() != bottom
    session.type("x\r")
    assert session.look() == bottom


def test_the_ends_of_the_scrollback_are_one_key_away(session):
    session.open()
    fill(session, 50)
    bottom = session.look()
    for up, down in (("\x1b[1;5H", "\x1b[1;5F"), ("\x1b[1;3H", "\x1b[1;3F"), ("\x1b[7^", "\x1b[8^")):
        session.type(up)
        rows = session.look()
        assert rows[1].startswith("al: 0 one") and rows[8].startswith("---- scrolled up")
        session.type(down)
        assert session.look() == bottom


def test_find_goes_back_from_match_to_match(session):
    session.open()
    fill(session, 50)
    bottom = session.look()
    session.screen.find("AL: 4")
    seen = [[row for row in session.look() if row.startswith("al: 4")]]
    for _ in range(11):
        session.screen.find("")
        seen.append([row for row in session.look() if row.startswith("al: 4")])
    assert seen[0][-1].startswith("al: 49 ") and "al: 40 " in seen[9][0] and "al: 4 one" in seen[10][0]
    session.type("\x1b[1;5F")
    assert '-- no earlier message contains "al: 4"' in session.look()
    session.screen.find("")
    assert session.screen._back.found == 49
    session.screen.find("nobody did")
    session.type("\x1b[1;5F")
    assert '-- no message contains "nobody did"' in session.look()
    session.type("x\r")
    assert session.screen._back.found is None


def test_what_is_found_stands_out():
    shown = view((b"al", b"one"), (b"al", b"two"))
    shown.back.found = shown.back.find("two", 9)
    assert [("\x1b[7m" in row) for row in render(shown, 10, 20, STYLE).rows[1:3]] == [False, True]


def test_clear_forgets_and_times_are_shown_and_hidden(session):
    session.open()
    fill(session, 50)
    session.type("\x1b[5~")
    session.screen.clear()
    assert session.look()[1:] == [*[""] * 7, "---- Me " + "-" * 32, "", "", ""]
    session.type("\x1b[5~\x1b[1;5H\x1b[6~")
    session.look()
    session.screen.find("one")
    session.screen.clear()
    session.screen.show(b"al", [b"new"])
    assert session.look()[1:3] == ["al: new", ""]
    session.screen.toggle_times()
    assert session.look()[1:3] == ["al: new", ""]
    session.screen.toggle_times()
    assert session.look()[1:4] == ["al: new", "-- times show on screens of 60 columns", "    or more"]


def test_the_bell_rings_as_our_user_wants(session):
    session.open()
    for bell, rung in (("off", 0), ("all", 1), ("mention", 1)):
        session.screen.ring(bell)
        session.screen.show(b"al", [b"hello"])
        session.look()
        assert session.model.bells == rung
    session.screen.ring("off")
    session.screen.show(b"al", [b"me"])
    session.look()
    session.screen.ring("all")
    session.screen.notice("bob left")
    session.screen.show(b"me", [b"x"], mine=True)
    session.look()
    assert session.model.bells == 1


def test_a_transcript_is_clean_and_nobody_forges_a_line_of_it():
    shown = view((b"al", b"a\x1b[2J\n-- b", NOON - DAY, ui.LIVE), (None, b"bob left", NOON, ui.NOTICE))
    assert "".join(shown.back.transcript()) == ("-- Saturday 21 November 2026\n12:00 al: a\ufffd[2J\n          -- b\n"
                                                "-- Sunday 22 November 2026\n12:00 -- bob left\n")


def test_tab_completes_names_the_latest_speaker_first_and_commands(session):
    session.open()
    session.screen._commands = (":help", ":who", ":time")
    session.screen.here([b"bert", b"bea", b"Bo"])
    for name in (b"bob", b"bea", b"cy", b"bob\x1b"):
        session.screen.show(name, [b"x"])
    session.screen.show(b"bush", [b"mine"], mine=True)
    typed = [session.type("b" + "\t" * count + "\x01\x1b[F\r")[0] for count in range(1, 8)]
    assert typed == ["bob\ufffd: ", "bea: ", "bob: ", "bert: ", "Bo: ", "b", "bob\ufffd: "]
    assert session.type("hi c\t!\r\t\x7f\x7f\r:w\t\r:\x1b[Z\r") == ["hi cy !", "bob\ufffd", ":who ", ":time "]


def test_page_up_with_nothing_above_does_nothing(session):
    session.open()
    assert session.type("\x1b[5~\x1b[6~") == []
    fill(session, 1)
    before = session.look()
    session.type("\x1b[5~")
    assert session.look() == before and session.screen._anchor is None


def test_the_view_stays_usable_when_its_messages_are_dropped(session, monkeypatch):
    monkeypatch.setattr(ui, "SCROLLBACK_MESSAGES", 20)
    session.open()
    fill(session, 20)
    session.type("\x1b[5~" * 9)
    fill(session, 30, 20)
    assert session.look()[1].startswith("al: 30 one")


def test_ctrl_l_repaints_what_others_wrote_over(session):
    session.open()
    before = session.look()
    session.model.feed(b"\x1b[1;1HGARBAGE")
    session.type("\x0c")
    assert session.look() == before


def test_a_size_of_nothing_is_80_by_24():
    session = Session(0, 0)
    session.model = Model(24, 80)
    assert session.open().look()[20] == "---- Me ---- :help for help " + "-" * 52
    session.screen.close()


@pytest.mark.parametrize("rows, cols", [(1, 1), (2, 2), (3, 9), (500, 200)])
def test_any_size_can_be_typed_into_and_left(rows, cols):
    session = Session(rows, cols)
    session.open()
    fill(session, 3)
    session.type("漢字 hello \x1b[5~\x1b[A")
    session.look()
    session.screen.close()
    session.look()
    assert session.restored()


@pytest.mark.parametrize("known", [True, False])
def test_the_wheel_is_given_back_as_it_was(session, known):
    session.model.modes["wheel"] = known
    session.open()
    session.screen.suspend()
    session.screen.resume()
    session.screen.resume()
    session.screen.close()
    session.look()
    assert session.model.modes["wheel"] is known


def test_the_last_line_stays_on_the_terminal(session):
    session.open()
    session.screen.close("rejoin with: ./p2pchat Me h 1")
    assert session.look()[0] == "rejoin with: ./p2pchat Me h 1" and session.restored()


def test_letters_stay_whole_where_the_terminal_strips_a_bit(session):
    modes = termios.tcgetattr(session.slave)
    modes[0] |= termios.ISTRIP
    termios.tcsetattr(session.slave, termios.TCSANOW, modes)
    session.open()
    assert session.type("é漢\r") == ["é漢"]
    session.screen.close()
    assert termios.tcgetattr(session.slave)[0] & termios.ISTRIP


def test_close_restores_everything_and_may_be_called_twice(session):
    session.open()
    session.screen.close()
    session.screen.close()
    session.look()
    assert session.restored()


def test_suspend_restores_everything_and_resume_repaints(session):
    session.open()
    session.screen.show(b"al", [b"hi"])
    before = session.look()
    session.screen.suspend()
    session.look()
    assert session.restored() and not any(session.look())
    session.screen.show(b"al", [b"meanwhile"])
    session.screen.resume()
    assert session.look()[:3] == before[:2] + ["al: meanwhile"]
    session.screen.close()
    session.look()
    assert session.restored()


def test_a_second_resume_does_not_take_our_own_modes_for_those_it_found(session):
    session.open()
    session.screen.resume()
    session.screen.close()
    session.look()
    assert session.restored()


def test_a_terminal_that_stops_reading_blocks_neither_draw_nor_close():
    session = Session(200, 200)
    session.open()
    screen = session.screen
    with must_end():
        for at in range(300):
            fill(session, 200, at * 200)
            screen.draw(session.now + at)
            if screen.output_fds():
                break
        unfinished = screen._unsent
        assert unfinished and screen.next_deadline() is None
        fill(session, 5)
        screen.draw(session.now + 900)
        assert screen._unsent == unfinished, "no new frame before the last one is out"
        screen.close()
    assert termios.tcgetattr(session.slave) == session.found


def test_an_unfinished_frame_goes_on_where_it_was_and_is_then_outdated():
    session = Session(200, 200)
    session.open()
    fill(session, 500)
    session.screen.draw(session.now + 1)
    assert session.screen.output_fds()
    fill(session, 1, 999)
    assert session.look()[195].startswith("      al: 499 ")
    assert session.look()[195].startswith("      al: 999 ")
    session.screen.close()


def test_a_frame_cut_by_leaving_is_cancelled():
    session = Session(200, 200)
    session.open()
    fill(session, 500)
    session.screen.draw(session.now + 1)
    assert session.screen.output_fds()
    heard = b""
    while select.select([session.master], [], [], 0)[0]:
        heard += os.read(session.master, 65536)
    session.screen.close()
    while select.select([session.master], [], [], 0)[0]:
        heard += os.read(session.master, 65536)
    assert heard.endswith(ui.CANCEL + ui.LEAVE + ui.NO_TITLE + ui.OLD_TITLE)


def test_a_terminal_that_hangs_up_is_gone(session):
    session.open()
    master, session.master = session.master, os.open(os.devnull, os.O_RDONLY)
    os.close(master)
    assert session.screen.read(0) == [Key.GONE]
    assert session.screen.input_fd() is None
    session.screen.show(b"al", [b"x"])
    session.screen.draw(session.now + 9)
    assert session.screen.next_deadline() == 0.0
    assert session.screen.expire(session.now) == [Key.GONE]
    session.screen.close()


def test_an_error_of_the_terminal_means_that_it_is_gone(session, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "hung up")
    session.open()
    monkeypatch.setattr(os, "read", fail)
    assert session.screen.read(0) == [Key.GONE] and session.screen.input_fd() is None


def test_a_view_inside_a_long_message_keeps_its_place(session):
    session.open()
    session.screen.show(b"al", [b" ".join(b"word%04d" % at for at in range(1000))])
    session.type("\x1b[5~" * 9)
    top = session.look()[1].split()[0]
    fill(session, 20)
    assert session.look()[1].split()[0] == top
    for cols in (25, 100, 40):
        session.size(12, cols)
        session.model.resize(12, cols)
        session.screen.resize()
        assert top in session.look()[1]


def test_hostile_text_never_reaches_the_terminal_as_a_sequence(session):
    rng = random.Random(SEED)
    session.open()
    for _ in range(150):
        session.screen.show(bytes(rng.choices(range(256), k=9)), [bytes(rng.choices(b"\x1b[]\x9b\x07;0m1\xe2\x80\xae\n:- a", k=60))])
        session.look()                              # Model raises on any sequence but ours
    session.type(bytes(rng.choices(range(0x20, 256), k=3000)))
    session.look()


@pytest.mark.parametrize("term", ["xterm-256color", "linux", "vt100", "screen", "rxvt", "nonsense"])
def test_every_terminal_shows_the_same(term, monkeypatch):
    monkeypatch.setenv("TERM", term)
    pen = ui.pen_of(blessed.Terminal(kind=term, stream=io.StringIO(), force_styling=True))
    model, old = Model(9, 30), ui.Frame([], (0, 0))
    for text in (b"one", b"\xe6\xbc\xa2 two " * 9, b"three"):
        frame = render(view((b"al", text)), 9, 30, ui.PLAIN)
        model.feed(b"\x1b[?7l" + ui.difference(old, frame, pen))
        old = frame
        assert model.display == frame.rows and model.cursor == frame.cursor


# TERM, NO_COLOR -> how many colours
COLORS = [("xterm-256color", "1", 0), ("xterm-256color", "", 16), ("screen", "", 4), ("linux", "", 4), ("vt100", "", 0)]
FIRST_FRAMES = """
import os, sys
sys.path.insert(0, {path!r})
import ui
class Spy(ui.Screen):
    def _write(self):
        if b"SERVER" in self._unsent:
            os.write(2, b"painted with %d, " % sum(name in sys.modules for name in ("blessed", "wcwidth")))
        super()._write()
for term, no_color, colors in {cases!r}:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        continue
    os.environ.update(TERM=term, NO_COLOR=no_color, COLORTERM="truecolor")
    spy = Spy()
    spy.open(1, "join: me")
    os.write(2, b"then %d %r %r %d\\n" % ("blessed" in sys.modules, spy._style.bold, os.environ["NO_COLOR"].encode(), len(spy._style.colors)))
    spy.close()
    os._exit(0)
"""


def test_the_first_frame_is_out_before_blessed_is_loaded_and_no_color_leaves_us_bold():
    master, slave = pty.openpty()
    code = FIRST_FRAMES.format(path=os.path.dirname(os.path.abspath(ui.__file__)), cases=COLORS)
    done = subprocess.run(python("-c", code), stdin=slave, stdout=slave, stderr=subprocess.PIPE, timeout=PATIENCE)
    assert done.stderr.decode().splitlines() == [
        f"painted with 0, then 1 '\\x1b[1m' {no_color.encode()!r} {colors}" for _, no_color, colors in COLORS]
    os.close(master)
    os.close(slave)


# ---- line mode ----------------------------------------------------------------------------------------------

class Pipes:
    def __init__(self, output=None):
        self.stdin_reader, self.stdin = os.pipe()
        self.stdout, self.stdout_writer = os.pipe()
        self.stderr, self.stderr_writer = os.pipe()
        self.lines = Lines(self.stdin_reader, self.stdout_writer if output is None else output, self.stderr_writer)

    def said(self, fd):
        """All that is written to it by now."""
        heard = b""
        while select.select([fd], [], [], 0)[0]:
            piece = os.read(fd, 65536)
            if not piece:
                break
            heard += piece
        return heard

    def events(self, data, close=True):
        os.write(self.stdin, data)
        if close:
            os.close(self.stdin)
        events = []
        while self.lines.input_fd() is not None and select.select([self.stdin_reader], [], [], 0)[0]:
            events += self.lines.read(0)
        return events


def test_lines_open_says_first_where_we_are():
    """History: whoever was found with --lan before that got what was said earlier above the line with the port."""
    pipes = Pipes()
    pipes.lines.show(b"al", [b"hi"], 0)
    pipes.lines.open(4711, "  join: ./p2pchat NAME host 4711")
    assert pipes.said(pipes.stdout) == b"SERVER: 4711\nal: hi\n"
    assert pipes.said(pipes.stderr) == b"-- join: ./p2pchat NAME host 4711\n"
    assert pipes.lines.next_deadline() is None and pipes.lines.output_fds() == [] and not pipes.lines.shows_own


@pytest.mark.usefixtures("any_day")
def test_lines_show_when_an_earlier_message_was_said():
    pipes = Pipes()
    pipes.lines.show(b"al", [b"hi"], NOON, earlier=True)
    pipes.lines.show(b"al (12:00)", [b"hi"], NOON)
    pipes.lines.show(b"SERVER", [b"9"], NOON)
    pipes.lines.draw(0)
    assert pipes.said(pipes.stdout).decode() == "al (12:00): hi\nal (12\ufffd00): hi\npeer SERVER: 9\n"


def test_lines_show_one_message_a_line_and_nobody_forges_one():
    pipes = Pipes()
    pipes.lines.show(b"al", [b"hi"])
    pipes.lines.show(b"al\nbob: x", [b"a\nbob: b\r\nc\x1b[2J\n"])
    pipes.lines.draw(0)
    assert pipes.said(pipes.stdout).decode() == "al: hi\nal\ufffdbob\ufffd x: a\n    bob: b\n    c\ufffd[2J\n"


@pytest.mark.parametrize("data, events", [
    (b"", []), (b"one\ntwo\n", ["one", "two"]), (b"one\r\ntwo", ["one", "two"]), (b"\n\n:quit\n", [":quit"]),
    ("h\u00e9\n".encode() + b"\xff\n", ["h\u00e9", "\ufffd"]), (b"a\rb\n", ["a\rb"]), (b"a\xc3", ["a\ufffd"])])
def test_lines_events_end_with_leave(data, events):
    pipes = Pipes()
    assert pipes.events(data) == events + [Key.END]
    assert pipes.lines.input_fd() is None and pipes.lines.read(0) == []


@pytest.mark.parametrize("data, events", [
    (b"\xef\xbb\xbf:who\n", [":who"]), (b"\x1b[31mred\x1b[0m\n", ["red"]), (b"a\x1b]0;t\x07b\r\n", ["ab"]), (b"a\tb\n", ["a\tb"]), (b"\x1b[K\n", []), (b"cut \x1b[3\nno\x1b\n", ["cut ", "no"])])
def test_lines_lose_escape_sequences_and_a_byte_order_mark(data, events):
    assert Pipes().events(data) == events + [Key.END]


def test_lines_without_input_have_no_end():
    lines = Lines(None)
    assert lines.input_fd() is None and lines.next_deadline() is None and lines.read(0) == []


def test_lines_look_at_a_terminal_of_others_now_and_then_not_all_the_time(monkeypatch):
    master, slave = pty.openpty()
    os.write(master, b"for the shell\n")
    lines, background = Lines(slave), [True]
    monkeypatch.setattr(ui, "in_background", lambda fd: background[0])       # a test cannot be a job of a shell
    assert lines.read(10.0) == [] and lines.input_fd() is None and lines.next_deadline() == 10.0 + ui.BACKGROUND_SECONDS
    assert lines.expire(10.4) == [] and lines.input_fd() is None
    assert lines.expire(10.5) == [] and lines.input_fd() == slave and lines.next_deadline() is None
    background.clear()
    background.append(False)
    assert lines.read(11.0) == ["for the shell"]
    lines.close()


def test_lines_with_times(monkeypatch):
    monkeypatch.setenv("TZ", "XXX-5:30")
    time.tzset()
    pipes = Pipes()
    pipes.lines = Lines(None, pipes.stdout_writer, pipes.stderr_writer, times=True)
    pipes.lines.show(b"al", [b"a\nb", b"c"], NOON)
    pipes.lines.show(b"al", [b"old"], NOON - 1, earlier=True)
    pipes.lines.draw(0)
    rows = pipes.said(pipes.stdout).decode().splitlines()
    assert rows[1] == "    b" and [row[25:] for row in rows if row[0] != " "] == [" al: a", " al: c", " al: old"]
    zone = datetime.datetime.fromtimestamp(NOON).astimezone()
    monkeypatch.undo()
    time.tzset()
    assert rows[0][:25] == zone.isoformat() and datetime.datetime.fromisoformat(rows[-1][:25]).timestamp() == NOON - 1


def test_lines_may_come_in_any_pieces():
    pipes, events = Pipes(), []
    for byte in "hé\r\n漢字\n".encode():
        events += pipes.events(bytes([byte]), close=False)
    assert events == ["hé", "漢字"]


def test_lines_from_a_file_and_from_dev_null(tmp_path):
    (tmp_path / "in").write_bytes(b"one\ntwo")
    for path, events in ((tmp_path / "in", ["one", "two"]), (os.devnull, [])):
        pipes = Pipes()
        pipes.lines = Lines(os.open(path, os.O_RDONLY), pipes.stdout_writer, pipes.stderr_writer)
        assert pipes.lines.read(0) + pipes.lines.read(0) == events + [Key.END]


def test_an_endless_line_is_cut_and_nothing_of_it_is_lost(monkeypatch):
    monkeypatch.setattr(ui, "INPUT_LIMIT", 1000)
    pipes = Pipes()
    events = pipes.events(b"x" * 2500 + b"y\nz")
    assert [len(event) for event in events[:-1]] == [1000, 1000, 501, 1] and events[-1] == Key.END


def test_a_full_pipe_never_blocks_and_the_overflow_is_counted(monkeypatch):
    monkeypatch.setattr(ui, "UNSENT_LIMIT", 200_000)
    pipes = Pipes()
    with must_end():
        for at in range(10_000):
            pipes.lines.show(b"al", [b"%05d " % at + b"x" * 60])
            pipes.lines.draw(0)
    assert pipes.lines.output_fds() == [pipes.stdout_writer]
    heard = b""
    while pipes.lines.output_fds():
        heard += pipes.said(pipes.stdout)
        assert pipes.lines.flush() == []
    heard += pipes.said(pipes.stdout)
    numbers = [int(row[4:9]) for row in heard.splitlines()]
    assert numbers == list(range(len(numbers))) and heard.endswith(b"x\n")
    said = pipes.said(pipes.stderr).decode()
    assert said == f"-- dropped {10_000 - len(numbers):,} lines because standard output was not read fast enough\n"


def test_one_turn_writes_a_bounded_amount(monkeypatch):
    monkeypatch.setattr(ui, "WRITES_PER_TURN", 2)
    pipes = Pipes()
    pipes.lines.show(b"al", [b"x" * 50_000])
    pipes.lines.draw(0)
    assert len(pipes.said(pipes.stdout)) == 2 * select.PIPE_BUF


def test_a_closed_stdout_is_gone_quietly():
    pipes = Pipes()
    os.close(pipes.stdout)
    pipes.lines.show(b"al", [b"hi"])
    pipes.lines.draw(0)
    assert pipes.lines.next_deadline() == 0.0
    assert pipes.lines.expire(0) == [Key.GONE] and pipes.lines.expire(0) == []
    pipes.lines.show(b"al", [b"hi"])
    pipes.lines.draw(0)
    pipes.lines.close()
    assert pipes.said(pipes.stderr) == b""


def test_a_closed_stderr_ends_nothing():
    pipes = Pipes()
    os.close(pipes.stderr)
    pipes.lines.notice("bob left")
    pipes.lines.show(b"al", [b"hi"])
    pipes.lines.draw(0)
    pipes.lines.notice("bob left")
    assert pipes.lines.flush() == [] and pipes.said(pipes.stdout) == b"al: hi\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_gone_with_a_sentence():
    pipes = Pipes(os.open("/dev/full", os.O_WRONLY))
    pipes.lines.open(1, "")
    assert pipes.lines.flush() == [Key.GONE]
    assert pipes.said(pipes.stderr) == b"-- cannot write any more: No space left on device\n"


def test_a_regular_file_and_dev_null_are_written_at_once_and_never_waited_for(tmp_path):
    for path in (tmp_path / "out", os.devnull):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        pipes = Pipes(fd)
        for _ in range(5000):
            pipes.lines.show(b"al", [b"x" * 100])
        assert pipes.lines.output_fds() == []
        pipes.lines.draw(0)
        assert not pipes.lines._out.unsent
    assert (tmp_path / "out").stat().st_size == 5000 * 105


def test_a_terminal_gets_small_writes_and_keeps_its_modes():
    master, slave = pty.openpty()
    found = termios.tcgetattr(slave)
    pipes = Pipes(slave)
    pipes.lines.open(1, "")
    for _ in range(2000):
        pipes.lines.show(b"al", [b"x" * 100])
    pipes.lines.draw(0)                             # nobody reads the master: must return
    assert pipes.lines.output_fds() == [slave]
    assert termios.tcgetattr(slave) == found and not fcntl.fcntl(slave, fcntl.F_GETFL) & os.O_NONBLOCK
    pipes.lines.close()


def test_close_gets_the_rest_out_and_does_not_wait_for_ever():
    pipes = Pipes()
    pipes.lines.show(b"al", [b"x" * 50_000])
    pipes.lines.close()
    assert len(pipes.said(pipes.stdout)) == 50_005
    pipes = Pipes()
    pipes.lines.show(b"al", [b"x" * 500_000])
    with must_end():
        pipes.lines.close()
        pipes.lines.close()


def test_line_mode_never_loads_blessed_or_wcwidth():
    code = ("import sys; sys.path.insert(0, %r); import ui; lines = ui.Lines(); lines.open(1, 'x');"
            "lines.show(b'\\xe6\\xbc\\xa2' * 40, [b'\\xe2\\x9d\\xa4\\xef\\xb8\\x8f']); lines.close();"
            "print([name for name in ('blessed', 'wcwidth') if name in sys.modules])")
    path = os.path.dirname(os.path.abspath(ui.__file__))
    done = subprocess.run([sys.executable, "-c", code % path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)
    assert done.stdout.decode().splitlines()[-1] == "[]" and done.stderr == b"-- x\n"


# ---- the model itself ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("data", [b"\x1b[5n", b"\x1b[c", b"\x1b]0;x\x07", b"\x1b[33m", b"\x1b[3131m", b"\x1b[22;0t", b"\x08", b"\x1b[9;1H", b"\x1b[?1000h", b"\x9b"])
def test_the_model_raises_on_what_it_does_not_know(data):
    with pytest.raises((Unknown, UnicodeDecodeError)):
        Model(5, 5).feed(data)


def test_the_model_knows_wide_characters_and_graphemes():
    model = Model(1, 8)
    for byte in f"\x1b[?7l漢e\u0301{FAMILY}x".encode():
        model.feed(bytes([byte]))
    assert model.display == [f"漢e\u0301{FAMILY}x  "] and model.cursor == (0, 6)
