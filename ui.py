"""The screen and the keys: bytes from a terminal in, texts and frames out.

Knows: keys, editing, cleaning, wrapping, drawing; how to take a terminal and give it back.
Must not know: sockets, peers, the protocol, what `:quit` means, how the program waits. It is handed
bytes and strings, and it never blocks (close() and suspend() may, for CLOSE_SECONDS). The loop in
p2pchat.py waits for `input_fd`, `output_fds`, `hangup_fds` and until `next_deadline`, and then calls read(),
flush() or expire().
Leaves out: the mouse, queries to the terminal, right-to-left layout (which is up to the terminal), and
flags made of tag characters (they can carry hidden text, so they show as marks).

Reading order: clean_text (what of a peer's bytes may reach a terminal), fold (what counts as the same text),
Decoder (bytes to keys), Keyboard (their names), the edits (a Line in, a Line out), Editor, EDIT_KEYS (what each
key does), wrap, Scrollback, render (a pure function), Screen (which owns the terminal), SCREEN_KEYS, Lines.

The rules of this file:
1. Everything above Screen is pure or touches only its own object: no descriptor, no clock.
2. Only Screen._write and Output.push write to a descriptor, and a write may be partial here, too. Neither
   blocks, except push(seconds).
3. A peer's text is cleaned when it is shown, not when it arrives: 500,000 messages a second may come in, but
   nobody sees more than thirty frames of fifty rows. Of a long message, only the pieces in view cost anything.
4. blessed names keys, and says how to style, move and erase. Each literal sequence has its reason beside it.

The subtle spot: Decoder (ESC is a key by itself, and also begins other keys).
"""
from __future__ import annotations

import codecs
import errno
import os
import re
import select
import stat
import termios
import time
from bisect import bisect_right
from collections import deque
from enum import Enum
from functools import lru_cache, partial
from itertools import islice, product
from typing import TYPE_CHECKING, Any, Callable, Collection, Deque, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple, Union
from unicodedata import category, combining, east_asian_width, normalize
from zlib import crc32

if TYPE_CHECKING:
    from blessed import Terminal

# blessed and wcwidth are imported inside functions: together they cost ~100 ms, and the first frame is on
# the screen before that. Line mode never pays. wcwidth is asked directly; blessed itself measures with it.

NEWLINE = "\n"
MARK = "\ufffd"                 # stands for what a terminal must not get, and for what an eye could not see


class Key(Enum):
    """What the front end asks of the program. Any other event is a `str`: a text that the user entered."""

    LEAVE = "leave"         # Ctrl-C or Ctrl-D on an empty input
    END = "end"             # line mode's input has ended
    SUSPEND = "suspend"     # Ctrl-Z
    GONE = "gone"           # the terminal hung up, or nobody reads our stdout any more


Event = Union[str, Key]

# ---- what of a peer's bytes may reach a terminal ------------------------------------------------------------

KINDS_KEPT = 16_384             # characters whose kind is remembered
NAMES_KEPT = 16_384             # cleaned names that are remembered: as many as can be here
NAME_CELLS = 32                 # a name is a label; a longer one would leave no room for the text
NAME_BYTES = 256                # of a name that are looked at; enough for NAME_CELLS in any script
MARKS_PER_BASE = 8              # more than real writing has; "zalgo" stacks hundreds, which paint over other rows

JOINERS = "\u200c\u200d"                            # invisible, but Arabic, Indic scripts and emoji need them
# Scripts in which a joiner changes how its neighbour is written: Arabic to Thaana, Indic, Tibetan to Mongolian, and so on.
JOINING = re.compile("[\u0600-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u18af\u1b00-\u1c4f\ua800-\uabff\ufb50-\ufdff"
                     "\ufe70-\ufefc\U00010a00-\U00011fff\U0001e900-\U0001e95f]")
NUMBER_SIGNS = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u0890\u0891\u08e2\U000110bd\U000110cd"
FILLERS = "\u115f\u1160\u3164\uffa0\u2800"          # letters by category, blank to the eye
# Variation selectors and their like: without a base that they change, they are hidden text.
UNSEEN_MARKS = re.compile("[\u034f\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
UNSEEN = {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}  # Cn, unassigned, as of this Python's Unicode tables
BASE, ON_BASE, JOINER, HIDDEN, BLANK = "bojh "      # the kinds of characters
ONTO = ON_BASE + JOINER                            # what is drawn onto the character before it
PART = re.compile(f"{BASE}+|{ON_BASE}+|{HIDDEN}+|.")


class Kinds(Dict[int, str]):
    """The kind of each character, for str.translate. Remembered, because hostile text has ten characters in each cell."""

    def __missing__(self, number: int) -> str:
        if len(self) >= KINDS_KEPT:
            self.clear()
        self[number] = kind = kind_of(chr(number))
        return kind


KINDS = Kinds()


def kind_of(char: str) -> str:
    """Which of the kinds above a character is."""
    if char in JOINERS:
        return JOINER
    kind = category(char)
    if char in FILLERS or kind in UNSEEN and char not in "\n" + NUMBER_SIGNS and not is_new_emoji(char):
        return HIDDEN
    # The later parts of a Hangul syllable are letters by category.
    if kind[0] == "M" or kind == "Lo" and ("\u1160" <= char <= "\u11ff" or "\ud7b0" <= char <= "\ud7ff"):
        return ON_BASE
    return BLANK if kind == "Zs" and char != "\u3000" else BASE     # sixteen spaces of doubtful width


def is_new_emoji(char: str) -> bool:
    """Whether this is an emoji that wcwidth's tables know, but not yet this Python's."""
    if not "\U0001f000" <= char <= "\U0001faff" or category(char) != "Cn":
        return False
    from wcwidth import wcwidth
    return wcwidth(char) == 2


@lru_cache(KINDS_KEPT)
def is_symbol(char: str) -> bool:
    """Whether this is an emoji or the like, which a joiner may join to another one."""
    return char > "\x7f" and char != MARK and (category(char) in ("So", "Sm", "Sk") or char == "\ufe0f" or is_new_emoji(char))


@lru_cache(KINDS_KEPT)
def joins(one: str, other: str) -> bool:
    """Whether an invisible joiner has an effect between these two."""
    if one.isspace() or one in JOINERS:
        return False
    return bool(JOINING.match(one) or JOINING.match(other)) or is_symbol(one) and is_symbol(other)


def clean_text(data: bytes) -> str:
    """A peer's bytes as text that is safe to show: what steers a terminal, reorders a line or hides becomes U+FFFD.

    Bytes that are not UTF-8 become U+FFFD too. Only "\\n" breaks lines; a tab is four spaces. Scripts and emoji
    stay whole, but no more than MARKS_PER_BASE marks stay on one base. Never raises; standard library only, but
    for emoji that this Python does not know.
    """
    text = data.decode("utf-8", "replace")
    if text.isascii() and text.isprintable():
        return text
    text = text.replace("\r\n", "\n").replace("\t", "    ")
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    kinds = text.translate(KINDS)
    if kinds.strip(BASE):
        return clean_delicate(text, kinds)
    return text


def clean_delicate(text: str, kinds: str) -> str:
    """clean_text for a text with characters of more than one kind."""
    shown: List[str] = []
    base, marks = "\n", 0
    for part in PART.finditer(kinds):
        start, stop = part.span()
        kind = kinds[start]
        if kind == JOINER and not joins(shown[-1][-1] if shown else "\n", text[stop:stop + 1] or " "):
            kind = HIDDEN
        if kind not in ONTO:
            shown.append(text[start:stop] if kind == BASE else MARK * (stop - start) if kind == HIDDEN else " ")
            base, marks = shown[-1][-1], 0
            continue
        if base.isspace():                          # else the marks would sit on somebody else's text
            base = "\u25cc"
            shown.append(base)
        if marks < MARKS_PER_BASE:
            shown.append(clean_marks(text[start:min(stop, start + MARKS_PER_BASE - marks)], base))
        marks += stop - start
    return "".join(shown)


def clean_marks(marks: str, base: str) -> str:
    """The marks on a base, without those that would be invisible there."""
    hides = base.isascii() and base not in "0123456789#*"      # these make keycaps
    return UNSEEN_MARKS.sub(MARK, marks) if hides else marks


PLAIN_NAME = re.compile(rb"[A-Za-z0-9_][A-Za-z0-9_-]{0,%d}" % (NAME_CELLS - 1))
OUR_WORDS = re.compile("(?:SERVER|ERROR)(?:~[0-9A-F]+)?")      # how lines of the program begin, here or in C
ALIKE = str.maketrans("\u0405\u0415\u0395\u041e\u039f\u0474\u13da\u13ac\u13e2\ua4e2\ua4f0\ua4e3\ua4e6\ua4f3", "SEEOOVSERSERVO")      # capitals
UNSEEN_BLANK = re.compile(r"^\s|\s$|(?<=\s)\s|\n")     # with these, "ann " would look like "ann"
# The colons of `other: text`, of a time before a message and, in line mode, of the one after a name; and
# what looks like a colon anywhere.
FORGED = re.compile(r":(?= |$)|(?<=^\d\d):(?=\d\d)|(?<=\(\d\d):(?=\d\d\)$)"
                    "|[\u02d0\u02f8\u0589\u05c3\u0703\u0704\u1361\u16ec\u1803\u1809\u205a\u205d\u205e\u2236\u2237\u22ee\u2806\u2830\u2982"
                    "\ua789\ufe13\ufe19\ufe30\ufe55\uff1a]")
# What looks like the `--` of a notice: dashes, lines and minus signs; a letter that does when there are two; and `__` on its own.
DASH = re.compile("[\u00ac\u00af\u02c9\u02d7\u1428\u1c7c\u2043\u2053\u207b\u208b\u2212\u223c\u23af\u23ba-\u23bd\u23e4\u2500-\u257f\u25ac\u2796\ua4fe\uff3f]"
                  "|[\u30fc\uff70\u3161\u1173\u4e00](?=[\\s\u30fc\uff70\u3161\u1173\u4e00])|_(?=_+\\s)")
HYPHEN = re.compile("-[A-Za-z0-9]")                            # `-x` looks like an option, not like a notice


def clean_name(data: bytes) -> str:
    """A peer's name as one line of 1 to NAME_CELLS cells that imitates neither a notice nor `other: text`."""
    return cleaned_name(data[:NAME_BYTES])


@lru_cache(NAMES_KEPT)
def cleaned_name(data: bytes) -> str:
    name = data.decode() if PLAIN_NAME.fullmatch(data) else clean_odd_name(data)        # as nearly all are
    return "peer " * bool(OUR_WORDS.fullmatch(normalize("NFKC", name).upper().translate(ALIKE))) + name


def clean_odd_name(data: bytes) -> str:
    """clean_name for any name that is not simply letters and digits."""
    name = FORGED.sub(MARK, UNSEEN_BLANK.sub(MARK, clean_text(data)))
    if not name or DASH.match(name) or category(name[0]) == "Pd" and not HYPHEN.match(name):
        name = MARK + name[1:]
    return shorten(name)


TAG = re.compile(r"(~(?:[0-9a-f]{2,16}|C))?$")               # tells two of the same name apart, however long the name is


def shorten(name: str) -> str:
    """A name cut to NAME_CELLS, with its tag."""
    # Widths by the standard library, good enough to cut with: line mode may not load wcwidth.
    used = 0
    for at, char in enumerate(name):
        used += 0 if KINDS[ord(char)] in ONTO else 2 if east_asian_width(char) in "WF" else 1
        if used > NAME_CELLS:
            tag = TAG.search(name)[0]           # type: ignore[index]
            return name[:at - 1 - len(tag)].rstrip() + "\u2026" + tag
    return name


# ---- comparing ----------------------------------------------------------------------------------------------

OCCURRENCES = 100               # of our name in a message that are looked at, to find one that is a word of its own

# Scripts that put no spaces between words: there, a name may stand beside any letter.
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff"
                      "\U00020000-\U0003ffff]")
LONG_RUN = re.compile(r"([^\w\x00-\x7f]{16})[^\w\x00-\x7f]+")


def fold(text: str) -> str:
    """A text for comparing: the same however it is written, in capitals, composed or decomposed."""
    if text.isascii():
        return text.lower()
    # Normalising sorts the marks on each base; hundreds of them would take seconds.
    return normalize("NFC", normalize("NFC", LONG_RUN.sub(r"\1", text)).casefold())


def in_word(char: str) -> bool:
    """Whether this character is part of a word."""
    return char.isalnum() or char == "_" or char > "\x7f" and KINDS[ord(char)] in ONTO


def mentions(name: str, text: str) -> bool:
    """Whether a text contains a name as a word of its own. Both are folded."""
    at = -1
    for _ in range(OCCURRENCES):
        at = text.find(name, at + 1) if name else -1
        if at < 0:
            return False
        stop = at + len(name)
        if not continues(name[0], text[max(0, at - 1):at]) and not continues(name[-1], text[stop:stop + 1]):
            return True
    return False


def continues(edge: str, beside: str) -> bool:
    """Whether the character beside an edge of a name makes the name part of a longer word."""
    if not beside or not in_word(beside):
        return False
    if KINDS[ord(beside)] == ON_BASE:
        return True
    return in_word(edge) and not UNSPACED.match(beside)

# ---- keys ---------------------------------------------------------------------------------------------------

INPUT_LIMIT = 1024 * 1024       # characters in the input, or in one paste: more is an accident
ESC_SECONDS = 0.05              # the bytes of one key come together; between two keys, a human needs longer than this
PIECE_SECONDS = 2.0             # between two pieces of a paste, or of a terminal's answer; if given up too early, the rest would be typed
SEQUENCE_LIMIT = 64             # characters kept of one unfinished sequence; keys stay under twenty
KEYS_KEPT = 1024                # names of keys that are remembered; people use fewer than a hundred


class Token(NamedTuple):
    """What the decoder found: typed text, a paste or a key."""
    kind: str           # "text" (a run of typed characters), "paste", or "key" (one whole control or sequence)
    text: str
    lost: int = 0       # characters of a paste beyond INPUT_LIMIT


PASTE_BEGIN, PASTE_END = "\x1b[200~", "\x1b[201~"

# ECMA-48. A sequence is taken whole or not at all, so that one we do not know types nothing into the line.
# "more" is a sequence whose end has not arrived; "bad" is one broken off by a character that cannot belong.
TOKEN = re.compile(r"""
    (?P<text> [^\x00-\x1f\x7f-\x9f]+ )
  | (?P<string> \x1b[P\]X^_] [^\x00-\x1f\x7f]* (?: \x1b\\ | [\x07\x18\x1a] ) )           # DCS, OSC, SOS, PM, APC
  | (?P<more> \x1b (?: \x1b? (?: \[ \[? | \[ [0-?]*[ -/]* | O [0-9;]* )? | \[M [^\x00-\x1f]{0,2}
           | [P\]X^_] [^\x00-\x1f\x7f]* \x1b? ) \Z )
  | (?P<key> \x1b\[\[[A-E] | \x1b\[M [^\x00-\x1f]{3}                                 # linux: F1 to F5; X10: the mouse
           | \x1b?\x1b\[ [0-?]*[ -/]*[@-~] | \x1b?\x1bO [0-9;]*[@-~]                 # CSI, SS3; rxvt: ESC before it for Alt
           | \x1b[^\x1b\[OP\]X^_] | [^\x1b] )                                        # Alt and a key; a control
  | (?P<bad> \x1b (?: \[ [0-?]*[ -/]* | O [0-9;]* | [P\]X^_] [^\x00-\x1f\x7f]* )? )
""", re.VERBOSE)
BARE = re.compile(r"\x1b\x1b?(?:[\[O]|\[\d+\$)?|\x1b[P\]X^_]")      # what a key sends that also begins something longer; rxvt: 3$


class Decoder:
    """Bytes of a terminal in, tokens out, however the bytes were cut. It is fed: it reads nothing and never waits.

    `deadline`: when (time.monotonic() seconds) expire() has something to say; None while nothing is unfinished.
    The subtle spot: ESC is a key and also begins every other key. Only time tells which, hence the deadline.
    """

    def __init__(self) -> None:
        self.deadline: Optional[float] = None
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""                                 # an unfinished sequence: never more than SEQUENCE_LIMIT
        self._give_up = 0.0                             # when to stop waiting for its end
        self._paste: Optional[List[str]] = None         # the pieces of an open paste
        self._room = self._lost = 0

    def feed(self, data: bytes, now: float) -> List[Token]:
        """The tokens that these bytes complete."""
        begun = bool(self._rest)
        text, at, tokens = self._rest + self._utf8.decode(data), 0, []      # type: str, int, List[Token]
        self._rest = ""
        while at < len(text):
            at = self._step(text, at, tokens) if self._paste is None else self._step_paste(text, at, tokens)
        self.deadline = None
        if not begun or tokens:
            self._give_up = now + 10 * PIECE_SECONDS
        if self._paste is not None:
            self.deadline = now + PIECE_SECONDS
        elif self._rest:
            self.deadline = now + ESC_SECONDS if BARE.fullmatch(self._rest) else min(now + PIECE_SECONDS, self._give_up)
        return tokens

    def expire(self, now: float) -> List[Token]:
        """Give up waiting for the rest, if the deadline has passed."""
        if self.deadline is None or now < self.deadline:
            return []
        rest, self._rest, self.deadline = self._rest, "", None
        if self._paste is not None:                     # the end of the paste was lost: keep what came
            return [self._pasted()]
        return [Token("key", rest)] if BARE.fullmatch(rest) else []

    def _step(self, text: str, at: int, tokens: List[Token]) -> int:
        match = TOKEN.match(text, at)
        assert match is not None and match.lastgroup is not None, "every character begins a token"
        token = Token(match.lastgroup, match.group())
        if token.kind == "more":
            self._rest = abridged(token.text)
        elif token.text == PASTE_BEGIN:
            self._paste, self._room, self._lost = [], INPUT_LIMIT, 0
        elif token.kind in ("text", "key"):
            tokens.append(token)
        return match.end()

    def _step_paste(self, text: str, at: int, tokens: List[Token]) -> int:
        end = text.find(PASTE_END, at)
        if end >= 0:
            self._collect(text[at:end])
            tokens.append(self._pasted())
            return end + len(PASTE_END)
        half = next((n for n in range(5, 0, -1) if text.endswith(PASTE_END[:n], at)), 0)
        self._collect(text[at:len(text) - half])
        self._rest = text[len(text) - half:]
        return len(text)

    def _collect(self, piece: str) -> None:
        assert self._paste is not None
        self._paste.append(piece[:self._room])
        self._lost += max(0, len(piece) - self._room)
        self._room -= len(self._paste[-1])

    def _pasted(self) -> Token:
        token = Token("paste", "".join(self._paste or []), self._lost)
        self._paste = None
        return token


def abridged(sequence: str) -> str:
    """An unfinished sequence, cut so that one that never ends costs nothing and still swallows its end."""
    if len(sequence) <= SEQUENCE_LIMIT:
        return sequence
    if sequence[1] in "P]X^_":
        return sequence[:2] + "?" + "\x1b" * sequence.endswith("\x1b")
    return "\x1b[??"                                    # a CSI that will name no key


# Number, modifiers and end of what xterm, rxvt, the linux console and PuTTY send for one key.
KEY_FORM = re.compile(r"\x1b(\x1b)?([\[O])(?:(\d+)(?:;(\d+))?)?([A-DFHa-d~^$@])")
OTHER_KEYS = re.compile(r"\x1b\[27;(\d+);(\d+)~")       # xterm's modifyOtherKeys
SHIFT, ALT, CTRL, CAPS_LOCK, NUM_LOCK = 1, 2, 4, 64, 128
LOCKS = CAPS_LOCK | NUM_LOCK


def as_xterm_sends(sequence: str) -> str:
    """A key's sequence in the one form that blessed knows for every TERM: xterm's for named keys, CSI u for characters."""
    if sequence == "\x1b[Z":
        return "\x1b[9;2u"                              # Shift-Tab
    match = KEY_FORM.fullmatch(sequence)
    if match is None:
        return OTHER_KEYS.sub("\x1b[\\2;\\1u", sequence)
    escape, kind, number, modifiers, final = match.groups()
    named = final in "~^$@"
    if named and number is None:
        return sequence
    if not named and modifiers is None:                 # ESC O 5 D, ESC [ 5 D
        modifiers = number
    held = max(0, int(modifiers or 1) - 1) | {"^": CTRL, "$": SHIFT, "@": CTRL | SHIFT}.get(final, 0)
    if final.islower():
        held |= CTRL if kind == "O" else SHIFT          # rxvt's arrows
    held |= ALT if escape else 0
    final = "~" if named else final.upper()
    number = number if named else "1"
    return f"\x1b[{number};{held + 1}{final}" if held else f"\x1b[{number * named}{final}"


KEYPAD = {f"KEY_KP_{name}": char for name, char in (*((str(digit), str(digit)) for digit in range(10)), ("MULTIPLY", "*"), ("ADD", "+"),
          ("SEPARATOR", ","), ("SUBTRACT", "-"), ("DECIMAL", "."), ("DIVIDE", "/"), ("EQUAL", "="))}


class Keyboard:
    """Names keys as blessed does: Keyboard(terminal).key(sequence) is its name and the text that it types.

    Cached, within KEYS_KEPT: blessed takes 40 to 350 us for a key.
    """

    def __init__(self, terminal: "Terminal") -> None:
        from blessed.dec_modes import DecModeResponse, DecPrivateMode
        from blessed.keyboard import get_keyboard_codes, get_keyboard_sequences, resolve_sequence
        focus = {int(DecPrivateMode.FOCUS_IN_OUT_EVENTS): DecModeResponse.SET}
        self._resolve = partial(resolve_sequence, mapper=get_keyboard_sequences(terminal), codes=get_keyboard_codes(),
                                final=True, dec_mode_cache=focus)
        self.key = lru_cache(KEYS_KEPT)(self._key)

    def _key(self, sequence: str) -> Tuple[str, str]:
        sequence = as_xterm_sends(sequence)
        try:
            key = self._resolve(sequence)
            text = key.value
        except (ValueError, OverflowError):             # the number of a key that no character has
            return "", ""
        if key != sequence or key.released:             # blessed knows only part of it, which would be another key
            return "", ""
        name, held = key.key_name or "", key.modifiers_bits
        text = KEYPAD.get(name, text) if not held & ~(SHIFT | LOCKS) else ""
        if bool(held & SHIFT) != bool(held & CAPS_LOCK):
            text = text.upper()
        if name not in KEY_NAMES:
            name = name.replace("SHIFT_", "").replace("KP_", "")
        return name, text if text.isprintable() else ""

# ---- editing: a Line in, a Line out -------------------------------------------------------------------------
# blessed.line_editor was looked at: one row, no newlines in the text, a list rebuilt at every key. Ours has three.

GRAPHEME_SPAN = 64              # characters looked at for one grapheme, so that a step costs O(1); a family of emoji has 7 to 11
WORD_SPAN = 1024                # graphemes, so that Ctrl-W in a megabyte without a space is not felt
HISTORY_BYTES = 4 << 20         # earlier inputs, a few large pastes among them
UNDO_STEPS = 200                # nobody goes back further
UNDO_CHARACTERS = 4 << 20       # in all steps together: each keeps a whole text
QUERY = 256                     # characters of a search in the history
COMPLETED = 256                 # characters before the cursor that are looked at for a word to complete
C_BYTES = 2048                  # of one message in the C program; longer ones are split for its users


class Line(NamedTuple):
    """The input: a text and a cursor. Every edit makes a new one."""
    text: str
    at: int             # the cursor, in characters; always between two graphemes


TYPED = dict.fromkeys([*range(0x20), *range(0x7f, 0xa0)])       # never part of a text ...
TYPED.update({ord("\n"): "\n", ord("\t"): "    "})              # ... but these
ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[P\]X^_][^\x07\x1b\n]*(?:\x07|\x1b\\)|[ -/]*[0-OQ-WYZ\\`-~])|\x9b[0-?]*[ -/]*[@-~]"
                    "|\x1b(?:\\[[0-?]*[ -/]*|[P\\]X^_][^\x07\x1b\n]*)?$")


def without_escapes(text: str) -> str:
    """A text that a program printed for a terminal, without its colours and the like, or a leading byte order mark."""
    return ESCAPE.sub("", text[text.startswith("\ufeff"):])


def insert(line: Line, piece: str) -> Line:
    """Put a text in at the cursor, without what a text may not contain."""
    piece = without_escapes(piece).replace("\r\n", "\n").replace("\r", "\n").translate(TYPED)
    return Line(line.text[:line.at] + piece + line.text[line.at:], line.at + len(piece))


def before(text: str, at: int) -> int:
    """Where the grapheme that ends at `at` begins."""
    near = text[max(0, at - GRAPHEME_SPAN):at]
    if SIMPLE.fullmatch(near[-2:]):
        return max(0, at - 1)
    from wcwidth import grapheme_boundary_before
    return at - len(near) + grapheme_boundary_before(near, len(near))


def after(text: str, at: int) -> int:
    """Where the grapheme that begins at `at` ends."""
    near = text[at:at + GRAPHEME_SPAN]
    if SIMPLE.fullmatch(near[:2]):
        return min(len(text), at + 1)
    from wcwidth import iter_graphemes
    return at + len(next(iter_graphemes(near)))


def line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def left(line: Line) -> Line:
    return Line(line.text, before(line.text, line.at))


def right(line: Line) -> Line:
    return Line(line.text, after(line.text, line.at))


def home(line: Line) -> Line:
    return Line(line.text, line_start(line.text, line.at))


def end(line: Line) -> Line:
    found = line.text.find("\n", line.at)
    return Line(line.text, len(line.text) if found < 0 else found)


def backspace(line: Line) -> Line:
    start = before(line.text, line.at)
    return Line(line.text[:start] + line.text[line.at:], start)


def delete(line: Line) -> Line:
    return Line(line.text[:line.at] + line.text[after(line.text, line.at):], line.at)


def stride(line: Line, step: Callable[[str, int], int], of_word: Callable[[str], bool]) -> Line:
    """Past what is between words, then past a word, in the direction of `step` (before or after)."""
    text, at, inside = line.text, line.at, False
    for _ in range(WORD_SPAN):
        to = step(text, at)
        if to == at or inside and not of_word(text[min(at, to)]):
            break
        inside = of_word(text[min(at, to)])
        at = to
    return Line(text, at)


word_left = partial(stride, step=before, of_word=in_word)
word_right = partial(stride, step=after, of_word=in_word)
blank_left = partial(stride, step=before, of_word=lambda char: not char.isspace())


def to_end(line: Line) -> Line:
    """What Ctrl-K takes: the rest of the line, or the newline if there is no rest."""
    return end(line) if end(line).at > line.at else right(line)


def to_start(line: Line) -> Line:
    return home(line) if home(line).at < line.at else left(line)


def transpose(line: Line) -> Line:
    """The graphemes on both sides of the cursor, swapped; at the end, the last two."""
    stop = after(line.text, line.at) if line.at < len(line.text) else line.at
    middle = before(line.text, stop)
    start = before(line.text, middle)
    if start == middle:
        return line
    return Line(line.text[:start] + line.text[middle:stop] + line.text[start:middle] + line.text[stop:], stop)


class History:
    """Earlier inputs, within HISTORY_BYTES. What was being written when the user went back is kept."""

    def __init__(self) -> None:
        self._texts: List[str] = []
        self.at = 0
        self._draft = ""
        self._size = 0

    def add(self, text: str) -> None:
        """Remember a finished input, unless it repeats the last one."""
        if self._texts[-1:] != [text]:
            self._texts.append(text)
            self._size += len(text)
        while self._size > HISTORY_BYTES:
            self._size -= len(self._texts.pop(0))
        self.at = len(self._texts)

    def move(self, line: Line, by: int) -> Line:
        """The input `by` entries later (negative: earlier), or the same Line if there is none."""
        to = self.at + by
        if not 0 <= to <= len(self._texts):
            return line
        if self.at == len(self._texts):
            self._draft = line.text
        self.at = to
        text = self._draft if to == len(self._texts) else self._texts[to]
        return Line(text, len(text))

    @property
    def at_end(self) -> bool:
        return self.at == len(self._texts)

    def find(self, query: str, start: int) -> Optional[int]:
        """The number of the newest input, from `start` backwards, that contains `query`."""
        newest = min(start, len(self._texts) - 1)
        return next((at for at in range(newest, -1, -1) if query in self._texts[at]), None)


class Search(NamedTuple):
    """Ctrl-R: what is searched for, and the input as it was before."""

    query: str
    line: Line
    at: int
    failed: bool = False


class Cycle(NamedTuple):
    """Tab: the choices for what `line` has from `start` to the cursor, and which one is shown."""

    line: Line
    start: int
    choices: List[str]
    shown: int


class Editor:
    """The input with its memory: undo, history, what was killed. Keys in; `line` is what there is.

    A Line is never changed, only replaced: `line is X` asks whether anything happened since X. So a kill
    joins the kill before it, Tab goes on with the choices of the last Tab, a typed word is undone as one.
    """

    def __init__(self, complete: Callable[[str, bool], List[str]]) -> None:
        self.line = Line("", 0)
        self.search: Optional[Search] = None
        self.cols = 80                  # of the screen, for moving between its rows
        self.c_users = False            # whether somebody uses the C program
        self._complete = complete       # (a word, whether it begins the line) -> what it may become
        self._history = History()
        self._undo: List[Line] = []
        self._killed = ""
        self._cycle: Optional[Cycle] = None
        self._typed = self._kill = self._choice = None      # type: Optional[Line]

    def key(self, key: str) -> bool:
        """Obey a key, by its name in blessed. Returns whether it is one that edits."""
        if self.search is not None and key in SEARCH_KEYS:
            SEARCH_KEYS[key](self, self.search)
            return True
        self.search = None if key in KEY_NAMES else self.search
        if key not in EDITS:
            return False
        EDITS[key](self)
        return True

    def insert(self, piece: str, typed: bool = True) -> None:
        """Put a text in at the cursor, or into the search. `typed`: what follows may belong to the same word."""
        if self.search is not None:
            self._look(self.search._replace(query=(self.search.query + piece)[:QUERY]), self._history.at)
            return
        line = insert(self.line, piece)
        if typed and self.line is self._typed and not piece.isspace():
            self.line = line            # more of the same word: one step of undo
        else:
            self.become(line)
        self._typed = self.line if typed else None

    @property
    def label(self) -> str:
        """What the user should know before pressing Enter; usually nothing."""
        if self.search is not None:
            return f"search: {self.search.query}" + ", not found" * self.search.failed
        text = self.line.text.strip(NEWLINE)            # as take() has it
        size = len(text.encode("utf-8", "replace")) if self.c_users and len(text) > C_BYTES // 4 else 0
        lines = text.count(NEWLINE) + 1
        parts = [f"{lines:,} line{'s' * (lines > 1)}; Enter to send"] * (text != "" and NEWLINE in self.line.text)
        parts += [f"C users will see {-(-size // C_BYTES)} messages"] * (size > C_BYTES)
        return "; ".join(parts)

    def take(self) -> str:
        """Return the finished text, and empty the line."""
        text = self.line.text.strip("\n")
        self.line, self.search = Line("", 0), None
        self._undo.clear()
        if text.strip():
            self._history.add(text)
        return text

    def become(self, line: Line) -> None:
        """Replace the line; undo() brings the old one back."""
        if line.text != self.line.text:
            self._undo.append(self.line)
        while len(self._undo) > UNDO_STEPS or sum(len(old.text) for old in self._undo) > UNDO_CHARACTERS:
            self._undo.pop(0)
        self.line = line

    def undo(self) -> None:
        if self._undo:
            self.line = self._undo.pop()

    def kill(self, motion: Callable[[Line], Line]) -> None:
        """Cut from the cursor to where `motion` leads; successive kills are one for yank()."""
        text, at = self.line
        to = motion(self.line).at
        start, stop = min(at, to), max(at, to)
        earlier = self._killed if self.line is self._kill else ""
        if start < stop:
            self._killed = earlier + text[start:stop] if to > at else text[start:stop] + earlier
        self.become(Line(text[:start] + text[stop:], start))
        self._kill = self.line

    def drop(self) -> None:
        """Clear the input; yank() brings it back."""
        self._killed = self.line.text
        self.become(Line("", 0))

    def yank(self) -> None:
        if len(self.line.text) + len(self._killed) <= INPUT_LIMIT:
            self.become(insert(self.line, self._killed))

    def recall(self, by: int) -> None:
        """Show the input `by` entries later (negative: earlier)."""
        self.become(self._history.move(self.line, by))

    def climb(self, by: int) -> None:
        """Move to the row above or below; beyond the first or last one, through the history."""
        moved = climb(self.line, by, self.cols)
        self.become(moved) if moved is not None else self.recall(by)

    @property
    def is_draft(self) -> bool:
        """Whether there is a text that was never sent."""
        return self.line.text != "" and self._history.at_end

    def begin_search(self) -> None:
        self.search = Search("", self.line, self._history.at)

    def search_on(self, search: Search) -> None:
        self._look(search, self._history.at - 1)

    def search_less(self, search: Search) -> None:
        self._look(search._replace(query=search.query[:-1]), search.at)

    def search_off(self, search: Search) -> None:
        """Give up: back to the input as it was before."""
        self.line, self._history.at, self.search = search.line, search.at, None

    def _look(self, search: Search, start: int) -> None:
        found = self._history.find(search.query, start) if search.query else None
        self.search = search._replace(failed=found is None and search.query != "")
        if found is not None:
            text = self._history.move(self.line, found - self._history.at).text
            self.become(Line(text, before(text, text.index(search.query) + 1)))

    def complete(self, by: int) -> None:
        """Show the next choice (-1: the one before) for the word before the cursor."""
        cycle = self._cycle if self.line is self._choice else None
        if cycle is None:
            text, at = self.line
            start = at - len(re.split(r"\s", text[max(0, at - COMPLETED):at])[-1])
            found = self._complete(text[start:at], start == 0)
            cycle = Cycle(self.line, start, found if len(found) == 1 else [text[start:at], *found], 0)
        cycle = self._cycle = cycle._replace(shown=(cycle.shown + by) % len(cycle.choices))
        text, at = cycle.line
        choice = cycle.choices[cycle.shown]
        self.become(Line(text[:cycle.start] + choice + text[at:], cycle.start + len(choice)))
        self._choice = self.line

# ---- which key does what ------------------------------------------------------------------------------------


def edit(change: Callable[[Line], Line]) -> Callable[[Editor], None]:
    """A key that changes the line."""
    return lambda editor: editor.become(change(editor.line))


def killing(motion: Callable[[Line], Line]) -> Callable[[Editor], None]:
    """A key that cuts as far as the motion goes."""
    return lambda editor: editor.kill(motion)


# Blessed's names of the keys, what they do, and how. The help is made from this table, and so are the look-ups.
EDIT_KEYS: List[Tuple[str, str, Callable[[Editor], None]]] = [
    ("KEY_ALT_ENTER KEY_SHIFT_ENTER KEY_CTRL_ENTER", "new line", lambda editor: editor.insert("\n")),
    ("KEY_TAB KEY_CTRL_I", "complete", lambda editor: editor.complete(1)),
    ("KEY_SHIFT_TAB", "", lambda editor: editor.complete(-1)),
    ("KEY_UP", "up, earlier input", lambda editor: editor.climb(-1)),
    ("KEY_DOWN", "down, later input", lambda editor: editor.climb(1)),
    ("KEY_CTRL_P", "", lambda editor: editor.recall(-1)),
    ("KEY_CTRL_N", "", lambda editor: editor.recall(1)),
    ("KEY_CTRL_R", "search earlier input", lambda editor: editor.begin_search()),
    ("KEY_CTRL__ KEY_CTRL_UNDERSCORE KEY_CTRL_SLASH KEY_CTRL_SHIFT_MINUS", "undo", lambda editor: editor.undo()),
    ("KEY_LEFT KEY_CTRL_B", "", edit(left)),
    ("KEY_RIGHT KEY_CTRL_F", "", edit(right)),
    ("KEY_ALT_B KEY_CTRL_LEFT KEY_ALT_LEFT", "back a word", edit(word_left)),
    ("KEY_ALT_F KEY_CTRL_RIGHT KEY_ALT_RIGHT", "forward a word", edit(word_right)),
    ("KEY_CTRL_A KEY_HOME", "start of line", edit(home)),
    ("KEY_CTRL_E KEY_END", "end of line", edit(end)),
    ("KEY_CTRL_W", "cut a word back", killing(blank_left)),
    ("KEY_ALT_BACKSPACE KEY_CTRL_BACKSPACE", "cut to punctuation", killing(word_left)),
    ("KEY_ALT_D KEY_CTRL_DELETE KEY_ALT_DELETE", "cut a word", killing(word_right)),
    ("KEY_CTRL_U", "cut to start", killing(to_start)),
    ("KEY_CTRL_K", "cut to end", killing(to_end)),
    ("KEY_CTRL_Y", "paste what was cut", lambda editor: editor.yank()),
    ("KEY_CTRL_T", "swap characters", edit(transpose)),
    ("KEY_BACKSPACE KEY_CTRL_H", "", edit(backspace)),
    ("KEY_DELETE", "", edit(delete)),
]
EDITS = {name: action for names, _, action in EDIT_KEYS for name in names.split()}
ESCAPES = ("KEY_ESCAPE", "KEY_ALT_ESCAPE", "KEY_CTRL_LEFT_SQUARE_BRACKET")
SEARCH_KEYS: Dict[str, Callable[[Editor, Search], None]] = {
    "KEY_CTRL_R": Editor.search_on, "KEY_BACKSPACE": Editor.search_less, "KEY_CTRL_H": Editor.search_less,
    **dict.fromkeys((*ESCAPES, "KEY_CTRL_G", "KEY_CTRL_C"), Editor.search_off)}


SPELLED = {"Pgup": "PageUp", "Pgdown": "PageDown"}


def readable(name: str) -> str:
    """What people call a key: Ctrl-Left for KEY_CTRL_LEFT."""
    words = re.findall("_$|[^_]+", name)[1:]
    return "-".join(SPELLED.get(word.capitalize(), word.capitalize()) for word in words)

# ---- widths and wrapping ------------------------------------------------------------------------------------

CHARACTERS_PER_CELL = 3         # on average in one row: more than real writing has. Beyond that the row ends, or it would cost milliseconds
GRAPHEMES_KEPT = 4096           # graphemes whose width is remembered


class Span(NamedTuple):
    """A piece of a text, and how wide it is on the screen."""
    start: int          # characters
    end: int
    cells: int          # of text[start:end]


# Each of these is a grapheme of its own next to any other of them: one cell below U+1100 and two above.
SIMPLE = re.compile("[ -~\u00a1-\u00a8\u00aa-\u00ac\u00af-\u02ff\u0370-\u0377\u037a-\u037f\u0391-\u03a1\u03a3-\u0482"
                    "\u048a-\u052f\u3001-\u3029\u3041-\u3096\u30a1-\u30fe\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3]*")
URL = re.compile("[a-z][a-z0-9+.-]*://")


def cells(text: str) -> int:
    """How many columns a text takes."""
    if text.isascii():
        return len(text)
    if SIMPLE.fullmatch(text):
        return sum(2 if char >= "\u1100" else 1 for char in text)
    return sum(grapheme_cells(text[start:stop]) for start, stop in graphemes(text, 0, len(text)))


@lru_cache(GRAPHEMES_KEPT)
def grapheme_cells(grapheme: str) -> int:
    from wcwidth import wcswidth
    return max(0, wcswidth(grapheme))


def graphemes(text: str, start: int, stop: int) -> Iterator[Tuple[int, int]]:
    """Where each grapheme begins and ends: as wcwidth says for text that clean_text lets pass, at a tenth of the cost."""
    begin, flags = start, 0
    piece = text[start:stop]
    last = ""
    for at, (char, kind) in enumerate(zip(piece, piece.translate(KINDS)), start):
        flags = flags + 1 if "\U0001f1e6" <= char <= "\U0001f1ff" else 0       # two of these letters are a flag
        on_base = kind in ONTO or flags and not flags % 2 or last >= "\u0300" and glued(last, char)
        last = char
        if at > begin and (not on_base or at - begin >= GRAPHEME_SPAN):
            yield begin, at
            begin = at
    if begin < stop:
        yield begin, stop


@lru_cache(GRAPHEMES_KEPT)
def glued(last: str, char: str) -> bool:
    """Whether two letters or symbols are drawn, and measured, as one: a family, an Indic conjunct, a skin tone."""
    return last == "\u200d" or combining(last) == 9 or "\U0001f3fb" <= char <= "\U0001f3ff"


def fit(text: str, start: int, stop: int, width: int) -> Span:
    """The longest piece from `start` that fits into `width` cells; at least one grapheme, even if that is too wide."""
    near = min(stop, start + width + 1)                 # one more: a mark may follow the last character
    if text[start:near].isascii():
        cut = min(stop, start + width)
        return Span(start, cut, cut - start)
    used, cut = 0, start
    for begin, cut in graphemes(text, start, min(stop, start + CHARACTERS_PER_CELL * (width + 1))):
        more = grapheme_cells(text[begin:cut])
        if used + more > width and begin > start:
            return Span(start, begin, used)
        used += more
    return Span(start, cut, used)


def wrap(text: str, width: int, rest: int, words: bool = True, start: int = 0) -> Iterator[Span]:
    """The rows of a text, the first of `width` cells, all others of `rest`: ended by "\\n", a space, or by force."""
    stop = -1
    while start <= len(text):
        if stop < start:
            found = text.find("\n", start)
            stop = len(text) if found < 0 else found
        span, skip = fit(text, start, stop, width), 0
        if span.end == stop:
            skip = 1
        elif words:
            span, skip = at_space(text, span, stop, rest)
        yield span
        start, width = span.end + skip, rest


def at_space(text: str, span: Span, stop: int, rest: int) -> Tuple[Span, int]:
    """The row up to its last space, and how much to skip; all of it if the next word, not a URL, is longer than a row."""
    space = text.rfind(" ", span.start + 1, span.end + 1)
    if space < 0:
        return span, 0
    long = stop > space + 1 + rest and text.find(" ", space + 1, space + 2 + rest) < 0
    if long and not URL.match(text, space + 1, stop):
        return span, 0
    return Span(span.start, space, cells(text[span.start:space])), 1

# ---- the scrollback: kept as it came, wrapped where it is looked at -----------------------------------------

SCROLLBACK_MESSAGES = 100_000
SCROLLBACK_BYTES = 32 << 20     # whichever limit is reached first: a peer may send long messages
PIECE_BYTES = 2048              # of a message that are laid out at once; the rest only when it comes into view
LOOK_BACK = 64                  # bytes in which a piece without spaces ends between two characters
NAMES_COMPLETED = 250           # of those who spoke lately, and of those who are here: a stranger's are slow to clean
LATELY = 10_000                 # latest messages that are searched for names to complete
HANG = 4                        # cells: the indent of all rows but a message's first, behind the time
TIMES_COLS = 60                 # on a narrower screen, times would leave too little room for the text


# What a message is. Plain constants: show() is called half a million times a second.
LIVE, EARLIER, OWN, NOTICE = range(4)
MORE = 4                                # added to one of these: a further piece of the message before it
Said = Tuple[bytes, bytes, int, int]    # name, text, when (seconds since 1970; 0: not known), what


class Entry(NamedTuple):
    """A message as it is shown: marks above it, a row each; then the time, the name, ": " and the text, cleaned."""

    text: str
    body: int           # where the time begins, or the name if none is shown; -1 if a piece before it has both
    name: int
    named: int          # where the name ends
    hang: int           # cells before all further rows
    spans: List[Span]
    what: int
    speaker: bytes
    called: bool        # our user's name is in it
    found: bool         # it is what :find found


Place = Tuple[int, int]     # a message's number (they never change) and a row in it; or a character in it


def pieces(text: bytes) -> Iterator[bytes]:
    """A long text in parts of at most PIECE_BYTES, ended by a line's end or a space: laid out one by one, if in view."""
    start = 0
    while len(text) - start > PIECE_BYTES:
        least, most = start + PIECE_BYTES // 2, start + PIECE_BYTES
        stop = (text.rfind(b"\n", least, most) + 1 or text.rfind(b" ", least, most) + 1
                or next((at for at in range(most, most - LOOK_BACK, -1) if begins_grapheme(text, at)), most))
        yield text[start:stop]
        start = stop
    yield text[start:]


def begins_grapheme(text: bytes, at: int) -> bool:
    """Whether a character that stands on its own begins at this byte."""
    if text[at] & 0xC0 == 0x80 or text[at - 3:at] == "\u200d".encode():
        return False                                    # inside a character, or behind a joiner
    return KINDS[ord(text[at:at + 4].decode("utf-8", "replace")[0])] == BASE


class Scrollback:
    """The latest messages and notices, and how our user wants to see them.

    They are numbered from 0, and numbers never change. A long message has one for each of its pieces; `messages` counts
    it once.
    """

    def __init__(self, own_name: str = "", opened: int = 0) -> None:
        self.start = self.end = 0               # numbers of the oldest kept, and of the next to come
        self.messages = 0                       # how many ever came, without notices
        self.times = True                       # whether messages have their time, where there is room for it
        self.read: Optional[int] = None         # the number of the first message that came after our user left
        self.found: Optional[int] = None        # the number of the message that stands out as found
        self.opened = opened                    # when it was opened: a day line marks any other day
        self.own = fold(own_name)
        self._kept: Deque[Said] = deque()
        self._bytes = 0
        self._entries: Dict[int, Entry] = {}    # only what the last window showed, as _look wants it
        self._look: Tuple[Any, ...] = ()

    def add(self, name: bytes, texts: Collection[bytes], when: int = 0, what: int = LIVE) -> None:
        """Add messages of one name, raw; `what` is one of the constants above. Drops the oldest ones beyond the limits."""
        self.messages += len(texts) if what != NOTICE else 0
        if len(max(texts, key=len, default=b"")) > PIECE_BYTES:
            said = [(name, piece, when, what | MORE * bool(at)) for text in texts for at, piece in enumerate(pieces(text))]
        else:
            said = [(name, text, when, what) for text in texts]
        self._kept += said
        self.end += len(said)
        self._bytes += sum(map(len, texts)) + len(name) * len(said)
        while self._bytes > SCROLLBACK_BYTES or len(self._kept) > SCROLLBACK_MESSAGES:
            name, text, _, _ = self._kept.popleft()
            self._bytes -= len(text) + len(name)
            self.start += 1

    def entry(self, number: int, cols: int) -> Entry:
        """This message, laid out for a screen of `cols` columns."""
        look = (cols, self.times, self.read, self.found, time.tzname)
        if look != self._look:
            self._look, self._entries = look, {}
        if number not in self._entries:
            said = self._kept[number - self.start]
            self._entries[number] = make_entry(said, self._above(number), cols, self.times, self.own, number == self.found)
        return self._entries[number]

    def clear(self) -> None:
        self.start, self._bytes, self._entries = self.end, 0, {}
        self._kept.clear()

    def find(self, text: str, before: int) -> Optional[int]:
        """The number of the last message before `before` whose name or text contains `text` (folded)."""
        for number in range(min(before, self.end) - 1, self.start - 1, -1):
            name, said, _, what = self._kept[number - self.start]
            if what | MORE != NOTICE | MORE and text in fold((name + b": " + said).decode("utf-8", "replace")):
                return number
        return None

    def speakers(self) -> List[str]:
        """The names of others who spoke lately, latest first."""
        lately = islice(reversed(self._kept), LATELY)
        speakers = dict.fromkeys(said[0] for said in lately if said[3] in (LIVE, EARLIER))
        return [clean_name(name) for name in islice(speakers, NAMES_COMPLETED)]

    def transcript(self) -> Iterator[str]:
        """All of it as lines of text, cleaned as on the screen, always with times; further lines of a text are indented."""
        kept = list(self._kept)
        heads = [at for at, said in enumerate(kept) if not said[3] & MORE or at == 0]
        for at, stop in zip(heads, [*heads[1:], len(kept)]):
            name, text, when, what = kept[at]
            whole = (name, b"".join(said[1] for said in kept[at:stop]), when, what)
            head, shown = worded(whole)
            yield self._above(at + self.start) + clock(when) + head + shown.replace("\n", "\n" + " " * (6 + HANG)) + "\n"

    def _above(self, number: int) -> str:
        """The marks between a message and the one before it, each with its newline."""
        _, _, when, what = self._kept[number - self.start]
        if what & MORE:
            return ""
        earlier = self._kept[number - self.start - 1] if number > self.start else (b"", b"", self.opened, NOTICE)
        marks = []
        if earlier[3] & ~MORE == EARLIER != what:
            marks.append("earlier messages end here")
        # Midnight is on a quarter of an hour in every time zone: most pairs need no calendar.
        if when and earlier[2] and when // 900 != earlier[2] // 900 and day(when) != day(earlier[2]):
            marks.append(day(when))
        if number == self.read and number > self.start:
            marks.append("new messages")
        return "".join(f"-- {mark}\n" for mark in marks)

    def move(self, place: Place, by: int, cols: int) -> Place:
        """The place `by` rows further down (negative: up), at most the end, at least the start."""
        number, row = place[0], place[1] + by
        while row < 0 and number > self.start:
            number -= 1
            row += len(self.entry(number, cols).spans)
        while number < self.end and row >= len(self.entry(number, cols).spans):
            row -= len(self.entry(number, cols).spans)
            number += 1
        return number, max(0, row) if number < self.end else 0

    def bottom(self, height: int, cols: int) -> Place:
        """The top row of the last screenful of `height` rows."""
        return self.move((self.end, 0), -height, cols)

    def row_of(self, anchor: Place, cols: int) -> Place:
        """Where a character is after wrapping for `cols`: this keeps a view in place across a resize."""
        number, character = anchor
        if not self.start <= number < self.end:
            return min(max(number, self.start), self.end), 0        # that message was dropped, or all were
        starts = [span.start for span in self.entry(number, cols).spans]
        return number, bisect_right(starts, character) - 1

    def anchor_of(self, place: Place, cols: int) -> Place:
        """The number of a message, and the character that a row of it begins with."""
        number, row = place
        return number, self.entry(number, cols).spans[row].start

    def window(self, anchor: Optional[Place], height: int, cols: int) -> List[Tuple[Entry, int]]:
        """At most `height` rows from `anchor` on, or the last ones: (entry, row in it). Forgets all other entries."""
        number, row = self.bottom(height, cols) if anchor is None else self.row_of(anchor, cols)
        shown: List[Tuple[Entry, int]] = []
        first = number
        while len(shown) < height and number < self.end:
            entry = self.entry(number, cols)
            shown += [(entry, at) for at in range(row, min(len(entry.spans), row + height - len(shown)))]
            number, row = number + 1, 0
        self._entries = {n: e for n, e in self._entries.items() if first <= n < number}
        return shown


def day(when: int) -> str:
    """A day line's text."""
    return time.strftime("%A %d %B %Y", time.localtime(when))


def worded(said: Said) -> Tuple[str, str]:
    """What is read before the text, and the text, both cleaned."""
    name, text, _, what = said
    head = "" if what & MORE else "-- " if what == NOTICE else clean_name(name) + ": "
    return head, clean_text(text).rstrip("\n")


def clock(when: int) -> str:
    """The column of times: six cells, blank if the time is not known."""
    return time.strftime("%H:%M ", time.localtime(when)) if when else " " * 6


def make_entry(said: Said, above: str, cols: int, times: bool, own: str, found: bool) -> Entry:
    """Lay out a message for a screen of `cols` columns; `above`: its marks, `own`: our user's name, folded."""
    name, _, when, what = said
    head, shown = worded(said)
    stamp = clock(when) if times and cols >= TIMES_COLS else ""
    hang = min(len(stamp) + HANG, cols // 2)
    called = what & ~MORE == LIVE and mentions(own, fold(shown))
    if what & MORE:
        return Entry(shown, -1, 0, 0, hang, list(wrap(shown, cols - hang, cols - hang)), what & ~MORE, name, called, found)
    whole = above + stamp + head + shown
    marks = [fit(whole, mark.start(), mark.end(), cols) for mark in re.finditer(".+", above)]
    # The first row as if without the time, so that no row ends between the two; then with it.
    start = len(above) + len(stamp)
    first, *others = wrap(whole, cols - len(stamp), cols - hang, start=start)
    first = Span(len(above), first.end, first.cells + len(stamp))
    return Entry(whole, len(above), start, start + max(0, len(head) - 2), hang, [*marks, first, *others], what, name, called, found)

# ---- the frame: a pure function -----------------------------------------------------------------------------

INPUT_ROWS = 3
INPUT_CHUNK_ROWS = 4            # see input_origin


class Style(NamedTuple):
    """The sequences that switch this terminal's styles on, and `normal`, which switches them off."""
    bold: str
    dim: str
    normal: str
    reverse: str = ""
    colors: Tuple[str, ...] = ()        # of the others' names; none on a monochrome terminal

    def paint(self, how: str, text: str) -> str:
        """A text in the style `how`, one of our fields or several joined."""
        return f"{how}{text}{self.normal}" if how and text else text


PLAIN = Style("", "", "")


# Colours that can be read on black and on white alike: contrast of 4 or more with both. More colours than 256 would
# not be told apart better. Of the 8, those that themes keep readable: no yellow (on white), no blue (on black).
COLORS_256 = (131, 130, 64, 28, 29, 30, 31, 27, 62, 99, 97, 129, 133, 164, 162, 161)
COLORS_8 = (1, 2, 5, 6)


class Colors:
    """Which colour each name has: it stays the same, and no two people here share one while there are enough."""

    def __init__(self, count: int = 0) -> None:
        self._count = count
        self._given: Dict[bytes, int] = {}      # to those who are here

    def here(self, names: Iterable[bytes]) -> None:
        """Say who is here now. Whoever came first keeps their colour."""
        names = list(islice(names, self._count))
        self._given = {name: self._given[name] for name in names if name in self._given}
        for name in names:
            if name not in self._given:
                taken = set(self._given.values())
                choices = [(crc32(name) + more) % self._count for more in range(self._count)]
                self._given[name] = next(choice for choice in choices if choice not in taken)

    def of(self, name: bytes) -> int:
        """The number of this name's colour."""
        return self._given.get(name, crc32(name) % max(1, self._count))


class View(NamedTuple):
    """All that a frame depends on, except its size."""

    status: str
    back: Scrollback
    anchor: Optional[Place]     # the character at the top of a view that is scrolled up; None: follow the newest
    seen: int                   # how many messages there were when it was scrolled up
    line: Line
    label: str = ""             # what the rule says about the input
    name: str = ""              # our user's, on the rule
    colors: Colors = Colors()


class Frame(NamedTuple):
    """What the whole screen shows."""
    rows: List[str]
    cursor: Tuple[int, int]     # row and column, from 0


class Layout(NamedTuple):
    """How many rows each part of the screen has."""
    status: int
    messages: int
    rule: int
    input: int


def layout(rows: int) -> Layout:
    """Who gets how many rows. On a tiny screen, everything gives way to the input."""
    entry = max(1, min(INPUT_ROWS, rows - 5))
    status, rule = int(rows >= 3), int(rows >= 4)
    return Layout(status, rows - status - rule - entry, rule, entry)


def render(view: View, rows: int, cols: int, style: Style) -> Frame:
    """Exactly `rows` strings of exactly `cols` cells (styles take none), with the cursor inside. 1 x 1 will do."""
    heights = layout(rows)
    frame = [style.paint(style.reverse, clip(view.status, cols))] * heights.status
    shown = view.back.window(view.anchor, heights.messages, cols)
    frame += [message_row(entry, row, cols, style, view.colors) for entry, row in shown]
    frame += [" " * cols] * (heights.messages - len(shown))
    frame += [style.paint(style.dim, rule(view, cols))] * heights.rule
    typed, (row, column) = input_rows(view.line, heights.input, cols)
    return Frame(frame + typed, (len(frame) + row, column))


def clip(text: str, cols: int, fill: str = " ") -> str:
    """A text as exactly `cols` cells: filled up, or cut and ended by dots."""
    span = fit(text, 0, len(text), cols)
    if span.end < len(text) and cols > 8:       # 8: on less, the dots would cost more than they say
        return padded(text, fit(text, 0, len(text), cols - 2), cols - 2, fill) + ".."
    return padded(text, span, cols, fill)


def padded(text: str, span: Span, cols: int, fill: str = " ") -> str:
    """A piece of a text as exactly `cols` cells."""
    if span.cells > cols:                       # a wide character on a screen of one column
        return MARK.ljust(cols)
    return text[span.start:span.end] + fill * (cols - span.cells)


def message_row(entry: Entry, row: int, cols: int, style: Style, colors: Colors) -> str:
    """One row of a message, with its styles."""
    span = entry.spans[row]
    indent = entry.hang if span.start > entry.body else 0
    shown = padded(entry.text, span, cols - indent)
    text = shown.rstrip(" ")
    blank = " " * (len(shown) - len(text))              # outside of all styles: it need not be sent
    if entry.what == NOTICE or span.start < entry.body:
        return " " * indent + style.paint(style.dim, text) + blank
    name, named = max(0, entry.name - span.start), max(0, entry.named - span.start)
    return (" " * indent + style.paint(style.dim, text[:name]) + style.paint(name_style(entry, style, colors), text[name:named])
            + style.paint(style.bold * entry.called + style.reverse * entry.found, text[named:]) + blank)


def name_style(entry: Entry, style: Style, colors: Colors) -> str:
    if entry.what == OWN:
        return style.bold
    color = style.colors[colors.of(entry.speaker) % len(style.colors)] if style.colors else ""
    return color + style.reverse * entry.called


ALONE = "  nobody connected"


def status(port: int, names: List[str], count: int, hint: str, cols: int, alone: bool = False) -> str:
    """The port, who is here (`count` people, the first of them by name) and how to join, as fully as there is room for.

    `alone`: that nobody is connected, in place of the names.
    """
    server, words = f"SERVER: {port}", hint.split()
    short = " ".join(words[:1] + words[-2:])            # of `join: ./p2pchat NAME host port`, what cannot be guessed
    joins = [f"  {how}" for how in (hint, short) if how]
    if alone:
        told = server + ALONE
        return first_fit([told + join for join in joins] + [told, server], cols)
    if not count:
        return first_fit([server + join for join in joins] or [server], cols)
    wordings: Tuple[Callable[[int], str], ...] = (partial(who_is_here, names, count), lambda room: f"  here: {count}")
    for here, join in product(wordings, joins):
        found = here(cols - len(server) - cells(join))
        if found and cells(server + found + join) <= cols:
            return server + found + join
    named = who_is_here(names, count, cols - len(server))
    return server + named if named else first_fit([f"{server}  here: {count}", server], cols)


def who_is_here(names: List[str], count: int, room: int) -> str:
    """As many names as fit into `room` cells; nothing if not even one does."""
    widths = [cells(name) + 2 for name in names]        # each only once: a hostile name is slow to measure
    for shown in range(len(names), 0, -1):
        more = f" and {count - shown} more" * (count > shown)
        if len("  here: ") + sum(widths[:shown]) - 2 + len(more) <= room:
            return f"  here: {', '.join(names[:shown])}{more}"
    return ""


def rule(view: View, cols: int) -> str:
    """Who we are, what to do about a view that is scrolled up, and what to know about the input."""
    new, label = view.back.messages - view.seen, "".join(map(visible, view.label)).replace(NEWLINE, " ")
    scrolled = (f"{new:,} new; PageDown for newer" if new else "scrolled up; PageDown for newer") if view.anchor is not None else ""
    news = [part for part in (scrolled, label) if part]
    help_hint = [] if news or view.back.messages else [":help for help"]
    short = scrolled.partition(";")[0] or label
    full = "".join(f"---- {part} " for part in [view.name, *help_hint, *news] if part)
    return clip(first_fit([full, "".join(f"---- {part} " for part in news or [view.name] if part), short], cols), cols, "-")


def first_fit(texts: List[str], cols: int) -> str:
    """The first of these texts that fits into `cols` cells; the last one if none does."""
    return next((text for text in texts if cells(text) <= cols), texts[-1])


class InputLayout(NamedTuple):
    """The rows of the input around the cursor."""

    begin: int          # where `text` begins in the input
    text: str
    spans: List[Span]
    row: int            # of the cursor, in `spans`
    column: int


def lay_out_input(line: Line, height: int, cols: int) -> InputLayout:
    """At least `height` rows on each side of the cursor, where there are so many. Cost independent of the length."""
    begin = input_origin(line, height, cols * INPUT_CHUNK_ROWS)
    limit = line.at + 4 * height * cols + GRAPHEME_SPAN     # more characters than the rows can hold
    text, at = "".join(map(visible, line.text[begin:limit])), line.at - begin
    spans: List[Span] = []
    for span in wrap(text, cols, cols, words=False):
        spans.append(span)
        if len(spans) > height and spans[-height].start > at:
            break                               # enough below the cursor
    if at == len(text) and spans[-1].cells >= cols:
        spans.append(Span(at, at, 0))           # the last row is full: the cursor waits in the next one
    row = bisect_right([span.start for span in spans], at) - 1
    return InputLayout(begin, text, spans, row, min(cols - 1, cells(text[spans[row].start:at])))


def input_rows(line: Line, height: int, cols: int) -> Tuple[List[str], Tuple[int, int]]:
    """`height` rows of the input around the cursor, and the cursor in them."""
    _, text, spans, row, column = lay_out_input(line, height, cols)
    top = max(0, min(row - height // 2, len(spans) - height))
    shown = [padded(text, span, cols) for span in spans[top:top + height]]
    return shown + [" " * cols] * (height - len(shown)), (row - top, column)


def climb(line: Line, by: int, cols: int) -> Optional[Line]:
    """The cursor in the row above (-1) or below (1) on the screen; None if there is none."""
    begin, text, spans, row, column = lay_out_input(line, INPUT_ROWS, cols)
    if not 0 <= row + by < len(spans):
        return None
    start, end, _ = spans[row + by]
    to = fit(text, start, end, column).end if column else start
    return Line(line.text, begin + to)


def visible(char: str) -> str:
    """How one character of our own user's input is shown: in one cell if it has no look of its own."""
    kind = KINDS[ord(char)]
    return MARK if kind == HIDDEN else " " if kind == BLANK else char


def input_origin(line: Line, height: int, chunk: int) -> int:
    # Far into a long line, lay out from a whole number of chunks back, not from its start. With characters of
    # one cell nobody can tell; a line of wide ones wraps differently when the cursor enters another chunk.
    begin = line_start(line.text, line.at)
    far = (line.at - begin) // chunk
    if far >= 2:
        return begin + (far - 1) * chunk
    for _ in range(height):
        earlier = line_start(line.text, begin - 1) if begin else 0
        if line.at - earlier > 3 * chunk:
            break
        begin = earlier
    return begin

# ---- the terminal -------------------------------------------------------------------------------------------

READ_BYTES = 64 * 1024          # read in one turn, so that a paste of a megabyte does not keep the peers waiting
FRAME_SECONDS = 1 / 30          # for arriving messages; a key press does not wait for it
CLOSE_SECONDS = 0.3             # for the last bytes to a terminal that may have stopped reading
BELL_SECONDS = 1.0              # between two bells: a flood of mentions must not ring all the time
ZONE_SECONDS = 60               # until a new time zone is noticed
STATUS_NAMES = 20               # at most, in a status row of any width; the rest are a number
PASTED = 16                     # characters in one read are a paste, not typing: a Tab among them does not complete
MOVES_KEPT = 1024               # places for which the sequence that moves the cursor there is remembered
MAX_ROWS, MAX_COLS = 500, 1000  # a terminal that claims 65535 x 65535 would cost gigabytes a frame

# Literal, not asked from a database: they go out before blessed is loaded, and a terminal ignores a mode that it
# does not know (blessed asks the terminal first and, in tmux 3.3a, then leaves 2004 and 2026 off).
# Alternate screen, bracketed paste, focus reports, no autowrap; and no arrow keys for a turn of the wheel (1007): they
# would replace a draft. The terminal remembers what 1007 was; where it cannot, 1007 was on, or is not known at all.
ENTER = b"\x1b[?1049h\x1b[?2004h\x1b[?1004h\x1b[?7l\x1b[?1007l"
LEAVE = b"\x1b[?2026l\x1b[m\x1b[?25h\x1b[?7h\x1b[?1007h\x1b[?1007r\x1b[?1004l\x1b[?2004l\x1b[?1049l"
SAVE_WHEEL = b"\x1b[?1007s"
PUT_TITLE_AWAY, OLD_TITLE = b"\x1b[22;2t", b"\x1b[23;2t"
NO_TITLE = b"\x1b]2;\x07"                                   # before OLD_TITLE, for terminals that cannot put a title away
NO_TITLES = ("linux", "vt", "ansi", "cons", "sun")          # consoles that would print the text of a title
CANCEL = b"\x18"                                            # CAN: ends a sequence that was cut in the middle
FRAME_BEGIN, FRAME_END = "\x1b[?2026h\x1b[?25l", "\x1b[?25h\x1b[?2026l"     # shown at once where 2026 is known


class Screen:
    """The full-screen front end: owns the terminal between open() and close(), and never blocks on it."""

    shows_own = True        # a user's own messages have to be passed to show()
    failed = False          # a terminal that goes away does not count as a failure

    def __init__(self, input_fd: int = 0, output_fd: int = 1, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or time.time                # seconds since 1970
        self._decoder, self._back = Decoder(), Scrollback()
        self._editor = Editor(self._completions)
        self._commands: Iterable[str] = ()              # for Tab
        self._escaped = False                           # whether the last key was Escape
        # The terminal
        self._input: Optional[int] = input_fd           # None: it hung up
        self._tty = (input_fd, output_fd)
        self._fd: Optional[int] = None                  # our own, non-blocking: shared with nobody
        self._modes: Optional[List[Any]] = None         # as found; None while the terminal is not ours
        self._titles = not os.environ.get("TERM", "").startswith(NO_TITLES)
        self._title = b""                               # as the terminal has it
        self._lost = False                              # writing failed, and nobody was told yet
        self._zone_after = 0.0                          # when to ask again for the time zone: machines travel
        # Who is here
        self._port, self._hint = 0, ""
        self._name = ""                                 # our user's
        self._here: List[bytes] = []                    # the others' names
        self._alone = False                             # nobody is connected
        self._here_changed = False                      # since the status row was drawn
        self._colors = Colors()
        self._status = ""
        # What calls for attention
        self._bell = "mention"
        self._called: Optional[bytes] = None            # who said our name since the last frame
        self._bell_after = 0.0
        self._others = 0                                # messages of others up to the last frame
        self._aside = 0                                 # messages that count as read: our own, and earlier ones
        self._read: Optional[int] = None                # messages of others when our user looked away; None: our user is looking
        # The view, where it is scrolled to
        self._anchor: Optional[Place] = None            # None: follow the newest
        self._seen = 0                                  # messages when it was scrolled up
        self._sought, self._found = "", 0               # the last :find, and which message it found
        # The frame
        self._style, self._pen = PLAIN, FIRST_PEN
        self._rows, self._cols = 24, 80
        self._shown = Frame([], (0, 0))                 # what the terminal has, or will have after _unsent
        self._unsent = b""
        self._dirty = self._urgent = False              # whether to draw: at the next frame's time, or at once
        self._next_frame = 0.0

    def input_fd(self) -> Optional[int]:
        """To be waited for; None after a hang-up, and while the terminal is not ours (reading would stop us)."""
        return self._input if self._modes is not None else None

    def hangup_fds(self) -> List[int]:
        return []                       # a terminal's end is seen by reading

    def output_fds(self) -> List[int]:
        """To be waited for until they can be written to; then call flush()."""
        return [self._fd] if self._unsent and self._fd is not None else []

    def next_deadline(self) -> Optional[float]:
        """When (time.monotonic() seconds) expire() and draw() have something to do; None: never."""
        if self._lost:
            return 0.0
        waits = self._dirty and not self._unsent and self._modes is not None
        frame = self._next_frame if waits else None
        times = [at for at in (frame, self._decoder.deadline) if at is not None]
        return min(times) if times else None

    def open(self, port: int, hint: str, name: bytes = b"", commands: Iterable[str] = ()) -> None:
        """Take the terminal, paint the first frame, then load blessed (~100 ms). Raises OSError if the terminal cannot be opened."""
        self._port, self._hint, self._name, self._commands = port, hint.strip(), clean_name(name) if name else "", commands
        self._back.own, self._back.opened = fold(name.decode("utf-8", "replace")), int(self._clock())
        self._fd = reopened(self._tty[1])
        if self._fd is None:                            # a container may hide its name; after `su` it is not ours to open
            self._fd = os.open("/dev/tty", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        self.resume()
        self._load_blessed()

    def read(self, now: float) -> List[Event]:
        """One read of at most READ_BYTES; call it when input_fd is readable, else it blocks."""
        if self._input is None:
            return self._bad_news()
        try:
            data = os.read(self._input, READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:                                 # EIO: hung up
            data = b""
        if not data:
            self._input, self._lost = None, True
            return self._bad_news()
        return self._take(self._decoder.feed(data, now))

    def expire(self, now: float) -> List[Event]:
        """A deadline has passed: for a lone ESC, a lost end of a paste, or bad news. (A frame that is due is left to draw().)"""
        return self._take(self._decoder.expire(now))

    def show(self, name: bytes, texts: Collection[bytes], when: int = 0, mine: bool = False, earlier: bool = False) -> None:
        """Add messages of one name, raw. Each costs well under a microsecond: all work is put off until it is drawn."""
        self._dirty = True
        if mine or earlier:
            self._back.add(name, texts, when, OWN if mine else EARLIER)
            self._aside += len(texts)
            return
        self._back.add(name, texts, when)
        joined = b"\n".join(texts)
        own = self._back.own
        if self._called is None and (not joined.isascii() or own.encode() in joined.lower()):
            self._called = name if mentions(own, fold(joined.decode("utf-8", "replace"))) else None

    def notice(self, text: str) -> None:
        """Add a line of the program's own, `-- text`. No name can begin like that: see clean_name."""
        self._back.add(b"", [text.encode("utf-8", "replace")], int(self._clock()), NOTICE)
        self._dirty = True

    def refuse(self, text: str, why: str) -> None:
        """Say why a text was not sent, and put it back for correction unless the user has begun another."""
        self.notice(why)
        if not self._editor.line.text:
            self._editor.become(Line(text, len(text)))

    def here(self, names: List[bytes], c_users: bool = False, alone: bool = False) -> None:
        """Say who is here beside our user: for the status row, the colours and Tab.

        `c_users`: whether somebody uses the C program; `alone`: whether nobody is connected, whoever was here.
        """
        self._here, self._editor.c_users, self._alone = names, c_users, alone
        self._here_changed = self._dirty = True

    def find(self, text: str) -> bool:
        """Show the last message that contains `text`; without a text, or with the same one again, the match before that.

        Returns False if there never was a text.
        """
        if text and fold(text) != self._sought:
            self._sought, self._found = fold(text), self._back.end + 1
        if not self._sought:
            return False
        found = self._back.find(self._sought, self._found)
        if found is None:
            earlier = "earlier " * (self._found <= self._back.end)
            self.notice(f'no {earlier}message contains "{self._sought}"')
            self._found = self._back.end + 1            # the next time begins with the newest
            return True
        self._found = self._back.found = found
        self._dirty = True
        self._hold((found, 0))
        self._page(0, -layout(self._rows).messages // 3)
        return True

    def help(self, intro: str, commands: List[Tuple[str, str]], keys: bool = False) -> None:
        """Show what can be typed: each (command, what it does), then the keys, as far as there is room."""
        width = self._cols - HANG - len(clock(1)) * (self._back.times and self._cols >= TIMES_COLS)
        room, first = layout(self._rows).messages, self._back.end
        of_keys = in_columns([f"{key:<13} {what}" for key, what in KEYS_HELP], width)
        long = [f"{command:<21} {what}" for command, what in commands]
        lists = [long, in_columns([command for command, _ in commands], width), in_columns([command.split()[0] for command, _ in commands], width)]
        choices = [[intro, *long, *of_keys], *([intro, *rows, ":help keys lists the keys"] for rows in lists)]
        choices.append(["commands: " + " ".join(command.split()[0] for command, _ in commands)])
        choices = [["keys:", *of_keys]] if keys else choices
        fitting = [rows for rows in choices if len(list(wrap("\n".join(rows), width, width))) <= room]
        self.notice("\n".join((fitting or choices[-1:])[0]))
        if not fitting:                                 # its beginning, at least
            self._hold((first, 0))

    def toggle_times(self) -> None:
        self._back.times = not self._back.times
        self._dirty = True
        if self._back.times and self._cols < TIMES_COLS:
            self.notice(f"times show on screens of {TIMES_COLS} columns or more")

    def ring(self, bell: str) -> None:
        """When to ring from now on: "off", "mention" or "all"."""
        self._bell = bell

    def clear(self) -> None:
        """Forget all messages; later ones start on an empty screen."""
        self._back.clear()
        self._anchor, self._dirty = None, True

    def transcript(self) -> Iterator[str]:
        """All messages that can be scrolled to, as clean lines."""
        return self._back.transcript()

    def draw(self, now: float) -> None:
        """Draw if something changed: at once after a key, else every FRAME_SECONDS; never while a frame is unfinished."""
        if self._modes is None or self._unsent or not self._dirty:
            return
        if now < self._next_frame and not self._urgent:
            return
        self._look_around(now)
        view = View(self._status, self._back, self._anchor, self._seen, self._editor.line, self._editor.label, self._name, self._colors)
        frame = render(view, self._rows, self._cols, self._style)
        self._unsent, self._shown = self._attention(now) + difference(self._shown, frame, self._pen), frame
        self._dirty = self._urgent = False
        self._next_frame = now + FRAME_SECONDS
        self._write()

    def _look_around(self, now: float) -> None:
        if self._here_changed:
            names = [clean_name(name) for name in self._here[:STATUS_NAMES]]
            self._status = status(self._port, names, len(self._here), self._hint, self._cols, self._alone)
            self._colors.here(self._here)
            self._here_changed = False
        if now >= self._zone_after:
            time.tzset()
            self._zone_after = now + ZONE_SECONDS

    def flush(self) -> List[Event]:
        """Go on with the unfinished frame. May return [Key.GONE]."""
        self._write()
        return self._bad_news()

    def resize(self) -> None:
        """Ask for the size again and repaint everything; SIGWINCH and Ctrl-L."""
        try:
            cols, rows = os.get_terminal_size(self._tty[1])
        except OSError:
            cols, rows = 0, 0
        if not cols or not rows:                        # a fresh pty, a serial line
            cols, rows = 80, 24
        self._rows, self._cols = min(rows, MAX_ROWS), min(cols, MAX_COLS)
        self._shown = Frame([], (0, 0))
        self._editor.cols = self._cols
        self._here_changed = self._dirty = self._urgent = True
        self._settle()

    def suspend(self, parting: str = "") -> None:
        """Leave the terminal as it was found, with a parting line. May block for CLOSE_SECONDS; never raises."""
        if self._modes is None or self._fd is None:
            return
        modes, self._modes = self._modes, None
        titles = (NO_TITLE if self._titles else b"") + OLD_TITLE
        last = f"{parting}\r\n".encode("utf-8", "replace") if parting else b""
        goodbye, self._unsent = (CANCEL if self._unsent else b"") + LEAVE + titles + last, b""
        try:
            outlet = Output(self._fd, len(goodbye))
            outlet.put(goodbye)
            outlet.push(CLOSE_SECONDS)
        except OSError:
            pass                                        # the terminal is gone; its modes may still be there
        if in_background(self._tty[0]):
            return                                      # we were stopped, then killed: by now the modes are the shell's
        try:
            termios.tcsetattr(self._tty[0], termios.TCSANOW, modes)
        except termios.error:
            pass

    def resume(self) -> None:
        """Take the terminal (again) and repaint. In the background the system stops us right here, until `fg`. Never raises."""
        try:
            # A SIGCONT may come without a suspend() before it: what we would find then are our own modes.
            modes = self._modes or termios.tcgetattr(self._tty[0])
            termios.tcsetattr(self._tty[0], termios.TCSANOW, raw(modes))
        except termios.error as error:
            # EINTR: we were stopped here and go on; the SIGCONT that did it is on its way to the loop, which asks again.
            # Anything else: the terminal is gone. A hang-up sends SIGCONT too; then all that is left is to say goodbye.
            self._lost = error.args[0] != errno.EINTR
            return
        away = SAVE_WHEEL + PUT_TITLE_AWAY if self._modes is None else b""      # only once: we change the modes, and titles are a stack
        self._modes = modes
        self._unsent, self._title = (CANCEL if self._unsent else b"") + away + ENTER, b""
        self._write()
        self.resize()
        self.draw(self._next_frame)

    def close(self, parting: str = "") -> None:
        """suspend(), for good. Safe to call twice, or without open()."""
        self.suspend(parting)
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _load_blessed(self) -> None:
        from blessed import Terminal
        # With NO_COLOR blessed gives up bold as well as cursor movement; we give up colours, but not bold and dim.
        # A stream of our own, since for sys.__stdout__ blessed asks the terminal, and waits up to 10 s.
        no_color = os.environ.pop("NO_COLOR", None)
        try:
            with open(self._fd, "w", closefd=False) as stream:      # type: ignore[arg-type]
                terminal = Terminal(stream=stream)
                colors = () if no_color else palette(terminal.color)
                self._style = Style(str(terminal.bold), str(terminal.dim), str(terminal.normal), str(terminal.reverse), colors)
                self._colors = Colors(len(colors))
                self._keyboard, self._pen = Keyboard(terminal), pen_of(terminal)
        finally:
            if no_color is not None:
                os.environ["NO_COLOR"] = no_color
        self._here_changed = self._dirty = True

    def _attention(self, now: float) -> bytes:
        """What goes to the terminal beside the frame: the window's title, and a bell."""
        others = self._back.messages - self._aside
        unread = others - self._read if self._read is not None else 0
        title = f"\x1b]2;p2pchat {self._name} {self._port}{f' ({unread:,} unread)' * bool(unread)}\x07".encode("utf-8", "replace")
        news = title if self._titles and title != self._title else b""
        self._title = title
        due = self._called is not None if self._bell == "mention" else self._bell == "all" and others > self._others
        if due and now >= self._bell_after:
            news += self._notification() + b"\x07"
            self._bell_after = now + BELL_SECONDS
        self._called, self._others = None, others
        return news

    def _notification(self) -> bytes:
        """OSC 9, which a desktop shows: who said our name while we looked elsewhere, but nothing of what was said."""
        if self._called is None or self._read is None or not self._titles:
            return b""
        return f"\x1b]9;p2pchat: {clean_name(self._called)} mentioned you\x07".encode("utf-8", "replace")

    def _leave_focus(self) -> None:
        """The window has lost the focus: what comes from now on is new."""
        self._read, self._back.read = self._back.messages - self._aside, self._back.end

    def _take_focus(self) -> None:
        self._read = None

    def _write(self) -> None:
        if self._fd is None or not self._unsent:
            return
        try:
            self._unsent = self._unsent[os.write(self._fd, self._unsent):]      # a write may be partial: flush() sends the rest
        except BlockingIOError:
            return                                      # it is not reading; output_fds says that we wait
        except OSError:
            self._unsent, self._lost = b"", True

    def _bad_news(self) -> List[Event]:
        lost, self._lost = self._lost, False
        return [Key.GONE] if lost else []

    def _take(self, tokens: List[Token]) -> List[Event]:
        if tokens:
            self._dirty = self._urgent = True
        names = [self._keyboard.key(token.text)[0] if token.kind == "key" else "" for token in tokens]
        if len(tokens) >= WHEEL_KEYS and names.count(names[0]) == len(names) and names[0] in WHEEL and self._editor.is_draft:
            self._page(0, WHEEL[names[0]] * len(names))     # a wheel where mode 1007 is not known, not the history
            return self._bad_news()
        if sum(len(token.text) for token in tokens if token.kind == "text") >= PASTED:
            tokens = [Token("text", "    ") if token.text == "\t" else token for token in tokens]
        events = [self._apply(token) for token in tokens]
        return [event for event in events if event is not None] + self._bad_news()

    def _apply(self, token: Token) -> Optional[Event]:
        escaped, self._escaped = self._escaped, False
        name, text = self._keyboard.key(token.text) if token.kind == "key" else ("", token.text)
        if text:
            self._insert(Token(token.kind.replace("key", "text"), text, token.lost))
            return None
        if escaped and name == "KEY_ENTER":             # Escape, then Enter, at whatever pace: as in readline, Alt
            name = "KEY_ALT_ENTER"
        if self._editor.key(name):
            return None
        self._escaped = name in ESCAPES
        return SCREEN_ACTIONS[name](self) if name in SCREEN_ACTIONS else None

    def _insert(self, token: Token) -> None:
        room = INPUT_LIMIT - len(self._editor.line.text)
        lost = token.lost + max(0, len(token.text) - room)
        self._editor.insert(token.text[:room], token.kind == "text")
        if lost:
            self.notice(f"the input holds {INPUT_LIMIT:,} characters: the last {lost:,} were left out")

    def _enter(self) -> Optional[Event]:
        text = self._editor.take()
        if not text.strip():
            return None
        self._anchor = self._back.found = None
        return text

    def _interrupt(self) -> Optional[Event]:
        """Ctrl-C: clear the draft, and leave only if there is none."""
        if not self._editor.line.text:
            return Key.LEAVE
        self._editor.drop()
        return None

    def _end_of_file(self) -> Optional[Event]:
        if not self._editor.line.text:
            return Key.LEAVE
        self._editor.become(delete(self._editor.line))
        return None

    def _completions(self, word: str, begins: bool) -> List[str]:
        if begins and word[:1] in (":", "/"):
            return [word[0] + command[1:] + " " for command in self._commands if command.startswith(":" + word[1:])]
        names = dict.fromkeys(self._back.speakers() + [clean_name(name) for name in self._here[:NAMES_COMPLETED]])
        return [name + (": " if begins else " ") for name in names if fold(name).startswith(fold(word))]

    def _page(self, by: int, rows: int = 0) -> None:
        """Scroll by this many half pages and rows."""
        height, cols, back = layout(self._rows).messages, self._cols, self._back
        if not height or self._anchor is None and by > 0:
            return
        top = back.bottom(height, cols) if self._anchor is None else back.row_of(self._anchor, cols)
        to = back.move(top, by * max(1, height // 2) + rows, cols)
        if to != top:
            self._hold(back.anchor_of(to, cols) if to[0] < back.end else None)
        self._settle()

    def _hold(self, anchor: Optional[Place]) -> None:
        """Have the view begin with this character; None: follow the newest."""
        if self._anchor is None:
            self._seen = self._back.messages
        self._anchor = anchor

    def _to_oldest(self) -> None:
        self._hold((self._back.start, 0))
        self._settle()

    def _to_newest(self) -> None:
        self._hold(None)

    def _settle(self) -> None:
        """Follow the newest again when the end of the scrollback is in view: after PageDown or a resize."""
        height, cols = layout(self._rows).messages, self._cols
        if self._anchor and self._back.row_of(self._anchor, cols) >= self._back.bottom(height, cols):
            self._anchor = None


# As EDIT_KEYS: the names, what they do, how.
SCREEN_KEYS: List[Tuple[str, str, Callable[[Screen], Optional[Event]]]] = [
    ("KEY_ENTER KEY_CTRL_J KEY_CTRL_M", "send (or Ctrl-J)", Screen._enter),
    ("KEY_PGUP KEY_PAGE_UP", "scroll up", lambda screen: screen._page(-1)),
    ("KEY_PGDOWN KEY_PAGE_DOWN", "scroll down", lambda screen: screen._page(1)),
    ("KEY_CTRL_HOME KEY_ALT_HOME", "oldest message", Screen._to_oldest),
    ("KEY_CTRL_END KEY_ALT_END", "newest message", Screen._to_newest),
    ("KEY_CTRL_L", "redraw", Screen.resize),
    ("KEY_CTRL_Z", "suspend (fg resumes)", lambda screen: Key.SUSPEND),
    ("KEY_CTRL_C", "clear input, or quit", Screen._interrupt),
    ("KEY_CTRL_D", "", Screen._end_of_file),
    ("FOCUS_IN", "", Screen._take_focus),
    ("FOCUS_OUT", "", Screen._leave_focus),
]
SCREEN_ACTIONS = {name: action for names, _, action in SCREEN_KEYS for name in names.split()}
KEY_NAMES = {*EDITS, *SEARCH_KEYS, *SCREEN_ACTIONS}
KEYS_HELP = [(readable(names.split()[0]), what) for names, what, _ in [*SCREEN_KEYS, *EDIT_KEYS] if what]
WHEEL = {"KEY_UP": -1, "KEY_DOWN": 1}       # what a wheel sends on the alternate screen, some at once:
WHEEL_KEYS = 3


def in_columns(items: List[str], width: int) -> List[str]:
    """Items side by side in as many columns as fit, to be read downwards."""
    cell = max(map(len, items)) + 2
    rows = -(-len(items) // max(1, (width + 2) // cell))
    return ["".join(item.ljust(cell) for item in items[row::rows]).rstrip() for row in range(rows)]


def palette(color: Callable[..., object]) -> Tuple[str, ...]:
    """How this terminal begins text in each of our colours; nothing where it has none.

    The capability itself is asked: COLORTERM makes blessed count 16 million colours even for TERM=screen.
    """
    numbers = COLORS_256 if str(color(COLORS_256[0])) == f"\x1b[38;5;{COLORS_256[0]}m" else COLORS_8
    return tuple(str(color(number)) for number in numbers if str(color(number)))


class Pen(NamedTuple):
    """How to draw on a terminal."""

    move: Callable[[int, int], str]     # to a row and a column, from 0
    erase: str                          # from the cursor to the end of its row
    clear: str                          # the whole screen, and all styles


# What nearly every terminal understands: for the first frame, and where blessed knows of none.
FIRST_PEN = Pen(lambda row, col: f"\x1b[{row + 1};{col + 1}H", "\x1b[K", "\x1b[m\x1b[H\x1b[2J")


def pen_of(terminal: "Terminal") -> Pen:
    """The Pen for a terminal that blessed knows."""
    if not terminal.move_yx(0, 0):
        return FIRST_PEN
    move = lru_cache(MOVES_KEPT)(lambda row, col: str(terminal.move_yx(row, col)))      # 20 us without
    return Pen(move, str(terminal.clear_eol), str(terminal.normal) + str(terminal.clear))


def difference(old: Frame, new: Frame, pen: Pen = FIRST_PEN) -> bytes:
    """The bytes that turn the old frame on a terminal into the new one; none if they are equal.

    Each row is placed absolutely and erased first: a terminal that disagrees about a width spoils that row only.
    """
    if old == new:
        return b""
    fresh = len(old.rows) != len(new.rows)
    parts = [FRAME_BEGIN, pen.clear if fresh else ""]
    for at, row in enumerate(new.rows):
        if fresh or row != old.rows[at]:
            parts.append(pen.move(at, 0) + pen.erase + row.rstrip(" "))
    return "".join([*parts, pen.move(*new.cursor), FRAME_END]).encode("utf-8", "replace")


def reopened(fd: int) -> Optional[int]:
    """The terminal behind `fd`, opened again: non-blocking, and shared with nobody. None if `fd` is not a terminal, or not ours to open."""
    try:
        return os.open(os.ttyname(fd), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return None


def in_background(fd: int) -> bool:
    """Whether another job has the terminal behind `fd`: reading from it would stop us."""
    try:
        return os.tcgetpgrp(fd) != os.getpgrp()
    except OSError:
        return False                                    # not the terminal of our session: nothing stops us


def raw(modes: List[Any]) -> List[Any]:
    """Terminal modes with every byte given to us as it is: Ctrl-S must not freeze us, nor Ctrl-C kill us half drawn."""
    changed = list(modes)
    changed[0] &= ~(termios.IXON | termios.ICRNL | termios.INLCR | termios.IGNCR | termios.ISTRIP | termios.PARMRK | termios.INPCK)
    changed[3] &= ~(termios.ISIG | termios.IEXTEN | termios.ICANON | termios.ECHO)
    changed[6] = list(modes[6])
    changed[6][termios.VMIN], changed[6][termios.VTIME] = 1, 0
    return changed

# ---- line mode ----------------------------------------------------------------------------------------------

UNSENT_LIMIT = 4 << 20          # bytes kept for a slow or stopped reader of our stdout
NOTICE_LIMIT = 64 * 1024        # the same for stderr
WRITES_PER_TURN = 64            # of at most PIPE_BUF each: bounded work, then the next peer's turn
BACKGROUND_SECONDS = 0.5        # between two looks whether the terminal is ours again; only while it has something to read


class Output:
    """Unsent bytes for a descriptor that we share with our parent, so that it may not be made non-blocking.

    A pipe that poll() calls writable takes PIPE_BUF bytes without blocking; a terminal takes less. (If another
    process writes to the same pipe between our poll and our write, the write can block: no way around that.)
    A regular file or /dev/null never says "later", and epoll refuses to wait for them: they get all at once.
    """

    def __init__(self, fd: int, limit: int) -> None:
        self.fd, self.dropped, self.unsent = fd, 0, bytearray()
        self._own = reopened(fd)                # a terminal may say "writable" and block all the same
        self._target = fd if self._own is None else self._own
        self._limit = limit
        kind, terminal = os.fstat(fd).st_mode, os.isatty(fd)
        self._at_once = stat.S_ISREG(kind) or stat.S_ISCHR(kind) and not terminal
        self._step = limit if self._at_once else 256 if terminal else select.PIPE_BUF
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self.pipe = stat.S_ISFIFO(kind)

    def close(self) -> None:
        if self._own is not None:
            os.close(self._own)

    @property
    def waits(self) -> bool:
        """Whether the loop has to wait until the descriptor is writable."""
        return bool(self.unsent) and not self._at_once

    def put(self, data: bytes, messages: int = 1) -> None:
        """Queue all of it, or count its messages as dropped."""
        if len(self.unsent) + len(data) > self._limit:
            self.dropped += messages
        else:
            self.unsent += data

    def has_no_reader(self) -> bool:
        """Whether this is a pipe that nobody can read any more: a write would also say so, but there may be none for hours."""
        return self.pipe and any(mask & select.POLLERR for _, mask in self._poll.poll(0))

    def push(self, seconds: float = 0.0) -> None:
        """Write what goes out at once, at most WRITES_PER_TURN times; given seconds, block so long for all to go out.

        Raises OSError.
        """
        unsent, writes, until = self.unsent, 0, time.monotonic() + seconds if seconds else 0.0
        while unsent and (writes < WRITES_PER_TURN or seconds):
            if not self._at_once and not self._poll.poll(max(0.0, until - time.monotonic()) * 1000):
                return
            try:
                # A write may be partial: what was taken is dropped, and the rest goes first in the next one.
                del unsent[:os.write(self._target, unsent[:self._step])]
            except BlockingIOError:             # our parent made it non-blocking, and it is full after all
                return
            writes += 1


HARMLESS = bytes(range(32, 127)) + b"\n"


@lru_cache(NAMES_KEPT)
def line_head(name: bytes) -> bytes:
    """How a line of this name's begins."""
    return f"{clean_name(name)}: ".encode("utf-8", "replace")


class Lines:
    """The line mode front end: a message is a line of stdout, a notice one of stderr, a line of stdin an event.

    To the loop it is what Screen is: the same methods, called at the same moments.
    """

    shows_own = False

    def __init__(self, input_fd: Optional[int] = 0, output_fd: int = 1, error_fd: int = 2, times: bool = False) -> None:
        """input_fd None: read nothing, and never end because of that. times: put the time before each message."""
        self._input = input_fd
        self._times, self._second, self._stamp = times, -1, ""
        self._look_again: Optional[float] = None    # when to see whether we are still in the background
        self._out: Optional[Output] = Output(output_fd, UNSENT_LIMIT)       # None: its reader is gone
        self._err: Optional[Output] = Output(error_fd, NOTICE_LIMIT)
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._parts: List[str] = []             # a line of stdin that has not ended, in pieces: joined only once
        self._held = 0                          # characters in them
        self._lost = False
        self.failed = False                     # lines were lost that somebody wanted: the disk is full, for instance

    def input_fd(self) -> Optional[int]:
        """To be waited for; None after its end, and for a moment if it is a terminal that others are reading from."""
        return self._input if self._look_again is None else None

    def output_fds(self) -> List[int]:
        if not (self._out and self._out.unsent or self._err and self._err.unsent):  # as a rule
            return []
        return [output.fd for output in (self._out, self._err) if output and output.waits]

    def hangup_fds(self) -> List[int]:
        """To be waited for until they can be read: they never can, but a pipe that lost its reader wakes the loop."""
        return [self._out.fd] if self._out is not None and self._out.pipe else []

    def next_deadline(self) -> Optional[float]:
        return 0.0 if self._lost else self._look_again

    def open(self, port: int, hint: str, name: bytes = b"", commands: Iterable[str] = ()) -> None:
        """Print `SERVER: <port>`, then what was shown so far, and the hint as a notice."""
        if self._out is not None:
            self._out.unsent[:0] = b"SERVER: %d\n" % port
        if hint.strip():
            self.notice(hint.strip())
        self._push()

    def read(self, now: float) -> List[Event]:
        """One read of at most READ_BYTES; if input_fd is not readable, it blocks. An empty line is not an event."""
        if self._input is None:
            return self._bad_news()
        if os.isatty(self._input) and in_background(self._input):
            # Reading would stop us, and no signal tells a running job that it came to the foreground.
            self._look_again = now + BACKGROUND_SECONDS
            return []
        try:
            data = os.read(self._input, READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:                         # EIO: a terminal that hung up; nothing more will come
            data = b""
        lines = self._split(self._utf8.decode(data, final=not data))
        if not data:
            self._input = None
            return [*lines, *self._finish_line(), Key.END, *self._bad_news()]
        return [*lines, *self._bad_news()]

    def expire(self, now: float) -> List[Event]:
        if self._look_again is not None and self._look_again <= now:
            self._look_again = None
        return self._bad_news()

    def show(self, name: bytes, texts: Collection[bytes], when: int = 0, mine: bool = False, earlier: bool = False) -> None:
        """Queue `name: text`, or `name (12:03): text`. A text's further lines are indented: no peer can forge a line."""
        if self._out is None:
            return
        start = line_head(name[:NAME_BYTES])
        if self._times:
            start = f"{self._iso(when)} ".encode() + start
        elif earlier:
            start = start[:-2] + time.strftime(" (%H:%M): ", time.localtime(when)).encode()
        self._out.put(start + (b"\n" + start).join(clean_lines(texts)) + b"\n", len(texts))

    def _iso(self, when: int) -> str:
        """2026-11-22T12:03:05+01:00; made once a second."""
        if when != self._second:
            time.tzset()                        # machines travel
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(when))
            self._second, self._stamp = when, f"{stamp[:-2]}:{stamp[-2:]}"
        return self._stamp

    def here(self, names: List[bytes], c_users: bool = False, alone: bool = False) -> None:
        """Do nothing: line mode tells who comes and goes, and answers :who."""

    def notice(self, text: str) -> None:
        """Queue `-- text` for stderr; it goes out in draw()."""
        if self._err is not None:
            self._err.put(f"-- {indented(text.encode('utf-8', 'replace'))}\n".encode("utf-8", "replace"))

    def help(self, intro: str, commands: List[Tuple[str, str]], keys: bool = False) -> None:
        """Show the commands as a notice; line mode has no keys."""
        self.notice("\n".join([intro, *(f"{command:<21} {what}" for command, what in commands)]))

    def refuse(self, text: str, why: str) -> None:
        """Say why a line was not sent, and have the exit status say so too: nobody may be watching."""
        self.notice(f"not sent: {why.partition(' (')[0]} (--verbatim sends every line as is)")
        self.failed = True

    def draw(self, now: float) -> None:
        self._push()

    def flush(self) -> List[Event]:
        self._push()
        if self._out is not None and self._out.has_no_reader():     # normal: `| head`
            self._out, self._lost = None, True
        return self._bad_news()

    def resize(self) -> None:
        """Do nothing: line mode has no size, and leaves terminals alone. So do suspend and resume."""

    suspend = resume = resize

    def close(self, parting: str = "") -> None:
        """Get unsent lines and a parting notice out, for at most CLOSE_SECONDS. Never raises."""
        if parting:
            self.notice(parting)
        self._push(CLOSE_SECONDS)
        for outlet in (self._out, self._err):
            if outlet is not None:
                outlet.close()
        self._out = self._err = None

    def _push(self, seconds: float = 0.0) -> None:
        try:
            if self._out is not None and self._out.unsent:
                self._push_out(self._out, seconds)
        except OSError as error:
            self._out, self._lost = None, True
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):      # those say that it has no reader
                self.failed = True
                self.notice(f"cannot write any more: {os.strerror(error.errno or 0)}")
        try:
            if self._err is not None and self._err.unsent:
                self._err.push(seconds)
        except OSError:
            self._err = None                    # nobody listens; carry on

    def _push_out(self, out: Output, seconds: float) -> None:
        out.push(seconds)
        if out.dropped and len(out.unsent) < UNSENT_LIMIT // 2:
            self.notice(f"dropped {out.dropped:,} lines because standard output was not read fast enough")
            out.dropped = 0

    def _bad_news(self) -> List[Event]:
        lost, self._lost = self._lost, False
        return [Key.GONE] if lost else []

    def _split(self, text: str) -> List[Event]:
        lines: List[Event] = []
        *whole, rest = text.split("\n")
        for piece in whole:
            if self._parts or len(piece) > INPUT_LIMIT or not piece.isprintable():
                lines += self._hold(piece) + self._finish_line()
            elif piece:
                lines.append(piece)
        return lines + self._hold(rest)

    def _hold(self, piece: str) -> List[Event]:
        """Keep a piece of a line. A line longer than INPUT_LIMIT is cut there, and goes on as a further line."""
        lines: List[Event] = []
        while self._held + len(piece) > INPUT_LIMIT:
            room = INPUT_LIMIT - self._held
            self._parts.append(piece[:room])
            lines += self._finish_line()
            piece = piece[room:]
        self._parts.append(piece)
        self._held += len(piece)
        return lines

    def _finish_line(self) -> List[Event]:
        line = "".join(self._parts)
        self._parts, self._held = [], 0
        line = without_escapes(line[:-1] if line.endswith("\r") else line)
        return [line] if line else []


def clean_lines(texts: Collection[bytes]) -> Collection[bytes]:
    """Each text cleaned and indented. Nearly all need neither, and one look at all of them together shows that."""
    joined = b"\n".join(texts)
    if joined.count(b"\n") < len(texts) and not joined.translate(None, HARMLESS):
        return texts
    return [indented(text).encode("utf-8", "replace") for text in texts]


def indented(text: bytes) -> str:
    return clean_text(text).rstrip("\n").replace("\n", "\n" + " " * HANG)
