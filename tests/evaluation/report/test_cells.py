"""Names that people have given, in tables and for spreadsheets."""

import csv
import io

import pytest

from evaluation.report.cells import align, csv_text


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1"])
def test_a_formula_is_text_and_numbers_stay(name):
    text = csv_text([["user", "value"], [name, -1.5], ["ann", None]])
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows == [["user", "value"], [f"'{name}", "-1.5"], ["ann", ""]]


def test_a_name_neither_breaks_a_row_nor_becomes_html():
    table = align([["user", "x"], ["<img src=x>\nann\u2028lee|", "**1**"]])
    assert table.splitlines()[2:] == ["| &lt;img src=x> ann lee\\| | **1** |"]
