"""All layers in one call are the layers one by one, bit for bit, whatever the step and however many threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.gpu.batch import Batch, BatchRow
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.kernels.cpu.product import FEW
from parrot_compat.gpu.kv.storage import KvStorage
from parrot_compat.gpu.models.decoder import FastDecoder
from parrot_compat.gpu.models.families import FAMILIES

CPU = torch.device("cpu")
GREEDY = Draw(sampling=ResolvedSampling(max_tokens=1), index=0)
PAGE, PAGES = 4, 16
"""Tokens of a page, pages of a row."""
STEPS = [
    [(0, 5), (0, 17), (0, 30)],  # rows of (tokens before, tokens)
    [(5, 1), (17, 9), (30, 1)],
    [(6, 1), (26, 1), (31, 1)],
    [(7, 1)],
    [(8, 1), (27, 1), *[(0, 1)] * (FEW - 2)],
    [(9, 1), (28, 7), (0, 40), (0, 1), (0, 60)],  # more than a few
    [(0, 50), (0, 15)],
    [(50, 14), *[(15, 1)] * FEW],
]
WITHOUT_DRAW = {9, 40, 50}
"""Rows of so many tokens do not draw."""

Checkpoint = Callable[[str], Path]


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def loaded(path: Path, dtype: torch.dtype) -> FastDecoder:
    decoder = FastDecoder.load(path, dtype, CPU)
    assert decoder is not None
    if decoder.kernels.name != "c++":
        pytest.skip("there is no C++ compiler, or it is not wanted")
    return decoder


def run(decoder: FastDecoder, dtype: torch.dtype) -> list[Tensor]:
    """The logits and last states of all steps, and then the caches."""
    plan = decoder.plan
    storage = KvStorage(len(decoder.layers), (FEW + 1) * PAGES, PAGE, plan.kv_heads, plan.dim, dtype, CPU)
    seen: list[Tensor] = []
    for step in STEPS:
        rows = [
            BatchRow(
                tokens=[(31 * number + 7 * place + place * place) % 256 for place in range(start, start + count)],
                start=start,
                pages=range(number * PAGES, (number + 1) * PAGES),
                draw=None if count in WITHOUT_DRAW else GREEDY,
                prompt_tokens=start + count,
            )
            for number, (start, count) in enumerate(step)
        ]
        with torch.inference_mode():
            batch = Batch.build(rows, PAGE)
            logits = decoder.logits(batch, storage)
            states = decoder.states(batch, storage)
            assert logits is not None and torch.isfinite(logits).all()
            assert torch.equal(logits, decoder.head(states[batch.last_tokens])), "as if all tokens were wanted"
            seen += [logits, states]
    return [*seen, *storage.keys, *storage.values]


def check_equal(decoder: FastDecoder, dtype: torch.dtype) -> None:
    assert decoder._all_layers is not None
    at_once = run(decoder, dtype)
    decoder.__dict__["_all_layers"] = None
    assert all(map(torch.equal, at_once, run(decoder, dtype)))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_layers_at_once_are_the_same_bits(family: str, threads: int, tiny_checkpoint: Checkpoint) -> None:
    check_equal(loaded(tiny_checkpoint(family), torch.float32), torch.float32)


def test_layers_at_once_are_the_same_bits_in_bfloat16(threads: int, tiny_checkpoint: Checkpoint) -> None:
    decoder = loaded(tiny_checkpoint("qwen3"), torch.bfloat16)
    if decoder._all_layers is None:
        pytest.skip("this CPU has no products of bfloat16")
    check_equal(decoder, torch.bfloat16)


def test_without_products_of_our_own_there_is_no_such_call(tiny_checkpoint: Checkpoint) -> None:
    assert loaded(tiny_checkpoint("llama"), torch.float16)._all_layers is None
