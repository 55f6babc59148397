"""`UserSets`: the target users' reply pairs, in batches in which every user has equally many rows, grouped by user.

A pass of the training loader is one *round*: one epoch of each user who takes part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from os.path import isfile
from pathlib import Path
from typing import Any, ClassVar

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from artefacts.layout import TOKENIZER
from artefacts.people import clean_id
from artefacts.ranges import AT_LEAST_0, AT_LEAST_1, require
from datamodules.batches import WholePass
from datamodules.corpora.people import People, some
from datamodules.preparation.run import prepare
from datamodules.preparation.settings import Preparation
from datamodules.prompts.loading import load_prompts
from datamodules.prompts.profiles import ProfileControl
from datamodules.prompts.rendering import Prompts, Turns
from datamodules.prompts.template import PromptTemplate
from datamodules.shards.reader import ShardReader
from datamodules.users.general_pairs import SPLIT as GENERAL
from datamodules.users.general_pairs import GeneralPairs
from datamodules.users.history import History
from datamodules.users.past_replies import PastReplies, Retrieved
from datamodules.users.rounds import Round, RoundPlan
from datamodules.users.user_rows import UserSplit


class UserSets(LightningDataModule):
    """The target users' reply pairs: one user, a list, those named in a file, or all.

    Args:
        preparation: how the corpus is prepared; done once, and skipped when it is done.
        users: a user, a list of users, a text file with a user a line, or None for all target users.
        prompt: none, psp or ppp, and its wording; as the backbone was trained with.
        profiles: a `profiles.parquet`; None uses the one of the prepared corpus, if there is one.
        control: what is done to the profiles, to see what they are worth; None leaves them as they are.
        history: how much of each user's training turns is learnt from, and what is made wrong in them; None takes all.
        retrieved: the user's own training replies to similar contexts, between profile and context; None has none.
        rows_per_user: rows of each user in a batch, which is that user's batch size (not stated in the paper).
        users_per_batch: most users in a batch; changes speed and memory, not results.
        predict_rows: about so many rows in a batch of a prediction, whosever they are; None: as `users_per_batch`
            says. More rows are faster and take more memory. Replies that are sampled come out as other draws, as with
            every change of batches.
        max_context_tokens: ids of context kept, from the end; as the backbone was trained with.
        min_train_turns: a user with fewer training turns is rejected.
        seed: of the order of each user's rows; None is the run's (`seed_everything`).
        test_train_turns: a test also looks at so many of each user's own training turns, evenly spaced (0: at none):
            how much better than held-out ones they are is what was memorised.
        test_general_pairs: a test also looks at so many reply pairs of other people that nobody was trained on, the
            same for every user's weights (0: at none): what tuning to one person did to the rest.
    """

    not_in_run_name: ClassVar = ("users_per_batch", "predict_rows", "min_train_turns")
    only_in_test: ClassVar = ("test_train_turns", "test_general_pairs")
    prompts: Prompts
    splits: dict[str, UserSplit]
    ranges: ClassVar = {
        "rows_per_user": AT_LEAST_1,
        "users_per_batch": AT_LEAST_1,
        "predict_rows": AT_LEAST_1.or_none(),
        "max_context_tokens": AT_LEAST_1,
        "min_train_turns": AT_LEAST_0,
        "seed": AT_LEAST_0,
        "test_train_turns": AT_LEAST_0,
        "test_general_pairs": AT_LEAST_0,
    }

    def __init__(
        self,
        preparation: Preparation,
        users: str | list[str] | None = None,
        prompt: PromptTemplate | None = None,
        profiles: Path | None = None,
        control: ProfileControl | None = None,
        history: History | None = None,
        retrieved: Retrieved | None = None,
        rows_per_user: int = 8,
        users_per_batch: int = 8,
        predict_rows: int | None = None,
        max_context_tokens: int = 64,
        min_train_turns: int = 20,
        seed: int | None = None,
        test_train_turns: int = 0,
        test_general_pairs: int = 0,
    ) -> None:
        super().__init__()
        self.preparation = preparation
        self.wanted = users
        self.prompt = prompt or PromptTemplate()
        self.profiles = profiles
        self.control = control
        self.history = history
        self.retrieved = retrieved
        self.rows_per_user = rows_per_user
        self.users_per_batch = users_per_batch
        self.predict_rows = predict_rows
        self.max_context_tokens = max_context_tokens
        self.min_train_turns = min_train_turns
        self.seed = seed or 0
        self.test_train_turns = test_train_turns
        self.test_general_pairs = test_general_pairs
        require(vars(self), **self.ranges)
        self.users: list[str] = []
        self._epochs: dict[str, int] = {}
        self._round: Round | None = None
        self._handed_out = 0
        self._cuts = [(0, users_per_batch)]  # of this round: batches, and the most users in those that follow

    @property
    def tokenizer_directory(self) -> Path:
        return self.preparation.output / TOKENIZER

    def prepare_data(self) -> None:
        prepare(self.preparation)

    def setup(self, stage: str) -> None:
        if self.users:
            return
        directory = self.preparation.output
        self.prompts = load_prompts(self.prompt, directory, self.profiles, self.control)
        self.splits = {name: UserSplit(directory, f"users/{name}") for name in ("validation", "test")}
        self.splits["train"] = UserSplit(directory, "users/train", self.history)
        self.users = self._chosen(sorted(self.splits["train"].num_turns))
        if self.history is not None:
            self.history.report(self.users, self.splits["train"].lengths)
        self.past = PastReplies(self.splits["train"], self.prompts, self.max_context_tokens, self.retrieved)
        self.prompts.report_missing(self.users, "users")
        if cut := self.splits["train"].report_of_cut_contexts(self.users, self.max_context_tokens):
            print(cut)
        self._epochs = dict.fromkeys(self.users, 0)

    def _chosen(self, known: list[str]) -> list[str]:
        wanted = self.wanted
        if isinstance(wanted, str):
            is_id = clean_id(wanted) in known or not isfile(wanted)
            wanted = [wanted] if is_id else self._named_in(Path(wanted), known)
        chosen = sorted(set(known if wanted is None else map(clean_id, wanted)))
        if not chosen:
            raise ValueError(f"no users: data.users is {self.wanted!r}, {self.preparation.output} has {len(known)}")
        if unknown := People(set(known)).missing(chosen):
            raise ValueError(
                f"unknown users [{some(unknown)}]: {self.preparation.output} has {len(known)} target users, "
                f"among them {known[:3]}; a file of users has one a line"
            )
        turns = self.splits["train"].num_turns
        if few := {user: turns[user] for user in chosen if turns[user] < self.min_train_turns}:
            raise ValueError(
                f"too few training turns: {few}, but at least {self.min_train_turns} are asked for; "
                "leave these users out, or lower data.min_train_turns"
            )
        return chosen

    def _named_in(self, path: Path, known: list[str]) -> list[str]:
        """The users in a file; an error quotes no line: it may be another file, with people's words."""
        lines = [clean_id(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if unknown := [number for number, line in enumerate(lines, start=1) if line and line not in known]:
            raise ValueError(
                f"data.users is the file {path}, in which {len(unknown)} of {len(lines)} lines are no target user of "
                f"{self.preparation.output}, the first is line {unknown[0]}; a file of users has one a line"
            )
        return [line for line in lines if line]

    def num_train_batches(self, user: str) -> int:
        return math.ceil(self.splits["train"].num_turns[user] / self.rows_per_user)

    @property
    def label_tokens_per_batch(self) -> float:
        """Mean over the present round."""
        return self._round.plan.label_tokens_per_batch

    def label_tokens_per_batch_of(self, user: str) -> float:
        return self.splits["train"].num_tokens[user] / self.num_train_batches(user)

    def training_replies(self, user: str) -> list[tuple[Turns, str]]:
        return self.splits["train"].turns_of(user, self.prompts, self.max_context_tokens).turns

    def similar_replies(self, user: str, context: Turns, k: int) -> list[tuple[Turns, str]]:
        return self.past.similar(user, context, k)

    def next_round(self, epochs: Mapping[str, int]) -> None:
        self._epochs = dict(epochs)
        self._round = None
        self._handed_out = 0
        self._cuts = [(0, self.users_per_batch)]

    def _plan(self, split: str, epochs: Mapping[str, int | None]) -> RoundPlan:
        return RoundPlan(
            split=self.splits[split],
            prompts=self.prompts,
            max_context_tokens=self.max_context_tokens,
            prefixes=self.past.prefixes if self.retrieved else None,
            users=self.users,
            epochs=epochs,
            rows_per_user=self.rows_per_user,
            users_per_batch=self.users_per_batch,
            seed=self.seed,
        )

    def train_dataloader(self) -> DataLoader:
        if self._round is not None:  # a loader that is made anew goes on where the last one stood
            self._epochs, self._handed_out = self._round.plan.epochs, self._round.handed_out
        (_, first), *cuts = self._cuts
        plan = replace(self._plan("train", self._epochs), users_per_batch=first, cuts=cuts)
        self._round = Round(plan, self._handed_out)
        return DataLoader(self._round, batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return self._whole(self._plan("validation", dict.fromkeys(self._epochs)))

    @property
    def test_kinds(self) -> list[str]:
        """`own` are the users' test turns; the others where they are asked for."""
        asked = {"own": True, "train": self.test_train_turns, "general": self.test_general_pairs}
        return [kind for kind, wanted in asked.items() if wanted]

    def test_dataloader(self) -> DataLoader | list[DataLoader]:
        loaders = [self._whole(self._plan("test", dict.fromkeys(self.users)))]
        if self.test_train_turns:
            plan = self._plan("train", dict.fromkeys(self.users))
            loaders.append(self._whole(replace(plan, most_turns=self.test_train_turns)))
        if self.test_general_pairs:
            pairs = ShardReader(self.preparation.output, GENERAL), self.prompts, self.max_context_tokens
            loaders.append(self._whole(GeneralPairs(*pairs, self.test_general_pairs, self.rows_per_user)))
        return loaders if len(loaders) > 1 else loaders[0]

    def _whole(self, plan: RoundPlan | GeneralPairs) -> DataLoader:
        return DataLoader(WholePass(plan.batches, plan.num_batches), batch_size=None)

    def predict_dataloader(self) -> DataLoader:
        return self._whole(replace(self._plan("test", dict.fromkeys(self.users)), rows_at_once=self.predict_rows))

    def state_dict(self) -> dict[str, Any]:
        """Where the round stands: who takes part, and how many of its batches are finished."""
        epochs, batches = self._epochs, self._handed_out
        if self._round is not None and self.trainer is not None:
            progress = self.trainer.fit_loop.epoch_loop.batch_progress.current
            epochs, batches = self._round.plan.epochs, self._round.handed_out - (progress.ready - progress.processed)
        return {"epochs": epochs, "batches": batches, "users": self.users, "cuts": self._cuts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["users"] != self.users:
            raise ValueError(
                f"the checkpoint was made with {len(state_dict['users'])} users, this run has {len(self.users)} or "
                "others; continue with the same users, or start anew in another run directory"
            )
        self._epochs, self._handed_out, self._round = dict(state_dict["epochs"]), state_dict["batches"], None
        self._cuts = [tuple(cut) for cut in state_dict.get("cuts", self._cuts)]
        if self._cuts[-1][1] != self.users_per_batch:
            self._cuts.append((self._handed_out, self.users_per_batch))
