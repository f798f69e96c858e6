"""What an app's callbacks saw, in a form in which two runs of one app can be compared."""

from __future__ import annotations

import re
import threading
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.prompt_values import PromptValue

Tree = tuple[Any, ...]


def plain(value: Any) -> Any:
    """A value without what differs from run to run: ids of messages, hits of the server's cache."""
    if isinstance(value, BaseMessage):
        kind = value.type.removesuffix("MessageChunk").lower()
        metadata = {key: item for key, item in value.response_metadata.items() if key != "id"}
        return (kind, value.content, _told(metadata), _told({"usage": getattr(value, "usage_metadata", None)}))
    if isinstance(value, PromptValue):
        return [plain(message) for message in value.to_messages()]
    if isinstance(value, LLMResult):
        output = {key: item for key, item in (value.llm_output or {}).items() if key != "id"}
        return [[plain(one.message) for one in many] for many in value.generations], _told(output)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return _without_ids(value)


def _told(facts: dict[str, Any]) -> str:
    """How much of a prompt was in the server's cache depends on what ran before."""
    return re.sub(r"('(?:cached_tokens|cache_read)': )\d+", r"\1…", str(sorted(map(str, facts.items()))))


def _without_ids(value: Any) -> str:
    """LangGraph names its tasks, and our server the calls of tools, anew in every run."""
    told = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|(call_|chatcmpl-)[0-9A-Za-z]+", "…", repr(value))
    return re.sub(r"('(?:cached_tokens|cache_read)': )\d+", r"\1…", told)


class Recorder(BaseCallbackHandler):
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._order: list[UUID] = []
        self._parents: dict[UUID, UUID | None] = {}
        self._events: dict[UUID, list[Any]] = {}

    def _begin(self, event: str, run_id: UUID, parent: UUID | None, *said: Any) -> None:
        with self._lock:
            self._order.append(run_id)
            self._parents[run_id] = parent
            self._events[run_id] = [(event, *said)]

    def _add(self, event: str, run_id: UUID, *said: Any) -> None:
        with self._lock:
            # How often a stream speaks is a matter of timing; that it does is not.
            if event != "token" or self._events[run_id][-1] != ("token",):
                self._events[run_id].append((event, *said))

    def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: UUID, **kw: Any) -> None:
        said = (kw.get("name"), kw.get("run_type"), sorted(kw.get("tags") or ()), _without_ids(kw.get("metadata")))
        self._begin("chain", run_id, kw.get("parent_run_id"), *said, plain(inputs))

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: UUID, **kw: Any) -> None:
        told = _without_ids(kw.get("metadata"))
        said = (kw.get("name"), sorted(kw.get("tags") or ()), told, str(kw.get("invocation_params")))
        self._begin("model", run_id, kw.get("parent_run_id"), *said, str(kw.get("options")), plain(messages))

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kw: Any) -> None:
        self._add("end", run_id, plain(outputs), plain(kw.get("inputs")))

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kw: Any) -> None:
        self._add("error", run_id, type(error).__name__, str(error))

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kw: Any) -> None:
        self._add("token", run_id)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kw: Any) -> None:
        self._add("end", run_id, plain(response))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kw: Any) -> None:
        self._add("error", run_id, type(error).__name__, str(error))

    def on_retry(self, retry_state: Any, *, run_id: UUID, **kw: Any) -> None:
        self._add("retry", run_id)

    def trees(self) -> list[Tree]:
        """Every root with all that happened under it. Runs beside one another have no order: threads run them."""

        def tree(run: UUID) -> Tree:
            children = [tree(child) for child in self._order if self._parents[child] == run]
            return (self._events[run], sorted(children, key=repr))

        return sorted((tree(run) for run in self._order if self._parents[run] not in self._events), key=repr)
