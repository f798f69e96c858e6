"""What cannot be done is refused when it is asked, by itself: whoever is computed beside it goes on as without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parrot_compat.core.engine import Chunk
from parrot_compat.core.engine_front import Command
from parrot_compat.core.errors import BadPrompt
from parrot_compat.gpu.runner import ModelRunner
from parrot_compat.gpu.stepper import Stepper
from tests.gpu.paged_runner import generate, tokenizer
from tests.gpu.test_runner import make_runner

Checkpoint = Callable[[str], Path]
VOCABULARY = 256


def told(runner: ModelRunner, *asked: dict[str, Any]) -> list[tuple[int, ...] | BaseException]:
    """The tokens of each, or why it has none. All are in the first step."""
    stepper = Stepper(runner, tokenizer().text_stream)
    commands = [
        Command(number, generate(number, (5 + number, 9), 6, ignore_eos=True, **options))
        for number, options in enumerate(asked, 1)
    ]
    updates = list(stepper.step(commands).updates)
    while stepper.has_work:
        updates += stepper.step(()).updates
        stepper.check()
    answers: list[tuple[int, ...] | BaseException] = [()] * len(asked)
    for update in updates:
        before, answer = answers[update.command - 1], update.answer
        assert isinstance(before, tuple) and isinstance(answer, Chunk | BaseException)
        answers[update.command - 1] = before + answer.tokens if isinstance(answer, Chunk) else answer
    return answers


@pytest.mark.parametrize("wrong", [-1, -VOCABULARY, -200_000])
def test_a_stop_token_that_can_be_none_is_refused_alone_and_one_behind_the_vocabulary_means_nothing(
    wrong: int, tiny_checkpoint: Checkpoint
) -> None:
    runner = make_runner(tiny_checkpoint("llama"))
    plain = told(runner, *[{}] * 3)
    behind = {"stop_token_ids": (VOCABULARY, 10**6), "min_tokens": 1}
    first, second, refused = told(runner, {}, behind, {"stop_token_ids": (7, wrong), "min_tokens": 1})
    assert [first, second] == plain[:2]
    assert isinstance(refused, BadPrompt) and str(wrong) in str(refused) and refused.param == "stop_token_ids"
