"""Where the values of a prompt's variables stand in the messages that it became: exact spans, or none.

The prompt is formatted a second time with every value between sentinels; where the text without the sentinels is
the real text, the sentinels say where the values are. It knows prompts and text, and sends nothing.

The invariant: a span is reported only if cutting it out of the real text gives the value; and nothing of the app's
own code is run for it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from langchain_core.prompt_values import PromptValue

from parrot_compat.integrations.plans.sentinels import marked, places, unmarked

from .templates import Uses, uses_of
from .values import DICTS, is_plain

__all__ = ["Formatted", "Stage", "grouped", "hints_of", "stage_of_group"]

Stage = Mapping[str, Any]

stage_of_group: ContextVar[Stage | None] = ContextVar("parrot_group", default=None)


@contextmanager
def grouped(size: int) -> Iterator[None]:
    """Prompts that came together are asked in here, together."""
    if size < 2:
        yield
        return
    token = stage_of_group.set({"kind": "map", "group": uuid.uuid4().hex, "size": size})
    try:
        yield
    finally:
        stage_of_group.reset(token)


@dataclass(frozen=True, slots=True)
class Formatted:
    """A prompt that an app has formatted."""

    prompt: Any
    inputs: Any
    value: PromptValue


def hints_of(formatted: Sequence[Formatted], messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What can be told of a call with these messages: the prompt that made them, its variables, its group."""
    hints: dict[str, Any] = {}
    texts = [message.get("content") for message in messages]
    for made in formatted:
        if (uses := uses_of(made.prompt)) is None or [m.content for m in made.value.to_messages()] != texts:
            continue
        hints["function"] = uses.identity
        if spans := _spans(made, uses, texts):
            hints["inputs"] = spans
        break
    if (stage := stage_of_group.get()) is not None:
        hints["stage"] = dict(stage)
    return hints


def _spans(made: Formatted, uses: Uses, texts: Sequence[Any]) -> list[dict[str, Any]]:
    prompt, inputs = made.prompt, made.inputs
    if type(inputs) not in DICTS:
        inputs = {prompt.input_variables[0]: inputs} if len(prompt.input_variables) == 1 else {}
    given = {name: value for name, value in {**prompt.partial_variables, **inputs}.items() if name in uses.names}
    names = [name for name in given if uses.only_copies(name)]
    if not names or not all(map(is_plain, given.values())):
        return []
    between = {name: marked(index, given[name]) for index, name in enumerate(names)}
    try:
        probe = prompt.format_prompt(**{**given, **between}).to_messages()
    except Exception:  # the value is not a text where the prompt wants one
        return []
    spans: list[dict[str, Any]] = []
    for number, (message, text) in enumerate(zip(probe, texts, strict=True)):
        if not isinstance(message.content, str) or unmarked(message.content) != text:
            continue
        spans += [{"name": names[index], "message": number, **span} for index, span in places(message.content)]
    return spans
