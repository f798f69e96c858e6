"""Step reports on their way between processes: what arrives is what was sent, in few bytes."""

from __future__ import annotations

import pickle
from dataclasses import fields
from typing import Any

import pytest

from parrot_compat.core.call import Finish, TokenLogprobs, Usage
from parrot_compat.core.engine import Chunk, EngineLoad, Filled
from parrot_compat.core.engine_front import Answer, StepReport, Update
from parrot_compat.core.errors import ContextLost
from parrot_compat.core.tool_calls import CallPiece

LOGPROBS = (TokenLogprobs(7, -0.5, ((7, -0.5), (8, -1.0))),)
OTHER_THAN_BY_DEFAULT: dict[str, Any] = {
    "text": "été",
    "tokens": (1, 2),
    "finish": Finish.STOP,
    "usage": Usage(prompt_tokens=3, output_tokens=2, cached_tokens=1),
    "logprobs": LOGPROBS,
    "reasoning": "hm",
    "refusal": "no",
    "calls": (CallPiece(index=0, id="1", name="f", arguments="{}"),),
    "prompt_logprobs": LOGPROBS,
    "prompt": Usage(prompt_tokens=3, output_tokens=0, cached_tokens=1),
    "stop": "",
}


def arrived(report: StepReport) -> StepReport:
    received = pickle.loads(pickle.dumps(report))
    assert isinstance(received, StepReport)
    return received


@pytest.mark.parametrize("name", [field.name for field in fields(Chunk)])
def test_every_field_of_a_chunk_arrives(name: str) -> None:
    report = StepReport(updates=(Update(4, Chunk(**{name: OTHER_THAN_BY_DEFAULT[name]})),), taken=9, number=3)
    assert arrived(report) == report


@pytest.mark.parametrize("answer", [None, Filled(tokens=3, cached_tokens=1), Chunk()], ids=repr)
def test_every_kind_of_answer_arrives(answer: Answer) -> None:
    report = StepReport(updates=(Update(1, answer), Update(2, Chunk(text="a", tokens=(5,)))))
    assert arrived(report) == report


def test_an_error_arrives_with_its_words() -> None:
    [update] = arrived(StepReport(updates=(Update(1, ContextLost("context 3 is gone")),))).updates
    assert isinstance(update.answer, ContextLost) and str(update.answer) == "context 3 is gone"


@pytest.mark.parametrize("field", [field.name for field in fields(EngineLoad)])
def test_every_number_of_the_load_arrives(field: str) -> None:
    load = EngineLoad(**{field: 17})
    assert arrived(StepReport(load=load)).load == load


def test_a_step_of_many_rows_takes_few_bytes() -> None:
    updates = tuple(Update(row, Chunk(text=" word", tokens=(1000 + row,))) for row in range(64))
    assert len(pickle.dumps(StepReport(updates=updates))) < 64 * 24
