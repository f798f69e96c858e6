"""The rule of comparing finds what differs, and forgives only what float64 cannot tell apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from .checkpoints import build
from .oracle import TIE, Answer, Oracle

PROMPT = (7, 300, 12, 99)


@pytest.fixture
def oracle(tmp_path: Path) -> Oracle:
    return Oracle(build("llama", tmp_path))


def test_equal_tokens_are_exact_and_all_counted(oracle: Oracle) -> None:
    answers = [Answer(prompt=PROMPT, output=oracle.output(PROMPT, n)) for n in (3, 12)]
    comparison = oracle.compare(answers)
    assert (comparison.answers, comparison.exact, comparison.tokens) == (2, 2, 15)
    assert not comparison.ties and not comparison.differences


def test_one_other_token_is_a_difference_where_it_first_occurs(oracle: Oracle) -> None:
    expected = oracle.output(PROMPT, 12)
    other = (expected[5] + 1) % 512
    comparison = oracle.compare([Answer(prompt=PROMPT, output=(*expected[:5], other, *expected[6:]))])
    (found,) = comparison.differences
    assert (found.index, found.expected, found.drawn) == (5, expected[5], other) and found.gap > TIE
    assert comparison.tokens == 6 and comparison.exact == 0


def test_an_answer_that_ends_early_is_a_difference(oracle: Oracle) -> None:
    comparison = oracle.compare([Answer(prompt=PROMPT, output=oracle.output(PROMPT, 4))], tokens=5)
    (found,) = comparison.differences
    assert found.index == 4 and found.drawn is None


def test_tokens_with_equal_logits_are_a_tie(oracle: Oracle) -> None:
    first = oracle.output(PROMPT, 1)[0]
    twin = (first + 1) % 512
    with torch.no_grad():
        head = oracle._judge.get_output_embeddings().weight
        head[twin] = head[first]
    comparison = oracle.compare([Answer(prompt=PROMPT, output=(twin,))])
    assert not comparison.differences and [tie.index for tie in comparison.ties] == [0]


def test_two_equal_logits_excuse_no_third_token(oracle: Oracle) -> None:
    first = oracle.output(PROMPT, 1)[0]
    with torch.no_grad():
        head = oracle._judge.get_output_embeddings().weight
        head[(first + 1) % 512] = head[first]
    comparison = oracle.compare([Answer(prompt=PROMPT, output=((first + 2) % 512,))])
    assert comparison.differences and not comparison.ties


def test_the_oracle_draws_what_a_plain_loop_over_the_whole_text_draws(oracle: Oracle) -> None:
    """Hugging Face with its cache against Hugging Face without one."""
    ids = list(PROMPT)
    for _ in range(10):
        with torch.no_grad():
            ids.append(int(oracle.model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    assert oracle.output(PROMPT, 10) == tuple(ids[len(PROMPT) :])
