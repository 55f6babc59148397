"""LoRA adapters of many users side by side on one frozen model: rows of a batch are grouped by user, and every user's
adapter is applied in two batched products per matrix.

All numbers of one user's adapter are one row of one matrix, so that taking it out, putting it back, clipping its
gradient and moving its moments are each a single operation on a row.

Shapes: u users in a batch, k slots, p numbers in one adapter, r rank, m rows and positions of one user.

    W x + s B A x    with A (r, d_in), B (d_out, r), s = alpha / r, or alpha / sqrt(r) with rsLoRA
    (Hu et al. 2022; 2 d r numbers for a square matrix, as in Otsuka et al. 2024)
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from peft import LoraConfig

PEFT_PREFIX = "base_model.model."


class GroupedLoraLinear(nn.Module):
    """A frozen linear layer with one low-rank update for each user of the batch."""

    def __init__(self, base: nn.Linear, scaling: float) -> None:
        super().__init__()
        self.base = base
        self.scaling = scaling
        self.a: Tensor | None = None  # (u, r, d_in)
        self.b: Tensor | None = None  # (u, d_out, r)

    @property
    def weight(self) -> Tensor:
        """The frozen weight, which T5 looks at to choose a dtype."""
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:  # (u * rows, length, d_in)
        y = self.base(x)
        if self.a is None:
            return y
        num_users = len(self.a)
        low = torch.bmm(x.reshape(num_users, -1, x.shape[-1]), self.a.mT)  # (u, m, r)
        grouped = y.reshape(num_users, -1, y.shape[-1])  # (u, m, d_out)
        return torch.baddbmm(grouped, low, self.b.mT, alpha=self.scaling).view_as(y)


class StackedLora(nn.Module):
    """Adapters of up to `num_slots` users on one model, which is frozen, and its target layers replaced in place.

    Raises:
        ValueError: rank below 1, an option this module does not have, or an entry of `target_modules` that
            matches nothing (PEFT would ignore it silently).
    """

    def __init__(self, model: nn.Module, config: LoraConfig, num_slots: int) -> None:
        super().__init__()
        _refuse_unsupported(config)
        self.rank = config.r
        self.scaling = config.lora_alpha / (math.sqrt(config.r) if config.use_rslora else config.r)
        model.requires_grad_(False)
        self.layers: list[GroupedLoraLinear] = []
        self.shapes: dict[str, tuple[int, int]] = {}  # of PEFT's tensors by name, in the order of a row
        for name in target_names(model, config.target_modules):
            base = model.get_submodule(name)
            self.layers.append(GroupedLoraLinear(base, self.scaling))
            model.set_submodule(name, self.layers[-1])
            self.shapes[f"{PEFT_PREFIX}{name}.lora_A.weight"] = (self.rank, base.in_features)
            self.shapes[f"{PEFT_PREFIX}{name}.lora_B.weight"] = (base.out_features, self.rank)
        self.sizes = [math.prod(shape) for shape in self.shapes.values()]
        self.rows = nn.Parameter(torch.zeros(num_slots, sum(self.sizes)))  # (k, p)

    def initial_row(self, seed: int) -> Tensor:
        """A new adapter on the CPU: A as PEFT initialises it (Kaiming uniform), B zero, from this seed alone; (p,)."""
        random = torch.Generator().manual_seed(seed)
        pieces = []
        for layer in self.layers:
            # The same at any precision and on every device: Lightning builds models in the context of a device.
            a = torch.empty(self.rank, layer.base.in_features, dtype=torch.float32, device="cpu")
            nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=random)
            pieces += [a.flatten(), torch.zeros(layer.base.out_features * self.rank, device="cpu")]
        return torch.cat(pieces)

    def activate(self, rows: Tensor | None) -> None:
        """Applies these adapters, (u, p), to batches with the same users in the same order; None: the bare model."""
        if rows is None:
            for layer in self.layers:
                layer.a = layer.b = None
            return
        device = rows.device.type
        if torch.is_autocast_enabled(device):  # one cast instead of one for every matrix
            rows = rows.to(torch.get_autocast_dtype(device))
        pieces = zip(rows.split(self.sizes, dim=1), self.shapes.values(), strict=True)
        matrices = (piece.view(-1, *shape) for piece, shape in pieces)
        for layer in self.layers:
            layer.a, layer.b = next(matrices), next(matrices)

    def to_peft(self, row: Tensor) -> dict[str, Tensor]:
        """One adapter, (p,), as the state dict that PEFT keeps in `adapter_model.safetensors`."""
        pieces = zip(self.shapes.items(), row.detach().cpu().split(self.sizes), strict=True)
        return {name: piece.view(shape).clone() for (name, shape), piece in pieces}

    def from_peft(self, state: Mapping[str, Tensor]) -> Tensor:
        """The row, (p,), of an adapter in PEFT's format; ValueError if it was made for other matrices."""
        expected, found = self.shapes, {name: tuple(value.shape) for name, value in state.items()}
        if found != expected:
            name, *others = sorted(name for name in found | expected if found.get(name) != expected.get(name))
            raise ValueError(
                f"the adapter does not fit: {1 + len(others)} tensors differ, such as {name}: "
                f"found {found.get(name, 'nothing')}, expected {expected.get(name, 'nothing')}; "
                "set rank and target_modules to those it was trained with"
            )
        return torch.cat([state[name].flatten().float() for name in expected])


def target_names(model: nn.Module, target_modules: str | list[str] | set[str]) -> list[str]:
    """Names of the linear layers that PEFT's `target_modules` means, in the model's order.

    An entry matches a layer of that name or one whose name ends in `.entry`; a string is a regular expression
    for the whole name. Every entry must match.
    """
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if isinstance(target_modules, str):
        matches = {target_modules: [name for name in linears if re.fullmatch(target_modules, name)]}
    else:
        matches = {entry: [name for name in linears if f".{name}".endswith(f".{entry}")] for entry in target_modules}
    if empty := sorted(entry for entry, names in matches.items() if not names):
        kinds = sorted({name.rpartition(".")[2] for name in linears})
        hint = "; a text is a regular expression for whole names, names are a list: [q, v]"
        raise ValueError(
            f"target_modules {empty} match nothing in this model; its linear layers are called {kinds}"
            f"{hint if isinstance(target_modules, str) else ''}"
        )
    chosen = {name for names in matches.values() for name in names}
    if "lm_head" in chosen:
        raise ValueError("lm_head shares its weights with the embedding and cannot be adapted; drop it")
    return [name for name in linears if name in chosen]


def as_names(target_modules: str | list[str]) -> str | list[str]:
    """One name as a list of it: as a regular expression it would match no whole name of a layer."""
    return [target_modules] if isinstance(target_modules, str) and target_modules.isidentifier() else target_modules


def _refuse_unsupported(config: LoraConfig) -> None:
    if config.r < 1:
        raise ValueError(f"rank must be 1 or more, got {config.r}")
    unsupported = {
        "use_dora": config.use_dora,
        "lora_dropout": config.lora_dropout,
        "bias": config.bias != "none",
        "rank_pattern": config.rank_pattern,
        "alpha_pattern": config.alpha_pattern,
        "modules_to_save": config.modules_to_save,
        "init_lora_weights": config.init_lora_weights is not True,
    }
    if used := [name for name, value in unsupported.items() if value]:
        raise ValueError(f"{used} cannot be trained for many users at once; use UserTuning, one user after the other")
