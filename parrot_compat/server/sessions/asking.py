"""What a request asks beyond its answer: which session it belongs to, what it should be quick at, whose twin it is.

The `parrot` object says it; so do a few headers and fields of other servers, with the meaning they have there:
`X-Parrot-Session`, `X-Session-ID`, `x-claude-code-session-id`; OpenAI's `service_tier`; vLLM's `priority` (lower is
sooner); Dynamo's `nvext.agent_hints.priority` (higher is sooner). It knows nothing of how sessions work.

The invariant: every hint that came has its word in `hints`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.datastructures import Headers

from parrot_compat.core.call import ObjectiveKind
from parrot_compat.server.bodies import forget_unknown
from parrot_compat.server.errors import invalid
from parrot_compat.server.hints import Hints

from .object_schema import ParrotObject, Span, unknown_fields, wrong_spans

__all__ = ["Ask", "Hinting", "objective_of", "read_ask", "session_label"]

LABEL_CHARS = 256
_FOREIGN_HEADERS = ("x-session-id", "x-claude-code-session-id")
_TIERS: dict[str, ObjectiveKind] = {"flex": "throughput", "priority": "latency", "fast": "latency"}


class Hinting(Protocol):
    """A request body with hints of other servers in it."""

    @property
    def priority(self) -> Any: ...
    @property
    def service_tier(self) -> Any: ...
    @property
    def nvext(self) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    tenant: str
    session: str | None
    """The label the client gave; `None`: the request is a session of its own."""
    said: ParrotObject
    """Empty where the request had none."""
    has_object: bool
    """Then the receipt is an object too."""
    objective: ObjectiveKind | None
    spans: tuple[Span, ...]
    """Those of `said.inputs` that lie where they say."""
    hints: Hints

    def notes(self) -> dict[str, Any]:
        """What only people read of it, in a description of the session."""
        notes: dict[str, Any] = {}
        if self.spans:
            notes["spans"] = [span.model_dump(by_alias=True, exclude_none=True) for span in self.spans]
        if self.said.stage is not None:
            notes["stage"] = self.said.stage.model_dump(exclude_none=True)
        return notes


class _WithObject(Hinting, Protocol):
    @property
    def parrot(self) -> ParrotObject | None: ...


def read_ask(
    body: _WithObject, headers: Headers, tenant: str, texts: Sequence[Sequence[str | None] | str | None], hints: Hints
) -> Ask:
    """`texts` are those of the messages, which spans point into. Errors: `ApiError` 400 for a label too long."""
    said = body.parrot or ParrotObject()
    hints.ignored(*unknown_fields(said, "parrot"))
    forget_unknown(said)  # its session may keep it
    wrong = wrong_spans(said.inputs or (), texts)
    hints.ignored(*(f"inputs[{index}]" for index in wrong))
    spans = tuple(span for index, span in enumerate(said.inputs or ()) if index not in set(wrong))
    if spans:
        hints.applied("inputs")
    if said.function is not None:
        hints.applied("function")
    if said.stage is not None:
        (hints.ignored if said.stage.stage() is None else hints.applied)("stage")
    return Ask(
        tenant=tenant,
        session=said.session or session_label(headers, hints),
        said=said,
        has_object=body.parrot is not None,
        objective=objective_of(body, said.objective, hints),
        spans=spans,
        hints=hints,
    )


def session_label(headers: Headers, hints: Hints) -> str | None:
    """Our header is an order, so one that cannot be followed is an error; those of others are hints."""
    label = headers.get("x-parrot-session", "")
    if len(label) > LABEL_CHARS:
        raise invalid("X-Parrot-Session", f"{len(label)} characters; at most {LABEL_CHARS}")
    if label:
        return label
    for name in _FOREIGN_HEADERS:
        label = headers.get(name, "")
        if len(label) > LABEL_CHARS:
            hints.ignored(name)
        elif label:
            return label
    return None


def objective_of(body: Hinting, said: ObjectiveKind | None, hints: Hints) -> ObjectiveKind | None:
    """The clearest word counts; what says less clearly the same kind of thing is ignored beside it."""
    asked: list[tuple[str, ObjectiveKind]] = []
    if said is not None:
        asked.append(("objective", said))
        hints.applied("objective")
    if (tier := body.service_tier) is not None:
        if isinstance(tier, str) and tier in _TIERS:
            asked.append(("service_tier", _TIERS[tier]))
            hints.applied("service_tier")
        elif tier not in ("auto", "default"):
            hints.ignored("service_tier")
    for name, sooner in _priorities(body, hints):
        if sooner:
            asked.append((name, "latency" if sooner > 0 else "background"))
        hints.clipped(name)  # of all the numbers there are, only the sign is taken
    hints.ignored(*(name for name, _ in asked[1:]))
    return asked[0][1] if asked else None


def _priorities(body: Hinting, hints: Hints) -> list[tuple[str, int]]:
    """Each with how much sooner it wants to be served: vLLM's is turned round."""
    found: list[tuple[str, int]] = []
    if body.priority is not None:
        if _is_whole(body.priority):
            found.append(("priority", -body.priority))
        else:
            hints.ignored("priority")
    if body.nvext is None:
        return found
    if not isinstance(body.nvext, dict):
        hints.ignored("nvext")
        return found
    hints.ignored(*(f"nvext.{name}" for name in body.nvext if name != "agent_hints"))
    agent = body.nvext.get("agent_hints")
    if not isinstance(agent, dict):
        hints.ignored(*["nvext.agent_hints"] * (agent is not None))
        return found
    for name, value in agent.items():
        if name == "priority" and _is_whole(value):
            found.append(("nvext.agent_hints.priority", value))
        else:
            hints.ignored(f"nvext.agent_hints.{name}")
    return found


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
