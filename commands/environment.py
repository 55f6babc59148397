"""The process of a command: nothing is sent or fetched, and no package is imported before it is needed."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError

UNUSED_BY_METRICS = ("matplotlib", "scipy", "transformers")


def keep_offline() -> None:
    """Turns off telemetry and downloads, and keeps W&B runs on this machine; variables that are set win.

    Call it before PyTorch is imported. Runs of a W&B sweep agent are online.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # otherwise one per file of weights
    if "WANDB_SWEEP_ID" not in os.environ:
        os.environ.setdefault("WANDB_MODE", "offline")


def import_torchmetrics() -> None:
    """Imports torchmetrics in half the time: as if packages were missing that we use none of its metrics for.

    Lightning imports all of torchmetrics, which imports Transformers, SciPy and Matplotlib if they are installed. In
    a process that called this, torchmetrics has neither plots nor BERTScore.
    """
    from lightning_utilities.core import imports

    hidden = [name for name in UNUSED_BY_METRICS if name not in sys.modules]
    installed_version = imports._version

    def version(name: str) -> str:
        if name in hidden:
            raise PackageNotFoundError(name)
        return installed_version(name)

    import torch  # noqa: F401 - which is to see what is installed

    imports._version = version
    sys.modules.update(dict.fromkeys(hidden))  # None: there is no such module
    try:
        import torchmetrics  # noqa: F401
    finally:
        imports._version = installed_version
        for name in hidden:
            del sys.modules[name]
        imports.package_available.cache_clear()
        imports.module_available.cache_clear()
