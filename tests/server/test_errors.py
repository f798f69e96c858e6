"""The one table from errors to answers."""

from __future__ import annotations

import pytest

from parrot_compat.core import errors
from parrot_compat.server.errors import ApiError, field_path, problem_of

STATUS = {
    "BadPrompt": 400,
    "BadSchema": 400,
    "BadTemplate": 400,
    "CallerError": 400,
    "CycleInGraph": 400,
    "PromptTooLong": 400,
    "TransformFailed": 400,
    "NoEngineForModel": 404,
    "UnknownPlan": 404,
    "UnknownSession": 404,
    "UnknownVariable": 404,
    "AlreadySettled": 409,
    "LimitError": 429,
    "SessionFull": 429,
    "TooManyCalls": 429,
    "Cancelled": 499,
    "ParrotError": 500,
    "ContextLost": 502,
    "EngineError": 502,
    "EngineLost": 502,
    "ModelAway": 503,
    "ModelRefused": 503,
    "QueueFull": 503,
}


@pytest.mark.parametrize("name", sorted(set(errors.__all__) - {"UpstreamFailed"}))
def test_every_error_of_core_has_its_status_and_an_envelope(name: str) -> None:
    problem = problem_of(getattr(errors, name)("what went wrong"))
    assert problem.status == STATUS[name]
    assert set(problem.envelope()["error"]) == {"message", "type", "param", "code"}
    assert "what went wrong" in problem.message


def test_a_failed_input_names_the_variable_and_the_cause() -> None:
    problem = problem_of(errors.UpstreamFailed("summary", errors.EngineLost("engine 'a' died")))
    assert problem.status == 424
    assert "summary" in problem.message and "engine 'a' died" in problem.message


def test_a_new_kind_of_error_has_its_parents_answer() -> None:
    class Stubborn(errors.TooManyCalls):
        pass

    assert problem_of(Stubborn("no")).status == 429


def test_limits_say_when_to_come_back() -> None:
    problem = problem_of(errors.TooManyCalls("too many", retry_after_s=2.4))
    assert problem.headers["retry-after"] == "2"
    assert problem.headers["retry-after-ms"] == "2400"
    assert problem_of(errors.QueueFull("full", retry_after_s=0.01)).headers["retry-after"] == "1"


def test_a_lost_engine_is_not_to_be_retried_by_the_client() -> None:
    assert problem_of(errors.EngineLost("gone")).headers["x-should-retry"] == "false"
    assert problem_of(errors.AlreadySettled("set")).headers["x-should-retry"] == "false"
    assert "x-should-retry" not in problem_of(errors.QueueFull("full")).headers


def test_a_prompt_too_long_says_so_once_in_the_words_that_langchain_looks_for() -> None:
    assert problem_of(errors.PromptTooLong("9 tokens exceed 8")).message == "prompt is too long: 9 tokens exceed 8"
    assert problem_of(errors.PromptTooLong("prompt is too long: 9")).message == "prompt is too long: 9"


def test_an_accident_tells_the_client_nothing_of_the_inside() -> None:
    problem = problem_of(RuntimeError("secret path /root/key"))
    assert problem.status == 500
    assert "secret" not in problem.message


def test_the_field_that_is_wrong_is_named_as_openai_names_it() -> None:
    assert field_path(("messages", 0, "content", 1, "type")) == "messages[0].content[1].type"
    assert problem_of(errors.BadPrompt("bad", param="messages")).param == "messages"
    assert problem_of(ApiError("bad", param="n")).param == "n"
