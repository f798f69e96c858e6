"""Translation: a request of the Responses API in the words of a chat, which is how it is answered.

It knows nothing of calls. `translated` gives the body of a chat, and the way back: errors and hints of that chat come
with the field that the client wrote.

The invariant: equal requests are equal chats, and what a chat may say and a response has no word for goes through
unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from parrot_compat.core.errors import ParrotError
from parrot_compat.server.bodies import explain
from parrot_compat.server.errors import Problem, problem_of
from parrot_compat.server.hints import Hints
from parrot_compat.server.openai.chat_schema import ChatRequest

from .history import Turn, turns_of
from .responses_schema import ResponsesRequest, TextFormat

__all__ = ["CLIENT_NAMES", "Names", "translated"]

CLIENT_NAMES: Mapping[str, str] = {"reasoning_effort": "reasoning.effort"}
"""Of hints."""
_SAME = ("model", "stream", "temperature", "top_p", "parallel_tool_calls", "service_tier")
_MESSAGE = re.compile(r"^messages(?:\[(\d+)\](?:(\.content)(?:\[(\d+)\])?|\.tool_calls\[(\d+)\](?:\.function)?)?)?")
_LIMIT = re.compile(r"\bmax_(?:completion_)?tokens\b")
_FIELDS = (
    (re.compile(r"^max_(?:completion_)?tokens\b"), "max_output_tokens"),
    (re.compile(r"^response_format(?:\.json_schema)?\b"), "text.format"),
    (re.compile(r"^reasoning_effort\b"), "reasoning.effort"),
    (re.compile(r"^logprobs\b"), "include"),
    (re.compile(r"^(tools\[\d+\])\.function\b"), r"\1"),
)


@dataclass(frozen=True, slots=True)
class Names:
    """Fields of the chat as the client calls them."""

    turns: tuple[Turn, ...]

    @contextmanager
    def used(self) -> Iterator[None]:
        """What is wrong within is said in the client's words."""
        try:
            yield
        except ParrotError as error:
            problem = problem_of(error)
            told = self.of(problem)
            if told is problem:
                raise
            raise told.error() from None

    def of(self, problem: Problem) -> Problem:
        """The same problem with the field as the client calls it."""
        if problem.param is None:
            return problem
        told = problem.about(self._field(problem.param))
        message = _LIMIT.sub("max_output_tokens", told.message)
        return told if message == told.message else replace(told, message=message)

    def _field(self, param: str) -> str:
        if (found := _MESSAGE.match(param)) is not None:
            return self._place(*found.groups()) + param[found.end() :]
        for pattern, name in _FIELDS:
            param = pattern.sub(name, param)
        return param

    def _place(self, index: str | None, content: str | None, part: str | None, call: str | None) -> str:
        if index is None or int(index) >= len(self.turns):
            return "input"
        turn = self.turns[int(index)]
        if part is not None and int(part) < len(turn.parts):
            return turn.parts[int(part)]
        if call is not None and int(call) < len(turn.call_paths):
            return turn.call_paths[int(call)]
        return turn.path if content is None else turn.content_path


def translated(asked: ResponsesRequest, hints: Hints) -> tuple[ChatRequest, Names]:
    """Errors: `ApiError` 400."""
    asked.check()
    hints.ignored(*dict.fromkeys(asked.ignored()))
    turns = turns_of(asked.instructions, asked.input)
    names = Names(tuple(turns))
    body: dict[str, Any] = {name: value for name, value in (asked.model_extra or {}).items() if value is not None}
    body |= {name: value for name in _SAME if (value := getattr(asked, name)) is not None}
    body |= {"messages": [turn.message() for turn in turns]} | _tools(asked)
    if asked.stream_options is not None:
        body["stream_options"] = asked.stream_options.model_dump(exclude_none=True)
    if asked.max_output_tokens is not None:
        body["max_completion_tokens"] = asked.max_output_tokens
    if asked.wants_logprobs:
        body |= {"logprobs": True, "top_logprobs": asked.top_logprobs or 0}
    if asked.reasoning is not None and asked.reasoning.effort is not None:
        body["reasoning_effort"] = asked.reasoning.effort
    if asked.text is not None and asked.text.format is not None:
        body["response_format"] = _form(asked.text.format)
    with names.used():
        try:
            return ChatRequest.model_validate(body), names
        except ValidationError as error:
            raise explain(error) from None


def _tools(asked: ResponsesRequest) -> dict[str, Any]:
    """What is said of tools."""
    told: dict[str, Any] = {}
    if asked.tools:
        told["tools"] = [
            {
                "type": "function",
                "function": {
                    name: value
                    for name in ("name", "description", "parameters", "strict")
                    if (value := getattr(tool, name)) is not None
                },
            }
            for tool in asked.tools
        ]
    if asked.tool_choice is not None:
        told["tool_choice"] = _choice(asked.tool_choice)
    return told


def _choice(choice: Any) -> Any:
    """A name stands in a `function` there; what is wrong here is wrong there, too."""
    match choice:
        case {"type": "allowed_tools"}:
            tools = choice.get("tools")
            named = [_choice(tool) for tool in tools] if isinstance(tools, list) else tools
            return {"type": "allowed_tools", "allowed_tools": {"mode": choice.get("mode"), "tools": named}}
        case {"type": "function"}:
            return {"type": "function", "function": {"name": choice.get("name")}}
    return choice


def _form(form: TextFormat) -> dict[str, Any]:
    if form.type != "json_schema":
        return {"type": form.type}
    of_schema = form.model_dump(by_alias=True, exclude_none=True, include={"name", "description", "schema_", "strict"})
    return {"type": form.type, "json_schema": of_schema}
