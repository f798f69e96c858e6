"""Descriptions: a session as plain values, for people, inspection endpoints and tests.

It reads what is there and changes nothing; it knows nothing of HTTP.

The invariants: everything in a description can be written as JSON; it tells of the calls and variables that were there
when it was made and names no others, each as it is when its turn comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .call import CallId
from .errors import ParrotError, UpstreamFailed
from .graph import Graph
from .task import Task
from .variable import Variable

__all__ = ["Description", "described_failure"]


class Description:
    """Of one session. A session may have 200,000 calls, which take seconds: whoever must not hold others up for so
    long takes some of them at a time."""

    def __init__(
        self, id: str, name: str | None, tasks: Mapping[CallId, Task], variables: Mapping[str, Variable], graph: Graph
    ) -> None:
        self.id = id
        self.name = name
        self._tasks = dict(tasks)
        self._variables = tuple(variables.values())
        self._graph = graph

    def calls(self) -> Iterator[dict[str, Any]]:
        return (_call(task, self._graph) for task in self._tasks.values())

    def variables(self) -> Iterator[dict[str, Any]]:
        return map(self._variable, self._variables)

    def whole(self) -> dict[str, Any]:
        """As of one moment."""
        return {"id": self.id, "name": self.name, "calls": list(self.calls()), "variables": list(self.variables())}

    def _variable(self, variable: Variable) -> dict[str, Any]:
        failure, producer = variable.failure, self._graph.producer(variable.name)
        state = "pending" if not variable.is_settled else "ready" if failure is None else "failed"
        return {
            "id": variable.name,
            "state": state,
            "producer": producer if producer in self._tasks else None,
            "consumers": [call for call in self._graph.consumers(variable.name) if call in self._tasks],
            "characters": len(variable.text_so_far),
            "error": None if failure is None else described_failure(failure),
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
