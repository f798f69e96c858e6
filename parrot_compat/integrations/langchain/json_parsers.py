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
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import Generation

__all__ = ["WholeJsonParser", "WholePydanticParser"]

_FENCED = re.compile(r"```(?:json)?(.*)```", re.DOTALL)
"""As models write JSON that nothing holds them to."""


class WholeJsonParser(JsonOutputParser):
    """Errors: `OutputParserException` where the text is not JSON to its end."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        return super().parse_result(result if partial else _whole(result), partial=partial)


class WholePydanticParser(PydanticOutputParser[Any]):
    """Errors: `OutputParserException` where the text is not JSON to its end, or none of the class."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        return super().parse_result(result if partial else _whole(result), partial=partial)


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
