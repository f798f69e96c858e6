"""What a request says of the form of its answer: OpenAI's `response_format` and vLLM's `structured_outputs`.

It knows nothing of how an engine holds an answer to a form. The invariant: at most one form is asked for, and none is
passed over in silence.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from parrot_compat.core.output_format import AnyJson, Choice, Grammar, JsonSchema, OutputFormat, Regex
from parrot_compat.server.bodies import Items, Schema
from parrot_compat.server.errors import invalid

__all__ = ["NamedSchema", "ResponseFormat", "StructuredOutputs", "one_format", "unknown_members"]


class NamedSchema(Schema):
    name: Annotated[str, Field(max_length=256)]
    description: str | None = None
    schema_: Annotated[Any, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(Schema):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None
    schema_: Annotated[Any, Field(alias="schema")] = None
    """Of a json_object: llama.cpp's and Together's word for a schema that is not strict. llama.cpp's clients also write
    it for a json_schema, in place of that."""

    def format(self) -> OutputFormat | None:
        """Errors: `ApiError` 400, `BadSchema`."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return AnyJson() if self.schema_ in (None, {}) else JsonSchema.of(self.schema_, strict=False)
        if self.json_schema is None and self.schema_ is not None:
            return JsonSchema.of(self.schema_, strict=False)
        if self.json_schema is None:
            raise invalid("response_format.json_schema", "missing", "missing_required_parameter")
        # not strict is OpenAI's word for best effort: what cannot be held to is passed over there
        schema = {} if self.json_schema.schema_ is None else self.json_schema.schema_
        return JsonSchema.of(schema, strict=bool(self.json_schema.strict))

    def ignored(self, path: str) -> list[str]:
        """Members without effect: those that are not known, and those of another type of form."""
        fields = unknown_members(self, path)
        is_read = self.type == "json_object" or (self.type == "json_schema" and self.json_schema is None)
        fields += [f"{path}schema"] if self.schema_ is not None and not is_read else []
        if self.json_schema is not None:
            is_read = self.type == "json_schema"
            fields += unknown_members(self.json_schema, f"{path}json_schema.") if is_read else [f"{path}json_schema"]
        return fields


class StructuredOutputs(Schema):
    json_: Annotated[Any, Field(alias="json")] = None
    regex: str | None = None
    choice: Items[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None

    def format(self) -> OutputFormat | None:
        """Errors: `ApiError` 400, `BadSchema`."""
        if self.model_extra and any(value is not None for value in self.model_extra.values()):
            raise invalid("structured_outputs", f"not known: {', '.join(sorted(self.model_extra))[:100]}")
        found: list[OutputFormat] = []
        if self.json_ is not None:
            found.append(JsonSchema.of(_parsed(self.json_)))
        found += [] if self.regex is None else [Regex(self.regex)]
        found += [] if self.choice is None else [Choice(tuple(self.choice))]
        found += [] if self.grammar is None else [Grammar(self.grammar)]
        found += [AnyJson()] if self.json_object else []
        return one_format(found, "structured_outputs")


def unknown_members(part: Schema, path: str) -> list[str]:
    return [path + name for name, value in (part.model_extra or {}).items() if value is not None]


def _parsed(schema: Any) -> Any:
    try:
        return json.loads(schema) if isinstance(schema, str) else schema
    except (ValueError, RecursionError) as error:
        raise invalid("structured_outputs.json", f"is not JSON: {error}") from None


def one_format(found: list[OutputFormat], param: str) -> OutputFormat | None:
    """Errors: `ApiError` 400 where there are several."""
    if len(found) > 1:
        raise invalid(param, "an answer can be held to one form only")
    return found[0] if found else None
