"""Conversing: the calls that answer a chat are begun, whichever endpoint it came by.

It knows nothing of how answers are told. Whatever is wrong with the request is said before anything runs.

The invariant: equal bodies make equal calls.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from starlette.datastructures import Headers

from parrot_compat.server.hints import Hints
from parrot_compat.server.serving import Serving
from parrot_compat.server.sessions.rooms import Begun, entered

from .answering import AnswerHead, answer_head
from .chat_schema import ChatRequest
from .requests import read_chat

__all__ = ["Conversation", "converse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A chat whose calls have begun."""

    answer: AnswerHead
    model: str
    """As it is served."""
    begun: Begun
    tells_ids: bool

    def prompt_ids(self) -> list[int] | None:
        """Where they are asked for and known: a prompt that has holes is none yet."""
        ids = self.known_ids() if self.tells_ids else None
        return None if ids is None else list(ids)

    def known_ids(self) -> tuple[int, ...] | None:
        """Those of the prompt, asked for or not."""
        rendered = self.begun.tasks[0].rendered
        return None if rendered is None else rendered.ids


async def converse(
    serving: Serving, body: ChatRequest, headers: Headers, tenant: str, hints: Hints, kind: str, stack: AsyncExitStack
) -> Conversation:
    """Begin the calls; they are over at the latest when `stack` is closed. Errors: `ApiError`, those of `submit_all`.

    `kind` is what the answer is called."""
    chat = read_chat(serving, body, hints, headers, tenant)
    with body.naming_format():
        first = chat.sampling()
    room = await stack.enter_async_context(entered(serving.manager, serving.directory, chat.ask))
    prompt = chat.prompt(room.resolve)
    wanted = [(prompt, replace(first, seed=body.seed_of(choice))) for choice in range(body.n or 1)]
    model, tells_ids = chat.card.name, bool(body.return_token_ids)
    if tells_ids:
        serving.tokenizer(model)
    answer = answer_head(serving, "chatcmpl", kind, body.model or model, body.service_tier)
    with body.naming_format():
        begun = await stack.enter_async_context(room.begun(answer.id, model, wanted, chat.reading(first)))
    return Conversation(answer=answer, model=model, begun=begun, tells_ids=tells_ids)
