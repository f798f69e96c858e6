"""A request: a template with everything that is decided about its calls before its inputs are known.

It knows nothing of hosts or sessions.

The invariant: a request that exists can be asked for. What contradicts itself, and bindings that do not fit, are
refused by name before anything was sent, and therefore the same wherever the app runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from parrot_compat.core.call import ObjectiveKind
from parrot_compat.core.errors import BadTemplate
from parrot_compat.core.template import Template, TemplateForm

from .output import Output

__all__ = ["Bound", "Request"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """An input that is another variable of the session, after `transforms` (in their wire form)."""

    variable: str
    transforms: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One LLM call for each output of the template. Errors: `BadTemplate`."""

    template: str
    sampling: Output = field(default_factory=Output)
    """Of every output."""
    outputs: Mapping[str, Output] = field(default_factory=dict)
    """Of the outputs it names; what it leaves open is `sampling`'s."""
    form: TemplateForm = "chat"
    function: str | None = None
    model: str | None = None
    objective: ObjectiveKind | None = None
    parsed: Template = field(init=False, repr=False)

    def __post_init__(self) -> None:
        parsed = Template.parse(self.template)
        if unknown := set(self.outputs) - set(parsed.outputs):
            raise BadTemplate(f"the template has no output {', '.join(sorted(unknown))}", "outputs")
        object.__setattr__(self, "parsed", parsed)

    def output(self, name: str) -> Output:
        return self.outputs.get(name, Output()).over(self.sampling)

    def check(self, names: Collection[str]) -> None:
        """The inputs that are bound are those of the template. Errors: `BadTemplate`."""
        if missing := set(self.parsed.inputs) - set(names):
            raise BadTemplate(f"no binding for {', '.join(sorted(missing))}", "bindings")
        if unknown := set(names) - set(self.parsed.inputs):
            raise BadTemplate(f"the template has no input {', '.join(sorted(unknown))}", "bindings")
