"""Command lines and files as they are read, before anything is built."""

from pathlib import Path

import pytest

from commands.parsing import files_first, require_unique_keys, shortened, with_names

UNION = """Parser key "data":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'lightning.pytorch.core.datamodule.LightningDataModule'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'datamodules.UserSets':
        Parser key "users":
          Does not validate against any of the Union subtypes
          Subtypes: [<class 'str'>, list[str], <class 'NoneType'>]
          Errors:
            - Expected a <class 'str'>
            - Expected a <class 'list'>
          Given value type: <class 'int'>
          Given value: 3
    - Expected a <class 'NoneType'>
  Given value type: <class 'jsonargparse._util.NestedArg'>
  Given value: NestedArg(key='users', val=3)"""
LOGGER = """Parser key "trainer.logger":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'lightning.pytorch.loggers.logger.Logger'>, <class 'bool'>]
  Errors:
    - Problem with given class_path 'loggers.Some':
        the following arguments are required: save_dir
    - Expected a <class 'bool'>
  Given value: Namespace(class_path='loggers.Some')"""


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (UNION, "data.users: expected str or list[str] or null, got 3"),
        (LOGGER, "trainer.logger: loggers.Some: the following arguments are required: save_dir"),
        ("Parser key \"rank\":\n  Expected a <class 'int'>. Got value: many", "rank: expected int, got many"),
        ("unrecognized arguments: --rnak=3", "unrecognized arguments: --rnak=3"),
    ],
)
def test_a_message_of_jsonargparse_in_one_line(message, line):
    assert shortened(message) == line


@pytest.mark.parametrize(
    ("arguments", "ordered"),
    [
        (["--model.rank=2", "--config", "a.yaml"], ["--config=a.yaml", "--model.rank=2"]),
        (["--x", "1", "-c", "a.yaml", "--config=b.yaml"], ["--config=a.yaml", "--config=b.yaml", "--x", "1"]),
        (["--x=1", "--config"], ["--x=1", "--config"]),
    ],
)
def test_files_come_before_flags(arguments, ordered):
    assert files_first(arguments) == ordered


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("[123]", '["123"]'),
        ("[ann, 007, 1_0, null]", '["ann", "007", "1_0", "null"]'),
        ("ann: lee", '["ann: lee"]'),
        ("ann", "ann"),
        ("null", "null"),
        ("[[a]]", "[[a]]"),
        ("'[", "'["),
    ],
)
def test_numbers_and_colons_are_names(value, read):
    flags = ["--data.users"]
    assert with_names([f"--data.users={value}", "--model.rank", "3"], flags) == [
        f"--data.users={read}", "--model.rank", "3",
    ]  # fmt: skip
    assert with_names(["--data.users", value], flags) == [f"--data.users={read}"]


def test_a_key_that_is_there_twice_is_named_with_both_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("inner.yaml").write_text("a: 1\nb: {c: 1}\n")
    Path("outer.yaml").write_text("data: inner.yaml\nlist: [{a: 1}, {a: 1}]\n")
    require_unique_keys(Path("outer.yaml"))
    Path("inner.yaml").write_text("a: 1\nb:\n  c: 1\n  c: 2\n")
    with pytest.raises(ValueError, match=r"inner.yaml: c is there twice, in lines 3 and 4; keep one"):
        require_unique_keys(Path("outer.yaml"))
    for broken in ("missing.yaml", "outer.yaml"):  # the parser says what is wrong with them
        Path("outer.yaml").write_bytes(b"\xff")
        require_unique_keys(Path(broken))
