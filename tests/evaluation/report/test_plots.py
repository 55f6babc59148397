"""The picture: what is drawn where, without looking at pixels."""

import numpy as np
import pytest

from evaluation.report.plots import LOG_ABOVE, UserPanels, ascii_label, draw_curves, draw_users, save_png


def panels(num_users=4, num_systems=2, spread=1.0):
    """Invented values; user i gains i per mille."""
    base = np.linspace(20.0, 20.0 * spread, num_users)
    others = [f"system {system}" for system in range(1, num_systems)]
    perplexity = {"base": base} | dict.fromkeys(others, base * (1 - 0.001 * np.arange(num_users)))
    change = np.tile([0.1, np.nan, np.nan], (num_users, 1))
    shown = others or ["base"]
    labels = [f"u{i}" for i in range(num_users)]
    return UserPanels(labels, perplexity, dict.fromkeys(shown, change), "ppl", "sim", "change")


def test_users_are_sorted_by_gain_best_on_top():
    """The y axis runs upwards: the last label is the top one."""
    left, right = draw_users(panels(), "title").axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["u0", "u1", "u2", "u3"]
    dots = {line.get_label(): line.get_xdata() for line in left.lines}
    np.testing.assert_allclose(dots["system 1"] / dots["base"], [1.0, 0.999, 0.998, 0.997])
    assert len(right.lines) == 2  # the dots and the zero line


@pytest.mark.parametrize(("spread", "scale"), [(LOG_ABOVE / 2, "linear"), (LOG_ABOVE * 2, "log")])
def test_log_axis_only_if_needed(spread, scale):
    """One user with a huge perplexity must not squeeze the others."""
    left, _ = draw_users(panels(spread=spread), "title").axes
    assert left.get_xscale() == scale
    assert ("log scale" in left.get_xlabel()) == (scale == "log")


@pytest.mark.parametrize(("num_users", "num_systems"), [(1, 1), (1, 2), (24, 8), (150, 2)])
def test_any_number_of_users_and_systems(tmp_path, num_users, num_systems):
    """No system is dropped when colours run out; missing intervals are not drawn and do not break the file."""
    figure = draw_users(panels(num_users, num_systems), "title")
    assert len(figure.axes[0].lines) == num_systems
    save_png(figure, tmp_path / "plot.png", dpi=40)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_labels_are_ascii():
    assert ascii_label("LoRA 花子") == "LoRA ??"
    assert draw_users(panels(), "花子").get_suptitle() == "??"


@pytest.mark.parametrize(("x", "scale"), [([12, 1, 4], "log"), ([3, 1, 2], "linear"), ([8, 0, 2], "linear")])
def test_a_curve_joins_its_runs_in_the_order_of_the_number_and_marks_the_best(x, scale):
    y = np.array([3.0, 2.5, 4.0])
    (axis,) = draw_curves({"loss": (np.array(x), y)}, "rank", "loss", ("loss", 1), "ranks").axes
    line, best = axis.get_lines()
    assert line.get_xydata().tolist() == sorted([number, value] for number, value in zip(x, y, strict=True))
    assert best.get_xydata().tolist() == [[x[1], 2.5]]
    assert axis.get_xscale() == scale
    assert axis.get_xticks().tolist() == sorted(x)
