"""From the pages that rows hold to what a kernel may read together."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from parrot_compat.core.engine import ContextId, Scope
from parrot_compat.gpu.batch import Batch, BatchRow, PackedRows
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.kernels import costs
from parrot_compat.gpu.kernels.costs import UNMEASURED_KEYS, DeviceCosts, Windows
from parrot_compat.gpu.kernels.forest import SharedPrefix
from parrot_compat.gpu.kernels.sharing import Sharing
from parrot_compat.gpu.kernels.strips import HeadShape, Tiling, plan_decode
from parrot_compat.gpu.kernels.triton.step import device_tiling
from parrot_compat.gpu.kernels.triton.tiles import tiling
from parrot_compat.gpu.runner import ModelRunner
from tests.gpu.models.tiny import WINDOW, save_tiny
from tests.gpu.paged_runner import PagedEngine, answer, prompt

PAGE = 16
TILING = Tiling(direct_queries=16, private_queries=4, shared_queries=16, split_keys=PAGE, shared_strips=8)
UNMEASURED = Sharing(
    page_size=PAGE, shape=HeadShape(heads=4, kv_heads=2, dim=16, element_bytes=2), costs=None, tiling=TILING
)


def decoding(rows: int, shared: int) -> list[BatchRow]:
    front = list(range(shared // PAGE))
    return [
        BatchRow(tokens=[1], start=shared, pages=[*front, len(front) + number], draw=None) for number in range(rows)
    ]


async def test_strangers_of_a_tenant_whose_prompts_begin_alike_may_read_them_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(costs, "UNMEASURED_KEYS", 1)
    engine = PagedEngine()
    await engine.start()
    size, front = engine.runner.config.page_size, prompt(20)
    sharing = replace(UNMEASURED, page_size=size, tiling=replace(TILING, split_keys=size))
    asked = {2: (*front, *prompt(6, salt=1)), 3: (*front, *prompt(9, salt=2)), 4: prompt(30, salt=3), 5: front}
    scopes = {number: Scope(flow=f"app {number}", namespace="other" * (number == 5)) for number in asked}
    try:
        await answer(engine, 1, front, max_tokens=1)
        async with asyncio.TaskGroup() as group:
            for number, text in asked.items():
                group.create_task(answer(engine, number, text, max_tokens=4, scope=scopes[number]))
        drawing = [rows for rows in engine.runner.steps if all(len(row.tokens) == 1 for row in rows)]
        together = [rows for rows in drawing if len(rows) == len(asked)]
        assert together
        for rows in together:
            (shared,) = PackedRows.of(rows, size, sharing).shared
            assert (shared.first_page, shared.end_page) == (0, len(front) // size)
            starts = sorted(rows[number].start for number in shared.rows)
            assert len(starts) == 2 and starts[1] - starts[0] == 3, "those that came with 6 and 9 tokens of their own"
    finally:
        for number in (1, *asked):
            await engine.free(ContextId(number))
        await engine.close()


def test_a_row_that_reads_a_prompt_is_nobodys_company() -> None:
    long = UNMEASURED_KEYS // 8
    reading = replace(decoding(1, long)[0], tokens=[1] * 64, pages=range(long // PAGE + 4))
    assert not Batch.build([*decoding(8, long), reading], PAGE, "cpu", UNMEASURED).attention.shared
    few = replace(reading, tokens=[1] * TILING.private_queries)
    assert len(Batch.build([*decoding(8, long), few], PAGE, "cpu", UNMEASURED).attention.shared[0].rows) == 9
    (shared,) = Batch.build([reading, *decoding(9, long)], PAGE, "cpu", UNMEASURED).attention.shared
    assert shared.rows == tuple(range(1, 10))


def test_turns_of_one_chat_take_about_as_many_partials_together_as_apart() -> None:
    """A comb: each row holds one more page of the same text."""
    comb = [
        BatchRow(tokens=[1], start=(at + 1) * PAGE, pages=[*range(at + 1), 1000 + at], draw=None) for at in range(256)
    ]
    measured = DeviceCosts(**json.loads(costs.STORED.read_text())[0])
    llama = HeadShape(heads=32, kv_heads=8, dim=128, element_bytes=2)
    sharing = replace(UNMEASURED, shape=llama, costs=measured, tiling=tiling(llama, 132))
    packed = PackedRows.of(comb, PAGE, sharing)
    cut = partial(plan_decode, packed.kv_lengths, packed.page_starts[:-1], PAGE, sharing.tiling)
    assert len(packed.shared) > 1
    assert cut(packed.shared).slots < 2 * cut().slots


def test_a_batch_shares_what_is_worth_it_and_leaves_the_rest() -> None:
    long = UNMEASURED_KEYS // 8
    assert Batch.build(decoding(9, long), PAGE, "cpu", UNMEASURED).attention.shared == (
        SharedPrefix(rows=tuple(range(9)), first_page=0, end_page=long // PAGE),
    )
    assert not Batch.build(decoding(8, long), PAGE, "cpu", UNMEASURED).attention.shared
    assert not Batch.build(decoding(9, long), PAGE).attention.shared


def test_a_batch_leaves_apart_what_the_windows_of_most_layers_do_not_reach() -> None:
    long = UNMEASURED_KEYS // 8
    rows = decoding(9, long)
    near = replace(UNMEASURED, windows={None: 1, long + 1: 3})
    far = replace(UNMEASURED, windows={None: 1, long: 3})
    assert Batch.build(rows, PAGE, "cpu", near).attention.shared
    assert not Batch.build(rows, PAGE, "cpu", far).attention.shared


@pytest.mark.parametrize(
    ("family", "windows"), [("llama", {None: 2}), ("mistral", {WINDOW: 2}), ("gemma2", {WINDOW: 1, None: 1})]
)
def test_a_model_says_how_far_its_layers_see(
    family: str, windows: Windows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_tiny(family, tmp_path / family)
    runner = ModelRunner(EngineConfig(model=str(path), device="cpu", page_size=PAGE, kv_tokens=256))
    device = SimpleNamespace(name="a device", multi_processor_count=4)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: device)
    sharing = runner._choose_sharing(torch.bfloat16)
    assert sharing.windows == windows
    assert sharing.tiling == device_tiling(sharing.shape, torch.device("cuda")), "what the kernels cut a step by"


def test_a_page_that_a_row_is_writing_is_never_shared() -> None:
    def shareable(start: int) -> tuple[SharedPrefix, ...]:
        last = start // PAGE
        pages = list(range(last + 1))
        rows = [BatchRow(tokens=[1], start=start, pages=pages, draw=None) for _ in range(2)]
        return Batch.build(rows, PAGE, "cpu", UNMEASURED).attention.shared

    most = UNMEASURED_KEYS
    assert not shareable(most - 1), "the last page is not full before this step"
    assert shareable(most) == (SharedPrefix(rows=(0, 1), first_page=0, end_page=most // PAGE),)
