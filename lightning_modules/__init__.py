"""LightningModules and the models they wrap; each is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = {
    "ChatEndpoint": "chat.endpoint",
    "Conversations": "conversations",
    "JointTuning": "joint_tuning",
    "LocalChatModel": "chat.models",
    "ProfileInference": "markov_logic.inference",
    "ProfileNetwork": "profile_network",
    "ProfileSeq2Seq": "seq2seq",
    "PromptedLLM": "prompted_llm",
    "RetrievedReply": "retrieved_reply",
    "UserLora": "user_lora",
    "UserTuning": "user_tuning",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
