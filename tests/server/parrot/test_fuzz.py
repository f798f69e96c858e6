"""Whatever a body says, the answer is an answer or a 4xx in the envelope, and nothing of a refusal is left."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parrot_compat.server.parrot.calls_schema import CallsRequest
from parrot_compat.server.parrot.graphs_schema import GraphRequest, PlannedRequest
from parrot_compat.server.sessions.object_schema import ParrotObject, Span, StageObject
from tests.server.live import Live, send
from tests.server.test_fuzz import VALUES

from .graphs import CHAT, GRAPHS, SESSIONS

IDS = st.sampled_from(["a", "b", "c"])
REFS = st.fixed_dictionaries(
    {"type": st.just("parrot:ref")},
    optional={"call": IDS | VALUES, "variable": VALUES, "transform": st.sampled_from(["strip", "x"]) | VALUES},
)
TEXTS = st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=5)})
CONTENT = st.text(max_size=5) | st.lists(REFS | TEXTS, min_size=1, max_size=3)
MESSAGES = st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": CONTENT}), min_size=1, max_size=2)


def some(schema: Any, **known: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    fields = {field.alias or name: VALUES for name, field in schema.model_fields.items()}
    return st.fixed_dictionaries(known, optional={name: fields[name] for name in fields if name not in known})


REQUESTS = st.fixed_dictionaries(
    {"messages": MESSAGES | VALUES}, optional={name: VALUES for name in ("n", "stream", "parrot", "model", "seed", "x")}
)
CALLS = st.lists(some(PlannedRequest, id=IDS, request=REQUESTS | VALUES), max_size=3)
PLAIN_CALLS = st.lists(
    st.fixed_dictionaries({"id": IDS, "request": st.fixed_dictionaries({"messages": MESSAGES})}), max_size=3
)
OBJECTS = some(
    ParrotObject,
    inputs=st.lists(some(Span, name=st.just("x")), max_size=2) | VALUES,
    stage=some(StageObject) | VALUES,
    claim=st.just("a") | VALUES,
)


async def must_be_sane(server: Live, path: str, body: dict[str, Any], statuses: tuple[int, ...]) -> Any:
    reply = await send(server, "POST", path, body)
    assert reply.status in statuses, reply.body
    if reply.status != 200:
        assert reply.error["message"]
    return reply


async def clear(server: Live) -> None:
    for session in server.manager.sessions():
        await session.close()
    assert server.manager.open_calls == 0
    server.manager.check()


QUIET = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@QUIET
@given(body=some(GraphRequest, calls=PLAIN_CALLS | CALLS) | st.fixed_dictionaries({"calls": PLAIN_CALLS}))
async def test_any_graph(server: Live, body: dict[str, Any]) -> None:
    before = len(server.manager.sessions())
    reply = await must_be_sane(server, GRAPHS, body, (200, 400, 404))
    if reply.status != 200 and not body.get("session"):
        assert len(server.manager.sessions()) == before
    await clear(server)


@QUIET
@given(said=OBJECTS)
async def test_any_parrot_object(server: Live, said: dict[str, Any]) -> None:
    body = {"messages": [{"role": "user", "content": "count"}], "parrot": said}
    await must_be_sane(server, CHAT, body, (200, 400))
    await clear(server)


@QUIET
@given(messages=MESSAGES)
async def test_any_reference(server: Live, messages: list[Any]) -> None:
    body = {"messages": messages, "parrot": {"session": "fuzz"}}
    await must_be_sane(server, CHAT, body, (200, 400, 404))
    await clear(server)


@QUIET
@given(
    body=some(
        CallsRequest,
        template=st.sampled_from(["{{output:y}}", "{{input:x}}{{output:y}} {{output:z}}", "{{", "x"]),
        bindings=st.fixed_dictionaries({"x": st.text(max_size=3) | VALUES}) | VALUES,
        model=st.none(),
    )
)
async def test_any_call(server: Live, body: dict[str, Any]) -> None:
    session = (await send(server, "POST", SESSIONS, {})).json()["id"]
    await must_be_sane(server, f"{SESSIONS}/{session}/calls", body, (200, 400, 404))
    await clear(server)
