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
from parrot_compat.core.output_format import OutputFormat, is_whole
from parrot_compat.core.tokenizer import Tokenizer

__all__ = ["ChatLogprobs", "TextLogprobs", "TokenWriter", "Writes", "prompt_logprobs"]

_LEAST = -9999.0
"""Stands for minus infinity, which JSON cannot say; OpenAI says so too."""


class Writes(Protocol):
    """What a token writes; tokenizers know it."""

    has_form: bool
    """Of the answer, whose first token then writes all that it has."""

    def token_bytes(self, token: Any) -> bytes: ...

    def text_bytes(self, token: Any) -> bytes: ...

    def first_bytes(self, token: Any) -> bytes: ...


class TokenWriter:
    """By the model's tokenizer, or as a text engine has told it."""

    def __init__(self, tokenizer: Tokenizer | None, format: OutputFormat | None = None) -> None:
        """`format`: what the answers are held to."""
        self._tokenizer = tokenizer
        self.has_form = is_whole(format)

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

    def first_bytes(self, token: int | bytes) -> bytes:
        """The same at the beginning of a text, from which some decoders take a blank."""
        written = self.text_bytes(token)
        if isinstance(token, bytes) or not written.startswith(b" "):
            return written
        assert self._tokenizer is not None, "ids come from engines whose tokenizer is known"
        alone = self._tokenizer.decode((token,)).encode()
        return alone if written.endswith(alone) else written


class _Written:
    """What each token of one text writes where it stands. If its prompt ends with a control token it begins anew,
    unless it has a form: as the engine has it too."""

    def __init__(self, tokenizer: Writes, prompt: Sequence[int] | None) -> None:
        self._tokenizer = tokenizer
        self.begins = False if tokenizer.has_form or not prompt else not tokenizer.text_bytes(prompt[-1])

    def shown(self, token: int | bytes) -> bytes:
        """What it would write if it came next. Control tokens, which write nothing, are told by their name."""
        if self.begins and self._tokenizer.text_bytes(token):
            return self._tokenizer.first_bytes(token)
        return self._tokenizer.token_bytes(token)

    def take(self, token: int | bytes) -> bytes:
        """What the next token writes in the text."""
        written = self._tokenizer.text_bytes(token)
        if self.begins and written:
            self.begins, written = False, self._tokenizer.first_bytes(token)
        return written


class ChatLogprobs:
    """`choices[i].logprobs` of a chat, chunk after chunk: the bytes of its entries are its text."""

    def __init__(self, tokenizer: Writes, prompt: Sequence[int] | None = None) -> None:
        """`prompt`: its tokens, where they are known."""
        self._written = _Written(tokenizer, prompt)

    def told(self, drawn: Sequence[Logprobs]) -> dict[str, Any]:
        return {"content": [self._entry(item) for item in drawn], "refusal": None}

    def _entry(self, item: Logprobs) -> dict[str, Any]:
        def entry(token: int | bytes, logprob: float) -> dict[str, Any]:
            written = self._written.shown(token)
            return {"token": _text(written), "logprob": max(logprob, _LEAST), "bytes": list(written)}

        told = entry(_token(item), item.logprob) | {"top_logprobs": [entry(*alternative) for alternative in item.top]}
        self._written.take(_token(item))
        return told


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

    def __init__(self, tokenizer: Writes, prompt: Sequence[int] | None = None) -> None:
        """`prompt`: its tokens, where they are known."""
        self._tokenizer = tokenizer
        self._written = _Written(tokenizer, prompt)
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def told(self, drawn: Sequence[Logprobs], echo: str = "") -> dict[str, Any]:
        """`echo`: the text that they are tokens of, where a client wrote it: its control tokens are in it by name."""
        tokens, offsets, tops = [], [], []
        for item in drawn:
            token = _token(item)
            tokens.append(_text(self._written.shown(token)))
            offsets.append(self._offset)
            tops.append(self._top(item))
            in_text = self._written.take(token)
            if echo:
                in_text = self._in_echo(token, in_text, echo)
            self._offset += len(self._utf8.decode(in_text))
        return {
            "tokens": tokens,
            "token_logprobs": [max(item.logprob, _LEAST) for item in drawn],
            "top_logprobs": tops,
            "text_offset": offsets,
        }

    def _in_echo(self, token: int | bytes, in_text: bytes, echo: str) -> bytes:
        """What a client wrote of it: the name of a control token if it is there, and behind that perhaps no blank,
        which some vocabularies put there."""
        written = self._tokenizer.text_bytes(token)
        ways = [in_text, written, self._tokenizer.first_bytes(token)] if written else [self._written.shown(token), b""]
        return next((way for way in ways if echo.startswith(_text(way), self._offset)), in_text)

    def told_of_prompt(self, first: int, following: Sequence[TokenLogprobs], echo: str) -> dict[str, Any]:
        """Of the prompt's tokens, before anything else is told. Nothing comes before the first, so it has none."""
        prompt = [TokenLogprobs(first, 0.0), *following]
        begins, self._written.begins = self._written.begins, self._opens(prompt) != _blanks(echo.encode())
        told = self.told(prompt, echo)
        self._written.begins = begins
        told["token_logprobs"][0] = told["top_logprobs"][0] = None
        return told

    def _opens(self, prompt: Sequence[TokenLogprobs]) -> int:
        """With so many blanks, one of which may be the vocabulary's own and not the text's."""
        opens = 0
        for item in prompt:
            written = self._tokenizer.text_bytes(item.token)
            opens += _blanks(written)
            if written.strip(b" "):
                break
        return opens

    def _top(self, item: Logprobs) -> dict[str, float]:
        """The likeliest tokens and the drawn one. Of tokens that look alike (parts of characters) the likeliest."""
        top: dict[str, float] = {}
        for token, logprob in (*item.top, (_token(item), item.logprob)):
            top.setdefault(_text(self._written.shown(token)), max(logprob, _LEAST))
        return top


def _token(item: Logprobs) -> int | bytes:
    return item.token if isinstance(item, TokenLogprobs) else item.written


def _blanks(written: bytes) -> int:
    """With which it begins."""
    return len(written) - len(written.lstrip(b" "))


def _text(written: bytes) -> str:
    return written.decode("utf-8", "replace")
