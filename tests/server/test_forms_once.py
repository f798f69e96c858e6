"""Forms of answers: written out once, however many answers have them, and refused by name where they are too large."""

from __future__ import annotations

from typing import Any

import pytest

from parrot_compat.core.output_format import MAX_CHARACTERS, JsonSchema
from parrot_compat.server.openai.completions_schema import CompletionRequest
from parrot_compat.server.parrot.calls_schema import CallsRequest

from .live import Live, send

CHAT, TEXT, SESSIONS = "/v1/chat/completions", "/v1/completions", "/v1/parrot/sessions"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
LARGE = {"type": "object", "description": "x" * MAX_CHARACTERS}
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The schemas of which a form was made."""
    schemas: list[Any] = []
    of = JsonSchema.of

    def noted(schema: Any, strict: bool = True) -> JsonSchema:
        schemas.append(schema)
        return of(schema, strict)

    monkeypatch.setattr(JsonSchema, "of", noted)
    return schemas


def test_the_answers_of_a_completion_share_what_is_large() -> None:
    asked = {"prompt": ["a", "b"], "n": 3, "seed": 5, "prompt_logprobs": 1, "logit_bias": {"7": 1.0, "3": 2.0}}
    body = CompletionRequest.model_validate(asked | {"structured_outputs": {"json": SCHEMA}})
    first, *others = body.samplings()
    assert [first.seed, *(one.seed for one in others)] == [5, 6, 7]
    assert first.logit_bias == ((3, 2.0), (7, 1.0)) and isinstance(first.format, JsonSchema)
    assert all(one.format is first.format and one.logit_bias is first.logit_bias for one in others)
    assert [first.prompt_logprobs, *(one.prompt_logprobs for one in others)] == [1, None, None]
    streamed = CompletionRequest.model_validate(
        {"prompt": "a", "n": 2, "seed": -1, "stream": True, "echo": True, "logprobs": 2}
    )
    assert [(one.seed, one.prompt_logprobs) for one in streamed.samplings()] == [(None, 2)] * 2


def test_outputs_share_the_form_of_all_and_have_their_own_where_they_say_so(made: list[Any]) -> None:
    own: dict[str, Any] = {"structured_outputs": {"regex": "a+"}}
    many: dict[str, Any] = {f"o{n}": {"max_tokens": n} for n in range(1, 50)}
    body = CallsRequest.model_validate(
        {
            "template": "{{output:y}}",
            "structured_outputs": {"json": SCHEMA},
            "temperature": 0.5,
            "outputs": {**many, "own": own, "none": {"structured_outputs": {}}},
        }
    )
    drawn = body.sampling_of()
    assert len(made) == 1 and len({id(drawn[name].format) for name in many}) == 1
    assert drawn["o3"].format == JsonSchema.of(SCHEMA) and drawn["o3"].max_tokens == 3
    assert drawn["own"].format == CallsRequest.model_validate({"template": "", **own}).output_format()
    assert drawn["none"].format is None and drawn["none"].temperature == 0.5


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (TEXT, {"prompt": ["x"] * 100, "n": 20, "structured_outputs": {"json": SCHEMA}}),
        (CHAT, {**HELLO, "n": 128, "response_format": {"type": "json_object", "schema": SCHEMA}}),
        (CHAT, {**HELLO, "n": 128, "structured_outputs": {"json": SCHEMA}}),
    ],
)
async def test_a_form_is_written_out_once_for_all_answers(
    server: Live, made: list[Any], path: str, body: dict[str, Any]
) -> None:
    reply = await send(server, "POST", path, body)
    assert reply.status == 400 and "cannot hold an answer" in reply.error["message"], "no engine here holds to a form"
    assert made == [SCHEMA]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (TEXT, {"prompt": "x", "structured_outputs": {"json": LARGE}}, "structured_outputs"),
        (CHAT, {**HELLO, "structured_outputs": {"json": LARGE}}, "structured_outputs"),
        (CHAT, {**HELLO, "response_format": {"type": "json_object", "schema": LARGE}}, "response_format"),
    ],
)
async def test_a_form_too_large_to_be_read_names_its_field(
    server: Live, path: str, body: dict[str, Any], param: str
) -> None:
    reply = await send(server, "POST", path, body)
    assert (reply.status, reply.error["param"], reply.error["code"]) == (400, param, "invalid_schema")
    assert f"at most {MAX_CHARACTERS}" in reply.error["message"]


async def test_a_form_too_large_in_a_planned_call_names_the_call(server: Live) -> None:
    large = {"id": "x", "request": {**HELLO, "structured_outputs": {"json": LARGE}}}
    reply = await send(server, "POST", "/v1/parrot/graphs", {"calls": [{"id": "w", "request": HELLO}, large]})
    assert (reply.status, reply.error["param"]) == (400, "calls[1].request")
