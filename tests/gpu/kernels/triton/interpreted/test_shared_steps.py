"""The GPU suite's steps over a shared prefix: what it calls together is read together, what it calls apart is not."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from parrot_compat.gpu.cuda_graphs import DecodeGraphs
from parrot_compat.gpu.kernels.sharing import Sharing
from parrot_compat.gpu.kernels.strips import HeadShape
from parrot_compat.gpu.kernels.triton.table import TRITON
from parrot_compat.gpu.kernels.triton.tiles import tiling
from recipes.benchmarks.gpu_shared import over_a_prefix

from ....models.tiny import save_tiny
from .test_decoder import PAGE, TWO_KINDS, runner_of


def test_rows_draw_the_same_texts_together_by_fixed_steps_and_apart(tmp_path: Path, device: str) -> None:
    torch.use_deterministic_algorithms(False)
    runner = runner_of(save_tiny(TWO_KINDS, tmp_path), TRITON, device)
    shape = HeadShape(heads=4, kv_heads=2, dim=32, element_bytes=4)
    runner.sharing = Sharing(page_size=PAGE, shape=shape, costs=None, tiling=tiling(shape, 2))
    spare = runner.config.pages * PAGE
    runner._graphs = DecodeGraphs(runner._decoder, runner._storage, runner.config, torch.device(device), spare)  # type: ignore[arg-type]
    drawn = random.Random(7)
    front, *own = ([drawn.randrange(3, 256) for _ in range(length)] for length in (2 * PAGE, 1, 3))
    told = over_a_prefix(runner, front, [front + each for each in own], 4)

    assert runner.sharing.costs is None, "the engine's own choice is put back"
    assert max(told["together"].shared) == max(told["together, no graphs"].shared) == 1
    assert not any(told["apart"].shared)
    assert told["together"].texts == told["together, no graphs"].texts == told["apart"].texts
    assert all(len(text) == 4 for text in told["apart"].texts) and len(runner._graphs) > 0
