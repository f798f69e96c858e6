"""From drawn tokens to text that can be shown: whole characters, cut before the first stop string.

Knows a `tokenizers.Tokenizer` and nothing of requests or engines. The work per token is one dictionary look-up,
because every decoder accepted here turns a token into text (or bytes) that does not depend on its neighbours; the
exceptions, the very first text and runs of byte tokens, are decoded together. Other decoders are refused.

The invariant: pushes and flush put together are exactly `decode(all ids, skip_special_tokens=True)`, or what that adds
to the text before them where a stream was told that it follows one (and the names of those control tokens that it was
asked to show where they stand), cut before the stop string that is complete first (of those complete at the same
character, the longest; not those that are complete where none may stop it), whatever the push sizes.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import tokenizers

from parrot_compat.core.errors import ModelRefused

__all__ = ["TextDecoder", "TextStream"]

_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_PIECEWISE = {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace", "WordPiece"}


class TextDecoder:
    """One tokenizer's way from ids to text, found out once and shared by all its streams."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        steps = _decoder_steps(tokenizer)
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._controls = {token.content: token_id for token_id, token in added.items() if token.special}
        self._bytes = _ByteTable(tokenizer) if [step["type"] for step in steps] == ["ByteLevel"] else None
        self._pieces = _PieceTable(tokenizer, steps) if self._bytes is None else None

    def stream(self, stop: Sequence[str] = (), marks: Sequence[str] = ()) -> TextStream:
        """`marks`: names of control tokens that are shown; what is no control token here is text anyway."""
        shown = {self._controls[name]: name for name in marks if name in self._controls}
        if self._bytes is not None:
            return TextStream(_ByteText(self._bytes, shown), stop)
        assert self._pieces is not None
        return TextStream(_PieceText(self._pieces, shown), stop)

    def token_bytes(self, token_id: int) -> bytes:
        """What the token writes behind other text. Control tokens, which write nothing, are told by their name."""
        name = self._tokenizer.id_to_token(token_id) or ""
        if self._bytes is not None:
            return self._bytes[token_id] or name.encode()
        assert self._pieces is not None
        piece = self._pieces[token_id]
        return bytes([int(name[3:5], 16)]) if piece is None else (piece or name).encode()

    def text_bytes(self, token_id: int) -> bytes:
        """The same as it stands in a text: of a control token nothing."""
        if self._bytes is not None:
            return self._bytes[token_id]
        assert self._pieces is not None
        return b"" if self._pieces[token_id] == "" else self.token_bytes(token_id)


class TextStream:
    """The text of one generation as it is drawn."""

    def __init__(self, tokens: _TokenText, stop: Sequence[str]) -> None:
        assert all(stop), f"an empty stop string would end every text: {stop!r}"
        self._tokens = tokens
        self._stop = tuple(stop)
        self._held = ""
        self.met: str | None = None
        """The stop string that was met; whatever comes after it is not text of this generation."""

    @property
    def stopped(self) -> bool:
        return self.met is not None

    def follow(self, token_id: int | None) -> None:
        """Before anything is pushed: the text goes on behind this token, the last of its prompt. So its first token
        writes the blank that some decoders take from the beginning; behind a control token a text begins anew. `None`:
        it writes it wherever the text stands."""
        self._tokens.follow(token_id)

    def push(self, token_ids: Sequence[int], may_stop: bool = True) -> str:
        """Take drawn tokens; give the text that is safe to show now. A stop string that is complete with these is none
        unless it `may_stop`."""
        return "" if self.stopped else self._release(self._tokens.push(token_ids), may_stop)

    def flush(self) -> str:
        """The rest, when no more tokens come."""
        if self.stopped:
            return ""
        shown = self._release(self._tokens.flush())
        rest, self._held = self._held, ""
        return shown + rest

    def _release(self, text: str, may_stop: bool = True) -> str:
        if not self._stop:
            return text
        seen, text = len(self._held), self._held + text
        met = [
            (start + len(stop), start)
            for stop in self._stop
            # what is complete in the text before was not to stop it
            if (start := text.find(stop, max(0, seen + 1 - len(stop)))) >= 0
        ]
        if met and may_stop:
            end, start = min(met)
            self.met, self._held = text[start:end], ""
            return text[:start]
        cut = min(_may_begin(text, stop) for stop in self._stop)
        self._held = text[cut:]
        return text[:cut]


def _may_begin(text: str, stop: str) -> int:
    """Where the tail of `text` begins that may still grow into `stop`; the end of the text if nothing may."""
    start = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while start >= 0:
        if stop.startswith(text[start:]):
            return start
        start = text.find(stop[0], start + 1)
    return len(text)


class _TokenText(Protocol):
    """Tokens to whole characters; knows no stop strings."""

    def follow(self, token_id: int | None) -> None: ...

    def push(self, token_ids: Sequence[int]) -> str: ...

    def flush(self) -> str: ...


# ---- byte-level vocabularies (Llama 3, Qwen): every token is a few bytes ---------------------------


class _ByteTable(dict[int, bytes]):
    """Token id → bytes, filled as tokens appear. Special and unknown ids are no text."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._special = _special_contents(tokenizer)
        self._byte_of = _byte_alphabet()

    def __missing__(self, token_id: int) -> bytes:
        content = self._tokenizer.id_to_token(token_id)
        if content is None or content in self._special:
            data = b""
        else:
            try:
                data = bytes(self._byte_of[character] for character in content)
            except KeyError:  # an added token with characters outside the byte alphabet stands for itself
                data = content.encode()
        self[token_id] = data
        return data


class _ByteText:
    def __init__(self, table: _ByteTable, shown: Mapping[int, str]) -> None:
        self._table = table
        self._shown = {token_id: name.encode() for token_id, name in shown.items()}
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def follow(self, token_id: int | None) -> None:
        """Bytes are the same wherever they stand."""

    def push(self, token_ids: Sequence[int]) -> str:
        found = [self._shown.get(token_id) or self._table[token_id] for token_id in token_ids]
        return self._utf8.decode(b"".join(found))

    def flush(self) -> str:
        return self._utf8.decode(b"", final=True)


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable characters for the 256 bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(rest)}


# ---- vocabularies of text pieces (Llama 2, Mistral, Gemma) -----------------------------------------


class _PieceTable(dict[int, str | None]):
    """Token id → its text after other text. `None`: a byte, which is text only together with its neighbours."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, steps: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._special = _special_contents(tokenizer)
        self._joins_bytes = any(step["type"] == "ByteFallback" for step in steps)
        self._anchor, self._anchor_text = self._find_anchor()

    def __missing__(self, token_id: int) -> str | None:
        content = self._tokenizer.id_to_token(token_id)
        piece: str | None
        if content is None or content in self._special:
            piece = ""
        elif self._joins_bytes and _BYTE_TOKEN.fullmatch(content):
            piece = None
        else:
            piece = self.after([token_id])
        self[token_id] = piece
        return piece

    def alone(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=True)

    def after(self, token_ids: list[int]) -> str:
        """The text of tokens that are not the first: what they add behind a plain word."""
        text = self.alone([self._anchor, *token_ids])
        assert text.startswith(self._anchor_text), f"{text!r} does not begin with {self._anchor_text!r}"
        return text[len(self._anchor_text) :]

    def _find_anchor(self) -> tuple[int, str]:
        for content, token_id in sorted(self._tokenizer.get_vocab().items(), key=lambda entry: entry[1]):
            if content in self._special or _BYTE_TOKEN.fullmatch(content):
                continue
            text = self.alone([token_id])
            if text.isalpha() and text.isascii():
                return token_id, text
        raise ModelRefused("the tokenizer has no token that is a plain word; its text cannot be streamed")


class _PieceText:
    def __init__(self, table: _PieceTable, shown: Mapping[int, str]) -> None:
        self._table = table
        self._shown = shown
        self._begun = False
        self._open: list[int] = []
        """Tokens whose text depends on what comes: a run of bytes, or all tokens while there is no text yet."""

    def follow(self, token_id: int | None) -> None:
        self._begun = token_id is None or self._table[token_id] != ""

    def push(self, token_ids: Sequence[int]) -> str:
        shown = []
        for token_id in token_ids:
            if token_id in self._shown:
                shown.append(self.flush() + self._shown[token_id])
                self._begun, self._open = True, []
                continue
            piece = self._table[token_id]
            if piece == "":
                continue
            if piece is None:
                self._open.append(token_id)
            elif self._begun and not self._open:
                shown.append(piece)
            else:
                shown.append(self._close([*self._open, token_id]))
        return "".join(shown)

    def flush(self) -> str:
        return self._close(self._open)

    def _close(self, token_ids: list[int]) -> str:
        """Decode the open tokens together. What strips the text's beginning has not acted before there is text."""
        text = self._table.after(token_ids) if self._begun else self._table.alone(token_ids)
        self._begun = self._begun or bool(text)
        self._open = [] if self._begun else token_ids
        return text


def _special_contents(tokenizer: tokenizers.Tokenizer) -> frozenset[str]:
    return frozenset(token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special)


def _decoder_steps(tokenizer: tokenizers.Tokenizer) -> list[dict[str, Any]]:
    """The decoder as a list of steps. Errors: `ModelRefused` where a token's text would depend on later tokens."""
    if tokenizer.decoder is None:
        return []
    state = json.loads(tokenizer.decoder.__getstate__())
    steps: list[dict[str, Any]] = state["decoders"] if state["type"] == "Sequence" else [state]
    if [step["type"] for step in steps] == ["ByteLevel"]:
        return steps
    fused = False
    for step in steps:
        kind = step["type"]
        whole_text = fused and (
            (kind == "Replace" and len(step["pattern"].get("String", "")) != 1) or (kind == "Strip" and step["stop"])
        )
        if kind not in _PIECEWISE or whole_text:
            raise ModelRefused(f"the tokenizer's decoder step {step} cannot be streamed exactly")
        fused = fused or kind == "Fuse"
    return steps
