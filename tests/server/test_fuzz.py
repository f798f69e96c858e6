"""Whatever a body says, the answer is an answer or a 4xx in the envelope, and the server goes on."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parrot_compat.server.openai.chat_schema import ChatMessage, ChatRequest, ContentPart
from parrot_compat.server.openai.completions_schema import CompletionRequest
from parrot_compat.server.openai.sampling_schema import NOT_YET

from .live import Live, send

NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0, 1, -1, 2**63]))
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8), st.sampled_from(["user", "text", "none"]))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
PARTS = st.fixed_dictionaries({}, optional={name: VALUES for name in [*ContentPart.model_fields, "image_url"]})
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "root"])},
    optional={name: VALUES | st.lists(PARTS, max_size=2) for name in ChatMessage.model_fields if name != "role"},
)
PLAIN = st.just([{"role": "user", "content": "count"}])


def bodies(schema: Any, **known: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    names = [name for name in [*schema.model_fields, *NOT_YET, "unknown"] if name not in known]
    return st.fixed_dictionaries(known, optional={name: VALUES for name in names})


async def must_be_sane(server: Live, path: str, body: dict[str, Any]) -> None:
    reply = await send(server, "POST", path, body)
    assert reply.status in (200, 400), reply.body
    if reply.status == 400:
        assert reply.error["message"]
    assert server.manager.open_calls == 0


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=bodies(ChatRequest, messages=PLAIN | st.lists(MESSAGES, max_size=2), model=st.none()))
async def test_any_chat(server: Live, body: dict[str, Any]) -> None:
    await must_be_sane(server, "/v1/chat/completions", body)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=bodies(CompletionRequest, prompt=st.just("count") | VALUES, model=st.none()))
async def test_any_text(server: Live, body: dict[str, Any]) -> None:
    await must_be_sane(server, "/v1/completions", body)


@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=64))
async def test_any_bytes(server: Live, body: bytes) -> None:
    for path in ("/v1/chat/completions", "/tokenize"):
        reply = await send(server, "POST", path, body)
        assert reply.status == 400
        assert reply.error["type"] == "invalid_request_error"
