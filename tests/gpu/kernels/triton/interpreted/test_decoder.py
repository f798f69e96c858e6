"""Whole steps of a model through the Triton table: the tokens of the reference."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.gpu.batch import BatchRow, Draw
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.kernels import Kernels
from parrot_compat.gpu.kernels.table import REFERENCE
from parrot_compat.gpu.kernels.triton.table import TRITON
from parrot_compat.gpu.models.decoder import FastDecoder
from parrot_compat.gpu.runner import ModelRunner

from ....models.tiny import save_tiny

PAGE = 16
GREEDY = ResolvedSampling(max_tokens=8)


def texts(path: Path, kernels: Kernels, device: str) -> list[list[int]]:
    """Three greedy texts: one prefilled at once, one in two chunks beside the other's decode, one short."""
    runner = ModelRunner(EngineConfig(model=str(path), device=device, page_size=PAGE, kv_tokens=256, dtype="float32"))  # type: ignore[arg-type]
    assert isinstance(runner._decoder, FastDecoder)
    runner._decoder.kernels = kernels
    chooser = random.Random(5)
    tokens = [[chooser.randrange(3, 256) for _ in range(length)] for length in (19, 23, 2)]
    tables = [[3, 7], [1, 12], [9]]
    computed = [0, 0, 0]
    for step in range(4):
        rows = []
        for number, text in enumerate(tokens):
            end = 9 if number == 1 and step == 0 else len(text)
            draw = Draw(sampling=GREEDY, index=step) if end == len(text) else None
            rows.append(
                BatchRow(tokens=text[computed[number] : end], start=computed[number], pages=tables[number], draw=draw)
            )
            computed[number] = end
        for number, token in enumerate(runner.run(rows)):
            if isinstance(token, int):
                tokens[number].append(token)
    return tokens


@pytest.mark.parametrize("family", ["qwen3", "gemma2", "phi3"])
def test_a_model_writes_the_same_text_with_the_triton_kernels(family: str, tmp_path: Path, device: str) -> None:
    path = save_tiny(family, tmp_path / family)
    torch.use_deterministic_algorithms(False)  # the rest of the engine may use what it likes
    assert texts(path, TRITON, device) == texts(path, REFERENCE, device)
