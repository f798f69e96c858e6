"""An example: what a model is asked, and the one right answer; and how the chat template writes it.

It knows nothing of tasks or tokens. `rendered` gives what the shipped chat template gives (a test compares them); it
is here because the template, in Jinja, is too slow for a million examples.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
Tool = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    task: str
    answer: str
    """What the model writes, calls of tools included."""
    messages: Sequence[Message] = ()
    tools: Sequence[Tool] = ()
    text: str = ""
    """The raw prompt, where there are no messages."""
    baseline: str | None = None
    """What somebody without a model would answer, where that is something."""
    is_scored: bool = True
    """False: there are other right answers."""
    more: Sequence[tuple[Sequence[Message], str]] = ()
    """How the conversation goes on, to train on more answers of one text: what is said then, and the answer to it."""
    facts: dict[str, Any] = field(default_factory=dict)

    def prompt(self) -> str:
        return rendered(self.messages, self.tools) if self.messages else self.text

    def parts(self) -> list[tuple[str, str]]:
        """All prompts with their answers; each prompt begins behind the end of the answer before it."""
        later = [(f"\n{_turns(said)}{_ASSISTANT}", answer) for said, answer in self.more]
        return [(self.prompt(), self.answer), *later]


def asked(task: str, question: str, answer: str, *, system: str | None = None, **fields: Any) -> Example:
    """One question, with or without a system message."""
    before = [{"role": "system", "content": system}] if system else []
    return Example(task=task, answer=answer, messages=[*before, {"role": "user", "content": question}], **fields)


def call_text(name: str, arguments: dict[str, Any]) -> str:
    """A call in the Hermes form, as models write it."""
    called = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{called}\n</tool_call>"


def calls_message(calls: Sequence[tuple[str, dict[str, Any]]], said: str = "") -> Message:
    made = [{"type": "function", "function": {"name": name, "arguments": arguments}} for name, arguments in calls]
    return {"role": "assistant", "content": said, "tool_calls": made}


_ASSISTANT = "<|im_start|>assistant\n"
_TOOLS = (
    "# Tools\n\nYou may call one or more functions to help with the request.\n\n"
    "The functions are given as JSON within <tools></tools> tags:\n<tools>"
)
_HOW = (
    "\n</tools>\n\nFor each call, answer with a JSON object within <tool_call></tool_call> tags:\n<tool_call>\n"
    '{"name": <name of the function>, "arguments": <its arguments as a JSON object>}\n</tool_call>'
)


def rendered(messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
    """The prompt up to where the answer begins."""
    first, rest = messages[0], messages
    system = first["content"] if first["role"] == "system" else None
    rest = messages if system is None else messages[1:]
    head = ""
    if tools:
        written = "".join("\n" + json.dumps(tool, ensure_ascii=False) for tool in tools)
        head = _turn("system", ("" if system is None else system + "\n\n") + _TOOLS + written + _HOW)
    elif system is not None:
        head = _turn("system", system)
    return head + _turns(rest) + _ASSISTANT


def _turns(rest: Sequence[Message]) -> str:
    parts: list[str] = []
    for place, message in enumerate(rest):
        if message["role"] == "tool":
            before, after = (rest[at]["role"] if 0 <= at < len(rest) else "" for at in (place - 1, place + 1))
            parts.append("" if before == "tool" else "<|im_start|>user")
            parts.append(f"\n<tool_response>\n{message['content']}\n</tool_response>")
            parts.append("" if after == "tool" else "<|im_end|>\n")
        else:
            parts.append(_turn(message["role"], _said(message)))
    return "".join(parts)


def _turn(role: str, text: str) -> str:
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


def _said(message: Message) -> str:
    calls = [call_text(**call["function"]) for call in message.get("tool_calls", ())]
    return "\n".join([message["content"], *calls] if message["content"] else calls)
