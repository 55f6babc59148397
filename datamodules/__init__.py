"""Everything between published conversations and batches.

The data modules are loaded on demand, so that reading a corpus does not load torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conversation_posts import ConversationPosts
    from .openings import Openings
    from .profile_posts import ProfilePosts
    from .reply_pairs import ReplyPairs
    from .user_sets import UserSets

__all__ = ["ConversationPosts", "Openings", "ProfilePosts", "ReplyPairs", "UserSets"]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    modules = {
        "ConversationPosts": "conversation_posts",
        "Openings": "openings",
        "ProfilePosts": "profile_posts",
        "ReplyPairs": "reply_pairs",
        "UserSets": "user_sets",
    }
    if name not in modules:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{modules[name]}"), name)
