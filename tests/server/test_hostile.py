"""Bodies that nobody should send. Each gets a 4xx that names what is wrong; none gets a 500 or an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .live import Live, send

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
WRITE: dict[str, Any] = {"prompt": "hello"}

NOT_JSON = {
    "empty": b"",
    "white space": b"  \n ",
    "cut off": b'{"messages": [',
    "not UTF-8": b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}',
    "UTF-16": '{"messages": []}'.encode("utf-16"),
    "half a surrogate pair": b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    "a control character in a string": b'{"messages": [{"role": "user", "content": "a\x00b"}]}',
    "deep nesting": b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep nesting in an unknown field": b'{"x": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
    "an array": b"[]",
    "a string": b'"hello"',
    "null": b"null",
    "a form": b"messages=hello",
    "trailing text": json.dumps(HELLO).encode() + b" and more",
    "single quotes": b"{'messages': []}",
}


@pytest.mark.parametrize("name", NOT_JSON)
@pytest.mark.parametrize("path", [CHAT, TEXT, "/tokenize", "/detokenize"])
async def test_a_body_that_is_not_an_object_of_json_is_a_400(server: Live, path: str, name: str) -> None:
    reply = await send(server, "POST", path, NOT_JSON[name])
    assert reply.status == 400
    assert reply.error["type"] == "invalid_request_error"


BAD_CHAT: dict[str, tuple[dict[str, Any], str]] = {
    # name: what is changed, and the field that the answer has to name
    "no messages": ({"messages": []}, "messages"),
    "messages of another kind": ({"messages": "hello"}, "messages"),
    "a message of another kind": ({"messages": ["hello"]}, "messages[0]"),
    "an unknown role": ({"messages": [{"role": "root", "content": "x"}]}, "messages[0].role"),
    "no role": ({"messages": [{"content": "x"}]}, "messages[0].role"),
    "no content": ({"messages": [{"role": "user"}]}, "messages[0].content"),
    "null content": ({"messages": [{"role": "system", "content": None}]}, "messages[0].content"),
    "content of another kind": ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    "no parts": ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    "a part of no type": ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content"),
    "a part of unknown type": (
        {"messages": [{"role": "user", "content": [{"type": "smell", "text": "x"}]}]},
        "messages[0].content[0].type",
    ),
    "a reference to nothing": (
        {"messages": [{"role": "user", "content": [{"type": "parrot:ref"}]}]},
        "messages[0].content[0]",
    ),
    "a part without its text": (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content[0].text",
    ),
    "an image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
        "messages[0].content[0].image_url",
    ),
    "a sound": (
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "!"}}]}]},
        "messages[0].content[0].input_audio",
    ),
    "tool calls of a user": (
        {"messages": [{"role": "user", "content": "x", "tool_calls": [{"function": {"name": "f", "arguments": ""}}]}]},
        "messages[0].tool_calls",
    ),
    "a model of another kind": ({"model": 7}, "model"),
    "a model name without end": ({"model": "m" * 10_000}, "model"),
    "n of zero": ({"n": 0}, "n"),
    "n below zero": ({"n": -1}, "n"),
    "a huge n": ({"n": 10**9}, "n"),
    "an n beyond all integers": ({"n": 10**400}, "n"),
    "n as text": ({"n": "3"}, "n"),
    "n as a fraction": ({"n": 1.5}, "n"),
    "n as a truth": ({"n": True}, "n"),
    "negative max_tokens": ({"max_tokens": -5}, "max_tokens"),
    "no max_tokens at all": ({"max_tokens": 0}, "max_tokens"),
    "negative max_completion_tokens": ({"max_completion_tokens": -1}, "max_completion_tokens"),
    "two limits that disagree": ({"max_tokens": 3, "max_completion_tokens": 4}, "max_completion_tokens"),
    "min above max": ({"max_tokens": 3, "min_tokens": 4}, "min_tokens"),
    "a negative temperature": ({"temperature": -0.1}, "temperature"),
    "a boiling temperature": ({"temperature": 1e308}, "temperature"),
    "top_p above one": ({"top_p": 1.1}, "top_p"),
    "min_p below zero": ({"min_p": -1}, "min_p"),
    "top_k below its floor": ({"top_k": -2}, "top_k"),
    "a seed beyond 64 bits": ({"seed": 2**64}, "seed"),
    "an empty stop": ({"stop": ""}, "stop"),
    "stops of another kind": ({"stop": [1]}, "stop"),
    "too many stops": ({"stop": ["x"] * 1000}, "stop"),
    "an endless stop": ({"stop": "x" * 100_000}, "stop"),
    "a negative stop token": ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
    "stream as text": ({"stream": "yes"}, "stream"),
    "stream_options without stream": ({"stream_options": {"include_usage": True}}, "stream_options"),
    "stream_options of another kind": ({"stream": True, "stream_options": []}, "stream_options"),
    "logprobs of another kind": ({"logprobs": 1}, "logprobs"),
    "top_logprobs without logprobs": ({"top_logprobs": 5}, "top_logprobs"),
    "more top_logprobs than there may be": ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    "a tool": ({"tools": [{"type": "function", "function": {"name": "no name"}}]}, "tools[0].function.name"),
    "a forced tool": ({"tool_choice": "required"}, "tool_choice"),
    "a named tool": ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
    "json mode": ({"response_format": {"type": "json_object"}}, "response_format"),
    "a schema": ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    "a bias beyond 100": ({"logit_bias": {"5": 101}}, "logit_bias.5"),
    "a bias on a word": ({"logit_bias": {"x": 1}}, "logit_bias.x"),
    "a bias on a token that the model has not": ({"logit_bias": {"1999999999": 1}}, "logit_bias"),
    "too many biases": ({"logit_bias": {str(token): 1 for token in range(2000)}}, "logit_bias"),
    "a presence penalty above two": ({"presence_penalty": 2.1}, "presence_penalty"),
    "a frequency penalty below minus two": ({"frequency_penalty": -2.1}, "frequency_penalty"),
    "a repetition penalty of nothing": ({"repetition_penalty": 0}, "repetition_penalty"),
    "an endless repetition penalty": ({"repetition_penalty": 1e300}, "repetition_penalty"),
    "sound asked for": ({"modalities": ["text", "audio"]}, "modalities"),
    "a voice": ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
    "a template of the client's": ({"chat_template": "{{ 1 }}"}, "chat_template"),
    "structured outputs": ({"structured_outputs": {"regex": "(a+)+$"}}, "structured_outputs"),
    "an answer whose beginning is given": (
        {"messages": [{"role": "assistant", "content": "Par", "prefix": True}]},
        "messages[0].prefix",
    ),
}


@pytest.mark.parametrize("name", BAD_CHAT)
async def test_a_chat_that_cannot_be_answered_names_the_field(server: Live, name: str) -> None:
    change, param = BAD_CHAT[name]
    reply = await send(server, "POST", CHAT, {**HELLO, **change})
    assert reply.status == 400, reply.body
    assert reply.error["param"] == param
    assert param.split("[")[0] in reply.error["message"]


BAD_TEXT: dict[str, tuple[dict[str, Any], str]] = {
    "a limit by its name in chats": ({"max_completion_tokens": 5}, "max_completion_tokens"),
    "no prompts": ({"prompt": []}, "prompt"),
    "an empty list of tokens": ({"prompt": [[]]}, "prompt"),
    "a prompt of another kind": ({"prompt": {"a": 1}}, "prompt"),
    "a mixed prompt": ({"prompt": ["a", 1]}, "prompt"),
    "a negative token": ({"prompt": [-1]}, "prompt"),
    "a token as a truth": ({"prompt": [True]}, "prompt"),
    "a null prompt": ({"prompt": None}, "prompt"),
    "too many calls": ({"prompt": ["x"] * 100, "n": 128}, "prompt"),
    "a suffix": ({"suffix": "end"}, "suffix"),
    "the best of fewer": ({"best_of": 3, "n": 4}, "best_of"),
    "the best of many": ({"best_of": 129}, "best_of"),
    "the best in a stream": ({"best_of": 3, "stream": True}, "best_of"),
    "more logprobs than there may be": ({"logprobs": 6}, "logprobs"),
    "prompt logprobs in a stream": ({"prompt_logprobs": 0, "stream": True}, "prompt_logprobs"),
    "nothing to draw and nothing to say": ({"max_tokens": 0}, "max_tokens"),
    "a bias below minus 100": ({"logit_bias": {"5": -101}}, "logit_bias.5"),
}


@pytest.mark.parametrize("name", BAD_TEXT)
async def test_a_text_that_cannot_be_continued_names_the_field(server: Live, name: str) -> None:
    change, param = BAD_TEXT[name]
    reply = await send(server, "POST", TEXT, {**WRITE, **change})
    assert reply.status == 400, reply.body
    assert reply.error["param"] == param


async def test_a_token_out_of_the_vocabulary_is_a_400(server: Live) -> None:
    assert (await send(server, "POST", TEXT, {"prompt": [2**31 - 1]})).error["code"] == "invalid_prompt"
    assert (await send(server, "POST", "/detokenize", {"tokens": [2**31 - 1]})).error["code"] == "invalid_prompt"


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
async def test_numbers_that_are_none_are_refused(server: Live, number: bytes) -> None:
    body = b'{"messages": [{"role": "user", "content": "x"}], "temperature": ' + number + b"}"
    reply = await send(server, "POST", CHAT, body)
    assert reply.status == 400
    assert reply.error["param"] in ("temperature", None)


@pytest.mark.parametrize(
    ("path", "field"),
    [(CHAT, "messages"), (CHAT, "tools"), (CHAT, "stop"), (TEXT, "prompt"), ("/detokenize", "tokens")],
)
async def test_a_list_of_many_wrong_items_is_given_up_at_the_first(server: Live, path: str, field: str) -> None:
    reply = await send(server, "POST", path, HELLO | WRITE | {field: [{"x": [None]}] * 5000})
    assert reply.status == 400 and reply.error["param"].startswith(field)
    assert "000 more" not in reply.error["message"] and "999 more" not in reply.error["message"]


async def test_a_body_beyond_the_limit_is_a_413_before_it_is_read(server: Live) -> None:
    reply = await send(server, "POST", CHAT, b"{}", {"content-length": str(10**12)})
    assert reply.status == 413
    assert reply.error["code"] == "body_too_large"


async def test_a_compressed_body_is_refused_not_misread(server: Live) -> None:
    reply = await send(server, "POST", CHAT, HELLO, {"content-encoding": "gzip"})
    assert reply.status == 415 and reply.error["code"] == "unsupported_encoding"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("GET", "/v1/models/%00", 404),
        ("GET", "/v1/models/" + "x" * 2000, 404),
        ("GET", "/v1/models/..%2f..%2fetc", 404),
        ("POST", "/v1/images/generations", 404),
    ],
)
async def test_a_place_that_is_not_there_answers_in_the_envelope(
    server: Live, method: str, path: str, status: int
) -> None:
    reply = await send(server, method, path)
    assert reply.status == status
    assert reply.error["type"] == "invalid_request_error"
    assert reply.headers["x-request-id"]


async def test_after_all_of_that_nothing_is_left_running(server: Live) -> None:
    assert server.manager.open_calls == 0
    assert server.manager.sessions() == ()
    server.manager.check()
