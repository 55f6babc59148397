"""Writes the learned Markov logic network when learning is done."""

from __future__ import annotations

from pathlib import Path

from lightning import Callback, Trainer

from artefacts.layout import NETWORK
from lightning_modules.markov_logic.network_files import save_network
from lightning_modules.profile_network import ProfileNetwork


class NetworkExport(Callback):
    """At the end of a fit, writes `<run>/network/` with formulas, weights, vocabulary and folds."""

    def on_fit_end(self, trainer: Trainer, pl_module: ProfileNetwork) -> None:
        if trainer.interrupted or trainer.fast_dev_run:
            return
        directory = Path(trainer.default_root_dir) / NETWORK
        save_network(pl_module.network, pl_module.formulas, trainer.datamodule.vocabulary(), directory)
        print(f"the network is in {directory}; weights.tsv is for people to read")
