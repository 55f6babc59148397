"""The archive that Twitter (X) gives to a person: their own posts.

`tweets.js` and its further parts (`tweet.js` in older archives) are JavaScript: `window.YTD.tweets.part0 = [ {"tweet":
{...}}, ... ]`; in old ones the posts are the items of the list. They do not say whose posts they are: the id of the
account is in `account.js` beside it, or is given. An archive holds one person's posts only, so replies find their
parents only among the archives that are read together. The whole file is held in memory while it is read.

Terms: the person's own; have their consent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa

from datamodules.corpora.posts.authors import AuthorRules
from datamodules.corpora.posts.cleaning import Cleaning
from datamodules.corpora.posts.files import Unit
from datamodules.corpora.posts.profile_sources import ProfileSource
from datamodules.corpora.posts.raw_posts import Fields, row_of, table_of_rows
from datamodules.corpora.posts.reader import BATCH_ROWS, CHECKED_RECORDS, Posts

from .records import Malformed, Reasons

ACCOUNT = "account"  # the key under which a post gets its author
TWITTER_FIELDS = Fields(
    id="id_str",
    author=ACCOUNT,
    text="full_text",
    time="created_at",
    in_reply_to="in_reply_to_status_id_str",
    lang="lang",
)


class TwitterArchive(Posts):
    """Reads the posts of one or more archives.

    Args:
        files: `tweets.js`, the directory `data` in which it is, or a glob for several: `archives/*/data/tweets.js`.
        fields: what the fields of a post are called; `account` is the id of the archive's account.
        cleaning: which posts are kept, and what is taken out of their texts; Twitter writes `&` as `&amp;`.
        authors: as of `Posts`.
        profiles: as of `Posts`.
        account: id of the account, if there is no `account.js` beside the file.
        storage_options: what fsspec needs for these addresses.
    """

    def __init__(
        self,
        files: str | list[str],
        fields: Fields = TWITTER_FIELDS,
        cleaning: Cleaning = Cleaning(unescape=True),  # noqa: B008 - frozen
        authors: AuthorRules = AuthorRules(),  # noqa: B008 - frozen
        profiles: ProfileSource | None = None,
        account: str | None = None,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(files, fields, cleaning, authors, profiles, storage_options=storage_options)
        self.account = account

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "account": self.account}

    def _raw(self, unit: Unit) -> Iterator[tuple[pa.Table, Reasons]]:
        tweets = enumerate(self._tweets(unit.path))
        while some := list(islice(tweets, BATCH_ROWS)):
            rows, reasons = [], Reasons()
            for number, tweet in some:
                try:
                    rows.append(row_of(tweet, self.fields.paths))
                except Malformed as error:
                    reasons.add(error.reason, 1, [f"{unit.path}: post {number}: {error}"])
            yield table_of_rows(rows), reasons

    def _first_records(self, path: str) -> Iterator[dict[str, Any]]:
        return (tweet for tweet in islice(self._tweets(path), CHECKED_RECORDS) if isinstance(tweet, dict))

    def _tweets(self, path: str) -> Iterator[Any]:
        author = self.account or self._account_beside(path)
        for entry in self._list(path):
            tweet = entry.get("tweet", entry) if isinstance(entry, dict) else entry
            yield {ACCOUNT: author, **tweet} if isinstance(tweet, dict) else tweet

    def _account_beside(self, path: str) -> str:
        beside = path.rpartition("/")[0] + "/account.js"
        if not self._source.size(beside):
            raise FileNotFoundError(f"{beside} not found; it says whose posts {path} has: give the id as `account`")
        try:
            return str(self._list(beside)[0]["account"]["accountId"])
        except (LookupError, TypeError):
            raise ValueError(
                f"{beside}: got no account.accountId in its first entry; give the id as `account`"
            ) from None

    def _list(self, path: str) -> list[Any]:
        """What is assigned in a file of an archive; an empty file assigns nothing."""
        try:
            text = self._source.read(path).decode("utf-8-sig")
            if not text.strip():
                return []
            return json.loads(text[text.index("[") :].rstrip().removesuffix(";"))
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path}: got {error}; expected JavaScript that assigns a list, as Twitter writes it: unpack it again"
            ) from None
