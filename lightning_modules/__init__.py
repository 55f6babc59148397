"""LightningModules and the models they wrap; each is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .chat.endpoint import ChatEndpoint as ChatEndpoint
    from .chat.models import LocalChatModel as LocalChatModel
    from .conversations import Conversations as Conversations
    from .joint_tuning import JointTuning as JointTuning
    from .markov_logic.inference import ProfileInference as ProfileInference
    from .profile_network import ProfileNetwork as ProfileNetwork
    from .prompted_llm import PromptedLLM as PromptedLLM
    from .retrieved_reply import RetrievedReply as RetrievedReply
    from .seq2seq import ProfileSeq2Seq as ProfileSeq2Seq
    from .user_lora import UserLora as UserLora
    from .user_tuning import UserTuning as UserTuning

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
