"""Requests: from the body of a chat or of a completion to what it asks, by checks in one order.

It knows nothing of where calls are made or of how answers are told: a chat may be answered now, planned, or counted.

The invariant: whoever reads a request, what is wrong with it is said in the same words, and of several faults the same
one; equal bodies ask the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.datastructures import Headers

from parrot_compat.core.call import Reading, Sampling
from parrot_compat.core.manager import ModelCard
from parrot_compat.core.prompt import ChatPrompt
from parrot_compat.core.rendering import about_tokens
from parrot_compat.server.hints import Hints
from parrot_compat.server.serving import Serving
from parrot_compat.server.sessions.asking import Ask, read_ask

from .chat_schema import ChatRequest, Resolve, chat_prompt, no_references
from .completions_schema import CompletionRequest
from .tools import Tool, ToolUse, reading_of

__all__ = ["ReadChat", "read_chat", "read_request"]

_NO_HEADERS = Headers({})


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadChat:
    """A chat that has been checked. What is said of its form and its prompt is found out where it is asked for: a
    prompt may have to wait for its session, and counting needs no form."""

    serving: Serving
    body: ChatRequest
    ask: Ask
    card: ModelCard
    use: ToolUse | None
    """Of tools; `None`: not at all."""

    def sampling(self) -> Sampling:
        """Of the first choice, held to what its tools need. Errors: `ApiError` 400, `BadSchema`."""
        own = self.body.sampling()
        held = own if self.use is None else self.use.held(own, self.card.obeys_formats)
        self.serving.check_tokens(self.card.name, held)
        return held

    def reading(self, sampling: Sampling) -> Reading:
        """What is read out of an answer that was drawn so."""
        return reading_of(self.use, sampling.format)

    def prompt(self, resolve: Resolve = no_references) -> ChatPrompt:
        """Errors: `ApiError`."""
        template = self.body.template_values(self.serving.template_variables(self.card.name), self.ask.hints)
        return chat_prompt(self.body.messages, resolve, tools=self._offered(), template=template)

    async def count(self) -> int:
        """The tokens of its prompt, which must not wait for anything. Errors: `ApiError`, those of `Encoder.run`."""
        content, tokenizer = self.prompt().bind({}), self.serving.tokenizer(self.card.name)
        return await self.serving.encoder.run(
            self.ask.tenant, about_tokens(content), lambda: len(tokenizer.encode(content))
        )

    def _offered(self) -> list[Tool] | None:
        """The tools that the prompt tells of. Another server would call those that it is told of, so it is told of what
        may be called; ours are read by the model as it was trained, whatever may be called, and stay cached."""
        if self.serving.manager.tokenizer(self.card.name) is not None:
            return self.body.tools
        use = self.use
        return None if use is None else [tool for tool in self.body.tools or () if use.may_call(tool.function.name)]


def read_chat(
    serving: Serving, body: ChatRequest, hints: Hints, headers: Headers = _NO_HEADERS, tenant: str = ""
) -> ReadChat:
    """One that nobody has sent by itself has no headers and no tenant. Errors: those of `read_request`, `BadSchema` for
    tools that no call could be made of."""
    ask, card = read_request(serving, body, hints, headers, tenant)
    use = body.tool_use(serving.tool_style_of(card.name))
    return ReadChat(serving=serving, body=body, ask=ask, card=card, use=use)


def read_request(
    serving: Serving, body: ChatRequest | CompletionRequest, hints: Hints, headers: Headers, tenant: str
) -> tuple[Ask, ModelCard]:
    """What every such request says of itself, and the model that it asks. Errors: `ApiError`, `NoEngineForModel`."""
    body.check(serving.limits)
    hints.ignored(*body.ignored())
    ask = read_ask(body, headers, tenant, body.texts(), hints)
    return ask, serving.card(body.model)
