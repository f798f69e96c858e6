"""Grammar sources: output formats as llguidance reads them.

It knows formats and the names of control tokens; nothing of matchers, tokens as they are drawn, or sequences.

The invariant: what comes out has been looked at for what would take the library too long.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import llguidance
from llguidance.gbnf_to_lark import gbnf_to_lark

from parrot_compat.core.errors import BadSchema
from parrot_compat.core.output_format import (
    AnyJson,
    Choice,
    Grammar,
    JsonSchema,
    OutputFormat,
    Regex,
    ToolCalls,
    ToolStyle,
    size_of,
)
from parrot_compat.core.tool_styles import SHORT_ID, TOOL_STYLES, CallSyntax

from .sizes import check_gbnf, check_lark, check_pattern, check_schema, with_ids
from .tagged import SHARED_RULES, tagged_rules

__all__ = ["held_size_of", "source_of"]

_JSON: dict[str, Any] = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As `json.dumps` writes it, and as chat templates show it. Free whitespace is a place where models stay for ever."""
_COMBINES = {"$ref", "allOf", "anyOf", "oneOf", "if", "then", "else", "dependentSchemas"}
_NAMES_MORE = {"patternProperties", "unevaluatedProperties"}
"""Words by which a schema says more of an object than what its `properties` are."""
_SAID = ("description", "title", "$comment")
"""What is said to a reader of a schema."""


def source_of(format: OutputFormat, controls: Mapping[str, int], named: Mapping[str, int]) -> str:
    """`controls`: the ids of tokens that are no text and end none, `named`: of all that are no text, by their names.
    Errors: `BadSchema`, `ValueError` of the library."""
    matcher = llguidance.LLMatcher
    match format:
        case AnyJson() | JsonSchema():
            schema, options = _json(format)
            # as a text: of a value the library takes no numbers of more than 64 bits
            return matcher.grammar_from_json_schema(json.dumps(schema), overrides=options)  # type: ignore[arg-type]
        case Regex(pattern=pattern):
            check_pattern(pattern)
            return matcher.grammar_from_regex(pattern)
        case Choice(texts=texts):
            if not texts or not all(texts):
                raise BadSchema("a choice needs texts, and none of them empty")
            return matcher.grammar_from_lark("start: " + " | ".join(map(_literal, texts)))
        case Grammar(text=text):
            rules = _lark(text)
            check_lark(rules)
            return matcher.grammar_from_lark(with_ids(rules, named))
        case ToolCalls():
            return matcher.grammar_from_lark(_tool_calls(format, controls))


def held_size_of(format: OutputFormat) -> int:
    """Characters of a format, without what it only says of itself."""
    match format:
        case JsonSchema(schema=schema):
            return size_of(format) - _said_in(schema)
        case ToolCalls(tools=tools, answer=answer):
            schemas = [schema for _, schema in tools] + ([answer.schema] if isinstance(answer, JsonSchema) else [])
            return size_of(format) - sum(map(_said_in, schemas))
    return size_of(format)


def _said_in(schema: str) -> int:
    characters, waiting = 0, [json.loads(schema)]
    while waiting:
        match waiting.pop():
            case dict() as members:
                characters += sum(len(members[word]) for word in _SAID if isinstance(members.get(word), str))
                waiting += members.values()
            case list() as items:
                waiting += items
    return characters


def _lark(text: str) -> str:
    if "::=" not in text:
        return text
    check_gbnf(text)
    try:
        return gbnf_to_lark(text)
    except Exception as error:  # the library's converter raises what it stumbles over
        raise BadSchema(f"the grammar cannot be read: {error}") from None


def _json(format: AnyJson | JsonSchema) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema, and what the library is told beside it."""
    if isinstance(format, AnyJson):
        return {"type": "object"}, _JSON
    return _schema(format.schema), _JSON | {"lenient": not format.strict}


def _schema(text: str) -> dict[str, Any]:
    """The schema without options for the library in it. A name in `properties` is no option."""
    schema = json.loads(text)
    schema = {} if schema is True else {"enum": []} if schema is False else schema
    if not isinstance(schema, dict):
        raise BadSchema(f"a schema is an object or a boolean, not {text[:40]}")
    check_schema(schema)
    schema.pop("x-guidance", None)
    return schema


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _tool_calls(format: ToolCalls, controls: Mapping[str, int]) -> str:
    if not format.tools:
        raise BadSchema("there is no tool that could be called")
    syntax, many = TOOL_STYLES[format.style], format.is_parallel
    rules = list(SHARED_RULES) if syntax.call_mark else []
    for number, (name, schema) in enumerate(format.tools):
        rules += _tool(number, name, schema, syntax, name in format.strict, controls)
    rules.append("tool: " + " | ".join(f"tool_{number}" for number in range(len(format.tools))))
    run, between = _run(format.style, many, controls)
    if format.is_amid_text:
        return "\n".join([_amid_text(syntax, run, controls), *rules])
    opens = syntax.mark if syntax.is_amid_text else ""
    # a list is told by its bracket too, where the vocabulary has no token for the mark
    is_bare = not opens or (bool(syntax.bare) and opens not in controls)
    more = f" ({between}call)*" if many and between is not None else ""
    if format.answer is not None:
        answer, options = _json(format.answer)
        rules.append(f"answer: %json {json.dumps({'x-guidance': options} | answer)}")
    start = f"start: call{more}{'' if format.answer is None else ' | answer'}"
    return "\n".join([start, f"call: {'' if is_bare else _mark(opens, controls)} {_first_tag(syntax)} {run}", *rules])


def _tool(
    number: int, name: str, schema: str, syntax: CallSyntax, is_strict: bool, controls: Mapping[str, int]
) -> list[str]:
    """The rule `tool_{number}`, and those that it needs."""
    guidance = _JSON | {"lenient": not is_strict}
    if syntax.call_mark:
        return tagged_rules(number, name, _schema(schema), guidance)
    held = {"x-guidance": guidance, "type": "object", **_schema(schema)}
    if "properties" in held and not held.keys() & (_COMBINES | _NAMES_MORE) and _requires_what_it_names(held):
        # a function takes the arguments that it names: none may be made up beside them
        held.setdefault("additionalProperties", False)
    call = _one_call(name, syntax, f"arguments_{number}", controls)
    return [f"tool_{number}: {call}", f"arguments_{number}: %json {json.dumps(held)}"]


def _requires_what_it_names(schema: Mapping[str, Any]) -> bool:
    """Else what it requires would be forbidden."""
    required, names = schema.get("required"), schema["properties"]
    return not (isinstance(required, list) and isinstance(names, dict)) or all(
        isinstance(name, str) and name in names for name in required
    )


def _run(style: ToolStyle, many: bool, controls: Mapping[str, int]) -> tuple[str, str | None]:
    """What follows an opening mark and, where there is one, the mark of the call itself; and what stands between calls
    that have a mark each; `None`: one mark stands before all of them."""
    close = _mark(TOOL_STYLES[style].close, controls)
    match style:
        case "hermes":
            return f'"\\n" tool "\\n" {close}', '"\\n" '
        case "qwen3_coder":
            return f'tool "\\n" {close}', '"\\n" '
        case "mistral":
            return _list(many), None
        case "granite":
            return f"{_list(many)} ({close})?", None
        case "mistral_args":
            return "tool", ""
        case "llama3_json":
            return "tool" + (' ("; " tool)*' if many else ""), None


def _list(many: bool) -> str:
    return '" "? "[" tool' + (' (", " tool)*' if many else "") + ' "]"'


def _first_tag(syntax: CallSyntax) -> str:
    """What of a call's first tag stands before the name of its tool."""
    return _literal(f"\n{syntax.call_mark}") if syntax.call_mark else ""


def _one_call(name: str, syntax: CallSyntax, arguments: str, controls: Mapping[str, int]) -> str:
    """The rule of a call with the arguments of another rule."""
    if syntax.is_named:
        # the newest models write no id, those before them do
        id = f"({_mark(syntax.id_mark, controls)} /{SHORT_ID}/)?"
        return f"{_literal(name)} {id} {_mark(syntax.arguments_mark, controls)} {arguments}"
    head = _literal(f'{{"name": {json.dumps(name)}, "{syntax.arguments_key}": ')
    return f'{head} {arguments} "}}"'


def _amid_text(syntax: CallSyntax, run: str, controls: Mapping[str, int]) -> str:
    """Text of any kind, where what follows the opening mark of a call is one. Control tokens are no text for the
    library, and may come in it as they may without a form. Also where one call is wanted there may be more: some stand
    in the model's thoughts, which no grammar tells apart, and whoever reads the answer ends it after the first."""
    if not syntax.is_amid_text:
        raise BadSchema("calls without a mark cannot be told from text")
    opens = syntax.openings
    others = _ranges(sorted(token for name, token in controls.items() if name not in opens))
    passed = f"(TEXT <[{others}]>)* " if others else ""
    begins, heads = list[str](), list[str]()
    for number, mark in enumerate(opens):
        begun = f"TEXT {_mark(mark, controls)}" if mark in controls else f"head_{number}"
        begins.append(begun if mark == syntax.call_mark else f"{begun} {_first_tag(syntax)}")
        heads.append(f"head_{number}[lazy]: TEXT {_literal(mark)}")
    return "\n".join(
        [
            f"start: call* {passed}TEXT",
            f"call: {passed}({' | '.join(begins)}) {run}",
            *heads,
            "TEXT: /(?s:.*)/",
        ]
    )


def _mark(name: str, controls: Mapping[str, int]) -> str:
    """As the model was trained to write it: one token, where the vocabulary has it."""
    return f"<[{controls[name]}]>" if name in controls else _literal(name)


def _ranges(tokens: list[int]) -> str:
    """Of ascending ids, as the library reads them: "3-5,9-9"."""
    ranges: list[tuple[int, int]] = []
    for token in tokens:
        if ranges and token == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], token)
        else:
            ranges.append((token, token))
    return ",".join(f"{first}-{last}" for first, last in ranges)
