"""Every error this project raises on purpose, as one tree.

Our exception hierarchy:

ParrotError
  CallerError              the caller can mend it; the message says how
    BadTemplate · BadPrompt · BadSchema · PromptTooLong · CycleInGraph
    UnknownVariable · UnknownSession · UnknownPlan · AlreadySettled · TransformFailed
  LimitError               the caller can come back later
    TooManyCalls · SessionFull · QueueFull
  EngineError              the operator, or a retry, can mend it
    EngineLost · ContextLost · NoEngineForModel · ModelAway · ModelRefused
  UpstreamFailed           a variable that this one was made from has failed
  Cancelled                somebody who may has asked for the work to stop

The tree knows nothing of HTTP: `server/errors.py` holds the one table from these classes to status codes.
Every error survives pickling, because engines live in processes of their own.
"""

from __future__ import annotations

__all__ = [
    "AlreadySettled",
    "BadPrompt",
    "BadSchema",
    "BadTemplate",
    "CallerError",
    "Cancelled",
    "ContextLost",
    "CycleInGraph",
    "EngineError",
    "EngineLost",
    "LimitError",
    "ModelAway",
    "ModelRefused",
    "NoEngineForModel",
    "ParrotError",
    "PromptTooLong",
    "QueueFull",
    "SessionFull",
    "TooManyCalls",
    "TransformFailed",
    "UnknownPlan",
    "UnknownSession",
    "UnknownVariable",
    "UpstreamFailed",
]


class ParrotError(Exception):
    """Root of every error raised on purpose. `str(error)` is written for the person who must act on it."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)

    @property
    def message(self) -> str:
        return str(self)


class CallerError(ParrotError):
    """What was asked cannot be done as asked. Who can act: the caller."""

    def __init__(self, message: str = "", param: str | None = None) -> None:
        super().__init__(message)
        self.param = param

    def __reduce__(self) -> tuple[type[CallerError], tuple[str, str | None]]:
        return type(self), (self.message, self.param)


class BadTemplate(CallerError):
    """A template with holes that cannot be read, or that do not match its bindings."""


class BadPrompt(CallerError):
    """Messages or tokens that the model's chat template or vocabulary cannot take."""


class BadSchema(CallerError):
    """An output format (JSON schema, grammar, …) that cannot be compiled."""


class PromptTooLong(CallerError):
    """The prompt leaves no room for an answer in the engine's context."""


class CycleInGraph(CallerError):
    """Calls that would wait for each other for ever."""


class UnknownVariable(CallerError):
    """No such variable in this session."""


class UnknownSession(CallerError):
    """No such session for this tenant: it ended, or never was."""


class UnknownPlan(CallerError):
    """No such plan for this tenant: it ended, or never was."""


class AlreadySettled(CallerError):
    """A variable is written once; this one has its text or its failure already."""


class TransformFailed(CallerError):
    """A transform does not apply to the text it met."""


class LimitError(ParrotError):
    """Refused for now. Who can act: the caller, by waiting `retry_after_s` seconds."""

    def __init__(self, message: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type[LimitError], tuple[str, float]]:
        return type(self), (self.message, self.retry_after_s)


class TooManyCalls(LimitError):
    """This tenant or app has more calls open than it may."""


class SessionFull(LimitError):
    """The open sessions of this tenant keep as much as they may. Waiting helps where some of them end by time."""


class QueueFull(LimitError):
    """The server as a whole has more work waiting than it may hold."""


class EngineError(ParrotError):
    """The work was fine, the engine was not. Who can act: the operator; often a retry is enough."""


class EngineLost(EngineError):
    """The engine died or went away with work in it."""


class ContextLost(EngineError):
    """The engine no longer holds the context that was named."""


class NoEngineForModel(EngineError):
    """No engine of the fleet serves the model that was asked for."""


class ModelAway(EngineError):
    """Every engine of the model is lost and none has come back for long, though they are still being started."""


class ModelRefused(EngineError):
    """A checkpoint that cannot be served: broken files, or a family we cannot run exactly."""


class UpstreamFailed(ParrotError):
    """The input `variable` will never come, because of `cause`."""

    def __init__(self, variable: str, cause: ParrotError) -> None:
        super().__init__(f"input variable {variable!r} failed: {cause}")
        self.variable = variable
        self.cause = cause

    def __reduce__(self) -> tuple[type[UpstreamFailed], tuple[str, ParrotError]]:
        return type(self), (self.variable, self.cause)


class Cancelled(ParrotError):
    """Stopped on request: the client left, the session ended, or a cancel was sent."""
