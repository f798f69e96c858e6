"""The mean of several runs' weights, as a checkpoint of its own.

    python -m recipes.train_builtin.average build/one build/two --weights 0.6 0.4 --out build/mean

Runs of which each went on from the one before end in different places of one valley, each where its last few hundred
steps left it; their mean is nearer to its middle (Izmailov et al., "Averaging Weights Leads to Wider Optima and Better
Generalization", 2018, §3.2). What is averaged has one shape; a run may go on from the mean (`train --start`).
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

__all__ = ["mean_of"]


def mean_of(checkpoints: Sequence[dict[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """By name, in the dtype of the first. Errors: `ValueError` where they do not have the same tensors."""
    if any({name: item.shape for name, item in one.items()} != _shapes(checkpoints[0]) for one in checkpoints):
        raise ValueError("the checkpoints do not have the same tensors")
    shares = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    return {
        name: torch.tensordot(shares, torch.stack([one[name].double() for one in checkpoints]), 1).to(first.dtype)
        for name, first in checkpoints[0].items()
    }


def _shapes(checkpoint: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: item.shape for name, item in checkpoint.items()}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="each with a model.safetensors")
    parser.add_argument("--weights", nargs="+", type=float, default=None, help="how much each counts (all the same)")
    parser.add_argument("--out", type=Path, required=True, help="the folder that is written")
    options = parser.parse_args(argv)
    weights = options.weights or [1.0] * len(options.folders)
    if len(weights) != len(options.folders) or min(weights) <= 0:
        parser.error("--weights: one number over 0 for each folder")
    found = mean_of([load_file(folder / "model.safetensors") for folder in options.folders], weights)
    options.out.mkdir(parents=True, exist_ok=True)
    save_file(found, options.out / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(options.folders[0] / name, options.out / name)
    print(f"{options.out}: the mean of {len(weights)} checkpoints")


if __name__ == "__main__":
    main()
