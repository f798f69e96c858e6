"""Greedy tokens equal Hugging Face `generate`, whatever the engine keeps, shares, cuts, preempts or drops meanwhile."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from transformers import AutoTokenizer

from .checkpoints import FAMILIES, VOCAB_SIZE
from .measure import Lab
from .oracle import Comparison
from .port import greedy, started
from .scenarios import SCENARIOS


@pytest.mark.parametrize("shape", FAMILIES)
def test_greedy_text_of_every_checkpoint_varies(lab: Lab, shape: str) -> None:
    """An engine that repeats itself would equal an oracle that repeats itself."""
    random, oracle = Random(shape), lab.oracle(shape)
    for _ in range(8):
        prompt = [random.randrange(VOCAB_SIZE) for _ in range(random.randint(1, 150))]
        assert len(set(oracle.output(prompt, 48))) >= 30


@pytest.mark.parametrize("shape", FAMILIES)
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_tokens_equal_hugging_face(lab: Lab, shape: str, scenario: str) -> None:
    comparison = (await lab.run(shape, scenario)).comparison
    assert comparison.tokens > 0 and not comparison.differences, str(comparison)


@pytest.mark.timeout(600)  # run by itself it runs every scenario
@pytest.mark.parametrize("shape", FAMILIES)
async def test_every_checkpoint_is_asked_at_least_two_hundred_prompts(lab: Lab, shape: str) -> None:
    assert len((await lab.total(shape)).prompts) >= 200


@pytest.mark.timeout(600)
async def test_at_most_one_token_in_ten_thousand_is_a_tie(lab: Lab) -> None:
    total = Comparison()
    for shape in FAMILIES:
        total.add(await lab.total(shape))
    assert len(total.ties) <= total.tokens / 10_000, str(total)


@pytest.mark.parametrize("shape", FAMILIES)
async def test_a_stop_token_ends_an_answer_where_hugging_face_would_have_drawn_it(lab: Lab, shape: str) -> None:
    bench, oracle = lab.bench(shape, "stop tokens"), lab.oracle(shape)
    async with started(bench.config()) as client:
        for prompt in bench.prompts(4):
            expected = oracle.output(prompt, 24)
            stop = expected[bench.random.randrange(24)]
            answer = await client.ask(prompt, 24, sampling=replace(greedy(24), stop_token_ids=(stop,)))
            assert answer.output == expected[: expected.index(stop) + 1]


@pytest.mark.parametrize("shape", FAMILIES)
async def test_text_is_the_decoded_tokens(lab: Lab, shape: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(lab.folder(shape))
    for answer in (await lab.run(shape, "sixteen_at_a_time")).answers:
        assert answer.text == tokenizer.decode(answer.output, skip_special_tokens=True)
