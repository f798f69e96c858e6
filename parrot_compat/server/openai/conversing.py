"""Conversing: from the body of a chat to the calls that answer it, whichever endpoint it came by.

It knows nothing of how answers are told. Whatever is wrong with the request is said before anything runs.

The invariant: equal bodies make equal calls.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from starlette.datastructures import Headers

from parrot_compat.core.errors import BadSchema
from parrot_compat.core.prompt import ChatPrompt
from parrot_compat.server.errors import invalid
from parrot_compat.server.hints import Hints
from parrot_compat.server.serving import Serving
from parrot_compat.server.sessions.asking import read_ask
from parrot_compat.server.sessions.rooms import Begun, entered

from .answering import AnswerHead, answer_head
from .chat_schema import ChatRequest, Resolve, chat_prompt, message_texts, no_references
from .tools import Tool, ToolUse, reading_of

__all__ = ["Conversation", "converse", "prompt_ids", "prompt_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A chat whose calls have begun."""

    answer: AnswerHead
    model: str
    """As it is served."""
    begun: Begun
    prompt_ids: list[int] | None
    """Where they were asked for and are known: a prompt that has holes is none yet."""


async def converse(
    serving: Serving, body: ChatRequest, headers: Headers, tenant: str, hints: Hints, kind: str, stack: AsyncExitStack
) -> Conversation:
    """Begin the calls; they are over at the latest when `stack` is closed. Errors: `ApiError`, those of `submit_all`.

    `kind` is what the answer is called."""
    body.check(serving.limits)
    hints.ignored(*body.ignored())
    ask = read_ask(body, headers, tenant, message_texts(body.messages), hints)
    card = serving.card(body.model)
    use = body.tool_use(serving.tool_style_of(card.name))
    first = body.sampling() if use is None else use.held(body.sampling(), card.obeys_formats)
    serving.check_tokens(card.name, first)
    room = await stack.enter_async_context(entered(serving.manager, serving.directory, ask))
    prompt = prompt_of(serving, card.name, body, use, hints, room.resolve)
    wanted = [(prompt, replace(body.sampling(choice), format=first.format)) for choice in range(body.n or 1)]
    known = await prompt_ids(serving, card.name, prompt) if body.return_token_ids else None
    answer = answer_head(serving, "chatcmpl", kind, body.model or card.name, body.service_tier)
    try:
        begun = await stack.enter_async_context(room.begun(answer.id, card.name, wanted, reading_of(use, first.format)))
    except BadSchema as error:
        raise invalid(body.format_field(), error.message, "invalid_schema") from None
    return Conversation(answer=answer, model=card.name, begun=begun, prompt_ids=known)


def prompt_of(
    serving: Serving, model: str, body: ChatRequest, use: ToolUse | None, hints: Hints, resolve: Resolve = no_references
) -> ChatPrompt:
    """Of a body that has been checked and uses tools so. Errors: `ApiError`."""
    tools = _offered(serving, model, body.tools, use)
    template = body.template_values(serving.template_variables(model), hints)
    return chat_prompt(body.messages, resolve, tools=tools, template=template)


def _offered(serving: Serving, model: str, tools: list[Tool] | None, use: ToolUse | None) -> list[Tool] | None:
    """The tools that the prompt tells of. Another server would call those that it is told of, so it is told of what
    may be called; ours are read by the model as it was trained, whatever may be called, and stay cached."""
    if serving.manager.tokenizer(model) is not None:
        return tools
    return None if use is None else [tool for tool in tools or () if use.may_call(tool.function.name)]


async def prompt_ids(serving: Serving, model: str, prompt: ChatPrompt) -> list[int] | None:
    """`None` where the prompt has holes: its ids are known once they are filled. Errors: `ApiError` 400."""
    tokenizer = serving.tokenizer(model)
    return None if prompt.inputs() else list(await asyncio.to_thread(tokenizer.encode, prompt.bind({})))
