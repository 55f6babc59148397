"""Archives as Twitter writes them; the people are invented."""

import json
from datetime import UTC, datetime

import pytest

from datamodules.corpora import TwitterArchive

TWEET = {
    "id_str": "7",
    "id": "7",
    "full_text": "@ken_9 fish &amp; chips &lt;3 https://t.co/abc",
    "created_at": "Wed Oct 10 20:19:24 +0000 2018",
    "in_reply_to_status_id_str": "6",
    "lang": "en",
}
PLAIN = {key: value for key, value in TWEET.items() if key != "in_reply_to_status_id_str"} | {"id_str": "8"}
ROW = {
    "id": "7",
    "author": "42",
    "text": "fish & chips <3 [url]",
    "time": datetime(2018, 10, 10, 20, 19, 24, tzinfo=UTC),
    "in_reply_to": "6",
}


def write(path, name, entries, end=""):
    path.mkdir(exist_ok=True, parents=True)
    variable = f"window.YTD.{name.partition('-')[0]}.part0"
    (path / f"{name}.js").write_text(f"{variable} = {json.dumps(entries, indent=2)}{end}")


def read(archive):
    blocks = [block for unit in archive.units() for block in archive.read(unit)]
    counts = {reason: count for _, reasons in blocks for reason, count in reasons.items()}
    return [row for table, _ in blocks for row in table.to_pylist()], counts


def test_an_archive_is_read(tmp_path):
    write(tmp_path, "account", [{"account": {"accountId": "42", "username": "x"}}])
    write(tmp_path, "tweets", [{"tweet": TWEET}, {"tweet": {**TWEET, "full_text": "RT @a: no"}}, {"tweet": 3}], ";\n")
    write(tmp_path, "tweets-part1", [PLAIN])  # as in old archives, where posts stand by themselves
    write(tmp_path, "like", [{"like": {"fullText": "of somebody else"}}])
    plain = {**ROW, "id": "8", "in_reply_to": None, "text": "[user] fish & chips <3 [url]"}
    assert read(TwitterArchive(str(tmp_path))) == ([plain, ROW], {"repost": 1, "wrong type": 1})


def test_several_archives_each_with_its_account(tmp_path):
    for account in ("1", "2"):
        write(tmp_path / account / "data", "account", [{"account": {"accountId": account}}])
        write(tmp_path / account / "data", "tweet", [{"tweet": TWEET}])
    rows, _ = read(TwitterArchive(f"{tmp_path}/*/data/tweet*.js"))
    assert [row["author"] for row in rows] == ["1", "2"]


def test_the_account_may_be_given_and_must_be_known(tmp_path):
    write(tmp_path, "tweets", [{"tweet": TWEET}])
    assert read(TwitterArchive(str(tmp_path / "tweets.js"), account="42")) == ([ROW], {})
    with pytest.raises(FileNotFoundError, match=r"account\.js not found.*give the id as `account`"):
        TwitterArchive(str(tmp_path / "tweets.js")).units()
    write(tmp_path, "account", [])
    with pytest.raises(ValueError, match=r"no account\.accountId"):
        TwitterArchive(str(tmp_path / "tweets.js")).units()
    assert TwitterArchive(str(tmp_path)).settings() != TwitterArchive(str(tmp_path), account="42").settings()


@pytest.mark.parametrize("content", ["window.YTD.tweets.part0 = [ {", "nothing", "window.YTD = [\xff]"])
def test_a_broken_archive_is_an_error(tmp_path, content):
    (tmp_path / "tweets.js").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"tweets\.js: got .*unpack it again"):
        TwitterArchive(str(tmp_path), account="42").units()
