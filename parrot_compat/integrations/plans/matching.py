"""A request that is about to be made, looked for among the plans that are open around it.

It knows plans and requests, and nothing of how a framework tells which run a request belongs to.

The invariant: whatever goes wrong in here, the request is made as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from parrot_compat.integrations.remote import Endpoint

from .asked import ALONE, Asked
from .book import PlanBook, SentPlan
from .calls import body_of
from .client import Match

__all__ = ["asked_softly", "first_match"]

log = logging.getLogger(__name__)


def asked_softly(book: PlanBook, look: Callable[[], Asked]) -> Asked:
    """What `look` finds of a request; one that no plan answers is counted. Never raises."""
    asked = ALONE
    try:
        asked = look()
    except Exception:
        log.debug("the planner failed on a request; it is made as it is", exc_info=True)
    if asked.match is None:
        book.count(direct=1)
    return asked


def first_match(plans: Iterable[SentPlan], endpoint: Endpoint, request: Mapping[str, Any]) -> Match | None:
    """The planned call that this request is, of the first plan that has one."""
    there = [plan for plan in plans if plan.is_for(endpoint)]
    body = body_of(request) if there else None
    if body is None:
        return None
    return next((match for plan in there if (match := plan.find(endpoint, body)) is not None), None)
