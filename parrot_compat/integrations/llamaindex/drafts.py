"""Calls of a synthesizer before it makes them: bodies as `ParrotLLM` will send them, with references for texts that do
not exist yet.

A text that does not exist yet is a *marker*: a string that no app's text contains, because it holds random digits of
this run alone. It goes through LlamaIndex's own templates, so the planned request is made by the very code that will
make the real one. It knows the LLM's requests and templates, and no synthesizers.

The invariant: a marker never leaves this module but as a reference, and no code of the app's own sees one.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

from llama_index.core.prompts.base import (
    BasePromptTemplate,
    ChatPromptTemplate,
    PromptTemplate,
    SelectorPromptTemplate,
)

from parrot_compat.integrations.plans.book import Draft
from parrot_compat.integrations.plans.calls import body_of
from parrot_compat.integrations.plans.ledger import PlannedCall, reference

from .settings import ParrotSettings

__all__ = ["CannotPlan", "Drafts", "identity_of", "only_copies"]

MAX_CALLS = 512
MAX_CHARACTERS = 4_000_000
SCALARS = (str, int, float, bool, type(None))


class CannotPlan(Exception):
    """What comes next cannot be known ahead; what has been drafted so far stands."""


def only_copies(template: BasePromptTemplate, llm: ParrotSettings) -> bool:
    """Formatting it puts values where their names stand, and runs no code of the app's."""
    if type(template) is SelectorPromptTemplate:
        return only_copies(template.select(llm=llm), llm)
    return (
        type(template) in (PromptTemplate, ChatPromptTemplate)
        and not template.function_mappings
        and template.output_parser is None
        and all(isinstance(value, SCALARS) for value in template.kwargs.values())
    )


def identity_of(template: BasePromptTemplate, llm: ParrotSettings) -> str:
    """The same for every call of one template, whatever its values."""
    return f"template-{hashlib.sha256(template.get_template(llm=llm).encode()).hexdigest()[:16]}"


class Drafts:
    """The calls of one run of a synthesizer, as they are found."""

    def __init__(self, llm: ParrotSettings, is_refused: Any) -> None:
        self.llm = llm
        self.found: list[Draft] = []
        self.name = uuid.uuid4().hex
        self._is_refused = is_refused
        self._marker = re.compile(f"\ue000{self.name}:(\\d+)(s?)\ue001")
        self._characters = 0

    def call(
        self, template: BasePromptTemplate, values: Mapping[str, Any], stage: tuple[str, int, int] | None = None
    ) -> str:
        """Draft `llm.predict(template, **values)`, and return the marker of its text. Errors: `CannotPlan`."""
        identity = identity_of(template, self.llm)
        if not only_copies(template, self.llm) or self._is_refused(identity):
            raise CannotPlan
        if not all(isinstance(value, SCALARS) for value in values.values()):
            raise CannotPlan
        body = body_of(self.llm._request(self.llm._get_messages(template, **values), {}))
        if body is None:
            raise CannotPlan
        reads: dict[str, None] = {}
        body["messages"] = [self._split(message, reads) for message in body["messages"]]
        # Markers in any other place (a name, a parameter, a part of a list) would reach the server as text.
        if json.dumps(f"\ue000{self.name}")[1:-1] in json.dumps(body):
            raise CannotPlan
        self._characters += sum(len(str(message.get("content"))) for message in body["messages"])
        if len(self.found) >= MAX_CALLS or self._characters > MAX_CHARACTERS:
            raise CannotPlan
        number = len(self.found)
        call = PlannedCall(
            id=f"{self.name}-{number}", request=body, reads=tuple(reads), function=identity, stage=_stage(stage)
        )
        self.found.append(Draft(self.llm._endpoint, call))
        return f"\ue000{self.name}:{number}\ue001"

    def stripped(self, text: str) -> str:
        """The marker of what `strip()` leaves of a marker's text."""
        return text.replace("\ue001", "s\ue001")

    def _split(self, message: dict[str, Any], reads: dict[str, None]) -> dict[str, Any]:
        content = message.get("content")
        if not isinstance(content, str) or self._marker.search(content) is None:
            return message
        parts: list[dict[str, Any]] = []
        end = 0
        for marker in self._marker.finditer(content):
            if marker.start() > end:
                parts.append({"type": "text", "text": content[end : marker.start()]})
            call = f"{self.name}-{marker.group(1)}"
            reads[call] = None
            parts.append(reference(call, "strip" if marker.group(2) else None))
            end = marker.end()
        if end < len(content):
            parts.append({"type": "text", "text": content[end:]})
        return {**message, "content": parts}


def _stage(stage: tuple[str, int, int] | None) -> dict[str, Any] | None:
    if stage is None:
        return None
    group, index, size = stage
    return {"kind": "map", "group": group, "index": index, "size": size}
