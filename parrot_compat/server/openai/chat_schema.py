"""The body of POST /v1/chat/completions, and the prompt that it stands for.

It knows nothing of tokens: the checkpoint's chat template is core's affair. What a template cannot be told
(images, audio) is refused by name.

The invariant: the messages of the prompt say what the request said; no part of them is dropped in silence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from parrot_compat.core.call import MOST_LOGPROBS
from parrot_compat.core.output_format import OutputFormat, ToolStyle
from parrot_compat.core.prompt import ChatPrompt, Constant, Input, Message, Segment
from parrot_compat.server.amounts import at_most
from parrot_compat.server.bodies import Items, Schema
from parrot_compat.server.errors import invalid, not_supported_yet
from parrot_compat.server.hints import Hints
from parrot_compat.server.limits import RequestLimits

from .format_schema import ResponseFormat, one_format
from .sampling_schema import NOT_YET, LimitedRequest, SamplingRequest, ignored_fields, one_of
from .tools import MOST_TOOLS, Tool, ToolUse, tool_use

__all__ = [
    "CHAT_NOT_YET",
    "ChatMessage",
    "ChatRequest",
    "ContentPart",
    "FunctionCall",
    "Resolve",
    "ToolCall",
    "chat_prompt",
    "no_references",
]

REF = "parrot:ref"
"""The type of a content part that stands for a text which is not known yet."""

CHAT_NOT_YET: Mapping[str, tuple[Any, ...]] = {
    **NOT_YET,
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "moderation": (),
    "chat_template": (),
    "documents": ([],),
    "echo": (False,),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "add_special_tokens": (False,),
}
MOST_TEMPLATE_MEMBERS = 64
MOST_TEMPLATE_CHARACTERS = 65_536
"""Of what the chat template is told."""
_MESSAGE_NOT_YET: Mapping[str, tuple[Any, ...]] = {"audio": (), "function_call": (), "prefix": (False,)}

# A prompt cannot be told these; the names are the ones OpenAI gives them.
_MEDIA = frozenset({"image_url", "input_image", "input_audio", "audio_url", "video_url", "file", "input_file"})


class ContentPart(Schema):
    type: Annotated[str, Field(max_length=64)]
    text: str | None = None
    refusal: str | None = None
    # of a reference:
    call: Annotated[str, Field(max_length=512)] | None = None
    variable: Annotated[str, Field(max_length=512)] | None = None
    response_id: str | None = None
    transform: Any = None

    @property
    def is_reference(self) -> bool:
        return self.type == REF


Resolve = Callable[[ContentPart, str], Input]
"""What a reference (and its path in the request) stands for. Errors: `ApiError` 400, 404."""


class FunctionCall(Schema):
    name: str
    arguments: Annotated[str, BeforeValidator(lambda said: "{}" if said is None else said)] = "{}"
    """JSON. Some servers tell a call without arguments as one that has none."""


class ToolCall(Schema):
    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(Schema):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str | Items[ContentPart] | None, one_of("a string or a list of content parts")] = None
    name: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    """As an answer told it. What becomes of it is the chat template's affair: most leave all but the last out."""
    reasoning: str | None = None
    """The same as vLLM and OpenRouter call it."""
    tool_calls: Items[ToolCall] | None = None
    tool_call_id: str | None = None


class ChatRequest(LimitedRequest):
    messages: Annotated[Items[ChatMessage], Field(min_length=1)]
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[Items[Tool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Annotated[str, Field(max_length=32)] | None = None
    chat_template_kwargs: (
        Annotated[dict[str, Any], Field(max_length=MOST_TEMPLATE_MEMBERS), at_most(MOST_TEMPLATE_MEMBERS)] | None
    ) = None
    """Told to the chat template, where it has a name for it."""

    def format_field(self) -> str:
        if self.structured_outputs is not None:
            return SamplingRequest.format_field(self)
        has_form = self.response_format is not None and not _is_required(self.tool_use("hermes"))
        return "response_format" if has_form else "tools"

    def output_format(self) -> OutputFormat | None:
        found = [SamplingRequest.output_format(self), self._response_format()]
        return one_format([format for format in found if format is not None], "response_format")

    def _response_format(self) -> OutputFormat | None:
        return None if self.response_format is None else self.response_format.format()

    def tool_use(self, style: ToolStyle) -> ToolUse | None:
        """How the answer uses tools; `None`: not at all. A call that is required leaves no answer to have the form of
        `response_format`: agents say it with every request. Errors: `ApiError` 400, `BadSchema`."""
        use = tool_use(self.tools, self.tool_choice, self.parallel_tool_calls is not False, style)
        if _is_required(use) and SamplingRequest.output_format(self) is not None:
            raise invalid("tool_choice", "a call cannot be required of an answer that has another form")
        return use

    def told_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    def check(self, limits: RequestLimits) -> None:
        LimitedRequest.check(self, limits)
        if self.top_logprobs and not self.logprobs:
            raise invalid("top_logprobs", "only allowed with logprobs: true")
        size = len(json.dumps(self.chat_template_kwargs or {}))
        if size > MOST_TEMPLATE_CHARACTERS:
            raise invalid("chat_template_kwargs", f"{size} characters; at most {MOST_TEMPLATE_CHARACTERS}")
        self.tool_use("hermes")  # what is wrong with it is so in every style

    def template_values(self, known: frozenset[str] | None, hints: Hints) -> dict[str, Any]:
        """What the chat template is told beside messages and tools. `known`: the names that it has; `None`: another
        server has it, and is told all."""
        asked = dict(self.chat_template_kwargs or {})
        told = {name: value for name, value in asked.items() if known is None or name in known}
        for name in asked:
            (hints.applied if name in told else hints.ignored)(f"chat_template_kwargs.{name}")
        effort = self.reasoning_effort
        if effort is None:
            return told
        if known is None or "reasoning_effort" in known:
            told = {"reasoning_effort": effort} | told
        elif effort == "none" and "enable_thinking" in known:
            told = {"enable_thinking": False} | told
        else:
            hints.ignored("reasoning_effort")
            return told
        hints.applied("reasoning_effort")
        return told

    def texts(self) -> list[list[str | None] | str | None]:
        """Of each message its text, or those of its parts; `None` where there is none yet."""
        return [
            [part.text if part.type == "text" else part.refusal for part in message.content]
            if isinstance(message.content, list)
            else message.content
            for message in self.messages
        ]

    def ignored(self) -> list[str]:
        """Fields without effect. Errors: `ApiError` 400 for those that cannot be left without."""
        fields = ignored_fields(self, CHAT_NOT_YET)
        if self.stream_options is not None:
            fields += ignored_fields(self.stream_options, {}, "stream_options.")
        if self.response_format is not None:
            fields += self.response_format.ignored("response_format.")
        for index, message in enumerate(self.messages):
            fields += ignored_fields(message, _MESSAGE_NOT_YET, f"messages[{index}].")
            for place, part in enumerate(message.content if isinstance(message.content, list) else ()):
                path = f"messages[{index}].content[{place}]."
                fields += ignored_fields(part, _MEDIA_FIELDS, path)
                others = ("text", "refusal") if part.is_reference else ("call", "variable", "response_id", "transform")
                fields += [path + name for name in others if getattr(part, name) is not None]
        return fields


def _is_required(use: ToolUse | None) -> bool:
    return use is not None and use.format is not None and use.format.is_required


_MEDIA_FIELDS: Mapping[str, tuple[Any, ...]] = {name: () for name in _MEDIA}


def no_references(part: ContentPart, path: str) -> Input:
    """A `Resolve` where nothing is called. Errors: `ApiError` 400."""
    raise invalid(f"{path}.type", f"a {REF} part cannot stand here: nothing is called that it could wait for")


def chat_prompt(
    messages: list[ChatMessage],
    resolve: Resolve = no_references,
    *,
    tools: list[Tool] | None = None,
    template: Mapping[str, Any] | None = None,
    developer_role: str = "system",
) -> ChatPrompt:
    """The prompt of these messages; `template` is what else the chat template is told, `developer_role` what the model
    calls a developer. Errors: `ApiError`."""
    return ChatPrompt(
        tuple(_message(message, index, resolve, developer_role) for index, message in enumerate(messages)),
        tuple(tool.model_dump(exclude_none=True) for tool in tools or ()),
        template or {},
    )


def _message(message: ChatMessage, index: int, resolve: Resolve, developer_role: str) -> Message:
    role = developer_role if message.role == "developer" else message.role
    fields: dict[str, Any] = {}
    if message.name is not None:
        fields["name"] = message.name
    thoughts = message.reasoning if message.reasoning_content is None else message.reasoning_content
    if thoughts is not None:
        fields["reasoning_content"] = thoughts
    if message.tool_call_id is not None:
        fields["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        if message.role != "assistant":
            raise invalid(f"messages[{index}].tool_calls", "only an assistant message has them")
        fields["tool_calls"] = [call.model_dump(exclude_none=True) for call in message.tool_calls]
    content = _content(message, f"messages[{index}].content", resolve)
    if content is None and "tool_calls" not in fields:
        raise invalid(f"messages[{index}].content", f"a {message.role} message needs it", "missing_required_parameter")
    return Message(role, content, fields)


def _content(message: ChatMessage, path: str, resolve: Resolve) -> tuple[Segment, ...] | None:
    if message.content is None:
        return None if message.refusal is None else (Constant(message.refusal),)
    if isinstance(message.content, str):
        return (Constant(message.content),)
    if not message.content and message.role == "user":
        raise invalid(path, "the list of parts is empty")
    parts = [(part, f"{path}[{place}]") for place, part in enumerate(message.content)]
    if any(part.is_reference for part in message.content):
        # one text that has holes: nothing may come between the pieces
        return tuple(_segment(part, place, resolve) for part, place in parts)
    # joined as vLLM joins them, so that the same request is the same prompt
    return (Constant("\n".join(_part(part, place) for part, place in parts)),)


def _segment(part: ContentPart, path: str, resolve: Resolve) -> Segment:
    return resolve(part, path) if part.is_reference else Constant(_part(part, path))


def _part(part: ContentPart, path: str) -> str:
    if part.type in _MEDIA:
        raise not_supported_yet(f"{path}.type", f"{part.type} parts cannot be shown to this model")
    if part.type not in ("text", "refusal"):
        raise invalid(f"{path}.type", f"unknown part type {part.type!r}")
    text = part.text if part.type == "text" else part.refusal
    if text is None:
        raise invalid(f"{path}.{part.type}", f"a {part.type} part needs it", "missing_required_parameter")
    return text
