"""`lightning forget --user ID`: removes one person from all that this project has written, and says what it was.

What was learned from words cannot be removed from weights by deleting rows; such weights are named, to be retrained.
The command may be killed at any time: every file stays whole, and the same command resumes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from artefacts.layout import MANIFEST
from artefacts.people import clean_id
from commands.forgetting.learned_from import Learned, learned_from
from commands.forgetting.prepared_data import PersonInCorpus, prepared_directories
from commands.forgetting.remains import own_files_naming, still_naming
from commands.forgetting.run_files import trace_in_file
from commands.forgetting.traces import Person, Trace, traces_in_directory, walk
from datamodules.preparation.opt_out import add_to_opt_out, read_opt_out

OPT_OUT = "opt_out.txt"


@dataclass
class Forget:
    """Removes a person's posts, pairs, profile, adapter and predictions from prepared data and runs.

    Stop what is running on them before. Words cannot be removed from trained weights: the report names what has to be
    retrained.

    Args:
        user: the person's id, as in the prepared data.
        data: directory of prepared corpora.
        runs: directory of runs.
        dry_run: print the plan, and change nothing.
        no_opt_out: do not add the id to `<data>/opt_out.txt`, which a preparation leaves out with `opt_out`.
    """

    user: str
    data: Path = Path("data")
    runs: Path = Path("runs")
    dry_run: bool = False
    no_opt_out: bool = False

    def run(self) -> None:
        """Makes the plan, prints and checks it, carries it out, and says what remains.

        Raises:
            ValueError: nothing is known of the person, a file is damaged, or one can't be written; nothing is changed.
        """
        if not self.user.strip():
            raise ValueError(f"user is {self.user!r}; give the id of one person")
        everywhere = [PersonInCorpus(directory, self.user) for directory in prepared_directories(self.data)]
        corpora = [corpus for corpus in everywhere if corpus.is_there]
        lookalikes = sorted(set().union(*(corpus.lookalikes for corpus in everywhere)))
        # What goes just in case goes first: after a kill, the rest still shows that the person is known here.
        in_runs = sorted(self._traces(self._as_in_runs(corpora)), key=lambda trace: trace.is_certain)
        if not corpora and not any(trace.is_certain for trace in in_runs):
            self._report_nothing(lookalikes)
            return
        learned = learned_from(self.runs, corpora, gone={trace.path for trace in in_runs})
        self._print_plan(corpora, in_runs, learned)
        _require_writable([trace.path for trace in in_runs] + [path for corpus in corpora for path in corpus.rows])
        for corpus in corpora:
            corpus.check()
        if not self.dry_run:
            self._carry_out(corpora, in_runs, learned)
        self._print_remains(lookalikes)

    @property
    def opt_out(self) -> Path:
        return self.data / OPT_OUT

    def _as_in_runs(self, corpora: list[PersonInCorpus]) -> Person:
        pair_ids = {id for corpus in corpora for id in corpus.values("pair_id")}
        talked_with = {user for corpus in corpora for user in corpus.values("speaker", "users/test")} - {self.user}
        return Person(self.user, pair_ids, talked_with)

    def _traces(self, person: Person) -> Iterator[Trace]:
        """All that is stored of the person below runs; ValueError if a file is damaged."""
        for directory, names, files in walk(self.runs):
            whole = list(traces_in_directory(directory, names, person))
            yield from whole
            gone = {trace.path.name for trace in whole}
            names[:] = [name for name in names if name not in gone]
            yield from filter(None, (trace_in_file(directory / name, person) for name in files))

    def _report_nothing(self, lookalikes: list[str]) -> None:
        if self.opt_out.is_file() and clean_id(self.user) in read_opt_out(self.opt_out):
            print(f"{self.user!r} is in {self.opt_out}, and nothing is left of them in {self.data} and {self.runs}")
            return
        alike = f" There are people who look alike: {', '.join(map(repr, lookalikes))}." if lookalikes else ""
        raise ValueError(
            f"nothing is known of user {self.user!r}: looked at {len(prepared_directories(self.data))} prepared "
            f"corpora below {self.data.absolute()} and at the runs below {self.runs.absolute()}; nothing was changed. "
            f"Upper and lower case differ; other directories are named with --data and --runs.{alike}"
        )

    def _print_plan(self, corpora: list[PersonInCorpus], in_runs: list[Trace], learned: Learned) -> None:
        for run, reason in learned.to_retrain.items():
            print(f"to retrain: {run}: {reason}")
        for trace in in_runs:
            print(f"to remove: {trace.path}: {trace.what}")
        for corpus in corpora:
            lines = [f"to remove: {path}: {len(rows):,} rows" for path, rows in corpus.rows.items()]
            if corpus.is_target_user:
                lines.append(f"to remove: {corpus.directory / MANIFEST}: a target user")
            print("\n".join(lines or [f"to remove: {corpus.directory}: what an earlier attempt has left"]))
        for tokenizer in learned.tokenizers:
            print(f"stays: {tokenizer}: its pieces may be learned from this person's words, among all others'")

    def _carry_out(self, corpora: list[PersonInCorpus], in_runs: list[Trace], learned: Learned) -> None:
        """The opt-out list first, prepared data last: pairs tell which predictions are the person's."""
        if not self.no_opt_out:
            add_to_opt_out(self.opt_out, self.user)
        for trace in in_runs:
            trace.remove()
        for corpus in corpora:
            corpus.forget(learned.keep_usable)
        print(f"removed: {len(in_runs)} items in {self.runs}, {sum(len(c.rows) for c in corpora)} files in {self.data}")

    def _print_remains(self, lookalikes: list[str]) -> None:
        for user in lookalikes:
            print(f"another id that looks alike stays: {user!r}; if it is the same person, give the command for it too")
        for path in own_files_naming(self.user, self.runs, skip=(self.data, self.runs)):
            print(f"stays: {path}: a file of your own that names {self.user!r}; delete it yourself")
        if self.dry_run:
            print("nothing was changed: give the command without --dry_run")
            return
        for path in still_naming(self.user, [self.runs, *prepared_directories(self.data)]):
            print(f"look yourself: {path} still has {self.user!r} in it")
        if self.no_opt_out:
            print("done; a new preparation of the same source will have this person again")
            return
        print(
            f"done; so that a new preparation leaves this person out, set in its YAML:  opt_out: {self.opt_out}\n"
            "figures and pictures of tables that were made with this person's turns stay: make the tables again"
        )


def _require_writable(paths: Iterable[Path]) -> None:
    """Raises ValueError before anything is changed if a file or directory can't be replaced."""
    directories = {path.resolve().parent if path.is_file() else path.parent for path in paths}
    if locked := sorted(str(path) for path in directories if not os.access(path, os.W_OK | os.X_OK)):
        raise ValueError(f"cannot write in {', '.join(locked)}; nothing was changed: change the permissions first")
