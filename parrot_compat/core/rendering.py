"""Rendering: a prompt with its values becomes what an engine takes, with what placement wants to know of it.

It knows nothing of sessions, and of the fleet only the tokenizers and the lengths of contexts.

The invariant: the ids are the tokenizer's for the whole content at once, never pieces put together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from .errors import ParrotError, PromptTooLong
from .fleet import Fleet
from .prefix import CHARS_PER_TOKEN, content_text, text_blocks, token_blocks
from .prompt import Bound, Chat, ChatPrompt, Constant, Content, Prompt, Text, TextPrompt, Tokens, TokensPrompt
from .tokenizer import Tokenizer

__all__ = ["Rendered", "Renderer", "about_tokens", "refuse_too_long"]

_log = logging.getLogger(__name__)

_LARGE_CHARS = 8192  # 1.7 ms of encoding, measured with a 4k BPE on one core; a thread costs 0.05 ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    content: Content
    ids: tuple[int, ...] | None
    """Prompt ids; `None` where only text engines serve the model."""
    prompt_tokens: int
    """Exact where there are ids, else a guess from the length of the text."""
    blocks: tuple[int, ...]
    """Hashes of the prompt's prefixes, see `prefix`."""


class Renderer:
    """Renders for the models of a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    @staticmethod
    def is_large(of: Content | Bound) -> bool:
        """True where encoding would hold the event loop up for milliseconds, so that a thread should do it."""
        match of:
            case Bound():
                return of.characters > _LARGE_CHARS or Renderer.is_large(of.content())
            case Tokens(ids):
                return len(ids) > _LARGE_CHARS * 8  # ids are only checked and hashed
            case Text(text):
                return len(text) > _LARGE_CHARS
            case Chat():
                return _is_longer(of, _LARGE_CHARS)
            case _:
                assert_never(of)

    def render(self, content: Content, model: str, namespace: str) -> Rendered:
        """On the event loop: for prompts that are not large. Errors: `BadPrompt`, `PromptTooLong`."""
        return self._fitting(_rendered(content, self._fleet.tokenizer(model), namespace), model)

    async def render_any(self, content: Content, model: str, namespace: str) -> Rendered:
        """As `render`, large ones in a thread: a tokenizer must bear being used by several threads at once."""
        if not self.is_large(content):
            return self.render(content, model, namespace)
        tokenizer = self._fleet.tokenizer(model)
        return self._fitting(await asyncio.to_thread(_rendered, content, tokenizer, namespace), model)

    async def render_bound(self, bound: Bound, model: str, namespace: str) -> Rendered:
        """As `render_any`; what is large is put together in the thread too: a transform may read megabytes. Errors:
        those, and `TransformFailed`."""
        if bound.characters <= _LARGE_CHARS:
            return await self.render_any(bound.content(), model, namespace)
        tokenizer = self._fleet.tokenizer(model)
        return self._fitting(await asyncio.to_thread(_rendered_bound, bound, tokenizer, namespace), model)

    async def render_input(self, content: Content, model: str, namespace: str) -> Rendered:
        """What is to be embedded: it may fill the whole context. Errors: `BadPrompt`, `PromptTooLong`."""
        tokenizer = self._fleet.tokenizer(model)
        if self.is_large(content):
            rendered = await asyncio.to_thread(_rendered, content, tokenizer, namespace)
        else:
            rendered = _rendered(content, tokenizer, namespace)
        limit = self._fleet.context_tokens(model)
        if rendered.ids is not None and limit is not None and rendered.prompt_tokens > limit:
            raise PromptTooLong(
                f"prompt is too long: {rendered.prompt_tokens} tokens to embed;"
                f" the context of model {model!r} is {limit} tokens"
            )
        return rendered

    def _fitting(self, rendered: Rendered, model: str) -> Rendered:
        if rendered.ids is not None:
            refuse_too_long(rendered.prompt_tokens, model, self._fleet.context_tokens(model))
        return rendered


def about_tokens(of: Prompt | Content) -> int:
    """A guess, before anything is rendered, from what is known of a prompt before its inputs have their values."""
    match of:
        case TokensPrompt(ids) | Tokens(ids):
            return len(ids)
        case TextPrompt(segments):
            return sum(len(segment.text) for segment in segments if isinstance(segment, Constant)) // CHARS_PER_TOKEN
        case ChatPrompt(messages, tools):
            texts = (part.text for message in messages for part in message.content or () if isinstance(part, Constant))
            others = sum(_chars_in(message.fields) for message in messages) + _chars_in(tools)
            return (sum(map(len, texts)) + others) // CHARS_PER_TOKEN
        case Text(text):
            return len(text) // CHARS_PER_TOKEN
        case Chat():
            return sum(map(_chars_in, _parts(of))) // CHARS_PER_TOKEN
        case _:
            assert_never(of)


def _chars_in(value: Any) -> int:
    """Of all texts in it: calls of tools, reasoning, schemas."""
    match value:
        case str():
            return len(value)
        case Mapping():
            return sum(len(str(name)) + _chars_in(member) for name, member in value.items())
        case list() | tuple():
            return sum(map(_chars_in, value))
    return 1


def _parts(chat: Chat) -> Iterator[Mapping[str, Any]]:
    yield from chat.messages
    yield from chat.tools
    yield chat.template


def _is_longer(chat: Chat, most: int) -> bool:
    for part in _parts(chat):  # counted as far as it matters: there may be megabytes
        most -= _chars_in(part)
        if most < 0:
            return True
    return False


def refuse_too_long(prompt_tokens: int, model: str, context_tokens: int | None) -> None:
    """Errors: `PromptTooLong` where not even one token could be drawn."""
    if context_tokens is not None and prompt_tokens >= context_tokens:
        raise PromptTooLong(
            f"prompt is too long: {prompt_tokens} tokens leave no room for an answer"
            f" in the context of {context_tokens} tokens of model {model!r}"
        )


def _encoded(content: Content, tokenizer: Tokenizer) -> tuple[int, ...]:
    try:
        return tokenizer.encode(content)
    except ParrotError:
        raise
    except Exception as error:  # templates are code that came with a checkpoint: whatever they do, somebody is told
        _log.exception("the tokenizer failed on a prompt")
        raise ParrotError(f"the tokenizer failed on this prompt: {type(error).__name__}: {error}") from error


def _rendered(content: Content, tokenizer: Tokenizer | None, namespace: str) -> Rendered:
    if tokenizer is not None:
        ids = _encoded(content, tokenizer)
        return Rendered(content=content, ids=ids, prompt_tokens=len(ids), blocks=token_blocks(namespace, ids))
    if isinstance(content, Tokens):
        ids = content.ids
        return Rendered(content=content, ids=None, prompt_tokens=len(ids), blocks=token_blocks(namespace, ids))
    text = content_text(content)
    blocks = text_blocks(namespace, text)
    return Rendered(content=content, ids=None, prompt_tokens=len(text) // CHARS_PER_TOKEN, blocks=blocks)


def _rendered_bound(bound: Bound, tokenizer: Tokenizer | None, namespace: str) -> Rendered:
    return _rendered(bound.content(), tokenizer, namespace)
