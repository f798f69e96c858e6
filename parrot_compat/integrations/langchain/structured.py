"""Tools and structured output in OpenAI's wire form, and the parsers that read the answers.

It knows schemas and parsers, and no client: everything here is what `bind` is given and what comes after the
model in the chain. Whether a server can do it is the server's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Literal

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import BaseOutputParser
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel

from .json_parsers import WholeJsonParser, WholeKeyToolsParser, WholePydanticParser, WholeToolsParser
from .recursion import recursive_function

__all__ = [
    "Method",
    "Schema",
    "Tool",
    "structured_format",
    "structured_parser",
    "tool_arguments",
    "wire_format",
    "with_raw",
]

Schema = dict[str, Any] | type
Method = Literal["json_schema", "function_calling", "json_mode"]
Tool = dict[str, Any] | type | Callable[..., Any] | BaseTool


def tool_arguments(
    tools: Sequence[Tool], tool_choice: str | bool | Mapping[str, Any] | None, strict: bool | None
) -> dict[str, Any]:
    """`tools` and `tool_choice` of the request. A tool's own name chooses it; "any" and True choose one of them."""
    converted = [convert_to_openai_tool(recursive_function(tool) or tool, strict=strict) for tool in tools]
    arguments: dict[str, Any] = {"tools": converted}
    names = [tool["function"]["name"] for tool in converted if "function" in tool]
    if isinstance(tool_choice, str) and tool_choice in names:
        arguments["tool_choice"] = {"type": "function", "function": {"name": tool_choice}}
    elif tool_choice is True or tool_choice == "any":
        arguments["tool_choice"] = "required"
    elif tool_choice:
        arguments["tool_choice"] = tool_choice
    return arguments


def structured_format(schema: Schema | None, method: Method, strict: bool | None) -> dict[str, Any]:
    """`response_format` of the request (or the forced tool call), with what tracing wants to know of it."""
    if method not in ("json_schema", "function_calling", "json_mode"):
        raise ValueError(f"method is {method!r}: it must be json_schema, function_calling or json_mode")
    if schema is None:
        if method != "json_mode":
            raise ValueError(f"method {method!r} needs a schema")
        return {"response_format": {"type": "json_object"}, **_traced(None, method, strict)}
    tool = convert_to_openai_tool(_function(schema), strict=strict)
    traced = _traced(tool, method, strict)
    if method == "function_calling":
        arguments = tool_arguments([tool], tool["function"]["name"], strict)
        return {**arguments, "parallel_tool_calls": False, **traced}
    if method == "json_mode":
        return {"response_format": {"type": "json_object"}, **traced}
    return {"response_format": _json_schema(tool["function"]), **traced}


def wire_format(given: Any, strict: bool | None = None) -> Any:
    """`response_format` as it is sent. A class or a schema, which LangChain's OpenAI classes take in its place, becomes
    one; what has another form is the server's to judge. Errors: `ValueError` for a schema that cannot be sent."""
    is_schema = isinstance(given, Mapping) and ("name" in given or given.get("type") == "object")
    if is_schema or isinstance(given, type):
        return _json_schema(convert_to_openai_tool(_function(given), strict=strict)["function"])
    return given


def _function(schema: Any) -> Any:
    """OpenAI's `json_schema`, with or without what stands around it, or a class that contains itself, as the function
    that has such arguments. Any other schema is what it is."""
    if not isinstance(schema, Mapping):
        return recursive_function(schema) or schema
    described = schema["json_schema"] if schema.get("type") == "json_schema" and "json_schema" in schema else schema
    if "name" in described and "schema" in described:
        return {"parameters" if key == "schema" else key: value for key, value in described.items()}
    return schema


def _json_schema(function: Mapping[str, Any]) -> dict[str, Any]:
    if "parameters" not in function:
        raise ValueError(f"the schema of {function['name']!r} describes no object: it has no properties")
    described: dict[str, Any] = {"name": function["name"], "schema": function["parameters"]}
    described |= {key: function[key] for key in ("description", "strict") if function.get(key) not in (None, "")}
    return {"type": "json_schema", "json_schema": described}


def structured_parser(schema: Schema | None, method: Method) -> BaseOutputParser[Any]:
    """From the model's message to an instance of the schema (a pydantic class) or a plain object."""
    model = schema if isinstance(schema, type) and is_basemodel_subclass(schema) else None
    if method == "function_calling":
        if model is not None:
            return WholeToolsParser(tools=[model], first_tool_only=True)
        name = convert_to_openai_tool(_function(schema))["function"]["name"] if schema is not None else ""
        return WholeKeyToolsParser(key_name=name, first_tool_only=True)
    return WholePydanticParser(pydantic_object=model) if model is not None else WholeJsonParser()


def with_raw(
    model: Runnable[LanguageModelInput, AIMessage], parser: BaseOutputParser[Any]
) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
    """`{"raw", "parsed", "parsing_error"}`: what cannot be parsed is told, not raised."""
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=model) | parsed.with_fallbacks([failed], exception_key="parsing_error")


def _traced(tool: Mapping[str, Any] | None, method: Method, strict: bool | None) -> dict[str, Any]:
    return {"ls_structured_output_format": {"kwargs": {"method": method, "strict": strict}, "schema": tool}}
