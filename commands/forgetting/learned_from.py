"""Which runs have learned from a person's words, and which stay usable when the person is gone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from artefacts.files import read_json, write_json
from artefacts.fingerprints import fingerprint_of
from artefacts.layout import BACKBONE, CARD, MANIFEST, PREDICTIONS, TOKENIZER, card_of, run_card
from commands.forgetting.prepared_data import PersonInCorpus
from commands.forgetting.traces import walk

Card = Mapping[str, Any]


@dataclass(frozen=True)
class Learned:
    """What was learned from a person's words.

    Attributes:
        to_retrain: run → why.
        tokenizers: directories of tokenizers that may have pieces of the person's words.
        cards: cards of the other runs, whose results stay right.
    """

    to_retrain: dict[Path, str] = field(default_factory=dict)
    tokenizers: list[Path] = field(default_factory=list)
    cards: list[Path] = field(default_factory=list)

    def keep_usable(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        """Tells the cards of runs that are not affected that their data have a new fingerprint.

        Args:
            before: `prepared` (of the manifest) and `split` (of the test turns) before the person was removed.
            after: the same now.
        """
        for path in self.cards:
            if not path.is_file():
                continue
            card = read_json(path)
            changes = {key: after[key] for key in before if before[key] is not None and card.get(key) == before[key]}
            if changes:
                write_json(path, {**card, **changes}, ensure_ascii=False)


def learned_from(runs: Path, corpora: Sequence[PersonInCorpus], gone: Collection[Path]) -> Learned:
    """Sorts runs by whether they have seen the person's words.

    Args:
        runs: directory of runs.
        corpora: prepared corpora that have the person.
        gone: directories and files that are removed.
    """
    fit_card = run_card(Path(), "fit").name
    directories = [directory for directory, _, files in walk(runs) if fit_card in files and directory not in gone]
    cards: dict[Path, Card] = {run: read_json(run / fit_card) for run in directories}
    reasons = {run: reason for run, card in cards.items() if (reason := _reason(card, corpora))}
    fingerprints = {
        read_json(path)["fingerprint"]: run for run in reasons for path in run.glob(f"{BACKBONE}*/{MANIFEST}")
    }
    for run, card in cards.items():
        if run not in reasons and card.get("backbone") in fingerprints:
            reasons[run] = f"stands on the backbone of {fingerprints[card['backbone']]}"
    tokenizers = [corpus.directory / TOKENIZER for corpus in corpora if corpus.rows]
    return Learned(reasons, [path for path in tokenizers if path.is_dir()], _cards_to_keep(runs, reasons))


def _cards_to_keep(runs: Path, reasons: Collection[Path]) -> list[Path]:
    """Run cards and cards of predictions; not of tests, whose sums have turns of the person and are made again."""
    kept = ("fit", "predict")
    names = {*(run_card(Path(), command).name for command in kept), card_of(Path(PREDICTIONS)).name}
    return [
        directory / name
        for directory, _, files in walk(runs)
        for name in files
        if name.endswith(CARD) and name in names and directory not in reasons
    ]


def _reason(card: Card, corpora: Sequence[PersonInCorpus]) -> str | None:
    """Why a run has seen the person's words; None if it has not."""
    data = card["config"].get("data") or {}
    kind, settings = data.get("class_path", ""), data.get("init_args") or {}
    output = Path((settings.get("preparation") or {}).get("output") or "")
    splits = ["pretrain/train", "users/train"]
    if kind.endswith("ReplyPairs"):
        splits = [settings.get("train_split") or "pretrain/train"]
    for corpus in corpora:
        is_same = output.name == corpus.directory.name or card.get("prepared") == fingerprint_of(
            corpus.directory / MANIFEST
        )
        speakers = {user for split in splits for user in corpus.values("speaker", split)} if is_same else set()
        if speakers and (not kind.endswith("UserSets") or settings.get("history")):
            return "trained with this person's words"
        others = sorted(corpus.values("speaker", "users/train") - {corpus.user}) if is_same else []
        if others and kind.endswith("UserSets"):
            some = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
            return f"the weights of {len(others)} people who answered this person: {some}"
    return None
