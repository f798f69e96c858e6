"""The body of POST /v1/responses.

It knows nothing of prompts or of chats: `translation` says the same in their words. What it does not know is kept
aside for the chat, which has fields of its own for it (`seed`, `stop`, `top_k`, `parrot`) or names it as ignored.

The invariant: what cannot be served (what another request has left, tools that OpenAI runs by itself) is refused by
name; what has no effect is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from parrot_compat.core.call import MOST_LOGPROBS
from parrot_compat.server.amounts import at_most
from parrot_compat.server.bodies import Items, Schema
from parrot_compat.server.errors import ApiError, invalid, not_supported_yet
from parrot_compat.server.json_values import can_be_sent_back
from parrot_compat.server.openai.format_schema import unknown_members
from parrot_compat.server.openai.sampling_schema import StreamOptions
from parrot_compat.server.openai.tools import MOST_TOOLS

from .items_schema import AnyOf, InputItem, members_without_effect, text_or_list, which_of_them

__all__ = ["LOGPROBS", "ReasoningOptions", "ResponseTool", "ResponsesRequest", "TextFormat", "TextOptions"]

LOGPROBS = "message.output_text.logprobs"
"""What `include` calls log probabilities."""
_OURS_ALONE = "functions, which you run yourself, are the only tools here"
_KEEPS_NOTHING = "this server keeps no responses; send the items of the conversation again, as input"
_NOT_HERE: Mapping[str, str] = {
    "previous_response_id": _KEEPS_NOTHING,
    "conversation": _KEEPS_NOTHING,
    "prompt": "this server keeps no prompts; send what the template says, as instructions and input",
    "background": "this server keeps no responses, so there is nothing to ask for later; wait for it or stream it",
}
_MOVED: Mapping[str, str] = {
    # field of a chat: what it is here
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "logprobs": f'include: ["{LOGPROBS}"]',
}
_TOLD_ALONE: Mapping[str, tuple[Any, ...]] = {"n": (1,), "return_token_ids": (False,)}
"""Fields of a chat whose answer has no place here, and the values that ask for nothing."""
_WITHOUT_EFFECT = ("max_tool_calls", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "user")
_REPEATED = (
    *("instructions", "max_output_tokens", "max_tool_calls", "prompt_cache_key", "prompt_cache_retention"),
    *("safety_identifier", "temperature", "top_p", "user"),
)
_Label = Annotated[str, Field(max_length=512)]
MOST_METADATA = 16


class ResponseTool(Schema):
    type: Annotated[str, Field(max_length=64)]
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    """Left out, it is best effort: whatever the schema says, it is not refused."""


class TextFormat(Schema):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class TextOptions(Schema):
    format: TextFormat | None = None
    verbosity: Annotated[str, Field(max_length=32)] | None = None
    """Without effect."""


class ReasoningOptions(Schema):
    effort: Annotated[str, Field(max_length=32)] | None = None
    """As a chat's `reasoning_effort`."""
    summary: Annotated[str, Field(max_length=32)] | None = None
    """Without effect: an answer tells its thoughts themselves."""


class ResponsesRequest(Schema):
    model: Annotated[str, Field(max_length=512)] | None = None
    """Served model name; left out, the first that is served."""
    input: Annotated[
        Annotated[str, Tag("[text]")] | Annotated[Items[InputItem], Tag("[items]")],
        Discriminator(which_of_them),
        BeforeValidator(text_or_list),
        AnyOf(),
    ]
    instructions: str | None = None
    """The system text, before all else."""
    tools: Annotated[Items[ResponseTool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    max_output_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    """Of effect where `include` asks for log probabilities."""
    include: Items[_Label] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: Annotated[dict[_Label, _Label], Field(max_length=MOST_METADATA), at_most(MOST_METADATA)] | None = None
    """Repeated in the answer."""
    truncation: Literal["auto", "disabled"] | None = None
    """Nothing is ever left out of a prompt: one that is too long is refused."""
    store: bool | None = None
    """Nothing is stored."""
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None
    service_tier: Any = None
    max_tool_calls: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: _Label | None = None

    @property
    def wants_logprobs(self) -> bool:
        return LOGPROBS in (self.include or ())

    def check(self) -> None:
        """What no single field can know. Errors: `ApiError` 400."""
        for name, why in _NOT_HERE.items():
            if getattr(self, name) not in (None, False):
                raise not_supported_yet(name, why)
        for name, value in (self.model_extra or {}).items():
            if value is None:
                continue
            if name in _MOVED:
                here = f"{name!r} is a field of /v1/chat/completions; here it is {_MOVED[name]}"
                raise ApiError(here, code="unsupported_parameter", param=name)
            if name in _TOLD_ALONE and value not in _TOLD_ALONE[name]:
                raise not_supported_yet(name, "a response has no place for it; /v1/chat/completions has")
        for index, tool in enumerate(self.tools or ()):
            if tool.type != "function":
                raise not_supported_yet(f"tools[{index}].type", f"{tool.type!r}; {_OURS_ALONE}")
            if tool.name is None:
                raise invalid(f"tools[{index}].name", "missing", "missing_required_parameter")
        choice = self.tool_choice
        kind = choice.get("type") if isinstance(choice, dict) else "function"
        if isinstance(kind, str) and kind not in ("function", "allowed_tools"):
            raise not_supported_yet("tool_choice.type", f"{kind[:64]!r}; {_OURS_ALONE}")
        form = None if self.text is None else self.text.format
        if form is not None and form.type == "json_schema":
            for field, value in (("name", form.name), ("schema", form.schema_)):
                if value is None:
                    raise invalid(f"text.format.{field}", "missing", "missing_required_parameter")
        for name, said in (("tools", self._tools()), ("tool_choice", choice), ("text", self._text())):
            if not can_be_sent_back(said):
                raise invalid(name, "NaN, infinity and numbers of hundreds of digits are not taken")

    def ignored(self) -> list[str]:
        """Fields without effect; what is not known here at all is the chat's to name."""
        fields = [name for name in _WITHOUT_EFFECT if getattr(self, name) is not None]
        fields += ["store"] if self.store else []
        fields += ["truncation"] if self.truncation == "auto" else []
        fields += ["top_logprobs"] if self.top_logprobs is not None and not self.wants_logprobs else []
        fields += [f"include.{name}" for name in self.include or () if name != LOGPROBS]
        for index, tool in enumerate(self.tools or ()):
            fields += unknown_members(tool, f"tools[{index}].")
        if self.text is not None:
            fields += unknown_members(self.text, "text.")
            fields += [] if self.text.verbosity is None else ["text.verbosity"]
            fields += [] if self.text.format is None else unknown_members(self.text.format, "text.format.")
        if self.reasoning is not None:
            fields += unknown_members(self.reasoning, "reasoning.")
            fields += [] if self.reasoning.summary is None else ["reasoning.summary"]
        return fields + ([] if isinstance(self.input, str) else list(members_without_effect(self.input)))

    def repeated(self) -> dict[str, Any]:
        """What an answer says again of its request, as it was followed."""
        effort = None if self.reasoning is None else self.reasoning.effort
        return {name: getattr(self, name) for name in _REPEATED} | {
            "background": False,
            "metadata": self.metadata or {},
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": effort, "summary": None},
            "store": False,
            "text": self._text(),
            "tool_choice": "auto" if self.tool_choice is None else self.tool_choice,
            "tools": self._tools(),
            "top_logprobs": self.top_logprobs or 0,
            "truncation": "disabled",
        }

    def _tools(self) -> list[dict[str, Any]]:
        return [tool.model_dump(include=set(ResponseTool.model_fields)) for tool in self.tools or ()]

    def _text(self) -> dict[str, Any]:
        form = None if self.text is None else self.text.format
        known = set(TextFormat.model_fields) if form is not None and form.type == "json_schema" else {"type"}
        told = {"type": "text"} if form is None else form.model_dump(by_alias=True, include=known)
        return {"format": told, "verbosity": None if self.text is None else self.text.verbosity}
