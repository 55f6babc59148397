"""`lightning conversation_table`: long conversations of user models, block by block. No text of a turn is in it."""

from dataclasses import dataclass
from pathlib import Path

from commands.experiments.before import run_before
from commands.experiments.experiment import moved
from commands.experiments.other_backbone import on_backbones, places_of, require_backbones
from evaluation.metrics.text_metrics import Unit
from evaluation.report.conversation_report import caption_of, draw, table_rows
from evaluation.report.files import write_tables
from evaluation.results.cards import read_card
from evaluation.results.conversations import read_parts
from evaluation.results.part_profiles import read_part_profiles
from evaluation.results.training_turns import check_corpus, training_turns
from evaluation.scores.conversation_scores import ConversationScore, conversation_scores
from evaluation.statistics.bootstrap import Bootstrap


@dataclass
class ConversationTable:
    """Says turn by turn how far user models stay the person they speak for; writes table.md, .tex, .csv and .png.

    Args:
        conversations: A conversations.jsonl.
        prepared: The prepared corpus, whose training turns teach the classifier.
        output: Directory for table.md, .tex, .csv and .png; made if missing, older tables are replaced.
        judged: profiles.parquet of the conversations (experiments/conversation_profiles.yaml); None leaves
            profiles out.
        profiles: profiles.parquet of the users' training posts, by the same network.
        before: Commands of `lightning` that are run first.
        backbone: Takes the place of the backbone that these commands name: the same table at another scale. Where
            they have several, each one that they name and what takes its place. It is there already, and not
            trained; what they make from it, and the files above, are in runs of their own.
        block_turns: Turns of a block, of both people together; as the conversations were judged with.
        unit: What bigrams count; "character" for Japanese.
        num_resamples: Bootstrap resamples for the 95 % intervals.
        seed: Of the bootstrap and the classifier.
        title: Headline of the table and of the picture.
        wandb_project: Also logs the figures to this project of Weights & Biases, offline unless WANDB_MODE says
            otherwise.
    """

    conversations: Path
    prepared: Path
    output: Path
    judged: Path | None = None
    profiles: Path | None = None
    before: list[str] | None = None
    backbone: Path | dict[str, Path] | None = None
    block_turns: int = 10
    unit: Unit = "word"
    num_resamples: int = 10_000
    seed: int = 0
    title: str = "Long conversations"
    wandb_project: str | None = None

    def __post_init__(self) -> None:
        if (self.judged is None) != (self.profiles is None):
            raise ValueError("agreement needs both `judged` and `profiles`: give both or neither")
        if min(self.block_turns, self.num_resamples) < 1:
            raise ValueError(
                f"block_turns {self.block_turns} and num_resamples {self.num_resamples} must be at least 1"
            )
        self.places = places_of(on_backbones(self.before or []), self.backbone) if self.backbone else {}

    def run(self) -> None:
        """Makes what is missing, reads, judges, prints the table and writes its files."""
        require_backbones(self.places.values())
        moved_runs = run_before(self.before or [], self.output / "logs", self.places)
        conversations = Path(moved(str(self.conversations), moved_runs))
        parts = read_parts(conversations, self.block_turns)
        card = read_card(conversations)
        check_corpus("conversations", card, self.prepared)
        profiles = None
        if self.judged is not None and self.profiles is not None:
            judged = Path(moved(str(self.judged), moved_runs))
            profiles = read_part_profiles(judged, self.profiles, conversations, self.block_turns, parts)
        training = training_turns(self.prepared)
        if unknown := sorted({part.speaker for part in parts} - training.keys()):
            raise ValueError(f"{conversations}: {unknown[0]!r} is no target user of {self.prepared}")
        bootstrap = Bootstrap(self.num_resamples, self.seed)
        settings = (self.block_turns, self.unit, bootstrap)
        scores = conversation_scores(parts, training, profiles, *settings)
        notes = caption_of(parts, card, profiles, *settings)
        picture = draw(scores, self.title)
        tables = [table_rows(scores)]
        write_tables(self.output, self.title, tables, notes, scores, ConversationScore, picture, self.wandb_project)
