"""The README's plots are drawn from figures, inside their frames; its table has a row for each figure."""

import os
import re
from xml.etree import ElementTree

import pytest

import plot
from helpers import TOP

VALUE = {
    **{f"thr {kind}, N={count}, {mode}: x C": 150.4 if kind == "mesh" else 31.5 for kind in ("mesh", "plain") for count in (1, 8, 64)
       for mode in ("lines", "screen")},
    "thr mesh, N=8, lines: x asyncio": 30.0, "thr mesh, N=8, lines: x bare": 0.3,
    "chain mesh, lines: median x bare": 1.5, "chain mesh, lines: median x asyncio": 0.75, "chain mesh, lines: median x C": 1 / 60,
    "idle wake-ups in 3 s": 0, "links memory of an idle link": 3.14,
    "keys nothing: 95 of 100 keys": 1.2, "keys flood: 95 of 100 keys": 20.4,
}
HEALING = {"50": [0.8, 0.9] + [1.0] * 49, "80": [0.4] * 5 + [1.0] * 46, "90": [0.1] * 301}
SVG = "{http://www.w3.org/2000/svg}"


def drawn(name):
    theme = plot.THEMES["light"]
    return ElementTree.fromstring(plot.speed(VALUE, theme) if name == "speed" else plot.healing_plot(HEALING, 300, theme))


@pytest.mark.parametrize("name", ["speed", "healing"])
def test_a_plot_is_text_and_shapes_inside_its_frame(name):
    for text in drawn(name).iter(SVG + "text"):
        width = 0.58 * float(text.get("font-size")) * len(text.text)  # a wide font's
        x = float(text.get("x")) - {"start": 0, "middle": width / 2, "end": width}[text.get("text-anchor")]
        assert -1 <= x and x + width <= plot.WIDTH and 0 < float(text.get("y")) <= plot.HEIGHT, text.text
    assert not re.search(r"<script|<style|href|@import", plot.speed(VALUE, plot.THEMES["dark"]))


def test_the_bars_stand_in_order_and_say_how_many_times():
    assert plot.bursts(VALUE) == [("C program", 1), ("asyncio relay", pytest.approx(5.01, abs=0.01)), ("p2pchat to C users", 31.5),
                                  ("p2pchat", 150.4), ("bare relay", pytest.approx(501, abs=1))]
    assert plot.delays(VALUE) == [("C program", pytest.approx(90)), ("asyncio relay", 2), ("p2pchat", 1.5), ("bare relay", 1)]
    bars = [float(bar.get("width")) for bar in drawn("speed").iter(SVG + "rect")]
    assert bars[:5] == sorted(bars[:5]) and bars[5:] == sorted(bars[5:], reverse=True) and len(bars) == 9


def test_the_curves_say_when_the_survivors_were_one_network():
    said = [text.text for text in drawn("healing").iter(SVG + "text") if "killed:" in text.text]
    assert said == ["50 % killed: whole after 0.2 s", "80 % killed: whole after 0.5 s", "90 % killed: not whole"]


def test_the_readme_has_a_row_for_each_figure_and_the_plots_are_there(tmp_path, capsys):
    with open(os.path.join(TOP, "README.md"), encoding="utf-8") as file:
        readme = file.read()
    copy = tmp_path / "README.md"
    copy.write_text(readme, encoding="utf-8")
    plot.rewrite_table(copy, plot.table(VALUE))
    assert capsys.readouterr().out == ""  # every row was there
    rewritten = copy.read_text(encoding="utf-8")
    assert len(rewritten.splitlines()) == len(readme.splitlines()) and max(map(len, rewritten.splitlines())) <= 110
    assert "| a burst to 1, 8 and 64 members | 150, 150, 150 times the C program's rate " in rewritten
    for name in "speed-light", "speed-dark", "healing-light", "healing-dark":
        ElementTree.parse(os.path.join(TOP, ".github", f"{name}.svg"))
        assert f".github/{name}.svg" in readme


def test_without_figures_or_a_c_program_the_plots_stay_as_they_are(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(plot, "FIGURES", str(tmp_path / "none.json"))
    monkeypatch.delenv("P2PCHAT_C", raising=False)
    plot.main([])
    assert "names no C program" in capsys.readouterr().out
