"""Rendering: a prompt with its values becomes what an engine takes, with what placement wants to know of it.

It knows nothing of sessions, and of the fleet only the tokenizers and the lengths of contexts.

The invariants: the ids are the tokenizer's for the whole content at once, never pieces put together; no more large
prompts are made at a time than there are threads for them, and none that nobody waits for any more.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, assert_never

from .errors import ParrotError, PromptTooLong
from .fleet import Fleet
from .prefix import CHARS_PER_TOKEN, content_text, text_blocks, token_blocks
from .prompt import (
    Bound,
    Chat,
    ChatPrompt,
    Constant,
    Content,
    Input,
    Prompt,
    Text,
    TextPrompt,
    Tokens,
    TokensPrompt,
    segments_of,
)
from .threads import Threads
from .tokenizer import Tokenizer
from .transform import Regex

__all__ = ["Rendered", "Renderer", "about_tokens", "refuse_too_long"]

_log = logging.getLogger(__name__)

_LARGE_CHARS = 8192  # 1.7 ms of encoding, measured with a 4k BPE on one core; a thread costs 0.05 ms
_LARGE_SEARCH = 1 << 18  # 1.8 ms
_THREADS = 2
"""For prompts: encoding holds the interpreter up in part, and the event loop is to have its share."""


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
        self._threads = Threads(_THREADS, "prompts")

    @staticmethod
    def is_large(of: Content | Bound) -> bool:
        """True where encoding would hold the event loop up for milliseconds, so that a thread should do it. Of what is
        not put together yet values count as they are before their transforms, which read all of it."""
        match of:
            case Bound(TokensPrompt(ids)) | Tokens(ids):
                return len(ids) > _LARGE_CHARS * 8  # ids are only checked and hashed
            case Bound(prompt):
                read = of.characters
                return (
                    read > _LARGE_CHARS
                    or _search_work(of) > _LARGE_SEARCH
                    or _is_longer(_parts_beside_text(prompt), _LARGE_CHARS - read)
                )
            case Text(text):
                return len(text) > _LARGE_CHARS
            case Chat():
                return _is_longer(_parts(of), _LARGE_CHARS)
            case _:
                assert_never(of)

    def render(self, content: Content, model: str, namespace: str) -> Rendered:
        """On the event loop: for prompts that are not large. Errors: `BadPrompt`, `PromptTooLong`."""
        return self._fitting(_rendered(content, self._fleet.tokenizer(model), namespace), model)

    async def render_any(self, content: Content, model: str, namespace: str) -> Rendered:
        """As `render`, large ones in a thread: a tokenizer must bear being used by several threads at once. Errors:
        those, and `QueueFull` when closed."""
        if not self.is_large(content):
            return self.render(content, model, namespace)
        tokenizer = self._fleet.tokenizer(model)
        return self._fitting(await self._threads.run(partial(_rendered, content, tokenizer, namespace)), model)

    async def render_bound(self, bound: Bound, model: str, namespace: str) -> Rendered:
        """As `render_any`; what is large is put together in the thread too: a transform may read megabytes. Errors:
        those, and `TransformFailed`."""
        if not self.is_large(bound):
            return await self.render_any(bound.content(), model, namespace)
        tokenizer = self._fleet.tokenizer(model)
        return self._fitting(await self._threads.run(partial(_rendered_bound, bound, tokenizer, namespace)), model)

    async def render_input(self, content: Content, model: str, namespace: str) -> Rendered:
        """What is to be embedded: it may fill the whole context. Errors: as `render_any`."""
        tokenizer = self._fleet.tokenizer(model)
        if self.is_large(content):
            rendered = await self._threads.run(partial(_rendered, content, tokenizer, namespace))
        else:
            rendered = _rendered(content, tokenizer, namespace)
        limit = self._fleet.context_tokens(model)
        if rendered.ids is not None and limit is not None and rendered.prompt_tokens > limit:
            raise PromptTooLong(
                f"prompt is too long: {rendered.prompt_tokens} tokens to embed;"
                f" the context of model {model!r} is {limit} tokens"
            )
        return rendered

    async def close(self, why: str) -> None:
        """No large prompt is made any more; who waits for one hears `why`. Returns when those begun are made."""
        await self._threads.close(why)

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


def _parts_beside_text(prompt: Prompt) -> Iterator[Mapping[str, Any]]:
    """As `_parts`, without the texts that are not put together yet."""
    if isinstance(prompt, ChatPrompt):
        for message in prompt.messages:
            yield {"role": message.role, "content": None if message.content is None else "", **message.fields}
        yield from prompt.tools
        yield prompt.template


def _search_work(bound: Bound) -> int:
    """Of all regexes that its values go through, see `Regex.work`."""
    return sum(
        transform.work(len(bound.values[segment.variable]))
        for segment in segments_of(bound.prompt)
        if isinstance(segment, Input)
        for transform in segment.transforms
        if isinstance(transform, Regex)
    )


def _is_longer(parts: Iterable[Mapping[str, Any]], most: int) -> bool:
    for part in parts:  # counted as far as it matters: there may be megabytes
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
