"""Rendering: a prompt with its values becomes what an engine takes, with what placement wants to know of it.

It knows nothing of sessions or engines; the tokenizer is given.

The invariant: the ids are the tokenizer's for the whole content at once, never pieces put together.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from .prefix import content_text, text_blocks, token_blocks
from .prompt import Chat, Content, Text, Tokens
from .tokenizer import Tokenizer

__all__ = ["Rendered", "is_large", "render", "render_large"]

_LARGE_CHARS = 8192  # see is_large


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    content: Content
    ids: tuple[int, ...] | None
    """Prompt ids; `None` where only text engines serve the model."""
    prompt_tokens: int
    """Exact where there are ids, else a guess from the length of the text."""
    blocks: tuple[int, ...]
    """Hashes of the prompt's prefixes, see `prefix`."""


def is_large(content: Content) -> bool:
    """True where encoding would hold the event loop up for milliseconds, so that a thread should do it."""
    match content:
        case Text(text):
            return len(text) > _LARGE_CHARS
        case Tokens(ids):
            return len(ids) > _LARGE_CHARS * 8  # ids are only checked and hashed
        case Chat(messages, tools):
            size = sum(len(value) for message in messages for value in message.values() if isinstance(value, str))
            return size + 1024 * len(tools) > _LARGE_CHARS


def render(content: Content, tokenizer: Tokenizer | None, namespace: str) -> Rendered:
    """Errors: `BadPrompt`."""
    if tokenizer is not None:
        ids = tokenizer.encode(content)
        return Rendered(content=content, ids=ids, prompt_tokens=len(ids), blocks=token_blocks(namespace, ids))
    if isinstance(content, Tokens):
        blocks, prompt_tokens = token_blocks(namespace, content.ids), len(content.ids)
    else:
        text = content_text(content)
        blocks, prompt_tokens = text_blocks(namespace, text), len(text) // 4
    return Rendered(content=content, ids=None, prompt_tokens=prompt_tokens, blocks=blocks)


async def render_large(content: Content, tokenizer: Tokenizer | None, namespace: str) -> Rendered:
    """As `render`, in a thread: the tokenizer must bear being used by several threads at once."""
    return await asyncio.to_thread(render, content, tokenizer, namespace)
