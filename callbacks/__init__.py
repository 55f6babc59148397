"""Callbacks: one job per file; each is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapter_checkpoint import AdapterCheckpoint as AdapterCheckpoint
    from .backbone_export import BackboneExport as BackboneExport
    from .conversation_writer import ConversationWriter as ConversationWriter
    from .network_export import NetworkExport as NetworkExport
    from .prediction_writer import PredictionWriter as PredictionWriter
    from .profile_writer import ProfileWriter as ProfileWriter
    from .resume_checkpoint import ResumeCheckpoint as ResumeCheckpoint
    from .run_card import RunCard as RunCard
    from .sample_replies import SampleReplies as SampleReplies
    from .tuned_export import TunedExport as TunedExport

_MODULES = {
    "AdapterCheckpoint": "adapter_checkpoint",
    "BackboneExport": "backbone_export",
    "ConversationWriter": "conversation_writer",
    "NetworkExport": "network_export",
    "PredictionWriter": "prediction_writer",
    "ProfileWriter": "profile_writer",
    "ResumeCheckpoint": "resume_checkpoint",
    "RunCard": "run_card",
    "SampleReplies": "sample_replies",
    "TunedExport": "tuned_export",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
