"""`make picture`: the two pictures in the README, .github/screen-light.svg and -dark.svg, of a real conversation.

Knows: what is said in it, and how cells of a terminal are drawn as SVG.
Must not know: how the program draws. Its output goes through the tests' model of a terminal, which refuses what it does
not know; here that model also keeps the style of each cell.
Leaves out: fonts. Every piece of text says where it begins and how wide it is, so any monospaced font will do. An image
on GitHub may neither load one nor run a script.

The same session gives the same picture: ports are fixed, and a time zone is chosen in which it is 12:03 now.
"""

import os
import signal
import sys
import time
from typing import NamedTuple
from xml.sax.saxutils import escape

from helpers import BUILT, TOP, Program, Terminal, python
from screen import Model
from surroundings import zone
from wcwidth import wcswidth

FOLDER = os.path.join(TOP, ".github")
ROWS, COLS = 16, 76
FIRST_PORT, ANNS_PORT = 20123, 20124    # both are in the picture; the system itself gives out higher ones

CELL, LINE, SIZE = 8.4, 19, 14      # width and height of a cell, and the font's size, in pixels
EDGE, BAR = 14, 34          # around the text; the window's title bar
FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace"


class Theme(NamedTuple):
    paper: str
    ink: str
    faint: str              # dim text
    bar: str                # the title bar
    frame: str              # its border


THEMES = {
    "light": Theme("#ffffff", "#1f2328", "#6e7781", "#f0f2f5", "#d0d7de"),
    "dark": Theme("#0d1117", "#e6edf3", "#848d97", "#1c2129", "#3d444d"),
}


# The session ------------------------------------------------------------------------------------------


class StyledModel(Model):
    """The model of a terminal, with the style of each cell."""

    def __init__(self, rows, cols):
        super().__init__(rows, cols)
        self.looks = {}         # (row, column) -> SGR numbers; what is blank may keep an old one

    @property
    def cells(self):
        """(row, column, grapheme, SGR numbers) of each character on the screen."""
        for row, texts in enumerate(self._cells):
            for col, text in enumerate(texts):
                if text:
                    yield row, col, text, self.looks.get((row, col), ())

    def _write(self, row, char, width):
        self.looks[self.row, self.col] = tuple(self.style)
        super()._write(row, char, width)

    def _csi(self, private, numbers, final):
        super()._csi(private, numbers, final)
        erased = range(self.rows) if final == "J" else [self.row] if final == "K" else []
        for row in erased:
            self.looks.update({(row, col): () for col in range(self.cols)})


class Window(Terminal):
    """A member at a terminal that keeps styles."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, rows=ROWS, cols=COLS, command=python(BUILT), **options)
        self.model = StyledModel(ROWS, COLS)


def session():
    """What ann sees of a small conversation, as a StyledModel."""
    env = {"TZ": zone(time.time()), "NO_COLOR": "", "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8"}
    started = []

    def start(kind, *arguments):
        started.append(kind(*arguments, "--bind", "127.0.0.1", env=env))
        return started[-1]

    try:
        zoe = start(Member, "zoë", "--port", FIRST_PORT)
        bob, leo = [start(Member, name, "127.0.0.1", FIRST_PORT) for name in ("bob", "leo")]
        zoe.wait(lambda program: any("leo" in line and line.endswith("joined") for line in program.err))  # bob, too, in the same line
        for member, text in ((zoe, "is anybody going for lunch?"), (leo, "🍜 or 🍕?"), (bob, "noodles, in ten minutes :)")):
            member.says(text, (zoe, bob, leo))
        ann = start(Window, "ann", "127.0.0.1", FIRST_PORT, "--port", ANNS_PORT)
        ann.shows("bob: noodles, in ten minutes :)")
        zoe.hears("-- ann joined")
        return converse(ann, zoe, bob, leo)
    finally:
        for one in started:
            one.close()


def converse(ann, zoe, bob, leo):
    """Everybody says something, and leo's machine dies."""
    ann.type("count me in\r".encode())
    bob.hears("ann: count me in")
    zoe.says("我也去", (bob, ann))
    leo.process.send_signal(signal.SIGKILL)
    ann.wait(lambda t: any("lost" in row and "leo" in row for row in t.said))
    bob.says("leo's battery, I guess. Ann, take the charger along, please?", (zoe, ann))
    ann.type("sure 👍 see you at the door".encode())
    ann.wait(lambda t: t.rows[-3].startswith("sure 👍 see you at the door"))
    return ann.model


class Member(Program):
    """A member in line mode that waits until what it says has arrived."""

    def __init__(self, *arguments, env):
        super().__init__(*arguments, command=python(BUILT), env=env)
        self.name = arguments[0]

    def hears(self, line):
        self.wait(lambda program: line in program.out + program.err)

    def says(self, text, everybody):
        self.type(text)
        line = f"{self.name}: {text}"
        for one in everybody:
            if isinstance(one, Window):
                one.shows(line)
            elif one is not self:
                one.hears(line)

    def close(self):
        self.__exit__()


# The drawing ------------------------------------------------------------------------------------------


class Run(NamedTuple):
    """Neighbouring characters of one row that are drawn as one piece of text."""

    row: int
    col: int
    text: str
    look: tuple             # SGR numbers

    @property
    def width(self):
        return wcswidth(self.text)


def runs(model):
    """The text on the screen in pieces: of one style, without two blanks in a row, wide characters one by one.

    A piece is stretched to its width, so one wide character of another font moves none of its neighbours.
    """
    found = []
    for row, col, text, look in model.cells:
        last = found[-1] if found else None
        joins = last and (last.row, last.col + last.width, last.look) == (row, col, look)
        blanks = text == " " and last is not None and last.text[-1] == " " and not last.text.isspace()
        if joins and wcswidth(text) == 1 and wcswidth(last.text[-1]) == 1 and not blanks:
            found[-1] = last._replace(text=last.text + text)
        else:
            found.append(Run(row, col, text, look))
    return [trimmed(run) for run in found if run.text.strip() or "7" in run.look]


def trimmed(run):
    """Without the blanks at its ends, which an SVG would drop; those of reversed text are drawn as its background."""
    if "7" in run.look:
        return run
    text = run.text.lstrip(" ")
    return run._replace(col=run.col + len(run.text) - len(text), text=text.rstrip(" "))


def color(number):
    """A colour of the 256 as #rrggbb; those from 16 to 231, of which the program's palette is."""
    cube = number - 16
    parts = [cube // 36, cube // 6 % 6, cube % 6]
    return "#" + "".join(f"{55 + 40 * part if part else 0:02x}" for part in parts)


def style(look, theme):
    """(colour, background or None, whether bold) of SGR numbers."""
    ink = theme.faint if "2" in look else theme.ink
    if "38" in look:
        ink = color(int(look[look.index("38") + 2]))
    if "7" in look:
        return theme.paper, ink, "1" in look
    return ink, None, "1" in look


def draw_run(run, theme):
    ink, behind, bold = style(run.look, theme)
    x, y, width = EDGE + run.col * CELL, BAR + EDGE + run.row * LINE, run.width * CELL
    back = f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{LINE}" fill="{behind}"/>\n' if behind else ""
    fill = f' fill="{ink}"' if ink != theme.ink else ""
    weight = ' font-weight="bold"' if bold else ""
    return f'{back}<text x="{x:.1f}" y="{y + 14}" textLength="{width:.1f}"{fill}{weight}>{escape(run.text)}</text>'


def draw(model, theme):
    """The whole picture: a window with this screen in it."""
    width, height = round(2 * EDGE + COLS * CELL), BAR + 2 * EDGE + ROWS * LINE
    row, col = model.cursor
    dots = "".join(f'<circle cx="{20 + 20 * n}" cy="{BAR / 2:g}" r="6" fill="{theme.frame}"/>' for n in range(3))
    alternative = "A terminal: four members chat, one is killed, and the others go on."
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" font-family="{FONT}" font-size="{SIZE}" fill="{theme.ink}">',
        f"<title>{alternative}</title>",
        f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="9" fill="{theme.paper}" stroke="{theme.frame}"/>',
        f'<path d="M1 {BAR}V9.5A8.5 8.5 0 0 1 9.5 1H{width - 9.5}A8.5 8.5 0 0 1 {width - 1} 9.5V{BAR}Z" fill="{theme.bar}"/>',
        dots,
        f'<text x="{width / 2:g}" y="{BAR / 2 + 5:g}" text-anchor="middle" fill="{theme.faint}">{escape(model.title)}</text>',
        *(draw_run(run, theme) for run in runs(model)),
        f'<rect x="{EDGE + col * CELL:.1f}" y="{BAR + EDGE + row * LINE}" width="{CELL}" height="{LINE}" fill="{theme.ink}" '
        'opacity="0.7"/>',
        "</svg>", ""])


def main():
    model = session()
    os.makedirs(FOLDER, exist_ok=True)
    for name, theme in THEMES.items():
        with open(os.path.join(FOLDER, f"screen-{name}.svg"), "w", encoding="utf-8") as file:
            file.write(draw(model, theme))


if __name__ == "__main__":
    try:
        main()
    except AssertionError as failure:
        sys.exit(f"p2pchat picture: the session did not go as it should: {failure}")
