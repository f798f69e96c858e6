"""Classes that contain themselves, as JSON schemas.

LangChain writes every definition where it is referred to. A class that contains itself has no end then: it breaks the
circle, and of what is inside the class the schema says nothing.

It knows pydantic's schemas, and nothing of requests. The invariant: what is said of a class holds at every depth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.tools import BaseTool
from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema

__all__ = ["recursive_function"]

DEFINITIONS = "#/$defs/"


def recursive_function(given: Any) -> dict[str, Any] | None:
    """A class, or a tool, whose arguments contain themselves, as a function in OpenAI's form: with the definitions, and
    references to them. `None` for anything else, which LangChain's own form loses nothing of."""
    model = given.tool_call_schema if isinstance(given, BaseTool) else given
    if not isinstance(model, type) or not issubclass(model, BaseModel):
        return None
    try:
        schema = dict(model.model_json_schema())  # a tool's is LangChain's own: it keeps it
    except PydanticInvalidForJsonSchema:
        return None  # LangChain says what can be done about it
    definitions = schema.get("$defs", {})
    if not any(name in _inside(name, definitions) for name in definitions):
        return None
    if (reference := schema.pop("$ref", None)) is not None:  # the class itself: what takes arguments is an object
        schema = {**definitions[reference.removeprefix(DEFINITIONS)], **schema}
    title, description = schema.pop("title", model.__name__), schema.pop("description", "")
    if isinstance(given, BaseTool):
        title, description = given.name, given.description
    return {"name": title, "description": description, "parameters": schema}


def _inside(name: str, definitions: Mapping[str, Any]) -> set[str]:
    """The definitions that this one refers to, and those that they do."""
    found: set[str] = set()
    left = [name]
    while left:
        new = set(_references(definitions.get(left.pop()))) - found
        found |= new
        left.extend(new)
    return found


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str):
                yield value.removeprefix(DEFINITIONS)
            else:
                yield from _references(value)
    elif isinstance(schema, list):
        for part in schema:
            yield from _references(part)
