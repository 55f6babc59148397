"""What the picture of systems shows, and what users are called."""

import numpy as np

from evaluation.report.cells import user_labels
from evaluation.report.pictures import system_panels
from evaluation.report.plots import draw_systems
from evaluation.scores.figure import MICRO, Score


def test_the_picture_of_systems_shows_what_the_table_says():
    """A dot for each figure that there is, a line over its interval, the first system on top."""
    scores = [
        Score("base", MICRO, "perplexity", 80.0, 70.0, 90.0, 5),
        Score("LoRA", MICRO, "perplexity_ratio", 0.9, 0.85, 0.95, 5),
        Score("LoRA", MICRO, "similarity_change", 0.2, None, None, 5),
    ]
    panels = system_panels(scores, ["base", "LoRA", "lookup"], "mini")
    perplexity, similarity = panels.values()
    assert [label.split(" (")[0] for label in panels] == ["perplexity, % of base", "similarity, change from base"]
    np.testing.assert_allclose(
        [perplexity[name] for name in ("base", "LoRA", "lookup")], [[100, np.nan, np.nan], [90, 85, 95], [np.nan] * 3]
    )
    np.testing.assert_equal(similarity["LoRA"], [0.2, np.nan, np.nan])
    left, right = draw_systems(panels, "Systems").axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["base", "LoRA", "lookup"]
    others, base = left.lines[1:]
    assert (base.get_xdata()[0], base.get_ydata()[0]) == (100.0, 2)
    np.testing.assert_allclose(others.get_xydata(), [[90.0, 1], [np.nan, 0]])
    np.testing.assert_allclose(left.collections[0].get_segments()[1], [[85.0, 1.0], [95.0, 1.0]])
    alone = system_panels(scores[:1], ["base"], "mini")
    assert [list(values["base"]) for values in alone.values()] == [[80.0, 70.0, 90.0]]


def test_labels():
    """Eight characters where that is unique and ASCII, numbers where not."""
    assert user_labels(["abcdefghij", "b"]) == {"abcdefghij": "abcdefgh", "b": "b"}
    assert user_labels(["speaker_01", "speaker_02"]) == {"speaker_01": "user001", "speaker_02": "user002"}
    assert user_labels(["花子"]) == {"花子": "user001"}
