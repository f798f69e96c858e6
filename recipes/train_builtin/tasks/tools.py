"""Tools: choosing the right one, its arguments copied from the request; no call where none fits; reading results."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Any

from recipes.train_builtin import words
from recipes.train_builtin.example import Example, Message, Tool, call_text, calls_message
from recipes.train_builtin.source import Source

from .fields import Field, parameters, plain, some
from .talking import smalltalk


@dataclass(frozen=True, slots=True)
class Made:
    """A tool, and what it is for in words."""

    name: str
    verb: str
    thing: str
    fields: list[Field]
    required: list[str]
    described: str

    def wire(self, rng: Random) -> Tool:
        members: list[tuple[str, Any]] = [("name", self.name)]
        if self.described:
            members.append(("description", self.described))
        if self.fields or rng.random() < 0.7:
            members.append(("parameters", parameters(rng, self.fields, self.required)))
        if rng.random() < 0.15:
            rng.shuffle(members)
        return {"type": "function", "function": dict(members)}


def tool(rng: Random, most_fields: int = 4) -> Made:
    verb, thing = rng.choice(words.VERBS), words.noun(rng)
    if rng.random() < 0.1:
        verb = words.made_up(rng)
    if rng.random() < 0.3:
        thing = f"{rng.choice(words.ADJECTIVES)}_{thing}"
    order = rng.random()
    name = f"{verb}_{thing}" if order < 0.6 else f"{thing}_{verb}" if order < 0.7 else f"{verb}_{thing}_tool"
    if 0.8 < order < 0.9:
        name = f"{thing}_{rng.choice(('function', 'customer', 'tool', 'service', 'agent'))}"
    if order > 0.92:
        name = verb + "".join(part.capitalize() for part in thing.split("_"))
    fields = some(rng, min(most_fields, rng.choice((0, 1, 1, 2, 2, 2, 3, 4))))
    required = [one.name for one in fields if rng.random() < 0.8]
    verb, thing = verb.replace("_", " "), thing.replace("_", " ")
    described = "" if rng.random() < 0.1 else _described(rng, verb, thing, fields)
    return Made(name, verb, thing, fields, required, described)


def _described(rng: Random, verb: str, thing: str, fields: list[Field]) -> str:
    head = rng.choice(
        (
            f"{verb.capitalize()} a {thing}.", f"{verb.capitalize()} the {thing}.", f"Tool to {verb} a {thing}.",
            f"{verb.capitalize()}s a {thing}", f"{verb.capitalize()} {thing}s at a place.",
        )
    )  # fmt: skip
    if fields and rng.random() < 0.2:
        lines = "".join(f"\n        {one.name}: The {one.said}." for one in fields)
        head += f"\n\n    Args:{lines}\n\n    Returns:\n        A message about the {thing}."
    return head


def tools(rng: Random, most: int = 5) -> list[Made]:
    count = rng.choice((1, 1, 2, 2, 3, 4, most))
    return list({made.name: made for made in (tool(rng) for _ in range(count))}.values())


def request(rng: Random, made: Made, *, says_verb: bool = True, listed: float = 0.14) -> tuple[str, dict[str, Any]]:
    """The user's words, and the arguments in the order of the schema. Without its verb a tool is known by its thing;
    `listed` is the share of requests that give values without names, in that order."""
    given = [one for one in made.fields if one.name in made.required or rng.random() < 0.5]
    arguments = {one.name: one.value(rng) for one in given}
    if given and given[0].kind == "string" and not given[0].choices and rng.random() < 0.12:
        return _named(rng, made, given, arguments)
    form = rng.random()
    if form < listed and says_verb:
        values = ", ".join(
            json.dumps(value, ensure_ascii=False) if len(arguments) > 1 or rng.random() < 0.4 else plain(value)
            for value in arguments.values()
        )
        ask = rng.choice(("What is the value of {}({})?", "Call {}({}).", "What does {}({}) give?", "Run {}({})"))
        text = ask.format(made.name, values) + rng.choice(("", " Use the tool.", " Use a tool."))
        return text, arguments
    verb, thing = made.verb, made.thing
    head = rng.choice(
        (
            f"{verb.capitalize()} the {thing}", f"Please {verb} a {thing}", f"Can you {verb} the {thing}",
            f"{verb.capitalize()} a {thing}", f"I want to {verb} the {thing}", f"Use {made.name}",
            f"Using the tool, {verb} a {thing}", f"What is the {thing}",
        )
    )  # fmt: skip
    head = head if says_verb else f"What is the {thing}"
    if not arguments:
        return head + rng.choice((".", "", " now.", " please.")), {}
    if len(arguments) == 1 and rng.random() < 0.6:
        (value,) = arguments.values()
        glue = rng.choice((" in ", " for ", " of ", " to ", " at ", ": ", " ", " with ", " from "))
        return head + glue + _quoted(rng, value) + rng.choice((".", "?", "")), arguments
    said = [f"{one.said if rng.random() < 0.7 else one.name} {_quoted(rng, arguments[one.name])}" for one in given]
    if rng.random() < 0.3:
        rng.shuffle(said)
    glue, start = rng.choice(((" and ", " with "), (", ", ": "), (", ", " with "), ("; ", " - "), (", the ", ", the ")))
    return head + start + glue.join(said) + rng.choice((".", "", "?")), arguments


def _named(rng: Random, made: Made, given: list[Field], arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """…named 'X' (a gloss) - a description"""
    value = words.foreign(rng) if rng.random() < 0.5 else words.title(rng)
    arguments = {given[0].name: value}
    text = f"{made.verb.capitalize()} a {made.thing} named {rng.choice(('{!r}', '{}')).format(value)}"
    if rng.random() < 0.5:
        text += f" ({words.title(rng)})"
    more = [one for one in given[1:] if one.kind == "string" and not one.choices]
    if more:
        arguments[more[0].name] = rng.choice(("a ", "an ", "")) + words.phrase(rng, 4)
        text += rng.choice((" - {}", ", {}", ": {}")).format(arguments[more[0].name])
    for one in given[1:]:
        if one.name not in arguments:
            arguments[one.name] = one.value(rng)
            text += f", {one.said} {_quoted(rng, arguments[one.name])}"
    return text, {one.name: arguments[one.name] for one in given}


def _quoted(rng: Random, value: Any) -> str:
    if isinstance(value, str) and rng.random() < 0.35:
        return rng.choice(("'{}'", '"{}"')).format(value)
    return plain(value)


def _system() -> list[Message]:
    return [{"role": "system", "content": "You are a helpful assistant."}]


def call(source: Source, characters: int) -> Example:
    """One call, or one for each of two requests."""
    rng = source.rng
    made = tools(rng)
    chosen = rng.choice(made)
    text, arguments = request(rng, chosen)
    answer = call_text(chosen.name, arguments)
    if rng.random() < 0.06:
        other = rng.choice(made)
        more, second = request(rng, other)
        text += " " + rng.choice(("And then: ", "Also: ", "Then: ")) + more
        answer += "\n" + call_text(other.name, second)
    before = _system() if rng.random() < 0.25 else []
    if rng.random() < 0.12:
        before += _earlier(rng, rng.choice(made))
    messages = [*before, {"role": "user", "content": text}]
    return Example(task="tool", messages=messages, tools=[one.wire(rng) for one in made], answer=answer)


def calls(source: Source, characters: int) -> Example:
    """A conversation of several calls, most of different tools: the request, the call, and sometimes its result and the
    report. What is hard is to choose, so there are many tools, of few fields, that requests often do not name."""
    rng = source.rng
    most_fields = rng.choice((1, 1, 2, 4, 4))
    made = list({one.name: one for one in (tool(rng, most_fields) for _ in range(rng.randrange(2, 9)))}.values())
    wanted = [*rng.sample(made, len(made)), *rng.choices(made, k=rng.randrange(2))]
    has_results = rng.random() < 0.3
    requests = [(chosen.name, *request(rng, chosen, says_verb=rng.random() < 0.5, listed=0.3)) for chosen in wanted]
    answers = [call_text(name, arguments) for name, _, arguments in requests]
    more: list[tuple[list[Message], str]] = []
    for (_, text, _), answer in zip(requests[1:], answers[1:], strict=True):
        if has_results:
            result = _result(rng)
            more.append(([{"role": "tool", "content": result}], _report(result)))
        more.append(([{"role": "user", "content": text}], answer))
    before = _system() if rng.random() < 0.25 else []
    messages = [*before, {"role": "user", "content": requests[0][1]}]
    wire = [one.wire(rng) for one in made]
    return Example(task="calls", messages=messages, tools=wire, answer=answers[0], more=more)


def _earlier(rng: Random, made: Made) -> list[Message]:
    text, arguments = request(rng, made)
    result = _result(rng)
    return [
        {"role": "user", "content": text},
        calls_message([(made.name, arguments)]),
        {"role": "tool", "content": result},
        {"role": "assistant", "content": _report(result)},
    ]


def _result(rng: Random) -> str:
    value = rng.choice((words.number, words.decimal, words.word, words.title, words.foreign, words.date))(rng)
    return rng.choice(
        (
            json.dumps({rng.choice(("result", "value", "answer", words.noun(rng))): value}, ensure_ascii=False),
            str(value),
            f"It's {words.word(rng)}.",
            f"The {words.noun(rng)} is {words.word(rng)}.",
            f"{words.noun(rng).capitalize()} {value} done.",
        )
    )


def _report(result: str) -> str:
    """What an assistant says of a result."""
    try:
        read = json.loads(result)
    except ValueError:
        return result
    if not isinstance(read, dict):
        return f"The result is {result}."
    return " ".join(f"The {name} is {value}." for name, value in read.items())


def answered(source: Source, characters: int) -> Example:
    """A tool has answered, or failed: the assistant says so."""
    rng = source.rng
    made = tools(rng)
    calls: list[tuple[str, dict[str, Any]]] = []
    texts, results = [], []
    for _ in range(rng.choice((1, 1, 1, 2))):
        chosen = rng.choice(made)
        text, arguments = request(rng, chosen)
        texts.append(text)
        calls.append((chosen.name, arguments))
        failed = f"Error: {rng.choice(('missing', 'bad', 'unknown'))} {words.word(rng)} {words.identifier(rng)!r}."
        results.append(failed if rng.random() < 0.15 else _result(rng))
    messages: list[Message] = [
        {"role": "user", "content": " ".join(texts)},
        calls_message(calls),
        *({"role": "tool", "content": result} for result in results),
    ]
    answer = " ".join(map(_report, results))
    return Example(task="tool result", messages=messages, tools=[one.wire(rng) for one in made], answer=answer)


def no_call(source: Source, characters: int) -> Example:
    """Tools are there, and the user only talks."""
    rng = source.rng
    question, answer = smalltalk(rng)
    wire = [one.wire(rng) for one in tools(rng)]
    return Example(task="no tool", messages=[{"role": "user", "content": question}], tools=wire, answer=answer)
