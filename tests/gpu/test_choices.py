"""Several answers to one prompt, as `n` > 1 asks for them: what is computed of the prompt, counted at the runner."""

from __future__ import annotations

import pytest

from tests.gpu.at_once import at_once
from tests.gpu.paged_runner import answer, drained, expected, prompt, started


@pytest.mark.parametrize("length", [64, 65, 66, 67, 70])
async def test_a_prompt_is_computed_once_for_all_its_answers(length: int) -> None:
    """Pages of 4, so these end with a whole page and inside of one. Each answer computes the last token for itself:
    there are no logits without."""
    engine = await started()
    choices = [dict(temperature=1.0, seed=seed) for seed in range(5)]
    answers = await at_once(
        engine,
        *(answer(engine, number + 1, prompt(length), 6, **choice) for number, choice in enumerate(choices)),
    )
    assert answers == [expected(prompt(length), 6, **choice) for choice in choices]
    assert len(set(answers)) == 5
    computed = [row for step in engine.runner.steps for row in step if row.start < length]
    places = [place for row in computed for place in range(row.start, row.start + len(row.tokens))]
    assert sorted(places) == [*range(length), *[length - 1] * 4]
    await drained(engine, *range(1, 6))
    await engine.close()
