"""LightningModules and the models they wrap.

The modules are loaded on demand, so that `lightning --help` does not wait for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_modules.chat.endpoint import ChatEndpoint
    from lightning_modules.chat.models import LocalChatModel
    from lightning_modules.markov_logic.inference import ProfileInference

    from .conversations import Conversations
    from .joint_tuning import JointTuning
    from .profile_network import ProfileNetwork
    from .prompted_llm import PromptedLLM
    from .retrieved_reply import RetrievedReply
    from .seq2seq import ProfileSeq2Seq
    from .user_lora import UserLora
    from .user_tuning import UserTuning

__all__ = [
    "ChatEndpoint",
    "Conversations",
    "JointTuning",
    "LocalChatModel",
    "ProfileInference",
    "ProfileNetwork",
    "ProfileSeq2Seq",
    "PromptedLLM",
    "RetrievedReply",
    "UserLora",
    "UserTuning",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    modules = {
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
    if name not in modules:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{modules[name]}"), name)
