"""Bias and penalties against Hugging Face's logits processors, row by row; log probabilities against log_softmax."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import RepetitionPenaltyLogitsProcessor, SequenceBiasLogitsProcessor

from parrot_compat.core.call import ResolvedSampling, TokenLogprobs
from parrot_compat.core.errors import BadPrompt
from parrot_compat.gpu.drawing import penalised
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.drawing.history import History
from parrot_compat.gpu.drawing.outcome import Outcome
from parrot_compat.gpu.drawing.penalised import penalise_at_once, penalise_by_row
from parrot_compat.gpu.drawing.penalties import adjusted, check_sampling
from parrot_compat.gpu.drawing.token_bits import all_but
from tests.gpu.counted_text import Text
from tests.gpu.drawing.computed import Computed
from tests.gpu.drawing.drawn import drawn_tokens, told_of

VOCABULARY = 30
tokens = st.integers(0, VOCABULARY - 1)
asked = st.fixed_dictionaries(
    {
        "repetition_penalty": st.sampled_from([1.0, 1.3, 0.7, 100.0]),
        "presence_penalty": st.sampled_from([0.0, 0.5, -2.0]),
        "frequency_penalty": st.sampled_from([0.0, 0.25, -1.5]),
        "logit_bias": st.dictionaries(tokens, st.floats(-100, 100, width=32), max_size=4).map(
            lambda biases: tuple(sorted(biases.items()))
        ),
    }
)
row = st.tuples(st.lists(tokens, max_size=12), st.lists(tokens, max_size=12), asked)
Row = tuple[list[int], list[int], dict[str, Any]]


def logits_of(rows: int, seed: int) -> Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 5


def draw_of(prompt: list[int], output: list[int], **sampling: Any) -> Draw:
    resolved = ResolvedSampling(max_tokens=100, **sampling)
    history = History(prompt + output, len(prompt)) if resolved.has_penalties else None
    return Draw(sampling=resolved, index=len(output), history=history)


def by_hugging_face(scores: Tensor, prompt: list[int], output: list[int], sampling: dict[str, Any]) -> Tensor:
    """Its processors for bias and repetition; then OpenAI's formula for the other two, token by token."""
    scores, ids = scores[None].clone(), torch.tensor([prompt + output], dtype=torch.long)
    if sampling["logit_bias"]:
        scores = SequenceBiasLogitsProcessor({(token,): bias for token, bias in sampling["logit_bias"]})(ids, scores)
    scores = RepetitionPenaltyLogitsProcessor(sampling["repetition_penalty"])(ids, scores)
    for token in set(output):
        scores[0, token] -= sampling["frequency_penalty"] * output.count(token)
        scores[0, token] -= sampling["presence_penalty"]
    return scores[0]


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(row, min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_adjusted_logits_equal_hugging_face_row_by_row_whatever_the_neighbours(rows: list[Row], seed: int) -> None:
    logits = logits_of(len(rows), seed)
    given_logits = logits.clone()

    ours = adjusted(logits, [draw_of(prompt, output, **sampling) for prompt, output, sampling in rows])

    assert torch.equal(logits, given_logits)
    for number, (prompt, output, sampling) in enumerate(rows):
        assert torch.equal(ours[number], by_hugging_face(logits[number], prompt, output, sampling)), sampling


def test_where_no_row_asks_nothing_is_computed() -> None:
    logits = logits_of(2, 0)
    draws = [draw_of([1, 2], [3]), draw_of([4], [5, 5])]

    assert adjusted(logits, draws) is logits
    tokens = torch.tensor([1, 2])
    with Computed() as computed:
        assert Outcome(tokens, logits, draws).read() == [1, 2]
    assert not computed.operations


@settings(max_examples=50, deadline=None)
@given(prompt=st.lists(tokens, max_size=20), output=st.lists(tokens, max_size=20), steps=st.sets(st.integers(0, 19)))
def test_a_history_read_as_it_grows_is_that_of_the_whole_text(
    prompt: list[int], output: list[int], steps: set[int]
) -> None:
    text = list(prompt)
    history = History(text, len(prompt))
    for step, token in enumerate(output):
        text.append(token)
        if step in steps:
            history.seen()
            history.check()
    ids, counts = history.seen()

    assert sorted(ids.tolist()) == sorted(set(prompt) | set(output))
    assert {token: output.count(token) for token in set(prompt) | set(output)} == dict(
        zip(ids.tolist(), counts.tolist(), strict=True)
    )


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(row, min_size=1, max_size=4),
    steps=st.lists(st.tuples(tokens, st.booleans()), max_size=8),
    seed=st.integers(0, 1000),
)
def test_rows_at_once_and_one_by_one_are_penalised_alike_however_their_texts_have_grown(
    rows: list[Row], steps: list[tuple[int, bool]], seed: int
) -> None:
    texts = [prompt + output for prompt, output, _ in rows]
    draws = [
        replace(draw_of([], [], **sampling), history=History(text, len(prompt)))
        for text, (prompt, _, sampling) in zip(texts, rows, strict=True)
    ]
    for token, asks_device in [*steps, (0, True)]:
        for number, text in enumerate(texts):
            text.append((token + 7 * number) % VOCABULARY)
        logits = logits_of(len(rows), seed)
        by_row, at_once = logits.clone(), logits.clone()
        penalise_by_row(by_row.numpy(), draws)
        for number, (prompt, _, sampling) in enumerate(rows):
            text = texts[number]
            expected = by_hugging_face(
                logits[number], text[: len(prompt)], text[len(prompt) :], sampling | {"logit_bias": ()}
            )
            assert torch.equal(by_row[number], expected)
        if asks_device:  # else it has more to learn in the next step
            penalise_at_once(at_once, draws)
            assert torch.equal(at_once, by_row)


def test_scores_without_end_are_penalised_alike_and_without_a_warning() -> None:
    logits = torch.tensor([[math.inf, -math.inf, math.nan, 3e38, -3e38, 1e-45, -0.0]])
    draws = [draw_of([0, 1, 2], [3, 4, 5, 6, 6], repetition_penalty=100.0, frequency_penalty=2.0, presence_penalty=1.0)]
    by_row, at_once = logits.clone(), logits.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        penalise_by_row(by_row.numpy(), draws)
    penalise_at_once(at_once, draws)

    assert torch.equal(by_row.nan_to_num(7.0), at_once.nan_to_num(7.0))


def penalised_rows(prompt: int) -> tuple[list[Text], list[Draw]]:
    texts = [Text(range(prompt)) for _ in range(16)]
    sampling = ResolvedSampling(max_tokens=999, repetition_penalty=1.05, frequency_penalty=0.5)
    return texts, [Draw(sampling=sampling, index=0, history=History(text, prompt)) for text in texts]


@pytest.mark.parametrize("prompt", [20, 5000])
def test_a_step_costs_the_host_what_texts_have_gained_and_not_how_long_they_are(
    prompt: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = 0

    def counted(compute: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*given: Any, **named: Any) -> Any:
            nonlocal copied
            made = compute(*given, **named)
            copied += made.numel() if isinstance(made, Tensor) else made.size
            return made

        return counting

    for name in ("array", "asarray", "concatenate", "copy", "repeat", "stack", "empty", "zeros"):
        monkeypatch.setattr(np, name, counted(getattr(np, name)))
    monkeypatch.setattr(penalised, "moved", counted(penalised.moved))
    for penalise in (lambda scores, draws: penalise_by_row(scores.numpy(), draws), penalise_at_once):
        texts, draws = penalised_rows(prompt)
        for step in range(8):
            copied = Text.read = 0
            penalise(torch.randn(16, 6000), draws)
            if step > 1:  # in the first it learns the prompts, in the second it makes room for what comes
                assert copied <= 16 * 16 and Text.read == 2 * 16
            for text in texts:
                text.append(3 if step % 2 else 5500 + step)


def test_penalising_at_once_asks_the_device_nothing() -> None:
    """`meta` stands for a device: there is no number on it that could be waited for."""
    texts, draws = penalised_rows(30)
    for _ in range(3):
        penalise_at_once(torch.empty(16, 6000, device="meta"), draws)
        for text in texts:
            text.append(77)
    with pytest.raises(RuntimeError):  # so a wait would have been noticed
        torch.empty(1, device="meta").item()


class Made(Computed):
    """`scores`: how many float32 tensors of [rows, vocabulary] come of it that are not written in place."""

    scores = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = super().__torch_dispatch__(func, types, args, kwargs)
        if isinstance(made, Tensor) and made.shape == (3, VOCABULARY) and made.dtype == torch.float32:
            given = {one.untyped_storage().data_ptr() for one in args if isinstance(one, Tensor)}
            self.scores += made.untyped_storage().data_ptr() not in given
        return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("formed", [1, 3])
def test_scores_are_copied_once_whatever_is_done_to_them(dtype: torch.dtype, formed: int) -> None:
    logits = logits_of(3, 0).to(dtype)
    given_logits = logits.clone()
    asked = dict(repetition_penalty=1.3, logit_bias=((4, 9.0),), min_tokens=9, stop_token_ids=(4,))
    draws = [
        replace(draw_of([1, 2], [3], **asked), allowed=(lambda: all_but([5], 4)) if row < formed else None)
        for row in range(3)
    ]
    with Made() as made:
        drawn = drawn_tokens(logits, draws, (6,))
    assert made.scores == 1 and torch.equal(logits, given_logits)
    for row, token in enumerate(drawn):
        assert drawn_tokens(logits[row : row + 1], [draws[row]], (6,)) == [token]


def test_a_bias_of_100_decides_and_one_of_minus_100_excludes() -> None:
    logits = logits_of(2, 3)
    best = int(logits[1].argmax())

    drawn = drawn_tokens(
        logits, [draw_of([1], [], logit_bias=((7, 100.0),)), draw_of([1], [], logit_bias=((best, -100.0),))], ()
    )

    assert drawn == [7, int(logits[1].topk(2).indices[1])]


def test_penalties_act_on_seeded_sampling_too() -> None:
    logits = torch.zeros(1, VOCABULARY)
    seen = [token for token in range(VOCABULARY) if token != 11]
    sampling = dict(temperature=0.01, frequency_penalty=2.0, seed=5)

    assert drawn_tokens(logits, [draw_of([], seen, **sampling)], ()) == [11]


@settings(max_examples=60, deadline=None)
@given(tops=st.lists(st.one_of(st.none(), st.integers(0, 20)), min_size=1, max_size=6), seed=st.integers(0, 1000))
def test_log_probabilities_are_those_of_the_raw_logits(tops: list[int | None], seed: int) -> None:
    logits = logits_of(len(tops), seed)
    draws = [
        draw_of([1], [2], logprobs=top, temperature=0.5, top_k=3, repetition_penalty=2.0, logit_bias=((4, 9.0),))
        for top in tops
    ]
    drawn = drawn_tokens(logits, draws, ())

    told = told_of(drawn, logits, draws)

    for number, (top, token) in enumerate(zip(tops, drawn, strict=True)):
        alone = told_of([token], logits[number : number + 1], draws[number : number + 1])
        assert told[number] == alone[0]
        expected = logits[number].log_softmax(-1)
        if top is None:
            assert told[number] == token
        else:
            item = told[number]
            assert isinstance(item, TokenLogprobs)
            assert (item.token, item.logprob) == (token, float(expected[token]))
            values, ids = expected.sort(descending=True)
            assert item.top == tuple(zip(ids.tolist()[:top], values.tolist()[:top], strict=True))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("repetition_penalty", 0.0),
        ("repetition_penalty", math.inf),
        ("presence_penalty", math.nan),
        ("frequency_penalty", -2.5),
        ("logit_bias", ((VOCABULARY, 1.0),)),
        ("logit_bias", ((1, math.inf),)),
        ("logprobs", 21),
        ("logprobs", -1),
    ],
)
def test_what_could_fail_a_whole_step_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(BadPrompt, match=field) as caught:
        check_sampling(ResolvedSampling(max_tokens=1, **{field: value}), VOCABULARY)
    assert caught.value.param == field
