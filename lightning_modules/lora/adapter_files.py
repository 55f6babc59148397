"""One user's adapter as files: PEFT's own directory, and a card that names its user and backbone.

adapters/<user>/adapter_config.json, adapter_model.safetensors     loaded by `peft.PeftModel.from_pretrained`
adapters/<user>/card.json                                          user, backbone, settings, validation loss
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from artefacts.described import described, require_described
from artefacts.files import read_object, replacing_directory, write_json
from artefacts.layout import ADAPTER_WEIGHTS, CARD, configs_of, user_directory
from lightning_modules.backbones.files import load_tensors

if TYPE_CHECKING:
    from peft import LoraConfig

    from datamodules.protocol import Replies


@dataclass(frozen=True)
class TrainedAdapter:
    """An adapter that is ready to be written."""

    user: str
    weights: Mapping[str, Tensor]
    card: Mapping[str, Any]


def save_adapter(adapters: Path, config: LoraConfig, adapter: TrainedAdapter) -> Path:
    """Writes one adapter and returns its directory; an earlier adapter of the same user is replaced."""
    from safetensors.torch import save_file

    directory = user_directory(adapters, adapter.user)
    with replacing_directory(directory) as partial:
        config.save_pretrained(str(partial))
        save_file(dict(adapter.weights), partial / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        write_card(partial, adapter.user, adapter.card)
    return directory


def write_card(directory: Path, user: str, card: Mapping[str, Any]) -> None:
    """Writes the card of a user's weights, last of all files: it has their SHA-256."""
    files = described(*(path for path in directory.iterdir() if path.is_file()))
    write_json(directory / CARD, {"user": user, **card, **files}, ensure_ascii=False)


def read_card(adapters: Path, user: str) -> dict[str, Any] | None:
    """The card of a user's finished adapter; None if there is no adapter."""
    path = user_directory(adapters, user) / CARD
    return read_object(path, "user", "backbone", mend=_mend(path.parent)) if path.is_file() else None


def users_to_train(
    users: Sequence[str], adapters: Path, backbone_fingerprint: str, settings: Mapping[str, Any]
) -> list[str]:
    """The users who have no weights in `adapters` yet.

    Raises:
        ValueError: some were trained with other settings or on another backbone.
    """
    cards = {user: read_card(adapters, user) for user in users}
    for user, card in cards.items():
        if card is not None and (card["settings"] != settings or card["backbone"] != backbone_fingerprint):
            raise ValueError(
                f"{adapters} has weights of {user!r} that were trained with other settings or on another backbone; "
                "give another --run, or delete that directory to retrain them"
            )
    waiting = [user for user in users if cards[user] is None]
    if len(waiting) < len(users):
        print(f"{len(users) - len(waiting)} of {len(users)} users are trained already")
    return waiting


def retrieved_settings(data: Replies) -> dict[str, Any]:
    """What a card says of `data.retrieved`: nothing where no past replies are in the prompt."""
    return {} if data.retrieved is None else {"retrieved": asdict(data.retrieved)}


def trained_weights(parent: Path, user: str, backbone_fingerprint: str, retrieved: Mapping[str, Any]) -> Path:
    """The directory of a user's finished weights, for a backbone and the `retrieved_settings` of some data.

    Raises:
        FileNotFoundError: there are none.
        ValueError: they are damaged or another user's, or were trained on another backbone, or with other past
            replies in the prompt.
    """
    directory, card = user_directory(parent, user), read_card(parent, user)
    if card is None:
        configs = configs_of(parent.parent) or "--config <the same experiment>"
        raise FileNotFoundError(
            f"no weights of user {user!r} in {parent}; train them with: lightning fit {configs}, or name the directory "
            "that has them with --model.adapters (UserLora) or --model.tuned (UserTuning)"
        )
    if card["user"] != user:
        raise ValueError(f"{directory} has weights of {card['user']!r}, expected those of {user!r}; {_mend(directory)}")
    require_described(directory / CARD, _mend(directory))
    if card["backbone"] != backbone_fingerprint:
        raise ValueError(
            f"the weights in {directory} belong to backbone {card['backbone']}, but model.init_from is backbone "
            f"{backbone_fingerprint}; use the one they were trained on"
        )
    then, now = card.get("settings", {}).get("retrieved"), retrieved.get("retrieved")
    if then != now:
        raise ValueError(
            f"the weights in {directory} were trained with data.retrieved {then}, now it is {now}; give the same one, "
            "or train others in another run"
        )
    return directory


def load_adapter(parent: Path, user: str, backbone_fingerprint: str, retrieved: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of a user's adapter, as PEFT names them; arguments and errors as of `trained_weights`."""
    directory = trained_weights(parent, user, backbone_fingerprint, retrieved)
    return load_tensors(directory / ADAPTER_WEIGHTS, _mend(directory))


def _mend(directory: Path) -> str:
    return f"delete {directory} and train this user again"
