"""Calls as they are found, ahead of the app that will make them.

It knows bodies, markers and limits, and neither frameworks nor how calls are found.

The invariant: no marker leaves here but as a reference, and what is drafted is never more than one request should
carry.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import cache
from typing import Any

from parrot_compat.integrations.remote import Endpoint

from .book import Draft
from .ledger import CallAhead
from .markers import Markers

__all__ = ["MAX_CALLS", "MAX_CHARACTERS", "Drafting", "PlanTooLarge", "answers_as_ours", "map_stage"]

MAX_CALLS = 512
MAX_CHARACTERS = 4_000_000
"""Of the contents of all messages of a plan."""


class PlanTooLarge(Exception):
    """More than one request should carry."""


class Drafting:
    """One search for the calls that an app will make."""

    def __init__(self) -> None:
        self.name = uuid.uuid4().hex[:12]
        """What the ids of its calls begin with."""
        self.found: list[Draft] = []
        """In the order in which they are wanted."""
        self.markers = Markers()
        self._characters = 0

    def referring(self, body: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]] | None:
        """The body with references for texts that do not exist yet, and the ids of the calls that it reads. `None` if
        the call cannot be planned."""
        return self.markers.referring(body, self.name)

    def add(
        self,
        endpoint: Endpoint,
        body: Mapping[str, Any],
        reads: tuple[str, ...],
        *,
        function: str | None,
        stage: Mapping[str, Any] | None,
    ) -> int:
        """Returns the number of the call. Errors: `PlanTooLarge`, and then it was not added."""
        number = len(self.found)
        self._characters += sum(len(str(message.get("content"))) for message in body["messages"])
        if number >= MAX_CALLS or self._characters > MAX_CHARACTERS:
            raise PlanTooLarge(f"{number + 1} calls with {self._characters} characters are too much for one plan")
        call = CallAhead(id=f"{self.name}-{number}", request=body, reads=reads, function=function, stage=stage)
        self.found.append(Draft(endpoint, call))
        return number


def map_stage(group: str, index: int, size: int) -> dict[str, Any]:
    """For calls that do the same with several inputs, and wait for nothing of one another."""
    return {"kind": "map", "group": group, "index": index, "size": size}


@cache
def answers_as_ours(kind: type, methods: tuple[str, ...], framework: str) -> bool:
    """These methods are ours, or as the framework's package has them. A subclass that does something of its own with
    messages or answers must be asked itself."""
    ours = ("parrot_compat.", f"{framework}.")
    return all(getattr(kind, name).__module__.startswith(ours) for name in methods)
