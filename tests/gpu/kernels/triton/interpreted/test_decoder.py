"""Whole steps of a model through the Triton table: the tokens of the reference."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.gpu.batch import Batch, BatchRow, Draw
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.kernels import Kernels
from parrot_compat.gpu.kernels.costs import DeviceCosts
from parrot_compat.gpu.kernels.sharing import Sharing
from parrot_compat.gpu.kernels.strips import HeadShape
from parrot_compat.gpu.kernels.table import REFERENCE
from parrot_compat.gpu.kernels.triton.table import TRITON
from parrot_compat.gpu.models.decoder import FastDecoder
from parrot_compat.gpu.runner import ModelRunner

from ....models.tiny import save_tiny

PAGE = 16
GREEDY = ResolvedSampling(max_tokens=8)


WORTH_IT = DeviceCosts(
    device="slow memory", dtype="float32", memory_bytes_per_s=1.0, cache_bytes_per_s=1e12, cache_bytes=0,
    products_per_s=1e12, launch_s=0.0, versions="", commit="", date="",
)  # fmt: skip


def runner_of(path: Path, kernels: Kernels, device: str) -> ModelRunner:
    runner = ModelRunner(EngineConfig(model=str(path), device=device, page_size=PAGE, kv_tokens=256, dtype="float32"))  # type: ignore[arg-type]
    assert isinstance(runner._decoder, FastDecoder)
    runner._decoder.kernels = kernels
    return runner


def texts(path: Path, kernels: Kernels, device: str) -> list[list[int]]:
    """Three greedy texts: one prefilled at once, one in two chunks beside the other's decode, one short."""
    runner = runner_of(path, kernels, device)
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


@pytest.mark.parametrize("family", ["qwen3", "gemma2"])
def test_rows_of_a_group_write_the_same_texts_when_they_read_their_prefix_together(
    family: str, tmp_path: Path, device: str
) -> None:
    runner = runner_of(save_tiny(family, tmp_path / family), TRITON, device)
    torch.use_deterministic_algorithms(False)
    chooser = random.Random(6)
    front = [chooser.randrange(3, 256) for _ in range(2 * PAGE)]
    runner.run([BatchRow(tokens=front, start=0, pages=[4, 2], draw=None)])
    texts = [[*front, *(chooser.randrange(3, 256) for _ in range(length))] for length in (1, 3, 2)]
    for number, text in enumerate(texts):
        runner.run([BatchRow(tokens=text[len(front) : -1], start=len(front), pages=[4, 2, 5 + number], draw=None)]
                   if len(text) > len(front) + 1 else [])  # fmt: skip
    draw = Draw(sampling=GREEDY, index=0)
    rows = [
        BatchRow(tokens=text[-1:], start=len(text) - 1, pages=[4, 2, 5 + number], draw=draw, group="stage")
        for number, text in enumerate(texts)
    ]
    apart = runner.run(rows)
    shape = HeadShape(heads=4, kv_heads=2, dim=32, element_bytes=4)
    runner._sharing = Sharing(page_size=PAGE, shape=shape, costs=WORTH_IT, strips=2)
    shared = Batch.build(rows, PAGE, device, runner._sharing).attention.shared
    assert [(node.rows, node.pages) for node in shared] == [((0, 1, 2), 2)]
    assert runner.run(rows) == apart
    assert not Batch.build([replace(row, group=None) for row in rows], PAGE, device, runner._sharing).attention.shared


@pytest.mark.parametrize("family", ["qwen3", "gemma2", "phi3"])
def test_a_model_writes_the_same_text_with_the_triton_kernels(family: str, tmp_path: Path, device: str) -> None:
    path = save_tiny(family, tmp_path / family)
    torch.use_deterministic_algorithms(False)  # the rest of the engine may use what it likes
    assert texts(path, TRITON, device) == texts(path, REFERENCE, device)
