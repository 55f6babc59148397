"""`lightning forget --user ID`: takes one person out of all that this project has written, and says what it was.

What was learnt from words cannot be taken out of weights by deleting rows; such weights are named, to be retrained.
The command may be killed at any time: every file stays whole, and the same command resumes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artefacts.files import read_json
from artefacts.fingerprints import fingerprint_of
from artefacts.layout import BACKBONE, MANIFEST, TOKENIZER, run_card
from commands.forgetting.prepared_data import PersonInCorpus, prepared_directories
from commands.forgetting.runs import Person, Trace, names, traces_in
from datamodules.preparation.opt_out import add_to_opt_out, read_opt_out

OPT_OUT = "opt_out.txt"
FIT_CARD = run_card(Path(), "fit").name
NOT_SEARCHED = {".parquet", ".arrow", ".safetensors", ".ckpt"}


@dataclass
class Forget:
    """Takes a person's posts, pairs, profile, adapter and predictions out of prepared data and runs.

    Stop what is running on them before. Words cannot be taken out of trained weights: the report names what has to be
    trained anew.

    Args:
        user: the person's id, as it stands in the prepared data.
        data: directory of prepared corpora.
        runs: directory of runs.
        dry_run: say what would go, and change nothing.
        no_opt_out: do not add the id to `<data>/opt_out.txt`, which a preparation leaves out with `opt_out`.
    """

    user: str
    data: Path = Path("data")
    runs: Path = Path("runs")
    dry_run: bool = False
    no_opt_out: bool = False

    def run(self) -> None:
        """Looks everywhere, says what is there, and takes it away.

        Raises:
            ValueError: nothing is known of the person, or a file is damaged; nothing is changed.
        """
        if not self.user or [self.user] != self.user.strip().splitlines():
            raise ValueError(f"user is {self.user!r}; give one id, without line ends or blanks around it")
        corpora = [PersonInCorpus(directory, self.user) for directory in prepared_directories(self.data)]
        corpora = [corpus for corpus in corpora if corpus.is_there]
        # What goes just in case goes first: after a kill, the rest still shows that the person is known here.
        in_runs = sorted(traces_in(self.runs, self._as_in_runs(corpora)), key=lambda trace: trace.is_certain)
        if not corpora and not any(trace.is_certain for trace in in_runs):
            self._report_nothing()
            return
        gone = {trace.path for trace in in_runs}
        for line in self._learnt_from(corpora, gone):  # said first: afterwards nobody could tell
            print(line)
        self._take_away(corpora, in_runs)
        for line in self._still_named():
            print(line)
        print(self._last_word())

    @property
    def opt_out(self) -> Path:
        return self.data / OPT_OUT

    def _as_in_runs(self, corpora: list[PersonInCorpus]) -> Person:
        pair_ids = {id for corpus in corpora for id in corpus.values("pair_id")}
        talked_with = {user for corpus in corpora for user in corpus.values("speaker", "users/test")} - {self.user}
        return Person(self.user, pair_ids, talked_with)

    def _report_nothing(self) -> None:
        if self.opt_out.is_file() and self.user in read_opt_out(self.opt_out):
            print(f"{self.user!r} is in {self.opt_out}, and nothing is left of them in {self.data} and {self.runs}")
            return
        raise ValueError(
            f"nothing is known of user {self.user!r}: looked at {len(prepared_directories(self.data))} prepared "
            f"corpora below {self.data.absolute()} and at the runs below {self.runs.absolute()}; nothing was changed. "
            "Upper and lower case differ; other places are named with --data and --runs"
        )

    def _take_away(self, corpora: list[PersonInCorpus], in_runs: list[Trace]) -> None:
        """The list of those left out first, prepared data last: pairs tell which predictions are the person's."""
        if not self.dry_run and not self.no_opt_out:
            add_to_opt_out(self.opt_out, self.user)
        done = "would go" if self.dry_run else "gone"
        for trace in in_runs:
            if not self.dry_run:
                trace.take_away()
            print(f"{done}: {trace.path}: {trace.what}")
        for corpus in corpora:
            lines = [f"{done}: {path}: {len(rows):,} rows" for path, rows in corpus.rows.items()]
            if corpus.is_target_user:
                lines.append(f"{done}: {corpus.directory / MANIFEST}: a target user")
            if not self.dry_run:
                corpus.forget()
            print("\n".join(lines or [f"{done}: {corpus.directory}: what an earlier attempt had left"]))

    # ---- what cannot be taken away

    def _learnt_from(self, corpora: list[PersonInCorpus], gone: set[Path]) -> Iterator[str]:
        """Lines about tokenizers, backbones, networks and others' adapters that have seen the person's words."""
        cards = {path.parent: read_json(path) for path in sorted(self.runs.rglob(FIT_CARD)) if path.parent not in gone}
        reasons = {run: reason for run, card in cards.items() if (reason := self._reason(card, corpora))}
        fingerprints = {
            read_json(path)["fingerprint"]: run for run in reasons for path in run.glob(f"{BACKBONE}*/{MANIFEST}")
        }
        for run, card in cards.items():
            if run not in reasons and card.get("backbone") in fingerprints:
                reasons[run] = f"stands on the backbone of {fingerprints[card['backbone']]}"
        yield from (f"train anew: {run}: {reason}" for run, reason in reasons.items())
        for corpus in corpora:
            tokenizer = corpus.directory / TOKENIZER
            if corpus.rows and tokenizer.is_dir():
                yield f"stays: {tokenizer}: its pieces may be learnt from this person's words, among everybody's"

    def _reason(self, card: dict[str, Any], corpora: list[PersonInCorpus]) -> str | None:
        """Why a run has seen the person's words; None where it has not."""
        data = card["config"].get("data") or {}
        kind, settings = data.get("class_path", ""), data.get("init_args") or {}
        output = Path((settings.get("preparation") or {}).get("output") or "")
        splits = ["pretrain/train", "users/train"]
        if kind.endswith("ReplyPairs"):
            splits = [settings.get("train_split") or "pretrain/train"]
        for corpus in corpora:
            manifest = corpus.directory / MANIFEST
            is_same = output.name == corpus.directory.name or card.get("prepared") == fingerprint_of(manifest)
            speakers = {user for split in splits for user in corpus.values("speaker", split)} if is_same else set()
            if speakers and (not kind.endswith("UserSets") or settings.get("history")):
                return "trained with this person's words"
            others = sorted(corpus.values("speaker", "users/train") - {self.user}) if is_same else []
            if others and kind.endswith("UserSets"):
                some = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
                return f"the weights of {len(others)} people who answered this person: {some}"
        return None

    def _still_named(self) -> Iterator[str]:
        """Places that no rule knows of and that still have the id in them: for a person to look at."""
        if self.dry_run:
            return
        for root in [self.runs, *prepared_directories(self.data)]:
            for path in sorted(root.rglob("*")):
                is_searched = path.is_file() and path.suffix not in NOT_SEARCHED
                if names(path.name.encode() + b"\n" + (path.read_bytes() if is_searched else b""), self.user):
                    yield f"look yourself: {path} still has {self.user!r} in it"

    def _last_word(self) -> str:
        if self.dry_run:
            return "nothing was changed: give the command without --dry_run"
        if self.no_opt_out:
            return "done; a new preparation of the same source will have this person again"
        return (
            f"done; so that a new preparation leaves this person out, set in its YAML:  opt_out: {self.opt_out}\n"
            "figures and pictures of tables that were made with this person's turns stay: make the tables anew"
        )
