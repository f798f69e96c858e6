"""What can be told of a call that no plan answers: its template, and where the values stand in it.

It knows templates, spans and text, and sends nothing. The invariant: a span is reported only if cutting it out of the
real text gives the value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from parrot_compat.integrations.plans.sentinels import marked, places, unmarked

from .drafts import SCALARS, identity_of, only_copies
from .settings import ParrotSettings
from .spans import Span
from .wire import request_messages

__all__ = ["hints_of"]

PREDICTING = ("predict", "apredict", "stream", "astream")


def hints_of(span: Span | None, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of a call with these messages, made in this span."""
    formatted = next((outer for outer in span.around if outer.method in PREDICTING), None) if span else None
    if formatted is None or not isinstance(formatted.instance, ParrotSettings):
        return {}
    return _template_hints(formatted.instance, formatted.arguments, messages)


def _template_hints(
    llm: ParrotSettings, arguments: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    template = arguments["prompt"]
    if llm.output_parser is not None or not only_copies(template, llm):
        return {}
    given = dict(arguments.get("prompt_args") or {})
    values = {**template.kwargs, **given}
    names = [name for name in dict.fromkeys(template.template_vars) if isinstance(values.get(name), SCALARS)]
    names = [name for name in names if name in values]
    between = {name: marked(index, values[name]) for index, name in enumerate(names)}
    probe = request_messages(llm._get_messages(template, **{**given, **between}))
    texts = [message.get("content") for message in messages]
    if [unmarked(message["content"]) for message in probe] != texts:
        return {}
    spans = [
        {"name": names[index], "message": number, **place}
        for number, message in enumerate(probe)
        for index, place in places(message["content"])
    ]
    return {"function": identity_of(template, llm), **({"inputs": spans} if spans else {})}
