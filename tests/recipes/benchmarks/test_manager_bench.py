"""The manager's own costs: everything that ran was received and counted."""

from __future__ import annotations

import pytest

from recipes.benchmarks.manager import CHUNK_TOKENS, OUT_TOKENS, SHAPES, measure


@pytest.mark.parametrize(("shape", "calls"), [("single", 1), ("chain10", 10), ("map30-reduce", 31)])
async def test_every_call_and_every_chunk_is_counted(shape: str, calls: int) -> None:
    assert len(SHAPES[shape](0)) == calls
    costs = await measure(shape, apps=3, at_once=2)
    assert costs.calls == 3 * calls
    assert costs.chunks == 3 * calls * OUT_TOKENS // CHUNK_TOKENS
    assert costs.events >= 3 * (2 * calls + 2)  # a call is submitted and finishes, a session opens and closes
    assert costs.cpu_s > 0
