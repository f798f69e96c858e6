"""Fields: names, types, values and JSON schemas of what is extracted into JSON or given to a tool.

It knows words; nothing of how a task asks for them. A value is drawn with the words in which a request says it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from recipes.train_builtin import words

Maker = Callable[[Random], Any]

_TEXTS: tuple[tuple[str, Maker], ...] = (
    ("name", words.name), ("title", words.title), ("city", words.city), ("email", words.email), ("date", words.date),
    ("location", words.city), ("customer_name", words.name), ("description", words.phrase), ("color", words.word),
    ("id", words.code), ("code", words.code), ("author", words.name), ("company", words.title), ("text", words.phrase),
    ("address", words.city), ("product", words.title), ("topic", words.word), ("query", words.phrase),
    ("language", words.word), ("status", words.word), ("message", words.phrase), ("place", words.city),
    ("full_name", words.name), ("category", words.word),
    ("path", lambda r: f"/{words.word(r)}/{words.word(r)}"),
    ("destination", words.city), ("origin", words.city), ("key", words.identifier), ("label", words.title),
    ("native_name", words.foreign), ("subject", words.title), ("recipient", words.name), ("country", words.title),
)  # fmt: skip
_NUMBERS = tuple(
    re.findall(
        r"\w+",
        """
    age year price quantity count amount number size x y a b n value limit width height weight score
    total input seconds days index temperature distance rating floor port
    """,
    )
)


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    kind: str
    """A JSON type."""
    make: Maker
    choices: tuple[str, ...] = ()

    def value(self, rng: Random) -> Any:
        return rng.choice(self.choices) if self.choices else self.make(rng)

    def schema(self, rng: Random, described: bool) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": self.kind}
        if self.kind == "array":
            schema["items"] = {"type": "string"}
        if self.choices:
            schema["enum"] = list(self.choices)
        if described and rng.random() < 0.6:
            schema["description"] = f"{rng.choice(('The', 'the', 'A'))} {self.said}"
        if self.kind == "integer" and rng.random() < 0.15:
            schema |= {"exclusiveMaximum": 10 ** rng.randrange(3, 8), "minimum": 0}
        items = list(schema.items())
        rng.shuffle(items)
        return dict(items)

    @property
    def said(self) -> str:
        return self.name.replace("_", " ")


def field(rng: Random) -> Field:
    kind = rng.random()
    if kind < 0.5:
        name, make = rng.choice(_TEXTS)
        if rng.random() < 0.25:
            make = words.foreign
        if rng.random() < 0.25:
            name = words.identifier(rng).lower()
        elif rng.random() < 0.2:
            name = f"{words.noun(rng)}_{name}"
        return Field(name, "string", make)
    if kind < 0.8:
        name = rng.choice(_NUMBERS) if rng.random() < 0.7 else words.identifier(rng).lower()
        return Field(name, "number", words.decimal) if rng.random() < 0.25 else Field(name, "integer", words.number)
    if kind < 0.87:
        return Field(rng.choice(("is_", "has_", "")) + words.noun(rng), "boolean", lambda r: r.random() < 0.5)
    if kind < 0.94:
        choices = tuple(dict.fromkeys(words.word(rng) for _ in range(rng.randrange(2, 5))))
        return Field(words.noun(rng), "string", words.word, choices)
    return Field(words.noun(rng) + "s", "array", lambda r: [words.word(r) for _ in range(r.randrange(1, 4))])


def some(rng: Random, count: int) -> list[Field]:
    """Of different names."""
    found: dict[str, Field] = {}
    while len(found) < count:
        one = field(rng)
        found.setdefault(one.name, one)
    return list(found.values())


def plain(value: Any) -> str:
    """As a person writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value[:-1]) + " and " + value[-1] if len(value) > 1 else value[0]
    return str(value)


def parameters(rng: Random, fields: list[Field], required: list[str]) -> dict[str, Any]:
    """The JSON schema of an object with these fields, its members in any order."""
    described = rng.random() < 0.5
    members = [("properties", {one.name: one.schema(rng, described) for one in fields}), ("type", "object")]
    if required:
        members.append(("required", required))
    if rng.random() < 0.2:
        members.append(("title", words.identifier(rng)))
    if rng.random() < 0.1:
        members.append(("additionalProperties", False))
    rng.shuffle(members)
    return dict(members)
