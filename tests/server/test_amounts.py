"""Bodies that say very much in few bytes: they are refused before what they say is made into anything."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BeforeValidator

from parrot_compat.server.amounts import MOST_PIECES, ONE_BY_ONE, at_most, holds_more, pieces_in
from parrot_compat.server.bodies import Items, Schema, parse
from parrot_compat.server.errors import ApiError
from parrot_compat.server.openai.chat_schema import ChatRequest
from parrot_compat.server.openai.tokenize_schema import DetokenizeRequest
from parrot_compat.server.openai.tools import MOST_TOOLS
from parrot_compat.server.parrot.calls_schema import MOST_OUTPUTS, MOST_READS

from .live import Live, send
from .parrot.graphs import GRAPHS, SESSIONS

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
USER = {"role": "user", "content": "count"}
HELLO = {"messages": [USER]}
MANY = MOST_PIECES // 2

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('{[":\\,a\n'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('{[":\\a', max_size=3), inner, max_size=4),
    max_leaves=20,
)


@given(value=st.lists(VALUES))
def test_pieces_are_counted_in_a_text_as_in_what_it_says(value: Any) -> None:
    body, pieces = json.dumps(value).encode(), pieces_in(value, 1000)
    assert [holds_more(body, most) for most in (pieces - 1, pieces)] == [True, False]


@pytest.mark.parametrize("end", ["", "\\", '\\"'])
def test_a_text_that_does_not_end_is_one_piece(end: str) -> None:
    body = ('"' + r"\":[{" * 100_000 + end).encode()
    assert holds_more(body, 0) and not holds_more(body, 1)


READ: list[Any] = []


def noted(value: Any) -> Any:
    READ.append(value)
    return value


Noted = Annotated[int, BeforeValidator(noted)]


class Many(Schema):
    most_pieces = 100

    items: Items[Noted] | None = None
    members: Annotated[dict[str, Noted], ONE_BY_ONE, at_most(10)] | None = None
    objects: Annotated[Items[dict[str, Noted]], at_most(10)] | None = None


def refused(body: dict[str, Any]) -> ApiError:
    READ.clear()
    with pytest.raises(ApiError) as error:
        parse(json.dumps(body).encode(), Many)
    return error.value


def test_a_body_of_very_many_pieces_is_refused_before_it_is_read() -> None:
    error = refused({"items": [1], "unknown": [{}] * 100})
    assert error.problem.status == 413 and "holds more than 100 texts, lists, objects" in error.problem.message
    assert READ == []
    assert parse(b'{"items": [' + b"1, " * 1000 + b"1]}", Many).items == [1] * 1001, "numbers are no pieces"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"members": {f"m{n}": n for n in range(11)}}, "members: has 11 members; at most 10 are taken"),
        ({"members": {f"m{n}": "wrong" for n in range(11)}}, "members: has 11 members; at most 10 are taken"),
        ({"objects": [{"a": 1, "b": 2, "c": 3}] * 4}, "objects: has 12 members; at most 10 are taken"),
        ({"objects": [{}] * 11}, "objects: has 11 members; at most 10 are taken"),
    ],
)
def test_an_object_of_very_many_members_is_refused_before_one_of_them_is_read(body: Any, message: str) -> None:
    assert refused(body).problem.message == message
    assert READ == []


def test_the_first_wrong_member_of_an_object_ends_it() -> None:
    assert refused({"members": {"a": 1, "b": "wrong", "c": "wrong", "d": 2}}).problem.param == "members.b"
    assert READ == [1, "wrong"]
    assert parse(b'{"members": {"a": 1, "b": 2}}', Many).members == {"a": 1, "b": 2}


TOO_MANY: dict[str, tuple[str, dict[str, Any]]] = {
    "messages": (CHAT, {"messages": [{"role": "user"}] * MANY}),
    "parts": (CHAT, {"messages": [{"role": "user", "content": [{"type": ""}] * 1000}] * (MANY // 1000)}),
    "unknown fields": (CHAT, HELLO | {f"x{n}": n for n in range(MANY)}),
    "members of a hint": (CHAT, HELLO | {"nvext": dict.fromkeys(map(str, range(MANY)), 0)}),
    "blocks": (MESSAGES, {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [{}] * 2 * MANY}]}),
    "items": (RESPONSES, {"input": [{"role": "user"}] * MANY}),
}


@pytest.mark.parametrize("name", TOO_MANY)
async def test_a_request_of_very_many_pieces_is_refused_wherever_they_are(server: Live, name: str) -> None:
    path, body = TOO_MANY[name]
    reply = await send(server, "POST", path, body)
    assert reply.status == 413 and str(MOST_PIECES) in reply.body.decode()


TOOL = {"type": "function", "function": {"name": "f"}}
TOO_LARGE: dict[str, tuple[str, dict[str, Any], str]] = {
    "biases": (CHAT, HELLO | {"logit_bias": {f"x{n}": "wrong" for n in range(100_000)}}, "logit_bias"),
    "values of a template": (
        CHAT,
        HELLO | {"chat_template_kwargs": dict.fromkeys(map(str, range(65)), 0)},
        "chat_template_kwargs",
    ),
    "tools": (CHAT, HELLO | {"tools": [TOOL] * (MOST_TOOLS + 1)}, "tools"),
    "tools told with messages": ("/tokenize", HELLO | {"tools": [TOOL] * (MOST_TOOLS + 1)}, "tools"),
    "Anthropic's tools": (
        MESSAGES,
        HELLO | {"model": "m", "max_tokens": 1, "tools": [{"name": "f"}] * (MOST_TOOLS + 1)},
        "tools",
    ),
    "a response's tools": (RESPONSES, {"input": "x", "tools": [{"type": "function"}] * (MOST_TOOLS + 1)}, "tools"),
    "metadata": (RESPONSES, {"input": "x", "metadata": {f"m{n}": 5 for n in range(100_000)}}, "metadata"),
    "a planned call": (
        GRAPHS,
        {"calls": [{"id": "a", "request": {"messages": [{"role": "user"}] * MANY}}]},
        "calls[0].request",
    ),
}


@pytest.mark.parametrize("name", TOO_LARGE)
async def test_a_field_of_very_many_members_is_named_and_not_what_is_wrong_in_it(server: Live, name: str) -> None:
    path, body, param = TOO_LARGE[name]
    reply = await send(server, "POST", path, body)
    message = reply.json()["error"]["message"]  # in Anthropic's envelope too
    assert reply.status == 400 and message.startswith(f"{param}: ") and " more)" not in message


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"bindings": {f"x{n}": 5 for n in range(MOST_READS + 1)}}, "bindings"),
        ({"bindings": [{f"x{n}": "" for n in range(100)}] * (MOST_READS // 100 + 1)}, "bindings"),
        ({"bindings": [{}] * (MOST_READS + 1)}, "bindings"),
        ({"outputs": {f"o{n}": 5 for n in range(MOST_OUTPUTS + 1)}}, "outputs"),
    ],
)
async def test_calls_with_very_much_bound_are_refused_for_that(server: Live, said: Any, param: str) -> None:
    session = (await send(server, "POST", SESSIONS, {})).json()["id"]
    reply = await send(server, "POST", f"{SESSIONS}/{session}/calls", {"template": "{{output:y}}"} | said)
    assert reply.status == 400 and reply.error["param"] == param
    assert reply.error["message"].endswith("are taken")
    await send(server, "DELETE", f"{SESSIONS}/{session}")


def test_much_that_is_no_piece_is_read() -> None:
    code = '{"a": [1]}' * 100_000
    assert parse(json.dumps({"messages": [USER | {"content": code}]}).encode(), ChatRequest).messages[0].content == code
    tokens = parse(json.dumps({"tokens": [1] * MOST_PIECES}).encode(), DetokenizeRequest).tokens
    assert len(tokens) == MOST_PIECES
