"""Published and own data sets as records: one reader a file, no torch."""

from datamodules.corpora.posts.authors import AuthorRules
from datamodules.corpora.posts.profile_sources import DeclaredProfiles
from datamodules.corpora.posts.reader import POSTS, Cleaning, Fields, Posts

from .chitchat import ChitChat
from .jpersona_chat import JPersonaChat
from .jsonl import Jsonl
from .persona_chat import PersonaChat
from .real_persona_chat import RealPersonaChat
from .records import Corpus, Dialogue, Drops, Post, Profile, Turn
from .twitter_archive import TwitterArchive
