"""Whole steps of a model through the Triton table: the tokens of the reference."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.gpu.batch import Batch, BatchRow
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.cuda_graphs import DecodeGraphs
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.kernels import Kernels
from parrot_compat.gpu.kernels.costs import DeviceCosts
from parrot_compat.gpu.kernels.sharing import Sharing
from parrot_compat.gpu.kernels.strips import HeadShape
from parrot_compat.gpu.kernels.table import REFERENCE
from parrot_compat.gpu.kernels.triton.step import TritonStep
from parrot_compat.gpu.kernels.triton.table import TRITON
from parrot_compat.gpu.kernels.triton.tiles import tiling
from parrot_compat.gpu.models.decoder import FastDecoder
from parrot_compat.gpu.runner import ModelRunner

from ....models.tiny import save_tiny

PAGE = 16
GREEDY = ResolvedSampling(max_tokens=8)
DETERMINISTIC = partial(TritonStep, deterministic=True)
TWO_KINDS = "gemma2"
"""A layer with a window and one without, both capped: where steps differ in their attention alone, it meets most."""


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


def test_rows_write_the_same_texts_when_they_read_their_prefix_together(tmp_path: Path, device: str) -> None:
    runner = runner_of(save_tiny(TWO_KINDS, tmp_path), TRITON, device)
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
        BatchRow(tokens=text[-1:], start=len(text) - 1, pages=[4, 2, 5 + number], draw=draw)
        for number, text in enumerate(texts)
    ]
    apart = runner.run(rows)
    shape = HeadShape(heads=4, kv_heads=2, dim=32, element_bytes=4)
    runner.sharing = Sharing(
        page_size=PAGE, shape=shape, costs=WORTH_IT, tiling=replace(tiling(shape, 2), split_keys=PAGE)
    )
    shared = Batch.build(rows, PAGE, device, runner.sharing).attention.shared
    assert [(node.rows, node.pages) for node in shared] == [((0, 1, 2), 2)]
    assert runner.run(rows) == apart


@pytest.mark.parametrize("family", ["qwen3", "gemma2", "phi3"])
def test_a_model_writes_the_same_text_with_the_triton_kernels(family: str, tmp_path: Path, device: str) -> None:
    path = save_tiny(family, tmp_path / family)
    torch.use_deterministic_algorithms(False)  # the rest of the engine may use what it likes
    assert texts(path, TRITON, device) == texts(path, REFERENCE, device)


@pytest.mark.parametrize("family", ["qwen3", "gemma2"])
def test_steps_in_buffers_of_a_fixed_capacity_write_the_same_text(family: str, tmp_path: Path, device: str) -> None:
    """Without a device they are not captured, but they are what a CUDA graph would hold: padding, tables with room."""
    torch.use_deterministic_algorithms(False)
    path = save_tiny(family, tmp_path / family)
    plain, fixed = runner_of(path, TRITON, device), runner_of(path, TRITON, device)
    spare = fixed.config.pages * PAGE
    fixed._graphs = DecodeGraphs(fixed._decoder, fixed._storage, fixed.config, torch.device(device), spare)  # type: ignore[arg-type]
    chooser = random.Random(8)
    texts = [[chooser.randrange(3, 256) for _ in range(length)] for length in (15, 2, 30)]
    tables = [[3, 7], [1, 12], [9, 4, 2]]
    draw = Draw(sampling=GREEDY, index=0)
    for runner in (plain, fixed):
        for text, pages in zip(texts, tables, strict=True):
            runner.run([BatchRow(tokens=text[:-1], start=0, pages=pages, draw=None)])
    for step in range(3):
        chosen = range(3) if step else range(2)  # another number of rows, and then as many in the same buffers
        rows = [
            BatchRow(tokens=texts[number][-1:], start=len(texts[number]) - 1, pages=tables[number], draw=draw)
            for number in chosen
        ]
        drawn = plain.run(rows)
        assert fixed.run(rows) == drawn
        for number, token in zip(chosen, drawn, strict=True):
            assert isinstance(token, int)
            texts[number].append(token)
    assert len(fixed._graphs) == 2


def test_a_deterministic_model_gives_a_row_the_same_logits_in_any_chunk_and_any_company(
    tmp_path: Path, device: str
) -> None:
    torch.use_deterministic_algorithms(False)
    runner = runner_of(save_tiny("qwen3", tmp_path / "qwen3"), replace(TRITON, prepare=DETERMINISTIC), device)
    decoder = runner._decoder
    assert isinstance(decoder, FastDecoder)
    chooser = random.Random(9)
    text, other = ([chooser.randrange(3, 256) for _ in range(20)] for _ in range(2))
    draw = Draw(sampling=GREEDY, index=0)

    def logits(*rows: BatchRow) -> torch.Tensor:
        with torch.inference_mode():
            found = decoder.logits(Batch.build(rows, PAGE, device), runner._storage)
        assert found is not None
        return found

    whole = logits(BatchRow(tokens=text, start=0, pages=[0, 1], draw=draw))
    logits(BatchRow(tokens=text[:-1], start=0, pages=[2, 3], draw=draw))
    decoded = logits(
        BatchRow(tokens=other, start=0, pages=[4, 5], draw=draw),
        BatchRow(tokens=text[-1:], start=19, pages=[2, 3], draw=draw),
    )
    assert torch.equal(decoded[1], whole[0])
