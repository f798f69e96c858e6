"""Bodies that nobody should send to the endpoints of ours. Each gets a 4xx that names what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from parrot_compat.server.limits import RequestLimits
from tests.server.live import Live, live, send
from tests.server.test_hostile import NOT_JSON

from .graphs import CHAT, GRAPHS, SESSIONS, chain, echo, planned, ref, user

X = planned("x", "count")
TWO = chain()["calls"]


def request(**fields: Any) -> dict[str, Any]:
    return {"calls": [{"id": "x", "request": {"messages": user("count"), **fields}}]}


def content(part: Any) -> dict[str, Any]:
    return {"calls": [{"id": "x", "request": {"messages": [{"role": "user", "content": [part]}]}}]}


BAD_GRAPHS: dict[str, tuple[dict[str, Any], int, str]] = {
    # name: the body, the status, and the field that the answer has to name
    "no calls": ({}, 400, "calls"),
    "an empty list": ({"calls": []}, 400, "calls"),
    "calls of another kind": ({"calls": "all"}, 400, "calls"),
    "a call of another kind": ({"calls": [5]}, 400, "calls[0]"),
    "a call without an id": ({"calls": [{"request": {}}]}, 400, "calls[0].id"),
    "an empty id": ({"calls": [{**X, "id": ""}]}, 400, "calls[0].id"),
    "a number as an id": ({"calls": [{**X, "id": 5}]}, 400, "calls[0].id"),
    "an id without end": ({"calls": [{**X, "id": "x" * 100_000}]}, 400, "calls[0].id"),
    "the same id twice": ({"calls": [X, X]}, 400, "calls[1].id"),
    "a hundred thousand calls": ({"calls": [{"id": f"{n}", "request": {}} for n in range(100_000)]}, 400, "calls"),
    "more calls than one graph has": ({"calls": [{"id": f"{n}", "request": {}} for n in range(3000)]}, 400, "calls"),
    "a request of another kind": ({"calls": [{"id": "x", "request": []}]}, 400, "calls[0].request"),
    "no messages": ({"calls": [{"id": "x", "request": {}}]}, 400, "calls[0].request.messages"),
    "a message of no role": (
        {"calls": [X, {"id": "y", "request": {"messages": [{"content": "x"}]}}]},
        400,
        "calls[1].request.messages[0].role",
    ),
    "a stage of another kind": ({"calls": [{**X, "stage": "map"}]}, 400, "calls[0].stage"),
    "a stage of no size": ({"calls": [{**X, "stage": {"size": 0}}]}, 400, "calls[0].stage.size"),
    "a function of another kind": ({"calls": [{**X, "function": {}}]}, 400, "calls[0].function"),
    "a stream of its own": (request(stream=True), 400, "calls[0].request.stream"),
    "stream options": (request(stream_options={"include_usage": True}), 400, "calls[0].request.stream_options"),
    "several answers": (request(n=2), 400, "calls[0].request.n"),
    "a claim in a plan": (request(parrot={"claim": "y"}), 400, "calls[0].request.parrot.claim"),
    "a parrot object of another kind": (request(parrot="hi"), 400, "calls[0].request.parrot"),
    "top_logprobs without logprobs": (request(top_logprobs=2), 400, "calls[0].request.top_logprobs"),
    "a tool": (request(tools=[{"type": "function"}]), 400, "calls[0].request.tools[0].function"),
    "a penalty": (request(presence_penalty=3), 400, "calls[0].request.presence_penalty"),
    "a bias on no token": (request(logit_bias={"1999999999": 1}), 400, "calls[0].request.logit_bias"),
    "a temperature beyond all": (request(temperature=1e9), 400, "calls[0].request.temperature"),
    "two limits that disagree": (
        request(max_tokens=3, max_completion_tokens=4),
        400,
        "calls[0].request.max_completion_tokens",
    ),
    "a model that is not here": (request(model="gpt-9"), 404, "calls[0].request.model"),
    "an image": (
        content({"type": "image_url", "image_url": {}}),
        400,
        "calls[0].request.messages[0].content[0].image_url",
    ),
    "a number of thousands of digits": (request(seed_of_mine=10**3000), 400, "calls[0].request"),
    "a prompt too long": ({"calls": [planned("x", "x" * 5000)]}, 400, "calls"),
    "a call that reads itself": ({"calls": [planned("x", "", ref("x"))]}, 400, "calls"),
    "two that read each other": ({"calls": [planned("x", "", ref("y")), planned("y", "", ref("x"))]}, 400, "calls"),
    "a reference to nobody": (
        {"calls": [X, planned("y", "a", ref("z"))]},
        404,
        "calls[1].request.messages[0].content[1].call",
    ),
    "a variable of nobody": (
        content({"type": "parrot:ref", "variable": "z"}),
        404,
        "calls[0].request.messages[0].content[0].variable",
    ),
    "a reference to nothing": (content({"type": "parrot:ref"}), 400, "calls[0].request.messages[0].content[0]"),
    "a transform of no name": (
        {"calls": [X, planned("y", "", ref("x", transform={"exec": "rm"}))]},
        400,
        "calls[1].request.messages[0].content[1].transform",
    ),
    "a transform of many names": (
        {"calls": [X, planned("y", "", ref("x", transform={"strip": {}, "lines": {}}))]},
        400,
        "calls[1].request.messages[0].content[1].transform",
    ),
    "transforms without end": (
        {"calls": [X, planned("y", "", ref("x", transform=["strip"] * 10_000))]},
        400,
        "calls[1].request.messages[0].content[1].transform",
    ),
    "an await of nobody": ({"calls": [X], "await": ["y"]}, 400, "await[0]"),
    "an await of another kind": ({"calls": [X], "await": "x"}, 400, "await"),
    "no time to live": ({"calls": [X], "ttl_s": 0}, 400, "ttl_s"),
    "time without end": ({"calls": [X], "ttl_s": 1e300}, 400, "ttl_s"),
    "time as text": ({"calls": [X], "ttl_s": "30"}, 400, "ttl_s"),
    "stream as text": ({"calls": [X], "stream": "yes"}, 400, "stream"),
    "a session of another kind": ({"calls": [X], "session": 5}, 400, "session"),
    "a session name without end": ({"calls": [X], "session": "s" * 10_000}, 400, "session"),
    "an empty nonce": ({"calls": [X], "nonce": ""}, 400, "nonce"),
}


@pytest.mark.parametrize("name", BAD_GRAPHS)
async def test_a_graph_that_cannot_be_planned_names_the_field_and_leaves_nothing(server: Live, name: str) -> None:
    body, status, param = BAD_GRAPHS[name]
    for sent in (body, {**body, "stream": body.get("stream", True)}):
        reply = await send(server, "POST", GRAPHS, sent)
        assert reply.status == status, reply.body[:500]
        assert reply.error["param"] == param
        assert len(reply.body) < 2000
    assert server.manager.sessions() == () and server.manager.open_calls == 0


async def test_of_several_faults_a_planned_call_is_told_the_one_that_a_plain_request_is_told(server: Live) -> None:
    faults: dict[str, Any] = {
        "min_tokens": 5,  # more than max_tokens
        "length_penalty": 2,
        "model": "gpt-9",
        "logit_bias": {"1999999999": 1},
        "messages": [{"role": "user", "content": []}],
    }
    body: dict[str, Any] = {"messages": user("count"), "max_tokens": 2, **faults}
    for field in faults:
        plain = await send(server, "POST", CHAT, body)
        planned = await send(server, "POST", GRAPHS, {"calls": [{"id": "x", "request": body}]})
        assert plain.status == planned.status and (plain.error["param"] or "model").startswith(field)
        assert planned.error["param"] == f"calls[0].request.{plain.error['param'] or 'model'}"
        del body[field]


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
async def test_numbers_that_are_none_are_refused_wherever_they_stand(server: Live, number: bytes) -> None:
    for field in (b"temperature", b"anything"):
        request = b'{"messages": [{"role": "user", "content": "x"}], "' + field + b'": [' + number + b"]}"
        reply = await send(server, "POST", GRAPHS, b'{"calls": [{"id": "x", "request": ' + request + b"}]}")
        assert reply.status == 400 and (reply.error["param"] or "calls[0].request").startswith("calls[0].request")
    reply = await send(server, "POST", GRAPHS, b'{"ttl_s": ' + number + b', "calls": []}')
    assert reply.status == 400


BAD_CALLS: dict[str, tuple[dict[str, Any], int, str | None]] = {
    "no template": ({}, 400, "template"),
    "a template of another kind": ({"template": 5}, 400, "template"),
    "a template without an output": ({"template": "hello"}, 400, "template"),
    "a hole of no kind": ({"template": "{{x}}{{output:y}}"}, 400, "template"),
    "an output twice": ({"template": "{{output:y}}{{output:y}}"}, 400, "template"),
    "a form of no kind": ({"template": "{{output:y}}", "form": "song"}, 400, "form"),
    "a binding that is missing": ({"template": "{{input:x}}{{output:y}}"}, 400, "bindings"),
    "a binding too many": ({"template": "{{output:y}}", "bindings": {"x": "1"}}, 400, "bindings"),
    "a binding of another kind": ({"template": "{{input:x}}{{output:y}}", "bindings": {"x": 5}}, 400, "bindings"),
    "bindings of another kind": ({"template": "{{output:y}}", "bindings": "x"}, 400, "bindings"),
    "no bindings at all": ({"template": "{{output:y}}", "bindings": []}, 400, "bindings"),
    "bindings without end": ({"template": "{{output:y}}", "bindings": [{}] * 5000}, 400, "bindings"),
    "a variable of nobody": (
        {"template": "{{input:x}}{{output:y}}", "bindings": {"x": {"variable": "z"}}},
        404,
        "bindings.x.variable",
    ),
    "a transform of no name": (
        {"template": "{{input:x}}{{output:y}}", "bindings": [{"x": {"variable": "v", "transform": "exec"}}]},
        400,
        "bindings[0].x.transform",
    ),
    "outputs that read millions of holes": (
        {"template": "".join(f"{{{{output:o{n}}}}}" for n in range(2_000))},
        400,
        "template",
    ),
    "holes that are read millions of times": (
        {"template": "{{input:x}}" * 1000 + "{{output:y}}", "bindings": [{"x": ""}] * 2000},
        400,
        "bindings",
    ),
    "a hundred thousand holes": ({"template": "{{input:x}}" * 100_000 + "{{output:y}}"}, 400, "template"),
    "sampling of a hundred thousand outputs": (
        {"template": "{{output:y}}", "outputs": {f"o{n}": {} for n in range(100_000)}},
        400,
        "outputs",
    ),
    "a transform without end": (
        {"template": "{{input:x}}{{output:y}}", "bindings": {"x": {"variable": "v", "transform": ["strip"] * 17}}},
        400,
        "bindings.x.transform",
    ),
    "sampling of no output": ({"template": "{{output:y}}", "outputs": {"z": {}}}, 400, "outputs"),
    "sampling of another kind": ({"template": "{{output:y}}", "outputs": {"y": 5}}, 400, "outputs.y"),
    "a temperature below zero": ({"template": "{{output:y}}", "temperature": -1}, 400, "temperature"),
    "one for an output": ({"template": "{{output:y}}", "outputs": {"y": {"top_p": 2}}}, 400, "outputs.y.top_p"),
    "stops of an output": ({"template": "{{output:y}}", "outputs": {"y": {"stop": ""}}}, 400, "outputs.y.stop"),
    "two limits that disagree": (
        {"template": "{{output:y}}", "outputs": {"y": {"max_tokens": 3, "max_completion_tokens": 4}}},
        400,
        "outputs.y.max_completion_tokens",
    ),
    "several answers": ({"template": "{{output:y}}", "n": 3}, 400, "n"),
    "a stream": ({"template": "{{output:y}}", "stream": True}, 400, "stream"),
    "several for an output": ({"template": "{{output:y}}", "outputs": {"y": {"n": 2}}}, 400, "outputs.y.n"),
    "a model for an output": ({"template": "{{output:y}}", "outputs": {"y": {"model": "m"}}}, 400, "outputs.y.model"),
    "a model that is not here": ({"template": "{{output:y}}", "model": "gpt-9"}, 404, None),  # as OpenAI answers it
    "an objective of no kind": ({"template": "{{output:y}}", "objective": "soon"}, 400, "objective"),
    "a function with a slash": ({"template": "{{output:y}}", "function": "a/b"}, 400, "function"),
    "a parrot object": ({"template": "{{output:y}}", "parrot": {"call": "x"}}, 400, "parrot"),
    "a schema": ({"template": "{{output:y}}", "structured_outputs": {"regex": "x"}}, 400, None),
    "a prompt too long": ({"template": "x" * 5000 + "{{output:y}}"}, 400, None),
}


NO_WORD: list[tuple[str, Any]] = [
    ("response_format", {"type": "json_object"}),
    ("tools", [{"type": "function", "function": {"name": "f"}}]),
    ("tool_choice", "required"),
    ("reasoning_effort", "low"),
    ("chat_template_kwargs", {"enable_thinking": False}),
    ("add_special_tokens", True),
    ("guided_regex", "a"),
]
"""What changes an answer and what a function has no words for."""


@pytest.mark.parametrize(("field", "value"), NO_WORD)
@pytest.mark.parametrize("path", ["", "outputs.y."])
async def test_what_a_function_cannot_say_is_refused_for_all_outputs_and_for_one(
    server: Live, field: str, value: Any, path: str
) -> None:
    said = {"outputs": {"y": {field: value}}} if path else {field: value}
    session = (await send(server, "POST", SESSIONS, {})).json()["id"]
    try:
        reply = await send(server, "POST", f"{SESSIONS}/{session}/calls", {"template": "{{output:y}}", **said})
        assert reply.status == 400, reply.body
        assert (reply.error["param"], reply.error["code"]) == (path + field, "unsupported_parameter")
    finally:
        await send(server, "DELETE", f"{SESSIONS}/{session}")


async def test_what_a_function_says_of_these_that_asks_for_nothing_is_taken(server: Live) -> None:
    nothing = {"response_format": {"type": "text"}, "tools": [], "tool_choice": "auto", "chat_template_kwargs": {}}
    session = (await send(server, "POST", SESSIONS, {})).json()["id"]
    body = {"template": "{{output:y}}", **nothing, "reasoning_effort": None, "outputs": {"y": nothing}}
    reply = await send(server, "POST", f"{SESSIONS}/{session}/calls", body)
    assert reply.status == 200 and "x-parrot-ignored" not in reply.headers
    await send(server, "DELETE", f"{SESSIONS}/{session}")


@pytest.mark.parametrize("name", BAD_CALLS)
async def test_a_call_that_cannot_be_made_names_the_field(server: Live, name: str) -> None:
    body, status, param = BAD_CALLS[name]
    session = (await send(server, "POST", SESSIONS, {})).json()["id"]
    await send(server, "POST", f"{SESSIONS}/{session}/variables", {"name": "v"})
    try:
        reply = await send(server, "POST", f"{SESSIONS}/{session}/calls", body)
        assert reply.status == status, reply.body
        assert reply.error["param"] == param
        assert (await send(server, "GET", f"{SESSIONS}/{session}")).json()["calls"] == []
    finally:
        await send(server, "DELETE", f"{SESSIONS}/{session}")


BAD_OBJECTS: dict[str, tuple[Any, str]] = {
    "of another kind": ("hi", "parrot"),
    "of another version": ({"v": 2}, "parrot.v"),
    "a call of another kind": ({"call": 5}, "parrot.call"),
    "a call id without end": ({"call": "x" * 100_000}, "parrot.call"),
    "an empty claim": ({"claim": ""}, "parrot.claim"),
    "a graph of another kind": ({"graph": ["g"]}, "parrot.graph"),
    "inputs of another kind": ({"inputs": {}}, "parrot.inputs"),
    "inputs without end": (
        {"inputs": [{"name": "x", "message": 0, "start": 0, "end": 0}] * 5000},
        "parrot.inputs",
    ),
    "a span without its end": ({"inputs": [{"name": "x", "message": 0, "start": 0}]}, "parrot.inputs[0].end"),
    "a span in fractions": (
        {"inputs": [{"name": "x", "message": 0, "start": 0.5, "end": 1}]},
        "parrot.inputs[0].start",
    ),
    "an output with a slash": ({"output": {"name": "a/b"}}, "parrot.output.name"),
    "an objective of no kind": ({"objective": "soon"}, "parrot.objective"),
    "a stage of another kind": ({"stage": []}, "parrot.stage"),
}


@pytest.mark.parametrize("name", BAD_OBJECTS)
@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_a_parrot_object_of_the_wrong_shape_names_the_field(server: Live, path: str, name: str) -> None:
    said, param = BAD_OBJECTS[name]
    body = {"messages": user("x")} if path == CHAT else {"prompt": "x"}
    reply = await send(server, "POST", path, {**body, "parrot": said})
    assert reply.status == 400 and reply.error["param"] == param, reply.body


@pytest.mark.parametrize("name", NOT_JSON)
async def test_a_body_that_is_not_an_object_of_json_is_a_400_here_too(server: Live, name: str) -> None:
    session = (await send(server, "POST", SESSIONS, {})).json()["id"]
    await send(server, "POST", f"{SESSIONS}/{session}/variables", {"name": "v"})
    try:
        for method, path in (
            ("POST", GRAPHS),
            ("POST", SESSIONS),
            ("POST", f"{SESSIONS}/{session}/calls"),
            ("POST", f"{SESSIONS}/{session}/cancel"),
            ("POST", f"{SESSIONS}/{session}/variables"),
            ("PUT", f"{SESSIONS}/{session}/variables/v"),
        ):
            reply = await send(server, method, path, NOT_JSON[name])
            assert reply.status == 400, path
            assert reply.error["type"] == "invalid_request_error"
    finally:
        await send(server, "DELETE", f"{SESSIONS}/{session}")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("wait=soon", "wait"),
        ("wait=-1", "wait"),
        ("wait=nan", "wait"),
        ("wait=1e9", "wait"),
        ("objective=x", "objective"),
    ],
)
async def test_a_wait_of_no_length_or_purpose_is_refused(server: Live, query: str, param: str) -> None:
    session = (await send(server, "POST", SESSIONS, {})).json()["id"]
    await send(server, "POST", f"{SESSIONS}/{session}/variables", {"name": "v"})
    reply = await send(server, "GET", f"{SESSIONS}/{session}/variables/v?{query}")
    assert reply.status == 400 and reply.error["param"] == param
    await send(server, "DELETE", f"{SESSIONS}/{session}")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"{SESSIONS}/nobody", 404),
        ("GET", f"{SESSIONS}/%00", 404),
        ("GET", f"{SESSIONS}/..%2f..%2fetc", 404),
        ("GET", f"{SESSIONS}/{'x' * 5000}", 404),
        ("GET", f"{SESSIONS}/nobody/variables/x?wait=5", 404),
        ("GET", f"{SESSIONS}/nobody/variables/x/stream", 404),
        ("DELETE", f"{SESSIONS}/nobody", 404),
        ("POST", f"{SESSIONS}/nobody/calls", 404),
        ("POST", f"{GRAPHS}/nothing", 404),
        ("GET", GRAPHS, 405),
        ("PUT", SESSIONS, 405),
    ],
)
async def test_a_name_of_nobody_answers_in_the_envelope(server: Live, method: str, path: str, status: int) -> None:
    reply = await send(server, method, path, {} if method != "GET" else b"")
    assert reply.status == status
    assert reply.error["type"] == "invalid_request_error"


@pytest.mark.parametrize("taken", [None, "x", [5], [""], [{}]])
async def test_a_close_of_another_kind_is_refused_and_closes_nothing(taken: Any) -> None:
    async with live(echo) as server:
        graph = (await send(server, "POST", GRAPHS, {"calls": TWO})).json()["id"]
        reply = await send(server, "POST", f"{GRAPHS}/{graph}/close", {"taken": taken})
        assert reply.status == 400 and reply.error["param"].startswith("taken")
        assert (await send(server, "POST", f"{GRAPHS}/{graph}/close", {"taken": []})).status == 200


async def test_a_close_of_nobodys_plan_is_a_404(server: Live) -> None:
    reply = await send(server, "POST", f"{GRAPHS}/graph-0/close", {})
    assert reply.status == 404 and reply.error["code"] == "plan_not_found"


async def test_ids_of_any_characters_work_from_end_to_end() -> None:
    names = ["../x", "a/b c", "\x00", "雪", '"', "a\r\nb", "{{output:x}}", "x" * 256]
    async with live(echo) as server:
        calls = [planned(name, f"{index}") for index, name in enumerate(names)]
        calls += [planned("all", "", *(ref(name) for name in names))]
        graph = (await send(server, "POST", GRAPHS, {"session": names[0], "nonce": names[2], "calls": calls})).json()
        assert [call["id"] for call in graph["calls"]] == [*names, "all"]
        for index, name in enumerate(names):
            said = {"claim": name, "nonce": name, "graph": graph["id"]}
            reply = await send(server, "POST", CHAT, {"messages": user(f"{index}"), "parrot": said})
            assert reply.json()["parrot"]["claimed"] is True
            assert reply.json()["parrot"]["call"] == name
        seen = f"{SESSIONS}/{graph['session']}".replace("../x", "x")
        assert (await send(server, "GET", seen)).status == 404
        assert server.engine.generated == len(names) + 1


async def test_the_largest_graph_is_planned_and_pushed_while_others_are_answered() -> None:
    async with live(echo, limits=RequestLimits(calls=2000)) as server:
        calls = [planned("0", "go")] + [
            planned(f"{n}", "then ", ref(f"{n - 1}", transform={"truncate": 4})) for n in range(1, 2000)
        ]
        reply = await send(server, "POST", GRAPHS, {"calls": calls, "await": ["1999"], "stream": True})
        blocks = [json.loads(block[6:]) for block in reply.body.decode().split("\n\n") if block.startswith("data: ")]
        assert len(blocks) == 2002 and blocks[-1]["type"] == "parrot:done"
        assert [block["call"] for block in blocks[1:-1]] == [f"{n}" for n in range(2000)]


async def test_after_all_of_that_no_call_is_left_running(server: Live) -> None:
    assert server.manager.open_calls == 0
    server.manager.check()
