"""`python -m tests.identity.report`: run every scenario on every checkpoint and print the counts as a table."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import torch
from transformers.utils import logging

from .checkpoints import FAMILIES
from .measure import Lab
from .oracle import Comparison


async def report(folder: Path) -> Comparison:
    lab, everything = Lab(folder), Comparison()
    print("| checkpoint | prompts | answers | exact | tokens compared | ties | differences |")
    print("|---|---|---|---|---|---|---|")
    for shape in FAMILIES:
        total = await lab.total(shape)
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
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(1 if asyncio.run(report(Path(scratch))).differences else 0)
