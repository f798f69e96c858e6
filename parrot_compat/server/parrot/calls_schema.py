"""The body of POST /v1/parrot/sessions/{session}/calls: a function, what its inputs are, how its outputs are drawn.

It knows nothing of sessions. The sampling of an output is what the body says for all, and over it what it says for
that output alone.

The invariant: a body that was read says for every output what a plain request would say, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from parrot_compat.core.call import ObjectiveKind, Sampling
from parrot_compat.core.errors import ParrotError
from parrot_compat.core.prompt import Constant, Input, Segment
from parrot_compat.core.template import Template
from parrot_compat.core.variable import Variable
from parrot_compat.server.amounts import MOST_PIECES, ONE_BY_ONE, at_most
from parrot_compat.server.bodies import Items, Schema
from parrot_compat.server.errors import ApiError, invalid, within
from parrot_compat.server.limits import RequestLimits
from parrot_compat.server.openai.chat_schema import CHAT_NOT_YET
from parrot_compat.server.openai.sampling_schema import LimitedRequest, ignored_fields, one_of
from parrot_compat.server.sessions.object_schema import Name, PathName
from parrot_compat.server.sessions.references import transforms_of

__all__ = ["Binding", "CallsRequest"]

MOST_READS = 131_072
"""Holes before the outputs of a template, added up, times its bindings: of each of 2,048 calls 64. As many inputs may
be bound."""
MOST_OUTPUTS = 1024
"""That have sampling of their own: a template has some hundreds at most."""
_NO_CONNECTION = ("stream", "stream_options", "n", "return_token_ids", "parrot")
_OF_ALL = ("model", "priority", "service_tier", "nvext")
_CALL_NOT_YET: Mapping[str, tuple[Any, ...]] = {
    **CHAT_NOT_YET,
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "reasoning_effort": (),
    "chat_template_kwargs": ({},),
    "add_special_tokens": (),  # as its form has it
}
"""What chats know and a function has no words for: its outputs are texts, held to a form by `structured_outputs`."""


class Binding(Schema):
    variable: Annotated[str, Field(max_length=512)]
    transform: Any = None


Bound = Annotated[str | Binding, one_of("a text, or an object that names a variable")]
Bindings = Annotated[dict[str, Bound], ONE_BY_ONE]


class CallsRequest(LimitedRequest):
    most_pieces: ClassVar[int] = 4 * MOST_PIECES  # of as many bound inputs as there may be ten each

    id: Name | None = None
    """Of this request: sent again with the same body it finds what it made the first time."""
    function: PathName | None = None
    template: str
    form: Literal["chat", "text"] = "chat"
    bindings: Annotated[
        Bindings | Items[Bindings], one_of("an object, or a list of objects, of bound inputs"), at_most(MOST_READS)
    ] = Field(default_factory=dict)
    """A list calls the function over each of its items, side by side."""
    outputs: Annotated[dict[str, LimitedRequest], at_most(MOST_OUTPUTS)] = Field(default_factory=dict)
    objective: ObjectiveKind | None = None
    _parsed: Template | None = PrivateAttr(default=None)

    def check(self, limits: RequestLimits) -> None:
        LimitedRequest.check(self, limits)
        self._refuse(self, _NO_CONNECTION, "")
        template, many = self.parsed(), len(self.many())
        outputs = template.outputs
        if not 1 <= many * len(outputs) <= limits.calls:
            made = f"they make {many * len(outputs)} calls"
            raise invalid("bindings", f"{made}; one request makes 1 to {limits.calls}")
        if (reads := many * template.reads) > MOST_READS:
            raise invalid("bindings", f"their calls read {reads} holes of the template, of at most {MOST_READS}")
        if unknown := self.outputs.keys() - set(outputs):
            raise invalid("outputs", f"the template has no output {min(unknown)[:64]!r}")
        for name, own in self.outputs.items():
            path = f"outputs.{name[:64]}"
            self._refuse(own, _NO_CONNECTION + _OF_ALL, f"{path}.")
            try:
                own.check(limits)
            except ApiError as error:
                raise within(error, path) from None

    def parsed(self) -> Template:
        """Errors: `BadTemplate`."""
        if self._parsed is None:  # a large one takes 0.1 s
            self._parsed = Template.parse(self.template)
        return self._parsed

    def many(self) -> list[Bindings]:
        return self.bindings if isinstance(self.bindings, list) else [self.bindings]

    def segments(self, known: Callable[[str], Variable]) -> list[dict[str, Segment]]:
        """What the inputs are, for each call of the function. Errors: `ApiError` 400, 404."""
        each, patterns = [], set[str]()
        for index, bindings in enumerate(self.many()):
            path = f"bindings[{index}]" if isinstance(self.bindings, list) else "bindings"
            each.append(
                {name: _segment(bound, f"{path}.{name[:64]}", known, patterns) for name, bound in bindings.items()}
            )
        return each

    def sampling_of(self) -> dict[str, Sampling]:
        """Of those outputs that have sampling of their own, over what is said for all."""
        every, form = _said(self), self.output_format()
        return {
            name: replace(
                LimitedRequest(**(every | _said(own))).sampling(),
                format=form if own.structured_outputs is None else own.output_format(),
            )
            for name, own in self.outputs.items()
        }

    def ignored(self) -> list[str]:
        """Fields without effect. Errors: `ApiError` 400 for those that cannot be left without."""
        fields = ignored_fields(self, _CALL_NOT_YET)
        for name, own in self.outputs.items():
            fields += ignored_fields(own, _CALL_NOT_YET, f"outputs.{name[:64]}.")
        return fields

    @staticmethod
    def _refuse(request: LimitedRequest, names: tuple[str, ...], path: str) -> None:
        for name in names:
            value = getattr(request, name)
            if value not in (None, False) and not (name == "n" and value == 1):
                raise invalid(f"{path}{name}", "it has no meaning here; leave it out")


_LIMITS = {"max_tokens", "max_completion_tokens"}
_FORM = {"structured_outputs"}  # may be large: one for all outputs that have none of their own
_SAMPLING = set(LimitedRequest.model_fields) - set(_NO_CONNECTION) - set(_OF_ALL) - _LIMITS - _FORM


def _said(request: LimitedRequest) -> dict[str, Any]:
    """What it says of sampling but for its form, with one name for its limit: an output's own goes over that of all by
    either name."""
    most = request.most_tokens()
    said = request.model_dump(include=_SAMPLING, exclude_none=True, by_alias=True)
    return said if most is None else said | {"max_tokens": most}


def _segment(bound: str | Binding, path: str, known: Callable[[str], Variable], patterns: set[str]) -> Segment:
    if isinstance(bound, str):
        return Constant(bound)
    try:
        variable = known(bound.variable)
    except ParrotError as error:
        raise within(error, f"{path}.variable") from None
    return Input(variable.name, transforms_of(bound.transform, path, patterns))
