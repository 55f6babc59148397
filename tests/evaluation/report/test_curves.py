"""Curves of a table: which systems make a line, what it is called, and what stands across."""

import pytest

from evaluation.report.curves import curve_picture, line_name
from evaluation.report.plots import save_png

SYSTEMS = {
    "LoRA, 100 turns": ("lora.yaml", {"n": 100}),
    "LoRA, 25 turns": ("lora.yaml", {"n": 25}),
    "LoRA, 400 turns": ("lora.yaml", {"n": 400}),
    "all weights, 25 turns": (["full.yaml"], {"n": 25}),
    "all weights, 400 turns": (["full.yaml"], {"n": 400}),
}
FOUND = {name: float(80 + place) for place, name in enumerate(["base", *SYSTEMS])}


def drawn(figure):
    """Name of each line, and its points."""
    return {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].get_lines()}


def test_systems_that_differ_in_nothing_else_make_a_line(tmp_path):
    figure = curve_picture(SYSTEMS, FOUND | {"base": 90.0}, ["n"], "title")
    assert drawn(figure) == {
        "LoRA": [[25.0, 82.0], [100.0, 81.0], [400.0, 83.0]],
        "all weights": [[25.0, 84.0], [400.0, 85.0]],
        "base": [[0.0, 90.0], [1.0, 90.0]],  # across
        "best: 81 at 100": [[100.0, 81.0]],
    }
    assert {text.get_text() for text in figure.legends[0].get_texts()} == drawn(figure).keys()
    assert figure.axes[0].get_xticks().tolist() == [25, 100, 400]
    save_png(figure, tmp_path / "curve.png", dpi=40)


def test_without_the_best_point_of_a_line():
    """A system across is better; or the point was not scored."""
    assert not [label for label in drawn(curve_picture(SYSTEMS, FOUND, ["n"], "title")) if "best" in label]
    found = {name: value for name, value in FOUND.items() if name != "LoRA, 100 turns"}
    assert drawn(curve_picture(SYSTEMS, found, ["n"], "title"))["LoRA"] == [[25.0, 82.0], [400.0, 83.0]]


def test_another_override_makes_another_line_and_of_several_settings_each():
    systems = {
        "LoRA, cut 10 %": ("lora.yaml", {"a.cut": 0.1}),
        "LoRA, cut 30 %": ("lora.yaml", {"a.cut": 0.3}),
        "LoRA, double 10 %": ("lora.yaml", {"a.double": 0.1}),
        "LoRA, r=8, cut 10 %": ("lora.yaml", {"a.cut": 0.1, "rank": 8}),
    }
    figure = curve_picture(systems, dict.fromkeys(systems, 1.0), ["a.cut", "a.double"], "title")
    assert list(drawn(figure))[:3] == ["LoRA, cut", "LoRA, double 10 %", "LoRA, r=8, cut 10 %"]
    assert figure.axes[0].get_xlabel() == "cut or double"
    both = {"both": ("lora.yaml", {"a.cut": 0.1, "a.double": 0.1})}
    with pytest.raises(ValueError, match="'both' overrides .*one line only"):
        curve_picture(both, {"both": 1.0}, ["a.cut", "a.double"], "title")
    with pytest.raises(ValueError, match="no system that was scored overrides 'x' or 'y'"):
        curve_picture(systems, dict.fromkeys(systems, 1.0), ["x", "y"], "title")


def test_lines_whose_names_are_alike_are_called_by_their_systems():
    systems = {"r 1": ("a.yaml", {"n": 1}), "r 2": ("b.yaml", {"n": 2}), "r 3": ("b.yaml", {"n": 3})}
    systems["r"] = systems.pop("r 1")
    assert list(drawn(curve_picture(systems, dict.fromkeys(systems, 1.0), ["n"], "title")))[:2] == ["r 2, r 3", "r"]
    assert line_name(["LoRA r=1", "LoRA r=12"], "x") == "LoRA"
    assert line_name(["1", "12"], "x") == "x"
