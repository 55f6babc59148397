"""Callbacks: one job per file; each is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

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
