"""What runs: the runnable that a run of LangChain's is, and what it begins with.

A callback says a run's id, its parent's and its tags, but not what runs. That is found in the parent (its
steps have numbers and keys) or, where the parent is someone's own code, in the calling frames: read only, and
only for the names `self`, `input`, `config` and `kwargs`.

It knows runnables and frames and nothing of plans.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from langchain_core.runnables import (
    Runnable,
    RunnableBranch,
    RunnableParallel,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBinding, RunnableBindingBase, RunnableEach
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_core.runnables.passthrough import RunnableAssign
from langchain_core.runnables.retry import RunnableRetry

from parrot_compat.integrations.plans.switches import is_on

from .groups import width_of
from .kinds import kind_of
from .runs import Run
from .values import UNKNOWN

__all__ = ["Invocation", "calling_frames", "child_of", "decided_in", "invocation_of", "known", "step_number", "unbound"]

FRAMES_SEARCHED = 30
STREAMS = ("_transform_stream_with_config", "_atransform_stream_with_config")
BATCHES = ("batch", "_batch_with_config", "_abatch_with_config")
BATCHED_WHOLE = (RunnableWithFallbacks, RunnableRetry)
"""In a batch all their runs begin before what they hold is batched, which begins all of its own: those are planned as
one. What they tell of their inputs may be something else."""


def step_number(tags: Sequence[str] | None) -> int | None:
    """Which step of its sequence a run is, from 0."""
    for tag in tags or ():
        if tag.startswith("seq:step:"):
            return int(tag.removeprefix("seq:step:")) - 1
    return None


def unbound(runnable: Any) -> Any:
    """What begins a run when this is called; bindings begin none. `None` if that is decided when it is called."""
    while True:
        kind = kind_of(runnable)
        if kind is RunnableBinding or getattr(type(runnable), "__parrot_compiled__", False):
            runnable = runnable.bound
            continue
        late = isinstance(runnable, DynamicRunnable | RunnableBindingBase) and kind is not RunnableRetry
        return None if late else runnable


def child_of(parent: Any, tags: Sequence[str] | None) -> Any:
    """The runnable of a run inside `parent`'s run, if its kind of parent says so."""
    kind = kind_of(parent)
    if kind is RunnableSequence:
        number = step_number(tags)
        return unbound(parent.steps[number]) if number is not None and number < len(parent.steps) else None
    if kind is RunnableParallel:
        keys = [tag.removeprefix("map:key:") for tag in tags or () if tag.startswith("map:key:")]
        return unbound(parent.steps__.get(keys[0])) if keys else None
    if kind is RunnableAssign:
        return unbound(parent.mapper)
    if kind in (RunnableEach, RunnableRetry):
        return unbound(parent.bound)
    if kind is RunnableBranch:
        return unbound(_branch_of(parent, tags or ()))
    return None


def _branch_of(branch: Any, tags: Sequence[str]) -> Any:
    for tag in tags:
        if tag == "branch:default":
            return branch.default
        for kind, place in (("condition:", 0), ("branch:", 1)):
            if tag.startswith(kind):
                return branch.branches[int(tag.removeprefix(kind)) - 1][place]
    return None


def decided_in(run: Run, tags: Sequence[str]) -> tuple[Run, int] | None:
    """Where this is the branch that a step of a sequence decided for: that sequence, and the step behind."""
    decision = run.parent
    sequence = decision.parent if decision is not None else None
    if decision is None or sequence is None or decision.step is None:
        return None
    is_branch = kind_of(decision.runnable) is RunnableBranch and any(tag.startswith("branch:") for tag in tags)
    return (sequence, decision.step + 1) if is_branch and kind_of(sequence.runnable) is RunnableSequence else None


@dataclass(frozen=True, slots=True)
class Invocation:
    """What is being called, with what: as much of it as could be found."""

    runnable: Runnable[Any, Any] | None
    input: Any = UNKNOWN
    arguments: Mapping[str, Any] = field(default_factory=dict)
    streamed: bool = False
    width: int | None = None


def known(inputs: Any) -> Any:
    """What a callback says that a run begins with; of a stream it does not. No code of the app's is run for it."""
    said = inputs.get("input") if type(inputs) is dict and len(inputs) == 1 else None
    return UNKNOWN if type(said) is str and not said else inputs


def _is_wrapped(runnable: Any, inputs: Any, parent: Run) -> bool:
    """Fallbacks that are batched tell of what is no dict as of {"input": it}; what they hold is told of again."""
    if kind_of(runnable) is not RunnableWithFallbacks or type(inputs) is not dict or inputs.keys() != {"input"}:
        return False
    return kind_of(parent.runnable) is RunnableEach or (
        parent.announced is not None and len(parent.announced.inputs) > 1
    )


def invocation_of(parent: Run | None, inputs: Any, tags: Sequence[str] | None) -> Invocation:
    """The invocation that begins a run in `parent`, or one that nothing is known to be around."""
    runnable = child_of(parent.runnable, tags) if parent is not None else None
    if runnable is not None and parent is not None:
        return Invocation(runnable, UNKNOWN if _is_wrapped(runnable, inputs, parent) else known(inputs))
    # Only compiled chains are planned where frames are not to be looked at.
    return calling_frames(inputs) if is_on() else Invocation(None)


def calling_frames(inputs: Any) -> Invocation:
    """The invocation that begins a run, from the frames of the callback that tells of it."""
    found: Any = None
    streamed = False
    value = known(inputs)
    arguments: Mapping[str, Any] = {}
    width: int | None = None
    frame: FrameType | None = sys._getframe(2)
    for _ in range(FRAMES_SEARCHED):
        if frame is None:
            break
        owner = _self_of(frame)
        if found is None and isinstance(owner, Runnable):
            found = owner
            streamed = frame.f_code.co_name in STREAMS
            is_batch = kind_of(owner) in BATCHED_WHOLE and frame.f_code.co_name in BATCHES
            value = UNKNOWN if streamed or is_batch else inputs
        if found is not None:
            if owner is not found:
                if owner is not None:
                    break  # whoever calls it
            else:
                local = frame.f_locals
                arguments = local.get("kwargs") or arguments
                width = width_of(local.get("config")) or width
                if streamed and frame.f_code.co_name in ("stream", "astream"):
                    value = local.get("input", UNKNOWN)
                    break
        frame = frame.f_back
    return Invocation(found, value, arguments, streamed, width)


def _self_of(frame: FrameType) -> Any:
    code = frame.f_code
    if not code.co_argcount or code.co_varnames[0] != "self":
        return None
    return frame.f_locals.get("self")
