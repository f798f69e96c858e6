"""Objects that do not exist yet: a structured answer, of which the schema is known and the text is not.

It knows JSON schemas, pydantic classes and markers. Nobody can look at such an object, but a text can be picked from
it: the server does the same with a `json_pointer` on the answer's text.

The invariant: what is picked is what the app will pick. Where that is not certain (a field that may be missing, a
type that is written in another way than it is read, code that changes a value) nothing is.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter, itemgetter
from typing import Any

from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel

from parrot_compat.integrations.plans.markers import Markers

from .json_parsers import WholeJsonParser
from .values import UNKNOWN, Unknown

__all__ = ["Parsed", "is_getter", "parsed", "schema_of"]


class Parsed(Unknown):
    """What a parser will make of an answer, or an object inside of it. With `model` it is an instance of that class."""

    __slots__ = ("_call", "_markers", "_model", "_pointer", "_schema")

    def __init__(
        self, markers: Markers, call: int, schema: Mapping[str, Any], model: type[BaseModel] | None, pointer: str = ""
    ) -> None:
        self._markers = markers
        self._call = call
        self._schema = schema
        self._model = model
        self._pointer = pointer

    def picked(self, function: Any) -> Any:
        """What `itemgetter("name")`, or `attrgetter("name")` of an instance, gets of it."""
        names = function.__reduce__()[1]
        if len(names) != 1 or not isinstance(names[0], str):
            return UNKNOWN
        if type(function) is itemgetter:
            return self._member(names[0]) if self._model is None else UNKNOWN
        found: Any = self
        for name in names[0].split("."):
            found = found._attribute(name) if isinstance(found, Parsed) else UNKNOWN
        return found

    def items(self, names: list[str]) -> dict[str, Any] | None:
        """As the input of a prompt: some members of it. `None` where it is no dict."""
        return {name: self._member(name) for name in names} if self._model is None else None

    def _attribute(self, name: str) -> Any:
        if self._model is None or (field := self._model.model_fields.get(name)) is None:
            return UNKNOWN
        if field.annotation is str and not field.metadata:
            return self._member(name)
        inner: Any = field.annotation
        if is_basemodel_subclass(inner) and _keeps(inner):
            return self._member(name, inner)
        return UNKNOWN

    def _member(self, name: str, model: type[BaseModel] | None = None) -> Any:
        schema = self._defined(self._schema.get("properties", {}).get(name))
        if not isinstance(schema, Mapping) or name not in self._schema.get("required", ()):
            return UNKNOWN
        pointer = f"{self._pointer}/{name.replace('~', '~0').replace('/', '~1')}"
        if schema.get("type") == "string":
            return self._markers.text(self._call, {"json_pointer": pointer})
        if schema.get("type") == "object":
            return Parsed(self._markers, self._call, {"$defs": self._schema.get("$defs"), **schema}, model, pointer)
        return UNKNOWN

    def _defined(self, schema: Any) -> Any:
        """What a reference to the definitions of the whole schema stands for."""
        reference = schema.get("$ref") if isinstance(schema, Mapping) else None
        if not isinstance(reference, str) or not reference.startswith("#/$defs/"):
            return schema
        return (self._schema.get("$defs") or {}).get(reference.removeprefix("#/$defs/"))


def schema_of(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The JSON schema that the answer to a request is held to."""
    form = body.get("response_format")
    described = form.get("json_schema") if isinstance(form, Mapping) else None
    schema = described.get("schema") if isinstance(described, Mapping) else None
    return schema if isinstance(schema, Mapping) and schema.get("type") == "object" else None


def parsed(parser: JsonOutputParser, markers: Markers, call: int, schema: Mapping[str, Any]) -> Any:
    """What a parser makes of the whole answer of a call that is held to `schema`."""
    if type(parser) in (JsonOutputParser, WholeJsonParser):
        return Parsed(markers, call, schema, None) if parser.pydantic_object is None else UNKNOWN
    model = parser.pydantic_object if isinstance(parser, PydanticOutputParser) else None
    if isinstance(model, type) and issubclass(model, BaseModel) and _keeps(model):
        return Parsed(markers, call, schema, model)
    return UNKNOWN


def _keeps(model: type[BaseModel]) -> bool:
    """Its texts are those of the JSON: no validator, alias or setting of the class changes one."""
    decorators = model.__pydantic_decorators__
    changing = (
        decorators.validators,
        decorators.field_validators,
        decorators.root_validators,
        decorators.model_validators,
    )
    if any(changing) or any(name.startswith("str_") for name in model.model_config):
        return False
    return all(field.alias is None and field.validation_alias is None for field in model.model_fields.values())


def is_getter(function: Any) -> bool:
    return type(function) in (itemgetter, attrgetter)
