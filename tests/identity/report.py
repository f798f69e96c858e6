"""`python -m tests.identity.report [--seeds N] [--device cuda]`: every checkpoint beside Hugging Face, and the counts.

Without seeds every scenario runs once, as in the suite; with seeds, N random engines with random apps per checkpoint.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

import torch
from transformers.utils import logging

from .checkpoints import FAMILIES
from .measure import Lab
from .oracle import Comparison


async def report(folder: Path, seeds: int, device: str) -> Comparison:
    lab, everything = Lab(folder, device), Comparison()
    print("| checkpoint | prompts | answers | exact | tokens compared | ties | differences |")
    print("|---|---|---|---|---|---|---|")
    for shape in FAMILIES:
        total = await lab.soups(shape, range(seeds)) if seeds else await lab.total(shape)
        print(_row(shape, total), flush=True)
        everything.add(total)
    print(_row("all", everything))
    for found in everything.ties + everything.differences:
        print(found)
    return everything


def _row(name: str, counts: Comparison) -> str:
    cells = (name, len(counts.prompts), counts.answers, counts.exact, counts.tokens, len(counts.ties))
    return "| " + " | ".join(map(str, (*cells, len(counts.differences)))) + " |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="of the engines (cuda)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(1 if asyncio.run(report(Path(scratch), options.seeds, options.device)).differences else 0)
