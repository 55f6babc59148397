"""The synthetic network: what it says is in it is in it, and how it is cut into files changes nothing."""

import gzip
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.synthetic_network.network import BROKEN, generate
from benchmarks.synthetic_network.people import Settings
from benchmarks.synthetic_network.texts import HABITS_PER_VALUE, NUM_WORDS, habits, phrases, vocabulary
from datamodules.evidence.language_file import load_language

POSTS, PEOPLE = 30_000, 100  # seven whole units and a part of one
ENGLISH = Path(__file__).parents[2] / "experiments" / "profiles" / "en.yaml"


def lines(directory):
    return b"".join(path.read_bytes() for path in sorted(directory.glob("posts-*.jsonl"))).splitlines(keepends=True)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    directory = tmp_path_factory.mktemp("network") / "out"
    generate(Settings(POSTS, people=PEOPLE), directory, num_files=3)
    return directory


@pytest.fixture(scope="module")
def posts(network):
    return [json.loads(line) for line in lines(network)]


def test_files_and_formats_change_nothing(network, tmp_path):
    settings, whole = Settings(POSTS, people=PEOPLE), b"".join(lines(network))
    counts = [generate(settings, tmp_path / "one", num_files=1)]
    counts.append(generate(settings, tmp_path / "gz", num_files=7, kind="jsonl.gz"))
    counts.append(generate(settings, tmp_path / "parquet", num_files=2, kind="parquet"))
    assert (tmp_path / "one" / "posts-00000.jsonl").read_bytes() == whole
    assert b"".join(gzip.decompress(path.read_bytes()) for path in sorted((tmp_path / "gz").glob("*.gz"))) == whole
    assert counts == [json.loads((network / "counts.json").read_text())] * 3
    rows = [row for path in sorted((tmp_path / "parquet").glob("posts-*")) for row in pq.read_table(path).to_pylist()]
    records = [json.loads(line) for line in whole.splitlines()]
    assert [row["time"].isoformat(timespec="milliseconds").replace("+00:00", "Z") for row in rows] == [
        record.pop("time") for record in records
    ]
    assert [{**row, "time": None} for row in rows] == [{**record, "time": None} for record in records]
    sizes = [len(path.read_bytes().splitlines()) for path in sorted(network.glob("posts-*"))]
    assert sizes == [10_000] * 3


def test_another_seed_is_another_network(posts, tmp_path):
    generate(Settings(POSTS, seed=1, people=PEOPLE), tmp_path / "other")
    other = [json.loads(line)["text"] for line in lines(tmp_path / "other")]
    assert len(set(other) & {post["text"] for post in posts}) < POSTS // 100


def recounted(posts):
    """Counts from the posts alone, one after the other."""
    by_id, texts, counts = {}, defaultdict(set), Counter()
    for post in posts:
        parent = by_id.get(post["in_reply_to"])
        if "https://spam.example/" in post["text"] and post["text"].startswith("win a free"):
            kind = "bot"
        elif post["text"].startswith("RT @u"):
            kind = "reposts"
        elif post["in_reply_to"]:
            kind = "replies"
            counts["missing_parents"] += parent is None
        else:
            stems = {post["text"], post["text"].removesuffix("!!"), post["text"].rpartition(" ")[0]}
            kind = "duplicates" if stems & texts[post["author"]] else "own"
            texts[post["author"]].add(post["text"])
        counts[kind] += 1
        turns, before, two = 0, parent, [post["author"]]
        while before and before["author"] != two[-1] and (len(two) < 2 or before["author"] == two[-2]):
            two.append(before["author"])
            turns, before = turns + 1, by_id.get(before["in_reply_to"])
        if turns:
            counts[f"replies_with_{turns}_turns" if turns < 4 else "replies_with_4_turns_or_more"] += 1
        counts["with_url"] += "https://" in post["text"]
        counts["with_mention"] += "@u" in post["text"]
        counts["text_bytes"] += len(post["text"].encode())
        by_id[post["id"]] = post
    assert len(by_id) == len(posts)
    return counts


def test_counts_are_those_of_a_recount(network, posts):
    counts = json.loads((network / "counts.json").read_text())
    authors = Counter(post["author"] for post in posts)
    assert dict(recounted(posts)) == {name: counts[name] for name in recounted(posts)}
    assert [(counts["busiest"], counts["posts_of_busiest"])] == authors.most_common(1)
    assert counts["authors"] == len(authors) and counts["posts"] == len(posts) == POSTS
    assert counts["people_with_150_posts"] == sum(number >= 150 for name, number in authors.items() if name != "u100")
    assert counts["bots"] == 1 and authors["u100"] == counts["bot"]


def test_times_rise_and_shares_are_as_described(posts):
    times = [post["time"] for post in posts]
    assert times == sorted(times)
    assert 50 < sum(len(post["text"]) for post in posts) / POSTS < 75
    replies = [post for post in posts if post["in_reply_to"]]
    author = {post["id"]: post["author"] for post in posts}
    assert all(author.get(post["in_reply_to"]) != post["author"] for post in replies)
    assert 0.5 < len(replies) / POSTS < 0.7
    delays = [int(post["id"]) - int(post["in_reply_to"]) for post in replies if post["in_reply_to"] in author]
    assert min(delays) > 0 and max(delays) < 2 * 4096
    heard = Counter(author[post["in_reply_to"]] for post in replies if post["in_reply_to"] in author)
    wrote = Counter(post["author"] for post in posts)
    audience = sorted(heard[name] / number for name, number in wrote.items() if number >= 50)
    assert audience[-1] > 2 * audience[len(audience) // 2]


def test_words_follow_zipf(posts):
    words = Counter(word for post in posts for word in re.findall("[a-z]+", post["text"]))
    assert len(set(vocabulary()) & words.keys()) > 0.6 * NUM_WORDS
    ratio = words[vocabulary()[3]] / words[vocabulary()[100]]
    assert ratio == pytest.approx((100 + 3.7) / (3 + 3.7), rel=0.25)


def test_patterns_find_what_is_planted(network, posts):
    """The majority of what the English patterns find is true of whom it is found in."""
    truth = {
        (row["user"], row["attribute"]): row["value"] for row in pq.read_table(network / "truth.parquet").to_pylist()
    }
    language = load_language(ENGLISH)
    assert len(truth) == PEOPLE * len(language.attributes)
    for name, attribute in language.attributes.items():
        assert {value for (_, kind), value in truth.items() if kind == name} <= attribute.values.keys()
        votes = defaultdict(Counter)
        for post in posts:
            if post["text"].endswith("?") or post["text"].startswith("RT"):
                continue
            for by_value in attribute.patterns.values():
                for value, pattern in by_value.items():
                    votes[post["author"]][value] += len(pattern.said.findall(post["text"]))
            for place in attribute.places["there"].said.findall(post["text"]) if attribute.places else []:
                votes[post["author"]][attribute.value_of(place)] += 1
        found = {user: said.most_common(1)[0] for user, said in votes.items() if said.total() >= 3}
        right = [truth[user, name] == value for user, (value, _) in found.items()]
        assert len(right) > PEOPLE / 8 and sum(right) / len(right) > 0.85, (name, len(right), sum(right))


def test_every_phrase_is_evidence_for_its_value_only():
    language = load_language(ENGLISH)
    for attribute, value, said in phrases():
        for phrase in said:
            for name in (attribute,) if attribute != "spouse" else ("gender", "marital_status"):
                patterns = language.attributes[name].patterns
                found = {one for by in patterns.values() for one, pattern in by.items() if pattern.said.search(phrase)}
                if attribute == "residence":
                    found = {
                        language.attributes[name].value_of(place)
                        for place in language.attributes[name].any_name.said.findall(phrase)
                    }
                assert found and found <= set(value.split(" ") if attribute == "spouse" else [value]), (phrase, found)


def test_habits_are_words_that_a_value_makes_more_likely(network, posts):
    truth = defaultdict(set)
    for row in pq.read_table(network / "truth.parquet").to_pylist():
        truth[row["user"]].add((row["attribute"], row["value"]))
    number = [(attribute, value) for attribute, value, _ in phrases()].index(("gender", "female"))
    favoured = {vocabulary()[rank] for rank in habits()[number]}
    assert len(favoured) == HABITS_PER_VALUE
    used, total = Counter(), Counter()
    for post in posts:
        if not post["text"].startswith(("RT", "win a free")):
            words = re.findall("[a-z]+", post["text"])
            group = ("gender", "female") in truth[post["author"]]
            used[group] += sum(word in favoured for word in words)
            total[group] += len(words)
    assert used[True] / total[True] > 1.5 * used[False] / total[False]


def test_broken_lines_are_extra_and_counted(network, tmp_path):
    counts = generate(Settings(POSTS, people=PEOPLE, broken=0.01), tmp_path / "broken", num_files=2)
    found = Counter(line for line in lines(tmp_path / "broken") if line in BROKEN.values())
    assert {f"broken: {name}": found[line] for name, line in BROKEN.items()}.items() <= counts.items()
    assert 200 < found.total() < 400
    assert [line for line in lines(tmp_path / "broken") if line not in found] == lines(network)


def test_one_person_can_write_much(tmp_path):
    counts = generate(Settings(20_000, people=2000, heavy=6000), tmp_path / "heavy")
    assert counts["busiest"] == "u0" and counts["posts_of_busiest"] == pytest.approx(6000, rel=0.25)


def test_what_cannot_be_made_is_said(network, tmp_path):
    with pytest.raises(FileExistsError, match="is there"):
        generate(Settings(10), network)
    with pytest.raises(ValueError, match="Parquet has no lines"):
        generate(Settings(10, broken=0.5), tmp_path / "none", kind="parquet")
    with pytest.raises(ValueError, match="heavy from 0 below posts"):
        Settings(10, heavy=10)
    assert not (tmp_path / "none").exists()
