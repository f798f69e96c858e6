"""Unread calls: whether a checkpoint's chat template tells its model of tools in a way that nobody here reads.

It asks the tokenizer for prompts, and knows nothing of templates: a call that the template itself writes is read back.

The invariant: a template that tells of no tools, or refuses them, is no cause for a note.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import BadPrompt
from .output_format import ToolStyle
from .prompt import Chat
from .tokenizer import Tokenizer
from .tool_calls import ToolReader
from .tool_styles import TOOL_STYLES, UNKNOWN_STYLE

__all__ = ["are_calls_unread"]

_NAME, _VALUE = "look_up", "parrots"
_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "Looks up a word.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
}
_ASKED = {"role": "user", "content": "?"}
_CALLED = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"id": "a1b2c3d4e", "type": "function", "function": {"name": _NAME, "arguments": f'{{"word": "{_VALUE}"}}'}}
    ],
}


def are_calls_unread(tokenizer: Tokenizer, style: ToolStyle) -> bool:
    """`style`: as the checkpoint shows it. Only the one that stands in for what is not known may be wrong."""
    told = _prompt(tokenizer, (_TOOL,), _ASKED)
    if style != UNKNOWN_STYLE or told is None or told == _prompt(tokenizer, (), _ASKED):
        return False
    called = _prompt(tokenizer, (_TOOL,), _ASKED, _CALLED)
    if called is None or _VALUE not in called:
        return TOOL_STYLES[style].mark not in told
    reader = ToolReader(style, names=[_NAME])
    reader.push(called)
    return not reader.calls


def _prompt(tokenizer: Tokenizer, tools: tuple[Mapping[str, Any], ...], *messages: Mapping[str, Any]) -> str | None:
    """`None`: the template does not take these."""
    try:
        return tokenizer.decode(tokenizer.encode(Chat(messages, tools)), skip_special_tokens=False)
    except BadPrompt:
        return None
