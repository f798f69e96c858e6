"""/openapi.json is complete and true: every endpoint is in it, and answers are as it says."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import jsonschema
import pytest

from parrot_compat.server.openai.answers_schema import ChatCompletionChunk, TextCompletion
from parrot_compat.server.parrot.answers_schema import StreamEvent

from .live import Live, events_of, send

CHAT = {"messages": [{"role": "user", "content": "the capital of France"}]}
SESSION = "/v1/parrot/sessions/s1"
GRAPH = {"session": "s1", "calls": [{"id": "c1", "request": CHAT}]}
ASKED: list[tuple[str, str, str, Any]] = [
    # method, path as declared, path, body
    ("GET", "/health", "/health", None),
    ("GET", "/version", "/version", None),
    ("GET", "/v1/models", "/v1/models", None),
    ("GET", "/v1/models/{model}", "/v1/models/org/scripted", None),
    ("GET", "/v1/models/{model}", "/v1/models/none", None),
    ("POST", "/tokenize", "/tokenize", {"prompt": "a"}),
    ("POST", "/detokenize", "/detokenize", {"tokens": [65]}),
    ("POST", "/v1/embeddings", "/v1/embeddings", {"input": ["a", "b"]}),
    ("POST", "/v1/embeddings", "/v1/embeddings", {"input": "a", "encoding_format": "base64"}),
    ("POST", "/v1/chat/completions", "/v1/chat/completions", CHAT),
    (
        "POST",
        "/v1/chat/completions",
        "/v1/chat/completions",
        {**CHAT, "n": 2, "logprobs": True, "top_logprobs": 1, "return_token_ids": True, "parrot": {"session": "s1"}},
    ),
    ("POST", "/v1/chat/completions", "/v1/chat/completions", {**CHAT, "n": 0}),
    ("POST", "/v1/responses", "/v1/responses", {"input": "count", "max_output_tokens": 9, "parrot": {"session": "s1"}}),
    ("POST", "/v1/responses", "/v1/responses", {"input": 1}),
    ("POST", "/v1/messages", "/v1/messages", {**CHAT, "model": "org/scripted", "max_tokens": 9}),
    ("POST", "/v1/messages", "/v1/messages", {**CHAT, "model": "org/scripted"}),
    ("POST", "/v1/messages/count_tokens", "/v1/messages/count_tokens", {**CHAT, "model": "org/scripted"}),
    ("POST", "/v1/completions", "/v1/completions", {"prompt": "count", "logprobs": 1, "return_token_ids": True}),
    ("POST", "/v1/completions", "/v1/completions", {"prompt": "count", "parrot": {}, "echo": True}),
    ("GET", "/v1/parrot", "/v1/parrot", None),
    ("POST", "/v1/parrot/graphs", "/v1/parrot/graphs", GRAPH),
    ("POST", "/v1/parrot/graphs", "/v1/parrot/graphs", {"calls": []}),
    ("POST", "/v1/parrot/sessions/{session}/variables", f"{SESSION}/variables", {"name": "v", "text": "x"}),
    ("POST", "/v1/parrot/sessions/{session}/variables", f"{SESSION}/variables", {"name": "w"}),
    ("GET", "/v1/parrot/sessions/{session}/variables/{variable}", f"{SESSION}/variables/v", None),
    ("PUT", "/v1/parrot/sessions/{session}/variables/{variable}", f"{SESSION}/variables/w", {"text": "y"}),
    (
        "POST",
        "/v1/parrot/sessions/{session}/calls",
        f"{SESSION}/calls",
        {"template": "count {{input:a}} {{output:b}}", "bindings": {"a": {"text": "x"}}},
    ),
    ("GET", "/v1/parrot/sessions/{session}", SESSION, None),
    ("POST", "/v1/parrot/sessions/{session}/cancel", f"{SESSION}/cancel", {}),
    ("DELETE", "/v1/parrot/sessions/{session}", SESSION, None),
    ("GET", "/v1/parrot/sessions/{session}", SESSION, None),
    ("POST", "/v1/parrot/sessions", "/v1/parrot/sessions", {"name": "n"}),
]


@pytest.fixture(scope="module")
async def document(server: Live) -> Any:
    return (await send(server, "GET", "/openapi.json")).json()


async def test_every_answer_is_as_it_is_described(server: Live, document: Any) -> None:
    for method, declared, path, body in ASKED:
        reply = await send(server, method, path, b"" if body is None else body)
        responses = document["paths"][declared][method.lower()]["responses"]
        response = responses.get(str(reply.status), responses["default"])
        schema = response["content"][reply.headers["content-type"]]["schema"]
        jsonschema.validate(reply.json(), schema | {"components": document["components"]})
    for session in server.manager.sessions():  # others count what is left of theirs
        await session.close()


async def test_every_endpoint_is_described_with_what_it_takes(server: Live, document: Any) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            also = {"503"} if path == "/health" else set()
            assert set(operation["responses"]) == {"200", "default", *also}, path
            assert ("requestBody" in operation) == (method in ("post", "put")), path
    tried = {(method.lower(), declared) for method, declared, _, _ in ASKED}
    there = {(method, path) for path, operations in document["paths"].items() for method in operations}
    not_json = {("get", "/metrics"), ("get", "/v1/parrot/sessions/{session}/variables/{variable}/stream")}
    assert there - tried - not_json == {("post", "/v1/parrot/graphs/{graph}/close")}


@pytest.mark.parametrize("more", [{}, {"logprobs": True, "parrot": {}, "return_token_ids": True, "n": 2}])
async def test_events_are_as_they_are_described(server: Live, more: dict[str, Any]) -> None:
    asked = {**CHAT, **more, "stream": True, "stream_options": {"include_usage": True}}
    for event in events_of(await send(server, "POST", "/v1/chat/completions", asked)):
        ChatCompletionChunk.model_validate(event)
    asked = {**asked, "prompt": "count", "logprobs": 2}
    del asked["messages"]
    for event in events_of(await send(server, "POST", "/v1/completions", asked)):
        TextCompletion.model_validate(event)


async def test_events_of_a_graph_are_as_they_are_described(server: Live) -> None:
    reply = await send(server, "POST", "/v1/parrot/graphs", {"calls": GRAPH["calls"], "stream": True})
    events = [json.loads(block.removeprefix("data: ")) for block in reply.body.decode().strip().split("\n\n")]
    assert [StreamEvent.model_validate(event).type for event in events] == [
        "parrot:accepted",
        "parrot:call",
        "parrot:done",
    ]
    closed = await send(server, "POST", f"/v1/parrot/graphs/{events[0]['graph']}/close", {})
    assert closed.json()["object"] == "parrot.graph.closed"


async def test_a_path_names_all_its_methods(server: Live) -> None:
    reply = await send(server, "PATCH", "/v1/parrot/sessions/x")
    assert reply.status == 405 and reply.headers["allow"] == "DELETE, GET"


async def test_the_documentation_page_tells_every_operation_and_every_field(server: Live, document: Any) -> None:
    reply = await send(server, "GET", "/docs")
    assert reply.status == 200 and reply.headers["content-type"].startswith("text/html")
    text = reply.body.decode()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert f"<h3>{method.upper()} <code>{path}</code></h3><p>{html.escape(operation['summary'])}</p>" in text
    sections = {name: told for name, told in re.findall(r'<h3 id="(\w+)">(.*?)(?=<h3|</body)', text, re.DOTALL)}
    schemas = document["components"]["schemas"]
    assert sections.keys() == schemas.keys()
    for name, schema in schemas.items():
        told = re.findall(r"<tr><td><code>([^<]+)</code>", sections[name])
        assert told == list(schema.get("properties", {})), name
    links = set(re.findall(r'href="([^"]+)"', text))
    assert {link.removeprefix("#") for link in links} <= {*schemas, "openapi.json"}
    assert "src=" not in text and "url(" not in text  # nothing is loaded from anywhere


async def test_what_a_field_means_is_described_where_it_does_not_say_so_itself(document: Any) -> None:
    fields = document["components"]["schemas"]["CompletionRequest"]["properties"]
    assert fields["max_tokens"]["description"].startswith("0 with `echo`")
