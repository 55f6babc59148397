"""One user's adapter as files: PEFT's own directory, and a card that says whose it is and of which backbone.

    adapters/<user>/adapter_config.json, adapter_model.safetensors     loaded by `peft.PeftModel.from_pretrained`
    adapters/<user>/card.json                                          user, backbone, settings, validation loss

A directory is written under a temporary name and renamed, so that one that exists is complete.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from torch import Tensor

from artefacts.files import publish_directory

if TYPE_CHECKING:
    from peft import LoraConfig

    from datamodules.protocol import Replies

WEIGHTS = "adapter_model.safetensors"


def adapter_directory(adapters: Path, user: str) -> Path:
    """Where a user's adapter lives; any name is safe, and no two names meet."""
    return adapters / quote(user, safe="").replace(".", "%2E")


def save_adapter(
    adapters: Path, user: str, config: LoraConfig, weights: Mapping[str, Tensor], card: Mapping[str, Any]
) -> Path:
    """Writes one adapter; an earlier one of the same user is replaced."""
    from safetensors.torch import save_file

    directory = adapter_directory(adapters, user)
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    config.save_pretrained(str(partial))
    save_file(dict(weights), partial / WEIGHTS, metadata={"format": "pt"})
    (partial / "card.json").write_text(json.dumps({"user": user, **card}, indent=1, ensure_ascii=False) + "\n")
    publish_directory(partial, directory)
    return directory


def read_card(adapters: Path, user: str) -> dict[str, Any] | None:
    """The card of a user's finished adapter, or None where there is no adapter."""
    path = adapter_directory(adapters, user) / "card.json"
    return json.loads(path.read_text()) if path.is_file() else None


def users_to_train(
    users: Sequence[str], adapters: Path, backbone_fingerprint: str, settings: Mapping[str, Any]
) -> list[str]:
    """The users who have no weights of their own in `adapters` yet.

    Raises:
        ValueError: some were trained with other settings or on another backbone.
    """
    cards = {user: read_card(adapters, user) for user in users}
    for user, card in cards.items():
        if card is not None and (card["settings"] != settings or card["backbone"] != backbone_fingerprint):
            raise ValueError(
                f"{adapters} has weights of {user!r} that were trained with other settings or on another backbone; "
                "give another --run, or delete that directory to train them anew"
            )
    waiting = [user for user in users if cards[user] is None]
    if len(waiting) < len(users):
        print(f"{len(users) - len(waiting)} of {len(users)} users are trained already")
    return waiting


def retrieved_settings(data: Replies) -> dict[str, Any]:
    """What a card says of `data.retrieved`: nothing where no past replies are in the prompt."""
    return {} if data.retrieved is None else {"retrieved": asdict(data.retrieved)}


def require_same_retrieval(card: Mapping[str, Any], now: Mapping[str, Any], directory: Path) -> None:
    """Raises ValueError where weights were trained with other past replies in the prompt than there are now.

    Args:
        card: of the weights.
        now: the `retrieved_settings` of the data.
        directory: where the weights are.
    """
    then, now = card.get("settings", {}).get("retrieved"), now.get("retrieved")
    if then != now:
        raise ValueError(
            f"the weights in {directory} were trained with data.retrieved {then}, now it is {now}; give the same one, "
            "or train others in another run"
        )


def load_adapter(
    adapters: Path, user: str, backbone_fingerprint: str, retrieved: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """The weights of a user's adapter, as PEFT names them.

    Args:
        adapters: the directory of all adapters.
        user: whose.
        backbone_fingerprint: of the backbone that they are for.
        retrieved: the `retrieved_settings` of the data that they are for; None for no past replies in the prompt.

    Raises:
        FileNotFoundError: this user has no adapter here.
        ValueError: the adapter was trained on another backbone, or with other past replies in the prompt.
    """
    from safetensors.torch import load_file

    card = read_card(adapters, user)
    if card is None:
        raise FileNotFoundError(
            f"no adapter of user {user!r} in {adapters}; train it with: lightning fit --config "
            f"{_experiment(adapters)}, or name the directory that has it with --model.adapters"
        )
    if card["backbone"] != backbone_fingerprint:
        raise ValueError(
            f"the adapter in {adapter_directory(adapters, user)} belongs to backbone {card['backbone']}, "
            f"but model.init_from is backbone {backbone_fingerprint}; use the one it was trained on"
        )
    require_same_retrieval(card, retrieved or {}, adapter_directory(adapters, user))
    return load_file(adapter_directory(adapters, user) / WEIGHTS)


def _experiment(adapters: Path) -> str:
    """`runs/NAME/adapters` is what `experiments/NAME.yaml` makes."""
    path = Path("experiments") / f"{adapters.parent.name}.yaml"
    return str(path) if path.is_file() else "<the same experiment>"
