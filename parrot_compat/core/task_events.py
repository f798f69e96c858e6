"""What is told of a task when it is accepted, when it begins to answer and when it is over.

It knows events and tasks, nothing of who listens.
"""

from __future__ import annotations

from .call import Usage
from .engine import Chunk
from .events import CallFailed, CallFinished, CallSubmitted, FirstToken
from .task import Task

__all__ = ["beginning_of", "ending_of", "submission_of"]


def submission_of(task: Task) -> CallSubmitted:
    return CallSubmitted(
        at_s=task.submitted_s,
        session=task.flow.session,
        tenant=task.flow.tenant,
        call=task.call.id,
        model=task.model,
        function=task.call.function,
        inputs=task.call.prompt.inputs(),
        output=task.call.output,
    )


def beginning_of(task: Task, first: Chunk) -> FirstToken:
    """`first` is the first chunk that said anything: the engine tells in it how long the prompt had waited there."""
    assert task.ready_s is not None and task.started_s is not None and task.first_token_s is not None
    assert task.engine is not None
    told = first.prompt or first.usage or Usage()
    return FirstToken(
        at_s=task.first_token_s,
        session=task.flow.session,
        call=task.call.id,
        model=task.model,
        engine=task.engine,
        submitted_s=task.submitted_s,
        ready_s=task.ready_s,
        started_s=task.started_s,
        waited_s=told.waited_s,
    )


def ending_of(task: Task) -> CallFinished | CallFailed:
    assert task.finished_s is not None
    if task.result is None:
        assert task.failure is not None
        return CallFailed(
            at_s=task.finished_s,
            session=task.flow.session,
            tenant=task.flow.tenant,
            call=task.call.id,
            function=task.call.function,
            model=task.model,
            engine=task.engine,
            error=task.failure,
            usage=_usage_so_far(task),
            submitted_s=task.submitted_s,
        )
    assert task.ready_s is not None
    return CallFinished(
        at_s=task.finished_s,
        session=task.flow.session,
        tenant=task.flow.tenant,
        call=task.call.id,
        function=task.call.function,
        model=task.model,
        engine=task.result.engine,
        finish=task.result.finish,
        usage=task.result.usage,
        submitted_s=task.submitted_s,
        ready_s=task.ready_s,
        started_s=task.result.started_s,
        first_token_s=task.result.first_token_s,
    )


def _usage_so_far(task: Task) -> Usage:
    """Of a task that has failed: an engine that was not asked has computed nothing."""
    prompt_tokens = 0 if task.started_s is None else task.prompt_tokens or 0
    return Usage(prompt_tokens=prompt_tokens, output_tokens=task.drawn_tokens)
