"""Log probabilities of drawn tokens in the words of /v1/chat/completions and of /v1/completions.

It knows nothing of how they came about. There is an entry for each drawn token, those that end the text too, so that
entries and `completion_tokens` are as many.

The invariant: what is told chunk by chunk is, put together, what is told at once.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any, Protocol

from parrot_compat.core.call import Logprobs, TokenLogprobs
from parrot_compat.core.tokenizer import Tokenizer

__all__ = ["TextLogprobs", "TokenWriter", "Writes", "chat_logprobs", "prompt_logprobs"]

_LEAST = -9999.0
"""Stands for minus infinity, which JSON cannot say; OpenAI says so too."""


class Writes(Protocol):
    """What a token writes; tokenizers know it."""

    def token_bytes(self, token: Any) -> bytes: ...

    def text_bytes(self, token: Any) -> bytes: ...


class TokenWriter:
    """By the model's tokenizer, or as a text engine has told it."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer

    def token_bytes(self, token: int | bytes) -> bytes:
        if isinstance(token, bytes):
            return token
        assert self._tokenizer is not None, "ids come from engines whose tokenizer is known"
        return self._tokenizer.token_bytes(token)

    def text_bytes(self, token: int | bytes) -> bytes:
        if isinstance(token, bytes):
            return token
        assert self._tokenizer is not None, "ids come from engines whose tokenizer is known"
        return self._tokenizer.text_bytes(token)


def chat_logprobs(tokenizer: Writes, drawn: Sequence[Logprobs]) -> dict[str, Any]:
    """`choices[i].logprobs` of a chat."""

    def entry(token: Any, logprob: float) -> dict[str, Any]:
        written = tokenizer.token_bytes(token)
        return {"token": _text(written), "logprob": max(logprob, _LEAST), "bytes": list(written)}

    content = [
        {**entry(_token(item), item.logprob), "top_logprobs": [entry(*alternative) for alternative in item.top]}
        for item in drawn
    ]
    return {"content": content, "refusal": None}


def prompt_logprobs(tokenizer: Writes, told: Sequence[TokenLogprobs], most: int) -> list[dict[str, Any] | None]:
    """`choices[i].prompt_logprobs`, as vLLM has it: by token id, the first token has none. A rank is known of the
    likeliest only."""

    def entry(token: int, logprob: float, rank: int | None) -> dict[str, Any]:
        written = _text(tokenizer.token_bytes(token))
        return {"logprob": max(logprob, _LEAST), "rank": rank, "decoded_token": written}

    def of(item: TokenLogprobs) -> dict[str, Any]:
        ranks = {token: rank for rank, (token, _) in enumerate(item.top, 1)}
        own = {str(item.token): entry(item.token, item.logprob, ranks.get(item.token))}
        return own | {str(token): entry(token, logprob, ranks[token]) for token, logprob in item.top[:most]}

    return [None, *map(of, told)]


class TextLogprobs:
    """`choices[i].logprobs` of a text, chunk after chunk: offsets count the characters since its beginning."""

    def __init__(self, tokenizer: Writes) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def told(self, drawn: Sequence[Logprobs], echo: str = "") -> dict[str, Any]:
        """`echo`: the text that they are tokens of, where a client wrote it: its control tokens are in it by name."""
        tokens, offsets, tops = [], [], []
        for item in drawn:
            written = self._tokenizer.token_bytes(_token(item))
            tokens.append(_text(written))
            offsets.append(self._offset)
            tops.append(self._top(item))
            in_text = self._tokenizer.text_bytes(_token(item))
            if not in_text and echo.startswith(tokens[-1], self._offset):
                in_text = written
            self._offset += len(self._utf8.decode(in_text))
        return {
            "tokens": tokens,
            "token_logprobs": [max(item.logprob, _LEAST) for item in drawn],
            "top_logprobs": tops,
            "text_offset": offsets,
        }

    def told_of_prompt(self, first: int, following: Sequence[TokenLogprobs], echo: str) -> dict[str, Any]:
        """Of the prompt's tokens, before anything else is told. Nothing comes before the first, so it has none."""
        told = self.told([TokenLogprobs(first, 0.0), *following], echo)
        told["token_logprobs"][0] = told["top_logprobs"][0] = None
        return told

    def _top(self, item: Logprobs) -> dict[str, float]:
        """The likeliest tokens and the drawn one. Of tokens that look alike (parts of characters) the likeliest."""
        top: dict[str, float] = {}
        for token, logprob in (*item.top, (_token(item), item.logprob)):
            top.setdefault(_text(self._tokenizer.token_bytes(token)), max(logprob, _LEAST))
        return top


def _token(item: Logprobs) -> int | bytes:
    return item.token if isinstance(item, TokenLogprobs) else item.written


def _text(written: bytes) -> str:
    return written.decode("utf-8", "replace")
