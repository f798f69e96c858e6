"""Function calls: a template and what it is called over, as the calls that make its outputs.

It knows nothing of who runs them.

The invariant: each binding has one call for each output of the template, in order, and those of one output are a stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .call import Call, CallId, ObjectiveKind, Sampling, StageLabel, VariableName
from .errors import CallerError
from .prompt import Segment
from .template import Template, TemplateForm

__all__ = ["FunctionCall"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionCall:
    """What holds for every binding."""

    template: Template
    outputs: Mapping[str, Sampling] = field(default_factory=dict)
    """Of those that have a sampling of their own; `sampling` is for the rest."""
    sampling: Sampling | None = None
    form: TemplateForm = "chat"
    function: str | None = None
    model: str | None = None
    objective: ObjectiveKind | None = None

    def over(self, many: Sequence[Mapping[str, Segment]], stems: Sequence[str]) -> list[Call]:
        """A call is named after its binding's stem and its output. Errors: `CallerError`, `BadTemplate`."""
        outputs = self.template.outputs
        if unknown := self.outputs.keys() - set(outputs):
            raise CallerError(f"the template has no output {', '.join(sorted(unknown))}", "outputs")
        variables = [{output: VariableName(f"{stem}.{output}") for output in outputs} for stem in stems]
        calls: list[Call] = []
        for cut in self.template.cut_each(zip(many, variables, strict=True), self.form):
            for output, (variable, prompt) in zip(outputs, cut, strict=True):
                calls.append(
                    Call(
                        id=CallId(variable),
                        prompt=prompt,
                        output=variable,
                        sampling=self.outputs.get(output, self.sampling or Sampling()),
                        model=self.model,
                        function=self.function,
                        function_output=output,
                        objective=self.objective,
                        stage=StageLabel(name=f"{stems[0]}.{output}", size=len(many)) if len(many) > 1 else None,
                    )
                )
        return calls
