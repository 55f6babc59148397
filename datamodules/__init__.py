"""Everything between published conversations and batches; data modules are imported when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conversation_posts import ConversationPosts as ConversationPosts
    from .openings import Openings as Openings
    from .profile_posts import ProfilePosts as ProfilePosts
    from .reply_pairs import ReplyPairs as ReplyPairs
    from .user_sets import UserSets as UserSets

_MODULES = {
    "ConversationPosts": "conversation_posts",
    "Openings": "openings",
    "ProfilePosts": "profile_posts",
    "ReplyPairs": "reply_pairs",
    "UserSets": "user_sets",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
