"""Prefixes: what two prompts have in common from their start, found by hashes.

This module knows nothing of engines or of what is cached where. Two kinds of hash live here: over blocks of
what an engine reads (token ids or text), for placement; and at variable boundaries of a prompt, for the graph.

The invariant: a hash covers everything before it, so equal hashes mean equal prefixes. They steer placement
only; a collision could cost time, never an answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import assert_never

from .prompt import Chat, ChatPrompt, Constant, Content, Input, Prompt, Segment, Text, TextPrompt, Tokens, TokensPrompt

__all__ = [
    "BLOCK_TOKENS",
    "CHARS_PER_TOKEN",
    "boundary_hashes",
    "content_text",
    "opening_hash",
    "text_blocks",
    "token_blocks",
]

BLOCK_TOKENS = 32
"""Tokens per block hash: a prefix is known to within this many tokens, at 1/32 of the work of knowing it exactly."""

CHARS_PER_TOKEN = 4
"""A guess, of English text in the vocabularies of today: used only where a text engine counts by itself."""

_BLOCK_CHARS = BLOCK_TOKENS * CHARS_PER_TOKEN


def token_blocks(namespace: str, ids: Sequence[int]) -> tuple[int, ...]:
    """One hash per whole block of `BLOCK_TOKENS` ids, each covering the namespace and everything before it."""
    blocks: list[int] = []
    above = hash((namespace, "tokens"))
    for start in range(0, len(ids) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        above = hash((above, *ids[start : start + BLOCK_TOKENS]))
        blocks.append(above)
    return tuple(blocks)


def text_blocks(namespace: str, text: str) -> tuple[int, ...]:
    """As `token_blocks`, over what would be about as many tokens of `text`."""
    blocks: list[int] = []
    above = hash((namespace, "text"))
    for start in range(0, len(text) - _BLOCK_CHARS + 1, _BLOCK_CHARS):
        above = hash((above, text[start : start + _BLOCK_CHARS]))
        blocks.append(above)
    return tuple(blocks)


def content_text(content: Content) -> str:
    """A content as one text in the order in which a model reads it: to hash and to measure, never to send."""
    match content:
        case Text(text):
            return text
        case Tokens(ids):
            return " ".join(map(str, ids))
        case Chat(messages, tools, template):
            told = [*tools, template] if template else tools
            parts = [json.dumps(one, sort_keys=True, default=repr) for one in told]
            for message in messages:
                parts += (f"{key}\x00{value}" for key, value in message.items())
            return "\x00".join(parts)
        case _:
            assert_never(content)


def boundary_hashes(prompt: Prompt, identity: Callable[[str], str]) -> tuple[str, ...]:
    """PrefixHash: one hash before each input of the prompt, and one of the whole prompt.

    `identity` says what stands for a variable: its text where it is known, else a name that no text can equal.
    """
    return tuple(_hashes(prompt, identity))


def opening_hash(prompt: Prompt) -> str:
    """The first of these: of what stands before the first input. Nothing behind that is looked at."""
    return next(_hashes(prompt, str))


def _hashes(prompt: Prompt, identity: Callable[[str], str]) -> Iterator[str]:
    digest = hashlib.blake2b(digest_size=16)
    for part in _parts(prompt):
        match part:
            case Input(variable):
                yield digest.hexdigest()
                _update(digest, "input", identity(variable))
            case Constant(text):
                _update(digest, "text", text)
            case str():
                _update(digest, "mark", part)
            case _:
                assert_never(part)
    yield digest.hexdigest()


def _parts(prompt: Prompt) -> Iterator[Segment | str]:
    match prompt:
        case TextPrompt(segments):
            yield from segments
        case TokensPrompt(ids):
            yield " ".join(map(str, ids))
        case ChatPrompt(messages, tools, template):
            yield json.dumps([tools, template] if template else tools, sort_keys=True, default=repr)
            for message in messages:
                yield json.dumps([message.role, message.fields], sort_keys=True, default=repr)
                yield from message.content or ()
        case _:
            assert_never(prompt)


def _update(digest: hashlib.blake2b, kind: str, text: str) -> None:
    encoded = text.encode("utf-8", "surrogatepass")
    digest.update(f"{kind} {len(encoded)} ".encode())  # the length keeps "ab" + "c" apart from "a" + "bc"
    digest.update(encoded)
