"""Callbacks: one job a file."""

from .adapter_checkpoint import AdapterCheckpoint
from .backbone_export import BackboneExport
from .conversation_writer import ConversationWriter
from .network_export import NetworkExport
from .prediction_writer import PredictionWriter
from .profile_writer import ProfileWriter
from .resume_checkpoint import ResumeCheckpoint
from .run_card import RunCard
from .sample_replies import SampleReplies
from .tuned_export import TunedExport

__all__ = [
    "AdapterCheckpoint",
    "BackboneExport",
    "ConversationWriter",
    "NetworkExport",
    "PredictionWriter",
    "ProfileWriter",
    "ResumeCheckpoint",
    "RunCard",
    "SampleReplies",
    "TunedExport",
]
