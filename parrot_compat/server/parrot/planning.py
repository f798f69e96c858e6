"""From the body of a graph to planned calls, and from a settled call to what a push says of it.

It knows nothing of HTTP. A planned call is answered by the code that answers a plain one.

The invariant: the `request` of a push is the body as it was given, but that references are the text they stood for.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parrot_compat.core.call import Call, CallId, VariableName
from parrot_compat.core.errors import NoEngineForModel, ParrotError
from parrot_compat.core.plan_facts import PlannedCall, Settled
from parrot_compat.core.prompt import Chat, Content
from parrot_compat.server.amounts import pieces_in
from parrot_compat.server.bodies import forget_unknown
from parrot_compat.server.errors import problem_of, within
from parrot_compat.server.hints import Hints
from parrot_compat.server.openai.answering import answer_head
from parrot_compat.server.openai.chat import completion, writer_of
from parrot_compat.server.openai.chat_schema import REF
from parrot_compat.server.openai.requests import read_chat
from parrot_compat.server.serving import Serving
from parrot_compat.server.sessions.directory import Known
from parrot_compat.server.sessions.references import References

from .deferred import call_exists
from .graphs_schema import GraphRequest, PlannedRequest

__all__ = ["Planned", "drawn_variable", "planned_calls", "push", "resolved"]

_AT_ONCE = 32
"""Requests that are read before others have their turn: some 3 ms."""
_PIECES = 128
"""Of a larger request, that take as long as a small one."""


def drawn_variable() -> VariableName:
    return VariableName(f"var-{secrets.token_hex(8)}")


@dataclass(frozen=True, slots=True)
class Planned:
    call: PlannedCall
    notes: dict[str, Any]
    """What its app said of it and only people read."""


async def planned_calls(serving: Serving, known: Known, graph: GraphRequest, is_apart: bool) -> list[Planned]:
    """Errors: those of a plain request, with `calls[i].request` before the field; `ApiError` 409 for a call that the
    session has already."""
    outputs = {planned.id: drawn_variable() for planned in graph.calls}
    references = References(known, outputs, is_apart=is_apart)
    calls: list[Planned] = []
    read = 0
    for index, planned in enumerate(graph.calls):
        read += 1 + pieces_in(planned.request, _AT_ONCE * _PIECES) // _PIECES
        if read >= _AT_ONCE:
            await asyncio.sleep(0)
            read = 0
        if known.has_call(planned.id):
            raise call_exists(f"calls[{index}].id", planned.id)
        call, notes = _read(serving, planned, f"calls[{index}]", references, outputs[planned.id])
        told = planned.request if graph.stream else {}  # only a push tells it
        calls.append(Planned(PlannedCall(call=call, body=told), notes))
    return calls


def _read(
    serving: Serving, planned: PlannedRequest, path: str, references: References, output: VariableName
) -> tuple[Call, dict[str, Any]]:
    """The call, and what only people read. Errors: `ApiError`, naming the field."""
    body = planned.read(path)
    try:
        chat = read_chat(serving, body, Hints())  # what a plain request would be refused for
        sampling, prompt = chat.sampling(), chat.prompt(references)
    except NoEngineForModel as error:
        raise within(error, f"{path}.request.model") from None
    except ParrotError as error:
        raise within(error, f"{path}.request") from None
    ask = chat.ask
    stage = planned.stage or ask.said.stage
    if stage is not None:
        forget_unknown(stage)  # the session keeps it
    call = Call(
        id=CallId(planned.id),
        prompt=prompt,
        output=output,
        sampling=sampling,
        model=chat.card.name,
        function=planned.function or ask.said.function,
        objective=ask.objective,
        stage=None if stage is None else stage.stage(),
        reading=chat.reading(sampling),
    )
    notes = ask.notes() | ({} if stage is None else {"stage": stage.model_dump(exclude_none=True)})
    return call, notes


def push(serving: Serving, settled: Settled) -> dict[str, Any]:
    """The event of a call that is over."""
    task = settled.task
    if task.result is None:
        assert task.failure is not None
        return {"type": "parrot:failed", "call": settled.call, **problem_of(task.failure).envelope()}
    answer = answer_head(serving, "chatcmpl", "chat.completion", settled.body.get("model") or task.model)
    ids = None if task.rendered is None else task.rendered.ids
    tells_ids = bool(settled.body.get("return_token_ids"))
    writer = writer_of(serving, task) if task.call.sampling.logprobs is not None else None
    return {
        "type": "parrot:call",
        "call": settled.call,
        "request": resolved(settled.body, settled.content),
        "completion": completion(answer, [task.result], ids, tells_ids, writer),
    }


def resolved(body: Mapping[str, Any], content: Content | None) -> dict[str, Any]:
    """The body with its references replaced by what they stood for when it ran; all else as it was given."""
    assert isinstance(content, Chat)
    messages = [
        message | {"content": said["content"]} if _has_reference(message) else message
        for message, said in zip(body["messages"], content.messages, strict=True)
    ]
    return {**body, "messages": messages}


def _has_reference(message: Mapping[str, Any]) -> bool:
    parts = message.get("content")
    return isinstance(parts, list) and any(part.get("type") == REF for part in parts)
