"""Descriptions: a session as plain values, for people, inspection endpoints and tests.

It reads what is there and changes nothing; it knows nothing of HTTP.

The invariant: everything in a description can be written as JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .errors import ParrotError, UpstreamFailed
from .graph import Graph
from .task import Task
from .variable import Variable

__all__ = ["described", "described_failure"]


def described(
    id: str, name: str | None, tasks: Iterable[Task], variables: Mapping[str, Variable], graph: Graph
) -> dict[str, Any]:
    return {
        "id": id,
        "name": name,
        "calls": [_call(task, graph) for task in tasks],
        "variables": [_variable(variable, graph) for variable in variables.values()],
    }


def described_failure(error: ParrotError) -> dict[str, Any]:
    failure: dict[str, Any] = {"type": type(error).__name__, "message": error.message}
    if isinstance(error, UpstreamFailed):
        failure |= {"variable": error.variable, "cause": described_failure(error.cause)}
    return failure


def _prompt_tokens(task: Task) -> int | None:
    """As its engine has counted them, else as it was rendered, which for a text engine is a guess."""
    if task.result is not None and task.result.usage.prompt_tokens:
        return task.result.usage.prompt_tokens
    return task.prompt_tokens


def _call(task: Task, graph: Graph) -> dict[str, Any]:
    return {
        "id": task.call.id,
        "function": task.call.function,
        "model": task.model,
        "state": task.state.value,
        "objective": task.objective.kind,
        "group": task.objective.group,
        "slack_s": task.objective.slack_s,
        "engine": task.engine,
        "inputs": list(task.call.prompt.inputs()),
        "missing": sorted(graph.missing(task.call.id)),
        "output": task.call.output,
        "submitted_s": task.submitted_s,
        "ready_s": task.ready_s,
        "started_s": task.started_s,
        "first_token_s": task.first_token_s,
        "finished_s": task.finished_s,
        "queue_s": task.queue_s,
        "prompt_tokens": _prompt_tokens(task),
        "output_tokens": task.drawn_tokens,
        "cached_tokens": task.cached_tokens,
        "error": None if task.failure is None else described_failure(task.failure),
    }


def _variable(variable: Variable, graph: Graph) -> dict[str, Any]:
    failure = variable.failure
    state = "pending" if not variable.is_settled else "ready" if failure is None else "failed"
    return {
        "id": variable.name,
        "state": state,
        "producer": graph.producer(variable.name),
        "consumers": list(graph.consumers(variable.name)),
        "characters": len(variable.text_so_far),
        "error": None if failure is None else described_failure(failure),
    }
