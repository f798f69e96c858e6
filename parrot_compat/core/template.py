"""Templates: text with holes, some of which the model fills.

`{{input:name}}` is filled by a binding, `{{output:name}}` by the model; `\\{{` is a literal `{{`. A template
may have several outputs and may begin with one. It knows nothing of sessions: `cut` turns it into one
prompt per output, each reading what comes before it.

The invariant: the prompts of a template, filled in order, spell the template's text in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

from .call import VariableName
from .errors import BadTemplate
from .prompt import ChatPrompt, Constant, Input, Message, Prompt, Segment, TextPrompt

__all__ = ["Cut", "Output", "Template", "TemplateForm"]

MAX_HOLES = 65_536
"""Of one template, escapes among them; and those before each output, added up: it reads them all, so that some
kilobytes of outputs could ask for millions."""

TemplateForm = Literal["chat", "text"]
"""How a template speaks to the model. chat: what comes before an output is a user message and the output the
assistant's turn. text: one raw text, as base models continue it."""

Cut = tuple[tuple[VariableName, Prompt], ...]
"""For each output of a template the variable that it becomes and the prompt that it has."""


@dataclass(frozen=True, slots=True)
class Output:
    """A hole that the model fills."""

    name: str


@dataclass(frozen=True, slots=True)
class Template:
    segments: tuple[Constant | Input | Output, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Errors: `BadTemplate`, with the position and what stands there."""
        segments: list[Constant | Input | Output] = []
        constant: list[str] = []
        position = 0
        for number, mark in enumerate(_MARK.finditer(text), 1):
            if number > MAX_HOLES:
                raise BadTemplate(f"at character {mark.start()}: a template has at most {MAX_HOLES} holes", "template")
            constant.append(text[position : mark.start()])
            position = mark.end()
            if mark["escape"]:
                constant.append("{{")
                continue
            hole = _HOLE.match(text, mark.start())
            if hole is None:
                raise BadTemplate(
                    f"at character {mark.start()}: {text[mark.start() : mark.start() + 40]!r} is neither "
                    "{{input:name}} nor {{output:name}}; write \\{{ for a literal {{",
                    "template",
                )
            position = hole.end()
            if "".join(constant):
                segments.append(Constant("".join(constant)))
            constant = []
            segments.append((Input if hole["kind"] == "input" else Output)(hole["name"]))
        constant.append(text[position:])
        if "".join(constant):
            segments.append(Constant("".join(constant)))
        template = cls(tuple(segments))
        template._must_make_sense()
        return template

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names to bind, in order of first use; reading an output further up is not one of them."""
        outputs = set(self.outputs)
        names = (segment.variable for segment in self.segments if isinstance(segment, Input))
        return tuple(dict.fromkeys(name for name in names if name not in outputs))

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(segment.name for segment in self.segments if isinstance(segment, Output))

    @property
    def reads(self) -> int:
        """Holes before each output, of all outputs together: what its prompts have beside text."""
        holes = [segment for segment in self.segments if not isinstance(segment, Constant)]
        return sum(place for place, hole in enumerate(holes) if isinstance(hole, Output))

    def cut(
        self, bindings: Mapping[str, Segment], outputs: Mapping[str, VariableName], form: TemplateForm = "chat"
    ) -> Cut:
        """One (variable, prompt) per output, in order.

        `bindings` says what each input is (a constant, or a variable of the session), `outputs` which
        variable each output becomes. Errors: `BadTemplate` for a name too many or too few.
        """
        return next(self.cut_each([(bindings, outputs)], form))

    def cut_each(
        self, many: Iterable[tuple[Mapping[str, Segment], Mapping[str, VariableName]]], form: TemplateForm = "chat"
    ) -> Iterator[Cut]:
        """As `cut`, for each of many bindings and what its outputs become. Of what stands behind the last output, which
        no prompt reads, only the names count. Errors: those of `cut`, when it is the turn of what is wrong."""
        inputs = set(self.inputs)
        read = self.segments[: max(n for n, segment in enumerate(self.segments) if isinstance(segment, Output)) + 1]
        for bindings, outputs in many:
            _must_match(bindings.keys(), inputs)
            yield _cut(read, bindings, outputs, form)

    def _must_make_sense(self) -> None:
        if (reads := self.reads) > MAX_HOLES:
            raise BadTemplate(
                f"its outputs read {reads} holes, each those before it; at most {MAX_HOLES} are read", "template"
            )
        to_come = set(self.outputs)
        if not to_come:
            raise BadTemplate("a template needs at least one {{output:name}}", "template")
        for segment in self.segments:
            if isinstance(segment, Output):
                if segment.name not in to_come:
                    raise BadTemplate(
                        f"{{{{output:{segment.name}}}}} stands twice; a variable is written once", "template"
                    )
                to_come.remove(segment.name)
            elif isinstance(segment, Input) and segment.variable in to_come:
                raise BadTemplate(f"{{{{input:{segment.variable}}}}} is read before its output is written", "template")


def _must_match(bound: AbstractSet[str], inputs: AbstractSet[str]) -> None:
    if missing := inputs - bound:
        raise BadTemplate(f"no binding for {', '.join(sorted(missing))}", "bindings")
    if unknown := bound - inputs:
        raise BadTemplate(f"the template has no input {', '.join(sorted(unknown))}", "bindings")


def _cut(
    segments: Iterable[Constant | Input | Output],
    bindings: Mapping[str, Segment],
    outputs: Mapping[str, VariableName],
    form: TemplateForm,
) -> Cut:
    prompts: list[tuple[VariableName, Prompt]] = []
    turns: list[Message] = []  # that are over: each is there once, however many prompts begin with it
    said: list[Segment] = []  # behind them
    for segment in segments:
        if isinstance(segment, Input):
            bound = bindings.get(segment.variable)
            said.append(Input(outputs[segment.variable]) if bound is None else bound)
        elif isinstance(segment, Constant):
            said.append(segment)
        elif form == "text":
            output = outputs[segment.name]
            prompts.append((output, TextPrompt(tuple(said))))
            said.append(Input(output))
        else:
            output = outputs[segment.name]
            if said:
                turns.append(Message("user", tuple(said)))
                said = []
            prompts.append((output, ChatPrompt(tuple(turns))))
            turns.append(Message("assistant", (Input(output),)))
    return tuple(prompts)


_MARK = re.compile(r"(?P<escape>\\)?\{\{")
_HOLE = re.compile(r"\{\{\s*(?P<kind>input|output)\s*:\s*(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
