"""Several answers to one prompt, as `n` > 1 asks for them: what is computed of the prompt, counted at the runner."""

from __future__ import annotations

import asyncio

import pytest

from tests.gpu.paged_runner import answer, drained, expected, prompt, started


@pytest.mark.parametrize("length", [64, 66, 70])
async def test_the_pages_of_a_prompt_are_computed_once_for_all_its_answers(length: int) -> None:
    """Pages of 4: what is computed again for each further answer is the page that its first drawn token goes into."""
    engine = await started()
    choices = [dict(temperature=1.0, seed=seed) for seed in range(5)]
    answers = await asyncio.gather(
        *(answer(engine, number + 1, prompt(length), 6, **choice) for number, choice in enumerate(choices))
    )
    assert answers == [expected(prompt(length), 6, **choice) for choice in choices]
    assert len(set(answers)) == 5
    computed = [row for step in engine.runner.steps for row in step if row.start < length]
    in_tail = (length - 1) % 4 + 1
    assert sum(len(row.tokens) for row in computed) <= length + 4 * in_tail
    full = [token for row in computed for token in range(row.start, row.start + len(row.tokens)) if token < length - 4]
    assert sorted(full) == list(range(length - 4)), "a token of a full page was computed twice, or never"
    await drained(engine, *range(1, 6))
    await engine.close()
