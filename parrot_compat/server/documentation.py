"""/docs: the OpenAPI document as one page that needs nothing from anywhere else, so that it can be read offline too.

It knows OpenAPI and HTML; nothing of what the endpoints do.

The invariant: every operation, and every field of what it takes and answers, is on the page, and nothing else is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

__all__ = ["page"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc } h3 { margin: 1.5rem 0 0.3rem } p { margin: 0.3rem 0 }
code { font-size: 90%; background: #f4f4f4; padding: 0 0.2rem; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100% } td { border-top: 1px solid #ddd; padding: 0.2rem 0.6rem 0.2rem 0;
vertical-align: top } td:first-child { white-space: nowrap } a { color: #0645ad }
"""
_PREFIX = "#/components/schemas/"


def page(document: Mapping[str, Any]) -> str:
    """The page of a document."""
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>"
        f"<p>{escape(document['info'].get('description', ''))} The same for programs: "
        f'<a href="openapi.json">openapi.json</a>.</p>{"".join(_body(document))}</body></html>'
    )


def _body(document: Mapping[str, Any]) -> Iterator[str]:
    by_tag: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            (tag, *_) = operation.get("tags") or ["others"]
            by_tag.setdefault(tag, []).append("".join(_operation(method, path, operation)))
    for tag, told in by_tag.items():
        yield f"<h2>{escape(tag)}</h2>" + "".join(told)
    yield "<h2>What is sent and answered</h2>"
    for name, schema in document["components"]["schemas"].items():
        yield from _schema(name, schema)


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h3>{method.upper()} <code>{escape(path)}</code></h3><p>{escape(operation.get('summary', ''))}</p>"
    if parameters := operation.get("parameters"):
        yield _table([(one["name"], one.get("schema", {}), f"in the {one['in']}") for one in parameters])
    if body := operation.get("requestBody"):
        yield f"<p>Takes {_contents(body['content'])}.</p>"
    for status, response in operation["responses"].items():
        yield f"<p>{escape(status)}: {escape(response['description'])}, {_contents(response['content'])}.</p>"


def _contents(content: Mapping[str, Any]) -> str:
    return " or ".join(f"{_type(of['schema'])} (<code>{escape(kind)}</code>)" for kind, of in content.items())


def _schema(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f'<h3 id="{escape(name)}">{escape(name)}</h3>'
    if about := schema.get("description"):
        yield f"<p>{escape(about)}</p>"
    if "properties" not in schema:
        yield f"<p>{_type(schema)}</p>"
        return
    required = schema.get("required", ())
    yield _table([(field, of, "required" if field in required else "") for field, of in schema["properties"].items()])


def _table(rows: list[tuple[str, Mapping[str, Any], str]]) -> str:
    cells = [
        f"<tr><td><code>{escape(name)}</code></td><td>{_type(of)}{_bounds(of)}</td><td>{escape(note)}</td>"
        f"<td>{escape(of.get('description', ''))}</td></tr>"
        for name, of, note in rows
    ]
    return f"<table>{''.join(cells)}</table>"


def _type(schema: Mapping[str, Any]) -> str:
    """In words."""
    match schema:
        case {"$ref": str(reference)}:
            name = escape(reference.removeprefix(_PREFIX))
            return f'<a href="#{name}">{name}</a>'
        case {"anyOf": list(branches)} | {"oneOf": list(branches)}:
            return " or ".join(_type(branch) for branch in branches)
        case {"contentSchema": dict(inner)}:
            return f"a text that is {_type(inner)}"
        case {"const": value}:
            return f"<code>{escape(repr(value))}</code>"
        case {"enum": list(values)}:
            return " or ".join(f"<code>{escape(repr(value))}</code>" for value in values)
        case {"type": "array"}:
            return f"list of {_type(schema.get('items', {}))}"
        case {"type": "object", "properties": dict(members)}:
            return "object of " + ", ".join(f"<code>{escape(name)}</code>: {_type(of)}" for name, of in members.items())
        case {"type": "object", "additionalProperties": dict(values)}:
            return f"object of {_type(values)}"
        case {"type": str(kind)}:
            return escape(kind)
    return "anything"


_SIZES = ("minLength", "maxLength", "minItems", "maxItems")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", *_SIZES)
_SAID = dict(zip(_BOUNDS, ("≥", "≤", ">", "<", "length ≥", "length ≤", "items ≥", "items ≤"), strict=True))


def _bounds(schema: Mapping[str, Any]) -> str:
    branches = [schema, *schema.get("anyOf", ())]
    found = [f"{_SAID[name]} {branch[name]}" for branch in branches for name in _BOUNDS if name in branch]
    return f" ({escape(', '.join(found))})" if found else ""
