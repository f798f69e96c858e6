"""What the tests of /v1/responses share: requests, and answers that are checked by our description and by OpenAI's."""

from __future__ import annotations

import json
from typing import Any

from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from parrot_compat.core.engines.char_tokenizer import CharTokenizer
from parrot_compat.core.output_format import ReasoningStyle
from parrot_compat.server.responses.answers_schema import ResponseAnswer, ResponseEvent
from tests.server.live import Live, Reply, send

PATH = "/v1/responses"
HELLO = "the capital of France"
ADD = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "é"}}\n</tool_call>'
SCHEMA = {"type": "object", "properties": {"a": {}, "b": {}}}
TOOL: dict[str, Any] = {"type": "function", "name": "add", "description": "Adds.", "parameters": SCHEMA}
CALLS = {"Add": f"I add.\n{ADD}\n{ADD}"}
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


class Thinking(CharTokenizer):
    reasoning_style: ReasoningStyle = "think"


async def ask(server: Live, input: Any = HELLO, **change: Any) -> dict[str, Any]:
    reply = await send(server, "POST", PATH, {"input": input} | change)
    assert reply.status == 200, reply.body
    answer: dict[str, Any] = reply.json()
    ResponseAnswer.model_validate(answer)
    Response.model_validate(answer, strict=True)
    return answer


def events_of(reply: Reply) -> list[dict[str, Any]]:
    """Of a stream; each event is named as its data says, has its number, and is as it is described."""
    events = []
    for block in reply.body.decode().strip().split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}" and event["sequence_number"] == len(events)
        ResponseEvent.model_validate(event)
        EVENTS.validate_python(event, strict=True)
        events.append(event)
    return events


async def streamed(server: Live, input: Any = HELLO, **change: Any) -> list[dict[str, Any]]:
    reply = await send(server, "POST", PATH, {"input": input, "stream": True} | change)
    assert reply.headers["content-type"].startswith("text/event-stream")
    return events_of(reply)


def said(answer: dict[str, Any]) -> str:
    """The text of its messages."""
    parts = [part for item in answer["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(part.get("text", "") for part in parts)


def without_names(value: Any) -> Any:
    """An answer, but for what is another in each: ids and times."""
    if isinstance(value, dict):
        names = {"id", "call", "call_id", "item_id", "created_at", "completed_at", "queue_ms", "cached_tokens"}
        return {name: without_names(member) for name, member in value.items() if name not in names}
    return [without_names(member) for member in value] if isinstance(value, list) else value
