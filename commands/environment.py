"""The process of a command: nothing is sent or fetched, and `--help` comes soon."""

import os
from unittest.mock import patch

UMASK = "LIGHTNING_UMASK"
HIDDEN_FROM_METRICS = ("matplotlib", "scipy", "transformers")


def keep_offline() -> None:
    """Turns off telemetry and downloads, and keeps W&B runs on this machine; variables that are set win.

    Call it before PyTorch is imported. Runs of a W&B sweep agent are online. What a command prints, replies of people
    among it, is never uploaded.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # otherwise one per file of weights
    os.environ.setdefault("WANDB_CONSOLE", "off")
    if "WANDB_SWEEP_ID" not in os.environ:
        os.environ.setdefault("WANDB_MODE", "offline")


def keep_private() -> None:
    """Makes files that are written from now on readable by their owner only; LIGHTNING_UMASK=022 loosens it."""
    mask = os.environ.get(UMASK, "077")
    try:
        os.umask(int(mask, 8))
    except (ValueError, OverflowError):
        raise ValueError(f"{UMASK} is {mask!r}; expected an octal number such as 077 or 022") from None


def import_torchmetrics_for_help() -> None:
    """Imports torchmetrics, as Lightning does, without the packages that cost half of the time."""
    from lightning_utilities.core import imports

    is_met, available = imports.RequirementCache.__bool__, imports.package_available

    def needed_and_met(cache: imports.RequirementCache) -> bool:
        return not (cache.requirement or "").startswith(HIDDEN_FROM_METRICS) and is_met(cache)

    def needed_and_available(package: str) -> bool:
        return package not in HIDDEN_FROM_METRICS and available(package)

    with (
        patch.object(imports.RequirementCache, "__bool__", needed_and_met),
        patch.object(imports, "package_available", needed_and_available),
    ):
        import torchmetrics  # noqa: F401
