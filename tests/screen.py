"""A terminal screen for tests: bytes in, rows of text out. Strict: it raises on what it does not know.

`Model(rows, cols).feed(data)`, in any pieces; then look at `display` (one string a row), `cursor`, `modes`.
It knows what a VT does with what we send: absolute placing, erasing, styles, wide characters, graphemes,
the alternate screen and the private modes. A program that sends anything else has to teach it here first.
"""
from __future__ import annotations

import codecs
import re
from typing import Dict, List, Tuple

from wcwidth import iter_graphemes, wcswidth

SEQUENCE = re.compile(r"\x1b\[(?P<private>\??)(?P<numbers>[\d;]*)(?P<final>[@-~])|\x1b\((?P<charset>B)"
                      r"|\x1b\]2;(?P<title>[^\x07\x1b]*)(?:\x07|\x1b\\)|\x1b\]9;(?P<notification>[^\x07\x1b]*)\x07|\x18")
UNFINISHED = re.compile(r"\x1b(\[\??[\d;]*|\(|\][^\x07\x1b]*\x1b?)?\Z")
MODES = {"1049": "alternate", "2004": "paste", "2026": "synchronized", "25": "cursor", "7": "autowrap", "1004": "focus",
         "1007": "wheel"}
AS_FOUND = {"alternate": False, "paste": False, "synchronized": False, "cursor": True, "autowrap": True, "focus": False, "wheel": True}
STYLES = re.compile(r"[0127]?|3[1256]|38;5;\d+")      # normal, bold, dim, reverse, the colours of names
UNPRINTED = "\u200c\u200d\u3000\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u0890\u0891\u08e2\U000110bd\U000110cd"


class Unknown(Exception):
    """The terminal got something that this model does not know."""


class Model:
    def __init__(self, rows: int, cols: int) -> None:
        self.rows, self.cols = rows, cols
        self.modes: Dict[str, bool] = dict(AS_FOUND)
        self.bells = 0
        self.notifications: List[str] = []      # OSC 9
        self._saved: Dict[str, bool] = {}       # modes that were put away by CSI ? s
        self.title = ""
        self.titles: List[str] = []         # put away by CSI 22 t
        self.style: List[str] = []          # SGR numbers in force
        self.row = self.col = 0
        self._left = (0, 0)                 # the cursor on the screen behind the alternate one
        self._utf8 = codecs.getincrementaldecoder("utf-8")("strict")
        self._rest = ""
        self._cells = self._blank()
        self._other = self._blank()

    @property
    def display(self) -> List[str]:
        """Each row as its text: a wide character once, blanks up to the last column."""
        return ["".join(row) for row in self._cells]

    @property
    def cursor(self) -> Tuple[int, int]:
        return self.row, min(self.col, self.cols - 1)

    @property
    def restored(self) -> bool:
        """Whether all is as a shell expects it."""
        return not self.style and not self.titles and not self.title and self.modes == AS_FOUND

    def resize(self, rows: int, cols: int) -> None:
        self.rows, self.cols = rows, cols
        self._cells = [(row + [" "] * cols)[:cols] for row in self._cells[:rows]]
        self._cells += [[" "] * cols for _ in range(rows - len(self._cells))]
        self._other = self._blank()
        self.row, self.col = min(self.row, rows - 1), min(self.col, cols - 1)

    def feed(self, data: bytes) -> None:
        text, at = self._rest + self._utf8.decode(data), 0
        self._rest = ""
        while at < len(text):
            if text[at] == "\x1b" and UNFINISHED.match(text, at):
                self._rest = text[at:]
                return
            at = self._step(text, at)

    def _step(self, text: str, at: int) -> int:
        if text[at] == "\x07":
            self.bells += 1
            return at + 1
        if text[at] in "\r\n":
            self._control(text[at])
            return at + 1
        if text[at].isprintable() or text[at] in UNPRINTED or "\U0001f000" <= text[at] <= "\U0001faff":   # newer than this Python
            self._put(text[at])
            return at + 1
        match = SEQUENCE.match(text, at)
        if match is None:
            raise Unknown(repr(text[at:at + 20]))
        if match.group("title") is not None:
            self.title = match.group("title")
        elif match.group("notification") is not None:
            self.notifications.append(match.group("notification"))
        elif match.group("final"):
            self._csi(match.group("private"), match.group("numbers"), match.group("final"))
        return match.end()

    def _csi(self, private: str, numbers: str, final: str) -> None:
        parts = numbers.split(";")
        if private and final in "hl" and all(part in MODES for part in parts):
            for part in parts:
                self._mode(MODES[part], final == "h")
        elif private and final in "sr" and numbers == "1007":
            self._saved.update({numbers: self.modes[MODES[numbers]]} if final == "s" else {})
            self._mode(MODES[numbers], self._saved[numbers])
        elif final == "H" and not private and len(parts) in (1, 2):
            self.row, self.col = (int(parts[0]) - 1, int(parts[1]) - 1) if numbers else (0, 0)
            if not (0 <= self.row < self.rows and 0 <= self.col < self.cols):
                raise Unknown(f"cursor to {numbers} on a screen of {self.rows} x {self.cols}")
        elif final == "K" and numbers == "" and self.col == 0:
            self._cells[self.row] = [" "] * self.cols
        elif final == "J" and (numbers == "2" or numbers == "" and (self.row, self.col) == (0, 0)):
            self._cells = self._blank()
        elif final == "m" and not private and STYLES.fullmatch(numbers):
            self.style = [] if numbers in ("", "0") else self.style + parts
        elif final == "t" and numbers in ("22;2", "23;2"):
            self.titles.append(self.title) if numbers == "22;2" else self._old_title()
        else:
            raise Unknown(f"CSI {private}{numbers}{final}")

    def _mode(self, name: str, on: bool) -> None:
        if name == "alternate" and on != self.modes[name]:
            self._cells, self._other = (self._blank(), self._cells) if on else (self._other, self._blank())
            self._left, (self.row, self.col) = ((self.row, self.col), (self.row, self.col)) if on else (self._left, self._left)
        self.modes[name] = on

    def _old_title(self) -> None:
        self.title = self.titles.pop()

    def _control(self, char: str) -> None:
        if char == "\r":
            self.col = 0
        elif self.row < self.rows - 1:
            self.row += 1
        else:
            self._cells = self._cells[1:] + [[" "] * self.cols]

    def _put(self, char: str) -> None:
        row = self._cells[self.row]
        before = min(self.col, self.cols) - 1
        while before > 0 and row[before] == "":
            before -= 1
        if before >= 0 and row[before] and len(list(iter_graphemes(row[before] + char))) == 1:
            self._join(row, before, char)
            return
        width = wcswidth(char)
        if width < 0:
            raise Unknown(repr(char))
        if width == 0:
            return                          # a mark without a base
        if self.col + width > self.cols:
            if self.modes["autowrap"] and self.modes["alternate"]:
                raise Unknown("text at the right margin with autowrap on")
            if self.modes["autowrap"]:
                self._control("\r")
                self._control("\n")
                row = self._cells[self.row]
            self.col = max(0, min(self.col, self.cols - width))
        self._write(row, char, width)

    def _join(self, row: List[str], at: int, char: str) -> None:
        row[at] += char
        self.col = min(self.cols, at + max(1, wcswidth(row[at])))
        for covered in range(at + 1, self.col):
            row[covered] = ""

    def _write(self, row: List[str], char: str, width: int) -> None:
        row[self.col] = char
        for covered in range(self.col + 1, min(self.cols, self.col + width)):
            row[covered] = ""
        self.col += width

    def _blank(self) -> List[List[str]]:
        return [[" "] * self.cols for _ in range(self.rows)]
