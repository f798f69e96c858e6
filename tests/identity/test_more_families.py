"""The other families of the table, and decoders let in by the probe: a little of everything, and pages running out."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from .bench import Bench
from .checkpoints import MORE_FAMILIES, build
from .measure import BY_GENERATE
from .oracle import Comparison, Oracle
from .scenarios import SCENARIOS


@pytest.mark.parametrize("family", MORE_FAMILIES)
async def test_tokens_equal_hugging_face(family: str, tmp_path: Path) -> None:
    folder = build(family, tmp_path / family)
    oracle, total = Oracle(folder), Comparison()
    for scenario in (BY_GENERATE, "preemption"):
        answers = await SCENARIOS[scenario](Bench(folder=folder, random=Random(f"{family}/{scenario}")))
        assert len({token for answer in answers for token in answer.output}) >= 20, "the checkpoint's text must vary"
        total.add(oracle.compare(answers, by_generate=scenario == BY_GENERATE))
    assert total.tokens > 300 and not total.differences, str(total)
    assert len(total.ties) <= 1, str(total)
