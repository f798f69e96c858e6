"""The words that every answer of OpenAI's API has: its identity, and what it used.

It knows nothing of the shape of any one answer. The invariant: every answer of one request tells the same identity.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from parrot_compat.core.call import Usage
from parrot_compat.server.serving import Serving
from parrot_compat.server.sessions.rooms import cached_tokens

__all__ = ["AnswerHead", "answer_head", "usage_of"]

_TIERS = {"auto": "default", "default": "default", "flex": "flex", "priority": "priority", "fast": "priority"}
"""What was asked for, and what it is called when it is served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerHead:
    """The identity of one answer: what its head tells, the same in every chunk of a stream."""

    id: str
    object: str
    model: str
    fingerprint: str
    tier: str | None = None
    """The service tier, where one was asked for."""
    created: int = field(default_factory=lambda: int(time.time()))

    def head(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": self.object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        } | ({} if self.tier is None else {"service_tier": self.tier})


def answer_head(serving: Serving, prefix: str, object: str, model: str, tier: Any = None) -> AnswerHead:
    """Of a new answer; `tier` as the request asks for one."""
    id = f"{prefix}-{uuid.uuid4().hex}"
    tier = _TIERS.get(tier) if isinstance(tier, str) else None
    return AnswerHead(id=id, object=object, model=model, fingerprint=serving.fingerprint, tier=tier)


def usage_of(usages: Sequence[Usage], choices: int = 1) -> dict[str, Any]:
    """OpenAI's usage of all choices together. `usages` come `choices` to a prompt, which is counted once."""
    prompt_tokens = sum(usage.prompt_tokens for usage in usages[::choices])
    output_tokens = sum(usage.output_tokens for usage in usages)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens(usages, choices)},
    } | _answer_details(usages)


def _answer_details(usages: Sequence[Usage]) -> dict[str, Any]:
    """What the answers were used for, where that is counted: of models that think before they answer."""
    counted = [usage.reasoning_tokens for usage in usages if usage.reasoning_tokens is not None]
    return {"completion_tokens_details": {"reasoning_tokens": sum(counted)}} if counted else {}
