"""What is told of a task when it is accepted and when it is over.

It knows events and tasks, nothing of who listens.
"""

from __future__ import annotations

from .events import CallFailed, CallFinished, CallSubmitted
from .task import Task

__all__ = ["ending_of", "submission_of"]


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
