"""Whatever a body of /v1/responses says, the answer is an answer or a 400 in the envelope, and the server goes on."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parrot_compat.server.responses.items_schema import CallItem, CallOutputItem, ItemPart, SaidItem, ThoughtItem
from parrot_compat.server.responses.responses_schema import ResponsesRequest, ResponseTool, TextFormat
from tests.server.live import Live
from tests.server.test_fuzz import SCALARS, VALUES, bodies, must_be_sane

KINDS = st.sampled_from(["input_text", "output_text", "refusal", "reasoning_text", "parrot:ref", "input_image"])
PARTS = st.fixed_dictionaries(
    {"type": KINDS}, optional={name: SCALARS for name in sorted(set(ItemPart.model_fields) - {"type"})}
)
FIELDS = {name for item in (SaidItem, CallItem, CallOutputItem, ThoughtItem) for name in item.model_fields}
ITEMS = st.fixed_dictionaries(
    {"type": st.sampled_from(["message", "function_call", "function_call_output", "reasoning", "item_reference"])},
    optional={
        name: st.text(max_size=3) | st.lists(PARTS, max_size=2) | VALUES for name in sorted(FIELDS - {"type", "role"})
    }
    | {"role": st.sampled_from(["system", "developer", "user", "assistant"])},
)
TOOLS = st.fixed_dictionaries(
    {"type": st.sampled_from(["function", "mcp"])},
    optional={name: VALUES for name in sorted(set(ResponseTool.model_fields) - {"type"})},
)
TEXT = st.fixed_dictionaries(
    {}, optional={"format": st.dictionaries(st.sampled_from([*TextFormat.model_fields]), VALUES)}
)
KNOWN: dict[str, Any] = {
    "input": st.just("count") | st.lists(ITEMS, max_size=3),
    "tools": st.none() | st.lists(TOOLS, max_size=2),
    "text": TEXT,
    "model": st.none(),
}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(body=bodies(ResponsesRequest, **KNOWN))
async def test_any_response(server: Live, body: dict[str, Any]) -> None:
    await must_be_sane(server, "/v1/responses", body)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(input=st.lists(ITEMS, max_size=4), stream=st.booleans())
async def test_any_items(server: Live, input: list[dict[str, Any]], stream: bool) -> None:
    await must_be_sane(server, "/v1/responses", {"input": input, "stream": stream})
