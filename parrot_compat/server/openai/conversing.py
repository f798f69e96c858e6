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
from parrot_compat.server.parrot.asking import read_ask
from parrot_compat.server.parrot.rooms import Begun, entered

from .chat_schema import ChatRequest, Resolve, chat_prompt, message_texts, no_references
from .serving import AnswerHead, Serving
from .tools import ToolUse, reading_of

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
    answer = serving.answer("chatcmpl", kind, body.model or card.name, body.service_tier)
    try:
        begun = await stack.enter_async_context(room.begun(answer.id, card.name, wanted, reading_of(use, first.format)))
    except BadSchema as error:
        raise invalid(body.format_field(), error.message, "invalid_schema") from None
    return Conversation(answer=answer, model=card.name, begun=begun, prompt_ids=known)


def prompt_of(
    serving: Serving, model: str, body: ChatRequest, use: ToolUse | None, hints: Hints, resolve: Resolve = no_references
) -> ChatPrompt:
    """Of a body that has been checked and uses tools so. Errors: `ApiError`."""
    tools = serving.offered(model, body.tools, use)
    template = body.template_values(serving.template_variables(model), hints)
    return chat_prompt(body.messages, resolve, tools=tools, template=template)


async def prompt_ids(serving: Serving, model: str, prompt: ChatPrompt) -> list[int] | None:
    """`None` where the prompt has holes: its ids are known once they are filled. Errors: `ApiError` 400."""
    tokenizer = serving.tokenizer(model)
    return None if prompt.inputs() else list(await asyncio.to_thread(tokenizer.encode, prompt.bind({})))
