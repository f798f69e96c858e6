"""The rule of comparing finds what differs, and forgives only what float64 cannot tell apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from tests.gpu.models.tiny import save_tiny

from .checkpoints import CONTEXT_TOKENS, FAMILIES, MORE_FAMILIES, VOCAB_SIZE, build
from .oracle import MARGIN, TIE, Answer, Oracle

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


@pytest.mark.parametrize("family", FAMILIES + MORE_FAMILIES)
def test_the_oracle_draws_what_a_plain_loop_over_the_whole_text_draws(family: str, tmp_path: Path) -> None:
    """Hugging Face with its cache against Hugging Face without one."""
    oracle, ids = Oracle(build(family, tmp_path)), list(PROMPT)
    for _ in range(10):
        with torch.no_grad():
            ids.append(int(oracle.model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    assert oracle.output(PROMPT, 10) == tuple(ids[len(PROMPT) :])


@pytest.mark.parametrize("family", FAMILIES + MORE_FAMILIES)
def test_one_pass_gives_the_logits_that_generate_draws_from_up_to_half_the_margin(family: str, tmp_path: Path) -> None:
    """One text is longer than every window: where a cache leaves out what a mask hides, they agree all the same."""
    oracle = Oracle(build(family, tmp_path))
    for length in (3, 90):
        ids = torch.tensor([[(7 * at + at * at // 5 + 3) % VOCAB_SIZE for at in range(length)]])
        asked = GenerationConfig(
            max_new_tokens=40, do_sample=False, pad_token_id=0, output_logits=True, return_dict_in_generate=True
        )
        drawn: Any = oracle.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=asked)
        with torch.inference_mode():
            logits = oracle.model(drawn.sequences[:, :-1], logits_to_keep=40, use_cache=False).logits[0]
        assert float((logits - torch.cat(drawn.logits)).abs().max()) < MARGIN / 2


# ---- when `generate` is asked --------------------------------------------------------------------------


@pytest.fixture
def times_asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """How often an oracle that remembers nothing runs `generate` to compare an answer."""

    def asked(oracle: Oracle, answer: Answer, **how: Any) -> int:
        oracle.forget()
        right, calls = oracle.model.generate, []
        with monkeypatch.context() as patch:
            patch.setattr(oracle.model, "generate", lambda *given, **rest: calls.append(1) or right(*given, **rest))
            oracle.compare([answer], **how)
        return len(calls)

    return asked


def test_a_plainly_right_answer_is_seen_without_generate_and_no_other_is(
    oracle: Oracle, times_asked: Callable[..., int]
) -> None:
    expected = oracle.output(PROMPT, 13)
    right = Answer(prompt=PROMPT, output=expected[:12])
    assert times_asked(oracle, right) == times_asked(oracle, right, tokens=12) == 0
    assert times_asked(oracle, right, by_generate=True) == 1
    assert times_asked(oracle, right, tokens=13) == times_asked(oracle, right, tokens=11) == 1, "other lengths"
    for place in (0, 5, 11):
        wrong = (*expected[:place], (expected[place] + 1) % VOCAB_SIZE, *expected[place + 1 : 12])
        assert times_asked(oracle, Answer(prompt=PROMPT, output=wrong)) == 1


def test_a_token_that_is_hardly_the_largest_is_left_to_generate(
    oracle: Oracle, times_asked: Callable[..., int]
) -> None:
    expected = oracle.output(PROMPT, 6)
    twin = next(token for token in range(VOCAB_SIZE) if token not in expected)
    with torch.no_grad():
        head = oracle.model.get_output_embeddings().weight
        head[twin] = head[expected[3]] * (1 - 1e-6)
    assert times_asked(oracle, Answer(prompt=PROMPT, output=expected[:3])) == 0
    assert times_asked(oracle, Answer(prompt=PROMPT, output=expected)) == 1


def test_logits_that_are_no_numbers_are_left_to_generate(oracle: Oracle, times_asked: Callable[..., int]) -> None:
    with torch.no_grad():
        oracle.model.get_output_embeddings().weight.fill_(torch.nan)
    assert times_asked(oracle, Answer(prompt=PROMPT, output=(0, 0))) == 1


PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [2.0] * 8,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"rope_parameters": DYNAMIC}),
        ("phi3", {"rope_parameters": LONGROPE, "original_max_position_embeddings": 64}),
        ("gemma3_text", {"rope_parameters": {"full_attention": DYNAMIC, "sliding_attention": PLAIN}}),
        ("mixtral", {}),
    ],
)
def test_ropes_that_grow_and_experts_are_left_to_generate(
    family: str, changes: dict[str, Any], tmp_path: Path, times_asked: Callable[..., int]
) -> None:
    sizes = {"vocab_size": VOCAB_SIZE, "max_position_embeddings": CONTEXT_TOKENS}
    oracle = Oracle(save_tiny(family, tmp_path, **sizes, **changes))
    assert times_asked(oracle, Answer(prompt=PROMPT, output=oracle.output(PROMPT, 4))) == 1
