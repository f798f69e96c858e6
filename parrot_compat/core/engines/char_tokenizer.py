"""A tokenizer with one token per character: for scripted engines, tests and capacity studies.

It knows no vocabulary but Unicode; control ids lie above it, so no text can ever encode to one.

The invariant: `decode(encode(Text(text))) == text`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import assert_never

from ..errors import BadPrompt
from ..prompt import Chat, Content, Text, Tokens

__all__ = ["CharTokenizer"]

_CHARACTERS = 0x110000  # Unicode ends here
_TURN, _END = _CHARACTERS, _CHARACTERS + 1  # a message begins, a message ends
_VOCABULARY = _CHARACTERS + 2
_NAMES = {_TURN: "<|turn|>", _END: "<|end|>"}


class CharTokenizer:
    """A message is `TURN role newline content END`; a chat ends with an open turn of the assistant."""

    def encode(self, content: Content) -> tuple[int, ...]:
        match content:
            case Tokens(given):
                if bad := [token for token in given if not 0 <= token < _VOCABULARY]:
                    raise BadPrompt(f"token id {bad[0]} is outside the vocabulary of {_VOCABULARY} ids")
                return given
            case Text(text):
                return tuple(map(ord, text))
            case Chat(messages, tools):
                turns = [f"tools\n{json.dumps(tools, sort_keys=True)}"] if tools else []
                for message in messages:
                    if "role" not in message:
                        raise BadPrompt("a message needs a role", param="messages")
                    turns.append(f"{message['role']}\n{message.get('content') or ''}")
                ids = [token for turn in turns for token in (_TURN, *map(ord, turn), _END)]
                return (*ids, _TURN, *map(ord, "assistant\n"))
            case _:
                assert_never(content)

    def decode(self, tokens: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        names = {} if skip_special_tokens else _NAMES
        return "".join(chr(token) if token < _CHARACTERS else names.get(token, "") for token in tokens)

    def token_bytes(self, token: int) -> bytes:
        return self.decode((token,), skip_special_tokens=False).encode("utf-8", "surrogatepass")

    def text_bytes(self, token: int) -> bytes:
        return self.decode((token,)).encode("utf-8", "surrogatepass")
