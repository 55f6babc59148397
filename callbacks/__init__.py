"""Callbacks: one job a file."""

from .adapter_checkpoint import AdapterCheckpoint
from .backbone_export import BackboneExport
from .prediction_writer import PredictionWriter
from .resume_checkpoint import ResumeCheckpoint
from .run_card import RunCard
from .sample_replies import SampleReplies
from .tuned_export import TunedExport

__all__ = [
    "AdapterCheckpoint",
    "BackboneExport",
    "PredictionWriter",
    "ResumeCheckpoint",
    "RunCard",
    "SampleReplies",
    "TunedExport",
]
