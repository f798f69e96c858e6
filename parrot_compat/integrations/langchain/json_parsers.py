"""JSON in answers, for LangChain's parsers: whole, or an error.

LangChain's own close what is open in a text and drop what they cannot read at its end. That is right while it streams;
of an answer that was cut off (`{"age": 3` of `{"age": 36}`) it makes an object that nobody has said.

The invariant: an object that is not marked as partial is the one that the model wrote to its end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.outputs import ChatGeneration, Generation

__all__ = ["WholeJsonParser", "WholeKeyToolsParser", "WholePydanticParser", "WholeToolsParser"]

_FENCED = re.compile(r"```(?:json)?(.*)```", re.DOTALL)
"""As models write JSON that nothing holds them to."""


class WholeJsonParser(JsonOutputParser):
    """Errors: `OutputParserException` where the text is not JSON to its end."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        if not partial and _is_calls(result):
            return None
        return super().parse_result(result if partial else _whole(result), partial=partial)


class WholePydanticParser(PydanticOutputParser[Any]):
    """Errors: `OutputParserException` where the text is not JSON to its end, or none of the class."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        if not partial and _is_calls(result):
            return None
        return super().parse_result(result if partial else _whole(result), partial=partial)


class WholeToolsParser(PydanticToolsParser):
    """Errors: `OutputParserException` where the answer was cut off: a streamed call is closed by LangChain."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        _refuse_cut(result, partial)
        return super().parse_result(result, partial=partial)


class WholeKeyToolsParser(JsonOutputKeyToolsParser):
    """Errors: `OutputParserException` where the answer was cut off."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        _refuse_cut(result, partial)
        return super().parse_result(result, partial=partial)


def _refuse_cut(result: Sequence[Generation], partial: bool) -> None:
    message = result[0].message if isinstance(result[0], ChatGeneration) else None
    if not partial and message is not None and message.response_metadata.get("finish_reason") == "length":
        raise OutputParserException("the call was cut off (finish_reason: length)", llm_output=str(message.content))


def _is_calls(result: Sequence[Generation]) -> bool:
    """The model has called tools that it was offered beside the schema, as LangChain's OpenAI classes have it."""
    message = result[0].message if isinstance(result[0], ChatGeneration) else None
    return isinstance(message, AIMessage) and bool(message.tool_calls)


def _whole(result: Sequence[Generation]) -> list[Generation]:
    """The JSON of an answer alone. Errors: `OutputParserException`."""
    said = result[0].text.strip()
    fenced = None if said.startswith(("{", "[")) else _FENCED.search(said)  # a text in the object may hold a fence
    error: ValueError | None = None
    for text in (said, *([fenced[1]] if fenced else [])):
        try:
            json.loads(text, strict=False)  # line breaks in strings are let pass there too
        except ValueError as reason:
            error = error or reason
        else:
            return [Generation(text=text)]
    raise OutputParserException(f"Invalid json output: {said}", llm_output=said) from error
