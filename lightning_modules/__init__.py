"""LightningModules, the models they wrap, and the command line.

The modules are loaded on demand, so that `lightning --help` does not wait for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .chat_endpoint import ChatEndpoint
    from .chat_models import LocalChatModel
    from .markov_logic.profiles import ProfileNetwork
    from .prompted_llm import PromptedLLM
    from .seq2seq import ProfileSeq2Seq
    from .user_lora import UserLora
    from .user_tuning import UserTuning

__all__ = [
    "ChatEndpoint",
    "LocalChatModel",
    "ProfileNetwork",
    "ProfileSeq2Seq",
    "PromptedLLM",
    "UserLora",
    "UserTuning",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    modules = {
        "ChatEndpoint": "chat_endpoint",
        "LocalChatModel": "chat_models",
        "ProfileNetwork": "markov_logic.profiles",
        "ProfileSeq2Seq": "seq2seq",
        "PromptedLLM": "prompted_llm",
        "UserLora": "user_lora",
        "UserTuning": "user_tuning",
    }
    if name not in modules:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{modules[name]}"), name)
