"""`make picture`: the README's two plots, .github/speed-*.svg and .github/healing-*.svg, and its table of figures.

    python3 tests/plot.py [anew] [MEMBERS]      P2PCHAT_C=/path/to/binary is needed where anything is measured

Knows: which figures of the benchmark and the simulator a person wants to see at a glance, and how to draw them.
Must not know: how anything is measured (bench.py, simulator.py). What was measured stands in FIGURES until `anew`.
Leaves out: fonts, as picture.py does, and a package for plotting: a plot is a few lines and labels.
"""

import json
import math
import os
import subprocess
import sys
from xml.sax.saxutils import escape

from helpers import TOP

FOLDER = os.path.join(TOP, ".github")
FIGURES = os.path.join(TOP, ".build", "figures.json")
PARTS = "thr", "chain", "links", "idle", "keys"  # of the benchmark
KILLS = 50, 80, 90  # per cent
MEMBERS = 300
SECONDS = 3  # of the plot of healing

WIDTH, HEIGHT, GAP = 760, 196, 40
FONT = "system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif"
# Ink, faint ink, our colour and its two lighter steps; each can be read on both of GitHub's backgrounds.
THEMES = {
    "light": ("#1f2328", "#59636e", "#0969da", "#54aeff", "#8250df"),
    "dark": ("#e6edf3", "#9198a1", "#4493f8", "#79c0ff", "#ab7df8"),
}


# What is shown --------------------------------------------------------------------------------


def figures():
    """What was measured: "part what" -> value, and for each share killed the curve of healing."""
    with open(FIGURES, encoding="utf-8") as file:
        found = json.load(file)
    return {f"{figure['part']} {figure['what']}": figure["value"] for figure in found["figures"]}, found["healing"]


def measure(members):
    """Measure all that is shown, for minutes. Raises CalledProcessError, and KeyError without a C program to compare with."""
    import simulator
    assert os.environ["P2PCHAT_C"]
    subprocess.run([sys.executable, "-B", os.path.join(TOP, "tests", "bench.py"), "--json", FIGURES, *PARTS], check=True)
    with open(FIGURES, encoding="utf-8") as file:
        found = json.load(file)
    found["healing"] = {kill: simulator.simulate(members, kill)["curve"] for kill in KILLS}
    found["members"] = members
    with open(FIGURES, "w", encoding="utf-8") as file:
        json.dump(found, file, indent=1)


def bursts(value):
    """(who, how many times the C program's rate), slowest first."""
    over_c, over_asyncio = value["thr mesh, N=8, lines: x C"], value["thr mesh, N=8, lines: x asyncio"]
    return sorted([
        ("C program", 1.0), ("asyncio relay", over_c / over_asyncio), ("p2pchat to C users", value["thr plain, N=8, lines: x C"]),
        ("p2pchat", over_c), ("bare relay", over_c / value["thr mesh, N=8, lines: x bare"])], key=lambda bar: bar[1])


def delays(value):
    """(who, how many times the bare relay's delay), slowest first."""
    ours = value["chain mesh, lines: median x bare"]
    return sorted([
        ("C program", ours / value["chain mesh, lines: median x C"]), ("p2pchat", ours), ("bare relay", 1.0),
        ("asyncio relay", ours / value["chain mesh, lines: median x asyncio"])], key=lambda bar: -bar[1])


def table(value):
    """The rows of the README's table, each (what, figure)."""
    def times(kind, mode="lines"):
        return ", ".join(f"{value[f'thr {kind}, N={count}, {mode}: x C']:.0f}" for count in (1, 8, 64))

    chain = 1 / value["chain mesh, lines: median x C"]
    wakeups = next(number for what, number in value.items() if what.startswith("idle wake-ups"))
    return [
        ("a burst to 1, 8 and 64 members", f"{times('mesh')} times the C program's rate (with the screen {times('mesh', 'screen')})"),
        ("a burst to 1, 8 and 64 C programs", f"{times('plain')} times the C program's rate"),
        ("a lone message, through four in a row", f"1/{chain:.0f} of the C program's delay, {value['chain mesh, lines: median x asyncio']:.2f} times asyncio's"),
        ("idle: wake-ups with 8 links; a link's memory",
         f"{wakeups:.0f} (the C program: 100 a second); {value['links memory of an idle link']:.1f} KB"),
        ("a key, until the screen shows it", f"95 of 100 within {value['keys nothing: 95 of 100 keys']:.1f} ms; "
                                             f"while a neighbour floods, {value['keys flood: 95 of 100 keys']:.0f} ms"),
    ]


# The drawing ----------------------------------------------------------------------------------


def label(x, y, text, fill, anchor="start", size=13, weight="normal"):
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}">{escape(text)}</text>'


def line(x1, y1, x2, y2, color, width=1.0):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" stroke-width="{width}"/>'


def document(title, rows):
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
                      f'font-family="{FONT}">', f"<title>{escape(title)}</title>", *rows, "</svg>", ""])


def bars(x, width, title, note, values, theme):
    """One panel: a bar for each (who, value), on a logarithmic scale that begins at a half."""
    ink, faint, ours, _, _ = theme
    names = 152
    most = math.log(2 * max(value for _, value in values))
    rows = [label(x, 20, title, ink, weight="600"), label(x, 37, note, faint, size=12)]
    for number, (who, value) in enumerate(values):
        y = 52 + 28 * number
        length = (width - names - 60) * math.log(2 * value) / most
        is_ours = who.startswith("p2pchat")
        shown = f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
        rows += [label(x + names - 8, y + 14, who, ink if is_ours else faint, "end", weight="600" if is_ours else "normal"),
                 f'<rect x="{x + names:.1f}" y="{y}" width="{length:.1f}" height="20" rx="3" fill="{ours if is_ours else faint}"/>',
                 label(x + names + length + 6, y + 14, f"{shown} x", ink)]
    return rows


def speed(value, theme):
    """Two panels of bars: a burst, and a lone message."""
    width = (WIDTH - GAP) / 2
    return document("Speed beside the C program, asyncio and a relay that passes bytes on unread", [
        *bars(0, width, "A burst to 8 others", "rate, as times the C program's; logarithmic", bursts(value), theme),
        *bars(width + GAP, width, "A lone message, through four in a row", "delay, as times the bare relay's; logarithmic", delays(value), theme)])


def healing_plot(healing, members, theme):
    """A curve for each share killed: how many of the survivors are in the largest network."""
    ink, faint, *colors = theme
    left, right, top, bottom = 46, WIDTH - 290, 52, HEIGHT - 28
    rows = [label(0, 20, f"{members} members, many of which are killed at once", ink, weight="600"),
            label(0, 37, "share of the survivors that are one network, by seconds", faint, size=12)]
    for share in 0, 50, 100:
        y = bottom - (bottom - top) * share / 100
        rows += [line(left, y, right, y, faint, 0.4), label(left - 6, y + 4, f"{share} %", faint, "end", 12)]
    for second in range(SECONDS + 1):
        rows.append(label(left + (right - left) * second / SECONDS, bottom + 18, f"{second} s", faint, "middle", 12))
    for number, (kill, curve) in enumerate(healing.items()):
        points = [(left + (right - left) * tenth / (10 * SECONDS), bottom - (bottom - top) * share)
                  for tenth, share in enumerate(curve[:10 * SECONDS + 1])]
        rows.append(f'<polyline fill="none" stroke="{colors[number]}" stroke-width="2.5" stroke-linejoin="round" '
                    f'points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
        y = top + 22 + 26 * number
        whole = next((tenth / 10 for tenth, share in enumerate(curve) if share == 1), None)
        said = f"{kill} % killed: " + (f"whole after {whole:g} s" if whole is not None else "not whole")
        rows += [line(right + 22, y - 5, right + 44, y - 5, colors[number], 2.5), label(right + 50, y, said, ink)]
    return document("How fast the survivors are one network again", rows)


def main(arguments):
    numbers = [int(word) for word in arguments if word.isdigit()]
    if "anew" in arguments or not os.path.exists(FIGURES):
        if not os.environ.get("P2PCHAT_C"):
            print("the plots stay as they are: P2PCHAT_C=/path/to/binary names no C program to measure beside")
            return
        measure(numbers[0] if numbers else MEMBERS)
    value, healing = figures()
    with open(FIGURES, encoding="utf-8") as file:
        members = json.load(file)["members"]
    for name, theme in THEMES.items():
        for what, drawn in ("speed", speed(value, theme)), ("healing", healing_plot(healing, members, theme)):
            with open(os.path.join(FOLDER, f"{what}-{name}.svg"), "w", encoding="utf-8") as file:
                file.write(drawn)
    rewrite_table(os.path.join(TOP, "README.md"), table(value))


def rewrite_table(path, rows):
    """Put the rows into the README's table of figures, in place of those that it has of the same things."""
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    for what, figure in rows:
        at = [number for number, row in enumerate(lines) if row.startswith(f"| {what} | ")]
        if at:
            lines[at[0]] = f"| {what} | {figure} |"
        else:
            print(f"the README has no row for: {what} | {figure}")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
