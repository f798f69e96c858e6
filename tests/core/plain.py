"""Random apps, and what they come to when one plain loop runs them, call after call, over the same script.

The plain side knows dictionaries and strings only: no graph, no tasks, no tokens, no time.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from parrot_compat.core.call import Call, CallId, Sampling, VariableName
from parrot_compat.core.errors import EngineError, TransformFailed
from parrot_compat.core.prompt import ChatPrompt, Constant, Input, Message, Prompt, Segment, TextPrompt
from parrot_compat.core.template import Template
from parrot_compat.core.transform import FirstJson, JsonPointer, Lines, Regex, Strip, Transform, Truncate

__all__ = ["App", "Outcome", "Step", "plain_outcomes", "random_app", "script"]

TRANSFORMS: tuple[tuple[Transform, ...], ...] = (
    (Strip(),),
    (Truncate(5),),
    (Lines(0, 1),),
    (Regex(r"[a-z]+"),),
    (FirstJson(), JsonPointer("/word")),
    (Regex("only where it says so"),),  # nearly always fails
)
WORDS = ["ape", "bee", "cat", "dog", "eel", "fox", "gnu", "hen"]


def script(prompt: str) -> str:
    """What the model says: a little of everything that transforms look for, or an error."""
    number = zlib.crc32(prompt.encode())
    if "boom" in prompt or number % 23 == 0:
        raise EngineError(f"boom {number}")
    word = WORDS[number % len(WORDS)]
    return (f" {word} {number}\n{word}s ", f'so: {{"word": "{word}"}}', f"{word}" * (number % 5), f"{number}")[
        number % 4
    ]


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of prompt: text, or a variable and what is done to it."""

    text: str = ""
    variable: str | None = None
    transforms: tuple[Transform, ...] = ()

    def segment(self) -> Segment:
        return Constant(self.text) if self.variable is None else Input(self.variable, self.transforms)


@dataclass(frozen=True, slots=True)
class Step:
    """One call: what its prompt is made of. `turns` of a raw text have no role."""

    id: str
    output: str
    turns: tuple[tuple[str | None, tuple[Part, ...]], ...]
    max_tokens: int | None = None

    def call(self) -> Call:
        sampling = Sampling(max_tokens=self.max_tokens)
        return Call(id=CallId(self.id), prompt=self.prompt(), output=VariableName(self.output), sampling=sampling)

    def prompt(self) -> Prompt:
        if self.turns[0][0] is None:
            return TextPrompt(tuple(part.segment() for part in self.turns[0][1]))
        return ChatPrompt(
            tuple(Message(role or "", tuple(part.segment() for part in parts)) for role, parts in self.turns)
        )

    def inputs(self) -> list[str]:
        return [part.variable for _, parts in self.turns for part in parts if part.variable is not None]


@dataclass(slots=True)
class App:
    outside: dict[str, str | None] = field(default_factory=dict)
    """Variables that are set from outside; `None`: that fail."""
    steps: list[Step] = field(default_factory=list)
    """In an order in which they can run."""
    functions: list[tuple[Template, dict[str, Part], list[str]]] = field(default_factory=list)
    """Functions of several outputs, their bindings, and the ids of the steps that they are."""


@dataclass(frozen=True, slots=True)
class Outcome:
    text: str | None = None
    error: str | None = None
    """What went wrong in the first place."""
    is_upstream: bool = False


# ---- the plain side --------------------------------------------------------------------------------------------------


def plain_outcomes(app: App, given: Mapping[str, str]) -> dict[str, Outcome]:
    """By step. `given`: steps that something outside the app has ended, and the error they ended with."""
    values: dict[str, Outcome] = {
        name: Outcome(text=text) if text is not None else Outcome(error=f"{name} failed")
        for name, text in app.outside.items()
    }
    outcomes: dict[str, Outcome] = {}
    for step in app.steps:
        outcomes[step.id] = values[step.output] = _plain(step, values, given)
    return outcomes


def _plain(step: Step, values: Mapping[str, Outcome], given: Mapping[str, str]) -> Outcome:
    if step.id in given:
        return Outcome(error=given[step.id])
    for name in step.inputs():
        if (error := values[name].error) is not None:
            return Outcome(error=error, is_upstream=True)
    try:
        said = script(_said(step, values))
    except (EngineError, TransformFailed) as error:
        return Outcome(error=str(error))
    return Outcome(text=said if step.max_tokens is None else said[: step.max_tokens])


def _said(step: Step, values: Mapping[str, Outcome]) -> str:
    texts = []
    for role, parts in step.turns:
        text = "" if role is None else f"{role}\n"
        for part in parts:
            value = part.text if part.variable is None else values[part.variable].text or ""
            for transform in part.transforms:
                value = transform.apply(value)
            text += value
        texts.append(text)
    if step.turns[0][0] is not None:
        texts.append("assistant\n")
    return "".join(texts)


# ---- random apps -----------------------------------------------------------------------------------------------------


def random_app(rng: random.Random) -> App:
    app = App()
    for number in range(rng.randrange(1, 4)):
        text = rng.choice(
            ["  some page\nof text ", '{"word": "x"} and more', "", "boom" if rng.random() < 0.2 else "y"]
        )
        app.outside[f"$v{number}"] = None if rng.random() < 0.1 else text
    known = list(app.outside)
    while len(app.steps) < rng.randrange(2, 14):
        kind = rng.random()
        if kind < 0.15:
            _add_maps(app, known, rng)
        elif kind < 0.3:
            _add_function(app, known, rng)
        else:
            _add_step(app, known, rng)
    return app


def _add_step(app: App, known: list[str], rng: random.Random, reads: list[str] | None = None) -> None:
    number = len(app.steps)
    names = rng.sample(known, min(len(known), rng.choice([0, 1, 1, 2, 3]))) if reads is None else reads
    parts = [Part(text=f"step {number} "), *(_read(name, rng) for name in names), Part(text=" end")]
    if rng.random() < 0.3:
        rng.shuffle(parts)
    turns: tuple[tuple[str | None, tuple[Part, ...]], ...] = ((None, tuple(parts)),)
    if rng.random() < 0.4:
        cut = rng.randrange(len(parts))
        turns = (("system", tuple(parts[:cut])), ("user", tuple(parts[cut:])))
    limit = rng.choice([None, None, None, 1, 3])
    app.steps.append(Step(f"c{number}", f"out{number}", turns, limit))
    known.append(f"out{number}")


def _add_maps(app: App, known: list[str], rng: random.Random) -> None:
    before = list(known)
    maps = [len(app.steps) + index for index in range(rng.randrange(2, 6))]
    for number in maps:
        parts = (Part(text="map "), _read(rng.choice(before), rng), Part(text=str(number)))
        app.steps.append(Step(f"c{number}", f"out{number}", ((None, parts),)))
        known.append(f"out{number}")
    _add_step(app, known, rng, [f"out{number}" for number in maps])


def _add_function(app: App, known: list[str], rng: random.Random) -> None:
    """Two outputs, the second after the first; sometimes the template begins with one."""
    number, bound = len(app.steps), _read(rng.choice(known), rng)
    stem = f"function-{len(app.functions) + 1}"  # as a session names them
    ids = [f"{stem}.first", f"{stem}.second"]
    head = [] if rng.random() < 0.3 else [Part(text=f"f{number} "), bound]
    tail = [Part(text=" then "), *([bound] if not head else [])]
    first = tuple(head) or (Part(text=""),)
    second = (*head, Part(variable=ids[0]), *tail)
    text = ("" if not head else f"f{number} {{{{input:x}}}}") + "{{output:first}} then "
    text += ("{{input:x}}" if not head else "") + "{{output:second}}"
    app.functions.append((Template.parse(text), {"x": bound}, ids))
    app.steps += [Step(ids[0], ids[0], ((None, first),)), Step(ids[1], ids[1], ((None, second),))]
    known += ids


def _read(name: str, rng: random.Random) -> Part:
    return Part(variable=name, transforms=rng.choice(TRANSFORMS) if rng.random() < 0.3 else ())
