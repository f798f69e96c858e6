"""A chat template whose calls of tools nobody here reads is found by asking it for one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from parrot_compat.core.engines.char_tokenizer import CharTokenizer
from parrot_compat.core.errors import BadPrompt
from parrot_compat.core.prompt import Chat, Content
from parrot_compat.core.unread_calls import are_calls_unread

Writes = Callable[[str, str], str]


def hermes(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def glm(name: str, arguments: str) -> str:
    return f"<tool_call>{name}\n<arg_key>word</arg_key>{arguments}</tool_call>"


def its_own(name: str, arguments: str) -> str:
    return f"<call>{name}\n{arguments}"


class Templated(CharTokenizer):
    """`tells`: what it says of tools; `writes`: how it shows a call, `None`: it refuses one."""

    def __init__(self, tells: str, writes: Writes | None) -> None:
        self.tells, self.writes = tells, writes

    def encode(self, content: Content) -> tuple[int, ...]:
        assert isinstance(content, Chat)
        told = [self.tells + json.dumps(list(content.tools))] if content.tools and self.tells else []
        return tuple(map(ord, "\n".join(told + [self._shown(message) for message in content.messages])))

    def decode(self, tokens: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return "".join(map(chr, tokens))

    def _shown(self, message: Any) -> str:
        calls = [call["function"] for call in message.get("tool_calls", ())]
        if calls and self.writes is None:
            raise BadPrompt("no calls here")
        shown = [self.writes(call["name"], call["arguments"]) for call in calls if self.writes is not None]
        return "\n".join([message["content"], *shown])


@pytest.mark.parametrize(
    ("tells", "writes", "is_unread"),
    [
        ("Tools: ", hermes, False),
        ("Write <tool_call>. Tools: ", None, False),
        ("Write <tool_call>. Tools: ", glm, True),
        ("Tools: ", its_own, True),
        ("Tools: ", None, True),
        ("Tools: ", lambda name, arguments: "", True),
        ("", its_own, False),  # it tells of no tools
    ],
)
def test_calls_are_read_where_the_template_writes_them_so_or_says_so(
    tells: str, writes: Writes | None, is_unread: bool
) -> None:
    assert are_calls_unread(Templated(tells, writes), "hermes") == is_unread


def test_a_style_that_the_checkpoint_shows_is_read() -> None:
    assert not are_calls_unread(Templated("Tools: ", its_own), "mistral")


def test_a_template_that_takes_no_chat_is_no_cause_for_a_note() -> None:
    class Refusing(Templated):
        def encode(self, content: Content) -> tuple[int, ...]:
            raise BadPrompt("there is no chat template")

    assert not are_calls_unread(Refusing("Tools: ", its_own), "hermes")
