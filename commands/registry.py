"""The commands of `lightning`, with a line of help each; nothing is imported before a command is chosen."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import NamedTuple

USAGE = "usage: lightning [--help] [--version] <command> --config experiments/<name>.yaml [--<key>=<value> ...]"
TRAINER = "commands.training.trainer_cli.TrainerCLI"


class Command(NamedTuple):
    """The class that a command runs, and what it does in one line."""

    path: str
    help: str


COMMANDS = {
    "prepare": Command("commands.prepare.PrepareAndPreview", "corpus to token shards, and a preview of them"),
    "fit": Command(TRAINER, "train, or resume a fit that was stopped"),
    "validate": Command(TRAINER, "validation figures of a run"),
    "test": Command(TRAINER, "test figures of a run"),
    "predict": Command(TRAINER, "replies, conversations or profiles"),
    "table": Command("commands.table.Table", "predictions of several systems to a table; runs what is missing"),
    "profile_table": Command("commands.profile_table.ProfileTable", "judgements of profiles to a table"),
    "conversation_table": Command(
        "commands.conversation_table.ConversationTable", "long conversations to a table; runs what is missing"
    ),
    "human-eval export": Command("commands.human_eval.HumanEvalExport", "predictions to a page for annotators"),
    "human-eval score": Command("commands.human_eval.HumanEvalScore", "the answers of annotators to a table"),
    "sweep": Command("commands.sweep.Sweep", "every point of a W&B sweep file, on this machine"),
    "forget": Command("commands.forget.Forget", "remove one person from prepared data and runs"),
}


def command_in(arguments: Sequence[str]) -> str:
    """The command that the first words name, one or two; ValueError if there is no such command."""
    for name in COMMANDS:
        if name.split() == list(arguments[: len(name.split())]):
            return name
    first, second = [*arguments, "nothing"][:2]
    if following := [name.split()[1] for name in COMMANDS if name.startswith(f"{first} ")]:
        raise ValueError(f"`lightning {first}` is followed by {' or '.join(following)}, got {second}")
    names = dict.fromkeys(name.split()[0] for name in COMMANDS)
    near = get_close_matches(first, names, 1)
    question = f"did you mean {near[0]}? " if near else ""
    raise ValueError(f"no such command: {first}; {question}Commands: {', '.join(names)}")


def help_of(prefix: str = "") -> str:
    """The help of all commands, or of those that begin with a word."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{one.help}" for name, one in COMMANDS.items() if name.startswith(prefix)]
    tips = "Flags of a command: lightning <command> --help. Flags override the file."
    return "\n".join([USAGE, "", "User-specific dialogue models.", "", "commands:", *lines, "", tips])
