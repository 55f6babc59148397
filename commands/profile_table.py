"""`lightning profile_table`: inferred profiles against what people declare, several systems side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evaluation.report.cells import align
from evaluation.report.files import write_file, write_markdown
from evaluation.report.profile_report import draw_coverage, profile_rows
from evaluation.results.profile_judgements import read_judgements, require_same_people
from evaluation.scores.profile_scores import ProfileScore, attributes_of, profile_scores
from evaluation.statistics.bootstrap import Bootstrap


@dataclass
class ProfileTable:
    """Compares systems that infer profiles, on the same people; writes table.md, table.csv and table.png.

    Args:
        systems: Name of a system and its judgements.parquet; changes are against the first.
        output: Directory for table.md, table.csv and table.png; made if missing, older tables are replaced.
        decision: How chunks were put together, of what the files hold.
        whole_chunk_only: Leave out users with fewer posts than one chunk.
        num_bins: Bins of the calibration error.
        num_resamples: Bootstrap resamples for the 95 % intervals.
        seed: Seed of the bootstrap.
        title: Headline of the table and of the picture.
    """

    systems: dict[str, Path]
    output: Path
    decision: Literal["vote", "product"] = "vote"
    whole_chunk_only: bool = False
    num_bins: int = 10
    num_resamples: int = 10_000
    seed: int = 0
    title: str = "Inferred profiles"

    def __post_init__(self) -> None:
        if not self.systems:
            raise ValueError("systems: expected at least one `name: path/to/judgements.parquet`, got none")
        if min(self.num_bins, self.num_resamples) < 1:
            raise ValueError(f"num_bins {self.num_bins} and num_resamples {self.num_resamples} must be at least 1")

    def run(self) -> None:
        """Reads, compares, prints the table and writes the three files."""
        systems = {
            name: read_judgements(path, self.decision, self.whole_chunk_only) for name, path in self.systems.items()
        }
        reference, *others = systems
        for name in others:
            require_same_people(reference, systems[reference], name, systems[name])
        scores = profile_scores(systems, self.num_bins, Bootstrap(self.num_resamples, self.seed))
        tables = [align(profile_rows(scores, reference)), self._caption()]
        write_markdown(self.output, self.title, tables, scores, ProfileScore)
        judged = {a: {n: j[a] for n, j in systems.items() if a in j} for a in attributes_of(systems)}
        write_file(self.output / "table.png", draw_coverage(judged, self.title))

    def _caption(self) -> str:
        return (
            f"- chunk: share of right values over a user's chunks, mean over users; user: by {self.decision} over the "
            f"chunks; ECE: expected calibration error in {self.num_bins} bins; at 25 %: accuracy of the quarter of the "
            "users it is surest of.\n"
            f"- [low, high]: 95 % percentile bootstrap over users, {self.num_resamples:,} resamples, seed {self.seed}; "
            "changes are paired. The ECE of a resample errs on the high side."
            + ("\n- Users with fewer posts than one chunk are left out." if self.whole_chunk_only else "")
        )
