"""Calls of a synthesizer before it makes them: bodies as `ParrotLLM` will send them, with references for texts that do
not exist yet.

It knows the LLM's requests and templates, and no synthesizers. The invariant: no code of the app's own sees a marker.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from llama_index.core.prompts.base import (
    BasePromptTemplate,
    ChatPromptTemplate,
    PromptTemplate,
    SelectorPromptTemplate,
)

from parrot_compat.integrations.plans.calls import body_of
from parrot_compat.integrations.plans.drafting import Drafting, map_stage

from .settings import ParrotSettings

__all__ = ["CannotPlan", "Drafts", "identity_of", "only_copies"]

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
        self._is_refused = is_refused
        self._drafting = Drafting()
        self.name = self._drafting.name
        self.found = self._drafting.found

    def call(
        self, template: BasePromptTemplate, values: Mapping[str, Any], stage: tuple[str, int, int] | None = None
    ) -> str:
        """Draft `llm.predict(template, **values)`, and return the marker of its text.

        Errors: `CannotPlan`, `PlanTooLarge`.
        """
        identity = identity_of(template, self.llm)
        if not only_copies(template, self.llm) or self._is_refused(identity):
            raise CannotPlan
        if not all(isinstance(value, SCALARS) for value in values.values()):
            raise CannotPlan
        body = body_of(self.llm._request(self.llm._get_messages(template, **values), {}))
        referring = None if body is None else self._drafting.referring(body)
        if referring is None:
            raise CannotPlan
        in_stage = None if stage is None else map_stage(*stage)
        number = self._drafting.add(self.llm._endpoint, *referring, function=identity, stage=in_stage)
        return self._drafting.markers.text(number)

    def stripped(self, marker: str) -> str:
        """The marker of what `strip()` leaves of a marker's text."""
        call = self._drafting.markers.call_of(marker)
        assert call is not None
        return self._drafting.markers.text(call, "strip")
