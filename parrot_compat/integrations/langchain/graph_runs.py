"""Runs of a LangGraph (and so of `create_agent`): what their metadata tells of each call of a model.

Nodes are ordinary Python, so nothing in a graph is planned but the chains that nodes run. What is known is told
with the calls: all calls of one run are one session, the calls of a fan-out (`Send`) are one stage, a node is a
function, and a text of an earlier answer that stands in a prompt again is an edge.

It knows metadata and text, and sends nothing. The invariant: what is told is true, and costs the app nothing.
"""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from langchain_core.outputs import LLMResult

from parrot_compat.integrations.plans.sessions import RunSession
from parrot_compat.integrations.process_lock import ProcessLock

__all__ = ["GraphCalls", "GraphRun", "fans_out"]

ANSWERS_KEPT = 200
LEAST_CHARACTERS = 16
"""Of an answer that is looked for in prompts: a shorter one stands in many by chance."""
SPANS_TOLD = 64


CALLS_KEPT = 50_000


class GraphRun:
    """One run of an app that is a graph. Threads share it."""

    def __init__(self, session: RunSession) -> None:
        session.is_of_many = True
        self._name = uuid.uuid4().hex
        self._lock = threading.RLock()  # the garbage collector ends a stream anywhere, in here too
        self._answers: OrderedDict[str, str] = OrderedDict()
        self._fanned_out: set[uuid.UUID] = set()

    def begun(self, call: uuid.UUID, *, is_fanned_out: bool = False) -> None:
        if is_fanned_out:
            with self._lock:
                self._fanned_out.add(call)

    def ended(self, call: uuid.UUID, text: str | None) -> None:
        with self._lock:
            self._fanned_out.discard(call)
            if text is not None and len(text) >= LEAST_CHARACTERS:
                self._answers[call.hex] = text
                while len(self._answers) > ANSWERS_KEPT:
                    self._answers.popitem(last=False)

    def hints(
        self, call: uuid.UUID, metadata: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        with self._lock:
            answers, is_fanned_out = dict(self._answers), call in self._fanned_out
        node = _node_of(metadata)
        told: dict[str, Any] = {"call": call.hex, "function": f"node:{node}"[:256]}
        if is_fanned_out:
            place = f"{_path(metadata)}/{metadata.get('langgraph_step')}"
            told["stage"] = {"kind": "map", "group": f"{self._name}/{place}"[:256]}
        if spans := _found(answers, messages):
            told["inputs"] = spans
        return told


class GraphCalls:
    """The calls of models that go on in nodes of graphs, and the run of each."""

    def __init__(self) -> None:
        self._lock = ProcessLock()
        self._runs: OrderedDict[uuid.UUID, GraphRun] = OrderedDict()

    def __len__(self) -> int:
        return len(self._runs)

    def begin(
        self,
        call: uuid.UUID,
        metadata: Mapping[str, Any] | None,
        run: Callable[[], GraphRun],
        *,
        is_fanned_out: bool = False,
    ) -> bool:
        """False: it is in no node."""
        if _node_of(metadata) is None:
            return False
        graph = run()
        graph.begun(call, is_fanned_out=is_fanned_out)
        with self._lock:
            self._runs[call] = graph
            if len(self._runs) > CALLS_KEPT:  # ends that never came: a handler of someone's raised
                self._runs.popitem(last=False)
        return True

    def end(self, call: uuid.UUID, response: LLMResult | None = None) -> None:
        with self._lock:
            graph = self._runs.pop(call, None)
        if graph is not None:
            one = response is not None and len(response.generations) == 1 and len(response.generations[0]) == 1
            graph.ended(call, response.generations[0][0].text if response is not None and one else None)

    def end_all(self, calls: Iterable[uuid.UUID]) -> None:
        for call in calls:
            self.end(call)

    def hints(self, model_run: Any, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """`model_run` has `run_id` and `metadata`, as LangChain's run managers do."""
        graph = self._runs.get(model_run.run_id) if model_run is not None else None
        return {} if graph is None else graph.hints(model_run.run_id, model_run.metadata or {}, messages)


def _node_of(metadata: Mapping[str, Any] | None) -> str | None:
    """The node of a graph in which this is called."""
    node = (metadata or {}).get("langgraph_node")
    return node if isinstance(node, str) else None


def fans_out(metadata: Mapping[str, Any] | None) -> bool:
    """This node was begun by a `Send`, of which there are as many as the app wants."""
    triggers = (metadata or {}).get("langgraph_triggers") or ()
    return any(str(trigger).startswith("__pregel_push") for trigger in triggers)


def _path(metadata: Mapping[str, Any]) -> str:
    """The node, with the nodes whose graphs it is in: the same for all copies that run beside one another."""
    places = str(metadata.get("langgraph_checkpoint_ns") or _node_of(metadata)).split("|")
    return "/".join(place.partition(":")[0] for place in places)


def _found(answers: Mapping[str, str], messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Where earlier answers stand in the messages, the latest answers first, no text told twice."""
    spans: list[dict[str, Any]] = []
    taken: dict[int, list[tuple[int, int]]] = {}
    for call, text in reversed(list(answers.items())):
        for number, message in enumerate(messages):
            content = message.get("content")
            start = content.find(text) if isinstance(content, str) else -1
            end = start + len(text)
            if start < 0 or any(start < upto and begin < end for begin, upto in taken.get(number, ())):
                continue
            taken.setdefault(number, []).append((start, end))
            spans.append({"name": "answer", "message": number, "start": start, "end": end, "from": call})
            if len(spans) == SPANS_TOLD:
                return spans
    return spans
