"""Extraction: what a text says, as JSON with the fields that are asked for, written as `json.dumps` writes it."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from recipes.train_builtin import words
from recipes.train_builtin.example import Example, asked
from recipes.train_builtin.source import Source

from .fields import Field, parameters, plain, some

_SYSTEMS = ("You extract data from texts. Answer with JSON only.", "Answer in JSON.", "You are a helpful assistant.")
_ONLY = ("", " Return nothing other than JSON.", " Answer with JSON only.", " No explanation.")


def written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def extraction(source: Source, characters: int) -> Example:
    rng = source.rng
    fields = some(rng, rng.choice((1, 2, 2, 3, 3, 4, 5)))
    values = {one.name: one.value(rng) for one in fields}
    more = some(rng, rng.randrange(0, 3))
    more = [one for one in more if one.name not in values]
    said = [(one, values[one.name]) for one in fields] + [(one, one.value(rng)) for one in more]
    answer = dict(values)
    if rng.random() < 0.1:
        absent = rng.choice(fields).name
        said = [(one, value) for one, value in said if one.name != absent]
        answer[absent] = None
    text = _record(rng, said, source)
    if rng.random() < 0.15:
        text = f"{source.sentence()}\n\n{text}\n\n{source.sentence()}"
    ask = _ask(rng, fields, has_null=None in answer.values())
    shown = rng.choice((f"{ask}\n\n{text}", f"{text}\n\n{ask}", f"{ask} Text: {text}", f"Text:\n{text}\n\n{ask}"))
    system = rng.choice(_SYSTEMS) if rng.random() < 0.4 else None
    return asked("extract", shown, written(answer), system=system)


def _record(rng: Random, said: list[tuple[Field, Any]], source: Source) -> str:
    """The values in words, in any order."""
    thing = words.noun(rng)
    rng.shuffle(said)
    pairs = [(one.said if rng.random() < 0.7 else one.name, plain(value)) for one, value in said]
    form = rng.randrange(5)
    if form == 0:
        return "\n".join(f"{name}: {value}" for name, value in pairs)
    if form == 1:
        return " ".join(f"The {name} is {value}." for name, value in pairs)
    if form == 2:
        return f"This {thing} has the " + " and the ".join(f"{name} {value}" for name, value in pairs) + "."
    if form == 3:
        return f"The {pairs[0][0] if pairs else thing} of the {thing} " + "; its ".join(
            f"is {value}" if not place else f"{name} is {value}" for place, (name, value) in enumerate(pairs)
        )
    return f"{words.title(rng)} ({', '.join(f'{name} {value!r}' for name, value in pairs)})"


def _ask(rng: Random, fields: list[Field], has_null: bool) -> str:
    names = [one.name for one in fields]
    quote = rng.choice(("'{}'", "`{}`", '"{}"', "{}"))
    quoted = [quote.format(name) for name in names]
    listed = quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " and " + quoted[-1]
    word = "key" if len(names) == 1 else "keys"
    null = " Use null for what is not said." if has_null or rng.random() < 0.2 else ""
    ask = rng.choice(
        (
            f"Extract {listed} as JSON.", f"Return a JSON object with the {word} {listed}.",
            f"Return the result as a JSON with {listed} {word}.", f"Give me {listed} in JSON.",
            f"Extract the following fields as JSON: {', '.join(names)}.",
            f"Answer with JSON that fits this schema: {written(parameters(rng, fields, names))}",
            "Extract as JSON:\n" + "\n".join(f"- {one.name}: {one.kind}" for one in fields),
        )
    )  # fmt: skip
    return ask + null + rng.choice(_ONLY)


def nested(source: Source, characters: int) -> Example:
    """An object in an object, or a list of objects."""
    rng = source.rng
    fields = some(rng, rng.randrange(1, 3))
    names = [one.name for one in fields]
    rows = [{one.name: one.value(rng) for one in fields} for _ in range(rng.randrange(2, 4))]
    things = words.noun(rng) + "s"
    text = "\n".join("- " + ", ".join(f"{one.said} {plain(row[one.name])}" for one in fields) for row in rows)
    if rng.random() < 0.5:
        ask = f"List the {things} as JSON: an array {things!r} of objects with {' and '.join(names)}."
        return asked("extract", f"{ask}\n\n{text}", written({things: rows}))
    outer = words.noun(rng)
    ask = f"Return JSON with {words.noun(rng)} under {outer!r}: an object with {' and '.join(names)}."
    line = "; ".join(f"{one.said}: {plain(rows[0][one.name])}" for one in fields)
    return asked("extract", f"{ask}\n\n{line}", written({outer: rows[0]}))


_KINDS = [
    "fact",
    "riddle",
    "story",
    "poem",
    "question",
    "note",
    "letter",
    "greeting",
    "slogan",
    "sentence",
    "joke",
    "quiz",
    "tip",
    "toast",
    "rhyme",
]
_JOKES = (
    ("Why did the {} cross the road?", "To get to the other side."),
    ("What do {} like best?", "More {}, of course."),
    ("How many {} does it take to change a lamp?", "None: {} like the dark."),
    ("What did one of the {} say to the other?", "Hello, we are {}."),
)
_PAIRS = (
    ("setup", "punchline"), ("question", "answer"), ("title", "text"), ("opening", "ending"), ("first", "second"),
    ("subject", "body"), ("riddle", "solution"), ("line_one", "line_two"), ("lead", "close"),
)  # fmt: skip


def made(source: Source, characters: int) -> Example:
    """A small text of two parts about a thing, as JSON; now and then without a word about JSON, as where a grammar
    holds the answer."""
    rng = source.rng
    thing = rng.choice(words.THINGS) if rng.random() < 0.7 else words.made_up(rng) + "s"
    first, second = (part.format(thing) for part in rng.choice(_JOKES))
    keys = rng.choice(_PAIRS) if rng.random() < 0.6 else tuple(one.name for one in some(rng, 2))
    kind = rng.choice(_KINDS)
    ask = rng.choice(("Tell me a {} about {}.", "Write a {} about {}.", "Give me a {} about {}.")).format(kind, thing)
    if rng.random() < 0.7:
        quote = rng.choice(("'{}'", "`{}`", '"{}"'))
        listed = " and ".join(quote.format(key) for key in keys)
        ask += rng.choice((" Return the result as a JSON with {} keys.", " Answer as JSON with the keys {}."))
        ask = ask.format(listed) + rng.choice(_ONLY)
    return asked("made", ask, written(dict(zip(keys, (first, second), strict=True))), is_scored=False)
